//! Relays what this instance has committed to the others: rows of sensors that have an open stream there, and steps
//! of configurations. Run by `app` as a task, outside the path of a message. What cannot be relayed in time, or at all,
//! leaves a gap, which the others see.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::domain::{Event, Faults, Held, Subscriptions, Task, pause};
use crate::store::Store;

/// Batches of commits taken at once.
const AT_ONCE: usize = 100;

/// What one row holds, unless a single event is larger.
const ROW_BYTES: usize = 1 << 20;

/// Batches are kept for a minute: the others have read them, or see the gap.
const PRUNE_INTERVAL: Duration = Duration::from_secs(20);

/// Relays for ever what `events` receives.
pub async fn relay(
    store: &Store,
    instance: Uuid,
    subscriptions: &Arc<Subscriptions>,
    (events, sequence): (&mut UnboundedReceiver<Held<Vec<Event>>>, &mut i64),
    faults: &Faults,
) {
    let mut prune = tokio::time::interval(PRUNE_INTERVAL);
    prune.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    // A panic has lost a batch.
    let mut has_lost = *sequence > 0;
    // So that the first batch is number 2.
    *sequence = (*sequence).max(1);
    loop {
        if subscriptions.relayed().has_lost() {
            warn!(
                "events arrive faster than they can be relayed to the other instances; their streams end"
            );
            has_lost = true;
        }
        if has_lost {
            // Shows the gap at once, or with the next event.
            *sequence += 2;
            has_lost = !write(store, instance, *sequence, &[]).await;
        }
        waiting.clear();
        faults.at(Task::Relay);
        tokio::select! {
            _ = prune.tick() => {
                if subscriptions.has_peers() && let Err(error) = store.prune_relayed().await {
                    debug!(%error, "old batches of events remain");
                }
            }
            received = events.recv_many(&mut waiting, AT_ONCE) => if received == 0 { return },
        }
        let events: Vec<Event> =
            waiting.iter_mut().flat_map(|it| std::mem::take(&mut it.content)).collect();
        let mut rest = events.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |it: &&Event| {
                bytes += it.bytes();
                bytes <= ROW_BYTES
            };
            let (row, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            *sequence += 1;
            has_lost |= !write(store, instance, *sequence, row).await;
            rest = later;
        }
    }
}

/// False: the database refuses this batch.
async fn write(store: &Store, instance: Uuid, sequence: i64, events: &[Event]) -> bool {
    let mut failures = 0;
    // The number makes repetitions harmless.
    while let Err(error) = store.relay(instance, sequence, events).await {
        if !error.is_unavailable() {
            warn!(%error, "some events cannot be relayed to the other instances; their streams end");
            return false;
        }
        failures += 1;
        if failures == 1 {
            warn!(%error, "events could not be relayed to the other instances; it will be retried");
        }
        tokio::time::sleep(pause(failures, rand::random())).await;
    }
    true
}
