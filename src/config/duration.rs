//! Parses durations in command-line options. Used by the commands that end by themselves.

use std::time::Duration;

/// A year.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);

/// Parses 30s, 2m, 1h, 500ms or a number of seconds.
///
/// # Errors
/// Says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => text.parse().ok().and_then(|it: jiff::SignedDuration| it.try_into().ok()),
    };
    duration
        .filter(|duration| (Duration::from_millis(1)..=MAX_DURATION).contains(duration))
        .ok_or_else(|| "expected a time of 1ms to a year, such as 30s, 2m, 1h or 90".into())
}
