//! Messages and configurations through ejabberd, which shares no code with mosquitto and has one message in flight per
//! client. docs/BROKERS.md lists the other brokers that were tried.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

const MESSAGES_PER_PART: u32 = 200;

async fn publish(client: &Client, topic: &str, part: u32) {
    let first = part * MESSAGES_PER_PART;
    let publishes = (first..first + MESSAGES_PER_PART)
        .map(|at| client.publish(topic, measurement(f64::from(at))));
    for outcome in futures_util::future::join_all(publishes).await {
        outcome.unwrap();
    }
}

#[actix_rt::test]
async fn ejabberd_loses_and_duplicates_no_message_and_no_configuration() {
    let broker = Broker::start_ejabberd().await;
    let database = database().await;
    let mut service = Service::start(&database, &broker, &[]).await;
    let sensor = service.create_sensor("roof").await;
    let client = Client::connect(broker.url(), "sensor").await;
    let topic = |kind: &str| format!("{}/{kind}/{sensor}", database.name);
    let wait_for_rows = async |rows: u32| {
        let query = "select count(*) from measurement";
        eventually(TIMEOUT, async || match count(&database, query).await {
            found if found == i64::from(rows) => Ok(()),
            found => Err(found),
        })
        .await;
    };
    publish(&client, &topic("measurements"), 0).await;
    wait_for_rows(MESSAGES_PER_PART).await;

    // An extra topic level.
    client.publish(&format!("{}/roof", topic("measurements")), "{}").await.unwrap();
    let entry = service.wait_for_ledger(|entry| entry.rejected == 1 && entry.in_flight == 0).await;
    assert_eq!((entry.committed, entry.duplicate), (u64::from(MESSAGES_PER_PART), 0));

    // A configuration is published retained, and acknowledged.
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    assert_eq!(service.post(&path, &json!({ "interval": 1 })).await.unwrap().0, 202);
    let wait_for_state = async |wanted: &str| {
        eventually(TIMEOUT, async || {
            let newest: Value = service.get(&path).await?.1["items"][0].clone();
            if newest["state"] == wanted { Ok(()) } else { Err(newest.to_string()) }
        })
        .await;
    };
    wait_for_state("published").await;
    let late = Client::connect(broker.url(), "late").await;
    late.subscribe(&topic("configurations")).await;
    let retained = late.wait_for_messages(1).await;
    assert_eq!(retained[0].payload, r#"{"revision":1,"configuration":{"interval": 1}}"#);
    client.publish(&topic("heartbeats"), heartbeat(1, 1.0, true)).await.unwrap();
    wait_for_state("acknowledged").await;

    // The broker queues messages while the service is stopped, and redelivers those in flight when it is killed.
    assert!(service.terminate().await.success());
    publish(&client, &topic("measurements"), 1).await;
    service.start_again().await;
    wait_for_rows(2 * MESSAGES_PER_PART).await;
    service.kill();
    publish(&client, &topic("measurements"), 2).await;
    let started_at = Instant::now();
    service.start_again().await;
    wait_for_rows(3 * MESSAGES_PER_PART).await;
    let per_second = f64::from(MESSAGES_PER_PART) / started_at.elapsed().as_secs_f64();
    println!("{per_second:.0} messages/s, including the start of the service");
    assert_eq!(service.get("/readyz").await.unwrap().0, 200);
}
