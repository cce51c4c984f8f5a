//! Streams send each committed row once and after its COMMIT to all their readers, and a slow reader delays neither the
//! others nor ingest.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tributary::domain::{Timestamp, Token};
use uuid::Uuid;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::events::Events;
use crate::support::payloads::{heartbeat, measurement, measurements};
use crate::support::postgres::{Database, connect};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

const FLEET: &str = "/api/v1/streams/sensors";

/// A service with a database of its own, and an MQTT client.
struct Fixture {
    database: Database,
    service: Service,
    client: Client,
}

impl Fixture {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let broker = Broker::shared().await;
        let database = database().await;
        let service = Service::start(&database, broker, settings).await;
        let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
        Self { database, service, client }
    }

    async fn publish(&self, kind: &str, sensor: &str, payload: impl Into<String>) {
        let topic = format!("{}/{kind}/{sensor}", self.database.name);
        self.client.publish(&topic, payload.into()).await.unwrap();
    }

    async fn stream(&self, sensor: &str) -> Events {
        let mut events = self.open(&format!("/api/v1/sensors/{sensor}/stream"), "").await;
        assert_eq!(events.status(), 200, "{}", events.head);
        events.expect("open").await;
        events
    }

    async fn open(&self, path: &str, headers: &str) -> Events {
        Events::open(&self.service.url(), path, headers).await
    }

    /// Opens the stream of the fleet, and returns its first event.
    async fn fleet(&self) -> (Events, Value) {
        let mut events = self.open(FLEET, "").await;
        assert_eq!(events.status(), 200, "{}", events.head);
        let first = events.expect("fleet").await;
        (events, first)
    }
}

fn now() -> f64 {
    Timestamp::now().unix_seconds().floor()
}

fn total(counts: &Value, kind: &str) -> i64 {
    counts["totals"].as_array().unwrap().iter().map(|it| it[kind].as_i64().unwrap()).sum()
}

fn measurements_in(sensor: &Value) -> i64 {
    let buckets = sensor["buckets"].as_array().unwrap();
    buckets.iter().map(|it| it["measurements"].as_i64().unwrap()).sum()
}

#[actix_rt::test]
async fn a_stream_sends_each_new_row_of_its_sensor_once_and_none_of_others() {
    let fixture = Fixture::start(&[]).await;
    let sensor = fixture.service.create_sensor("heard").await;
    let other = fixture.service.create_sensor("other").await;
    let mut events = fixture.stream(&sensor).await;

    fixture.publish("measurements", &other, measurement(1.0)).await;
    fixture.publish("measurements", &sensor, measurements([1.5, 2.5])).await;
    for timestamp in [1.5, 2.5] {
        let event = events.expect("measurement").await;
        assert_eq!(event["timestamp"], timestamp);
        assert_eq!(event["value"], json!({ "temperature": timestamp }));
    }
    // The stream and the list return the same members.
    let list = format!("/api/v1/sensors/{sensor}/measurements?limit=1");
    let (_, listed) = fixture.service.get(&list).await.unwrap();
    fixture.publish("measurements", &sensor, measurement(3.0)).await;
    let members = |item: &Value| item.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&events.expect("measurement").await), members(&listed["items"][0]));

    // A message with two duplicates and a new item: the stream sends the new item only.
    fixture.publish("measurements", &sensor, measurements([1.5, 2.5, 4.5])).await;
    assert_eq!(events.expect("measurement").await["timestamp"], 4.5);

    let log = r#"{"log_messages":[{"severity":"error","revision":0,"timestamp":5,"subject":"a\n\nevent: x","details":null}]}"#;
    fixture.publish("log-messages", &sensor, log).await;
    let event = events.expect("log_message").await;
    assert_eq!((&event["subject"], &event["severity"]), (&json!("a\n\nevent: x"), &json!("error")));
    assert_eq!(count(&fixture.database, "select count(*) from measurement").await, 5);
}

#[actix_rt::test]
async fn a_stream_sends_every_state_of_a_configuration() {
    let fixture = Fixture::start(&[]).await;
    let sensor = fixture.service.create_sensor("followed").await;
    let mut events = fixture.stream(&sensor).await;
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    let (status, _) = fixture.service.post(&path, &json!({ "a": 1 })).await.unwrap();
    assert_eq!(status, 202);
    let state = |state: &str| json!({ "revision": 1, "state": state });
    assert_eq!(events.expect("configuration").await, state("pending"));
    assert_eq!(events.expect("configuration").await, state("published"));
    fixture.publish("heartbeats", &sensor, heartbeat(1, 10.0, true)).await;
    assert_eq!(events.expect("heartbeat").await["success"], true);
    assert_eq!(events.expect("configuration").await, state("acknowledged"));
    // Further acknowledgements cause no configuration event.
    fixture.publish("heartbeats", &sensor, heartbeat(1, 11.0, true)).await;
    fixture.publish("heartbeats", &sensor, heartbeat(1, 12.0, true)).await;
    events.expect("heartbeat").await;
    events.expect("heartbeat").await;

    let deleted =
        fixture.service.request("DELETE", &format!("/api/v1/sensors/{sensor}"), None).await;
    assert_eq!(deleted.unwrap().0, 204);
    assert_eq!(events.expect("dropped").await["reason"], "deleted");
    assert_eq!(events.next().await, None);
}

#[actix_rt::test]
async fn no_event_is_sent_before_its_commit() {
    let fixture = Fixture::start(&[("STREAM_KEEP_ALIVE_SECS", "1")]).await;
    let sensor = fixture.service.create_sensor("held").await;
    let mut events = fixture.stream(&sensor).await;
    fixture.publish("measurements", &sensor, measurement(1.0)).await;
    events.expect("measurement").await;

    let mut lock_holder = connect(&fixture.database.url).await.unwrap();
    let lock = lock_holder.transaction().await.unwrap();
    lock.batch_execute("lock table sensor_hour_journal in access exclusive mode").await.unwrap();
    // With the current time, so that the roll-up counts it.
    fixture.publish("measurements", &sensor, measurement(now())).await;
    // The COPY is done, and the insert into the journal waits for the lock.
    let blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
        and query like 'insert into sensor_hour_journal%' and datname = current_database()";
    eventually(TIMEOUT, async || match count(&fixture.database, blocked).await {
        1 => Ok(()),
        seen => Err(seen),
    })
    .await;
    for _ in 0..2 {
        let event = events.next_or_comment().await.unwrap();
        assert!(event.comment, "{event:?}");
    }
    lock.rollback().await.unwrap();
    assert!(events.expect("measurement").await["timestamp"].as_f64().unwrap() > 1.0);
}

#[actix_rt::test]
async fn the_counts_of_the_fleet_are_exact_also_after_a_kill() {
    let mut fixture = Fixture::start(&[]).await;
    let sensor = fixture.service.create_sensor("counted").await;
    let quiet = fixture.service.create_sensor("quiet").await;
    let now = now();
    fixture.publish("measurements", &sensor, measurements([now, now - 1.0, now - 90_000.0])).await;
    // A duplicate, and an item older than 28 days.
    fixture.publish("measurements", &sensor, measurements([now, now - 29.0 * 86_400.0])).await;
    fixture.publish("heartbeats", &sensor, heartbeat(0, now, true)).await;
    fixture.service.wait_for_ledger(|entry| entry.committed == 4 && entry.duplicate == 1).await;
    eventually(TIMEOUT, async || {
        match fixture.service.ledger_entry("heartbeats").await?.committed {
            1 => Ok(()),
            seen => Err(seen.to_string()),
        }
    })
    .await;

    let (mut events, first) = fixture.fleet().await;
    assert_eq!(first["totals"].as_array().unwrap().len(), 168);
    assert_eq!((total(&first, "measurements"), total(&first, "heartbeats")), (3, 1));
    assert_eq!((&first["sensor_count"], first.get("sensors")), (&json!(2), None));
    let (status, listed) =
        fixture.service.get(first["activity_path"].as_str().unwrap()).await.unwrap();
    assert_eq!(status, 200, "{listed}");
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["identifier"], json!(sensor));
    assert_eq!(measurements_in(&listed["items"][0]), 3);

    // An activity event contains the new count.
    fixture.publish("measurements", &quiet, measurements([now, now - 1.0])).await;
    let change = events.expect("activity").await;
    assert_eq!(change["sensors"][0]["identifier"], json!(quiet));
    assert_eq!(measurements_in(&change["sensors"][0]), 2);

    // A kill during a commit; the messages are redelivered, and two items are duplicates.
    let mut lock_holder = connect(&fixture.database.url).await.unwrap();
    let lock = lock_holder.transaction().await.unwrap();
    lock.batch_execute("lock table measurement in access exclusive mode").await.unwrap();
    fixture
        .publish("measurements", &sensor, measurements((0..50).map(|it| now - f64::from(it))))
        .await;
    fixture.service.wait_for_ledger(|entry| entry.in_flight == 50).await;
    fixture.service.kill();
    lock.rollback().await.unwrap();
    fixture.service.start_again().await;
    fixture.service.wait_for_ledger(|entry| entry.received >= 50 && entry.in_flight == 0).await;
    let (_, first) = fixture.fleet().await;
    let recent =
        "select count(*) from measurement where creation_timestamp > now() - interval '27 days'";
    assert_eq!(total(&first, "measurements"), count(&fixture.database, recent).await);
    assert_eq!(total(&first, "measurements"), 3 + 2 + 48);

    // Deleted sensors are not counted.
    let deleted =
        fixture.service.request("DELETE", &format!("/api/v1/sensors/{sensor}"), None).await;
    assert_eq!(deleted.unwrap().0, 204);
    assert_eq!(
        count(&fixture.database, "select count(distinct sensor_identifier) from sensor_hour").await,
        1
    );
}

#[actix_rt::test]
async fn a_thousand_readers_are_served_and_the_next_one_gets_503() {
    const READERS: usize = 1_000;
    // The service detects a closed connection when it sends the second event.
    let settings = [("STREAM_MAX_READERS", "1000"), ("STREAM_KEEP_ALIVE_SECS", "2")];
    let fixture = Fixture::start(&settings).await;
    let sensor = fixture.service.create_sensor("watched").await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(fixture.stream(&sensor).await);
    }
    for path in [FLEET.to_owned(), format!("/api/v1/sensors/{sensor}/stream")] {
        let refused = fixture.open(&path, "").await;
        assert_eq!(refused.status(), 503, "{}", refused.head);
        assert!(refused.head.to_lowercase().contains("retry-after: "), "{}", refused.head);
    }
    fixture.publish("measurements", &sensor, measurement(1.0)).await;
    fixture.publish("measurements", &sensor, measurement(2.0)).await;
    for reader in &mut readers {
        assert_eq!(reader.expect("measurement").await["timestamp"], 1.0);
        assert_eq!(reader.expect("measurement").await["timestamp"], 2.0);
    }
    // A disconnected reader frees its slot.
    drop(readers);
    let path = format!("/api/v1/sensors/{sensor}/stream");
    eventually(TIMEOUT, async || match fixture.open(&path, "").await.status() {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
}

#[actix_rt::test]
async fn a_slow_reader_is_dropped_with_the_reason_and_delays_no_other() {
    // More than the socket buffers of both sides hold.
    const MESSAGES: usize = 40;
    let fixture = Fixture::start(&[]).await;
    let sensor = fixture.service.create_sensor("loud").await;
    let mut slow = fixture.stream(&sensor).await;
    let mut fast = fixture.stream(&sensor).await;
    let details = "x".repeat(900_000);
    for second in 0..MESSAGES {
        let log = format!(
            r#"{{"log_messages":[{{"severity":"info","revision":0,"timestamp":{second},"subject":"s","details":"{details}"}}]}}"#
        );
        fixture.publish("log-messages", &sensor, log).await;
        assert_eq!(fast.expect("log_message").await["timestamp"], json!(second as f64));
    }
    let mut seen = 0;
    let last = loop {
        let event = slow.next().await.expect("the last event has the reason");
        if event.name == "dropped" {
            break event;
        }
        seen += 1;
    };
    assert_eq!(last.data["reason"], "too_slow");
    assert!((1..MESSAGES).contains(&seen), "{seen} of {MESSAGES} events");
    assert_eq!(slow.next().await, None);
}

#[actix_rt::test]
#[cfg(target_os = "linux")]
async fn a_reader_that_stops_reading_frees_its_slot_after_the_write_timeout() {
    let settings = [("STREAM_MAX_READERS", "2"), ("HTTP_WRITE_TIMEOUT_SECS", "2")];
    let fixture = Fixture::start(&settings).await;
    let sensor = fixture.service.create_sensor("loud").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let paused = fixture.stream(&sensor).await;
    let mut reading = fixture.stream(&sensor).await;
    assert_eq!(fixture.open(&path, "").await.status(), 503);

    let details = "x".repeat(900_000);
    for second in 0..20 {
        let log = format!(
            r#"{{"log_messages":[{{"severity":"info","revision":0,"timestamp":{second},"subject":"s","details":"{details}"}}]}}"#
        );
        fixture.publish("log-messages", &sensor, log).await;
        reading.expect("log_message").await;
    }

    eventually(TIMEOUT, async || match fixture.open(&path, "").await.status() {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
    fixture.publish("heartbeats", &sensor, heartbeat(1, 1.0, true)).await;
    reading.expect("heartbeat").await;
    drop(paused);
}

#[actix_rt::test]
async fn open_streams_do_not_delay_shutdown() {
    let mut fixture = Fixture::start(&[]).await;
    let sensor = fixture.service.create_sensor("open").await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(fixture.stream(&sensor).await);
    }
    readers.push(fixture.fleet().await.0);
    let stopped_at = Instant::now();
    assert!(fixture.service.terminate().await.success());
    // The HTTP server waits up to five seconds for open connections.
    assert!(stopped_at.elapsed() < Duration::from_secs(4), "{:?}", stopped_at.elapsed());
    for mut reader in readers {
        assert_eq!(reader.expect("dropped").await["reason"], "shutdown");
        assert_eq!(reader.next().await, None);
    }
}

#[actix_rt::test]
async fn a_reader_that_reconnects_gets_the_range_that_it_missed() {
    let fixture = Fixture::start(&[]).await;
    let sensor = fixture.service.create_sensor("missed").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut events = fixture.open(&path, "").await;
    assert_eq!(events.expect("open").await["missed_since"], Value::Null);
    fixture.publish("measurements", &sensor, measurement(1.0)).await;
    let last = events.next().await.unwrap();
    drop(events);
    let mut events = fixture.open(&path, &format!("Last-Event-ID: {}\r\n", last.id.unwrap())).await;
    let open = events.expect("open").await;
    let timestamp = |name: &str| open[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(timestamp("missed_since") < timestamp("from"), "{open}");
}

#[actix_rt::test]
async fn invalid_stream_requests_are_rejected() {
    let fixture = Fixture::start(&[]).await;
    let sensor = fixture.service.create_sensor("refused").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let unknown = "/api/v1/sensors/81bf7042-e20f-4a97-ac44-c15853e3618f/stream";
    for (path, headers, status) in [
        (unknown, "", 404),
        ("/api/v1/sensors/x/stream", "", 404),
        (&path, "Last-Event-ID: x\r\n", 400),
        (&path, "Last-Event-ID: 99999999999999999\r\n", 400),
        (&path, "Last-Event-ID: -1\r\n", 400),
        (&format!("{path}?from=1"), "", 400),
        (&format!("{FLEET}?limit=1"), "", 400),
    ] {
        let refused = fixture.open(path, headers).await;
        assert_eq!(refused.status(), status, "{path} {headers}: {}", refused.head);
        assert!(refused.head.contains("application/problem+json"), "{}", refused.head);
    }
    for path in [path.as_str(), FLEET] {
        let (status, problem) = fixture.service.post(path, &json!({})).await.unwrap();
        assert_eq!((status, &problem["type"]), (405, &json!("/problems/method-not-allowed")));
    }
}

#[actix_rt::test]
async fn a_stream_is_limited_to_its_network_and_ends_with_its_token() {
    let fixture = Fixture::start(&[]).await;
    let here = fixture.service.create_sensor("here").await;
    // A second service on the same database, with authentication.
    let broker = Broker::shared().await;
    let mqtt = format!("{}-guarded", fixture.database.name);
    let settings =
        [("AUTH", "on"), ("MQTT_CLIENT_ID", mqtt.as_str()), ("MQTT_TOPIC_PREFIX", &mqtt)];
    let authenticated = Service::start(&fixture.database, broker, &settings).await;
    let insert = |statement: &str| {
        let statement = statement.to_owned();
        let url = fixture.database.url.clone();
        async move { connect(&url).await.unwrap().batch_execute(&statement).await.unwrap() }
    };
    let elsewhere = Uuid::new_v4();
    insert(&format!("insert into network (identifier, name) values ('{elsewhere}', 'elsewhere')"))
        .await;
    let mut tokens = Vec::new();
    for (name, role, network) in [
        ("admin", "admin", "null".to_owned()),
        ("one", "viewer", "'00000000-0000-0000-0000-000000000000'".to_owned()),
        ("other", "viewer", format!("'{elsewhere}'")),
    ] {
        let token = Token::random();
        let digest: String = token.digest().0.iter().map(|it| format!("{it:02x}")).collect();
        let identifier = Uuid::new_v4();
        insert(&format!(
            "insert into token (identifier, name, digest, role, network_identifier)
             values ('{identifier}', '{name}', '\\x{digest}', '{role}', {network})"
        ))
        .await;
        let header = format!("Authorization: Bearer {}\r\n", token.reveal());
        tokens.push((identifier, header));
    }
    let [(_, admin), (one, viewer), (_, other_network)] = &tokens[..] else { unreachable!() };

    fixture.publish("measurements", &here, measurement(now())).await;
    fixture.service.wait_for_ledger(|entry| entry.committed == 1).await;
    let path = format!("/api/v1/sensors/{here}/stream");
    let open =
        async |path: &str, token: &str| Events::open(&authenticated.url(), path, token).await;
    for path in [path.as_str(), FLEET] {
        assert_eq!(open(path, "").await.status(), 401, "{path}");
    }
    assert_eq!(open(&path, other_network).await.status(), 404);
    for (token, counted) in [(admin, 1), (viewer, 1), (other_network, 0)] {
        let first = open(FLEET, token).await.expect("fleet").await;
        assert_eq!(total(&first, "measurements"), counted);
        assert_eq!(first["sensor_count"], counted);
        let mut listed = awc::Client::default()
            .get(format!("{}/api/v1/activity", authenticated.url()))
            .insert_header(("Authorization", token.trim()[15..].to_owned()))
            .send()
            .await
            .unwrap();
        let listed: Value = listed.json().await.unwrap();
        assert_eq!(listed["items"].as_array().unwrap().len(), counted as usize, "{listed}");
    }

    let mut streams = [open(&path, viewer).await, open(FLEET, viewer).await];
    let mut kept = open(&path, admin).await;
    kept.expect("open").await;
    for stream in &mut streams {
        stream.next().await.unwrap();
    }
    let mut revoked = awc::Client::default()
        .delete(format!("{}/api/v1/tokens/{one}", authenticated.url()))
        .insert_header(("Authorization", admin.trim()[15..].to_owned()))
        .send()
        .await
        .unwrap();
    assert_eq!(revoked.status().as_u16(), 204, "{:?}", revoked.body().await);
    for stream in &mut streams {
        assert_eq!(stream.expect("dropped").await["reason"], "revoked");
        assert_eq!(stream.next().await, None);
    }
    let deleted = fixture.service.request("DELETE", &format!("/api/v1/sensors/{here}"), None).await;
    assert_eq!(deleted.unwrap().0, 204);
    let closed = loop {
        let event = kept.next().await.expect("the stream of the other token is still open");
        if event.name == "dropped" {
            break event;
        }
    };
    assert_eq!(closed.data["reason"], "deleted");
}
