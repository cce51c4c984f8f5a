//! `tributary listen` while the service runs: it reports what sensors publish and the service does not accept, and
//! changes nothing.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use uuid::Uuid;

use crate::support::broker::{Broker, Settings};
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::service::{Service, database};

#[actix_rt::test]
async fn each_topic_is_reported_with_its_verdict() {
    // It subscribes to all topics, so it needs a broker without those of other tests.
    let broker = Broker::start_with(Settings::default()).await;
    let database = database().await;
    let service = Service::start(&database, &broker, &[("MQTT_TOPIC_PREFIX", "a")]).await;
    let sensor = service.create_sensor("roof").await;
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    assert_eq!(service.post(&path, &serde_json::json!({})).await.unwrap().0, 202);
    let client = Client::connect(broker.url(), "sensor").await;

    let mut child = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(["listen", "--for", "8s"])
        .env_clear()
        .envs([("MQTT_URL", broker.url()), ("MQTT_TOPIC_PREFIX", "a")])
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // Written after it has subscribed.
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("Listening for 8 s"), "{line}");

    let unknown = Uuid::new_v4();
    client.publish(&format!("a/heartbeats/{sensor}"), heartbeat(0, 1.0, true)).await.unwrap();
    for topic in [format!("/a/measurements/{unknown}"), format!("Measurements/{unknown}")] {
        client.publish(&topic, measurement(1.0)).await.unwrap();
        client.publish(&topic, measurement(2.0)).await.unwrap();
    }
    let log = format!("a/log-messages/{sensor}");
    client.publish(&log, "not json").await.unwrap();
    let partly = format!("a/measurements/{sensor}");
    let payload = r#"{"measurements":[{"revision":0,"timestamp":1,"value":{}},{}]}"#;
    client.publish(&partly, payload).await.unwrap();

    let (mut report, mut errors) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut report).unwrap();
    stderr.read_to_string(&mut errors).unwrap();
    assert!(child.wait().unwrap().success(), "{errors}");
    assert!(report.starts_with("8 messages on 6 topics in 8 s at mqtt://"), "{report}");
    let expected =
        format!("not taken: it is not a topic of Tributary; expected a/measurements/{unknown}");
    for topic in [format!("/a/measurements/{unknown}"), format!("Measurements/{unknown}")] {
        let part = report.split("\n\n").find(|part| part.starts_with(&topic)).unwrap();
        assert!(
            part.contains("2 messages, such as {\"measurements\"") && part.contains(&expected),
            "{report}"
        );
    }
    assert!(
        report.contains(&format!("{log}\n  1 message, such as not json\n  not taken: not_json: ")),
        "{report}"
    );
    let expected = "not taken: 1 of 2 items; item 1: invalid_timestamp: ";
    assert!(report.contains(&format!("such as {payload}\n  {expected}")), "{report}");
    assert!(report.contains("a configuration, from Tributary to the sensor"), "{report}");
    assert!(report.ends_with("  taken\n"), "{report}");
    // The service has received its messages, too.
    assert_eq!(service.ledger_entry("heartbeats").await.unwrap().committed, 1);
    assert!(!service.log().contains("took the session over"));
}
