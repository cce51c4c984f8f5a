//! Starts the tasks by which several instances share one database, and ends the row of this instance. Called by `app`.
//! The tasks run to the end of the process; the row is deleted only once everything is relayed to the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::task::JoinHandle;
use tokio::sync::watch;
use tracing::debug;
use uuid::Uuid;

use super::BackgroundTasks;
use crate::domain::{Subscriptions, Task};
use crate::instances::{self, Identity, Peers, PeersHandles};
use crate::store::{self, LeaderLock, Listener, Store};

/// The row of an instance that has ended is too old after ten seconds anyway.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(2);

/// The row of this instance, and the task that writes it.
pub(super) struct Registration {
    instance: Uuid,
    store: Store,
    subscriptions: Arc<Subscriptions>,
    peers: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl BackgroundTasks {
    /// The leader's lock, and what the instances relay to each other.
    pub(super) fn spawn_instances(
        &self,
        config: &store::Config,
        leads_until: watch::Sender<Option<Instant>>,
        identity: Identity,
        handles: PeersHandles,
    ) -> Registration {
        let subscriptions = Arc::clone(self.hub.subscriptions());
        let (instance, mut sequence) = (identity.identifier, 0);
        let mut lock = LeaderLock::new(config);
        self.supervise(Task::Leader, async move |it| {
            instances::lead(&mut lock, &leads_until, it.tasks.faults()).await;
        });
        let mut listener = Listener::to_instances(config);
        let mut peers = Peers::new(identity, self.store.clone(), handles);
        let (stop, mut stopped) = watch::channel(false);
        let peers = self.supervise(Task::Peers, async move |it| {
            peers.run(&mut listener, &mut stopped, &it.metrics, it.tasks.faults()).await;
        });
        if let Some(mut relayed) = subscriptions.relayed().take_receiver() {
            let subscriptions = Arc::clone(&subscriptions);
            self.supervise(Task::Relay, async move |it| {
                let events = (&mut relayed, &mut sequence);
                let faults = it.tasks.faults();
                instances::relay(&it.store, instance, &subscriptions, events, faults).await;
            });
        }
        Registration { instance, store: self.store.clone(), subscriptions, peers, stop }
    }
}

impl Registration {
    /// Once everything is relayed to the others, deletes the row: they then know that they have missed nothing.
    pub(super) async fn end(self) {
        let ended = async {
            if !self.subscriptions.relayed().emptied().await {
                return false;
            }
            // A round would write the row again.
            self.stop.send_replace(true);
            self.peers.await.is_ok() && self.store.delete_instance(self.instance).await.is_ok()
        };
        if !matches!(tokio::time::timeout(UNREGISTER_TIMEOUT, ended).await, Ok(true)) {
            debug!("the row of this instance remains until it is too old");
        }
    }
}
