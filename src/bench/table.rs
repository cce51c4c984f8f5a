//! The report as text for the terminal: a table that says how fast and at what cost, one that says
//! how soon and how exactly, one that says what was wanted, and the settings. Pure.

use std::fmt::Write as _;

use super::report::{Cost, Percentiles, Report, Row};
use super::targets::Verdict;

const WRITTEN: &str = "a String takes whatever is written to it";

impl Report {
    /// All of it, as text.
    pub(super) fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.machine);
        for (what, settings) in self.settings() {
            writeln!(text, "{what}: {settings}").expect(WRITTEN);
        }
        for table in self.tables() {
            text.push('\n');
            text.push_str(&columns(&table));
        }
        text.push_str(
            "\nCPU: user and system time of the service, of PostgreSQL and of the broker.\n",
        );
        for note in self.notes() {
            writeln!(text, "{note}").expect(WRITTEN);
        }
        text
    }

    /// Of PostgreSQL and of the broker.
    pub(super) fn settings(&self) -> [(&'static str, String); 2] {
        [("PostgreSQL", &self.database_settings), ("Broker", &self.broker_settings)].map(
            |(what, settings)| {
                let list: Vec<String> =
                    settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
                (what, list.join(", "))
            },
        )
    }

    /// Each begins with its heads.
    pub(super) fn tables(&self) -> [Vec<Vec<String>>; 3] {
        [speed(&self.rows), promises(&self.rows), targets(&self.verdicts())]
    }

    /// What the tables have no room for.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for row in &self.rows {
            let mut note = |text: &str| notes.push(format!("{}: {text}", row.name));
            row.notes.iter().chain(&row.differences).for_each(|text| note(text));
            if let Some(yardstick) = row.yardstick.as_ref().filter(|it| it.rounds.len() > 1) {
                let rounds = yardstick.rounds.iter();
                let ratios: Vec<String> =
                    rounds.map(|(ours, its)| format!("{:.2}", ours / its)).collect();
                note(&format!("the ratios of its rounds were {}", ratios.join(", ")));
            }
        }
        notes
    }
}

fn speed(rows: &[Row]) -> Vec<Vec<String>> {
    let heads = [
        "scenario",
        "messages/s",
        "items/s",
        "yardstick",
        "items/s",
        "ratio",
        "µs/message: service",
        "postgres",
        "broker",
        "µs/item: service",
        "postgres",
        "broker",
        "peak RSS",
    ];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    for row in rows {
        let yardstick = row.yardstick.as_ref();
        let costs = [row.service_cpu, row.postgres_cpu, row.broker_cpu];
        let mut cells = vec![
            row.name.clone(),
            thousands(row.messages_per_second),
            thousands(row.items_per_second),
            yardstick.map_or_else(none, |it| it.name.clone()),
            yardstick.map_or_else(none, |it| thousands(it.items_per_second)),
            yardstick.map_or_else(none, |it| format!("{:.2}", it.ratio)),
        ];
        cells.extend(costs.map(|it| cost(it, |cost| cost.microseconds_per_message)));
        cells.extend(costs.map(|it| cost(it, |cost| cost.microseconds_per_item)));
        cells.push(format!("{:.1} MiB", row.peak_rss_bytes as f64 / f64::from(1 << 20)));
        table.push(cells);
    }
    table
}

fn promises(rows: &[Row]) -> Vec<Vec<String>> {
    let heads = [
        "scenario",
        "seconds",
        "batches",
        "staged",
        "items in one",
        "commit ms",
        "PUBACK ms p50/95/99",
        "visible ms p50/95/99",
        "rows in tables",
        "distinct items",
        "ledger",
    ];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    for row in rows {
        table.push(vec![
            row.name.clone(),
            format!("{:.2}", row.seconds),
            row.batch_count.to_string(),
            row.staged_batch_count.to_string(),
            thousands(row.batch_items_mean),
            format!("{:.1}", row.commit_ms_mean),
            percentiles(row.publish_to_puback),
            percentiles(row.publish_to_visible),
            thousands(row.rows_in_tables as f64),
            thousands(row.distinct_items as f64),
            if row.exact { "exact".into() } else { "NOT EXACT".into() },
        ]);
    }
    table
}

fn targets(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let mut table = vec![["target", "wanted", "reached", "met"].map(str::to_owned).to_vec()];
    for Verdict { figure, target, measured, is_met } in verdicts {
        let is_met = if *is_met { "yes" } else { "no" };
        table.push([figure, target, measured.as_str(), is_met].map(str::to_owned).to_vec());
    }
    table
}

fn none() -> String {
    "-".into()
}

fn cost(cost: Option<Cost>, which: impl Fn(Cost) -> f64) -> String {
    cost.map_or_else(none, |cost| format!("{:.2}", which(cost)))
}

fn percentiles(percentiles: Option<Percentiles>) -> String {
    percentiles
        .map_or_else(none, |it| format!("{:.1} / {:.1} / {:.1}", it.p50_ms, it.p95_ms, it.p99_ms))
}

/// 1,234,567
pub(super) fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first column to the left, the others to the right.
fn columns(table: &[Vec<String>]) -> String {
    let count = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max()
    };
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in table {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                write!(text, "{cell:<width$}").expect(WRITTEN);
            } else {
                write!(text, "  {cell:>width$}").expect(WRITTEN);
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0.0, "0"), (999.4, "999"), (1_000.0, "1,000"), (1e6, "1,000,000")] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let table = [["a", "µs"], ["bcd", "1"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&table), "a    µs\nbcd   1\n");
    }
}
