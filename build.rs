//! Puts into the binary the commit it was built from (`TRIBUTARY_COMMIT` where the build sets it, because an image is
//! built without the repository, else what git says, else "unknown") and the migrations.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=TRIBUTARY_COMMIT");
    // Every commit adds a line to it; where there is no repository nothing changes.
    if let Some(log) = ask_git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    list_migrations();
    watch_dashboard();
    let commit = variable("TRIBUTARY_COMMIT")
        .or_else(|| ask_git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=TRIBUTARY_COMMIT={commit}");
}

/// For `src/store/migrations.rs`: a list of the files' names and texts.
fn list_migrations() {
    println!("cargo::rerun-if-changed=migrations");
    let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let mut list = String::from("&[");
    for folder in ["migrations", "migrations/timescaledb", "migrations/citus"] {
        let files = std::fs::read_dir(Path::new(&root).join(folder)).expect("the folder exists");
        for file in files {
            let path = file.expect("the folder is readable").path();
            let name = path.file_stem().unwrap_or_default();
            if path.extension().is_some_and(|it| it == "sql") {
                write!(list, "({name:?}, include_str!({path:?})), ").expect("memory");
            }
        }
    }
    let output = std::env::var_os("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&output).join("migrations.rs"), list + "]")
        .expect("a writable folder");
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
