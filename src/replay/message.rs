//! Rebuilds a message from a row of `rejection`. Called by the replayer; pure. The payload contains only
//! what was rejected.

use crate::domain::{RawMessage, RejectionDigest, elements};
use crate::store::RejectionRow;
use crate::wire;

/// Why a rejection cannot be replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotReplayableCause {
    /// The payload was over `MAX_PAYLOAD_BYTES`.
    #[error("only the beginning of the payload was stored")]
    Incomplete,
    /// The stored payload has no such item.
    #[error("the item cannot be found in the stored payload")]
    ItemNotFound,
}

/// `raw` is the payload if its digest is that of the message; else it is one item, or the beginning of a
/// payload that was too large.
pub(super) fn message(row: &RejectionRow) -> Result<RawMessage, NotReplayableCause> {
    let (topic, raw) = (&row.topic, &row.raw);
    let is_whole = row.digest == RejectionDigest::of(topic, raw)
        || row.delivered_once
            && row.digest == RejectionDigest::of_received_at(topic, raw, row.received_at);
    let payload = match (row.item_index, is_whole) {
        (None, true) => Some(row.raw.clone()),
        (None, false) => return Err(NotReplayableCause::Incomplete),
        (Some(index), true) => row.kind.and_then(|kind| {
            let items = elements(kind, &row.raw).ok()?;
            items.get(index as usize).map(|item| wire::envelop(kind, item))
        }),
        (Some(_), false) => row.kind.map(|kind| wire::envelop(kind, &row.raw)),
    };
    let payload = payload.ok_or(NotReplayableCause::ItemNotFound)?;
    let mut message = RawMessage::replayed(&row.topic, &payload, row.received_at, row.identifier);
    message.delivered_once = row.delivered_once;
    message.first_item = row.item_index.unwrap_or(0);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Kind, Timestamp};

    const TOPIC: &str = "measurements/81bf7042-e20f-4a97-ac44-c15853e3618f";
    const MESSAGE: &str = r#"{"measurements":[{"a":1}, {"b":[2]} ],"more":0}"#;

    fn rejection(item_index: Option<u32>, raw: &str, message: &str) -> RejectionRow {
        RejectionRow {
            identifier: 7,
            received_at: Timestamp::from_unix_microseconds(5),
            topic: TOPIC.into(),
            sensor: None,
            kind: Some(Kind::Measurement),
            item_index,
            item_count: 1,
            reason: String::new(),
            detail: String::new(),
            delivered_once: true,
            raw: raw.into(),
            digest: RejectionDigest::of(TOPIC, message.as_bytes()),
        }
    }

    fn payload(row: &RejectionRow) -> Result<String, NotReplayableCause> {
        let message = message(row)?;
        assert_eq!((message.topic(), message.replayed_from), (TOPIC, Some(7)));
        assert!(message.may_be_stored, "it may be a row already");
        assert_eq!(message.received_at, row.received_at);
        assert!(message.delivered_once);
        // Without a timestamp of its own, it is stored where it would have been.
        assert_eq!(message.first_item, row.item_index.unwrap_or(0));
        Ok(String::from_utf8(message.payload().to_vec()).unwrap())
    }

    #[test]
    fn a_message_is_replayed_unchanged() {
        assert_eq!(payload(&rejection(None, MESSAGE, MESSAGE)), Ok(MESSAGE.into()));
        assert_eq!(payload(&rejection(None, "{", "{")), Ok("{".into()));
        let row = rejection(None, MESSAGE, MESSAGE);
        let digest = RejectionDigest::of_received_at(TOPIC, MESSAGE.as_bytes(), row.received_at);
        assert_eq!(payload(&RejectionRow { digest, ..row }), Ok(MESSAGE.into()));
    }

    #[test]
    fn an_item_is_replayed_alone() {
        let alone = r#"{"measurements":[{"b":[2]}]}"#.to_owned();
        let kept_alone = rejection(Some(1), r#"{"b":[2]}"#, MESSAGE);
        assert_eq!(payload(&kept_alone).as_ref(), Ok(&alone));
        let kept_with_its_message = rejection(Some(1), MESSAGE, MESSAGE);
        assert_eq!(payload(&kept_with_its_message), Ok(alone));
    }

    #[test]
    fn an_incomplete_rejection_is_not_replayed() {
        let beginning = rejection(None, &MESSAGE[..20], MESSAGE);
        assert_eq!(payload(&beginning), Err(NotReplayableCause::Incomplete));
        let beyond = rejection(Some(2), MESSAGE, MESSAGE);
        assert_eq!(payload(&beyond), Err(NotReplayableCause::ItemNotFound));
    }
}
