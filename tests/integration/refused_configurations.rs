//! A configuration that the broker refuses: the outbox retries it with a backoff of its own, log, metric and API
//! name the sensor and the cause, and other sensors' configurations are published within seconds.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::broker::{Broker, Settings};
use crate::support::client::Client;
use crate::support::postgres::connect;
use crate::support::scripted::{ScriptedAnswer, ScriptedBroker};
use crate::support::service::{Service, client as client_of_http, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// The time limit for the other sensors.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(12);

async fn configure(service: &Service, sensor: &str, configuration: &Value) {
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    assert_eq!(service.post(&path, configuration).await.unwrap().0, 202);
}

async fn newest(service: &Service, sensor: &str) -> Value {
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    service.get(&path).await.unwrap().1["items"][0].clone()
}

async fn assert_published(service: &Service, sensor: &str) {
    eventually(PUBLISH_TIMEOUT, async || {
        let newest = newest(service, sensor).await;
        match newest["state"] == "published" && newest["problem"].is_null() {
            true => Ok(()),
            false => Err(newest),
        }
    })
    .await;
}

/// Waits until the API returns the problem, and checks the log and the metric.
async fn assert_refused(service: &Service, sensor: &str, cause: &str, problem: &str) {
    eventually(PUBLISH_TIMEOUT, async || {
        let newest = newest(service, sensor).await;
        match newest["state"] == "pending" && newest["problem"].to_string().contains(problem) {
            true => Ok(()),
            false => Err((newest, service.log())),
        }
    })
    .await;
    let log = service.log();
    assert!(
        log.lines().any(|line| line.contains(sensor) && line.contains(problem)),
        "{problem} of {sensor}:\n{log}"
    );
    let metric = format!(r#"tributary_configurations_refused_total{{cause="{cause}"}}"#);
    let url = format!("{}/metrics", service.url());
    let mut answer = client_of_http(false).get(url).send().await.unwrap();
    let metrics = String::from_utf8(answer.body().await.unwrap().to_vec()).unwrap();
    assert!(metrics.contains(&metric), "{metric}:\n{metrics}");
}

/// Creates three sensors; the broker gives this answer to the configurations of the first.
async fn assert_others_published(answer: ScriptedAnswer, cause: &str, problem: &str) {
    let bad_sensor = Arc::new(Mutex::new(String::from("not known yet")));
    let suffix = Arc::clone(&bad_sensor);
    let scripted = ScriptedBroker::start(&[], move |topic| {
        if topic.ends_with(&*suffix.lock().unwrap()) { answer } else { ScriptedAnswer::Puback(0) }
    });
    let database = database().await;
    let broker = Broker::shared().await;
    let service = Service::start(&database, broker, &[("MQTT_URL", scripted.url())]).await;
    let mut sensors = Vec::new();
    for name in ["a", "b", "c"] {
        sensors.push(service.create_sensor(name).await);
    }
    bad_sensor.lock().unwrap().clone_from(&sensors[0]);
    let start = Instant::now();
    for sensor in &sensors {
        configure(&service, sensor, &json!({ "interval": 1 })).await;
    }
    for sensor in &sensors[1..] {
        assert_published(&service, sensor).await;
    }
    assert!(start.elapsed() < PUBLISH_TIMEOUT, "{:?}", start.elapsed());
    assert_refused(&service, &sensors[0], cause, problem).await;

    // The outbox retries it, and a later configuration of another sensor does not wait for it.
    configure(&service, &sensors[1], &json!({ "interval": 2 })).await;
    assert_published(&service, &sensors[1]).await;
    bad_sensor.lock().unwrap().push_str("nobody");
    assert_published(&service, &sensors[0]).await;
    let attempts = scripted.published().iter().filter(|it| it.ends_with(&sensors[0])).count();
    assert!((2..=8).contains(&attempts), "{attempts} attempts");
}

#[actix_rt::test]
async fn a_connection_closed_on_one_configuration_delays_no_other_sensor() {
    assert_others_published(ScriptedAnswer::Close, "closed", "closed the connection").await;
}

#[actix_rt::test]
async fn a_withheld_puback_delays_no_other_sensor() {
    let problem = "did not acknowledge it within 5 s";
    assert_others_published(ScriptedAnswer::Withhold, "unanswered", problem).await;
}

#[actix_rt::test]
async fn a_puback_with_a_code_unknown_to_ntex_delays_no_other_sensor() {
    let problem = "Retain not supported (0x9A)";
    assert_others_published(ScriptedAnswer::Puback(0x9a), "refused", problem).await;
}

#[actix_rt::test]
async fn a_configuration_too_large_for_mosquitto_delays_no_other_sensor() {
    let settings = Settings { more: "message_size_limit 2000", ..Settings::default() };
    let broker = Broker::start_with(settings).await;
    let database = database().await;
    let service = Service::start(&database, &broker, &[]).await;
    let (large, small) = (service.create_sensor("a").await, service.create_sensor("b").await);
    configure(&service, &large, &json!({ "text": "x".repeat(4_000) })).await;
    configure(&service, &small, &json!({ "text": "x" })).await;

    assert_published(&service, &small).await;
    assert_refused(&service, &large, "refused", "Packet too large (0x95)").await;
    // A smaller configuration is published at once.
    let client = Client::connect(broker.url(), "sensor").await;
    client.subscribe(&format!("{}/configurations/{large}", database.name)).await;
    configure(&service, &large, &json!({ "text": "y" })).await;
    assert_published(&service, &large).await;
    assert_eq!(client.wait_for_messages(1).await.len(), 1);
}

#[actix_rt::test]
async fn a_maximum_packet_size_is_respected() {
    // Maximum Packet Size 1,000.
    let scripted = ScriptedBroker::start(&[0x27, 0, 0, 3, 0xe8], |_| ScriptedAnswer::Puback(0));
    let database = database().await;
    let broker = Broker::shared().await;
    let service = Service::start(&database, broker, &[("MQTT_URL", scripted.url())]).await;
    let (large, small) = (service.create_sensor("a").await, service.create_sensor("b").await);
    configure(&service, &large, &json!({ "text": "x".repeat(4_000) })).await;
    configure(&service, &small, &json!({ "text": "x" })).await;
    assert_published(&service, &small).await;
    assert_refused(&service, &large, "too_large", "Maximum Packet Size, 1000 bytes").await;
}

#[actix_rt::test]
async fn a_broker_without_retained_messages_is_reported_in_one_sentence() {
    let settings = Settings { more: "retain_available false", ..Settings::default() };
    let broker = Broker::start_with(settings).await;
    let database = database().await;
    let service = Service::start_unready(&database, &broker, &[]);
    let sentence = "does not keep retained messages";
    eventually(TIMEOUT, async || match service.get("/readyz").await {
        Ok((503, answer)) if answer.to_string().contains(sentence) => Ok(()),
        answer => Err((answer, service.log())),
    })
    .await;
    assert!(service.log().contains(sentence));
}

#[actix_rt::test]
async fn both_connections_respect_the_server_keep_alive() {
    // Server Keep Alive 1 s.
    let scripted = ScriptedBroker::start(&[0x13, 0, 1], |_| ScriptedAnswer::Puback(0));
    let database = database().await;
    let broker = Broker::shared().await;
    let settings = [("MQTT_URL", scripted.url()), ("MQTT_KEEP_ALIVE_SECS", "120")];
    let _service = Service::start(&database, broker, &settings).await;
    eventually(TIMEOUT, async || match scripted.fewest_pings() {
        fewest if fewest >= 2 => Ok(()),
        fewest => Err(fewest),
    })
    .await;
}

/// The broker sends PUBACKs only for three PUBLISHes together, so that exactly three must be in flight.
#[actix_rt::test]
async fn a_small_receive_maximum_is_respected_and_fully_used() {
    // Receive Maximum 3.
    let scripted = ScriptedBroker::start(&[0x21, 0, 3], |_| ScriptedAnswer::PubackTogether(3));
    let database = database().await;
    let config = tributary::config::read_store(|name| {
        (name == "DATABASE_URL").then(|| database.url.clone())
    });
    tributary::store::migrate(&config.unwrap()).await.unwrap();
    let client = connect(&database.url).await.unwrap();
    let statement = "insert into sensor (identifier, name)
            select gen_random_uuid(), number::text from generate_series(1, 9) number;
        insert into configuration (sensor_identifier, revision, value)
            select identifier, 1, '{}' from sensor";
    client.batch_execute(statement).await.unwrap();
    let broker = Broker::shared().await;
    let service = Service::start(&database, broker, &[("MQTT_URL", scripted.url())]).await;
    let published = "select count(*) from configuration where publication_timestamp is not null";
    eventually(TIMEOUT, async || match count(&database, published).await {
        9 => Ok(()),
        other => Err((other, service.log())),
    })
    .await;
    assert_eq!(scripted.published().len(), 9, "each was sent once");
    assert_eq!(scripted.overruns(), 0);
}
