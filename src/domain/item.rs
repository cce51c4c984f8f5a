//! The items that a message carries: measurements, log messages, heartbeats. Decoded by `wire`, stored
//! by `store`. Values stay in the payload as they were sent; an item holds their byte range.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::{ByteRange, Timestamp};

/// The kind of item that a topic carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `measurements/<sensor-identifier>`
    Measurement,
    /// `log-messages/<sensor-identifier>`, `logs/<sensor-identifier>`
    LogMessage,
    /// `heartbeats/<sensor-identifier>`, `acknowledgments/<sensor-identifier>`
    Heartbeat,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Measurement, Self::LogMessage, Self::Heartbeat];

    /// The name in the `rejection` table, and of the kind's own table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Measurement => "measurement",
            Self::LogMessage => "log_message",
            Self::Heartbeat => "heartbeat",
        }
    }

    /// The topic level before the sensor identifier.
    pub const fn topic_level(self) -> &'static str {
        match self {
            Self::Measurement => "measurements",
            Self::LogMessage => "log-messages",
            Self::Heartbeat => "heartbeats",
        }
    }

    /// The name of the payload's array.
    pub const fn envelope_member(self) -> &'static str {
        match self {
            Self::Measurement => "measurements",
            Self::LogMessage => "log_messages",
            Self::Heartbeat => "heartbeats",
        }
    }
}

/// What the items of each kind have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ItemHead {
    /// When the sensor took, wrote or sent it.
    pub timestamp: Timestamp,
    /// The sensor named no time, so that the timestamp is that of its receipt.
    pub timed_at_receipt: bool,
    /// See [`content_digest`].
    pub digest: u64,
    /// The configuration under which it was taken or written, or which a heartbeat acknowledges; none: under none
    /// from the server.
    pub revision: Option<i32>,
}

/// A measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measurement {
    /// Time, digest and revision.
    pub head: ItemHead,
    /// The text of a JSON object, in the payload.
    pub value: ByteRange,
}

/// The severity of a log message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names of the protocol")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

impl Severity {
    /// Every severity, the lowest first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Error];

    /// The name in the payload and the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// The reverse of [`Self::name`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.name() == name)
    }
}

/// A log message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogMessage {
    /// Time, digest and revision.
    pub head: ItemHead,
    /// Severity.
    pub severity: Severity,
    /// Not empty.
    pub subject: Box<str>,
    /// None if missing or null.
    pub details: Option<Box<str>>,
}

/// A heartbeat: the sensor has applied a revision, or failed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Time, digest and revision.
    pub head: ItemHead,
    /// Whether the sensor could apply it.
    pub success: bool,
}

/// The items of a message that can be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Items {
    /// The whole message is rejected.
    Nothing,
    /// This many items, which another transaction has stored or rejected.
    AlreadyHandled(u32),
    /// Usually one.
    Measurements(SmallVec<[Measurement; 1]>),
    /// From `log-messages/…`
    LogMessages(Vec<LogMessage>),
    /// Usually one.
    Heartbeats(SmallVec<[Heartbeat; 1]>),
}

impl Items {
    /// The kind of those that are to be stored.
    pub const fn kind(&self) -> Option<Kind> {
        match self {
            Self::Nothing | Self::AlreadyHandled(_) => None,
            Self::Measurements(_) => Some(Kind::Measurement),
            Self::LogMessages(_) => Some(Kind::LogMessage),
            Self::Heartbeats(_) => Some(Kind::Heartbeat),
        }
    }

    /// The number of items to store.
    pub fn len(&self) -> usize {
        match self {
            Self::Nothing | Self::AlreadyHandled(_) => 0,
            Self::Measurements(items) => items.len(),
            Self::LogMessages(items) => items.len(),
            Self::Heartbeats(items) => items.len(),
        }
    }

    /// Whether there are no items to store.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Time, digest and revision of an item.
    pub fn head(&self, index: usize) -> &ItemHead {
        match self {
            Self::Nothing | Self::AlreadyHandled(_) => unreachable!("there is no item"),
            Self::Measurements(items) => &items[index].head,
            Self::LogMessages(items) => &items[index].head,
            Self::Heartbeats(items) => &items[index].head,
        }
    }

    /// Timestamp and digest of an item: with the sensor, the key of its row.
    pub fn identity(&self, index: usize) -> (Timestamp, u64) {
        let head = self.head(index);
        (head.timestamp, head.digest)
    }

    fn heads(&self) -> impl Iterator<Item = &ItemHead> {
        (0..self.len()).map(|index| self.head(index))
    }

    /// The highest revision of the items, none if they have none; none if there is no item.
    pub fn newest_revision(&self) -> Option<Option<i32>> {
        self.heads().map(|head| head.revision).max()
    }

    /// How many of them are of a later time than this.
    pub fn count_later_than(&self, time: Timestamp) -> u64 {
        self.heads().filter(|head| head.timestamp > time).count() as u64
    }

    /// Whether the timestamps of some are those of their receipt.
    pub fn has_timed_at_receipt(&self) -> bool {
        self.heads().any(|head| head.timed_at_receipt)
    }

    pub(super) fn remove(&mut self, index: usize) {
        match self {
            Self::Nothing | Self::AlreadyHandled(_) => unreachable!("there is no item"),
            Self::Measurements(items) => drop(items.remove(index)),
            Self::LogMessages(items) => drop(items.remove(index)),
            Self::Heartbeats(items) => drop(items.remove(index)),
        }
    }
}

/// A 64-bit hash of an item's revision and content. Items of a sensor with the same timestamp and digest
/// are duplicates. It need not resist an attacker: a collision only costs a sensor its own item. No
/// revision and -1, which the wire also takes for none, are the same.
pub fn content_digest(revision: Option<i32>, parts: &[&[u8]]) -> u64 {
    let seed = u64::from(revision.unwrap_or(-1).cast_unsigned());
    if let [only] = parts {
        return xxh3_64_with_seed(only, seed);
    }
    let mut hasher = Xxh3::with_seed(seed);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_covers_revision_and_content() {
        let digest = content_digest(Some(1), &[b"{}"]);
        assert_eq!(digest, content_digest(Some(1), &[b"{}"]));
        assert_ne!(digest, content_digest(Some(2), &[b"{}"]));
        assert_ne!(digest, content_digest(Some(1), &[b"{ }"]));
        assert_ne!(
            content_digest(Some(1), &[b"ab", b"c"]),
            content_digest(Some(1), &[b"a", b"bc"])
        );
    }

    /// The digest is stored: another value would let every redelivery across an upgrade in twice.
    #[test]
    fn the_digest_never_changes() {
        assert_eq!(content_digest(Some(7), &[br#"{"a":1}"#]), 14_587_224_313_483_460_325);
        assert_eq!(
            content_digest(Some(7), &[b"info", b"subject", b""]),
            13_414_784_019_099_489_574
        );
        assert_eq!(content_digest(None, &[br#"{"a":1}"#]), 1_240_481_513_917_584_161);
    }
}
