//! What a broken sensor says: items and payloads that the service has to reject one by one. Called
//! for the share that `--bad` asks for. Each carries its moment somewhere, so that no two are the
//! same: the service keeps one record of a payload that comes twice.

use std::io::Write as _;

use super::random::Random;
use super::text;
use crate::domain::Kind;

/// An eighth of what is bad is a payload that is broken as a whole.
pub(super) fn whole_message(random: &mut Random) -> bool {
    random.below(8) == 0
}

/// What is wrong with an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ItemFlaw {
    NestedValue,
    ListForValue,
    NoValue,
    NullCharacter,
    DuplicateMember,
    LongName,
    HugeNumber,
    NegativeRevision,
    FractionalRevision,
    LargeRevision,
    NoTimestamp,
    TextForTimestamp,
    SmallUnits,
    NoObject,
}

const ITEM_FLAWS: [ItemFlaw; 14] = [
    ItemFlaw::NestedValue,
    ItemFlaw::ListForValue,
    ItemFlaw::NoValue,
    ItemFlaw::NullCharacter,
    ItemFlaw::DuplicateMember,
    ItemFlaw::LongName,
    ItemFlaw::HugeNumber,
    ItemFlaw::NegativeRevision,
    ItemFlaw::FractionalRevision,
    ItemFlaw::LargeRevision,
    ItemFlaw::NoTimestamp,
    ItemFlaw::TextForTimestamp,
    ItemFlaw::SmallUnits,
    ItemFlaw::NoObject,
];

/// A bad item of a measurements message.
pub(super) fn measurement(revision: i32, taken: i64, random: &mut Random, out: &mut Vec<u8>) {
    let flaw = random.pick(&ITEM_FLAWS);
    flawed_measurement(flaw, revision, &seconds(taken), out);
}

fn flawed_measurement(flaw: ItemFlaw, revision: i32, at: &str, out: &mut Vec<u8>) {
    let good_value = r#"{"temperature":21.37}"#;
    let value = match flaw {
        ItemFlaw::NestedValue => r#"{"temperature":{"celsius":21.37}}"#,
        ItemFlaw::ListForValue => "[21.37,45.2]",
        ItemFlaw::NullCharacter => r#"{"station":"roof\u0000top"}"#,
        ItemFlaw::DuplicateMember => r#"{"temperature":21.37,"temperature":21.38}"#,
        ItemFlaw::LongName => {
            r#"{"the-temperature-at-the-far-end-of-the-long-corridor-on-the-third-floor":21.37}"#
        }
        ItemFlaw::HugeNumber => r#"{"temperature":1e200000}"#,
        _ => good_value,
    };
    let written = match flaw {
        ItemFlaw::NoValue => write!(out, r#"{{"revision":{revision},"timestamp":{at}}}"#),
        ItemFlaw::NoTimestamp => {
            write!(out, r#"{{"revision":{revision},"sent":{at},"value":{value}}}"#)
        }
        ItemFlaw::TextForTimestamp => {
            write!(out, r#"{{"revision":{revision},"timestamp":"{at}","value":{value}}}"#)
        }
        ItemFlaw::SmallUnits => {
            let small_units = at.replace('.', "");
            write!(out, r#"{{"revision":{revision},"timestamp":{small_units}000,"value":{value}}}"#)
        }
        ItemFlaw::NegativeRevision => {
            write!(out, r#"{{"revision":-1,"timestamp":{at},"value":{value}}}"#)
        }
        ItemFlaw::FractionalRevision => {
            write!(out, r#"{{"revision":1.5,"timestamp":{at},"value":{value}}}"#)
        }
        ItemFlaw::LargeRevision => {
            write!(out, r#"{{"revision":2147483648,"timestamp":{at},"value":{value}}}"#)
        }
        ItemFlaw::NoObject => write!(out, r#""21.37 at {at}""#),
        _ => write!(out, r#"{{"revision":{revision},"timestamp":{at},"value":{value}}}"#),
    };
    written.expect("writing to memory succeeds");
}

/// A log message with one bad item.
pub(super) fn log_message(revision: i32, written: i64, random: &mut Random, out: &mut Vec<u8>) {
    let at = seconds(written);
    let item = match random.below(5) {
        0 => format!(
            r#""severity":"catastrophe","revision":{revision},"timestamp":{at},"subject":"The CPU is burning""#
        ),
        1 => format!(r#""severity":"info","revision":{revision},"timestamp":{at},"subject":"""#),
        2 => format!(r#""severity":"info","revision":{revision},"timestamp":{at}"#),
        3 => format!(r#""severity":"info","revision":-1,"timestamp":{at},"subject":"Clock set""#),
        _ => {
            format!(r#""severity":"info","revision":{revision},"sent":{at},"subject":"Clock set""#)
        }
    };
    write!(out, r#"{{"log_messages":[{{{item}}}]}}"#).expect("writing to memory succeeds");
}

/// A payload that is broken as a whole.
pub(super) fn message(kind: Kind, at: i64, random: &mut Random, out: &mut Vec<u8>) {
    let member = kind.envelope_member();
    let at = seconds(at);
    let written = match random.below(6) {
        0 => write!(out, "temperature=21.37;at={at}"),
        1 => write!(out, r#"{{"{member}":[{{"revision":0,"timestamp":{at}"#),
        2 => write!(out, r#"["{member}",{at}]"#),
        3 => write!(out, r#"{{"readings":[{{"revision":0,"timestamp":{at}}}]}}"#),
        4 => write!(out, r#"{{"{member}":[],"sent":{at}}}"#),
        _ => {
            // Latin-1, as old firmware has it: no UTF-8.
            out.extend_from_slice(b"{\"unit\":\"\xb0C\",");
            write!(out, r#""at":{at}}}"#)
        }
    };
    written.expect("writing to memory succeeds");
}

fn seconds(unix_microseconds: i64) -> String {
    let mut written = Vec::new();
    text::seconds(unix_microseconds, &mut written);
    String::from_utf8(written).expect("digits are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const AT: i64 = 1_763_971_200_123_456;

    #[test]
    fn every_flaw_is_drawn_and_stays_inside_its_item() {
        let mut random = Random::new(1, 1);
        for (index, &flaw) in ITEM_FLAWS.iter().enumerate() {
            assert!((0..1_000).any(|_| random.pick(&ITEM_FLAWS) == flaw), "{flaw:?}");
            let mut out = b"[".to_vec();
            flawed_measurement(flaw, 0, "1763971200.123456", &mut out);
            out.push(b']');
            // Valid JSON around it, so that the neighbours of the item can be told.
            let items: Vec<Box<serde_json::value::RawValue>> =
                serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{flaw:?}: {error}"));
            assert_eq!(items.len(), 1, "{index}");
        }
    }

    #[test]
    fn milliseconds_lie_beyond_the_calendar() {
        for at in ["1763971200", "1763971200.123456"] {
            let mut out = Vec::new();
            flawed_measurement(ItemFlaw::SmallUnits, 0, at, &mut out);
            let item: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let seconds = item["timestamp"].as_f64().unwrap();
            assert!(seconds > crate::domain::Timestamp::MAX_UNIX_SECONDS);
        }
    }

    #[test]
    fn no_two_are_the_same() {
        let mut random = Random::new(1, 1);
        let mut seen = HashSet::new();
        for step in 0..3_000 {
            let mut out = Vec::new();
            match step % 3 {
                0 => measurement(0, AT + step, &mut random, &mut out),
                1 => log_message(0, AT + step, &mut random, &mut out),
                _ => message(Kind::Measurement, AT + step, &mut random, &mut out),
            }
            assert!(seen.insert(out));
        }
    }
}
