//! The messages of a replayed page that are in flight, by the sequence number of their token. Used by
//! the replayer; pure. Sequence numbers are never reused.

use crate::domain::Kind;

/// A replayed message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ReplayedMessage {
    /// The identifier of its row of `rejection`.
    pub(super) rejection: i64,
    /// The kind under which the ledger counts it.
    pub(super) kind: Option<Kind>,
    /// The number of items that the ledger counts.
    pub(super) items: u32,
}

/// At most one page.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// The sequence number of `page[0]`.
    first: u64,
    page: Vec<Option<ReplayedMessage>>,
    count: usize,
}

impl InFlight {
    pub(super) fn next_sequence(&self) -> u64 {
        self.first + self.page.len() as u64
    }

    pub(super) fn admit(&mut self, message: ReplayedMessage) {
        self.page.push(Some(message));
        self.count += 1;
    }

    /// None if it was removed before.
    pub(super) fn remove(&mut self, sequence: u64) -> Option<ReplayedMessage> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let message = self.page.get_mut(index)?.take()?;
        self.count -= 1;
        if self.count == 0 {
            self.first = self.next_sequence();
            self.page.clear();
        }
        Some(message)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_removed_once_and_no_sequence_number_is_reused() {
        let mut in_flight = InFlight::default();
        let message = |items| ReplayedMessage { rejection: 0, kind: None, items };
        for page in 0..2 {
            let first = in_flight.next_sequence();
            assert_eq!(first, 2 * page);
            in_flight.admit(message(1));
            in_flight.admit(message(2));
            assert_eq!(in_flight.remove(first + 1), Some(message(2)));
            assert_eq!(in_flight.remove(first + 1), None);
            assert!(!in_flight.is_empty());
            assert_eq!(in_flight.remove(first), Some(message(1)));
            assert!(in_flight.is_empty());
            assert_eq!(in_flight.remove(first), None, "of an earlier page");
        }
        assert_eq!(in_flight.remove(9), None);
    }
}
