//! Streams of a sensor whose messages several instances commit: each event once, or the stream ends.

use super::{client_id, instance, know_each_other, publish, settled};
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::events::Events;
use crate::support::postgres::connect;
use crate::support::service::database;
use crate::support::wait::{TIMEOUT, eventually};

/// The measurements of the stream, in order.
async fn streamed(stream: &mut Events, wanted: usize) -> Vec<f64> {
    let mut timestamps = Vec::new();
    while timestamps.len() < wanted {
        let event = stream.next().await.expect("it goes on");
        assert_ne!(event.name, "dropped", "{event:?}");
        if event.name == "measurement" {
            timestamps.push(event.data["value"]["temperature"].as_f64().unwrap());
        }
    }
    timestamps
}

#[actix_rt::test]
async fn a_stream_has_what_every_instance_commits() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    know_each_other(&[&one, &other]).await;
    let sensor = one.create_sensor("streamed").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut streams =
        [Events::open(&one.url(), &path, "").await, Events::open(&other.url(), &path, "").await];
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;

    publish(&client, &format!("{}/measurements/{sensor}", database.name), 1..41).await;

    for stream in &mut streams {
        let mut timestamps = streamed(stream, 40).await;
        timestamps.sort_by(f64::total_cmp);
        let all: Vec<f64> = (1..41).map(f64::from).collect();
        assert_eq!(timestamps, all, "each once, whoever committed it");
    }
    let accounts = settled(&[&one, &other], 40).await;
    assert!(accounts.iter().all(|it| it.committed > 0), "{accounts:?}");
}

/// What an instance has committed may not be relayed when it dies: the streams of the others say so.
#[actix_rt::test]
async fn a_stream_ends_when_another_instance_dies_and_not_when_it_stops() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let mut others =
        [instance(&database, broker, "2", &[]).await, instance(&database, broker, "3", &[]).await];
    know_each_other(&[&one, &others[0], &others[1]]).await;
    let sensor = one.create_sensor("bereft").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut stream = Events::open(&one.url(), &path, "").await;
    others[0].terminate().await;
    know_each_other(&[&one, &others[1]]).await;
    let death = "another instance has ended without a stop";
    let before_death = one.log();
    assert!(!before_death.contains(death), "{before_death}");
    others[1].kill();

    let last = loop {
        let event = stream.next().await.expect("it says why it ends");
        if event.name == "dropped" {
            break event;
        }
    };
    assert_eq!(last.data["reason"], "overrun", "{last:?}");
    let log = async || one.log().contains(death).then_some(()).ok_or_else(|| one.log());
    eventually(TIMEOUT, log).await;
}

/// What waits in the session of the newcomer is committed as soon as it can.
#[actix_rt::test]
async fn a_stream_goes_on_when_another_instance_joins() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let mut other = instance(&database, broker, "2", &[]).await;
    let sensor = one.create_sensor("joined").await;
    other.terminate().await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    publish(&client, &topic, 1..101).await;
    // mosquitto deals in turn.
    settled(&[&one], 50).await;
    know_each_other(&[&one]).await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut stream = Events::open(&one.url(), &path, "").await;
    stream.expect("open").await;

    other.start_again().await;
    publish(&client, &topic, 101..151).await;

    let mut timestamps = streamed(&mut stream, 100).await;
    timestamps.sort_by(f64::total_cmp);
    let expected: Vec<f64> = (2..101).step_by(2).chain(101..151).map(f64::from).collect();
    let odd: Vec<f64> = (1..101).step_by(2).chain(101..151).map(f64::from).collect();
    assert!(timestamps == expected || timestamps == odd, "each once: {timestamps:?}");
}

/// What PostgreSQL refuses is missing in the streams of the others, which say so.
#[actix_rt::test]
async fn a_stream_ends_when_a_batch_of_events_is_refused() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    know_each_other(&[&one, &other]).await;
    let sensor = one.create_sensor("refused").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut stream = Events::open(&one.url(), &path, "").await;
    stream.expect("open").await;
    let refuse = "alter table relayed_batch add check (events = '[]') not valid";
    connect(&database.url).await.unwrap().batch_execute(refuse).await.unwrap();
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;

    // One of them goes to the other instance.
    publish(&client, &format!("{}/measurements/{sensor}", database.name), 1..3).await;

    let last = loop {
        let event = stream.next().await.expect("it says why it ends");
        if event.name == "dropped" {
            break event;
        }
    };
    assert_eq!(last.data["reason"], "overrun", "{last:?}");
    assert!(other.log().contains("cannot be relayed"), "{}", other.log());
}
