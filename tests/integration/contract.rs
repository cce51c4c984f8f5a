//! `scripts/contract` tests the real service against its OpenAPI document: thousands of generated
//! requests, no 5xx and no response that the document does not describe.

use std::process::Command;

use crate::support::broker::Broker;
use crate::support::service::{Service, database};

/// `scripts/test` sets this variable. The first run installs schemathesis from PyPI, which a plain
/// `cargo test` should not do.
const ENABLED_BY: &str = "TRIBUTARY_TEST_CONTRACT";

const SECONDS: &str = "60";

#[actix_rt::test]
async fn the_service_conforms_to_its_openapi_document() {
    if std::env::var_os(ENABLED_BY).is_none() {
        eprintln!("skipped: needs {ENABLED_BY}=1, as scripts/test sets it");
        return;
    }
    let broker = Broker::shared().await;
    let database = database().await;
    let settings = [("AUTH", "on"), ("REQUESTS_PER_SECOND", "100000"), ("LOG_FILTER", "warn")];
    let service = Service::start(&database, broker, &settings).await;
    let created = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(["token", "create", "--name", "contract", "--role", "admin"])
        .env("DATABASE_URL", &database.url)
        .output()
        .unwrap();
    let stdout = String::from_utf8(created.stdout).unwrap();
    let token = stdout.lines().last().expect("the last line is the token");
    let url = service.url();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/contract");
    let output = tokio::task::spawn_blocking({
        let arguments = [url, token.to_owned(), SECONDS.to_owned()];
        move || Command::new(script).args(arguments).output().unwrap()
    })
    .await
    .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}\n{errors}");
    assert!(report.contains(" passed"), "the report names no passed check:\n{report}");
}
