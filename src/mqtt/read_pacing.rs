//! Decides when the inbound connection is read next. Asked by `stream` after each read; pure. Under
//! steady load a wake-up per packet costs 9.7 µs a message here, reads every 3 ms 1.0 µs (measured), so
//! reads in quick succession are delayed; single messages and full sockets are read at once.

use std::time::Duration;

use tokio::time::Instant;

/// The delay, which is also the latency that it adds at most.
const DELAY: Duration = Duration::from_millis(3);

/// Reads within this time are in quick succession.
const QUICK: Duration = Duration::from_millis(10);

/// A read of this size is followed by the next without delay (that is, within 1 ms, the timer's
/// resolution). Half of what a socket's initial buffer takes (64 of 128 KiB, Linux' `tcp_rmem`), which
/// grows only while it is read quickly.
const LARGE_READ_BYTES: usize = 32 << 10;

/// The state of one connection.
#[derive(Debug, Default)]
pub(super) struct ReadPacer {
    last_read: Option<Instant>,
    read_bytes: usize,
    next: Option<Instant>,
}

impl ReadPacer {
    /// Read this much; there may be more.
    pub(super) const fn partial_read(&mut self, bytes: usize) {
        self.read_bytes += bytes;
    }

    /// Read this much, perhaps nothing; the socket is empty.
    pub(super) fn complete_read(&mut self, bytes: usize, now: Instant) {
        let bytes = std::mem::take(&mut self.read_bytes) + bytes;
        if bytes == 0 {
            self.next = None;
            return;
        }
        let before = self.last_read.replace(now);
        let quick = before.is_some_and(|before| now - before < QUICK);
        let pause = if bytes < LARGE_READ_BYTES { DELAY } else { Duration::ZERO };
        self.next = quick.then(|| now + pause);
    }

    /// None: when the socket is readable.
    pub(super) const fn next_read_at(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_quick_succession_are_delayed() {
        let mut pacer = ReadPacer::default();
        let start = Instant::now();
        let mut read = |bytes, milliseconds| {
            pacer.complete_read(bytes, start + Duration::from_millis(milliseconds));
            pacer.next_read_at().map(|next| (next - start).as_millis())
        };
        assert_eq!(read(100, 0), None, "a single message");
        assert_eq!(read(100, 1), Some(4));
        assert_eq!(read(100, 4), Some(7), "under steady load");
        assert_eq!(read(0, 7), None, "silence");
        assert_eq!(read(100, 107), None, "after silence");
        assert_eq!(read(100, 108), Some(111));
        pacer.partial_read(100);
        pacer.complete_read(0, start + Duration::from_millis(111));
        assert!(pacer.next_read_at().is_some(), "read in parts, the last of them empty");
    }

    #[test]
    fn large_reads_are_not_delayed() {
        let mut pacer = ReadPacer::default();
        let start = Instant::now();
        pacer.complete_read(LARGE_READ_BYTES, start);
        assert_eq!(pacer.next_read_at(), None, "the first read");
        pacer.partial_read(LARGE_READ_BYTES - 1);
        pacer.complete_read(1, start);
        assert_eq!(pacer.next_read_at(), Some(start));
        pacer.complete_read(LARGE_READ_BYTES - 1, start);
        assert_eq!(pacer.next_read_at(), Some(start + DELAY), "a small read again");
    }
}
