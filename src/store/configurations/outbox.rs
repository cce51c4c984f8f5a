//! The outbox: configurations to publish, and deleted sensors whose retained configuration must be
//! cleared. Called by the outbox's actor. An entry is returned again until it is recorded as published
//! or cleared.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::{Store, StoreError};

/// A configuration to be published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingConfiguration {
    /// The sensor's identifier.
    pub sensor: SensorIdentifier,
    /// The revision.
    pub revision: i32,
    /// The text of a JSON object.
    pub value: String,
    /// Distinguishes it from the same revision of an earlier sensor with this identifier.
    pub created_at: Timestamp,
}

/// A configuration that could not be published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedConfiguration {
    /// The sensor's identifier.
    pub sensor: SensorIdentifier,
    /// The revision.
    pub revision: i32,
    /// When it was created.
    pub created_at: Timestamp,
    /// The reason, a sentence.
    pub problem: String,
    /// Whether the broker has refused it; otherwise the broker may have received it.
    pub is_final: bool,
}

const UNPUBLISHED: &str = "\
select sensor_identifier, revision, value::text, creation_timestamp
from configuration
where publication_timestamp is null and is_newest
    and ($1::uuid is null or sensor_identifier > $1)
order by sensor_identifier
limit $2";

const NEWEST: &str = "\
select sensor_identifier, revision, value::text, creation_timestamp
from configuration
where sensor_identifier = any ($1) and is_newest
order by sensor_identifier";

const RECORD_PUBLICATIONS: &str = "\
update configuration
set publication_timestamp = coalesce(publication_timestamp, now()), problem = null
from unnest($1::uuid[], $2::int4[], $3::timestamptz[])
    as published (sensor_identifier, revision, creation_timestamp)
where configuration.sensor_identifier = published.sensor_identifier
    and configuration.revision = published.revision
    and configuration.creation_timestamp = published.creation_timestamp";

/// `is_final`: the broker has refused it, so the sensor cannot have received it.
const RECORD_REFUSALS: &str = "\
update configuration
set problem = refused.problem,
    sent_timestamp = case
        when refused.is_final and configuration.publication_timestamp is null then null
        else configuration.sent_timestamp
    end
from unnest($1::uuid[], $2::int4[], $3::timestamptz[], $4::text[], $5::bool[])
    as refused (sensor_identifier, revision, creation_timestamp, problem, is_final)
where configuration.sensor_identifier = refused.sensor_identifier
    and configuration.revision = refused.revision
    and configuration.creation_timestamp = refused.creation_timestamp
    and (configuration.problem is distinct from refused.problem
        or refused.is_final and configuration.sent_timestamp is not null)";

/// By the clock of this process, like the receipt timestamps of heartbeats. Parameters: sensors, revisions,
/// creation timestamps, now.
const RECORD_SENDING: &str = "\
update configuration set sent_timestamp = $4
from unnest($1::uuid[], $2::int4[], $3::timestamptz[])
    as sent (sensor_identifier, revision, creation_timestamp)
where configuration.sensor_identifier = sent.sensor_identifier
    and configuration.revision = sent.revision
    and configuration.creation_timestamp = sent.creation_timestamp
    and configuration.sent_timestamp is null";

/// A slow instance may overwrite a newer retained configuration that another instance published, also one of a sensor
/// that was created again. Therefore the newest revision is marked as unpublished again. This needs no lock, which an
/// instance that stops responding could hold.
const PUBLISH_AGAIN: &str = "\
update configuration set publication_timestamp = null
from unnest($1::uuid[], $2::int4[], $3::timestamptz[])
    as published (sensor_identifier, revision, creation_timestamp)
where configuration.sensor_identifier = published.sensor_identifier
    and (configuration.revision, configuration.creation_timestamp)
        is distinct from (published.revision, published.creation_timestamp)
    and configuration.publication_timestamp is not null
    and configuration.is_newest";

/// As [`PUBLISH_AGAIN`], for a sensor that was deleted and whose retained configuration was cleared.
const CLEAR_AGAIN: &str = "\
update deleted_sensor set clearance_timestamp = null
where identifier = any ($1) and clearance_timestamp is not null";

const UNCLEARED: &str = "\
select identifier from deleted_sensor
where clearance_timestamp is null and ($1::uuid is null or identifier > $1)
order by identifier
limit $2";

const RECORD_CLEARANCES: &str = "\
update deleted_sensor set clearance_timestamp = now() where identifier = any ($1)";

/// The sensor may have been created again, and its configuration published, before the clearance.
const RESTORE: &str = "\
update configuration set publication_timestamp = null
where sensor_identifier = any ($1) and publication_timestamp is not null and is_newest";

impl Store {
    /// The newest configurations that are not published yet, sorted by sensor, starting after `after`.
    pub async fn unpublished_configurations(
        &self,
        after: Option<SensorIdentifier>,
        limit: i64,
    ) -> Result<Vec<PendingConfiguration>, StoreError> {
        let rows = self.rows(UNPUBLISHED, &[(&after, Type::UUID), (&limit, Type::INT8)]).await?;
        Ok(rows.iter().map(pending).collect::<Result<_, _>>()?)
    }

    /// The newest configuration of each of these sensors.
    pub async fn newest_configurations(
        &self,
        sensors: &[SensorIdentifier],
    ) -> Result<Vec<PendingConfiguration>, StoreError> {
        let rows = self.rows(NEWEST, &[(&sensors, Type::UUID_ARRAY)]).await?;
        Ok(rows.iter().map(pending).collect::<Result<_, _>>()?)
    }

    /// Records that these are about to be sent: heartbeats received later can acknowledge them.
    /// If that fails they must not be sent.
    pub async fn record_sending(&self, sent: &[PendingConfiguration]) -> Result<(), StoreError> {
        if sent.is_empty() {
            return Ok(());
        }
        let sensors: Vec<_> = sent.iter().map(|it| it.sensor).collect();
        let revisions: Vec<i32> = sent.iter().map(|it| it.revision).collect();
        let created: Vec<_> = sent.iter().map(|it| it.created_at).collect();
        let sent: Parameters<'_> = &[
            (&sensors, Type::UUID_ARRAY),
            (&revisions, Type::INT4_ARRAY),
            (&created, Type::TIMESTAMPTZ_ARRAY),
            (&Timestamp::now(), Type::TIMESTAMPTZ),
        ];
        self.execute(RECORD_SENDING, sent).await?;
        Ok(())
    }

    /// Records these as published.
    /// If that fails they are published again.
    pub async fn record_publications(
        &self,
        published: &[(SensorIdentifier, i32, Timestamp)],
    ) -> Result<(), StoreError> {
        if published.is_empty() {
            return Ok(());
        }
        let sensors: Vec<_> = published.iter().map(|(sensor, ..)| *sensor).collect();
        let revisions: Vec<i32> = published.iter().map(|(_, revision, _)| *revision).collect();
        let created: Vec<_> = published.iter().map(|(.., created_at)| *created_at).collect();
        let published: Parameters<'_> = &[
            (&sensors, Type::UUID_ARRAY),
            (&revisions, Type::INT4_ARRAY),
            (&created, Type::TIMESTAMPTZ_ARRAY),
        ];
        self.execute(RECORD_PUBLICATIONS, published).await?;
        self.execute(PUBLISH_AGAIN, published).await?;
        self.execute(CLEAR_AGAIN, &published[..1]).await?;
        Ok(())
    }

    /// Records why the broker refused these.
    /// If that fails the next attempt records it.
    pub async fn record_refusals(
        &self,
        refused: &[RefusedConfiguration],
    ) -> Result<(), StoreError> {
        if refused.is_empty() {
            return Ok(());
        }
        let sensors: Vec<_> = refused.iter().map(|it| it.sensor).collect();
        let revisions: Vec<i32> = refused.iter().map(|it| it.revision).collect();
        let created: Vec<_> = refused.iter().map(|it| it.created_at).collect();
        let problems: Vec<&str> = refused.iter().map(|it| it.problem.as_str()).collect();
        let is_final: Vec<bool> = refused.iter().map(|it| it.is_final).collect();
        let refused: Parameters<'_> = &[
            (&sensors, Type::UUID_ARRAY),
            (&revisions, Type::INT4_ARRAY),
            (&created, Type::TIMESTAMPTZ_ARRAY),
            (&problems, Type::TEXT_ARRAY),
            (&is_final, Type::BOOL_ARRAY),
        ];
        self.execute(RECORD_REFUSALS, refused).await?;
        Ok(())
    }

    /// Deleted sensors whose configuration the broker may still retain, starting after `after`.
    pub async fn uncleared_sensors(
        &self,
        after: Option<SensorIdentifier>,
        limit: i64,
    ) -> Result<Vec<SensorIdentifier>, StoreError> {
        let rows = self.rows(UNCLEARED, &[(&after, Type::UUID), (&limit, Type::INT8)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Records these as cleared.
    /// If that fails they are cleared again.
    pub async fn record_clearances(&self, cleared: &[SensorIdentifier]) -> Result<(), StoreError> {
        if cleared.is_empty() {
            return Ok(());
        }
        let sensors: Parameters<'_> = &[(&cleared, Type::UUID_ARRAY)];
        self.execute(RECORD_CLEARANCES, sensors).await?;
        self.execute(RESTORE, sensors).await?;
        Ok(())
    }
}

fn pending(row: &Row) -> Result<PendingConfiguration, tokio_postgres::Error> {
    Ok(PendingConfiguration {
        sensor: row.try_get(0)?,
        revision: row.try_get(1)?,
        value: row.try_get(2)?,
        created_at: row.try_get(3)?,
    })
}
