//! A PUBACK is sent after the COMMIT, and redelivered messages change nothing.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::time::Instant;

use crate::support::broker::{Broker, Settings};
use crate::support::client::Client;
use crate::support::payloads::{measurement, measurements};
use crate::support::postgres::{connect, for_engine_tables};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// The number of PUBACKs from this session in the log of the broker.
fn pubacks(broker: &Broker, session: &str) -> usize {
    let line_part = format!("Received PUBACK from {session} ");
    broker.log().lines().filter(|line| line.contains(&line_part)).count()
}

#[actix_rt::test]
async fn no_puback_is_sent_before_the_commit() {
    let broker = Broker::start_with(Settings { log_packets: true, ..Settings::default() }).await;
    let database = database().await;
    let service = Service::start(&database, &broker, &[]).await;
    let sensor = service.create_sensor("held").await;
    let sensor_client = Client::connect(broker.url(), "sensor").await;
    let topic = format!("{}/measurements/{sensor}", database.name);

    // First without a lock, to verify that the log shows a PUBACK.
    sensor_client.publish(&topic, measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;
    eventually(TIMEOUT, async || match pubacks(&broker, &database.name) {
        1 => Ok(()),
        count => Err(count),
    })
    .await;

    // Then the locked table blocks the COPY.
    let mut lock_holder = connect(&database.url).await.unwrap();
    let lock = lock_holder.transaction().await.unwrap();
    lock.batch_execute(&for_engine_tables("lock table measurement in access exclusive mode"))
        .await
        .unwrap();
    sensor_client.publish(&topic, measurement(2.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.in_flight == 1).await;
    let blocked_copies = "select count(*) from pg_stat_activity \
        where wait_event_type = 'Lock' and (query like 'copy measurement%' or query like 'with routed%') and datname = current_database()";
    eventually(TIMEOUT, async || match count(&database, blocked_copies).await {
        1 => Ok(()),
        count => Err(count),
    })
    .await;
    assert_eq!(pubacks(&broker, &database.name), 1, "before the COMMIT");

    lock.rollback().await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 2).await;
    eventually(TIMEOUT, async || match pubacks(&broker, &database.name) {
        2 => Ok(()),
        count => Err(count),
    })
    .await;
}

#[actix_rt::test]
async fn a_redelivery_after_a_kill_adds_no_row() {
    let broker = Broker::start().await;
    let database = database().await;
    let mut service = Service::start(&database, &broker, &[]).await;
    let sensor = service.create_sensor("killed").await;
    let sensor_client = Client::connect(broker.url(), "sensor").await;
    let topic = format!("{}/measurements/{sensor}", database.name);

    // Some are committed and acknowledged, and others wait for a lock when the service is killed.
    sensor_client.publish(&topic, measurements((0..50).map(f64::from))).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 50).await;
    let mut lock_holder = connect(&database.url).await.unwrap();
    let lock = lock_holder.transaction().await.unwrap();
    lock.batch_execute(&for_engine_tables("lock table measurement in access exclusive mode"))
        .await
        .unwrap();
    for second in 50..60 {
        sensor_client.publish(&topic, measurement(f64::from(second))).await.unwrap();
    }
    // A duplicate, and a message that is rejected.
    sensor_client.publish(&topic, measurement(7.0)).await.unwrap();
    sensor_client.publish(&topic, "no JSON").await.unwrap();
    service.wait_for_ledger(|entry| entry.in_flight == 12).await;
    service.kill();
    lock.rollback().await.unwrap();

    service.start_again().await;
    let entry = service.wait_for_ledger(|entry| entry.received >= 12 && entry.in_flight == 0).await;
    assert_eq!(entry.rejected, 1, "{entry:?}");
    assert_eq!(count(&database, "select count(*) from measurement").await, 60);
    assert_eq!(count(&database, "select count(*) from rejection").await, 1);

    // All of them again, including the rejected one.
    sensor_client.publish(&topic, measurements((0..60).map(f64::from))).await.unwrap();
    sensor_client.publish(&topic, "no JSON").await.unwrap();
    service
        .wait_for_ledger(|after| after.received == entry.received + 61 && after.in_flight == 0)
        .await;
    assert_eq!(count(&database, "select count(*) from measurement").await, 60);
    assert_eq!(count(&database, "select count(*) from rejection").await, 1);
}

#[actix_rt::test]
async fn an_idle_service_commits_a_single_message_at_once() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("lone").await;
    let sensor_client = Client::connect(broker.url(), &format!("{}-lone", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    sensor_client.publish(&topic, measurement(0.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;

    // The writer does not wait for a batch to fill.
    let start = Instant::now();
    let reason = sensor_client.publish(&topic, measurement(1.0)).await.unwrap();
    assert_eq!(reason, PubAckReason::Success);
    service.wait_for_ledger(|entry| entry.committed == 2).await;
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[actix_rt::test]
async fn a_message_at_qos_0_is_stored() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("at most once").await;
    let sensor_client = Client::connect(broker.url(), &format!("{}-q0", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    sensor_client.publish_at_most_once(&topic, measurement(0.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;
}
