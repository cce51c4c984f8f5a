//! Activity: how many items each sensor sent, in buckets of four hours over 28 days. A commit writes
//! its counts as one journal row (`journal`); [`super::fold`] adds the journal to the counts, and
//! [`Store::read_activity`] reads them. The counts are exact also after a crash, because they are
//! committed with the rows that they count.

use std::time::Duration;

use futures_util::future;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::{Store, StoreError};

/// The length of a bucket.
pub const BUCKET_SECS: i64 = 14_400;

/// Buckets in 28 days, including the present one.
pub const BUCKETS: i32 = 168;

/// PostgreSQL cancels each statement much earlier, unless it is unreachable.
const READ_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Deletes what is old by both clocks, ours and the database's. Parameters: the last bucket to delete by
/// ours, the number of buckets to keep.
const PRUNE: &str = "\
delete from activity
where bucket <= least($1, floor(extract(epoch from now()) / 14400)::integer - $2)";

const READ_SUMS: &str = "\
select network_identifier, bucket, sum(measurement_count)::bigint, sum(log_message_count)::bigint,
    sum(heartbeat_count)::bigint
from activity
join sensor on identifier = sensor_identifier
where bucket > $1
group by network_identifier, bucket";

const COUNT_SENSORS: &str = "select network_identifier, count(*) from sensor group by 1";

/// The number of items of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names of the kinds")]
pub struct Counts {
    pub measurements: i64,
    pub log_messages: i64,
    pub heartbeats: i64,
}

/// The activity of one sensor in one bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Activity {
    /// The sensor's identifier.
    pub sensor: SensorIdentifier,
    /// The sensor's network.
    pub network: Uuid,
    /// The bucket's number.
    pub bucket: i32,
    /// The total.
    pub counts: Counts,
    /// The part that the last fold added.
    pub added: Counts,
}

/// The sums of the last 28 days.
#[derive(Clone, Debug, Default)]
pub struct ActivityTotals {
    /// Sums over all sensors, by network and bucket.
    pub sums: Vec<(Uuid, i32, Counts)>,
    /// The number of sensors of each network.
    pub sensor_counts: Vec<(Uuid, u64)>,
}

/// The bucket of a timestamp.
#[must_use]
pub const fn bucket_of(timestamp: Timestamp) -> i32 {
    let bucket = timestamp.unix_microseconds().div_euclid(BUCKET_SECS * 1_000_000);
    // The largest timestamp is in bucket 17,597,375.
    bucket as i32
}

/// The first timestamp of a bucket.
#[must_use]
pub fn bucket_begin(bucket: i32) -> Timestamp {
    Timestamp::from_unix_microseconds(i64::from(bucket) * BUCKET_SECS * 1_000_000)
}

impl Store {
    /// Deletes counts older than 28 days.
    pub async fn prune_activity(&self) -> Result<(), StoreError> {
        let last = bucket_of(Timestamp::now()) - BUCKETS;
        Self::answered_within(READ_TIMEOUT, async {
            self.connection()
                .await?
                .execute_typed(PRUNE, &[(&last, Type::INT4), (&BUCKETS, Type::INT4)])
                .await?;
            Ok(())
        })
        .await
    }

    /// Reads the sums of the last 28 days.
    pub async fn read_activity(&self) -> Result<ActivityTotals, StoreError> {
        Self::answered_within(READ_TIMEOUT, self.read_all_activity()).await
    }

    async fn read_all_activity(&self) -> Result<ActivityTotals, StoreError> {
        let last = bucket_of(Timestamp::now()) - BUCKETS;
        let mut connection = self.connection().await?;
        // One snapshot for both.
        let transaction = connection
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let sums: Parameters<'_> = &[(&last, Type::INT4)];
        let (sums, sensor_counts) = future::try_join(
            transaction.query_typed(READ_SUMS, sums),
            transaction.query_typed(COUNT_SENSORS, &[]),
        )
        .await?;
        transaction.commit().await?;
        Ok(ActivityTotals {
            sums: sums
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, read_counts(row, 2)?)))
                .collect::<Result<_, tokio_postgres::Error>>()?,
            sensor_counts: sensor_counts
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs())))
                .collect::<Result<_, tokio_postgres::Error>>()?,
        })
    }
}

pub(in crate::store) fn read_counts(
    row: &Row,
    first: usize,
) -> Result<Counts, tokio_postgres::Error> {
    Ok(Counts {
        measurements: row.try_get(first)?,
        log_messages: row.try_get(first + 1)?,
        heartbeats: row.try_get(first + 2)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: i32 = 123_456;

    #[test]
    fn a_bucket_is_four_hours() {
        assert_eq!(bucket_of(bucket_begin(PRESENT)), PRESENT);
        let last = bucket_begin(PRESENT + 1).unix_microseconds() - 1;
        assert_eq!(bucket_of(Timestamp::from_unix_microseconds(last)), PRESENT);
        let end = Timestamp::from_unix_seconds(Timestamp::MAX_UNIX_SECONDS).unwrap();
        assert_eq!(bucket_of(end), 17_597_375);
    }
}
