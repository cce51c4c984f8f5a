//! What the benchmark publishes: messages made from their number, so that a copy of one is the same to the byte.
//! Pure; published by the test bed, written as rows by the baseline of psql.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use crate::domain::{Kind, SensorIdentifier, Severity, Timestamp};
use crate::load::{Message, Sent, Source, heartbeat, log_message, measurement, measurements};
use crate::wire::Topics;

/// The sensors of most scenarios.
pub(super) const SENSORS: usize = 1_000;
/// Between one item and the next, so that no two have the same timestamp.
const SPACING: Duration = Duration::from_micros(100);
const REVISION: i32 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// Measurements in each message.
    Measurements(u32),
    /// 90 % measurements, 5 % log messages, 5 % heartbeats, one item each, 1 % of them bad.
    Mixture,
}

/// Messages that are sent twice.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Copies {
    /// Of all, 0 to 1.
    pub(super) share: f64,
    /// How many messages later the copy follows; 0 directly.
    pub(super) lag: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) topics: Topics,
    pub(super) sensors: Vec<SensorIdentifier>,
    pub(super) messages: u64,
    pub(super) shape: Shape,
    pub(super) copies: Copies,
    pub(super) begins_at: Timestamp,
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
            measurement(
                payload,
                REVISION,
                timestamp,
                format_args!(r#""temperature":{degrees}.{hundredths:02},"humidity":{humidity}"#),
            );
        }
    });
    payload
}

impl Load {
    /// How many messages are published, copies included, give or take one.
    pub(super) fn message_count(&self) -> u64 {
        self.messages + (self.messages as f64 * self.copies.share) as u64
    }

    /// Message `number`, from 0.
    fn message(&self, number: u64) -> Message {
        // A mixture's kinds recur at fixed intervals: they must not fall to the same sensors.
        let turn = number + number / self.sensors.len() as u64;
        let sensor = self.sensors[(turn % self.sensors.len() as u64) as usize];
        let timestamp = self.timestamp(number);
        let (sent, payload) = match self.shape {
            Shape::Measurements(items) => {
                let first = number * u64::from(items);
                let item =
                    |item| (self.timestamp(first + u64::from(item)), number + u64::from(item));
                (Sent::good(Kind::Measurement, items), measurements_of((0..items).map(item)))
            }
            Shape::Mixture => match number % 100 {
                turn if turn % 20 == 0 => {
                    let remark = (Severity::Info, "The filter was cleaned", Some("It took 12 s."));
                    (Sent::good(Kind::LogMessage, 1), log_message(REVISION, timestamp, remark))
                }
                turn if turn % 20 == 1 => {
                    (Sent::good(Kind::Heartbeat, 1), heartbeat(REVISION, timestamp, true))
                }
                2 => {
                    let mut payload = Vec::new();
                    measurements(&mut payload, |payload| {
                        measurement(payload, REVISION, timestamp, r#""position":{"x":1}"#);
                    });
                    (Sent { bad: 1, ..Sent::good(Kind::Measurement, 1) }, payload)
                }
                _ => {
                    let item = std::iter::once((timestamp, number));
                    (Sent::good(Kind::Measurement, 1), measurements_of(item))
                }
            },
        };
        let topic = self.topics.of(sent.kind, sensor).into();
        Message { topic, payload: payload.into(), sent }
    }

    fn timestamp(&self, item: u64) -> Timestamp {
        let since = i64::try_from(item).unwrap_or(i64::MAX) * SPACING.as_micros() as i64;
        Timestamp::from_unix_microseconds(self.begins_at.unix_microseconds() + since)
    }
}

/// The messages of a load in the order of publishing, copies among them.
#[derive(Clone, Debug)]
pub(super) struct Messages {
    load: Rc<Load>,
    next: u64,
    step: u64,
    /// Numbers of messages, each with the one before which its copy is published.
    copies: VecDeque<(u64, u64)>,
}

impl Messages {
    /// Every `step`-th message from `first` on: the part of one connection among several.
    pub(super) fn share(load: Rc<Load>, first: u64, step: u64) -> Self {
        Self { load, next: first, step, copies: VecDeque::new() }
    }
}

impl Iterator for Messages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let has_ended = self.next >= self.load.messages;
        let next = self.next;
        if let Some((number, _)) = self.copies.pop_front_if(|it| has_ended || it.1 <= next) {
            let mut copy = self.load.message(number);
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
        Some(self.load.message(next))
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

    fn messages(count: u64, shape: Shape, copies: Copies) -> Vec<Message> {
        Messages::share(load(count, shape, copies), 0, 1).collect()
    }

    fn load(messages: u64, shape: Shape, copies: Copies) -> Rc<Load> {
        let begins_at = Timestamp::from_unix_microseconds(1_793_876_400_000_000);
        let (topics, sensors) = (Topics::new("bench"), sensors(10));
        Rc::new(Load { topics, sensors, messages, shape, copies, begins_at })
    }

    fn account(messages: &[Message]) -> Account {
        let mut account = Account::default();
        messages.iter().for_each(|message| account.add(message.sent));
        account
    }

    #[test]
    fn a_message_of_one_measurement_has_about_105_bytes() {
        let message = &messages(2, Shape::Measurements(1), Copies::default())[1];
        assert_eq!(
            String::from_utf8(message.payload.to_vec()).unwrap(),
            r#"{"measurements":[{"revision":1,"timestamp":1793876400.000100,"value":{"temperature":10.01,"humidity":31}}]}"#
        );
    }

    #[test]
    fn the_mixture_is_90_to_5_to_5_with_one_bad_in_a_hundred() {
        let account = account(&messages(1_000, Shape::Mixture, Copies::default()));
        let [measurements, log_messages, heartbeats] = account.kinds;
        assert_eq!((measurements.published, measurements.bad), (900, 10));
        assert_eq!((log_messages.published, heartbeats.distinct), (50, 50));
    }

    #[test]
    fn a_copy_is_equal_and_comes_when_it_should() {
        let all = messages(10, Shape::Measurements(2), Copies { share: 0.5, lag: 0 });
        assert_eq!((&all[1].topic, &all[1].payload), (&all[2].topic, &all[2].payload));
        let account = account(&all);
        assert_eq!((all.len(), account.items(), account.distinct()), (15, 30, 20));

        let later = messages(10, Shape::Measurements(2), Copies { share: 1.0, lag: 4 });
        let position = later.iter().rposition(|it| it.payload == later[0].payload);
        assert_eq!((later.len(), position), (20, Some(5)));
    }

    #[test]
    fn shares_make_up_the_whole_and_no_two_messages_are_equal() {
        for shape in [Shape::Measurements(1), Shape::Measurements(3), Shape::Mixture] {
            let load = load(500, shape, Copies::default());
            let shared = (0..7).flat_map(|first| Messages::share(Rc::clone(&load), first, 7));
            let shared: HashSet<Vec<u8>> = shared.map(|it| it.payload.to_vec()).collect();
            let all = messages(500, shape, Copies::default());
            assert_eq!(shared.len(), 500);
            assert!(all.iter().all(|it| shared.contains(&it.payload[..])));
        }
    }
}
