//! Tells the other instances of what this one has committed: rows of sensors that have an open stream there, and steps
//! of configurations. Run by `app` as a task, outside the path of a message. What cannot be told in time leaves a gap,
//! which the others see.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::domain::{Event, Faults, Subscriptions, Task, pause};
use crate::store::Store;

/// Batches told in one statement.
const AT_ONCE: usize = 100;

/// Batches are kept for a minute: the others have read them, or see the gap.
const PRUNE_INTERVAL: Duration = Duration::from_secs(20);

/// Tells for ever what `events` receives.
pub async fn relay(
    store: &Store,
    instance: Uuid,
    subscriptions: &Arc<Subscriptions>,
    (events, sequence): (&mut Receiver<Vec<Event>>, &mut i64),
    faults: &Faults,
) {
    let mut prune = tokio::time::interval(PRUNE_INTERVAL);
    prune.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batches = Vec::new();
    // 1 at first, so that the first batch is number 2; and a gap after a panic, which has lost a batch.
    *sequence += 1;
    loop {
        faults.at(Task::Relay);
        tokio::select! {
            _ = prune.tick() => {
                if subscriptions.has_peers() && let Err(error) = store.prune_relayed().await {
                    debug!(%error, "old batches of events remain");
                }
                continue;
            }
            received = events.recv_many(&mut batches, AT_ONCE) => if received == 0 { return },
        }
        if subscriptions.has_lost_relayed() {
            warn!("events arrive faster than the other instances can be told; their streams end");
            *sequence += 1;
        }
        *sequence += 1;
        let told: Vec<Event> = batches.drain(..).flatten().collect();
        let mut failures = 0;
        // The number makes repetitions harmless.
        while let Err(error) = store.relay(instance, *sequence, &told).await {
            failures += 1;
            if failures == 1 {
                warn!(%error, "the other instances could not be told of events; it will be retried");
            }
            tokio::time::sleep(pause(failures, rand::random())).await;
        }
    }
}
