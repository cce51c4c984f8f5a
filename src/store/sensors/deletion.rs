//! Deletes a sensor, and purges its rows. Called by the API, and by the housekeeping for a purge that
//! was cut short. Promises that no row outlives its sensor.
//!
//! Invariant: every commit of a batch takes [`DELETION_LOCK`] shared and then reads
//! `deleted_sensor`; a deletion takes it exclusively. So each batch commits before the deletion, and
//! its rows are purged, or sees the deletion, and rejects them. And no sensor is created while the
//! rows of one that had its identifier are being purged.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::Type;

use crate::domain::{Kind, SensorIdentifier, Timestamp};
use crate::store::columns::{Parameters, timestamp};
use crate::store::ingest::writer_connection::table;
use crate::store::pool::CHECKOUT_TIMEOUT;
use crate::store::{Store, StoreError};

/// The advisory lock between commits (shared) and deletions (exclusive).
pub(in crate::store) const DELETION_LOCK: i64 = 0x7472_6962;

/// Every commit waits behind a deletion that waits for one of them.
const DELETION_LOCK_TIMEOUT: &str = "set local lock_timeout = '1s'";

/// A sensor of ten million rows is deleted within this.
const PURGE_STATEMENT_TIMEOUT: &str = "set local statement_timeout = '30min'";

/// PostgreSQL cancels each of the statements before that, if it is there to do so.
const PURGE_TIMEOUT: Duration = Duration::from_secs(5 * 31 * 60);

const LOCK_DELETED_SENSOR: &str = "select from sensor where identifier = $1 for update";

const DELETE: &str = "delete from sensor where identifier = $1 returning identifier";

const RECORD_DELETION: &str = "\
insert into deleted_sensor (identifier) values ($1)
on conflict (identifier) do update
set deletion_timestamp = now(), clearance_timestamp = null, purge_timestamp = null";

/// Deletes the rows of a deleted sensor. `deleted_sensor` is read in the snapshot that picks the rows,
/// so that no row of a sensor that was created again is deleted. Rejections since the deletion stay:
/// they record what the sensor sent after it.
fn purge_statements() -> impl Iterator<Item = String> {
    let of_kind = |kind| {
        let table = table(kind);
        format!(
            "delete from {table} where sensor_identifier = $1 \
             and exists (select from deleted_sensor where identifier = $1)"
        )
    };
    let rejections = [("rejection", "receipt_timestamp"), ("rejection_overflow", "hour")];
    let of_rejections = |(table, column)| {
        format!(
            "delete from {table} where sensor_identifier = $1 and {column} <= \
             (select deletion_timestamp from deleted_sensor where identifier = $1)"
        )
    };
    Kind::ALL.map(of_kind).into_iter().chain(rejections.map(of_rejections))
}

/// One at a time purges a sensor: who waits for the rows that another deletes waits for long.
/// Parameter: sensor.
const PURGE_LOCK: &str = "select pg_advisory_xact_lock(hashtextextended($1::text, 1))";
const TRY_PURGE_LOCK: &str = "select pg_try_advisory_xact_lock(hashtextextended($1::text, 1))";

const UNPURGED_DELETION: &str = "\
select deletion_timestamp from deleted_sensor where identifier = $1 and purge_timestamp is null";

/// Unless it is another deletion by now.
const RECORD_PURGE: &str = "\
update deleted_sensor set purge_timestamp = now()
where identifier = $1 and deletion_timestamp = $2";

/// Whoever purges a sensor already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OtherPurge {
    /// Is waited for.
    WaitFor,
    /// Is left alone.
    Skip,
}

impl Store {
    /// Deletes a sensor and its configurations, and puts the deletion on record; false if there is
    /// no such sensor. Its rows are then for [`Store::purge_sensor`].
    ///
    /// # Errors
    /// When the database is unavailable, or a commit or another deletion takes longer than a second.
    pub async fn delete_sensor(&self, identifier: SensorIdentifier) -> Result<bool, StoreError> {
        self.within(async {
            let turn = timeout(CHECKOUT_TIMEOUT, self.deletion_permit.acquire()).await;
            let _turn = turn.map_err(|_elapsed| StoreError::Crowded("deletions of sensors"))?;
            let mut connection = self.connection().await?;
            let transaction = connection.transaction().await?;
            let sensor: Parameters<'_> = &[(&identifier.0, Type::UUID)];
            // A fold of activity can hold the sensor for seconds. It is waited for here, and not with
            // the lock for which every commit would wait.
            transaction.query_typed(LOCK_DELETED_SENSOR, sensor).await?;
            transaction.batch_execute(DELETION_LOCK_TIMEOUT).await?;
            transaction
                .query_typed("select pg_advisory_xact_lock($1)", &[(&DELETION_LOCK, Type::INT8)])
                .await?;
            if transaction.query_typed_opt(DELETE, sensor).await?.is_none() {
                return Ok(false);
            }
            transaction.query_typed(RECORD_DELETION, sensor).await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Deletes what a deleted sensor has left in the hot tables, and its rejections; tells how many
    /// rows that were. Whoever does so already is waited for.
    ///
    /// # Errors
    /// When the database is unavailable, or it takes longer than half an hour.
    pub async fn purge_sensor(&self, identifier: SensorIdentifier) -> Result<u64, StoreError> {
        Ok(self.purge(identifier, OtherPurge::WaitFor).await?.unwrap_or(0))
    }

    /// The same, after that was cut short. False: somebody else is at it.
    ///
    /// # Errors
    /// When the database is unavailable, or it takes longer than half an hour.
    pub async fn resume_purge(&self, identifier: SensorIdentifier) -> Result<bool, StoreError> {
        Ok(self.purge(identifier, OtherPurge::Skip).await?.is_some())
    }

    /// None: somebody else is at it.
    async fn purge(
        &self,
        identifier: SensorIdentifier,
        other_purge: OtherPurge,
    ) -> Result<Option<u64>, StoreError> {
        Self::answered_within(PURGE_TIMEOUT, async {
            let _turn = self.purge_permits.acquire().await;
            let mut connection = self.connection().await?;
            let sensor: Parameters<'_> = &[(&identifier.0, Type::UUID)];
            let Some(deletion) = connection.query_typed_opt(UNPURGED_DELETION, sensor).await?
            else {
                return Ok(Some(0));
            };
            let deleted_at: Timestamp = timestamp(&deletion, 0)?;
            let mut row_count = 0;
            for statement in purge_statements() {
                let transaction = connection.transaction().await?;
                transaction.batch_execute(PURGE_STATEMENT_TIMEOUT).await?;
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
            let deletion: Parameters<'_> =
                &[(&identifier.0, Type::UUID), (&deleted_at.to_jiff(), Type::TIMESTAMPTZ)];
            connection.execute_typed(RECORD_PURGE, deletion).await?;
            Ok(Some(row_count))
        })
        .await
    }
}
