//! Sensors, as the API creates, changes and deletes them. The registry has its own look-ups. Promises
//! that a name is unique in its network, that revision 0 is committed with its sensor, and that no
//! row outlives its sensor.
//!
//! Invariant: every commit of a batch takes [`DELETION_LOCK`] shared and then reads
//! `deleted_sensor`; a deletion takes it exclusively. So each batch commits before the deletion, and
//! its rows are purged, or sees the deletion, and rejects them.

use std::time::Duration;

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::reads::Parameters;
use super::sensor_list::{Sensor, select_one};
use super::{Store, StoreError};
use crate::domain::{NetworkIdentifier, SensorIdentifier};

/// The advisory lock between commits (shared) and deletions (exclusive).
pub(super) const DELETION_LOCK: i64 = 0x7472_6962;

/// A sensor of ten million rows is deleted within this.
const PURGE_TIMEOUT: &str = "set local statement_timeout = '30min'";

/// PostgreSQL cancels each of the statements before that, if it is there to do so.
const PURGE_PATIENCE: Duration = Duration::from_secs(5 * 31 * 60);

/// A sensor to be created.
#[derive(Clone, Debug)]
pub struct NewSensor {
    /// Chosen by the client, or random.
    pub identifier: SensorIdentifier,
    /// Where it belongs.
    pub network: NetworkIdentifier,
    /// Unique in its network.
    pub name: String,
    /// The user's, not sent to the sensor: the text of a JSON object.
    pub metadata: Option<String>,
    /// Becomes revision 0: the text of an unnested JSON object.
    pub configuration: Option<String>,
}

/// What is to be changed about a sensor; what is none stays.
#[derive(Clone, Debug, Default)]
pub struct SensorChange {
    /// Its new name.
    pub name: Option<String>,
    /// The network to which it moves.
    pub network: Option<NetworkIdentifier>,
    /// The text of a JSON object, in place of the one before.
    pub metadata: Option<String>,
}

/// Why a sensor, or a configuration of it, cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// Another sensor of the network has the name.
    #[error("the name is taken")]
    NameTaken,
    /// Another sensor has the identifier.
    #[error("the identifier is taken")]
    IdentifierTaken,
    /// The network that it names is not there.
    #[error("there is no such network")]
    NoSuchNetwork,
    /// PostgreSQL refuses the configuration, or the metadata, in spite of the validation.
    #[error("the database refuses the configuration")]
    Refused,
    /// Anything else.
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
insert into configuration (sensor_identifier, revision, value) values ($1, 0, $2::text::jsonb)";

const FORGET_DELETION: &str = "delete from deleted_sensor where identifier = $1";

const CHANGE: &str = "\
update sensor
set name = coalesce($2, name), network_identifier = coalesce($3, network_identifier),
    metadata = coalesce($4::text::jsonb, metadata)
where identifier = $1";

const DELETE: &str = "delete from sensor where identifier = $1 returning identifier";

const RECORD_DELETION: &str = "\
insert into deleted_sensor (identifier) values ($1)
on conflict (identifier) do update set deletion_timestamp = now(), clearance_timestamp = null";

/// What a deleted sensor leaves, for as long as its deletion is on record: the record is read in the
/// snapshot that picks the rows, so that nothing of a sensor created again can go. Its rejections
/// since the deletion stay: they are what it says in vain.
const PURGE: [&str; 5] = [
    "delete from measurement where sensor_identifier = $1 \
     and exists (select from deleted_sensor where identifier = $1)",
    "delete from log_message where sensor_identifier = $1 \
     and exists (select from deleted_sensor where identifier = $1)",
    "delete from heartbeat where sensor_identifier = $1 \
     and exists (select from deleted_sensor where identifier = $1)",
    "delete from rejection where sensor_identifier = $1 \
     and receipt_timestamp <= (select deletion_timestamp from deleted_sensor where identifier = $1)",
    "delete from rejection_overflow where sensor_identifier = $1 \
     and hour <= (select deletion_timestamp from deleted_sensor where identifier = $1)",
];

/// Whether a deletion is on record, which then stays as it is until the end of the transaction.
const DELETED: &str = "select from deleted_sensor where identifier = $1 for update";

impl Store {
    /// Creates a sensor, and with it its first configuration.
    ///
    /// # Errors
    /// When the name or the identifier is taken, or the database is away.
    pub async fn create_sensor(&self, new: &NewSensor) -> Result<Sensor, SensorError> {
        self.within(async {
            let mut connection = self.connection().await?;
            let transaction = connection.transaction().await?;
            let identifier = &new.identifier.0;
            let parameters: Parameters<'_> = &[
                (identifier, Type::UUID),
                (&new.network.0, Type::UUID),
                (&new.name, Type::TEXT),
                (&new.metadata, Type::TEXT),
            ];
            transaction.execute_typed(INSERT, parameters).await?;
            // It had been deleted, and the purge may have been cut short: those rows are not its own.
            let sensor: Parameters<'_> = &[(identifier, Type::UUID)];
            if transaction.query_typed_opt(DELETED, sensor).await?.is_some() {
                transaction.batch_execute(PURGE_TIMEOUT).await?;
                for statement in PURGE {
                    purge(&transaction, statement, new.identifier).await?;
                }
                transaction.query_typed(FORGET_DELETION, sensor).await?;
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
    ///
    /// # Errors
    /// When the name is taken, the network is not there, or the database is away.
    pub async fn change_sensor(
        &self,
        identifier: SensorIdentifier,
        change: &SensorChange,
    ) -> Result<Option<Sensor>, SensorError> {
        self.within(async {
            let connection = self.connection().await?;
            let network = change.network.map(|network| network.0);
            let parameters: Parameters<'_> = &[
                (&identifier.0, Type::UUID),
                (&change.name, Type::TEXT),
                (&network, Type::UUID),
                (&change.metadata, Type::TEXT),
            ];
            connection.execute_typed(CHANGE, parameters).await?;
            Ok(select_one(&**connection, identifier).await?)
        })
        .await
    }

    /// Deletes a sensor and its configurations, and puts the deletion on record; false if there is
    /// no such sensor. Its rows are then for [`Store::purge_sensor`].
    ///
    /// # Errors
    /// When the database is away.
    pub async fn delete_sensor(&self, identifier: SensorIdentifier) -> Result<bool, StoreError> {
        self.within(async {
            let mut connection = self.connection().await?;
            let transaction = connection.transaction().await?;
            transaction
                .query_typed("select pg_advisory_xact_lock($1)", &[(&DELETION_LOCK, Type::INT8)])
                .await?;
            let sensor: Parameters<'_> = &[(&identifier.0, Type::UUID)];
            if transaction.query_typed_opt(DELETE, sensor).await?.is_none() {
                return Ok(false);
            }
            transaction.query_typed(RECORD_DELETION, sensor).await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Deletes what a deleted sensor has left in the hot tables, and its rejections; tells how many
    /// rows that were. May be called again when it was cut short.
    ///
    /// # Errors
    /// When the database is away, or it takes longer than half an hour.
    pub async fn purge_sensor(&self, identifier: SensorIdentifier) -> Result<u64, StoreError> {
        Self::answered_within(PURGE_PATIENCE, async {
            let mut connection = self.connection().await?;
            let mut row_count = 0;
            for statement in PURGE {
                let transaction = connection.transaction().await?;
                transaction.batch_execute(PURGE_TIMEOUT).await?;
                row_count += purge(&transaction, statement, identifier).await?;
                transaction.commit().await?;
            }
            Ok(row_count)
        })
        .await
    }
}

async fn purge(
    transaction: &Transaction<'_>,
    statement: &str,
    identifier: SensorIdentifier,
) -> Result<u64, tokio_postgres::Error> {
    let statement = transaction.prepare_typed(statement, &[Type::UUID]).await?;
    transaction.execute(&statement, &[&identifier.0]).await
}
