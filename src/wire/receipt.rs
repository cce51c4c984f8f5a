//! What becomes of an item without `timestamp`. Asked by both passes. It gets the time of its receipt only if
//! nothing can deliver it again: then no redelivery can store it a second time, at another time.
//!
//! A redelivered PUBLISH has DUP and its former Packet Identifier [MQTT-4.4.0-1], but so may a new one with an equal
//! payload: the broker may reuse the identifier as soon as it has our PUBACK [MQTT-2.2.1-4], and we do not learn
//! whether it has. A key made of the content would store two equal readings once.

use crate::domain::{RawMessage, Timestamp};

/// `TIMESTAMP_MISSING`: what to do with an item whose `timestamp` is missing or null.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimestampMissing {
    /// Refuse it.
    #[default]
    Reject,
    /// Store it at the time of receipt, unless it may be delivered again.
    Receipt,
}

/// What becomes of an item without a timestamp.
#[derive(Clone, Copy, Debug)]
pub(super) enum MissingTimestamp {
    /// When it was received; each item of an array a microsecond after the one before.
    UseReceipt(Timestamp),
    /// Why it is refused. Follows "timestamp is missing".
    Refuse(&'static str),
}

impl MissingTimestamp {
    pub(super) const fn of(message: &RawMessage, setting: TimestampMissing) -> Self {
        match setting {
            TimestampMissing::Reject => Self::Refuse(""),
            TimestampMissing::Receipt if message.retained => Self::Refuse(
                "; the time of receipt does not take its place, because a retained message comes again with \
                 each new session",
            ),
            TimestampMissing::Receipt if !message.delivered_once => Self::Refuse(
                "; the time of receipt takes its place only at QoS 0, because a message of QoS 1 may be \
                 delivered twice",
            ),
            TimestampMissing::Receipt => Self::UseReceipt(message.time_of_item(0)),
        }
    }

    pub(super) const fn of_item(self, index: u32) -> Self {
        match self {
            Self::UseReceipt(first) => Self::UseReceipt(first.plus_microseconds(index)),
            refuse @ Self::Refuse(_) => refuse,
        }
    }
}
