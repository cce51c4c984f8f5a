//! The fold of the roll-up's journal: exact, linear in the number of sensors, and never stuck behind
//! a batch that is too large, another instance or a deletion.

use futures_util::future;
use serde_json::Value;
use tributary::domain::{SensorIdentifier, Timestamp};
use tributary::store::{self, EngineName, Store, fold_statements};

use crate::metrics::Reading;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::events::Events;
use crate::support::payloads::measurement;
use crate::support::postgres::{Database, connect, skipped_on};
use crate::support::service::{Service, count, database};
use crate::support::store::config;
use crate::support::wait::{TIMEOUT, eventually};

const WAITS_FOR_A_DELETION: &str = "select count(*) from pg_stat_activity \
    where wait_event = 'advisory' and query like '%advisory_xact_lock($1)' and datname = current_database()";

/// What a fold and a deletion do not do side by side.
const ROLLUP_LOCK: i64 = 0x7472_6963;

async fn execute(database: &Database, statements: &str) {
    connect(&database.url).await.unwrap().batch_execute(statements).await.unwrap();
}

async fn migrated() -> Database {
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    database
}

/// This many sensors, named by their numbers from 1.
fn sensors(count: u32) -> String {
    format!(
        "insert into sensor (identifier, name)
         select md5(n::text)::uuid, n from generate_series(1, {count}) n;"
    )
}

/// The journal of commits of `per_commit` sensors each, every sensor with 2 measurements and 1
/// heartbeat.
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

/// Each of this many sensors was counted `times`, and nothing is left in the journal.
async fn assert_counted(database: &Database, sensors: i64, times: i64) {
    let right = format!(
        "select count(*) from sensor_hour
         where (select sum(n) from unnest(measurement_counts) n) = {}
           and (select sum(n) from unnest(log_message_counts) n) = 0
           and (select sum(n) from unnest(heartbeat_counts) n) = {times}",
        2 * times
    );
    assert_eq!(count(database, &right).await, sensors);
    assert_eq!(count(database, "select count(*) from sensor_hour").await, sensors);
    assert_eq!(count(database, "select count(*) from sensor_hour_journal").await, 0);
}

/// PostgreSQL cancels a statement of more than `DATABASE_READ_TIMEOUT_SECS` (10 s). A fold that joins
/// what it has just computed takes minutes for this many.
#[actix_rt::test]
async fn a_hundred_thousand_sensors_are_folded_whatever_the_size_of_the_commits() {
    let database = migrated().await;
    execute(&database, &sensors(100_000)).await;
    let store = Store::new(&config(&database));
    for (times, per_commit) in [(1, 100_000), (2, 3_000)] {
        execute(&database, &journal(per_commit)).await;
        assert_eq!(fold_all(&store).await, 100_000);
        assert_counted(&database, 100_000, times).await;
    }
}

/// A nested loop over sets of whose size PostgreSQL knows nothing is quadratic.
#[actix_rt::test]
async fn no_statement_of_a_fold_joins() {
    fn nodes(plan: &Value) -> Vec<String> {
        let below = plan["Plans"].as_array().into_iter().flatten().flat_map(nodes);
        below.chain(plan["Node Type"].as_str().map(str::to_owned)).collect()
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
    // Both change the same rows of `sensor_hour`: neither is a victim of a deadlock.
    future::join(fold_all(&one), fold_all(&other)).await;
    assert_counted(&database, 2_000, 20).await;
}

#[actix_rt::test]
async fn a_fold_that_times_out_is_halved_until_it_does_not() {
    if skipped_on(&[EngineName::Citus], "a distributed table takes no trigger") {
        return;
    }
    let database = migrated().await;
    execute(&database, &sensors(100)).await;
    // One commit that takes 100 × 20 ms, twice what a statement may.
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
async fn a_sensor_deleted_meanwhile_fails_no_fold() {
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
        eventually(TIMEOUT, async || match count(&database, WAITS_FOR_A_DELETION).await {
            1 => Ok(()),
            seen => Err(seen),
        })
        .await;
        deletion.commit().await.unwrap();
    })
    .await;
    assert_eq!(changed, 2);
    assert_counted(&database, 2, 1).await;
}

/// Entries of its earlier life are not counted.
#[actix_rt::test]
async fn a_sensor_that_was_created_again_begins_with_nothing() {
    let database = migrated().await;
    execute(&database, &sensors(2)).await;
    execute(&database, &journal(2)).await;
    let store = Store::new(&config(&database));
    let one: uuid::Uuid = connect(&database.url)
        .await
        .unwrap()
        .query_one("select identifier from sensor where name = '1'", &[])
        .await
        .unwrap()
        .get(0);
    assert!(store.delete_sensor(SensorIdentifier(one)).await.unwrap());
    store.purge_sensor(SensorIdentifier(one)).await.unwrap();
    execute(&database, &format!("insert into sensor (identifier, name) values ('{one}', '1')"))
        .await;

    assert_eq!(fold_all(&store).await, 1);
    execute(&database, "delete from sensor where name = '2'").await;
    execute(&database, &journal(2)).await;
    assert_eq!(fold_all(&store).await, 1);
    let kept = format!(
        "select measurement_counts[cardinality(measurement_counts)]::bigint
        from sensor_hour where sensor_identifier = '{one}'"
    );
    assert_eq!(count(&database, &kept).await, 2);
}

/// Every commit takes a lock that a deletion takes exclusively.
#[actix_rt::test]
async fn a_deletion_that_waits_for_a_fold_holds_up_no_commit() {
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
        let waiting = "select count(*) from pg_stat_activity where wait_event = 'advisory' \
            and query like '%advisory_xact_lock($1)' and datname = current_database()";
        eventually(TIMEOUT, async || match count(&database, waiting).await {
            1 => Ok(()),
            seen => Err(seen),
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
async fn a_fold_that_fails_is_counted_and_made_up_for() {
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
    let age = |reading: &Reading| reading.sum("tributary_activity_fold_age_seconds", &[]);
    let failed = eventually(TIMEOUT, async || {
        let reading = Reading::of(&service).await;
        let failures = reading.sum("tributary_activity_fold_failures_total", &[]);
        if failures > 0.0 && age(&reading) > 1.0 { Ok(age(&reading)) } else { Err(failures) }
    })
    .await;

    execute(&database, "alter table sensor_hour_elsewhere rename to sensor_hour").await;
    // Read anew, after the failure.
    let first = events.expect("fleet").await;
    let path = first["activity_path"].as_str().unwrap();
    let (_, listed) = service.get(path).await.unwrap();
    assert_eq!(listed["items"][0]["buckets"][0]["measurements"], 1, "{listed}");
    assert!(age(&Reading::of(&service).await) < failed + 10.0);
}
