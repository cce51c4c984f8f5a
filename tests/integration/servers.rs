//! The servers that the other tests stand on do what those tests believe they do.

use std::time::Duration;

use tributary::store::EngineName;

use crate::support::broker::{Broker, Settings};
use crate::support::client::Client;
use crate::support::postgres::{Postgres, connect, skipped_on};
use crate::support::wait::{TIMEOUT, eventually};

#[tokio::test]
#[should_panic(expected = "not within 50ms; last seen: Some(\"dark\")")]
async fn waiting_ends_with_what_was_last_seen() {
    eventually(Duration::from_millis(50), async || Err::<(), _>("dark")).await;
}

#[tokio::test]
#[should_panic(expected = "not within 50ms; last seen: None")]
async fn waiting_ends_when_a_look_hangs() {
    eventually(Duration::from_millis(50), async || std::future::pending::<Result<(), ()>>().await)
        .await;
}

#[tokio::test]
async fn postgres_keeps_its_data_over_every_kind_of_stop() {
    let mut postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    let client = connect(&database.url).await.unwrap();
    client
        .batch_execute("create table kept (n integer); insert into kept values (1)")
        .await
        .unwrap();

    postgres.stop_fast().await;
    assert!(client.batch_execute("select 1").await.is_err(), "the session was ended");
    assert!(connect(&database.url).await.is_err(), "nobody listens");
    postgres.start_again().await;
    let client = connect(&database.url).await.unwrap();
    client.batch_execute("insert into kept values (2)").await.unwrap();

    postgres.stop_immediate().await;
    assert!(connect(&database.url).await.is_err(), "nobody listens");
    postgres.start_again().await;
    let client = connect(&database.url).await.unwrap();
    let count: i64 = client.query_one("select count(*) from kept", &[]).await.unwrap().get(0);
    assert_eq!(count, 2);
}

#[tokio::test]
async fn a_killed_backend_ends_its_session_and_the_server_recovers() {
    let postgres = Postgres::start().await;
    let victim = connect(&postgres.url("postgres")).await.unwrap();
    let pid: i32 = victim.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);

    postgres.kill_backend(pid);

    eventually(TIMEOUT, async || match victim.batch_execute("select 1").await {
        Ok(()) => Err("the session lives"),
        Err(_) => Ok(()),
    })
    .await;
    postgres.answers().await;
}

#[tokio::test]
async fn databases_are_apart_and_begin_as_their_template() {
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
    // A session that was just closed may still hold the template for a moment.
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
    let untouched = connect(&other.url).await.unwrap();
    let n: i32 = untouched.query_one("select n from seed", &[]).await.unwrap().get(0);
    assert_eq!(n, 7);
}

#[tokio::test]
async fn the_broker_keeps_a_sessions_queue_over_a_stop() {
    let mut broker = Broker::start().await;
    let absent = Client::resume(broker.url(), "absent").await;
    assert!(!absent.session_present());
    absent.subscribe("queue/+").await;
    absent.disconnect().await;
    let sensor = Client::connect(broker.url(), "sensor").await;
    // More than mosquitto's default queue of 1,000, which would drop the rest.
    let publishes = (0..1_500).map(|n| sensor.publish("queue/a", n.to_string()));
    let outcomes = futures_util::future::join_all(publishes).await;
    assert!(outcomes.iter().all(Result::is_ok));

    broker.stop().await;
    assert!(Client::try_connect(broker.url(), "early", true).await.is_err(), "nobody listens");
    broker.start_again().await;

    let back = Client::resume(broker.url(), "absent").await;
    assert!(back.session_present());
    let payloads: Vec<_> =
        back.wait_for_messages(1_500).await.into_iter().map(|message| message.payload).collect();
    let expected: Vec<_> = (0..1_500).map(|n| n.to_string()).collect();
    assert_eq!(payloads, expected);
}

#[tokio::test]
async fn a_killed_broker_ends_the_connection_and_comes_back() {
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
async fn a_retained_message_reaches_who_subscribes_later() {
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
    // An empty retained message takes it back, on a broker that is not ours too.
    publisher.publish_retained(&topic, "").await.unwrap();
}

#[tokio::test]
async fn a_broker_with_an_account_refuses_everyone_else_and_logs_packets_if_asked() {
    let account = Some(("tributary", "s3cret"));
    let settings = Settings { account, log_packets: true, ..Settings::default() };
    let broker = Broker::start_with(settings).await;
    let stranger = broker.url().replace("s3cret", "guess");
    let refusal = Client::try_connect(&stranger, "stranger", true).await.map(drop).unwrap_err();
    assert!(refusal.contains("NotAuthorized"), "{refusal}");

    let client = Client::connect(broker.url(), "known").await;
    client.publish("topic", "x").await.unwrap();

    eventually(TIMEOUT, async || {
        let log = broker.log();
        if log.contains("Sending PUBACK to known") { Ok(()) } else { Err(log) }
    })
    .await;
}
