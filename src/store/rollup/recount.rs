//! Sums up the measurements of each hour that is over, and again when their number has changed. Called in the
//! background by [`RollUp`]; ingest waits for none of it. Recounting is idempotent, and what an hour's sums were made
//! of is stored beside them.
//!
//! Invariant: the sums of an hour hold only while their number of measurements is the hour's count. If fewer rows exist
//! than were counted, the others were dropped by their age: the sums made before are kept, without later items; if
//! there are none, none are made, and what is left is read from the rows.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::hours::{SETTLED, hour_begin, hour_of};
use super::lock::{LOCK, ROLLUP_LOCK};
use super::rebuild::Rebuilder;
use super::sums::{HourSums, StoredHours};
use crate::domain::{Faults, Leadership, Task, Timestamp, pause};
use crate::store::columns::Parameters;
use crate::store::{Config, Store, StoreError};

/// Pause after each transaction, as a multiple of its duration.
const PAUSE_FACTOR: u32 = 2;

/// Without pauses from this lag on.
const LATE: Duration = Duration::from_secs(3_600);

/// From the end of one round to the next.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(30);

/// Days and rows of one transaction, so that it takes some hundred milliseconds.
const MAX_DAYS: i64 = 500;
const MAX_ROWS: i64 = 20_000;

/// An hour with many rows takes longer than other statements may.
pub(super) const STATEMENT_TIMEOUT: &str = "set local statement_timeout = '10min'";

/// PostgreSQL cancels each statement earlier, unless it is unreachable.
pub(super) const RECOUNT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// One process at a time: a second one would sum up the same.
const TRY_LOCK: &str = "select pg_try_advisory_xact_lock(hashtextextended('tributary roll-up', 0))";

/// Parameters: now, number.
const DUE: &str = "\
select sensor_identifier, day - date '1970-01-01', measurement_counts, sums::text, recount_at
from sensor_hour where recount_at <= $1
order by recount_at limit $2";

/// Parameters: sensors, from, to.
const MEASUREMENTS: &str = "\
select sensor_identifier, creation_timestamp, value::text
from measurement
where sensor_identifier = any ($1) and creation_timestamp >= $2 and creation_timestamp < $3";

/// If more was counted since, the day stays due; if it was rebuilt since, it has another time to be summed up, and what
/// was read does not hold. Parameters: sensor, day, sums of some hours, the counts that were read, when to sum up next,
/// when it was due.
const STORE: &str = "\
update sensor_hour
set sums = coalesce(sums, '{}') || $3::text::jsonb,
    recount_at = case when measurement_counts = $4 then $5 else recount_at end
where sensor_identifier = $1 and day = date '1970-01-01' + $2 and recount_at = $6";

const OLDEST_DUE: &str = "select min(recount_at) from sensor_hour where recount_at is not null";

/// Whether rows may exist that are not in the roll-up although they were received more than an hour ago.
/// Parameter: now.
const IS_BEHIND: &str = "\
select exists (select 1 from sensor_hour where recount_at < $1 - interval '1 hour')
    or exists (select 1 from sensor_hour_journal where commit_timestamp < $1 - interval '1 hour')
    or exists (select 1 from rollup_rebuild)";

/// A sensor's day that is due.
struct DueDay {
    sensor: Uuid,
    day: i32,
    counts: Vec<Option<i32>>,
    sums: Option<String>,
    recount_at: jiff::Timestamp,
}

impl DueDay {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let (sensor, day) = (row.try_get(0)?, row.try_get(1)?);
        let (counts, sums, recount_at) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        Ok(Self { sensor, day, counts, sums, recount_at })
    }

    fn stored(&self) -> StoredHours<'_> {
        let stored = self.sums.as_deref().map(serde_json::from_str).transpose();
        stored.ok().flatten().unwrap_or_default()
    }

    /// The hours whose sums do not hold, with their counts.
    fn outdated(&self) -> Vec<(i32, i32)> {
        let stored = self.stored();
        let counts = self.counts.iter().zip(0u8..).map(|(count, hour)| (hour, count.unwrap_or(0)));
        counts
            .filter(|(hour, count)| stored.get(hour).map_or(0, |(of, _)| *of) != *count)
            .map(|(hour, count)| (self.day * 24 + i32::from(hour), count))
            .collect()
    }
}

/// What is done with a day, and later.
struct Due {
    day: DueDay,
    /// The hours to sum up, with their counts.
    hours: Vec<(i32, i32)>,
    next: Option<Timestamp>,
}

impl Due {
    fn new(day: DueDay, now: Timestamp) -> Self {
        let settled_at = |hour: i32| hour_begin(hour + 1).saturating_add(SETTLED);
        let (hours, later): (Vec<_>, Vec<_>) =
            day.outdated().into_iter().partition(|(hour, _)| settled_at(*hour) <= now);
        let next = later.first().map(|(hour, _)| settled_at(*hour));
        Self { day, hours, next }
    }

    /// The new sums as JSON.
    fn sums(&self, read: &BTreeMap<(Uuid, i32), HourSums>) -> String {
        let (none, before) = (HourSums::default(), self.day.stored());
        let mut sums = StoredHours::new();
        for (hour, count) in &self.hours {
            let (of_day, new) = (hour.rem_euclid(24) as u8, read.get(&(self.day.sensor, *hour)));
            let new = new.unwrap_or(&none);
            let of_hour = if new.row_count < *count {
                let kept = before.get(&of_day).and_then(|(_, kept)| kept.clone());
                (*count, kept)
            } else {
                (new.row_count, new.stored())
            };
            sums.insert(of_day, of_hour);
        }
        serde_json::to_string(&sums).expect("finite numbers under names are JSON")
    }
}

/// The background work on the roll-up.
#[derive(Debug)]
pub struct RollUp {
    store: Store,
    rebuilder: Rebuilder,
}

impl RollUp {
    /// `store` is the background pool, so that no writer and no API read waits for it.
    pub fn new(store: Store, config: &Config) -> Self {
        Self { rebuilder: Rebuilder::new(store.clone(), config), store }
    }

    /// Runs rounds for ever, on the instance that leads. Passes to `report` since when the oldest hour is due.
    pub async fn run(
        &self,
        mut leadership: Leadership,
        faults: &Faults,
        report: impl Fn(Option<Timestamp>),
    ) {
        let mut failures = 0;
        loop {
            if !leadership.is_leader() {
                report(None);
                leadership.acquired().await;
            }
            faults.at(Task::RollUp);
            let wait = match self.round(&report).await {
                Ok(()) => {
                    failures = 0;
                    BETWEEN_ROUNDS
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(%error, "roll-up failed; it will be retried");
                    } else {
                        tracing::debug!(%error, failures, "roll-up failed again");
                    }
                    pause(failures, rand::random())
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Does everything that is due.
    /// If it fails the next round continues.
    pub async fn round(&self, report: impl Fn(Option<Timestamp>)) -> Result<(), StoreError> {
        loop {
            let due_since = self.store.recount_due_since().await?;
            report(due_since);
            let late = due_since.is_some_and(|it| it.saturating_add(LATE) < Timestamp::now());
            let started_at = Instant::now();
            let is_complete = self.store.recount(Timestamp::now()).await?
                && self.rebuilder.resume().await?
                && self.store.recount_months(Timestamp::now()).await?;
            if is_complete {
                report(self.store.recount_due_since().await?);
                return Ok(());
            }
            if !late {
                tokio::time::sleep(started_at.elapsed() * PAUSE_FACTOR).await;
            }
        }
    }
}

impl Store {
    /// Since when the oldest hour is due, if one is.
    async fn recount_due_since(&self) -> Result<Option<Timestamp>, StoreError> {
        let rows = self.rows(OLDEST_DUE, &[]).await?;
        let oldest = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
        Ok(oldest.filter(|oldest| *oldest <= Timestamp::now()))
    }

    /// Sums up some of the hours that are due, in one transaction. Returns whether those were all, or another process
    /// is doing so.
    pub async fn recount(&self, now: Timestamp) -> Result<bool, StoreError> {
        Self::answered_within(RECOUNT_TIMEOUT, async {
            let mut connection = self.connection().await?;
            let transaction = connection.transaction().await?;
            transaction.batch_execute(STATEMENT_TIMEOUT).await?;
            if !transaction.query_typed_one(TRY_LOCK, &[]).await?.try_get::<_, bool>(0)? {
                return Ok(true);
            }
            let parameters: Parameters<'_> = &[(&now, Type::TIMESTAMPTZ), (&MAX_DAYS, Type::INT8)];
            let rows = transaction.query_typed(DUE, parameters).await?;
            let mut row_count = 0;
            let mut due = Vec::new();
            for row in &rows {
                let day = Due::new(DueDay::read(row)?, now);
                row_count += day.hours.iter().map(|(_, count)| i64::from(*count)).sum::<i64>();
                // A day over the limit has a transaction of its own.
                if row_count > MAX_ROWS && !due.is_empty() {
                    break;
                }
                due.push(day);
            }
            let sums = read_sums(transaction.client(), &due).await?;
            // Only now: reading takes longer, and a fold must not wait for it.
            transaction.query_typed(LOCK, &[(&ROLLUP_LOCK, Type::INT8)]).await?;
            let stored = due.iter().map(|due| store_sums(transaction.client(), due, &sums));
            try_join_all(stored).await?;
            transaction.commit().await?;
            Ok(due.len() == rows.len() && (rows.len() as i64) < MAX_DAYS)
        })
        .await
    }
}

/// Reads the measurements of the hours that are due. Days with the same hours share a statement: in general one hour of
/// many sensors is over.
async fn read_sums(
    client: &Client,
    due: &[Due],
) -> Result<BTreeMap<(Uuid, i32), HourSums>, StoreError> {
    let mut ranges = BTreeMap::<(i32, i32), Vec<Uuid>>::new();
    for due in due {
        for run in due.hours.chunk_by(|(one, _), (next, _)| one + 1 == *next) {
            let range = (run[0].0, run[run.len() - 1].0 + 1);
            ranges.entry(range).or_default().push(due.day.sensor);
        }
    }
    let mut sums = BTreeMap::<_, HourSums>::new();
    for ((from, to), sensors) in ranges {
        let (from, to) = (hour_begin(from), hour_begin(to));
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&sensors, Type::UUID_ARRAY), (&from, Type::TIMESTAMPTZ), (&to, Type::TIMESTAMPTZ)];
        let mut rows = pin!(client.query_typed_raw(MEASUREMENTS, parameters).await?);
        while let Some(row) = rows.try_next().await? {
            let hour = hour_of(row.try_get(1)?);
            sums.entry((row.try_get(0)?, hour)).or_default().add(row.try_get(2)?);
        }
    }
    Ok(sums)
}

async fn store_sums(
    client: &Client,
    due: &Due,
    sums: &BTreeMap<(Uuid, i32), HourSums>,
) -> Result<(), StoreError> {
    let sums = due.sums(sums);
    let parameters: Parameters<'_> = &[
        (&due.day.sensor, Type::UUID),
        (&due.day.day, Type::INT4),
        (&sums, Type::TEXT),
        (&due.day.counts, Type::INT4_ARRAY),
        (&due.next, Type::TIMESTAMPTZ),
        (&due.day.recount_at, Type::TIMESTAMPTZ),
    ];
    client.execute_typed(STORE, parameters).await?;
    Ok(())
}

/// Whether rows may exist that are not in the roll-up although they were received more than an hour ago.
pub(in crate::store) async fn is_behind(
    client: &Client,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let parameters: Parameters<'_> = &[(&now, Type::TIMESTAMPTZ)];
    Ok(client.query_typed_one(IS_BEHIND, parameters).await?.try_get(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i32 = 20_000;

    fn due(counts: &[Option<i32>], sums: &str, now_hour: i32) -> Due {
        let (counts, sums) = (counts.to_vec(), Some(sums.to_owned()));
        let recount_at = jiff::Timestamp::UNIX_EPOCH;
        let day = DueDay { sensor: Uuid::nil(), day: DAY, counts, sums, recount_at };
        Due::new(day, hour_begin(DAY * 24 + now_hour).saturating_add(SETTLED))
    }

    #[test]
    fn an_hour_is_summed_up_when_it_is_over_or_has_changed() {
        let due = due(&[Some(2), None, Some(3), Some(1)], r#"{"0":[2,{}],"2":[1,{}]}"#, 3);
        assert_eq!(due.hours, [(DAY * 24 + 2, 3)]);
        assert_eq!(due.next, Some(hour_begin(DAY * 24 + 4).saturating_add(SETTLED)));
    }

    #[test]
    fn sums_of_dropped_rows_are_kept() {
        let due = due(&[Some(3), Some(2)], r#"{"0":[2,{"a":[2,1.0,3.0,2.0]}]}"#, 9);
        let mut late = HourSums::default();
        late.add(r#"{"a":9}"#);
        let hour = |hour| (Uuid::nil(), DAY * 24 + hour);
        let read = BTreeMap::from([(hour(0), late.clone()), (hour(1), late)]);
        // Of the second hour there are no earlier ones, and the sums of one of its two rows would look complete.
        assert_eq!(due.sums(&read), r#"{"0":[3,{"a":[2,1.0,3.0,2.0]}],"1":[2,null]}"#);
    }
}
