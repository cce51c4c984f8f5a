//! An operator's control of ingest: a pause loses no message and keeps the connection; the log filter
//! can be changed.

use serde_json::json;

use crate::support::broker::{Broker, Settings};
use crate::support::client::Client;
use crate::support::payloads::measurement;
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

const INGEST: &str = "/api/v1/ingest";
const LOG_LEVEL: &str = "/api/v1/ingest/log-level";

async fn post_ingest(service: &Service, action: &str) -> serde_json::Value {
    let (status, state) =
        service.request("POST", &format!("{INGEST}/{action}"), None).await.unwrap();
    assert_eq!(status, 200, "{state}");
    state
}

#[actix_rt::test]
async fn a_pause_stops_reading_keeps_the_connection_and_loses_no_message() {
    let mut broker =
        Broker::start_with(Settings { log_packets: true, ..Settings::default() }).await;
    let database = database().await;
    let service = Service::start(&database, &broker, &[("MQTT_KEEP_ALIVE_SECS", "1")]).await;
    let sensor = service.create_sensor("paused").await;
    let client = Client::connect(broker.url(), "sensor").await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurement(0.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;

    let paused = post_ingest(&service, "pause").await;
    assert!(paused["paused_since"].is_string(), "{paused}");
    assert_eq!(post_ingest(&service, "pause").await["paused_since"], paused["paused_since"]);
    for second in 1..=10 {
        client.publish(&topic, measurement(f64::from(second))).await.unwrap();
    }
    // The connection stays open for several keep-alive intervals, and nothing is read.
    let pings = |broker: &Broker| {
        let pingreq = format!("Received PINGREQ from {}", database.name);
        broker.log().lines().filter(|line| line.ends_with(&pingreq)).count()
    };
    let before = pings(&broker);
    eventually(TIMEOUT, async || match pings(&broker) - before {
        0..4 => Err(service.log()),
        _ => Ok(()),
    })
    .await;
    assert!(!service.log().contains("no connection for ingest"), "{}", service.log());
    assert_eq!(service.ledger_entry("measurements").await.unwrap().received, 1);
    assert_eq!(count(&database, "select count(*) from measurement").await, 1);

    // The pause is reported.
    let (status, ready) = service.get("/readyz").await.unwrap();
    assert_eq!((status, &ready["missing"][0]["part"]), (503, &json!("ingest")));
    let (_, status) = service.get("/api/v1/status").await.unwrap();
    assert_eq!(status["ingest_paused_since"], paused["paused_since"]);

    let resumed = post_ingest(&service, "resume").await;
    assert!(resumed["paused_since"].is_null(), "{resumed}");
    service.wait_for_ledger(|entry| entry.committed == 11 && entry.in_flight == 0).await;
    assert_eq!(service.get("/readyz").await.unwrap().0, 200);
    post_ingest(&service, "resume").await;

    // The broker restarts during a pause: the service receives its messages after the pause.
    post_ingest(&service, "pause").await;
    broker.stop().await;
    broker.start_again().await;
    let client = Client::connect(broker.url(), "sensor").await;
    client.publish(&topic, measurement(20.0)).await.unwrap();
    eventually(TIMEOUT, async || {
        let (_, state) = service.get(INGEST).await?;
        match state["connections"]["broker_ingest"]["up"].as_bool() {
            Some(true) if service.log().matches("connected for ingest").count() > 1 => Ok(()),
            _ => Err(state.to_string()),
        }
    })
    .await;
    assert_eq!(service.ledger_entry("measurements").await.unwrap().received, 11);
    post_ingest(&service, "resume").await;
    service.wait_for_ledger(|entry| entry.committed == 12).await;
    assert_eq!(count(&database, "select count(*) from measurement").await, 12);
}

#[actix_rt::test]
async fn the_state_of_ingest_includes_its_bounds() {
    let broker = Broker::shared().await;
    let database = database().await;
    let settings = [("MQTT_RECEIVE_MAXIMUM", "123"), ("DATABASE_WRITERS", "1")];
    let service = Service::start(&database, broker, &settings).await;
    let sensor = service.create_sensor("state").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    for second in 0..5 {
        client.publish(&topic, measurement(f64::from(second))).await.unwrap();
    }
    service.wait_for_ledger(|entry| entry.committed == 5).await;
    let (_, state) = service.get(INGEST).await.unwrap();
    assert_eq!(state["window"]["max_messages"], 123);
    assert_eq!(state["window"]["messages"], 0);
    assert_eq!(state["writers"], json!({ "busy": 0, "connections": 1 }));
    assert_eq!(state["batches"]["items"], 5);
    assert_eq!(state["batches"]["max_items"], 50_000);
    assert!(state["batches"]["committed"].as_u64().unwrap() >= 1, "{state}");
    assert_eq!(state["connections"]["broker_ingest"]["up"], true);
    assert_eq!(state["log_filter"], "info,tributary=debug");
}

#[actix_rt::test]
async fn the_log_filter_can_be_changed() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[("LOG_FILTER", "warn")]).await;
    let sensor = service.create_sensor("logged").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurement(0.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;
    assert!(!service.log().contains("batch committed"), "{}", service.log());

    let body = json!({ "filter": "warn,tributary=debug" });
    let (status, answer) = service.request("PUT", LOG_LEVEL, Some(&body)).await.unwrap();
    assert_eq!((status, &answer), (200, &body));
    client.publish(&topic, measurement(1.0)).await.unwrap();
    eventually(TIMEOUT, async || {
        let log = service.log();
        if log.contains("batch committed") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(service.get(INGEST).await.unwrap().1["log_filter"], "warn,tributary=debug");

    for (body, pointer) in [
        (json!({ "filter": "loud" }), "/filter"),
        (json!({ "filter": "tributary=loud" }), "/filter"),
        (json!({ "filter": 7 }), "/filter"),
        (json!({}), "/filter"),
        (json!({ "filter": "info", "level": "info" }), "/level"),
    ] {
        let (status, problem) = service.request("PUT", LOG_LEVEL, Some(&body)).await.unwrap();
        assert_eq!((status, &problem["pointer"]), (422, &json!(pointer)), "{body}: {problem}");
    }
    assert_eq!(service.get(INGEST).await.unwrap().1["log_filter"], "warn,tributary=debug");
}

#[actix_rt::test]
async fn invalid_ingest_requests_are_rejected() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    for (method, path, expected) in [
        ("GET", "/api/v1/ingest?x=1", 400),
        ("DELETE", INGEST, 405),
        ("GET", "/api/v1/ingest/pause", 405),
        ("POST", "/api/v1/ingest/pause?for=1h", 400),
        ("GET", "/api/v1/ingest/resume", 405),
        ("POST", "/api/v1/ingest/resume?x=1", 400),
        ("GET", LOG_LEVEL, 405),
        ("PUT", LOG_LEVEL, 415),
    ] {
        let (status, problem) = service.request(method, path, None).await.unwrap();
        assert_eq!(status, expected, "{method} {path}: {problem}");
    }
    assert!(service.get(INGEST).await.unwrap().1["paused_since"].is_null());
}

#[actix_rt::test]
async fn the_writers_are_connected_before_the_first_message() {
    let broker = Broker::shared().await;
    let database = database().await;
    let _service = Service::start(&database, broker, &[("DATABASE_WRITERS", "3")]).await;
    let writers = "select count(*) from pg_stat_activity \
                   where application_name = 'tributary-write' and datname = current_database()";
    eventually(TIMEOUT, async || match count(&database, writers).await {
        3 => Ok(()),
        other => Err(other),
    })
    .await;
}
