//! Bearer tokens. Called by the API, for requests whose token is not cached and to create and revoke
//! tokens, and by the command line. Only a token's digest is stored; an expired or revoked token is not
//! found.

use serde::Serialize;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{NetworkIdentifier, Role, Scope, Timestamp, TokenDigest};
use crate::store::columns::Parameters;
use crate::store::{AccessError, Page, Store, StoreError};

/// A token to be stored.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its name; for a session, the user's name.
    pub name: String,
    /// Its digest.
    pub digest: TokenDigest,
    /// What the holder may do.
    pub role: Role,
    /// The networks in which the role applies.
    pub scope: Scope,
    /// None if it never expires.
    pub expires_at: Option<Timestamp>,
    /// For a session, the user's identifier.
    pub user: Option<Uuid>,
}

// Of a session, the name is the user's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = TokenItem)]
#[expect(missing_docs, reason = "the members of the answer")]
pub struct TokenRow {
    pub identifier: Uuid,
    pub name: String,
    pub role: Role,
    /// The one network in which the role holds; null for all.
    #[schema(value_type = Option<Uuid>)]
    pub network: Option<NetworkIdentifier>,
    // For a session, the user's identifier.
    #[serde(skip)]
    pub user: Option<Uuid>,
    pub creation_timestamp: jiff::Timestamp,
    /// Null: it does not expire.
    pub expiry_timestamp: Option<jiff::Timestamp>,
    /// Precise to a minute.
    pub last_used_timestamp: Option<jiff::Timestamp>,
}

const COLUMNS: &str = "\
identifier, name, role, network_identifier, account_identifier, creation_timestamp, \
expiry_timestamp, last_used_timestamp";

const HOLDER: &str = "where digest = $1 and (expiry_timestamp is null or expiry_timestamp > now())";

const INSERT: &str = "\
insert into token (identifier, name, digest, role, network_identifier, account_identifier,
    expiry_timestamp)
values ($1, $2, $3, $4, $5, $6, $7)";

/// Parameters: scope or null, identifier after which to continue or null, limit.
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

/// Only if no other has the name.
const REVOKE_NAMED: &str = "\
with named as (select identifier from token where name = $1 and account_identifier is null),
revoked as (
    delete from token
    where identifier in (select identifier from named) and (select count(*) from named) = 1
)
select count(*) from named";

const END_SESSION: &str =
    "delete from token where identifier = $1 and account_identifier is not null";

const UPDATE_LAST_USED: &str = "update token set last_used_timestamp = now() where identifier = $1";

/// Expired by both clocks. Parameter: ours.
const DELETE_EXPIRED: &str =
    "delete from token where expiry_timestamp < least(now(), $1) - interval '1 day'";

impl Store {
    /// The token with this digest, if it is valid now.
    pub async fn token_of(&self, digest: TokenDigest) -> Result<Option<TokenRow>, StoreError> {
        let statement = format!("select {COLUMNS} from token {HOLDER}");
        self.one(&statement, &[(&digest.0.as_slice(), Type::BYTEA)], token).await
    }

    /// Records that the token was used now.
    pub async fn update_last_used(&self, token: Uuid) -> Result<(), StoreError> {
        self.change(UPDATE_LAST_USED, &[(&token, Type::UUID)]).await.map(drop)
    }

    /// Stores a token, and returns its identifier. Also deletes expired tokens.
    pub async fn create_token(&self, new: &NewToken) -> Result<Uuid, AccessError> {
        self.within(async {
            let connection = self.connection().await?;
            Ok(insert(&**connection, new).await?)
        })
        .await
    }

    /// The tokens of a scope without sessions, one more than the page holds if there are more.
    pub async fn list_tokens(
        &self,
        scope: Scope,
        page: &Page<Uuid>,
    ) -> Result<Vec<TokenRow>, StoreError> {
        let limit = page.row_count();
        let parameters: Parameters<'_> =
            &[(&scope, Type::UUID), (&page.after, Type::UUID), (&limit, Type::INT8)];
        self.list(&format!("select {COLUMNS} from token {LIST}"), parameters, token).await
    }

    /// One token of a scope.
    pub async fn token(
        &self,
        scope: Scope,
        identifier: Uuid,
    ) -> Result<Option<TokenRow>, StoreError> {
        let parameters: Parameters<'_> = &[(&scope, Type::UUID), (&identifier, Type::UUID)];
        self.one(&format!("select {COLUMNS} from token {ONE}"), parameters, token).await
    }

    /// Revokes a token of a scope; false if it does not exist.
    pub async fn revoke_token(&self, scope: Scope, identifier: Uuid) -> Result<bool, StoreError> {
        let parameters: Parameters<'_> = &[(&scope, Type::UUID), (&identifier, Type::UUID)];
        Ok(self.change::<StoreError>(REVOKE, parameters).await? > 0)
    }

    /// Revokes the token of this name, if there is only one; gives how many there are.
    pub async fn revoke_token_named(&self, name: &str) -> Result<i64, StoreError> {
        let count = self.one(REVOKE_NAMED, &[(&name, Type::TEXT)], |row| row.try_get(0)).await?;
        Ok(count.expect("a count is one row"))
    }

    /// Ends a session; false if it does not exist.
    pub async fn end_session(&self, identifier: Uuid) -> Result<bool, StoreError> {
        Ok(self.change::<StoreError>(END_SESSION, &[(&identifier, Type::UUID)]).await? > 0)
    }
}

/// Inserts a token, and deletes expired ones.
pub(super) async fn insert(
    client: &impl GenericClient,
    new: &NewToken,
) -> Result<Uuid, tokio_postgres::Error> {
    let identifier = Uuid::new_v4();
    client.execute_typed(DELETE_EXPIRED, &[(&Timestamp::now(), Type::TIMESTAMPTZ)]).await?;
    let parameters: Parameters<'_> = &[
        (&identifier, Type::UUID),
        (&new.name, Type::TEXT),
        (&new.digest.0.as_slice(), Type::BYTEA),
        (&new.role, Type::TEXT),
        (&new.scope, Type::UUID),
        (&new.user, Type::UUID),
        (&new.expires_at, Type::TIMESTAMPTZ),
    ];
    client.execute_typed(INSERT, parameters).await?;
    Ok(identifier)
}

fn token(row: &Row) -> Result<TokenRow, tokio_postgres::Error> {
    Ok(TokenRow {
        identifier: row.try_get(0)?,
        name: row.try_get(1)?,
        role: row.try_get(2)?,
        network: row.try_get(3)?,
        user: row.try_get(4)?,
        creation_timestamp: row.try_get(5)?,
        expiry_timestamp: row.try_get(6)?,
        last_used_timestamp: row.try_get(7)?,
    })
}
