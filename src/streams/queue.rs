//! The queue of one reader: events in order, bounded in number and in bytes. Pure but for the waker. The hub pushes,
//! the reader's connection polls.
//!
//! Invariant: over the bound, the queue is either closed, with a last event that says so, or restarted with one event
//! that replaces all others.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::event::{self, CloseReason};

const MAX_EVENTS: usize = 1_000;

/// Only a single event may be larger.
const MAX_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    reader: Option<Waker>,
}

impl Queue {
    /// Appends an event; false if the queue is closed, perhaps because of this event.
    pub(super) fn push(&self, event: Bytes) -> bool {
        let mut waiting = self.lock();
        if waiting.ended {
            return false;
        }
        if waiting.is_full_for(&event) {
            waiting.close(CloseReason::TooSlow);
            return false;
        }
        waiting.put(event);
        true
    }

    /// The same for a stream whose events are states: if the queue is full, `first_event` replaces all events, and the
    /// reader misses nothing.
    pub(super) fn push_or_restart(
        &self,
        event: Bytes,
        first_event: impl FnOnce() -> Bytes,
    ) -> bool {
        let mut waiting = self.lock();
        if !waiting.ended && waiting.is_full_for(&event) {
            waiting.restart(first_event());
        } else if !waiting.ended {
            waiting.put(event);
        }
        !waiting.ended
    }

    /// Replaces all events; false if the queue is closed.
    pub(super) fn restart(&self, first_event: Bytes) -> bool {
        let mut waiting = self.lock();
        if !waiting.ended {
            waiting.restart(first_event);
        }
        !waiting.ended
    }

    /// Appends the last event.
    pub(super) fn close(&self, reason: CloseReason) {
        self.lock().close(reason);
    }

    /// The next event; `None` after the last.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut waiting = self.lock();
        match waiting.events.pop_front() {
            Some(event) => {
                waiting.bytes -= event.len();
                Poll::Ready(Some(event))
            }
            None if waiting.ended => Poll::Ready(None),
            None => {
                waiting.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_full_for(&self, event: &Bytes) -> bool {
        let is_full = self.events.len() >= MAX_EVENTS || self.bytes + event.len() > MAX_BYTES;
        is_full && !self.events.is_empty()
    }

    fn restart(&mut self, first_event: Bytes) {
        self.events.clear();
        self.bytes = 0;
        self.put(first_event);
    }

    fn put(&mut self, event: Bytes) {
        self.bytes += event.len();
        self.events.push_back(event);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if !self.ended {
            self.ended = true;
            self.put(event::dropped(reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(queue: &Queue) -> Option<Option<Bytes>> {
        match queue.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        }
    }

    fn filled(events: usize, size: usize) -> (Queue, usize) {
        let queue = Queue::default();
        let taken = (0..events).take_while(|_| queue.push(vec![b'x'; size].into())).count();
        (queue, taken)
    }

    #[test]
    fn a_slow_reader_is_closed_with_a_reason() {
        for (size, expected) in [(1, MAX_EVENTS), (MAX_BYTES / 4, 4), (2 * MAX_BYTES, 1)] {
            let (queue, taken) = filled(10 * MAX_EVENTS, size);
            assert_eq!(taken, expected, "events of {size} bytes");
            for _ in 0..taken {
                assert_eq!(take(&queue).unwrap().unwrap().len(), size);
            }
            let last = take(&queue).unwrap().unwrap();
            assert_eq!(last, event::dropped(CloseReason::TooSlow));
            assert_eq!(take(&queue), Some(None));
            assert!(!queue.push("more".into()));
        }
    }

    #[test]
    fn a_slow_reader_of_states_is_restarted() {
        let queue = Queue::default();
        let event = Bytes::from(vec![b'x'; MAX_BYTES / 4]);
        for _ in 0..4 {
            assert!(queue.push_or_restart(event.clone(), || unreachable!("it has room")));
        }
        assert!(queue.push_or_restart(event.clone(), || "beginning".into()));
        assert!(queue.push_or_restart("change".into(), || unreachable!("it has room again")));
        assert_eq!(take(&queue), Some(Some("beginning".into())));
        assert_eq!(take(&queue), Some(Some("change".into())));
        assert_eq!(take(&queue), None);
        queue.close(CloseReason::Shutdown);
        assert!(!queue.push_or_restart(event.clone(), || event.clone()) && !queue.restart(event));
    }

    #[test]
    fn only_the_first_reason_counts() {
        let queue = Queue::default();
        queue.close(CloseReason::Shutdown);
        queue.close(CloseReason::TooSlow);
        assert_eq!(take(&queue), Some(Some(event::dropped(CloseReason::Shutdown))));
        assert_eq!(take(&queue), Some(None));
    }
}
