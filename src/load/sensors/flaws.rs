//! What a broken sensor writes: items and payloads that the service has to reject one by one. Called for the
//! share that `--bad` asks for. Each carries its timestamp, so that no two are equal: the service keeps one
//! record of a payload that comes twice.

use rand::seq::IndexedRandom as _;
use rand::{Rng, RngExt as _};

use super::payload::{Revision, UnixSeconds};
use crate::domain::{Kind, Timestamp};

/// Bad items of a measurements message. `%` is the revision, `@` the timestamp, `#` the same in nanoseconds, `$` the kind's envelope member.
pub(super) const ITEMS: [&str; 16] = [
    r#"{"revision":%,"timestamp":@,"value":{"temperature":{"celsius":21.37}}}"#,
    r#"{"revision":%,"timestamp":@,"value":[21.37,45.2]}"#,
    r#"{"revision":%,"timestamp":@}"#,
    r#"{"revision":%,"timestamp":@,"value":{"station":"roof\u0000top"}}"#,
    r#"{"revision":%,"timestamp":@,"value":{"temperature":21.37,"temperature":21.38}}"#,
    r#"{"revision":%,"timestamp":@,"value":{"the-temperature-at-the-far-end-of-the-long-corridor-on-the-third-floor":21.37}}"#,
    r#"{"revision":%,"timestamp":@,"value":{"temperature":1e200000}}"#,
    r#"{"revision":-2,"timestamp":@,"value":{"temperature":21.37}}"#,
    r#"{"revision":1.5,"timestamp":@,"value":{"temperature":21.37}}"#,
    r#"{"revision":2147483648,"timestamp":@,"value":{"temperature":21.37}}"#,
    r#"{"revision":%,"sent":@,"value":{"temperature":21.37}}"#,
    r#"{"revision":%,"timestamp":"@","value":{"temperature":21.37}}"#,
    r#"{"revision":%,"timestamp":#,"value":{"temperature":21.37}}"#,
    // As Python, and firmware by hand, write it.
    r#"{"revision":%,"timestamp":@,"value":{"temperature":NaN}}"#,
    r#"{"revision":%,"timestamp":@,"value":{"temperature":+21.37}}"#,
    r#""21.37 at @""#,
];

/// Log messages with one bad item.
pub(super) const LOG_MESSAGES: [&str; 5] = [
    r#"{"log_messages":[{"severity":"catastrophe","revision":%,"timestamp":@,"subject":"The CPU is burning"}]}"#,
    r#"{"log_messages":[{"severity":"info","revision":%,"timestamp":@,"subject":""}]}"#,
    r#"{"log_messages":[{"severity":"info","revision":%,"timestamp":@}]}"#,
    r#"{"log_messages":[{"severity":"info","revision":-2,"timestamp":@,"subject":"Clock set"}]}"#,
    r#"{"log_messages":[{"severity":"info","revision":%,"sent":@,"subject":"Clock set"}]}"#,
];

/// Payloads that are broken as a whole.
pub(super) const MESSAGES: [&str; 6] = [
    "temperature=21.37;at=@",
    r#"{"$":[{"revision":0,"timestamp":@"#,
    r#"{"$":{"sent":@}}"#,
    r#"{"readings":[{"revision":0,"timestamp":@}]}"#,
    r#"{"$":[],"sent":@}"#,
    // Written in Latin-1, as old firmware does: no UTF-8.
    r#"{"unit":"°C","at":@}"#,
];

/// Of the messages with a bad item one in eight is broken as a whole.
pub(super) fn is_whole_message_invalid(random: &mut impl Rng) -> bool {
    random.random_ratio(1, 8)
}

/// One of these, chosen at random.
pub(super) fn one_of(
    templates: &[&str],
    (revision, at, kind): (Revision, Timestamp, Kind),
    random: &mut impl Rng,
) -> Vec<u8> {
    filled(templates.choose(random).expect("there are some"), revision, at, kind)
}

/// In Latin-1, which is ASCII for all templates but one.
fn filled(template: &str, revision: Revision, at: Timestamp, kind: Kind) -> Vec<u8> {
    let text = template
        .replace('%', &revision.to_string())
        .replace('@', &UnixSeconds(at).to_string())
        .replace('#', &format!("{}000", at.unix_microseconds()))
        .replace('$', kind.envelope_member());
    text.chars().map(|character| u8::try_from(character).unwrap_or(b'?')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::elements;
    use std::collections::HashSet;

    #[test]
    fn a_flawed_item_is_one_json_element() {
        for template in ITEMS {
            let item = filled(template, Revision(Some(3)), Timestamp::now(), Kind::Measurement);
            let payload = [b"[1,", &item[..], b",2]"].concat();
            let elements = elements(Kind::Measurement, &payload).unwrap();
            assert_eq!(elements, [b"1", &item[..], b"2"], "{template}");
        }
    }

    #[test]
    fn no_two_flaws_are_equal() {
        let templates = ITEMS.iter().chain(&LOG_MESSAGES).chain(&MESSAGES);
        let mut seen = HashSet::new();
        for template in templates {
            for microseconds in [1_763_971_200_123_456, 1_763_971_200_123_457] {
                let at = Timestamp::from_unix_microseconds(microseconds);
                assert!(
                    seen.insert(filled(template, Revision(None), at, Kind::LogMessage)),
                    "{template}"
                );
            }
        }
    }
}
