//! Look-ups of sensors, their registration, and `last_seen_timestamp`. Called by the supervisor and the
//! API. A look-up never creates a sensor; `last_seen_timestamp` only increases, also
//! if several processes store it.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::domain::{NetworkIdentifier, SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::{Store, StoreError};

pub(in crate::store) const SENSOR_EXISTS: &str = "select 1 from sensor where identifier = $1";

/// Locks a sensor's row.
pub(in crate::store) const LOCK_SENSOR: &str =
    "select identifier from sensor where identifier = $1 for update";

/// Searches older revisions only if the newest has not been acknowledged, which is rare. Measured with
/// 5,000 sensors of two revisions each: 33 ms instead of 53 ms.
const KNOWN: &str = "\
select sensor.identifier, newest.revision,
    coalesce(older.revision, newest.revision), coalesce(older.success, newest.success)
from sensor
left join configuration newest on newest.sensor_identifier = sensor.identifier and newest.is_newest
left join lateral (
    select revision, success from configuration
    where newest.success is null and newest.revision is not null
        and sensor_identifier = sensor.identifier and acknowledgement_timestamp is not null
    order by revision desc limit 1
) older on true
where sensor.identifier = any ($1)";

/// One snapshot shows a sensor that is being deleted, or its tombstone: such a sensor is not created again.
const REGISTER: &str = "\
insert into sensor (identifier, name)
select identifier, identifier::text from unnest($1::uuid[]) as missing (identifier)
where not exists (select from sensor where sensor.identifier = missing.identifier)
    and not exists (select from deleted_sensor where deleted_sensor.identifier = missing.identifier)
on conflict do nothing";

/// The rows are locked in one order, so that two processes do not deadlock.
const UPDATE_LAST_SEEN: &str = "\
with seen as (
    select * from unnest($1::uuid[], $2::timestamptz[]) as seen (identifier, last_seen_at)
), locked as (
    select sensor.identifier, seen.last_seen_at
    from seen join sensor on sensor.identifier = seen.identifier
    where sensor.last_seen_timestamp is null or sensor.last_seen_timestamp < seen.last_seen_at
    order by sensor.identifier
    for no key update of sensor
)
update sensor set last_seen_timestamp = locked.last_seen_at
from locked where sensor.identifier = locked.identifier";

const SENSOR_LOCATION: &str = "\
select network_identifier, last_seen_timestamp from sensor where identifier = $1";

/// A sensor that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownSensor {
    /// Its identifier.
    pub identifier: SensorIdentifier,
    /// Its newest revision.
    pub desired_revision: Option<i32>,
    /// The newest revision that it acknowledged, and whether it could apply it.
    pub last_acknowledged: Option<(i32, bool)>,
}

/// A sensor's network, and when it last sent a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SensorLocation {
    /// Its network.
    pub network: NetworkIdentifier,
    /// None if it has never sent a message.
    pub last_seen_at: Option<Timestamp>,
}

impl Store {
    /// Returns those of these sensors that exist.
    pub async fn known_sensors(
        &self,
        sensors: &[SensorIdentifier],
    ) -> Result<Vec<KnownSensor>, StoreError> {
        let rows = self.rows(KNOWN, &[(&sensors, Type::UUID_ARRAY)]).await?;
        let known = |row: &Row| -> Result<KnownSensor, tokio_postgres::Error> {
            Ok(KnownSensor {
                identifier: row.try_get(0)?,
                desired_revision: row.try_get(1)?,
                last_acknowledged: row.try_get::<_, Option<i32>>(2)?.zip(row.try_get(3)?),
            })
        };
        Ok(rows.iter().map(known).collect::<Result<_, _>>()?)
    }

    /// Creates the missing ones of these sensors, each named by its identifier, unless it has a
    /// tombstone. Returns how many were created.
    pub async fn register_sensors(&self, sensors: &[SensorIdentifier]) -> Result<u64, StoreError> {
        self.execute(REGISTER, &[(&sensors, Type::UUID_ARRAY)]).await
    }

    /// Updates when these sensors last sent a message.
    pub async fn update_last_seen(
        &self,
        seen: &[(SensorIdentifier, Timestamp)],
    ) -> Result<(), StoreError> {
        let (sensors, timestamps): (Vec<SensorIdentifier>, Vec<Timestamp>) =
            seen.iter().copied().unzip();
        let parameters: Parameters<'_> =
            &[(&sensors, Type::UUID_ARRAY), (&timestamps, Type::TIMESTAMPTZ_ARRAY)];
        self.execute(UPDATE_LAST_SEEN, parameters).await.map(drop)
    }

    /// A sensor's network; none if the sensor does not exist.
    pub async fn sensor_location(
        &self,
        sensor: SensorIdentifier,
    ) -> Result<Option<SensorLocation>, StoreError> {
        let read = |row: &Row| {
            Ok(SensorLocation { network: row.try_get(0)?, last_seen_at: row.try_get(1)? })
        };
        self.one(SENSOR_LOCATION, &[(&sensor, Type::UUID)], read).await
    }

    /// The rows of a sensor; none if the sensor does not exist.
    pub(in crate::store) async fn rows_of_sensor<T>(
        &self,
        sensor: SensorIdentifier,
        statement: &str,
        parameters: Parameters<'_>,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<Vec<T>>, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            let identifier: Parameters<'_> = &[(&sensor, Type::UUID)];
            // Pipelined: one round trip.
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
