//! Runs the housekeeping once an hour, on the instance that leads. Started by `app` as a task. A round that failed, or
//! that waits for a lock, is repeated sooner.

use std::time::Duration;

use tracing::{debug, warn};

use crate::domain::{Faults, Leadership, Task, Timestamp, long_pause, pause};
use crate::metrics::Metrics;
use crate::store::{self, Housekeeper};

const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(3_600);

/// Never returns.
pub(super) async fn run_housekeeping(
    housekeeper: &Housekeeper,
    mut leadership: Leadership,
    metrics: &Metrics,
    faults: &Faults,
) {
    let (mut failures, mut waits) = (0, 0);
    loop {
        leadership.acquired().await;
        faults.at(Task::Housekeeping);
        let pause = match housekeeper.round().await {
            Ok(blocked) => {
                failures = 0;
                metrics.housekeeping_success.set(Timestamp::now().unix_seconds());
                waits = if report_blocked(metrics, blocked, waits == 0) { waits + 1 } else { 0 };
                if waits > 0 { long_pause(waits) } else { HOUSEKEEPING_INTERVAL }
            }
            Err(error) => {
                failures += 1;
                metrics.housekeeping_failures.inc();
                if failures == 1 {
                    warn!(%error, "housekeeping failed; it will be retried");
                } else {
                    debug!(%error, failures, "housekeeping failed again");
                }
                let unavailable = error.is_unavailable();
                if unavailable { pause(failures, rand::random()) } else { long_pause(failures) }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Returns whether partition changes wait for a lock.
fn report_blocked(
    metrics: &Metrics,
    blocked: impl IntoIterator<Item = store::BlockedPartitions>,
    is_first: bool,
) -> bool {
    let mut is_blocked = false;
    for store::BlockedPartitions { table, to_create, to_drop } in blocked {
        for (task, count) in [("make", to_create), ("drop", to_drop)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.partitions_waiting.with_label_values(&[table, task]).set(count);
        }
        if to_create + to_drop > 0 {
            is_blocked = true;
            if is_first {
                warn!(
                    table,
                    to_create,
                    to_drop,
                    "partition changes wait for a lock that another session holds; they will be retried"
                );
            }
        }
    }
    is_blocked
}
