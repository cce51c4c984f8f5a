//! The MQTT payloads and topics: JSON ↔ domain, topics ↔ sensor identifiers. Called by the inbound loop for
//! every PUBLISH and by the publisher for every configuration. Pure: no message makes it panic, and
//! PostgreSQL can store whatever it accepts.

#[cfg(any(test, fuzzing))]
mod agreement;
mod careful;
mod envelope;
mod item;
mod payload_format;
mod receipt;
mod topic;
mod topic_flaw;
pub mod value;

#[cfg(any(test, fuzzing))]
pub use agreement::disagreement;
pub use receipt::TimestampMissing;
pub use topic::{Topics, check_group, check_prefix};
pub use topic_flaw::TopicFlaw;

use self::receipt::MissingTimestamp;
use self::value::NestedValues;
use crate::domain::{
    AckToken, Items, Kind, RawMessage, Reason, Rejection, RejectionDigest, Uplink,
};

/// `MAX_…`, `NESTED_VALUES`, `TIMESTAMP_MISSING`
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `MAX_PAYLOAD_BYTES`
    pub payload_bytes: usize,
    /// `MAX_ITEMS_PER_MESSAGE`
    pub items_per_message: usize,
    /// `NESTED_VALUES`
    pub nested_values: NestedValues,
    /// `TIMESTAMP_MISSING`
    pub timestamp_missing: TimestampMissing,
}

impl Limits {
    /// Where nothing else is set.
    pub const DEFAULT: Self = Self {
        payload_bytes: 1 << 20,
        items_per_message: 10_000,
        nested_values: NestedValues::Reject,
        timestamp_missing: TimestampMissing::Reject,
    };
}

/// What the items of a message have to keep to.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// At most as many.
    items: usize,
    nested_values: NestedValues,
    /// Of the first item.
    missing_timestamp: MissingTimestamp,
}

impl Rules {
    /// The rules of the item with this index.
    const fn of_item(self, index: u32) -> Self {
        Self { missing_timestamp: self.missing_timestamp.of_item(index), ..self }
    }
}

/// A payload over the limit, of which only the beginning was kept.
#[derive(Clone, Copy, Debug)]
pub struct Oversized {
    /// The size of the whole payload.
    pub size_bytes: u64,
    /// Over topic and whole payload.
    pub digest: RejectionDigest,
}

/// Decodes messages.
#[derive(Clone, Debug)]
pub struct Decoder {
    topics: Topics,
    limits: Limits,
}

/// The code, and a sentence that says what is wrong and where.
type ItemRefusal = (Reason, String);

impl Decoder {
    /// A decoder for these topics.
    pub const fn new(topics: Topics, limits: Limits) -> Self {
        Self { topics, limits }
    }

    /// The topics that it decodes.
    pub const fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The limits on messages.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Every item of the message is either stored in `items` or in a rejection. A message without payload has
    /// no items: it clears what the broker retained [MQTT-3.3.1-6].
    #[must_use]
    pub fn decode(&self, message: RawMessage, ack_token: AckToken) -> Box<Uplink> {
        let (kind, sensor) = match self.topics.parse(message.topic()) {
            Some((kind, _)) if message.payload().is_empty() => {
                return bare(Some(kind), message, ack_token);
            }
            Some(target) => target,
            None => {
                let is_empty = message.payload().is_empty();
                let flaw = TopicFlaw::of(&self.topics, message.topic());
                let mut uplink = bare(flaw.kind, message, ack_token);
                if !is_empty {
                    uplink.reject(flaw.reason, flaw.detail);
                    // Its actor learns nothing of it: the sensor may be another one.
                    uplink.rejections[0].sensor = flaw.sensor;
                }
                return uplink;
            }
        };
        let mut uplink = bare(Some(kind), message, ack_token);
        uplink.sensor = Some(sensor);
        match decode_payload(kind, &uplink.message, self.limits) {
            Ok((items, refused)) => {
                uplink.items = items;
                if !refused.is_empty() {
                    // Once for the message, not for each of its items.
                    let lacks_time = |it: &RefusedItem| it.refusal.0 == Reason::InvalidTimestamp;
                    let may_be_untimed = self.limits.timestamp_missing == TimestampMissing::Receipt
                        || refused.iter().any(lacks_time);
                    let digest = match uplink.message.delivered_once && may_be_untimed {
                        true => uplink.digest_at_receipt(),
                        false => uplink.digest(),
                    };
                    let rejection = |item: RefusedItem| item.into_rejection(&uplink, digest);
                    uplink.rejections = refused.into_iter().map(rejection).collect();
                }
            }
            Err(MessageRefusal { refusal: (reason, detail), item_count }) => {
                uplink.reject(reason, detail);
                uplink.rejections[0].item_count = item_count;
            }
        }
        uplink
    }

    /// Rejects a message that is too large. `message` holds the beginning of its payload.
    #[must_use]
    pub fn refuse(
        &self,
        message: RawMessage,
        oversized: Oversized,
        ack_token: AckToken,
    ) -> Box<Uplink> {
        let target = self.topics.parse(message.topic());
        let mut uplink = bare(target.map(|(kind, _)| kind), message, ack_token);
        uplink.sensor = target.map(|(_, sensor)| sensor);
        let detail = format!(
            "the payload has {} bytes; at most {} are accepted",
            oversized.size_bytes, self.limits.payload_bytes
        );
        uplink.rejections =
            vec![uplink.rejection(oversized.digest, Reason::PayloadTooLarge, detail)];
        uplink
    }
}

/// The payload of a retained configuration. A retained message without payload clears the topic
/// [MQTT-3.3.1-6].
pub fn configuration_payload(configuration: Option<&(i32, String)>) -> String {
    configuration.map_or_else(String::new, |(revision, value)| {
        format!(r#"{{"revision":{revision},"configuration":{value}}}"#)
    })
}

/// A payload with this one item.
pub fn envelop(kind: Kind, item: &[u8]) -> Vec<u8> {
    [b"{\"", kind.envelope_member().as_bytes(), b"\":[", item, b"]}"].concat()
}

fn bare(kind: Option<Kind>, message: RawMessage, ack_token: AckToken) -> Box<Uplink> {
    Box::new(Uplink { kind, ..Uplink::new(message, ack_token) })
}

/// The whole message is refused.
struct MessageRefusal {
    refusal: ItemRefusal,
    item_count: u32,
}

/// One item is refused.
struct RefusedItem {
    index: u32,
    range: crate::domain::ByteRange,
    refusal: ItemRefusal,
}

impl RefusedItem {
    fn into_rejection(self, uplink: &Uplink, digest: RejectionDigest) -> Rejection {
        let (reason, detail) = self.refusal;
        Rejection {
            item_index: Some(self.index),
            raw: uplink.message.keep(self.range),
            ..uplink.rejection(digest, reason, detail)
        }
    }
}

/// The fast pass; if it gives up, the careful pass from the beginning. A test compares them.
fn decode_payload(
    kind: Kind,
    message: &RawMessage,
    limits: Limits,
) -> Result<(Items, Vec<RefusedItem>), MessageRefusal> {
    let payload = message.payload();
    let Limits { items_per_message: items, nested_values, timestamp_missing, .. } = limits;
    let missing_timestamp = MissingTimestamp::of(message, timestamp_missing);
    let rules = Rules { items, nested_values, missing_timestamp };
    if let Some(items) = envelope::decode(kind, payload, rules) {
        return Ok((items, Vec::new()));
    }
    careful::decode(kind, payload, rules)
}

#[cfg(test)]
mod tests;
