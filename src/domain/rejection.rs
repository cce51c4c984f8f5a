//! What was not stored, and why; some of it can be replayed later. Made by `wire` and the writer, stored by `store`.
//! A rejection is committed in the same transaction as the rows beside it, before its message is acknowledged.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::{Kind, SensorIdentifier, Timestamp};

/// A rejected message, or a rejected item of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// When the message was received.
    pub received_at: Timestamp,
    /// The message's topic.
    pub topic: String,
    /// None if the topic names no sensor.
    pub sensor: Option<SensorIdentifier>,
    /// None if the topic names no kind.
    pub kind: Option<Kind>,
    /// Index in the payload's array, from 0; none if the whole message is rejected.
    pub item_index: Option<u32>,
    /// The number of rejected items: 1, or all items of a well-formed message.
    pub item_count: u32,
    /// Why it was rejected.
    pub reason: Reason,
    /// A sentence: what is wrong, and where.
    pub detail: String,
    /// The item as sent, or the payload.
    pub raw: Bytes,
    /// See [`RawMessage`](super::RawMessage).
    pub delivered_once: bool,
    /// False if over the limit per sensor and hour: then it is only counted.
    pub kept: bool,
    /// Identifies the message, so that a redelivery adds no row.
    pub digest: RejectionDigest,
}

/// A 128-bit hash of topic and payload, and of the time of receipt where that is part of the items.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RejectionDigest(pub u128);

impl RejectionDigest {
    /// Hashes a message in memory.
    pub fn of(topic: &str, payload: &[u8]) -> Self {
        let mut hasher = Self::begin(topic);
        hasher.update(payload);
        Self(hasher.digest128())
    }

    /// Hashes a message that nothing delivers again, and the time of its receipt.
    pub fn of_received_at(topic: &str, payload: &[u8], received_at: Timestamp) -> Self {
        let mut hasher = Self::begin(topic);
        hasher.update(payload);
        hasher.update(&received_at.unix_microseconds().to_le_bytes());
        Self(hasher.digest128())
    }

    /// A hasher that has consumed the topic, for a payload that is not kept in memory.
    pub fn begin(topic: &str) -> Xxh3 {
        let mut hasher = Xxh3::new();
        hasher.update(&(topic.len() as u64).to_le_bytes());
        hasher.update(topic.as_bytes());
        hasher
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $code:literal,)+) => {
        /// Why something was rejected. The codes are stable: scripts match them in the `rejection`
        /// table, the API and the metrics.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason { $($(#[$doc])+ $variant,)+ }

        impl Reason {
            /// Every reason, in the order of this list.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code in the table.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }
        }
    };
}

reasons! {
    /// The topic is not one that sensors publish on.
    UnknownTopic = "unknown_topic",
    /// The topic's last level is not a UUID.
    InvalidIdentifier = "invalid_identifier",
    /// The sensor does not exist. Can be replayed once it does.
    UnknownSensor = "unknown_sensor",
    /// The payload is larger than `MAX_PAYLOAD_BYTES`; its first bytes are kept.
    PayloadTooLarge = "payload_too_large",
    /// The payload is not UTF-8.
    NotUtf8 = "not_utf8",
    /// The payload is not JSON (RFC 8259).
    NotJson = "not_json",
    /// The payload is JSON, but not an object with the array that the topic requires.
    InvalidShape = "invalid_shape",
    /// The array is empty.
    NoItems = "no_items",
    /// The array has more than `MAX_ITEMS_PER_MESSAGE` items.
    TooManyItems = "too_many_items",
    /// A number in the item is NaN or infinite, which JSON does not have.
    NotANumber = "not_a_number",
    /// The item is not an object, not JSON, or has a member twice.
    InvalidItem = "invalid_item",
    /// `revision` is neither an integer from 0 to 2147483647, nor null or -1 for none.
    InvalidRevision = "invalid_revision",
    /// `timestamp` is missing or not a number of Unix seconds from 0 to 253402207200.
    InvalidTimestamp = "invalid_timestamp",
    /// `value` is missing or not an object.
    InvalidValue = "invalid_value",
    /// A member of `value` is an object or an array.
    NestedValue = "nested_value",
    /// A key of `value` is empty or longer than 64 characters.
    InvalidKey = "invalid_key",
    /// A key of `value` occurs twice.
    DuplicateKey = "duplicate_key",
    /// A string contains U+0000, which PostgreSQL cannot store.
    NulCharacter = "nul_character",
    /// A string contains a lone surrogate.
    InvalidText = "invalid_text",
    /// A number is out of the range of `numeric`, and so of `jsonb`.
    InvalidNumber = "invalid_number",
    /// `severity` is missing or not one of info, warning, error.
    InvalidSeverity = "invalid_severity",
    /// `subject`, or `message` in its place, is missing, empty or not a string.
    InvalidSubject = "invalid_subject",
    /// `details` is neither a string nor null.
    InvalidDetails = "invalid_details",
    /// `success` is missing or not a boolean.
    InvalidSuccess = "invalid_success",
    /// PostgreSQL refused the row although it had passed validation.
    RefusedByDatabase = "refused_by_database",
    /// The message made its sensor's actor panic twice.
    ActorFailed = "actor_failed",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_tells_topic_from_payload() {
        assert_eq!(RejectionDigest::of("a", b"b"), RejectionDigest::of("a", b"b"));
        assert_ne!(RejectionDigest::of("a", b"bc"), RejectionDigest::of("ab", b"c"));
        let received_at =
            |at| RejectionDigest::of_received_at("a", b"b", Timestamp::from_unix_microseconds(at));
        assert_ne!(received_at(1), received_at(2));
    }

    #[test]
    fn codes_are_unique() {
        let codes: std::collections::HashSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
    }
}
