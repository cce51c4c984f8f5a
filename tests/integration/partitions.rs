//! Partitions are created for plausible timestamps, and the rows of their range move there from the default partition.

use std::time::Duration;

use tributary::domain::{SensorIdentifier, Timestamp};
use tributary::store::{self, Committer, CopyMode, EngineName, Housekeeper, Store, StoreError};

use crate::metrics::MetricsSnapshot;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{measurement, measurements};
use crate::support::postgres::{
    Database, Postgres, connect, skipped_on, without_empty_databases, without_partitions,
};
use crate::support::service::{Service, count, database};
use crate::support::store::{batch, config};
use crate::support::wait::{TIMEOUT, eventually};

const DAY: f64 = 86_400.0;

/// The partition of the measurement at this second, and its number of rows. Removes the number that Citus appends to
/// the name of a shard.
async fn partition_of(database: &Database, table: &str, second: f64) -> (String, i64) {
    let client = connect(&database.url).await.unwrap();
    let query = format!(
        "select regexp_replace(tableoid::regclass::text, '_[0-9]{{6,}}$', ''), count(*) over () from {table} \
         where creation_timestamp = to_timestamp($1) limit 1"
    );
    let row = client.query_one(&query, &[&second]).await.unwrap();
    (row.get(0), row.get(1))
}

#[actix_rt::test]
async fn only_plausible_timestamps_get_a_partition_of_their_own() {
    if without_partitions() {
        return;
    }
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("dated").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    let now = Timestamp::now().unix_seconds().floor();
    let (recent, in_2100) = (now - 30.0 * DAY, 4_102_444_800.0);

    client.publish(&topic, measurements([0.0, recent, now, in_2100])).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 4).await;

    for second in [0.0, in_2100] {
        assert_eq!(partition_of(&database, "measurement", second).await.0, "measurement_default");
    }
    for second in [recent, now] {
        let (partition, _) = partition_of(&database, "measurement", second).await;
        assert!(partition.starts_with("measurement_p20"), "{partition}");
    }
}

#[actix_rt::test]
async fn a_new_partition_takes_its_rows_from_the_default_partition() {
    if without_partitions() {
        return;
    }
    let database = database().await;
    let config = config(&database);
    store::migrate(&config).await.unwrap();
    let client = connect(&database.url).await.unwrap();
    client
        .batch_execute(
            "insert into measurement
             select gen_random_uuid(), created, now(), 0, 0, '{}'
             from unnest(array[now(), now() + interval '7 days', '1970-01-01'::timestamptz]) created",
        )
        .await
        .unwrap();
    let in_default = "select count(*) from measurement_default";
    assert_eq!(count(&database, in_default).await, 3);

    Housekeeper::new(Store::new(&config), &config).round().await.unwrap();

    assert_eq!(count(&database, in_default).await, 1, "the row of 1970");
    assert_eq!(count(&database, "select count(*) from measurement").await, 3);
}

/// The creation of a partition may take half an hour; the detection of an unresponsive server must not.
#[actix_rt::test]
async fn an_unresponsive_server_is_detected_before_a_partition_is_created() {
    let postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    let mut config = config(&database);
    config.statement_timeout_secs = 1;
    store::migrate(&config).await.unwrap();
    let committer = Committer::new(&config, 1);
    let now = Timestamp::now().unix_seconds().floor();
    let batch = |second: f64| batch(&measurement(second));
    committer.commit(batch(now), CopyMode::Direct).await.unwrap();
    let writer =
        "select pid::bigint from pg_stat_activity where application_name = 'tributary-write'";
    let backend = i32::try_from(count(&database, writer).await).unwrap();

    postgres.freeze_backend(backend);
    let commit = committer.commit(batch(now - 60.0 * DAY), CopyMode::Direct);
    let outcome = tokio::time::timeout(TIMEOUT, commit).await;
    postgres.thaw_backend(backend);

    let uncommitted = outcome.expect("the commit times out").unwrap_err();
    let StoreError::Silence { waited } = uncommitted.error else { panic!("{uncommitted:?}") };
    assert_eq!(waited, Duration::from_secs(2), "twice the statement timeout");
}

/// Waits for the first round of housekeeping, which runs at every start.
pub(crate) async fn wait_for_housekeeping(service: &Service) {
    eventually(TIMEOUT, async || {
        let reading = MetricsSnapshot::of(service).await;
        match reading.sum("tributary_housekeeping_success_timestamp_seconds", &[]) {
            0.0 => Err(reading),
            _ => Ok(()),
        }
    })
    .await;
}

/// PostgreSQL rejects a DELETE on a published table without a replica identity, even if no row matches.
#[actix_rt::test]
async fn a_publication_of_all_tables_does_not_break_inserts_or_deletions() {
    let shards = "its shards have no replica identity, so that deletions fail";
    if without_partitions() || skipped_on(&[EngineName::Citus], shards) {
        return;
    }
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    wait_for_housekeeping(&service).await;
    let sensor = service.create_sensor("published").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let now = Timestamp::now().unix_seconds().floor();
    let (one, other) = (now - 30.0 * DAY, now - 60.0 * DAY);
    let admin = connect(&database.url).await.unwrap();
    let publish = format!(
        "create publication everything for all tables;
         insert into measurement values ('{sensor}', to_timestamp({one}), now(), 1, 0, '{{}}')"
    );
    admin.batch_execute(&publish).await.unwrap();

    let without_identity = "select count(*) from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'r' and relreplident = 'd'
            and not exists (select from pg_index where indrelid = pg_class.oid and indisprimary)";
    assert_eq!(count(&database, without_identity).await, 0, "PostgreSQL would refuse updates");

    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurements([now, one, other])).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 3).await;

    for (second, rows) in [(one, 2), (other, 1)] {
        let (partition, count) = partition_of(&database, "measurement", second).await;
        assert!(partition.starts_with("measurement_p20") && count == rows, "{partition} {count}");
    }
    let config = config(&database);
    let store = Store::new(&config);
    let sensor = SensorIdentifier(sensor.parse().unwrap());
    assert!(store.delete_sensor(sensor).await.unwrap());
    assert_eq!(store.purge_sensor(sensor).await.unwrap(), 4);
    Housekeeper::new(store, &config).round().await.unwrap();
}

/// Changes that a user makes to the tables.
const CUSTOMISATION: &str = "\
alter table measurement
    add column day date not null generated always as ((creation_timestamp at time zone 'UTC')::date) stored,
    add column site text not null default 'here',
    alter column value set storage external,
    alter column value set compression pglz,
    alter column revision set statistics 500,
    alter column sensor_identifier set (n_distinct = 100),
    replica identity full;
alter table measurement_default set (autovacuum_vacuum_insert_threshold = 1234);
create statistics revisions (dependencies) on sensor_identifier, revision from measurement;
grant select on measurement to pg_monitor;
grant update (site) on measurement to pg_monitor;";

/// Needs PostgreSQL 18.
const VIRTUAL_COLUMN: &str = "\
alter table measurement add column hour numeric
    generated always as (extract(hour from creation_timestamp at time zone 'UTC')) virtual";

/// The number of columns of the partition $1 that differ from those of the table.
const COLUMN_DIFFERENCES: &str = "\
select count(*)
from pg_attribute as of_table
left join pg_attribute as of_part
    on of_part.attrelid = $1::text::regclass and of_part.attname = of_table.attname
where of_table.attrelid = 'measurement'::regclass and of_table.attnum > 0
  and (of_table.attstorage, of_table.attcompression, of_table.attgenerated, of_table.attnotnull,
       of_table.attstattarget, of_table.attacl::text,
       array(select option from unnest(of_table.attoptions) option where option not like 'pg\\_%'))
  is distinct from
      (of_part.attstorage, of_part.attcompression, of_part.attgenerated, of_part.attnotnull,
       of_part.attstattarget, of_part.attacl::text,
       array(select option from unnest(of_part.attoptions) option where option not like 'pg\\_%'))";

const PARTITION_PROPERTIES: &str = "\
select relreplident::text, reloptions::text, has_table_privilege('pg_monitor', oid, 'select'),
       exists (select from pg_statistic_ext where stxrelid = pg_class.oid)
from pg_class where oid = $1::text::regclass";

#[actix_rt::test]
async fn a_new_partition_inherits_all_properties_of_its_table() {
    if skipped_on(
        &[EngineName::TimescaleDb, EngineName::Citus],
        "partitions inherit fewer properties",
    ) {
        return;
    }
    let database = database().await;
    let config = config(&database);
    store::migrate(&config).await.unwrap();
    let admin = connect(&database.url).await.unwrap();
    admin.batch_execute(CUSTOMISATION).await.unwrap();
    if count(&database, "select current_setting('server_version_num')::bigint").await >= 180_000 {
        admin.batch_execute(VIRTUAL_COLUMN).await.unwrap();
    }
    let old = (Timestamp::now().unix_seconds() - 30.0 * DAY).floor();
    let in_default = "insert into measurement
        values (gen_random_uuid(), to_timestamp($1), now(), 1, 0, '{}')";
    admin.execute(in_default, &[&old]).await.unwrap();
    let committer = Committer::new(&config, 1);

    for mode in [CopyMode::Direct, CopyMode::Staged] {
        let committed = committer.commit(batch(&measurement(old)), mode).await.unwrap();
        assert_eq!(committed.deleted, []);
    }

    let (partition, rows) = partition_of(&database, "measurement", old).await;
    assert!(partition.starts_with("measurement_p20") && rows == 3, "{partition} {rows}");
    let complete = "select count(*) from measurement
        where site = 'here' and day = (creation_timestamp at time zone 'UTC')::date";
    assert_eq!(count(&database, complete).await, 3);
    let differences: i64 = admin.query_one(COLUMN_DIFFERENCES, &[&partition]).await.unwrap().get(0);
    assert_eq!(differences, 0);
    let properties = admin.query_one(PARTITION_PROPERTIES, &[&partition]).await.unwrap();
    let options = "{autovacuum_vacuum_insert_threshold=1234}";
    let (identity, found): (&str, &str) = (properties.get(0), properties.get(1));
    assert_eq!((identity, found), ("f", options));
    assert!(properties.get::<_, bool>(2) && properties.get::<_, bool>(3), "{properties:?}");
}

/// Here an event trigger rejects the creation.
#[actix_rt::test]
async fn rows_go_to_the_default_partition_if_theirs_cannot_be_created() {
    if without_partitions() {
        return;
    }
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    wait_for_housekeeping(&service).await;
    let sensor = service.create_sensor("refused").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let admin = connect(&database.url).await.unwrap();
    let refuse = "create function refuse() returns event_trigger language plpgsql
        as $$ begin raise exception 'no tables today'; end $$;
        create event trigger refuse on ddl_command_start when tag in ('CREATE TABLE')
        execute function refuse()";
    admin.batch_execute(refuse).await.unwrap();
    let now = Timestamp::now().unix_seconds().floor();
    let topic = format!("{}/measurements/{sensor}", database.name);

    let days = [30.0, 60.0, 90.0];
    for (day, number) in days.into_iter().zip(1..) {
        client.publish(&topic, measurement(now - day * DAY)).await.unwrap();
        service.wait_for_ledger(|entry| entry.committed == number).await;
    }

    assert_eq!(count(&database, "select count(*) from measurement_default").await, 3);
    let log = service.log();
    let warnings: Vec<_> =
        log.lines().filter(|line| line.contains("partition not created")).collect();
    assert!(matches!(warnings[..], [one] if one.contains("no tables today")), "{warnings:?}");

    admin.batch_execute("drop event trigger refuse").await.unwrap();
    // A new committer has not postponed any partition.
    let committer = Committer::new(&config(&database), 1);
    for day in days {
        committer.commit(batch(&measurement(now - day * DAY)), CopyMode::Direct).await.unwrap();
    }
    assert_eq!(count(&database, "select count(*) from measurement_default").await, 0);
    assert_eq!(count(&database, "select count(*) from measurement").await, 6);
}

/// A long read locks the default partition, and the creation of another partition needs an exclusive lock on it.
#[actix_rt::test]
async fn commits_do_not_wait_for_a_partition_during_a_long_read() {
    if without_partitions() {
        return;
    }
    let database = database().await;
    let config = config(&database);
    store::migrate(&config).await.unwrap();
    let mut reader = connect(&database.url).await.unwrap();
    let transaction = reader.transaction().await.unwrap();
    transaction.query_one("select count(*) from measurement", &[]).await.unwrap();
    let old = Timestamp::now().unix_seconds().floor() - 30.0 * DAY;
    let committer = Committer::new(&config, 2);

    // The first one times out on the lock, and the others do not try.
    for limit in [4, 1, 1] {
        let commit = committer.commit(batch(&measurement(old)), CopyMode::Direct);
        tokio::time::timeout(Duration::from_secs(limit), commit).await.unwrap().unwrap();
    }

    assert_eq!(partition_of(&database, "measurement", old).await.0, "measurement_default");
    let waiting = Housekeeper::new(Store::new(&config), &config).round().await.unwrap();
    let [of_measurements, others @ ..] = waiting.map(|it| it.to_create);
    assert!(of_measurements >= 2 && others == [0, 0], "{waiting:?}");
    transaction.rollback().await.unwrap();
    let committer = Committer::new(&config, 1);
    committer.commit(batch(&measurement(old)), CopyMode::Direct).await.unwrap();
    let (partition, rows) = partition_of(&database, "measurement", old).await;
    assert!(partition.starts_with("measurement_p20") && rows == 4, "{partition} {rows}");
}

/// `migrate` runs as the owner of the tables, and the role of the service is a member of that role: the owner can alter
/// the partitions that the service creates.
#[actix_rt::test]
async fn a_partition_belongs_to_the_owner_of_its_table() {
    if without_empty_databases() {
        return;
    }
    let postgres = Postgres::start().await;
    let mut database = postgres.create_database(None).await;
    let admin = connect(&database.url).await.unwrap();
    let roles = format!(
        "create role owner login; create role service login in role owner;
         alter database {} owner to owner",
        database.name
    );
    admin.batch_execute(&roles).await.unwrap();
    let url = database.url.clone();
    let mut config_of = |role: &str| {
        database.url = url.replace("//postgres@", &format!("//{role}@"));
        config(&database)
    };
    store::migrate(&config_of("owner")).await.unwrap();
    let config = config_of("service");
    let month_ago = Timestamp::now().unix_seconds().floor() - 30.0 * DAY;

    Housekeeper::new(Store::new(&config), &config).round().await.unwrap();
    let committer = Committer::new(&config, 1);
    committer.commit(batch(&measurement(month_ago)), CopyMode::Direct).await.unwrap();

    database.url = url;
    let (partition, _) = partition_of(&database, "measurement", month_ago).await;
    assert!(partition.starts_with("measurement_p20"), "{partition}");
    let foreign = "select count(*) from pg_class
        where relnamespace = 'public'::regnamespace and relowner <> 'owner'::regrole";
    assert_eq!(count(&database, foreign).await, 0);

    // Without the privilege to create tables the rows are stored in the default partition.
    admin.batch_execute("revoke create on schema public from pg_database_owner").await.unwrap();
    let two_months_ago = month_ago - 30.0 * DAY;
    committer.commit(batch(&measurement(two_months_ago)), CopyMode::Direct).await.unwrap();
    let (partition, _) = partition_of(&database, "measurement", two_months_ago).await;
    assert_eq!(partition, "measurement_default");
}
