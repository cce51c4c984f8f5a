//! What the benchmark publishes: messages made from their number, so that a copy of one is the
//! same to the byte, and the account of what must become of them. Pure; consumed by the publisher
//! and by the yardsticks.

use std::collections::VecDeque;

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::payload;
use crate::domain::{Kind, SensorIdentifier, Timestamp};
use crate::wire::Topics;

/// If nothing else is said.
pub(super) const SENSORS: usize = 1_000;

/// Items of one sensor are so far apart and more; two are never made at one moment.
const MICROSECONDS_PER_ITEM: i64 = 100;

/// In a mixture one message in so many is a log message, and another one a heartbeat.
const MIXTURE: u64 = 20;

/// In a mixture one message in so many holds a bad item.
const ONE_BAD_IN: u64 = 100;

/// What the messages are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// So many measurements in each.
    Measurements(u32),
    /// 90 % measurements, 5 % log messages, 5 % heartbeats, one item each, 1 % of them bad.
    Mixture,
}

/// Messages that are sent twice.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Repetition {
    /// Of all.
    pub(super) share: f64,
    /// The copy follows so many messages later; 0 directly.
    pub(super) lag: u64,
}

impl Repetition {
    pub(super) const NONE: Self = Self { share: 0.0, lag: 0 };
}

/// What is to be published.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) topics: Topics,
    pub(super) sensors: Vec<SensorIdentifier>,
    pub(super) messages: u64,
    pub(super) shape: Shape,
    pub(super) repetition: Repetition,
    /// When the first item was made.
    pub(super) begun_at: Timestamp,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) said: Said,
}

/// What a message adds to the account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Said {
    kind: Kind,
    items: u64,
    bad: bool,
    copy: bool,
}

/// Items of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Items {
    /// All, copies and bad ones too.
    pub(super) published: u64,
    /// Good ones, each once: so many rows there must be.
    pub(super) distinct: u64,
    /// Bad ones, each once: so many rejections there must be.
    pub(super) bad: u64,
}

/// What was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Account {
    pub(super) messages: u64,
    pub(super) measurements: Items,
    pub(super) log_messages: Items,
    pub(super) heartbeats: Items,
}

impl Account {
    pub(super) fn add(&mut self, said: Said) {
        self.messages += 1;
        let items = match said.kind {
            Kind::Measurement => &mut self.measurements,
            Kind::LogMessage => &mut self.log_messages,
            Kind::Heartbeat => &mut self.heartbeats,
        };
        items.published += said.items;
        if said.copy {
            return;
        }
        if said.bad { items.bad += said.items } else { items.distinct += said.items }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.messages += other.messages;
        for (mine, theirs) in [
            (&mut self.measurements, other.measurements),
            (&mut self.log_messages, other.log_messages),
            (&mut self.heartbeats, other.heartbeats),
        ] {
            mine.published += theirs.published;
            mine.distinct += theirs.distinct;
            mine.bad += theirs.bad;
        }
    }

    pub(super) const fn kinds(&self) -> [Items; 3] {
        [self.measurements, self.log_messages, self.heartbeats]
    }

    pub(super) fn items(&self) -> u64 {
        self.kinds().iter().map(|items| items.published).sum()
    }

    pub(super) fn distinct(&self) -> u64 {
        self.kinds().iter().map(|items| items.distinct).sum()
    }
}

/// The sensors of the benchmark: always the same, and spread as random ones are.
pub(super) fn sensors(count: usize) -> Vec<SensorIdentifier> {
    let sensor = |number: usize| {
        let bytes = xxh3_128(&(number as u64).to_le_bytes()).to_be_bytes();
        SensorIdentifier(uuid::Builder::from_random_bytes(bytes).into_uuid())
    };
    (0..count).map(sensor).collect()
}

/// The sensor of the probes, which is none of those.
pub(super) fn probe_sensor() -> SensorIdentifier {
    SensorIdentifier(Uuid::from_u128(0x7072_6f62_6500_4000_8000_0000_0000_0001))
}

/// A measurement of the probes' sensor.
pub(super) fn probe_message(topics: &Topics, moment: Timestamp) -> Message {
    let payload = payload::measurements(std::iter::once((moment, 0)));
    let said = Said { kind: Kind::Measurement, items: 1, bad: false, copy: false };
    Message { topic: topics.of(Kind::Measurement, probe_sensor()), payload, said }
}

impl Load {
    /// How many messages go out, copies too, give or take one.
    pub(super) fn message_count(&self) -> u64 {
        self.messages + (self.messages as f64 * self.repetition.share) as u64
    }

    /// The messages in the order of publishing.
    pub(super) fn messages(&self) -> Messages<'_> {
        self.share(0, 1)
    }

    /// Every so-manieth of them, from this one on: the part of one connection among several.
    pub(super) fn share(&self, first: u64, step: u64) -> Messages<'_> {
        Messages { load: self, next: first, step, copies: VecDeque::new() }
    }

    /// Message so-and-so.
    pub(super) fn message(&self, number: u64) -> Message {
        let sensor = self.sensor(number);
        let good = |kind, items, payload| Message {
            topic: self.topics.of(kind, sensor),
            payload,
            said: Said { kind, items, bad: false, copy: false },
        };
        match self.shape {
            Shape::Measurements(items) => {
                good(Kind::Measurement, u64::from(items), self.measurements(number, items))
            }
            Shape::Mixture => match number % MIXTURE {
                0 => good(Kind::LogMessage, 1, payload::log_message(self.moment(number))),
                1 => good(Kind::Heartbeat, 1, payload::heartbeat(self.moment(number))),
                _ if number % ONE_BAD_IN == 2 => {
                    let mut message =
                        good(Kind::Measurement, 1, payload::bad_measurement(self.moment(number)));
                    message.said.bad = true;
                    message
                }
                _ => good(Kind::Measurement, 1, self.measurements(number, 1)),
            },
        }
    }

    fn sensor(&self, number: u64) -> SensorIdentifier {
        // A mixture's kinds recur every so many messages: they must not fall to the same sensors.
        let turn = number + number / self.sensors.len() as u64;
        self.sensors[(turn % self.sensors.len() as u64) as usize]
    }

    fn moment(&self, item: u64) -> Timestamp {
        let since = i64::try_from(item).unwrap_or(i64::MAX) * MICROSECONDS_PER_ITEM;
        Timestamp::from_unix_microseconds(self.begun_at.unix_microseconds() + since)
    }

    fn measurements(&self, number: u64, items: u32) -> String {
        let items = u64::from(items);
        payload::measurements(
            (0..items).map(|item| (self.moment(number * items + item), number + item)),
        )
    }
}

/// The messages of a load, copies among them.
#[derive(Clone, Debug)]
pub(super) struct Messages<'a> {
    load: &'a Load,
    next: u64,
    step: u64,
    /// The number of the message, and the one before which its copy goes out.
    copies: VecDeque<(u64, u64)>,
}

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let ends = self.next >= self.load.messages;
        if let Some((number, _)) = self.copies.pop_front_if(|(_, due)| ends || *due <= self.next) {
            let mut copy = self.load.message(number);
            copy.said.copy = true;
            return Some(copy);
        }
        if ends {
            return None;
        }
        let number = self.next;
        self.next += self.step;
        let Repetition { share, lag } = self.load.repetition;
        let before = (number as f64 * share) as u64;
        if ((number + 1) as f64 * share) as u64 > before {
            self.copies.push_back((number, self.next + lag));
        }
        Some(self.load.message(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn load(messages: u64, shape: Shape, repetition: Repetition) -> Load {
        Load {
            topics: Topics::new("bench"),
            sensors: sensors(10),
            messages,
            shape,
            repetition,
            begun_at: Timestamp::from_unix_microseconds(1_793_876_400_000_000),
        }
    }

    fn account(load: &Load) -> Account {
        let mut account = Account::default();
        load.messages().for_each(|message| account.add(message.said));
        account
    }

    #[test]
    fn a_message_of_one_has_about_105_bytes() {
        let message = load(1, Shape::Measurements(1), Repetition::NONE).message(0);
        assert!((100..=110).contains(&message.payload.len()), "{}", message.payload);
    }

    #[test]
    fn the_mixture_is_90_to_5_to_5_with_one_bad_in_a_hundred() {
        let account = account(&load(1_000, Shape::Mixture, Repetition::NONE));
        let [measurements, log_messages, heartbeats] = account.kinds();
        assert_eq!((measurements.published, measurements.bad), (900, 10));
        assert_eq!((log_messages.published, heartbeats.distinct), (50, 50));
        assert_eq!((account.items(), account.distinct()), (1_000, 990));
    }

    #[test]
    fn a_copy_is_the_same_and_comes_when_it_should() {
        let directly = load(10, Shape::Measurements(2), Repetition { share: 0.5, lag: 0 });
        let all: Vec<Message> = directly.messages().collect();
        assert_eq!(all.len(), 15);
        assert_eq!((&all[1].topic, &all[1].payload), (&all[2].topic, &all[2].payload));
        let account = account(&directly);
        assert_eq!((account.items(), account.distinct()), (30, 20));

        let later = load(10, Shape::Measurements(2), Repetition { share: 1.0, lag: 4 });
        let all: Vec<Message> = later.messages().collect();
        assert_eq!(all.len(), 20);
        let place = all.iter().rposition(|it| it.payload == all[0].payload).unwrap();
        assert_eq!(place, 5);
    }

    #[test]
    fn shares_make_up_the_whole() {
        let load = load(100, Shape::Measurements(1), Repetition::NONE);
        let mut shared: Vec<String> =
            (0..7).flat_map(|first| load.share(first, 7)).map(|it| it.payload).collect();
        let mut all: Vec<String> = load.messages().map(|it| it.payload).collect();
        shared.sort_unstable();
        all.sort_unstable();
        assert_eq!(shared, all);
    }

    #[test]
    fn no_two_messages_say_the_same() {
        for shape in [Shape::Measurements(1), Shape::Measurements(3), Shape::Mixture] {
            let load = load(500, shape, Repetition::NONE);
            let distinct: HashSet<String> = load.messages().map(|it| it.payload).collect();
            assert_eq!(distinct.len(), 500);
        }
    }
}
