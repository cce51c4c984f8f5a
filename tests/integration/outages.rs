//! Outages of PostgreSQL and of the broker, and orderly stops of the service: PUBACKs are delayed, and
//! each message is stored once.

use tributary::store::{self, Committer, CopyMode, StoreError};

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{measurement, measurements};
use crate::support::postgres::{Postgres, connect, for_engine_tables, without_empty_databases};
use crate::support::service::{Service, count, database};
use crate::support::store::{batch, config};
use crate::support::tcp_proxy::TcpProxy;
use crate::support::wait::{TIMEOUT, eventually};

const ROWS: &str = "select count(*) from measurement";

/// Publishes one message per second of this range, and waits for the PUBACKs.
async fn publish(client: &Client, topic: &str, seconds: std::ops::Range<u32>) {
    let publishes = seconds.map(|second| client.publish(topic, measurement(f64::from(second))));
    for outcome in futures_util::future::join_all(publishes).await {
        outcome.unwrap();
    }
}

#[actix_rt::test]
async fn postgres_stopped_and_started_under_load() {
    let broker = Broker::shared().await;
    let mut postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("unlucky").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);

    publish(&client, &topic, 0..500).await;
    service.wait_for_ledger(|entry| entry.committed > 0).await;
    postgres.stop_immediate().await;
    publish(&client, &topic, 500..1_000).await;
    eventually(TIMEOUT, async || match service.get("/readyz").await {
        Ok((503, problem)) => Ok(problem),
        other => Err(format!("{other:?}")),
    })
    .await;
    let (status, _) = service.get("/healthz").await.unwrap();
    assert_eq!(status, 200);
    let entry = service.wait_for_ledger(|entry| entry.received == 1_000).await;
    assert!(entry.in_flight >= 500, "{entry:?}");

    postgres.start_again().await;
    service.wait_for_ledger(|entry| entry.received == 1_000 && entry.in_flight == 0).await;
    assert_eq!(count(&database, ROWS).await, 1_000);
    eventually(TIMEOUT, async || match service.get("/readyz").await {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// The connection stays open at both ends, and PostgreSQL waits for the rest with the rows locked: the service must
/// close the connection.
#[actix_rt::test]
async fn a_batch_cut_off_during_copy_is_committed_on_another_connection() {
    let mut database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    let _proxy = TcpProxy::start_in_front_of(&mut database, 200_000).await;
    let mut config = config(&database);
    config.statement_timeout_secs = 1;
    let committer = Committer::new(&config, 1);
    let payload = measurements((0..5_000).map(f64::from));
    assert!(payload.len() > 300_000);

    let cut_off = committer
        .commit(batch(&payload), CopyMode::Direct)
        .await
        .expect_err("the proxy cuts it off");
    assert!(matches!(cut_off.error, StoreError::Silence { .. }), "{:?}", cut_off.error);

    let written = committer.commit(cut_off.batch, CopyMode::Staged).await;
    assert!(written.is_ok(), "{:?}", written.map(drop).unwrap_err().error);
    assert_eq!(count(&database, ROWS).await, 5_000);
}

#[actix_rt::test]
async fn broker_restarted_under_load() {
    let mut broker = Broker::start().await;
    let database = database().await;
    let service = Service::start(&database, &broker, &[]).await;
    let sensor = service.create_sensor("patient").await;
    let topic = format!("{}/measurements/{sensor}", database.name);

    let client = Client::connect(broker.url(), "sensor").await;
    publish(&client, &topic, 0..500).await;
    broker.stop().await;
    eventually(TIMEOUT, async || match service.get("/readyz").await {
        Ok((503, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    broker.start_again().await;
    let client = Client::connect(broker.url(), "sensor").await;
    publish(&client, &topic, 500..1_000).await;

    eventually(TIMEOUT, async || match count(&database, ROWS).await {
        1_000 => Ok(()),
        rows => Err((rows, service.ledger_entry("measurements").await)),
    })
    .await;
    service.wait_for_ledger(|entry| entry.in_flight == 0).await;
}

#[actix_rt::test]
async fn shutdown_commits_messages_in_flight() {
    let broker = Broker::shared().await;
    let database = database().await;
    let mut service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("drained").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);

    // The lock blocks the commit until after SIGTERM.
    let mut lock_holder = connect(&database.url).await.unwrap();
    let lock = lock_holder.transaction().await.unwrap();
    lock.batch_execute(&for_engine_tables("lock table measurement in access exclusive mode"))
        .await
        .unwrap();
    publish(&client, &topic, 0..200).await;
    service.wait_for_ledger(|entry| entry.in_flight == 200).await;
    service.send_sigterm();
    eventually(TIMEOUT, async || {
        let log = service.log();
        if log.contains("waiting for messages in flight") { Ok(()) } else { Err(log) }
    })
    .await;
    lock.rollback().await.unwrap();
    let status = service.wait_for_exit().await;
    assert!(status.success(), "{status}");
    assert_eq!(count(&database, ROWS).await, 200);

    // The messages were acknowledged: the session delivers none of them again.
    service.start_again().await;
    publish(&client, &topic, 200..201).await;
    let entry = service.wait_for_ledger(|entry| entry.committed == 1).await;
    assert_eq!(entry.received, 1, "{entry:?}");
}

#[actix_rt::test]
async fn an_orderly_stop_keeps_the_session_and_its_queue() {
    let broker = Broker::shared().await;
    let database = database().await;
    let mut service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("away").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    assert!(service.terminate().await.success());

    // More than the window of the service.
    publish(&client, &topic, 0..20_000).await;

    service.start_again().await;
    service.wait_for_ledger(|entry| entry.committed == 20_000 && entry.in_flight == 0).await;
}

#[actix_rt::test]
async fn without_tables_the_service_is_not_ready_and_loses_no_message() {
    if without_empty_databases() {
        return;
    }
    let broker = Broker::shared().await;
    let database = database().await;
    let settings = [("MIGRATE_ON_START", "false"), ("UNKNOWN_SENSOR", "register")];
    let mut service = Service::start_unready(&database, broker, &settings);
    eventually(TIMEOUT, async || match service.get("/readyz").await {
        Ok((503, problem)) if problem.to_string().contains("tributary migrate") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    eventually(TIMEOUT, async || {
        let log = service.log();
        if log.contains("subscribed") { Ok(()) } else { Err(log) }
    })
    .await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{}", database.name, uuid::Uuid::new_v4());
    publish(&client, &topic, 0..10).await;

    let migrated = std::process::Command::new(env!("CARGO_BIN_EXE_tributary"))
        .arg("migrate")
        .env_clear()
        .env("DATABASE_URL", &database.url)
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&migrated.stdout).starts_with("Applied V1"), "{migrated:?}");
    service.wait_until_ready().await;
    service.wait_for_ledger(|entry| entry.received == 10 && entry.in_flight == 0).await;
    assert_eq!(count(&database, ROWS).await, 10);
}

/// Requests get status 503 meanwhile, and SIGTERM stops the service.
#[actix_rt::test]
async fn http_is_served_while_the_database_is_unavailable_and_during_migrations() {
    let broker = Broker::shared().await;
    let mut postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    // The prepared transaction survives the restart of PostgreSQL, and its lock blocks the migrations.
    let lock = "begin; select pg_advisory_xact_lock(hashtextextended('tributary migrations', 0)); \
                prepare transaction 'migrating'";
    connect(&database.url).await.unwrap().batch_execute(lock).await.unwrap();
    postgres.stop_fast().await;
    let mut service = Service::start_unready(&database, broker, &[("UNKNOWN_SENSOR", "register")]);
    assert_not_ready(&mut service, "it does not answer").await;
    assert!(service.terminate().await.success(), "{}", service.log());

    service.restart();
    assert_not_ready(&mut service, "it does not answer").await;
    postgres.start_again().await;
    assert_not_ready(&mut service, "its tables are being brought up to date").await;
    let log = service.log();
    assert!(!log.contains("subscribed"), "ingest has started: {log}");
    let client = connect(&database.url).await.unwrap();
    client.batch_execute("commit prepared 'migrating'").await.unwrap();
    service.wait_until_ready().await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{}", database.name, uuid::Uuid::new_v4());
    publish(&client, &topic, 0..10).await;
    service.wait_for_ledger(|entry| entry.committed == 10 && entry.in_flight == 0).await;
}

/// The process runs, and `/readyz` returns this reason.
async fn assert_not_ready(service: &mut Service, why: &str) {
    eventually(TIMEOUT, async || {
        assert_eq!(service.exit_status(), None, "{}", service.log());
        match service.get("/readyz").await {
            Ok((503, problem)) if problem.to_string().contains(why) => Ok(()),
            other => Err((other, service.log())),
        }
    })
    .await;
    assert_eq!(service.get("/healthz").await.unwrap().0, 200);
    assert_eq!(service.get("/api/v1/status").await.unwrap().0, 200);
    for path in ["/api/v1/sensors", "/api/v1/rejections", "/api/v1/streams/sensors"] {
        let (status, problem) = service.get(path).await.unwrap();
        assert_eq!(status, 503, "{path}: {problem}");
        assert_eq!(problem["type"], "/problems/database-unavailable", "{path}");
    }
}

#[actix_rt::test]
async fn a_failed_migration_ends_the_service() {
    if without_empty_databases() {
        return;
    }
    let broker = Broker::shared().await;
    let database = database().await;
    let client = connect(&database.url).await.unwrap();
    client.batch_execute("create table measurement ()").await.unwrap();
    let mut service = Service::start_unready(&database, broker, &[]);
    let status = service.wait_for_exit().await;
    assert_eq!(status.code(), Some(1));
    let log = service.log();
    assert!(log.contains("migration failed") && log.contains("measurement"), "{log}");
}

/// This happens when a primary becomes a standby.
#[actix_rt::test]
async fn the_service_waits_for_a_database_that_is_read_only_at_startup() {
    let broker = Broker::shared().await;
    let database = database().await;
    let admin = connect(&Postgres::shared().await.url("postgres")).await.unwrap();
    let name = &database.name;
    let read_only = format!("alter database {name} set default_transaction_read_only = on");
    admin.batch_execute(&read_only).await.unwrap();
    let mut service = Service::start_unready(&database, broker, &[]);
    eventually(TIMEOUT, async || {
        assert_eq!(service.exit_status(), None, "{}", service.log());
        let log = service.log();
        if log.contains("ingest starts once it is available") { Ok(()) } else { Err(log) }
    })
    .await;

    let writable = format!("alter database {name} reset default_transaction_read_only");
    admin.batch_execute(&writable).await.unwrap();
    service.wait_until_ready().await;
}
