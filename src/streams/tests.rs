//! The hub with its readers, without a database.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;
use uuid::Uuid;

use super::Config;
use super::hub::{Hub, NoRoom, Reader, StreamGrant};
use crate::domain::{
    Event, EventKind, Faults, NetworkIdentifier, Scope, SensorIdentifier, Step, Subscriptions,
    Timestamp,
};
use crate::store::Existing;

const GRANT: StreamGrant =
    StreamGrant { token: None, holder: None, scope: Scope::All, expires_at: None };

fn hub(max_readers: usize) -> (Arc<Hub>, Receiver<Vec<Event>>) {
    let (subscriptions, events) = Subscriptions::new();
    (Hub::new(Config { max_readers, keep_alive_secs: 1 }, subscriptions), events)
}

async fn next(reader: &mut Reader) -> String {
    let event = reader.next().await.expect("the stream goes on").unwrap();
    String::from_utf8(event.into()).unwrap()
}

fn step(revision: i32) -> EventKind {
    EventKind::Configuration { revision, step: Step::Pending }
}

#[actix_rt::test]
async fn a_reader_gets_the_news_of_its_sensor_and_of_no_other() {
    let (hub, mut events) = hub(10);
    let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
    let mut reader = hub.read_sensor(GRANT, one, None).unwrap();
    let _other = hub.read_sensor(GRANT, other, None).unwrap();
    assert!(next(&mut reader).await.contains("event: open"));
    hub.subscriptions().publish(other, step(1));
    hub.subscriptions().publish(one, step(2));
    hub.subscriptions().publish(one, EventKind::Deleted);
    let running = {
        let hub = Arc::clone(&hub);
        actix_rt::spawn(async move { hub.run(&mut events, &Faults::default()).await })
    };
    assert!(next(&mut reader).await.contains("\"revision\":2"));
    assert!(next(&mut reader).await.contains("\"reason\":\"deleted\""));
    assert!(reader.next().await.is_none());
    running.abort();
}

#[actix_rt::test]
async fn who_goes_leaves_nothing_behind_and_makes_room() {
    let (hub, _news) = hub(2);
    let sensor = SensorIdentifier::random();
    let first = hub.read_sensor(GRANT, sensor, None).unwrap();
    let second = hub.read_fleet(GRANT, None, Bytes::from_static(b"x")).unwrap();
    assert_eq!(hub.read_sensor(GRANT, sensor, None).unwrap_err(), NoRoom::TooMany);
    drop(first);
    assert!(hub.subscriptions().is_empty());
    assert_eq!(hub.fleet_scopes(), [None]);
    drop(second);
    assert!(hub.fleet_scopes().is_empty());
    let again = [(); 2].map(|()| hub.read_sensor(GRANT, sensor, None));
    assert!(again.iter().all(Result::is_ok));
}

#[actix_rt::test]
async fn at_the_end_everybody_is_told() {
    let (hub, _news) = hub(10);
    let mut sensor = hub.read_sensor(GRANT, SensorIdentifier::random(), None).unwrap();
    let mut fleet = hub.read_fleet(GRANT, None, Bytes::from_static(b"first")).unwrap();
    hub.close();
    for reader in [&mut sensor, &mut fleet] {
        next(reader).await;
        assert!(next(reader).await.contains("\"reason\":\"shutdown\""));
        assert!(reader.next().await.is_none());
    }
    let refused = hub.read_sensor(GRANT, SensorIdentifier::random(), None).unwrap_err();
    assert_eq!(refused, NoRoom::Closed);
}

#[actix_rt::test]
async fn who_may_no_longer_read_is_told_and_dropped() {
    let (hub, _news) = hub(10);
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let by = |token| StreamGrant { token: Some(token), holder: Some(token), ..GRANT };
    let sensor = SensorIdentifier::random();
    let mut revoked = hub.read_sensor(by(one), sensor, None).unwrap();
    let mut kept = hub.read_sensor(by(other), sensor, None).unwrap();
    let at = Timestamp::from_unix_microseconds(Timestamp::now().unix_microseconds() + 50_000);
    let until = StreamGrant { expires_at: Some(at), ..by(other) };
    let mut expired = hub.read_sensor(until, sensor, None).unwrap();
    let open = hub.open_grants();
    // Opened after the tables were read: it is not judged by what was read.
    let mut late = hub.read_sensor(by(Uuid::new_v4()), sensor, None).unwrap();
    let network = NetworkIdentifier::DEFAULT;
    let mut existing = Existing::default();
    existing.tokens.insert(other, Scope::All);
    existing.sensors.insert(sensor, network);
    hub.close_ended(&open, &existing);
    for reader in [&mut revoked, &mut expired] {
        next(reader).await;
        assert!(next(reader).await.contains("\"reason\":\"revoked\""));
        assert!(reader.next().await.is_none());
    }
    next(&mut kept).await;
    assert_eq!(next(&mut kept).await, ": keep-alive\n\n");
    next(&mut late).await;
    assert_eq!(next(&mut late).await, ": keep-alive\n\n");
    existing.tokens.insert(other, Scope::Network(network));
    hub.close_ended(&hub.open_grants(), &existing);
    for reader in [&mut kept, &mut late] {
        assert!(next(reader).await.contains("\"reason\":\"revoked\""));
    }
}

#[actix_rt::test]
async fn a_stream_ends_with_its_sensor_or_where_that_goes() {
    let (hub, _events) = hub(10);
    let (here, there) = (NetworkIdentifier::DEFAULT, NetworkIdentifier(Uuid::new_v4()));
    let (moved, deleted) = (SensorIdentifier::random(), SensorIdentifier::random());
    let of_network = StreamGrant { scope: Scope::Network(here), ..GRANT };
    let mut scoped = hub.read_sensor(of_network, moved, None).unwrap();
    let mut unscoped = hub.read_sensor(GRANT, moved, None).unwrap();
    let mut gone = hub.read_sensor(GRANT, deleted, None).unwrap();
    let mut existing = Existing::default();
    existing.sensors.insert(moved, there);
    hub.close_ended(&hub.open_grants(), &existing);
    for (reader, expected) in [
        (&mut scoped, "\"reason\":\"revoked\""),
        (&mut gone, "\"reason\":\"deleted\""),
        (&mut unscoped, ": keep-alive"),
    ] {
        next(reader).await;
        assert!(next(reader).await.contains(expected), "{expected}");
    }
}

#[actix_rt::test]
async fn one_caller_takes_a_quarter_of_the_streams_at_most() {
    let (hub, _events) = hub(8);
    let sensor = SensorIdentifier::random();
    let one = StreamGrant { holder: Some(Uuid::new_v4()), ..GRANT };
    let other = StreamGrant { holder: Some(Uuid::new_v4()), ..GRANT };
    let open = |grant| hub.read_sensor(grant, sensor, None);
    let _readers = (open(one).unwrap(), open(one).unwrap());
    assert_eq!(open(one).unwrap_err(), NoRoom::TooManyOfCaller);
    assert!(open(other).is_ok() && open(GRANT).is_ok());
}

#[actix_rt::test]
async fn a_quiet_stream_is_kept_alive() {
    let (hub, _news) = hub(10);
    let mut reader = hub.read_sensor(GRANT, SensorIdentifier::random(), None).unwrap();
    next(&mut reader).await;
    let opened_at = Instant::now();
    assert_eq!(next(&mut reader).await, ": keep-alive\n\n");
    assert!(opened_at.elapsed() > Duration::from_millis(500));
}
