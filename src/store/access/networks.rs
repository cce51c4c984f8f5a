//! Networks: groups of sensors, to which a role can be limited. Called by the API. A network can be
//! deleted only if it has no sensors, and the default network never.

use serde::Serialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use utoipa::ToSchema;

use crate::domain::{NetworkIdentifier, Scope, SensorIdentifier};
use crate::store::columns::Parameters;
use crate::store::{Page, Store, StoreError};

#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = NetworkItem)]
#[expect(missing_docs, reason = "the members of the answer")]
pub struct Network {
    #[schema(value_type = Uuid)]
    pub identifier: NetworkIdentifier,
    pub name: String,
    pub creation_timestamp: jiff::Timestamp,
    /// How many sensors it holds.
    pub sensor_count: i64,
}

/// Why a network, a token or a user cannot be created, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Another has the name.
    #[error("the name is taken")]
    NameTaken,
    /// The network does not exist.
    #[error("there is no such network")]
    NoSuchNetwork,
    /// The network has sensors.
    #[error("the network is not empty")]
    NotEmpty,
    /// Any other error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for AccessError {
    fn from(error: tokio_postgres::Error) -> Self {
        let error = StoreError::from(error);
        match (error.sqlstate(), error.constraint()) {
            (
                Some(&SqlState::UNIQUE_VIOLATION),
                Some("network_name_key" | "account_name" | "account_network_name" | "token_name"),
            ) => Self::NameTaken,
            (
                Some(&SqlState::FOREIGN_KEY_VIOLATION),
                Some("token_network_identifier_fkey" | "account_network_identifier_fkey"),
            ) => Self::NoSuchNetwork,
            (Some(&SqlState::FOREIGN_KEY_VIOLATION), Some("sensor_network_identifier_fkey")) => {
                Self::NotEmpty
            }
            _ => Self::Store(error),
        }
    }
}

/// Parameters: scope or null, identifier or null, name after which to continue or null, limit.
const SELECT: &str = "\
select identifier, name, creation_timestamp,
       (select count(*) from sensor where network_identifier = network.identifier)
from network
where ($1::uuid is null or identifier = $1)
  and ($2::uuid is null or identifier = $2)
  and ($3::text is null or name > $3)
order by name limit $4";

const INSERT: &str = "insert into network (identifier, name) values ($1, $2)";

const RENAME: &str = "update network set name = $2 where identifier = $1";

const DELETE: &str = "delete from network where identifier = $1";

const CONTAINS: &str = "select from sensor where identifier = $1 and network_identifier = $2";

impl Store {
    /// The networks of a scope by name, one more than the page holds if there are more.
    pub async fn list_networks(
        &self,
        scope: Scope,
        page: &Page<String>,
    ) -> Result<Vec<Network>, StoreError> {
        let parameters: Parameters<'_> = &[
            (&scope, Type::UUID),
            (&Scope::All, Type::UUID),
            (&page.after, Type::TEXT),
            (&page.row_count(), Type::INT8),
        ];
        self.list(SELECT, parameters, network).await
    }

    /// One network.
    pub async fn network(
        &self,
        identifier: NetworkIdentifier,
    ) -> Result<Option<Network>, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            Ok(select_one(&connection, identifier).await?)
        })
        .await
    }

    /// Creates a network.
    pub async fn create_network(
        &self,
        identifier: NetworkIdentifier,
        name: &str,
    ) -> Result<Option<Network>, AccessError> {
        self.write_network(INSERT, identifier, name).await
    }

    /// Renames a network; none if it does not exist.
    pub async fn rename_network(
        &self,
        identifier: NetworkIdentifier,
        name: &str,
    ) -> Result<Option<Network>, AccessError> {
        self.write_network(RENAME, identifier, name).await
    }

    async fn write_network(
        &self,
        statement: &str,
        identifier: NetworkIdentifier,
        name: &str,
    ) -> Result<Option<Network>, AccessError> {
        self.within(async {
            let connection = self.connection().await?;
            let parameters: Parameters<'_> = &[(&identifier, Type::UUID), (&name, Type::TEXT)];
            connection.execute_typed(statement, parameters).await?;
            Ok(select_one(&connection, identifier).await?)
        })
        .await
    }

    /// Deletes an empty network, and the tokens and users that are limited to it; false if it does not
    /// exist.
    pub async fn delete_network(&self, identifier: NetworkIdentifier) -> Result<bool, AccessError> {
        Ok(self.change::<AccessError>(DELETE, &[(&identifier, Type::UUID)]).await? > 0)
    }

    /// Whether a network contains this sensor.
    pub async fn network_holds(
        &self,
        network: NetworkIdentifier,
        sensor: SensorIdentifier,
    ) -> Result<bool, StoreError> {
        let parameters: Parameters<'_> = &[(&sensor, Type::UUID), (&network, Type::UUID)];
        Ok(self.one(CONTAINS, parameters, |_| Ok(())).await?.is_some())
    }
}

async fn select_one(
    client: &Client,
    identifier: NetworkIdentifier,
) -> Result<Option<Network>, tokio_postgres::Error> {
    let parameters: Parameters<'_> = &[
        (&Scope::All, Type::UUID),
        (&identifier, Type::UUID),
        (&None::<&str>, Type::TEXT),
        (&1_i64, Type::INT8),
    ];
    client.query_typed_opt(SELECT, parameters).await?.as_ref().map(network).transpose()
}

fn network(row: &Row) -> Result<Network, tokio_postgres::Error> {
    Ok(Network {
        identifier: row.try_get(0)?,
        name: row.try_get(1)?,
        creation_timestamp: row.try_get(2)?,
        sensor_count: row.try_get(3)?,
    })
}
