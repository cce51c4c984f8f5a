//! Replay of rejections: an accepted item is stored once, and its rejection is deleted in the same transaction, also
//! during concurrent replays, redeliveries, deletions and kills.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement, measurements};
use crate::support::postgres::{Database, connect, for_engine_tables};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// A message with one invalid item.
const INVALID: &str = r#"{"measurements":[{"revision":0,"timestamp":9,"value":{"a":{}}}]}"#;

struct Fixture {
    database: Database,
    service: Service,
    client: Client,
    sensor: Uuid,
}

impl Fixture {
    /// Starts a service; the sensor does not exist yet.
    async fn new(settings: &[(&str, &str)]) -> Self {
        let broker = Broker::shared().await;
        let database = database().await;
        let service = Service::start(&database, broker, settings).await;
        let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
        Self { database, service, client, sensor: Uuid::new_v4() }
    }

    async fn publish(&self, kind: &str, payload: impl Into<Vec<u8>>) {
        let topic = format!("{}/{kind}/{}", self.database.name, self.sensor);
        self.client.publish(&topic, payload).await.unwrap();
    }

    async fn create_sensor(&self) {
        let body = json!({ "name": self.sensor.to_string(), "identifier": self.sensor });
        let (status, answer) = self.service.post("/api/v1/sensors", &body).await.unwrap();
        assert_eq!(status, 201, "{answer}");
    }

    async fn replay(&self, order: Value) -> Value {
        let (status, answer) =
            self.service.post("/api/v1/rejections/replay", &order).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn execute(&self, statement: &str) {
        connect(&self.database.url).await.unwrap().batch_execute(statement).await.unwrap();
    }

    async fn count(&self, query: &str) -> i64 {
        count(&self.database, query).await
    }

    /// Waits until this number of commits wait for a lock.
    async fn wait_for_blocked_commits(&self, commits: i64) {
        let blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
             and application_name = 'tributary-write' and datname = current_database()";
        eventually(TIMEOUT, async || match self.count(blocked).await {
            count if count == commits => Ok(()),
            other => Err(other),
        })
        .await;
    }

    async fn measurements(&self) -> i64 {
        self.count("select count(*) from measurement").await
    }

    async fn rejections(&self) -> i64 {
        self.count("select count(*) from rejection").await
    }
}

/// The counts of a report that are not 0.
fn counts(report: &Value) -> Vec<(&str, u64)> {
    let members = report.as_object().unwrap().iter();
    let mut counts: Vec<_> =
        members.filter_map(|(name, it)| Some((name.as_str(), it.as_u64()?))).collect();
    counts.retain(|(_, number)| *number > 0);
    counts.sort_unstable();
    counts
}

#[actix_rt::test]
async fn messages_of_an_unknown_sensor_are_replayed_after_its_creation() {
    let fixture = Fixture::new(&[]).await;
    fixture.publish("measurements", measurements([1.0, 2.0, 3.0])).await;
    fixture.publish("heartbeats", heartbeat(1, 4.0, true)).await;
    fixture
        .publish(
            "log-messages",
            r#"{"log_messages":[{"severity":"info","revision":0,"timestamp":5,"subject":"s"}]}"#,
        )
        .await;
    eventually(TIMEOUT, async || match fixture.rejections().await {
        3 => Ok(()),
        other => Err(other),
    })
    .await;
    let received = "select receipt_timestamp::text from rejection where kind = 'measurement'";
    let client = connect(&fixture.database.url).await.unwrap();
    let received_at: String = client.query_one(received, &[]).await.unwrap().get(0);

    let too_early = fixture.replay(json!({ "sensor": fixture.sensor })).await;
    assert_eq!(counts(&too_early), [("kept", 3), ("refused_items", 5), ("replayed", 3)]);
    assert_eq!(fixture.rejections().await, 3, "they are kept, without duplicates");

    let configuration =
        json!({ "name": "roof", "identifier": fixture.sensor, "configuration": {"a": 1} });
    let (status, _) = fixture.service.post("/api/v1/sensors", &configuration).await.unwrap();
    assert_eq!(status, 201);
    let report = fixture.replay(json!({ "reason": "unknown_sensor" })).await;
    assert_eq!(counts(&report), [("removed", 3), ("replayed", 3), ("stored_items", 5)]);
    assert_eq!(report["next"], Value::Null);

    assert_eq!((fixture.measurements().await, fixture.rejections().await), (3, 0));
    let stored: String = client
        .query_one("select distinct receipt_timestamp::text from measurement", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(stored, received_at, "the replay keeps the receipt timestamp");
    let acknowledged =
        "select count(*) from configuration where acknowledgement_timestamp is not null";
    assert_eq!(fixture.count(acknowledged).await, 0, "the heartbeat is older");
    // Three items were received, and replayed twice; those that are rejected again count as duplicates.
    let (_, status) = fixture.service.get("/api/v1/status").await.unwrap();
    let entry = &status["ledger"]["measurements"];
    assert_eq!(
        *entry,
        json!({ "received": 9, "committed": 3, "duplicate": 3, "rejected": 3, "in_flight": 0,
            "released": 0, "replayed": 6 })
    );
    assert_eq!(counts(&fixture.replay(json!({ "all": true })).await), []);
}

#[actix_rt::test]
async fn each_item_is_replayed_on_its_own() {
    let fixture = Fixture::new(&[]).await;
    fixture.create_sensor().await;
    // A constraint of an operator rejects one item, and the service another.
    fixture
        .execute(&for_engine_tables("alter table measurement add constraint cool check ((value->>'temperature')::numeric <> 13)"))
        .await;
    let nested = r#"{"revision":0,"timestamp":9,"value":{"a":{}}}"#;
    let payload = measurements([12.0, 13.0, 14.0]).replace("]}", &format!(",{nested}]}}"));
    fixture.publish("measurements", payload).await;
    fixture.service.wait_for_ledger(|entry| entry.received == 4 && entry.in_flight == 0).await;
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (2, 2));

    let as_before = fixture.replay(json!({ "sensor": fixture.sensor })).await;
    assert_eq!(counts(&as_before), [("kept", 2), ("refused_items", 2), ("replayed", 2)]);
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (2, 2));
    let kept = fixture.count("select sum(item_index)::bigint from rejection").await;
    assert_eq!(kept, 1 + 3, "each keeps its index in the original message");

    fixture.execute(&for_engine_tables("alter table measurement drop constraint cool")).await;
    let report = fixture.replay(json!({ "kind": "measurement" })).await;
    assert_eq!(
        counts(&report),
        [("kept", 1), ("refused_items", 1), ("removed", 1), ("replayed", 2), ("stored_items", 1)]
    );
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (3, 1));
    let (_, page) = fixture.service.get("/api/v1/rejections?kind=measurement").await.unwrap();
    assert_eq!(page["items"][0]["raw"], nested, "{page}");
}

#[actix_rt::test]
async fn a_partly_valid_message_leaves_rejections_of_its_invalid_items() {
    let fixture = Fixture::new(&[]).await;
    let invalid = r#"{"revision":0,"timestamp":9,"value":{"a":{}}}"#;
    let payload = measurements([1.0, 2.0]).replace("]}", &format!(",{invalid}]}}"));
    fixture.publish("measurements", payload.clone()).await;
    fixture.publish("measurements", "no JSON").await;
    fixture.service.wait_for_ledger(|entry| entry.received == 4 && entry.in_flight == 0).await;
    assert_eq!(fixture.rejections().await, 2, "both as a whole: the sensor is unknown");

    fixture.create_sensor().await;
    let report = fixture.replay(json!({ "all": true })).await;
    assert_eq!(
        counts(&report),
        [("kept", 1), ("refused_items", 2), ("removed", 1), ("replayed", 2), ("stored_items", 2)]
    );
    let (_, page) = fixture.service.get("/api/v1/rejections").await.unwrap();
    let now: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["reason"].as_str().unwrap(), it["item_index"].as_i64()))
        .collect();
    assert_eq!(now, [("nested_value", Some(2)), ("not_json", None)], "the reasons of the replay");

    // A duplicate changes nothing.
    fixture.publish("measurements", payload).await;
    fixture.service.wait_for_ledger(|entry| entry.received == 11 && entry.in_flight == 0).await;
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (2, 2));
}

#[actix_rt::test]
async fn a_truncated_payload_cannot_be_replayed() {
    let fixture = Fixture::new(&[("MAX_PAYLOAD_BYTES", "1000")]).await;
    fixture.create_sensor().await;
    fixture.publish("measurements", measurements((0..100).map(f64::from))).await;
    fixture.service.wait_for_ledger(|entry| entry.received == 1 && entry.in_flight == 0).await;
    let report = fixture.replay(json!({ "reason": "payload_too_large" })).await;
    assert_eq!(counts(&report), []);
    let problem = &report["not_replayable"][0];
    assert_eq!(problem["detail"], "only the beginning of the payload was stored", "{report}");
    assert_eq!(fixture.rejections().await, 1);
}

#[actix_rt::test]
async fn a_replay_in_pages_excludes_rejections_recorded_during_it() {
    let fixture = Fixture::new(&[]).await;
    for second in 0..25 {
        fixture.publish("measurements", measurement(f64::from(second))).await;
    }
    fixture.service.wait_for_ledger(|entry| entry.received == 25 && entry.in_flight == 0).await;
    let mut order = json!({ "reason": "unknown_sensor", "limit": 10 });
    let mut replayed = Vec::new();
    loop {
        let report = fixture.replay(order.clone()).await;
        replayed.push(report["replayed"].as_u64().unwrap());
        if replayed.len() == 1 {
            // A rejection that is recorded during the replay.
            fixture.publish("measurements", measurement(100.0)).await;
            fixture
                .service
                .wait_for_ledger(|entry| entry.received == 36 && entry.in_flight == 0)
                .await;
            fixture.create_sensor().await;
        }
        let Some(next) = report["next"].as_str() else { break };
        order["cursor"] = next.into();
    }
    assert_eq!(replayed, [10, 10, 5]);
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (15, 11));
    let rest = fixture.replay(json!({ "all": true })).await;
    assert_eq!(counts(&rest), [("removed", 11), ("replayed", 11), ("stored_items", 11)]);
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (26, 0));
}

/// Both read the same rows, and then wait for the same lock.
#[actix_rt::test]
async fn two_concurrent_replays_store_each_item_once() {
    let broker = Broker::shared().await;
    let fixture = Fixture::new(&[]).await;
    for second in 0..20 {
        fixture.publish("measurements", measurement(f64::from(second))).await;
    }
    fixture.service.wait_for_ledger(|entry| entry.received == 20 && entry.in_flight == 0).await;
    fixture.create_sensor().await;
    let client_id = format!("{}-second", fixture.database.name);
    let second =
        Service::start(&fixture.database, broker, &[("MQTT_CLIENT_ID", client_id.as_str())]).await;

    // A writer that is still connecting would also wait for the lock.
    eventually(TIMEOUT, async || {
        let ready = "select count(*) from pg_stat_activity where state = 'idle' \
             and application_name = 'tributary-write' and datname = current_database() \
             and (query = 'commit' or query like 'delete from rejection using %')";
        match fixture.count(ready).await {
            4 => Ok(()),
            other => Err(other),
        }
    })
    .await;

    let mut lock_holder = connect(&fixture.database.url).await.unwrap();
    let lock = lock_holder.transaction().await.unwrap();
    lock.batch_execute(&for_engine_tables("lock table measurement in access exclusive mode"))
        .await
        .unwrap();
    let order = json!({ "all": true });
    let both = async {
        tokio::join!(
            fixture.replay(order.clone()),
            second.post("/api/v1/rejections/replay", &order)
        )
    };
    let release = async {
        // Each has read the page and started its commit.
        fixture.wait_for_blocked_commits(2).await;
        lock.rollback().await.unwrap();
    };
    let ((first, second), ()) = tokio::join!(both, release);
    let (status, second) = second.unwrap();
    assert_eq!(status, 200, "{second}");
    let sum = |name: &str| first[name].as_u64().unwrap() + second[name].as_u64().unwrap();
    assert_eq!((sum("replayed"), sum("removed"), sum("gone")), (40, 20, 20));
    assert_eq!((sum("stored_items"), sum("duplicate_items")), (20, 0));
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (20, 0));
}

/// The first transaction finds one rejection deleted, and fails on the other item.
#[actix_rt::test]
async fn a_deleted_rejection_is_counted_once_if_the_replay_is_retried() {
    let fixture = Fixture::new(&[]).await;
    for second in [12.0, 13.0] {
        fixture.publish("measurements", measurement(second)).await;
    }
    fixture.service.wait_for_ledger(|entry| entry.received == 2 && entry.in_flight == 0).await;
    fixture.create_sensor().await;
    fixture
        .execute(&for_engine_tables("alter table measurement add constraint cool check ((value->>'temperature')::numeric <> 13)"))
        .await;

    let mut deleting_client = connect(&fixture.database.url).await.unwrap();
    let deletion = deleting_client.transaction().await.unwrap();
    let first = "delete from rejection where identifier = (select min(identifier) from rejection)";
    deletion.batch_execute(first).await.unwrap();
    let commit_deletion = async {
        fixture.wait_for_blocked_commits(1).await;
        deletion.commit().await.unwrap();
    };
    let (report, ()) = tokio::join!(fixture.replay(json!({ "all": true })), commit_deletion);
    assert_eq!(
        counts(&report),
        [("gone", 1), ("refused_items", 1), ("removed", 1), ("replayed", 2)]
    );
    fixture.service.wait_for_ledger(|entry| entry.received == 4 && entry.in_flight == 0).await;
}

#[actix_rt::test]
async fn a_kill_during_a_replay_loses_and_duplicates_nothing() {
    let mut fixture = Fixture::new(&[]).await;
    for second in 0..20 {
        fixture.publish("measurements", measurement(f64::from(second))).await;
    }
    fixture.service.wait_for_ledger(|entry| entry.received == 20 && entry.in_flight == 0).await;
    fixture.create_sensor().await;

    let mut lock_holder = connect(&fixture.database.url).await.unwrap();
    let lock = lock_holder.transaction().await.unwrap();
    lock.batch_execute(&for_engine_tables("lock table measurement in access exclusive mode"))
        .await
        .unwrap();
    let order = json!({ "all": true });
    let until_in_transaction = async {
        fixture.service.wait_for_ledger(|entry| entry.in_flight == 20).await;
        // The transaction of the replay has locked the rows.
        eventually(TIMEOUT, async || {
            let free =
                "select count(*) from (select from rejection for update skip locked) as free";
            match fixture.count(free).await {
                0 => Ok(()),
                other => Err(other),
            }
        })
        .await;
    };
    tokio::select! {
        answer = fixture.service.post("/api/v1/rejections/replay", &order) => panic!("{answer:?}"),
        () = until_in_transaction => {}
    }
    fixture.service.kill();
    lock.rollback().await.unwrap();
    eventually(TIMEOUT, async || {
        let sessions = "select count(*) from pg_stat_activity \
            where application_name = 'tributary-write' and datname = current_database()";
        match fixture.count(sessions).await {
            0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let (before, left) = (fixture.measurements().await, fixture.rejections().await);
    assert_eq!(before + left, 20, "each is stored or rejected");

    fixture.service.start_again().await;
    fixture.replay(order).await;
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (20, 0));
}

/// The rejection is committed without a PUBACK; then the sensor is created, and the broker redelivers the message.
#[actix_rt::test]
async fn a_redelivery_that_is_stored_deletes_its_rejection() {
    let broker = Broker::start().await;
    let database = database().await;
    let mut service = Service::start(&database, &broker, &[]).await;
    let known = service.create_sensor("known").await;
    let client = Client::connect(broker.url(), "sensor").await;
    let sensor = Uuid::new_v4();
    let topic = |sensor: &str| format!("{}/measurements/{sensor}", database.name);

    // The duplicate waits for a deletion that is not committed, and all later PUBACKs wait for its PUBACK.
    // The 20,000 items of the unknown sensor form a batch of their own, which is committed.
    client.publish(&topic(&known), measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;
    let mut deleting_client = connect(&database.url).await.unwrap();
    let deletion = deleting_client.transaction().await.unwrap();
    deletion.batch_execute("delete from measurement").await.unwrap();
    client.publish(&topic(&known), measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.in_flight == 1).await;
    client.publish(&topic(&sensor.to_string()), INVALID).await.unwrap();
    for half in [0..10_000, 10_000..19_999] {
        let payload = measurements(half.map(f64::from));
        client.publish(&topic(&sensor.to_string()), payload).await.unwrap();
    }
    eventually(TIMEOUT, async || match count(&database, "select count(*) from rejection").await {
        3 => Ok(()),
        other => Err(other),
    })
    .await;
    service.kill();
    deletion.rollback().await.unwrap();
    let create = format!("insert into sensor (identifier, name) values ('{sensor}', 'late')");
    deleting_client.batch_execute(&create).await.unwrap();

    service.start_again().await;
    service.wait_for_ledger(|entry| entry.received >= 20_001 && entry.in_flight == 0).await;
    assert_eq!(count(&database, "select count(*) from measurement").await, 20_000);
    let client = connect(&database.url).await.unwrap();
    let left = client.query("select reason from rejection", &[]).await.unwrap();
    let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, ["nested_value"], "the invalid item is recorded once, with its new reason");
}

/// Otherwise a redelivery, which is rejected as a whole, would record the item a second time.
#[actix_rt::test]
async fn an_invalid_item_of_a_deleted_sensor_is_rejected_with_its_message() {
    let fixture = Fixture::new(&[]).await;
    fixture.create_sensor().await;
    fixture.publish("measurements", measurement(1.0)).await;
    fixture.service.wait_for_ledger(|entry| entry.committed == 1).await;
    // Directly in the database: the actor does not know it, as in a race between a deletion and a batch.
    let sensor = fixture.sensor;
    fixture
        .execute(&format!(
            "insert into deleted_sensor (identifier) values ('{sensor}');
             delete from sensor where identifier = '{sensor}'"
        ))
        .await;

    fixture.publish("measurements", INVALID).await;
    fixture.service.wait_for_ledger(|entry| entry.received == 2 && entry.in_flight == 0).await;
    let (_, page) = fixture.service.get("/api/v1/rejections").await.unwrap();
    let item = &page["items"][0];
    assert_eq!((&item["reason"], &item["item_index"]), (&json!("unknown_sensor"), &json!(null)));
}

#[actix_rt::test]
async fn rejections_are_filtered_and_deleted_by_their_properties() {
    let fixture = Fixture::new(&[]).await;
    fixture.create_sensor().await;
    fixture.publish("measurements", "no JSON").await;
    fixture.publish("measurements", "{}").await;
    fixture.publish("heartbeats", "{}").await;
    eventually(TIMEOUT, async || match fixture.rejections().await {
        3 => Ok(()),
        other => Err(other),
    })
    .await;
    fixture
        .execute("update rejection set receipt_timestamp = '2020-01-01T00:00:00Z' where reason = 'not_json'")
        .await;
    let found = async |query: &str| {
        let (status, page) =
            fixture.service.get(&format!("/api/v1/rejections?{query}")).await.unwrap();
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().len()
    };
    assert_eq!(found("kind=measurement").await, 2);
    assert_eq!(found("kind=measurement&reason=invalid_shape").await, 1);
    assert_eq!(found("until=2020-01-01T00:00:01Z").await, 1);
    assert_eq!(found("until=2020-01-01T00:00:00Z").await, 0);
    assert_eq!(found("since=2020-01-01T00:00:00%2B00:00").await, 3);
    assert_eq!(found(&format!("since=2021-01-01T00:00:00Z&sensor={}", fixture.sensor)).await, 2);

    let delete = async |query: &str| {
        fixture
            .service
            .request("DELETE", &format!("/api/v1/rejections{query}"), None)
            .await
            .unwrap()
    };
    let (status, problem) = delete("").await;
    assert_eq!((status, &problem["parameter"]), (400, &json!("all")), "{problem}");
    assert_eq!(delete("?reason=not_json").await, (200, json!({ "deleted": 1, "more": false })));
    assert_eq!(delete("?all=true&limit=1").await, (200, json!({ "deleted": 1, "more": true })));
    assert_eq!(delete("?all=true").await, (200, json!({ "deleted": 1, "more": false })));
    assert_eq!(fixture.rejections().await, 0);
}

#[actix_rt::test]
async fn an_invalid_replay_order_is_rejected_with_the_pointer_to_its_member() {
    let fixture = Fixture::new(&[]).await;
    for (order, pointer) in [
        (json!({}), "/all"),
        (json!({ "all": false }), "/all"),
        (json!({ "limit": 5 }), "/all"),
        (json!({ "all": true, "limit": 0 }), "/limit"),
        (json!({ "all": true, "limit": 1001 }), "/limit"),
        (json!({ "identifiers": [] }), "/identifiers"),
        (json!({ "identifiers": ["1"] }), "/identifiers"),
        (json!({ "sensor": "roof" }), "/sensor"),
        (json!({ "reason": "bad" }), "/reason"),
        (json!({ "kind": "measurements" }), "/kind"),
        (json!({ "since": "yesterday" }), "/since"),
        (json!({ "all": true, "cursor": "x" }), "/cursor"),
        (json!({ "all": true, "more": 1 }), "/more"),
    ] {
        let (status, problem) =
            fixture.service.post("/api/v1/rejections/replay", &order).await.unwrap();
        assert_eq!((status, &problem["pointer"]), (422, &json!(pointer)), "{order}: {problem}");
    }
    let nothing = fixture.replay(json!({ "identifiers": [1, 2, 3] })).await;
    assert_eq!(counts(&nothing), []);
}
