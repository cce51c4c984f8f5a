//! Housekeeping: creates the partitions that are needed next, and deletes everything that is deleted by
//! age. Called by the service once an hour. A locked table does not delay the others, and nothing is
//! deleted by age while the clocks disagree.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::clock::Clocks;
use super::partitions::Intervals;
use crate::domain::{Kind, Timestamp};
use crate::store::columns::Parameters;
use crate::store::engines::engine::{KeptPartitions, Retention};
use crate::store::rollup::lock::{LOCK, ROLLUP_LOCK};
use crate::store::rollup::rebuild::is_rebuilding;
use crate::store::rollup::recount::is_behind;
use crate::store::{Config, Store, StoreError};

/// A purge starts with the deletion; these were interrupted.
const UNPURGED_SENSORS: &str = "\
select identifier from deleted_sensor
where purge_timestamp is null and deletion_timestamp < now() - interval '1 minute'";

/// A tombstone is kept for a day, so that messages in flight at the deletion are rejected. Parameter: now.
const DELETE_TOMBSTONES: &str = "\
delete from deleted_sensor
where clearance_timestamp is not null and purge_timestamp is not null
    and deletion_timestamp < $1 - interval '1 day'";

/// Committed before anything is deleted, so that a rebuild knows what may be missing, whatever the setting is then.
/// Parameters: table, time.
const RECORD_LIMIT: &str = "\
update retention_limit set limit_timestamp = $2 where table_name = $1 and limit_timestamp < $2";

/// Only the pages with such days are read. Parameter: the first day that is kept.
const OLDEST_DAY: &str = "\
select min(day) - date '1970-01-01' from sensor_hour where day < date '1970-01-01' + $1";

/// One day at a time, because a fold waits for it.
const DELETE_DAY: &str = "delete from sensor_hour where day = date '1970-01-01' + $1";

/// A round may read whole partitions before it drops them, and purge deleted sensors.
const ROUND_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);

/// Partition changes of a table that wait for a lock that another session holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockedPartitions {
    /// The table's name.
    pub table: &'static str,
    /// Partitions to create; until then their rows go to the default partition.
    pub to_create: usize,
    /// Partitions to drop.
    pub to_drop: usize,
}

/// One process's housekeeping.
#[derive(Debug)]
pub struct Housekeeper {
    store: Store,
    intervals: Intervals,
    rollup_retention_days: Option<u32>,
    retention: [(Kind, Option<u32>); Kind::ALL.len()],
    compress_after_days: Option<u32>,
    kept: Mutex<[KeptPartitions; Kind::ALL.len()]>,
}

impl Housekeeper {
    /// `store` is the background pool, so that no writer and no API read waits for it.
    pub fn new(store: Store, config: &Config) -> Self {
        Self {
            store,
            intervals: Intervals::new(config),
            rollup_retention_days: config.rollup_retention_days,
            retention: [
                (Kind::Measurement, config.measurement_retention_days),
                (Kind::LogMessage, config.log_message_retention_days),
                (Kind::Heartbeat, config.heartbeat_retention_days),
            ],
            compress_after_days: config.compress_after_days,
            kept: Mutex::default(),
        }
    }

    /// Does everything that is due, and returns what waits for a lock.
    /// Returns the first failure; later steps are still done.
    pub async fn round(&self) -> Result<[BlockedPartitions; Kind::ALL.len()], StoreError> {
        Store::answered_within(ROUND_TIMEOUT, self.do_all()).await
    }

    async fn do_all(&self) -> Result<[BlockedPartitions; Kind::ALL.len()], StoreError> {
        let mut client = self.store.connection().await?;
        let engine = self.store.engine(&client).await?;
        let mut outcome = Ok(());
        let mut blocked = Kind::ALL.map(|kind| BlockedPartitions {
            table: kind.name(),
            to_create: 0,
            to_drop: 0,
        });
        for kind in Kind::ALL {
            let mut due = Vec::new();
            for interval in self.intervals.ahead(Timestamp::now()) {
                let partition = self.intervals.partition(kind, interval);
                due.push(engine.create(&client, &partition).await);
            }
            due.push(engine.complete(&client, kind.name()).await);
            for done in due {
                match done {
                    Err(error) if error.sqlstate() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                        blocked[kind as usize].to_create += 1;
                    }
                    done => outcome = outcome.and(done),
                }
            }
        }
        let clocks = Clocks::read(&client).await?;
        match clocks.agreed() {
            Some(now) => {
                outcome = outcome.and(self.delete_by_age(&mut client, now, &mut blocked).await);
            }
            None => {
                let database_ahead_secs = clocks.database_ahead_secs();
                tracing::warn!(
                    database_ahead_secs,
                    "the database's clock and ours differ: nothing is deleted by its age until they agree"
                );
            }
        }
        drop(client);
        outcome.and(self.resume_purges().await).map(|()| blocked)
    }

    async fn delete_by_age(
        &self,
        client: &mut Client,
        now: Timestamp,
        blocked: &mut [BlockedPartitions; Kind::ALL.len()],
    ) -> Result<(), StoreError> {
        let engine = self.store.engine(client).await?;
        let mut kept = self.kept.lock().await;
        let mut outcome = Ok(());
        for (kind, days) in self.retention {
            let Some(days) = days else { continue };
            let waits = match kind {
                Kind::Measurement => is_behind(client, now).await?,
                Kind::LogMessage | Kind::Heartbeat => is_rebuilding(client).await?,
            };
            if waits {
                tracing::warn!(
                    table = kind.name(),
                    "nothing is deleted by its age until the roll-up has counted and summed up the hours that are over"
                );
                continue;
            }
            let retention = Retention { table: kind.name(), days, now };
            let limit: Parameters<'_> =
                &[(&retention.table, Type::TEXT), (&retention.limit(), Type::TIMESTAMPTZ)];
            if let Err(error) = client.execute_typed(RECORD_LIMIT, limit).await {
                outcome = outcome.and(Err(error.into()));
                continue;
            }
            match engine.expire(client, &retention, &mut kept[kind as usize]).await {
                Ok(count) => blocked[kind as usize].to_drop = count,
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        if let Some(days) = self.rollup_retention_days {
            outcome = outcome.and(delete_hours(client, now, days).await);
        }
        if let Some(days) = self.compress_after_days {
            let before = now.saturating_sub(Duration::from_secs(u64::from(days) * 86_400));
            for kind in Kind::ALL {
                outcome = outcome.and(engine.compress(client, kind.name(), before).await);
            }
        }
        outcome = outcome.and(self.store.delete_old_keys(client, now).await);
        let deleted = client.execute_typed(DELETE_TOMBSTONES, &[(&now, Type::TIMESTAMPTZ)]).await;
        outcome.and(Ok(deleted.map(drop)?))
    }

    /// Purges what was left of deleted sensors.
    async fn resume_purges(&self) -> Result<(), StoreError> {
        let unpurged = self.store.connection().await?.query(UNPURGED_SENSORS, &[]).await?;
        for row in unpurged {
            self.store.resume_purge(row.get(0)).await?;
        }
        Ok(())
    }
}

async fn delete_hours(client: &mut Client, now: Timestamp, days: u32) -> Result<(), StoreError> {
    let before = now.saturating_sub(Duration::from_secs(u64::from(days) * 86_400));
    let day = (before.unix_microseconds() / 86_400_000_000) as i32;
    loop {
        let oldest = client.query_typed_one(OLDEST_DAY, &[(&day, Type::INT4)]).await?;
        let Some(oldest) = oldest.try_get::<_, Option<i32>>(0)? else { return Ok(()) };
        let transaction = client.transaction().await?;
        transaction.query_typed(LOCK, &[(&ROLLUP_LOCK, Type::INT8)]).await?;
        transaction.execute_typed(DELETE_DAY, &[(&oldest, Type::INT4)]).await?;
        transaction.commit().await?;
    }
}
