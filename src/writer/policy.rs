//! When to start a write. Pure.

/// A second COPY beside the first pays only when much is waiting: measured, with one measurement a
/// message one writer with batches of 35,000 rows beat two with 4,500 (259k rows/s against 206k),
/// and with 100 a message two with 20,000 to 50,000 beat one (585k against 353k).
const ANOTHER_WRITER_ITEMS: usize = 20_000;

/// A batch holds no more bytes of messages than this, so that one transaction stays a matter of
/// well under a second.
pub(super) const BATCH_BYTES: usize = 32 << 20;

/// Whether to start a write now. An idle service commits a lone message at once; a busy one lets
/// messages gather while it writes.
pub(super) const fn starts(waiting_items: usize, writing: u32, connections: u32) -> bool {
    match writing {
        0 => waiting_items > 0,
        _ => writing < connections && waiting_items >= ANOTHER_WRITER_ITEMS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_message_starts_at_once_and_a_second_writer_only_under_load() {
        assert!(!starts(0, 0, 2));
        assert!(starts(1, 0, 2));
        assert!(!starts(ANOTHER_WRITER_ITEMS - 1, 1, 2));
        assert!(starts(ANOTHER_WRITER_ITEMS, 1, 2));
        assert!(!starts(usize::MAX, 2, 2));
    }
}
