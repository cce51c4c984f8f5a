//! The sensors that share a connection: what each publishes next, and what it does with a configuration. Pure;
//! driven by the publisher of that connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use ntex_bytes::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::invented::{Invention, Inventor};
use super::series::Series;
use crate::domain::{Kind, SensorIdentifier, Timestamp};
use crate::load::{Message, Pace, Rate, Sent, Source, heartbeat};
use crate::wire::Topics;

/// Each sensor with a configuration sends a heartbeat at this interval.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);

/// What the sensors of a fleet publish.
#[derive(Debug)]
pub(super) enum Content {
    Invented(Invention),
    /// A series, by each sensor from its beginning, `per_message` rows at a time.
    Recorded {
        series: Series,
        per_message: usize,
    },
}

/// What became of the configurations that sensors received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Configurations {
    pub(super) applied: u64,
    /// They asked to be rejected.
    pub(super) rejected: u64,
    /// They were no configurations; nothing is acknowledged.
    pub(super) malformed: u64,
}

#[derive(Debug)]
pub(super) struct Sensor {
    identifier: SensorIdentifier,
    measurements: ByteString,
    inventor: Inventor,
    /// The row of the series that comes next.
    row: usize,
    /// None before the first configuration.
    revision: Option<i32>,
}

#[derive(Deserialize)]
struct Configuration<'a> {
    revision: i32,
    #[serde(borrow)]
    configuration: &'a RawValue,
}

/// The one member of a configuration that a simulated sensor understands.
#[derive(Deserialize)]
struct Wish {
    #[serde(default)]
    reject: serde_json::Value,
}

impl Sensor {
    /// The sensor with this number in the fleet of this seed.
    pub(super) fn new(
        identifier: SensorIdentifier,
        topics: &Topics,
        (seed, number): (u64, u64),
    ) -> Self {
        let measurements = topics.of(Kind::Measurement, identifier).into();
        let inventor = Inventor::new(seed, number);
        Self { identifier, measurements, inventor, row: 0, revision: None }
    }

    /// The next payload; none when a series has ended.
    fn next(&mut self, content: &Content, now: Timestamp) -> Option<(Sent, Vec<u8>)> {
        let revision = self.revision.unwrap_or(0);
        match content {
            Content::Invented(invention) => Some(self.inventor.next(invention, revision, now)),
            Content::Recorded { series, per_message } => {
                let rows = self.row..series.len().min(self.row + per_message);
                self.row = rows.end;
                let items = u32::try_from(rows.len()).expect("per_message is bounded");
                let sent = Sent::good(Kind::Measurement, items);
                (items > 0).then(|| (sent, series.message(rows, revision)))
            }
        }
    }

    /// Applies a configuration. Returns the heartbeat that acknowledges it.
    fn configure(
        &mut self,
        payload: &[u8],
        now: Timestamp,
        counts: &mut Configurations,
    ) -> Option<Vec<u8>> {
        let Ok(received) = serde_json::from_slice::<Configuration<'_>>(payload) else {
            // An empty payload clears a retained configuration.
            counts.malformed += u64::from(!payload.is_empty());
            return None;
        };
        let rejects = serde_json::from_str::<Wish>(received.configuration.get())
            .is_ok_and(|wish| wish.reject == true);
        if rejects {
            counts.rejected += 1;
        } else {
            counts.applied += 1;
            self.revision = Some(received.revision);
        }
        Some(heartbeat(received.revision, self.inventor.later_than_all(now), !rejects))
    }

    /// The periodic heartbeat. Without a configuration there is none: there is nothing to acknowledge.
    fn heartbeat(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        let revision = self.revision?;
        Some(heartbeat(revision, self.inventor.later_than_all(now), true))
    }
}

/// The sensors of one connection.
pub(super) struct Sensors {
    sensors: Vec<Sensor>,
    indices: HashMap<SensorIdentifier, usize>,
    topics: Topics,
    content: Rc<Content>,
    heartbeats: Pace,
    next_sensor: usize,
    next_heartbeat: usize,
    configurations: Rc<RefCell<Configurations>>,
}

impl Sensors {
    pub(super) fn new(
        sensors: Vec<Sensor>,
        topics: Topics,
        content: Rc<Content>,
        configurations: Rc<RefCell<Configurations>>,
    ) -> Self {
        let per_second = sensors.len() as f64 / HEARTBEAT_INTERVAL.as_secs_f64();
        let indices = sensors.iter().zip(0..).map(|(sensor, index)| (sensor.identifier, index));
        Self {
            indices: indices.collect(),
            sensors,
            topics,
            content,
            heartbeats: Pace::new(Rate::PerSecond(per_second), None).skipping(),
            next_sensor: 0,
            next_heartbeat: 0,
            configurations,
        }
    }

    fn message(&self, sensor: usize, sent: Sent, payload: Vec<u8>) -> Message {
        let sensor = &self.sensors[sensor];
        let topic = match sent.kind {
            Kind::Measurement => sensor.measurements.clone(),
            kind => self.topics.of(kind, sensor.identifier).into(),
        };
        Message { topic, payload: payload.into(), sent }
    }
}

const HEARTBEAT: Sent = Sent::good(Kind::Heartbeat, 1);

impl Source for Sensors {
    fn next(&mut self, now: Timestamp) -> Option<Message> {
        let index = self.next_sensor;
        self.next_sensor = (index + 1) % self.sensors.len();
        let (sent, payload) = self.sensors[index].next(&self.content, now)?;
        Some(self.message(index, sent, payload))
    }

    fn heartbeats(&mut self, elapsed: Duration, now: Timestamp) -> Vec<Message> {
        let mut due = Vec::new();
        for _ in 0..self.heartbeats.due(elapsed) {
            self.heartbeats.sent();
            let index = self.next_heartbeat;
            self.next_heartbeat = (index + 1) % self.sensors.len();
            if let Some(payload) = self.sensors[index].heartbeat(now) {
                due.push(self.message(index, HEARTBEAT, payload));
            }
        }
        due
    }

    fn receive(&mut self, topic: &str, payload: &[u8], now: Timestamp) -> Option<Message> {
        let identifier = topic.rsplit('/').next().and_then(SensorIdentifier::parse)?;
        let index = *self.indices.get(&identifier)?;
        let counts = &mut self.configurations.borrow_mut();
        let answer = self.sensors[index].configure(payload, now, counts)?;
        Some(self.message(index, HEARTBEAT, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_microseconds(1_763_971_200_123_456);
    const INVENTION: Invention =
        Invention { per_message: 1, bad_share: 0.0, log_share: 0.0, spacing: Duration::ZERO };

    fn sensors(content: Content) -> Sensors {
        let topics = Topics::new("site-a");
        let identifiers = [SensorIdentifier::random(), SensorIdentifier::random()];
        let sensors = identifiers.map(|identifier| Sensor::new(identifier, &topics, (1, 1)));
        Sensors::new(sensors.into(), topics, Rc::new(content), Rc::default())
    }

    fn configure(sensors: &mut Sensors, payload: &str) -> Option<String> {
        let topic = sensors.topics.configuration(sensors.sensors[1].identifier);
        let answer = sensors.receive(&topic, payload.as_bytes(), NOW)?;
        let topic = sensors.topics.of(Kind::Heartbeat, sensors.sensors[1].identifier);
        assert_eq!((answer.topic.to_string(), answer.sent), (topic, HEARTBEAT));
        Some(String::from_utf8(answer.payload.to_vec()).unwrap())
    }

    fn next(sensors: &mut Sensors) -> (String, String) {
        let message = sensors.next(NOW).unwrap();
        (message.topic.to_string(), String::from_utf8(message.payload.to_vec()).unwrap())
    }

    #[test]
    fn a_configuration_is_applied_and_acknowledged_unless_it_asks_to_be_rejected() {
        let mut sensors = sensors(Content::Invented(INVENTION));
        assert_eq!(
            configure(&mut sensors, r#"{"revision":3,"configuration":{"interval":10}}"#).unwrap(),
            r#"{"heartbeats":[{"revision":3,"timestamp":1763971200.123456,"success":true}]}"#
        );
        let rejected = configure(&mut sensors, r#"{"revision":4,"configuration":{"reject":true}}"#);
        assert_eq!(
            rejected.unwrap(),
            r#"{"heartbeats":[{"revision":4,"timestamp":1763971200.123457,"success":false}]}"#
        );
        for payload in ["no JSON", "[]", r#"{"revision":-9e9,"configuration":{}}"#, ""] {
            assert_eq!(configure(&mut sensors, payload), None);
        }
        let counts = Configurations { applied: 1, rejected: 1, malformed: 3 };
        assert_eq!(*sensors.configurations.borrow(), counts);

        let first = next(&mut sensors);
        assert!(first.1.starts_with(r#"{"measurements":[{"revision":0,"#), "{first:?}");
        let (topic, payload) = next(&mut sensors);
        assert_eq!(topic, format!("site-a/measurements/{}", sensors.sensors[1].identifier));
        assert!(payload.starts_with(r#"{"measurements":[{"revision":3,"#), "{payload}");
        let beats = sensors.heartbeats(HEARTBEAT_INTERVAL, NOW);
        assert_eq!(beats.len(), 0, "a second's worth is made up for, and the first has none");
        let beats = sensors.heartbeats(HEARTBEAT_INTERVAL + Duration::from_secs(30), NOW);
        assert!(beats[0].payload.starts_with(br#"{"heartbeats":[{"revision":3,"#), "{beats:?}");
    }

    #[test]
    fn a_series_is_published_once_to_its_end() {
        let series = Series::parse("t,a\n2012-01-01,1.0\n2012-01-02,2\n2012-01-03,3\n", None);
        let mut sensors = sensors(Content::Recorded { series: series.unwrap(), per_message: 2 });
        let first = r#"{"measurements":[{"revision":0,"timestamp":1325376000,"value":{"a":1.0}},{"revision":0,"timestamp":1325462400,"value":{"a":2}}]}"#;
        assert_eq!(next(&mut sensors).1, first);
        assert_eq!(next(&mut sensors).1, first);
        assert_eq!(sensors.next(NOW).unwrap().sent.items, 1);
        assert!(sensors.next(NOW).is_some() && sensors.next(NOW).is_none());
    }
}
