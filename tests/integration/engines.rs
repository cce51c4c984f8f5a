//! The engines: chosen only while the tables are empty; each of them stores every row once. Without an extension, a
//! stand-in for its functions is used, so that plain PostgreSQL runs every statement.

use std::process::Command;

use tributary::domain::{Batch, SensorIdentifier, Timestamp};
use tributary::store::{
    self, Committer, CopyMode, EngineName, Housekeeper, Recovery, Store, StoreError,
};

use crate::support::payloads::measurement;
use crate::support::postgres::{Database, connect, engine};
use crate::support::service::{count, database};
use crate::support::store::{batch_from, config};

const DAY: f64 = 86_400.0;

/// The functions of TimescaleDB that are used. A chunk is a table that inherits from its hypertable.
pub(crate) const STAND_IN: &str = "\
create schema timescaledb_information;
create table timescaledb_information.chunks (
    hypertable_schema name default 'public', hypertable_name name, chunk_schema name default 'public',
    chunk_name name, range_start timestamptz, range_end timestamptz, is_compressed boolean default false
);
create table timescaledb_information.hypertables (
    hypertable_schema name, hypertable_name name, compression_enabled boolean
);
create function create_hypertable(
    regclass, name, chunk_time_interval interval, create_default_indexes boolean
) returns void language sql as 'select';
create function hypertable_size(regclass) returns bigint language sql as 'select pg_total_relation_size($1)';
create function drop_chunks(relation regclass, older_than timestamptz, newer_than timestamptz)
returns void language plpgsql as $$
declare chunk name;
begin
    delete from timescaledb_information.chunks
    where hypertable_name = relation::text and range_end <= older_than and range_start >= newer_than
    returning chunk_name into strict chunk;
    execute format('drop table %I', chunk);
end $$;
create function compress_chunk(chunk regclass, if_not_compressed boolean) returns regclass language sql as $$
    update timescaledb_information.chunks set is_compressed = true where chunk_name = chunk::text;
    select chunk
$$;
insert into timescaledb_information.hypertables
select 'public', name || '_chunks', true from unnest(array['measurement', 'log_message', 'heartbeat']) as name;
do $$ begin
    execute format('alter database %I set timescaledb.license = timescale', current_database());
end $$;
set tributary.partition_days = '7';";

pub(crate) const STEPS: &str =
    include_str!("../../migrations/timescaledb/V1001__timescaledb_hypertables.sql");

/// A database with the tables of TimescaleDB; `None` if the tests run on another extension.
pub(crate) async fn hypertables() -> Option<Database> {
    let database = database().await;
    match engine() {
        EngineName::TimescaleDb => Some(database),
        EngineName::Postgres => {
            store::migrate(&config(&database)).await.unwrap();
            let admin = connect(&database.url).await.unwrap();
            admin.batch_execute(STAND_IN).await.unwrap();
            admin.batch_execute(STEPS).await.unwrap();
            Some(database)
        }
        EngineName::Citus => None,
    }
}

/// The functions of Citus that are used. All shards are the table itself.
pub(crate) const CITUS_STAND_IN: &str = "\
create function create_distributed_table(
    relation regclass, distribution_column text, shard_count integer default 8, colocate_with text default 'default'
) returns void language plpgsql as $$ begin
    if exists (select from pg_trigger where tgrelid = relation and not tgisinternal) then
        raise exception 'cannot distribute % because it has triggers', relation;
    end if;
end $$;
create function truncate_local_data_after_distributing_table(regclass) returns void language sql as 'select';
create function citus_total_relation_size(regclass, fail_on_error boolean) returns bigint
language sql as 'select pg_total_relation_size($1)';
create function citus_relation_size(regclass) returns bigint language sql as 'select pg_relation_size($1)';
set tributary.citus_shards = '4';";

pub(crate) const CITUS_STEPS: &str = concat!(
    include_str!("../../migrations/citus/V2001__citus_distribution.sql"),
    include_str!("../../migrations/citus/V2002__sensor_hour.sql"),
);

/// A database with the tables of Citus; `None` if the tests run on another extension.
async fn distributed() -> Option<Database> {
    let database = database().await;
    match engine() {
        EngineName::Citus => Some(database),
        EngineName::Postgres => {
            store::migrate(&config(&database)).await.unwrap();
            let admin = connect(&database.url).await.unwrap();
            admin.batch_execute(CITUS_STAND_IN).await.unwrap();
            admin.batch_execute(CITUS_STEPS).await.unwrap();
            Some(database)
        }
        EngineName::TimescaleDb => None,
    }
}

#[actix_rt::test]
async fn rows_move_to_a_distributed_partition_after_it_is_attached() {
    let Some(database) = distributed().await else { return };
    let config = config(&database);
    let now = Timestamp::now().unix_seconds().floor();
    let admin = connect(&database.url).await.unwrap();
    for second in [0.0, now, now + 7.0 * DAY, now - 30.0 * DAY] {
        let insert = format!(
            "insert into measurement values (gen_random_uuid(), to_timestamp({second}), now(), 0, 0, '{{}}')"
        );
        admin.batch_execute(&insert).await.unwrap();
    }

    Housekeeper::new(Store::new(&config), &config).round().await.unwrap();
    assert_eq!(count(&database, "select count(*) from measurement_default").await, 2);
    let committer = Committer::new(&config, 1);
    let month_ago = batch(SensorIdentifier::random(), now - 30.0 * DAY);
    committer.commit(month_ago, CopyMode::Direct).await.unwrap();

    assert_eq!(count(&database, "select count(*) from measurement_default").await, 1);
    assert_eq!(count(&database, "select count(*) from measurement").await, 5);
    let census = Store::new(&config).census().await.unwrap();
    let measurements = census.iter().find(|it| it.table == "measurement").unwrap();
    assert!(measurements.partitions == 3 && measurements.bytes > 0, "{census:?}");
    assert!(measurements.end.is_some() && measurements.default_bytes > 0, "{census:?}");
}

#[actix_rt::test]
async fn the_roll_up_is_colocated_with_its_rows() {
    if engine() != EngineName::Citus {
        return;
    }
    let colocated = "select count(*) from pg_dist_partition as hot
        join pg_dist_partition as rollup using (colocationid, partmethod)
        where hot.logicalrelid = 'measurement'::regclass and rollup.logicalrelid = 'sensor_hour'::regclass";
    assert_eq!(count(&database().await, colocated).await, 1);
}

#[actix_rt::test]
async fn a_duplicate_on_a_worker_sends_the_batch_through_the_staging_table() {
    let Some(database) = distributed().await else { return };
    let sensor = SensorIdentifier::random();
    let now = Timestamp::now().unix_seconds().floor();
    let committer = Committer::new(&config(&database), 1);
    committer.commit(batch(sensor, now), CopyMode::Direct).await.unwrap();
    let refused = committer.commit(batch(sensor, now), CopyMode::Direct).await.unwrap_err();
    assert_eq!(store::recovery(&refused.error), Recovery::Stage, "{}", refused.error);
    committer.commit(refused.batch, CopyMode::Staged).await.unwrap();
    assert_eq!(count(&database, "select count(*) from measurement").await, 1);
}

#[actix_rt::test]
async fn an_expired_distributed_partition_and_other_expired_rows_are_deleted() {
    let Some(database) = distributed().await else { return };
    let config = store::Config { measurement_retention_days: Some(100), ..config(&database) };
    let admin = connect(&database.url).await.unwrap();
    let begin: String = admin
        .query_one("select (date_trunc('week', now(), 'UTC') - interval '30 weeks')::text", &[])
        .await
        .unwrap()
        .get(0);
    for statement in [
        format!(
            "create table measurement_p30 partition of measurement
             for values from ('{begin}') to ('{begin}'::timestamptz + interval '7 days')"
        ),
        format!("insert into measurement values (gen_random_uuid(), '{begin}', '{begin}', 0, 0, '{{}}')"),
        "insert into measurement values (gen_random_uuid(), to_timestamp(0), now() - interval '101 days', 0, 0, '{}')".into(),
        "insert into measurement values (gen_random_uuid(), to_timestamp(0), now() - interval '200 days', 0, 0, '{}')".into(),
        "insert into measurement values (gen_random_uuid(), to_timestamp(0), now() - interval '99 days', 0, 0, '{}')".into(),
    ] {
        // Citus accepts only one command per string.
        admin.batch_execute(&statement).await.unwrap();
    }

    Housekeeper::new(Store::new(&config), &config).round().await.unwrap();

    assert_eq!(count(&database, "select count(*) from measurement").await, 1);
    let partition = "select count(*) from pg_class where relname like 'measurement_p30%'";
    assert_eq!(count(&database, partition).await, 0);
}

fn batch(sensor: SensorIdentifier, second: f64) -> Batch {
    batch_from(sensor, "measurements", &measurement(second))
}

fn with_past_days(database: &Database, days: u32) -> store::Config {
    store::Config { partition_past_days: days, ..config(database) }
}

#[actix_rt::test]
async fn a_duplicate_is_found_whether_its_interval_is_recorded_or_not() {
    let Some(database) = hypertables().await else { return };
    let (sensor, other) = (SensorIdentifier::random(), SensorIdentifier::random());
    let now = Timestamp::now().unix_seconds().floor();
    let old = now - 400.0 * DAY;
    let commit = async |days, sensor, second, mode| {
        let committer = Committer::new(&with_past_days(&database, days), 1);
        committer.commit(batch(sensor, second), mode).await.unwrap();
        let counted = "select (select count(*) from measurement_chunks) * 100
            + (select count(*) from measurement_outlier) * 10 + (select count(*) from chunk_interval)";
        count(&database, counted).await
    };

    assert_eq!(commit(366, sensor, old, CopyMode::Direct).await, 10, "too old for a chunk");
    assert_eq!(commit(366, sensor, old, CopyMode::Direct).await, 10, "a duplicate");
    assert_eq!(commit(366, sensor, now, CopyMode::Direct).await, 111);
    assert_eq!(commit(500, sensor, old, CopyMode::Staged).await, 202, "moved to its chunk");
    assert_eq!(commit(500, other, old, CopyMode::Direct).await, 302);
    assert_eq!(commit(366, sensor, old, CopyMode::Direct).await, 302, "a duplicate in a chunk");
    assert_eq!(commit(366, sensor, now + 60.0 * DAY, CopyMode::Direct).await, 312, "an outlier");
    assert_eq!(count(&database, "select count(*) from measurement").await, 4);
}

#[actix_rt::test]
async fn a_deleted_sensor_is_purged_from_the_chunks_and_the_outliers() {
    let Some(database) = hypertables().await else { return };
    let config = config(&database);
    let admin = connect(&database.url).await.unwrap();
    let sensor = SensorIdentifier::random();
    let create = format!("insert into sensor (identifier, name) values ('{sensor}', 'short')");
    admin.batch_execute(&create).await.unwrap();
    let committer = Committer::new(&config, 1);
    for second in [0.0, Timestamp::now().unix_seconds().floor()] {
        committer.commit(batch(sensor, second), CopyMode::Direct).await.unwrap();
    }
    committer.commit(batch(SensorIdentifier::random(), 0.0), CopyMode::Direct).await.unwrap();

    let store = Store::new(&config);
    assert!(store.delete_sensor(sensor).await.unwrap());
    assert_eq!(store.purge_sensor(sensor).await.unwrap(), 2);
    assert_eq!(count(&database, "select count(*) from measurement").await, 1);
}

/// Creates a chunk that begins `weeks` weeks ago, with one row that was received at its beginning.
pub(crate) async fn old_chunk(database: &Database, weeks: i32) {
    let admin = connect(&database.url).await.unwrap();
    let begin = format!("(date_trunc('week', now(), 'UTC') - interval '{weeks} weeks')");
    let mut table = "measurement_chunks".to_owned();
    if engine() == EngineName::Postgres {
        table = format!("chunk_{weeks}");
        let create = format!(
            "create table {table} () inherits (measurement_chunks);
             insert into timescaledb_information.chunks (hypertable_name, chunk_name, range_start, range_end)
             values ('measurement_chunks', '{table}', {begin}, {begin} + interval '7 days')"
        );
        admin.batch_execute(&create).await.unwrap();
    }
    let insert = format!(
        "insert into {table} values (gen_random_uuid(), {begin} + interval '3 days', {begin}, 0, 0, '{{}}')"
    );
    admin.batch_execute(&insert).await.unwrap();
}

#[actix_rt::test]
async fn a_chunk_without_rows_received_within_the_retention_is_dropped() {
    let Some(database) = hypertables().await else { return };
    let config = store::Config { measurement_retention_days: Some(100), ..config(&database) };
    old_chunk(&database, 30).await;
    old_chunk(&database, 20).await;
    let admin = connect(&database.url).await.unwrap();
    // Rows of the chunk of 20 weeks ago and of the outliers were received late; one outlier has expired.
    let late = "insert into measurement_outlier values
            (gen_random_uuid(), to_timestamp(0), now() - interval '99 days', 0, 0, '{}'),
            (gen_random_uuid(), to_timestamp(0), now() - interval '101 days', 0, 0, '{}');
        update measurement_chunks set receipt_timestamp = now()
        where creation_timestamp > now() - interval '21 weeks'";
    admin.batch_execute(late).await.unwrap();
    let housekeeper = Housekeeper::new(Store::new(&config), &config);

    housekeeper.round().await.unwrap();

    assert_eq!(count(&database, "select count(*) from measurement_chunks").await, 1);
    assert_eq!(count(&database, "select count(*) from measurement_outlier").await, 1);
    let chunks = "select count(*) from timescaledb_information.chunks
        where hypertable_name = 'measurement_chunks'";
    assert_eq!(count(&database, chunks).await, 1);
    let census = Store::new(&config).census().await.unwrap();
    let measurements = census.iter().find(|it| it.table == "measurement").unwrap();
    assert!(measurements.partitions == 1 && measurements.default_bytes > 0, "{census:?}");
}

#[actix_rt::test]
async fn an_old_chunk_is_compressed_and_still_finds_duplicates() {
    let Some(database) = hypertables().await else { return };
    let config = store::Config { compress_after_days: Some(20), ..config(&database) };
    old_chunk(&database, 30).await;
    old_chunk(&database, 2).await;
    let housekeeper = Housekeeper::new(Store::new(&config), &config);
    for _ in 0..2 {
        housekeeper.round().await.unwrap();
        let compressed = "select count(*) from timescaledb_information.chunks where is_compressed";
        assert_eq!(count(&database, compressed).await, 1);
    }
    let admin = connect(&database.url).await.unwrap();
    let duplicate = "insert into measurement_chunks select * from measurement where creation_timestamp < now() - interval '20 weeks'
        on conflict do nothing";
    if engine() == EngineName::TimescaleDb {
        assert_eq!(admin.execute(duplicate, &[]).await.unwrap(), 0);
    }
    assert_eq!(count(&database, "select count(*) from measurement").await, 2);
}

/// An operator's script for PostgreSQL works here, too.
#[actix_rt::test]
async fn rows_are_inserted_and_deleted_by_the_name_of_their_table() {
    let Some(database) = hypertables().await else { return };
    let admin = connect(&database.url).await.unwrap();
    let insert = "insert into log_message
            (sensor_identifier, creation_timestamp, receipt_timestamp, digest, revision, severity, subject)
        values (gen_random_uuid(), to_timestamp(0), now(), 0, 0, 'info', 'one'),
               (gen_random_uuid(), to_timestamp(0), now(), 0, 0, 'info', 'other')";
    admin.batch_execute(insert).await.unwrap();
    assert_eq!(count(&database, "select count(*) from log_message_outlier").await, 2);
    admin.batch_execute("delete from log_message where subject = 'one'").await.unwrap();
    assert_eq!(count(&database, "select count(*) from log_message").await, 1);
}

/// A page of one sensor reads one index per table, does not sort, and stops at its limit.
#[actix_rt::test]
async fn a_page_merges_the_indexes_of_chunks_and_outliers() {
    let Some(database) = hypertables().await else { return };
    let admin = connect(&database.url).await.unwrap();
    let fill = "insert into measurement_chunks
        select gen_random_uuid(), now() - n * interval '1 second', now(), n, 0, '{}'
        from generate_series(1, 20000) as n;
        insert into measurement_outlier select * from measurement_chunks;
        analyze measurement_chunks; analyze measurement_outlier";
    admin.batch_execute(fill).await.unwrap();
    let page = "explain (costs off) select * from measurement
        where sensor_identifier = gen_random_uuid() and creation_timestamp > now() - interval '14 days'
        order by creation_timestamp desc, digest desc limit 100";
    let page = page.replace("gen_random_uuid()", "'00000000-0000-0000-0000-000000000001'");
    let plan: Vec<String> =
        admin.query(&page, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("Merge Append") && plan.contains("Index Scan Backward"), "{plan}");
    assert!(!plan.contains("Seq Scan") && !plan.contains("Sort  "), "{plan}");
}

#[actix_rt::test]
async fn an_engine_is_chosen_once_and_only_while_the_hot_tables_are_empty() {
    if engine() != EngineName::Postgres {
        let database = database().await;
        let outcome = store::migrate_to(&config(&database), Some(EngineName::Postgres)).await;
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("already; another engine needs a new database"), "{error}");
        return;
    }
    let database = database().await;
    let config = config(&database);
    store::migrate(&config).await.unwrap();
    assert_eq!(store::engine_of(&config).await.unwrap(), EngineName::Postgres);
    let admin = connect(&database.url).await.unwrap();
    let insert = "insert into heartbeat values (gen_random_uuid(), now(), now(), 0, 0, true)";
    admin.batch_execute(insert).await.unwrap();
    let outcome = store::migrate_to(&config, Some(EngineName::TimescaleDb)).await;
    assert!(matches!(outcome, Err(StoreError::NotEmpty("heartbeat"))), "{outcome:?}");
    assert!(store::migrate_to(&config, Some(EngineName::Postgres)).await.unwrap().is_empty());
}

/// Needs a server without the extension.
#[actix_rt::test]
async fn a_missing_extension_is_reported_in_one_sentence() {
    let database = database().await;
    let available = "select count(*) from pg_available_extensions where name = 'timescaledb'";
    if engine() != EngineName::Postgres || count(&database, available).await > 0 {
        eprintln!("skipped: the server has the extension");
        return;
    }
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", &database.url)
            .env("MQTT_URL", "mqtt://127.0.0.1:1")
            .env("AUTH", "off")
            .env("HTTP_ADDR", "127.0.0.1:0")
            .current_dir(std::env::temp_dir())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = run(&["migrate", "--engine", "timescaledb"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("the extension timescaledb cannot be used"), "{text}");
    assert_eq!(count(&database, "select count(*) from pg_class where relname = 'sensor'").await, 0);

    // As if the database was moved to a server without the extension.
    assert!(run(&["check-config"]).1.contains("has no engine yet"));
    assert_eq!(run(&["migrate"]).0, Some(0));
    assert!(run(&["check-config"]).1.contains("engine is postgres"));
    let admin = connect(&database.url).await.unwrap();
    admin.batch_execute("update engine set name = 'timescaledb'").await.unwrap();
    let (code, text) = run(&["serve"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("it is not installed in the database"), "{text}");
    assert_eq!(run(&["check-config"]).0, Some(1));
}
