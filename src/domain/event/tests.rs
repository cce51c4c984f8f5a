use super::*;
use futures_util::FutureExt as _;

#[test]
fn a_sensor_is_watched_until_its_last_subscriber_leaves() {
    let (subscriptions, _events) = Subscriptions::new();
    let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
    assert!(subscriptions.is_empty());
    subscriptions.subscribe(one);
    subscriptions.subscribe(one);
    assert!(subscriptions.is_subscribed(one) && !subscriptions.is_subscribed(other));
    subscriptions.unsubscribe(one);
    subscriptions.unsubscribe(other);
    assert!(subscriptions.is_subscribed(one));
    subscriptions.unsubscribe(one);
    assert!(subscriptions.is_empty() && !subscriptions.is_subscribed(one));
}

#[test]
fn events_reach_subscribers_without_waiting_for_them() {
    let (subscriptions, mut events) = Subscriptions::new();
    subscriptions.set_peers([], false);
    let sensor = SensorIdentifier::random();
    subscriptions.publish(sensor, EventKind::Deleted);
    assert!(events.try_recv().is_err(), "nobody watches");
    subscriptions.subscribe(sensor);
    for _ in 0..WAITING_BATCHES {
        subscriptions.publish(sensor, EventKind::Deleted);
    }
    assert!(!subscriptions.has_lost());
    subscriptions.publish(sensor, EventKind::Deleted);
    assert!(subscriptions.has_lost() && !subscriptions.has_lost());
    assert_eq!(events.try_recv().unwrap(), [Event { sensor, what: EventKind::Deleted }]);
}

#[actix_rt::test]
async fn subscribers_are_unknown_before_the_other_instances_were_read() {
    let (subscriptions, _events) = Subscriptions::new();
    assert!(subscriptions.known_to_peers().now_or_never().is_none());
    assert!(subscriptions.joined().now_or_never().is_none() && subscriptions.has_peers());
    subscriptions.set_known_version(None);
    assert!(subscriptions.known_to_peers().await, "there are none");
    subscriptions.joined().await;
}

#[actix_rt::test]
async fn events_of_other_instances_wait_for_the_hub() {
    let (subscriptions, mut events) = Subscriptions::new();
    let sensor = SensorIdentifier::random();
    subscriptions.subscribe(sensor);
    let event = Event { sensor, what: EventKind::Deleted };
    for _ in 0..WAITING_BATCHES {
        subscriptions.receive(vec![event.clone()]).await;
    }
    let mut one_more = std::pin::pin!(subscriptions.receive(vec![event.clone()]));
    assert!(one_more.as_mut().now_or_never().is_none());
    events.recv().await.unwrap();
    one_more.await;
    assert!(!subscriptions.has_lost());
}
