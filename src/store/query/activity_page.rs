//! The activity counts of each sensor, page by page. Called by the API. A page has at most
//! [`MAX_COUNTS`] counts, and is read by one statement that reads only the sensors of that page.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::rows::Page;
use crate::domain::{Scope, SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::maintenance::activity::{BUCKETS, Counts, bucket_of};
use crate::store::{Store, StoreError};

/// 100 sensors with all their buckets, about 90 bytes per count in the API.
const MAX_COUNTS: u32 = 100 * BUCKETS as u32;

/// Parameters: first and last bucket, scope or null, identifier after which to continue or null, limit,
/// identifiers or null.
const PAGE: &str = "\
select identifier, buckets, measurements, log_messages, heartbeats
from sensor
cross join lateral (
    select array_agg(bucket) as buckets, array_agg(measurement_count) as measurements,
        array_agg(log_message_count) as log_messages, array_agg(heartbeat_count) as heartbeats
    from (
        select * from activity
        where sensor_identifier = identifier and bucket >= $1 and bucket <= $2
        order by bucket
    ) as ordered
) as counted
where buckets is not null
  and ($3::uuid is null or network_identifier = $3)
  and ($4::uuid is null or identifier > $4)
  and ($6::uuid[] is null or identifier = any ($6))
order by identifier limit $5";

/// The counts of one sensor, by bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SensorActivity {
    /// The sensor's identifier.
    pub sensor: SensorIdentifier,
    /// The counts by bucket, without empty buckets.
    pub buckets: Vec<(i32, Counts)>,
}

impl Store {
    /// The sensors of a scope, or some of them, that have counts in the bucket of `from` or later, one more
    /// than the returned limit if there are more. The limit is reduced to bound the page.
    pub async fn list_activity(
        &self,
        scope: Scope,
        (from, sensors): (Option<Timestamp>, Option<&[Uuid]>),
        page: Page<Uuid>,
    ) -> Result<(Vec<SensorActivity>, Page<Uuid>), StoreError> {
        let present = bucket_of(Timestamp::now());
        let oldest = present - BUCKETS + 1;
        let first = from.map_or(oldest, |from| bucket_of(from).clamp(oldest, present + 1));
        let bucket_count = (present + 1 - first).unsigned_abs().max(1);
        let page = Page { limit: page.limit.min(MAX_COUNTS / bucket_count), ..page };
        let (network, limit) = (scope.network().map(|network| network.0), page.row_count());
        let parameters: Parameters<'_> = &[
            (&first, Type::INT4),
            (&present, Type::INT4),
            (&network, Type::UUID),
            (&page.after, Type::UUID),
            (&limit, Type::INT8),
            (&sensors, Type::UUID_ARRAY),
        ];
        self.within(async {
            let rows = self.connection().await?.query_typed(PAGE, parameters).await?;
            Ok((rows.iter().map(sensor_activity).collect::<Result<_, _>>()?, page))
        })
        .await
    }
}

fn sensor_activity(row: &Row) -> Result<SensorActivity, tokio_postgres::Error> {
    let buckets: Vec<i32> = row.try_get(1)?;
    let (measurements, log_messages): (Vec<i64>, Vec<i64>) = (row.try_get(2)?, row.try_get(3)?);
    let heartbeats: Vec<i64> = row.try_get(4)?;
    let counts = measurements.into_iter().zip(log_messages).zip(heartbeats);
    let counts = counts.map(|((measurements, log_messages), heartbeats)| Counts {
        measurements,
        log_messages,
        heartbeats,
    });
    let sensor = SensorIdentifier(row.try_get(0)?);
    Ok(SensorActivity { sensor, buckets: buckets.into_iter().zip(counts).collect() })
}
