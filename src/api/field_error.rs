//! Which member of a body or parameter of a query is invalid, and why. Used by the extractors `Json`, `Query`
//! and `Path`. Pure. The sentence never repeats a value, which may be long or a secret.

use std::fmt::Display;

use serde_path_to_error::{Error, Segment};

#[derive(PartialEq, Eq, Debug)]
pub(super) struct FieldError {
    /// The names that lead to it; empty for the whole body.
    pub(super) path: Vec<String>,
    pub(super) detail: String,
}

impl FieldError {
    pub(super) fn of<E: Display>(error: &Error<E>) -> Self {
        // A list is named as a whole.
        let segments = error.path().iter().map_while(|segment| match segment {
            Segment::Map { key } | Segment::Enum { variant: key } => Some(key.clone()),
            Segment::Seq { .. } | Segment::Unknown => None,
        });
        let mut path: Vec<String> = segments.collect();
        // serde_json appends the position: " at line 1 column 20".
        let message = error.inner().to_string();
        let message = message.rsplit_once(" at line ").map_or(&*message, |(before, _)| before);
        // Messages of serde's derive; the path holds a field's name only if the field is unknown.
        let named =
            |prefix: &str| message.strip_prefix(prefix)?.strip_suffix('`').map(str::to_owned);
        let detail = if let Some(name) = named("missing field `") {
            path.push(name);
            "it is missing".into()
        } else if let Some(name) = named("duplicate field `") {
            path.push(name);
            "it is given twice".into()
        } else if message.starts_with("unknown field `") {
            "unknown member".into()
        } else if let Some((_, expected)) = message.rsplit_once(", expected ") {
            format!("it takes {expected}")
        } else {
            message.to_owned()
        };
        Self { path, detail }
    }

    /// As a JSON pointer (RFC 6901, section 3).
    pub(super) fn pointer(&self) -> String {
        self.path.iter().map(|name| pointer(name)).collect()
    }
}

/// The JSON pointer of a member of the body (RFC 6901, section 3).
pub(super) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its errors are looked at")]
    struct Body {
        name: String,
        numbers: Vec<u8>,
    }

    #[test]
    fn an_error_names_the_member_and_never_the_value() {
        for (json, pointer, detail) in [
            (r#"{"name":"a"}"#, "/numbers", "it is missing"),
            (r#"{"name":"a","name":"b"}"#, "/name", "it is given twice"),
            (r#"{"name":"a","\u006eame":"b"}"#, "/name", "it is given twice"),
            (r#"{"a/b~c":1}"#, "/a~1b~0c", "unknown member"),
            (r#"{"name":7}"#, "/name", "it takes a string"),
            (r#"{"name":"a","numbers":[1,"secret"]}"#, "/numbers", "it takes u8"),
        ] {
            let mut deserializer = serde_json::Deserializer::from_str(json);
            let read: Result<Body, _> = serde_path_to_error::deserialize(&mut deserializer);
            let fault = FieldError::of(&read.unwrap_err());
            assert_eq!((&*fault.pointer(), &*fault.detail), (pointer, detail), "{json}");
        }
    }
}
