//! When a sensor was last heard. Noted in bulk by the supervisor, beside the path of the rows.
//! Promises that the moment only rises, whichever process notes it.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::pool::ANSWER_PATIENCE;
use super::{Store, StoreError};
use crate::domain::{SensorIdentifier, Timestamp};

/// The rows are locked in one order, so that two processes do not wait for each other.
const NOTE: &str = "\
with heard as (
    select sensor.identifier, spoke.moment
    from unnest($1::uuid[], $2::timestamptz[]) as spoke (identifier, moment)
    join sensor on sensor.identifier = spoke.identifier
    where sensor.last_seen_timestamp is null or sensor.last_seen_timestamp < spoke.moment
    order by sensor.identifier
    for no key update of sensor
)
update sensor set last_seen_timestamp = heard.moment
from heard where sensor.identifier = heard.identifier";

impl Store {
    /// These sensors were heard, each last at its moment.
    ///
    /// # Errors
    /// When the database is away; it is then noted later.
    pub async fn note_last_seen(
        &self,
        heard: &[(SensorIdentifier, Timestamp)],
    ) -> Result<(), StoreError> {
        let sensors: Vec<Uuid> = heard.iter().map(|(sensor, _)| sensor.0).collect();
        let moments: Vec<jiff::Timestamp> = heard.iter().map(|(_, at)| at.to_jiff()).collect();
        Self::answered_within(ANSWER_PATIENCE, async {
            let connection = self.connection().await?;
            connection
                .execute_typed(
                    NOTE,
                    &[(&sensors, Type::UUID_ARRAY), (&moments, Type::TIMESTAMPTZ_ARRAY)],
                )
                .await?;
            Ok(())
        })
        .await
    }
}
