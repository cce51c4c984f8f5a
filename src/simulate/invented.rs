//! What a simulated sensor publishes without a series: weather that drifts over the day, log messages, and the
//! share of invalid items. Called for each message that is due. Pure: the same seed, clock and revisions give
//! the same bytes on every machine.

use std::f64::consts::TAU;
use std::fmt;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::flaws;
use crate::domain::{Kind, Severity, Timestamp};
use crate::load::{Sent, log_message, measurement, measurements};

/// How the whole fleet publishes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Invention {
    /// Measurements in a message.
    pub(super) per_message: usize,
    /// Share of bad items, 0 to 1.
    pub(super) bad_share: f64,
    /// Share of messages that are log messages, 0 to 1.
    pub(super) log_share: f64,
    /// Time between one measurement of a message and the next.
    pub(super) spacing: Duration,
}

/// The state of one sensor.
#[derive(Clone, Debug)]
pub(super) struct Inventor {
    random: Xoshiro256PlusPlus,
    latest: Timestamp,
    /// Hundredths of a degree Celsius off the curve of the day.
    warmth: u32,
    measured: u32,
}

impl Inventor {
    /// The sensor with this number in the fleet of this seed.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed.rotate_left(32) ^ number);
        let (warmth, measured) = (random.random_range(300..1_900), random.random_range(0..16));
        Self { random, latest: Timestamp::default(), warmth, measured }
    }

    pub(super) fn next(
        &mut self,
        invention: &Invention,
        revision: i32,
        now: Timestamp,
    ) -> (Sent, Vec<u8>) {
        if self.random.random_bool(invention.log_share) {
            self.log(invention, revision, now)
        } else {
            self.measure(invention, revision, now)
        }
    }

    /// `time`, or the first later than every timestamp of this sensor: each item is distinct.
    pub(super) fn later_than_all(&mut self, time: Timestamp) -> Timestamp {
        self.latest = time.max(self.latest.saturating_add(Duration::from_micros(1)));
        self.latest
    }

    fn measure(&mut self, invention: &Invention, revision: i32, now: Timestamp) -> (Sent, Vec<u8>) {
        let kind = Kind::Measurement;
        let count = u32::try_from(invention.per_message).expect("per_message is bounded");
        let (mut bad, mut is_first_bad) = (0, false);
        let mut out = Vec::with_capacity(invention.per_message * 110);
        measurements(&mut out, |out| {
            for age in (0..count).rev() {
                let taken_at = self.later_than_all(now.saturating_sub(invention.spacing * age));
                if self.random.random_bool(invention.bad_share) {
                    bad += 1;
                    is_first_bad |= age + 1 == count;
                    flaws::measurement(revision, taken_at, &mut self.random, out);
                    out.push(b',');
                } else {
                    let weather = self.weather(taken_at);
                    measurement(out, revision, taken_at, weather);
                }
            }
        });
        if is_first_bad && flaws::spoils_message(&mut self.random) {
            let payload = flaws::message(kind, self.latest, &mut self.random);
            return (Sent { kind, items: 1, bad: 1, copy: false }, payload);
        }
        (Sent { kind, items: count, bad, copy: false }, out)
    }

    /// Members of a value. Not every measurement has all of them: a node saves its battery.
    fn weather(&mut self, taken_at: Timestamp) -> impl fmt::Display + use<> {
        const DAY_SECONDS: f64 = 86_400.0;
        const WINDS: [&str; 8] = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];
        self.measured = self.measured.wrapping_add(1);
        let measured = self.measured;
        // Coldest before dawn, warmest in the afternoon.
        let of_day = (TAU * (taken_at.unix_seconds() / DAY_SECONDS - 0.375)).sin() * 600.0 + 700.0;
        let temperature = of_day as u32 + self.warmth + self.random.random_range(0..40);
        let humidity = 500 + self.random.random_range(0..300) - self.warmth / 8;
        let pressure = 10_132 - self.random.random_range(0..60);
        let wind = WINDS.choose(&mut self.random).expect("there are eight");
        let battery = 330 + (measured / 16 * 84) % 85;
        fmt::from_fn(move |out| {
            let (degrees, hundredths) = (temperature / 100, temperature % 100);
            write!(out, r#""temperature":{degrees}.{hundredths:02}"#)?;
            write!(out, r#","humidity":{}.{}"#, humidity / 10, humidity % 10)?;
            if measured.is_multiple_of(4) {
                write!(out, r#","pressure":{}.{}"#, pressure / 10, pressure % 10)?;
            }
            if measured.is_multiple_of(16) {
                let (volts, hundredths) = (battery / 100, battery % 100);
                let charging = battery == 330;
                write!(
                    out,
                    r#","battery":{volts}.{hundredths:02},"charging":{charging},"wind":"{wind}""#
                )?;
            }
            Ok(())
        })
    }

    fn log(&mut self, invention: &Invention, revision: i32, now: Timestamp) -> (Sent, Vec<u8>) {
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
        let written_at = self.later_than_all(now);
        if self.random.random_bool(invention.bad_share) {
            let payload = if flaws::spoils_message(&mut self.random) {
                flaws::message(kind, written_at, &mut self.random)
            } else {
                flaws::log_message(revision, written_at, &mut self.random)
            };
            return (Sent { kind, items: 1, bad: 1, copy: false }, payload);
        }
        let remark = *REMARKS.choose(&mut self.random).expect("there are eight");
        (Sent::good(kind, 1), log_message(revision, written_at, remark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const NOW: Timestamp = Timestamp::from_unix_microseconds(1_763_971_200_123_456);
    const INVENTION: Invention = Invention {
        per_message: 1,
        bad_share: 0.0,
        log_share: 0.0,
        spacing: Duration::from_millis(1),
    };

    #[test]
    fn a_seed_gives_the_same_bytes() {
        let invention = Invention { bad_share: 0.1, log_share: 0.1, per_message: 3, ..INVENTION };
        let (mut one, mut other) = (Inventor::new(5, 9), Inventor::new(5, 9));
        for _ in 0..1_000 {
            assert_eq!(one.next(&invention, 7, NOW), other.next(&invention, 7, NOW));
        }
        let first = |seed, number| Inventor::new(seed, number).next(&INVENTION, 7, NOW);
        assert!(first(5, 1) != first(5, 2) && first(5, 1) != first(6, 1));
    }

    #[test]
    fn a_measurement_has_about_105_bytes_and_looks_like_weather() {
        let mut inventor = Inventor::new(1, 1);
        let (mut bytes, mut charging) = (0, 0);
        for minute in 0..16_000 {
            let now = NOW.saturating_add(Duration::from_secs(minute * 60));
            let (_, payload) = inventor.next(&INVENTION, 7, now);
            bytes += payload.len();
            let payload: Value = serde_json::from_slice(&payload).unwrap();
            let value = &payload["measurements"][0]["value"];
            let number = |name: &str| value.get(name).map(|it| it.as_f64().unwrap());
            assert!((0.0..40.0).contains(&number("temperature").unwrap()), "{value}");
            assert!((20.0..=100.0).contains(&number("humidity").unwrap()), "{value}");
            assert!((1_000.0..1_020.0).contains(&number("pressure").unwrap_or(1_000.0)), "{value}");
            assert!((3.0..4.3).contains(&number("battery").unwrap_or(4.0)), "{value}");
            charging += u32::from(value.get("charging") == Some(&true.into()));
        }
        assert!((100..120).contains(&(bytes / 16_000)), "{}", bytes / 16_000);
        assert!(charging > 5, "{charging}");
    }

    #[test]
    fn log_messages_are_valid() {
        let mut inventor = Inventor::new(1, 1);
        for _ in 0..100 {
            let invention = Invention { log_share: 1.0, ..INVENTION };
            let (sent, payload) = inventor.next(&invention, 7, NOW);
            assert_eq!(sent, Sent::good(Kind::LogMessage, 1));
            let payload: Value = serde_json::from_slice(&payload).unwrap();
            let item = &payload["log_messages"][0];
            assert!(Severity::parse(item["severity"].as_str().unwrap()).is_some());
            assert!(!item["subject"].as_str().unwrap().is_empty());
        }
    }

    #[test]
    fn the_share_of_bad_items_is_kept_and_counted() {
        let invention = Invention { per_message: 4, bad_share: 0.1, log_share: 0.05, ..INVENTION };
        let mut inventor = Inventor::new(2, 2);
        let (mut items, mut bad) = (0, 0);
        for _ in 0..5_000 {
            let (sent, _) = inventor.next(&invention, 7, NOW);
            (items, bad) = (items + sent.items, bad + sent.bad);
        }
        let share = f64::from(bad) / f64::from(items);
        assert!((0.08..0.13).contains(&share), "{share}");
    }

    proptest! {
        /// Each item is distinct, whatever the clock does and however many share a message.
        #[test]
        fn timestamps_of_a_sensor_rise(
            clock in prop::collection::vec(1_000_000_000i64..1_000_100_000, 1..30),
            per_message in 1usize..20,
            spacing in 0u64..10_000,
        ) {
            let spacing = Duration::from_micros(spacing);
            let invention = Invention { per_message, spacing, ..INVENTION };
            let mut inventor = Inventor::new(1, 1);
            let mut latest = Timestamp::default();
            for now in clock {
                let now = Timestamp::from_unix_microseconds(now);
                let (sent, payload) = inventor.next(&invention, 7, now);
                prop_assert_eq!(sent.items as usize, per_message);
                let payload: Value = serde_json::from_slice(&payload).unwrap();
                for item in payload["measurements"].as_array().unwrap() {
                    prop_assert_eq!(&item["revision"], 7);
                    let seconds = item["timestamp"].as_f64().unwrap();
                    let taken_at = Timestamp::from_unix_seconds(seconds).unwrap();
                    prop_assert!(taken_at > latest);
                    latest = taken_at;
                }
            }
        }
    }
}
