//! One measurement, raw, and whether its books are right. Made by the scenarios, turned into a row
//! by the report. Pure.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::ground::Reading;
use super::load::Account;
use super::process::Memory;
use super::service::Batches;
use crate::domain::{LedgerEntry, LedgerSnapshot};
use crate::store::TableCounts;

/// What was measured once.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// What was published.
    pub(super) account: Account,
    /// By the clock that the scenario describes.
    pub(super) elapsed: Duration,
    pub(super) cpu: Reading,
    pub(super) memory: Memory,
    pub(super) batches: Batches,
    /// From PUBLISH to the broker's PUBACK, in microseconds.
    pub(super) puback: Option<Histogram<u64>>,
    /// From PUBLISH to visible in the table, in microseconds.
    pub(super) visible: Option<Histogram<u64>>,
    pub(super) books: Books,
    pub(super) notes: Vec<String>,
}

/// What was published, what the service says of it, and what stands in the tables.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Books {
    pub(super) account: Account,
    pub(super) ledger: LedgerSnapshot,
    pub(super) tables: TableCounts,
}

impl Books {
    pub(super) const fn rows(&self) -> u64 {
        self.tables.measurements + self.tables.log_messages + self.tables.heartbeats
    }

    /// Whether every item is accounted for, in each kind, and nothing else is there; if not, the
    /// differences.
    pub(super) fn differences(&self) -> Vec<String> {
        let ledger = &self.ledger;
        let kinds = [
            ("measurements", ledger.measurements, self.tables.measurements),
            ("log messages", ledger.log_messages, self.tables.log_messages),
            ("heartbeats", ledger.heartbeats, self.tables.heartbeats),
        ];
        let mut differences = Vec::new();
        let mut expect = |what: String, is: u64, should: u64| {
            if is != should {
                differences.push(format!("{what}: {is}, not {should}"));
            }
        };
        for ((kind, entry, rows), items) in kinds.into_iter().zip(self.account.kinds()) {
            expect(format!("{kind} received"), entry.received, items.published);
            expect(format!("{kind} committed"), entry.committed, items.distinct);
            expect(format!("{kind} rejected"), entry.rejected, items.bad);
            expect(format!("{kind} in flight"), entry.in_flight, 0);
            let ends = entry.committed + entry.duplicate + entry.rejected;
            expect(format!("{kind} at their end"), ends, entry.received);
            expect(format!("{kind} in the table"), rows, items.distinct);
        }
        let bad = self.account.kinds().iter().map(|items| items.bad).sum();
        expect("rejections in the table".into(), self.tables.rejected, bad);
        expect("of no kind".into(), ledger.unknown.received, LedgerEntry::default().received);
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::Items;

    fn entry(received: u64, committed: u64, duplicate: u64, rejected: u64) -> LedgerEntry {
        LedgerEntry { received, committed, duplicate, rejected, ..LedgerEntry::default() }
    }

    #[test]
    fn the_books_are_right_only_when_every_item_is_found() {
        let right = Books {
            account: Account {
                messages: 12,
                measurements: Items { published: 12, distinct: 9, bad: 1 },
                ..Account::default()
            },
            ledger: LedgerSnapshot {
                measurements: entry(12, 9, 2, 1),
                ..LedgerSnapshot::default()
            },
            tables: TableCounts { measurements: 9, rejected: 1, ..TableCounts::default() },
        };
        assert_eq!(right.differences(), Vec::<String>::new());
        assert_eq!(right.rows(), 9);

        let mut lost = right;
        lost.tables.measurements = 8;
        assert_eq!(lost.differences(), ["measurements in the table: 8, not 9"]);

        let mut twice = right;
        twice.ledger.measurements = entry(12, 10, 1, 1);
        assert_eq!(twice.differences(), ["measurements committed: 10, not 9"]);
    }
}
