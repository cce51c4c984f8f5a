//! A PUBACK follows its COMMIT, and nothing that is redelivered changes anything.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::time::Instant;

use crate::support::broker::{Broker, Settings};
use crate::support::client::Client;
use crate::support::payloads::{measurement, measurements};
use crate::support::postgres::{connect, on_table};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// PUBACKs that the broker has had from the service's session, by the broker's own log.
fn pubacks(broker: &Broker, session: &str) -> usize {
    let wanted = format!("Received PUBACK from {session} ");
    broker.log().lines().filter(|line| line.contains(&wanted)).count()
}

#[actix_rt::test]
async fn no_puback_before_commit() {
    let broker = Broker::start_with(Settings { log_packets: true, ..Settings::default() }).await;
    let database = database().await;
    let service = Service::start(&database, &broker, &[]).await;
    let sensor = service.create_sensor("held").await;
    let sensor_client = Client::connect(broker.url(), "sensor").await;
    let topic = format!("{}/measurements/{sensor}", database.name);

    // One goes through, to see that a PUBACK would be seen.
    sensor_client.publish(&topic, measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;
    eventually(TIMEOUT, async || match pubacks(&broker, &database.name) {
        1 => Ok(()),
        count => Err(count),
    })
    .await;

    // Then the table is locked: the COPY waits, and with it the COMMIT.
    let mut locker = connect(&database.url).await.unwrap();
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute(&on_table("lock table measurement in access exclusive mode")).await.unwrap();
    sensor_client.publish(&topic, measurement(2.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.in_flight == 1).await;
    let waiting = "select count(*) from pg_stat_activity \
        where wait_event_type = 'Lock' and (query like 'copy measurement%' or query like 'with routed%') and datname = current_database()";
    eventually(TIMEOUT, async || match count(&database, waiting).await {
        1 => Ok(()),
        count => Err(count),
    })
    .await;
    assert_eq!(pubacks(&broker, &database.name), 1, "the COMMIT has not returned");

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

    // Some are committed and acknowledged, some wait behind a lock when the service is killed.
    sensor_client.publish(&topic, measurements((0..50).map(f64::from))).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 50).await;
    let mut locker = connect(&database.url).await.unwrap();
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute(&on_table("lock table measurement in access exclusive mode")).await.unwrap();
    for second in 50..60 {
        sensor_client.publish(&topic, measurement(f64::from(second))).await.unwrap();
    }
    // The same as an earlier one, as a sensor repeats itself, and a bad one.
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

    // Once more everything, the bad one too: nothing changes.
    sensor_client.publish(&topic, measurements((0..60).map(f64::from))).await.unwrap();
    sensor_client.publish(&topic, "no JSON").await.unwrap();
    service
        .wait_for_ledger(|after| after.received == entry.received + 61 && after.in_flight == 0)
        .await;
    assert_eq!(count(&database, "select count(*) from measurement").await, 60);
    assert_eq!(count(&database, "select count(*) from rejection").await, 1);
}

#[actix_rt::test]
async fn an_idle_service_commits_a_lone_message_at_once() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("lone").await;
    let sensor_client = Client::connect(broker.url(), &format!("{}-lone", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    sensor_client.publish(&topic, measurement(0.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;

    // No linger: far below what a timer for gathering batches would be when a test can see it.
    let begun = Instant::now();
    let reason = sensor_client.publish(&topic, measurement(1.0)).await.unwrap();
    assert_eq!(reason, PubAckReason::Success);
    service.wait_for_ledger(|entry| entry.committed == 2).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[actix_rt::test]
async fn a_message_at_qos_0_is_stored_too() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("at most once").await;
    let sensor_client = Client::connect(broker.url(), &format!("{}-q0", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    sensor_client.publish_at_most_once(&topic, measurement(0.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;
}
