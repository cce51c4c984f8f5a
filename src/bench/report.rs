//! The results: a row for each measurement, as the terminal's table, the JSON file and the chart
//! have it. Filled by the scenarios, written by the run. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::run::Run;

/// Everything that is written down about a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) machine: String,
    pub(super) scale: f64,
    pub(super) database_settings: Vec<(String, String)>,
    pub(super) broker_settings: Vec<(String, String)>,
    pub(super) rows: Vec<Row>,
}

/// A measurement. Where there were several rounds, that of the median rate.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) messages: u64,
    pub(super) items: u64,
    pub(super) seconds: f64,
    pub(super) messages_per_second: f64,
    pub(super) items_per_second: f64,
    pub(super) yardstick: Option<Yardstick>,
    pub(super) service_cpu: Option<Cost>,
    pub(super) postgres_cpu: Option<Cost>,
    pub(super) broker_cpu: Option<Cost>,
    pub(super) peak_rss_bytes: u64,
    pub(super) batch_count: u64,
    /// Found a row that was there already, and were written again through the staging table.
    pub(super) staged_batch_count: u64,
    pub(super) batch_items_mean: f64,
    pub(super) commit_ms_mean: f64,
    pub(super) publish_to_puback: Option<Percentiles>,
    pub(super) publish_to_visible: Option<Percentiles>,
    pub(super) rows_in_tables: u64,
    pub(super) distinct_items: u64,
    pub(super) exact: bool,
    pub(super) differences: Vec<String>,
    pub(super) notes: Vec<String>,
    /// What else was measured, by its name with its unit.
    pub(super) figures: BTreeMap<&'static str, f64>,
}

/// What a measurement is held against.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Yardstick {
    pub(super) name: String,
    /// The median of its rounds.
    pub(super) items_per_second: f64,
    /// Ours to it: the median of the pairs that were measured one after the other.
    pub(super) ratio: f64,
    /// Items per second, ours and its, of each pair.
    pub(super) rounds: Vec<(f64, f64)>,
}

/// CPU time, user and system.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Cost {
    pub(super) microseconds_per_message: f64,
    pub(super) microseconds_per_item: f64,
}

/// Milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) count: u64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        (!histogram.is_empty()).then(|| Self {
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            count: histogram.len(),
        })
    }
}

impl Run {
    pub(super) fn items_per_second(&self) -> f64 {
        self.account.items() as f64 / self.elapsed.as_secs_f64()
    }

    pub(super) fn messages_per_second(&self) -> f64 {
        self.account.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// As a row.
    pub(super) fn row(&self, name: &str) -> Row {
        let (messages, items) = (self.account.messages, self.account.items());
        let cost = |time: Option<Duration>| {
            time.map(|time| Cost {
                microseconds_per_message: time.as_secs_f64() * 1e6 / messages.max(1) as f64,
                microseconds_per_item: time.as_secs_f64() * 1e6 / items.max(1) as f64,
            })
        };
        let batches = self.batches.count.max(1) as f64;
        let differences = self.books.differences();
        Row {
            name: name.to_owned(),
            messages,
            items,
            seconds: self.elapsed.as_secs_f64(),
            messages_per_second: self.messages_per_second(),
            items_per_second: self.items_per_second(),
            yardstick: None,
            service_cpu: cost(self.cpu.service),
            postgres_cpu: cost(self.cpu.postgres),
            broker_cpu: cost(self.cpu.broker),
            peak_rss_bytes: self.memory.peak,
            batch_count: self.batches.count,
            staged_batch_count: self.batches.staged,
            batch_items_mean: self.batches.items as f64 / batches,
            commit_ms_mean: self.batches.commit.as_secs_f64() * 1e3 / batches,
            publish_to_puback: self.puback.as_ref().and_then(Percentiles::of),
            publish_to_visible: self.visible.as_ref().and_then(Percentiles::of),
            rows_in_tables: self.books.rows(),
            distinct_items: self.books.account.distinct(),
            exact: differences.is_empty(),
            differences,
            notes: self.notes.clone(),
            figures: BTreeMap::new(),
        }
    }
}

impl Row {
    /// Of several rounds, the one of the median rate; of an even number the slower of the two. The
    /// differences of every round are in it.
    pub(super) fn of_rounds(name: &str, runs: &[Run]) -> Self {
        let mut order: Vec<&Run> = runs.iter().collect();
        order.sort_by(|one, other| one.items_per_second().total_cmp(&other.items_per_second()));
        let median = order.get((order.len().max(1) - 1) / 2).expect("there is a round");
        let mut row = median.row(name);
        row.differences = runs.iter().flat_map(|run| run.books.differences()).collect();
        row.exact = row.differences.is_empty();
        row
    }

    /// Holds it against a yardstick that was measured in turn with it.
    pub(super) fn against(mut self, name: &str, rounds: Vec<(f64, f64)>) -> Self {
        let ratios = rounds.iter().map(|(ours, theirs)| ours / theirs).collect();
        let theirs = rounds.iter().map(|(_, theirs)| *theirs).collect();
        self.yardstick = Some(Yardstick {
            name: name.to_owned(),
            items_per_second: median(theirs),
            ratio: median(ratios),
            rounds,
        });
        self
    }
}

/// Of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
