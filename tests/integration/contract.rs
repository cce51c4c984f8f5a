//! The document of the API is held to the real service by a maintained tool: thousands of requests
//! made from the document, no 5xx and no answer that it does not describe.

use std::process::Command;

use crate::support::broker::Broker;
use crate::support::service::{Service, database};

/// What `scripts/test` sets: the tool is installed from PyPI at its first run, which a plain
/// `cargo test` should not do.
const WANTED: &str = "TRIBUTARY_TEST_CONTRACT";

const SECONDS: &str = "60";

#[actix_rt::test]
async fn what_is_served_is_what_the_document_describes() {
    if std::env::var_os(WANTED).is_none() {
        eprintln!("left out: scripts/test runs it, or {WANTED}=1 with Python and PyPI at hand");
        return;
    }
    let broker = Broker::shared().await;
    let database = database().await;
    let settings = [("AUTH", "on"), ("REQUESTS_PER_SECOND", "100000"), ("LOG_FILTER", "warn")];
    let service = Service::start(&database, broker, &settings).await;
    let made = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(["token", "create", "--name", "contract", "--role", "admin"])
        .env("DATABASE_URL", &database.url)
        .output()
        .unwrap();
    let said = String::from_utf8(made.stdout).unwrap();
    let token = said.lines().last().expect("the last line is the token");
    let url = service.url();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/contract");
    let held = tokio::task::spawn_blocking({
        let arguments = [url, token.to_owned(), SECONDS.to_owned()];
        move || Command::new(script).args(arguments).output().unwrap()
    })
    .await
    .unwrap();
    let report = String::from_utf8_lossy(&held.stdout);
    let complaint = String::from_utf8_lossy(&held.stderr);
    assert!(held.status.success(), "{report}\n{complaint}");
    assert!(report.contains(" passed"), "nothing was asked:\n{report}");
}
