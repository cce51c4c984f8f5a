//! The JSON that sensors write, without an allocation for each number. Pure.

use std::fmt;
use std::io::Write as _;

use crate::domain::{Severity, Timestamp};

const WRITTEN: &str = "writing to memory succeeds";

/// Unix seconds, with six decimals where there is a fraction. Keeps every microsecond.
pub(super) struct UnixSeconds(pub(super) Timestamp);

impl fmt::Display for UnixSeconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let microseconds = self.0.unix_microseconds();
        let (seconds, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000);
        write!(out, "{seconds}")?;
        if fraction > 0 { write!(out, ".{fraction:06}") } else { Ok(()) }
    }
}

/// The revision of the configuration that a sensor runs with, or null.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Revision(pub(super) Option<i32>);

impl fmt::Display for Revision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(revision) => write!(out, "{revision}"),
            None => out.write_str("null"),
        }
    }
}

/// A message of measurements; `write` adds the items, each with a comma after it.
pub(super) fn measurements(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(br#"{"measurements":["#);
    write(out);
    out.pop();
    out.extend_from_slice(b"]}");
}

/// An item of it. `members` are those of its value.
pub(super) fn item(
    out: &mut Vec<u8>,
    revision: Revision,
    at: Timestamp,
    members: impl fmt::Display,
) {
    let at = UnixSeconds(at);
    write!(out, r#"{{"revision":{revision},"timestamp":{at},"value":{{{members}}}}},"#)
        .expect(WRITTEN);
}

/// A message of one log message.
pub(super) fn log_message(
    revision: Revision,
    at: Timestamp,
    (severity, subject, details): (Severity, &str, Option<&str>),
) -> Vec<u8> {
    let (at, severity) = (UnixSeconds(at), severity.name());
    let details = details.map_or_else(String::new, |it| format!(r#","details":"{it}""#));
    format!(
        r#"{{"log_messages":[{{"severity":"{severity}","revision":{revision},"timestamp":{at},"subject":"{subject}"{details}}}]}}"#
    )
    .into_bytes()
}

/// A message of one heartbeat.
pub(super) fn heartbeat(revision: Revision, at: Timestamp, success: bool) -> Vec<u8> {
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
}
