//! Metrics that are polled: health, pools, table sizes, clocks. Set up by `app.rs`. Nothing here is on
//! the path of a message.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::domain::{Faults, Health, Leadership, Part, Task};
use crate::metrics::Metrics;
use crate::store::{PoolUse, Store};
use crate::tasks::Tasks;

const CENSUS_INTERVAL: Duration = Duration::from_secs(60);

/// Updates whether the parts work, whenever the metrics are read.
pub fn watch_health(metrics: &Metrics, health: Arc<Health>) {
    metrics.before_reading(move |metrics| {
        for part in Part::ALL {
            let up = i64::from(health.condition(part).up);
            metrics.part_up.with_label_values(&[part.name()]).set(up);
        }
    });
}

/// Updates whether this instance leads, whenever the metrics are read.
pub fn watch_leadership(metrics: &Metrics, leadership: Leadership) {
    metrics.before_reading(move |metrics| metrics.leader.set(leadership.is_leader().into()));
}

/// Updates how often tasks have panicked, whenever the metrics are read.
pub fn watch_tasks(metrics: &Metrics, tasks: Tasks) {
    metrics.before_reading(move |metrics| {
        for (task, panics) in tasks.panics() {
            let counter = metrics.task_panics.with_label_values(&[task.name()]);
            counter.inc_by(panics.saturating_sub(counter.get()));
        }
    });
}

/// Updates the use of a pool, whenever the metrics are read.
pub fn watch_pool(
    metrics: &Metrics,
    name: &'static str,
    limit: u32,
    pool_use: impl Fn() -> PoolUse + Send + Sync + 'static,
) {
    metrics.pool_connections_limit.with_label_values(&[name]).set(limit.into());
    metrics.before_reading(move |metrics| {
        let PoolUse { busy, idle } = pool_use();
        metrics.pool_connections.with_label_values(&[name, "busy"]).set(busy.into());
        metrics.pool_connections.with_label_values(&[name, "idle"]).set(idle.into());
    });
}

/// Updates the sizes of the tables and the clocks once a minute, for ever.
pub async fn watch_tables(store: &Store, metrics: &Metrics, faults: &Faults) {
    let mut tick = tokio::time::interval(CENSUS_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        faults.at(Task::Census);
        match store.census().await {
            Ok(tables) => {
                for it in tables {
                    let table = [it.table.as_str()];
                    metrics.partitions.with_label_values(&table).set(it.partitions);
                    metrics.table_bytes.with_label_values(&table).set(it.bytes);
                    metrics.default_partition_bytes.with_label_values(&table).set(it.default_bytes);
                    let end = it.end.map_or(0.0, |end| end.unix_seconds());
                    metrics.partitions_end.with_label_values(&table).set(end);
                }
            }
            Err(error) => {
                debug!(%error, "reading table sizes failed; it will be retried in a minute")
            }
        }
        match store.clocks().await {
            Ok(clocks) => metrics.database_clock_ahead.set(clocks.database_ahead_secs()),
            Err(error) => {
                debug!(%error, "reading the database's clock failed; it will be retried in a minute")
            }
        }
    }
}
