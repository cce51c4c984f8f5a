//! The hub with its readers, without a database.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc::Receiver;
use uuid::Uuid;

use super::Config;
use super::hub::{Hub, NoRoom, Reader, StreamGrant};
use crate::domain::{Event, NetworkIdentifier, Scope, SensorIdentifier, Subscriptions, Timestamp};
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

#[actix_rt::test]
async fn a_reader_that_disconnects_frees_its_slot() {
    let (hub, _events) = hub(2);
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
async fn a_reader_whose_grant_has_ended_is_closed_with_a_reason() {
    let (hub, _events) = hub(10);
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
async fn one_caller_has_at_most_a_quarter_of_the_streams() {
    let (hub, _events) = hub(8);
    let sensor = SensorIdentifier::random();
    let one = StreamGrant { holder: Some(Uuid::new_v4()), ..GRANT };
    let other = StreamGrant { holder: Some(Uuid::new_v4()), ..GRANT };
    let open = |grant| hub.read_sensor(grant, sensor, None);
    let _readers = (open(one).unwrap(), open(one).unwrap());
    assert_eq!(open(one).unwrap_err(), NoRoom::TooManyOfCaller);
    assert!(open(other).is_ok() && open(GRANT).is_ok());
}
