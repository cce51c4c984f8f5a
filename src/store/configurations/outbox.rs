//! The outbox of what goes down: configurations to publish, and deleted sensors whose retained
//! configuration is to be cleared. Called by the outbox's actor. Promises that what is not recorded as
//! published or cleared is offered again.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::background::uuids;
use crate::store::columns::{Parameters, timestamp};
use crate::store::{Store, StoreError};

/// A configuration to be published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingConfiguration {
    /// For whom.
    pub sensor: SensorIdentifier,
    /// Which one.
    pub revision: i32,
    /// The text of a JSON object.
    pub value: String,
    /// When it was created: tells it apart from that of another sensor that had the identifier.
    pub created_at: Timestamp,
}

const UNPUBLISHED: &str = "\
select sensor_identifier, revision, value::text, creation_timestamp
from configuration
where publication_timestamp is null
    and ($1::uuid is null or sensor_identifier > $1)
    and not exists (
        select from configuration newer
        where newer.sensor_identifier = configuration.sensor_identifier
            and newer.revision > configuration.revision
    )
order by sensor_identifier
limit $2";

const NEWEST: &str = "\
select distinct on (sensor_identifier) sensor_identifier, revision, value::text, creation_timestamp
from configuration
where sensor_identifier = any ($1)
order by sensor_identifier, revision desc";

const RECORD_PUBLICATIONS: &str = "\
update configuration set publication_timestamp = now(), problem = null
from unnest($1::uuid[], $2::int4[], $3::timestamptz[])
    as published (sensor_identifier, revision, creation_timestamp)
where configuration.sensor_identifier = published.sensor_identifier
    and configuration.revision = published.revision
    and configuration.creation_timestamp = published.creation_timestamp";

const RECORD_REFUSALS: &str = "\
update configuration set problem = refused.problem
from unnest($1::uuid[], $2::int4[], $3::timestamptz[], $4::text[])
    as refused (sensor_identifier, revision, creation_timestamp, problem)
where configuration.sensor_identifier = refused.sensor_identifier
    and configuration.revision = refused.revision
    and configuration.creation_timestamp = refused.creation_timestamp
    and configuration.problem is distinct from refused.problem";

/// Whoever published these may have been slow, and another instance quicker with a newer one, which
/// the broker then has no more: the newest is published once again. So the last word is the newest,
/// without a lock that a silent instance could keep.
const PUBLISH_AGAIN: &str = "\
update configuration set publication_timestamp = null
from unnest($1::uuid[], $2::int4[]) as published (sensor_identifier, revision)
where configuration.sensor_identifier = published.sensor_identifier
    and configuration.revision > published.revision
    and configuration.publication_timestamp is not null
    and configuration.revision =
        (select max(revision) from configuration newest
         where newest.sensor_identifier = published.sensor_identifier)";

const UNCLEARED: &str = "\
select identifier from deleted_sensor
where clearance_timestamp is null and ($1::uuid is null or identifier > $1)
order by identifier
limit $2";

const RECORD_CLEARANCES: &str = "\
update deleted_sensor set clearance_timestamp = now() where identifier = any ($1)";

/// What was cleared may be there again by now, and have been published before it was cleared.
const RESTORE: &str = "\
update configuration set publication_timestamp = null
where sensor_identifier = any ($1) and publication_timestamp is not null
    and revision =
        (select max(revision) from configuration newest
         where newest.sensor_identifier = configuration.sensor_identifier)";

impl Store {
    /// The newest configurations that are not published yet, by sensor, behind this one.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn unpublished_configurations(
        &self,
        behind: Option<SensorIdentifier>,
        most: i64,
    ) -> Result<Vec<PendingConfiguration>, StoreError> {
        let behind = behind.map(|sensor| sensor.0);
        let rows = self.rows(UNPUBLISHED, &[(&behind, Type::UUID), (&most, Type::INT8)]).await?;
        Ok(rows.iter().map(pending).collect::<Result<_, _>>()?)
    }

    /// The newest configuration of each of these sensors.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn newest_configurations(
        &self,
        sensors: &[SensorIdentifier],
    ) -> Result<Vec<PendingConfiguration>, StoreError> {
        let rows = self.rows(NEWEST, &[(&uuids(sensors), Type::UUID_ARRAY)]).await?;
        Ok(rows.iter().map(pending).collect::<Result<_, _>>()?)
    }

    /// These are published.
    ///
    /// # Errors
    /// When the database is unavailable; they are then published once more.
    pub async fn record_publications(
        &self,
        published: &[(SensorIdentifier, i32, Timestamp)],
    ) -> Result<(), StoreError> {
        if published.is_empty() {
            return Ok(());
        }
        let sensors: Vec<Uuid> = published.iter().map(|(sensor, ..)| sensor.0).collect();
        let revisions: Vec<i32> = published.iter().map(|(_, revision, _)| *revision).collect();
        let created: Vec<_> =
            published.iter().map(|(.., created_at)| created_at.to_jiff()).collect();
        let published: Parameters<'_> = &[
            (&sensors, Type::UUID_ARRAY),
            (&revisions, Type::INT4_ARRAY),
            (&created, Type::TIMESTAMPTZ_ARRAY),
        ];
        self.execute(RECORD_PUBLICATIONS, published).await?;
        self.execute(PUBLISH_AGAIN, &published[..2]).await?;
        Ok(())
    }

    /// The broker did not take these, and why.
    ///
    /// # Errors
    /// When the database is away; the next attempt records it.
    pub async fn record_refusals(
        &self,
        refused: &[(SensorIdentifier, i32, Timestamp, String)],
    ) -> Result<(), StoreError> {
        if refused.is_empty() {
            return Ok(());
        }
        let sensors: Vec<Uuid> = refused.iter().map(|(sensor, ..)| sensor.0).collect();
        let revisions: Vec<i32> = refused.iter().map(|(_, revision, ..)| *revision).collect();
        let created: Vec<_> = refused.iter().map(|(_, _, at, _)| at.to_jiff()).collect();
        let problems: Vec<&str> = refused.iter().map(|(.., problem)| problem.as_str()).collect();
        let refused: Parameters<'_> = &[
            (&sensors, Type::UUID_ARRAY),
            (&revisions, Type::INT4_ARRAY),
            (&created, Type::TIMESTAMPTZ_ARRAY),
            (&problems, Type::TEXT_ARRAY),
        ];
        self.execute(RECORD_REFUSALS, refused).await?;
        Ok(())
    }

    /// Deleted sensors whose configuration may still be retained by the broker, behind this one.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn uncleared_sensors(
        &self,
        behind: Option<SensorIdentifier>,
        most: i64,
    ) -> Result<Vec<SensorIdentifier>, StoreError> {
        let behind = behind.map(|sensor| sensor.0);
        let rows = self.rows(UNCLEARED, &[(&behind, Type::UUID), (&most, Type::INT8)]).await?;
        Ok(rows.iter().map(|row| SensorIdentifier(row.get(0))).collect())
    }

    /// What the broker retained for these is cleared.
    ///
    /// # Errors
    /// When the database is unavailable; they are then cleared once more.
    pub async fn record_clearances(&self, cleared: &[SensorIdentifier]) -> Result<(), StoreError> {
        if cleared.is_empty() {
            return Ok(());
        }
        let sensors = uuids(cleared);
        let sensors: Parameters<'_> = &[(&sensors, Type::UUID_ARRAY)];
        self.execute(RECORD_CLEARANCES, sensors).await?;
        self.execute(RESTORE, sensors).await?;
        Ok(())
    }
}

fn pending(row: &Row) -> Result<PendingConfiguration, tokio_postgres::Error> {
    Ok(PendingConfiguration {
        sensor: SensorIdentifier(row.try_get(0)?),
        revision: row.try_get(1)?,
        value: row.try_get(2)?,
        created_at: timestamp(row, 3)?,
    })
}
