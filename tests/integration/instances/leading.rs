//! One instance leads: at most one at any time, and another one when it is dead or cut off.

use std::time::{Duration, Instant};

use actix_rt::time::timeout;
use serde_json::{Value, json};
use tributary::domain::{Faults, Leadership};
use tributary::instances::lead;
use tributary::store::{self, LeaderLock};

use super::{client_id, instance, know_each_other};
use crate::metrics::Reading;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::service::{Service, database};
use crate::support::store::config;
use crate::support::tcp_proxy::TcpProxy;
use crate::support::wait::{TIMEOUT, eventually};

/// Waits until one of the instances leads, and returns its place.
async fn leader(instances: &[&Service]) -> usize {
    eventually(TIMEOUT, async || {
        let mut leaders = Vec::new();
        for (place, instance) in instances.iter().enumerate() {
            if Reading::of(instance).await.sum("tributary_leader", &[]) == 1.0 {
                leaders.push(place);
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
async fn a_configuration_is_published_once_by_whoever_leads() {
    let (broker, database) = (Broker::shared().await, database().await);
    let mut instances =
        [instance(&database, broker, "1", &[]).await, instance(&database, broker, "2", &[]).await];
    know_each_other(&instances.iter().collect::<Vec<_>>()).await;
    let sensor = instances[0].create_sensor("configured").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    client.subscribe(&format!("{}/configurations/{sensor}", database.name)).await;
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    let led_by = leader(&instances.iter().collect::<Vec<_>>()).await;

    // Posted at the one that does not lead, again and again: each within a second or two, by the leader.
    for revision in 1..=5 {
        let began = Instant::now();
        let body = json!({ "interval": revision });
        let (status, answer) = instances[1 - led_by].post(&path, &body).await.unwrap();
        assert_eq!(status, 202, "{answer}");
        client.wait_for_messages(revision).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}: not by a poll", began.elapsed());
    }
    // The death of the leader.
    instances[led_by].kill();
    let survivor = &instances[1 - led_by];
    let began = Instant::now();
    leader(&[survivor]).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let (status, _) = survivor.post(&path, &json!({ "interval": 6 })).await.unwrap();
    assert_eq!(status, 202);

    let published = client.wait_for_messages(6).await;
    let revisions: Vec<Value> = published
        .iter()
        .map(|it| serde_json::from_str::<Value>(&it.payload).unwrap()["revision"].clone())
        .collect();
    assert_eq!(revisions, [1, 2, 3, 4, 5, 6].map(Value::from), "each once");
}

/// A process that keeps the leader's lock, or tries to get it.
fn process(config: &store::Config) -> (impl Future<Output = ()> + use<>, Leadership) {
    let (leads_until, leadership) = Leadership::new();
    let mut lock = LeaderLock::new(config);
    let leads = async move { lead(&mut lock, &leads_until, &Faults::default()).await };
    (leads, leadership)
}

/// Nothing arrives at PostgreSQL any more, which gives the lock away.
#[actix_rt::test]
async fn a_leader_that_is_cut_off_stops_before_another_one_leads() {
    let mut database = database().await;
    let direct = config(&database);
    let proxy = TcpProxy::before(&mut database, usize::MAX).await;
    let (one, mut leadership) = process(&config(&database));
    actix_rt::spawn(one);
    timeout(TIMEOUT, leadership.acquired()).await.unwrap();
    let (other, mut of_other) = process(&direct);
    actix_rt::spawn(other);
    proxy.freeze(true);

    timeout(TIMEOUT, of_other.acquired()).await.unwrap();

    assert!(!leadership.is_leader());
}

/// So that it cannot notice that it has lost the lock.
#[actix_rt::test]
async fn a_leader_that_is_blocked_stops_before_another_one_leads() {
    let config = config(&database().await);
    let (one, mut leadership) = process(&config);
    let mut one = Box::pin(one);
    tokio::select! {
        () = &mut one => {}
        acquired = timeout(TIMEOUT, leadership.acquired()) => acquired.unwrap(),
    }
    let (other, mut of_other) = process(&config);
    actix_rt::spawn(other);

    timeout(TIMEOUT, of_other.acquired()).await.unwrap();

    assert!(!leadership.is_leader());
    drop(one);
}
