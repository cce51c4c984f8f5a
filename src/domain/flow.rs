//! How ingest flows at this moment: what waits where, and whether it is paused. Written by the
//! inbound loop and the writer, once a read or a batch; read and paused by the API.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::sync::watch;

use super::Timestamp;

/// What is on its way, and the valve before it.
#[derive(Debug)]
pub struct Flow {
    window_messages: AtomicU64,
    window_bytes: AtomicU64,
    waiting_items: AtomicU64,
    waiting_messages: AtomicU64,
    writing: AtomicU64,
    batches: AtomicU64,
    batch_items: AtomicU64,
    last_batch_items: AtomicU64,
    largest_batch_items: AtomicU64,
    paused: watch::Sender<Option<Timestamp>>,
}

/// The same, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct FlowSnapshot {
    /// Messages in the inbound window: received, and not yet settled.
    pub window_messages: u64,
    /// The memory that they hold.
    pub window_bytes: u64,
    /// Messages that wait in the writer for the batch that is to take them.
    pub waiting_messages: u64,
    /// Their items.
    pub waiting_items: u64,
    /// Batches that are being written.
    pub writing: u64,
    /// Batches committed since the start.
    pub batches: u64,
    /// Items in them.
    pub batch_items: u64,
    /// Items in the last of them.
    pub last_batch_items: u64,
    /// Items in the largest of them.
    pub largest_batch_items: u64,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            window_messages: AtomicU64::default(),
            window_bytes: AtomicU64::default(),
            waiting_items: AtomicU64::default(),
            waiting_messages: AtomicU64::default(),
            writing: AtomicU64::default(),
            batches: AtomicU64::default(),
            batch_items: AtomicU64::default(),
            last_batch_items: AtomicU64::default(),
            largest_batch_items: AtomicU64::default(),
            paused: watch::Sender::new(None),
        }
    }
}

impl Flow {
    /// So much is in the inbound window.
    pub fn window(&self, messages: usize, bytes: usize) {
        self.window_messages.store(messages as u64, Ordering::Relaxed);
        self.window_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    /// So much waits in the writer, and so many batches are being written.
    pub fn queue(&self, messages: usize, items: usize, writing: u32) {
        self.waiting_messages.store(messages as u64, Ordering::Relaxed);
        self.waiting_items.store(items as u64, Ordering::Relaxed);
        self.writing.store(writing.into(), Ordering::Relaxed);
    }

    /// A batch of so many items is committed.
    pub fn batch(&self, items: usize) {
        let items = items as u64;
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.batch_items.fetch_add(items, Ordering::Relaxed);
        self.last_batch_items.store(items, Ordering::Relaxed);
        self.largest_batch_items.fetch_max(items, Ordering::Relaxed);
    }

    /// Stops the reading from the broker; false if it was stopped before.
    pub fn pause(&self) -> bool {
        self.paused.send_if_modified(|since| {
            let changes = since.is_none();
            if changes {
                *since = Some(Timestamp::now());
            }
            changes
        })
    }

    /// Lets it go on; false if it was not stopped.
    pub fn resume(&self) -> bool {
        self.paused.send_if_modified(|since| since.take().is_some())
    }

    /// Since when the reading is stopped, if it is.
    #[must_use]
    pub fn paused_since(&self) -> Option<Timestamp> {
        *self.paused.borrow()
    }

    /// For the inbound loop, which obeys it.
    #[must_use]
    pub fn valve(&self) -> watch::Receiver<Option<Timestamp>> {
        self.paused.subscribe()
    }

    /// The figures of this moment, each by itself.
    #[must_use]
    pub fn snapshot(&self) -> FlowSnapshot {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        FlowSnapshot {
            window_messages: read(&self.window_messages),
            window_bytes: read(&self.window_bytes),
            waiting_messages: read(&self.waiting_messages),
            waiting_items: read(&self.waiting_items),
            writing: read(&self.writing),
            batches: read(&self.batches),
            batch_items: read(&self.batch_items),
            last_batch_items: read(&self.last_batch_items),
            largest_batch_items: read(&self.largest_batch_items),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valve_tells_whether_it_moved() {
        let flow = Flow::default();
        let valve = flow.valve();
        assert!(!flow.resume());
        assert!(flow.pause());
        let since = flow.paused_since();
        assert!(since.is_some() && *valve.borrow() == since);
        assert!(!flow.pause());
        assert_eq!(flow.paused_since(), since, "the first pause counts");
        assert!(flow.resume());
        assert_eq!(flow.paused_since(), None);
    }

    #[test]
    fn batches_are_summed_up() {
        let flow = Flow::default();
        flow.batch(7);
        flow.batch(3);
        let seen = flow.snapshot();
        assert_eq!((seen.batches, seen.batch_items), (2, 10));
        assert_eq!((seen.last_batch_items, seen.largest_batch_items), (3, 7));
    }
}
