//! A PUBLISH as it was received: topic, payload, time. Made by the inbound loop and the replayer. Items
//! and rejections refer to its bytes by [`ByteRange`], so that nothing is copied until COPY.

use bytes::Bytes;

use super::Timestamp;

/// Topic and payload of a PUBLISH, in one buffer of just their size.
#[derive(Clone, Debug)]
pub struct RawMessage {
    /// By our clock.
    pub received_at: Timestamp,
    /// Its items may be stored already: the broker set DUP or RETAIN, it is a replay, or the writer stored an
    /// equal message recently.
    pub may_be_stored: bool,
    /// The broker set DUP: an earlier delivery of it may have been committed.
    pub redelivered: bool,
    /// A retained message that the broker delivers to a new session, so it may be old.
    pub retained: bool,
    /// Nothing delivers it again: it arrived at QoS 0 and was not retained, or it is the replay of such a message.
    pub delivered_once: bool,
    /// The row of `rejection` that is replayed; none for a message from the broker.
    pub replayed_from: Option<i64>,
    /// The index of its first item in the array as it was published; only an item that is replayed has another
    /// than 0.
    pub first_item: u32,
    buffer: Bytes,
    topic_length: u32,
}

impl RawMessage {
    /// Copies topic and payload, because a slice would keep the whole read buffer in memory.
    pub fn new(topic: &str, payload: &[u8], received_at: Timestamp, may_be_stored: bool) -> Self {
        let mut buffer = Vec::with_capacity(topic.len() + payload.len());
        buffer.extend_from_slice(topic.as_bytes());
        buffer.extend_from_slice(payload);
        Self {
            received_at,
            may_be_stored,
            redelivered: false,
            retained: false,
            delivered_once: false,
            replayed_from: None,
            first_item: 0,
            buffer: buffer.into(),
            topic_length: u32::try_from(topic.len())
                .expect("an MQTT topic has at most 65535 bytes"),
        }
    }

    /// A message that the broker had retained, which most sessions before may have received.
    pub fn retained(topic: &str, payload: &[u8], received_at: Timestamp) -> Self {
        let may_be_stored = true;
        Self { retained: true, ..Self::new(topic, payload, received_at, may_be_stored) }
    }

    /// A message that is replayed from a row of `rejection`.
    pub fn replayed(topic: &str, payload: &[u8], received_at: Timestamp, rejection: i64) -> Self {
        let may_be_stored = true;
        let message = Self::new(topic, payload, received_at, may_be_stored);
        Self { replayed_from: Some(rejection), ..message }
    }

    /// Whether it was published just now, as far as we know.
    pub const fn is_present(&self) -> bool {
        !self.retained && self.replayed_from.is_none()
    }

    /// When an item was received that has no timestamp: each a microsecond after the one before.
    pub const fn time_of_item(&self, index: u32) -> Timestamp {
        self.received_at.plus_microseconds(self.first_item.saturating_add(index))
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.buffer[..self.topic_length as usize])
            .expect("the topic was copied from a str")
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.topic_length as usize..]
    }

    /// A part of the payload.
    pub fn bytes(&self, range: ByteRange) -> &[u8] {
        &self.payload()[range.start as usize..range.end as usize]
    }

    /// A part of the payload that outlives the message and shares its memory.
    pub fn keep(&self, range: ByteRange) -> Bytes {
        let start = self.topic_length as usize;
        self.buffer.slice(start + range.start as usize..start + range.end as usize)
    }

    /// A part of the payload, such as one of its [`super::elements`], to outlive the message; shares its memory.
    ///
    /// # Panics
    /// When it is not a part of the payload.
    pub fn keep_part(&self, part: &[u8]) -> Bytes {
        self.buffer.slice_ref(part)
    }

    /// The payload, which outlives the message and shares its memory.
    pub fn keep_payload(&self) -> Bytes {
        self.buffer.slice(self.topic_length as usize..)
    }

    /// The size of topic and payload.
    pub fn size_bytes(&self) -> usize {
        self.buffer.len()
    }
}

/// Bytes `start .. end` of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    /// Inclusive.
    pub start: u32,
    /// Exclusive.
    pub end: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_topic_payload_and_parts() {
        let message = RawMessage::new("a/b", b"payload", Timestamp::default(), false);
        assert_eq!(message.topic(), "a/b");
        assert_eq!(message.payload(), b"payload");
        assert_eq!(message.bytes(ByteRange { start: 3, end: 7 }), b"load");
        assert_eq!(message.keep(ByteRange { start: 0, end: 3 }), "pay");
    }
}
