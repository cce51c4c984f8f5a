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

/// Tries for ever; tells `leadership` at each change.
pub async fn lead(
    lock: &mut LeaderLock,
    leadership: &watch::Sender<bool>,
    metrics: &Metrics,
    faults: &Faults,
) {
    loop {
        let held = lock.hold().await;
        faults.at(Task::Leader);
        let is_leader = matches!(held, Ok(true));
        let was_leader = leadership.send_replace(is_leader);
        metrics.leader.set(is_leader.into());
        match held {
            Ok(_) if is_leader && !was_leader => {
                info!("this instance leads: it does housekeeping, the roll-up and the outbox");
            }
            Ok(_) if was_leader && !is_leader => warn!("another instance leads now"),
            Ok(_) => {}
            Err(error) if was_leader => {
                warn!(%error, "this instance does not lead any more, because the database does not answer");
            }
            Err(error) => debug!(%error, "no leader's lock"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
