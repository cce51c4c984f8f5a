//! Waits for a state instead of a duration. Called by every test that observes another process.
//! Returns as soon as the state is reached, and panics with the last observed one after the timeout.

use std::fmt::Debug;
use std::panic::Location;
use std::time::{Duration, Instant};

/// Long enough for a slow machine: the states that tests wait for normally take milliseconds.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);

/// Short compared with the waiting times, long compared with one observation.
const INTERVAL: Duration = Duration::from_millis(10);

/// Calls `observe` until it returns `Ok`; `Err` contains the observed state.
///
/// A call of `observe` that hangs also ends at the deadline.
#[track_caller]
pub(crate) fn eventually<T, S: Debug>(
    deadline: Duration,
    mut observe: impl AsyncFnMut() -> Result<T, S>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    let give_up_at = Instant::now() + deadline;
    async move {
        let mut last_seen = None;
        while let Some(remaining) = give_up_at.checked_duration_since(Instant::now()) {
            match tokio::time::timeout(remaining, observe()).await {
                Ok(Ok(reached)) => return reached,
                Ok(Err(seen)) => last_seen = Some(seen),
                Err(_) => break,
            }
            tokio::time::sleep(INTERVAL).await;
        }
        panic!("{caller}: not within {deadline:?}; last seen: {last_seen:?}");
    }
}
