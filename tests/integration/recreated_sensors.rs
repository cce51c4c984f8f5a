//! Messages, journal entries and publications of a sensor that was deleted, and of one that was created again with its
//! identifier. Nothing of the first life is recorded twice or counted for the second, whatever the clocks say.

use std::time::Duration;

use tributary::domain::{
    Batch, NetworkIdentifier, RawMessage, Reason, SensorIdentifier, Timestamp,
};
use tributary::store::{self, Committer, CopyMode, NewSensor, Store};

use crate::support::payloads::{heartbeat, measurement};
use crate::support::postgres::{Database, connect};
use crate::support::service::{count, database};
use crate::support::store::{batch_of_message, config};

const GOOD_AND_BAD: &str = r#"{"measurements":[
    {"revision":0,"timestamp":1,"value":{"t":1}},{"revision":0,"timestamp":2,"value":{"t":[]}}]}"#;

const THREE_BAD: &str = r#"{"measurements":[{"revision":0,"timestamp":1,"value":{"t":[]}},
    {"revision":0,"timestamp":2,"value":{"t":[]}},{"revision":0,"timestamp":3,"value":{"t":[]}}]}"#;

const REJECTIONS: &str = "select count(*) from rejection";

struct Fixture {
    database: Database,
    store: Store,
    committer: Committer,
    sensor: SensorIdentifier,
}

impl Fixture {
    /// A database with one sensor, which has revision 1.
    async fn new() -> Self {
        let database = database().await;
        let config = config(&database);
        store::migrate(&config).await.unwrap();
        let (store, committer) = (Store::new(&config), Committer::new(&config, 1));
        let fixture = Self { database, store, committer, sensor: SensorIdentifier::random() };
        fixture.create().await;
        fixture
    }

    async fn create(&self) {
        let sensor = NewSensor {
            identifier: self.sensor,
            network: NetworkIdentifier::DEFAULT,
            name: "sensor".into(),
            metadata: None,
            configuration: Some("{}".into()),
        };
        self.store.create_sensor(&sensor).await.unwrap();
    }

    async fn delete_and_purge(&self) {
        assert!(self.store.delete_sensor(self.sensor).await.unwrap());
        self.store.purge_sensor(self.sensor).await.unwrap();
    }

    /// A message of the sensor; `redelivered`: with DUP.
    fn batch(&self, level: &str, payload: &str, redelivered: bool, at: Timestamp) -> Batch {
        let topic = format!("{level}/{}", self.sensor);
        let mut message = RawMessage::new(&topic, payload.as_bytes(), at, redelivered);
        message.redelivered = redelivered;
        batch_of_message(message)
    }

    async fn commit(&self, batch: Batch) {
        self.committer.commit(batch, CopyMode::Staged).await.map(drop).unwrap();
    }

    async fn fold(&self) {
        while !self.store.fold_activity().await.unwrap().is_complete {}
    }

    async fn count(&self, query: &str) -> i64 {
        count(&self.database, query).await
    }

    async fn execute(&self, statements: &str) {
        connect(&self.database.url).await.unwrap().batch_execute(statements).await.unwrap();
    }

    /// Measurements in the roll-up.
    async fn counted(&self) -> i64 {
        let sum = "select coalesce(sum(hourly), 0)::bigint
            from sensor_hour, unnest(measurement_counts) as hourly";
        self.count(sum).await
    }
}

/// The clock of the service is ahead of the database's, and the first PUBACK was not sent.
#[actix_rt::test]
async fn a_redelivery_after_the_deletion_is_recorded_once_whatever_the_clocks_say() {
    let fixture = Fixture::new().await;
    let ahead = Timestamp::now().saturating_add(Duration::from_secs(60));
    fixture.commit(fixture.batch("measurements", GOOD_AND_BAD, false, ahead)).await;
    assert_eq!(fixture.count(REJECTIONS).await, 1, "the bad item");

    fixture.delete_and_purge().await;
    assert_eq!(fixture.count(REJECTIONS).await, 0);
    fixture.commit(fixture.batch("measurements", GOOD_AND_BAD, true, ahead)).await;

    assert_eq!(fixture.count(REJECTIONS).await, 1, "the whole message");
}

/// The clock of the database was ahead when the sensor was created, and has been corrected.
#[actix_rt::test]
async fn items_are_counted_also_before_the_creation_timestamp_of_their_sensor() {
    let fixture = Fixture::new().await;
    fixture.execute("update sensor set creation_timestamp = now() + interval '2 hours'").await;
    fixture.commit(fixture.batch("measurements", &measurement(1.0), false, Timestamp::now())).await;

    fixture.fold().await;

    assert_eq!(fixture.counted().await, 1);
}

#[actix_rt::test]
async fn the_journal_of_a_deleted_sensor_is_not_counted_for_its_successor() {
    let fixture = Fixture::new().await;
    let now = Timestamp::now();
    fixture.commit(fixture.batch("measurements", &measurement(1.0), false, now)).await;
    fixture.delete_and_purge().await;
    fixture.create().await;
    fixture.commit(fixture.batch("measurements", &measurement(2.0), false, now)).await;

    fixture.fold().await;

    assert_eq!(fixture.counted().await, 1);
}

/// The limit per sensor and hour leaves room for one of three.
#[actix_rt::test]
async fn a_message_recorded_as_a_whole_is_replaced_by_all_of_its_items() {
    let fixture = Fixture::new().await;
    let now = Timestamp::now();
    let mut whole = fixture.batch("measurements", THREE_BAD, false, now);
    whole.uplinks_mut()[0].reject(Reason::UnknownSensor, String::new());
    fixture.commit(whole).await;
    let mut items = fixture.batch("measurements", THREE_BAD, true, now);
    items.uplinks_mut()[0].rejections[1..].iter_mut().for_each(|it| it.kept = false);

    fixture.commit(items).await;

    assert_eq!(fixture.count("select sum(item_count) from rejection").await, 3);
}

/// Revision 1 is sent between the two deliveries of a heartbeat that names it, as when the sensor was created again and its
/// firmware still reports the predecessor's revision.
#[actix_rt::test]
async fn a_redelivered_heartbeat_does_not_acknowledge_a_revision_that_was_sent_later() {
    let fixture = Fixture::new().await;
    let heartbeat = heartbeat(1, 1.0, true);
    fixture.commit(fixture.batch("heartbeats", &heartbeat, false, Timestamp::now())).await;
    let pending = fixture.store.unpublished_configurations(None, 1).await.unwrap();
    fixture.store.record_sending(&pending).await.unwrap();
    let acknowledged = "select count(*) from configuration where success";

    fixture.commit(fixture.batch("heartbeats", &heartbeat, true, Timestamp::now())).await;
    assert_eq!(fixture.count(acknowledged).await, 0);

    // A sensor without a clock repeats itself.
    fixture.commit(fixture.batch("heartbeats", &heartbeat, false, Timestamp::now())).await;
    assert_eq!(fixture.count(acknowledged).await, 1);
}

/// An instance that had read a configuration before the deletion publishes it afterwards.
#[actix_rt::test]
async fn a_configuration_published_after_the_deletion_is_cleared_again() {
    let fixture = Fixture::new().await;
    let late = fixture.store.unpublished_configurations(None, 1).await.unwrap().remove(0);
    fixture.delete_and_purge().await;
    fixture.store.record_clearances(&[fixture.sensor]).await.unwrap();

    fixture
        .store
        .record_publications(&[(late.sensor, late.revision, late.created_at)])
        .await
        .unwrap();

    assert_eq!(fixture.store.uncleared_sensors(None, 10).await.unwrap(), [fixture.sensor]);
}

#[actix_rt::test]
async fn a_configuration_of_the_predecessor_published_late_brings_the_newest_again() {
    let fixture = Fixture::new().await;
    fixture.store.create_configuration(fixture.sensor, "{}", None).await.unwrap();
    let late = fixture.store.unpublished_configurations(None, 1).await.unwrap().remove(0);
    fixture.delete_and_purge().await;
    fixture.create().await;
    let newest = fixture.store.unpublished_configurations(None, 1).await.unwrap();
    assert_eq!([late.revision, newest[0].revision], [2, 1]);
    for it in [&newest[0], &late] {
        let published = (it.sensor, it.revision, it.created_at);
        fixture.store.record_publications(&[published]).await.unwrap();
    }

    assert_eq!(fixture.store.unpublished_configurations(None, 1).await.unwrap(), newest);
}

#[actix_rt::test]
async fn a_sensor_that_is_being_deleted_is_not_registered_again() {
    let fixture = Fixture::new().await;
    let missing = SensorIdentifier::random();
    let mut deleter = connect(&fixture.database.url).await.unwrap();
    let deletion = deleter.transaction().await.unwrap();
    let sensor = fixture.sensor;
    let delete = format!(
        "delete from sensor where identifier = '{sensor}';
         insert into deleted_sensor (identifier) values ('{sensor}')"
    );
    deletion.batch_execute(&delete).await.unwrap();

    let sensors = [sensor, missing];
    let registered = fixture.store.register_sensors(&sensors);
    let registered = tokio::time::timeout(crate::support::wait::TIMEOUT, registered).await;
    deletion.commit().await.unwrap();

    assert_eq!(registered.unwrap().unwrap(), 1, "the missing one");
    assert_eq!(fixture.store.known_sensors(&sensors).await.unwrap().len(), 1);
}
