//! The report as a chart: for each measurement a bar of its items a second, and one of its
//! yardstick's beside it. Pure; an SVG text without scripts or fonts of its own, readable on light
//! and on dark ground.

use std::fmt::Write as _;

use super::report::{Report, Row};
use super::table::thousands;

const WIDTH: f64 = 860.0;
const LABELS: f64 = 190.0;
/// Room for the figures to the right of the longest bar.
const FIGURES: f64 = 210.0;
const BAR: f64 = 13.0;
const GAP: f64 = 12.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 40.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:16px;font-weight:600}\
.small{font-size:11px;fill:#57606a}.ours{fill:#0969da}.theirs{fill:#afb8c1}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}\
.ours{fill:#4493f8}.theirs{fill:#656c76}}";

const WRITTEN: &str = "a String takes whatever is written to it";

impl Report {
    /// All of it, as SVG.
    pub(super) fn svg(&self) -> String {
        // Where nothing was stored, items were read: that is no speed beside the others.
        let rows = || self.rows.iter().filter(|row| row.batch_count > 0);
        let fastest = rows()
            .flat_map(|row| {
                [row.items_per_second, row.yardstick.as_ref().map_or(0.0, |it| it.items_per_second)]
            })
            .fold(1.0, f64::max);
        let mut bars = String::new();
        let mut top = TOP;
        for row in rows() {
            top = draw(row, top, (WIDTH - LABELS - FIGURES) / fastest, &mut bars);
        }
        let height = top + BOTTOM;
        let mut svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="Items per second of each scenario beside its yardstick"><style>{STYLE}</style>"#
        );
        label(&mut svg, "title", (8.0, 24.0), "Items per second, and those of the yardstick");
        svg.push_str(r#"<rect class="ours" x="8" y="36" width="10" height="10"/>"#);
        label(&mut svg, "small", (24.0, 45.0), "Tributary: acknowledged after COMMIT");
        svg.push_str(r#"<rect class="theirs" x="240" y="36" width="10" height="10"/>"#);
        label(&mut svg, "small", (256.0, 45.0), "the yardstick, measured in turn with it");
        svg.push_str(&bars);
        let machine = format!("tributary {} on {}", self.version, self.machine);
        label(&mut svg, "small", (8.0, height - 14.0), &machine);
        svg.push_str("</svg>\n");
        svg
    }
}

/// Draws a row, and returns where the next one begins.
fn draw(row: &Row, top: f64, scale: f64, svg: &mut String) -> f64 {
    label(svg, "name", (8.0, top + BAR - 2.0), &row.name);
    let figure = match &row.yardstick {
        Some(it) => format!("{} · {:.2} ×", thousands(row.items_per_second), it.ratio),
        None => thousands(row.items_per_second),
    };
    bar(svg, "ours", (row.items_per_second * scale, top), &figure);
    let Some(yardstick) = &row.yardstick else { return top + BAR + GAP };
    let figure = format!("{} {}", thousands(yardstick.items_per_second), yardstick.name);
    bar(svg, "theirs", (yardstick.items_per_second * scale, top + BAR + 1.0), &figure);
    top + 2.0 * BAR + 1.0 + GAP
}

fn bar(svg: &mut String, class: &str, (width, top): (f64, f64), figure: &str) {
    let width = width.max(1.0);
    write!(
        svg,
        r#"<rect class="{class}" x="{LABELS}" y="{top:.1}" width="{width:.1}" height="{BAR}"/>"#
    )
    .expect(WRITTEN);
    label(svg, "small", (LABELS + width + 6.0, top + BAR - 2.5), figure);
}

fn label(svg: &mut String, class: &str, (left, baseline): (f64, f64), text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    write!(svg, r#"<text class="{class}" x="{left:.1}" y="{baseline:.1}">{text}</text>"#)
        .expect(WRITTEN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let mut svg = String::new();
        label(&mut svg, "small", (1.0, 2.0), "a < b & c");
        assert_eq!(svg, r#"<text class="small" x="1.0" y="2.0">a &lt; b &amp; c</text>"#);
    }

    #[test]
    fn the_longest_bar_leaves_room_for_its_figure() {
        let mut svg = String::new();
        bar(&mut svg, "ours", (WIDTH - LABELS - FIGURES, 0.0), "1,000,000 · 2.00 ×");
        assert!(svg.contains(r#"width="460.0""#), "{svg}");
    }
}
