//! The project's targets, and whether a run met them. Pure. A target whose scenario was not run is
//! left out.

use super::{Report, Row};

/// What a run reached, and whether that is enough; none if it was not measured.
type Reached = Option<(String, bool)>;

/// Figure, target, scenario, what was reached.
type Target = (&'static str, &'static str, &'static str, fn(&Row) -> Reached);

const TARGETS: [Target; 15] = [
    ("drain-1 ÷ `mosquitto_sub`", "≥ 2.0", "drain-1", |row| ratio(row, 2.0)),
    ("CPU of the service per message, drain-1", "≤ 3 µs", "drain-1", |row| {
        at_most(3.0, row.service_cpu?.microseconds_per_message, 2, " µs")
    }),
    ("drain-100 ÷ `psql \\copy`", "≥ 2.0", "drain-100", |row| ratio(row, 2.0)),
    ("CPU of the service per row, drain-100", "≤ 0.7 µs", "drain-100", |row| {
        at_most(0.7, row.service_cpu?.microseconds_per_item, 2, " µs")
    }),
    (
        "live at 10,000/s, PUBLISH to visible",
        "p50 ≤ 10 ms, p99 ≤ 50 ms",
        "live-10000/s",
        |row| {
            let it = row.publish_to_visible?;
            let is_met = it.p50_ms <= 10.0 && it.p99_ms <= 50.0;
            Some((format!("{:.1} ms, {:.1} ms", it.p50_ms, it.p99_ms), is_met))
        },
    ),
    ("live, flat out, CPU of the service per message", "≤ 5 µs", "live-flat-out", |row| {
        at_most(5.0, row.service_cpu?.microseconds_per_message, 2, " µs")
    }),
    ("100,000 sensors ÷ 1,000", "≥ 0.85", "fleet-100000", |row| ratio(row, 0.85)),
    ("RSS per sensor beyond the first 1,000", "≤ 2 KiB", "fleet-100000", |row| {
        at_most(2_048.0, *row.figures.get("rss_bytes_per_sensor")?, 0, " B")
    }),
    ("redelivery of 1 % ÷ of none", "≥ 0.7", "redelivery-1%", |row| ratio(row, 0.7)),
    ("redelivery of 1 % later ÷ of none", "≥ 0.7", "redelivery-1%-later", |row| ratio(row, 0.7)),
    ("overload, RSS at its highest ÷ after 5 s", "≤ 1.5", "overload", |row| {
        at_most(1.5, *row.figures.get("rss_growth")?, 2, "")
    }),
    ("200 reads/s while ingest runs flat out, p99", "≤ 50 ms", "reads", |row| {
        let failures = *row.figures.get("read_failures")?;
        let unit = format!(" ms, {failures:.0} failed");
        let (reached, is_met) = at_most(50.0, *row.figures.get("read_p99_ms")?, 1, &unit)?;
        Some((reached, is_met && failures == 0.0))
    }),
    ("what ingest keeps beside them", "≥ 0.90", "reads", |row| ratio(row, 0.9)),
    ("what ingest keeps with the journal of the roll-up", "≥ 0.95", "rollup", |row| {
        ratio(row, 0.95)
    }),
    ("aggregates of 28 days, the slowest first request", "≤ 100 ms", "aggregates", |row| {
        at_most(100.0, *row.figures.get("slowest_first_ms")?, 0, " ms")
    }),
];

fn ratio(row: &Row, min: f64) -> Reached {
    let ratio = row.baseline.as_ref()?.ratio;
    Some((format!("{ratio:.2}"), ratio >= min))
}

fn at_most(max: f64, reached: f64, decimals: usize, unit: &str) -> Reached {
    Some((format!("{reached:.decimals$}{unit}"), reached <= max))
}

impl Report {
    /// As rows of a table: figure, target, what was reached, whether that is enough.
    pub(super) fn targets(&self) -> Vec<Vec<String>> {
        let reached = TARGETS.iter().filter_map(|(figure, target, scenario, reached)| {
            let row = self.rows.iter().find(|row| row.name == *scenario)?;
            Some((*figure, *target, reached(row)?))
        });
        let (exact, all) = (self.rows.iter().filter(|row| row.exact).count(), self.rows.len());
        let exact = (format!("in {exact} of {all}"), exact == all);
        let exact = ("rows in the table = distinct items, and the ledger", "exact", exact);
        let rows = reached.chain((all > 0).then_some(exact)).map(|(figure, target, reached)| {
            let is_met = if reached.1 { "yes" } else { "no" };
            vec![figure.to_owned(), target.to_owned(), reached.0, is_met.to_owned()]
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_measured_figures_are_compared_with_targets() {
        let mut row = Row { name: "reads".into(), exact: true, ..Row::default() };
        row = row.against("without readers", vec![(0.89, 1.0)]);
        row.figures.extend([("read_p99_ms", 50.0), ("read_failures", 1.0)]);
        let report = Report { rows: vec![row], ..Report::default() };
        let table = report.targets().iter().map(|row| row[1..].join("|")).collect::<Vec<_>>();
        let expected = ["≤ 50 ms|50.0 ms, 1 failed|no", "≥ 0.90|0.89|no", "exact|in 1 of 1|yes"];
        assert_eq!(table, expected);
        assert!(Report::default().targets().is_empty());
    }
}
