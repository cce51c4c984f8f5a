//! One sensor of the fleet: what it says next, and what it does with a configuration. Pure; driven
//! by the line that it shares with others.

use std::rc::Rc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::plan::{Habit, Spoken, Voice};
use super::replay::Series;
use super::text;
use crate::domain::{Kind, SensorIdentifier, Timestamp};

/// What the fleet plays.
#[derive(Debug)]
pub(super) enum Programme {
    /// Weather that never was.
    Invented(Habit),
    /// A series, by every sensor from its beginning, so many rows a message.
    Recorded {
        /// Shared by all.
        series: Rc<Series>,
        /// Rows in a message.
        per_message: usize,
    },
}

/// What became of a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Applied {
    /// The sensor works with it now.
    Yes,
    /// It asked to be rejected.
    Rejected,
    /// It is none; nothing is acknowledged.
    Malformed,
}

/// A sensor, and where it stands.
#[derive(Debug)]
pub(super) struct Sensor {
    /// Its name on the wire.
    pub(super) identifier: SensorIdentifier,
    voice: Voice,
    /// The row of the series that comes next.
    row: usize,
    /// The revision that it works with; none before the first configuration.
    revision: Option<i32>,
}

#[derive(Deserialize)]
struct Configuration<'a> {
    revision: i32,
    #[serde(borrow)]
    configuration: &'a RawValue,
}

/// The one member of a configuration that means something to a simulated sensor.
#[derive(Deserialize)]
struct Wish {
    #[serde(default)]
    reject: serde_json::Value,
}

impl Sensor {
    /// The sensor with this number in the fleet of this seed.
    pub(super) fn new(identifier: SensorIdentifier, seed: u64, number: u64) -> Self {
        Self { identifier, voice: Voice::new(seed, number), row: 0, revision: None }
    }

    /// The next message, written to the end of `out`; none when a series is over.
    pub(super) fn speak(
        &mut self,
        programme: &Programme,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Option<Spoken> {
        let revision = self.revision.unwrap_or(0);
        match programme {
            Programme::Invented(habit) => Some(self.voice.speak(habit, revision, now, out)),
            Programme::Recorded { series, per_message } => {
                let start = self.row;
                self.row = series.len().min(start + per_message);
                if start == self.row {
                    return None;
                }
                out.extend_from_slice(br#"{"measurements":["#);
                for row in start..self.row {
                    let opening: &[u8] =
                        if row == start { br#"{"revision":"# } else { br#",{"revision":"# };
                    out.extend_from_slice(opening);
                    text::whole(revision, out);
                    out.push(b',');
                    out.extend_from_slice(series.item(row));
                    out.push(b'}');
                }
                out.extend_from_slice(b"]}");
                let items = u32::try_from(self.row - start).expect("per_message is bounded");
                Some(Spoken { kind: Kind::Measurement, items, bad_items: 0 })
            }
        }
    }

    /// Takes a configuration, and writes the heartbeat that acknowledges it.
    pub(super) fn configure(
        &mut self,
        payload: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Applied {
        let Ok(received) = serde_json::from_slice::<Configuration<'_>>(payload) else {
            return Applied::Malformed;
        };
        let rejects = serde_json::from_str::<Wish>(received.configuration.get())
            .is_ok_and(|wish| wish.reject == true);
        if !rejects {
            self.revision = Some(received.revision);
        }
        self.write_heartbeat(received.revision, !rejects, now, out);
        if rejects { Applied::Rejected } else { Applied::Yes }
    }

    /// The heartbeat of every minute. A sensor without a configuration has none: a heartbeat
    /// acknowledges its revision, and there is nothing to acknowledge.
    pub(super) fn beat(&mut self, now: Timestamp, out: &mut Vec<u8>) -> Option<Spoken> {
        let revision = self.revision?;
        Some(self.write_heartbeat(revision, true, now, out))
    }

    fn write_heartbeat(
        &mut self,
        revision: i32,
        success: bool,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Spoken {
        out.extend_from_slice(br#"{"heartbeats":[{"revision":"#);
        text::whole(revision, out);
        out.extend_from_slice(br#","timestamp":"#);
        text::seconds(self.voice.moment(now.unix_microseconds()), out);
        let end: &[u8] = if success { br#","success":true}]}"# } else { br#","success":false}]}"# };
        out.extend_from_slice(end);
        HEARTBEAT
    }
}

/// One heartbeat.
pub(super) const HEARTBEAT: Spoken = Spoken { kind: Kind::Heartbeat, items: 1, bad_items: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_microseconds(1_763_971_200_123_456);

    fn sensor() -> Sensor {
        Sensor::new(SensorIdentifier::random(), 1, 1)
    }

    fn configured(sensor: &mut Sensor, payload: &str) -> (Applied, String) {
        let mut out = Vec::new();
        let applied = sensor.configure(payload.as_bytes(), NOW, &mut out);
        (applied, String::from_utf8(out).unwrap())
    }

    fn invented() -> Programme {
        Programme::Invented(Habit {
            per_message: 1,
            bad_share: 0.0,
            log_share: 0.0,
            spacing_microseconds: 0,
        })
    }

    #[test]
    fn a_configuration_is_applied_and_acknowledged() {
        let mut sensor = sensor();
        let (applied, heartbeat) =
            configured(&mut sensor, r#"{"revision":3,"configuration":{"interval":10}}"#);
        assert_eq!(applied, Applied::Yes);
        assert_eq!(
            heartbeat,
            r#"{"heartbeats":[{"revision":3,"timestamp":1763971200.123456,"success":true}]}"#
        );
        let mut out = Vec::new();
        sensor.speak(&invented(), NOW, &mut out).unwrap();
        assert!(out.starts_with(br#"{"measurements":[{"revision":3,"#));
    }

    #[test]
    fn a_configuration_that_asks_for_it_is_rejected() {
        let mut sensor = sensor();
        configured(&mut sensor, r#"{"revision":3,"configuration":{}}"#);
        let (applied, heartbeat) =
            configured(&mut sensor, r#"{"revision":4,"configuration":{"reject":true}}"#);
        assert_eq!(applied, Applied::Rejected);
        assert!(heartbeat.contains(r#""revision":4,"#) && heartbeat.contains(r#""success":false"#));

        let mut out = Vec::new();
        sensor.beat(NOW, &mut out).unwrap();
        let heartbeat = String::from_utf8(out).unwrap();
        assert!(heartbeat.contains(r#""revision":3,"#), "it still works with the one before");
    }

    #[test]
    fn what_is_no_configuration_changes_nothing() {
        let mut sensor = sensor();
        for payload in
            ["", "no JSON", "[]", r#"{"revision":-9e9,"configuration":{}}"#, r#"{"revision":1}"#]
        {
            assert_eq!(configured(&mut sensor, payload), (Applied::Malformed, String::new()));
        }
        assert_eq!(sensor.beat(NOW, &mut Vec::new()), None);
    }

    #[test]
    fn a_series_is_played_once_to_its_end() {
        let series =
            Series::parse("t,a\n2012-01-01,1.0\n2012-01-02,2\n2012-01-03,3\n", None).unwrap();
        let programme = Programme::Recorded { series: Rc::new(series), per_message: 2 };
        let mut sensor = sensor();
        let mut out = Vec::new();
        assert_eq!(sensor.speak(&programme, NOW, &mut out).unwrap().items, 2);
        assert_eq!(
            String::from_utf8(std::mem::take(&mut out)).unwrap(),
            r#"{"measurements":[{"revision":0,"timestamp":1325376000,"value":{"a":1.0}},{"revision":0,"timestamp":1325462400,"value":{"a":2}}]}"#
        );
        assert_eq!(sensor.speak(&programme, NOW, &mut out).unwrap().items, 1);
        assert_eq!(sensor.speak(&programme, NOW, &mut out), None);
    }
}
