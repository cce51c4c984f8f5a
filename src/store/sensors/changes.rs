//! Sensors, as the API creates, changes and deletes them. The registry has its own look-ups. Promises
//! that a name is unique in its network, that revision 0 is committed with its sensor, and that no
//! row outlives its sensor, or is taken for one of a later sensor with its identifier.
//!
//! Invariant: every commit of a batch takes [`DELETION_LOCK`] shared and then reads
//! `deleted_sensor`; a deletion takes it exclusively. So each batch commits before the deletion, and
//! its rows are purged, or sees the deletion, and rejects them. And no sensor is created while the
//! rows of one that had its identifier are being purged.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::domain::{NetworkIdentifier, SensorIdentifier, Timestamp};
use crate::store::query::reads::Parameters;
use crate::store::query::reads::moment;
use crate::store::query::sensor_list::{Sensor, select_one};
use crate::store::{Store, StoreError};

/// The advisory lock between commits (shared) and deletions (exclusive).
pub(in crate::store) const DELETION_LOCK: i64 = 0x7472_6962;

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
    /// A deleted sensor had the identifier, and some of its rows may be left: [`Store::resume_purge`].
    #[error("the sensor that had the identifier is still being purged")]
    NotPurged,
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
on conflict (identifier) do update
set deletion_timestamp = now(), clearance_timestamp = null, purge_timestamp = null";

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

/// One at a time purges a sensor: who waits for the rows that another deletes waits for long.
/// Parameter: sensor.
const PURGE_LOCK: &str = "select pg_advisory_xact_lock(hashtextextended($1::text, 1))";
const TRY_PURGE_LOCK: &str = "select pg_try_advisory_xact_lock(hashtextextended($1::text, 1))";

const UNPURGED: &str = "\
select deletion_timestamp from deleted_sensor where identifier = $1 and purge_timestamp is null";

/// Unless it is another deletion by now.
const RECORD_PURGE: &str = "\
update deleted_sensor set purge_timestamp = now()
where identifier = $1 and deletion_timestamp = $2";

/// The deletion on record, which then stays as it is until the end of the transaction: whether the
/// rows are purged.
const DELETED: &str = "\
select purge_timestamp is not null from deleted_sensor where identifier = $1 for update";

/// Whoever purges a sensor already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Other {
    /// Is waited for.
    First,
    /// Is left alone.
    Alone,
}

impl Store {
    /// Creates a sensor, and with it its first configuration.
    ///
    /// # Errors
    /// When the name or the identifier is taken, the rows of a sensor that had the identifier are not
    /// purged yet, or the database is away.
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
            let sensor: Parameters<'_> = &[(identifier, Type::UUID)];
            if let Some(deleted) = transaction.query_typed_opt(DELETED, sensor).await? {
                // What is left of the one before would be taken for its own, and what it says again
                // for known.
                if !deleted.try_get::<_, bool>(0)? {
                    return Err(SensorError::NotPurged);
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
    /// rows that were. Whoever does so already is waited for.
    ///
    /// # Errors
    /// When the database is away, or it takes longer than half an hour.
    pub async fn purge_sensor(&self, identifier: SensorIdentifier) -> Result<u64, StoreError> {
        Ok(self.purge(identifier, Other::First).await?.unwrap_or(0))
    }

    /// The same, after that was cut short. False: somebody else is at it.
    ///
    /// # Errors
    /// When the database is away, or it takes longer than half an hour.
    pub async fn resume_purge(&self, identifier: SensorIdentifier) -> Result<bool, StoreError> {
        Ok(self.purge(identifier, Other::Alone).await?.is_some())
    }

    /// None: somebody else is at it.
    async fn purge(
        &self,
        identifier: SensorIdentifier,
        other: Other,
    ) -> Result<Option<u64>, StoreError> {
        Self::answered_within(PURGE_PATIENCE, async {
            let mut connection = self.connection().await?;
            let sensor: Parameters<'_> = &[(&identifier.0, Type::UUID)];
            let Some(deletion) = connection.query_typed_opt(UNPURGED, sensor).await? else {
                return Ok(Some(0));
            };
            let deleted_at: Timestamp = moment(&deletion, 0)?;
            let mut row_count = 0;
            for statement in PURGE {
                let transaction = connection.transaction().await?;
                transaction.batch_execute(PURGE_TIMEOUT).await?;
                match other {
                    Other::First => drop(transaction.query_typed(PURGE_LOCK, sensor).await?),
                    Other::Alone => {
                        let locked = transaction.query_typed_one(TRY_PURGE_LOCK, sensor).await?;
                        if !locked.try_get::<_, bool>(0)? {
                            return Ok(None);
                        }
                    }
                }
                row_count += transaction.execute_typed(statement, sensor).await?;
                transaction.commit().await?;
            }
            let deletion: Parameters<'_> =
                &[(&identifier.0, Type::UUID), (&deleted_at.to_jiff(), Type::TIMESTAMPTZ)];
            connection.execute_typed(RECORD_PURGE, deletion).await?;
            Ok(Some(row_count))
        })
        .await
    }
}
