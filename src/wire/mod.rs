//! What stands on the wire: topics ↔ sensor identifiers, JSON ↔ domain. Called by the inbound loop
//! for every PUBLISH and by the outbox for what goes down. Pure: no message makes it panic, and
//! whatever it accepts PostgreSQL can hold.

#[cfg(any(test, fuzzing))]
mod agreement;
mod careful;
mod envelope;
mod item;
mod topic;
pub mod value;

#[cfg(any(test, fuzzing))]
pub use agreement::disagreement;
pub use careful::item;
pub use topic::{TopicFlaw, Topics, check_prefix};

use crate::domain::{
    AckToken, Items, Kind, RawMessage, Reason, Rejection, RejectionDigest, Uplink,
};

/// `MAX_…`
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `MAX_PAYLOAD_BYTES`
    pub payload_bytes: usize,
    /// `MAX_ITEMS_PER_MESSAGE`
    pub items_per_message: usize,
}

/// A PUBLISH whose payload is larger than the limit: only its beginning was kept.
#[derive(Clone, Copy, Debug)]
pub struct Oversized {
    /// All of its bytes.
    pub size_bytes: u64,
    /// Over topic and payload, the part that was not kept too.
    pub digest: RejectionDigest,
}

/// Turns a PUBLISH into what it says.
#[derive(Clone, Debug)]
pub struct Decoder {
    topics: Topics,
    limits: Limits,
}

/// Why all or a part of a message is refused: the code, and a sentence that says what and where.
type Refusal = (Reason, String);

impl Decoder {
    /// For these topics, within these limits.
    #[must_use]
    pub const fn new(topics: Topics, limits: Limits) -> Self {
        Self { topics, limits }
    }

    /// The topics that it reads.
    #[must_use]
    pub const fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The limits that it holds messages to.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Every item of the message is in the answer: as one that can be stored, or in a rejection.
    #[must_use]
    pub fn decode(&self, message: RawMessage, ack_token: AckToken) -> Box<Uplink> {
        let (kind, sensor) = match self.topics.parse(message.topic()) {
            Ok((kind, sensor)) => (kind, sensor),
            Err(flaw) => {
                let mut uplink = bare(flaw.kind(), message, ack_token);
                uplink.reject(flaw.reason(), flaw.to_string());
                return uplink;
            }
        };
        let mut uplink = bare(Some(kind), message, ack_token);
        uplink.sensor = Some(sensor);
        match decode_payload(kind, &uplink.message, self.limits) {
            Ok((items, refused)) => {
                if !refused.is_empty() {
                    // Once for the message, not for each of its items.
                    let digest = uplink.digest();
                    let rejection = |item: RefusedItem| item.into_rejection(&uplink, digest);
                    uplink.rejections = refused.into_iter().map(rejection).collect();
                }
                uplink.items = items;
            }
            Err(Whole { refusal: (reason, detail), item_count }) => {
                uplink.reject(reason, detail);
                uplink.rejections[0].item_count = item_count;
            }
        }
        uplink
    }

    /// The rejection of a message that is too large. `message` holds the beginning of its payload.
    #[must_use]
    pub fn refuse(
        &self,
        message: RawMessage,
        oversized: Oversized,
        ack_token: AckToken,
    ) -> Box<Uplink> {
        let place = self.topics.parse(message.topic()).ok();
        let mut uplink = bare(place.map(|(kind, _)| kind), message, ack_token);
        uplink.sensor = place.map(|(_, sensor)| sensor);
        let detail = format!(
            "the payload has {} bytes; at most {} are taken",
            oversized.size_bytes, self.limits.payload_bytes
        );
        uplink.rejections =
            vec![uplink.rejection(oversized.digest, Reason::PayloadTooLarge, detail)];
        uplink
    }
}

/// A payload that holds one item.
#[must_use]
pub fn envelop(kind: Kind, item: &[u8]) -> Vec<u8> {
    [b"{\"", kind.envelope_member().as_bytes(), b"\":[", item, b"]}"].concat()
}

fn bare(kind: Option<Kind>, message: RawMessage, ack_token: AckToken) -> Box<Uplink> {
    Box::new(Uplink {
        sensor: None,
        kind,
        items: Items::Nothing,
        rejections: Vec::new(),
        message,
        ack_token,
    })
}

/// The whole message is refused.
struct Whole {
    refusal: Refusal,
    item_count: u32,
}

/// One item is refused.
struct RefusedItem {
    index: u32,
    range: crate::domain::ByteRange,
    refusal: Refusal,
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

/// A wholly good message takes one pass; at the slightest doubt the careful one begins anew and
/// says what is wrong. A test holds them to the same answers.
fn decode_payload(
    kind: Kind,
    message: &RawMessage,
    limits: Limits,
) -> Result<(Items, Vec<RefusedItem>), Whole> {
    let payload = std::str::from_utf8(message.payload()).map_err(|error| Whole {
        refusal: (
            Reason::NotUtf8,
            format!("the payload is not UTF-8 at byte {}", error.valid_up_to()),
        ),
        item_count: 1,
    })?;
    if let Some(items) = envelope::decode(kind, payload, limits.items_per_message) {
        return Ok((items, Vec::new()));
    }
    careful::decode(kind, payload, limits.items_per_message)
}

#[cfg(test)]
mod tests;
