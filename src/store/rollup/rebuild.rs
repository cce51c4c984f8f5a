//! Counts a range of hours again from the rows, sensor by sensor: for `tributary rollup rebuild`, and after the
//! migration that made the roll-up. Exact beside running ingest: what the journal still holds is not counted twice.
//!
//! Invariant: counts of hours whose rows may have been deleted by their age are not lowered, and their sums are kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, IsolationLevel, Transaction};
use uuid::Uuid;

use super::fold::{JournalRow, JournalSums};
use super::hours::{Counts, hour_begin, hour_of};
use super::lock::ROLLUP_LOCK;
use super::parts::{DroppedHours, part};
use super::sums::StoredHours;
use crate::domain::{Kind, Timestamp};
use crate::store::columns::Parameters;
use crate::store::{Config, Store, StoreError};

/// Sensors of one transaction at first; then as many as take about [`TARGET`].
const FIRST_SENSORS: i64 = 8;
const MAX_SENSORS: i64 = 256;

/// Folds and deletions wait for a transaction.
const TARGET: Duration = Duration::from_millis(500);

const STATEMENT_TIMEOUT: &str = "set local statement_timeout = '10min'";

/// PostgreSQL cancels each statement earlier, unless it is unreachable.
const REBUILD_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Between attempts while a fold is running.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

const TRY_LOCK: &str = "select pg_try_advisory_xact_lock($1)";

/// Parameters: the sensor before the first, number.
const SENSORS: &str = "\
select identifier from sensor where $1::uuid is null or identifier > $1
order by identifier limit $2";

/// Parameters: sensors, from, to.
const JOURNAL: &str = "\
select commit_timestamp, array_agg(sensor), array_agg(hour), array_agg(kind), array_agg(added)
from sensor_hour_journal, unnest(sensors, hours, kinds, counts) as entry (sensor, hour, kind, added)
where sensor = any ($1) and hour >= $2 and hour < $3
group by identifier, commit_timestamp";

/// Parameters: sensors, first and last day.
const DAYS: &str = "\
select sensor_identifier, day - date '1970-01-01', measurement_counts, log_message_counts,
    heartbeat_counts, sums::text
from sensor_hour
where sensor_identifier = any ($1) and day >= date '1970-01-01' + $2 and day <= date '1970-01-01' + $3";

/// Parameters: sensor, day, counts by kind, when to sum up, sums that are kept.
const STORE: &str = "\
insert into sensor_hour (sensor_identifier, day, measurement_counts, log_message_counts,
    heartbeat_counts, recount_at, sums)
values ($1, date '1970-01-01' + $2, $3, $4, $5, $6, $7::text::jsonb)
on conflict (sensor_identifier, day) do update
set measurement_counts = excluded.measurement_counts, log_message_counts = excluded.log_message_counts,
    heartbeat_counts = excluded.heartbeat_counts, recount_at = excluded.recount_at, sums = excluded.sums";

const WAITING: &str = "\
select identifier, from_hour, to_hour, last_sensor from rollup_rebuild order by identifier limit 1";

const CONTINUE: &str = "update rollup_rebuild set last_sensor = $2 where identifier = $1";

const NEXT_PART: &str =
    "update rollup_rebuild set to_hour = $2, last_sensor = null where identifier = $1";

const END: &str = "delete from rollup_rebuild where identifier = $1";

/// Rows of a kind by sensor and hour. Parameters: sensors, from, to.
fn count_rows(kind: Kind) -> String {
    format!(
        "select sensor_identifier, date_bin('1 hour', creation_timestamp, '1970-01-01Z'), count(*)
         from {}
         where sensor_identifier = any ($1) and creation_timestamp >= $2 and creation_timestamp < $3
         group by 1, 2",
        kind.name()
    )
}

/// Counts again.
#[derive(Debug)]
pub struct Rebuilder {
    store: Store,
    retention_days: [Option<u32>; Kind::ALL.len()],
    /// Sensors of the next transaction.
    sensors: Mutex<i64>,
}

/// The counts of a sensor's day, by kind and hour, and its sums.
#[derive(Default)]
struct CountedDay {
    counts: [Vec<i32>; Kind::ALL.len()],
    sums: Option<String>,
}

impl CountedDay {
    fn set(&mut self, kind: Kind, hour_of_day: usize, count: i32) {
        let counts = &mut self.counts[kind as usize];
        if count > 0 && counts.len() <= hour_of_day {
            counts.resize(hour_of_day + 1, 0);
        }
        if let Some(known) = counts.get_mut(hour_of_day) {
            *known = count;
        }
    }

    fn get(&self, kind: Kind, hour_of_day: usize) -> i32 {
        self.counts[kind as usize].get(hour_of_day).copied().unwrap_or(0)
    }

    /// The sums of hours that cannot be summed up again, or are not in the range.
    fn kept_sums(&self, is_kept: impl Fn(u8) -> bool) -> Option<String> {
        let mut stored: StoredHours<'_> = serde_json::from_str(self.sums.as_deref()?).ok()?;
        stored.retain(|hour, _| is_kept(*hour));
        serde_json::to_string(&stored).ok()
    }
}

impl Rebuilder {
    /// The retention of `config` and the one that the database records say which rows may have been deleted.
    pub fn new(store: Store, config: &Config) -> Self {
        let retention_days = [
            config.measurement_retention_days,
            config.log_message_retention_days,
            config.heartbeat_retention_days,
        ];
        Self { store, retention_days, sensors: Mutex::new(FIRST_SENSORS) }
    }

    /// Counts a range again, of whole hours, and sums it up. Passes the number of sensors to `each`.
    pub async fn rebuild(
        &self,
        from: Timestamp,
        to: Timestamp,
        mut each: impl FnMut(u64),
    ) -> Result<(), StoreError> {
        // The hour of `to` too, unless it is its beginning.
        let end = hour_of(to) + i32::from(hour_begin(hour_of(to)) < to);
        while !self.store.fold_activity().await?.is_complete {}
        let (from, mut to) = (hour_of(from), end);
        while from < to {
            let begin = part((from, to), hour_of(Timestamp::now()));
            let (mut last, mut count) = (None, 0);
            while let Some((next, sensors)) = self.rebuild_next_sensors((begin, to), last).await? {
                last = Some(next);
                count += sensors;
                each(count);
            }
            to = begin;
        }
        while !self.store.recount(Timestamp::now()).await? {}
        Ok(())
    }

    /// Continues the rebuild that the database asks for by a part; true if there is none.
    pub(super) async fn resume(&self) -> Result<bool, StoreError> {
        let waiting = self.store.rows(WAITING, &[]).await?;
        let Some(row) = waiting.first() else { return Ok(true) };
        let (identifier, from, to): (i32, i32, i32) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        // Later calls for the same part begin at the same hour or later: no sensor misses one.
        let begin = part((from, to), hour_of(Timestamp::now()));
        match self.rebuild_next_sensors((begin, to), row.try_get(3)?).await? {
            Some((last, _)) => {
                let parameters: Parameters<'_> = &[(&identifier, Type::INT4), (&last, Type::UUID)];
                self.store.execute(CONTINUE, parameters).await?;
            }
            None if begin > from => {
                let parameters: Parameters<'_> = &[(&identifier, Type::INT4), (&begin, Type::INT4)];
                self.store.execute(NEXT_PART, parameters).await?;
            }
            None => {
                self.store.execute(END, &[(&identifier, Type::INT4)]).await?;
                tracing::info!("the roll-up was counted from the rows");
            }
        }
        Ok(false)
    }

    /// Counts the sensors after this one, and returns the last of them; none if there are no more.
    async fn rebuild_next_sensors(
        &self,
        hours: (i32, i32),
        after: Option<Uuid>,
    ) -> Result<Option<(Uuid, u64)>, StoreError> {
        Store::answered_within(REBUILD_TIMEOUT, async {
            let mut limit = self.sensors.lock().await;
            if after.is_none() {
                // Other hours may have more rows.
                *limit = FIRST_SENSORS;
            }
            loop {
                let started_at = Instant::now();
                match self.transact(hours, after, *limit).await {
                    Ok(Some(done)) => {
                        let elapsed = started_at.elapsed();
                        *limit = match elapsed > TARGET {
                            true => (*limit / 2).max(1),
                            false if elapsed < TARGET / 4 => (*limit * 2).min(MAX_SENSORS),
                            false => *limit,
                        };
                        return Ok(done);
                    }
                    Ok(None) => {}
                    // A fold or a deletion by age was committed between our snapshot and our lock.
                    Err(error)
                        if error.sqlstate() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {}
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        })
        .await
    }

    /// None if a fold is running. Rows and journal are read in one snapshot.
    async fn transact(
        &self,
        (from, to): (i32, i32),
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Option<Option<(Uuid, u64)>>, StoreError> {
        let mut connection = self.store.connection().await?;
        let transaction = connection
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .start()
            .await?;
        transaction.batch_execute(STATEMENT_TIMEOUT).await?;
        let lock: Parameters<'_> = &[(&ROLLUP_LOCK, Type::INT8)];
        if !transaction.query_typed_one(TRY_LOCK, lock).await?.try_get::<_, bool>(0)? {
            return Ok(None);
        }
        let dropped =
            DroppedHours::read(&transaction, self.retention_days, Timestamp::now()).await?;
        let parameters: Parameters<'_> = &[(&after, Type::UUID), (&limit, Type::INT8)];
        let sensors = transaction.query_typed(SENSORS, parameters).await?;
        let identifiers: Vec<Uuid> =
            sensors.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let Some(last) = identifiers.last() else { return Ok(Some(None)) };
        let done = (*last, identifiers.len() as u64);

        let journal: Parameters<'_> =
            &[(&identifiers, Type::UUID_ARRAY), (&from, Type::INT4), (&to, Type::INT4)];
        let mut pending = JournalSums::new();
        for row in transaction.query_typed(JOURNAL, journal).await? {
            JournalRow::read(&row)?.add_to(&mut pending);
        }
        let counted = counted(&transaction, &identifiers, (from, to), &pending).await?;
        let mut days = days(&transaction, &identifiers, (from, to)).await?;
        for (sensor, hour) in counted.keys() {
            days.entry((*sensor, hour.div_euclid(24))).or_default();
        }
        for ((sensor, day), stored) in &mut days {
            for hour in (*day * 24..*day * 24 + 24).filter(|hour| (from..to).contains(hour)) {
                let counted = counted.get(&(*sensor, hour)).copied().unwrap_or_default();
                recount(stored, hour, counted, &dropped);
            }
        }
        let is_kept =
            |hour| dropped.contains(Kind::Measurement, hour) || !(from..to).contains(&hour);
        for chunk in days.into_iter().collect::<Vec<_>>().chunks(500) {
            let stores = chunk.iter().map(|(key, day)| store(&transaction, *key, day, is_kept));
            try_join_all(stores).await?;
        }
        transaction.commit().await?;
        Ok(Some(Some(done)))
    }
}

fn recount(day: &mut CountedDay, hour: i32, mut counted: Counts, dropped: &DroppedHours) {
    let hour_of_day = hour.rem_euclid(24) as usize;
    for kind in Kind::ALL {
        let count = i32::try_from((*counted.of(kind)).max(0)).unwrap_or(i32::MAX);
        let least = if dropped.contains(kind, hour) { day.get(kind, hour_of_day) } else { 0 };
        day.set(kind, hour_of_day, count.max(least));
    }
}

/// Whether the database asks for a rebuild that has not ended.
pub(in crate::store) async fn is_rebuilding(client: &Client) -> Result<bool, StoreError> {
    Ok(client.query_typed_opt(WAITING, &[]).await?.is_some())
}

/// What the rows say, without what is still in the journal.
async fn counted(
    transaction: &Transaction<'_>,
    sensors: &Vec<Uuid>,
    (from, to): (i32, i32),
    pending: &JournalSums,
) -> Result<JournalSums, StoreError> {
    let (begin, end) = (hour_begin(from), hour_begin(to));
    let parameters: Parameters<'_> =
        &[(sensors, Type::UUID_ARRAY), (&begin, Type::TIMESTAMPTZ), (&end, Type::TIMESTAMPTZ)];
    let mut sums = JournalSums::new();
    for kind in Kind::ALL {
        for row in transaction.query_typed(&count_rows(kind), parameters).await? {
            let hour = hour_of(row.try_get(1)?);
            let sum = sums.entry((row.try_get(0)?, hour)).or_default();
            *sum.of(kind) += row.try_get::<_, i64>(2)?;
        }
    }
    for (key, pending) in pending {
        if let Some(sum) = sums.get_mut(key) {
            sum.measurements -= pending.measurements;
            sum.log_messages -= pending.log_messages;
            sum.heartbeats -= pending.heartbeats;
        }
    }
    Ok(sums)
}

async fn days(
    transaction: &Transaction<'_>,
    sensors: &Vec<Uuid>,
    (from, to): (i32, i32),
) -> Result<BTreeMap<(Uuid, i32), CountedDay>, StoreError> {
    let (first, last) = (from.div_euclid(24), (to - 1).div_euclid(24));
    let parameters: Parameters<'_> =
        &[(sensors, Type::UUID_ARRAY), (&first, Type::INT4), (&last, Type::INT4)];
    let rows = transaction.query_typed(DAYS, parameters).await?;
    let day = |row: &tokio_postgres::Row| {
        let counts = |column| -> Result<Vec<i32>, tokio_postgres::Error> {
            let counts: Vec<Option<i32>> = row.try_get(column)?;
            Ok(counts.into_iter().map(|count| count.unwrap_or(0)).collect())
        };
        let day =
            CountedDay { counts: [counts(2)?, counts(3)?, counts(4)?], sums: row.try_get(5)? };
        Ok(((row.try_get(0)?, row.try_get(1)?), day))
    };
    rows.iter().map(day).collect()
}

async fn store(
    transaction: &Transaction<'_>,
    (sensor, number): (Uuid, i32),
    day: &CountedDay,
    is_kept: impl Fn(i32) -> bool,
) -> Result<(), StoreError> {
    // PostgreSQL extends an empty array from the place that is set, and not from 1.
    let [measurements, log_messages, heartbeats] = &day.counts.each_ref().map(|counts| {
        let mut counts = counts.clone();
        counts.resize(counts.len().max(1), 0);
        counts
    });
    let sums = day.kept_sums(|hour| is_kept(number * 24 + i32::from(hour)));
    let is_due = measurements.iter().any(|count| *count > 0);
    let recount_at = is_due.then(Timestamp::now);
    let parameters: Parameters<'_> = &[
        (&sensor, Type::UUID),
        (&number, Type::INT4),
        (measurements, Type::INT4_ARRAY),
        (log_messages, Type::INT4_ARRAY),
        (heartbeats, Type::INT4_ARRAY),
        (&recount_at, Type::TIMESTAMPTZ),
        (&sums, Type::TEXT),
    ];
    transaction.execute_typed(STORE, parameters).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_rows_that_may_have_been_deleted_are_not_lowered() {
        let before = |first| DroppedHours { before: [first, i32::MIN, i32::MIN], present: 10 };
        let mut day = CountedDay::default();
        day.set(Kind::Measurement, 3, 5);
        let one = Counts { measurements: 1, ..Counts::default() };
        recount(&mut day, 3, one, &before(4));
        assert_eq!(day.counts[0], [0, 0, 0, 5]);
        recount(&mut day, 3, one, &before(3));
        recount(&mut day, 6, one, &before(3));
        assert_eq!(day.counts[0], [0, 0, 0, 1, 0, 0, 1]);
        day.set(Kind::Measurement, 11, 2);
        recount(&mut day, 11, one, &before(3));
        assert_eq!(day.counts[0][11], 2, "it is later than now");
    }
}
