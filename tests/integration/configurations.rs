//! Configurations go down and are acknowledged, whatever restarts in between.

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
async fn a_configuration_goes_down_and_is_acknowledged() {
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
    assert_eq!(sent, json!({ "revision": 1, "configuration": serial }), "no trip through f64");
    eventually(TIMEOUT, async || {
        let newest = newest(&service, &sensor).await;
        if newest["publication_timestamp"].is_string() { Ok(()) } else { Err(newest) }
    })
    .await;

    // The service goes and comes between the configuration and its acknowledgement.
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
    assert_eq!(acknowledged["success"], false, "the first acknowledgement wins");
    assert_eq!(acknowledged["acknowledgement_timestamp"], "2023-11-14T22:13:20.25Z");

    // A newcomer finds it retained.
    let newcomer = Client::connect(broker.url(), &format!("{}-newcomer", database.name)).await;
    newcomer.subscribe(&topic(&database, "configurations", &sensor)).await;
    assert!(newcomer.wait_for_messages(1).await[0].retain);
}

#[actix_rt::test]
async fn what_could_not_be_published_is_published_after_a_restart() {
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
    assert_eq!(newest["revision"], 3, "the newest, and only that");
    let published = "select count(*) from configuration where publication_timestamp is not null";
    eventually(TIMEOUT, async || match count(&database, published).await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
}

#[actix_rt::test]
async fn concurrent_configurations_of_one_sensor_never_collide() {
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
    // The sensor ends on the newest.
    eventually(TIMEOUT, async || {
        let last = client.messages().last().map(|it| it.payload.clone()).unwrap_or_default();
        let sent: Value = serde_json::from_str(&last).unwrap_or_default();
        if sent["revision"] == 20 { Ok(()) } else { Err(last) }
    })
    .await;
}

#[actix_rt::test]
async fn a_sensor_that_lags_gets_its_configuration_again() {
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
async fn a_deleted_sensors_configuration_is_cleared() {
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

/// Publishes measurements until the topic of the configuration has received one more message than before.
async fn until_published_again(client: &Client, measurements: &str, configuration: &str) {
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

async fn until_state(service: &Service, sensor: &str, state: &str) -> Value {
    eventually(TIMEOUT, async || {
        let newest = newest(service, sensor).await;
        if newest["state"] == state { Ok(newest) } else { Err(newest) }
    })
    .await
}

#[actix_rt::test]
async fn a_refused_configuration_is_not_repeated() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[("CONFIGURATION_REPUBLISH_SECS", "1")]).await;
    let (refuses, other) = (service.create_sensor("a").await, service.create_sensor("b").await);
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let of = |kind: &str, sensor: &str| topic(&database, kind, sensor);
    for sensor in [&refuses, &other] {
        client.subscribe(&of("configurations", sensor)).await;
        configure(&service, sensor, json!({})).await;
        until_state(&service, sensor, "published").await;
    }
    client.publish(&of("heartbeats", &refuses), heartbeat(1, 1.0, false)).await.unwrap();
    until_state(&service, &refuses, "failed").await;
    client.publish(&of("heartbeats", &refuses), heartbeat(0, 2.0, true)).await.unwrap();

    // The other one, which answers nothing, gets its own three times.
    let first = newest(&service, &other).await["publication_timestamp"].clone();
    for _ in 0..3 {
        client.publish(&of("measurements", &refuses), measurement(1.0)).await.unwrap();
        let topics = (of("measurements", &other), of("configurations", &other));
        until_published_again(&client, &topics.0, &topics.1).await;
    }
    let received = client.messages();
    let refused = received.iter().filter(|it| it.topic == of("configurations", &refuses));
    assert_eq!(refused.count(), 1, "it has said that it does not take it");
    // Else it would never be stale.
    assert_eq!(newest(&service, &other).await["publication_timestamp"], first);
}

#[actix_rt::test]
async fn a_first_configuration_that_the_broker_lost_is_published_again() {
    let mut broker = Broker::start().await;
    let database = database().await;
    let service =
        Service::start(&database, &broker, &[("CONFIGURATION_REPUBLISH_SECS", "1")]).await;
    let sensor = service.create_sensor("first").await;
    broker.save().await;
    configure(&service, &sensor, json!({})).await;
    until_state(&service, &sensor, "published").await;
    broker.kill().await;
    broker.start_again().await;

    let client = Client::connect(broker.url(), "sensor").await;
    let configuration = topic(&database, "configurations", &sensor);
    client.subscribe(&configuration).await;
    // It reports a number of its own, which happens to be that of the configuration.
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
async fn a_heartbeat_acknowledges_only_what_the_sensor_can_have_had() {
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
    until_state(&service, &sensor, "published").await;
    lock.rollback().await.unwrap();
    service.wait_for_ledger_of("heartbeats", |entry| entry.committed == 1).await;
    assert_eq!(newest(&service, &sensor).await["state"], "published");

    client.publish(&heartbeats, heartbeat(1, 2.0, true)).await.unwrap();
    until_state(&service, &sensor, "acknowledged").await;
}
