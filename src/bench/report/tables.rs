//! The report as Markdown, for the terminal, docs/BENCHMARKS.md and collected results: how fast and at what
//! cost, how soon and how exactly, and the targets. Pure.

use super::{Cost, Percentiles, Report, Row};
use crate::load::count;

impl Report {
    /// All of it except a heading.
    pub(in super::super) fn markdown(&self) -> String {
        let settings = |settings: &[(String, String)]| {
            let list = settings.iter().map(|(name, value)| format!("{name} {value}"));
            list.collect::<Vec<_>>().join(", ")
        };
        let (version, machine) = (self.version, &self.machine);
        let (postgres, broker) =
            (settings(&self.database_settings), settings(&self.broker_settings));
        let mut text = format!(
            "tributary {version} on {machine}.\nPostgreSQL: {postgres}.\nBroker: {broker}.\n"
        );
        let targets = with_head("target|wanted|reached|met", self.targets().into_iter());
        for table in [speed(&self.rows), exactness(&self.rows), targets] {
            text += "\n";
            text += &aligned(&table);
        }
        text += "\n";
        for row in &self.rows {
            for note in row.notes.iter().chain(&row.differences).chain(&ratios(row)) {
                text += &format!("- {}: {note}\n", row.name);
            }
        }
        text
    }
}

fn ratios(row: &Row) -> Option<String> {
    let rounds = row.baseline.as_ref().map(|it| &it.rounds).filter(|it| it.len() > 1)?;
    let ratios = rounds.iter().map(|(ours, theirs)| format!("{:.2}", ours / theirs));
    Some(format!("the ratios of its rounds were {}", ratios.collect::<Vec<_>>().join(", ")))
}

fn speed(rows: &[Row]) -> Vec<Vec<String>> {
    let head = "scenario|messages/s|items/s|baseline|items/s|ratio|µs/message: service|postgres|broker\
                |µs/item: service|postgres|broker|peak RSS";
    let cells = rows.iter().map(|row| {
        let baseline = row.baseline.as_ref();
        let costs = [row.service_cpu, row.postgres_cpu, row.broker_cpu];
        let cost = |figure: fn(&Cost) -> f64| {
            costs.map(|it| optional(it.as_ref(), |cost| format!("{:.2}", figure(cost))))
        };
        let mut cells = vec![
            row.name.clone(),
            count(row.messages_per_second.round() as u64),
            count(row.items_per_second.round() as u64),
            optional(baseline, |it| it.name.clone()),
            optional(baseline, |it| count(it.items_per_second.round() as u64)),
            optional(baseline, |it| format!("{:.2}", it.ratio)),
        ];
        cells.extend(cost(|it| it.microseconds_per_message));
        cells.extend(cost(|it| it.microseconds_per_item));
        cells.push(format!("{:.1} MiB", row.peak_rss_bytes as f64 / f64::from(1 << 20)));
        cells
    });
    with_head(head, cells)
}

fn exactness(rows: &[Row]) -> Vec<Vec<String>> {
    let head = "scenario|seconds|batches|staged|items in one|commit ms|PUBACK ms p50/95/99\
                |visible ms p50/95/99|rows in tables|distinct items|ledger";
    let percentiles = |percentiles: Option<&Percentiles>| {
        optional(percentiles, |it| {
            format!("{:.1} / {:.1} / {:.1}", it.p50_ms, it.p95_ms, it.p99_ms)
        })
    };
    let cells = rows.iter().map(|row| {
        vec![
            row.name.clone(),
            format!("{:.2}", row.seconds),
            row.batch_count.to_string(),
            row.staged_batch_count.to_string(),
            count(row.batch_items_mean.round() as u64),
            format!("{:.1}", row.commit_ms_mean),
            percentiles(row.publish_to_puback.as_ref()),
            percentiles(row.publish_to_visible.as_ref()),
            count(row.rows_in_tables),
            count(row.distinct_items),
            if row.exact { "exact" } else { "NOT EXACT" }.to_owned(),
        ]
    });
    with_head(head, cells)
}

fn optional<T>(value: Option<T>, write: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), write)
}

fn with_head(head: &str, rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    std::iter::once(head.split('|').map(str::to_owned).collect()).chain(rows).collect()
}

/// A Markdown table, padded so that it can be read as it is: the first column to the left, others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..rows[0].len()).map(|column| width(column).unwrap_or(0)).collect();
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => "-".repeat(*width),
        _ => format!("{}:", "-".repeat(width.saturating_sub(1))),
    });
    let rule: Vec<String> = rule.collect();
    let mut text = String::new();
    for row in std::iter::once(&rows[0]).chain([&rule]).chain(&rows[1..]) {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text += &match column {
                0 => format!("| {cell:<width$} |"),
                _ => format!(" {cell:>width$} |"),
            };
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_and_aligned() {
        let rows = [["a", "µs"], ["bcd", "100"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "| a   |  µs |\n| --- | --: |\n| bcd | 100 |\n");
    }
}
