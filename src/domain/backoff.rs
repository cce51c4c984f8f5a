//! How long to wait before what failed is tried again. Pure.

use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A connection that has lasted so long holds.
const HOLDS: Duration = Duration::from_secs(10);

/// How long to wait after the n-th failure in a row (from 1). `jitter` in 0 .. 1 spreads those who
/// failed together over the second half of the pause.
#[must_use]
pub fn pause(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let longest = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// The failures in a row when a connection has ended that lasted so long. One that held begins the
/// count anew; one that is lost at once, as when another process takes our session over and over,
/// lets the pauses grow.
#[must_use]
pub fn failures_after(failures: u32, lasted: Duration) -> u32 {
    if lasted >= HOLDS { 1 } else { failures.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_spread() {
        assert_eq!(pause(1, 1.0), FIRST_PAUSE);
        assert_eq!(pause(2, 1.0), FIRST_PAUSE * 2);
        assert_eq!(pause(u32::MAX, 1.0), LONGEST_PAUSE);
        assert_eq!(pause(u32::MAX, 0.0), LONGEST_PAUSE / 2);
    }

    #[test]
    fn only_a_connection_that_held_begins_the_count_anew() {
        assert_eq!(failures_after(7, HOLDS), 1);
        assert_eq!(failures_after(7, Duration::ZERO), 8);
    }
}
