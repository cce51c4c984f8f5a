//! The drain of an instance's session at the broker: all its messages are stored, or the drain fails.

use super::{client_id, instance, publish, wait_until_settled};
use crate::brokers::fake_broker;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::postgres::{Database, connect};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

#[actix_rt::test]
async fn a_command_drains_the_session_of_a_killed_instance() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let mut other = instance(&database, broker, "2", &[]).await;
    let sensor = one.create_sensor("drained").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    other.kill();
    // The broker still delivers a share to its session.
    publish(&client, &topic, 1..301).await;
    let rows = "select count(*) from measurement";
    // mosquitto delivers in turn.
    wait_until_settled(&[&one], 150).await;

    other.start_command("drain");
    let status = other.wait_for_exit().await;

    assert!(status.success(), "{status}:\n{}", other.log());
    assert_eq!(count(&database, rows).await, 300);
    let session = Client::resume(broker.url(), &client_id(&database, "2")).await;
    assert!(!session.session_present(), "the session still exists");
    publish(&client, &topic, 301..401).await;
    wait_until_settled(&[&one], 250).await;
    assert_eq!(count(&database, rows).await, 400, "the remaining instance receives all messages");
}

#[actix_rt::test]
async fn an_instance_drains_on_sigterm_while_messages_arrive() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let mut other = instance(&database, broker, "2", &[("DRAIN_ON_STOP", "true")]).await;
    let sensor = one.create_sensor("busy").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    let mut published = 0;
    let mut exit_status = None;
    eventually(TIMEOUT, async || {
        publish(&client, &topic, published + 1..published + 51).await;
        published += 50;
        if published == 200 {
            other.send_sigterm();
        }
        exit_status = other.exit_status();
        if exit_status.is_some() { Ok(()) } else { Err(format!("{published}: {}", other.log())) }
    })
    .await;

    assert!(exit_status.is_some_and(|it| it.success()), "{}", other.log());
    let session = Client::resume(broker.url(), &client_id(&database, "2")).await;
    assert!(!session.session_present(), "the session still exists");
    eventually(TIMEOUT, async || {
        let stored = count(&database, "select count(*) from measurement").await;
        if stored == i64::from(published) { Ok(()) } else { Err((stored, published)) }
    })
    .await;
}

/// Runs `tributary drain`, which exits with 1, and returns its log.
async fn failed_drain(database: &Database, broker: &Broker, settings: &[(&str, &str)]) -> String {
    let mut drain = Service::start_unready(database, broker, settings);
    drain.kill();
    drain.start_command("drain");
    let (status, log) = (drain.wait_for_exit().await, drain.log());
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

/// The process that took the session over also received its messages.
#[actix_rt::test]
async fn a_drain_whose_session_is_taken_over_fails() {
    // CONNACK with Session Present, and DISCONNECT with Session taken over in response to UNSUBSCRIBE.
    let broker_url = fake_broker(|first_byte| match first_byte {
        0x10 => Some(b"\x20\x03\x01\x00\x00"),
        0xa2 => Some(b"\xe0\x01\x8e"),
        _ => Some(b""),
    });
    let (broker, database) = (Broker::shared().await, database().await);
    let settings = [
        ("MQTT_URL", broker_url.as_str()),
        ("MQTT_SHARED_GROUP", &database.name),
        ("MQTT_CLIENT_ID", &database.name),
        ("MIGRATE_ON_START", "false"),
    ];

    let log = failed_drain(&database, broker, &settings).await;

    assert!(log.contains("another process uses this client id"), "{log}");
}

/// Otherwise a wrong client id would look like success.
#[actix_rt::test]
async fn a_drain_without_a_session_fails() {
    // CONNACK without Session Present.
    let broker_url =
        fake_broker(|first_byte| (first_byte == 0x10).then_some(b"\x20\x03\x00\x00\x00"));
    let (broker, database) = (Broker::shared().await, database().await);
    let settings = [("MQTT_URL", broker_url.as_str()), ("MQTT_SHARED_GROUP", &database.name)];
    let log = failed_drain(&database, broker, &settings).await;
    assert!(log.contains("nothing was drained"), "{log}");
}

/// A lock blocks every commit, so the drain cannot complete.
#[actix_rt::test]
async fn a_second_sigterm_stops_a_drain_and_the_session_remains() {
    let (broker, database) = (Broker::shared().await, database().await);
    let settings = [("DRAIN_ON_STOP", "true"), ("SHUTDOWN_GRACE_SECS", "1")];
    let mut one = instance(&database, broker, "1", &settings).await;
    let sensor = one.create_sensor("held").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let blocker = connect(&database.url).await.unwrap();
    blocker.batch_execute("begin; lock table measurement").await.unwrap();
    publish(&client, &format!("{}/measurements/{sensor}", database.name), 1..11).await;
    one.wait_for_ledger(|entry| entry.in_flight == 10).await;

    one.send_sigterm();
    eventually(TIMEOUT, async || {
        let log = one.log();
        if log.contains("draining before the process ends") { Ok(()) } else { Err(log) }
    })
    .await;
    one.send_sigterm();
    let (status, log) = (one.wait_for_exit().await, one.log());

    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("stopped before the session was drained"), "{log}");
    blocker.batch_execute("rollback").await.unwrap();
    one.start_again().await;
    wait_until_settled(&[&one], 10).await;
    assert_eq!(count(&database, "select count(*) from measurement").await, 10);
}
