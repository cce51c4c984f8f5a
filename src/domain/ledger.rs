//! The account of every item that ever reached us. Written by the inbound loop, read by everyone.
//!
//! Invariant: received = committed + duplicate + rejected + in flight, in items, per kind, at
//! every moment. `in_flight` is counted from the messages in the window and never computed from
//! the other four, so that a mistake on the path shows as an account that does not balance.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Kind;

const ENTRY_COUNT: usize = Kind::ALL.len() + 1;

const fn slot(kind: Option<Kind>) -> usize {
    match kind {
        Some(Kind::Measurement) => 0,
        Some(Kind::LogMessage) => 1,
        Some(Kind::Heartbeat) => 2,
        None => 3,
    }
}

/// The names of the entries, as the API and the metrics have them.
#[must_use]
pub const fn ledger_names() -> [&'static str; ENTRY_COUNT] {
    ["measurements", "log_messages", "heartbeats", "unknown"]
}

/// The account of one kind, in items.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LedgerEntry {
    /// Reached us, and not given back. What is replayed is received once more.
    pub received: u64,
    /// Are rows now.
    pub committed: u64,
    /// Were rows or rejections before.
    pub duplicate: u64,
    /// Recorded as rejected, or, beyond the bound of a flood, counted as such.
    pub rejected: u64,
    /// On their way.
    pub in_flight: u64,
    /// Given back to the broker un-acknowledged, or left in the `rejection` table, because their
    /// actor failed; `received` counts them once they come again.
    pub released: u64,
    /// Of `received`: from the `rejection` table, in a replay.
    #[serde(default)]
    pub replayed: u64,
}

impl LedgerEntry {
    /// Whether the invariant holds.
    #[must_use]
    pub const fn balances(&self) -> bool {
        self.received == self.committed + self.duplicate + self.rejected + self.in_flight
    }
}

/// What has come since the account was last brought up to date, per kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Arrivals([u64; ENTRY_COUNT]);

impl Arrivals {
    /// So many more.
    pub const fn add(&mut self, kind: Option<Kind>, items: u32) {
        self.0[slot(kind)] += items as u64;
    }

    /// How many, in the order of [`ledger_names`].
    #[must_use]
    pub const fn counts(self) -> [u64; ENTRY_COUNT] {
        self.0
    }
}

/// The account of every kind at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LedgerSnapshot {
    /// From `measurements/…`
    pub measurements: LedgerEntry,
    /// From `log-messages/…`
    pub log_messages: LedgerEntry,
    /// From `heartbeats/…`
    pub heartbeats: LedgerEntry,
    /// From a topic that tells no kind.
    pub unknown: LedgerEntry,
}

impl LedgerSnapshot {
    /// The entries, named as in the API.
    #[must_use]
    pub fn entries(&self) -> [(&'static str, LedgerEntry); ENTRY_COUNT] {
        let [measurements, log_messages, heartbeats, unknown] = ledger_names();
        [
            (measurements, self.measurements),
            (log_messages, self.log_messages),
            (heartbeats, self.heartbeats),
            (unknown, self.unknown),
        ]
    }
}

/// What became of the items of one committed batch, per kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally([Outcome; ENTRY_COUNT]);

/// What became of the items of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Outcome {
    committed: u64,
    duplicate: u64,
    rejected: u64,
}

impl Tally {
    /// So many were handed to the database, so many of them became rows; the rest were there.
    pub fn stored(&mut self, kind: Kind, offered: u64, inserted: u64) {
        let outcome = &mut self.0[slot(Some(kind))];
        outcome.committed += inserted;
        outcome.duplicate += offered - inserted;
    }

    /// So many are recorded as rejected now.
    pub fn rejected(&mut self, kind: Option<Kind>, items: u64) {
        self.0[slot(kind)].rejected += items;
    }

    /// So many were seen to by someone else.
    pub fn already_handled(&mut self, kind: Option<Kind>, items: u64) {
        self.0[slot(kind)].duplicate += items;
    }

    /// So many had been recorded as rejected before.
    pub fn rejected_before(&mut self, kind: Option<Kind>, items: u64) {
        self.0[slot(kind)].duplicate += items;
    }

    /// Rows and recorded rejections, in all.
    #[must_use]
    pub fn item_count(&self) -> u64 {
        self.0.iter().map(|it| it.committed + it.duplicate + it.rejected).sum()
    }
}

/// The account, kept for the life of the process.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<[LedgerEntry; ENTRY_COUNT]>);

impl Ledger {
    /// Items arrived.
    pub fn receive(&self, arrivals: Arrivals) {
        for (entry, items) in self.lock().iter_mut().zip(arrivals.0) {
            entry.received += items;
            entry.in_flight += items;
        }
    }

    /// Items come again from the `rejection` table.
    pub fn replay(&self, arrivals: Arrivals) {
        for (entry, items) in self.lock().iter_mut().zip(arrivals.0) {
            entry.received += items;
            entry.in_flight += items;
            entry.replayed += items;
        }
    }

    /// A batch was committed: `landed` are the items of its messages, counted on arrival.
    pub fn settle(&self, landed: impl IntoIterator<Item = (Option<Kind>, u32)>, tally: &Tally) {
        let mut entries = self.lock();
        for (kind, items) in landed {
            entries[slot(kind)].in_flight -= u64::from(items);
        }
        for (entry, outcome) in entries.iter_mut().zip(&tally.0) {
            entry.committed += outcome.committed;
            entry.duplicate += outcome.duplicate;
            entry.rejected += outcome.rejected;
        }
    }

    /// Items went back to the broker.
    pub fn release(&self, kind: Option<Kind>, items: u32) {
        let entry = &mut self.lock()[slot(kind)];
        entry.received -= u64::from(items);
        entry.in_flight -= u64::from(items);
        entry.released += u64::from(items);
    }

    /// Items of a replay stay where they were recorded, unseen.
    pub fn release_replayed(&self, kind: Option<Kind>, items: u32) {
        self.release(kind, items);
        self.lock()[slot(kind)].replayed -= u64::from(items);
    }

    /// All of it, at one moment.
    #[must_use]
    pub fn snapshot(&self) -> LedgerSnapshot {
        let [measurements, log_messages, heartbeats, unknown] = *self.lock();
        LedgerSnapshot { measurements, log_messages, heartbeats, unknown }
    }

    fn lock(&self) -> MutexGuard<'_, [LedgerEntry; ENTRY_COUNT]> {
        // The entries are plain numbers: a panic elsewhere leaves none of them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(kind: Option<Kind>, items: u32) -> Arrivals {
        let mut arrivals = Arrivals::default();
        arrivals.add(kind, items);
        arrivals
    }

    #[test]
    fn the_account_balances_at_every_step() {
        let ledger = Ledger::default();
        let measurements = Some(Kind::Measurement);
        ledger.receive(arrived(measurements, 10));
        ledger.receive(arrived(None, 1));
        assert!(ledger.snapshot().measurements.balances());
        assert_eq!(ledger.snapshot().measurements.in_flight, 10);

        let mut tally = Tally::default();
        tally.stored(Kind::Measurement, 8, 5);
        tally.rejected(measurements, 1);
        tally.rejected_before(measurements, 1);
        tally.rejected(None, 1);
        assert_eq!(tally.item_count(), 11);
        ledger.settle([(measurements, 10), (None, 1)], &tally);

        let snapshot = ledger.snapshot();
        assert_eq!(
            snapshot.measurements,
            LedgerEntry {
                received: 10,
                committed: 5,
                duplicate: 4,
                rejected: 1,
                ..LedgerEntry::default()
            }
        );
        assert!(snapshot.entries().iter().all(|(_, entry)| entry.balances()));
    }

    #[test]
    fn a_lost_item_shows() {
        let ledger = Ledger::default();
        ledger.receive(arrived(Some(Kind::Heartbeat), 2));
        let mut tally = Tally::default();
        tally.stored(Kind::Heartbeat, 1, 1);
        ledger.settle([(Some(Kind::Heartbeat), 2)], &tally);
        assert!(!ledger.snapshot().heartbeats.balances());
    }

    #[test]
    fn what_is_replayed_is_received_once_more() {
        let ledger = Ledger::default();
        let kind = Some(Kind::Measurement);
        ledger.replay(arrived(kind, 3));
        ledger.replay(arrived(kind, 2));
        ledger.release_replayed(kind, 2);
        let mut tally = Tally::default();
        tally.stored(Kind::Measurement, 2, 2);
        tally.rejected_before(kind, 1);
        ledger.settle([(kind, 3)], &tally);
        let entry = ledger.snapshot().measurements;
        assert!(entry.balances());
        assert_eq!((entry.received, entry.replayed, entry.released), (3, 3, 2));
        assert_eq!((entry.committed, entry.duplicate), (2, 1));
    }

    #[test]
    fn what_is_given_back_was_not_received() {
        let ledger = Ledger::default();
        ledger.receive(arrived(Some(Kind::LogMessage), 3));
        ledger.release(Some(Kind::LogMessage), 3);
        let entry = ledger.snapshot().log_messages;
        assert_eq!((entry.received, entry.in_flight, entry.released), (0, 0, 3));
        assert!(entry.balances());
    }
}
