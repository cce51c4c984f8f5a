//! When the connection that ingests is read next. Pure.
//!
//! Under a steady load every packet comes by itself, and a wake-up, a read and a write for each
//! costs ten times the work on it (measured: 9.7 µs a message against 1.0 µs gathered). So reads in
//! quick succession are gathered, those of a backlog too: each wake-up is also paid by the broker, in
//! the write that causes it. A lone message is read at once, and so is what comes faster than the
//! socket can hold it: whoever sends would wait for us.

use std::time::Duration;

use tokio::time::Instant;

/// So long a gathering takes; it is also what it adds to a message's latency at the most.
const GATHERING: Duration = Duration::from_millis(3);

/// Reads that follow each other within this are in quick succession.
const QUICK: Duration = Duration::from_millis(10);

/// A socket whose buffer has not grown yet holds twice as much (half of the 128 KiB that Linux gives it
/// at first, in `tcp_rmem`). It grows only while it is read quickly. "At once" is the next millisecond:
/// the timer has no shorter pause, and so the sender can fill it again meanwhile.
const MUCH_BYTES: usize = 32 << 10;

/// Remembers the last read.
#[derive(Debug, Default)]
pub(super) struct Gather {
    last_read: Option<Instant>,
    read_bytes: usize,
    next: Option<Instant>,
}

impl Gather {
    /// A read has brought so much, and there may be more.
    pub(super) const fn has_some(&mut self, bytes: usize) {
        self.read_bytes += bytes;
    }

    /// A read has brought so much, or nothing, and there is no more at present.
    pub(super) fn has_all(&mut self, bytes: usize, now: Instant) {
        let bytes = std::mem::take(&mut self.read_bytes) + bytes;
        if bytes == 0 {
            self.next = None;
            return;
        }
        let before = self.last_read.replace(now);
        let quick = before.is_some_and(|before| now - before < QUICK);
        let pause = if bytes < MUCH_BYTES { GATHERING } else { Duration::ZERO };
        self.next = quick.then(|| now + pause);
    }

    /// When to read next; none: as soon as there is something.
    pub(super) const fn next_reading(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_quick_succession_are_gathered() {
        let mut gather = Gather::default();
        let start = Instant::now();
        let mut read = |bytes, milliseconds| {
            gather.has_all(bytes, start + Duration::from_millis(milliseconds));
            gather.next_reading().map(|next| (next - start).as_millis())
        };
        assert_eq!(read(100, 0), None, "a lone message");
        assert_eq!(read(100, 1), Some(4));
        assert_eq!(read(100, 4), Some(7), "and so on under a steady load");
        assert_eq!(read(0, 7), None, "a silence");
        assert_eq!(read(100, 107), None, "after it");
        assert_eq!(read(100, 108), Some(111));
        gather.has_some(100);
        gather.has_all(0, start + Duration::from_millis(111));
        assert!(gather.next_reading().is_some(), "read in parts, the last of them empty");
    }

    #[test]
    fn who_sends_more_than_the_socket_holds_does_not_wait_for_us() {
        let mut gather = Gather::default();
        let start = Instant::now();
        gather.has_all(MUCH_BYTES, start);
        assert_eq!(gather.next_reading(), None, "it can be alone");
        gather.has_some(MUCH_BYTES - 1);
        gather.has_all(1, start);
        assert_eq!(gather.next_reading(), Some(start));
        gather.has_all(MUCH_BYTES - 1, start);
        assert_eq!(gather.next_reading(), Some(start + GATHERING), "what is left of it");
    }
}
