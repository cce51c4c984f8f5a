//! The partitions of the hot tables: made before they are needed and on demand. Called by the
//! housekeeping and by commits.
//!
//! Invariant: partitions are made only for moments within `PARTITION_PAST_DAYS` and a little ahead
//! of now, so their number is bounded whatever a sensor's clock says; the default partition takes
//! the rest.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::new_partition::NewPartition;
use crate::domain::{Kind, RowRef, Rows, Timestamp, long_pause};
use crate::store::ingest::writer_connection::table;
use crate::store::{Config, StoreError};

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// 1970-01-01 was a Thursday; partitions of a week begin on Monday.
const MONDAY_OFFSET_DAYS: i64 = 3;

/// So many intervals beyond the present one are allowed.
const INTERVALS_AHEAD: i64 = 1;

/// Cuts time into intervals.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Intervals {
    days: i64,
    past_days: i64,
}

impl Intervals {
    pub(in crate::store) fn new(config: &Config) -> Self {
        Self { days: config.partition_days.into(), past_days: config.partition_past_days.into() }
    }

    /// The present one, and those that are allowed ahead of it.
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

    /// Those for which partitions are made.
    const fn allowed(self, now: Timestamp) -> std::ops::RangeInclusive<i64> {
        let oldest = Timestamp::from_unix_microseconds(
            now.unix_microseconds() - self.past_days * MICROSECONDS_PER_DAY,
        );
        self.of(oldest)..=self.of(now) + INTERVALS_AHEAD
    }

    /// The name of a partition: its table and its first day.
    fn name(self, kind: Kind, interval: i64) -> String {
        let day = self.begin(interval).to_jiff().strftime("%Y_%m_%d").to_string();
        format!("{}_p{day}", table(kind))
    }

    pub(in crate::store) fn partition(self, kind: Kind, interval: i64) -> NewPartition<'static> {
        NewPartition {
            table: table(kind),
            name: self.name(kind, interval),
            from: self.begin(interval),
            to: self.begin(interval + 1),
        }
    }
}

/// What the writers know of the partitions that exist.
#[derive(Debug)]
pub(in crate::store) struct Partitions {
    intervals: Intervals,
    known: Mutex<foldhash::HashSet<(Kind, i64)>>,
    back_offs: Mutex<[BackOff; Kind::ALL.len()]>,
}

/// Until then no partition of a table is made.
#[derive(Clone, Debug, Default)]
struct BackOff {
    until: Option<Instant>,
    failures: u32,
    reason: String,
}

impl BackOff {
    /// Returns for how long, and whether the reason is a new one.
    fn back_off(&mut self, reason: String) -> (Duration, bool) {
        self.failures = self.failures.saturating_add(1);
        // Each attempt may hold a batch up for a second.
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

    /// Makes what is not_yet_known. What cannot be made now, for whatever reason, is made later: meanwhile
    /// the default partition takes the rows, and gives them back then.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(in crate::store) async fn ensure(
        &self,
        client: &Client,
        not_yet_known: Vec<(Kind, i64)>,
    ) -> Result<(), StoreError> {
        for (kind, interval) in not_yet_known {
            if !self.back_offs()[kind as usize].is_over() {
                continue;
            }
            match self.intervals.partition(kind, interval).create(client).await {
                Ok(()) => {
                    self.known().insert((kind, interval));
                    self.back_offs()[kind as usize] = BackOff::default();
                }
                Err(error) if is_lost(&error) => return Err(error),
                Err(error) => {
                    let (pause, is_new) =
                        self.back_offs()[kind as usize].back_off(error.to_string());
                    let (partition, again_secs) =
                        (self.intervals.name(kind, interval), pause.as_secs());
                    if is_new {
                        tracing::warn!(partition, %error, again_secs, "partition not made: its rows go to the default partition until it can be");
                    } else {
                        tracing::debug!(partition, %error, again_secs, "partition still not made");
                    }
                }
            }
        }
        Ok(())
    }

    /// The partitions that these rows need and that are not known to be there.
    pub(in crate::store) fn not_yet_known(&self, rows: &[(Kind, Rows)]) -> Vec<(Kind, i64)> {
        let back_offs = self.back_offs().clone();
        let allowed = self.intervals.allowed(Timestamp::now());
        let known = self.known();
        let mut not_yet_known = Vec::new();
        for (kind, rows) in rows.iter().filter(|(kind, _)| back_offs[*kind as usize].is_over()) {
            let mut last = i64::MIN;
            for RowRef { timestamp, .. } in rows.new.iter().chain(&rows.maybe_duplicate) {
                let interval = self.intervals.of(*timestamp);
                // Mostly the same as that of the row before.
                if interval == last {
                    continue;
                }
                last = interval;
                let wanted = (*kind, interval);
                if allowed.contains(&interval)
                    && !known.contains(&wanted)
                    && !not_yet_known.contains(&wanted)
                {
                    not_yet_known.push(wanted);
                }
            }
        }
        not_yet_known
    }

    fn known(&self) -> MutexGuard<'_, foldhash::HashSet<(Kind, i64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn back_offs(&self) -> MutexGuard<'_, [BackOff; Kind::ALL.len()]> {
        self.back_offs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing else would work on this connection either: it is gone, or its server is a standby
/// now.
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
    fn what_cannot_be_made_is_tried_ever_more_rarely_and_told_once() {
        let mut back_off = BackOff::default();
        assert!(back_off.is_over());
        assert_eq!(back_off.back_off("a lock".into()), (long_pause(1), true));
        assert!(!back_off.is_over());
        assert_eq!(back_off.back_off("a lock".into()), (long_pause(2), false));
        assert_eq!(back_off.back_off("a right".into()), (long_pause(3), true));
    }

    #[test]
    fn only_sane_moments_get_a_partition() {
        let now = timestamp("2026-11-24T12:00:00Z");
        let allowed = WEEKS.allowed(now);
        assert!(allowed.contains(&WEEKS.of(now)));
        assert!(allowed.contains(&WEEKS.of(timestamp("2025-11-24T12:00:00Z"))));
        assert!(!allowed.contains(&WEEKS.of(timestamp("2025-11-01T00:00:00Z"))));
        assert!(!allowed.contains(&WEEKS.of(timestamp("2027-01-01T00:00:00Z"))));
        assert_eq!(allowed.count(), 55);
    }
}
