//! Faults of PostgreSQL and of the connections to it. Called by `fault`. Each fault is over when its function returns.

use std::io::Write as _;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio_postgres::Client;

use super::proxy::Listener;
use super::run::Run;
use super::service::pause;
use crate::support::postgres::connect;
use crate::support::wait::{TIMEOUT, eventually};

const TICK: Duration = Duration::from_millis(20);

/// Sessions of the service, in this run's database.
pub(super) const OURS: &str =
    "datname = current_database() and application_name like 'tributary-%'";

/// SIGKILL to a backend during its COPY: the server closes every session and recovers.
pub(super) async fn backend_killed(run: &Run<'_>) {
    let postgres = run.postgres.lock().await;
    let client = run.client().await;
    let in_copy = format!(
        "select pid from pg_stat_activity where state = 'active' and query like 'copy %' and {OURS} limit 1"
    );
    let any = format!("select pid from pg_stat_activity where {OURS} limit 1");
    for attempt in 0_u32.. {
        // A COPY takes milliseconds; after some seconds any backend will do.
        let victim = if attempt < 300 { &in_copy } else { &any };
        match client.query_opt(victim, &[]).await {
            Ok(Some(found)) => {
                postgres.kill_backend(found.get(0));
                break;
            }
            Ok(None) => tokio::time::sleep(TICK / 4).await,
            Err(_) => break,
        }
    }
    postgres.wait_until_available().await;
}

/// `pg_terminate_backend` of all sessions of the service, four times.
pub(super) async fn terminated(run: &Run<'_>, rng: &mut StdRng) {
    let client = run.client().await;
    for _ in 0..4 {
        let statement =
            format!("select pg_terminate_backend(pid) from pg_stat_activity where {OURS}");
        if client.query(&statement, &[]).await.is_err() {
            break;
        }
        pause(rng, 50..700).await;
    }
}

/// Immediate shutdown, a pause, a start with recovery.
pub(super) async fn restarted(run: &Run<'_>, rng: &mut StdRng) {
    let mut postgres = run.postgres.lock().await;
    postgres.stop_immediate().await;
    pause(rng, 100..1_500).await;
    postgres.start_again().await;
}

/// The port refuses connections.
pub(super) async fn refused(run: &Run<'_>) {
    let to_database = run.to_database.lock().await;
    to_database.set_listener(Listener::Closed);
    to_database.close_all();
    tokio::time::sleep(run.scale.seconds(4.0, 60.0)).await;
    to_database.set_listener(Listener::Open);
}

/// Another session locks the tables of measurements, log messages and heartbeats.
pub(super) async fn locked(run: &Run<'_>) {
    let client = run.client().await;
    let lock = "begin; lock table measurement, log_message, heartbeat in access exclusive mode";
    if client.batch_execute(lock).await.is_ok() {
        tokio::time::sleep(run.scale.seconds(3.0, 10.0)).await;
        drop(client.batch_execute("rollback").await);
    }
}

/// Other sessions occupy all connections.
pub(super) async fn used_up(run: &Run<'_>) {
    let client = run.client().await;
    let mut others: Vec<Client> = Vec::new();
    let statement = format!("select pg_terminate_backend(pid) from pg_stat_activity where {OURS}");
    let until = tokio::time::Instant::now() + run.scale.seconds(3.0, 15.0);
    while tokio::time::Instant::now() < until {
        match connect(&run.primary_url()).await {
            Ok(other) => others.push(other),
            // All connections are in use: terminate those of the service.
            Err(_) => {
                if client.query(&statement, &[]).await.is_err() {
                    break;
                }
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

/// The disk is full for a while.
pub(super) async fn disk_full(run: &Run<'_>) {
    let Some(disk) = &run.disk else {
        eprintln!("no permission to mount a small file system: the disk is not full");
        return;
    };
    // PostgreSQL cannot recover without space: faults that stop it wait for this lock.
    let _postgres = run.postgres.lock().await;
    let path = disk.join("ballast");
    let mut ballast = std::fs::File::create(&path).expect("the disk is mounted");
    let until = tokio::time::Instant::now() + run.scale.seconds(3.0, 10.0);
    for part in [1 << 20, 4 << 10, 512] {
        while ballast.write_all(&vec![0; part]).is_ok() {}
    }
    let error = "No space left on device";
    let before = run.process_runs.log().matches(error).count();
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(TICK * 5).await;
    }
    if run.process_runs.count.get() == 1 && run.process_runs.log().matches(error).count() == before
    {
        eprintln!("the full disk had no effect");
    }
    drop(ballast);
    std::fs::remove_file(path).expect("this function created the file");
}

/// The server is read-only for a while.
pub(super) async fn read_only(run: &Run<'_>) {
    // Faults that stop the server wait for this lock.
    let _postgres = run.postgres.lock().await;
    let set = async |value: &str| {
        eventually(TIMEOUT, async || {
            let client = run.client().await;
            let statement = format!("alter system set default_transaction_read_only = {value}");
            client.batch_execute(&statement).await.map_err(|error| error.to_string())?;
            client.query("select pg_reload_conf()", &[]).await.map_err(|error| error.to_string())
        })
        .await
    };
    set("on").await;
    tokio::time::sleep(run.scale.seconds(3.0, 10.0)).await;
    set("off").await;
}

/// The service writes measurements, then log messages; another session locks them in reverse order. `deadlock_timeout`
/// makes the service's session the victim.
pub(super) async fn deadlock(run: &Run<'_>) {
    let client = run.client().await;
    let observer = run.client().await;
    let begin =
        "set deadlock_timeout = '30s'; begin; lock table log_message in access exclusive mode";
    if client.batch_execute(begin).await.is_err() {
        return;
    }
    let waits = format!(
        "select count(*) from pg_stat_activity
         where wait_event_type = 'Lock' and query like '%log_message%' and {OURS}"
    );
    let until = tokio::time::Instant::now() + run.scale.seconds(4.0, 10.0);
    while tokio::time::Instant::now() < until {
        match observer.query_one(&waits, &[]).await {
            Ok(row) if row.get::<_, i64>(0) > 0 => {
                drop(client.batch_execute("lock table measurement in access exclusive mode").await);
                break;
            }
            Ok(_) => tokio::time::sleep(TICK).await,
            Err(_) => break,
        }
    }
    drop(client.batch_execute("rollback").await);
}

/// A trigger fails every other write with 40001.
pub(super) async fn serialization(run: &Run<'_>) {
    let client = run.client().await;
    let begin = "
        create or replace function fail() returns trigger language plpgsql as $$ begin
            if random() < 0.5 then
                raise exception 'could not serialize access' using errcode = '40001';
            end if;
            return null;
        end $$;
        create or replace trigger fails before insert on measurement
            for each statement execute function fail()";
    if client.batch_execute(begin).await.is_ok() {
        tokio::time::sleep(run.scale.seconds(3.0, 10.0)).await;
    }
    eventually(TIMEOUT, async || {
        let client = run.client().await;
        let end = "drop trigger if exists fails on measurement";
        client.batch_execute(end).await.map_err(|error| error.to_string())
    })
    .await;
}

/// Connections stay open, but no data passes: only the service's own timeouts detect this.
pub(super) async fn half_open(run: &Run<'_>) {
    let to_database = run.to_database.lock().await;
    let before = to_database.connection_count();
    to_database.drop_bytes();
    eventually(TIMEOUT * 3, async || match to_database.connection_count() {
        now if now > before => Ok(()),
        now => Err(now),
    })
    .await;
}
