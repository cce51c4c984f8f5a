//! The outbox's table: what is published is the newest, whoever publishes beside us, and a sensor that cannot be
//! published to keeps nobody waiting.

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
async fn an_older_revision_published_late_brings_the_newest_again() {
    let (_database, store) = store().await;
    let sensor = sensor(&store, "raced").await;
    let older = store.unpublished_configurations(None, 10).await.unwrap();
    store.create_configuration(sensor, "{}", None).await.unwrap();
    let newest = store.unpublished_configurations(None, 10).await.unwrap();
    assert_eq!([older[0].revision, newest[0].revision], [1, 2]);

    // Another instance is quicker with the newest, and then ours gets the older one through.
    store.record_publications(&[publication(&newest[0])]).await.unwrap();
    assert_eq!(store.unpublished_configurations(None, 10).await.unwrap(), []);
    store.record_publications(&[publication(&older[0])]).await.unwrap();

    assert_eq!(store.unpublished_configurations(None, 10).await.unwrap(), newest);
    store.record_publications(&[publication(&newest[0])]).await.unwrap();
    assert_eq!(store.unpublished_configurations(None, 10).await.unwrap(), []);
}

#[actix_rt::test]
async fn a_clearance_that_comes_late_brings_the_configuration_again() {
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
async fn a_page_goes_on_behind_the_last() {
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

/// A publisher that hangs takes the first, answers nothing, and then takes nothing either.
#[actix_rt::test]
async fn a_publisher_that_hangs_ends_the_round_and_what_waits_is_published_afterwards() {
    let (_database, store) = store().await;
    let sensors = [sensor(&store, "one").await, sensor(&store, "other").await];
    let (down, mut goes_down) = mpsc::channel(1);
    let metrics = Arc::new(Metrics::new(Arc::new(Ledger::default())));
    let publisher = PublisherHandle { downlinks: down, connected: watch::channel(true).1 };
    let store = (store, Tasks::default(), Leadership::always());
    let _outbox =
        Outbox::new(store, publisher, Subscriptions::none(), Arc::clone(&metrics)).start();
    let began = Instant::now();
    // 15 s for the second to be taken, and as long for the first to be answered.
    eventually(2 * TIMEOUT, async || match metrics.outbox_failures.get() {
        0 => Err(began.elapsed()),
        _ => Ok(()),
    })
    .await;
    assert!(began.elapsed() > Duration::from_secs(15), "it gives the publisher its time");
    let mut published = Vec::new();
    while published.len() < sensors.len() {
        let downlink = goes_down.recv().await.unwrap();
        // The first was given up: nobody waits for its answer.
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

/// Who wakes it while the broker is away is served at once, and leaves no pause of its own behind.
#[actix_rt::test]
async fn however_many_wake_it_in_an_outage_there_is_one_pause() {
    let (_database, store) = store().await;
    sensor(&store, "waits").await;
    let (down, mut goes_down) = mpsc::channel(1);
    let metrics = Arc::new(Metrics::new(Arc::new(Ledger::default())));
    let publisher = PublisherHandle { downlinks: down, connected: watch::channel(true).1 };
    let store = (store, Tasks::default(), Leadership::always());
    let outbox = Outbox::new(store, publisher, Subscriptions::none(), Arc::clone(&metrics)).start();
    // Nobody acknowledges.
    let mut a_try_fails = async || {
        let failures = metrics.outbox_failures.get();
        drop(goes_down.recv().await.unwrap());
        eventually(TIMEOUT, async || match metrics.outbox_failures.get() {
            count if count > failures => Ok(()),
            count => Err(count),
        })
        .await;
    };
    for _ in 0..30 {
        a_try_fails().await;
        outbox.send(Wake).await.unwrap();
    }

    // The one that was woken last, and two after a pause, each of which is 2.5 to 5 s by now.
    let rest = Instant::now();
    for _ in 0..3 {
        a_try_fails().await;
    }
    assert!(rest.elapsed() > Duration::from_secs(5), "{:?}", rest.elapsed());
}

/// An outage fails a round, and takes the leadership before the round is tried again.
#[actix_rt::test]
async fn an_outage_that_takes_the_leadership_leaves_the_outbox_ready_for_its_return() {
    let (database, store) = store().await;
    sensor(&store, "waits").await;
    let (down, mut goes_down) = mpsc::channel(1);
    let metrics = Arc::new(Metrics::new(Arc::new(Ledger::default())));
    let publisher = PublisherHandle { downlinks: down, connected: watch::channel(true).1 };
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
    // Longer than the pause before the second attempt, which finds that another instance leads.
    actix_rt::time::sleep(Duration::from_secs(3)).await;
    client.batch_execute("alter table unavailable rename to configuration").await.unwrap();
    leads_until.send_replace(Some(later));
    outbox.send(Wake).await.unwrap();
    let downlink = actix_rt::time::timeout(TIMEOUT, goes_down.recv()).await.unwrap().unwrap();
    downlink.published.send(Ok(())).unwrap();
}
