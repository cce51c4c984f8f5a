//! The index for searches in log messages: a command builds it while the service runs, new partitions
//! inherit it, and queries use it.

use std::process::{Command, Stdio};

use tributary::store::EngineName;

use crate::access::{failure, run_tributary, stdout};
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::postgres::{connect, skipped_on};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

const INDEX: [&str; 2] = ["index", "log-search"];

/// Partitions of the table without a valid part of the index.
const PARTITIONS_WITHOUT_INDEX: &str = "\
select count(*) from pg_inherits partition
where inhparent = 'log_message'::regclass and not exists (
    select from pg_partition_tree('log_message_text') tree join pg_index on indexrelid = tree.relid
    where indrelid = partition.inhrelid and indisvalid
)";

fn log_message(days_ago: i32) -> String {
    let timestamp =
        tributary::domain::Timestamp::now().unix_seconds() - 86_400.0 * f64::from(days_ago);
    format!(
        r#"{{"log_messages":[{{"severity":"info","revision":null,"timestamp":{timestamp},"subject":"new","details":""}}]}}"#
    )
}

#[actix_rt::test]
async fn the_index_is_built_during_ingest_inherited_by_partitions_and_used() {
    if skipped_on(&[EngineName::TimescaleDb, EngineName::Citus], "the index is not offered") {
        return;
    }
    let (broker, database) = (Broker::shared().await, database().await);
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("talkative").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/log-messages/{sensor}", database.name);
    client.publish(&topic, log_message(0)).await.unwrap();
    service.wait_for_ledger_of("log_messages", |entry| entry.committed == 1).await;
    let admin = connect(&database.url).await.unwrap();
    let insert = format!(
        "insert into log_message
         select '{sensor}', now() - n * interval '1 second', now(), n, 0, 'info',
             'a subject ' || md5(n::text), case when n % 5000 = 77 then 'a NEEDLE' end
         from generate_series(1, 30000) n"
    );
    admin.batch_execute(&format!("{insert}; analyze log_message")).await.unwrap();

    admin.batch_execute("drop extension if exists pg_trgm cascade").await.unwrap();
    let message = failure(&run_tributary(&database, &INDEX, ""));
    assert!(message.contains("create extension pg_trgm"), "{message}");

    // An invalid index, as an interruption leaves it, and a writer with an open transaction.
    let interrupted = "create extension pg_trgm;
        create index log_message_default_text on log_message_default (severity);
        update pg_index set indisvalid = false where indexrelid = 'log_message_default_text'::regclass";
    admin.batch_execute(interrupted).await.unwrap();
    let writer = connect(&database.url).await.unwrap();
    let open = format!(
        "begin; insert into log_message values ('{sensor}', now(), now(), 0, 0, 'info', 'open')"
    );
    writer.batch_execute(&open).await.unwrap();
    let building = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(INDEX)
        .env_clear()
        .env("DATABASE_URL", &database.url)
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'tributary-index' and wait_event_type = 'Lock'";
    eventually(TIMEOUT, async || match count(&database, waiting).await {
        1 => Ok(()),
        count => Err(count),
    })
    .await;
    client.publish(&topic, log_message(0)).await.unwrap();
    service.wait_for_ledger_of("log_messages", |entry| entry.committed == 2).await;
    writer.batch_execute("commit").await.unwrap();
    let built = stdout(&building.wait_with_output().unwrap());
    assert!(built.contains("Indexed log_message_default.\n"), "{built}");
    assert_eq!(count(&database, PARTITIONS_WITHOUT_INDEX).await, 0, "{built}");
    let second_run = stdout(&run_tributary(&database, &INDEX, ""));
    assert_eq!(second_run.lines().count(), 1, "{second_run}");

    let partitions = "select count(*) from pg_inherits where inhparent = 'log_message'::regclass";
    let before = count(&database, partitions).await;
    client.publish(&topic, log_message(60)).await.unwrap();
    service.wait_for_ledger_of("log_messages", |entry| entry.committed == 3).await;
    assert_eq!(count(&database, partitions).await, before + 1);
    assert_eq!(count(&database, PARTITIONS_WITHOUT_INDEX).await, 0, "a new partition inherits it");

    let scan_count = "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_indexes
        where indexrelname like 'log_message%_text'";
    assert_eq!(count(&database, scan_count).await, 0);
    let path = format!("/api/v1/sensors/{sensor}/log-messages");
    let wait_for_scans = async |at_least| {
        eventually(TIMEOUT, async || match count(&database, scan_count).await {
            scans if scans >= at_least => Ok(scans),
            scans => Err(scans),
        })
        .await
    };
    // A generic plan would expect an early match and read the messages one by one.
    for (limit, found) in [(1, 1), (50, 6)] {
        let path = format!("{path}?text=needle&limit={limit}");
        let (status, page) = service.get(&path).await.unwrap();
        let count = page["items"].as_array().map(Vec::len);
        assert_eq!((status, count), (200, Some(found)), "{page}");
        if limit == 1 {
            wait_for_scans(1).await;
        }
    }
    let scans = count(&database, scan_count).await;
    let (status, page) = service.get(&format!("{path}/aggregates?text=needle")).await.unwrap();
    assert_eq!((status, page["items"].as_array().unwrap().len()), (200, 6), "{page}");
    wait_for_scans(scans + 1).await;
}
