//! What one PUBLISH carries, decoded: the items that can be stored, the rejections of those that
//! cannot, and the ack token. Texts stay where they came, in the message; items point into it.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::{
    AckToken, ByteRange, RawMessage, Reason, Rejection, RejectionDigest, SensorIdentifier,
    Timestamp,
};

/// What a topic carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `measurements/<sensor-identifier>`
    Measurement,
    /// `log-messages/<sensor-identifier>`
    LogMessage,
    /// `heartbeats/<sensor-identifier>`
    Heartbeat,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Measurement, Self::LogMessage, Self::Heartbeat];

    /// As the `rejection` table has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Measurement => "measurement",
            Self::LogMessage => "log_message",
            Self::Heartbeat => "heartbeat",
        }
    }

    /// The first level of the topic.
    #[must_use]
    pub const fn topic_level(self) -> &'static str {
        match self {
            Self::Measurement => "measurements",
            Self::LogMessage => "log-messages",
            Self::Heartbeat => "heartbeats",
        }
    }

    /// The envelope's member that holds the array.
    #[must_use]
    pub const fn envelope_member(self) -> &'static str {
        match self {
            Self::Measurement => "measurements",
            Self::LogMessage => "log_messages",
            Self::Heartbeat => "heartbeats",
        }
    }
}

/// One measurement: `value` is the text of a JSON object, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measurement {
    /// When the sensor took it.
    pub timestamp: Timestamp,
    /// Tells it apart from another one of the same sensor and moment.
    pub digest: u64,
    /// The configuration under which it was taken.
    pub revision: i32,
    /// Where `value` stands in the payload.
    pub value: ByteRange,
}

/// How much a log message matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// For the record.
    Info,
    /// Somebody may want to look.
    Warning,
    /// Somebody must.
    Error,
}

impl Severity {
    /// Every severity, the least first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Error];

    /// As the wire and the table have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// The reverse of [`Self::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// One log message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogMessage {
    /// When the sensor wrote it.
    pub timestamp: Timestamp,
    /// Tells it apart from another one of the same sensor and moment.
    pub digest: u64,
    /// The configuration under which it was written.
    pub revision: i32,
    /// How much it matters.
    pub severity: Severity,
    /// In short; never empty.
    pub subject: Box<str>,
    /// At length.
    pub details: Option<Box<str>>,
}

/// One heartbeat: the sensor has applied a revision, or could not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// When the sensor sent it.
    pub timestamp: Timestamp,
    /// Tells it apart from another one of the same sensor and moment.
    pub digest: u64,
    /// The revision that it acknowledges.
    pub revision: i32,
    /// Whether that revision works.
    pub success: bool,
}

/// What a message holds that can be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Items {
    /// Nothing: the message is rejected whole.
    Nothing,
    /// So many that someone else has seen to: nothing is to be stored.
    AlreadyHandled(u32),
    /// From `measurements/…`; mostly one.
    Measurements(SmallVec<[Measurement; 1]>),
    /// From `log-messages/…`.
    LogMessages(Vec<LogMessage>),
    /// From `heartbeats/…`; mostly one.
    Heartbeats(SmallVec<[Heartbeat; 1]>),
}

impl Items {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Nothing | Self::AlreadyHandled(_) => 0,
            Self::Measurements(items) => items.len(),
            Self::LogMessages(items) => items.len(),
            Self::Heartbeats(items) => items.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest revision that they speak of.
    #[must_use]
    pub fn newest_revision(&self) -> Option<i32> {
        match self {
            Self::Nothing | Self::AlreadyHandled(_) => None,
            Self::Measurements(items) => items.iter().map(|item| item.revision).max(),
            Self::LogMessages(items) => items.iter().map(|item| item.revision).max(),
            Self::Heartbeats(items) => items.iter().map(|item| item.revision).max(),
        }
    }

    /// When the item at this index was made, and its digest.
    #[must_use]
    pub fn identity(&self, index: usize) -> (Timestamp, u64) {
        match self {
            Self::Nothing | Self::AlreadyHandled(_) => unreachable!("nothing has no item"),
            Self::Measurements(items) => (items[index].timestamp, items[index].digest),
            Self::LogMessages(items) => (items[index].timestamp, items[index].digest),
            Self::Heartbeats(items) => (items[index].timestamp, items[index].digest),
        }
    }
}

/// One message on its way up. It travels in a box: what every hop moves, and a growing batch copies,
/// is then a pointer (measured: a tenth of the CPU of a drain).
#[derive(Debug)]
pub struct Uplink {
    /// Whom its rows belong to; none where the topic does not say.
    pub sensor: Option<SensorIdentifier>,
    /// What it carries; none where the topic does not say.
    pub kind: Option<Kind>,
    /// What can be stored.
    pub items: Items,
    /// What cannot. An item is in one of the two.
    pub rejections: Vec<Rejection>,
    /// As it came.
    pub message: RawMessage,
    /// What its PUBACK waits for.
    pub ack_token: AckToken,
}

impl Uplink {
    /// Items in all, good and bad: what the ledger counts as received.
    #[must_use]
    pub fn item_count(&self) -> u32 {
        let rejected: u32 = self.rejections.iter().map(|rejection| rejection.item_count).sum();
        match self.items {
            Items::AlreadyHandled(count) => rejected + count,
            ref items => {
                let stored = u32::try_from(items.len());
                rejected + stored.expect("a payload holds fewer than 2^32 items")
            }
        }
    }

    /// How much memory it holds, its rejections included: a message of bad items only grows
    /// a hundredfold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let rejections = self.rejections.iter();
        let grown: usize =
            rejections.map(|it| size_of::<Rejection>() + it.topic.len() + it.detail.len()).sum();
        size_of::<Self>() + self.message.size_bytes() + grown
    }

    /// Turns all that could be stored into one rejection of the whole message. What was rejected
    /// before is in it: the message is kept whole, and replays whole. A message of which nobody
    /// knows the items counts as one.
    pub fn reject(&mut self, reason: Reason, detail: String) {
        let item_count = self.item_count().max(1);
        let rejection = self.rejection(self.digest(), reason, detail);
        self.items = Items::Nothing;
        self.rejections = vec![Rejection { item_count, ..rejection }];
    }

    /// The rejection of the whole message, counted as one item. One of an item differs from it in
    /// what it says of the item.
    #[must_use]
    pub fn rejection(&self, digest: RejectionDigest, reason: Reason, detail: String) -> Rejection {
        Rejection {
            received_at: self.message.received_at,
            topic: self.message.topic().to_owned(),
            sensor: self.sensor,
            kind: self.kind,
            item_index: None,
            item_count: 1,
            reason,
            detail,
            raw: self.message.keep_payload(),
            kept: true,
            digest,
        }
    }

    /// What tells the message apart, hashed once: its rejections share it.
    #[must_use]
    pub fn digest(&self) -> RejectionDigest {
        self.rejections.first().map_or_else(
            || RejectionDigest::of(self.message.topic(), self.message.payload()),
            |rejection| rejection.digest,
        )
    }

    /// Forgets what it holds, but for how many items that are: someone else has seen to it. Returns
    /// their number, as often as it is asked.
    pub fn empty(&mut self) -> u32 {
        let item_count = self.item_count();
        self.items = Items::AlreadyHandled(item_count);
        self.rejections.clear();
        item_count
    }

    /// Turns items that could be stored, by all that we know, into rejections: their places among
    /// the stored ones, and a sentence for each.
    ///
    /// # Panics
    /// When there is no such item.
    pub fn reject_items(&mut self, mut refused: Vec<(u32, String)>, reason: Reason) {
        let bad: HashSet<u32> = self.rejections.iter().filter_map(|it| it.item_index).collect();
        // Where the stored ones stand in the payload's array.
        let places: Vec<u32> =
            (0..self.item_count()).filter(|place| !bad.contains(place)).collect();
        let texts = self.item_texts();
        // From the back, so that the places of those before stay.
        refused.sort_unstable_by_key(|(item, _)| std::cmp::Reverse(*item));
        for (item, detail) in refused {
            match &mut self.items {
                Items::Nothing | Items::AlreadyHandled(_) => unreachable!("nothing has no item"),
                Items::Measurements(items) => drop(items.remove(item as usize)),
                Items::LogMessages(items) => drop(items.remove(item as usize)),
                Items::Heartbeats(items) => drop(items.remove(item as usize)),
            }
            let place = places[item as usize];
            let mut rejection = self.rejection(self.digest(), reason, detail);
            rejection.item_index = Some(place);
            if let Some(text) = texts.get(place as usize) {
                rejection.raw = text.clone();
            }
            self.rejections.push(rejection);
        }
    }

    /// The items of the payload's array, good and bad, as they came; none where that cannot be told.
    fn item_texts(&self) -> Vec<Bytes> {
        let Some(kind) = self.kind else { return Vec::new() };
        let payload = self.message.payload();
        let begin = payload.as_ptr().addr();
        let items = || -> Option<Vec<&RawValue>> {
            let envelope: HashMap<&str, &RawValue> = serde_json::from_slice(payload).ok()?;
            serde_json::from_str(envelope.get(kind.envelope_member())?.get()).ok()
        };
        let range = |item: &RawValue| {
            let start = item.get().as_ptr().addr() - begin;
            let narrow = |at| u32::try_from(at).expect("a payload holds fewer than 2^32 bytes");
            ByteRange { start: narrow(start), end: narrow(start + item.get().len()) }
        };
        items().unwrap_or_default().into_iter().map(|item| self.message.keep(range(item))).collect()
    }

    /// Writes what its rejections say in ASCII, for a database whose encoding cannot hold it; the
    /// raw bytes stay. False: that changes nothing.
    pub fn spell_out_rejections(&mut self) -> bool {
        let mut changed = false;
        for Rejection { topic, detail, .. } in &mut self.rejections {
            for text in [topic, detail] {
                if !text.is_ascii() {
                    *text = text.escape_default().to_string();
                    changed = true;
                }
            }
        }
        changed
    }
}

/// 64 bits over the content of an item: its revision and whatever else it says. Together with
/// sensor and timestamp it decides what is the same item. It need not resist an attacker: a
/// collision can only make a sensor lose its own words.
#[must_use]
pub fn content_digest(revision: i32, parts: &[&[u8]]) -> u64 {
    let seed = u64::from(revision.cast_unsigned());
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
    use crate::domain::AckTokens;

    #[test]
    fn the_digest_covers_revision_and_content() {
        let digest = content_digest(1, &[b"{}"]);
        assert_eq!(digest, content_digest(1, &[b"{}"]));
        assert_ne!(digest, content_digest(2, &[b"{}"]));
        assert_ne!(digest, content_digest(1, &[b"{ }"]));
        assert_ne!(content_digest(1, &[b"ab", b"c"]), content_digest(1, &[b"a", b"bc"]));
    }

    /// The digest stands in the tables: another value would let every redelivery across an
    /// upgrade in twice.
    #[test]
    fn the_digest_never_changes() {
        assert_eq!(content_digest(7, &[br#"{"a":1}"#]), 14_587_224_313_483_460_325);
        assert_eq!(content_digest(7, &[b"info", b"subject", b""]), 13_414_784_019_099_489_574);
    }

    #[test]
    fn a_refused_item_is_kept_by_itself() {
        let (ack_tokens, _lost) = AckTokens::new();
        let payload = br#"{"x":1,"heartbeats":[ {"a":0}, {"a": 1} ,{"a":2}]}"#;
        let heartbeat =
            Heartbeat { timestamp: Timestamp::default(), digest: 0, revision: 0, success: true };
        let mut uplink = Uplink {
            sensor: None,
            kind: Some(Kind::Heartbeat),
            items: Items::Heartbeats(SmallVec::from_elem(heartbeat, 3)),
            rejections: Vec::new(),
            message: RawMessage::new("heartbeats/\u{43a}", payload, Timestamp::default(), false),
            ack_token: ack_tokens.issue(0),
        };
        uplink.reject_items(vec![(1, "r\u{f8}d".into())], Reason::RefusedByDatabase);
        assert_eq!(uplink.rejections[0].raw, r#"{"a": 1}"#);

        assert!(uplink.spell_out_rejections());
        let Rejection { topic, detail, .. } = &uplink.rejections[0];
        assert_eq!((topic.as_str(), detail.as_str()), (r"heartbeats/\u{43a}", r"r\u{f8}d"));
        assert!(!uplink.spell_out_rejections());
    }

    #[test]
    fn rejecting_a_message_keeps_its_count_and_its_bytes() {
        let (ack_tokens, _lost) = AckTokens::new();
        let mut uplink = Uplink {
            sensor: None,
            kind: Some(Kind::Heartbeat),
            items: Items::Heartbeats(SmallVec::from_elem(
                Heartbeat {
                    timestamp: Timestamp::default(),
                    digest: 0,
                    revision: 0,
                    success: true,
                },
                3,
            )),
            rejections: Vec::new(),
            message: RawMessage::new("heartbeats/x", b"{}", Timestamp::default(), false),
            ack_token: ack_tokens.issue(0),
        };
        uplink.reject_items(vec![(1, String::new())], Reason::RefusedByDatabase);
        uplink.reject_items(vec![(1, String::new())], Reason::RefusedByDatabase);
        assert_eq!(
            uplink.rejections.iter().map(|it| it.item_index).collect::<Vec<_>>(),
            [Some(1), Some(2)]
        );
        assert_eq!((uplink.items.len(), uplink.item_count()), (1, 3));

        uplink.reject(Reason::UnknownSensor, String::new());
        assert_eq!(uplink.item_count(), 3);
        assert!(uplink.items.is_empty());
        assert_eq!(uplink.rejections[0].raw, "{}");
    }
}
