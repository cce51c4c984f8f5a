//! The outbox and its table: the newest revision is published even if several instances publish, and one
//! configuration that cannot be published delays no other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Actor as _;
use tokio::sync::{mpsc, watch};
use tributary::config::read_store;
use tributary::domain::{
    Leadership, Ledger, NetworkIdentifier, SensorIdentifier, Subscriptions, Timestamp,
};
use tributary::metrics::Metrics;
use tributary::sensor::{Outbox, PublisherHandle, Wake};
use tributary::store::{NewSensor, PendingConfiguration, Store, migrate};
use tributary::tasks::Tasks;

use crate::support::postgres::{Database, connect};
use crate::support::service::database;
use crate::support::wait::{TIMEOUT, eventually};

async fn store() -> (Database, Store) {
    let database = database().await;
    let config = read_store(|name| (name == "DATABASE_URL").then(|| database.url.clone())).unwrap();
    migrate(&config).await.unwrap();
    let store = Store::new(&config);
    (database, store)
}

async fn sensor(store: &Store, name: &str) -> SensorIdentifier {
    let identifier = SensorIdentifier::random();
    store.create_sensor(&new_sensor(identifier, name)).await.unwrap();
    identifier
}

fn new_sensor(identifier: SensorIdentifier, name: &str) -> NewSensor {
    NewSensor {
        identifier,
        network: NetworkIdentifier::DEFAULT,
        name: name.into(),
        metadata: None,
        configuration: Some("{}".into()),
    }
}

fn publication(pending: &PendingConfiguration) -> (SensorIdentifier, i32, Timestamp) {
    (pending.sensor, pending.revision, pending.created_at)
}

#[actix_rt::test]
async fn the_newest_revision_is_published_again_after_a_late_older_one() {
    let (_database, store) = store().await;
    let sensor = sensor(&store, "raced").await;
    let older = store.unpublished_configurations(None, 10).await.unwrap();
    store.create_configuration(sensor, "{}", None).await.unwrap();
    let newest = store.unpublished_configurations(None, 10).await.unwrap();
    assert_eq!([older[0].revision, newest[0].revision], [1, 2]);

    // Another instance publishes the newest revision first, and then this one publishes the older.
    store.record_publications(&[publication(&newest[0])]).await.unwrap();
    assert_eq!(store.unpublished_configurations(None, 10).await.unwrap(), []);
    store.record_publications(&[publication(&older[0])]).await.unwrap();

    assert_eq!(store.unpublished_configurations(None, 10).await.unwrap(), newest);
    store.record_publications(&[publication(&newest[0])]).await.unwrap();
    assert_eq!(store.unpublished_configurations(None, 10).await.unwrap(), []);
}

#[actix_rt::test]
async fn a_late_clearance_makes_the_outbox_publish_the_configuration_again() {
    let (_database, store) = store().await;
    let identifier = sensor(&store, "first").await;
    store.delete_sensor(identifier).await.unwrap();
    store.purge_sensor(identifier).await.unwrap();
    let cleared = store.uncleared_sensors(None, 10).await.unwrap();
    store.create_sensor(&new_sensor(identifier, "second")).await.unwrap();
    let pending = store.unpublished_configurations(None, 10).await.unwrap();
    store.record_publications(&[publication(&pending[0])]).await.unwrap();

    store.record_clearances(&cleared).await.unwrap();

    assert_eq!(store.unpublished_configurations(None, 10).await.unwrap(), pending);
}

#[actix_rt::test]
async fn a_page_starts_after_the_last_sensor_of_the_page_before() {
    let (_database, store) = store().await;
    for name in ["a", "b", "c"] {
        sensor(&store, name).await;
    }
    let first = store.unpublished_configurations(None, 2).await.unwrap();
    let second = store.unpublished_configurations(Some(first[1].sensor), 2).await.unwrap();
    let mut sensors: Vec<_> = first.iter().chain(&second).map(|it| it.sensor).collect();
    sensors.dedup();
    assert_eq!((first.len(), second.len(), sensors.len()), (2, 1, 3));
}

/// The publisher receives the first configuration, does not reply, and receives no other.
#[actix_rt::test]
async fn a_hanging_publisher_ends_the_round_and_the_rest_is_published_later() {
    let (_database, store) = store().await;
    let sensors = [sensor(&store, "one").await, sensor(&store, "other").await];
    let (downlinks, mut received) = mpsc::channel(1);
    let metrics = Arc::new(Metrics::new(Arc::new(Ledger::default())));
    let publisher = PublisherHandle { downlinks, connected: watch::channel(true).1 };
    let store = (store, Tasks::default(), Leadership::always());
    let _outbox =
        Outbox::new(store, publisher, Subscriptions::none(), Arc::clone(&metrics)).start();
    let start = Instant::now();
    // 15 s until the second is received, and 15 s until the reply to the first.
    eventually(2 * TIMEOUT, async || match metrics.outbox_failures.get() {
        0 => Err(start.elapsed()),
        _ => Ok(()),
    })
    .await;
    assert!(start.elapsed() > Duration::from_secs(15));
    let mut published = Vec::new();
    while published.len() < sensors.len() {
        let downlink = received.recv().await.unwrap();
        // The outbox no longer waits for the reply to the first.
        if downlink.published.send(Ok(())).is_ok() {
            published.push(downlink.sensor);
        }
    }
    published.sort();
    assert_eq!(
        published,
        std::collections::BTreeSet::from(sensors).into_iter().collect::<Vec<_>>()
    );
}

/// A wake-up causes an attempt at once, and adds no pause of its own.
#[actix_rt::test]
async fn wake_ups_during_an_outage_do_not_add_up_pauses() {
    let (_database, store) = store().await;
    sensor(&store, "waits").await;
    let (downlinks, mut received) = mpsc::channel(1);
    let metrics = Arc::new(Metrics::new(Arc::new(Ledger::default())));
    let publisher = PublisherHandle { downlinks, connected: watch::channel(true).1 };
    let store = (store, Tasks::default(), Leadership::always());
    let outbox = Outbox::new(store, publisher, Subscriptions::none(), Arc::clone(&metrics)).start();
    let mut fail_one_attempt = async || {
        let failures = metrics.outbox_failures.get();
        drop(received.recv().await.unwrap());
        eventually(TIMEOUT, async || match metrics.outbox_failures.get() {
            count if count > failures => Ok(()),
            count => Err(count),
        })
        .await;
    };
    for _ in 0..30 {
        fail_one_attempt().await;
        outbox.send(Wake).await.unwrap();
    }

    // The attempt after the last wake-up, and two after a pause of 2.5 to 5 s each.
    let start = Instant::now();
    for _ in 0..3 {
        fail_one_attempt().await;
    }
    assert!(start.elapsed() > Duration::from_secs(5), "{:?}", start.elapsed());
}

/// A round fails, and the instance loses the leadership before it tries the round again.
#[actix_rt::test]
async fn the_outbox_publishes_again_after_it_lost_and_regained_the_leadership() {
    let (database, store) = store().await;
    sensor(&store, "waits").await;
    let (downlinks, mut received) = mpsc::channel(1);
    let metrics = Arc::new(Metrics::new(Arc::new(Ledger::default())));
    let publisher = PublisherHandle { downlinks, connected: watch::channel(true).1 };
    let (leads_until, leadership) = Leadership::new();
    let later = Instant::now() + Duration::from_secs(600);
    let client = connect(&database.url).await.unwrap();
    client.batch_execute("alter table configuration rename to unavailable").await.unwrap();
    let parts = (store, Tasks::default(), leadership);
    let outbox = Outbox::new(parts, publisher, Subscriptions::none(), Arc::clone(&metrics)).start();
    leads_until.send_replace(Some(later));
    eventually(TIMEOUT, async || match metrics.outbox_failures.get() {
        0 => Err(()),
        _ => Ok(()),
    })
    .await;
    leads_until.send_replace(None);
    // Longer than the pause before the second attempt, during which another instance leads.
    actix_rt::time::sleep(Duration::from_secs(3)).await;
    client.batch_execute("alter table unavailable rename to configuration").await.unwrap();
    leads_until.send_replace(Some(later));
    outbox.send(Wake).await.unwrap();
    let downlink = actix_rt::time::timeout(TIMEOUT, received.recv()).await.unwrap().unwrap();
    downlink.published.send(Ok(())).unwrap();
}
