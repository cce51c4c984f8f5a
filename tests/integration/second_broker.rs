//! The way of a message and of a configuration through a broker that has nothing in common with mosquitto: ejabberd,
//! which keeps one message in flight for each client. docs/BROKERS.md says what else was tried.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// Of each part.
const MESSAGES: u32 = 200;

async fn publish(client: &Client, topic: &str, part: u32) {
    let first = part * MESSAGES;
    let all = (first..first + MESSAGES).map(|at| client.publish(topic, measurement(f64::from(at))));
    for outcome in futures_util::future::join_all(all).await {
        outcome.unwrap();
    }
}

#[actix_rt::test]
async fn nothing_is_lost_and_nothing_is_doubled_at_a_broker_of_another_make() {
    let broker = Broker::start_ejabberd().await;
    let database = database().await;
    let mut service = Service::start(&database, &broker, &[]).await;
    let sensor = service.create_sensor("roof").await;
    let client = Client::connect(broker.url(), "sensor").await;
    let topic = |kind: &str| format!("{}/{kind}/{sensor}", database.name);
    let stored = async |rows: u32| {
        let query = "select count(*) from measurement";
        eventually(TIMEOUT, async || match count(&database, query).await {
            found if found == i64::from(rows) => Ok(()),
            found => Err(found),
        })
        .await;
    };
    publish(&client, &topic("measurements"), 0).await;
    stored(MESSAGES).await;

    // A near miss, and a message of nobody.
    client.publish(&format!("{}/roof", topic("measurements")), "{}").await.unwrap();
    let entry = service.wait_for_ledger(|entry| entry.rejected == 1 && entry.in_flight == 0).await;
    assert_eq!((entry.committed, entry.duplicate), (u64::from(MESSAGES), 0));

    // A configuration goes down, retained, and is acknowledged.
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    assert_eq!(service.post(&path, &json!({ "interval": 1 })).await.unwrap().0, 202);
    let state = async |wanted: &str| {
        eventually(TIMEOUT, async || {
            let newest: Value = service.get(&path).await?.1["items"][0].clone();
            if newest["state"] == wanted { Ok(()) } else { Err(newest.to_string()) }
        })
        .await;
    };
    state("published").await;
    let late = Client::connect(broker.url(), "late").await;
    late.subscribe(&topic("configurations")).await;
    let retained = late.wait_for_messages(1).await;
    assert_eq!(retained[0].payload, r#"{"revision":1,"configuration":{"interval": 1}}"#);
    client.publish(&topic("heartbeats"), heartbeat(1, 1.0, true)).await.unwrap();
    state("acknowledged").await;

    // The broker keeps what is published while the service is stopped, and what it had in flight when it is killed.
    assert!(service.terminate().await.success());
    publish(&client, &topic("measurements"), 1).await;
    service.start_again().await;
    stored(2 * MESSAGES).await;
    service.kill();
    publish(&client, &topic("measurements"), 2).await;
    let started_at = Instant::now();
    service.start_again().await;
    stored(3 * MESSAGES).await;
    let per_second = f64::from(MESSAGES) / started_at.elapsed().as_secs_f64();
    println!("{per_second:.0} messages/s, the start of the service included");
    assert_eq!(service.get("/readyz").await.unwrap().0, 200);
}
