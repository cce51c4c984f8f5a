//! Faults of a PostgreSQL with a standby: a primary that is left for it and stays up, and a COMMIT that waits for one that
//! is gone. Called by `fault`. Promises that the standby has all that was confirmed to anybody before it becomes the primary.

use std::time::Duration;

use rand::rngs::StdRng;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::postgres::OURS;
use super::proxy::Proxy;
use super::service::pause;
use super::world::{World, port};
use crate::support::postgres::{Postgres, connect};
use crate::support::wait::{PATIENCE, eventually};

/// PUBACKs of what was committed before have passed after this long without one.
const QUIET: Duration = Duration::from_millis(800);

/// A streaming standby, and the proxy before it.
pub(crate) struct Standby {
    pub(crate) postgres: Postgres,
    pub(crate) proxy: Proxy,
}

impl Standby {
    /// Starts one; from then on each COMMIT at its primary waits until its rows can be read here.
    pub(crate) async fn start(primary: &Postgres, clock: Option<&'static str>) -> Self {
        let postgres = primary.start_standby(clock).await;
        let admin = connect(&primary.url("postgres")).await.expect("the primary answers");
        let waits = "alter system set synchronous_commit = remote_apply";
        admin.batch_execute(waits).await.expect("we are its superuser");
        name_standbys(&admin, "*").await.expect("we are its superuser");
        let synchronous = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        eventually(PATIENCE, async || match admin.query_one(synchronous, &[]).await {
            Ok(row) if row.get::<_, i64>(0) == 1 => Ok(()),
            other => Err(other.map(drop)),
        })
        .await;
        let proxy = Proxy::start(port(&postgres.url("postgres")), None);
        Self { postgres, proxy }
    }
}

/// COMMIT waits for these from now on.
async fn name_standbys(admin: &Client, names: &str) -> Result<(), tokio_postgres::Error> {
    let statement = format!("alter system set synchronous_standby_names = '{names}'");
    admin.batch_execute(&statement).await?;
    admin.batch_execute("select pg_reload_conf()").await
}

/// The primary becomes read-only and stays up; the standby becomes the primary.
pub(super) async fn failed_over(world: &World<'_>, rng: &mut StdRng) {
    let Some(standby) = &world.standby else { return };
    let mut primary = world.postgres.lock().await;
    let mut standby = standby.lock().await;
    let url = standby.postgres.url(&world.database.name);
    let admin = connect(&primary.url("postgres")).await.expect("nobody else stops it");
    let demote = "alter system set default_transaction_read_only = on";
    admin.batch_execute(demote).await.expect("we are its superuser");
    admin.batch_execute("select pg_reload_conf()").await.expect("we are its superuser");
    // What is under way may end, or be under way still: then it waits for the standby for ever.
    pause(rng, 0..500).await;
    // The standby has all that the primary has confirmed, so it can be asked from now on.
    world.set_primary_url(url.clone());
    let promoted = connect(&url).await.expect("nobody else stops it");
    promoted.batch_execute("select pg_promote()").await.expect("we are its superuser");
    std::mem::swap(&mut *primary, &mut standby.postgres);
    std::mem::swap(&mut *world.to_database.lock().await, &mut standby.proxy);
    // All sessions of the service move to it: no statement of theirs is answered by the old one.
    let sessions = format!("select count(*) from pg_stat_activity where {OURS}");
    eventually(PATIENCE * 2, async || match world.client().await.query_one(&sessions, &[]).await {
        Ok(row) if row.get::<_, i64>(0) > 0 => Ok(()),
        other => Err(other.map(drop)),
    })
    .await;
}

/// COMMIT waits for a standby that does not exist, and somebody cancels that.
pub(super) async fn commit_waits(world: &World<'_>) {
    // Before the first ones it would be the partitions that wait.
    eventually(PATIENCE * 3, async || match world.watcher.pubacks.get() {
        0 => Err("no PUBACK yet"),
        _ => Ok(()),
    })
    .await;
    // Whoever stops the server waits until this is over.
    let primary = world.postgres.lock().await;
    let admin = connect(&primary.url(&world.database.name)).await.expect("nobody else stops it");
    let row = admin.query_one("show synchronous_standby_names", &[]).await;
    let before: String = row.expect("a server shows its settings").get(0);
    name_standbys(&admin, "gone").await.expect("we are its superuser");
    let waiting = format!("from pg_stat_activity where wait_event = 'SyncRep' and {OURS}");
    let until = Instant::now() + world.scale.seconds(5.0, 20.0);
    let waits = async || {
        let count = admin.query_one(&format!("select count(*) {waiting}"), &[]).await;
        matches!(count, Ok(row) if row.get::<_, i64>(0) > 0)
    };
    // Other faults may keep everybody from writing.
    while Instant::now() < until && !waits().await {
        tokio::time::sleep(QUIET / 40).await;
    }
    if waits().await {
        wait_for_quiet(world).await;
        world.watcher.nothing_commits.set(true);
        let cancel = format!("select pg_cancel_backend(pid) {waiting} and state = 'active'");
        while Instant::now() < until {
            // As an operator does who sees a statement hang: the rows are there, and no standby has them.
            drop(admin.query(&cancel, &[]).await);
            tokio::time::sleep(QUIET / 4).await;
        }
        world.watcher.nothing_commits.set(false);
    } else {
        eprintln!("no commit has waited");
    }
    name_standbys(&admin, &before).await.expect("we are its superuser");
}

async fn wait_for_quiet(world: &World<'_>) {
    let mut seen = (world.watcher.pubacks.get(), Instant::now());
    eventually(PATIENCE, async || match world.watcher.pubacks.get() {
        now if now != seen.0 => {
            seen = (now, Instant::now());
            Err(now)
        }
        now if seen.1.elapsed() < QUIET => Err(now),
        _ => Ok(()),
    })
    .await;
}
