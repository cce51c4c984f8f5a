//! Code rules, checked by tests: which module may use which, where SQL, ntex and environment variables may
//! be used, where commits are confirmed, how long a file may be, and that type names are unique.

#![expect(clippy::unwrap_used, reason = "this is a test")]

mod cycles;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The limit includes tests. A longer file should be split by topic.
const MAX_LINES: usize = 400;

/// The modules that each module may name in `crate::…`. A module that is not listed here fails the test.
const MAY_USE: &[(&str, &[&str])] = &[
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
    // `telemetry`, because the log filter can be changed over HTTP.
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
    /// Without the tests, which are at the end of the file.
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
    assert!(sources.len() > 30, "too few sources found");
    sources
}

/// The lines that are not comments, with their numbers.
fn code_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source
        .code
        .lines()
        .zip(1..)
        .map(|(line, number)| (number, line.trim()))
        .filter(|(_, line)| !line.starts_with("//"))
}

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// Returns `a` and `b` for `use crate::{a, b::c}`.
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
fn each_module_uses_only_the_modules_that_are_listed_for_it() {
    let mut violations = Vec::new();
    for source in &sources() {
        let allowed = MAY_USE.iter().find(|(module, _)| *module == source.module);
        let Some((_, allowed)) = allowed else {
            violations.push(format!("{}: the module is missing in MAY_USE", source.path.display()));
            continue;
        };
        for (number, line) in code_lines(source) {
            for named in named_modules(line) {
                if named != source.module && !allowed.contains(&named.as_str()) {
                    violations.push(format!(
                        "{}:{number}: {} may not use {named}",
                        source.path.display(),
                        source.module
                    ));
                }
            }
        }
    }
    assert_none(&violations);
}

#[test]
fn no_files_depend_on_each_other() {
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
    assert_eq!(cycles::cycles(&sources), Vec::<Vec<String>>::new());
}

#[test]
fn only_mqtt_and_load_use_ntex() {
    let mut violations = Vec::new();
    for source in &sources() {
        for (number, line) in code_lines(source) {
            if line.contains("ntex_")
                && !line.contains("ntex_service=warn")
                && !["load", "mqtt"].contains(&source.module.as_str())
            {
                violations.push(format!("{}:{number}: {line}", source.path.display()));
            }
        }
    }
    assert_none(&violations);
}

#[test]
fn only_the_store_contains_sql() {
    const SQL: [&str; 7] = [
        "\"select ",
        "\"insert into ",
        "\"update ",
        "\"delete from ",
        "\"copy ",
        "\"begin\"",
        "batch_execute(",
    ];
    let mut violations = Vec::new();
    for source in sources().iter().filter(|source| source.module != "store") {
        for (number, line) in code_lines(source) {
            if SQL.iter().any(|sql| line.contains(sql)) {
                violations.push(format!("{}:{number}: {line}", source.path.display()));
            }
        }
    }
    assert_none(&violations);
}

/// `Committed` is created in one place, after COMMIT, and a PUBACK with reason Success is sent in one place.
#[test]
fn a_puback_is_sent_only_after_a_commit() {
    let sources = sources();
    let files_with = |needle: &str| -> Vec<String> {
        sources
            .iter()
            // Without the simulated sensors, which acknowledge their configurations, and the benchmark's
            // publisher, which only reads PUBACKs.
            .filter(|source| !["load"].contains(&source.module.as_str()))
            .flat_map(|source| {
                code_lines(source)
                    .filter(|(_, line)| line.contains(needle))
                    .map(|_| source.path.display().to_string())
            })
            .collect()
    };
    assert_eq!(files_with("Committed::after_commit("), ["store/ingest/commit.rs"]);
    assert_eq!(files_with("Packet::PublishAck("), ["mqtt/session.rs"]);
    assert_eq!(files_with(".puback("), ["mqtt/inbound.rs"]);
    // `Committed` is the only type of the store that the MQTT client uses.
    let mqtt = sources.iter().filter(|source| source.module == "mqtt");
    for (_, line) in mqtt.flat_map(code_lines).filter(|(_, line)| line.contains("crate::store")) {
        assert_eq!(line, "use crate::store::Committed;");
    }
}

/// A route in `Routes` cannot be declared without the role that may call it. No route may bypass `Routes`.
#[test]
fn every_route_is_declared_in_routes() {
    let mut violations = Vec::new();
    for source in sources().iter().filter(|source| source.module == "api") {
        let file = source.path.display().to_string();
        for (number, line) in code_lines(source).filter(|_| file != "api/routes.rs") {
            if ["web::resource(", "web::route(", ".service(", ".to("]
                .iter()
                .any(|it| line.contains(it))
            {
                violations.push(format!("{file}:{number}: declare the route in `Routes`"));
            }
        }
    }
    assert_none(&violations);
}

#[test]
fn only_config_reads_the_environment() {
    let mut violations = Vec::new();
    for source in sources().iter().filter(|source| source.module != "config") {
        for (number, line) in code_lines(source) {
            if line.contains("env::var") {
                violations.push(format!("{}:{number}: {line}", source.path.display()));
            }
        }
    }
    assert_none(&violations);
}

#[test]
fn no_file_is_too_long_or_without_a_header() {
    let mut violations = Vec::new();
    for source in &sources() {
        let lines = source.line_count;
        if lines > MAX_LINES {
            violations.push(format!("{}: {lines} lines", source.path.display()));
        }
        if !source.code.starts_with("//!") {
            violations
                .push(format!("{}: does not start with a `//!` header", source.path.display()));
        }
    }
    assert_none(&violations);
}

/// These names may be used for several types: settings of a module, and private types.
const SHARED_NAMES: &[&str] = &["Config", "Options", "State", "Inner"];

#[test]
fn no_two_types_share_a_name() {
    let mut files = BTreeMap::<String, Vec<String>>::new();
    for source in sources() {
        // Associated types are indented, and are skipped.
        for line in source.code.lines().filter(|line| !line.starts_with([' ', '/'])) {
            let mut words = line.split(|it: char| !it.is_alphanumeric() && it != '_');
            if words.any(|word| ["struct", "enum", "trait", "type"].contains(&word))
                && let Some(name) = words.next()
                && !SHARED_NAMES.contains(&name)
            {
                files.entry(name.to_owned()).or_default().push(source.path.display().to_string());
            }
        }
    }
    assert!(files.len() > 300, "too few types found");
    files.retain(|_, files| files.len() > 1);
    let violations: Vec<_> =
        files.iter().map(|(name, files)| format!("{name}: {files:?}")).collect();
    assert_none(&violations);
}

/// Of two migrations with the same number, the second would be rejected.
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

/// docs/ARCHITECTURE.md refers to items as `src/file.rs::name`, and to constants as `src/file.rs::NAME = value`.
#[test]
fn every_reference_in_the_architecture_page_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    let references = page.split('`').skip(1).step_by(2).filter(|code| code.starts_with("src/"));
    let (mut violations, mut count) = (Vec::new(), 0);
    for reference in references {
        count += 1;
        let (file, name) = reference.split_once("::").unwrap_or((reference, ""));
        let path = root.join(file);
        let Ok(code) = fs::read_to_string(&path) else {
            if !path.is_dir() {
                violations.push(format!("{reference}: no such file"));
            }
            continue;
        };
        let exists = match name.split_once(" = ") {
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
        if !name.is_empty() && !exists {
            violations
                .push(format!("{reference}: not defined in this file, or with another value"));
        }
    }
    assert!(count > 40, "too few references found");
    assert_none(&violations);
}
