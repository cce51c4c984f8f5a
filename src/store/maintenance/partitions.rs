//! Which partitions the hot tables need, before they are needed and on demand. Called by the
//! housekeeping and by commits.
//!
//! Invariant: partitions are created only for timestamps within the last `PARTITION_PAST_DAYS` and the
//! next interval, so their number is bounded whatever a sensor's clock shows; other rows are stored
//! in the default partition, or in the outlier table of TimescaleDB.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::domain::{Kind, RowRef, Rows, Timestamp, long_pause};
use crate::store::engines::engine::{Engine, NewPartition};
use crate::store::{Config, StoreError};

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// 1970-01-01 was a Thursday; partitions of a week begin on Monday.
const MONDAY_OFFSET_DAYS: i64 = 3;

/// Intervals after the present one for which partitions are created.
const INTERVALS_AHEAD: i64 = 1;

/// Divides time into intervals of `PARTITION_INTERVAL_DAYS`.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Intervals {
    days: i64,
    past_days: i64,
}

impl Intervals {
    pub(in crate::store) fn new(config: &Config) -> Self {
        Self { days: config.partition_days.into(), past_days: config.partition_past_days.into() }
    }

    /// The intervals for which the housekeeping creates partitions.
    pub(in crate::store) fn ahead(self, now: Timestamp) -> std::ops::RangeInclusive<i64> {
        self.of(now)..=self.of(now) + INTERVALS_AHEAD
    }

    const fn microseconds(self) -> i64 {
        self.days * MICROSECONDS_PER_DAY
    }

    const fn of(self, timestamp: Timestamp) -> i64 {
        (timestamp.unix_microseconds() + MONDAY_OFFSET_DAYS * MICROSECONDS_PER_DAY)
            .div_euclid(self.microseconds())
    }

    const fn begin(self, interval: i64) -> Timestamp {
        Timestamp::from_unix_microseconds(
            interval * self.microseconds() - MONDAY_OFFSET_DAYS * MICROSECONDS_PER_DAY,
        )
    }

    /// The intervals for which partitions may be created.
    const fn allowed(self, now: Timestamp) -> std::ops::RangeInclusive<i64> {
        let oldest = Timestamp::from_unix_microseconds(
            now.unix_microseconds() - self.past_days * MICROSECONDS_PER_DAY,
        );
        self.of(oldest)..=self.of(now) + INTERVALS_AHEAD
    }

    /// The name of a partition: its table and its first day.
    fn name(self, kind: Kind, interval: i64) -> String {
        let day = self.begin(interval).to_jiff().strftime("%Y_%m_%d").to_string();
        format!("{}_p{day}", kind.name())
    }

    pub(in crate::store) fn partition(self, kind: Kind, interval: i64) -> NewPartition {
        NewPartition {
            table: kind.name(),
            name: self.name(kind, interval),
            from: self.begin(interval),
            to: self.begin(interval + 1),
        }
    }
}

/// The partitions that the writers know to exist.
#[derive(Debug)]
pub(in crate::store) struct Partitions {
    intervals: Intervals,
    known: Mutex<foldhash::HashSet<(Kind, i64)>>,
    back_offs: Mutex<[BackOff; Kind::ALL.len()]>,
}

/// Back-off after a failed creation, per table.
#[derive(Clone, Debug, Default)]
struct BackOff {
    until: Option<Instant>,
    failures: u32,
    reason: String,
}

impl BackOff {
    /// Returns the pause, and whether the reason differs from the last one.
    fn back_off(&mut self, reason: String) -> (Duration, bool) {
        self.failures = self.failures.saturating_add(1);
        // Each attempt may delay a batch by a second.
        let pause = long_pause(self.failures);
        self.until = Some(Instant::now() + pause);
        let is_new = self.reason != reason;
        self.reason = reason;
        (pause, is_new)
    }

    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }
}

impl Partitions {
    pub(in crate::store) fn new(config: &Config) -> Self {
        Self {
            intervals: Intervals::new(config),
            known: Mutex::default(),
            back_offs: Mutex::default(),
        }
    }

    /// Creates a partition that does not exist yet. If that is impossible now, the default partition stores its rows
    /// until the partition exists; they are then moved.
    pub(in crate::store) async fn ensure(
        &self,
        engine: &dyn Engine,
        client: &Client,
        (kind, interval): (Kind, i64),
    ) -> Result<(), StoreError> {
        if !self.back_offs()[kind as usize].is_over() {
            return Ok(());
        }
        match engine.create(client, &self.intervals.partition(kind, interval)).await {
            Ok(()) => {
                self.known().insert((kind, interval));
                self.back_offs()[kind as usize] = BackOff::default();
            }
            Err(error) if is_lost(&error) => return Err(error),
            Err(error) => {
                let (pause, is_new) = self.back_offs()[kind as usize].back_off(error.to_string());
                let (partition, again_secs) =
                    (self.intervals.name(kind, interval), pause.as_secs());
                if is_new {
                    tracing::warn!(partition, %error, again_secs, "partition not created: until it is, its rows are stored with the outliers");
                } else {
                    tracing::debug!(partition, %error, again_secs, "partition still not created");
                }
            }
        }
        Ok(())
    }

    /// The partitions that these rows need and that are not known to exist.
    pub(in crate::store) fn not_yet_known(&self, rows: &[(Kind, Rows)]) -> Vec<(Kind, i64)> {
        let back_offs = self.back_offs().clone();
        let allowed = self.intervals.allowed(Timestamp::now());
        let known = self.known();
        let mut not_yet_known = Vec::new();
        for (kind, rows) in rows.iter().filter(|(kind, _)| back_offs[*kind as usize].is_over()) {
            let mut last = i64::MIN;
            for RowRef { timestamp, .. } in rows.new.iter().chain(&rows.maybe_duplicate) {
                let interval = self.intervals.of(*timestamp);
                // Usually that of the previous row.
                if interval == last {
                    continue;
                }
                last = interval;
                let partition = (*kind, interval);
                if allowed.contains(&interval)
                    && !known.contains(&partition)
                    && !not_yet_known.contains(&partition)
                {
                    not_yet_known.push(partition);
                }
            }
        }
        not_yet_known
    }

    /// Has the rows whose partition is not known to exist go through the staging table.
    pub(in crate::store) fn stage_unknown(&self, rows: &mut [(Kind, Rows)]) {
        let known = self.known();
        for (kind, rows) in rows {
            let is_unknown =
                |row: &mut RowRef| !known.contains(&(*kind, self.intervals.of(row.timestamp)));
            rows.maybe_duplicate.extend(rows.new.extract_if(.., is_unknown));
            rows.maybe_duplicate
                .sort_unstable_by_key(|row| (row.sensor, row.timestamp, row.digest));
        }
    }

    fn known(&self) -> MutexGuard<'_, foldhash::HashSet<(Kind, i64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn back_offs(&self) -> MutexGuard<'_, [BackOff; Kind::ALL.len()]> {
        self.back_offs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the connection is unusable: it is closed, or its server has become a standby.
fn is_lost(error: &StoreError) -> bool {
    error.sqlstate().is_none_or(|state| {
        state.code().starts_with("08")
            || state.code().starts_with("57P")
            || *state == SqlState::READ_ONLY_SQL_TRANSACTION
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEKS: Intervals = Intervals { days: 7, past_days: 366 };

    fn timestamp(text: &str) -> Timestamp {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    #[test]
    fn a_week_begins_on_monday() {
        let tuesday = timestamp("2026-11-24T12:00:00Z");
        let interval = WEEKS.of(tuesday);
        assert_eq!(WEEKS.begin(interval), timestamp("2026-11-23T00:00:00Z"));
        assert_eq!(WEEKS.name(Kind::LogMessage, interval), "log_message_p2026_11_23");
        assert_eq!(WEEKS.of(timestamp("2026-11-22T23:59:59.999999Z")), interval - 1);
        assert_eq!(WEEKS.begin(WEEKS.of(Timestamp::default())), timestamp("1969-12-29T00:00:00Z"));
    }

    #[test]
    fn failed_partitions_are_retried_ever_more_rarely_and_logged_once() {
        let mut back_off = BackOff::default();
        assert!(back_off.is_over());
        assert_eq!(back_off.back_off("a lock".into()), (long_pause(1), true));
        assert!(!back_off.is_over());
        assert_eq!(back_off.back_off("a lock".into()), (long_pause(2), false));
        assert_eq!(back_off.back_off("a right".into()), (long_pause(3), true));
    }

    #[test]
    fn only_allowed_intervals_get_a_partition() {
        let now = timestamp("2026-11-24T12:00:00Z");
        let allowed = WEEKS.allowed(now);
        assert!(allowed.contains(&WEEKS.of(now)));
        assert!(allowed.contains(&WEEKS.of(timestamp("2025-11-24T12:00:00Z"))));
        assert!(!allowed.contains(&WEEKS.of(timestamp("2025-11-01T00:00:00Z"))));
        assert!(!allowed.contains(&WEEKS.of(timestamp("2027-01-01T00:00:00Z"))));
        assert_eq!(allowed.count(), 55);
    }
}
