//! Faults of synchronous replication: a failover after which the old primary stays up, and a COMMIT that waits for a standby
//! that does not exist. Called by `fault`. The standby has every confirmed commit before it is promoted.

use std::time::Duration;

use rand::rngs::StdRng;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::postgres::OURS;
use super::proxy::Proxy;
use super::run::{Run, port};
use super::service::pause;
use crate::support::postgres::{Postgres, connect};
use crate::support::wait::{TIMEOUT, eventually};

/// After this time without a PUBACK, all PUBACKs of earlier commits have been sent.
const QUIET_PERIOD: Duration = Duration::from_millis(800);

/// A streaming standby and its proxy.
pub(crate) struct Standby {
    pub(crate) postgres: Postgres,
    pub(crate) proxy: Proxy,
}

impl Standby {
    /// Starts a standby. From then on each COMMIT at the primary waits until its rows are readable at the standby.
    pub(crate) async fn start(primary: &Postgres, clock: Option<&'static str>) -> Self {
        let postgres = primary.start_standby(clock).await;
        let admin = connect(&primary.url("postgres")).await.expect("the primary is available");
        let waits = "alter system set synchronous_commit = remote_apply";
        admin.batch_execute(waits).await.expect("the role is a superuser");
        name_standbys(&admin, "*").await.expect("the role is a superuser");
        let synchronous = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        eventually(TIMEOUT, async || match admin.query_one(synchronous, &[]).await {
            Ok(row) if row.get::<_, i64>(0) == 1 => Ok(()),
            other => Err(other.map(drop)),
        })
        .await;
        let proxy = Proxy::start(port(&postgres.url("postgres")), None);
        Self { postgres, proxy }
    }
}

/// Sets the standbys that COMMIT waits for.
async fn name_standbys(admin: &Client, names: &str) -> Result<(), tokio_postgres::Error> {
    let statement = format!("alter system set synchronous_standby_names = '{names}'");
    admin.batch_execute(&statement).await?;
    admin.batch_execute("select pg_reload_conf()").await
}

/// The primary becomes read-only and stays up; the standby becomes the primary.
pub(super) async fn failed_over(run: &Run<'_>, rng: &mut StdRng) {
    let Some(standby) = &run.standby else { return };
    let mut primary = run.postgres.lock().await;
    let mut standby = standby.lock().await;
    let url = standby.postgres.url(&run.database.name);
    let admin =
        connect(&primary.url("postgres")).await.expect("this fault holds the lock on the server");
    let demote = "alter system set default_transaction_read_only = on";
    admin.batch_execute(demote).await.expect("the role is a superuser");
    admin.batch_execute("select pg_reload_conf()").await.expect("the role is a superuser");
    // A transaction that is still running at the promotion waits for the standby without end.
    pause(rng, 0..500).await;
    // The standby has every confirmed commit, so PUBACKs can be verified there from now on.
    run.set_primary_url(url.clone());
    let promoted = connect(&url).await.expect("this fault holds the lock on the server");
    promoted.batch_execute("select pg_promote()").await.expect("the role is a superuser");
    std::mem::swap(&mut *primary, &mut standby.postgres);
    std::mem::swap(&mut *run.to_database.lock().await, &mut standby.proxy);
    // The service has found the new primary.
    let sessions = format!("select count(*) from pg_stat_activity where {OURS}");
    eventually(TIMEOUT * 2, async || match run.client().await.query_one(&sessions, &[]).await {
        Ok(row) if row.get::<_, i64>(0) > 0 => Ok(()),
        other => Err(other.map(drop)),
    })
    .await;
}

/// COMMIT waits for a standby that does not exist, and `pg_cancel_backend` cancels the waits.
pub(super) async fn commit_waits(run: &Run<'_>) {
    // Before the first PUBACK, the creation of the first partitions would wait instead of a batch.
    eventually(TIMEOUT * 3, async || match run.puback_check.pubacks.get() {
        0 => Err("no PUBACK yet"),
        _ => Ok(()),
    })
    .await;
    // Faults that stop the server wait for this lock.
    let primary = run.postgres.lock().await;
    let admin = connect(&primary.url(&run.database.name))
        .await
        .expect("this fault holds the lock on the server");
    let row = admin.query_one("show synchronous_standby_names", &[]).await;
    let before: String = row.expect("SHOW succeeds").get(0);
    name_standbys(&admin, "gone").await.expect("the role is a superuser");
    let waiting = format!("from pg_stat_activity where wait_event = 'SyncRep' and {OURS}");
    let until = Instant::now() + run.scale.seconds(5.0, 20.0);
    let waits = async || {
        let count = admin.query_one(&format!("select count(*) {waiting}"), &[]).await;
        matches!(count, Ok(row) if row.get::<_, i64>(0) > 0)
    };
    // Other faults may prevent all commits.
    while Instant::now() < until && !waits().await {
        tokio::time::sleep(QUIET_PERIOD / 40).await;
    }
    if waits().await {
        wait_for_quiet(run).await;
        run.puback_check.nothing_commits.set(true);
        let cancel = format!("select pg_cancel_backend(pid) {waiting} and state = 'active'");
        while Instant::now() < until {
            // A cancelled wait makes the rows visible at the primary, although no standby has them.
            drop(admin.query(&cancel, &[]).await);
            tokio::time::sleep(QUIET_PERIOD / 4).await;
        }
        run.puback_check.nothing_commits.set(false);
    } else {
        eprintln!("no COMMIT waited for the standby");
    }
    name_standbys(&admin, &before).await.expect("the role is a superuser");
}

async fn wait_for_quiet(run: &Run<'_>) {
    let mut seen = (run.puback_check.pubacks.get(), Instant::now());
    eventually(TIMEOUT, async || match run.puback_check.pubacks.get() {
        now if now != seen.0 => {
            seen = (now, Instant::now());
            Err(now)
        }
        now if seen.1.elapsed() < QUIET_PERIOD => Err(now),
        _ => Ok(()),
    })
    .await;
}
