//! Retention deletes what is over, and nothing else: whatever the clocks say, whoever reads.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tributary::domain::{Kind, Role, Scope, Timestamp, TokenDigest};
use tributary::store::{
    self, BlockedPartitions, Committer, CopyMode, Housekeeper, NewToken, Store,
};

use crate::metrics::Reading;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{log_message, measurement};
use crate::support::postgres::{Database, Postgres, Settings, connect, without_partitions};
use crate::support::server::Launcher;
use crate::support::service::{Service, count, database};
use crate::support::store::{batch_of, config};
use crate::support::wait::{TIMEOUT, eventually};

/// A partition of log messages as it was made so many weeks ago, with a row that was received then.
fn old_partition(weeks: u32) -> String {
    let begin = format!("(date_trunc('week', now(), 'UTC') - interval '{weeks} weeks')");
    format!(
        "create table log_message_p{weeks} partition of log_message
             for values from ({begin}) to ({begin} + interval '7 days');
         insert into log_message values (gen_random_uuid(), {begin}, {begin}, 0, 0, 'info', 's');"
    )
}

async fn old_partitions(database: &Database) -> i64 {
    let attached = "select count(*) from pg_inherits
        where inhrelid::regclass::text ~ '^log_message_p[0-9]+$'";
    count(database, attached).await
}

async fn keep_house(database: &Database) {
    let config = config(database);
    Housekeeper::new(Store::new(&config), &config).round().await.unwrap();
}

/// Everything that is deleted by its age, none of it old by our clock. The parameter is our clock.
const OF_TODAY: &str = "\
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

const LEFT: &str = "\
select (select count(*) from measurement) + (select count(*) from log_message)
     + (select count(*) from idempotency_key) + (select count(*) from deleted_sensor)
     + (select count(*) from sensor_hour where day = (to_timestamp($1) at time zone 'utc')::date - 1)
     + (select count(*) from token where name = 'ten days')";

#[actix_rt::test]
async fn a_wrong_clock_of_the_database_deletes_nothing() {
    if Launcher::of_this_run() == Launcher::Docker {
        eprintln!("not tried: the image of PostgreSQL has no libfaketime");
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
    admin.execute(OF_TODAY, &[&now]).await.unwrap();

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

    let left: i64 = admin.query_one(LEFT, &[&now]).await.unwrap().get(0);
    assert_eq!(left, 6);
    let ahead = eventually(TIMEOUT, async || {
        let reading = Reading::of(&service).await;
        match reading.sum("tributary_database_clock_ahead_seconds", &[]) {
            0.0 => Err(reading),
            ahead => Ok(ahead),
        }
    })
    .await;
    assert!((ahead - 200.0 * 86_400.0).abs() < 60.0, "{ahead}");
    let warned = "the database's clock and ours differ";
    eventually(TIMEOUT, async || match service.log().contains(warned) {
        true => Ok(()),
        false => Err(service.log()),
    })
    .await;
}

#[actix_rt::test]
async fn a_partition_goes_when_nothing_in_it_was_received_within_the_retention() {
    if without_partitions() {
        return;
    }
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    let admin = connect(&database.url).await.unwrap();
    admin.batch_execute(&old_partition(30)).await.unwrap();
    // A sensor whose clock is late says something today, and one that has no clock.
    let late = "insert into log_message
        select gen_random_uuid(), creation_timestamp, now(), 1, 0, 'info', 's' from log_message;
        insert into log_message values
            (gen_random_uuid(), to_timestamp(0), now() - interval '119 days', 0, 0, 'info', 's'),
            (gen_random_uuid(), to_timestamp(0), now() - interval '121 days', 0, 0, 'info', 's');
        insert into measurement values
            (gen_random_uuid(), to_timestamp(0), to_timestamp(0), 0, 0, '{}')";
    admin.batch_execute(late).await.unwrap();

    keep_house(&database).await;

    let log_messages = "select count(*) from log_message";
    assert_eq!(count(&database, log_messages).await, 3, "one was received 121 days ago");
    assert_eq!(old_partitions(&database).await, 1);

    let aged = "update log_message set receipt_timestamp = now() - interval '120 days'
        where digest = 1";
    admin.batch_execute(aged).await.unwrap();
    keep_house(&database).await;

    assert_eq!(count(&database, log_messages).await, 1);
    assert_eq!(old_partitions(&database).await, 0);
    let tables = "select count(*) from pg_class where relname ~ '^log_message_p30'";
    assert_eq!(count(&database, tables).await, 0, "dropped whole");
    assert_eq!(count(&database, "select count(*) from measurement").await, 1, "kept for ever");
}

#[actix_rt::test]
async fn many_partitions_go_a_few_at_a_time() {
    if without_partitions() {
        return;
    }
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    let admin = connect(&database.url).await.unwrap();
    for weeks in 30..36 {
        admin.batch_execute(&old_partition(weeks)).await.unwrap();
    }

    keep_house(&database).await;
    assert_eq!(old_partitions(&database).await, 2);
    let oldest =
        "select count(*) from pg_class where relname in ('log_message_p30', 'log_message_p31')";
    assert_eq!(count(&database, oldest).await, 2, "the oldest go first");

    keep_house(&database).await;
    assert_eq!(old_partitions(&database).await, 0);
}

/// As if the process had ended in between, or a row had come in.
#[actix_rt::test]
async fn what_was_detached_is_dropped_and_its_late_rows_stay() {
    if without_partitions() {
        return;
    }
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    let admin = connect(&database.url).await.unwrap();
    admin.batch_execute(&old_partition(30)).await.unwrap();
    for statement in [
        "insert into log_message
         select gen_random_uuid(), creation_timestamp, now(), 1, 0, 'info', 'late' from log_message",
        "alter table log_message detach partition log_message_p30",
        "alter table log_message_p30 rename to log_message_p30_expired",
    ] {
        admin.batch_execute(statement).await.unwrap();
    }

    keep_house(&database).await;

    let tables = "select count(*) from pg_class where relname ~ '^log_message_p30'";
    assert_eq!(count(&database, tables).await, 0);
    let late = "select count(*) from log_message_default where subject = 'late'";
    assert_eq!(count(&database, late).await, 1);
    assert_eq!(count(&database, "select count(*) from log_message").await, 1);
}

/// The longest that a commit of a log message has taken, one after the other until `work` is done.
async fn slowest_commit_beside<T>(
    database: &Database,
    work: impl Future<Output = T>,
) -> (T, Duration) {
    let committer = Committer::new(&config(database), 1);
    let mut slowest = Duration::ZERO;
    let mut work = pin!(work);
    loop {
        let began = Instant::now();
        let message = log_message(Timestamp::now().unix_seconds());
        let committed = committer.commit(batch_of("log-messages", &message), CopyMode::Direct);
        committed.await.unwrap();
        slowest = slowest.max(began.elapsed());
        if let Some(done) = work.as_mut().now_or_never() {
            return (done, slowest);
        }
    }
}

/// A dump or a forgotten session reads the tables: COPY would wait behind whoever waits for it.
#[actix_rt::test]
async fn ingest_does_not_wait_for_whoever_reads_for_long() {
    if without_partitions() {
        return;
    }
    let database = database().await;
    let config = config(&database);
    store::migrate(&config).await.unwrap();
    keep_house(&database).await;
    let admin = connect(&database.url).await.unwrap();
    admin.batch_execute(&old_partition(30)).await.unwrap();
    let housekeeper = Housekeeper::new(Store::new(&config), &config);
    let to_drop = |waiting: [BlockedPartitions; Kind::ALL.len()]| waiting.map(|it| it.to_drop);
    let everything = "select count(*) from log_message";
    let now = Timestamp::now().unix_seconds();
    let present = format!("{everything} where creation_timestamp = to_timestamp({now})");

    // One holds all partitions, and one the table and the partition of this week.
    for query in [everything, &present] {
        let mut reader = connect(&database.url).await.unwrap();
        let transaction = reader.transaction().await.unwrap();
        transaction.query_one(query, &[]).await.unwrap();

        let (round, slowest) =
            slowest_commit_beside(&database, Box::pin(housekeeper.round())).await;

        assert_eq!(to_drop(round.unwrap()), [0, 1, 0]);
        assert!(slowest < Duration::from_secs(4), "{slowest:?}");
        assert_eq!(old_partitions(&database).await, 1);
        transaction.rollback().await.unwrap();
    }

    assert_eq!(to_drop(housekeeper.round().await.unwrap()), [0, 0, 0]);
    assert_eq!(old_partitions(&database).await, 0);
}
