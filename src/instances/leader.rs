//! Keeps the leader's lock, or tries to get it. Run by `app` as a task. The leader does housekeeping, the roll-up and
//! the outbox; after its death another one leads within some six seconds, at once if its connection was closed.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use crate::domain::{Faults, Task};
use crate::store::LeaderLock;

const INTERVAL: Duration = Duration::from_secs(1);

/// Never returns; passes to `leads_until` how long this process leads, from each time that it has the lock.
pub async fn lead(
    lock: &mut LeaderLock,
    leads_until: &watch::Sender<Option<Instant>>,
    faults: &Faults,
) {
    let mut is_failing = false;
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let was_leader = leads_until.borrow().is_some();
        tokio::select! {
            _ = interval.tick() => {}
            () = lock.disconnected(), if was_leader => {}
        }
        if lock.is_lost() {
            // Another instance may have it by now.
            leads_until.send_replace(None);
        }
        // PostgreSQL counts from its answer.
        let asked_at = Instant::now();
        let held = lock.hold().await;
        faults.at(Task::Leader);
        let (is_leader, has_failed) = (matches!(held, Ok(true)), held.is_err());
        leads_until.send_replace(is_leader.then(|| asked_at + LeaderLock::TERM));
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
    }
}
