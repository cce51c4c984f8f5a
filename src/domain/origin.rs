//! What came: topic and payload of a PUBLISH, and when. Items and rejections point into it, by
//! [`Span`]s, so that nothing is copied on the way to the tables.

use bytes::Bytes;

use super::Timestamp;

/// Topic and payload of a PUBLISH, in one buffer of just their size.
#[derive(Clone, Debug)]
pub struct Origin {
    /// When it reached us.
    pub received_at: Timestamp,
    /// It was delivered before: by the broker's word (DUP), because it is replayed, or because the
    /// writer has had it lately.
    pub redelivered: bool,
    /// The row of `rejection` that it is replayed from; none where it came from the broker.
    pub replayed_from: Option<i64>,
    buffer: Bytes,
    topic_length: u32,
}

impl Origin {
    /// Copies both out of the read buffer, which they would otherwise hold back.
    #[must_use]
    pub fn new(topic: &str, payload: &[u8], received_at: Timestamp, redelivered: bool) -> Self {
        let mut buffer = Vec::with_capacity(topic.len() + payload.len());
        buffer.extend_from_slice(topic.as_bytes());
        buffer.extend_from_slice(payload);
        Self {
            received_at,
            redelivered,
            replayed_from: None,
            buffer: buffer.into(),
            topic_length: u32::try_from(topic.len())
                .expect("an MQTT topic has at most 65535 bytes"),
        }
    }

    /// What a row of `rejection` has kept, on its way once more.
    #[must_use]
    pub fn replayed(topic: &str, payload: &[u8], received_at: Timestamp, rejection: i64) -> Self {
        let redelivered = true;
        let origin = Self::new(topic, payload, received_at, redelivered);
        Self { replayed_from: Some(rejection), ..origin }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.buffer[..self.topic_length as usize])
            .expect("the topic was copied from a str")
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.topic_length as usize..]
    }

    /// What a span of the payload holds.
    #[must_use]
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.payload()[span.start as usize..span.end as usize]
    }

    /// A span of the payload, to keep.
    #[must_use]
    pub fn keep(&self, span: Span) -> Bytes {
        let start = self.topic_length as usize;
        self.buffer.slice(start + span.start as usize..start + span.end as usize)
    }

    /// The whole payload, to keep.
    #[must_use]
    pub fn keep_payload(&self) -> Bytes {
        self.buffer.slice(self.topic_length as usize..)
    }

    /// How much memory it holds.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.buffer.len()
    }
}

/// A part of the payload: bytes `start .. end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_gives_back_what_it_was_made_of() {
        let origin = Origin::new("a/b", b"payload", Timestamp::default(), false);
        assert_eq!(origin.topic(), "a/b");
        assert_eq!(origin.payload(), b"payload");
        assert_eq!(origin.bytes(Span { start: 3, end: 7 }), b"load");
        assert_eq!(origin.keep(Span { start: 0, end: 3 }), "pay");
    }
}
