//! Faults of PostgreSQL, on a real one.

use std::io::Write as _;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio_postgres::Client;

use super::proxy::Door;
use super::service::pause;
use super::world::World;
use crate::support::postgres::connect;
use crate::support::wait::{PATIENCE, eventually};

const TICK: Duration = Duration::from_millis(20);

/// Sessions of the service, in this run's database.
pub(super) const OURS: &str =
    "datname = current_database() and application_name like 'tributary-%'";

/// SIGKILL to a backend in its COPY: the server ends every session and recovers.
pub(super) async fn backend_killed(world: &World<'_>) {
    let postgres = world.postgres.lock().await;
    let client = world.client().await;
    let in_copy = format!(
        "select pid from pg_stat_activity where state = 'active' and query like 'copy %' and {OURS} limit 1"
    );
    let any = format!("select pid from pg_stat_activity where {OURS} limit 1");
    for attempt in 0_u32.. {
        // A COPY takes milliseconds; after some seconds any backend will do.
        let wanted = if attempt < 300 { &in_copy } else { &any };
        match client.query_opt(wanted, &[]).await {
            Ok(Some(found)) => {
                postgres.kill_backend(found.get(0));
                break;
            }
            Ok(None) => tokio::time::sleep(TICK / 4).await,
            Err(_) => break,
        }
    }
    postgres.answers().await;
}

/// All sessions of the service are ended, several times.
pub(super) async fn terminated(world: &World<'_>, rng: &mut StdRng) {
    let client = world.client().await;
    for _ in 0..4 {
        let statement =
            format!("select pg_terminate_backend(pid) from pg_stat_activity where {OURS}");
        if client.query(&statement, &[]).await.is_err() {
            break;
        }
        pause(rng, 50..700).await;
    }
}

/// Immediate shutdown, a while without a server, and recovery.
pub(super) async fn restarted(world: &World<'_>, rng: &mut StdRng) {
    let mut postgres = world.postgres.lock().await;
    postgres.stop_immediate().await;
    pause(rng, 100..1_500).await;
    postgres.start_again().await;
}

/// Nobody listens.
pub(super) async fn refused(world: &World<'_>) {
    let to_database = world.to_database.lock().await;
    to_database.set_door(Door::Shut);
    to_database.cut();
    tokio::time::sleep(world.scale.seconds(4.0, 60.0)).await;
    to_database.set_door(Door::Open);
}

/// Somebody holds the tables for himself.
pub(super) async fn locked(world: &World<'_>) {
    let client = world.client().await;
    let lock = "begin; lock table measurement, log_message, heartbeat in access exclusive mode";
    if client.batch_execute(lock).await.is_ok() {
        tokio::time::sleep(world.scale.seconds(3.0, 10.0)).await;
        drop(client.batch_execute("rollback").await);
    }
}

/// Every connection is somebody else's.
pub(super) async fn used_up(world: &World<'_>) {
    let client = world.client().await;
    let mut others: Vec<Client> = Vec::new();
    let statement = format!("select pg_terminate_backend(pid) from pg_stat_activity where {OURS}");
    let until = tokio::time::Instant::now() + world.scale.seconds(3.0, 15.0);
    while tokio::time::Instant::now() < until {
        match connect(&world.primary_url()).await {
            Ok(other) => others.push(other),
            // All are taken: now the service's turn to give its own away.
            Err(_) => {
                if client.query(&statement, &[]).await.is_err() {
                    break;
                }
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

/// No space left on the device, and then there is.
pub(super) async fn disk_full(world: &World<'_>) {
    let Some(disk) = &world.disk else {
        eprintln!("nobody may mount a small file system here: the disk is not full");
        return;
    };
    // PostgreSQL cannot recover without space: whoever stops it waits until this is over.
    let _postgres = world.postgres.lock().await;
    let path = disk.join("ballast");
    let mut ballast = std::fs::File::create(&path).expect("the disk is there");
    let until = tokio::time::Instant::now() + world.scale.seconds(3.0, 10.0);
    for part in [1 << 20, 4 << 10, 512] {
        while ballast.write_all(&vec![0; part]).is_ok() {}
    }
    let failed = "No space left on device";
    let before = world.lives.log().matches(failed).count();
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(TICK * 5).await;
    }
    if world.lives.count.get() == 1 && world.lives.log().matches(failed).count() == before {
        eprintln!("the full disk was not felt");
    }
    drop(ballast);
    std::fs::remove_file(path).expect("it is ours");
}

/// As on a standby that was a primary.
pub(super) async fn read_only(world: &World<'_>) {
    // Whoever stops the server waits until this is over.
    let _postgres = world.postgres.lock().await;
    let set = async |value: &str| {
        eventually(PATIENCE, async || {
            let client = world.client().await;
            let statement = format!("alter system set default_transaction_read_only = {value}");
            client.batch_execute(&statement).await.map_err(|error| error.to_string())?;
            client.query("select pg_reload_conf()", &[]).await.map_err(|error| error.to_string())
        })
        .await
    };
    set("on").await;
    tokio::time::sleep(world.scale.seconds(3.0, 10.0)).await;
    set("off").await;
}

/// The service writes measurements and then log messages; somebody locks them the other way round. The service's session
/// is the one that finds the deadlock, and is its victim.
pub(super) async fn deadlock(world: &World<'_>) {
    let client = world.client().await;
    let watcher = world.client().await;
    let begin =
        "set deadlock_timeout = '30s'; begin; lock table log_message in access exclusive mode";
    if client.batch_execute(begin).await.is_err() {
        return;
    }
    let waits = format!(
        "select count(*) from pg_stat_activity
         where wait_event_type = 'Lock' and query like '%log_message%' and {OURS}"
    );
    let until = tokio::time::Instant::now() + world.scale.seconds(4.0, 10.0);
    while tokio::time::Instant::now() < until {
        match watcher.query_one(&waits, &[]).await {
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

/// Every other write fails with 40001, by a trigger.
pub(super) async fn serialization(world: &World<'_>) {
    let client = world.client().await;
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
        tokio::time::sleep(world.scale.seconds(3.0, 10.0)).await;
    }
    eventually(PATIENCE, async || {
        let client = world.client().await;
        let end = "drop trigger if exists fails on measurement";
        client.batch_execute(end).await.map_err(|error| error.to_string())
    })
    .await;
}

/// The connections are there, and nothing passes: only a deadline of our own finds that out.
pub(super) async fn half_open(world: &World<'_>) {
    let to_database = world.to_database.lock().await;
    let before = to_database.connection_count();
    to_database.swallow();
    eventually(PATIENCE * 3, async || match to_database.connection_count() {
        now if now > before => Ok(()),
        now => Err(now),
    })
    .await;
}
