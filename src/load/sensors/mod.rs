//! The sensors of one connection: what they publish next, one after the other, and what they do with a configuration.
//! Made by the fleet, driven by the publisher of the connection. Pure.

mod flaws;
mod invented;
mod payload;
mod series;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ntex_bytes::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::account::{Configurations, Message, Sent};
use super::pace::{Pace, Rate};
use crate::domain::{Kind, SensorIdentifier, Timestamp};
use crate::wire::Topics;
use invented::Inventor;
use payload::{Revision, heartbeat};

pub(crate) use invented::Invention;
pub(crate) use series::Series;

/// Each sensor with a configuration sends a heartbeat at this interval.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);

/// What the sensors of a fleet publish.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Invented(Invention),
    /// A series, by each sensor from its beginning, `per_message` rows at a time.
    Recorded {
        series: Arc<Series>,
        per_message: usize,
    },
}

/// Messages that are sent twice.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Copies {
    /// Of all, 0 to 1.
    pub(crate) share: f64,
    /// How many messages later the copy follows; 0 directly.
    pub(crate) lag: u64,
}

/// The timestamps of measurements that were published and not seen in the database, and when that was.
pub(crate) type Unseen = Arc<Mutex<BTreeMap<Timestamp, Instant>>>;

struct SimulatedSensor {
    identifier: SensorIdentifier,
    measurements: ByteString,
    inventor: Inventor,
    /// The next row of the series.
    row: usize,
    /// None before the first configuration.
    revision: Option<i32>,
}

#[derive(Deserialize)]
struct ReceivedConfiguration<'a> {
    revision: i32,
    #[serde(borrow)]
    configuration: &'a RawValue,
}

/// The one member of a configuration that a simulated sensor understands.
#[derive(Deserialize)]
struct RejectFlag {
    #[serde(default)]
    reject: serde_json::Value,
}

impl SimulatedSensor {
    fn next(&mut self, content: &Content, now: Timestamp) -> (Sent, Vec<u8>) {
        let revision = Revision(self.revision);
        match content {
            Content::Invented(invention) => self.inventor.next(invention, revision, now),
            Content::Recorded { series, per_message } => {
                let rows = self.row..series.len().min(self.row + per_message);
                self.row = rows.end;
                let items = u32::try_from(rows.len()).expect("per_message is bounded");
                (Sent::good(Kind::Measurement, items), series.message(rows, revision))
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
        let Ok(received) = serde_json::from_slice::<ReceivedConfiguration<'_>>(payload) else {
            // An empty payload clears a retained configuration.
            counts.malformed += u64::from(!payload.is_empty());
            return None;
        };
        let rejects = serde_json::from_str::<RejectFlag>(received.configuration.get())
            .is_ok_and(|flag| flag.reject == true);
        if rejects {
            counts.rejected += 1;
        } else {
            counts.applied += 1;
            self.revision = Some(received.revision);
        }
        Some(heartbeat(
            Revision(Some(received.revision)),
            self.inventor.later_than_all(now),
            !rejects,
        ))
    }

    /// The periodic heartbeat. Without a configuration there is none: there is nothing to acknowledge.
    fn heartbeat(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        let revision = Revision(Some(self.revision?));
        Some(heartbeat(revision, self.inventor.later_than_all(now), true))
    }
}

const HEARTBEAT: Sent = Sent::good(Kind::Heartbeat, 1);

pub(crate) struct Sensors {
    sensors: Vec<SimulatedSensor>,
    indices: HashMap<SensorIdentifier, usize>,
    topics: Topics,
    content: Rc<Content>,
    /// Messages to come, without copies and heartbeats.
    pub(super) left: Option<u64>,
    pub(super) copies: Copies,
    pub(super) unseen: Option<Unseen>,
    /// Copies to come, each with the number of the message before which it is due.
    pending: VecDeque<(u64, Message)>,
    /// Messages published, without copies and heartbeats.
    published: u64,
    heartbeats: Pace,
    next_heartbeat: usize,
}

impl Sensors {
    /// These sensors, each with its number in the fleet of a seed; they never end.
    pub(super) fn new<'a>(
        sensors: impl Iterator<Item = (u64, &'a SensorIdentifier)>,
        topics: &Topics,
        (content, seed): (Rc<Content>, u64),
    ) -> Self {
        let sensor = |(number, identifier): (u64, &SensorIdentifier)| SimulatedSensor {
            identifier: *identifier,
            measurements: topics.of(Kind::Measurement, *identifier).into(),
            inventor: Inventor::new(seed, number),
            row: 0,
            revision: None,
        };
        let sensors: Vec<SimulatedSensor> = sensors.map(sensor).collect();
        let per_second = sensors.len() as f64 / HEARTBEAT_INTERVAL.as_secs_f64();
        Self {
            indices: (0..sensors.len()).map(|index| (sensors[index].identifier, index)).collect(),
            sensors,
            topics: topics.clone(),
            content,
            left: None,
            copies: Copies::default(),
            unseen: None,
            pending: VecDeque::new(),
            published: 0,
            heartbeats: Pace::new(Rate::PerSecond(per_second)).skipping(),
            next_heartbeat: 0,
        }
    }

    fn message(&self, index: usize, (sent, payload): (Sent, Vec<u8>)) -> Message {
        let sensor = &self.sensors[index];
        let topic = match sent.kind {
            Kind::Measurement => sensor.measurements.clone(),
            kind => self.topics.of(kind, sensor.identifier).into(),
        };
        Message { topic, payload: payload.into(), sent }
    }

    /// Whether everything has been published.
    pub(crate) fn has_ended(&self) -> bool {
        self.left == Some(0) && self.pending.is_empty()
    }

    /// The next message; not called after the end.
    pub(crate) fn next(&mut self, now: Timestamp) -> Message {
        let is_due = |copy: &mut (u64, Message)| copy.0 <= self.published || self.left == Some(0);
        if let Some((_, copy)) = self.pending.pop_front_if(is_due) {
            return copy;
        }
        let index = (self.published % self.sensors.len() as u64) as usize;
        let payload = self.sensors[index].next(&self.content, now);
        if let Some(unseen) = &self.unseen {
            let timestamp = self.sensors[index].inventor.latest();
            unseen.lock().expect("nothing panics under it").insert(timestamp, Instant::now());
        }
        let message = self.message(index, payload);
        let copied = |messages: u64| (messages as f64 * self.copies.share) as u64;
        self.published += 1;
        if copied(self.published) > copied(self.published - 1) {
            let mut copy = message.clone();
            copy.sent.copy = true;
            self.pending.push_back((self.published + self.copies.lag, copy));
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        message
    }

    /// Heartbeats that are due besides, `elapsed` after the start.
    pub(super) fn heartbeats(&mut self, elapsed: Duration, now: Timestamp) -> Vec<Message> {
        let mut due = Vec::new();
        for _ in 0..self.heartbeats.due(elapsed) {
            self.heartbeats.sent();
            let index = self.next_heartbeat;
            self.next_heartbeat = (index + 1) % self.sensors.len();
            if let Some(payload) = self.sensors[index].heartbeat(now) {
                due.push(self.message(index, (HEARTBEAT, payload)));
            }
        }
        due
    }

    /// A PUBLISH on a subscribed topic arrived. The answer is published.
    pub(super) fn receive(
        &mut self,
        topic: &str,
        payload: &[u8],
        now: Timestamp,
        counts: &mut Configurations,
    ) -> Option<Message> {
        let identifier = topic.rsplit('/').next().and_then(SensorIdentifier::parse)?;
        let index = *self.indices.get(&identifier)?;
        let answer = self.sensors[index].configure(payload, now, counts)?;
        Some(self.message(index, (HEARTBEAT, answer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_microseconds(1_763_971_200_123_456);

    fn sensors(content: Content, limit: Option<u64>) -> Sensors {
        let identifiers = [SensorIdentifier::random(), SensorIdentifier::random()];
        let (topics, content) = (Topics::new("site-a"), Rc::new(content));
        let sensors = Sensors::new((0..).zip(&identifiers), &topics, (content, 1));
        Sensors { left: limit, ..sensors }
    }

    fn next(sensors: &mut Sensors) -> (String, String) {
        let message = sensors.next(NOW);
        (message.topic.to_string(), String::from_utf8(message.payload.to_vec()).unwrap())
    }

    #[test]
    fn a_configuration_is_acknowledged_unless_it_has_the_reject_flag() {
        let mut sensors = sensors(Content::Invented(Invention::of_measurements(1)), None);
        let identifier = sensors.sensors[1].identifier;
        let topics = sensors.topics.clone();
        let mut counts = Configurations::default();
        let mut configure = |sensors: &mut Sensors, payload: &str| {
            let topic = topics.configuration(identifier);
            let answer = sensors.receive(&topic, payload.as_bytes(), NOW, &mut counts)?;
            assert_eq!(answer.topic.to_string(), topics.of(Kind::Heartbeat, identifier));
            Some(String::from_utf8(answer.payload.to_vec()).unwrap())
        };
        let applied = r#"{"revision":3,"configuration":{"interval":10}}"#;
        assert_eq!(
            configure(&mut sensors, applied).unwrap(),
            r#"{"heartbeats":[{"revision":3,"timestamp":1763971200.123456,"success":true}]}"#
        );
        let rejected = r#"{"revision":4,"configuration":{"reject":true}}"#;
        assert_eq!(
            configure(&mut sensors, rejected).unwrap(),
            r#"{"heartbeats":[{"revision":4,"timestamp":1763971200.123457,"success":false}]}"#
        );
        for payload in ["no JSON", "[]", r#"{"revision":-9e9,"configuration":{}}"#, ""] {
            assert_eq!(configure(&mut sensors, payload), None);
        }
        assert_eq!(counts, Configurations { applied: 1, rejected: 1, malformed: 3 });

        assert!(next(&mut sensors).1.starts_with(r#"{"measurements":[{"revision":null,"#));
        let (topic, payload) = next(&mut sensors);
        assert_eq!(topic, format!("site-a/measurements/{identifier}"));
        assert!(payload.starts_with(r#"{"measurements":[{"revision":3,"#), "{payload}");
        let beats: Vec<Message> = (1..=60)
            .flat_map(|second| sensors.heartbeats(Duration::from_secs(second), NOW))
            .collect();
        assert_eq!(beats.len(), 1, "the other sensor has no configuration");
        assert!(beats[0].payload.starts_with(br#"{"heartbeats":[{"revision":3,"#), "{beats:?}");
    }

    #[test]
    fn each_sensor_publishes_the_whole_series() {
        let file = "t,a\n2012-01-01,1.0\n2012-01-02,2\n2012-01-03,3\n";
        let series = Arc::new(Series::parse(file, None).unwrap());
        let mut sensors = sensors(Content::Recorded { series, per_message: 2 }, Some(4));
        let first = r#"{"measurements":[{"revision":null,"timestamp":1325376000,"value":{"a":1.0}},{"revision":null,"timestamp":1325462400,"value":{"a":2}}]}"#;
        assert_eq!((next(&mut sensors).1.as_str(), next(&mut sensors).1.as_str()), (first, first));
        let last = [sensors.next(NOW), sensors.next(NOW)];
        assert!(last.iter().all(|it| it.sent.items == 1) && sensors.has_ended());
    }
}
