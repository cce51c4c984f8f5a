//! Sensors, as the API keeps them. Called by the API; the registry has its own look-ups. Promises
//! that a name is unique in its network, that revision 0 is committed with its sensor, and that no
//! row outlives its sensor.
//!
//! Invariant: every commit of a batch takes [`DELETION_LOCK`] shared and then reads
//! `deleted_sensor`; a deletion takes it exclusively. So each batch commits before the deletion, and
//! its rows are purged, or sees the deletion, and rejects them.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, Transaction};

use super::reads::Parameters;
use super::{ConfigurationState, Page, Store, StoreError};
use crate::domain::{SensorIdentifier, Timestamp};

/// The advisory lock between commits (shared) and deletions (exclusive).
pub(super) const DELETION_LOCK: i64 = 0x7472_6962;

/// A sensor of ten million rows is deleted within this.
const PURGE_TIMEOUT: &str = "set local statement_timeout = '30min'";

/// A sensor to be created.
#[derive(Clone, Debug)]
pub struct NewSensor {
    /// Chosen by the client, or random.
    pub identifier: SensorIdentifier,
    /// Unique in its network.
    pub name: String,
    /// Becomes revision 0: the text of an unnested JSON object.
    pub configuration: Option<String>,
}

/// A sensor, and how its configuration stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sensor {
    /// Its name on the wire.
    pub identifier: SensorIdentifier,
    /// Its name for people.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// The newest revision that there is.
    pub newest_revision: Option<i32>,
    /// How that one stands.
    pub configuration_state: ConfigurationState,
    /// The newest revision that it has acknowledged.
    pub last_acknowledged_revision: Option<i32>,
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
    /// PostgreSQL refuses the configuration in spite of the validation.
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
            // Data exception; program limit exceeded.
            (Some(state), _) if matches!(state.code().get(..2), Some("22" | "54")) => Self::Refused,
            _ => Self::Store(error),
        }
    }
}

const INSERT: &str = "\
insert into sensor (identifier, name) values ($1, $2) returning creation_timestamp";

const INSERT_CONFIGURATION: &str = "\
insert into configuration (sensor_identifier, revision, value) values ($1, 0, $2::text::jsonb)";

const FORGET_DELETION: &str = "delete from deleted_sensor where identifier = $1";

/// Parameters: identifier, name, name to go on behind, limit; each but the last may be null.
const SELECT: &str = "\
select s.identifier, s.name, s.creation_timestamp, n.revision as newest_revision,
       n.publication_timestamp is not null as published,
       n.acknowledgement_timestamp is not null as acknowledged, n.success,
       a.revision as last_acknowledged_revision
from sensor s
left join lateral (
    select c.revision, c.publication_timestamp, c.acknowledgement_timestamp, c.success
    from configuration c where c.sensor_identifier = s.identifier
    order by c.revision desc limit 1
) n on true
left join lateral (
    select c.revision from configuration c
    where c.sensor_identifier = s.identifier and c.acknowledgement_timestamp is not null
    order by c.revision desc limit 1
) a on true
where s.network_identifier = '00000000-0000-0000-0000-000000000000'
  and ($1::uuid is null or s.identifier = $1)
  and ($2::text is null or s.name = $2)
  and ($3::text is null or s.name > $3)
order by s.network_identifier, s.name
limit $4";

const RENAME: &str = "update sensor set name = $2 where identifier = $1 returning identifier";

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
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        let identifier = &new.identifier.0;
        let created = transaction
            .query_typed_one(INSERT, &[(identifier, Type::UUID), (&new.name, Type::TEXT)])
            .await?;
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
        transaction.commit().await?;
        Ok(Sensor {
            identifier: new.identifier,
            name: new.name.clone(),
            created_at: created.try_get::<_, jiff::Timestamp>(0)?.into(),
            newest_revision: new.configuration.is_some().then_some(0),
            configuration_state: match new.configuration {
                Some(_) => ConfigurationState::Pending,
                None => ConfigurationState::None,
            },
            last_acknowledged_revision: None,
        })
    }

    /// Sensors by name, one more than the page has room for if there are more.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list_sensors(
        &self,
        page: &Page<String>,
        name: Option<&str>,
    ) -> Result<Vec<Sensor>, StoreError> {
        let connection = self.connection().await?;
        let any: Option<uuid::Uuid> = None;
        let rows = connection
            .query_typed(
                SELECT,
                &[
                    (&any, Type::UUID),
                    (&name, Type::TEXT),
                    (&page.after, Type::TEXT),
                    (&page.row_count(), Type::INT8),
                ],
            )
            .await?;
        rows.iter().map(|row| sensor(row).map_err(StoreError::from)).collect()
    }

    /// One sensor.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn sensor(&self, identifier: SensorIdentifier) -> Result<Option<Sensor>, StoreError> {
        let connection = self.connection().await?;
        Ok(select_one(&connection, identifier).await?)
    }

    /// Gives a sensor another name; none if there is no such sensor.
    ///
    /// # Errors
    /// When the name is taken, or the database is away.
    pub async fn rename_sensor(
        &self,
        identifier: SensorIdentifier,
        name: &str,
    ) -> Result<Option<Sensor>, SensorError> {
        let connection = self.connection().await?;
        connection.query_typed(RENAME, &[(&identifier.0, Type::UUID), (&name, Type::TEXT)]).await?;
        Ok(select_one(&connection, identifier).await?)
    }

    /// Deletes a sensor and its configurations, and puts the deletion on record; false if there is
    /// no such sensor. Its rows are then for [`Store::purge_sensor`].
    ///
    /// # Errors
    /// When the database is away.
    pub async fn delete_sensor(&self, identifier: SensorIdentifier) -> Result<bool, StoreError> {
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
    }

    /// Deletes what a deleted sensor has left in the hot tables, and its rejections; tells how many
    /// rows that were. May be called again when it was cut short.
    ///
    /// # Errors
    /// When the database is away, or it takes longer than half an hour.
    pub async fn purge_sensor(&self, identifier: SensorIdentifier) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let mut row_count = 0;
        for statement in PURGE {
            let transaction = connection.transaction().await?;
            transaction.batch_execute(PURGE_TIMEOUT).await?;
            row_count += purge(&transaction, statement, identifier).await?;
            transaction.commit().await?;
        }
        Ok(row_count)
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

async fn select_one(
    client: &Client,
    identifier: SensorIdentifier,
) -> Result<Option<Sensor>, tokio_postgres::Error> {
    let any: Option<&str> = None;
    let one: i64 = 1;
    let parameters: Parameters<'_> =
        &[(&identifier.0, Type::UUID), (&any, Type::TEXT), (&any, Type::TEXT), (&one, Type::INT8)];
    client.query_typed_opt(SELECT, parameters).await?.as_ref().map(sensor).transpose()
}

fn sensor(row: &Row) -> Result<Sensor, tokio_postgres::Error> {
    let newest_revision: Option<i32> = row.try_get("newest_revision")?;
    let (published, acknowledged) = (row.try_get("published")?, row.try_get("acknowledged")?);
    let success: Option<bool> = row.try_get("success")?;
    Ok(Sensor {
        identifier: SensorIdentifier(row.try_get("identifier")?),
        name: row.try_get("name")?,
        created_at: row.try_get::<_, jiff::Timestamp>("creation_timestamp")?.into(),
        newest_revision,
        configuration_state: match newest_revision {
            Some(_) => ConfigurationState::of(published, acknowledged, success),
            None => ConfigurationState::None,
        },
        last_acknowledged_revision: row.try_get("last_acknowledged_revision")?,
    })
}
