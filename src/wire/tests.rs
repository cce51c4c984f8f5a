//! What the wire format promises, message by message.

use proptest::prelude::*;

use super::*;
use crate::domain::{AckTokens, SensorIdentifier, Timestamp};

const SENSOR: &str = "81bf7042-e20f-4a97-ac44-c15853e3618f";

fn decoder() -> Decoder {
    Decoder::new(Topics::new(""), few(100))
}

fn few(items_per_message: usize) -> Limits {
    Limits { items_per_message, ..Limits::DEFAULT }
}

fn decode(kind: Kind, payload: &[u8]) -> Box<Uplink> {
    let (ack_tokens, _lost) = AckTokens::new();
    let topic = format!("{}/{SENSOR}", kind.topic_level());
    let message = RawMessage::new(&topic, payload, Timestamp::now(), false);
    decoder().decode(message, ack_tokens.issue(0))
}

fn reasons(uplink: &Uplink) -> Vec<(Option<u32>, Reason)> {
    uplink.rejections.iter().map(|it| (it.item_index, it.reason)).collect()
}

#[test]
fn reads_the_three_kinds() {
    let uplink = decode(
        Kind::Measurement,
        br#"{"measurements":[{"revision":7,"timestamp":1700000000.25,"value":{"a":1.0}}]}"#,
    );
    let Items::Measurements(items) = &uplink.items else { panic!("{uplink:?}") };
    assert_eq!(items[0].head.revision, Some(7));
    assert_eq!(items[0].head.timestamp.unix_microseconds(), 1_700_000_000_250_000);
    assert_eq!(uplink.message.bytes(items[0].value), br#"{"a":1.0}"#);
    assert_eq!(uplink.sensor, SensorIdentifier::parse(SENSOR));

    let uplink = decode(
        Kind::LogMessage,
        br#"{"log_messages":[{"severity":"warning","revision":0,"timestamp":0.0,"subject":"The CPU is burning","details":"Please call the fire department"},{"severity":"info","revision":0,"timestamp":0,"subject":"\u00e9"}]}"#,
    );
    let Items::LogMessages(items) = &uplink.items else { panic!("{uplink:?}") };
    assert_eq!(items[0].details.as_deref(), Some("Please call the fire department"));
    assert_eq!((&*items[1].subject, &items[1].details), ("é", &None));

    let uplink =
        decode(Kind::Heartbeat, br#"{"heartbeats":[{"revision":0,"timestamp":0,"success":true}]}"#);
    let Items::Heartbeats(items) = &uplink.items else { panic!("{uplink:?}") };
    assert!(items[0].success);
}

#[test]
fn no_revision_is_sent_as_null_as_minus_one_or_not_at_all() {
    let member = [r#""revision":null,"#, r#""revision":-1,"#, ""];
    for (kind, rest) in [
        (Kind::Measurement, r#""timestamp":0,"value":{}"#),
        (Kind::LogMessage, r#""timestamp":0,"severity":"info","subject":"s""#),
        (Kind::Heartbeat, r#""timestamp":0,"success":true"#),
    ] {
        let items = member.map(|member| format!("{{{member}{rest}}}")).join(",");
        let payload = format!("{{\"{}\":[{items}]}}", kind.envelope_member());
        assert_eq!(disagreement(kind, &payload, few(3)), None);
        let uplink = decode(kind, payload.as_bytes());
        assert_eq!((uplink.items.len(), uplink.rejections.len()), (3, 0), "{payload}");
        assert_eq!(uplink.items.newest_revision(), Some(None));
        let first = uplink.items.identity(0);
        assert!((1..3).all(|index| uplink.items.identity(index) == first), "one row, not three");
    }
}

/// Decoded with `TIMESTAMP_MISSING=receipt`.
fn decode_timed(payload: &[u8], change: impl Fn(&mut RawMessage)) -> Box<Uplink> {
    let (ack_tokens, _lost) = AckTokens::new();
    let received_at = Timestamp::from_unix_microseconds(7_000_000);
    let topic = format!("measurements/{SENSOR}");
    let mut message = RawMessage::new(&topic, payload, received_at, false);
    change(&mut message);
    let limits = Limits { timestamp_missing: TimestampMissing::Receipt, ..few(100) };
    Decoder::new(Topics::new(""), limits).decode(message, ack_tokens.issue(0))
}

#[test]
fn an_item_without_a_timestamp_is_dated_by_its_receipt_if_it_cannot_come_again() {
    let item = r#"{"value":{}}"#;
    let fast = format!(
        r#"[{item},{{"timestamp":null,"value":{{}}}},{{"timestamp":5,"value":{{}}}},{item}]"#
    );
    let careful = fast.replace(']', ",NaN]");
    for (payload, refused) in [(&fast, 0), (&careful, 1)] {
        let uplink = decode_timed(payload.as_bytes(), |message| message.delivered_once = true);
        let Items::Measurements(items) = &uplink.items else { panic!("{uplink:?}") };
        let times = items
            .iter()
            .map(|it| (it.head.timestamp.unix_microseconds(), it.head.timed_at_receipt));
        let expected =
            [(7_000_000, true), (7_000_001, true), (5_000_000, false), (7_000_003, true)];
        assert_eq!(
            (times.collect::<Vec<_>>(), uplink.rejections.len()),
            (expected.into(), refused)
        );
    }
    // An item of an array that is replayed by itself.
    let replayed = decode_timed(format!("[{item}]").as_bytes(), |message| {
        (message.delivered_once, message.first_item) = (true, 3);
    });
    assert_eq!(replayed.items.identity(0).0.unix_microseconds(), 7_000_003);

    for (retained, why) in [
        (false, "timestamp is missing; the time of receipt takes its place only at QoS 0"),
        (
            true,
            "timestamp is missing; the time of receipt does not take its place, because a retained",
        ),
    ] {
        let uplink = decode_timed(fast.as_bytes(), |message| message.retained = retained);
        let refused = [0, 1, 3].map(|index| (Some(index), Reason::InvalidTimestamp));
        assert_eq!((reasons(&uplink), uplink.items.len()), (refused.into(), 1));
        assert!(uplink.rejections[0].detail.starts_with(why), "{:?}", uplink.rejections[0]);
        assert!(uplink.rejections[1].detail.starts_with("timestamp is null; "));
    }
    let details = decode(Kind::Measurement, fast.as_bytes()).rejections;
    assert_eq!(details[0].detail, "timestamp is missing", "by default");
}

#[test]
fn a_bad_message_has_its_reason() {
    let many = format!(
        r#"{{"measurements":[{}]}}"#,
        vec![r#"{"revision":0,"timestamp":0,"value":{}}"#; 101].join(",")
    );
    for (payload, reason, item_count) in [
        (&b"{"[..], Reason::NotJson, 1),
        (b"\xff", Reason::NotUtf8, 1),
        (br#"{"measurements":[NaN"#, Reason::NotJson, 1),
        (br#"{"measurements":[NaN"]}"#, Reason::NotJson, 1),
        (b"{\"measurements\":[]} x", Reason::NotJson, 1),
        (b"[]", Reason::NoItems, 1),
        (b"\xef\xbb\xbf[,]\0", Reason::NoItems, 1),
        (b"{}", Reason::InvalidShape, 1),
        (br#"{"measurements":{}}"#, Reason::InvalidShape, 1),
        (br#"{"measurements":[],"measurements":[]}"#, Reason::InvalidShape, 1),
        (br#"{"heartbeats":[]}"#, Reason::InvalidShape, 1),
        (br#"{"measurements":[]}"#, Reason::NoItems, 1),
        (many.as_bytes(), Reason::TooManyItems, 101),
    ] {
        let uplink = decode(Kind::Measurement, payload);
        let shown = String::from_utf8_lossy(payload);
        assert_eq!(reasons(&uplink), [(None, reason)], "{shown:.60}");
        assert_eq!(uplink.item_count(), item_count, "{shown:.60}");
        assert_eq!(uplink.rejections[0].raw, payload);
    }
}

#[test]
fn a_bad_item_has_its_reason_and_its_neighbours_stay() {
    let good = r#"{"revision":1,"timestamp":2,"value":{"a":1}}"#;
    for (bad, reason) in [
        ("1", Reason::InvalidItem),
        ("[]", Reason::InvalidItem),
        (r#"{"revision":0,"revision":0,"timestamp":0,"value":{}}"#, Reason::InvalidItem),
        (r#"{"revision":0,"timestamp":0,"value":{"t":NaN}}"#, Reason::NotANumber),
        (r#"{"revision":0,"timestamp":0,"value":{"t":-Infinity}}"#, Reason::NotANumber),
        (r#"{"revision":0,"timestamp":inf,"value":{}}"#, Reason::NotANumber),
        (r#"{"revision":0,"timestamp":0,"value":{"t":-nan(ind)}}"#, Reason::NotANumber),
        (r#"{"revision":0,"timestamp":0,"value":{"t":1.#QNAN}}"#, Reason::NotANumber),
        (r#"{"revision":0,"timestamp":0,"value":{"t":+1}}"#, Reason::InvalidItem),
        (r#"{"revision":0,"timestamp":0,"value":{"t":0x1F}}"#, Reason::InvalidItem),
        (r#"{"revision":00,"timestamp":0,"value":{}}"#, Reason::InvalidItem),
        ("{'revision':0,'timestamp':0,'value':{'a':'},{'}}", Reason::InvalidItem),
        ("{revision:0,timestamp:0,value:{}}", Reason::InvalidItem),
        ("{\"revision\":0,\"timestamp\":0,\"value\":{\"a\":\"a\nb\"}}", Reason::InvalidItem),
        (r#"{"revision":0,"timestamp":0,"value":{},}"#, Reason::InvalidItem),
        ("None", Reason::InvalidItem),
        (r#"{"revision":-2,"timestamp":0,"value":{}}"#, Reason::InvalidRevision),
        (r#"{"revision":2147483648,"timestamp":0,"value":{}}"#, Reason::InvalidRevision),
        (r#"{"revision":0.0,"timestamp":0,"value":{}}"#, Reason::InvalidRevision),
        (r#"{"revision":"0","timestamp":0,"value":{}}"#, Reason::InvalidRevision),
        (r#"{"revision":0,"value":{}}"#, Reason::InvalidTimestamp),
        (r#"{"revision":0,"timestamp":-1,"value":{}}"#, Reason::InvalidTimestamp),
        (r#"{"revision":0,"timestamp":1e999,"value":{}}"#, Reason::InvalidTimestamp),
        (r#"{"revision":0,"timestamp":1700000000000,"value":{}}"#, Reason::InvalidTimestamp),
        (r#"{"revision":0,"timestamp":null,"value":{}}"#, Reason::InvalidTimestamp),
        (r#"{"revision":0,"timestamp":0}"#, Reason::InvalidValue),
        (r#"{"revision":0,"timestamp":0,"value":[]}"#, Reason::InvalidValue),
        (r#"{"revision":0,"timestamp":0,"value":{"a":[]}}"#, Reason::NestedValue),
        (r#"{"revision":0,"timestamp":0,"value":{"a":"\u0000"}}"#, Reason::NulCharacter),
        (r#"{"revision":0,"timestamp":0,"value":{"a":1e200000}}"#, Reason::InvalidNumber),
    ] {
        let payload = format!(r#"{{"measurements":[{good},{bad},{good}]}}"#);
        let uplink = decode(Kind::Measurement, payload.as_bytes());
        assert_eq!(reasons(&uplink), [(Some(1), reason)], "{bad}");
        assert_eq!(uplink.rejections[0].raw, bad);
        assert_eq!((uplink.items.len(), uplink.item_count()), (2, 3), "{bad}");
    }
    for (bad, reason) in [
        (
            r#"{"severity":"fatal","revision":0,"timestamp":0,"subject":"s"}"#,
            Reason::InvalidSeverity,
        ),
        (r#"{"revision":0,"timestamp":0,"subject":"s"}"#, Reason::InvalidSeverity),
        (r#"{"severity":"info","revision":0,"timestamp":0,"subject":""}"#, Reason::InvalidSubject),
        (r#"{"severity":"info","revision":0,"timestamp":0}"#, Reason::InvalidSubject),
        (r#"{"severity":"info","revision":0,"timestamp":0,"subject":1}"#, Reason::InvalidSubject),
        (
            r#"{"severity":"info","revision":0,"timestamp":0,"subject":"\u0000"}"#,
            Reason::NulCharacter,
        ),
        (
            r#"{"severity":"info","revision":0,"timestamp":0,"subject":"\ud800"}"#,
            Reason::InvalidText,
        ),
        (
            r#"{"severity":"info","revision":0,"timestamp":0,"subject":"s","details":1}"#,
            Reason::InvalidDetails,
        ),
    ] {
        let payload = format!(r#"{{"log_messages":[{bad}]}}"#);
        assert_eq!(reasons(&decode(Kind::LogMessage, payload.as_bytes())), [(Some(0), reason)]);
    }
    for bad in [
        r#"{"revision":0,"timestamp":0}"#,
        r#"{"revision":0,"timestamp":0,"success":1}"#,
        r#"{"revision":0,"timestamp":0,"success":null}"#,
    ] {
        let payload = format!(r#"{{"heartbeats":[{bad}]}}"#);
        let uplink = decode(Kind::Heartbeat, payload.as_bytes());
        assert_eq!(reasons(&uplink), [(Some(0), Reason::InvalidSuccess)]);
    }
}

#[test]
fn a_message_becomes_subject_and_details() {
    for (members, subject, details) in [
        (r#""message":"first line\nmore\nand more""#, "first line", Some("more\nand more")),
        (r#""message":"\r\n one line""#, " one line", None),
        (r#""message":"a\r\nb","subject":"""#, "a", Some("b")),
        (r#""message":"a\nb","details":"c""#, "a", Some("b\nc")),
        (r#""message":"a","details":"c""#, "a", Some("c")),
        (r#""message":5,"subject":"s""#, "s", None),
        (r#""message":"m","subject":"s","details":null"#, "s", None),
    ] {
        let payload = format!(r#"[{{"severity":"error","timestamp":0,{members}}}]"#);
        assert_eq!(disagreement(Kind::LogMessage, &payload, few(1)), None, "{payload}");
        let uplink = decode(Kind::LogMessage, payload.as_bytes());
        let Items::LogMessages(items) = &uplink.items else { panic!("{uplink:?}") };
        assert_eq!((&*items[0].subject, items[0].details.as_deref()), (subject, details));
    }
    for members in [
        r#""message":"""#,
        r#""message":"\n""#,
        r#""message":5"#,
        r#""message":null"#,
        r#""subject":null,"message":"m""#,
        r#""revision":0"#,
    ] {
        let payload = format!(r#"[{{"severity":"error","timestamp":0,{members}}}]"#);
        assert_eq!(disagreement(Kind::LogMessage, &payload, few(1)), None, "{payload}");
        let uplink = decode(Kind::LogMessage, payload.as_bytes());
        assert_eq!(reasons(&uplink), [(Some(0), Reason::InvalidSubject)], "{payload}");
    }
}

#[test]
fn a_malformed_item_is_named() {
    for (item, detail) in [
        (
            r#"{"timestamp":0,"value":{"t":1,"h":NaN}}"#,
            "value.h is NaN, which JSON does not have; send null, or leave it out",
        ),
        (r#"{"timestamp":0,"value":{"t":+1}}"#, "value.t is +1, which is not JSON"),
        (
            "-Infinity",
            "the item is -Infinity, which JSON does not have; send null, or leave it out",
        ),
        (r#"{"a":1 "b":2}"#, "the item is not JSON: expected `,` or `}` at line 1 column 8"),
    ] {
        let payload = format!(r#"{{"measurements":[{item}]}}"#);
        assert_eq!(decode(Kind::Measurement, payload.as_bytes()).rejections[0].detail, detail);
    }
    let latin_1 =
        b"[{\"timestamp\":0,\"value\":{\"t\":\"1 \xb0C\"}},{\"timestamp\":0,\"value\":{}}]";
    let uplink = decode(Kind::Measurement, latin_1);
    assert_eq!((reasons(&uplink), uplink.items.len()), (vec![(Some(0), Reason::NotUtf8)], 1));
    assert_eq!(uplink.rejections[0].detail, "the item is not UTF-8 at byte 31");
}

#[test]
fn surrounding_text_does_not_change_an_item() {
    let item = r#"{"revision":7,"timestamp":5,"value":{"a":1}}"#;
    let plain = decode(Kind::Measurement, format!(r#"{{"measurements":[{item}]}}"#).as_bytes());
    for payload in [
        format!("{{\"measurements\":[{item}]}}\0"),
        format!("\u{feff}{{\"measurements\":[{item}]}}\0\0"),
        format!("\u{feff} [{item}]\r\n\0"),
        format!("[{item},]"),
        format!("{{\"rssi\":NaN,\"measurements\":[{item}]}}"),
    ] {
        let uplink = decode(Kind::Measurement, payload.as_bytes());
        assert_eq!((uplink.items.len(), uplink.rejections.len()), (1, 0), "{payload}");
        assert_eq!(uplink.items.identity(0), plain.items.identity(0), "{payload}");
        let Items::Measurements(items) = &uplink.items else { panic!("{uplink:?}") };
        assert_eq!(uplink.message.bytes(items[0].value), br#"{"a":1}"#, "{payload}");
    }
}

#[test]
fn a_topic_without_a_sensor_counts_as_one() {
    let (ack_tokens, _lost) = AckTokens::new();
    for (topic, reason) in [
        ("measurements/roof", Reason::InvalidIdentifier),
        ("weather/81bf7042-e20f-4a97-ac44-c15853e3618f", Reason::UnknownTopic),
    ] {
        let message = RawMessage::new(topic, b"{}", Timestamp::now(), false);
        let uplink = decoder().decode(message, ack_tokens.issue(0));
        assert_eq!((reasons(&uplink), uplink.item_count()), (vec![(None, reason)], 1));
    }
}

#[test]
fn an_empty_payload_has_no_items() {
    let (ack_tokens, _lost) = AckTokens::new();
    for topic in [format!("measurements/{SENSOR}"), "heartbeats/roof".into(), "weather".into()] {
        let message = RawMessage::new(&topic, b"", Timestamp::now(), false);
        let uplink = decoder().decode(message, ack_tokens.issue(0));
        assert_eq!((uplink.sensor, uplink.item_count()), (None, 0), "{topic}");
    }
}

#[test]
fn unknown_members_are_tolerated() {
    let payload = br#"{"v":[{"x":1}],"measurements":[{"unit":"K","revision":0,"timestamp":0,"value":{},"\ud800":[1,{}]}]}"#;
    let uplink = decode(Kind::Measurement, payload);
    assert_eq!((uplink.items.len(), uplink.rejections.len()), (1, 0), "{:?}", uplink.rejections);
}

#[test]
fn an_oversized_message_keeps_its_beginning() {
    let (ack_tokens, _lost) = AckTokens::new();
    let topic = format!("measurements/{SENSOR}");
    let message = RawMessage::new(&topic, b"{\"mea", Timestamp::now(), false);
    let oversized = Oversized { size_bytes: 2 << 20, digest: RejectionDigest(7) };
    let uplink = decoder().refuse(message, oversized, ack_tokens.issue(0));
    assert_eq!(reasons(&uplink), [(None, Reason::PayloadTooLarge)]);
    assert_eq!(uplink.rejections[0].digest, RejectionDigest(7));
    assert!(uplink.rejections[0].detail.contains("2097152 bytes"));
    assert!(uplink.sensor.is_some());
}

/// Items good and bad, in all their ways.
fn item() -> impl Strategy<Value = String> {
    let revision = prop_oneof![
        4 => Just("0".to_owned()), 1 => any::<i64>().prop_map(|n| n.to_string()),
        1 => Just("1.0".into()), 1 => Just("\"1\"".into()), 1 => Just("null".into()), 1 => Just("-1".into()),
    ];
    let timestamp = prop_oneof![
        4 => (0f64..3e11).prop_map(|n| n.to_string()), 1 => any::<f64>().prop_map(|n| n.to_string()),
        1 => Just("1e3".to_owned()), 1 => Just("true".into()), 1 => Just("null".into()),
    ];
    let value = prop_oneof![
        4 => Just("{}".to_owned()), 4 => Just(r#"{"a":1,"b":"x\n"}"#.into()),
        1 => Just(r#"{ "a" : -0.0 }"#.into()), 1 => Just(r#"{"a":{}}"#.into()),
        1 => Just(r#"{"a":"\ud800"}"#.into()), 1 => Just("[]".into()), 1 => Just(r#"{"a":1,"a":2}"#.into()),
    ];
    (revision, timestamp, value, 0..7u8).prop_map(|(revision, timestamp, value, form)| match form {
        0 => format!(r#"{{"timestamp":{timestamp},"revision":{revision},"value":{value}}}"#),
        5 => format!(r#"{{"timestamp":{timestamp},"value":{value}}}"#),
        6 => format!(r#"{{"revision":{revision},"value":{value}}}"#),
        1 => format!(
            r#"{{"revision":{revision},"timestamp":{timestamp},"value":{value},"more":[{{}}]}}"#
        ),
        2 => format!(
            r#"{{ "revision" : {revision} , "timestamp" : {timestamp} , "value" : {value} }}"#
        ),
        _ => format!(r#"{{"revision":{revision},"timestamp":{timestamp},"value":{value}}}"#),
    })
}

proptest! {
    /// The fast pass accepts just what the careful one would accept whole, and the same.
    #[test]
    fn both_passes_give_the_same_answer(items in proptest::collection::vec(item(), 0..5), limit in 1..5usize) {
        let mut payload = format!(r#"{{"measurements":[{}]}}"#, items.join(","));
        if limit == 1 {
            payload = format!("\u{feff} [{}]\0", items.join(","));
        }
        for timestamp_missing in [TimestampMissing::Reject, TimestampMissing::Receipt] {
            let limits = Limits { timestamp_missing, ..few(limit) };
            prop_assert_eq!(disagreement(Kind::Measurement, &payload, limits), None);
        }
    }

    #[test]
    fn every_item_is_accounted_for(items in proptest::collection::vec(item(), 1..20)) {
        let payload = format!(r#"{{"measurements":[{}]}}"#, items.join(","));
        let uplink = decode(Kind::Measurement, payload.as_bytes());
        prop_assert_eq!(uplink.item_count() as usize, items.len());
    }

    #[test]
    fn no_payload_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3usize) {
        let uplink = decode(Kind::ALL[kind], &payload);
        prop_assert!(uplink.item_count() > 0 || payload.is_empty());
    }
}
