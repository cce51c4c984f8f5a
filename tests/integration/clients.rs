//! Clients that speak this protocol today: what Hermes' sensors and the package `tenta` publish is stored, at
//! their topics, in their form and at QoS 0. Called by `cargo test`, with the package itself where
//! `scripts/test` finds Python, and with the bytes that it sent in any case.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use url::Url;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::postgres::{Database, connect};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

/// What `scripts/test` sets: the package is installed from PyPI at its first run, which a plain `cargo test`
/// should not do.
const WANTED: &str = "TRIBUTARY_TEST_CLIENTS";

const PACKAGES: [&str; 2] = ["tenta==0.1.5", "paho-mqtt==2.2.0"];

/// What `tenta_sensor.py` sends, as recorded at a broker.
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
    /// Under no prefix, with a configuration that the broker has.
    async fn new() -> Self {
        let broker = Broker::start().await;
        let database = database().await;
        let service = Service::start(&database, &broker, &[("MQTT_TOPIC_PREFIX", "")]).await;
        let sensor = service.create_sensor("python").await;
        let fixture = Self { broker, database, service, sensor };
        let path = format!("/api/v1/sensors/{}/configurations", fixture.sensor);
        assert_eq!(fixture.service.post(&path, &json!({ "rate": 1 })).await.unwrap().0, 202);
        fixture.until_configuration_is("published").await;
        fixture
    }

    async fn until_configuration_is(&self, state: &str) {
        let path = format!("/api/v1/sensors/{}/configurations", self.sensor);
        eventually(TIMEOUT, async || {
            let (_, page) = self.service.get(&path).await?;
            let found = page["items"][0]["state"].to_string();
            if page["items"][0]["state"] == state { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Waits until all that was recorded is stored.
    async fn stored(&self) {
        self.service.wait_for_ledger(|entry| entry.committed == 3 && entry.rejected == 1).await;
        self.service.wait_for_ledger_of("log_messages", |entry| entry.committed == 1).await;
        self.until_configuration_is("acknowledged").await;
        let text = "select string_agg(line, ' | ' order by line collate \"C\") from (
                select concat_ws(' ', 'm', revision, value) as line from measurement
                union all select concat_ws(' ', 'l', revision, severity, subject, details) from log_message
                union all select concat_ws(' ', 'h', revision, success) from heartbeat
                union all select concat_ws(' ', 'r', item_index, reason) from rejection
            ) lines";
        let client = connect(&self.database.url).await.unwrap();
        let stored: String = client.query_one(text, &[]).await.unwrap().get(0);
        assert_eq!(
            stored,
            "h 1 t | l 0 error first line more | m 1 {\"t\": 20.3} | m {\"t\": 20.2} | m {\"t\": 20.4} | r 1 not_a_number"
        );
    }
}

#[actix_rt::test]
async fn what_the_package_was_seen_to_send_is_stored() {
    let fixture = Fixture::new().await;
    let client = Client::connect(fixture.broker.url(), "recorded").await;
    for (level, payload) in RECORDED {
        let topic = format!("{level}/{}", fixture.sensor);
        client.publish_at_most_once(&topic, payload).await.unwrap();
    }
    fixture.stored().await;
}

#[actix_rt::test]
async fn what_the_package_sends_is_stored() {
    if std::env::var_os(WANTED).is_none() {
        eprintln!("left out: scripts/test runs it, or {WANTED}=1 with Python and PyPI at hand");
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
        let python = environment();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/tenta_sensor.py");
        run(Command::new(python).arg(script).args(arguments));
    })
    .await
    .unwrap();
    fixture.stored().await;
    let sent = observer.wait_for_messages(RECORDED.len()).await;
    let expected =
        RECORDED.map(|(level, payload)| (format!("{level}/{}", fixture.sensor), payload));
    assert!(
        sent.iter()
            .map(|it| (it.topic.clone(), it.payload.as_str()))
            .eq(expected.iter().map(|(topic, payload)| (topic.clone(), *payload))),
        "the recorded bytes are those of the package: {sent:?}"
    );
}

/// A Python with the packages, made once.
fn environment() -> std::path::PathBuf {
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
