//! Any payload: no panic; every item is accepted or rejected; the tables can store every accepted item; and
//! a rejected item is rejected for the same reason when it is decoded alone, as in a replay.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tributary_fuzz::domain::{Items, Timestamp, Uplink};
use tributary_fuzz::{decode, split};

fuzz_target!(|input: &[u8]| {
    let Some((kind, payload)) = split(input) else { return };
    let uplink = decode(kind, payload);
    assert!(
        uplink.item_count() > 0 || payload.is_empty(),
        "a non-empty payload has at least one item"
    );
    for item in 0..uplink.items.len() {
        let timestamp = uplink.items.head(item).timestamp;
        let latest = (Timestamp::MAX_UNIX_SECONDS * 1e6) as i64;
        assert!((0..=latest).contains(&timestamp.unix_microseconds()));
    }
    check_items(&uplink);
    for rejection in &uplink.rejections {
        let Some(index) = rejection.item_index else {
            assert_eq!(&rejection.raw[..], payload, "the whole message is kept");
            continue;
        };
        assert!(index < uplink.item_count());
        let member = kind.envelope_member().as_bytes();
        let alone = [b"{\"", member, b"\":[", &rejection.raw[..], b"]}"].concat();
        let again = decode(kind, &alone);
        assert!(again.items.is_empty() && again.rejections.len() == 1);
        assert_eq!(again.rejections[0].item_index, Some(0));
        assert_eq!(again.rejections[0].reason, rejection.reason);
        assert_eq!(again.rejections[0].detail, rejection.detail);
        assert_eq!(again.rejections[0].raw, rejection.raw);
    }
});

fn check_items(uplink: &Uplink) {
    match &uplink.items {
        Items::Nothing | Items::AlreadyHandled(_) | Items::Heartbeats(_) => {}
        Items::Measurements(items) => {
            for item in items {
                let text = uplink.message.bytes(item.value);
                let Ok(Value::Object(members)) = serde_json::from_slice(text) else {
                    // serde_json rejects numbers over the range of f64; jsonb stores them.
                    assert!(text.iter().any(|byte| b"eE".contains(byte)) || text.len() > 300);
                    continue;
                };
                for (key, value) in members {
                    assert!((1..=64).contains(&key.chars().count()) && !key.contains('\0'));
                    assert!(!value.is_array() && !value.is_object());
                    assert!(value.as_str().is_none_or(|text| !text.contains('\0')));
                }
            }
        }
        Items::LogMessages(items) => {
            for item in items {
                assert!(!item.subject.is_empty() && !item.subject.contains('\0'));
                assert!(item.details.as_deref().is_none_or(|details| !details.contains('\0')));
            }
        }
    }
    assert!(uplink.items.newest_revision().flatten().is_none_or(|revision| revision >= 0));
}
