//! A rebuild of the roll-up together with folds, recounts, retention and deletions. It keeps the counts of deleted rows.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tributary::domain::{SensorIdentifier, Timestamp};
use tributary::store::{self, CopyMode, EngineName, Housekeeper, Source};

use super::{FIRST_WITH_ROLLUP, Fixture, HOUR_SECS, current_hour, differences, old_measurement};
use crate::support::postgres::{connect, for_engine_tables, skipped_on, without_empty_databases};
use crate::support::service::{count, database};
use crate::support::store::{batch_from, config};
use crate::support::wait::{TIMEOUT, eventually};

const ROLLUP_LOCK: i64 = 0x7472_6963;

const KINDS: [(&str, &str); 3] = [
    ("measurement", "measurement_counts"),
    ("log_message", "log_message_counts"),
    ("heartbeat", "heartbeat_counts"),
];

/// Commits one item of a kind at each of these Unix seconds.
async fn commit(fixture: &Fixture, sensor: SensorIdentifier, kind: &str, seconds: &[i64]) {
    let items = |item: fn(i64) -> serde_json::Value| -> Vec<_> {
        seconds.iter().copied().map(item).collect()
    };
    let (level, payload) = match kind {
        "measurement" => {
            let item = |at| json!({ "revision": 0, "timestamp": at, "value": { "n": 1 } });
            ("measurements", json!({ "measurements": items(item) }))
        }
        "log_message" => {
            let item =
                |at| json!({ "revision": 0, "timestamp": at, "severity": "info", "subject": "s" });
            ("log-messages", json!({ "log_messages": items(item) }))
        }
        _ => {
            let item = |at| json!({ "revision": 0, "timestamp": at, "success": true });
            ("heartbeats", json!({ "heartbeats": items(item) }))
        }
    };
    let batch = batch_from(sensor, level, &payload.to_string());
    let outcome = fixture.committer.commit(batch, CopyMode::Staged).await;
    assert!(outcome.is_ok(), "{:?}", outcome.err().map(|it| it.error));
}

/// The counts of all sensors by kind and hour, from the rows and from the roll-up.
async fn assert_counts(fixture: &Fixture, context: &str) {
    let client = connect(&fixture.database.url).await.unwrap();
    for (table, counts) in KINDS {
        let read = async |statement: String| -> BTreeMap<(String, i64), i64> {
            let rows = client.query(&statement, &[]).await.unwrap();
            rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
        };
        let rows = read(format!(
            "select sensor_identifier::text, floor(extract(epoch from creation_timestamp) / 3600)::bigint, count(*)
             from {table} where sensor_identifier in (select identifier from sensor) group by 1, 2"
        ));
        let rolled_up = read(format!(
            "select sensor_identifier::text,
                 ((day - date '1970-01-01') * 24 + hour - array_lower({counts}, 1))::bigint, n::bigint
             from sensor_hour, generate_subscripts({counts}, 1) as hour, lateral (select {counts}[hour] as n) as it
             where n > 0"
        ));
        assert_eq!(rolled_up.await, rows.await, "{table}, {context}");
    }
    let shifted = "select count(*) from sensor_hour where array_lower(measurement_counts, 1) is distinct from 1
        or array_lower(log_message_counts, 1) is distinct from 1 or array_lower(heartbeat_counts, 1) is distinct from 1";
    assert_eq!(count(&fixture.database, shifted).await, 0, "{context}");
}

const DUE: &str = "select count(*) from sensor_hour where recount_at is not null";

#[actix_rt::test]
async fn measurements_are_counted_in_their_hour_after_a_rebuild_of_a_day_without_any() {
    let fixture = Fixture::new().await;
    let sensor = fixture.sensor().await;
    let day = current_hour().div_euclid(86_400) * 86_400 - 2 * 86_400;
    commit(&fixture, sensor, "heartbeat", &[day + 60]).await;
    fixture.fold().await;
    // The state before the migration that creates the roll-up.
    fixture.execute("delete from sensor_hour").await;
    fixture.rebuild(day, day + 86_400).await;
    commit(&fixture, sensor, "measurement", &[day + 5 * HOUR_SECS]).await;
    commit(&fixture, sensor, "log_message", &[day + 9 * HOUR_SECS]).await;
    fixture.fold().await;

    assert_counts(&fixture, "rebuilt").await;
    fixture.recount().await;
    assert_eq!(count(&fixture.database, DUE).await, 0);
    assert_eq!(count(&fixture.database, &differences(sensor)).await, 0);
    fixture.assert_aggregates(sensor, "rebuilt").await;
}

#[actix_rt::test]
async fn counts_of_all_kinds_agree_with_the_rows_after_random_operations() {
    for seed in 0..3 {
        let fixture = Fixture::new().await;
        let mut random = StdRng::seed_from_u64(seed);
        let sensors = [fixture.sensor().await, fixture.sensor().await];
        for _ in 0..30 {
            let sensor = sensors[random.random_range(0..2)];
            let kind = KINDS[random.random_range(0..3)].0;
            let from = current_hour() - random.random_range(0..100) * HOUR_SECS;
            match random.random_range(0..8) {
                0 | 1 => fixture.fold().await,
                2 => fixture.recount().await,
                3 => fixture.rebuild(from, from + 30 * HOUR_SECS).await,
                4 => {
                    fixture.fold().await;
                    fixture.execute("delete from sensor_hour").await;
                    fixture
                        .rebuild(current_hour() - 100 * HOUR_SECS, current_hour() + HOUR_SECS)
                        .await;
                }
                _ => {
                    let seconds: Vec<_> = (0..random.random_range(1..4))
                        .map(|_| current_hour() - random.random_range(1..90 * HOUR_SECS))
                        .collect();
                    commit(&fixture, sensor, kind, &seconds).await;
                }
            }
        }
        fixture.fold().await;
        assert_counts(&fixture, &format!("seed {seed}")).await;
        fixture.rebuild(current_hour() - 100 * HOUR_SECS, current_hour() + HOUR_SECS).await;
        assert_counts(&fixture, &format!("seed {seed}, rebuilt")).await;
        fixture.recount().await;
        assert_eq!(count(&fixture.database, DUE).await, 0, "seed {seed}");
    }
}

#[actix_rt::test]
async fn a_rebuild_keeps_sums_of_rows_deleted_under_another_retention() {
    let mut fixture = Fixture::new().await;
    let sensor = fixture.sensor().await;
    let begin = old_measurement(&fixture, sensor).await;
    fixture.fold().await;
    fixture.recount().await;
    let sums = fixture.aggregates(sensor, 3_600).await;
    assert_eq!((sums.source, sums.rows[0].count), (Source::Rollup, 2));
    fixture.config.measurement_retention_days = Some(100);
    Housekeeper::new(fixture.store.clone(), &fixture.config).round().await.unwrap();
    assert_eq!(count(&fixture.database, "select count(*) from measurement").await, 0);

    for days in [None, Some(1_000)] {
        fixture.config.measurement_retention_days = days;
        fixture.rebuild(begin, begin + HOUR_SECS).await;
        assert_eq!(fixture.aggregates(sensor, 3_600).await.rows, sums.rows, "{days:?}");
    }
}

#[actix_rt::test]
async fn a_rebuild_does_not_lower_counts_of_future_hours() {
    let fixture = Fixture::new().await;
    let (sensor, later) = (fixture.sensor().await, current_hour() + 50 * HOUR_SECS);
    let insert_later = format!(
        "insert into sensor_hour values ('{sensor}', (to_timestamp({later}) at time zone 'utc')::date,
             array_fill(7, array[24]), '{{0}}', '{{0}}')"
    );
    fixture.execute(&insert_later).await;
    fixture.rebuild(current_hour(), later + HOUR_SECS).await;
    let sum = "select sum(n)::bigint from sensor_hour, unnest(measurement_counts) n";
    assert_eq!(count(&fixture.database, sum).await, 7 * 24);
}

/// The rebuild runs after the recount has read, and before it writes.
#[actix_rt::test]
async fn a_recount_does_not_store_sums_that_a_rebuild_has_invalidated() {
    let fixture = Fixture::new().await;
    let (sensor, hour) = (fixture.sensor().await, current_hour() - 5 * HOUR_SECS);
    fixture.commit(sensor, &[(hour, 1)]).await;
    fixture.fold().await;
    let mut client = connect(&fixture.database.url).await.unwrap();
    let rebuild = client.transaction().await.unwrap();
    rebuild.query("select pg_advisory_xact_lock($1)", &[&ROLLUP_LOCK]).await.unwrap();

    let invalidate = async {
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        eventually(TIMEOUT, async || match count(&fixture.database, waiting).await {
            0 => Err("the recount does not wait yet"),
            _ => Ok(()),
        })
        .await;
        rebuild.batch_execute("update sensor_hour set recount_at = now()").await.unwrap();
        rebuild.commit().await.unwrap();
    };
    let soon =
        Timestamp::from_unix_microseconds(Timestamp::now().unix_microseconds() + 900 * 1_000_000);
    let (recounted, ()) = tokio::join!(fixture.store.recount(soon), invalidate);
    recounted.unwrap();
    let stored = "select count(*) from sensor_hour where sums is not null";
    assert_eq!(
        (count(&fixture.database, stored).await, count(&fixture.database, DUE).await),
        (0, 1)
    );

    fixture.recount().await;
    assert_eq!(count(&fixture.database, &differences(sensor)).await, 0);
}

#[actix_rt::test]
async fn the_deletion_of_a_sensors_hours_does_not_block_commits() {
    const DELETION_LOCK: i64 = 0x7472_6962;
    if skipped_on(&[EngineName::Citus], "distributed tables support no triggers") {
        return;
    }
    let fixture = Fixture::new().await;
    let (sensor, hour) = (fixture.sensor().await, current_hour() - 5 * HOUR_SECS);
    fixture.commit(sensor, &[(hour, 1)]).await;
    fixture.fold().await;
    fixture
        .execute(&format!(
            "create function refuse() returns trigger language plpgsql as $$ begin
                 if exists (select 1 from pg_locks where locktype = 'advisory' and objid = {DELETION_LOCK}
                     and mode = 'ExclusiveLock') then
                     raise exception 'all commits are blocked';
                 end if;
                 if current_setting('lock_timeout') = '0' then
                     raise exception 'folds are blocked without a time limit';
                 end if;
                 return old;
             end $$;
             create trigger refuse before delete on sensor_hour for each row execute function refuse()"
        ))
        .await;
    assert!(fixture.store.delete_sensor(sensor).await.unwrap());
    assert_eq!(count(&fixture.database, "select count(*) from sensor_hour").await, 0);
}

#[actix_rt::test]
async fn retention_deletes_nothing_that_an_upgrade_has_not_counted_yet() {
    let mut fixture = Fixture::new().await;
    fixture.config.log_message_retention_days = Some(100);
    fixture.config.heartbeat_retention_days = Some(100);
    let (sensor, begin) = (fixture.sensor().await, current_hour() - 200 * 86_400);
    commit(&fixture, sensor, "log_message", &[begin]).await;
    commit(&fixture, sensor, "heartbeat", &[begin]).await;
    for table in ["log_message", "heartbeat"] {
        let received =
            format!("update {table} set receipt_timestamp = now() - interval '199 days'");
        fixture.execute(&for_engine_tables(&received)).await;
    }
    let rows = "select (select count(*) from log_message) + (select count(*) from heartbeat)";
    fixture.execute("insert into rollup_rebuild (from_hour, to_hour) values (0, 1)").await;
    let housekeeper = Housekeeper::new(fixture.store.clone(), &fixture.config);
    housekeeper.round().await.unwrap();
    assert_eq!(count(&fixture.database, rows).await, 2);
    fixture.execute("delete from rollup_rebuild").await;
    housekeeper.round().await.unwrap();
    assert_eq!(count(&fixture.database, rows).await, 0);
}

#[actix_rt::test]
async fn an_upgrade_counts_no_hour_twice() {
    if without_empty_databases() {
        return;
    }
    let database = database().await;
    let mut client = connect(&database.url).await.unwrap();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let mut migrations = refinery_core::load_sql_migrations(directory).unwrap();
    migrations.sort();
    let first = refinery_core::Target::Version(FIRST_WITH_ROLLUP);
    let before = refinery_core::Target::Version(FIRST_WITH_ROLLUP - 1);
    let runner = |target| refinery_core::Runner::new(&migrations).set_target(target);
    runner(before).run_async(&mut client).await.unwrap();
    client
        .batch_execute("insert into sensor (identifier, name) values (gen_random_uuid(), 'one')")
        .await
        .unwrap();
    runner(first).run_async(&mut client).await.unwrap();
    client
        .batch_execute(
            "insert into sensor_hour (sensor_identifier, day, measurement_counts, log_message_counts, heartbeat_counts)
             select identifier, '2026-11-01', '[6:7]={1,2}', '{}', '{3}' from sensor",
        )
        .await
        .unwrap();
    store::migrate(&config(&database)).await.unwrap();
    let adjoining = "select count(*) from rollup_rebuild as newest
        join rollup_rebuild as later on later.to_hour = newest.from_hour and later.from_hour = 0";
    assert_eq!(count(&database, adjoining).await, 1);
    let mended = "select count(*) from sensor_hour where measurement_counts = '{0,0,0,0,0,1,2}'
        and log_message_counts = '{0}' and heartbeat_counts = '{3}'";
    assert_eq!(count(&database, mended).await, 1);
}
