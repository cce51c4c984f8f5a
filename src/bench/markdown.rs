//! The report as Markdown, for docs/BENCHMARKS.md and for whoever keeps results: the tables of the
//! terminal, the notes, and the targets. Pure.

use std::fmt::Write as _;

use super::report::Report;

const WRITTEN: &str = "a String takes whatever is written to it";

impl Report {
    /// All of it but its heading.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("tributary {} on {}.\n", self.version, self.machine);
        for (what, settings) in self.settings() {
            writeln!(text, "{what}: {settings}.").expect(WRITTEN);
        }
        for rows in self.tables() {
            text.push('\n');
            table(&rows, &mut text);
        }
        text.push('\n');
        for note in self.notes() {
            writeln!(text, "- {note}").expect(WRITTEN);
        }
        text
    }
}

/// The first column to the left, the others to the right.
fn table(rows: &[Vec<String>], text: &mut String) {
    for (index, cells) in rows.iter().enumerate() {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        writeln!(text, "| {} |", cells.join(" | ")).expect(WRITTEN);
        if index == 0 {
            let others = " ---: |".repeat(cells.len().saturating_sub(1));
            writeln!(text, "| --- |{others}").expect(WRITTEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_rule_below_its_head() {
        let rows = [["a", "µs"], ["b|c", "1"]].map(|row| row.map(str::to_owned).to_vec());
        let mut text = String::new();
        table(&rows, &mut text);
        assert_eq!(text, "| a | µs |\n| --- | ---: |\n| b\\|c | 1 |\n");
    }
}
