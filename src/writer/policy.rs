//! When to start a write, and of what. Pure.
//!
//! Replays give way: what the broker delivers never waits for more than one batch of them, and
//! they never for more than one of its batches.

use std::time::Duration;

/// A second COPY beside the first pays only when much is waiting: measured, with one measurement a
/// message one writer with batches of 35,000 rows beat two with 4,500 (259k rows/s against 206k),
/// and with 100 a message two with 20,000 to 50,000 beat one (585k against 353k).
const ANOTHER_WRITER_ITEMS: usize = 20_000;

/// A batch holds no more bytes of messages than this, so that one transaction stays a matter of
/// well under a second.
pub(super) const BATCH_BYTES: usize = 32 << 20;

/// A batch of replayed messages holds no more items than this: some tens of milliseconds, for which
/// a delivered message may have to wait.
pub(super) const REPLAY_ITEMS: usize = 2_000;

/// Under a steady load half of the time is writing and half is gathering, so that batches are twice
/// as large and their number half; beyond this a rest saves nothing more and only adds latency.
const LONGEST_REST: Duration = Duration::from_millis(20);

/// What waits, and what is being written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Items that the broker delivered.
    pub(super) waiting_items: usize,
    /// Messages that are replayed.
    pub(super) replays_wait: bool,
    /// Batches under way, a replay's included.
    pub(super) writing: u32,
    /// A replay's batch is under way; never more than one.
    pub(super) replaying: bool,
    /// The batch that was started last was a replay's.
    pub(super) replayed_last: bool,
    /// Batches that can be under way.
    pub(super) connections: u32,
    /// What the broker delivers is gathering.
    pub(super) rests: bool,
}

/// Whose batch is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Delivered,
    Replayed,
}

/// Whether to start a write now. An idle service commits a lone message at once; a busy one lets
/// messages gather while it writes, and while it rests.
pub(super) const fn next(load: Load) -> Option<Next> {
    if load.writing >= load.connections {
        return None;
    }
    let idle = load.writing == load.replaying as u32 && !load.rests;
    let delivered = load.waiting_items >= if idle { 1 } else { ANOTHER_WRITER_ITEMS };
    let replayed = load.replays_wait && !load.replaying;
    match (delivered, replayed) {
        (true, true) if load.replayed_last => Some(Next::Delivered),
        (_, true) => Some(Next::Replayed),
        (true, false) => Some(Next::Delivered),
        (false, false) => None,
    }
}

/// How long to rest after a write that took so long.
pub(super) fn rest(took: Duration) -> Duration {
    took.min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load {
        waiting_items: 0,
        replays_wait: false,
        writing: 0,
        replaying: false,
        replayed_last: false,
        connections: 2,
        rests: false,
    };

    #[test]
    fn a_lone_message_starts_at_once_and_a_second_writer_only_under_load() {
        let next = |waiting_items, writing| next(Load { waiting_items, writing, ..IDLE });
        assert_eq!(next(0, 0), None);
        assert_eq!(next(1, 0), Some(Next::Delivered));
        assert_eq!(next(ANOTHER_WRITER_ITEMS - 1, 1), None);
        assert_eq!(next(ANOTHER_WRITER_ITEMS, 1), Some(Next::Delivered));
        assert_eq!(next(usize::MAX, 2), None);
    }

    #[test]
    fn a_rest_lets_messages_gather_until_there_are_enough() {
        let next = |waiting_items| next(Load { waiting_items, rests: true, ..IDLE });
        assert_eq!(next(1), None);
        assert_eq!(next(ANOTHER_WRITER_ITEMS), Some(Next::Delivered));
        assert_eq!(rest(Duration::from_millis(2)), Duration::from_millis(2));
        assert_eq!(rest(Duration::from_secs(2)), LONGEST_REST);
    }

    #[test]
    fn replays_and_deliveries_take_turns() {
        let both = Load { waiting_items: 1, replays_wait: true, ..IDLE };
        assert_eq!(next(both), Some(Next::Replayed));
        assert_eq!(next(Load { replayed_last: true, ..both }), Some(Next::Delivered));
        let replaying = Load { writing: 1, replaying: true, replayed_last: true, ..both };
        assert_eq!(next(replaying), Some(Next::Delivered), "beside a replay, at once");
        assert_eq!(next(Load { waiting_items: 0, ..replaying }), None, "one replay at a time");
        assert_eq!(next(Load { connections: 1, ..replaying }), None);
        let alone = Load { waiting_items: 0, replayed_last: true, ..both };
        assert_eq!(next(alone), Some(Next::Replayed));
    }
}
