//! `last_seen_timestamp` of sensors. Stored in bulk by the supervisor, outside the transactions of the
//! rows. It only rises, whichever process stores it.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::domain::{NetworkIdentifier, SensorIdentifier, Timestamp};
use crate::store::pool::ANSWER_PATIENCE;
use crate::store::query::reads::Parameters;
use crate::store::{Store, StoreError};

/// The rows are locked in one order, so that two processes do not wait for each other.
const NOTE: &str = "\
with spoke as (
    select * from unnest($1::uuid[], $2::timestamptz[]) as spoke (identifier, moment)
), heard as (
    select sensor.identifier, spoke.moment
    from spoke join sensor on sensor.identifier = spoke.identifier
    where sensor.last_seen_timestamp is null or sensor.last_seen_timestamp < spoke.moment
    order by sensor.identifier
    for no key update of sensor
)
update sensor set last_seen_timestamp = heard.moment
from heard where sensor.identifier = heard.identifier";

const WHEREABOUTS: &str = "\
select network_identifier, last_seen_timestamp from sensor where identifier = $1";

/// Where a sensor belongs, and when it was last heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whereabouts {
    /// Its network.
    pub network: NetworkIdentifier,
    /// None where it never was.
    pub last_seen_at: Option<Timestamp>,
}

impl Store {
    /// These sensors were last seen then.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn note_last_seen(
        &self,
        heard: &[(SensorIdentifier, Timestamp)],
    ) -> Result<(), StoreError> {
        let sensors: Vec<Uuid> = heard.iter().map(|(sensor, _)| sensor.0).collect();
        let moments: Vec<jiff::Timestamp> = heard.iter().map(|(_, at)| at.to_jiff()).collect();
        Self::answered_within(ANSWER_PATIENCE, async {
            let connection = self.connection().await?;
            let parameters: Parameters<'_> =
                &[(&sensors, Type::UUID_ARRAY), (&moments, Type::TIMESTAMPTZ_ARRAY)];
            connection.query_typed(NOTE, parameters).await?;
            Ok(())
        })
        .await
    }

    /// Where a sensor belongs; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn whereabouts(
        &self,
        sensor: SensorIdentifier,
    ) -> Result<Option<Whereabouts>, StoreError> {
        self.within(async {
            let sensor: Parameters<'_> = &[(&sensor.0, Type::UUID)];
            let row = self.connection().await?.query_typed_opt(WHEREABOUTS, sensor).await?;
            let read = |row: Row| -> Result<_, tokio_postgres::Error> {
                let last_seen_at = row.try_get::<_, Option<jiff::Timestamp>>(1)?.map(Into::into);
                Ok(Whereabouts { network: NetworkIdentifier(row.try_get(0)?), last_seen_at })
            };
            Ok(row.map(read).transpose()?)
        })
        .await
    }
}
