//! Counts every item received. Updated by the inbound loop and the replayer, read by the API and the
//! metrics. Invariant: received = committed + duplicate + rejected + in flight, in items, per kind, at
//! every moment; `in_flight` is counted by itself, so that a defect shows as an entry that does not
//! balance.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Kind;

/// Entries of a ledger: one per kind, and one for messages of none.
pub const LEDGER_ENTRY_COUNT: usize = Kind::ALL.len() + 1;

const fn slot(kind: Option<Kind>) -> usize {
    match kind {
        Some(Kind::Measurement) => 0,
        Some(Kind::LogMessage) => 1,
        Some(Kind::Heartbeat) => 2,
        None => 3,
    }
}

/// The names of the entries in the API and in the metrics.
pub const fn ledger_names() -> [&'static str; LEDGER_ENTRY_COUNT] {
    ["measurements", "log_messages", "heartbeats", "unknown"]
}

/// The counts of one kind, in items.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LedgerEntry {
    /// Received and not released. A replayed item counts once more.
    pub received: u64,
    /// Stored as new rows.
    pub committed: u64,
    /// Stored or recorded as rejected before.
    pub duplicate: u64,
    /// Recorded as rejected, or only counted when over the limit per sensor and hour.
    pub rejected: u64,
    /// Received and not committed yet.
    pub in_flight: u64,
    /// Not processed because an actor or a delivery panicked: the broker delivers them again, or they
    /// stay in the `rejection` table. `received` no longer counts them.
    pub released: u64,
    /// The part of `received` that came from the `rejection` table.
    #[serde(default)]
    pub replayed: u64,
}

impl LedgerEntry {
    /// Whether the invariant holds.
    pub const fn balances(&self) -> bool {
        self.received == self.committed + self.duplicate + self.rejected + self.in_flight
    }
}

/// Counts of items or messages, per kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KindCounts([u64; LEDGER_ENTRY_COUNT]);

impl KindCounts {
    /// Adds to one kind.
    pub const fn add(&mut self, kind: Option<Kind>, items: u32) {
        self.0[slot(kind)] += items as u64;
    }

    /// In the order of [`ledger_names`].
    pub const fn counts(self) -> [u64; LEDGER_ENTRY_COUNT] {
        self.0
    }
}

/// The counts of all kinds at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LedgerSnapshot {
    /// From `measurements/…`
    pub measurements: LedgerEntry,
    /// From `log-messages/…`
    pub log_messages: LedgerEntry,
    /// From `heartbeats/…`
    pub heartbeats: LedgerEntry,
    /// From topics that name no kind.
    pub unknown: LedgerEntry,
}

/// Of several instances.
impl std::iter::Sum for LedgerSnapshot {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let add = |one: LedgerEntry, other: LedgerEntry| LedgerEntry {
            received: one.received + other.received,
            committed: one.committed + other.committed,
            duplicate: one.duplicate + other.duplicate,
            rejected: one.rejected + other.rejected,
            in_flight: one.in_flight + other.in_flight,
            released: one.released + other.released,
            replayed: one.replayed + other.replayed,
        };
        all.fold(Self::default(), |sum, it| Self {
            measurements: add(sum.measurements, it.measurements),
            log_messages: add(sum.log_messages, it.log_messages),
            heartbeats: add(sum.heartbeats, it.heartbeats),
            unknown: add(sum.unknown, it.unknown),
        })
    }
}

impl LedgerSnapshot {
    /// The entries with their names.
    pub fn entries(&self) -> [(&'static str, LedgerEntry); LEDGER_ENTRY_COUNT] {
        let [measurements, log_messages, heartbeats, unknown] = ledger_names();
        [
            (measurements, self.measurements),
            (log_messages, self.log_messages),
            (heartbeats, self.heartbeats),
            (unknown, self.unknown),
        ]
    }
}

/// The outcome of one committed batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally([Outcome; LEDGER_ENTRY_COUNT]);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Outcome {
    committed: u64,
    duplicate: u64,
    rejected: u64,
}

impl Tally {
    /// Of `offered` items, `inserted` are new rows and the others are duplicates.
    pub fn stored(&mut self, kind: Kind, offered: u64, inserted: u64) {
        let outcome = &mut self.0[slot(Some(kind))];
        outcome.committed += inserted;
        outcome.duplicate += offered - inserted;
    }

    /// Items that were recorded as rejected.
    pub fn rejected(&mut self, kind: Option<Kind>, items: u64) {
        self.0[slot(kind)].rejected += items;
    }

    /// Items that were recorded as rejected before, or handled by another transaction.
    pub fn duplicate(&mut self, kind: Option<Kind>, items: u64) {
        self.0[slot(kind)].duplicate += items;
    }

    /// Whether an item was in the database already.
    pub fn has_duplicates(&self) -> bool {
        self.0.iter().any(|it| it.duplicate > 0)
    }

    /// The number of items of the batch.
    pub fn item_count(&self) -> u64 {
        self.0.iter().map(|it| it.committed + it.duplicate + it.rejected).sum()
    }
}

/// The counts since the process started.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<[LedgerEntry; LEDGER_ENTRY_COUNT]>);

impl Ledger {
    /// Counts items received from the broker.
    pub fn receive(&self, counts: KindCounts) {
        for (entry, items) in self.lock().iter_mut().zip(counts.0) {
            entry.received += items;
            entry.in_flight += items;
        }
    }

    /// Counts items read from the `rejection` table.
    pub fn replay(&self, counts: KindCounts) {
        self.receive(counts);
        for (entry, items) in self.lock().iter_mut().zip(counts.0) {
            entry.replayed += items;
        }
    }

    /// Counts a committed batch. `arrived`: the items of its messages as they were received.
    pub fn settle(&self, arrived: impl IntoIterator<Item = (Option<Kind>, u32)>, tally: &Tally) {
        let mut entries = self.lock();
        for (kind, items) in arrived {
            entries[slot(kind)].in_flight -= u64::from(items);
        }
        for (entry, outcome) in entries.iter_mut().zip(&tally.0) {
            entry.committed += outcome.committed;
            entry.duplicate += outcome.duplicate;
            entry.rejected += outcome.rejected;
        }
    }

    /// Takes back items that the broker will deliver again.
    pub fn release(&self, kind: Option<Kind>, items: u32) {
        let entry = &mut self.lock()[slot(kind)];
        entry.received -= u64::from(items);
        entry.in_flight -= u64::from(items);
        entry.released += u64::from(items);
    }

    /// Takes back replayed items, which stay in the `rejection` table.
    pub fn release_replayed(&self, kind: Option<Kind>, items: u32) {
        self.release(kind, items);
        self.lock()[slot(kind)].replayed -= u64::from(items);
    }

    /// The present counts.
    pub fn snapshot(&self) -> LedgerSnapshot {
        let [measurements, log_messages, heartbeats, unknown] = *self.lock();
        LedgerSnapshot { measurements, log_messages, heartbeats, unknown }
    }

    fn lock(&self) -> MutexGuard<'_, [LedgerEntry; LEDGER_ENTRY_COUNT]> {
        // Plain numbers: a panic elsewhere leaves none of them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(kind: Option<Kind>, items: u32) -> KindCounts {
        let mut counts = KindCounts::default();
        counts.add(kind, items);
        counts
    }

    #[test]
    fn entries_balance_at_every_step() {
        let ledger = Ledger::default();
        let measurements = Some(Kind::Measurement);
        ledger.receive(arrived(measurements, 10));
        ledger.receive(arrived(None, 1));
        assert!(ledger.snapshot().measurements.balances());
        assert_eq!(ledger.snapshot().measurements.in_flight, 10);

        let mut tally = Tally::default();
        tally.stored(Kind::Measurement, 8, 5);
        tally.rejected(measurements, 1);
        tally.duplicate(measurements, 1);
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
    fn a_lost_item_unbalances_its_entry() {
        let ledger = Ledger::default();
        ledger.receive(arrived(Some(Kind::Heartbeat), 2));
        let mut tally = Tally::default();
        tally.stored(Kind::Heartbeat, 1, 1);
        ledger.settle([(Some(Kind::Heartbeat), 2)], &tally);
        assert!(!ledger.snapshot().heartbeats.balances());
    }
}
