//! The weather around an invented sensor: members that drift as a weather node's do. Asked by `plan`
//! for each measurement; the same chance and moments give the same weather.

use std::f64::consts::TAU;

use super::random::Random;
use super::text;

/// What a node's instruments show.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    measured_count: u32,
    /// Hundredths of a degree Celsius off the day's curve.
    warmth: i32,
    /// Tenths of a percent.
    humidity: i32,
    /// Tenths of a hectopascal.
    pressure: i32,
    /// Hundredths of a volt.
    battery: i32,
}

const MEAN_HUMIDITY: i32 = 550;
const MEAN_PRESSURE: i32 = 10_132;
const FULL_BATTERY: i32 = 415;
const EMPTY_BATTERY: i32 = 330;
/// Not every measurement carries everything: a node saves its battery.
const PRESSURE_EVERY: u32 = 4;
const BATTERY_EVERY: u32 = 16;

impl Weather {
    /// Where it begins.
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            warmth: random.around_zero(800),
            humidity: MEAN_HUMIDITY + random.around_zero(200),
            pressure: MEAN_PRESSURE + random.around_zero(100),
            battery: FULL_BATTERY - random.around_zero(40).abs(),
            // The rare members come at different times from different sensors.
            measured_count: random.below(BATTERY_EVERY),
        }
    }

    /// The next measurement: the members of a value, without its braces.
    pub(super) fn measure(&mut self, taken: i64, random: &mut Random, out: &mut Vec<u8>) {
        self.warmth = drift(self.warmth, 0, random.around_zero(12));
        self.humidity = drift(self.humidity, MEAN_HUMIDITY, random.around_zero(6)).clamp(50, 1_000);
        self.measured_count = self.measured_count.wrapping_add(1);

        out.extend_from_slice(br#""temperature":"#);
        text::fixed(warmth_of_day(taken) + self.warmth, 2, out);
        out.extend_from_slice(br#","humidity":"#);
        text::fixed(self.humidity, 1, out);
        if self.measured_count.is_multiple_of(PRESSURE_EVERY) {
            self.pressure = drift(self.pressure, MEAN_PRESSURE, random.around_zero(4));
            out.extend_from_slice(br#","pressure":"#);
            text::fixed(self.pressure, 1, out);
        }
        if self.measured_count.is_multiple_of(BATTERY_EVERY) {
            const WINDS: [&str; 8] = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];
            let charging = self.battery <= EMPTY_BATTERY;
            self.battery = if charging { FULL_BATTERY } else { self.battery - 1 };
            out.extend_from_slice(br#","battery":"#);
            text::fixed(self.battery, 2, out);
            out.extend_from_slice(if charging {
                br#","charging":true,"wind":"#
            } else {
                br#","charging":false,"wind":"#
            });
            text::string(random.pick(&WINDS), out);
        }
    }
}

/// A random walk that is pulled home.
fn drift(value: i32, home: i32, step: i32) -> i32 {
    value + step - (value - home) / 128
}

/// Hundredths of a degree: coldest before dawn, warmest in the afternoon.
#[expect(clippy::cast_possible_truncation, reason = "a few hundred hundredths")]
fn warmth_of_day(unix_microseconds: i64) -> i32 {
    const DAY_MICROSECONDS: i64 = 86_400_000_000;
    let day = unix_microseconds.rem_euclid(DAY_MICROSECONDS) as f64 / DAY_MICROSECONDS as f64;
    1_400 + (600.0 * (TAU * (day - 0.375)).sin()) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weather_looks_like_weather() {
        let mut random = Random::new(3, 4);
        let mut weather = Weather::new(&mut random);
        let mut charged = 0;
        for minute in 0..50_000 {
            let mut out = b"{".to_vec();
            weather.measure(minute * 60_000_000, &mut random, &mut out);
            out.push(b'}');
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let number = |name: &str| value.get(name).map(|it| it.as_f64().unwrap());
            assert!((-30.0..60.0).contains(&number("temperature").unwrap()), "{value}");
            assert!((5.0..=100.0).contains(&number("humidity").unwrap()), "{value}");
            assert!((900.0..1_100.0).contains(&number("pressure").unwrap_or(1_000.0)), "{value}");
            assert!((3.0..4.3).contains(&number("battery").unwrap_or(4.0)), "{value}");
            charged += usize::from(value.get("charging") == Some(&true.into()));
        }
        assert!(charged > 10, "{charged}");
    }
}
