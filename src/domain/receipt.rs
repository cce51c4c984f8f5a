//! The receipt that travels with a message's rows. The inbound loop writes one per PUBLISH, the
//! writer hands it back after COMMIT, and only then is there a PUBACK.
//!
//! Invariant: a receipt that is dropped on the way (its actor died) is reported as lost; it is
//! never an acknowledgement. The broker then delivers the message again.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A message's place in the inbound window, with the duty to come back.
#[derive(Debug)]
pub struct Receipt {
    sequence: u64,
    in_hand: bool,
    book: Option<Arc<UnboundedSender<Lost>>>,
}

/// A receipt that was dropped instead of redeemed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The place in the window.
    pub sequence: u64,
    /// It was this message that was being handled when the actor panicked.
    pub culprit: bool,
}

/// Where receipts are written, and where lost ones are reported.
#[derive(Clone, Debug)]
pub struct ReceiptBook(Arc<UnboundedSender<Lost>>);

impl ReceiptBook {
    /// A book, and the channel on which its lost receipts are reported. The channel is bounded by
    /// the window: each place reports at most once.
    #[must_use]
    pub fn new() -> (Self, UnboundedReceiver<Lost>) {
        let (sender, receiver) = unbounded_channel();
        (Self(Arc::new(sender)), receiver)
    }

    /// The receipt for one place.
    #[must_use]
    pub fn write(&self, sequence: u64) -> Receipt {
        Receipt { sequence, in_hand: false, book: Some(Arc::clone(&self.0)) }
    }
}

impl Receipt {
    /// Marks the message as the one being handled, until [`Self::put_down`].
    pub fn take_in_hand(&mut self) {
        self.in_hand = true;
    }

    /// The handling went well.
    pub fn put_down(&mut self) {
        self.in_hand = false;
    }

    /// The end of the way: the place that may now be settled.
    #[must_use]
    pub fn redeem(mut self) -> u64 {
        self.book = None;
        self.sequence
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(book) = self.book.take() {
            let culprit = self.in_hand && std::thread::panicking();
            // Nobody listens only once the inbound loop has ended, and then no PUBACK can follow.
            book.send(Lost { sequence: self.sequence, culprit }).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redeemed_receipt_is_not_lost() {
        let (book, mut lost) = ReceiptBook::new();
        assert_eq!(book.write(7).redeem(), 7);
        assert!(lost.try_recv().is_err());
    }

    #[test]
    fn a_dropped_receipt_is_reported() {
        let (book, mut lost) = ReceiptBook::new();
        drop(book.write(7));
        assert_eq!(lost.try_recv(), Ok(Lost { sequence: 7, culprit: false }));
    }

    #[test]
    fn a_panic_names_its_culprit_and_not_those_behind_it() {
        let (book, mut lost) = ReceiptBook::new();
        let mut handled = book.write(1);
        let waiting = book.write(2);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _waiting = waiting;
            handled.take_in_hand();
            panic!("a fault handed in by the test");
        }));
        assert!(outcome.is_err());
        let mut reports = vec![lost.try_recv().unwrap(), lost.try_recv().unwrap()];
        reports.sort_by_key(|report| report.sequence);
        assert_eq!(
            reports,
            [Lost { sequence: 1, culprit: true }, Lost { sequence: 2, culprit: false }]
        );
    }
}
