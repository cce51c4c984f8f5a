//! Streams of a sensor whose messages several instances commit: each event arrives once, or the stream ends.

use super::{client_id, instance, publish, wait_until_all_are_listed, wait_until_settled};
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::events::Events;
use crate::support::postgres::connect;
use crate::support::service::database;
use crate::support::wait::{TIMEOUT, eventually};

/// Reads `count` measurements from the stream, in order.
async fn read_measurements(stream: &mut Events, count: usize) -> Vec<f64> {
    let mut timestamps = Vec::new();
    while timestamps.len() < count {
        let event = stream.next().await.expect("the stream stays open");
        assert_ne!(event.name, "dropped", "{event:?}");
        if event.name == "measurement" {
            timestamps.push(event.data["value"]["temperature"].as_f64().unwrap());
        }
    }
    timestamps
}

#[actix_rt::test]
async fn a_stream_has_the_commits_of_every_instance() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    wait_until_all_are_listed(&[&one, &other]).await;
    let sensor = one.create_sensor("streamed").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut streams =
        [Events::open(&one.url(), &path, "").await, Events::open(&other.url(), &path, "").await];
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;

    publish(&client, &format!("{}/measurements/{sensor}", database.name), 1..41).await;

    for stream in &mut streams {
        let mut timestamps = read_measurements(stream, 40).await;
        timestamps.sort_by(f64::total_cmp);
        let all: Vec<f64> = (1..41).map(f64::from).collect();
        assert_eq!(timestamps, all, "each once, from any instance");
    }
    let entries = wait_until_settled(&[&one, &other], 40).await;
    assert!(entries.iter().all(|it| it.committed > 0), "{entries:?}");
}

/// A killed instance may not have relayed its last commits, so that the streams of the others end.
#[actix_rt::test]
async fn a_stream_ends_when_another_instance_is_killed_but_not_when_it_stops() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let mut others =
        [instance(&database, broker, "2", &[]).await, instance(&database, broker, "3", &[]).await];
    wait_until_all_are_listed(&[&one, &others[0], &others[1]]).await;
    let sensor = one.create_sensor("bereft").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut stream = Events::open(&one.url(), &path, "").await;
    others[0].terminate().await;
    wait_until_all_are_listed(&[&one, &others[1]]).await;
    let unclean_end = "another instance has ended without a stop";
    let log_before = one.log();
    assert!(!log_before.contains(unclean_end), "{log_before}");
    others[1].kill();

    let last = loop {
        let event = stream.next().await.expect("an event gives the reason for the end");
        if event.name == "dropped" {
            break event;
        }
    };
    assert_eq!(last.data["reason"], "overrun", "{last:?}");
    let log = async || one.log().contains(unclean_end).then_some(()).ok_or_else(|| one.log());
    eventually(TIMEOUT, log).await;
}

/// The new instance commits the messages of its session at once.
#[actix_rt::test]
async fn a_stream_continues_when_another_instance_joins() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let mut other = instance(&database, broker, "2", &[]).await;
    let sensor = one.create_sensor("joined").await;
    other.terminate().await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    publish(&client, &topic, 1..101).await;
    // mosquitto delivers in turn.
    wait_until_settled(&[&one], 50).await;
    wait_until_all_are_listed(&[&one]).await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut stream = Events::open(&one.url(), &path, "").await;
    stream.expect("open").await;

    other.start_again().await;
    publish(&client, &topic, 101..151).await;

    let mut timestamps = read_measurements(&mut stream, 100).await;
    timestamps.sort_by(f64::total_cmp);
    let expected: Vec<f64> = (2..101).step_by(2).chain(101..151).map(f64::from).collect();
    let odd: Vec<f64> = (1..101).step_by(2).chain(101..151).map(f64::from).collect();
    assert!(timestamps == expected || timestamps == odd, "each once: {timestamps:?}");
}

/// Events that PostgreSQL rejects are missing in the streams of the others, so that these end.
#[actix_rt::test]
async fn a_stream_ends_when_a_batch_of_events_is_rejected() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    wait_until_all_are_listed(&[&one, &other]).await;
    let sensor = one.create_sensor("refused").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut stream = Events::open(&one.url(), &path, "").await;
    stream.expect("open").await;
    let refuse = "alter table relayed_batch add check (events = '[]') not valid";
    connect(&database.url).await.unwrap().batch_execute(refuse).await.unwrap();
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;

    // One of them is delivered to the other instance.
    publish(&client, &format!("{}/measurements/{sensor}", database.name), 1..3).await;

    let last = loop {
        let event = stream.next().await.expect("an event gives the reason for the end");
        if event.name == "dropped" {
            break event;
        }
    };
    assert_eq!(last.data["reason"], "overrun", "{last:?}");
    assert!(other.log().contains("cannot be relayed"), "{}", other.log());
}
