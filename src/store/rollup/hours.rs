//! Hours, and the buckets of four hours in which activity is shown, by the sensors' clocks in UTC. Pure. Called by
//! everything that writes or reads the roll-up. Every timestamp has an hour that fits an `i32`.

use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::{Kind, SensorIdentifier, Timestamp};

/// The length of an hour.
pub(in crate::store) const HOUR_SECS: i64 = 3_600;

/// The hour after the last one of a timestamp.
pub(in crate::store) const END_HOUR: i32 = 70_389_503;

/// An hour is summed up this long after its end, or after a late item: more are likely to arrive.
pub(in crate::store) const SETTLED: Duration = Duration::from_secs(600);

/// Hours of a bucket.
pub(in crate::store) const BUCKET_HOURS: i32 = 4;

/// The length of a bucket.
pub const BUCKET_SECS: i64 = BUCKET_HOURS as i64 * HOUR_SECS;

/// Buckets in 28 days, including the present one.
pub const BUCKETS: i32 = 168;

/// Buckets of a day.
pub(in crate::store) const DAY_BUCKETS: i32 = 6;

/// The number of items of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names of the kinds")]
pub struct Counts {
    pub measurements: i64,
    pub log_messages: i64,
    pub heartbeats: i64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            measurements: self.measurements + other.measurements,
            log_messages: self.log_messages + other.log_messages,
            heartbeats: self.heartbeats + other.heartbeats,
        }
    }
}

impl Counts {
    pub(in crate::store) const fn of(&mut self, kind: Kind) -> &mut i64 {
        match kind {
            Kind::Measurement => &mut self.measurements,
            Kind::LogMessage => &mut self.log_messages,
            Kind::Heartbeat => &mut self.heartbeats,
        }
    }

    pub(in crate::store) fn read(row: &Row, first: usize) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            measurements: row.try_get(first)?,
            log_messages: row.try_get(first + 1)?,
            heartbeats: row.try_get(first + 2)?,
        })
    }
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

/// The hour of a timestamp.
pub(in crate::store) const fn hour_of(timestamp: Timestamp) -> i32 {
    // At most END_HOUR - 1.
    timestamp.unix_microseconds().div_euclid(HOUR_SECS * 1_000_000) as i32
}

/// The first timestamp of an hour.
pub(in crate::store) fn hour_begin(hour: i32) -> Timestamp {
    Timestamp::from_unix_microseconds(i64::from(hour) * HOUR_SECS * 1_000_000)
}

/// The bucket of a timestamp.
pub const fn bucket_of(timestamp: Timestamp) -> i32 {
    hour_of(timestamp).div_euclid(BUCKET_HOURS)
}

/// The first timestamp of a bucket.
pub fn bucket_begin(bucket: i32) -> Timestamp {
    hour_begin(bucket * BUCKET_HOURS)
}

/// The sum of a bucket's hours in SQL. `first` is the hour of the day before the bucket's first.
pub(in crate::store) fn bucket_sum(counts: &str, first: &str) -> String {
    let hour = |hour| format!("coalesce({counts}[{first} + {hour}], 0)::bigint");
    [1, 2, 3, 4].map(hour).join(" + ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: i32 = 123_456;

    #[test]
    fn a_bucket_is_four_hours() {
        assert_eq!(bucket_of(bucket_begin(PRESENT)), PRESENT);
        assert_eq!(hour_of(bucket_begin(PRESENT)), PRESENT * 4);
        let last = bucket_begin(PRESENT + 1).unix_microseconds() - 1;
        assert_eq!(bucket_of(Timestamp::from_unix_microseconds(last)), PRESENT);
        let end = Timestamp::from_unix_seconds(Timestamp::MAX_UNIX_SECONDS).unwrap();
        assert_eq!(hour_of(end), END_HOUR - 1);
    }
}
