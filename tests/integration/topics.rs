//! Near misses are recorded with the expected topic, and retained messages that a new session receives do not count as
//! activity.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::postgres::{Database, connect};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

const ROWS: &str = "select count(*) from measurement";
const REJECTIONS: &str = "select count(*) from rejection";

async fn client(database: &Database) -> Client {
    Client::connect(Broker::shared().await.url(), &format!("{}-sensor", database.name)).await
}

async fn wait_for_count(database: &Database, query: &str, expected: i64) {
    eventually(TIMEOUT, async || match count(database, query).await {
        found if found == expected => Ok(()),
        found => Err(format!("{query}: {found}")),
    })
    .await;
}

async fn execute(database: &Database, statement: &str) {
    connect(&database.url).await.unwrap().batch_execute(statement).await.unwrap();
}

async fn last_seen(service: &Service, sensor: &str) -> Value {
    let path = format!("/api/v1/sensors/{sensor}");
    service.get(&path).await.unwrap().1["last_seen_timestamp"].clone()
}

#[actix_rt::test]
async fn a_near_miss_is_recorded_with_the_expected_topic() {
    let database = database().await;
    let broker = Broker::shared().await;
    let settings = [("REJECTIONS_PER_SENSOR_HOUR", "4")];
    let service = Service::start(&database, broker, &settings).await;
    let sensor = service.create_sensor("roof").await;
    let client = client(&database).await;
    let prefix = &database.name;
    let expected = format!("expected {prefix}/measurements/{sensor}");
    let upper = sensor.to_uppercase();
    for topic in
        [format!("{sensor}/"), format!("{sensor}/roof"), upper.clone(), sensor.replace('-', "")]
    {
        client.publish(&format!("{prefix}/measurements/{topic}"), measurement(1.0)).await.unwrap();
    }
    client.publish(&format!("{prefix}/heartbeats"), "{}").await.unwrap();
    client.publish(&format!("{prefix}/heartbeats/"), "{}").await.unwrap();
    wait_for_count(&database, REJECTIONS, 6).await;

    let path = format!("/api/v1/rejections?sensor={sensor}");
    let (_, page) = service.get(&path).await.unwrap();
    let all = page["items"].as_array().unwrap();
    assert_eq!(all.len(), 4, "{page}");
    for it in all {
        assert_eq!(
            (&it["reason"], &it["kind"]),
            (&json!("invalid_identifier"), &json!("measurement"))
        );
        assert!(it["detail"].as_str().unwrap().ends_with(&expected), "{it}");
    }
    let (_, page) = service.get("/api/v1/rejections?kind=heartbeat").await.unwrap();
    let sentence =
        format!("the topic names no sensor; expected {prefix}/heartbeats/<sensor-identifier>");
    assert_eq!(page["items"][0]["detail"], sentence, "{page}");
    assert_eq!(count(&database, ROWS).await, 0);

    // The sensor has reached REJECTIONS_PER_SENSOR_HOUR.
    for second in 2..5 {
        let topic = format!("{prefix}/measurements/{sensor}/roof");
        client.publish(&topic, measurement(f64::from(second))).await.unwrap();
    }
    let entry = service.wait_for_ledger(|it| it.received == 7 && it.in_flight == 0).await;
    assert_eq!(entry.rejected, 7);
    assert_eq!(count(&database, REJECTIONS).await, 6);
    let over = "select sum(item_count)::bigint from rejection_overflow";
    assert_eq!(count(&database, over).await, 3);
}

#[actix_rt::test]
async fn clearing_a_retained_message_is_not_a_rejection() {
    let database = database().await;
    let service = Service::start(&database, Broker::shared().await, &[]).await;
    let sensor = service.create_sensor("roof").await;
    let client = client(&database).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish_retained(&topic, measurement(1.0)).await.unwrap();
    client.publish_retained(&topic, "").await.unwrap();
    client.publish_retained(&format!("{topic}/roof"), "").await.unwrap();
    client.publish(&topic, measurement(2.0)).await.unwrap();
    let entry = service.wait_for_ledger(|it| it.committed == 2 && it.in_flight == 0).await;
    assert_eq!((entry.received, entry.rejected), (2, 0));
    assert_eq!(count(&database, REJECTIONS).await, 0);
    // The service still sends their PUBACKs.
    eventually(TIMEOUT, async || {
        let (_, ingest) = service.get("/api/v1/ingest").await.unwrap();
        if ingest["window"]["messages"] == 0 { Ok(()) } else { Err(ingest) }
    })
    .await;
}

#[actix_rt::test]
async fn a_retained_message_in_a_new_session_does_not_count_as_activity() {
    let database = database().await;
    let broker = Broker::shared().await;
    let mut service = Service::start(&database, broker, &[("UNKNOWN_SENSOR", "register")]).await;
    let [sensor, deleted, just_deleted] = [(); 3].map(|()| Uuid::new_v4().to_string());
    let client = client(&database).await;
    for sensor in [&sensor, &deleted, &just_deleted] {
        let topic = format!("{}/measurements/{sensor}", database.name);
        client.publish_retained(&topic, measurement(1.0)).await.unwrap();
    }
    wait_for_count(&database, ROWS, 3).await;
    let before = last_seen(&service, &sensor).await;
    assert!(before.is_string(), "not retained for a session that exists");
    let path = |sensor: &str| format!("/api/v1/sensors/{sensor}");
    for sensor in [&deleted, &just_deleted] {
        assert_eq!(service.request("DELETE", &path(sensor), None).await.unwrap().0, 204);
    }
    // The housekeeping does this after a day.
    let delete_tombstone = format!("delete from deleted_sensor where identifier = '{deleted}'");
    execute(&database, &delete_tombstone).await;
    assert!(service.terminate().await.success());

    let client_id = format!("{}-new", database.name);
    let settings = [("UNKNOWN_SENSOR", "register"), ("MQTT_CLIENT_ID", client_id.as_str())];
    let mut service = Service::start(&database, broker, &settings).await;
    let entry = service.wait_for_ledger(|it| it.received == 3 && it.in_flight == 0).await;
    assert_eq!((entry.duplicate, entry.rejected), (1, 2));
    // The service stores last_seen when it stops, if not before.
    assert!(service.terminate().await.success());
    service.start_again().await;
    assert_eq!(last_seen(&service, &sensor).await, before);
    for sensor in [&deleted, &just_deleted] {
        assert_eq!(service.get(&path(sensor)).await.unwrap().0, 404);
    }

    // Its next message without the retain flag creates the sensor.
    let topic = format!("{}/measurements/{deleted}", database.name);
    client.publish(&topic, measurement(2.0)).await.unwrap();
    service.wait_for_ledger(|it| it.committed == 1).await;
    assert_eq!(service.get(&path(&deleted)).await.unwrap().0, 200);
}

#[actix_rt::test]
async fn a_retained_heartbeat_in_a_new_session_acknowledges_nothing() {
    let database = database().await;
    let broker = Broker::shared().await;
    let mut service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("roof").await;
    let client = client(&database).await;
    let topic = format!("{}/heartbeats/{sensor}", database.name);
    // Older than this revision, such as from another server, or before the sensor was deleted and created again.
    client.publish_retained(&topic, heartbeat(1, 1.0, false)).await.unwrap();
    let is_settled =
        |it: crate::support::service::LedgerEntry| it.received == 1 && it.in_flight == 0;
    service.wait_for_ledger_of("heartbeats", is_settled).await;
    let before = last_seen(&service, &sensor).await;
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    assert_eq!(service.post(&path, &json!({})).await.unwrap().1["revision"], 1);
    let state = async |service: &Service| -> Value {
        service.get(&path).await.unwrap().1["items"][0]["state"].clone()
    };
    eventually(TIMEOUT, async || match state(&service).await {
        published if published == "published" => Ok(()),
        other => Err(other),
    })
    .await;
    assert!(service.terminate().await.success());

    let client_id = format!("{}-new", database.name);
    let mut service = Service::start(&database, broker, &[("MQTT_CLIENT_ID", &client_id)]).await;
    let entry = service.wait_for_ledger_of("heartbeats", is_settled).await;
    assert_eq!(entry.duplicate, 1);
    assert_eq!(state(&service).await, "published");
    assert!(service.terminate().await.success());
    service.start_again().await;
    assert_eq!(last_seen(&service, &sensor).await, before);
    client.publish(&topic, heartbeat(1, 2.0, true)).await.unwrap();
    eventually(TIMEOUT, async || match state(&service).await {
        acknowledged if acknowledged == "acknowledged" => Ok(()),
        other => Err(other),
    })
    .await;
}

#[actix_rt::test]
async fn last_seen_survives_an_orderly_restart() {
    let database = database().await;
    let mut service = Service::start(&database, Broker::shared().await, &[]).await;
    let sensor = service.create_sensor("roof").await;
    let client = client(&database).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|it| it.committed == 1).await;
    let before = last_seen(&service, &sensor).await;
    assert!(service.terminate().await.success());
    service.start_again().await;
    assert_eq!(last_seen(&service, &sensor).await, before);
    assert!(before.is_string());
}

#[actix_rt::test]
async fn a_session_with_the_subscriptions_of_an_earlier_release_receives_each_message_once() {
    let database = database().await;
    let broker = Broker::shared().await;
    let earlier = Client::resume(broker.url(), &database.name).await;
    earlier.subscribe(&format!("{}/measurements/+", database.name)).await;
    earlier.disconnect().await;
    let client = client(&database).await;
    let sensor = Uuid::new_v4();
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurement(1.0)).await.unwrap();

    let service = Service::start(&database, broker, &[("UNKNOWN_SENSOR", "register")]).await;
    service.wait_for_ledger(|it| it.committed == 1).await;
    // The UNSUBSCRIBE may still be in flight.
    let mut sent = 1.0;
    eventually(TIMEOUT, async || {
        let before = service.ledger_entry("measurements").await?;
        sent += 1.0;
        client.publish(&topic, measurement(sent)).await.map_err(|end| end.clone())?;
        let after = service
            .wait_for_ledger(|it| it.committed == before.committed + 1 && it.in_flight == 0)
            .await;
        if after.received == before.received + 1 { Ok(()) } else { Err(format!("{after:?}")) }
    })
    .await;
    assert_eq!(count(&database, REJECTIONS).await, 0);
}
