//! Retention deletes expired data and nothing else, also with a wrong clock of the database and during long reads.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tributary::domain::{Kind, Role, Scope, Timestamp, TokenDigest};
use tributary::store::{
    self, BlockedPartitions, Committer, CopyMode, Housekeeper, NewToken, Store,
};

use crate::metrics::MetricsSnapshot;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{log_message, measurement};
use crate::support::postgres::{Database, Postgres, Settings, connect, without_partitions};
use crate::support::server::Launcher;
use crate::support::service::{Service, count, database};
use crate::support::store::{batch_of, config};
use crate::support::wait::{TIMEOUT, eventually};

/// Creates the partition of log messages of this many weeks ago, with a row that was received then.
fn create_old_partition(weeks: u32) -> String {
    let begin = format!("(date_trunc('week', now(), 'UTC') - interval '{weeks} weeks')");
    format!(
        "create table log_message_p{weeks} partition of log_message
             for values from ({begin}) to ({begin} + interval '7 days');
         insert into log_message values (gen_random_uuid(), {begin}, {begin}, 0, 0, 'info', 's');"
    )
}

async fn count_old_partitions(database: &Database) -> i64 {
    let attached = "select count(*) from pg_inherits
        where inhrelid::regclass::text ~ '^log_message_p[0-9]+$'";
    count(database, attached).await
}

async fn run_housekeeping(database: &Database) {
    let config = config(database);
    Housekeeper::new(Store::new(&config), &config).round().await.unwrap();
}

/// One row of each table with a retention, none of them expired. The parameter is the time of this machine.
const INSERT_CURRENT_ROWS: &str = "\
with clock as (select to_timestamp($1) as now),
sensors as (select identifier from sensor limit 1),
one as (insert into idempotency_key select identifier, 'key', '', 0, now from sensors, clock),
two as (insert into deleted_sensor select gen_random_uuid(), now, now, now from clock),
three as (insert into sensor_hour
    select identifier, (now at time zone 'utc')::date - 1, '{1}', '{0}', '{0}' from sensors, clock),
four as (insert into token (identifier, name, digest, role, expiry_timestamp)
    select gen_random_uuid(), 'ten days', sha256('ten days'), 'viewer', now + interval '10 days'
    from clock)
insert into log_message select gen_random_uuid(), to_timestamp(0), now, 0, 0, 'info', 's' from clock";

const COUNT_ROWS: &str = "\
select (select count(*) from measurement) + (select count(*) from log_message)
     + (select count(*) from idempotency_key) + (select count(*) from deleted_sensor)
     + (select count(*) from sensor_hour where day = (to_timestamp($1) at time zone 'utc')::date - 1)
     + (select count(*) from token where name = 'ten days')";

#[actix_rt::test]
async fn a_wrong_clock_of_the_database_does_not_expire_current_data() {
    if Launcher::for_this_run() == Launcher::Docker {
        eprintln!("skipped: the image of PostgreSQL has no libfaketime");
        return;
    }
    let settings = Settings { clock: Some("+200d"), ..Settings::default() };
    let postgres = Postgres::start_with(&settings).await;
    let database = postgres.create_database(None).await;
    let broker = Broker::shared().await;
    let retention = ("RETENTION_MEASUREMENT_DAYS", "100");
    let service = Service::start(&database, broker, &[retention]).await;
    let sensor = service.create_sensor("of today").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let now = Timestamp::now().unix_seconds();
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurement(now)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;
    let admin = connect(&database.url).await.unwrap();
    admin.execute(INSERT_CURRENT_ROWS, &[&now]).await.unwrap();

    let mut config = config(&database);
    config.measurement_retention_days = Some(100);
    config.rollup_retention_days = Some(100);
    let store = Store::new(&config);
    Housekeeper::new(store.clone(), &config).round().await.unwrap();
    let token = NewToken {
        name: "another".into(),
        digest: TokenDigest([0; 32]),
        role: Role::Viewer,
        scope: Scope::All,
        user: None,
        expires_at: None,
    };
    store.create_token(&token).await.unwrap();

    let left: i64 = admin.query_one(COUNT_ROWS, &[&now]).await.unwrap().get(0);
    assert_eq!(left, 6);
    let ahead = eventually(TIMEOUT, async || {
        let reading = MetricsSnapshot::of(&service).await;
        match reading.sum("tributary_database_clock_ahead_seconds", &[]) {
            0.0 => Err(reading),
            ahead => Ok(ahead),
        }
    })
    .await;
    assert!((ahead - 200.0 * 86_400.0).abs() < 60.0, "{ahead}");
    let warning = "the database's clock and ours differ";
    eventually(TIMEOUT, async || match service.log().contains(warning) {
        true => Ok(()),
        false => Err(service.log()),
    })
    .await;
}

#[actix_rt::test]
async fn a_partition_is_dropped_once_all_its_rows_exceed_the_retention() {
    if without_partitions() {
        return;
    }
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    let admin = connect(&database.url).await.unwrap();
    admin.batch_execute(&create_old_partition(30)).await.unwrap();
    // A message received today with an old timestamp, and messages with timestamp 0.
    let late = "insert into log_message
        select gen_random_uuid(), creation_timestamp, now(), 1, 0, 'info', 's' from log_message;
        insert into log_message values
            (gen_random_uuid(), to_timestamp(0), now() - interval '119 days', 0, 0, 'info', 's'),
            (gen_random_uuid(), to_timestamp(0), now() - interval '121 days', 0, 0, 'info', 's');
        insert into measurement values
            (gen_random_uuid(), to_timestamp(0), to_timestamp(0), 0, 0, '{}')";
    admin.batch_execute(late).await.unwrap();

    run_housekeeping(&database).await;

    let log_messages = "select count(*) from log_message";
    assert_eq!(count(&database, log_messages).await, 3, "the row received 121 days ago is deleted");
    assert_eq!(count_old_partitions(&database).await, 1);

    let aged = "update log_message set receipt_timestamp = now() - interval '120 days'
        where digest = 1";
    admin.batch_execute(aged).await.unwrap();
    run_housekeeping(&database).await;

    assert_eq!(count(&database, log_messages).await, 1);
    assert_eq!(count_old_partitions(&database).await, 0);
    let tables = "select count(*) from pg_class where relname ~ '^log_message_p30'";
    assert_eq!(count(&database, tables).await, 0);
    assert_eq!(count(&database, "select count(*) from measurement").await, 1, "no retention");
}

#[actix_rt::test]
async fn one_housekeeping_round_drops_at_most_four_partitions_the_oldest_first() {
    if without_partitions() {
        return;
    }
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    let admin = connect(&database.url).await.unwrap();
    for weeks in 30..36 {
        admin.batch_execute(&create_old_partition(weeks)).await.unwrap();
    }

    run_housekeeping(&database).await;
    assert_eq!(count_old_partitions(&database).await, 2);
    let oldest =
        "select count(*) from pg_class where relname in ('log_message_p30', 'log_message_p31')";
    assert_eq!(count(&database, oldest).await, 2, "the oldest are dropped first");

    run_housekeeping(&database).await;
    assert_eq!(count_old_partitions(&database).await, 0);
}

/// The state after the process ended between the detach and the drop, with a row received meanwhile.
#[actix_rt::test]
async fn a_detached_partition_is_dropped_and_its_late_rows_are_kept() {
    if without_partitions() {
        return;
    }
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    let admin = connect(&database.url).await.unwrap();
    admin.batch_execute(&create_old_partition(30)).await.unwrap();
    for statement in [
        "insert into log_message
         select gen_random_uuid(), creation_timestamp, now(), 1, 0, 'info', 'late' from log_message",
        "alter table log_message detach partition log_message_p30",
        "alter table log_message_p30 rename to log_message_p30_expired",
    ] {
        admin.batch_execute(statement).await.unwrap();
    }

    run_housekeeping(&database).await;

    let tables = "select count(*) from pg_class where relname ~ '^log_message_p30'";
    assert_eq!(count(&database, tables).await, 0);
    let late = "select count(*) from log_message_default where subject = 'late'";
    assert_eq!(count(&database, late).await, 1);
    assert_eq!(count(&database, "select count(*) from log_message").await, 1);
}

/// Commits log messages one after the other until `work` is done, and returns the longest duration of a commit.
async fn slowest_commit_during<T>(
    database: &Database,
    work: impl Future<Output = T>,
) -> (T, Duration) {
    let committer = Committer::new(&config(database), 1);
    let mut slowest = Duration::ZERO;
    let mut work = pin!(work);
    loop {
        let start = Instant::now();
        let message = log_message(Timestamp::now().unix_seconds());
        let committed = committer.commit(batch_of("log-messages", &message), CopyMode::Direct);
        committed.await.unwrap();
        slowest = slowest.max(start.elapsed());
        if let Some(done) = work.as_mut().now_or_never() {
            return (done, slowest);
        }
    }
}

/// A dump or an idle transaction holds locks on the tables; if retention waits for such a lock, COPY queues behind it.
#[actix_rt::test]
async fn retention_does_not_block_commits_during_a_long_read() {
    if without_partitions() {
        return;
    }
    let database = database().await;
    let config = config(&database);
    store::migrate(&config).await.unwrap();
    run_housekeeping(&database).await;
    let admin = connect(&database.url).await.unwrap();
    admin.batch_execute(&create_old_partition(30)).await.unwrap();
    let housekeeper = Housekeeper::new(Store::new(&config), &config);
    let to_drop = |waiting: [BlockedPartitions; Kind::ALL.len()]| waiting.map(|it| it.to_drop);
    let everything = "select count(*) from log_message";
    let now = Timestamp::now().unix_seconds();
    let this_week = format!("{everything} where creation_timestamp = to_timestamp({now})");

    // The first query locks all partitions, the second the table and the partition of this week.
    for query in [everything, &this_week] {
        let mut reader = connect(&database.url).await.unwrap();
        let transaction = reader.transaction().await.unwrap();
        transaction.query_one(query, &[]).await.unwrap();

        let (round, slowest) =
            slowest_commit_during(&database, Box::pin(housekeeper.round())).await;

        assert_eq!(to_drop(round.unwrap()), [0, 1, 0]);
        assert!(slowest < Duration::from_secs(4), "{slowest:?}");
        assert_eq!(count_old_partitions(&database).await, 1);
        transaction.rollback().await.unwrap();
    }

    assert_eq!(to_drop(housekeeper.round().await.unwrap()), [0, 0, 0]);
    assert_eq!(count_old_partitions(&database).await, 0);
}
