//! What the project wants to reach, and what a run reached of it. Pure. A target of which the scenario
//! was not run is left out.

use super::report::{Cost, Report, Row};

/// What was wanted, and what came of it.
pub(super) struct Verdict {
    pub(super) figure: &'static str,
    pub(super) target: &'static str,
    pub(super) measured: String,
    pub(super) is_met: bool,
}

impl Report {
    /// One for each target.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |figure, target, reached: Option<(String, bool)>| {
            let (measured, is_met) = reached?;
            Some(Verdict { figure, target, measured, is_met })
        };
        let figures = [
            verdict("drain-1 ÷ `mosquitto_sub`", "≥ 2.0", self.ratio("drain-1", 2.0)),
            verdict(
                "CPU of the service per message, drain-1",
                "≤ 3 µs",
                self.cost("drain-1", |cost| cost.microseconds_per_message, 3.0),
            ),
            verdict("drain-100 ÷ `psql \\copy`", "≥ 2.0", self.ratio("drain-100", 2.0)),
            verdict(
                "CPU of the service per row, drain-100",
                "≤ 0.7 µs",
                self.cost("drain-100", |cost| cost.microseconds_per_item, 0.7),
            ),
            verdict(
                "live at 10,000/s, PUBLISH to visible",
                "p50 ≤ 10 ms, p99 ≤ 50 ms",
                self.row("live-10000/s").and_then(|row| row.publish_to_visible).map(|it| {
                    let measured = format!("{:.1} ms, {:.1} ms", it.p50_ms, it.p99_ms);
                    (measured, it.p50_ms <= 10.0 && it.p99_ms <= 50.0)
                }),
            ),
            verdict(
                "live, flat out, CPU of the service per message",
                "≤ 5 µs",
                self.cost("live-flat-out", |cost| cost.microseconds_per_message, 5.0),
            ),
            verdict("100,000 sensors ÷ 1,000", "≥ 0.85", self.ratio("fleet-100000", 0.85)),
            verdict(
                "RSS per sensor beyond the first 1,000",
                "≤ 2 KiB",
                self.figure("fleet-100000", "rss_bytes_per_sensor")
                    .map(|bytes| at_most(2_048.0, bytes, 0, " B")),
            ),
            verdict("redelivery of 1 % ÷ of none", "≥ 0.7", self.ratio("redelivery-1%", 0.7)),
            verdict(
                "redelivery of 1 % later ÷ of none",
                "≥ 0.7",
                self.ratio("redelivery-1%-later", 0.7),
            ),
            verdict(
                "overload, RSS at its highest ÷ after 5 s",
                "≤ 1.5",
                self.figure("overload", "rss_growth").map(|growth| at_most(1.5, growth, 2, "")),
            ),
            verdict(
                "200 reads/s while ingest runs flat out, p99",
                "≤ 50 ms",
                self.figure("reads", "read_p99_ms").map(|p99| {
                    let failures = self.figure("reads", "read_failures").unwrap_or(0.0);
                    let measured = format!("{p99:.1} ms, {failures:.0} failed");
                    (measured, p99 <= 50.0 && failures == 0.0)
                }),
            ),
            verdict("what ingest keeps beside them", "≥ 0.90", self.ratio("reads", 0.9)),
            verdict(
                "aggregates of 28 days, the slowest first request",
                "≤ 200 ms",
                self.figure("aggregates", "slowest_first_ms")
                    .map(|slowest| at_most(200.0, slowest, 0, " ms")),
            ),
            verdict(
                "rows in the table = distinct items, and the ledger",
                "exact",
                (!self.rows.is_empty()).then(|| {
                    let exact = self.rows.iter().filter(|row| row.exact).count();
                    (format!("in {exact} of {}", self.rows.len()), exact == self.rows.len())
                }),
            ),
        ];
        figures.into_iter().flatten().collect()
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    fn figure(&self, row: &str, name: &str) -> Option<f64> {
        self.row(row)?.figures.get(name).copied()
    }

    fn ratio(&self, row: &str, least: f64) -> Option<(String, bool)> {
        let ratio = self.row(row)?.yardstick.as_ref()?.ratio;
        Some((format!("{ratio:.2}"), ratio >= least))
    }

    fn cost(&self, row: &str, which: fn(&Cost) -> f64, most: f64) -> Option<(String, bool)> {
        let cost = which(self.row(row)?.service_cpu.as_ref()?);
        Some(at_most(most, cost, 2, " µs"))
    }
}

fn at_most(most: f64, reached: f64, decimals: usize, unit: &str) -> (String, bool) {
    (format!("{reached:.decimals$}{unit}"), reached <= most)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::report::Yardstick;

    fn row(name: &str, ratio: f64, figures: &[(&'static str, f64)]) -> Row {
        let yardstick =
            Yardstick { name: "it".into(), items_per_second: 1.0, ratio, rounds: Vec::new() };
        Row {
            name: name.to_owned(),
            yardstick: Some(yardstick),
            figures: figures.iter().copied().collect::<BTreeMap<_, _>>(),
            exact: true,
            ..Row::default()
        }
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let rows = vec![row("reads", 0.89, &[("read_p99_ms", 50.0), ("read_failures", 1.0)])];
        let report = Report { rows, ..Report::default() };
        let verdicts: Vec<_> =
            report.verdicts().into_iter().map(|it| (it.target, it.measured, it.is_met)).collect();
        assert_eq!(
            verdicts,
            [
                ("≤ 50 ms", "50.0 ms, 1 failed".to_owned(), false),
                ("≥ 0.90", "0.89".to_owned(), false),
                ("exact", "in 1 of 1".to_owned(), true),
            ]
        );
        assert!(Report::default().verdicts().is_empty());
    }
}
