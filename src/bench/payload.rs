//! The payloads of the benchmark's messages, as sensors write them. Pure; called by the load.

use std::fmt::Write as _;

use crate::domain::Timestamp;

/// Measurements of these moments, each with a number that its value is made from.
pub(super) fn measurements(items: impl Iterator<Item = (Timestamp, u64)>) -> String {
    let mut payload = String::with_capacity(32 + 80 * items.size_hint().0);
    payload.push_str(r#"{"measurements":["#);
    for (index, (moment, seed)) in items.enumerate() {
        if index > 0 {
            payload.push(',');
        }
        measurement(moment, seed, &mut payload);
    }
    payload.push_str("]}");
    payload
}

const WRITTEN: &str = "a String takes whatever is written to it";

fn write_seconds(moment: Timestamp, text: &mut String) {
    let microseconds = moment.unix_microseconds();
    let (seconds, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
    write!(text, "{seconds}.{rest:06}").expect(WRITTEN);
}

fn measurement(moment: Timestamp, seed: u64, text: &mut String) {
    text.push_str(r#"{"revision":1,"timestamp":"#);
    write_seconds(moment, text);
    let (temperature, humidity) = (seed % 1_000, seed % 61 + 30);
    write!(
        text,
        r#","value":{{"temperature":{}.{:02},"humidity":{humidity}}}}}"#,
        10 + temperature / 100,
        temperature % 100
    )
    .expect(WRITTEN);
}

fn seconds(moment: Timestamp) -> String {
    let mut text = String::with_capacity(20);
    write_seconds(moment, &mut text);
    text
}

pub(super) fn log_message(moment: Timestamp) -> String {
    format!(
        r#"{{"log_messages":[{{"severity":"info","revision":1,"timestamp":{},"subject":"The filter was cleaned","details":"It took 12 s."}}]}}"#,
        seconds(moment)
    )
}

pub(super) fn heartbeat(moment: Timestamp) -> String {
    format!(r#"{{"heartbeats":[{{"revision":1,"timestamp":{},"success":true}}]}}"#, seconds(moment))
}

/// A value may not be nested.
pub(super) fn bad_measurement(moment: Timestamp) -> String {
    format!(
        r#"{{"measurements":[{{"revision":1,"timestamp":{},"value":{{"position":{{"x":1}}}}}}]}}"#,
        seconds(moment)
    )
}
