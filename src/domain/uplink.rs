//! One decoded message: the items that can be stored, the rejections of those that cannot, and the
//! acknowledgement token. Made by `wire`, changed by the writer when PostgreSQL refuses a row. Every
//! item of the message is in `items` or in `rejections`.

use std::collections::HashSet;

use super::{
    AckToken, Items, Kind, RawMessage, Reason, Rejection, RejectionDigest, SensorIdentifier,
    elements,
};
use bytes::Bytes;

/// A decoded message. It is boxed, so that each hop moves a pointer (measured: a tenth of the CPU of a
/// drain).
#[derive(Debug)]
pub struct Uplink {
    /// None if the topic names no sensor.
    pub sensor: Option<SensorIdentifier>,
    /// None if the topic names no kind.
    pub kind: Option<Kind>,
    /// The items that can be stored.
    pub items: Items,
    /// Rejections of the others.
    pub rejections: Vec<Rejection>,
    /// The message as received.
    pub message: RawMessage,
    /// Settles the message once it is committed.
    pub ack_token: AckToken,
}

impl Uplink {
    /// A message of which nothing is decoded yet.
    pub fn new(message: RawMessage, ack_token: AckToken) -> Self {
        let (sensor, kind, items, rejections) = (None, None, Items::Nothing, Vec::new());
        Self { sensor, kind, items, rejections, message, ack_token }
    }

    /// The number of items, including rejected ones, as the ledger counts them as received.
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

    /// The memory that it occupies, including its rejections, which can be a hundred times larger than
    /// the message.
    pub fn size_bytes(&self) -> usize {
        let rejections = self.rejections.iter();
        let grown: usize =
            rejections.map(|it| size_of::<Rejection>() + it.topic.len() + it.detail.len()).sum();
        size_of::<Self>() + self.message.size_bytes() + grown
    }

    /// Rejects the whole message, which replaces earlier rejections of its items. A message whose items
    /// are unknown counts as one item.
    pub fn reject(&mut self, reason: Reason, detail: String) {
        let item_count = self.item_count().max(1);
        let rejection = self.rejection(self.digest(), reason, detail);
        self.items = Items::Nothing;
        self.rejections = vec![Rejection { item_count, ..rejection }];
    }

    /// Whether items are rejected one by one, and not the whole message.
    pub fn is_rejected_by_item(&self) -> bool {
        self.rejections.iter().any(|rejection| rejection.item_index.is_some())
    }

    /// A rejection of the whole message, counted as one item.
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
            delivered_once: self.message.delivered_once,
            kept: true,
            digest,
        }
    }

    /// The message's digest, which its rejections share: that of the first, if there is one. If nothing delivers the
    /// message again and items are timed at their receipt, the time is part of it.
    pub fn digest(&self) -> RejectionDigest {
        match self.rejections.first() {
            Some(rejection) => rejection.digest,
            None if self.message.delivered_once && self.items.has_timed_at_receipt() => {
                self.digest_at_receipt()
            }
            None => RejectionDigest::of(self.message.topic(), self.message.payload()),
        }
    }

    /// Differs from the digest of an equal message that was received at another time: for messages that nothing delivers
    /// again, with items that have no timestamp of their own.
    pub fn digest_at_receipt(&self) -> RejectionDigest {
        let RawMessage { received_at, .. } = self.message;
        RejectionDigest::of_received_at(self.message.topic(), self.message.payload(), received_at)
    }

    /// Marks the message as stored or rejected by another transaction. Returns the number of its items,
    /// also if called again.
    pub fn set_already_handled(&mut self) -> u32 {
        let item_count = self.item_count();
        self.items = Items::AlreadyHandled(item_count);
        self.rejections.clear();
        item_count
    }

    /// Turns items into rejections. `refused`: indexes in `items`, and a detail for each.
    pub fn reject_items(&mut self, mut refused: Vec<(u32, String)>, reason: Reason) {
        let rejected: HashSet<u32> =
            self.rejections.iter().filter_map(|it| it.item_index).collect();
        // From an index in `items` to the index in the payload's array.
        let indexes: Vec<u32> =
            (0..self.item_count()).filter(|index| !rejected.contains(index)).collect();
        let (digest, texts) = (self.digest(), self.item_texts());
        // From the back, so that the remaining indexes stay valid.
        refused.sort_unstable_by_key(|(item, _)| std::cmp::Reverse(*item));
        for (item, detail) in refused {
            self.items.remove(item as usize);
            let index = indexes[item as usize];
            let mut rejection = self.rejection(digest, reason, detail);
            rejection.item_index = Some(index);
            if let Some(text) = texts.get(index as usize) {
                rejection.raw = text.clone();
            }
            self.rejections.push(rejection);
        }
    }

    /// The elements of the payload's array as sent; empty if they cannot be found.
    fn item_texts(&self) -> Vec<Bytes> {
        let Some(kind) = self.kind else { return Vec::new() };
        let texts = elements(kind, self.message.payload()).unwrap_or_default();
        texts.into_iter().map(|text| self.message.keep_part(text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AckTokens, Heartbeat, ItemHead, Timestamp};
    use smallvec::SmallVec;

    fn three_heartbeats(payload: &[u8]) -> Uplink {
        let heartbeat = Heartbeat { head: ItemHead::default(), success: true };
        let message = RawMessage::new("heartbeats/x", payload, Timestamp::default(), false);
        Uplink {
            kind: Some(Kind::Heartbeat),
            items: Items::Heartbeats(SmallVec::from_elem(heartbeat, 3)),
            ..Uplink::new(message, AckTokens::new().0.issue(0))
        }
    }

    #[test]
    fn a_refused_item_is_kept_without_its_message() {
        let payload = br#"{"x":1,"heartbeats":[ {"a":0}, {"a": 1} ,{"a":2}]}"#;
        let mut uplink = three_heartbeats(payload);
        uplink.reject_items(vec![(1, String::new())], Reason::RefusedByDatabase);
        assert_eq!(uplink.rejections[0].raw, r#"{"a": 1}"#);

        let mut uplink = three_heartbeats(b"\xef\xbb\xbf[{}, {\"a\":1}, NaN]\0");
        uplink.reject_items(vec![(1, String::new())], Reason::RefusedByDatabase);
        assert_eq!(uplink.rejections[0].raw, r#"{"a":1}"#);
    }

    #[test]
    fn an_equal_item_timed_at_another_receipt_is_another_rejection() {
        let digest = |received_at| {
            let mut uplink = three_heartbeats(b"[{}]");
            let Items::Heartbeats(items) = &mut uplink.items else { unreachable!() };
            items.truncate(1);
            items[0].head.timed_at_receipt = true;
            uplink.message.delivered_once = true;
            uplink.message.received_at = Timestamp::from_unix_microseconds(received_at);
            uplink.reject_items(vec![(0, String::new())], Reason::RefusedByDatabase);
            uplink.rejections[0].digest
        };
        assert_ne!(digest(1), digest(2));
    }

    #[test]
    fn rejecting_a_message_keeps_its_item_count_and_its_payload() {
        let mut uplink = three_heartbeats(b"{}");
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
