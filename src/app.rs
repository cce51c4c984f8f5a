//! The whole service: the only file that knows everyone. `App::start` builds it bottom-up,
//! `App::run_until` keeps it going and takes it down top-down. `main` owns one, and each test its
//! own.
//!
//! These threads do the work: the ingest arbiter (inbound loop, sensors' actors, outbox), the writer
//! arbiter (batches, COPY), those of HTTP (`HTTP_WORKERS`), and this one (housekeeping).

mod ingest_pipeline;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use actix_rt::task::JoinHandle;
use anyhow::{Context as _, anyhow};
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};

use self::ingest_pipeline::{IngestPipeline, PipelineEnd};
use crate::api::{self, SupervisorHandle};
use crate::config::Config;
use crate::domain::{Faults, Flow, Health, Ledger, Subscriptions, Timestamp, long_pause, pause};
use crate::metrics::Metrics;
use crate::mqtt::InboundHandles;
use crate::probes;
use crate::replay::Replays;
use crate::store::{self, Bundler, Housekeeper, Store};
use crate::streams::{self, Hub};
use crate::telemetry::LogFilter;

/// For looking sensors up and for the outbox. They are not shared with the API, whose slow readers
/// would otherwise keep messages waiting for the look-up of their sensor.
const PATH_CONNECTIONS: u32 = 2;

/// For what goes on beside the requests: bundles, counts, partitions, replays. The API's own connections
/// are opened by the threads that answer requests, which drive them from then on.
const HOUSE_CONNECTIONS: u32 = 4;

const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(3_600);

/// HTTP requests under way may take so long to finish.
const HTTP_GRACE_SECS: u64 = 5;

/// A running service.
pub struct App {
    address: SocketAddr,
    ledger: Arc<Ledger>,
    server: actix_web::dev::Server,
    ingest: Arbiter,
    writing: Arbiter,
    hub: Arc<Hub>,
    shutdown: watch::Sender<bool>,
    migration: JoinHandle<anyhow::Result<()>>,
    ended: oneshot::Receiver<PipelineEnd>,
    grace: Duration,
}

impl App {
    /// Builds the service and starts it.
    ///
    /// # Errors
    /// When the HTTP address cannot be had.
    pub async fn start(config: Config, faults: Faults, log: LogFilter) -> anyhow::Result<Self> {
        let started_at = Timestamp::now();
        let (brought_up_to_date, migrated) = watch::channel(!config.migrate_on_start);
        let ledger = Arc::new(Ledger::default());
        let (health, flow) = (Arc::new(Health::default()), Arc::new(Flow::default()));
        let (subscriptions, events) = Subscriptions::new();
        let hub = Hub::new(config.streams, Arc::clone(&subscriptions));
        let metrics = Arc::new(Metrics::new(Arc::clone(&ledger)));
        let store_of = |name, connections| {
            let config = store::Config { readers: connections, ..config.store.clone() };
            let store = Store::new(&config).held_until(migrated.clone());
            let probed = store.clone();
            probes::watch_pool(&metrics, name, connections, move || probed.pool_use());
            store
        };
        let house = store_of("house", HOUSE_CONNECTIONS);
        probes::watch_health(&metrics, Arc::clone(&health));
        let grace = Duration::from_secs(config.shutdown_grace_secs);
        let (shutdown, shutdown_receiver) = watch::channel(false);
        let (ingest, writing) = (Arbiter::new(), Arbiter::new());

        let (replays, replay_requests) = Replays::new();
        let (started, actors) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let pipeline = IngestPipeline {
            config: config.clone(),
            subscriptions,
            store: store_of("path", PATH_CONNECTIONS),
            handles: InboundHandles {
                ledger: Arc::clone(&ledger),
                health: Arc::clone(&health),
                flow: Arc::clone(&flow),
                metrics: Arc::clone(&metrics),
                faults,
            },
            writer_arbiter: writing.handle(),
            replay_requests,
            replay_store: house.clone(),
            shutdown: shutdown_receiver,
            grace,
        };
        ingest.spawn_fn(move || {
            actix_rt::spawn(pipeline.run(started, ending));
        });
        let (supervisor, outbox) = actors.await.context("the ingest arbiter failed to start")?;

        let fleet = streams::Fleet::new(Arc::clone(&hub), house.clone(), Arc::clone(&metrics));
        let context = api::Context {
            streams: api::Streams { hub: Arc::clone(&hub), fleet: Arc::clone(&fleet) },
            ingest: api::Ingest {
                flow,
                max_messages: config.mqtt.receive_maximum.into(),
                max_bytes: config.mqtt.window_bytes as u64,
                max_batch_items: config.writer.batch_items as u64,
                writers: config.writer.connections,
                log,
            },
            store: store_of("api", config.store.readers),
            supervisor: SupervisorHandle::new(&supervisor, &outbox),
            replays,
            ledger: Arc::clone(&ledger),
            health,
            metrics: Arc::clone(&metrics),
            started_at,
        };
        let (server, address) = api::bind(&config.http, context)?;
        if config.store.measurement_bundles {
            spawn_behind(&house, Bundler::new(house.clone()).run());
        }
        spawn_behind(&house, probes::watch_tables(house.clone(), Arc::clone(&metrics)));
        spawn_behind(&house, fleet.run());
        let housekeeper = Housekeeper::new(house.clone(), &config.store);
        spawn_behind(&house, keep_house(housekeeper, metrics));
        actix_rt::spawn(Arc::clone(&hub).run(events));
        let migration = actix_rt::spawn(async move {
            if config.migrate_on_start {
                migrate(&config.store).await?;
            }
            brought_up_to_date.send_replace(true);
            Ok(())
        });
        info!(%address, version = env!("CARGO_PKG_VERSION"), "tributary serves");
        Ok(Self {
            address,
            ledger,
            server,
            ingest,
            writing,
            hub,
            shutdown,
            migration,
            ended,
            grace,
        })
    }

    /// Where HTTP is served.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The account of all items.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Serves until then, lets what is in flight finish, and stops.
    ///
    /// # Errors
    /// When the migrations that were asked for fail, or a part without which nothing goes on. What is
    /// un-acknowledged stays with the broker: end the process and start it anew.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self {
            server, ingest, writing, hub, shutdown: tell, migration, mut ended, grace, ..
        } = self;
        let http = server.handle();
        let serving = actix_rt::spawn(server);
        tokio::pin!(serving);

        let failure = tokio::select! {
            () = shutdown => None,
            failure = failure_of(migration) => Some(failure),
            ending = &mut ended => Some(anyhow!("ingest ended by itself: {ending:?}")),
            outcome = &mut serving => Some(anyhow!("the HTTP server ended by itself: {outcome:?}")),
        };
        info!("shutting down");
        tell.send_replace(true);
        // Streams have no end of their own, for which the server would wait.
        hub.close();
        if tokio::time::timeout(Duration::from_secs(HTTP_GRACE_SECS), http.stop(true))
            .await
            .is_err()
        {
            debug!("HTTP requests under way were cut off");
        }
        if failure.is_none() && tokio::time::timeout(grace * 2, ended).await.is_err() {
            warn!("ingest did not end within twice its grace time");
        }
        stop(ingest)?;
        stop(writing)?;
        failure.map_or(Ok(()), Err)
    }
}

fn stop(arbiter: Arbiter) -> anyhow::Result<()> {
    arbiter.stop();
    arbiter.join().map_err(|_| anyhow!("an arbiter's thread panicked"))
}

/// What needs the tables, once they are up to date.
fn spawn_behind(store: &Store, work: impl Future<Output = ()> + 'static) {
    let store = store.clone();
    actix_rt::spawn(async move {
        store.migrated().await;
        work.await;
    });
}

/// Returns only if it fails.
async fn failure_of(migration: JoinHandle<anyhow::Result<()>>) -> anyhow::Error {
    match migration.await {
        Ok(Ok(())) => std::future::pending().await,
        Ok(Err(error)) => error,
        Err(panicked) => panicked.into(),
    }
}

/// Waits for the database, then brings the tables up to date.
async fn migrate(config: &store::Config) -> anyhow::Result<()> {
    let mut failures = 0;
    loop {
        match store::migrate(config).await {
            Ok(applied) => {
                info!(?applied, "the tables are up to date");
                return Ok(());
            }
            Err(error) if error.is_unavailable() => {
                failures += 1;
                warn!(%error, failures, "the database is not there yet; ingest waits for it");
                tokio::time::sleep(pause(failures, rand::random())).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn keep_house(housekeeper: Housekeeper, metrics: Arc<Metrics>) {
    let (mut failures, mut waits) = (0, 0);
    loop {
        let wait = match housekeeper.round().await {
            Ok(waiting) => {
                failures = 0;
                metrics.housekeeping_success.set(Timestamp::now().unix_seconds());
                waits = if tell_waiting(&metrics, waiting, waits == 0) { waits + 1 } else { 0 };
                if waits > 0 { long_pause(waits) } else { HOUSEKEEPING_INTERVAL }
            }
            Err(error) => {
                failures += 1;
                metrics.housekeeping_failures.inc();
                if failures == 1 {
                    warn!(%error, "housekeeping failed; it is tried again");
                } else {
                    debug!(%error, failures, "housekeeping failed again");
                }
                let unavailable = error.is_unavailable();
                if unavailable { pause(failures, rand::random()) } else { long_pause(failures) }
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Whether anything waits.
fn tell_waiting(
    metrics: &Metrics,
    waiting: impl IntoIterator<Item = store::Waiting>,
    is_first: bool,
) -> bool {
    let mut waits = false;
    for store::Waiting { table, to_make, to_drop } in waiting {
        for (task, count) in [("make", to_make), ("drop", to_drop)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.partitions_waiting.with_label_values(&[table, task]).set(count);
        }
        if to_make + to_drop > 0 {
            waits = true;
            if is_first {
                warn!(
                    table,
                    to_make,
                    to_drop,
                    "partitions wait for somebody who holds a lock for long; they are tried again"
                );
            }
        }
    }
    waits
}
