//! What came of a run, as a line of a table and as a line of JSON.

use serde::Serialize;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) faults: Vec<String>,
    pub(crate) seconds: f64,
    /// Until the faults were over.
    pub(crate) played_seconds: f64,
    pub(crate) messages: u64,
    pub(crate) items: u64,
    pub(crate) rows: u64,
    pub(crate) rejections: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) misplaced: u64,
    pub(crate) invented: u64,
    pub(crate) lives: u64,
    /// How often the ledger was read, and added up.
    pub(crate) looks: u64,
    pub(crate) pubacks: u64,
    pub(crate) pubacks_asked: u64,
    pub(crate) pubacks_unanswered: u64,
    pub(crate) pubacks_early: u64,
    /// Messages that the broker may have forgotten.
    pub(crate) said_again: u64,
    pub(crate) configurations: u64,
    pub(crate) complaints: Vec<String>,
}

pub(crate) const HEADER: &str = "\
|  seed | faults                                                       |    s |   items |   rows | rejected | lives | PUBACKs asked | lost | doubled |
| ----: | :----------------------------------------------------------- | ---: | ------: | -----: | -------: | ----: | ------------: | ---: | ------: |";

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        let wrong = self.lost + self.doubled + self.misplaced + self.invented + self.pubacks_early;
        wrong == 0 && self.complaints.is_empty()
    }

    /// A line of the table.
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "| {:>5} | {:<60} | {:>4.1} | {:>7} | {:>6} | {:>8} | {:>5} | {:>6} of {:>4} | {:>4} | {:>7} |",
            self.seed,
            self.faults.join(", "),
            self.seconds,
            self.items,
            self.rows,
            self.rejections,
            self.lives,
            self.pubacks_asked,
            self.pubacks,
            self.lost,
            self.doubled,
        );
        if !self.is_clean() {
            line += &format!(
                " misplaced {}, invented {}, early PUBACKs {}, {:?}",
                self.misplaced, self.invented, self.pubacks_early, self.complaints
            );
        }
        line
    }
}
