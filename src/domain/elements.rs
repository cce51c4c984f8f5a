//! The elements of a payload's array, each as the bytes that were sent. Used by the careful decoder, by a
//! rejection of one item, and by a replay. Elements that are not JSON are separated as long as their strings
//! and brackets are closed.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::scan::split;
use super::{Kind, Reason};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The payload without a byte order mark before it (RFC 8259, section 8.1) and NUL bytes after it, which C
/// firmware sends with `strlen + 1`.
pub fn trim_payload(payload: &[u8]) -> &[u8] {
    // Few payloads have either, and each is checked by one byte.
    let mut trimmed = payload.strip_prefix(BYTE_ORDER_MARK).unwrap_or(payload);
    while let [rest @ .., 0] = trimmed {
        trimmed = rest;
    }
    trimmed
}

/// The elements, in `{"<member>": [ … ]}` or in an array by itself; or the code and a detail of why they cannot be
/// separated.
pub fn elements(kind: Kind, payload: &[u8]) -> Result<Vec<&[u8]>, (Reason, String)> {
    let payload = trim_payload(payload);
    let member = kind.envelope_member();
    let refusal = match std::str::from_utf8(payload) {
        Ok(text) => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => return of_json(member, text),
            Err(error) => (Reason::NotJson, format!("the payload is not JSON: {error}")),
        },
        Err(error) => {
            let detail = format!("the payload is not UTF-8 at byte {}", error.valid_up_to());
            (Reason::NotUtf8, detail)
        }
    };
    split(member, payload).ok_or(refusal)
}

fn of_json<'a>(member: &str, text: &'a str) -> Result<Vec<&'a [u8]>, (Reason, String)> {
    let shape = |detail: String| (Reason::InvalidShape, detail);
    let array = if text.trim_start().starts_with('[') {
        text
    } else {
        let ObjectMembers(envelope) = serde_json::from_str::<ObjectMembers<'_>>(text).map_err(|_| {
            shape(format!("the payload is neither a JSON object nor an array; expected {{\"{member}\": [ … ]}}"))
        })?;
        let mut arrays = envelope.iter().filter(|(name, _)| name == member).map(|(_, it)| *it);
        let array =
            arrays.next().ok_or_else(|| shape(format!("the member {member:?} is missing")))?;
        if arrays.next().is_some() {
            return Err(shape(format!("the member {member:?} occurs twice")));
        }
        array.get()
    };
    let elements: Vec<&RawValue> = serde_json::from_str(array)
        .map_err(|_| shape(format!("the member {member:?} is not an array")))?;
    Ok(elements.into_iter().map(|element| element.get().as_bytes()).collect())
}

/// The members of an object in order, repeated names included.
#[derive(Debug)]
pub struct ObjectMembers<'a>(pub Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for ObjectMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value().map_err(M::Error::custom)?));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Object).map(ObjectMembers)
    }
}

/// A key, which may hold a lone surrogate: unknown members are tolerated.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = String;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
                Ok(key.to_owned())
            }

            fn visit_bytes<E: serde::de::Error>(self, key: &[u8]) -> Result<String, E> {
                Ok(String::from_utf8_lossy(key).into_owned())
            }
        }

        deserializer.deserialize_bytes(Text).map(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::malformed_value;
    use proptest::prelude::*;

    fn texts(payload: &[u8]) -> Option<Vec<String>> {
        let elements = elements(Kind::Measurement, payload).ok()?;
        Some(elements.iter().map(|it| String::from_utf8_lossy(it).into_owned()).collect())
    }

    #[test]
    fn malformed_elements_are_separated() {
        for (payload, expected) in [
            (r#"[{"a":NaN},1]"#, &[r#"{"a":NaN}"#, "1"][..]),
            (r#" { "x" : [NaN] , "measurements" : [ 1 , +2 ,] } "#, &["1", "+2"]),
            (r#"[{'a':'}, "\' ]'}, {"b": "\"]"}]"#, &[r#"{'a':'}, "\' ]'}"#, r#"{"b": "\"]"}"#]),
            ("[{\"a\":\"line\nbreak\"},{a: it's}]", &["{\"a\":\"line\nbreak\"}", "{a: it's}"]),
            ("[,]", &[]),
            (r#"{"measurements":[1 2,{"a":[NaN,{}]}],"y":'}'}"#, &["1 2", r#"{"a":[NaN,{}]}"#]),
        ] {
            let expected = expected.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(texts(payload.as_bytes()), Some(expected), "{payload}");
        }
        assert_eq!(texts(b"[\"\xb0C\",2]"), Some(vec!["\"\u{fffd}C\"".into(), "2".into()]));
    }

    #[test]
    fn a_payload_without_structure_has_no_elements() {
        for payload in [
            r#"{"measurements":[1,NaN"#,
            r#"{"measurements":[NaN]"#,
            r#"{"measurements":[NaN]} x"#,
            r#"{"measurements":[{"a":NaN]}]}"#,
            r#"{"measurements":[{"a":"NaN}]}"#,
            r#"{"measurements":[NaN],"measurements":[]}"#,
            r#"{"measurements":NaN}"#,
            r#"{"heartbeats":[NaN]}"#,
            "{'measurements':[1]}",
            "NaN",
            "",
        ] {
            assert_eq!(texts(payload.as_bytes()), None, "{payload}");
        }
    }

    #[test]
    fn a_byte_order_mark_and_nul_bytes_are_no_part_of_a_payload() {
        assert_eq!(trim_payload(b"\xef\xbb\xbf[]\0\0"), b"[]");
        assert_eq!(trim_payload(b"\0[]"), b"\0[]");
        assert_eq!(trim_payload(b"\0"), b"");
    }

    fn element() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            Just("1".to_owned()),
            Just("NaN".to_owned()),
            Just("-Infinity".to_owned()),
            Just("+0x1F".to_owned()),
            Just("None".to_owned()),
            Just("'it, \\' ]'".to_owned()),
            "[^\\x00]{0,8}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            "[ -~]{0,8}".prop_map(|text| format!("'{}'", text.replace(['\\', '\''], ""))),
        ];
        scalar.prop_recursive(4, 16, 4, |inner| {
            let key = "[a-z,}\\]]{0,4}";
            prop_oneof![
                proptest::collection::vec((key, inner.clone()), 0..4).prop_map(|members| {
                    let members: Vec<_> =
                        members.iter().map(|(key, value)| format!("\"{key}\" : {value}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
                proptest::collection::vec(inner, 1..4)
                    .prop_map(|all| format!("[{}]", all.join(" ,"))),
            ]
        })
    }

    proptest! {
        /// An element is separated from others whatever it contains.
        #[test]
        fn elements_are_returned_unchanged(
            all in proptest::collection::vec(element(), 1..6),
            is_bare in any::<bool>(),
        ) {
            let array = format!("[ {} ]", all.join(" , "));
            let payload = if is_bare { array } else { format!(r#"{{"x":{},"measurements":{array}}}"#, all[0]) };
            prop_assert_eq!(texts(payload.as_bytes()), Some(all.clone()));
            for element in &all {
                let alone = format!(r#"{{"measurements":[{element}]}}"#);
                prop_assert_eq!(texts(alone.as_bytes()), Some(vec![element.clone()]));
                drop(malformed_value(element));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            payload in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(&b"{}[]\"'\\,: nN\0\xef\xbb\xbf"[..])],
                0..60,
            ),
        ) {
            drop(texts(&payload));
            let with_array = [b"{\"measurements\":[", &payload[..], b"]}"].concat();
            drop(texts(&with_array));
            drop(malformed_value(&String::from_utf8_lossy(&payload)));
        }
    }
}
