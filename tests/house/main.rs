//! The rules of the house, held by a test: which layer may know which, where SQL stands, who reads
//! the environment, who makes the proof of a commit, how long a file may get, and that a name means one type.

#![expect(clippy::unwrap_used, reason = "this is a test")]

mod circles;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A longer file, its tests included, contains a second idea.
const MAX_LINES: usize = 400;

/// Who may name whom in `crate::…`; what is not listed may name nothing of ours.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("wire", &["domain"]),
    ("tls", &[]),
    ("store", &["domain", "tls"]),
    ("tasks", &["domain"]),
    ("writer", &["store", "domain", "metrics", "tasks"]),
    ("sensor", &["writer", "store", "domain", "metrics", "tasks"]),
    ("mqtt", &["sensor", "wire", "store", "domain", "metrics", "tasks", "tls"]),
    ("streams", &["store", "domain", "metrics"]),
    ("instances", &["sensor", "streams", "store", "domain", "metrics"]),
    ("replay", &["sensor", "wire", "store", "domain"]),
    // The log's level is changed over HTTP.
    // It changes the log filter of telemetry.
    (
        "api",
        &[
            "instances",
            "replay",
            "streams",
            "sensor",
            "store",
            "domain",
            "metrics",
            "tasks",
            "telemetry",
            "tls",
            "wire",
        ],
    ),
    ("metrics", &["domain"]),
    ("probes", &["domain", "metrics", "store", "tasks"]),
    ("telemetry", &[]),
    (
        "config",
        &[
            "api",
            "domain",
            "mqtt",
            "sensor",
            "store",
            "streams",
            "telemetry",
            "tls",
            "wire",
            "writer",
        ],
    ),
    ("load", &["mqtt", "domain", "tls", "wire"]),
    ("listen", &["load", "mqtt", "config", "domain", "wire"]),
    ("simulate", &["load", "mqtt", "config", "domain", "wire"]),
    ("bench", &["load", "mqtt", "config", "domain", "store", "wire"]),
    (
        "app",
        &[
            "api",
            "config",
            "domain",
            "instances",
            "metrics",
            "mqtt",
            "probes",
            "replay",
            "sensor",
            "store",
            "streams",
            "tasks",
            "telemetry",
            "wire",
            "writer",
        ],
    ),
    (
        "cli",
        &[
            "api",
            "app",
            "bench",
            "config",
            "domain",
            "listen",
            "sensor",
            "simulate",
            "store",
            "telemetry",
        ],
    ),
    ("lib", &[]),
    ("main", &[]),
];

struct Source {
    path: PathBuf,
    module: String,
    /// Without its tests, which are at its end.
    code: String,
    line_count: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(&root).unwrap().to_owned();
            let first = relative.iter().next().unwrap().to_string_lossy();
            let is_test = relative.with_extension("").iter().any(|part| part == "tests");
            if is_test || relative.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = ["#[cfg(test)]\nmod tests {", "#[cfg(all(test, "]
                .iter()
                .fold(&*text, |code, tests| code.split(tests).next().unwrap())
                .to_owned();
            let module = first.trim_end_matches(".rs").to_owned();
            let line_count = text.lines().count();
            sources.push(Source { path: relative, module, code, line_count });
        }
    }
    assert!(sources.len() > 30, "the sources were found");
    sources
}

/// The lines that are code, with their numbers.
fn code_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source
        .code
        .lines()
        .zip(1..)
        .map(|(line, number)| (number, line.trim()))
        .filter(|(_, line)| !line.starts_with("//"))
}

fn complain(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// `use crate::{a, b::c}` names a and b.
fn named_modules(line: &str) -> Vec<String> {
    let mut named = Vec::new();
    for after in line.split("crate::").skip(1) {
        let list = after.strip_prefix('{').and_then(|list| list.split('}').next());
        for item in list.unwrap_or(after).split(',') {
            let name: String =
                item.trim().chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
            named.push(name);
            if list.is_none() {
                break;
            }
        }
    }
    named
}

#[test]
fn each_layer_knows_only_those_below_it() {
    let mut broken = Vec::new();
    for source in &sources() {
        let allowed = MAY_KNOW.iter().find(|(module, _)| *module == source.module);
        let Some((_, allowed)) = allowed else {
            broken.push(format!("{}: no rule says whom it may know", source.path.display()));
            continue;
        };
        for (number, line) in code_lines(source) {
            for named in named_modules(line) {
                if named != source.module && !allowed.contains(&named.as_str()) {
                    broken.push(format!(
                        "{}:{number}: {} may not know {named}",
                        source.path.display(),
                        source.module
                    ));
                }
            }
        }
    }
    complain(&broken);
}

#[test]
fn no_files_need_each_other() {
    let sources: Vec<_> = sources()
        .iter()
        .map(|source| {
            let mut module: Vec<String> = source
                .path
                .with_extension("")
                .iter()
                .map(|it| it.to_string_lossy().into_owned())
                .collect();
            module.pop_if(|last| ["lib", "mod"].contains(&last.as_str()));
            let code: Vec<&str> = code_lines(source).map(|(_, line)| line).collect();
            (module, code.join("\n"))
        })
        .collect();
    assert_eq!(circles::circles(&sources), Vec::<Vec<String>>::new());
}

#[test]
fn ntex_stays_at_the_edge() {
    let mut broken = Vec::new();
    for source in &sources() {
        for (number, line) in code_lines(source) {
            if line.contains("ntex_")
                && !line.contains("ntex_service=warn")
                && !["load", "mqtt"].contains(&source.module.as_str())
            {
                broken.push(format!("{}:{number}: {line}", source.path.display()));
            }
        }
    }
    complain(&broken);
}

#[test]
fn sql_stands_in_the_store() {
    const SQL: [&str; 7] = [
        "\"select ",
        "\"insert into ",
        "\"update ",
        "\"delete from ",
        "\"copy ",
        "\"begin\"",
        "batch_execute(",
    ];
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.module != "store") {
        for (number, line) in code_lines(source) {
            if SQL.iter().any(|sql| line.contains(sql)) {
                broken.push(format!("{}:{number}: {line}", source.path.display()));
            }
        }
    }
    complain(&broken);
}

/// The proof of a commit is made in one place, behind COMMIT, and the Success of a PUBACK in one.
#[test]
fn only_a_commit_makes_a_puback() {
    let sources = sources();
    let places = |needle: &str| -> Vec<String> {
        sources
            .iter()
            // The simulated sensors acknowledge their own configurations; the benchmark's publisher
            // reads the broker's PUBACKs and sends none.
            .filter(|source| !["load"].contains(&source.module.as_str()))
            .flat_map(|source| {
                code_lines(source)
                    .filter(|(_, line)| line.contains(needle))
                    .map(|_| source.path.display().to_string())
            })
            .collect()
    };
    assert_eq!(places("Committed::after_commit("), ["store/ingest/commit.rs"]);
    assert_eq!(places("Packet::PublishAck("), ["mqtt/session.rs"]);
    assert_eq!(places(".puback("), ["mqtt/inbound.rs"]);
    // The proof is all that the MQTT client knows of the store.
    let mqtt = sources.iter().filter(|source| source.module == "mqtt");
    for (_, line) in mqtt.flat_map(code_lines).filter(|(_, line)| line.contains("crate::store")) {
        assert_eq!(line, "use crate::store::Committed;");
    }
}

/// A route says who may call it, because it cannot be declared without; this holds that none is served
/// that is not declared.
#[test]
fn no_route_is_served_that_is_not_declared() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.module == "api") {
        let file = source.path.display().to_string();
        for (number, line) in code_lines(source).filter(|_| file != "api/routes.rs") {
            if ["web::resource(", "web::route(", ".service(", ".to("]
                .iter()
                .any(|it| line.contains(it))
            {
                broken.push(format!("{file}:{number}: declare the route in `Routes`"));
            }
        }
    }
    complain(&broken);
}

#[test]
fn only_the_settings_read_the_environment() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.module != "config") {
        for (number, line) in code_lines(source) {
            if line.contains("env::var") {
                broken.push(format!("{}:{number}: {line}", source.path.display()));
            }
        }
    }
    complain(&broken);
}

#[test]
fn a_file_holds_one_idea() {
    let mut broken = Vec::new();
    for source in &sources() {
        let lines = source.line_count;
        if lines > MAX_LINES {
            broken.push(format!("{}: {lines} lines", source.path.display()));
        }
        if !source.code.starts_with("//!") {
            broken.push(format!("{}: does not say what it is", source.path.display()));
        }
    }
    complain(&broken);
}

/// Told apart by their module or their field: what a module is configured with, and private parts.
const MAY_SHARE: &[&str] = &["Config", "Options", "State", "Inner"];

#[test]
fn no_two_types_share_a_name() {
    let mut files = BTreeMap::<String, Vec<String>>::new();
    for source in sources() {
        // Without associated types, which are indented.
        for line in source.code.lines().filter(|line| !line.starts_with([' ', '/'])) {
            let mut words = line.split(|it: char| !it.is_alphanumeric() && it != '_');
            if words.any(|word| ["struct", "enum", "trait", "type"].contains(&word))
                && let Some(name) = words.next()
                && !MAY_SHARE.contains(&name)
            {
                files.entry(name.to_owned()).or_default().push(source.path.display().to_string());
            }
        }
    }
    assert!(files.len() > 300, "the types were found");
    files.retain(|_, files| files.len() > 1);
    let broken: Vec<_> = files.iter().map(|(name, files)| format!("{name}: {files:?}")).collect();
    complain(&broken);
}

/// docs/ARCHITECTURE.md names things as `src/file.rs::name`, and bounds as `src/file.rs::NAME = value`.
/// Two would be applied as one, and the second refused.
#[test]
fn no_two_migrations_have_the_same_number() {
    let files = fs::read_dir("migrations").unwrap().map(|entry| entry.unwrap().file_name());
    let mut numbers: Vec<String> = files
        .filter_map(|name| Some(name.into_string().unwrap().split_once("__")?.0.to_owned()))
        .collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert!(count > 20);
    assert_eq!(numbers.len(), count, "{numbers:?}");
}

#[test]
fn what_the_architecture_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    let references = page.split('`').skip(1).step_by(2).filter(|code| code.starts_with("src/"));
    let (mut broken, mut count) = (Vec::new(), 0);
    for reference in references {
        count += 1;
        let (file, name) = reference.split_once("::").unwrap_or((reference, ""));
        let path = root.join(file);
        let Ok(code) = fs::read_to_string(&path) else {
            if !path.is_dir() {
                broken.push(format!("{reference}: no such file"));
            }
            continue;
        };
        let is_there = match name.split_once(" = ") {
            Some((name, value)) => code.lines().any(|line| {
                line.contains(&format!("const {name}:"))
                    && line.trim_end().ends_with(&format!(" = {value};"))
            }),
            None => ["fn", "struct", "enum", "trait", "const", "type"].iter().any(|form| {
                ["(", "<", " ", ":", ";"]
                    .iter()
                    .any(|after| code.contains(&format!("{form} {name}{after}")))
            }),
        };
        if !name.is_empty() && !is_there {
            broken.push(format!("{reference}: not defined there, or with another value"));
        }
    }
    assert!(count > 40, "the page names what it tells of");
    complain(&broken);
}
