//! Deletes a sensor, and purges its rows. Called by the API, and by the housekeeping for a purge that
//! was interrupted. A deleted sensor leaves a tombstone, a row of `deleted_sensor`, for a day.
//!
//! Invariant: every commit of a batch takes [`DELETION_LOCK`] shared and then reads the tombstones; a
//! deletion takes it exclusively. So a batch either commits before the deletion, and its rows are
//! purged, or sees the tombstone, and rejects its items.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::Type;

use crate::domain::{Kind, SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::engines::engine::Engine;
use crate::store::pool::CHECKOUT_TIMEOUT;
use crate::store::rollup::lock::{LOCK, ROLLUP_LOCK};
use crate::store::sensors::lookups::LOCK_SENSOR;
use crate::store::{Store, StoreError};

/// The advisory lock between commits (shared) and deletions (exclusive).
pub(in crate::store) const DELETION_LOCK: i64 = 0x7472_6962;

/// A fold can hold [`ROLLUP_LOCK`] for seconds; later folds wait behind us.
const ROLLUP_LOCK_TIMEOUT: &str = "set local lock_timeout = '5s'";

/// All commits wait while a deletion waits for one of them.
const DELETION_LOCK_TIMEOUT: &str = "set local lock_timeout = '1s'";

/// Enough for a sensor of ten million rows.
const PURGE_STATEMENT_TIMEOUT: &str = "set local statement_timeout = '30min'";

/// PostgreSQL cancels each of the statements, of which there are at most nine, earlier, unless it is unreachable.
const PURGE_TIMEOUT: Duration = Duration::from_secs(9 * 31 * 60);

const DELETE: &str = "delete from sensor where identifier = $1 returning identifier";

/// A fold or rebuild adds none afterwards: it waits for [`ROLLUP_LOCK`], and then finds that the sensor does not
/// exist.
const DELETE_HOURS: &str = "delete from sensor_hour where sensor_identifier = $1";

const INSERT_TOMBSTONE: &str = "\
insert into deleted_sensor (identifier, deletion_timestamp) values ($1, clock_timestamp())
on conflict (identifier) do update
set deletion_timestamp = excluded.deletion_timestamp, clearance_timestamp = null, purge_timestamp = null";

/// Removes the sensor from the journal of the roll-up, so that its entries are not counted for a sensor that is created
/// with its identifier after the purge. Run under [`ROLLUP_LOCK`]: a fold puts entries back.
const PURGE_JOURNAL: &str = "\
update sensor_hour_journal as journal
set (sensors, hours, kinds, counts) = (
    select coalesce(array_agg(sensor), '{}'), coalesce(array_agg(hour), '{}'),
        coalesce(array_agg(kind), '{}'), coalesce(array_agg(added), '{}')
    from unnest(journal.sensors, journal.hours, journal.kinds, journal.counts)
        as entry (sensor, hour, kind, added)
    where sensor <> $1
)
where $1 = any (journal.sensors) and exists (select 1 from deleted_sensor where identifier = $1)";

/// Each statement reads the tombstone in the snapshot that selects the rows, so that no row of a sensor
/// that was created again is deleted. Rejections of messages received after the deletion stay: they record what the
/// sensor sent since. Those of single items are older than the tombstone, whatever the clocks say: a commit that sees
/// the tombstone rejects whole messages.
fn purge_statements(engine: &dyn Engine) -> impl Iterator<Item = String> {
    let of_table = |table| {
        format!(
            "delete from {table} where sensor_identifier = $1 \
             and exists (select 1 from deleted_sensor where identifier = $1)"
        )
    };
    let rejections = [
        ("rejection", "(item_index is not null or receipt_timestamp <= deletion_timestamp)"),
        ("rejection_overflow", "hour <= deletion_timestamp"),
    ];
    let of_rejections = |(table, condition)| {
        format!(
            "delete from {table} using deleted_sensor as deleted \
             where sensor_identifier = $1 and deleted.identifier = $1 and {condition}"
        )
    };
    let tables = Kind::ALL.map(|kind| engine.tables(kind)).into_iter().flatten();
    tables.map(of_table).chain(rejections.map(of_rejections))
}

/// One purge of a sensor at a time: another would wait for its row locks. Parameter: sensor.
const PURGE_LOCK: &str = "select pg_advisory_xact_lock(hashtextextended($1::text, 1))";
const TRY_PURGE_LOCK: &str = "select pg_try_advisory_xact_lock(hashtextextended($1::text, 1))";

const UNPURGED_DELETION: &str = "\
select deletion_timestamp from deleted_sensor where identifier = $1 and purge_timestamp is null";

/// Only if the sensor has not been deleted once more since.
const RECORD_PURGE: &str = "\
update deleted_sensor set purge_timestamp = now()
where identifier = $1 and deletion_timestamp = $2";

/// What to do if another process is purging the sensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OtherPurge {
    WaitFor,
    Skip,
}

impl Store {
    /// Deletes a sensor, its configurations and its hours, and inserts its tombstone; false if the sensor does not
    /// exist. [`Store::purge_sensor`] then deletes its rows.
    /// Fails if a fold takes longer than five seconds, or a commit longer than one.
    pub async fn delete_sensor(&self, identifier: SensorIdentifier) -> Result<bool, StoreError> {
        self.within(async {
            let turn = timeout(CHECKOUT_TIMEOUT, self.deletion_permit.acquire()).await;
            let _turn =
                turn.map_err(|_elapsed| StoreError::LimitReached("deletions of sensors"))?;
            let mut connection = self.connection().await?;
            let transaction = connection.transaction().await?;
            let sensor: Parameters<'_> = &[(&identifier, Type::UUID)];
            // What takes long comes before the lock that all commits need.
            transaction.batch_execute(ROLLUP_LOCK_TIMEOUT).await?;
            transaction.query_typed(LOCK, &[(&ROLLUP_LOCK, Type::INT8)]).await?;
            transaction.query_typed(LOCK_SENSOR, sensor).await?;
            transaction.query_typed(DELETE_HOURS, sensor).await?;
            transaction.batch_execute(DELETION_LOCK_TIMEOUT).await?;
            transaction.query_typed(LOCK, &[(&DELETION_LOCK, Type::INT8)]).await?;
            if transaction.query_typed_opt(DELETE, sensor).await?.is_none() {
                return Ok(false);
            }
            transaction.query_typed(INSERT_TOMBSTONE, sensor).await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Deletes the rows of a deleted sensor in the hot tables, its rejections, and its entries in the journal of the
    /// roll-up. Returns the number of rows and rejections.
    /// Waits for another process that is purging the sensor. Each statement fails after half an hour.
    pub async fn purge_sensor(&self, identifier: SensorIdentifier) -> Result<u64, StoreError> {
        Ok(self.purge(identifier, OtherPurge::WaitFor).await?.unwrap_or(0))
    }

    /// Resumes an interrupted purge. False if another process is purging the sensor.
    pub async fn resume_purge(&self, identifier: SensorIdentifier) -> Result<bool, StoreError> {
        Ok(self.purge(identifier, OtherPurge::Skip).await?.is_some())
    }

    /// None if another process is purging the sensor.
    async fn purge(
        &self,
        identifier: SensorIdentifier,
        other_purge: OtherPurge,
    ) -> Result<Option<u64>, StoreError> {
        Self::answered_within(PURGE_TIMEOUT, async {
            let _turn = self.purge_permits.acquire().await;
            let mut connection = self.connection().await?;
            let sensor: Parameters<'_> = &[(&identifier, Type::UUID)];
            let Some(deletion) = connection.query_typed_opt(UNPURGED_DELETION, sensor).await?
            else {
                return Ok(Some(0));
            };
            let deleted_at: Timestamp = deletion.try_get(0)?;
            let mut row_count = 0;
            let engine = self.engine(&connection).await?;
            for statement in purge_statements(engine) {
                let transaction = connection.transaction().await?;
                transaction.batch_execute(PURGE_STATEMENT_TIMEOUT).await?;
                transaction.batch_execute(engine.purge_setting()).await?;
                match other_purge {
                    OtherPurge::WaitFor => drop(transaction.query_typed(PURGE_LOCK, sensor).await?),
                    OtherPurge::Skip => {
                        let locked = transaction.query_typed_one(TRY_PURGE_LOCK, sensor).await?;
                        if !locked.try_get::<_, bool>(0)? {
                            return Ok(None);
                        }
                    }
                }
                row_count += transaction.execute_typed(&statement, sensor).await?;
                transaction.commit().await?;
            }
            // Sees what a fold has put back before it released the lock.
            let transaction = connection
                .build_transaction()
                .isolation_level(IsolationLevel::ReadCommitted)
                .start()
                .await?;
            transaction.batch_execute(PURGE_STATEMENT_TIMEOUT).await?;
            transaction.query_typed(LOCK, &[(&ROLLUP_LOCK, Type::INT8)]).await?;
            transaction.execute_typed(PURGE_JOURNAL, sensor).await?;
            transaction.commit().await?;
            let deletion: Parameters<'_> =
                &[(&identifier, Type::UUID), (&deleted_at, Type::TIMESTAMPTZ)];
            connection.execute_typed(RECORD_PURGE, deletion).await?;
            Ok(Some(row_count))
        })
        .await
    }
}
