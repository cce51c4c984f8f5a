//! Keeps the leader's lock, or tries to get it. Run by `app` as a task. The leader does housekeeping, the roll-up and
//! the outbox; after its death another one leads within some six seconds, at once if its connection was closed.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::domain::{Faults, Task};
use crate::metrics::Metrics;
use crate::store::LeaderLock;

/// See [`LeaderLock`], whose timeouts depend on it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Never returns; `leadership` is notified of each change.
pub async fn lead(
    lock: &mut LeaderLock,
    leadership: &watch::Sender<bool>,
    metrics: &Metrics,
    faults: &Faults,
) {
    let mut is_failing = false;
    loop {
        let held = lock.hold().await;
        faults.at(Task::Leader);
        let (is_leader, has_failed) = (matches!(held, Ok(true)), held.is_err());
        let was_leader = *leadership.borrow();
        leadership.send_if_modified(|now| std::mem::replace(now, is_leader) != is_leader);
        metrics.leader.set(is_leader.into());
        match held {
            Ok(_) if is_leader && !was_leader => {
                info!("this instance leads: it does housekeeping, the roll-up and the outbox");
            }
            Ok(_) if was_leader && !is_leader => warn!("another instance leads now"),
            Ok(_) if is_failing => info!("another instance leads"),
            Ok(_) => {}
            Err(error) if was_leader => {
                warn!(%error, "this instance no longer leads, because the database does not answer");
            }
            Err(error) if !is_failing => {
                warn!(%error, "this instance cannot lead; it will try every second");
            }
            Err(error) => debug!(%error, "this instance still cannot lead"),
        }
        is_failing = has_failed;
        tokio::time::sleep(INTERVAL).await;
    }
}
