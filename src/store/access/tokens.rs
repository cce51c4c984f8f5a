//! Bearer tokens, and who holds them. Called by the API for every request whose token it does not
//! have at hand, and by those who make and revoke tokens. Promises that a token's text is never
//! kept, and that an expired or revoked one is not found.

use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::domain::{NetworkIdentifier, Role, Scope, Timestamp, TokenDigest};
use crate::store::columns::Parameters;
use crate::store::{AccessError, Page, Store, StoreError};

/// A token to be kept.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What people call it; of a session, whose it is.
    pub name: String,
    /// What is kept of it.
    pub digest: TokenDigest,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// None never expires.
    pub expires_at: Option<Timestamp>,
    /// The user whose session it is.
    pub user: Option<Uuid>,
}

/// A token that is kept, without its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRow {
    /// Names it in the API.
    pub identifier: Uuid,
    /// What people call it; of a session, whose it is.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// The user whose session it is.
    pub user: Option<Uuid>,
    /// When it was made.
    pub created_at: Timestamp,
    /// None never expires.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, within a minute.
    pub last_used_at: Option<Timestamp>,
}

const COLUMNS: &str = "\
identifier, name, role, network_identifier, account_identifier, creation_timestamp, \
expiry_timestamp, last_used_timestamp";

const HOLDER: &str = "where digest = $1 and (expiry_timestamp is null or expiry_timestamp > now())";

const INSERT: &str = "\
insert into token (identifier, name, digest, role, network_identifier, account_identifier,
    expiry_timestamp)
values ($1, $2, $3, $4, $5, $6, $7)";

/// Parameters: scope or null, identifier to go on behind or null, limit.
const LIST: &str = "\
where account_identifier is null
  and ($1::uuid is null or network_identifier = $1)
  and ($2::uuid is null or identifier > $2)
order by identifier limit $3";

const ONE: &str = "\
where account_identifier is null and identifier = $2
  and ($1::uuid is null or network_identifier = $1)";

const REVOKE: &str = "\
delete from token where identifier = $2 and account_identifier is null
  and ($1::uuid is null or network_identifier = $1)";

const REVOKE_NAMED: &str = "delete from token where name = $1 and account_identifier is null";

const END_SESSION: &str =
    "delete from token where identifier = $1 and account_identifier is not null";

const USED: &str = "update token set last_used_timestamp = now() where identifier = $1";

/// By both clocks, the database's and ours, which is the parameter.
const FORGET_EXPIRED: &str =
    "delete from token where expiry_timestamp < least(now(), $1) - interval '1 day'";

impl Store {
    /// The token with this digest, if it is valid now.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn token_of(&self, digest: TokenDigest) -> Result<Option<TokenRow>, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            let statement = format!("select {COLUMNS} from token {HOLDER}");
            let digest = digest.0.as_slice();
            let row = connection.query_typed_opt(&statement, &[(&digest, Type::BYTEA)]).await?;
            Ok(row.as_ref().map(token).transpose()?)
        })
        .await
    }

    /// The token was used just now.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn note_use(&self, token: Uuid) -> Result<(), StoreError> {
        self.within(async {
            self.connection().await?.execute_typed(USED, &[(&token, Type::UUID)]).await?;
            Ok(())
        })
        .await
    }

    /// Keeps a token; gives the identifier that it got. Those that expired lately go meanwhile.
    ///
    /// # Errors
    /// When the name is taken, the network or the user does not exist, or the database is unavailable.
    pub async fn create_token(&self, new: &NewToken) -> Result<Uuid, AccessError> {
        self.within(async {
            let connection = self.connection().await?;
            Ok(insert(&**connection, new).await?)
        })
        .await
    }

    /// The tokens of a scope, sessions left out, one more than the page has room for if there are
    /// more.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn list_tokens(
        &self,
        scope: Scope,
        page: &Page<Uuid>,
    ) -> Result<Vec<TokenRow>, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            let (network, limit) = (scope.network().map(|network| network.0), page.row_count());
            let parameters: Parameters<'_> =
                &[(&network, Type::UUID), (&page.after, Type::UUID), (&limit, Type::INT8)];
            let statement = format!("select {COLUMNS} from token {LIST}");
            let rows = connection.query_typed(&statement, parameters).await?;
            Ok(rows.iter().map(token).collect::<Result<_, _>>()?)
        })
        .await
    }

    /// One token of a scope.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn token(
        &self,
        scope: Scope,
        identifier: Uuid,
    ) -> Result<Option<TokenRow>, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            let network = scope.network().map(|network| network.0);
            let parameters: Parameters<'_> = &[(&network, Type::UUID), (&identifier, Type::UUID)];
            let statement = format!("select {COLUMNS} from token {ONE}");
            let row = connection.query_typed_opt(&statement, parameters).await?;
            Ok(row.as_ref().map(token).transpose()?)
        })
        .await
    }

    /// Revokes a token of a scope; false if there is none.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn revoke_token(&self, scope: Scope, identifier: Uuid) -> Result<bool, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            let network = scope.network().map(|network| network.0);
            let parameters: Parameters<'_> = &[(&network, Type::UUID), (&identifier, Type::UUID)];
            Ok(connection.execute_typed(REVOKE, parameters).await? > 0)
        })
        .await
    }

    /// Revokes the token of this name; false if there is none.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn revoke_token_named(&self, name: &str) -> Result<bool, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            Ok(connection.execute_typed(REVOKE_NAMED, &[(&name, Type::TEXT)]).await? > 0)
        })
        .await
    }

    /// Ends a session; false if there is none.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn end_session(&self, identifier: Uuid) -> Result<bool, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            Ok(connection.execute_typed(END_SESSION, &[(&identifier, Type::UUID)]).await? > 0)
        })
        .await
    }
}

/// Inserts a token, and deletes those that expired lately.
pub(super) async fn insert(
    client: &impl GenericClient,
    new: &NewToken,
) -> Result<Uuid, tokio_postgres::Error> {
    let identifier = Uuid::new_v4();
    let (digest, role) = (new.digest.0.as_slice(), new.role.name());
    let network = new.scope.network().map(|network| network.0);
    let expires_at = new.expires_at.map(Timestamp::to_jiff);
    let now = Timestamp::now().to_jiff();
    client.execute_typed(FORGET_EXPIRED, &[(&now, Type::TIMESTAMPTZ)]).await?;
    let parameters: Parameters<'_> = &[
        (&identifier, Type::UUID),
        (&new.name, Type::TEXT),
        (&digest, Type::BYTEA),
        (&role, Type::TEXT),
        (&network, Type::UUID),
        (&new.user, Type::UUID),
        (&expires_at, Type::TIMESTAMPTZ),
    ];
    client.execute_typed(INSERT, parameters).await?;
    Ok(identifier)
}

fn token(row: &Row) -> Result<TokenRow, tokio_postgres::Error> {
    let timestamp = |index: usize| -> Result<Option<Timestamp>, tokio_postgres::Error> {
        Ok(row.try_get::<_, Option<jiff::Timestamp>>(index)?.map(Into::into))
    };
    Ok(TokenRow {
        identifier: row.try_get(0)?,
        name: row.try_get(1)?,
        role: role(row.try_get(2)?),
        scope: scope(row.try_get(3)?),
        user: row.try_get(4)?,
        created_at: row.try_get::<_, jiff::Timestamp>(5)?.into(),
        expires_at: timestamp(6)?,
        last_used_at: timestamp(7)?,
    })
}

/// A role as the table holds it.
pub(in crate::store) fn role(text: &str) -> Role {
    text.parse().expect("the table holds no other")
}

/// A scope as the tables hold it.
pub(in crate::store) fn scope(network: Option<Uuid>) -> Scope {
    Scope::of(network.map(NetworkIdentifier))
}
