//! What the benchmark publishes, and how fast: messages made from their number, so that a copy of one is the same to
//! the byte. Pure; published by the test bed, written as rows by the baseline of psql.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use crate::domain::{Kind, SensorIdentifier, Severity, Timestamp};
use crate::load::{Message, Rate, Sent, Source, heartbeat, log_message, measurement, measurements};
use crate::wire::Topics;

/// The sensors of most scenarios.
pub(super) const SENSORS: usize = 1_000;
/// Between one item and the next, so that no two have the same timestamp.
const SPACING_MICROSECONDS: u64 = 100;
const REVISION: i32 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// Measurements in each message.
    Measurements(u32),
    /// 90 % measurements, 5 % log messages, 5 % heartbeats, one item each, 1 % of them bad.
    Mixture,
}

/// Messages that are sent twice.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Copies {
    /// Of all, 0 to 1.
    pub(super) share: f64,
    /// How many messages later the copy follows; 0 directly.
    pub(super) lag: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) messages: u64,
    pub(super) sensors: usize,
    pub(super) shape: Shape,
    pub(super) copies: Copies,
    /// Of all connections together.
    pub(super) rate: Rate,
    /// None until all messages are published.
    pub(super) duration: Option<Duration>,
    pub(super) connections: u64,
    /// Un-acknowledged messages of each connection.
    pub(super) window: usize,
}

impl Load {
    /// As fast as the broker takes it; over one connection, which keeps the order.
    pub(super) const fn backlog(messages: u64, sensors: usize, shape: Shape) -> Self {
        let (copies, rate) = (Copies { share: 0.0, lag: 0 }, Rate::Unlimited);
        Self {
            messages,
            sensors,
            shape,
            copies,
            rate,
            duration: None,
            connections: 1,
            window: 10_000,
        }
    }

    /// From a fleet: a broker that takes one packet of each connection in turn is faster with several.
    pub(super) fn live(messages: u64, items: u32, rate: Rate) -> Self {
        let backlog = Self::backlog(messages, SENSORS, Shape::Measurements(items));
        Self { rate, connections: 8, window: 250, ..backlog }
    }

    /// How many messages are published, copies included, give or take one.
    pub(super) fn message_count(&self) -> u64 {
        self.messages + (self.messages as f64 * self.copies.share) as u64
    }
}

/// The same sensors in each run, with identifiers distributed as random ones are.
pub(super) fn sensors(count: usize) -> Vec<SensorIdentifier> {
    let sensor = |number: usize| {
        let bytes = xxh3_128(&(number as u64).to_le_bytes()).to_be_bytes();
        SensorIdentifier(uuid::Builder::from_random_bytes(bytes).into_uuid())
    };
    (0..count).map(sensor).collect()
}

/// A message of measurements, given their timestamps and numbers from which their values are made.
pub(super) fn measurements_of(items: impl ExactSizeIterator<Item = (Timestamp, u64)>) -> Vec<u8> {
    let mut payload = Vec::with_capacity(32 + 80 * items.len());
    measurements(&mut payload, |payload| {
        for (timestamp, number) in items {
            let (temperature, humidity) = (number % 1_000 + 1_000, number % 61 + 30);
            let (degrees, hundredths) = (temperature / 100, temperature % 100);
            let members =
                format_args!(r#""temperature":{degrees}.{hundredths:02},"humidity":{humidity}"#);
            measurement(payload, REVISION, timestamp, members);
        }
    });
    payload
}

/// The messages of a load in the order of publishing, copies among them.
#[derive(Clone, Debug)]
pub(super) struct Messages {
    load: Rc<Load>,
    sensors: Rc<[SensorIdentifier]>,
    topics: Topics,
    begins_at: Timestamp,
    next: u64,
    step: u64,
    /// Numbers of messages, each with the one before which its copy is published.
    copies: VecDeque<(u64, u64)>,
}

impl Messages {
    pub(super) fn new(load: Load, topics: Topics, begins_at: Timestamp) -> Self {
        let (sensors, load) = (sensors(load.sensors).into(), Rc::new(load));
        Self { load, sensors, topics, begins_at, next: 0, step: 1, copies: VecDeque::new() }
    }

    /// The part of one connection of the load.
    pub(super) fn of_connection(&self, number: u64) -> Self {
        Self { next: number, step: self.load.connections, ..self.clone() }
    }

    /// Message `number`, from 0.
    fn message(&self, number: u64) -> Message {
        // A mixture's kinds recur at fixed intervals: they must not fall to the same sensors.
        let sensor_count = self.sensors.len() as u64;
        let sensor = self.sensors[((number + number / sensor_count) % sensor_count) as usize];
        let timestamp = self.timestamp(number);
        let (sent, payload) = match (self.load.shape, number % 100) {
            (Shape::Measurements(items), _) => {
                let first = number * u64::from(items);
                let item = |it| (self.timestamp(first + u64::from(it)), number + u64::from(it));
                (Sent::good(Kind::Measurement, items), measurements_of((0..items).map(item)))
            }
            (Shape::Mixture, 2) => {
                let mut payload = Vec::new();
                measurements(&mut payload, |payload| {
                    measurement(payload, REVISION, timestamp, r#""position":{"x":1}"#);
                });
                (Sent { bad: 1, ..Sent::good(Kind::Measurement, 1) }, payload)
            }
            (Shape::Mixture, turn) => match turn % 20 {
                0 => {
                    let remark = (Severity::Info, "The filter was cleaned", Some("It took 12 s."));
                    (Sent::good(Kind::LogMessage, 1), log_message(REVISION, timestamp, remark))
                }
                1 => (Sent::good(Kind::Heartbeat, 1), heartbeat(REVISION, timestamp, true)),
                _ => {
                    let payload = measurements_of(std::iter::once((timestamp, number)));
                    (Sent::good(Kind::Measurement, 1), payload)
                }
            },
        };
        let topic = self.topics.of(sent.kind, sensor).into();
        Message { topic, payload: payload.into(), sent }
    }

    fn timestamp(&self, item: u64) -> Timestamp {
        self.begins_at.saturating_add(Duration::from_micros(item * SPACING_MICROSECONDS))
    }
}

impl Iterator for Messages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let next = self.next;
        let has_ended = next >= self.load.messages;
        if let Some((number, _)) = self.copies.pop_front_if(|it| has_ended || it.1 <= next) {
            let mut copy = self.message(number);
            copy.sent.copy = true;
            return Some(copy);
        }
        if has_ended {
            return None;
        }
        self.next += self.step;
        let Copies { share, lag } = self.load.copies;
        if ((next + 1) as f64 * share) as u64 > (next as f64 * share) as u64 {
            self.copies.push_back((next, self.next + lag));
        }
        Some(self.message(next))
    }
}

impl Source for Messages {
    fn next(&mut self, _now: Timestamp) -> Option<Message> {
        Iterator::next(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Account;
    use std::collections::HashSet;

    fn messages(load: Load) -> Messages {
        let begins_at = Timestamp::from_unix_microseconds(1_793_876_400_000_000);
        Messages::new(load, Topics::new("bench"), begins_at)
    }

    fn account(messages: &[Message]) -> Account {
        let mut account = Account::default();
        messages.iter().for_each(|message| account.add(message.sent));
        account
    }

    #[test]
    fn a_message_of_one_measurement_has_about_105_bytes() {
        let message = messages(Load::live(2, 1, Rate::Unlimited)).message(1);
        let expected = r#"{"measurements":[{"revision":1,"timestamp":1793876400.000100,"value":{"temperature":10.01,"humidity":31}}]}"#;
        assert_eq!(message.payload, expected.as_bytes());
    }

    #[test]
    fn the_mixture_is_90_to_5_to_5_with_one_bad_in_a_hundred() {
        let all: Vec<Message> = messages(Load::backlog(1_000, 10, Shape::Mixture)).collect();
        let [measurements, log_messages, heartbeats] = account(&all).kinds;
        assert_eq!((measurements.published, measurements.bad), (900, 10));
        assert_eq!((log_messages.published, heartbeats.distinct), (50, 50));
    }

    #[test]
    fn a_copy_is_equal_and_comes_when_it_should() {
        let all = |share, lag| {
            let backlog = Load::backlog(10, 10, Shape::Measurements(2));
            messages(Load { copies: Copies { share, lag }, ..backlog }).collect::<Vec<_>>()
        };
        let directly = all(0.5, 0);
        assert_eq!(
            (&directly[1].topic, &directly[1].payload),
            (&directly[2].topic, &directly[2].payload)
        );
        let account = account(&directly);
        assert_eq!((directly.len(), account.items(), account.distinct()), (15, 30, 20));
        let later = all(1.0, 4);
        let position = later.iter().rposition(|it| it.payload == later[0].payload);
        assert_eq!((later.len(), position), (20, Some(5)));
    }

    #[test]
    fn connections_make_up_the_whole_and_no_two_messages_are_equal() {
        for shape in [Shape::Measurements(1), Shape::Measurements(3), Shape::Mixture] {
            let whole = messages(Load { connections: 7, ..Load::backlog(500, 10, shape) });
            let shared = (0..7).flat_map(|number| whole.of_connection(number));
            let shared: HashSet<Vec<u8>> = shared.map(|it| it.payload.to_vec()).collect();
            assert_eq!(shared.len(), 500);
            assert!(whole.clone().all(|it| shared.contains(&it.payload[..])));
        }
    }
}
