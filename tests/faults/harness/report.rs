//! The result of a run, as a row of a table and as a line of JSON. Used by `main` and the tests. A run is clean only if all
//! checks passed.

use serde::Serialize;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) faults: Vec<String>,
    pub(crate) seconds: f64,
    /// The time until all faults were over.
    pub(crate) fault_seconds: f64,
    pub(crate) messages: u64,
    pub(crate) items: u64,
    pub(crate) rows: u64,
    pub(crate) rejections: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) misplaced: u64,
    pub(crate) invented: u64,
    pub(crate) process_runs: u64,
    /// How often the ledger was read and checked.
    pub(crate) ledger_reads: u64,
    pub(crate) pubacks: u64,
    pub(crate) pubacks_verified: u64,
    pub(crate) pubacks_unverified: u64,
    pub(crate) pubacks_early: u64,
    /// Messages published again because the broker may have lost them.
    pub(crate) resent: u64,
    pub(crate) configurations: u64,
    pub(crate) violations: Vec<String>,
}

pub(crate) const HEADER: &str = "\
|  seed | faults                                                       |    s |   items |   rows | rejected |  runs | PUBACKs verified | lost | doubled |
| ----: | :----------------------------------------------------------- | ---: | ------: | -----: | -------: | ----: | ---------------: | ---: | ------: |";

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        let wrong = self.lost + self.doubled + self.misplaced + self.invented + self.pubacks_early;
        wrong == 0 && self.ledger_reads > 0 && self.violations.is_empty()
    }

    /// A line of the table.
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "| {:>5} | {:<60} | {:>4.1} | {:>7} | {:>6} | {:>8} | {:>5} | {:>7} of {:>6} | {:>4} | {:>7} |",
            self.seed,
            self.faults.join(", "),
            self.seconds,
            self.items,
            self.rows,
            self.rejections,
            self.process_runs,
            self.pubacks_verified,
            self.pubacks,
            self.lost,
            self.doubled,
        );
        if !self.is_clean() {
            line += &format!(
                " misplaced {}, invented {}, early PUBACKs {}, ledger read {} times, {:?}",
                self.misplaced,
                self.invented,
                self.pubacks_early,
                self.ledger_reads,
                self.violations
            );
        }
        line
    }
}
