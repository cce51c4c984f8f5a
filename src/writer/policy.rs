//! When the writer starts a batch, and whether of new or of replayed messages. Called by the actor
//! whenever messages arrive or a delivery ends; pure. New and replayed messages wait for at most one
//! batch of the other.

use std::time::Duration;

/// Items that must wait before a second COPY starts beside the first. Measured: with one measurement a
/// message, one writer with batches of 35,000 rows beat two with 4,500 (259,000 rows/s against 206,000);
/// with 100 a message, two with 20,000 to 50,000 beat one (585,000 against 353,000).
const ANOTHER_WRITER_ITEMS: usize = 20_000;

/// Maximum size of a batch: keeps a transaction well under a second.
pub(super) const BATCH_BYTES: usize = 32 << 20;

/// Maximum items in a batch of replayed messages. It takes some tens of milliseconds, which a new
/// message may have to wait.
pub(super) const REPLAY_ITEMS: usize = 2_000;

/// Maximum pause after a batch. A pause as long as the write doubles the size of batches under steady
/// load; over 20 ms it saves nothing more and only adds latency.
const MAX_REST: Duration = Duration::from_millis(20);

/// A batch of at most this many messages is followed by the next one at once.
const FEW_MESSAGES: usize = 4;

/// The messages that wait, and the running deliveries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Items of new messages.
    pub(super) waiting_items: usize,
    /// Whether replayed messages wait.
    pub(super) replays_wait: bool,
    /// Running deliveries, including one of a replay.
    pub(super) writing: u32,
    /// Whether a delivery of a replay is running; at most one.
    pub(super) replaying: bool,
    /// Whether the last batch that was started was one of a replay.
    pub(super) replayed_last: bool,
    /// Maximum number of deliveries.
    pub(super) connections: u32,
    /// Whether the writer pauses after a batch of new messages.
    pub(super) resting: bool,
}

/// The next batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Delivered,
    Replayed,
}

/// The batch to start now, if any. An idle writer commits a single message at once; a busy one collects
/// while it writes and rests.
pub(super) const fn next(load: Load) -> Option<Next> {
    if load.writing >= load.connections {
        return None;
    }
    let idle = load.writing == load.replaying as u32 && !load.resting;
    let delivered = load.waiting_items >= if idle { 1 } else { ANOTHER_WRITER_ITEMS };
    let replayed = load.replays_wait && !load.replaying;
    match (delivered, replayed) {
        (true, true) if load.replayed_last => Some(Next::Delivered),
        (_, true) => Some(Next::Replayed),
        (true, false) => Some(Next::Delivered),
        (false, false) => None,
    }
}

/// The pause after a delivery. After a few messages there is none: where the broker keeps only a few in
/// flight (a small Receive Maximum, or ejabberd with one), the next ones come once these are acknowledged.
pub(super) fn rest(took: Duration, messages: usize) -> Duration {
    if messages <= FEW_MESSAGES { Duration::ZERO } else { took.min(MAX_REST) }
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
        resting: false,
    };

    #[test]
    fn after_a_few_messages_there_is_no_rest() {
        let took = Duration::from_millis(30);
        assert_eq!(rest(took, 1), Duration::ZERO);
        assert_eq!(rest(took, FEW_MESSAGES + 1), MAX_REST);
        assert_eq!(rest(Duration::from_millis(3), 100), Duration::from_millis(3));
    }

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
    fn messages_collect_during_a_rest_until_there_are_enough() {
        let next = |waiting_items| next(Load { waiting_items, resting: true, ..IDLE });
        assert_eq!(next(1), None);
        assert_eq!(next(ANOTHER_WRITER_ITEMS), Some(Next::Delivered));
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
