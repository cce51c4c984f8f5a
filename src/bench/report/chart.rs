//! The report as a chart: for each measurement a bar of its items per second, and one of its baseline's. Pure; an
//! SVG text without scripts or fonts of its own, readable on light and dark backgrounds.

use super::{Report, Row};
use crate::load::count;

const WIDTH: f64 = 860.0;
/// Where the bars begin, and the room to the right of the longest one.
const LABELS: f64 = 190.0;
const FIGURES: f64 = 210.0;
const BAR: f64 = 13.0;

const HEAD: &str = r#"role="img" aria-label="Items per second of each scenario beside its baseline"><style>text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:16px;font-weight:600}.small{font-size:11px;fill:#57606a}.ours{fill:#0969da}.theirs{fill:#afb8c1}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.ours{fill:#4493f8}.theirs{fill:#656c76}}</style>
<text class="title" x="8" y="24">Items per second, and those of the baseline</text>
<rect class="ours" x="8" y="36" width="10" height="10"/><text class="small" x="24" y="45">Tributary: acknowledged after COMMIT</text>
<rect class="theirs" x="240" y="36" width="10" height="10"/><text class="small" x="256" y="45">the baseline, measured in turn with it</text>"#;

impl Report {
    pub(in super::super) fn svg(&self) -> String {
        // Where nothing was stored, items were read: that is no speed beside the others.
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.batch_count > 0).collect();
        let baselines = rows.iter().filter_map(|row| row.baseline.as_ref());
        let rates = baselines
            .map(|it| it.items_per_second)
            .chain(rows.iter().map(|it| it.items_per_second));
        let scale = (WIDTH - LABELS - FIGURES) / rates.fold(1.0, f64::max);
        let (mut bars, mut top) = (String::new(), 64.0);
        let mut bar = |class: &str, top: f64, rate: f64, note: &str| {
            let (width, right) = ((rate * scale).max(1.0), LABELS + (rate * scale).max(1.0) + 6.0);
            let (baseline, figure) = (top + BAR - 2.5, count(rate.round() as u64));
            bars += &format!(
                r#"<rect class="{class}" x="{LABELS}" y="{top:.1}" width="{width:.1}" height="{BAR}"/><text class="small" x="{right:.1}" y="{baseline:.1}">{figure}{note}</text>
"#
            );
        };
        let mut names = String::new();
        for row in rows {
            let name = escaped(&row.name);
            names += &format!("<text x=\"8\" y=\"{:.1}\">{name}</text>\n", top + BAR - 2.0);
            let ratio = row
                .baseline
                .as_ref()
                .map_or_else(String::new, |it| format!(" · {:.2} ×", it.ratio));
            bar("ours", top, row.items_per_second, &ratio);
            top += BAR + 1.0;
            if let Some(it) = &row.baseline {
                bar("theirs", top, it.items_per_second, &format!(" {}", escaped(&it.name)));
                top += BAR;
            }
            top += 12.0;
        }
        let (height, foot) = (top + 40.0, top + 26.0);
        let machine = escaped(&format!("tributary {} on {}", self.version, self.machine));
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" {HEAD}
{names}{bars}<text class="small" x="8" y="{foot:.1}">{machine}</text>
</svg>
"#
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_leaves_room_for_its_figure_and_text_is_escaped() {
        let row =
            Row { name: "a<b".into(), batch_count: 1, items_per_second: 500.0, ..Row::default() };
        let rows = vec![row.against("psql", vec![(500.0, 1_000.0)])];
        let svg = Report { rows, ..Report::default() }.svg();
        for expected in
            ["a&lt;b", r#"width="460.0""#, r#"width="230.0""#, "500 · 0.50 ×", "1,000 psql"]
        {
            assert!(svg.contains(expected), "{expected}: {svg}");
        }
    }
}
