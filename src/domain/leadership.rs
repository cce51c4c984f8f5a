//! Whether this process does the work that one instance does for all. Held by the tasks that do it; set by the task
//! that holds the lock. A process that is not sure is not the leader.
//!
//! Invariant: leadership ends by itself, also while the task that holds the lock is blocked.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// None: it does not lead.
    leads_until: watch::Receiver<Option<Instant>>,
    /// What [`Self::changed`] has last returned for.
    known: bool,
}

impl Leadership {
    /// Not the leader, until the sender says so.
    #[must_use]
    pub fn new() -> (watch::Sender<Option<Instant>>, Self) {
        let (sender, leads_until) = watch::channel(None);
        (sender, Self { leads_until, known: false })
    }

    /// The leader for ever, for a process without others.
    pub fn always() -> Self {
        let century = Duration::from_secs(100 * 365 * 24 * 3_600);
        Self { leads_until: watch::channel(Some(Instant::now() + century)).1, known: true }
    }

    /// Whether it is the leader now.
    pub fn is_leader(&self) -> bool {
        is_later(*self.leads_until.borrow())
    }

    /// Returns once it is the leader.
    pub async fn acquired(&mut self) {
        self.becomes(true).await;
    }

    /// Returns when that has changed; an end that came by itself is noticed at the next call, or when the sender says
    /// something.
    pub async fn changed(&mut self) {
        self.becomes(!self.known).await;
        self.known = !self.known;
    }

    async fn becomes(&mut self, wanted: bool) {
        if self.leads_until.wait_for(|until| is_later(*until) == wanted).await.is_err() {
            std::future::pending().await
        }
    }
}

fn is_later(until: Option<Instant>) -> bool {
    until.is_some_and(|until| until > Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn leadership_ends_by_itself_and_is_acquired_again() {
        let (sender, mut leadership) = Leadership::new();
        assert!(!leadership.is_leader() && leadership.changed().now_or_never().is_none());
        let later = Instant::now() + Duration::from_secs(60);
        for _ in 0..2 {
            sender.send_replace(Some(later));
            assert!(leadership.is_leader() && leadership.acquired().now_or_never().is_some());
            assert!(leadership.changed().now_or_never().is_some());
            sender.send_replace(Some(later));
            assert!(leadership.changed().now_or_never().is_none(), "it was only confirmed");
            sender.send_replace(Some(Instant::now()));
            assert!(!leadership.is_leader() && leadership.acquired().now_or_never().is_none());
            assert!(leadership.changed().now_or_never().is_some());
        }
    }
}
