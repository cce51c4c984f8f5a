//! Waiting for a state, never for a time. Called by every test that observes another process.
//! Promises to return as soon as the state is there, and to panic with the last observed one if it never is.

use std::fmt::Debug;
use std::panic::Location;
use std::time::{Duration, Instant};

/// How long a test waits for what should take milliseconds: a slow machine passes, a wrong state fails.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);

/// Short beside what is waited for, long beside what a look costs.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks until `observe` answers `Ok`; an `Err` says what was seen instead.
///
/// A look that hangs counts as nothing seen, and ends at the deadline too.
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
