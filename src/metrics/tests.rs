use super::*;
use prometheus::proto::MetricType;

#[test]
fn only_the_leader_exports_its_metrics() {
    let metrics = Metrics::new(Arc::new(Ledger::default()));
    metrics.partitions_waiting.with_label_values(&["measurement", "make"]).set(1);
    for leads in [false, true, false] {
        metrics.leader.set(leads.into());
        let text = metrics.render();
        for name in OF_THE_LEADER {
            assert_eq!(text.contains(name), leads, "{name}");
        }
    }
}

const TABLE: &str = include_str!("../../docs/METRICS.md");

/// Texts that name metrics.
const TEXTS: [(&str, &str); 4] = [
    ("dashboard", include_str!("../../scripts/deploy/grafana/tributary.json")),
    ("alert rules", include_str!("../../scripts/deploy/alerts.yml")),
    ("docs/OPERATIONS.md", include_str!("../../docs/OPERATIONS.md")),
    ("README.md", include_str!("../../README.md")),
];

/// Labels that Prometheus adds by itself.
const ADDED_LABELS: [&str; 3] = ["instance", "job", "le"];

fn descriptions() -> Vec<Description> {
    Metrics::new(Arc::new(Ledger::default())).descriptions().to_vec()
}

/// As in Prometheus' text format.
fn name(form: MetricType) -> String {
    format!("{form:?}").to_lowercase()
}

#[test]
fn the_table_lists_every_metric_and_no_other() {
    let mut listed: Vec<[String; 3]> = TABLE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|row| {
            let mut cells = row.split('|').skip(1).map(|cell| cell.replace('`', ""));
            std::array::from_fn(|_| cells.next().unwrap().trim().to_owned())
        })
        .collect();
    let mut made: Vec<[String; 3]> = descriptions()
        .into_iter()
        .map(|it| [it.name, name(it.form), it.labels.join(", ")])
        .collect();
    listed.sort();
    made.sort();
    assert_eq!(listed, made);
}

#[test]
fn every_exported_metric_is_described() {
    let text = Metrics::new(Arc::new(Ledger::default())).render();
    let mut given: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    let descriptions = descriptions();
    given.retain(|(metric, form)| {
        !descriptions.iter().any(|it| it.name == *metric && name(it.form) == *form)
    });
    assert_eq!(given, []);
}

#[test]
fn every_metric_named_in_texts_exists() {
    let descriptions = descriptions();
    let mut wrong = Vec::new();
    for (reader, text) in TEXTS {
        let uses = uses(text);
        for (name, labels) in &uses {
            let Some(metric) = descriptions.iter().find(|it| is_series_of(name, it)) else {
                wrong.push(format!("{reader}: there is no {name}"));
                continue;
            };
            for label in labels {
                if !metric.labels.iter().any(|it| it == label) && !ADDED_LABELS.contains(label) {
                    wrong.push(format!("{reader}: {name} has no label {label}"));
                }
            }
        }
        assert!(uses.len() > 2, "{reader} names metrics");
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_operations_page_explains_each_alert() {
    let [_, (_, rules), (_, page), _] = TEXTS;
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let missing: Vec<_> =
        alerts.clone().filter(|alert| !page.contains(&format!("`{alert}`"))).collect();
    assert_eq!(missing, [""; 0]);
    assert!(alerts.count() > 10);
}

/// Every name of ours in a text, with the labels in the braces behind it.
fn uses(text: &str) -> Vec<(&str, Vec<&str>)> {
    let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let mut uses = Vec::new();
    let mut begin = 0;
    while let Some(found) = text[begin..].find(is_word) {
        let rest = &text[begin + found..];
        let name = &rest[..rest.find(|it| !is_word(it)).unwrap_or(rest.len())];
        begin += found + name.len();
        if !(name.starts_with("tributary_") || name.starts_with("process_")) {
            continue;
        }
        let selector = text[begin..].strip_prefix('{').and_then(|it| it.split('}').next());
        let labels = selector.unwrap_or_default().split(',').filter_map(|matcher| {
            let end = matcher.find(['=', '!'])?;
            Some(matcher[..end].trim())
        });
        uses.push((name, labels.collect()));
    }
    uses
}

fn is_series_of(name: &str, metric: &Description) -> bool {
    let base = match metric.form {
        MetricType::HISTOGRAM => {
            ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix))
        }
        _ => None,
    };
    base.unwrap_or(name) == metric.name
}
