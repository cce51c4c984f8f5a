//! The results: a row for each measurement, as the tables, the JSON file and the chart have it. Filled by the
//! scenarios, written by the command. Pure.

mod chart;
mod tables;
mod targets;

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::meters::{CpuTime, Memory};
use super::service::Batches;
use crate::domain::LedgerSnapshot;
use crate::load::Account;
use crate::store::TableCounts;

/// Everything that is written down about a run of the benchmark.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) machine: String,
    pub(super) scale: f64,
    pub(super) database_settings: Vec<(String, String)>,
    pub(super) broker_settings: Vec<(String, String)>,
    pub(super) rows: Vec<Row>,
}

/// A measurement. Of several rounds, the one of the median rate.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) messages: u64,
    pub(super) items: u64,
    pub(super) seconds: f64,
    messages_per_second: f64,
    pub(super) items_per_second: f64,
    #[serde(rename = "yardstick")]
    baseline: Option<Comparison>,
    service_cpu: Option<Cost>,
    postgres_cpu: Option<Cost>,
    broker_cpu: Option<Cost>,
    pub(super) peak_rss_bytes: u64,
    #[serde(skip)]
    pub(super) resident_bytes: u64,
    batch_count: u64,
    staged_batch_count: u64,
    batch_items_mean: f64,
    commit_ms_mean: f64,
    pub(super) publish_to_puback: Option<Percentiles>,
    pub(super) publish_to_visible: Option<Percentiles>,
    pub(super) rows_in_tables: u64,
    pub(super) distinct_items: u64,
    pub(super) exact: bool,
    pub(super) differences: Vec<String>,
    pub(super) notes: Vec<String>,
    /// Further figures, by name with unit.
    pub(super) figures: BTreeMap<&'static str, f64>,
}

/// With what a measurement is compared.
#[derive(Clone, Debug, Default, Serialize)]
struct Comparison {
    name: String,
    /// The median of its rounds.
    items_per_second: f64,
    /// Ours ÷ its: the median of the pairs that were measured in turn.
    ratio: f64,
    /// Items per second, ours and its, of each pair.
    rounds: Vec<(f64, f64)>,
}

/// CPU time, user and system.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Cost {
    microseconds_per_message: f64,
    microseconds_per_item: f64,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Percentiles {
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    count: u64,
}

impl Percentiles {
    pub(super) fn of(microseconds: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| microseconds.value_at_quantile(quantile) as f64 / 1_000.0;
        let (p50_ms, p95_ms, p99_ms) = (at(0.5), at(0.95), at(0.99));
        let count = microseconds.len();
        (count > 0).then_some(Self { p50_ms, p95_ms, p99_ms, count })
    }
}

/// What was measured, from outside.
pub(super) struct Measured {
    pub(super) account: Account,
    /// By the clock that the scenario describes.
    pub(super) elapsed: Duration,
    pub(super) cpu: CpuTime,
    pub(super) memory: Memory,
    pub(super) batches: Batches,
}

impl Measured {
    pub(super) fn row(&self, name: &str) -> Row {
        let Self { account, elapsed, cpu, memory, batches } = self;
        let (messages, items, seconds) = (account.messages, account.items(), elapsed.as_secs_f64());
        let cost = |time: Option<Duration>| {
            let microseconds = time?.as_secs_f64() * 1e6;
            Some(Cost {
                microseconds_per_message: microseconds / messages.max(1) as f64,
                microseconds_per_item: microseconds / items.max(1) as f64,
            })
        };
        let [batch_count, batch_items, commit_seconds, staged] = *batches;
        let [service_cpu, postgres_cpu, broker_cpu] = cpu.map(cost);
        Row {
            name: name.to_owned(),
            messages,
            items,
            seconds,
            messages_per_second: messages as f64 / seconds,
            items_per_second: items as f64 / seconds,
            service_cpu,
            postgres_cpu,
            broker_cpu,
            peak_rss_bytes: memory.peak,
            resident_bytes: memory.resident,
            batch_count: batch_count as u64,
            staged_batch_count: staged as u64,
            batch_items_mean: batch_items / batch_count.max(1.0),
            commit_ms_mean: commit_seconds * 1e3 / batch_count.max(1.0),
            ..Row::default()
        }
    }
}

impl Row {
    /// Compares what was published with the service's ledger and with the tables: exact if every item is
    /// accounted for, in each kind, and nothing else is there.
    pub(super) fn with_books(
        mut self,
        account: &Account,
        ledger: &LedgerSnapshot,
        tables: &TableCounts,
    ) -> Self {
        let TableCounts { measurements, log_messages, heartbeats, rejected } = *tables;
        let mut expect = |what: String, is: u64, expected: u64| {
            if is != expected {
                self.differences.push(format!("{what}: {is}, not {expected}"));
            }
        };
        let tables = [measurements, log_messages, heartbeats];
        for (((kind, it), items), rows) in ledger.entries().iter().zip(account.kinds).zip(tables) {
            let kind = kind.replace('_', " ");
            let settled = it.committed + it.duplicate + it.rejected;
            expect(format!("{kind} received"), it.received, items.published);
            expect(format!("{kind} committed"), it.committed, items.distinct);
            expect(format!("{kind} rejected"), it.rejected, items.bad);
            expect(format!("{kind} in flight"), it.in_flight, 0);
            expect(format!("{kind} settled"), settled, it.received);
            expect(format!("{kind} in the table"), rows, items.distinct);
        }
        expect("rejections in the table".into(), rejected, account.bad());
        expect("items of no kind".into(), ledger.unknown.received, 0);
        self.rows_in_tables = tables.iter().sum();
        self.distinct_items = account.distinct();
        self.exact = self.differences.is_empty();
        self
    }

    /// The round of the median rate; of an even number the slower of the two in the middle. It has the
    /// differences of all rounds.
    pub(super) fn median_of(mut rounds: Vec<Self>) -> Self {
        rounds.sort_by(|one, other| one.items_per_second.total_cmp(&other.items_per_second));
        let differences: Vec<String> =
            rounds.iter().flat_map(|row| row.differences.clone()).collect();
        let median = rounds.swap_remove((rounds.len() - 1) / 2);
        Self { exact: differences.is_empty(), differences, ..median }
    }

    /// Compares it with a baseline, given the items per second of both in each round.
    pub(super) fn against(mut self, name: &str, rounds: Vec<(f64, f64)>) -> Self {
        if rounds.is_empty() {
            self.notes.push(format!("{name} is not installed, so there is no baseline"));
            return self;
        }
        let ratio = median(rounds.iter().map(|(ours, theirs)| ours / theirs).collect());
        let items_per_second = median(rounds.iter().map(|(_, theirs)| *theirs).collect());
        self.baseline = Some(Comparison { name: name.to_owned(), items_per_second, ratio, rounds });
        self
    }
}

/// Of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::LedgerEntry;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        let row = |items_per_second| Row { items_per_second, ..Row::default() };
        let rounds = vec![row(3.0), row(1.0), row(4.0), row(2.0)];
        assert_eq!(Row::median_of(rounds).items_per_second, 2.0);
    }

    #[test]
    fn an_account_is_exact_only_if_every_item_is_found() {
        let mut account = Account { messages: 12, ..Account::default() };
        let items = &mut account.kinds[0];
        (items.published, items.distinct, items.bad) = (12, 9, 1);
        let entry = |committed, duplicate| {
            let (received, rejected) = (12, 1);
            LedgerEntry { received, committed, duplicate, rejected, ..LedgerEntry::default() }
        };
        for (measurements, rows, difference) in [
            (entry(9, 2), 9, ""),
            (entry(9, 2), 8, "measurements in the table: 8, not 9"),
            (entry(10, 1), 9, "measurements committed: 10, not 9"),
        ] {
            let ledger = LedgerSnapshot { measurements, ..LedgerSnapshot::default() };
            let tables = TableCounts { measurements: rows, rejected: 1, ..TableCounts::default() };
            let row = Row::default().with_books(&account, &ledger, &tables);
            assert_eq!(
                (row.differences.join(", "), row.exact),
                (difference.into(), difference.is_empty())
            );
        }
    }
}
