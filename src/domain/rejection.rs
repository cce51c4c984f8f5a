//! What can never be stored, and why. A rejection is as durable as a row: it is written in the
//! same transaction as its neighbours, and only then is its message acknowledged.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::{Kind, SensorIdentifier, Timestamp};

/// One thing refused: a whole message, or one item of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// When the message reached us.
    pub received_at: Timestamp,
    /// The topic it came on.
    pub topic: String,
    /// The sensor, where the topic names one.
    pub sensor: Option<SensorIdentifier>,
    /// What it would have been, where the topic says so.
    pub kind: Option<Kind>,
    /// The item's place in its array from 0; none where the whole message is refused.
    pub item_index: Option<u32>,
    /// How many items are refused with it: 1, or all those of a message that was well formed.
    pub item_count: u32,
    /// The stable code.
    pub reason: Reason,
    /// A sentence: what was wrong, and where.
    pub detail: String,
    /// The item as it came, or the payload.
    pub raw: Bytes,
    /// Whether it is kept whole; beyond the bound of a flood it is only counted.
    pub kept: bool,
    /// Tells the message apart from any other, so that a redelivery adds no row.
    pub digest: RejectionDigest,
}

/// 128 bits over the topic and the payload of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RejectionDigest(pub u128);

impl RejectionDigest {
    /// Of a message that is held whole.
    #[must_use]
    pub fn of(topic: &str, payload: &[u8]) -> Self {
        let mut hasher = Self::begin(topic);
        hasher.update(payload);
        Self(hasher.digest128())
    }

    /// A hasher fed with the topic, for a payload that is not held whole.
    #[must_use]
    pub fn begin(topic: &str) -> Xxh3 {
        let mut hasher = Xxh3::new();
        hasher.update(&(topic.len() as u64).to_le_bytes());
        hasher.update(topic.as_bytes());
        hasher
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $code:literal,)+) => {
        /// Why something was rejected. The codes are stable: they stand in the `rejection` table,
        /// in the API and in the metrics.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason { $($(#[$doc])+ $variant,)+ }

        impl Reason {
            /// Every reason, in the order of this list.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }
        }
    };
}

reasons! {
    /// The topic is none of those that sensors publish on.
    UnknownTopic = "unknown_topic",
    /// The topic's last level is no UUID.
    InvalidIdentifier = "invalid_identifier",
    /// No sensor has this identifier. Replayable once one has.
    UnknownSensor = "unknown_sensor",
    /// The payload is larger than the setting allows; its first bytes are kept.
    PayloadTooLarge = "payload_too_large",
    /// The payload is not UTF-8.
    NotUtf8 = "not_utf8",
    /// The payload is not JSON (RFC 8259).
    NotJson = "not_json",
    /// The payload is JSON, but no object with the array that its topic asks for.
    InvalidShape = "invalid_shape",
    /// The array holds nothing.
    NoItems = "no_items",
    /// The array holds more than the setting allows.
    TooManyItems = "too_many_items",
    /// The item is no object, or names a member twice.
    InvalidItem = "invalid_item",
    /// `revision` is missing or no integer from 0 to 2147483647.
    InvalidRevision = "invalid_revision",
    /// `timestamp` is missing or no number of Unix seconds from 0 to 253402207200.
    InvalidTimestamp = "invalid_timestamp",
    /// `value` is missing or no object.
    InvalidValue = "invalid_value",
    /// A member of `value` is an object or an array.
    NestedValue = "nested_value",
    /// A key of `value` has no character, or more than 64.
    InvalidKey = "invalid_key",
    /// Two keys of `value` are the same.
    DuplicateKey = "duplicate_key",
    /// A text holds U+0000, which PostgreSQL cannot hold.
    NulCharacter = "nul_character",
    /// A text holds half of a surrogate pair, which is no character.
    InvalidText = "invalid_text",
    /// A number is beyond what `numeric`, and with it `jsonb`, holds.
    InvalidNumber = "invalid_number",
    /// `severity` is missing or none of info, warning, error.
    InvalidSeverity = "invalid_severity",
    /// `subject` is missing, empty or no string.
    InvalidSubject = "invalid_subject",
    /// `details` is neither a string nor null.
    InvalidDetails = "invalid_details",
    /// `success` is missing or no boolean.
    InvalidSuccess = "invalid_success",
    /// PostgreSQL refused the row in spite of the validation.
    RefusedByDatabase = "refused_by_database",
    /// The message stopped its sensor's actor twice.
    ActorFailed = "actor_failed",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_tells_topic_from_payload() {
        assert_eq!(RejectionDigest::of("a", b"b"), RejectionDigest::of("a", b"b"));
        assert_ne!(RejectionDigest::of("a", b"bc"), RejectionDigest::of("ab", b"c"));
    }

    #[test]
    fn codes_are_unique() {
        let codes: std::collections::HashSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
    }
}
