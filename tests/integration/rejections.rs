//! What was rejected comes again: stored once, and gone from the table in the same transaction;
//! whatever else happens at the same time.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement, measurements};
use crate::support::postgres::{Database, connect, on_table};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// A message of one item, which is rejected.
const BAD: &str = r#"{"measurements":[{"revision":0,"timestamp":9,"value":{"a":{}}}]}"#;

struct Fixture {
    database: Database,
    service: Service,
    client: Client,
    sensor: Uuid,
}

impl Fixture {
    /// A service that does not know the sensor.
    async fn new(settings: &[(&str, &str)]) -> Self {
        let broker = Broker::shared().await;
        let database = database().await;
        let service = Service::start(&database, broker, settings).await;
        let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
        Self { database, service, client, sensor: Uuid::new_v4() }
    }

    async fn say(&self, kind: &str, payload: impl Into<Vec<u8>>) {
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

    /// Waits until so many commits wait for a lock.
    async fn until_wait(&self, writers: i64) {
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
             and application_name = 'tributary-write' and datname = current_database()";
        eventually(TIMEOUT, async || match self.count(waiting).await {
            count if count == writers => Ok(()),
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

/// The numbers of a report that are not 0.
fn counts(report: &Value) -> Vec<(&str, u64)> {
    let members = report.as_object().unwrap().iter();
    let mut counts: Vec<_> =
        members.filter_map(|(name, it)| Some((name.as_str(), it.as_u64()?))).collect();
    counts.retain(|(_, number)| *number > 0);
    counts.sort_unstable();
    counts
}

#[actix_rt::test]
async fn what_an_unknown_sensor_said_is_stored_once_it_is_created() {
    let fixture = Fixture::new(&[]).await;
    fixture.say("measurements", measurements([1.0, 2.0, 3.0])).await;
    fixture.say("heartbeats", heartbeat(1, 4.0, true)).await;
    fixture
        .say(
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
    assert_eq!(fixture.rejections().await, 3, "refused again, they stay, once");

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
    assert_eq!(stored, received_at, "it is still the time when it came");
    let acknowledged =
        "select count(*) from configuration where acknowledgement_timestamp is not null";
    assert_eq!(fixture.count(acknowledged).await, 0, "the heartbeat came before the configuration");
    // The account: three items received, twice replayed; refused again they are duplicates.
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
async fn an_item_is_replayed_alone() {
    let fixture = Fixture::new(&[]).await;
    fixture.create_sensor().await;
    // An operator's rule refuses one item, the service refuses another.
    fixture
        .execute(&on_table("alter table measurement add constraint cool check ((value->>'temperature')::numeric <> 13)"))
        .await;
    let nested = r#"{"revision":0,"timestamp":9,"value":{"a":{}}}"#;
    let said = measurements([12.0, 13.0, 14.0]).replace("]}", &format!(",{nested}]}}"));
    fixture.say("measurements", said).await;
    fixture.service.wait_for_ledger(|entry| entry.received == 4 && entry.in_flight == 0).await;
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (2, 2));

    let as_before = fixture.replay(json!({ "sensor": fixture.sensor })).await;
    assert_eq!(counts(&as_before), [("kept", 2), ("refused_items", 2), ("replayed", 2)]);
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (2, 2));
    let kept = fixture.count("select sum(item_index)::bigint from rejection").await;
    assert_eq!(kept, 1 + 3, "each still names its place in the message that it came in");

    fixture.execute(&on_table("alter table measurement drop constraint cool")).await;
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
async fn a_message_that_is_good_in_part_leaves_its_bad_items() {
    let fixture = Fixture::new(&[]).await;
    let bad = r#"{"revision":0,"timestamp":9,"value":{"a":{}}}"#;
    let said = measurements([1.0, 2.0]).replace("]}", &format!(",{bad}]}}"));
    fixture.say("measurements", said.clone()).await;
    fixture.say("measurements", "no JSON").await;
    fixture.service.wait_for_ledger(|entry| entry.received == 4 && entry.in_flight == 0).await;
    assert_eq!(fixture.rejections().await, 2, "both whole: nobody knows the sensor");

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
    assert_eq!(now, [("nested_value", Some(2)), ("not_json", None)], "with the reason of today");

    // The sensor repeats itself: nothing changes.
    fixture.say("measurements", said).await;
    fixture.service.wait_for_ledger(|entry| entry.received == 11 && entry.in_flight == 0).await;
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (2, 2));
}

#[actix_rt::test]
async fn what_was_not_kept_whole_cannot_be_replayed() {
    let fixture = Fixture::new(&[("MAX_PAYLOAD_BYTES", "1000")]).await;
    fixture.create_sensor().await;
    fixture.say("measurements", measurements((0..100).map(f64::from))).await;
    fixture.service.wait_for_ledger(|entry| entry.received == 1 && entry.in_flight == 0).await;
    let report = fixture.replay(json!({ "reason": "payload_too_large" })).await;
    assert_eq!(counts(&report), []);
    let flaw = &report["not_replayable"][0];
    assert_eq!(flaw["detail"], "only the beginning of the payload was stored", "{report}");
    assert_eq!(fixture.rejections().await, 1);
}

#[actix_rt::test]
async fn pages_bound_a_replay_and_end_where_it_began() {
    let fixture = Fixture::new(&[]).await;
    for second in 0..25 {
        fixture.say("measurements", measurement(f64::from(second))).await;
    }
    fixture.service.wait_for_ledger(|entry| entry.received == 25 && entry.in_flight == 0).await;
    let mut order = json!({ "reason": "unknown_sensor", "limit": 10 });
    let mut replayed = Vec::new();
    loop {
        let report = fixture.replay(order.clone()).await;
        replayed.push(report["replayed"].as_u64().unwrap());
        if replayed.len() == 1 {
            // What comes during a replay is none of its.
            fixture.say("measurements", measurement(100.0)).await;
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

/// Both read the same rows, then wait behind a lock: the rows go once.
#[actix_rt::test]
async fn two_replays_at_once_store_each_item_once() {
    let broker = Broker::shared().await;
    let fixture = Fixture::new(&[]).await;
    for second in 0..20 {
        fixture.say("measurements", measurement(f64::from(second))).await;
    }
    fixture.service.wait_for_ledger(|entry| entry.received == 20 && entry.in_flight == 0).await;
    fixture.create_sensor().await;
    let client_id = format!("{}-second", fixture.database.name);
    let second =
        Service::start(&fixture.database, broker, &[("MQTT_CLIENT_ID", client_id.as_str())]).await;

    // A writer that is still connecting would wait for the lock, too.
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

    let mut locker = connect(&fixture.database.url).await.unwrap();
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute(&on_table("lock table measurement in access exclusive mode")).await.unwrap();
    let order = json!({ "all": true });
    let both = async {
        tokio::join!(
            fixture.replay(order.clone()),
            second.post("/api/v1/rejections/replay", &order)
        )
    };
    let release = async {
        // Each has read the page and begun its commit.
        fixture.until_wait(2).await;
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

/// The transaction that finds the row gone fails by its neighbour; the next one finds it gone, too.
#[actix_rt::test]
async fn what_is_gone_is_counted_by_the_attempt_that_succeeds() {
    let fixture = Fixture::new(&[]).await;
    for second in [12.0, 13.0] {
        fixture.say("measurements", measurement(second)).await;
    }
    fixture.service.wait_for_ledger(|entry| entry.received == 2 && entry.in_flight == 0).await;
    fixture.create_sensor().await;
    fixture
        .execute(&on_table("alter table measurement add constraint cool check ((value->>'temperature')::numeric <> 13)"))
        .await;

    let mut deleter = connect(&fixture.database.url).await.unwrap();
    let deletion = deleter.transaction().await.unwrap();
    let first = "delete from rejection where identifier = (select min(identifier) from rejection)";
    deletion.batch_execute(first).await.unwrap();
    let deleted = async {
        fixture.until_wait(1).await;
        deletion.commit().await.unwrap();
    };
    let (report, ()) = tokio::join!(fixture.replay(json!({ "all": true })), deleted);
    assert_eq!(
        counts(&report),
        [("gone", 1), ("refused_items", 1), ("removed", 1), ("replayed", 2)]
    );
    fixture.service.wait_for_ledger(|entry| entry.received == 4 && entry.in_flight == 0).await;
}

#[actix_rt::test]
async fn a_kill_in_a_replay_loses_nothing_and_doubles_nothing() {
    let mut fixture = Fixture::new(&[]).await;
    for second in 0..20 {
        fixture.say("measurements", measurement(f64::from(second))).await;
    }
    fixture.service.wait_for_ledger(|entry| entry.received == 20 && entry.in_flight == 0).await;
    fixture.create_sensor().await;

    let mut locker = connect(&fixture.database.url).await.unwrap();
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute(&on_table("lock table measurement in access exclusive mode")).await.unwrap();
    let order = json!({ "all": true });
    let killed = async {
        fixture.service.wait_for_ledger(|entry| entry.in_flight == 20).await;
        // The rows are locked: its transaction is under way.
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
        () = killed => {}
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
    assert_eq!(before + left, 20, "each is in one of the two");

    fixture.service.start_again().await;
    fixture.replay(order).await;
    assert_eq!((fixture.measurements().await, fixture.rejections().await), (20, 0));
}

/// The COMMIT is there, its PUBACK is not; then the sensor is created, and the broker delivers again.
#[actix_rt::test]
async fn a_redelivery_that_is_stored_takes_its_rejection_away() {
    let broker = Broker::start().await;
    let database = database().await;
    let mut service = Service::start(&database, &broker, &[]).await;
    let known = service.create_sensor("known").await;
    let client = Client::connect(broker.url(), "sensor").await;
    let sensor = Uuid::new_v4();
    let topic = |sensor: &str| format!("{}/measurements/{sensor}", database.name);

    // What the sensor repeats waits for a deletion that is not committed, and with it every PUBACK;
    // so many items of an unknown sensor are a batch of their own, which commits.
    client.publish(&topic(&known), measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;
    let mut deleter = connect(&database.url).await.unwrap();
    let deletion = deleter.transaction().await.unwrap();
    deletion.batch_execute("delete from measurement").await.unwrap();
    client.publish(&topic(&known), measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.in_flight == 1).await;
    client.publish(&topic(&sensor.to_string()), BAD).await.unwrap();
    for half in [0..10_000, 10_000..19_999] {
        let said = measurements(half.map(f64::from));
        client.publish(&topic(&sensor.to_string()), said).await.unwrap();
    }
    eventually(TIMEOUT, async || match count(&database, "select count(*) from rejection").await {
        3 => Ok(()),
        other => Err(other),
    })
    .await;
    service.kill();
    deletion.rollback().await.unwrap();
    let create = format!("insert into sensor (identifier, name) values ('{sensor}', 'late')");
    deleter.batch_execute(&create).await.unwrap();

    service.start_again().await;
    service.wait_for_ledger(|entry| entry.received >= 20_001 && entry.in_flight == 0).await;
    assert_eq!(count(&database, "select count(*) from measurement").await, 20_000);
    let client = connect(&database.url).await.unwrap();
    let left = client.query("select reason from rejection", &[]).await.unwrap();
    let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, ["nested_value"], "the bad item is recorded once, with the reason of today");
}

/// A redelivery would be rejected as a whole, and the item be recorded twice.
#[actix_rt::test]
async fn a_bad_item_of_a_deleted_sensor_is_rejected_with_its_message() {
    let fixture = Fixture::new(&[]).await;
    fixture.create_sensor().await;
    fixture.say("measurements", measurement(1.0)).await;
    fixture.service.wait_for_ledger(|entry| entry.committed == 1).await;
    // Its actor does not know of it, as while a deletion and a batch run at the same time.
    let sensor = fixture.sensor;
    fixture
        .execute(&format!(
            "insert into deleted_sensor (identifier) values ('{sensor}');
             delete from sensor where identifier = '{sensor}'"
        ))
        .await;

    fixture.say("measurements", BAD).await;
    fixture.service.wait_for_ledger(|entry| entry.received == 2 && entry.in_flight == 0).await;
    let (_, page) = fixture.service.get("/api/v1/rejections").await.unwrap();
    let item = &page["items"][0];
    assert_eq!((&item["reason"], &item["item_index"]), (&json!("unknown_sensor"), &json!(null)));
}

#[actix_rt::test]
async fn rejections_are_found_and_deleted_by_what_they_are() {
    let fixture = Fixture::new(&[]).await;
    fixture.create_sensor().await;
    fixture.say("measurements", "no JSON").await;
    fixture.say("measurements", "{}").await;
    fixture.say("heartbeats", "{}").await;
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
async fn an_order_that_cannot_be_meant_is_refused() {
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
