//! Users, who sign in with a password; stored in the table `account`. Called by the API and the command
//! line. A change of a user's role, scope or password ends the user's sessions in the same transaction.

use serde::Serialize;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use super::tokens::{self, NewToken};
use crate::domain::{NetworkIdentifier, Role, Scope};
use crate::store::columns::Parameters;
use crate::store::{AccessError, Page, Store, StoreError};

/// A user to be created.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Unique in the scope, and among all who sign in with the name alone.
    pub name: String,
    /// See [`crate::domain::hash_password`].
    pub password_hash: String,
    /// What the user may do.
    pub role: Role,
    /// The networks in which the role applies.
    pub scope: Scope,
    /// Of an admin of one network: the name is unique in it alone.
    pub signs_in_with_network: bool,
}

/// A change of a user; members that are none stay as they are.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// The hash of the new password.
    pub password_hash: Option<String>,
    /// The new role.
    pub role: Option<Role>,
    /// The new scope.
    pub scope: Option<Scope>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = UserItem)]
#[expect(missing_docs, reason = "the members of the answer")]
pub struct UserRow {
    pub identifier: Uuid,
    pub name: String,
    pub role: Role,
    /// The one network in which the role holds; null for all.
    #[schema(value_type = Option<Uuid>)]
    pub network: Option<NetworkIdentifier>,
    pub creation_timestamp: jiff::Timestamp,
    /// Whether signing in takes the network beside the name: the user was created by an admin of that
    /// network alone, and the name is unique in it alone.
    pub signs_in_with_network: bool,
}

const COLUMNS: &str =
    "identifier, name, role, network_identifier, creation_timestamp, signs_in_with_network";

const INSERT: &str = "\
insert into account (identifier, name, password_hash, role, network_identifier, signs_in_with_network)
values ($1, $2, $3, $4, $5, $6)";

/// Parameters: scope or null, identifier after which to continue or null, limit.
const LIST: &str = "\
where ($1::uuid is null or network_identifier = $1)
  and ($2::uuid is null or identifier > $2)
order by identifier limit $3";

const ONE: &str = "where identifier = $2 and ($1::uuid is null or network_identifier = $1)";

const SIGNS_IN: &str = "\
where name = $1
  and case when $2::uuid is null then not signs_in_with_network else network_identifier = $2 end";

const CHANGE: &str = "\
update account
set password_hash = coalesce($3, password_hash), role = coalesce($4, role),
    network_identifier = case when $5 then $6 else network_identifier end,
    signs_in_with_network = signs_in_with_network and not ($5 and $6 is null)
where identifier = $2 and ($1::uuid is null or network_identifier = $1)";

const END_SESSIONS: &str = "delete from token where account_identifier = $1";

const DELETE: &str = "\
delete from account where identifier = $2 and ($1::uuid is null or network_identifier = $1)";

/// The lock delays a change of the user until the session is committed.
const LOCK_UNCHANGED: &str = "\
select from account
where identifier = $1 and password_hash = $2 and role = $3
  and network_identifier is not distinct from $4
for share";

/// Keeps a user's 100 newest sessions.
const END_OLD_SESSIONS: &str = "\
delete from token where identifier in (
    select identifier from token where account_identifier = $1
    order by creation_timestamp desc, identifier offset 100
)";

impl Store {
    /// Creates a user.
    pub async fn create_user(&self, new: &NewUser) -> Result<Uuid, AccessError> {
        let identifier = Uuid::new_v4();
        let parameters: Parameters<'_> = &[
            (&identifier, Type::UUID),
            (&new.name, Type::TEXT),
            (&new.password_hash, Type::TEXT),
            (&new.role, Type::TEXT),
            (&new.scope, Type::UUID),
            (&new.signs_in_with_network, Type::BOOL),
        ];
        self.change::<AccessError>(INSERT, parameters).await?;
        Ok(identifier)
    }

    /// The users of a scope, one more than the page holds if there are more.
    pub async fn list_users(
        &self,
        scope: Scope,
        page: &Page<Uuid>,
    ) -> Result<Vec<UserRow>, StoreError> {
        let limit = page.row_count();
        let parameters: Parameters<'_> =
            &[(&scope, Type::UUID), (&page.after, Type::UUID), (&limit, Type::INT8)];
        self.list(&format!("select {COLUMNS} from account {LIST}"), parameters, user).await
    }

    /// One user of a scope.
    pub async fn user(
        &self,
        scope: Scope,
        identifier: Uuid,
    ) -> Result<Option<UserRow>, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            Ok(select_one(&connection, scope, identifier).await?)
        })
        .await
    }

    /// The user who signs in with this name, and with this network or with none, and the password's hash.
    pub async fn user_named(
        &self,
        name: &str,
        network: Option<NetworkIdentifier>,
    ) -> Result<Option<(UserRow, String)>, StoreError> {
        let parameters: Parameters<'_> = &[(&name, Type::TEXT), (&network, Type::UUID)];
        let statement = format!("select {COLUMNS}, password_hash from account {SIGNS_IN}");
        self.one(&statement, parameters, |row| Ok((user(row)?, row.try_get(6)?))).await
    }

    /// Changes a user of a scope, and ends the user's sessions; none if the user does not exist.
    pub async fn change_user(
        &self,
        own: Scope,
        identifier: Uuid,
        change: &UserChange,
    ) -> Result<Option<UserRow>, AccessError> {
        self.within(async {
            let mut connection = self.connection().await?;
            let transaction = connection.transaction().await?;
            let moves = change.scope.is_some();
            let network = change.scope.and_then(Scope::network);
            let parameters: Parameters<'_> = &[
                (&own, Type::UUID),
                (&identifier, Type::UUID),
                (&change.password_hash, Type::TEXT),
                (&change.role, Type::TEXT),
                (&moves, Type::BOOL),
                (&network, Type::UUID),
            ];
            if transaction.execute_typed(CHANGE, parameters).await? == 0 {
                return Ok(None);
            }
            transaction.execute_typed(END_SESSIONS, &[(&identifier, Type::UUID)]).await?;
            transaction.commit().await?;
            Ok(select_one(&connection, Scope::All, identifier).await?)
        })
        .await
    }

    /// Deletes a user of a scope, and the user's sessions; false if the user does not exist.
    pub async fn delete_user(&self, scope: Scope, identifier: Uuid) -> Result<bool, StoreError> {
        let parameters: Parameters<'_> = &[(&scope, Type::UUID), (&identifier, Type::UUID)];
        Ok(self.change::<StoreError>(DELETE, parameters).await? > 0)
    }

    /// Creates a session for a user who has signed in; none if the user was changed or deleted since
    /// `user` and `password_hash` were read. A later change waits for this transaction, and then ends the
    /// session.
    pub async fn open_session(
        &self,
        user: &UserRow,
        password_hash: &str,
        new: &NewToken,
    ) -> Result<Option<Uuid>, StoreError> {
        self.within(async {
            let mut connection = self.connection().await?;
            let transaction = connection.transaction().await?;
            let parameters: Parameters<'_> = &[
                (&user.identifier, Type::UUID),
                (&password_hash, Type::TEXT),
                (&user.role, Type::TEXT),
                (&user.network, Type::UUID),
            ];
            if transaction.query_typed_opt(LOCK_UNCHANGED, parameters).await?.is_none() {
                return Ok(None);
            }
            let session = tokens::insert(&transaction, new).await?;
            transaction.execute_typed(END_OLD_SESSIONS, &[(&user.identifier, Type::UUID)]).await?;
            transaction.commit().await?;
            Ok(Some(session))
        })
        .await
    }
}

async fn select_one(
    client: &Client,
    scope: Scope,
    identifier: Uuid,
) -> Result<Option<UserRow>, tokio_postgres::Error> {
    let parameters: Parameters<'_> = &[(&scope, Type::UUID), (&identifier, Type::UUID)];
    let statement = format!("select {COLUMNS} from account {ONE}");
    client.query_typed_opt(&statement, parameters).await?.as_ref().map(user).transpose()
}

fn user(row: &Row) -> Result<UserRow, tokio_postgres::Error> {
    Ok(UserRow {
        identifier: row.try_get(0)?,
        name: row.try_get(1)?,
        role: row.try_get(2)?,
        network: row.try_get(3)?,
        creation_timestamp: row.try_get(4)?,
        signs_in_with_network: row.try_get(5)?,
    })
}
