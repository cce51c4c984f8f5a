//! The JSON that simulated sensors write, without an allocation for each number. Used by whoever makes up a
//! message. Pure.

use std::fmt;
use std::io::Write as _;

use crate::domain::{Severity, Timestamp};

const WRITTEN: &str = "writing to memory succeeds";

/// Unix seconds, with six decimals where there is a fraction. Keeps every microsecond.
pub(crate) struct UnixSeconds(pub(crate) Timestamp);

impl fmt::Display for UnixSeconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let microseconds = self.0.unix_microseconds();
        let (seconds, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000);
        match fraction {
            0 => write!(out, "{seconds}"),
            _ => write!(out, "{seconds}.{fraction:06}"),
        }
    }
}

/// A message of measurements; `write` adds the items, by [`measurement`] or as they are.
pub(crate) fn measurements(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(br#"{"measurements":["#);
    write(out);
    // Each item ends in a comma.
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(b"]}");
}

/// One item, with a comma after it. `members` are those of its value.
pub(crate) fn measurement(
    out: &mut Vec<u8>,
    revision: i32,
    taken_at: Timestamp,
    members: impl fmt::Display,
) {
    let at = UnixSeconds(taken_at);
    write!(out, r#"{{"revision":{revision},"timestamp":{at},"value":{{{members}}}}},"#)
        .expect(WRITTEN);
}

/// A message of one log message.
pub(crate) fn log_message(
    revision: i32,
    written_at: Timestamp,
    (severity, subject, details): (Severity, &str, Option<&str>),
) -> Vec<u8> {
    let (at, severity) = (UnixSeconds(written_at), severity.name());
    let mut out = Vec::with_capacity(160);
    write!(out, r#"{{"log_messages":[{{"severity":"{severity}","revision":{revision},"timestamp":{at},"subject":"#)
        .expect(WRITTEN);
    serde_json::to_writer(&mut out, subject).expect(WRITTEN);
    if let Some(details) = details {
        out.extend_from_slice(br#","details":"#);
        serde_json::to_writer(&mut out, details).expect(WRITTEN);
    }
    out.extend_from_slice(b"}]}");
    out
}

/// A message of one heartbeat.
pub(crate) fn heartbeat(revision: i32, at: Timestamp, success: bool) -> Vec<u8> {
    let at = UnixSeconds(at);
    format!(r#"{{"heartbeats":[{{"revision":{revision},"timestamp":{at},"success":{success}}}]}}"#)
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn seconds_keep_every_microsecond(microseconds in 0i64..4_500_000_000_000_000) {
            let written = Timestamp::from_unix_microseconds(microseconds);
            let read = UnixSeconds(written).to_string().parse().unwrap();
            prop_assert_eq!(Timestamp::from_unix_seconds(read), Some(written));
        }
    }

    #[test]
    fn a_message_is_valid_json() {
        let at = Timestamp::from_unix_microseconds(1_763_971_200_000_000);
        let mut out = Vec::new();
        measurements(&mut out, |out| {
            measurement(out, 3, at, format_args!(r#""a":1.50"#));
            measurement(out, 3, at, format_args!(""));
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"measurements":[{"revision":3,"timestamp":1763971200,"value":{"a":1.50}},{"revision":3,"timestamp":1763971200,"value":{}}]}"#
        );
        let text = log_message(0, at, (Severity::Info, "a \"b\"", Some("ä")));
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["log_messages"][0]["subject"], "a \"b\"");
        assert!(heartbeat(1, at, false).ends_with(br#","success":false}]}"#));
    }
}
