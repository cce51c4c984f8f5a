//! The queue of password checks, ordered by the attempts of each address: the fewest first. Used by
//! `sign_in_checks`. When the queue is full, the request with the most attempts is refused, so that guessing from
//! many addresses keeps no other user out. The queue and the concurrent checks are bounded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Each holds a request with a small body.
const MAX_WAITING: usize = 256;

/// A request that waits longer is answered 503.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// One per process.
#[derive(Debug)]
pub(super) struct SignInQueue {
    /// Concurrent checks.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    arrived: u64,
    /// By attempts, then in the order of arrival. Some requests may have been cancelled.
    waiting: BTreeMap<(u32, u64), oneshot::Sender<Turn>>,
}

/// The right to check one password, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<SignInQueue>);

impl SignInQueue {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default() })
    }

    /// Waits for a turn; `None` when the queue is full.
    pub(super) async fn turn(self: &Arc<Self>, attempts: u32) -> Option<Turn> {
        let turn = {
            let mut state = self.lock();
            if state.running < self.limit {
                state.running += 1;
                return Some(Turn(Arc::clone(self)));
            }
            state.wait(attempts)?
        };
        tokio::time::timeout(TURN_TIMEOUT, turn).await.ok()?.ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, attempts: u32) -> Option<oneshot::Receiver<Turn>> {
        self.arrived += 1;
        let position = (attempts, self.arrived);
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.retain(|_, waiting| !waiting.is_closed());
        }
        if self.waiting.len() >= MAX_WAITING {
            let last = self.waiting.last_entry()?;
            if *last.key() < position {
                return None;
            }
            last.remove();
        }
        let (sender, turn) = oneshot::channel();
        self.waiting.insert(position, sender);
        Some(turn)
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let next = self.waiting.pop_first();
        if next.is_none() {
            self.running -= 1;
        }
        next.map(|(_, sender)| sender)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.0.lock().next();
        if let Some(next) = next {
            // A cancelled request drops the turn, which passes it on.
            drop(next.send(Self(Arc::clone(&self.0))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use futures_util::future::LocalBoxFuture;

    fn waits(queue: &Arc<SignInQueue>, attempts: u32) -> LocalBoxFuture<'static, Option<Turn>> {
        let queue = Arc::clone(queue);
        let mut waiting = async move { queue.turn(attempts).await }.boxed_local();
        assert!((&mut waiting).now_or_never().is_none());
        waiting
    }

    #[actix_rt::test]
    async fn the_caller_with_the_fewest_attempts_is_first() {
        let queue = SignInQueue::new(2);
        let (one, other) = (queue.turn(9).await.unwrap(), queue.turn(9).await.unwrap());
        let (first, second) = (waits(&queue, 3), waits(&queue, 3));
        // A request that was cancelled takes no turn.
        drop(waits(&queue, 1));
        let newcomer = waits(&queue, 0);
        drop(one);
        let newcomer = newcomer.now_or_never().unwrap().unwrap();
        drop(other);
        let first = first.now_or_never().unwrap().unwrap();
        drop(first);
        assert!(second.now_or_never().unwrap().is_some());
        drop(newcomer);
        assert_eq!(queue.lock().running, 0, "all turns are free again");
    }

    #[actix_rt::test]
    async fn callers_with_the_most_attempts_are_refused() {
        let queue = SignInQueue::new(1);
        let running = queue.turn(0).await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| waits(&queue, 5)).collect();
        assert!(queue.turn(5).now_or_never().unwrap().is_none());
        let newcomer = waits(&queue, 4);
        let last = waiting.pop().unwrap();
        assert!(last.now_or_never().unwrap().is_none());
        drop(running);
        assert!(newcomer.now_or_never().unwrap().is_some());
    }
}
