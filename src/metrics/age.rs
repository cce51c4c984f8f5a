//! How long something has waited, worked out only when somebody asks. By the wall clock, like the
//! receipt timestamps that it is set from; a clock that is put back makes it zero, never negative.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::Timestamp;

/// No moment: nothing waits.
const NOTHING: i64 = i64::MIN;

/// Since when the oldest of what waits has been waiting.
#[derive(Debug)]
pub struct Age(AtomicI64);

impl Default for Age {
    fn default() -> Self {
        Self(AtomicI64::new(NOTHING))
    }
}

impl Age {
    /// The oldest is from then; none, where nothing waits.
    pub fn set(&self, since: Option<Timestamp>) {
        let moment = since.map_or(NOTHING, Timestamp::unix_microseconds);
        self.0.store(moment, Ordering::Relaxed);
    }

    /// How old it is now; zero where nothing waits.
    pub(super) fn seconds(&self) -> f64 {
        match self.0.load(Ordering::Relaxed) {
            NOTHING => 0.0,
            moment => Timestamp::now().seconds_since(Timestamp::from_unix_microseconds(moment)),
        }
    }
}
