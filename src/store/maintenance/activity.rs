//! How much each sensor said, in buckets of four hours over 28 days. A commit journals what it
//! stored in one row beside its rows (`journal`); [`super::fold`] adds the journal to the
//! counts, and [`Store::read_activity`] reads them. Promises exact counts, whatever crashes:
//! they are committed with the rows that they count.

use std::time::Duration;

use futures_util::future;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::{Store, StoreError};

/// The span of a bucket.
pub const BUCKET_SECS: i64 = 14_400;

/// Buckets in 28 days, the present one included.
pub const BUCKETS: i32 = 168;

/// PostgreSQL cancels each statement of these much earlier, if it is there to do so.
const READ_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// What is old by both clocks, ours and the database's. Parameters: our last bucket, how many there are.
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

/// Items of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Of measurements.
    pub measurements: i64,
    /// Of log messages.
    pub log_messages: i64,
    /// Of heartbeats.
    pub heartbeats: i64,
}

/// What one sensor said in one bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Activity {
    /// Whose.
    pub sensor: SensorIdentifier,
    /// In which network it is.
    pub network: Uuid,
    /// The bucket's number.
    pub bucket: i32,
    /// In all.
    pub counts: Counts,
    /// What of it a fold has just added.
    pub added: Counts,
}

/// The sums of the last 28 days.
#[derive(Clone, Debug, Default)]
pub struct ActivityTotals {
    /// Of all sensors, by network and bucket.
    pub sums: Vec<(Uuid, i32, Counts)>,
    /// How many sensors each network has.
    pub sensor_counts: Vec<(Uuid, u64)>,
}

/// The bucket of a timestamp.
#[must_use]
pub const fn bucket_of(timestamp: Timestamp) -> i32 {
    let bucket = timestamp.unix_microseconds().div_euclid(BUCKET_SECS * 1_000_000);
    // Timestamps end with the year 9999, which is in bucket 17,597,375.
    bucket as i32
}

/// When a bucket begins.
#[must_use]
pub fn bucket_begin(bucket: i32) -> Timestamp {
    Timestamp::from_unix_microseconds(i64::from(bucket) * BUCKET_SECS * 1_000_000)
}

impl Store {
    /// Deletes the counts that nobody asks for any more.
    ///
    /// # Errors
    /// When the database is unavailable.
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
    ///
    /// # Errors
    /// When the database is unavailable.
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
