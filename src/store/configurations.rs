//! Configurations, as the API creates and lists them; what becomes of them later is the outbox's
//! and the commit's. Called by the API. Promises revisions 0, 1, 2, … without a gap and without a
//! collision, however many are created at once.

use std::str::FromStr;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::reads::{Parameters, raw_json};
use super::{Page, SensorError, Store, StoreError};
use crate::domain::{SensorIdentifier, Timestamp};

/// How far a configuration has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfigurationState {
    /// The sensor has none.
    None,
    /// Committed, and not yet taken by the broker.
    Pending,
    /// The broker has it.
    Published,
    /// The sensor has it, and it works.
    Acknowledged,
    /// The sensor has it, and it does not work.
    Failed,
    /// Of a sensor's newest only: the broker has had it for five minutes, and the sensor has spoken
    /// since without acknowledging it.
    Stale,
}

impl ConfigurationState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::None, Self::Pending, Self::Published, Self::Acknowledged, Self::Failed, Self::Stale];

    /// As the API names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Published => "published",
            Self::Acknowledged => "acknowledged",
            Self::Failed => "failed",
            Self::Stale => "stale",
        }
    }

    /// The state of a row.
    #[must_use]
    pub const fn of(published: bool, acknowledged: bool, success: Option<bool>) -> Self {
        match (acknowledged, success) {
            (true, Some(false)) => Self::Failed,
            (true, _) => Self::Acknowledged,
            (false, _) if published => Self::Published,
            (false, _) => Self::Pending,
        }
    }
}

impl FromStr for ConfigurationState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or(())
    }
}

/// One configuration of a sensor.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Its number.
    pub revision: i32,
    /// The text of a JSON object, as the table prints it.
    pub value: Box<RawValue>,
    /// How far it has come.
    pub state: ConfigurationState,
    /// When it was committed.
    pub created_at: Timestamp,
    /// When the broker took it.
    pub published_at: Option<Timestamp>,
    /// When the sensor acknowledged it, by the sensor's clock.
    pub acknowledged_at: Option<Timestamp>,
    /// The same, by ours.
    pub acknowledgement_received_at: Option<Timestamp>,
    /// Whether the sensor says that it works.
    pub success: Option<bool>,
}

/// Whoever holds the row creates the next revision; the others wait.
const LOCK_SENSOR: &str = "select identifier from sensor where identifier = $1 for update";

const INSERT_NEXT: &str = "\
insert into configuration (sensor_identifier, revision, value)
select $1, coalesce(max(revision) + 1, 0), $2::text::jsonb
from configuration where sensor_identifier = $1
returning revision";

/// Parameters: sensor, revision to go on behind or null, limit.
const LIST: &str = "\
select revision, value::text, creation_timestamp, publication_timestamp,
       acknowledgement_timestamp, acknowledgement_receipt_timestamp, success
from configuration
where sensor_identifier = $1 and ($2::integer is null or revision < $2)
order by revision desc
limit $3";

impl Store {
    /// Commits the next revision of a sensor; none if there is no such sensor.
    ///
    /// # Errors
    /// When PostgreSQL refuses the value, or is away.
    pub async fn create_configuration(
        &self,
        sensor: SensorIdentifier,
        value: &str,
    ) -> Result<Option<i32>, SensorError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        let locked = transaction.query_typed_opt(LOCK_SENSOR, &[(&sensor.0, Type::UUID)]).await?;
        if locked.is_none() {
            return Ok(None);
        }
        // A statement of its own: its snapshot is younger than the lock, and sees the revision of
        // whoever held it before.
        let created = transaction
            .query_typed_one(INSERT_NEXT, &[(&sensor.0, Type::UUID), (&value, Type::TEXT)])
            .await?;
        transaction.commit().await?;
        Ok(Some(created.try_get(0)?))
    }

    /// The configurations of a sensor, newest first, one more than the page has room for if there
    /// are more; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list_configurations(
        &self,
        sensor: SensorIdentifier,
        page: &Page<i32>,
    ) -> Result<Option<Vec<Configuration>>, StoreError> {
        let limit = page.row_count();
        let parameters: Parameters<'_> =
            &[(&sensor.0, Type::UUID), (&page.after, Type::INT4), (&limit, Type::INT8)];
        self.rows_of_sensor(sensor, LIST, parameters, configuration).await
    }
}

fn configuration(row: &Row) -> Result<Configuration, tokio_postgres::Error> {
    let moment = |index: usize| -> Result<Option<Timestamp>, tokio_postgres::Error> {
        Ok(row.try_get::<_, Option<jiff::Timestamp>>(index)?.map(Into::into))
    };
    let (published_at, acknowledged_at) = (moment(3)?, moment(4)?);
    let success = row.try_get(6)?;
    Ok(Configuration {
        revision: row.try_get(0)?,
        value: raw_json(row.try_get(1)?),
        state: ConfigurationState::of(published_at.is_some(), acknowledged_at.is_some(), success),
        created_at: row.try_get::<_, jiff::Timestamp>(2)?.into(),
        published_at,
        acknowledged_at,
        acknowledgement_received_at: moment(5)?,
        success,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sensors_word_outranks_the_brokers() {
        for (published, acknowledged, success, state) in [
            (false, false, None, ConfigurationState::Pending),
            (true, false, None, ConfigurationState::Published),
            (true, true, Some(true), ConfigurationState::Acknowledged),
            (true, true, Some(false), ConfigurationState::Failed),
            // Acknowledged before our broker's PUBACK was recorded.
            (false, true, Some(true), ConfigurationState::Acknowledged),
        ] {
            assert_eq!(ConfigurationState::of(published, acknowledged, success), state);
        }
    }
}
