//! The README and docs/API.md are up to date: bash runs every command of their tours against a service, and the output
//! must match the text. The reasons, settings and files that the README names must exist.

use std::path::Path;
use std::process::Command;

use tributary::domain::Reason;

use crate::support::broker::Broker;
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

const README: &str = include_str!("../../README.md");
const API: &str = include_str!("../../docs/API.md");
const SETTINGS: &str = include_str!("../../.env.example");

/// The addresses and the path in the tours, which `scripts/develop` prints.
const BROKER: &str = "mqtt://127.0.0.1:21883";
const DATABASE: &str = "postgres://postgres@127.0.0.1:25432/postgres";
const URL: &str = "http://127.0.0.1:8080";
const BINARY: &str = "target/debug/tributary";

/// Matches any text in the expected output.
const WILDCARD: char = '…';

/// A block with one of these changes data, and runs once; the others run until their output matches.
const CHANGES: [&str; 5] = ["mosquitto_pub", " -d ", " -X ", "simulate", "token create"];

/// Runs a block, stops at its first failure, and passes variables and functions on to the next block.
const WRAPPER: &str = r#"set -aeuo pipefail; if [ -e "$1" ]; then . "$1"; fi; eval "$2"; { export -p; declare -f; } >"$1""#;

/// A block of shell commands, and the block with their expected output.
#[derive(Debug, PartialEq)]
struct Step {
    script: String,
    expected: String,
}

/// The file that passes variables from block to block; deleted by `Drop`.
struct Variables(std::path::PathBuf);

impl Drop for Variables {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[actix_rt::test]
async fn every_command_of_the_readme_tour_prints_the_expected_output() {
    run_tour(&steps(section("## A tour")), &[]).await;
}

#[actix_rt::test]
async fn every_command_of_the_api_tour_prints_the_expected_output() {
    run_tour(&steps(API), &[("AUTH", "on")]).await;
}

async fn run_tour(steps: &[Step], settings: &[(&str, &str)]) {
    for program in ["mosquitto_pub", "mosquitto_sub", "psql", "curl"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        assert!(
            found.unwrap().status.success(),
            "the tour needs {program}: install curl, postgresql-client and mosquitto-clients"
        );
    }
    let broker = Broker::start().await;
    let database = database().await;
    let settings = [&[("MQTT_TOPIC_PREFIX", "")], settings].concat();
    let service = Service::start(&database, &broker, &settings).await;
    let variables = Variables(std::env::temp_dir().join(format!("{}.sh", database.name)));
    assert!(steps.len() > 10, "the tour is missing");
    for Step { script, expected } in steps {
        let script_here = script
            .replace(BROKER, broker.url())
            .replace(DATABASE, &database.url)
            .replace(URL, &service.url())
            .replace(BINARY, env!("CARGO_BIN_EXE_tributary"));
        if CHANGES.iter().any(|change| script.contains(change)) {
            let stdout = run(&script_here, &variables.0);
            assert!(matches(expected, &stdout), "{script}\n{stdout}\nexpected:\n{expected}");
            continue;
        }
        eventually(TIMEOUT, async || {
            // A script may fail until the data exists.
            let stdout = try_run(&script_here, &variables.0)?;
            if matches(expected, &stdout) { Ok(()) } else { Err(format!("{script}\n{stdout}")) }
        })
        .await;
    }
}

#[test]
fn the_readme_lists_every_rejection_reason() {
    let section = section("## What a sensor publishes");
    for reason in Reason::ALL {
        assert!(section.contains(&format!("`{}`", reason.code())), "{} is missing", reason.code());
    }
}

#[test]
fn every_setting_that_the_readme_names_exists() {
    let names: Vec<&str> = section("## Your own servers")
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.contains('_') && word.chars().all(|it| it.is_ascii_uppercase() || it == '_')
        })
        .collect();
    assert!(names.len() > 10, "the settings are missing");
    for name in names {
        assert!(SETTINGS.contains(&format!("\n{name}=")), "{name} is not a setting");
    }
}

#[test]
fn every_link_of_the_readme_has_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for link in README.split("](").skip(1) {
        let target = link.split(')').next().unwrap();
        if let Some(anchor) = target.strip_prefix('#') {
            let headings = README.lines().filter_map(|line| line.strip_prefix('#'));
            let mut slugs = headings
                .map(|it| it.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"));
            assert!(slugs.any(|slug| slug == anchor), "no heading is {target}");
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        assert!(target.starts_with("http") || root.join(file).exists(), "{target} does not exist");
        if !target.starts_with("http") && !anchor.is_empty() {
            let text = std::fs::read_to_string(root.join(file)).unwrap().to_lowercase();
            let heading = format!("# {}", anchor.replace('-', " "));
            assert!(text.lines().any(|line| line.ends_with(&heading)), "no heading is {target}");
        }
    }
}

#[test]
fn a_step_is_a_shell_block_and_the_text_block_that_follows_it() {
    let readme = "x\n```sh\na\nb\n```\n```text\nc\n```\n```sh\nd\n```\n";
    let step =
        |script: &str, expected: &str| Step { script: script.into(), expected: expected.into() };
    assert_eq!(steps(readme), [step("a\nb\n", "c\n"), step("d\n", "")]);
}

#[test]
fn an_ellipsis_matches_any_text() {
    for (expected, stdout) in
        [("", "\n"), ("a…c", "abc\n"), ("{\"a\":1,\n \"b\":…}", "{\"a\":1,\"b\":2}"), ("…", "x")]
    {
        assert!(matches(expected, stdout), "{expected} {stdout}");
    }
    for (expected, stdout) in
        [("", "x"), ("a…c", "ac"), ("a…c", "abd"), ("a", "ab"), ("…a…a", "xa"), ("a…", "a")]
    {
        assert!(!matches(expected, stdout), "{expected} {stdout}");
    }
}

fn section(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(heading).expect("the section exists");
    rest.split("\n## ").next().unwrap()
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut fence = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), fence) {
            (Some(_), Some(_)) => fence = None,
            (Some(kind), None) => {
                fence = Some(kind);
                if kind == "sh" {
                    steps.push(Step { script: String::new(), expected: String::new() });
                }
            }
            (None, Some(kind)) => {
                let step = steps.last_mut().expect("a text block follows a shell block");
                let block = if kind == "sh" { &mut step.script } else { &mut step.expected };
                block.extend([line, "\n"]);
            }
            (None, None) => {}
        }
    }
    steps
}

fn run(script: &str, variables: &Path) -> String {
    try_run(script, variables).unwrap_or_else(|error| panic!("{error}"))
}

fn try_run(script: &str, variables: &Path) -> Result<String, String> {
    let output = Command::new("timeout")
        .args(["60", "bash", "-c", WRAPPER, "bash"])
        .arg(variables)
        .arg(script)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Overrides a .env file in this checkout.
        .env("MQTT_TOPIC_PREFIX", "")
        .output()
        .expect("bash and timeout are installed");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(stdout),
        false => Err(format!("{script}\n{}\n{stdout}\n{stderr}", output.status)),
    }
}

/// Ignores line breaks and the white space around them, so that the README can wrap long lines.
fn matches(expected: &str, stdout: &str) -> bool {
    let joined = |text: &str| text.lines().map(str::trim).collect::<String>();
    let (expected, stdout) = (joined(expected), joined(stdout));
    let mut parts = expected.split(WILDCARD);
    let Some(mut rest) = stdout.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((skipped, after)) = rest.split_once(part) else { return false };
        if skipped.is_empty() {
            return false;
        }
        rest = after;
    }
    rest.len() > last.len() && rest.ends_with(last)
}
