//! A gauge of the age of the oldest waiting entry, computed when the metrics are read. Set by the inbound loop, the
//! writer, the outbox, the fold and the roll-up. By the wall clock, like receipt timestamps; never negative.

use std::sync::atomic::{AtomicI64, Ordering};

use prometheus::Gauge;

use crate::domain::Timestamp;

const NOTHING_WAITS: i64 = i64::MIN;

/// The time since which the oldest entry has waited.
#[derive(Debug)]
pub struct Age {
    since: AtomicI64,
    gauge: Gauge,
}

impl Age {
    pub(super) const fn new(gauge: Gauge) -> Self {
        Self { since: AtomicI64::new(NOTHING_WAITS), gauge }
    }

    /// None: nothing waits, so the age is 0.
    pub fn set(&self, since: Option<Timestamp>) {
        let since = since.map_or(NOTHING_WAITS, Timestamp::unix_microseconds);
        self.since.store(since, Ordering::Relaxed);
    }

    pub(super) fn refresh(&self) {
        self.gauge.set(match self.since.load(Ordering::Relaxed) {
            NOTHING_WAITS => 0.0,
            since => Timestamp::now().seconds_since(Timestamp::from_unix_microseconds(since)),
        });
    }
}
