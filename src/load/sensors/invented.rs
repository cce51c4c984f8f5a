//! What a sensor publishes without a series: weather that drifts over the day, log messages, heartbeats, and the share
//! of invalid items. Called for each message that is due. Pure: the same seed, clock and revisions give the same
//! bytes on every machine.

use std::f64::consts::TAU;
use std::fmt;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::super::account::Sent;
use super::flaws;
use super::payload::{Revision, heartbeat, item, log_message, measurements};
use crate::domain::{Kind, Severity, Timestamp};

/// How the whole fleet publishes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Invention {
    /// Measurements in a message.
    pub(crate) per_message: u32,
    /// Time between one measurement of a message and the next.
    pub(crate) spacing: Duration,
    /// Shares of messages, 0 to 1.
    pub(crate) log_share: f64,
    pub(crate) heartbeat_share: f64,
    /// Share of bad items, 0 to 1.
    pub(crate) bad_share: f64,
    /// Whether some values also have the rarer members, as a weather node's.
    pub(crate) is_varied: bool,
}

impl Invention {
    /// Good measurements of the same members.
    pub(crate) const fn of_measurements(per_message: u32) -> Self {
        let spacing = Duration::from_micros(100);
        let (log_share, heartbeat_share, bad_share, is_varied) = (0.0, 0.0, 0.0, false);
        Self { per_message, spacing, log_share, heartbeat_share, bad_share, is_varied }
    }
}

/// The state of one sensor.
#[derive(Clone, Debug)]
pub(super) struct Inventor {
    random: Xoshiro256PlusPlus,
    latest: Timestamp,
    /// Hundredths of a degree Celsius off the curve of the day.
    temperature_offset: u32,
    measured: u32,
}

impl Inventor {
    /// The sensor with this number in the fleet of this seed.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed.rotate_left(32) ^ number);
        let (temperature_offset, measured) =
            (random.random_range(300..1_900), random.random_range(0..16));
        Self { random, latest: Timestamp::default(), temperature_offset, measured }
    }

    pub(super) fn next(
        &mut self,
        invention: &Invention,
        revision: Revision,
        now: Timestamp,
    ) -> (Sent, Vec<u8>) {
        let draw: f64 = self.random.random();
        if draw < invention.log_share {
            self.log(invention, revision, now)
        } else if draw < invention.log_share + invention.heartbeat_share {
            let payload = heartbeat(revision, self.later_than_all(now), true);
            (Sent::good(Kind::Heartbeat, 1), payload)
        } else {
            self.measure(invention, revision, now)
        }
    }

    /// `time`, or the first later than every timestamp of this sensor: each item is distinct.
    pub(super) fn later_than_all(&mut self, time: Timestamp) -> Timestamp {
        self.latest = time.max(self.latest.saturating_add(Duration::from_micros(1)));
        self.latest
    }

    pub(super) const fn latest(&self) -> Timestamp {
        self.latest
    }

    fn measure(
        &mut self,
        invention: &Invention,
        revision: Revision,
        now: Timestamp,
    ) -> (Sent, Vec<u8>) {
        let (kind, items) = (Kind::Measurement, invention.per_message);
        let (mut bad, mut is_first_bad) = (0, false);
        let mut out = Vec::with_capacity(20 + items as usize * 100);
        measurements(&mut out, |out| {
            for age in (0..items).rev() {
                let taken_at = self.later_than_all(now.saturating_sub(invention.spacing * age));
                if invention.bad_share > 0.0 && self.random.random_bool(invention.bad_share) {
                    bad += 1;
                    is_first_bad |= age + 1 == items;
                    let item = (revision, taken_at, kind);
                    out.extend(flaws::one_of(&flaws::ITEMS, item, &mut self.random));
                    out.push(b',');
                } else {
                    item(out, revision, taken_at, self.weather(taken_at, invention.is_varied));
                }
            }
        });
        if is_first_bad && flaws::is_whole_message_invalid(&mut self.random) {
            let message = (Revision(None), self.latest, kind);
            let payload = flaws::one_of(&flaws::MESSAGES, message, &mut self.random);
            return (Sent { kind, items: 1, bad: 1, copy: false }, payload);
        }
        (Sent { kind, items, bad, copy: false }, out)
    }

    /// Members of a value. Not every measurement has all of them: a node saves its battery.
    fn weather(&mut self, taken_at: Timestamp, is_varied: bool) -> impl fmt::Display + use<> {
        const DAY_SECONDS: f64 = 86_400.0;
        const WINDS: [&str; 8] = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];
        self.measured = self.measured.wrapping_add(1);
        let (measured, draw) = (self.measured, self.random.random::<u32>());
        // Coldest before dawn, warmest in the afternoon.
        let of_day = (TAU * (taken_at.unix_seconds() / DAY_SECONDS - 0.375)).sin() * 600.0 + 700.0;
        let temperature = of_day as u32 + self.temperature_offset + draw % 40;
        let (humidity, pressure) = (30 + draw / 64 % 61, 10_100 + draw / 4_096 % 60);
        let (is_charging, wind) = (measured.is_multiple_of(64), WINDS[(draw >> 29) as usize]);
        fmt::from_fn(move |out| {
            let (degrees, hundredths) = (temperature / 100, temperature % 100);
            write!(out, r#""temperature":{degrees}.{hundredths:02},"humidity":{humidity}"#)?;
            if is_varied && measured.is_multiple_of(8) {
                let (hectopascals, tenth) = (pressure / 10, pressure % 10);
                write!(
                    out,
                    r#","pressure":{hectopascals}.{tenth},"charging":{is_charging},"wind":"{wind}""#
                )?;
            }
            Ok(())
        })
    }

    fn log(
        &mut self,
        invention: &Invention,
        revision: Revision,
        now: Timestamp,
    ) -> (Sent, Vec<u8>) {
        const REMARKS: [(Severity, &str, Option<&str>); 6] = [
            (Severity::Info, "Started after a power cut", Some("Uptime counts from zero again")),
            (Severity::Info, "Clock set", None),
            (Severity::Warning, "The CPU is warm", Some("61 °C")),
            (Severity::Warning, "The signal is weak", Some("-97 dBm")),
            (Severity::Error, "The rain gauge is stuck", Some("Please call the plumber")),
            (Severity::Error, "The CPU is burning", Some("Please call the fire department")),
        ];
        let (kind, written_at) = (Kind::LogMessage, self.later_than_all(now));
        if self.random.random_bool(invention.bad_share) {
            let payload = if flaws::is_whole_message_invalid(&mut self.random) {
                let message = (Revision(None), written_at, kind);
                flaws::one_of(&flaws::MESSAGES, message, &mut self.random)
            } else {
                let message = (revision, written_at, kind);
                flaws::one_of(&flaws::LOG_MESSAGES, message, &mut self.random)
            };
            return (Sent { kind, items: 1, bad: 1, copy: false }, payload);
        }
        let remark = *REMARKS.choose(&mut self.random).expect("there are some");
        (Sent::good(kind, 1), log_message(revision, written_at, remark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const NOW: Timestamp = Timestamp::from_unix_microseconds(1_763_971_200_123_456);

    #[test]
    fn a_seed_gives_the_same_bytes() {
        let invention = Invention {
            bad_share: 0.1,
            log_share: 0.1,
            is_varied: true,
            ..Invention::of_measurements(3)
        };
        let (mut one, mut other) = (Inventor::new(5, 9), Inventor::new(5, 9));
        for _ in 0..1_000 {
            assert_eq!(
                one.next(&invention, Revision(Some(7)), NOW),
                other.next(&invention, Revision(Some(7)), NOW)
            );
        }
        let first =
            |seed, number| Inventor::new(seed, number).next(&invention, Revision(Some(7)), NOW);
        assert!(first(5, 1) != first(5, 2) && first(5, 1) != first(6, 1));
    }

    #[test]
    fn a_measurement_has_about_105_bytes_and_looks_like_weather() {
        for (is_varied, range) in [(false, 100..108), (true, 105..115)] {
            let invention = Invention { is_varied, ..Invention::of_measurements(1) };
            let (mut inventor, mut bytes) = (Inventor::new(1, 1), 0);
            for minute in 0..3_200 {
                let now = NOW.saturating_add(Duration::from_secs(minute * 60));
                let (_, payload) = inventor.next(&invention, Revision(Some(7)), now);
                bytes += payload.len();
                let payload: Value = serde_json::from_slice(&payload).unwrap();
                let value = &payload["measurements"][0]["value"];
                let number = |name: &str| value.get(name).map(|it| it.as_f64().unwrap());
                assert!((0.0..40.0).contains(&number("temperature").unwrap()), "{value}");
                assert!((20.0..=100.0).contains(&number("humidity").unwrap()), "{value}");
                assert!((1_000.0..1_020.0).contains(&number("pressure").unwrap_or(1_000.0)));
            }
            assert!(range.contains(&(bytes / 3_200)), "{}", bytes / 3_200);
        }
    }

    proptest! {
        /// Each item is distinct, whatever the clock does and however many share a message.
        #[test]
        fn timestamps_of_a_sensor_rise(
            clock in prop::collection::vec(1_000_000_000i64..1_000_100_000, 1..30),
            per_message in 1u32..20,
        ) {
            let mut inventor = Inventor::new(1, 1);
            let mut latest = Timestamp::default();
            for now in clock {
                let now = Timestamp::from_unix_microseconds(now);
                let (_, payload) = inventor.next(&Invention::of_measurements(per_message), Revision(Some(7)), now);
                let payload: Value = serde_json::from_slice(&payload).unwrap();
                for item in payload["measurements"].as_array().unwrap() {
                    let seconds = item["timestamp"].as_f64().unwrap();
                    let taken_at = Timestamp::from_unix_seconds(seconds).unwrap();
                    prop_assert!(taken_at > latest);
                    latest = taken_at;
                }
            }
        }
    }
}
