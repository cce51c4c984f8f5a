//! What an invented sensor says, good and bad, drawn from its seed. Called for each message that
//! falls due. Pure: the clock and the revision are handed in, and the same seed, clock and
//! revisions give the same bytes.

use super::random::Random;
use super::spoil;
use super::text;
use super::weather::Weather;
use crate::domain::{Kind, Severity, Timestamp};

/// How the whole fleet speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habit {
    /// Measurements in a message.
    pub(super) per_message: usize,
    /// The share of bad items, 0 to 1.
    pub(super) bad_share: f64,
    /// The share of messages that are log messages, 0 to 1.
    pub(super) log_share: f64,
    /// Between one measurement of a message and the next.
    pub(super) spacing_microseconds: i64,
}

/// What was written: one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spoken {
    /// Its topic.
    pub(super) kind: Kind,
    /// Its items, as the service counts them: a payload that is broken as a whole is one.
    pub(super) items: u32,
    /// Those that the service is expected to reject.
    pub(super) bad_items: u32,
}

/// One sensor: the weather around it, and the last moment of which it spoke.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    random: Random,
    latest_microseconds: i64,
    weather: Weather,
}

impl Voice {
    /// The sensor with this number in the fleet of this seed.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut random = Random::new(seed, number);
        Self { weather: Weather::new(&mut random), random, latest_microseconds: 0 }
    }

    /// The next message, written to the end of `out`.
    pub(super) fn speak(
        &mut self,
        habit: &Habit,
        revision: i32,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Spoken {
        if self.random.hits(habit.log_share) {
            self.log(habit, revision, now, out)
        } else {
            self.measure(habit, revision, now, out)
        }
    }

    /// A moment later than every one of which the sensor has spoken; `target` where that is.
    pub(super) fn moment(&mut self, target: i64) -> i64 {
        self.latest_microseconds = target.max(self.latest_microseconds + 1);
        self.latest_microseconds
    }

    fn measure(
        &mut self,
        habit: &Habit,
        revision: i32,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Spoken {
        let kind = Kind::Measurement;
        let start = out.len();
        let mut bad_items = 0;
        let mut items = 0;
        out.extend_from_slice(br#"{"measurements":["#);
        for age in (0..habit.per_message as i64).rev() {
            let taken = self.moment(now.unix_microseconds() - age * habit.spacing_microseconds);
            let bad = self.random.hits(habit.bad_share);
            if bad && items == 0 && spoil::whole_message(&mut self.random) {
                out.truncate(start);
                spoil::message(kind, taken, &mut self.random, out);
                return Spoken { kind, items: 1, bad_items: 1 };
            }
            if items > 0 {
                out.push(b',');
            }
            items += 1;
            if bad {
                bad_items += 1;
                spoil::measurement(revision, taken, &mut self.random, out);
                continue;
            }
            out.extend_from_slice(br#"{"revision":"#);
            text::whole(revision, out);
            out.extend_from_slice(br#","timestamp":"#);
            text::seconds(taken, out);
            out.extend_from_slice(br#","value":{"#);
            self.weather.measure(taken, &mut self.random, out);
            out.extend_from_slice(b"}}");
        }
        out.extend_from_slice(b"]}");
        Spoken { kind, items, bad_items }
    }

    fn log(&mut self, habit: &Habit, revision: i32, now: Timestamp, out: &mut Vec<u8>) -> Spoken {
        const REMARKS: [(Severity, &str, Option<&str>); 8] = [
            (Severity::Info, "Started after a power cut", Some("Uptime counts from zero again")),
            (Severity::Info, "Clock set", Some("It was 12 ms behind")),
            (Severity::Info, "The battery is charging", None),
            (Severity::Warning, "The battery is low", Some("Measuring half as often would help")),
            (Severity::Warning, "The CPU is warm", Some("61 °C")),
            (Severity::Warning, "The signal is weak", Some("-97 dBm")),
            (Severity::Error, "The rain gauge is stuck", Some("Please call the plumber")),
            (Severity::Error, "The CPU is burning", Some("Please call the fire department")),
        ];
        let kind = Kind::LogMessage;
        let written = self.moment(now.unix_microseconds());
        if self.random.hits(habit.bad_share) {
            if spoil::whole_message(&mut self.random) {
                spoil::message(kind, written, &mut self.random, out);
            } else {
                spoil::log_message(revision, written, &mut self.random, out);
            }
            return Spoken { kind, items: 1, bad_items: 1 };
        }
        let (severity, subject, details) = self.random.pick(&REMARKS);
        out.extend_from_slice(br#"{"log_messages":[{"severity":""#);
        out.extend_from_slice(severity.name().as_bytes());
        out.extend_from_slice(br#"","revision":"#);
        text::whole(revision, out);
        out.extend_from_slice(br#","timestamp":"#);
        text::seconds(written, out);
        out.extend_from_slice(br#","subject":"#);
        text::string(subject, out);
        if let Some(details) = details {
            out.extend_from_slice(br#","details":"#);
            text::string(details, out);
        }
        out.extend_from_slice(b"}]}");
        Spoken { kind, items: 1, bad_items: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const NOW: Timestamp = Timestamp::from_unix_microseconds(1_763_971_200_123_456);
    const HABIT: Habit =
        Habit { per_message: 1, bad_share: 0.0, log_share: 0.0, spacing_microseconds: 1_000 };

    fn say(voice: &mut Voice, habit: &Habit, now: Timestamp) -> (Spoken, Vec<u8>) {
        let mut out = Vec::new();
        let spoken = voice.speak(habit, 7, now, &mut out);
        (spoken, out)
    }

    #[test]
    fn a_seed_gives_the_same_bytes() {
        let habit = Habit { bad_share: 0.1, log_share: 0.1, per_message: 3, ..HABIT };
        let (mut one, mut other) = (Voice::new(5, 9), Voice::new(5, 9));
        for _ in 0..1_000 {
            assert_eq!(say(&mut one, &habit, NOW), say(&mut other, &habit, NOW));
        }
        assert_ne!(
            say(&mut Voice::new(5, 1), &HABIT, NOW),
            say(&mut Voice::new(5, 2), &HABIT, NOW)
        );
    }

    #[test]
    fn one_measurement_is_about_105_bytes() {
        let mut voice = Voice::new(1, 1);
        let bytes: usize = (0..1_600).map(|_| say(&mut voice, &HABIT, NOW).1.len()).sum();
        assert!((100..120).contains(&(bytes / 1_600)), "{}", bytes / 1_600);
    }

    #[test]
    fn log_messages_are_whole() {
        let habit = Habit { log_share: 1.0, ..HABIT };
        let mut voice = Voice::new(1, 1);
        for _ in 0..100 {
            let (spoken, payload) = say(&mut voice, &habit, NOW);
            assert_eq!(spoken, Spoken { kind: Kind::LogMessage, items: 1, bad_items: 0 });
            let payload: Value = serde_json::from_slice(&payload).unwrap();
            let item = &payload["log_messages"][0];
            assert!(Severity::parse(item["severity"].as_str().unwrap()).is_some());
            assert!(!item["subject"].as_str().unwrap().is_empty());
        }
    }

    #[test]
    fn the_share_of_bad_items_is_kept_and_counted() {
        let habit = Habit { per_message: 4, bad_share: 0.1, log_share: 0.05, ..HABIT };
        let mut voice = Voice::new(2, 2);
        let (mut items, mut bad) = (0, 0);
        for _ in 0..5_000 {
            let (spoken, _) = say(&mut voice, &habit, NOW);
            items += spoken.items;
            bad += spoken.bad_items;
        }
        let share = f64::from(bad) / f64::from(items);
        assert!((0.08..0.13).contains(&share), "{share}");
    }

    proptest! {
        /// Each item is distinct, whatever the clock does and however many share a message.
        #[test]
        fn moments_of_a_sensor_rise(
            clock in prop::collection::vec(1_000_000_000i64..1_000_100_000, 1..30),
            per_message in 1usize..20,
            spacing_microseconds in 0i64..10_000,
        ) {
            let habit = Habit { per_message, spacing_microseconds, ..HABIT };
            let mut voice = Voice::new(1, 1);
            let mut latest = 0;
            for now in clock {
                let now = Timestamp::from_unix_microseconds(now);
                let (spoken, payload) = say(&mut voice, &habit, now);
                prop_assert_eq!(spoken.items as usize, per_message);
                let payload: Value = serde_json::from_slice(&payload).unwrap();
                for item in payload["measurements"].as_array().unwrap() {
                    prop_assert_eq!(&item["revision"], 7);
                    let seconds = item["timestamp"].as_f64().unwrap();
                    let moment = Timestamp::from_unix_seconds(seconds).unwrap().unix_microseconds();
                    prop_assert!(moment > latest);
                    latest = moment;
                }
            }
        }
    }
}
