//! Creates and changes sensors. Called by the API. A name is unique in its network; revision 1 is
//! committed with its sensor; and a sensor is not created before the rows of an earlier one with its
//! identifier have been purged.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::domain::{NetworkIdentifier, SensorIdentifier};
use crate::store::columns::Parameters;
use crate::store::query::sensor_list::{Sensor, select_one};
use crate::store::{Store, StoreError};

/// A sensor to be created.
#[derive(Clone, Debug)]
pub struct NewSensor {
    /// Chosen by the client, or random.
    pub identifier: SensorIdentifier,
    /// Its network.
    pub network: NetworkIdentifier,
    /// Unique in its network.
    pub name: String,
    /// The text of a JSON object for the operator's use, not sent to the sensor.
    pub metadata: Option<String>,
    /// Becomes revision 1: the text of a JSON object; nested only with NESTED_VALUES=store.
    pub configuration: Option<String>,
}

/// A change of a sensor; members that are none stay as they are.
#[derive(Clone, Debug, Default)]
pub struct SensorChange {
    /// Its new name.
    pub name: Option<String>,
    /// The network to which it moves.
    pub network: Option<NetworkIdentifier>,
    /// The text of a JSON object, which replaces the previous one.
    pub metadata: Option<String>,
}

/// Why a sensor, or a configuration of it, cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// Another sensor of the network has the name.
    #[error("the name is taken")]
    NameTaken,
    /// Another sensor has the identifier.
    #[error("the identifier is taken")]
    IdentifierTaken,
    /// The network does not exist.
    #[error("there is no such network")]
    NoSuchNetwork,
    /// Rows of a deleted sensor with this identifier may still exist: [`Store::resume_purge`].
    #[error("the sensor that had the identifier is still being purged")]
    NotPurged,
    /// PostgreSQL refuses the configuration or the metadata, although it passed validation.
    #[error("the database refuses the configuration")]
    Refused,
    /// Any other error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for SensorError {
    fn from(error: tokio_postgres::Error) -> Self {
        let error = StoreError::from(error);
        match (error.sqlstate(), error.constraint()) {
            (Some(&SqlState::UNIQUE_VIOLATION), Some("sensor_name")) => Self::NameTaken,
            (Some(&SqlState::UNIQUE_VIOLATION), Some("sensor_pkey")) => Self::IdentifierTaken,
            (Some(&SqlState::FOREIGN_KEY_VIOLATION), Some("sensor_network_identifier_fkey")) => {
                Self::NoSuchNetwork
            }
            // Data exception; program limit exceeded.
            (Some(state), _) if matches!(state.code().get(..2), Some("22" | "54")) => Self::Refused,
            _ => Self::Store(error),
        }
    }
}

const INSERT: &str = "\
insert into sensor (identifier, network_identifier, name, metadata)
values ($1, $2, $3, coalesce($4::text::jsonb, '{}'))";

const INSERT_CONFIGURATION: &str = "\
insert into configuration (sensor_identifier, revision, value) values ($1, 1, $2::text::jsonb)";

const DELETE_TOMBSTONE: &str = "delete from deleted_sensor where identifier = $1";

const CHANGE: &str = "\
update sensor
set name = coalesce($2, name), network_identifier = coalesce($3, network_identifier),
    metadata = coalesce($4::text::jsonb, metadata)
where identifier = $1";

/// Locks the tombstone, and returns whether the rows have been purged.
const LOCK_TOMBSTONE: &str = "\
select purge_timestamp is not null from deleted_sensor where identifier = $1 for update";

impl Store {
    /// Creates a sensor with its first configuration.
    pub async fn create_sensor(&self, new: &NewSensor) -> Result<Sensor, SensorError> {
        self.within(async {
            let mut connection = self.connection().await?;
            let transaction = connection.transaction().await?;
            let identifier = &new.identifier;
            let parameters: Parameters<'_> = &[
                (identifier, Type::UUID),
                (&new.network, Type::UUID),
                (&new.name, Type::TEXT),
                (&new.metadata, Type::TEXT),
            ];
            transaction.execute_typed(INSERT, parameters).await?;
            let sensor: Parameters<'_> = &[(identifier, Type::UUID)];
            if let Some(tombstone) = transaction.query_typed_opt(LOCK_TOMBSTONE, sensor).await? {
                // Remaining rows of the earlier sensor would be attributed to the new one, and equal
                // items of the new one would count as duplicates.
                if !tombstone.try_get::<_, bool>(0)? {
                    return Err(SensorError::NotPurged);
                }
                transaction.query_typed(DELETE_TOMBSTONE, sensor).await?;
            }
            if let Some(configuration) = &new.configuration {
                transaction
                    .query_typed(
                        INSERT_CONFIGURATION,
                        &[(identifier, Type::UUID), (configuration, Type::TEXT)],
                    )
                    .await?;
            }
            let created = select_one(&transaction, new.identifier).await?;
            transaction.commit().await?;
            Ok(created.expect("it was inserted in this transaction"))
        })
        .await
    }

    /// Changes a sensor; none if there is no such sensor.
    pub async fn change_sensor(
        &self,
        identifier: SensorIdentifier,
        change: &SensorChange,
    ) -> Result<Option<Sensor>, SensorError> {
        self.within(async {
            let connection = self.connection().await?;
            let parameters: Parameters<'_> = &[
                (&identifier, Type::UUID),
                (&change.name, Type::TEXT),
                (&change.network, Type::UUID),
                (&change.metadata, Type::TEXT),
            ];
            connection.execute_typed(CHANGE, parameters).await?;
            Ok(select_one(&**connection, identifier).await?)
        })
        .await
    }
}
