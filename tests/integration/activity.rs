//! The fold of the roll-up's journal: exact, linear in the number of sensors, and not blocked by a batch
//! that is too large, another instance or a deletion.

use futures_util::future;
use serde_json::Value;
use tributary::domain::{SensorIdentifier, Timestamp};
use tributary::store::{self, EngineName, Store, fold_statements};

use crate::metrics::MetricsSnapshot;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::events::Events;
use crate::support::payloads::measurement;
use crate::support::postgres::{Database, connect, skipped_on};
use crate::support::service::{Service, count, database};
use crate::support::store::config;
use crate::support::wait::{TIMEOUT, eventually};

const WAITING_FOR_ROLLUP_LOCK: &str = "select count(*) from pg_stat_activity \
    where wait_event = 'advisory' and query like '%advisory_xact_lock($1)' and datname = current_database()";

/// The advisory lock that serialises folds and deletions.
const ROLLUP_LOCK: i64 = 0x7472_6963;

async fn execute(database: &Database, statements: &str) {
    connect(&database.url).await.unwrap().batch_execute(statements).await.unwrap();
}

async fn migrated() -> Database {
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    database
}

/// SQL that inserts `count` sensors with the names 1 to `count`.
fn sensors(count: u32) -> String {
    format!(
        "insert into sensor (identifier, name)
         select md5(n::text)::uuid, n from generate_series(1, {count}) n;"
    )
}

/// SQL that inserts the journal of commits of `per_commit` sensors each; every sensor has 2
/// measurements and 1 heartbeat.
fn journal(per_commit: u32) -> String {
    let hour = Timestamp::now().unix_microseconds() / 3_600_000_000;
    format!(
        "insert into sensor_hour_journal (sensors, hours, kinds, counts)
         select array_agg(identifier), array_agg({hour}), array_agg(kind::smallint), array_agg(n)
         from sensor, (values (0, 2), (2, 1)) as entry (kind, n)
         group by (name::integer - 1) / {per_commit};"
    )
}

async fn fold_all(store: &Store) -> usize {
    let mut changed = 0;
    loop {
        let fold = store.fold_activity().await.unwrap();
        changed += fold.changed.len();
        if fold.is_complete {
            return changed;
        }
    }
}

/// Asserts that each of `sensors` sensors was counted `times` times, and that the journal is empty.
async fn assert_counted(database: &Database, sensors: i64, times: i64) {
    let expected = format!(
        "select count(*) from sensor_hour
         where (select sum(n) from unnest(measurement_counts) n) = {}
           and (select sum(n) from unnest(log_message_counts) n) = 0
           and (select sum(n) from unnest(heartbeat_counts) n) = {times}",
        2 * times
    );
    assert_eq!(count(database, &expected).await, sensors);
    assert_eq!(count(database, "select count(*) from sensor_hour").await, sensors);
    assert_eq!(count(database, "select count(*) from sensor_hour_journal").await, 0);
}

/// PostgreSQL cancels a statement after `DATABASE_READ_TIMEOUT_SECS` (10 s). A fold that joins its
/// intermediate result takes minutes for 100,000 sensors.
#[actix_rt::test]
async fn a_hundred_thousand_sensors_are_folded_for_any_commit_size() {
    let database = migrated().await;
    execute(&database, &sensors(100_000)).await;
    let store = Store::new(&config(&database));
    for (times, per_commit) in [(1, 100_000), (2, 3_000)] {
        execute(&database, &journal(per_commit)).await;
        assert_eq!(fold_all(&store).await, 100_000);
        assert_counted(&database, 100_000, times).await;
    }
}

/// PostgreSQL cannot estimate the size of these sets, and a nested loop over them is quadratic.
#[actix_rt::test]
async fn no_fold_statement_contains_a_join() {
    fn nodes(plan: &Value) -> Vec<String> {
        let children = plan["Plans"].as_array().into_iter().flatten().flat_map(nodes);
        children.chain(plan["Node Type"].as_str().map(str::to_owned)).collect()
    }
    let database = migrated().await;
    execute(&database, &sensors(5_000)).await;
    execute(&database, &journal(50)).await;
    let client = connect(&database.url).await.unwrap();
    let sensors = "select array_agg(identifier order by identifier)::text from sensor";
    let sensors: String = client.query_one(sensors, &[]).await.unwrap().get(0);
    let ones = format!("{{{}}}", ["1"; 5_000].join(","));
    let times = format!("{{{}}}", ["now"; 5_000].join(","));
    let parameters = [
        ("bigint, bigint", "100000, 2000".to_owned()),
        ("uuid[]", format!("'{sensors}'")),
        (
            "uuid[], integer[], integer[], integer[], integer[], timestamptz[]",
            format!("'{sensors}', '{ones}', '{ones}', '{ones}', '{ones}', '{times}'"),
        ),
    ];
    for (statement, (types, values)) in fold_statements().iter().zip(parameters) {
        let prepare = format!("deallocate all; prepare fold ({types}) as {statement}");
        client.batch_execute(&prepare).await.unwrap();
        let explain = format!("explain (format json) execute fold ({values})");
        let plan: Value = client.query_one(&explain, &[]).await.unwrap().get(0);
        let nodes = nodes(&plan[0]["Plan"]);
        assert!(!nodes.is_empty(), "{plan}");
        let joins = |node: &String| node.contains("Join") || node.contains("Loop");
        assert!(!nodes.iter().any(joins), "{statement}\n{nodes:?}");
    }
}

#[actix_rt::test]
async fn two_instances_fold_each_entry_once() {
    let database = migrated().await;
    execute(&database, &sensors(2_000)).await;
    let (one, other) = (Store::new(&config(&database)), Store::new(&config(&database)));
    for _ in 0..20 {
        execute(&database, &journal(100)).await;
    }
    // Both update the same rows of `sensor_hour`, without a deadlock.
    future::join(fold_all(&one), fold_all(&other)).await;
    assert_counted(&database, 2_000, 20).await;
}

#[actix_rt::test]
async fn a_fold_that_times_out_is_halved_until_it_succeeds() {
    if skipped_on(&[EngineName::Citus], "a distributed table cannot have a trigger") {
        return;
    }
    let database = migrated().await;
    execute(&database, &sensors(100)).await;
    // The fold of one commit takes 100 × 20 ms, twice the statement timeout.
    execute(&database, &journal(100)).await;
    execute(
        &database,
        "create function wait() returns trigger language plpgsql as
             'begin perform pg_sleep(0.02); return new; end';
         create trigger wait before insert on sensor_hour for each row execute function wait()",
    )
    .await;
    let mut config = config(&database);
    config.read_timeout_secs = 1;
    fold_all(&Store::new(&config)).await;
    assert_counted(&database, 100, 1).await;
}

#[actix_rt::test]
async fn a_concurrent_deletion_of_a_sensor_does_not_fail_a_fold() {
    let database = migrated().await;
    execute(&database, &sensors(3)).await;
    execute(&database, &journal(3)).await;
    let store = Store::new(&config(&database));
    let mut deleter = connect(&database.url).await.unwrap();
    let deletion = deleter.transaction().await.unwrap();
    let delete =
        format!("select pg_advisory_xact_lock({ROLLUP_LOCK}); delete from sensor where name = '2'");
    deletion.batch_execute(&delete).await.unwrap();
    let (changed, ()) = future::join(fold_all(&store), async {
        eventually(TIMEOUT, async || match count(&database, WAITING_FOR_ROLLUP_LOCK).await {
            1 => Ok(()),
            other => Err(other),
        })
        .await;
        deletion.commit().await.unwrap();
    })
    .await;
    assert_eq!(changed, 2);
    assert_counted(&database, 2, 1).await;
}

/// Journal entries from before its deletion are not counted.
#[actix_rt::test]
async fn a_recreated_sensor_starts_with_zero_counts() {
    let database = migrated().await;
    execute(&database, &sensors(2)).await;
    execute(&database, &journal(2)).await;
    let store = Store::new(&config(&database));
    let sensor: uuid::Uuid = connect(&database.url)
        .await
        .unwrap()
        .query_one("select identifier from sensor where name = '1'", &[])
        .await
        .unwrap()
        .get(0);
    assert!(store.delete_sensor(SensorIdentifier(sensor)).await.unwrap());
    store.purge_sensor(SensorIdentifier(sensor)).await.unwrap();
    execute(&database, &format!("insert into sensor (identifier, name) values ('{sensor}', '1')"))
        .await;

    assert_eq!(fold_all(&store).await, 1);
    execute(&database, "delete from sensor where name = '2'").await;
    execute(&database, &journal(2)).await;
    assert_eq!(fold_all(&store).await, 1);
    let counted = format!(
        "select measurement_counts[cardinality(measurement_counts)]::bigint
        from sensor_hour where sensor_identifier = '{sensor}'"
    );
    assert_eq!(count(&database, &counted).await, 2);
}

/// Every commit takes in shared mode a lock that a deletion takes exclusively.
#[actix_rt::test]
async fn a_deletion_that_waits_for_a_fold_does_not_delay_commits() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let deleted = service.create_sensor("deleted").await;
    let other = service.create_sensor("other").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let mut folder = connect(&database.url).await.unwrap();
    let fold = folder.transaction().await.unwrap();
    let lock = format!("select pg_advisory_xact_lock_shared({ROLLUP_LOCK})");
    fold.batch_execute(&lock).await.unwrap();

    let path = format!("/api/v1/sensors/{deleted}");
    let (deletion, ()) = future::join(service.request("DELETE", &path, None), async {
        eventually(TIMEOUT, async || match count(&database, WAITING_FOR_ROLLUP_LOCK).await {
            1 => Ok(()),
            other => Err(other),
        })
        .await;
        let topic = format!("{}/measurements/{other}", database.name);
        client.publish(&topic, measurement(1.0)).await.unwrap();
        service.wait_for_ledger(|entry| entry.committed == 1).await;
        fold.rollback().await.unwrap();
    })
    .await;
    assert_eq!(deletion.unwrap().0, 204);
}

#[actix_rt::test]
async fn a_failed_fold_is_counted_and_repeated() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("counted").await;
    let mut events = Events::open(&service.url(), "/api/v1/streams/sensors", "").await;
    events.expect("fleet").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;

    execute(&database, "alter table sensor_hour rename to sensor_hour_elsewhere").await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurement(Timestamp::now().unix_seconds())).await.unwrap();
    let age = |reading: &MetricsSnapshot| reading.sum("tributary_activity_fold_age_seconds", &[]);
    let failed = eventually(TIMEOUT, async || {
        let reading = MetricsSnapshot::of(&service).await;
        let failures = reading.sum("tributary_activity_fold_failures_total", &[]);
        if failures > 0.0 && age(&reading) > 1.0 { Ok(age(&reading)) } else { Err(failures) }
    })
    .await;

    execute(&database, "alter table sensor_hour_elsewhere rename to sensor_hour").await;
    // The stream sends a new snapshot after the failure.
    let snapshot = events.expect("fleet").await;
    let path = snapshot["activity_path"].as_str().unwrap();
    let (_, listed) = service.get(path).await.unwrap();
    assert_eq!(listed["items"][0]["buckets"][0]["measurements"], 1, "{listed}");
    assert!(age(&MetricsSnapshot::of(&service).await) < failed + 10.0);
}
