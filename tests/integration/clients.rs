//! Existing clients of this protocol: what Hermes' sensors and the Python package `tenta` publish is stored, on
//! their topics, in their format and at QoS 0. `scripts/test` also runs the package itself; every `cargo test`
//! publishes its recorded payloads.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use url::Url;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::postgres::{Database, connect};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

/// `scripts/test` sets this variable. The first run installs the package from PyPI, which a plain `cargo test`
/// should not do.
const ENABLED_BY: &str = "TRIBUTARY_TEST_CLIENTS";

const PACKAGES: [&str; 2] = ["tenta==0.1.5", "paho-mqtt==2.2.0"];

/// The payloads of `tenta_sensor.py`, as a broker received them.
const RECORDED: [(&str, &str); 4] = [
    ("measurements", r#"[{"revision": null, "value": {"t": 20.2}, "timestamp": 1782896401.0}]"#),
    (
        "measurements",
        r#"[{"revision": 1, "value": {"t": 20.3}, "timestamp": 1782896402.5}, {"revision": null, "value": {"t": NaN}, "timestamp": 1782896403.0}, {"revision": null, "value": {"t": 20.4}, "timestamp": 1782896404.0}]"#,
    ),
    (
        "logs",
        r#"[{"severity": "error", "message": "first line\nmore", "revision": 0, "timestamp": 1795883642.7}]"#,
    ),
    ("acknowledgments", r#"[{"revision": 1, "success": true, "timestamp": 1795883643.7}]"#),
];

struct Fixture {
    broker: Broker,
    database: Database,
    service: Service,
    sensor: String,
}

impl Fixture {
    /// Without a topic prefix, with a published configuration.
    async fn new() -> Self {
        let broker = Broker::start().await;
        let database = database().await;
        let service = Service::start(&database, &broker, &[("MQTT_TOPIC_PREFIX", "")]).await;
        let sensor = service.create_sensor("python").await;
        let fixture = Self { broker, database, service, sensor };
        let path = format!("/api/v1/sensors/{}/configurations", fixture.sensor);
        assert_eq!(fixture.service.post(&path, &json!({ "rate": 1 })).await.unwrap().0, 202);
        fixture.wait_for_configuration_state("published").await;
        fixture
    }

    async fn wait_for_configuration_state(&self, state: &str) {
        let path = format!("/api/v1/sensors/{}/configurations", self.sensor);
        eventually(TIMEOUT, async || {
            let (_, page) = self.service.get(&path).await?;
            let found = page["items"][0]["state"].to_string();
            if page["items"][0]["state"] == state { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Waits until all items of `RECORDED` are committed or rejected, and checks the rows.
    async fn assert_recorded_is_stored(&self) {
        self.service.wait_for_ledger(|entry| entry.committed == 3 && entry.rejected == 1).await;
        self.service.wait_for_ledger_of("log_messages", |entry| entry.committed == 1).await;
        self.wait_for_configuration_state("acknowledged").await;
        let rows = "select string_agg(line, ' | ' order by line collate \"C\") from (
                select concat_ws(' ', 'm', revision, value) as line from measurement
                union all select concat_ws(' ', 'l', revision, severity, subject, details) from log_message
                union all select concat_ws(' ', 'h', revision, success) from heartbeat
                union all select concat_ws(' ', 'r', item_index, reason) from rejection
            ) lines";
        let client = connect(&self.database.url).await.unwrap();
        let stored: String = client.query_one(rows, &[]).await.unwrap().get(0);
        assert_eq!(
            stored,
            "h 1 t | l 0 error first line more | m 1 {\"t\": 20.3} | m {\"t\": 20.2} | m {\"t\": 20.4} | r 1 not_a_number"
        );
    }
}

#[actix_rt::test]
async fn the_recorded_payloads_of_the_package_are_stored() {
    let fixture = Fixture::new().await;
    let client = Client::connect(fixture.broker.url(), "recorded").await;
    for (level, payload) in RECORDED {
        let topic = format!("{level}/{}", fixture.sensor);
        client.publish_at_most_once(&topic, payload).await.unwrap();
    }
    fixture.assert_recorded_is_stored().await;
}

#[actix_rt::test]
async fn the_payloads_of_the_package_are_stored() {
    if std::env::var_os(ENABLED_BY).is_none() {
        eprintln!("skipped: needs {ENABLED_BY}=1, as scripts/test sets it");
        return;
    }
    let fixture = Fixture::new().await;
    let observer = Client::connect(fixture.broker.url(), "observer").await;
    for level in ["measurements", "logs", "acknowledgments"] {
        observer.subscribe(&format!("{level}/+")).await;
    }
    let url: Url = fixture.broker.url().parse().unwrap();
    let port = url.port().unwrap().to_string();
    let arguments = [url.host_str().unwrap().to_owned(), port, fixture.sensor.clone()];
    tokio::task::spawn_blocking(move || {
        let python = python_with_packages();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/tenta_sensor.py");
        run(Command::new(python).arg(script).args(arguments));
    })
    .await
    .unwrap();
    fixture.assert_recorded_is_stored().await;
    let published = observer.wait_for_messages(RECORDED.len()).await;
    let expected =
        RECORDED.map(|(level, payload)| (format!("{level}/{}", fixture.sensor), payload));
    assert!(
        published
            .iter()
            .map(|it| (it.topic.clone(), it.payload.as_str()))
            .eq(expected.iter().map(|(topic, payload)| (topic.clone(), *payload))),
        "the package publishes other payloads than RECORDED: {published:?}"
    );
}

/// The path of a Python interpreter with the packages, installed once.
fn python_with_packages() -> std::path::PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tenta").join(PACKAGES[0]);
    let python = directory.join("bin/python");
    let complete = directory.join("complete");
    if !complete.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES));
        std::fs::write(complete, "").unwrap();
    }
    python
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
