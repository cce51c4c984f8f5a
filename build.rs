//! Tells the binary which commit it was built from: `TRIBUTARY_COMMIT` where the build sets it (an
//! image is built without the repository), else what git says, else "unknown".

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=TRIBUTARY_COMMIT");
    // Every commit adds a line to it; where there is no repository nothing changes.
    if let Some(log) = ask_git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    println!("cargo::rerun-if-changed=migrations");
    watch_dashboard();
    let commit = variable("TRIBUTARY_COMMIT")
        .or_else(|| ask_git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=TRIBUTARY_COMMIT={commit}");
}

/// A release holds the dashboard, so it is built anew when that changes; a development build reads the
/// folder. Cargo takes a folder that does not exist for changed, each time: so it is made.
fn watch_dashboard() {
    const FOLDER: &str = "web/dist";
    if variable("PROFILE").as_deref() == Some("release") && std::fs::create_dir_all(FOLDER).is_ok()
    {
        println!("cargo::rerun-if-changed={FOLDER}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a build script has no settings but the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn ask_git(question: &[&str]) -> Option<String> {
    let answer = Command::new("git").args(question).output().ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    answer.status.success().then(|| text.trim().to_owned())
}
