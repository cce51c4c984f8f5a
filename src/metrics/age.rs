//! The age of the oldest waiting thing, computed when the metrics are read. Set by the inbound loop, the
//! writer and the outbox. By the wall clock, like receipt timestamps; never negative.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::Timestamp;

/// Nothing waits.
const NOTHING: i64 = i64::MIN;

/// Holds the time since when the oldest has waited.
#[derive(Debug)]
pub struct Age(AtomicI64);

impl Default for Age {
    fn default() -> Self {
        Self(AtomicI64::new(NOTHING))
    }
}

impl Age {
    /// None: nothing waits.
    pub fn set(&self, since: Option<Timestamp>) {
        let timestamp = since.map_or(NOTHING, Timestamp::unix_microseconds);
        self.0.store(timestamp, Ordering::Relaxed);
    }

    /// 0 if nothing waits.
    pub(super) fn seconds(&self) -> f64 {
        match self.0.load(Ordering::Relaxed) {
            NOTHING => 0.0,
            timestamp => {
                Timestamp::now().seconds_since(Timestamp::from_unix_microseconds(timestamp))
            }
        }
    }
}
