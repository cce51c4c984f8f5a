//! The acknowledgement token that travels with a message's rows: the message's position in the window
//! of its issuer. The inbound loop and the replayer issue one per message; the writer returns it after
//! COMMIT. Invariant: a token that is dropped unsettled is reported as lost and never acknowledges
//! anything; the broker delivers the message again.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Must be settled; see [`Self::settle`].
#[derive(Debug)]
pub struct AckToken {
    sequence: u64,
    processing: bool,
    /// None once settled.
    lost: Option<Arc<UnboundedSender<LostToken>>>,
}

/// A token that was dropped unsettled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostToken {
    /// Its sequence number.
    pub sequence: u64,
    /// The actor panicked while it processed this message.
    pub caused_panic: bool,
}

/// Issues tokens.
#[derive(Clone, Debug)]
pub struct AckTokens(Arc<UnboundedSender<LostToken>>);

impl AckTokens {
    /// An issuer, and the channel on which its lost tokens are reported. Bounded by the issuer's
    /// window: each token is reported at most once.
    #[must_use]
    pub fn new() -> (Self, UnboundedReceiver<LostToken>) {
        let (sender, receiver) = unbounded_channel();
        (Self(Arc::new(sender)), receiver)
    }

    /// The token of the message with this sequence number.
    #[must_use]
    pub fn issue(&self, sequence: u64) -> AckToken {
        AckToken { sequence, processing: false, lost: Some(Arc::clone(&self.0)) }
    }
}

impl AckToken {
    /// A panic until [`Self::end_processing`] is attributed to this message.
    pub fn begin_processing(&mut self) {
        self.processing = true;
    }

    /// See [`Self::begin_processing`].
    pub fn end_processing(&mut self) {
        self.processing = false;
    }

    /// The message is committed: its sequence number may be acknowledged.
    #[must_use]
    pub fn settle(mut self) -> u64 {
        self.lost = None;
        self.sequence
    }
}

impl Drop for AckToken {
    fn drop(&mut self) {
        if let Some(lost) = self.lost.take() {
            let caused_panic = self.processing && std::thread::panicking();
            // The receiver is dropped only with the issuer, after which no PUBACK is sent.
            lost.send(LostToken { sequence: self.sequence, caused_panic }).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_token_is_not_lost() {
        let (ack_tokens, mut lost) = AckTokens::new();
        assert_eq!(ack_tokens.issue(7).settle(), 7);
        assert!(lost.try_recv().is_err());
    }

    #[test]
    fn a_dropped_token_is_reported() {
        let (ack_tokens, mut lost) = AckTokens::new();
        drop(ack_tokens.issue(7));
        assert_eq!(lost.try_recv(), Ok(LostToken { sequence: 7, caused_panic: false }));
    }

    #[test]
    fn a_panic_is_attributed_to_the_message_that_was_processed() {
        let (ack_tokens, mut lost) = AckTokens::new();
        let mut processed = ack_tokens.issue(1);
        let waiting = ack_tokens.issue(2);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _waiting = waiting;
            processed.begin_processing();
            panic!("a fault injected by the test");
        }));
        assert!(outcome.is_err());
        let mut reports = vec![lost.try_recv().unwrap(), lost.try_recv().unwrap()];
        reports.sort_by_key(|report| report.sequence);
        let expected = [(1, true), (2, false)]
            .map(|(sequence, caused_panic)| LostToken { sequence, caused_panic });
        assert_eq!(reports, expected);
    }
}
