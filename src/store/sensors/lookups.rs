//! What the registry and the supervisor look up of sensors, and note about them. Promises that a
//! look-up never creates a sensor, and that `last_seen_timestamp` only rises, whichever process
//! stores it.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::domain::{NetworkIdentifier, SensorIdentifier, Timestamp};
use crate::store::background::uuids;
use crate::store::columns::{Parameters, optional_timestamp};
use crate::store::{Store, StoreError};

pub(in crate::store) const SENSOR_EXISTS: &str = "select 1 from sensor where identifier = $1";

/// The newest revision is mostly the acknowledged one; an older one is looked for where it is not.
/// Measured, for 5,000 sensors of two revisions each: 33 ms instead of 53.
const KNOWN: &str = "\
select sensor.identifier, newest.revision,
    coalesce(older.revision, newest.revision), coalesce(older.success, newest.success)
from sensor
left join lateral (
    select revision, success from configuration where sensor_identifier = sensor.identifier
    order by revision desc limit 1
) newest on true
left join lateral (
    select revision, success from configuration
    where newest.success is null and newest.revision is not null
        and sensor_identifier = sensor.identifier and acknowledgement_timestamp is not null
    order by revision desc limit 1
) older on true
where sensor.identifier = any ($1)";

const REGISTER: &str = "\
insert into sensor (identifier, name)
select identifier, identifier::text from unnest($1::uuid[]) as spoke (identifier)
where not exists (select from deleted_sensor where deleted_sensor.identifier = spoke.identifier)
on conflict do nothing";

/// The rows are locked in one order, so that two processes do not wait for each other.
const NOTE_LAST_SEEN: &str = "\
with spoke as (
    select * from unnest($1::uuid[], $2::timestamptz[]) as spoke (identifier, last_seen_at)
), heard as (
    select sensor.identifier, spoke.last_seen_at
    from spoke join sensor on sensor.identifier = spoke.identifier
    where sensor.last_seen_timestamp is null or sensor.last_seen_timestamp < spoke.last_seen_at
    order by sensor.identifier
    for no key update of sensor
)
update sensor set last_seen_timestamp = heard.last_seen_at
from heard where sensor.identifier = heard.identifier";

const WHEREABOUTS: &str = "\
select network_identifier, last_seen_timestamp from sensor where identifier = $1";

/// A sensor that there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownSensor {
    /// Which one.
    pub identifier: SensorIdentifier,
    /// The newest revision that there is.
    pub desired_revision: Option<i32>,
    /// The newest revision that it acknowledged, and whether that works.
    pub last_acknowledged: Option<(i32, bool)>,
}

/// Where a sensor belongs, and when it was last heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whereabouts {
    /// Its network.
    pub network: NetworkIdentifier,
    /// None where it never was.
    pub last_seen_at: Option<Timestamp>,
}

impl Store {
    /// Those of these sensors that there are.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn known_sensors(
        &self,
        sensors: &[SensorIdentifier],
    ) -> Result<Vec<KnownSensor>, StoreError> {
        let rows = self.rows(KNOWN, &[(&uuids(sensors), Type::UUID_ARRAY)]).await?;
        let known = |row: &Row| -> Result<KnownSensor, tokio_postgres::Error> {
            Ok(KnownSensor {
                identifier: SensorIdentifier(row.try_get(0)?),
                desired_revision: row.try_get(1)?,
                last_acknowledged: row.try_get::<_, Option<i32>>(2)?.zip(row.try_get(3)?),
            })
        };
        Ok(rows.iter().map(known).collect::<Result<_, _>>()?)
    }

    /// Creates those of these sensors that there are not, each named by its identifier. Returns how
    /// many those were. One whose deletion is on record is not created: deleted means deleted.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn register_sensors(&self, sensors: &[SensorIdentifier]) -> Result<u64, StoreError> {
        self.execute(REGISTER, &[(&uuids(sensors), Type::UUID_ARRAY)]).await
    }

    /// These sensors were last seen then.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn note_last_seen(
        &self,
        heard: &[(SensorIdentifier, Timestamp)],
    ) -> Result<(), StoreError> {
        let sensors: Vec<Uuid> = heard.iter().map(|(sensor, _)| sensor.0).collect();
        let timestamps: Vec<jiff::Timestamp> = heard.iter().map(|(_, at)| at.to_jiff()).collect();
        let parameters: Parameters<'_> =
            &[(&sensors, Type::UUID_ARRAY), (&timestamps, Type::TIMESTAMPTZ_ARRAY)];
        self.execute(NOTE_LAST_SEEN, parameters).await.map(drop)
    }

    /// Where a sensor belongs; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn whereabouts(
        &self,
        sensor: SensorIdentifier,
    ) -> Result<Option<Whereabouts>, StoreError> {
        self.within(async {
            let sensor: Parameters<'_> = &[(&sensor.0, Type::UUID)];
            let row = self.connection().await?.query_typed_opt(WHEREABOUTS, sensor).await?;
            let read = |row: Row| -> Result<_, tokio_postgres::Error> {
                let network = NetworkIdentifier(row.try_get(0)?);
                Ok(Whereabouts { network, last_seen_at: optional_timestamp(&row, 1)? })
            };
            Ok(row.map(read).transpose()?)
        })
        .await
    }

    /// Rows that belong to a sensor; none if there is no such sensor.
    pub(in crate::store) async fn rows_of_sensor<T>(
        &self,
        sensor: SensorIdentifier,
        statement: &str,
        parameters: Parameters<'_>,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<Vec<T>>, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            let identifier: Parameters<'_> = &[(&sensor.0, Type::UUID)];
            // Both are under way at once, one behind the other on the connection.
            let (exists, rows) = tokio::try_join!(
                connection.query_typed_opt(SENSOR_EXISTS, identifier),
                connection.query_typed(statement, parameters),
            )?;
            if exists.is_none() {
                return Ok(None);
            }
            Ok(Some(rows.iter().map(read).collect::<Result<_, _>>()?))
        })
        .await
    }
}
