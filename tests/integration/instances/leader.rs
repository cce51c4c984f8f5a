//! The leader: at most one instance at any time, and another one after it is killed or disconnected.

use std::time::{Duration, Instant};

use actix_rt::time::timeout;
use serde_json::{Value, json};
use tributary::domain::{Faults, Leadership};
use tributary::instances::lead;
use tributary::store::{self, LeaderLock};

use super::{client_id, instance, wait_until_all_are_listed};
use crate::metrics::MetricsSnapshot;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::service::{Service, database};
use crate::support::store::config;
use crate::support::tcp_proxy::TcpProxy;
use crate::support::wait::{TIMEOUT, eventually};

/// Waits until exactly one of the instances is the leader, and returns its index.
async fn leader(instances: &[&Service]) -> usize {
    eventually(TIMEOUT, async || {
        let mut leaders = Vec::new();
        for (index, instance) in instances.iter().enumerate() {
            if MetricsSnapshot::of(instance).await.sum("tributary_leader", &[]) == 1.0 {
                leaders.push(index);
            }
        }
        match leaders[..] {
            [leader] => Ok(leader),
            _ => Err(format!("{leaders:?}")),
        }
    })
    .await
}

#[actix_rt::test]
async fn a_configuration_is_published_once_by_the_leader() {
    let (broker, database) = (Broker::shared().await, database().await);
    let mut instances =
        [instance(&database, broker, "1", &[]).await, instance(&database, broker, "2", &[]).await];
    wait_until_all_are_listed(&instances.iter().collect::<Vec<_>>()).await;
    let sensor = instances[0].create_sensor("configured").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    client.subscribe(&format!("{}/configurations/{sensor}", database.name)).await;
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    let leader_index = leader(&instances.iter().collect::<Vec<_>>()).await;

    // Posted at the other instance; the leader publishes each within a few seconds.
    for revision in 1..=5 {
        let started_at = Instant::now();
        let body = json!({ "interval": revision });
        let (status, answer) = instances[1 - leader_index].post(&path, &body).await.unwrap();
        assert_eq!(status, 202, "{answer}");
        client.wait_for_messages(revision).await;
        assert!(
            started_at.elapsed() < Duration::from_secs(5),
            "{:?}: published by a poll",
            started_at.elapsed()
        );
    }
    instances[leader_index].kill();
    let survivor = &instances[1 - leader_index];
    let started_at = Instant::now();
    leader(&[survivor]).await;
    assert!(started_at.elapsed() < Duration::from_secs(6), "{:?}", started_at.elapsed());
    let (status, _) = survivor.post(&path, &json!({ "interval": 6 })).await.unwrap();
    assert_eq!(status, 202);

    let published = client.wait_for_messages(6).await;
    let revisions: Vec<Value> = published
        .iter()
        .map(|it| serde_json::from_str::<Value>(&it.payload).unwrap()["revision"].clone())
        .collect();
    assert_eq!(revisions, [1, 2, 3, 4, 5, 6].map(Value::from), "each is published once");
}

/// Acquires the leader's lock, and holds it.
fn candidate(config: &store::Config) -> (impl Future<Output = ()> + use<>, Leadership) {
    let (leads_until, leadership) = Leadership::new();
    let mut lock = LeaderLock::new(config);
    let leads = async move { lead(&mut lock, &leads_until, &Faults::default()).await };
    (leads, leadership)
}

/// No packet reaches PostgreSQL any more, which then releases the lock.
#[actix_rt::test]
async fn a_leader_with_a_half_open_connection_stops_before_another_one_leads() {
    let mut database = database().await;
    let direct = config(&database);
    let proxy = TcpProxy::start_in_front_of(&mut database, usize::MAX).await;
    let (one, mut leadership) = candidate(&config(&database));
    actix_rt::spawn(one);
    timeout(TIMEOUT, leadership.acquired()).await.unwrap();
    let (other, mut of_other) = candidate(&direct);
    actix_rt::spawn(other);
    proxy.freeze(true);

    timeout(TIMEOUT, of_other.acquired()).await.unwrap();

    assert!(!leadership.is_leader());
}

/// Its task is not polled, so that it cannot detect that it has lost the lock.
#[actix_rt::test]
async fn a_leader_that_is_blocked_stops_before_another_one_leads() {
    let config = config(&database().await);
    let (one, mut leadership) = candidate(&config);
    let mut one = Box::pin(one);
    tokio::select! {
        () = &mut one => {}
        acquired = timeout(TIMEOUT, leadership.acquired()) => acquired.unwrap(),
    }
    let (other, mut of_other) = candidate(&config);
    actix_rt::spawn(other);

    timeout(TIMEOUT, of_other.acquired()).await.unwrap();

    assert!(!leadership.is_leader());
    drop(one);
}
