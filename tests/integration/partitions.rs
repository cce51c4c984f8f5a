//! Partitions are made for sane moments, and take over what the default one holds of theirs.

use std::time::Duration;

use tributary::domain::Timestamp;
use tributary::store::{self, Committer, Housekeeper, Path, Store, StoreError};

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::postgres::{Database, Postgres, connect};
use crate::support::said::{measurement, measurements};
use crate::support::service::{Service, count, database};
use crate::support::store::{batch, config};
use crate::support::wait::PATIENCE;

const DAY: f64 = 86_400.0;

/// The partition in which the measurement at this second lies, and how many lie with it.
async fn partition_of(database: &Database, table: &str, second: f64) -> (String, i64) {
    let client = connect(&database.url).await.unwrap();
    let query = format!(
        "select tableoid::regclass::text, count(*) over () from {table} \
         where creation_timestamp = to_timestamp($1)"
    );
    let row = client.query_one(&query, &[&second]).await.unwrap();
    (row.get(0), row.get(1))
}

#[actix_rt::test]
async fn sane_moments_get_a_partition_and_others_the_default() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("dated").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    let now = Timestamp::now().unix_seconds().floor();
    let (recent, in_2100) = (now - 30.0 * DAY, 4_102_444_800.0);

    client.publish(&topic, measurements([0.0, recent, now, in_2100])).await.unwrap();
    service.until(|account| account.committed == 4).await;

    for second in [0.0, in_2100] {
        assert_eq!(partition_of(&database, "measurement", second).await.0, "measurement_default");
    }
    for second in [recent, now] {
        let (partition, _) = partition_of(&database, "measurement", second).await;
        assert!(partition.starts_with("measurement_p20"), "{partition}");
    }
}

#[actix_rt::test]
async fn a_new_partition_takes_over_what_the_default_one_holds() {
    let database = database().await;
    let config = config(&database);
    store::migrate(&config).await.unwrap();
    let client = connect(&database.url).await.unwrap();
    client
        .batch_execute(
            "insert into measurement
             select gen_random_uuid(), moment, now(), 0, 0, '{}'
             from unnest(array[now(), now() + interval '7 days', '1970-01-01'::timestamptz]) moment",
        )
        .await
        .unwrap();
    let in_default = "select count(*) from measurement_default";
    assert_eq!(count(&database, in_default).await, 3);

    Housekeeper::new(Store::new(&config), &config).round().await.unwrap();

    assert_eq!(count(&database, in_default).await, 1, "1970 stays");
    assert_eq!(count(&database, "select count(*) from measurement").await, 3);
}

/// To make one may take half an hour; to find out that nobody is there must not.
#[actix_rt::test]
async fn a_silent_server_is_found_out_before_a_partition_is_waited_for() {
    let postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    let mut config = config(&database);
    config.statement_timeout_secs = 1;
    store::migrate(&config).await.unwrap();
    let committer = Committer::new(&config, 1);
    let now = Timestamp::now().unix_seconds().floor();
    let batch = |second: f64| batch(&measurement(second));
    committer.commit(batch(now), Path::Straight).await.unwrap();
    let writer =
        "select pid::bigint from pg_stat_activity where application_name = 'tributary-write'";
    let backend = i32::try_from(count(&database, writer).await).unwrap();

    postgres.freeze_backend(backend);
    let asked = committer.commit(batch(now - 60.0 * DAY), Path::Straight);
    let outcome = tokio::time::timeout(PATIENCE, asked).await;
    postgres.thaw_backend(backend);

    let uncommitted = outcome.expect("it is given up").unwrap_err();
    let StoreError::Silence { waited } = uncommitted.error else { panic!("{uncommitted:?}") };
    assert_eq!(waited, Duration::from_secs(2), "twice the statement's timeout");
}
