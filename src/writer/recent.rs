//! Which messages were given to the writer lately. Pure. A sensor that was cut off sends again what
//! it has sent, without DUP; believed to be new, one such message fails the COPY of its whole batch.
//! One that is found here goes through the staging table instead, and its neighbours straight.
//!
//! It is a guess: a message that is forgotten, or that comes in other company, is still stored once,
//! as the unique index says.

use foldhash::fast::FixedState;
use std::hash::BuildHasher as _;

use crate::domain::{Batch, Uplink};

/// How many messages are remembered: 2 MiB, of which the system gives what is used. Close to a minute
/// of 10,000 messages a second.
const MESSAGES: usize = 1 << 19;

/// As in a processor's cache: a message has its set, and pushes the oldest one out of it.
const WAYS: usize = 8;

/// Fingerprints of messages.
#[derive(Debug)]
pub(super) struct Recent {
    sets: Box<[[u32; WAYS]]>,
    hasher: FixedState,
}

impl Recent {
    pub(super) fn new() -> Self {
        let sets = vec![[0; WAYS]; MESSAGES / WAYS].into();
        Self { sets, hasher: FixedState::default() }
    }

    /// Marks the messages that came before this batch, and remembers all of it.
    pub(super) fn tell_apart(&mut self, batch: &mut Batch) {
        let mut new = Vec::with_capacity(batch.uplinks().len());
        for uplink in batch.uplinks_mut() {
            let Some((set, fingerprint)) = self.find(uplink) else { continue };
            if self.sets[set].contains(&fingerprint) {
                uplink.message.redelivered = true;
            } else {
                new.push((set, fingerprint));
            }
        }
        // Only now: twice in one batch is no conflict.
        for (set, fingerprint) in new {
            let set = &mut self.sets[set];
            if !set.contains(&fingerprint) {
                set.rotate_right(1);
                set[0] = fingerprint;
            }
        }
    }

    /// By the first item: who sends a message again sends it as it was.
    fn find(&self, uplink: &Uplink) -> Option<(usize, u32)> {
        let sensor = uplink.sensor.filter(|_| !uplink.items.is_empty())?;
        let (timestamp, digest) = uplink.items.identity(0);
        let hash = self.hasher.hash_one((sensor, timestamp, digest));
        // An empty place holds 0.
        Some((hash as usize % self.sets.len(), (hash >> 32) as u32 | 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        AckTokens, ByteRange, Items, Kind, Measurement, RawMessage, SensorIdentifier, Timestamp,
    };

    fn batch(sensor: SensorIdentifier, digests: &[u64]) -> Batch {
        let (ack_tokens, _lost) = AckTokens::new();
        let said = |(sequence, digest): (u64, &u64)| {
            let value = ByteRange { start: 0, end: 2 };
            let timestamp = Timestamp::default();
            let item = Measurement { timestamp, digest: *digest, revision: 0, value };
            Box::new(Uplink {
                sensor: Some(sensor),
                kind: Some(Kind::Measurement),
                items: Items::Measurements([item].into_iter().collect()),
                rejections: Vec::new(),
                message: RawMessage::new("t", b"{}", Timestamp::default(), false),
                ack_token: ack_tokens.issue(sequence),
            })
        };
        Batch::new((0..).zip(digests).map(said).collect())
    }

    fn suspects(recent: &mut Recent, mut batch: Batch) -> Vec<bool> {
        recent.tell_apart(&mut batch);
        batch.uplinks().iter().map(|uplink| uplink.message.redelivered).collect()
    }

    #[test]
    fn a_message_of_an_earlier_batch_is_told_from_its_neighbours() {
        let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
        let mut recent = Recent::new();
        assert_eq!(suspects(&mut recent, batch(one, &[1, 2, 2])), [false; 3], "twice in one");
        assert_eq!(suspects(&mut recent, batch(one, &[3, 2, 4, 1])), [false, true, false, true]);
        assert_eq!(suspects(&mut recent, batch(other, &[1])), [false], "another sensor");
    }
}
