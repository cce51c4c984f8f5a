//! Streams show what is committed: each row once and after its COMMIT, to as many as want to see it,
//! and nothing waits for those who do not keep up.

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

/// What a test of streams stands on.
struct Rig {
    database: Database,
    service: Service,
    client: Client,
}

impl Rig {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let broker = Broker::shared().await;
        let database = database().await;
        let service = Service::start(&database, broker, settings).await;
        let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
        Self { database, service, client }
    }

    async fn say(&self, kind: &str, sensor: &str, payload: impl Into<String>) {
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

    /// The counts of the fleet's stream, as it begins.
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
async fn a_sensor_is_heard_once_and_no_other_with_it() {
    let rig = Rig::start(&[]).await;
    let sensor = rig.service.create_sensor("heard").await;
    let other = rig.service.create_sensor("other").await;
    let mut events = rig.stream(&sensor).await;

    rig.say("measurements", &other, measurement(1.0)).await;
    rig.say("measurements", &sensor, measurements([1.5, 2.5])).await;
    for timestamp in [1.5, 2.5] {
        let shown = events.expect("measurement").await;
        assert_eq!(shown["timestamp"], timestamp);
        assert_eq!(shown["value"], json!({ "temperature": timestamp }));
    }
    // The stream and the list say the same.
    let list = format!("/api/v1/sensors/{sensor}/measurements?limit=1");
    let (_, listed) = rig.service.get(&list).await.unwrap();
    rig.say("measurements", &sensor, measurement(3.0)).await;
    let members = |shown: &Value| shown.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&events.expect("measurement").await), members(&listed["items"][0]));

    // Two that are known, within a message and beside a new one: the new one is shown.
    rig.say("measurements", &sensor, measurements([1.5, 2.5, 4.5])).await;
    assert_eq!(events.expect("measurement").await["timestamp"], 4.5);

    let log = r#"{"log_messages":[{"severity":"error","revision":0,"timestamp":5,"subject":"a\n\nevent: x","details":null}]}"#;
    rig.say("log-messages", &sensor, log).await;
    let shown = events.expect("log_message").await;
    assert_eq!((&shown["subject"], &shown["severity"]), (&json!("a\n\nevent: x"), &json!("error")));
    assert_eq!(count(&rig.database, "select count(*) from measurement").await, 5);
}

#[actix_rt::test]
async fn a_configuration_is_followed_to_its_end() {
    let rig = Rig::start(&[]).await;
    let sensor = rig.service.create_sensor("followed").await;
    let mut events = rig.stream(&sensor).await;
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    let (status, _) = rig.service.post(&path, &json!({ "a": 1 })).await.unwrap();
    assert_eq!(status, 202);
    let state = |state: &str| json!({ "revision": 1, "state": state });
    assert_eq!(events.expect("configuration").await, state("pending"));
    assert_eq!(events.expect("configuration").await, state("published"));
    rig.say("heartbeats", &sensor, heartbeat(1, 10.0, true)).await;
    assert_eq!(events.expect("heartbeat").await["success"], true);
    assert_eq!(events.expect("configuration").await, state("acknowledged"));
    // Acknowledged for the first time only.
    rig.say("heartbeats", &sensor, heartbeat(1, 11.0, true)).await;
    rig.say("heartbeats", &sensor, heartbeat(1, 12.0, true)).await;
    events.expect("heartbeat").await;
    events.expect("heartbeat").await;

    let deleted = rig.service.request("DELETE", &format!("/api/v1/sensors/{sensor}"), None).await;
    assert_eq!(deleted.unwrap().0, 204);
    assert_eq!(events.expect("dropped").await["reason"], "deleted");
    assert_eq!(events.next().await, None);
}

#[actix_rt::test]
async fn no_event_precedes_its_commit() {
    let rig = Rig::start(&[("STREAM_KEEP_ALIVE_SECS", "1")]).await;
    let sensor = rig.service.create_sensor("held").await;
    let mut events = rig.stream(&sensor).await;
    rig.say("measurements", &sensor, measurement(1.0)).await;
    events.expect("measurement").await;

    let mut locker = connect(&rig.database.url).await.unwrap();
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute("lock table sensor_hour_journal in access exclusive mode").await.unwrap();
    // Of today, so that it is counted.
    rig.say("measurements", &sensor, measurement(now())).await;
    // The COPY is done, the COMMIT waits behind the journal.
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
        and query like 'insert into sensor_hour_journal%' and datname = current_database()";
    eventually(TIMEOUT, async || match count(&rig.database, waiting).await {
        1 => Ok(()),
        seen => Err(seen),
    })
    .await;
    for _ in 0..2 {
        let quiet = events.next_or_comment().await.unwrap();
        assert!(quiet.comment, "nothing is committed: {quiet:?}");
    }
    lock.rollback().await.unwrap();
    assert!(events.expect("measurement").await["timestamp"].as_f64().unwrap() > 1.0);
}

#[actix_rt::test]
async fn the_fleet_is_counted_exactly_whatever_is_killed() {
    let mut rig = Rig::start(&[]).await;
    let sensor = rig.service.create_sensor("counted").await;
    let quiet = rig.service.create_sensor("quiet").await;
    let now = now();
    rig.say("measurements", &sensor, measurements([now, now - 1.0, now - 90_000.0])).await;
    // Older than 28 days, and the same again.
    rig.say("measurements", &sensor, measurements([now, now - 29.0 * 86_400.0])).await;
    rig.say("heartbeats", &sensor, heartbeat(0, now, true)).await;
    rig.service.wait_for_ledger(|entry| entry.committed == 4 && entry.duplicate == 1).await;
    eventually(TIMEOUT, async || match rig.service.ledger_entry("heartbeats").await?.committed {
        1 => Ok(()),
        seen => Err(seen.to_string()),
    })
    .await;

    let (mut events, first) = rig.fleet().await;
    assert_eq!(first["totals"].as_array().unwrap().len(), 168);
    assert_eq!((total(&first, "measurements"), total(&first, "heartbeats")), (3, 1));
    assert_eq!((&first["sensor_count"], first.get("sensors")), (&json!(2), None));
    let (status, listed) = rig.service.get(first["activity_path"].as_str().unwrap()).await.unwrap();
    assert_eq!(status, 200, "{listed}");
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["identifier"], json!(sensor));
    assert_eq!(measurements_in(&listed["items"][0]), 3);

    // A change gives the count as it is.
    rig.say("measurements", &quiet, measurements([now, now - 1.0])).await;
    let change = events.expect("activity").await;
    assert_eq!(change["sensors"][0]["identifier"], json!(quiet));
    assert_eq!(measurements_in(&change["sensors"][0]), 2);

    // Killed while some wait for their commit; they come again, some of them known.
    let mut locker = connect(&rig.database.url).await.unwrap();
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute("lock table measurement in access exclusive mode").await.unwrap();
    rig.say("measurements", &sensor, measurements((0..50).map(|it| now - f64::from(it)))).await;
    rig.service.wait_for_ledger(|entry| entry.in_flight == 50).await;
    rig.service.kill();
    lock.rollback().await.unwrap();
    rig.service.start_again().await;
    rig.service.wait_for_ledger(|entry| entry.received >= 50 && entry.in_flight == 0).await;
    let (_, first) = rig.fleet().await;
    let recent =
        "select count(*) from measurement where creation_timestamp > now() - interval '27 days'";
    assert_eq!(total(&first, "measurements"), count(&rig.database, recent).await);
    assert_eq!(total(&first, "measurements"), 3 + 2 + 48);

    // What is deleted is counted no more.
    let deleted = rig.service.request("DELETE", &format!("/api/v1/sensors/{sensor}"), None).await;
    assert_eq!(deleted.unwrap().0, 204);
    assert_eq!(
        count(&rig.database, "select count(distinct sensor_identifier) from sensor_hour").await,
        1
    );
}

#[actix_rt::test]
async fn a_thousand_read_at_once_and_one_more_than_may_is_refused() {
    const READERS: usize = 1_000;
    // A reader that left is noticed at the second event sent after that.
    let settings = [("STREAM_MAX_READERS", "1000"), ("STREAM_KEEP_ALIVE_SECS", "2")];
    let rig = Rig::start(&settings).await;
    let sensor = rig.service.create_sensor("watched").await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(rig.stream(&sensor).await);
    }
    for path in [FLEET.to_owned(), format!("/api/v1/sensors/{sensor}/stream")] {
        let refused = rig.open(&path, "").await;
        assert_eq!(refused.status(), 503, "{}", refused.head);
        assert!(refused.head.to_lowercase().contains("retry-after: "), "{}", refused.head);
    }
    rig.say("measurements", &sensor, measurement(1.0)).await;
    rig.say("measurements", &sensor, measurement(2.0)).await;
    for reader in &mut readers {
        assert_eq!(reader.expect("measurement").await["timestamp"], 1.0);
        assert_eq!(reader.expect("measurement").await["timestamp"], 2.0);
    }
    // Who goes makes room.
    drop(readers);
    let path = format!("/api/v1/sensors/{sensor}/stream");
    eventually(TIMEOUT, async || match rig.open(&path, "").await.status() {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
}

#[actix_rt::test]
async fn a_slow_reader_is_told_and_dropped_and_holds_up_nobody() {
    // More than the sockets of both sides hold.
    const MESSAGES: usize = 40;
    let rig = Rig::start(&[]).await;
    let sensor = rig.service.create_sensor("loud").await;
    let mut slow = rig.stream(&sensor).await;
    let mut quick = rig.stream(&sensor).await;
    let details = "x".repeat(900_000);
    for second in 0..MESSAGES {
        let log = format!(
            r#"{{"log_messages":[{{"severity":"info","revision":0,"timestamp":{second},"subject":"s","details":"{details}"}}]}}"#
        );
        rig.say("log-messages", &sensor, log).await;
        assert_eq!(quick.expect("log_message").await["timestamp"], json!(second as f64));
    }
    let mut seen = 0;
    let last = loop {
        let event = slow.next().await.expect("it is told why it is dropped");
        if event.name == "dropped" {
            break event;
        }
        seen += 1;
    };
    assert_eq!(last.data["reason"], "too_slow");
    assert!((1..MESSAGES).contains(&seen), "{seen} of {MESSAGES} were kept for it");
    assert_eq!(slow.next().await, None);
}

#[actix_rt::test]
#[cfg(target_os = "linux")]
async fn a_reader_that_sleeps_keeps_its_place_for_a_time() {
    let settings = [("STREAM_MAX_READERS", "2"), ("HTTP_WRITE_TIMEOUT_SECS", "2")];
    let rig = Rig::start(&settings).await;
    let sensor = rig.service.create_sensor("loud").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let asleep = rig.stream(&sensor).await;
    let mut awake = rig.stream(&sensor).await;
    assert_eq!(rig.open(&path, "").await.status(), 503);

    let details = "x".repeat(900_000);
    for second in 0..20 {
        let log = format!(
            r#"{{"log_messages":[{{"severity":"info","revision":0,"timestamp":{second},"subject":"s","details":"{details}"}}]}}"#
        );
        rig.say("log-messages", &sensor, log).await;
        awake.expect("log_message").await;
    }

    eventually(TIMEOUT, async || match rig.open(&path, "").await.status() {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
    rig.say("heartbeats", &sensor, heartbeat(1, 1.0, true)).await;
    awake.expect("heartbeat").await;
    drop(asleep);
}

#[actix_rt::test]
async fn open_streams_hold_up_no_shutdown() {
    let mut rig = Rig::start(&[]).await;
    let sensor = rig.service.create_sensor("open").await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(rig.stream(&sensor).await);
    }
    readers.push(rig.fleet().await.0);
    let told_at = Instant::now();
    assert!(rig.service.terminate().await.success());
    // The server itself would wait five seconds for its connections.
    assert!(told_at.elapsed() < Duration::from_secs(4), "{:?}", told_at.elapsed());
    for mut reader in readers {
        assert_eq!(reader.expect("dropped").await["reason"], "shutdown");
        assert_eq!(reader.next().await, None);
    }
}

#[actix_rt::test]
async fn a_reader_that_comes_back_is_told_what_it_has_missed() {
    let rig = Rig::start(&[]).await;
    let sensor = rig.service.create_sensor("missed").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut events = rig.open(&path, "").await;
    assert_eq!(events.expect("open").await["missed_since"], Value::Null);
    rig.say("measurements", &sensor, measurement(1.0)).await;
    let last = events.next().await.unwrap();
    drop(events);
    let mut events = rig.open(&path, &format!("Last-Event-ID: {}\r\n", last.id.unwrap())).await;
    let open = events.expect("open").await;
    let moment = |name: &str| open[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(moment("missed_since") < moment("from"), "{open}");
}

#[actix_rt::test]
async fn what_is_no_stream_is_refused() {
    let rig = Rig::start(&[]).await;
    let sensor = rig.service.create_sensor("refused").await;
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
        let refused = rig.open(path, headers).await;
        assert_eq!(refused.status(), status, "{path} {headers}: {}", refused.head);
        assert!(refused.head.contains("application/problem+json"), "{}", refused.head);
    }
    for path in [path.as_str(), FLEET] {
        let (status, problem) = rig.service.post(path, &json!({})).await.unwrap();
        assert_eq!((status, &problem["type"]), (405, &json!("/problems/method-not-allowed")));
    }
}

#[actix_rt::test]
async fn a_stream_shows_its_network_and_ends_with_its_token() {
    let rig = Rig::start(&[]).await;
    let here = rig.service.create_sensor("here").await;
    // The same tables, and a service that asks who calls.
    let broker = Broker::shared().await;
    let mqtt = format!("{}-guarded", rig.database.name);
    let settings =
        [("AUTH", "on"), ("MQTT_CLIENT_ID", mqtt.as_str()), ("MQTT_TOPIC_PREFIX", &mqtt)];
    let guarded = Service::start(&rig.database, broker, &settings).await;
    let insert = |what: &str| {
        let statement = what.to_owned();
        let url = rig.database.url.clone();
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
    let [(_, admin), (one, viewer), (_, stranger)] = &tokens[..] else { unreachable!() };

    rig.say("measurements", &here, measurement(now())).await;
    rig.service.wait_for_ledger(|entry| entry.committed == 1).await;
    let path = format!("/api/v1/sensors/{here}/stream");
    let open = async |path: &str, token: &str| Events::open(&guarded.url(), path, token).await;
    for path in [path.as_str(), FLEET] {
        assert_eq!(open(path, "").await.status(), 401, "{path}");
    }
    assert_eq!(open(&path, stranger).await.status(), 404);
    for (token, counted) in [(admin, 1), (viewer, 1), (stranger, 0)] {
        let first = open(FLEET, token).await.expect("fleet").await;
        assert_eq!(total(&first, "measurements"), counted);
        assert_eq!(first["sensor_count"], counted);
        let mut listed = awc::Client::default()
            .get(format!("{}/api/v1/activity", guarded.url()))
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
        .delete(format!("{}/api/v1/tokens/{one}", guarded.url()))
        .insert_header(("Authorization", admin.trim()[15..].to_owned()))
        .send()
        .await
        .unwrap();
    assert_eq!(revoked.status().as_u16(), 204, "{:?}", revoked.body().await);
    for stream in &mut streams {
        assert_eq!(stream.expect("dropped").await["reason"], "revoked");
        assert_eq!(stream.next().await, None);
    }
    let deleted = rig.service.request("DELETE", &format!("/api/v1/sensors/{here}"), None).await;
    assert_eq!(deleted.unwrap().0, 204);
    drop(kept);
}
