//! The end of an instance's row. Made by `instance_tasks`, called by `app` at an orderly stop. The row is deleted only
//! once everything is relayed to the others.

use std::sync::Arc;
use std::time::Duration;

use actix_rt::task::JoinHandle;
use tokio::sync::watch;
use tracing::debug;
use uuid::Uuid;

use crate::domain::Subscriptions;
use crate::store::Store;

/// The row of an instance that has ended is too old after ten seconds anyway.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(2);

/// The row of this instance, and the task that writes it.
pub(super) struct Registration {
    pub(super) instance: Uuid,
    pub(super) store: Store,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) peers: JoinHandle<()>,
    pub(super) stop: watch::Sender<bool>,
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
