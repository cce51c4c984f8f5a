//! The present load of ingest, and its pause. Updated by the inbound loop and the writer, once per
//! read or batch; read and paused by the API.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Timestamp;

/// One per process.
#[derive(Debug)]
pub struct Flow {
    snapshot: Mutex<FlowSnapshot>,
    paused_since: watch::Sender<Option<Timestamp>>,
}

/// A snapshot of the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowSnapshot {
    /// Messages in the inbound window: received, not settled.
    pub window_messages: u64,
    /// The memory that they occupy.
    pub window_bytes: u64,
    /// Messages that wait in the writer for a batch.
    pub waiting_messages: u64,
    /// Items of the waiting messages.
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
        Self { snapshot: Mutex::default(), paused_since: watch::Sender::new(None) }
    }
}

impl Flow {
    /// Records what the inbound window holds.
    pub fn window(&self, messages: usize, bytes: usize) {
        let mut snapshot = self.lock();
        (snapshot.window_messages, snapshot.window_bytes) = (messages as u64, bytes as u64);
    }

    /// Records what waits in the writer, and how many batches are being written.
    pub fn queue(&self, messages: usize, items: usize, writing: u32) {
        let mut snapshot = self.lock();
        (snapshot.waiting_messages, snapshot.waiting_items) = (messages as u64, items as u64);
        snapshot.writing = writing.into();
    }

    /// Records a committed batch of this many items.
    pub fn batch(&self, items: usize) {
        let (mut snapshot, items) = (self.lock(), items as u64);
        snapshot.batches += 1;
        snapshot.batch_items += items;
        snapshot.last_batch_items = items;
        snapshot.largest_batch_items = snapshot.largest_batch_items.max(items);
    }

    /// Stops reading from the broker; false if it was already stopped.
    pub fn pause(&self) -> bool {
        self.paused_since.send_if_modified(|since| {
            let changes = since.is_none();
            if changes {
                *since = Some(Timestamp::now());
            }
            changes
        })
    }

    /// Resumes reading; false if it was not stopped.
    pub fn resume(&self) -> bool {
        self.paused_since.send_if_modified(|since| since.take().is_some())
    }

    /// None if reading is not stopped.
    pub fn paused_since(&self) -> Option<Timestamp> {
        *self.paused_since.borrow()
    }

    /// For the inbound loop.
    pub fn subscribe_to_pause(&self) -> watch::Receiver<Option<Timestamp>> {
        self.paused_since.subscribe()
    }

    /// The present load.
    pub fn snapshot(&self) -> FlowSnapshot {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, FlowSnapshot> {
        // Plain numbers: a panic elsewhere leaves none of them half written.
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pausing_twice_keeps_the_first_time() {
        let flow = Flow::default();
        let pause = flow.subscribe_to_pause();
        assert!(!flow.resume());
        assert!(flow.pause());
        let since = flow.paused_since();
        assert!(since.is_some() && *pause.borrow() == since);
        assert!(!flow.pause());
        assert_eq!(flow.paused_since(), since);
        assert!(flow.resume());
        assert_eq!(flow.paused_since(), None);
    }

    #[test]
    fn batches_are_summed_up() {
        let flow = Flow::default();
        flow.batch(7);
        flow.batch(3);
        let snapshot = flow.snapshot();
        assert_eq!((snapshot.batches, snapshot.batch_items), (2, 10));
        assert_eq!((snapshot.last_batch_items, snapshot.largest_batch_items), (3, 7));
    }
}
