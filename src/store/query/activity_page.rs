//! The activity counts of four hours each from the roll-up: of each sensor, page by page, for the API, and of all of
//! them for the fleet's stream. A page has at most [`MAX_COUNTS`] counts, and is read by one statement that reads only
//! the sensors of that page.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future;
use tokio_postgres::types::Type;
use tokio_postgres::{IsolationLevel, Row};
use uuid::Uuid;

use super::rows::Page;
use crate::domain::{Scope, SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::rollup::hours::{BUCKETS, Counts, DAY_BUCKETS, bucket_of, bucket_sum};
use crate::store::{Store, StoreError};

/// 100 sensors with all their buckets, about 90 bytes per count in the API.
const MAX_COUNTS: u32 = 100 * BUCKETS as u32;

/// The buckets of a day from its hours, as a list for `from`.
static DAY: LazyLock<String> = LazyLock::new(|| {
    let sum = |counts| bucket_sum(counts, "part * 4");
    format!(
        "sensor_hour cross join generate_series(0, 5) as part
         cross join lateral (select (day - date '1970-01-01') * 6 + part as bucket, {} as measurements,
             {} as log_messages, {} as heartbeats) as of_bucket",
        sum("measurement_counts"),
        sum("log_message_counts"),
        sum("heartbeat_counts")
    )
});

/// Parameters: first and last bucket, scope or null, identifier after which to continue or null, limit,
/// identifiers or null, first and last day. Grouped by sensor, because Citus then runs it on the shards; in no order,
/// which PostgreSQL would sort by once per array.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "\
select identifier, buckets, measurements, log_messages, heartbeats
from sensor
cross join lateral (
    select array_agg(bucket) as buckets, array_agg(measurements) as measurements,
        array_agg(log_messages) as log_messages, array_agg(heartbeats) as heartbeats
    from {}
    where sensor_identifier = identifier
      and day >= date '1970-01-01' + $7 and day <= date '1970-01-01' + $8
      and bucket >= $1 and bucket <= $2 and measurements + log_messages + heartbeats > 0
    group by sensor_identifier
) as counted
where ($3::uuid is null or network_identifier = $3)
  and ($4::uuid is null or identifier > $4)
  and ($6::uuid[] is null or identifier = any ($6))
order by identifier limit $5",
        *DAY
    )
});

/// By network and day: the sums of each bucket of the day, of measurements, log messages and heartbeats each.
/// Parameter: the first day.
static TOTALS: LazyLock<String> = LazyLock::new(|| {
    let kinds = ["measurement_counts", "log_message_counts", "heartbeat_counts"];
    let sums = (0..DAY_BUCKETS).flat_map(|part| {
        kinds.map(|counts| format!("sum({})::bigint", bucket_sum(counts, &(part * 4).to_string())))
    });
    format!(
        "\
select network_identifier, day - date '1970-01-01', {}
from sensor_hour
join sensor on identifier = sensor_identifier
where day >= date '1970-01-01' + $1
group by network_identifier, day",
        sums.collect::<Vec<_>>().join(", ")
    )
});

const COUNT_SENSORS: &str = "select network_identifier, count(*) from sensor group by 1";

/// PostgreSQL cancels each statement much earlier, unless it is unreachable.
const READ_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The sums of the last 28 days.
#[derive(Clone, Debug, Default)]
pub struct ActivityTotals {
    /// Sums over all sensors, by network and bucket.
    pub sums: Vec<(Uuid, i32, Counts)>,
    /// The number of sensors of each network.
    pub sensor_counts: Vec<(Uuid, u64)>,
}

/// The counts of one sensor, by bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SensorActivity {
    /// The sensor's identifier.
    pub sensor: SensorIdentifier,
    /// The counts by bucket, without empty buckets.
    pub buckets: Vec<(i32, Counts)>,
}

impl Store {
    /// Reads the sums of the last 28 days.
    pub async fn read_activity(&self) -> Result<ActivityTotals, StoreError> {
        Self::answered_within(READ_TIMEOUT, self.read_all_activity()).await
    }

    async fn read_all_activity(&self) -> Result<ActivityTotals, StoreError> {
        let first = bucket_of(Timestamp::now()) - BUCKETS + 1;
        let mut connection = self.connection().await?;
        // One snapshot for both.
        let transaction = connection
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let first_day: Parameters<'_> = &[(&first.div_euclid(DAY_BUCKETS), Type::INT4)];
        let (days, sensor_counts) = future::try_join(
            transaction.query_typed(&TOTALS, first_day),
            transaction.query_typed(COUNT_SENSORS, &[]),
        )
        .await?;
        transaction.commit().await?;
        let mut sums = Vec::with_capacity(days.len() * DAY_BUCKETS as usize);
        for row in &days {
            let (network, day): (Uuid, i32) = (row.try_get(0)?, row.try_get(1)?);
            for part in 0..DAY_BUCKETS {
                let bucket = day * DAY_BUCKETS + part;
                let counts = Counts::read(row, 2 + 3 * part as usize)?;
                if bucket >= first && counts != Counts::default() {
                    sums.push((network, bucket, counts));
                }
            }
        }
        let sensor_counts = sensor_counts
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs())))
            .collect::<Result<_, tokio_postgres::Error>>()?;
        Ok(ActivityTotals { sums, sensor_counts })
    }

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
        let limit = page.row_count();
        let parameters: Parameters<'_> = &[
            (&first, Type::INT4),
            (&present, Type::INT4),
            (&scope, Type::UUID),
            (&page.after, Type::UUID),
            (&limit, Type::INT8),
            (&sensors, Type::UUID_ARRAY),
            (&first.div_euclid(DAY_BUCKETS), Type::INT4),
            (&present.div_euclid(DAY_BUCKETS), Type::INT4),
        ];
        Ok((self.list(&PAGE, parameters, sensor_activity).await?, page))
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
    let mut buckets: Vec<_> = buckets.into_iter().zip(counts).collect();
    buckets.sort_unstable_by_key(|(bucket, _)| *bucket);
    Ok(SensorActivity { sensor: row.try_get(0)?, buckets })
}
