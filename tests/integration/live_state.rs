//! The warnings in a sensor's live state: duplicate items, and a clock that is not set.

use serde_json::Value;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurements};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

async fn live(service: &Service, sensor: &str) -> Value {
    let path = format!("/api/v1/sensors/{sensor}/live");
    service.get(&path).await.unwrap().1["live"].clone()
}

#[actix_rt::test]
async fn the_live_state_reports_duplicates_and_a_clock_that_is_not_set() {
    let database = database().await;
    let broker = Broker::shared().await;
    let service = Service::start(&database, broker, &[]).await;
    let (sensor, other) = (service.create_sensor("a").await, service.create_sensor("b").await);
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = |kind: &str, sensor: &str| format!("{}/{kind}/{sensor}", database.name);
    // Three boots, each with a heartbeat at the same uptime; two tips of a rain gauge in one message.
    for _ in 0..3 {
        let boot = heartbeat(0, 3.2, true);
        client.publish(&topic("heartbeats", &sensor), boot).await.unwrap();
    }
    let tips = measurements([1_795_883_642.0, 1_795_883_642.0, 1_795_883_643.0]);
    client.publish(&topic("measurements", &other), tips).await.unwrap();

    for (sensor, duplicates) in [(&sensor, 2), (&other, 1)] {
        eventually(TIMEOUT, async || match live(&service, sensor).await {
            live if live["duplicate_items"] == duplicates => Ok(()),
            live => Err(live),
        })
        .await;
    }
    let ledger = service.ledger_entry("heartbeats").await.unwrap();
    assert_eq!((ledger.committed, ledger.duplicate), (1, 2));
    let clock = live(&service, &sensor).await["clock"].as_str().unwrap().to_owned();
    assert!(clock.starts_with("3 of 3 items are dated before 2000-01-01"), "{clock}");
    assert_eq!(live(&service, &other).await["clock"], Value::Null);
}
