//! The partitions of the hot tables: made before they are needed and on demand. Called by the
//! housekeeping and by commits.
//!
//! Invariant: partitions are made only for moments within `PARTITION_PAST_DAYS` and a little ahead
//! of now, so their number is bounded whatever a sensor's clock says; the default partition takes
//! the rest.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connection::table;
use super::{Config, StoreError};
use crate::domain::{Kind, RowRef, Rows, Timestamp};

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// 1970-01-01 was a Thursday; partitions of a week begin on Monday.
const MONDAY_OFFSET_DAYS: i64 = 3;

/// After a lock that could not be had, the next attempt is made so much later.
const POSTPONEMENT: Duration = Duration::from_secs(30);

/// So many intervals beyond the present one are provided.
const INTERVALS_AHEAD: i64 = 1;

/// Whoever waits for a strong lock makes all who come later wait behind it.
pub(super) const LOCK_TIMEOUT: &str = "set local lock_timeout = '1s'";

/// One at a time makes or drops partitions.
pub(super) const PARTITIONS_LOCK: &str =
    "select pg_advisory_xact_lock(hashtextextended('tributary partitions', 0))";

/// Cuts time into intervals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    days: i64,
    past_days: i64,
}

impl Intervals {
    pub(super) fn new(config: &Config) -> Self {
        Self { days: config.partition_days.into(), past_days: config.partition_past_days.into() }
    }

    /// The present one, and those that are provided ahead of it.
    pub(super) fn ahead(self, now: Timestamp) -> std::ops::RangeInclusive<i64> {
        self.of(now)..=self.of(now) + INTERVALS_AHEAD
    }

    const fn microseconds(self) -> i64 {
        self.days * MICROSECONDS_PER_DAY
    }

    const fn of(self, moment: Timestamp) -> i64 {
        (moment.unix_microseconds() + MONDAY_OFFSET_DAYS * MICROSECONDS_PER_DAY)
            .div_euclid(self.microseconds())
    }

    const fn begin(self, interval: i64) -> Timestamp {
        Timestamp::from_unix_microseconds(
            interval * self.microseconds() - MONDAY_OFFSET_DAYS * MICROSECONDS_PER_DAY,
        )
    }

    /// Those for which partitions are made.
    const fn provided(self, now: Timestamp) -> std::ops::RangeInclusive<i64> {
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
}

/// What this process knows of the partitions that are there.
#[derive(Debug)]
pub(super) struct Partitions {
    intervals: Intervals,
    known: Mutex<foldhash::HashSet<(Kind, i64)>>,
    /// Until then none is made.
    postponed: Mutex<Option<Instant>>,
}

impl Partitions {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            intervals: Intervals::new(config),
            known: Mutex::default(),
            postponed: Mutex::default(),
        }
    }

    /// Makes what is missing.
    pub(super) async fn provide(
        &self,
        client: &Client,
        missing: Vec<(Kind, i64)>,
    ) -> Result<(), StoreError> {
        for (kind, interval) in missing {
            match make(client, self.intervals, kind, interval).await {
                Ok(()) => drop(self.known().insert((kind, interval))),
                // Somebody works on the whole table. To wait would hold everybody up behind us: the
                // default partition takes the rows, and gives them back when this one is made.
                Err(error) if error.sqlstate() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    tracing::info!(
                        table = table(kind),
                        "a partition is made later: the table is locked"
                    );
                    *self.postponed.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(Instant::now() + POSTPONEMENT);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The partitions that these rows need and that are not known to be there.
    pub(super) fn missing(&self, rows: &[(Kind, Rows)]) -> Vec<(Kind, i64)> {
        let postponed = *self.postponed.lock().unwrap_or_else(PoisonError::into_inner);
        if postponed.is_some_and(|until| Instant::now() < until) {
            return Vec::new();
        }
        let provided = self.intervals.provided(Timestamp::now());
        let known = self.known();
        let mut missing = Vec::new();
        for (kind, rows) in rows {
            let mut last = i64::MIN;
            for RowRef { timestamp, .. } in rows.new.iter().chain(&rows.maybe_duplicate) {
                let interval = self.intervals.of(*timestamp);
                // Mostly the same as that of the row before.
                if interval == last {
                    continue;
                }
                last = interval;
                let wanted = (*kind, interval);
                if provided.contains(&interval)
                    && !known.contains(&wanted)
                    && !missing.contains(&wanted)
                {
                    missing.push(wanted);
                }
            }
        }
        missing
    }

    fn known(&self) -> std::sync::MutexGuard<'_, foldhash::HashSet<(Kind, i64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes one partition, and moves into it what the default partition holds of its interval.
pub(super) async fn make(
    client: &Client,
    intervals: Intervals,
    kind: Kind,
    interval: i64,
) -> Result<(), StoreError> {
    let (table, name) = (table(kind), intervals.name(kind, interval));
    let there = client.query_one("select to_regclass($1) is not null", &[&name]).await?;
    if there.get(0) {
        return Ok(());
    }
    let (from, to) = (intervals.begin(interval).to_jiff(), intervals.begin(interval + 1).to_jiff());
    let make = format!(
            "begin;
             set local statement_timeout = 0;
             {LOCK_TIMEOUT};
             {PARTITIONS_LOCK};
             create table if not exists {name} (like {table} including defaults including constraints including indexes);
             lock table {table} in access exclusive mode;
             with moved as (
                 delete from {table}_default
                 where creation_timestamp >= '{from}' and creation_timestamp < '{to}'
                 returning *
             ) insert into {name} select * from moved;
             do $$ begin
                 if not exists (select from pg_inherits where inhrelid = '{name}'::regclass) then
                     alter table {table} attach partition {name} for values from ('{from}') to ('{to}');
                 end if;
             end $$;
             commit"
    );
    match or_roll_back(client, &make).await {
        Ok(()) => {
            tracing::info!(partition = name, "partition made");
            Ok(())
        }
        Err(error) => {
            // Made under another PARTITION_INTERVAL_DAYS, another partition has a part of it.
            if error.code() == Some(&SqlState::INVALID_OBJECT_DEFINITION) {
                tracing::info!(partition = name, "partition not made: it would overlap another");
                return Ok(());
            }
            Err(error.into())
        }
    }
}

/// Runs what begins and commits a transaction; one that fails does not stay open.
async fn or_roll_back(client: &Client, transaction: &str) -> Result<(), tokio_postgres::Error> {
    let outcome = client.batch_execute(transaction).await;
    if outcome.is_err() {
        client.batch_execute("rollback").await?;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEKS: Intervals = Intervals { days: 7, past_days: 366 };

    fn moment(text: &str) -> Timestamp {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    #[test]
    fn a_week_begins_on_monday() {
        let tuesday = moment("2026-11-24T12:00:00Z");
        let interval = WEEKS.of(tuesday);
        assert_eq!(WEEKS.begin(interval), moment("2026-11-23T00:00:00Z"));
        assert_eq!(WEEKS.name(Kind::LogMessage, interval), "log_message_p2026_11_23");
        assert_eq!(WEEKS.of(moment("2026-11-22T23:59:59.999999Z")), interval - 1);
        assert_eq!(WEEKS.begin(WEEKS.of(Timestamp::default())), moment("1969-12-29T00:00:00Z"));
    }

    #[test]
    fn only_sane_moments_get_a_partition() {
        let now = moment("2026-11-24T12:00:00Z");
        let provided = WEEKS.provided(now);
        assert!(provided.contains(&WEEKS.of(now)));
        assert!(provided.contains(&WEEKS.of(moment("2025-11-24T12:00:00Z"))));
        assert!(!provided.contains(&WEEKS.of(moment("2025-11-01T00:00:00Z"))));
        assert!(!provided.contains(&WEEKS.of(moment("2027-01-01T00:00:00Z"))));
        assert_eq!(provided.count(), 55);
    }
}
