//! Recognizes messages that were written recently. Called by the writer for each batch; pure. A sensor
//! that reconnects may send messages again without DUP. Copied directly, one of them would fail the COPY
//! of its batch, so it is marked [`may_be_stored`](crate::domain::RawMessage::may_be_stored). A miss only
//! costs time, because of the unique index.

use foldhash::fast::FixedState;
use std::hash::BuildHasher as _;

use crate::domain::{Batch, Uplink};

/// Messages remembered: 2 MiB, about a minute at 10,000 messages/s.
const CAPACITY: usize = 1 << 19;

/// Entries per set, as in a set-associative cache; the oldest of a set is evicted.
const WAYS: usize = 8;

/// Fingerprints of messages.
#[derive(Debug)]
pub(super) struct Recent {
    sets: Box<[[u32; WAYS]]>,
    hasher: FixedState,
}

impl Recent {
    pub(super) fn new() -> Self {
        let sets = vec![[0; WAYS]; CAPACITY / WAYS].into();
        Self { sets, hasher: FixedState::default() }
    }

    /// Marks messages that occurred in an earlier batch, and remembers those of this one.
    pub(super) fn mark_repeated(&mut self, batch: &mut Batch) {
        let mut new = Vec::with_capacity(batch.uplinks().len());
        for uplink in batch.uplinks_mut() {
            let Some((set, fingerprint)) = self.find(uplink) else { continue };
            if self.sets[set].contains(&fingerprint) {
                uplink.message.may_be_stored = true;
            } else {
                new.push((set, fingerprint));
            }
        }
        // After the loop: a message that occurs twice in one batch does not fail its COPY.
        for (set, fingerprint) in new {
            let set = &mut self.sets[set];
            if !set.contains(&fingerprint) {
                set.rotate_right(1);
                set[0] = fingerprint;
            }
        }
    }

    /// Identifies a message by its first item: a message that is sent again is unchanged.
    fn find(&self, uplink: &Uplink) -> Option<(usize, u32)> {
        let sensor = uplink.sensor.filter(|_| !uplink.items.is_empty())?;
        let (timestamp, digest) = uplink.items.identity(0);
        let hash = self.hasher.hash_one((sensor, timestamp, digest));
        // 0 marks an empty entry.
        Some((hash as usize % self.sets.len(), (hash >> 32) as u32 | 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        AckTokens, ByteRange, ItemHead, Items, Kind, Measurement, RawMessage, SensorIdentifier,
        Timestamp,
    };

    fn batch(sensor: SensorIdentifier, digests: &[u64]) -> Batch {
        let (ack_tokens, _lost) = AckTokens::new();
        let uplink = |(sequence, digest): (u64, &u64)| {
            let value = ByteRange { start: 0, end: 2 };
            let head = ItemHead { digest: *digest, ..ItemHead::default() };
            let item = Measurement { head, value };
            Box::new(Uplink {
                sensor: Some(sensor),
                kind: Some(Kind::Measurement),
                items: Items::Measurements([item].into_iter().collect()),
                rejections: Vec::new(),
                message: RawMessage::new("t", b"{}", Timestamp::default(), false),
                ack_token: ack_tokens.issue(sequence),
            })
        };
        Batch::new((0..).zip(digests).map(uplink).collect())
    }

    fn repeated(recent: &mut Recent, mut batch: Batch) -> Vec<bool> {
        recent.mark_repeated(&mut batch);
        batch.uplinks().iter().map(|uplink| uplink.message.may_be_stored).collect()
    }

    #[test]
    fn only_messages_of_earlier_batches_are_marked() {
        let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
        let mut recent = Recent::new();
        assert_eq!(repeated(&mut recent, batch(one, &[1, 2, 2])), [false; 3], "twice in one");
        assert_eq!(repeated(&mut recent, batch(one, &[3, 2, 4, 1])), [false, true, false, true]);
        assert_eq!(repeated(&mut recent, batch(other, &[1])), [false], "another sensor");
    }
}
