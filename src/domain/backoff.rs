//! How long to wait before what failed is tried again. Pure.

use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A connection that has lasted so long holds.
const HOLDS: Duration = Duration::from_secs(10);

/// As long as this at least a session stays with whoever has it.
const STANDOFF: Duration = Duration::from_secs(15);

/// How long to wait after the n-th failure in a row (from 1). `jitter` in 0 .. 1 spreads those who
/// failed together over the second half of the pause.
#[must_use]
pub fn pause(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let longest = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// How long to wait after so many failures in a row of work that disturbs others each time, such as
/// by waiting for a lock: a minute, two, at most half an hour.
#[must_use]
pub fn long_pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    Duration::from_secs(60).saturating_mul(1 << doublings).min(Duration::from_secs(30 * 60))
}

/// The failures in a row when a connection has ended that lasted so long. One that held begins the
/// count anew; one that is lost at once, as when another process takes our session over and over,
/// lets the pauses grow.
#[must_use]
pub fn failures_after(failures: u32, lasted: Duration) -> u32 {
    if lasted >= HOLDS { 1 } else { failures.saturating_add(1) }
}

/// How long to wait when another process has taken our session, by the broker's word or, where it
/// has none (mosquitto 2.0 just closes the connection), because the connection is closed again and
/// again: taking it back at once would make a war.
#[must_use]
pub fn standoff(jitter: f64) -> Duration {
    STANDOFF.mul_f64(1.0 + jitter.clamp(0.0, 1.0))
}

/// So many connections closed at once, one after the other, are another process at work.
const CLOSED_AT_ONCE: u32 = 5;

/// Whether somebody else seems to use our client identifier: so many connections in a row, counted
/// by [`failures_after`], were made and then closed by the broker.
#[must_use]
pub const fn is_contested(closures: u32) -> bool {
    closures >= CLOSED_AT_ONCE
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
    fn long_pauses_take_minutes() {
        assert_eq!([1, 2, 5].map(|failures| long_pause(failures).as_secs() / 60), [1, 2, 16]);
        assert_eq!(long_pause(u32::MAX), Duration::from_secs(30 * 60));
    }

    #[test]
    fn a_contested_session_is_left_to_the_other_for_a_while() {
        assert!(!is_contested(1) && is_contested(CLOSED_AT_ONCE));
        assert!(standoff(0.0) >= HOLDS, "or each would take the other's hold for short");
        assert_eq!(standoff(1.0), STANDOFF * 2);
    }

    #[test]
    fn only_a_connection_that_held_begins_the_count_anew() {
        assert_eq!(failures_after(7, HOLDS), 1);
        assert_eq!(failures_after(7, Duration::ZERO), 8);
    }
}
