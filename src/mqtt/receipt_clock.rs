//! Gives the items of messages that nothing delivers again different times of receipt: of two equal readings without
//! timestamps at one time, only one would be stored. Called by `intake` for each message; pure. All messages of one read
//! of the socket have one time, and each item of an array gets another microsecond.

use std::time::Duration;

use crate::domain::Timestamp;

/// How far times may run ahead of the clock. A clock that was set back by more than this is followed.
const MAX_AHEAD: Duration = Duration::from_secs(1);

/// Times that are reserved.
#[derive(Debug, Default)]
pub(super) struct ReceiptClock {
    /// The first that is not.
    next: Timestamp,
}

impl ReceiptClock {
    /// When a message was received, of which the clock says `now`.
    pub(super) fn received_at(&self, now: Timestamp) -> Timestamp {
        let is_ahead = now < self.next && self.next <= now.saturating_add(MAX_AHEAD);
        if is_ahead { self.next } else { now }
    }

    /// Reserves a time of its own for each item of a message.
    pub(super) fn reserve(&mut self, received_at: Timestamp, item_count: u32) {
        self.next = received_at.plus_microseconds(item_count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_reserved_twice() {
        let at = |microseconds: i64| Timestamp::from_unix_microseconds(5_000_000 + microseconds);
        let mut clock = ReceiptClock::default();
        for (now, item_count, expected) in [
            (0, 3, 0),
            (0, 1, 3),
            (0, 0, 4),
            (2, 1, 4),
            (9, 1, 9),
            (9 - 999_999, 1, 10),
            // It was set back.
            (-2_000_000, 1, -2_000_000),
        ] {
            let received_at = clock.received_at(at(now));
            assert_eq!(received_at, at(expected), "{now}");
            clock.reserve(received_at, item_count);
        }
    }
}
