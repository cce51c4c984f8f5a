//! Limits the reads that may take long. Used by the API's handlers before a long read, by every read of a hot table,
//! and by exports. Neither can occupy all connections of the readers' pool, one caller cannot occupy all
//! turns, and callers without a read are not kept in memory.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use uuid::Uuid;

/// One of this many connections serves only short reads.
const CONNECTIONS_PER_SHORT: u32 = 4;

/// The turns of one pool.
#[derive(Debug)]
pub(in crate::store) struct Turns {
    /// For reads of hot tables: while a hot table is locked, other tables can be read.
    hot: Semaphore,
    long: Arc<Semaphore>,
    callers: CallerTurns,
}

/// The turns of each caller. Nothing is kept of callers without one.
#[derive(Debug)]
pub(in crate::store) struct CallerTurns {
    /// The turns of one caller.
    pub(in crate::store) share: u32,
    callers: Mutex<foldhash::HashMap<Uuid, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct LongRead {
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Turns {
    pub(in crate::store) fn of(readers: u32) -> Self {
        let hot = readers.saturating_sub((readers / CONNECTIONS_PER_SHORT).max(1)).max(1);
        let long = (readers / 2).clamp(1, hot);
        Self {
            hot: Semaphore::new(hot as usize),
            long: Arc::new(Semaphore::new(long as usize)),
            callers: CallerTurns::new((long / 2).max(1)),
        }
    }

    /// A turn of a read of a hot table. Never none, because the semaphore is never closed.
    pub(in crate::store) async fn hot(&self) -> Option<SemaphorePermit<'_>> {
        self.hot.acquire().await.ok()
    }

    /// A turn of a long read. Without authentication there is no limit per caller.
    pub(in crate::store) async fn long(&self, caller: Option<Uuid>) -> Option<LongRead> {
        let own = match caller {
            Some(caller) => Some(self.callers.of(caller).acquire_owned().await.ok()?),
            None => None,
        };
        let turn = Arc::clone(&self.long).acquire_owned().await.ok()?;
        Some(LongRead { _permits: (turn, own) })
    }
}

impl CallerTurns {
    pub(in crate::store) fn new(share: u32) -> Self {
        Self { share, callers: Mutex::default() }
    }

    pub(super) fn of(&self, caller: Uuid) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.retain(|_, turns| Arc::strong_count(turns) > 1);
        let new = || Arc::new(Semaphore::new(self.share as usize));
        Arc::clone(callers.entry(caller).or_insert_with(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_is_left_for_short_reads() {
        let sizes = |readers| {
            let turns = Turns::of(readers);
            (turns.hot.available_permits(), turns.long.available_permits(), turns.callers.share)
        };
        assert_eq!(sizes(1), (1, 1, 1), "there is only one");
        assert_eq!(sizes(2), (1, 1, 1));
        assert_eq!(sizes(4), (3, 2, 1));
        assert_eq!(sizes(16), (12, 8, 4));
    }

    #[test]
    fn callers_without_reads_are_forgotten() {
        let turns = CallerTurns::new(1);
        let held = turns.of(Uuid::new_v4()).try_acquire_owned();
        assert!(held.is_ok());
        drop(turns.of(Uuid::new_v4()));
        drop(turns.of(Uuid::new_v4()));
        assert_eq!(turns.callers.lock().unwrap().len(), 2, "the one held, and the last");
    }
}
