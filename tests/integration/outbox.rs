//! The outbox's table: what is published is the newest, whoever publishes beside us, and a sensor that cannot be
//! published to keeps nobody waiting.

use tributary::config::read_store;
use tributary::domain::{NetworkIdentifier, SensorIdentifier, Timestamp};
use tributary::store::{NewSensor, PendingConfiguration, Store, migrate};

use crate::support::postgres::Database;
use crate::support::service::database;

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
    assert_eq!([older[0].revision, newest[0].revision], [0, 1]);

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
