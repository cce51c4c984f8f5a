//! Folds the journal of the roll-up into its counts. Called by the fleet's stream, often while it has readers
//! and otherwise once a minute, and by the rebuild. Each journal entry is counted exactly once, also after a
//! crash, and the work grows linearly with the number of sensors.
//!
//! Invariant: no statement joins two sets. The journal is summed up in memory, because PostgreSQL has
//! no statistics about arrays that it has just read, and plans nested loops over them.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{IsolationLevel, Row, Transaction};
use tracing::warn;
use uuid::Uuid;

use super::hours::{
    Activity, BUCKET_HOURS, BUCKETS, Counts, SETTLED, bucket_of, bucket_sum, hour_begin,
};
use super::lock::{LOCK, ROLLUP_LOCK};
use crate::domain::{Kind, SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::{Store, StoreError};

/// Entries of the journal (44 bytes each) in one transaction: at most as many rows of `sensor_hour` are
/// locked, for about 2 s on the benchmark's machine. A deletion of a sensor waits for it.
const MAX_ENTRIES: usize = 100_000;

/// Rows of the journal in one transaction: each is one commit of ingest.
const MAX_JOURNAL_ROWS: usize = 2_000;

/// PostgreSQL cancels each statement earlier, unless it is unreachable.
const FOLD_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The number of entries is derived from the size of their array (16 bytes each, and a header of 20 to 24), without
/// reading the array: it is stored out of line and uncompressed. Parameters: entries, rows.
const TAKE: &str = "\
delete from sensor_hour_journal where identifier = any (array(
    select identifier from (
        select identifier, sum(entries) over (order by identifier) - entries as entries_before
        from (
            select identifier, (pg_column_size(sensors) - 20) / 16 as entries
            from sensor_hour_journal
            order by identifier limit $2
        ) as oldest
    ) as counted
    where entries_before < $1
))
returning commit_timestamp, sensors, hours, kinds, counts";

/// Entries of one commit over the limit, for the next fold.
const PUT_BACK: &str = "\
insert into sensor_hour_journal (commit_timestamp, sensors, hours, kinds, counts)
values ($1, $2, $3, $4, $5)";

/// The sensors that exist. The journal has no entry of an earlier sensor with the same identifier: the purge removes them.
const SENSORS: &str =
    "select identifier, network_identifier from sensor where identifier = any ($1)";

/// Adds the counts of one hour of the day, and returns the bucket's counts: a statement for each hour, because Citus
/// loses a parameter of `on conflict do update` when the rows come from the coordinator. Parameters: sensors, days,
/// counts by kind, when to sum up.
static ADD: LazyLock<[String; 24]> = LazyLock::new(|| std::array::from_fn(add_statement));

fn add_statement(hour_of_day: usize) -> String {
    let [m, l, h] = ["measurement_counts", "log_message_counts", "heartbeat_counts"];
    let (bucket, position) = (hour_of_day / 4, hour_of_day + 1);
    let first = (bucket * 4).to_string();
    let before = format!("array_fill(0, array[{hour_of_day}])");
    let add = |counts| {
        format!(
            "{counts}[{position}] = coalesce(known.{counts}[{position}], 0) + excluded.{counts}[{position}]"
        )
    };
    format!(
        "\
insert into sensor_hour as known
    (sensor_identifier, day, {m}, {l}, {h}, recount_at)
select sensor, date '1970-01-01' + day, {before} || measurements, {before} || log_messages,
    {before} || heartbeats, case when measurements > 0 then recount_at end
from unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $5::integer[], $6::timestamptz[])
    as added (sensor, day, measurements, log_messages, heartbeats, recount_at)
on conflict (sensor_identifier, day) do update
set {}, {}, {}, recount_at = least(known.recount_at, excluded.recount_at)
returning sensor_identifier, (day - date '1970-01-01') * 6 + {bucket}, {}, {}, {}",
        add(m),
        add(l),
        add(h),
        bucket_sum(m, &first),
        bucket_sum(l, &first),
        bucket_sum(h, &first)
    )
}

/// The statements whose work depends on the number of sensors, for the test of their plans.
#[doc(hidden)]
pub fn fold_statements() -> [&'static str; 3] {
    [TAKE, SENSORS, &ADD[4]]
}

/// The result of one transaction.
#[derive(Clone, Debug)]
pub struct Fold {
    /// The counts that changed.
    pub changed: Vec<Activity>,
    /// Whether it folded the whole journal.
    pub is_complete: bool,
}

/// Several rows of the journal.
#[derive(Debug)]
struct Journal {
    commits: Vec<JournalRow>,
}

/// One row of the journal.
#[derive(Debug)]
pub(super) struct JournalRow {
    committed_at: jiff::Timestamp,
    sensors: Vec<Uuid>,
    hours: Vec<i32>,
    kinds: Vec<i16>,
    counts: Vec<i32>,
}

pub(super) type JournalSums = BTreeMap<(Uuid, i32), Counts>;

impl JournalRow {
    /// From the columns of [`TAKE`].
    pub(super) fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            committed_at: row.try_get(0)?,
            sensors: row.try_get(1)?,
            hours: row.try_get(2)?,
            kinds: row.try_get(3)?,
            counts: row.try_get(4)?,
        })
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            committed_at: self.committed_at,
            sensors: self.sensors.split_off(at),
            hours: self.hours.split_off(at),
            kinds: self.kinds.split_off(at),
            counts: self.counts.split_off(at),
        }
    }

    pub(super) fn add_to(&self, sums: &mut JournalSums) {
        let columns = self.sensors.iter().zip(&self.hours).zip(&self.kinds).zip(&self.counts);
        for (((sensor, hour), kind), count) in columns {
            let sum = sums.entry((*sensor, *hour)).or_default();
            if let Some(kind) = Kind::ALL.get(usize::from(kind.unsigned_abs())) {
                *sum.of(*kind) += i64::from(*count);
            }
        }
    }
}

impl Journal {
    fn entries(&self) -> usize {
        self.commits.iter().map(|commit| commit.sensors.len()).sum()
    }

    /// Splits off the entries over a limit: all of them are in the last commit.
    fn split_off(&mut self, max_entries: usize) -> Option<JournalRow> {
        let over = self.entries().checked_sub(max_entries).filter(|over| *over > 0)?;
        let last = self.commits.last_mut()?;
        let at = last.sensors.len().saturating_sub(over);
        Some(last.split_off(at))
    }
}

impl Store {
    /// Folds a part of the journal into the counts, in one transaction. After a timeout it retries with
    /// half the entries; the limit then grows slowly again.
    /// If it fails the journal is unchanged.
    pub async fn fold_activity(&self) -> Result<Fold, StoreError> {
        Self::answered_within(FOLD_TIMEOUT, async {
            loop {
                let max_entries = self.fold_entries.load(Ordering::Relaxed).min(MAX_ENTRIES);
                let mut taken = 0;
                match self.fold_part(max_entries, &mut taken).await {
                    Ok(fold) => {
                        if !fold.is_complete {
                            let more = max_entries + max_entries / 8 + 1;
                            self.fold_entries.store(more, Ordering::Relaxed);
                        }
                        return Ok(fold);
                    }
                    Err(error) if error.is_timeout() && max_entries > 1 => {
                        let entries = if taken > 0 { taken } else { max_entries };
                        warn!(%error, entries, "activity fold timed out; retrying with half");
                        self.fold_entries.store((entries / 2).max(1), Ordering::Relaxed);
                    }
                    Err(error) => return Err(error),
                }
            }
        })
        .await
    }

    async fn fold_part(&self, max_entries: usize, taken: &mut usize) -> Result<Fold, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .start()
            .await?;
        transaction.query_typed(LOCK, &[(&ROLLUP_LOCK, Type::INT8)]).await?;
        let mut journal = take(&transaction, max_entries).await?;
        let is_complete =
            journal.entries() < max_entries && journal.commits.len() < MAX_JOURNAL_ROWS;
        let rest = journal.split_off(max_entries);
        *taken = journal.entries();
        if let Some(rest) = rest {
            put_back(&transaction, &rest).await?;
        }
        let changed = add(&transaction, &journal).await?;
        transaction.commit().await?;
        Ok(Fold { changed, is_complete })
    }
}

async fn take(
    transaction: &Transaction<'_>,
    max_entries: usize,
) -> Result<Journal, tokio_postgres::Error> {
    let (max_entries, max_rows) = (max_entries as i64, MAX_JOURNAL_ROWS as i64);
    let parameters: Parameters<'_> = &[(&max_entries, Type::INT8), (&max_rows, Type::INT8)];
    let rows = transaction.query_typed(TAKE, parameters).await?;
    let mut commits = rows.iter().map(JournalRow::read).collect::<Result<Vec<_>, _>>()?;
    commits.sort_by_key(|commit| commit.sensors.len());
    Ok(Journal { commits })
}

async fn put_back(
    transaction: &Transaction<'_>,
    rest: &JournalRow,
) -> Result<(), tokio_postgres::Error> {
    let parameters: Parameters<'_> = &[
        (&rest.committed_at, Type::TIMESTAMPTZ),
        (&rest.sensors, Type::UUID_ARRAY),
        (&rest.hours, Type::INT4_ARRAY),
        (&rest.kinds, Type::INT2_ARRAY),
        (&rest.counts, Type::INT4_ARRAY),
    ];
    transaction.query_typed(PUT_BACK, parameters).await.map(drop)
}

async fn add(
    transaction: &Transaction<'_>,
    journal: &Journal,
) -> Result<Vec<Activity>, tokio_postgres::Error> {
    let mut sensors: Vec<Uuid> =
        journal.commits.iter().flat_map(|commit| &commit.sensors).copied().collect();
    sensors.sort_unstable();
    sensors.dedup();
    if sensors.is_empty() {
        return Ok(Vec::new());
    }
    let known = transaction.query_typed(SENSORS, &[(&sensors, Type::UUID_ARRAY)]).await?;
    let networks: foldhash::HashMap<Uuid, Uuid> = known
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, tokio_postgres::Error>>()?;
    let mut sums = JournalSums::new();
    journal.commits.iter().for_each(|commit| commit.add_to(&mut sums));
    // The others were deleted.
    sums.retain(|(sensor, _), _| networks.contains_key(sensor));
    let mut added = BTreeMap::<(Uuid, i32), Counts>::new();
    for ((sensor, hour), counts) in &sums {
        let sum = added.entry((*sensor, hour.div_euclid(BUCKET_HOURS))).or_default();
        *sum = *sum + *counts;
    }
    // A statement for each hour of the day, in which no row occurs twice. Of the totals of a bucket, the last holds.
    let mut totals = BTreeMap::new();
    for hour_of_day in 0..24 {
        let of_hour =
            sums.iter().filter(|((_, hour), _)| hour.rem_euclid(24) as usize == hour_of_day);
        for row in add_hours(transaction, hour_of_day, of_hour).await? {
            let key: (Uuid, i32) = (row.try_get(0)?, row.try_get(1)?);
            totals.insert(key, Counts::read(&row, 2)?);
        }
    }
    let present = bucket_of(Timestamp::now());
    let shown = |bucket: i32| bucket > present - BUCKETS && bucket <= present + 1;
    Ok(totals
        .into_iter()
        .filter(|((_, bucket), _)| shown(*bucket))
        .map(|((sensor, bucket), counts)| Activity {
            sensor: SensorIdentifier(sensor),
            network: networks[&sensor],
            bucket,
            counts,
            added: added[&(sensor, bucket)],
        })
        .collect())
}

async fn add_hours(
    transaction: &Transaction<'_>,
    hour_of_day: usize,
    counts: impl Iterator<Item = (&(Uuid, i32), &Counts)>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let saturated = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
    let now = Timestamp::now();
    let (mut sensors, mut days, mut recount_at) = (Vec::new(), Vec::new(), Vec::new());
    let (mut measurements, mut log_messages, mut heartbeats) = (Vec::new(), Vec::new(), Vec::new());
    for ((sensor, hour), counts) in counts {
        sensors.push(*sensor);
        days.push(hour.div_euclid(24));
        measurements.push(saturated(counts.measurements));
        log_messages.push(saturated(counts.log_messages));
        heartbeats.push(saturated(counts.heartbeats));
        // Also after a late item, so that an hour to which many arrive is not summed up for each.
        recount_at.push(hour_begin(hour + 1).max(now).saturating_add(SETTLED));
    }
    if sensors.is_empty() {
        return Ok(Vec::new());
    }
    let parameters: Parameters<'_> = &[
        (&sensors, Type::UUID_ARRAY),
        (&days, Type::INT4_ARRAY),
        (&measurements, Type::INT4_ARRAY),
        (&log_messages, Type::INT4_ARRAY),
        (&heartbeats, Type::INT4_ARRAY),
        (&recount_at, Type::TIMESTAMPTZ_ARRAY),
    ];
    transaction.query_typed(&ADD[hour_of_day], parameters).await
}
