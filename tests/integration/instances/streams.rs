//! Streams of a sensor whose messages several instances commit: each event once, or the stream ends.

use super::{client_id, instance, know_each_other, publish, settled};
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::events::Events;
use crate::support::service::{Service, database};

/// The measurements that the stream tells of, in order.
async fn told(stream: &mut Events, wanted: usize) -> Vec<f64> {
    let mut timestamps = Vec::new();
    while timestamps.len() < wanted {
        let event = stream.next().await.expect("it goes on");
        if event.name == "measurement" {
            timestamps.push(event.data["value"]["temperature"].as_f64().unwrap());
        }
    }
    timestamps
}

#[actix_rt::test]
async fn a_stream_tells_of_what_every_instance_commits() {
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
        let mut timestamps = told(stream, 40).await;
        timestamps.sort_by(f64::total_cmp);
        let all: Vec<f64> = (1..41).map(f64::from).collect();
        assert_eq!(timestamps, all, "each once, whoever committed it");
    }
    let accounts = settled(&[&one, &other], 40).await;
    assert!(accounts.iter().all(|it| it.committed > 0), "{accounts:?}");
}

/// What an instance has committed may be untold when it dies: the streams of the others say so.
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
    let before_death = one.log();
    assert!(!before_death.contains("an instance has died"), "{before_death}");
    others[1].kill();

    let last = loop {
        let event = stream.next().await.expect("it says why it ends");
        if event.name == "dropped" {
            break event;
        }
    };
    assert_eq!(last.data["reason"], "overrun", "{last:?}");
}

/// What the newcomer commits before it knows of the stream, it does not tell.
#[actix_rt::test]
async fn a_stream_ends_when_another_instance_joins() {
    let (broker, database) = (Broker::shared().await, database().await);
    let names = [format!("{}-1", database.name), format!("{}-2", database.name)];
    let settings = |name| [("MQTT_SHARED_GROUP", database.name.as_str()), ("MQTT_CLIENT_ID", name)];
    let one = Service::start(&database, broker, &settings(&names[0])).await;
    let sensor = one.create_sensor("joined").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut stream = Events::open(&one.url(), &path, "").await;
    stream.expect("open").await;

    let _other = Service::start(&database, broker, &settings(&names[1])).await;

    assert_eq!(stream.expect("dropped").await["reason"], "overrun");
}
