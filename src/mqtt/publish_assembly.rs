//! Joins the chunks in which the codec delivers a large PUBLISH. Used by `intake`. A payload over the limit
//! is read to its end and only its beginning is kept, to be recorded as rejected: announcing a Maximum
//! Packet Size would make the broker drop the message silently [MQTT-3.1.2-25].

use ntex_bytes::Bytes;
use ntex_mqtt::v5::codec::Publish;
use xxhash_rust::xxh3::Xxh3;

use crate::domain::RejectionDigest;
use crate::wire::Oversized;

/// A complete PUBLISH.
#[derive(Debug)]
pub(super) struct ReceivedPublish {
    pub(super) publish: Publish,
    /// If oversized, only the beginning.
    pub(super) payload: Bytes,
    pub(super) oversized: Option<Oversized>,
}

/// A PUBLISH of which chunks are missing.
struct Partial {
    publish: Publish,
    beginning: Vec<u8>,
    size_bytes: u64,
    hasher: Xxh3,
}

/// Holds at most one incomplete PUBLISH, and of it at most `max_bytes`.
pub(super) struct PublishAssembly {
    max_bytes: usize,
    partial: Option<Partial>,
}

impl PublishAssembly {
    pub(super) const fn new(max_bytes: usize) -> Self {
        Self { max_bytes, partial: None }
    }

    /// The first chunk of a PUBLISH, usually the only one.
    pub(super) fn begin(&mut self, publish: Publish, payload: &Bytes) -> Option<ReceivedPublish> {
        let complete = payload.len() == publish.payload_size as usize;
        if complete && payload.len() <= self.max_bytes {
            return Some(ReceivedPublish { publish, payload: payload.clone(), oversized: None });
        }
        self.partial = Some(Partial {
            hasher: RejectionDigest::begin(&publish.topic),
            publish,
            beginning: Vec::new(),
            size_bytes: 0,
        });
        self.add(payload, complete)
    }

    /// A further chunk.
    pub(super) fn add(&mut self, chunk: &Bytes, last: bool) -> Option<ReceivedPublish> {
        let partial = self.partial.as_mut()?;
        let room = self.max_bytes - partial.beginning.len();
        partial.beginning.extend_from_slice(&chunk[..chunk.len().min(room)]);
        partial.size_bytes += chunk.len() as u64;
        partial.hasher.update(chunk);
        if !last {
            return None;
        }
        let Partial { publish, beginning, size_bytes, hasher } = self.partial.take()?;
        let oversized = (size_bytes > self.max_bytes as u64)
            .then(|| Oversized { size_bytes, digest: RejectionDigest(hasher.digest128()) });
        Some(ReceivedPublish { publish, payload: Bytes::copy_from_slice(&beginning), oversized })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_do_not_change_the_message(
            payload in proptest::collection::vec(any::<u8>(), 0..60),
            cuts in proptest::collection::vec(0..60usize, 0..5),
            max_bytes in 1..60usize,
        ) {
            let publish = Publish {
                topic: "measurements/x".into(),
                payload_size: payload.len() as u32,
                ..Publish::default()
            };
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(payload.len())).collect();
            at.extend([0, payload.len()]);
            at.sort_unstable();
            let mut parts = at.windows(2).map(|cut| Bytes::copy_from_slice(&payload[cut[0]..cut[1]]));

            let mut assembly = PublishAssembly::new(max_bytes);
            let mut message = assembly.begin(publish, &parts.next().unwrap());
            let mut rest = parts.peekable();
            while let Some(part) = rest.next() {
                let last = rest.peek().is_none();
                if message.is_none() {
                    message = assembly.add(&part, last);
                }
            }

            let message = message.unwrap();
            prop_assert_eq!(&message.payload[..], &payload[..payload.len().min(max_bytes)]);
            prop_assert_eq!(message.oversized.is_some(), payload.len() > max_bytes);
            if let Some(oversized) = message.oversized {
                prop_assert_eq!(oversized.size_bytes, payload.len() as u64);
                prop_assert_eq!(oversized.digest, RejectionDigest::of("measurements/x", &payload));
            }
        }
    }
}
