//! Starts the tasks by which several instances share one database. Called once by `app`. They run to the end of the
//! process.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::BackgroundTasks;
use super::registration::Registration;
use crate::domain::Task;
use crate::instances::{self, Identity, Peers, PeersHandles};
use crate::store::{self, LeaderLock, Listener};

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
