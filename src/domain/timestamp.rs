//! Time with microsecond precision: `timestamptz` in the tables, Unix seconds on the wire. Used
//! everywhere. Conversions of wire values are exact to the microsecond.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Timestamp(i64);

const MICROSECONDS_PER_SECOND: f64 = 1e6;

/// PostgreSQL counts from 2000-01-01T00:00:00Z.
const POSTGRES_EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

impl Timestamp {
    /// 9999-12-30T22:00:00Z, the latest time that every reader of the tables can print. Milliseconds
    /// sent by mistake are later.
    pub const MAX_UNIX_SECONDS: f64 = 253_402_207_200.0;

    /// The time of this machine's clock.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }

    /// From microseconds since the Unix epoch.
    pub const fn from_unix_microseconds(microseconds: i64) -> Self {
        Self(microseconds)
    }

    /// From Unix seconds with a fraction, rounded to the microsecond; none outside
    /// 0 ..= [`Self::MAX_UNIX_SECONDS`].
    pub fn from_unix_seconds(seconds: f64) -> Option<Self> {
        if !(0.0..=Self::MAX_UNIX_SECONDS).contains(&seconds) {
            return None;
        }
        // Converting seconds and fraction separately keeps the result exact to the microsecond.
        let whole = seconds.trunc();
        let fraction = ((seconds - whole) * MICROSECONDS_PER_SECOND).round();
        #[expect(clippy::cast_possible_truncation, reason = "both are whole and in range")]
        Some(Self(whole as i64 * 1_000_000 + fraction as i64))
    }

    /// This time plus a duration.
    pub fn saturating_add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(microseconds(time)))
    }

    /// This time minus a duration.
    pub fn saturating_sub(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(microseconds(time)))
    }

    /// This time plus this many microseconds.
    pub const fn plus_microseconds(self, count: u32) -> Self {
        Self(self.0.saturating_add(count as i64))
    }

    /// Microseconds since the Unix epoch.
    pub const fn unix_microseconds(self) -> i64 {
        self.0
    }

    /// Unix seconds with a fraction, as on the wire.
    #[expect(clippy::cast_precision_loss, reason = "the wire's own precision")]
    pub fn unix_seconds(self) -> f64 {
        (self.0 / 1_000_000) as f64 + (self.0 % 1_000_000) as f64 / MICROSECONDS_PER_SECOND
    }

    /// Seconds since an earlier time; 0 if that is later.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of many years fit an f64")]
    pub const fn seconds_since(self, earlier: Self) -> f64 {
        let passed = self.0.saturating_sub(earlier.0);
        if passed > 0 { passed as f64 / MICROSECONDS_PER_SECOND } else { 0.0 }
    }

    /// The binary form of `timestamptz`: microseconds since 2000-01-01.
    pub const fn postgres_microseconds(self) -> i64 {
        self.0 - POSTGRES_EPOCH_MICROSECONDS
    }

    /// For the database driver and the API.
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::MAX)
    }
}

fn microseconds(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(timestamp: jiff::Timestamp) -> Self {
        Self(timestamp.as_microsecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_out_of_range() {
        for seconds in [-1.0, -1e-7, f64::NAN, f64::INFINITY, 253_402_207_200.1, 1.7e12] {
            assert_eq!(Timestamp::from_unix_seconds(seconds), None, "{seconds}");
        }
        assert_eq!(Timestamp::from_unix_seconds(-0.0), Some(Timestamp(0)));
        assert_eq!(
            Timestamp::from_unix_seconds(Timestamp::MAX_UNIX_SECONDS)
                .unwrap()
                .to_jiff()
                .to_string(),
            "9999-12-30T22:00:00Z"
        );
    }

    #[test]
    fn microseconds_are_kept() {
        let timestamp = Timestamp::from_unix_seconds(1_700_000_000.123_456).unwrap();
        assert_eq!(timestamp.unix_microseconds(), 1_700_000_000_123_456);
        assert_eq!(timestamp.postgres_microseconds(), 1_700_000_000_123_456 - 946_684_800_000_000);
    }

    proptest! {
        #[test]
        fn unix_seconds_round_trip(microseconds in 0i64..4_500_000_000_000_000) {
            let timestamp = Timestamp::from_unix_microseconds(microseconds);
            prop_assert_eq!(Timestamp::from_unix_seconds(timestamp.unix_seconds()), Some(timestamp));
        }
    }
}
