//! The servers that the other tests use behave as those tests expect.

use std::time::Duration;

use tributary::store::EngineName;

use crate::support::broker::{Broker, Settings};
use crate::support::client::Client;
use crate::support::postgres::{Postgres, connect, skipped_on};
use crate::support::wait::{TIMEOUT, eventually};

#[tokio::test]
#[should_panic(expected = "not within 50ms; last seen: Some(\"dark\")")]
async fn a_timeout_reports_the_last_observed_state() {
    eventually(Duration::from_millis(50), async || Err::<(), _>("dark")).await;
}

#[tokio::test]
#[should_panic(expected = "not within 50ms; last seen: None")]
async fn a_hanging_observation_times_out() {
    eventually(Duration::from_millis(50), async || std::future::pending::<Result<(), ()>>().await)
        .await;
}

#[tokio::test]
async fn postgres_keeps_its_data_after_every_kind_of_stop() {
    let mut postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    let client = connect(&database.url).await.unwrap();
    client
        .batch_execute("create table kept (n integer); insert into kept values (1)")
        .await
        .unwrap();

    postgres.stop_fast().await;
    assert!(client.batch_execute("select 1").await.is_err(), "the session is closed");
    assert!(connect(&database.url).await.is_err());
    postgres.start_again().await;
    let client = connect(&database.url).await.unwrap();
    client.batch_execute("insert into kept values (2)").await.unwrap();

    postgres.stop_immediate().await;
    assert!(connect(&database.url).await.is_err());
    postgres.start_again().await;
    let client = connect(&database.url).await.unwrap();
    let count: i64 = client.query_one("select count(*) from kept", &[]).await.unwrap().get(0);
    assert_eq!(count, 2);
}

#[tokio::test]
async fn a_killed_backend_closes_its_session_and_the_server_recovers() {
    let postgres = Postgres::start().await;
    let client = connect(&postgres.url("postgres")).await.unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);

    postgres.kill_backend(pid);

    eventually(TIMEOUT, async || match client.batch_execute("select 1").await {
        Ok(()) => Err("the session is open"),
        Err(_) => Ok(()),
    })
    .await;
    postgres.wait_until_available().await;
}

#[tokio::test]
async fn databases_are_independent_copies_of_their_template() {
    if skipped_on(&[EngineName::Citus], "its maintenance daemon stays connected to a template") {
        return;
    }
    let postgres = Postgres::shared().await;
    let template = postgres.create_database(None).await;
    let client = connect(&template.url).await.unwrap();
    client
        .batch_execute("create table seed (n integer); insert into seed values (7)")
        .await
        .unwrap();
    drop(client);
    // PostgreSQL may still list a session that was just closed.
    let admin = connect(&postgres.url("postgres")).await.unwrap();
    eventually(TIMEOUT, async || {
        let sessions = "select count(*) from pg_stat_activity where datname = $1";
        let count: i64 = admin.query_one(sessions, &[&template.name]).await.unwrap().get(0);
        if count == 0 { Ok(()) } else { Err(count) }
    })
    .await;

    let one = postgres.create_database(Some(&template.name)).await;
    let other = postgres.create_database(Some(&template.name)).await;

    connect(&one.url).await.unwrap().batch_execute("delete from seed").await.unwrap();
    let client = connect(&other.url).await.unwrap();
    let n: i32 = client.query_one("select n from seed", &[]).await.unwrap().get(0);
    assert_eq!(n, 7);
}

#[tokio::test]
async fn the_broker_keeps_the_queue_of_a_session_over_a_restart() {
    let mut broker = Broker::start().await;
    let subscriber = Client::resume(broker.url(), "absent").await;
    assert!(!subscriber.session_present());
    subscriber.subscribe("queue/+").await;
    subscriber.disconnect().await;
    let sensor = Client::connect(broker.url(), "sensor").await;
    // More than the 1,000 messages that mosquitto queues by default.
    let publishes = (0..1_500).map(|n| sensor.publish("queue/a", n.to_string()));
    let outcomes = futures_util::future::join_all(publishes).await;
    assert!(outcomes.iter().all(Result::is_ok));

    broker.stop().await;
    assert!(Client::try_connect(broker.url(), "early", true).await.is_err());
    broker.start_again().await;

    let resumed = Client::resume(broker.url(), "absent").await;
    assert!(resumed.session_present());
    let payloads: Vec<_> =
        resumed.wait_for_messages(1_500).await.into_iter().map(|message| message.payload).collect();
    let expected: Vec<_> = (0..1_500).map(|n| n.to_string()).collect();
    assert_eq!(payloads, expected);
}

#[tokio::test]
async fn a_killed_broker_closes_connections_and_can_be_started_again() {
    let mut broker = Broker::start().await;
    let client = Client::connect(broker.url(), "client").await;
    client.publish("before", "x").await.unwrap();

    broker.kill().await;

    eventually(TIMEOUT, async || client.end().ok_or("connected")).await;
    assert!(client.publish("after", "x").await.is_err());
    broker.start_again().await;
    Client::connect(broker.url(), "client").await.publish("after", "x").await.unwrap();
}

#[tokio::test]
async fn a_retained_message_is_delivered_to_a_later_subscriber() {
    let broker = Broker::shared().await;
    let topic = format!("tributary-test/{}/retained", std::process::id());
    let publisher =
        Client::connect(broker.url(), &format!("publisher-{}", std::process::id())).await;
    publisher.publish_retained(&topic, "kept").await.unwrap();
    publisher.publish_at_most_once(&topic, "not kept").await.unwrap();

    let late = Client::connect(broker.url(), &format!("late-{}", std::process::id())).await;
    late.subscribe(&topic).await;

    let messages = late.wait_for_messages(1).await;
    assert_eq!(
        messages.iter().map(|m| (m.payload.as_str(), m.retain, m.dup)).collect::<Vec<_>>(),
        [("kept", true, false)]
    );
    // Deletes the retained message: the broker may be shared.
    publisher.publish_retained(&topic, "").await.unwrap();
}

#[tokio::test]
async fn a_broker_with_an_account_rejects_other_passwords_and_can_log_packets() {
    let account = Some(("tributary", "s3cret"));
    let settings = Settings { account, log_packets: true, ..Settings::default() };
    let broker = Broker::start_with(settings).await;
    let wrong_password = broker.url().replace("s3cret", "guess");
    let refusal =
        Client::try_connect(&wrong_password, "stranger", true).await.map(drop).unwrap_err();
    assert!(refusal.contains("NotAuthorized"), "{refusal}");

    let client = Client::connect(broker.url(), "known").await;
    client.publish("topic", "x").await.unwrap();

    eventually(TIMEOUT, async || {
        let log = broker.log();
        if log.contains("Sending PUBACK to known") { Ok(()) } else { Err(log) }
    })
    .await;
}
