//! Configurations are published and acknowledged, also across restarts of the service and the broker.

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::postgres::{Database, connect};
use crate::support::service::{LedgerEntry, Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

async fn configure(service: &Service, sensor: &str, configuration: Value) -> i64 {
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    let (status, answer) = service.post(&path, &configuration).await.unwrap();
    assert_eq!(status, 202, "{answer}");
    answer["revision"].as_i64().unwrap()
}

async fn newest(service: &Service, sensor: &str) -> Value {
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    service.get(&path).await.unwrap().1["items"][0].clone()
}

fn topic(database: &Database, kind: &str, sensor: &str) -> String {
    format!("{}/{kind}/{sensor}", database.name)
}

#[actix_rt::test]
async fn a_configuration_is_published_and_acknowledged_across_a_restart() {
    let broker = Broker::shared().await;
    let database = database().await;
    let mut service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("configured").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    client.subscribe(&topic(&database, "configurations", &sensor)).await;

    assert_eq!(
        configure(&service, &sensor, json!({ "serial": 9_007_199_254_740_993_u64 })).await,
        1
    );
    let messages = client.wait_for_messages(1).await;
    let sent: Value = serde_json::from_str(&messages[0].payload).unwrap();
    let serial = json!({ "serial": 9_007_199_254_740_993_u64 });
    assert_eq!(sent, json!({ "revision": 1, "configuration": serial }), "no conversion to f64");
    eventually(TIMEOUT, async || {
        let newest = newest(&service, &sensor).await;
        if newest["publication_timestamp"].is_string() { Ok(()) } else { Err(newest) }
    })
    .await;

    // The service restarts between the configuration and its acknowledgement.
    assert!(service.terminate().await.success());
    let heartbeats = topic(&database, "heartbeats", &sensor);
    client.publish(&heartbeats, heartbeat(1, 1_700_000_000.25, false)).await.unwrap();
    client.publish(&heartbeats, heartbeat(1, 1_700_000_001.0, true)).await.unwrap();
    service.start_again().await;
    let acknowledged = eventually(TIMEOUT, async || {
        let newest = newest(&service, &sensor).await;
        if newest["success"].is_boolean() { Ok(newest) } else { Err(newest) }
    })
    .await;
    assert_eq!(
        acknowledged["success"], false,
        "later heartbeats do not change the acknowledgement"
    );
    assert_eq!(acknowledged["acknowledgement_timestamp"], "2023-11-14T22:13:20.25Z");

    // A new subscriber receives it as a retained message.
    let subscriber = Client::connect(broker.url(), &format!("{}-newcomer", database.name)).await;
    subscriber.subscribe(&topic(&database, "configurations", &sensor)).await;
    assert!(subscriber.wait_for_messages(1).await[0].retain);
}

#[actix_rt::test]
async fn after_an_outage_and_a_restart_only_the_newest_configuration_is_published() {
    let mut broker = Broker::start().await;
    let database = database().await;
    let mut service = Service::start(&database, &broker, &[]).await;
    let sensor = service.create_sensor("late").await;
    broker.stop().await;
    for interval in 0..3 {
        configure(&service, &sensor, json!({ "interval": interval })).await;
    }
    service.kill();
    broker.start_again().await;
    service.start_again().await;

    let client = Client::connect(broker.url(), "sensor").await;
    client.subscribe(&topic(&database, "configurations", &sensor)).await;
    let messages = client.wait_for_messages(1).await;
    let newest: Value = serde_json::from_str(&messages.last().unwrap().payload).unwrap();
    assert_eq!(newest["revision"], 3, "only the newest is published");
    let published = "select count(*) from configuration where publication_timestamp is not null";
    eventually(TIMEOUT, async || match count(&database, published).await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
}

#[actix_rt::test]
async fn concurrent_configurations_of_one_sensor_get_consecutive_revisions() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("busy").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    client.subscribe(&topic(&database, "configurations", &sensor)).await;
    let all = (0..20).map(|number| configure(&service, &sensor, json!({ "number": number })));
    let mut revisions = futures_util::future::join_all(all).await;
    revisions.sort_unstable();
    assert!(revisions.into_iter().eq(1..=20));
    // The newest is published last.
    eventually(TIMEOUT, async || {
        let last = client.messages().last().map(|it| it.payload.clone()).unwrap_or_default();
        let sent: Value = serde_json::from_str(&last).unwrap_or_default();
        if sent["revision"] == 20 { Ok(()) } else { Err(last) }
    })
    .await;
}

#[actix_rt::test]
async fn a_configuration_is_republished_to_a_sensor_with_an_older_revision() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[("CONFIGURATION_REPUBLISH_SECS", "1")]).await;
    let sensor = service.create_sensor("forgetful").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    client.subscribe(&topic(&database, "configurations", &sensor)).await;
    configure(&service, &sensor, json!({})).await;
    configure(&service, &sensor, json!({ "again": true })).await;
    eventually(TIMEOUT, async || {
        let newest = newest(&service, &sensor).await;
        if newest["publication_timestamp"].is_string() { Ok(()) } else { Err(newest) }
    })
    .await;
    let before = client.messages().len();

    let measurements = topic(&database, "measurements", &sensor);
    let mut second = 0.0;
    eventually(TIMEOUT, async || {
        second += 1.0;
        client.publish(&measurements, measurement(second)).await.unwrap();
        let after = client.messages();
        if after.len() > before { Ok(()) } else { Err(after) }
    })
    .await;
}

#[actix_rt::test]
async fn the_retained_configuration_of_a_deleted_sensor_is_cleared() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("cleared").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    client.subscribe(&topic(&database, "configurations", &sensor)).await;
    configure(&service, &sensor, json!({})).await;
    client.wait_for_messages(1).await;
    let path = format!("/api/v1/sensors/{sensor}");
    assert_eq!(service.request("DELETE", &path, None).await.unwrap().0, 204);
    let messages = client.wait_for_messages(2).await;
    assert_eq!(messages[1].payload, "", "an empty retained message clears the topic");
}

/// Publishes measurements until one more message arrives on the topic of the configuration.
async fn publish_until_republished(client: &Client, measurements: &str, configuration: &str) {
    let received = || client.messages().iter().filter(|it| it.topic == configuration).count();
    let before = received();
    let mut second = 0.0;
    eventually(TIMEOUT, async || {
        second += 1.0;
        client.publish(measurements, measurement(second)).await?;
        if received() > before { Ok(()) } else { Err(format!("{before} messages")) }
    })
    .await;
}

async fn wait_for_state(service: &Service, sensor: &str, state: &str) -> Value {
    eventually(TIMEOUT, async || {
        let newest = newest(service, sensor).await;
        if newest["state"] == state { Ok(newest) } else { Err(newest) }
    })
    .await
}

#[actix_rt::test]
async fn a_failed_configuration_is_not_republished() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[("CONFIGURATION_REPUBLISH_SECS", "1")]).await;
    let (failing, other) = (service.create_sensor("a").await, service.create_sensor("b").await);
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let of = |kind: &str, sensor: &str| topic(&database, kind, sensor);
    for sensor in [&failing, &other] {
        client.subscribe(&of("configurations", sensor)).await;
        configure(&service, sensor, json!({})).await;
        wait_for_state(&service, sensor, "published").await;
    }
    client.publish(&of("heartbeats", &failing), heartbeat(1, 1.0, false)).await.unwrap();
    wait_for_state(&service, &failing, "failed").await;
    // The sensor still uses an earlier configuration; each of its messages could trigger a republication.
    client.publish(&of("heartbeats", &failing), heartbeat(0, 2.0, true)).await.unwrap();

    // The other sensor acknowledges nothing; its configuration is republished three times.
    let first = newest(&service, &other).await["publication_timestamp"].clone();
    for _ in 0..3 {
        client.publish(&of("measurements", &failing), measurement(1.0)).await.unwrap();
        let topics = (of("measurements", &other), of("configurations", &other));
        publish_until_republished(&client, &topics.0, &topics.1).await;
    }
    let received = client.messages();
    let of_failing = received.iter().filter(|it| it.topic == of("configurations", &failing));
    assert_eq!(of_failing.count(), 1);
    // Republication keeps the publication timestamp; otherwise the state could never become `stale`.
    assert_eq!(newest(&service, &other).await["publication_timestamp"], first);
}

#[actix_rt::test]
async fn a_first_configuration_that_the_broker_lost_is_republished() {
    let mut broker = Broker::start().await;
    let database = database().await;
    let service =
        Service::start(&database, &broker, &[("CONFIGURATION_REPUBLISH_SECS", "1")]).await;
    let sensor = service.create_sensor("first").await;
    broker.save().await;
    configure(&service, &sensor, json!({})).await;
    wait_for_state(&service, &sensor, "published").await;
    broker.kill().await;
    broker.start_again().await;

    let client = Client::connect(broker.url(), "sensor").await;
    let configuration = topic(&database, "configurations", &sensor);
    client.subscribe(&configuration).await;
    // The sensor reports revision 1 by chance: it never received the configuration.
    let measurement = r#"{"measurements":[{"revision":1,"timestamp":1,"value":{}}]}"#;
    eventually(TIMEOUT, async || {
        client.publish(&topic(&database, "measurements", &sensor), measurement).await?;
        match client.messages().first() {
            Some(message) if message.topic == configuration => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_heartbeat_received_before_a_configuration_does_not_acknowledge_it() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("early").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let heartbeats = topic(&database, "heartbeats", &sensor);

    // Received before the configuration exists, and committed after it was published.
    let mut locker = connect(&database.url).await.unwrap();
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute("lock table heartbeat in access exclusive mode").await.unwrap();
    client.publish(&heartbeats, heartbeat(1, 1.0, true)).await.unwrap();
    let in_flight = |entry: LedgerEntry| entry.in_flight == 1;
    service.wait_for_ledger_of("heartbeats", in_flight).await;
    configure(&service, &sensor, json!({})).await;
    wait_for_state(&service, &sensor, "published").await;
    lock.rollback().await.unwrap();
    service.wait_for_ledger_of("heartbeats", |entry| entry.committed == 1).await;
    assert_eq!(newest(&service, &sensor).await["state"], "published");

    client.publish(&heartbeats, heartbeat(1, 2.0, true)).await.unwrap();
    wait_for_state(&service, &sensor, "acknowledged").await;
}
