//! Whether this process does the work that one instance does for all. Held by the tasks that do it; set by the task
//! that holds the lock. A process that is not sure is not the leader.

use tokio::sync::watch;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// Not the leader, until the sender says so.
    #[must_use]
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, leadership) = watch::channel(false);
        (sender, Self(leadership))
    }

    /// The leader for ever, for a process without others.
    #[must_use]
    pub fn always() -> Self {
        Self(watch::channel(true).1)
    }

    /// Whether it is the leader now.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is the leader.
    pub async fn acquired(&mut self) {
        if self.0.wait_for(|is_leader| *is_leader).await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns when that has changed.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
