//! Limits the reads that may take long. Used by the API's handlers before a long read, and by every read
//! of a hot table. Neither can occupy all connections of the readers' pool, one caller cannot occupy all
//! turns, and callers without a read are not kept in memory.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use uuid::Uuid;

/// One of this many connections serves only short reads.
const CONNECTIONS_PER_SHORT: usize = 4;

/// The turns of one pool.
#[derive(Debug)]
pub(in crate::store) struct Turns {
    /// For reads of hot tables: while a hot table is locked, other tables can be read.
    hot: Semaphore,
    long: Arc<Semaphore>,
    /// The long reads of one caller.
    share: usize,
    callers: Mutex<foldhash::HashMap<Uuid, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct LongRead {
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Turns {
    pub(in crate::store) fn of(readers: u32) -> Self {
        let readers = readers as usize;
        let hot = readers.saturating_sub((readers / CONNECTIONS_PER_SHORT).max(1)).max(1);
        let long = (readers / 2).clamp(1, hot);
        Self {
            hot: Semaphore::new(hot),
            long: Arc::new(Semaphore::new(long)),
            share: (long / 2).max(1),
            callers: Mutex::default(),
        }
    }

    /// A turn of a read of a hot table. Never none, because the semaphore is never closed.
    pub(in crate::store) async fn hot(&self) -> Option<SemaphorePermit<'_>> {
        self.hot.acquire().await.ok()
    }

    /// A turn of a long read. Without authentication there is no limit per caller.
    pub(in crate::store) async fn long(&self, caller: Option<Uuid>) -> Option<LongRead> {
        let own = match caller {
            Some(caller) => Some(self.of_caller(caller).acquire_owned().await.ok()?),
            None => None,
        };
        let turn = Arc::clone(&self.long).acquire_owned().await.ok()?;
        Some(LongRead { _permits: (turn, own) })
    }

    fn of_caller(&self, caller: Uuid) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = callers.entry(caller).or_insert_with(|| Arc::new(Semaphore::new(self.share)));
        Arc::clone(turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_is_left_for_short_reads() {
        let sizes = |readers| {
            let turns = Turns::of(readers);
            (turns.hot.available_permits(), turns.long.available_permits(), turns.share)
        };
        assert_eq!(sizes(1), (1, 1, 1), "there is only one");
        assert_eq!(sizes(2), (1, 1, 1));
        assert_eq!(sizes(4), (3, 2, 1));
        assert_eq!(sizes(16), (12, 8, 4));
    }

    #[test]
    fn nothing_is_kept_of_callers_that_read_nothing() {
        let turns = Turns::of(4);
        let held = turns.of_caller(Uuid::new_v4());
        drop(turns.of_caller(Uuid::new_v4()));
        drop(held.clone());
        drop(turns.of_caller(Uuid::new_v4()));
        assert_eq!(turns.callers.lock().unwrap().len(), 2, "the one held, and the last");
    }
}
