//! Pauses between retries and between reconnects. Used by everything that retries. Pure: the caller
//! passes the jitter.

use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A connection that lasted this long was stable.
const STABLE: Duration = Duration::from_secs(10);

/// Minimum pause before a session that another process has taken over is taken back.
const STANDOFF: Duration = Duration::from_secs(15);

/// The pause after the n-th failure in a row (from 1). `jitter` in 0 .. 1 spreads processes that failed
/// together over the second half of it.
pub fn pause(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let longest = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// The pause after the n-th failure in a row of work that disturbs others, such as by waiting for a lock:
/// 1 min, 2 min, at most 30 min.
pub fn long_pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    Duration::from_secs(60).saturating_mul(1 << doublings).min(Duration::from_secs(30 * 60))
}

/// The pause after the n-th refusal of one thing in a row, which others do not wait for: 1 s, 4 s, 16 s, at most
/// 10 min.
pub fn refusal_pause(refusals: u32) -> Duration {
    Duration::from_secs(1 << (2 * refusals.saturating_sub(1).min(10))).min(Duration::from_secs(600))
}

/// Failures in a row after a connection ended that `lasted` this long. A stable one resets the count;
/// connections that end at once let the pauses grow.
pub fn failures_after(failures: u32, lasted: Duration) -> u32 {
    if lasted >= STABLE { 1 } else { failures.saturating_add(1) }
}

/// The pause after another process has taken our session over, as the broker says or as
/// [`is_contested`] concludes (mosquitto 2.0 only closes the connection). Without it, two processes
/// would take the session from each other for ever.
pub fn standoff(jitter: f64) -> Duration {
    STANDOFF.mul_f64(1.0 + jitter.clamp(0.0, 1.0))
}

/// Connections in a row that the broker closed early: another process uses our client identifier.
const EARLY_CLOSURES: u32 = 5;

/// Whether another process seems to use our client identifier. `closures`: connections in a row that
/// the broker closed, counted by [`failures_after`].
pub const fn is_contested(closures: u32) -> bool {
    closures >= EARLY_CLOSURES
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
    fn refusal_pauses_grow_to_a_bound() {
        assert_eq!([1, 2, 3].map(|refusals| refusal_pause(refusals).as_secs()), [1, 4, 16]);
        assert_eq!(refusal_pause(u32::MAX), Duration::from_secs(600));
    }

    #[test]
    fn a_contested_session_is_left_to_the_other_client_for_a_while() {
        assert!(!is_contested(1) && is_contested(EARLY_CLOSURES));
        assert!(standoff(0.0) >= STABLE, "or no connection would ever be stable");
        assert_eq!(standoff(1.0), STANDOFF * 2);
    }

    #[test]
    fn only_a_stable_connection_resets_the_count() {
        assert_eq!(failures_after(7, STABLE), 1);
        assert_eq!(failures_after(7, Duration::ZERO), 8);
    }
}
