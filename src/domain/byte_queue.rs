//! A queue between tasks, bounded by the bytes of what waits or is worked on. Filled on the path of commits by
//! `Subscriptions`, which never waits; emptied by the task that relays to the other instances. Something refused is
//! reported once, and [`ByteQueue::emptied`] returns when everything was dealt with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Something from the queue; it occupies room until it is dropped.
#[derive(Debug)]
pub struct Held<T> {
    /// What was put into the queue.
    pub content: T,
    _room: OwnedSemaphorePermit,
}

/// See the module.
#[derive(Debug)]
pub struct ByteQueue<T> {
    sender: UnboundedSender<Held<T>>,
    receiver: Mutex<Option<UnboundedReceiver<Held<T>>>>,
    room: Arc<Semaphore>,
    capacity: u32,
    lost: AtomicBool,
}

impl<T> ByteQueue<T> {
    pub(super) fn new(capacity: u32) -> Self {
        let (sender, receiver) = unbounded_channel();
        let room = Arc::new(Semaphore::new(capacity as usize));
        let (receiver, lost) = (Mutex::new(Some(receiver)), AtomicBool::new(false));
        Self { sender, receiver, room, capacity, lost }
    }

    /// The receiving end; once.
    pub fn take_receiver(&self) -> Option<UnboundedReceiver<Held<T>>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Without room, `content` is lost.
    pub(super) fn put(&self, content: T, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(bytes) {
            // Without a receiver, the process ends.
            Ok(room) => drop(self.sender.send(Held { content, _room: room })),
            Err(_) => self.lost.store(true, Ordering::SeqCst),
        }
    }

    /// Whether something was lost since the last call.
    pub fn has_lost(&self) -> bool {
        self.lost.swap(false, Ordering::SeqCst)
    }

    /// Returns once nothing waits or is worked on. False: something was lost since the last call of
    /// [`Self::has_lost`].
    pub async fn emptied(&self) -> bool {
        drop(self.room.acquire_many(self.capacity).await);
        !self.has_lost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn the_queue_is_bounded_in_bytes_and_empty_only_after_the_last_entry_is_processed() {
        let queue = ByteQueue::new(100);
        let mut receiver = queue.take_receiver().unwrap();
        assert_eq!(queue.emptied().now_or_never(), Some(true));
        queue.put("a", 60);
        assert!(!queue.has_lost());
        queue.put("b", 60);
        queue.put("larger than the queue", usize::MAX);
        assert!(queue.has_lost() && !queue.has_lost());
        queue.put("c", 40);
        let (a, c) = (receiver.try_recv().unwrap(), receiver.try_recv().unwrap());
        assert_eq!((a.content, c.content), ("a", "c"));
        drop(a);
        assert_eq!(queue.emptied().now_or_never(), None, "c is worked on");
        drop(c);
        assert_eq!(queue.emptied().now_or_never(), Some(true));
        queue.put("d", 101);
        assert_eq!(queue.emptied().now_or_never(), Some(false), "d is lost");
    }
}
