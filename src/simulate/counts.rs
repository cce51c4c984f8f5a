//! What the fleet has done so far. Written by the lines, read by the progress bar and at the end by
//! the summary; all of them live on one thread.

use std::cell::Cell;

use super::plan::Spoken;
use crate::domain::Kind;

/// Running totals.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) messages: Cell<u64>,
    pub(super) measurements: Cell<u64>,
    pub(super) log_messages: Cell<u64>,
    pub(super) heartbeats: Cell<u64>,
    pub(super) bad_items: Cell<u64>,
    pub(super) acknowledged: Cell<u64>,
    /// Acknowledged, but nobody is subscribed.
    pub(super) unheard: Cell<u64>,
    /// Acknowledged with an error: the broker has thrown them away.
    pub(super) refused: Cell<u64>,
    pub(super) republished: Cell<u64>,
    pub(super) reconnects: Cell<u64>,
    pub(super) skipped: Cell<u64>,
    pub(super) configurations_applied: Cell<u64>,
    pub(super) configurations_rejected: Cell<u64>,
    pub(super) configurations_malformed: Cell<u64>,
}

/// Adds to a total.
pub(super) fn add(total: &Cell<u64>, more: u64) {
    total.set(total.get() + more);
}

impl Counts {
    /// A message was said.
    pub(super) fn say(&self, spoken: Spoken) {
        let items = match spoken.kind {
            Kind::Measurement => &self.measurements,
            Kind::LogMessage => &self.log_messages,
            Kind::Heartbeat => &self.heartbeats,
        };
        add(&self.messages, 1);
        add(items, u64::from(spoken.items));
        add(&self.bad_items, u64::from(spoken.bad_items));
    }
}
