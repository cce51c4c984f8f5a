//! When to start a write. Pure.

use std::time::Duration;

/// A second COPY beside the first pays only when much is waiting: measured, with one measurement a
/// message one writer with batches of 35,000 rows beat two with 4,500 (259k rows/s against 206k),
/// and with 100 a message two with 20,000 to 50,000 beat one (585k against 353k).
const ANOTHER_WRITER_ITEMS: usize = 20_000;

/// A batch holds no more bytes of messages than this, so that one transaction stays a matter of
/// well under a second.
pub(super) const BATCH_BYTES: usize = 32 << 20;

/// Under a steady load half of the time is writing and half is gathering, so that batches are twice
/// as large and their number half; beyond this a rest saves nothing more and only adds latency.
const LONGEST_REST: Duration = Duration::from_millis(20);

/// Whether to start a write now, with so many of the connections writing. An idle service commits a
/// lone message at once; a busy one lets messages gather while it writes, and while it rests.
pub(super) fn starts(
    waiting_items: usize,
    (writing, connections): (u32, u32),
    rests: bool,
) -> bool {
    if writing == 0 && !rests {
        waiting_items > 0
    } else {
        writing < connections && waiting_items >= ANOTHER_WRITER_ITEMS
    }
}

/// How long to rest after a write that took so long.
pub(super) fn rest(took: Duration) -> Duration {
    took.min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_message_starts_at_once_and_a_second_writer_only_under_load() {
        assert!(!starts(0, (0, 2), false));
        assert!(starts(1, (0, 2), false));
        assert!(!starts(ANOTHER_WRITER_ITEMS - 1, (1, 2), false));
        assert!(starts(ANOTHER_WRITER_ITEMS, (1, 2), false));
        assert!(!starts(usize::MAX, (2, 2), false));
    }

    #[test]
    fn a_rest_lets_messages_gather_until_there_are_enough() {
        assert!(!starts(1, (0, 2), true));
        assert!(starts(ANOTHER_WRITER_ITEMS, (0, 2), true));
        assert_eq!(rest(Duration::from_millis(2)), Duration::from_millis(2));
        assert_eq!(rest(Duration::from_secs(2)), LONGEST_REST);
    }
}
