//! Folds the activity journal into the counts. Called by the fleet's stream, often while it has readers
//! and otherwise once a minute. Each journal entry is counted exactly once, also after a crash, and the
//! work grows linearly with the number of sensors.
//!
//! Invariant: no statement joins two sets. The journal is summed up in memory, because PostgreSQL has
//! no statistics about arrays that it has just read, and plans nested loops over them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{IsolationLevel, Transaction};
use tracing::warn;
use uuid::Uuid;

use super::activity::{Activity, BUCKETS, Counts, bucket_of, read_counts};
use crate::domain::{Kind, SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::{Store, StoreError};

/// Entries of the journal (44 bytes each) in one transaction: at most as many rows of `activity` are
/// locked, for about 2 s on the benchmark's machine. A deletion of one of their sensors waits for it.
const MAX_ENTRIES: usize = 100_000;

/// Rows of the journal in one transaction: each is one commit of ingest.
const MAX_JOURNAL_ROWS: usize = 2_000;

/// PostgreSQL cancels each statement earlier, unless it is unreachable.
const FOLD_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Skips rows that another instance is folding. The number of entries is derived from the size of their
/// array (16 bytes each, and a header of 20 to 24), without reading the array: it is stored out of line
/// and uncompressed. Parameters: entries, rows.
const TAKE: &str = "\
delete from activity_journal where identifier = any (array(
    select identifier from (
        select identifier, sum(entries) over (order by identifier) - entries as entries_before
        from (
            select identifier, (pg_column_size(sensors) - 20) / 16 as entries from activity_journal
            order by identifier limit $2 for update skip locked
        ) as locked
    ) as counted
    where entries_before < $1
))
returning sensors, buckets, kinds, counts";

/// Entries over the limit, for the next fold.
const PUT_BACK: &str = "\
insert into activity_journal (sensors, buckets, kinds, counts) values ($1, $2, $3, $4)";

/// The sensors that exist. The lock delays their deletion until the counts are committed: otherwise a
/// deletion between this statement and the next would fail the fold, or deadlock with it.
const LOCK_SENSORS: &str = "\
select identifier, network_identifier from sensor where identifier = any ($1)
order by identifier for key share";

/// The rows are sorted by sensor and bucket, so that two instances lock them in the same order.
const ADD: &str = "\
insert into activity as known (sensor_identifier, bucket, measurement_count, log_message_count,
    heartbeat_count)
select * from unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[])
on conflict (sensor_identifier, bucket) do update
set measurement_count = known.measurement_count + excluded.measurement_count,
    log_message_count = known.log_message_count + excluded.log_message_count,
    heartbeat_count = known.heartbeat_count + excluded.heartbeat_count
returning sensor_identifier, bucket, measurement_count, log_message_count, heartbeat_count";

/// The statements whose work depends on the number of sensors, for the test of their plans.
#[doc(hidden)]
pub const FOLD_STATEMENTS: [&str; 3] = [TAKE, LOCK_SENSORS, ADD];

/// The result of one transaction.
#[derive(Clone, Debug)]
pub struct Fold {
    /// The counts that changed.
    pub changed: Vec<Activity>,
    /// Whether it folded the whole journal, except for what other instances are folding.
    pub is_complete: bool,
}

/// The columns of several rows of `activity_journal`, concatenated.
#[derive(Debug, Default)]
struct Journal {
    row_count: usize,
    sensors: Vec<Uuid>,
    buckets: Vec<i32>,
    kinds: Vec<i16>,
    counts: Vec<i32>,
}

impl Journal {
    fn split_off(&mut self, at: usize) -> Self {
        let at = at.min(self.sensors.len());
        Self {
            row_count: 0,
            sensors: self.sensors.split_off(at),
            buckets: self.buckets.split_off(at),
            kinds: self.kinds.split_off(at),
            counts: self.counts.split_off(at),
        }
    }

    /// Sums by sensor and bucket, without entries of buckets that are no longer read.
    fn sums(&self, present: i32) -> BTreeMap<(Uuid, i32), Counts> {
        let mut sums = BTreeMap::<_, Counts>::new();
        let columns = self.sensors.iter().zip(&self.buckets).zip(&self.kinds).zip(&self.counts);
        for (((sensor, bucket), kind), count) in columns {
            if *bucket > present - BUCKETS && *bucket <= present + 1 {
                let sum = sums.entry((*sensor, *bucket)).or_default();
                match Kind::ALL.get(usize::from(kind.unsigned_abs())) {
                    Some(Kind::Measurement) => sum.measurements += i64::from(*count),
                    Some(Kind::LogMessage) => sum.log_messages += i64::from(*count),
                    Some(Kind::Heartbeat) => sum.heartbeats += i64::from(*count),
                    None => {}
                }
            }
        }
        sums
    }
}

impl Store {
    /// Folds a part of the journal into the counts, in one transaction. After a timeout it retries with
    /// half the entries; the limit then grows slowly again.
    ///
    /// # Errors
    /// When the database is unavailable, or a single entry cannot be folded in time. The journal is
    /// then unchanged.
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
        let mut journal = take(&transaction, max_entries).await?;
        let is_complete =
            journal.sensors.len() < max_entries && journal.row_count < MAX_JOURNAL_ROWS;
        let rest = journal.split_off(max_entries);
        *taken = journal.sensors.len();
        put_back(&transaction, &rest).await?;
        let changed = add(&transaction, &journal.sums(bucket_of(Timestamp::now()))).await?;
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
    let mut journal = Journal::default();
    for row in transaction.query_typed(TAKE, parameters).await? {
        journal.row_count += 1;
        journal.sensors.append(&mut row.try_get(0)?);
        journal.buckets.append(&mut row.try_get(1)?);
        journal.kinds.append(&mut row.try_get(2)?);
        journal.counts.append(&mut row.try_get(3)?);
    }
    Ok(journal)
}

async fn put_back(
    transaction: &Transaction<'_>,
    rest: &Journal,
) -> Result<(), tokio_postgres::Error> {
    if rest.sensors.is_empty() {
        return Ok(());
    }
    let parameters: Parameters<'_> = &[
        (&rest.sensors, Type::UUID_ARRAY),
        (&rest.buckets, Type::INT4_ARRAY),
        (&rest.kinds, Type::INT2_ARRAY),
        (&rest.counts, Type::INT4_ARRAY),
    ];
    transaction.query_typed(PUT_BACK, parameters).await.map(drop)
}

async fn add(
    transaction: &Transaction<'_>,
    sums: &BTreeMap<(Uuid, i32), Counts>,
) -> Result<Vec<Activity>, tokio_postgres::Error> {
    let mut sensors: Vec<Uuid> = sums.keys().map(|(sensor, _)| *sensor).collect();
    sensors.dedup();
    let locked = transaction.query_typed(LOCK_SENSORS, &[(&sensors, Type::UUID_ARRAY)]).await?;
    let networks: foldhash::HashMap<Uuid, Uuid> = locked
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, _>>()?;

    let (mut sensors, mut buckets) = (Vec::new(), Vec::new());
    let (mut measurements, mut log_messages, mut heartbeats) = (Vec::new(), Vec::new(), Vec::new());
    for ((sensor, bucket), added) in sums {
        if networks.contains_key(sensor) {
            sensors.push(*sensor);
            buckets.push(*bucket);
            measurements.push(added.measurements);
            log_messages.push(added.log_messages);
            heartbeats.push(added.heartbeats);
        }
    }
    if sensors.is_empty() {
        return Ok(Vec::new());
    }
    let parameters: Parameters<'_> = &[
        (&sensors, Type::UUID_ARRAY),
        (&buckets, Type::INT4_ARRAY),
        (&measurements, Type::INT8_ARRAY),
        (&log_messages, Type::INT8_ARRAY),
        (&heartbeats, Type::INT8_ARRAY),
    ];
    let rows = transaction.query_typed(ADD, parameters).await?;
    rows.iter()
        .map(|row| {
            let key: (Uuid, i32) = (row.try_get(0)?, row.try_get(1)?);
            Ok(Activity {
                sensor: SensorIdentifier(key.0),
                network: networks[&key.0],
                bucket: key.1,
                counts: read_counts(row, 2)?,
                added: sums[&key],
            })
        })
        .collect()
}
