//! The README and the tour of the API cannot rot: every line of a tour is run by bash against a running service, and what comes out is
//! compared with what stands there. Beside it, what the README names (reasons, settings, files) is there.

use std::path::Path;
use std::process::Command;

use tributary::domain::Reason;

use crate::support::broker::Broker;
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

const README: &str = include_str!("../../README.md");
const API: &str = include_str!("../../docs/API.md");
const SETTINGS: &str = include_str!("../../.env.example");

/// What `scripts/develop` prints, and with it the README.
const BROKER: &str = "mqtt://127.0.0.1:21883";
const DATABASE: &str = "postgres://postgres@127.0.0.1:25432/postgres";
const URL: &str = "http://127.0.0.1:8080";
const BINARY: &str = "target/debug/tributary";

/// In what is expected: any text.
const ANYTHING: char = '…';

/// Where a block is a change, it is run once; the others are run until they show what is expected.
const CHANGES: [&str; 5] = ["mosquitto_pub", " -d ", " -X ", "simulate", "token create"];

/// Before each block: stop at the first failure, know what the blocks before have set, keep it for those that follow.
const FRAME: &str = r#"set -aeuo pipefail; if [ -e "$1" ]; then . "$1"; fi; eval "$2"; { export -p; declare -f; } >"$1""#;

/// A block of shell, and the block of text that follows it.
#[derive(Debug, PartialEq)]
struct Step {
    script: String,
    expected: String,
}

/// Removes the file in which the blocks hand on their variables.
struct Variables(std::path::PathBuf);

impl Drop for Variables {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[actix_rt::test]
async fn every_line_of_the_tour_does_what_it_says() {
    follow(&steps(section("## A tour")), &[]).await;
}

#[actix_rt::test]
async fn every_line_of_the_tour_of_the_api_does_what_it_says() {
    follow(&steps(API), &[("AUTH", "on")]).await;
}

async fn follow(steps: &[Step], settings: &[(&str, &str)]) {
    for program in ["mosquitto_pub", "mosquitto_sub", "psql", "curl"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        assert!(
            found.unwrap().status.success(),
            "the tour wants {program}: install curl, postgresql-client and mosquitto-clients"
        );
    }
    let broker = Broker::start().await;
    let database = database().await;
    let settings = [&[("MQTT_TOPIC_PREFIX", "")], settings].concat();
    let service = Service::start(&database, &broker, &settings).await;
    let variables = Variables(std::env::temp_dir().join(format!("{}.sh", database.name)));
    assert!(steps.len() > 10, "the tour was found");
    for Step { script, expected } in steps {
        let here = script
            .replace(BROKER, broker.url())
            .replace(DATABASE, &database.url)
            .replace(URL, &service.url())
            .replace(BINARY, env!("CARGO_BIN_EXE_tributary"));
        if CHANGES.iter().any(|change| script.contains(change)) {
            let said = run(&here, &variables.0);
            assert!(matches(expected, &said), "{script}\nsaid:\n{said}\nand not:\n{expected}");
            continue;
        }
        eventually(TIMEOUT, async || {
            // A script may fail until what it looks for is there.
            let said = try_run(&here, &variables.0)?;
            if matches(expected, &said) { Ok(()) } else { Err(format!("{script}\nsaid:\n{said}")) }
        })
        .await;
    }
}

#[test]
fn every_reason_stands_in_the_readme() {
    let said = section("## What a sensor publishes");
    for reason in Reason::ALL {
        assert!(said.contains(&format!("`{}`", reason.code())), "{} is missing", reason.code());
    }
}

#[test]
fn every_setting_of_the_readme_is_one() {
    let named: Vec<&str> = section("## Your own servers")
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.contains('_') && word.chars().all(|it| it.is_ascii_uppercase() || it == '_')
        })
        .collect();
    assert!(named.len() > 10, "the settings were found");
    for name in named {
        assert!(SETTINGS.contains(&format!("\n{name}=")), "{name} is no setting");
    }
}

#[test]
fn every_link_leads_somewhere() {
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
        assert!(target.starts_with("http") || root.join(file).exists(), "{target} is not there");
        if !target.starts_with("http") && !anchor.is_empty() {
            let text = std::fs::read_to_string(root.join(file)).unwrap().to_lowercase();
            let heading = format!("# {}", anchor.replace('-', " "));
            assert!(text.lines().any(|line| line.ends_with(&heading)), "no heading is {target}");
        }
    }
}

#[test]
fn steps_are_a_block_and_what_it_says() {
    let readme = "x\n```sh\na\nb\n```\n```text\nc\n```\n```sh\nd\n```\n";
    let step =
        |script: &str, expected: &str| Step { script: script.into(), expected: expected.into() };
    assert_eq!(steps(readme), [step("a\nb\n", "c\n"), step("d\n", "")]);
}

#[test]
fn an_ellipsis_is_any_text() {
    for (expected, said) in
        [("", "\n"), ("a…c", "abc\n"), ("{\"a\":1,\n \"b\":…}", "{\"a\":1,\"b\":2}"), ("…", "x")]
    {
        assert!(matches(expected, said), "{expected} {said}");
    }
    for (expected, said) in
        [("", "x"), ("a…c", "ac"), ("a…c", "abd"), ("a", "ab"), ("…a…a", "xa"), ("a…", "a")]
    {
        assert!(!matches(expected, said), "{expected} {said}");
    }
}

fn section(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(heading).expect("the section is there");
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
                let step = steps.last_mut().expect("a text follows a block of shell");
                let block = if kind == "sh" { &mut step.script } else { &mut step.expected };
                block.extend([line, "\n"]);
            }
            (None, None) => {}
        }
    }
    steps
}

fn run(script: &str, variables: &Path) -> String {
    try_run(script, variables).unwrap_or_else(|complaint| panic!("{complaint}"))
}

fn try_run(script: &str, variables: &Path) -> Result<String, String> {
    let output = Command::new("timeout")
        .args(["60", "bash", "-c", FRAME, "bash"])
        .arg(variables)
        .arg(script)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // What the tour does not say is not taken from a file of this checkout.
        .env("MQTT_TOPIC_PREFIX", "")
        .output()
        .expect("bash and timeout are there");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("{script}\n{}\n{said}\n{complaint}", output.status)),
    }
}

/// Line breaks and what surrounds them count as nothing, so that the README can break long lines.
fn matches(expected: &str, said: &str) -> bool {
    let joined = |text: &str| text.lines().map(str::trim).collect::<String>();
    let (expected, said) = (joined(expected), joined(said));
    let mut parts = expected.split(ANYTHING);
    let Some(mut rest) = said.strip_prefix(parts.next().unwrap_or_default()) else { return false };
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
