//! The whole service: the only file that knows everyone. `App::start` builds it bottom-up,
//! `App::run_until` keeps it going and takes it down top-down. `main` owns one, and each test its
//! own.
//!
//! Three threads do the work: the ingest arbiter (inbound loop, sensors' actors, outbox), the
//! writer arbiter (batches, COPY), and this one (HTTP, housekeeping).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor as _, Addr};
use actix_rt::task::JoinHandle;
use actix_rt::{Arbiter, ArbiterHandle};
use anyhow::{Context as _, anyhow};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::api::{self, Fleet};
use crate::config::Config;
use crate::domain::{Audience, Flow, Health, Ledger, Timestamp, pause};
use crate::metrics::Metrics;
use crate::mqtt::{Inbound, InboundHandles, Outbound};
use crate::probes;
use crate::replay::{ReplayRequests, Replayer, ReplayerWays, Replays};
use crate::sensor::{Faults, Outbox, Router, Supervisor, SupervisorWays};
use crate::store::{self, Bundler, Committer, Housekeeper, Store};
use crate::streams::{self, Hub};
use crate::telemetry::LogFilter;
use crate::wire::{Decoder, Topics};
use crate::writer::{Committed, Reports, WriterActor};

/// Downlinks that wait for the connection to the broker; the outbox waits behind them.
const DOWNLINKS_WAITING: usize = 64;

/// For looking sensors up and for the outbox. They are not shared with the API, whose slow readers
/// would otherwise keep messages waiting for the look-up of their sensor.
const PATH_CONNECTIONS: u32 = 2;

const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(3_600);
const VITAL_SIGNS_INTERVAL: Duration = Duration::from_secs(1);

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
    ended: oneshot::Receiver<Ending>,
    grace: Duration,
}

/// Why ingest ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// Because it was told to.
    Told,
    /// An actor without which nothing goes on is gone.
    ActorGone,
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
        let (audience, news) = Audience::new();
        let hub = Hub::new(config.streams, Arc::clone(&audience));
        let metrics = Arc::new(Metrics::new(Arc::clone(&ledger)));
        let store = Store::new(&config.store).held_until(migrated.clone());
        probes::watch_health(&metrics, Arc::clone(&health));
        let probed = store.clone();
        probes::watch_pool(&metrics, "api", config.store.readers, move || probed.pool_use());
        let grace = Duration::from_secs(config.shutdown_grace_secs);
        let (shutdown, told) = watch::channel(false);
        let (ingest, writing) = (Arbiter::new(), Arbiter::new());

        let (replays, replay_requests) = Replays::new();
        let (started, supervisor) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let path = Path {
            config: config.clone(),
            faults: faults.clone(),
            audience,
            store: Store::new(&store::Config { readers: PATH_CONNECTIONS, ..config.store.clone() })
                .held_until(migrated),
            handles: InboundHandles {
                ledger: Arc::clone(&ledger),
                health: Arc::clone(&health),
                flow: Arc::clone(&flow),
                metrics: Arc::clone(&metrics),
                faults,
            },
            writing: writing.handle(),
            replays: (replay_requests, store.clone()),
            told,
            grace,
        };
        ingest.spawn_fn(move || {
            actix_rt::spawn(path.run(started, ending));
        });
        let supervisor = supervisor.await.context("the ingest arbiter failed to start")?;

        let fleet = streams::Fleet::new(Arc::clone(&hub), store.clone());
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
            store: store.clone(),
            fleet: Fleet::of(&supervisor),
            replays,
            ledger: Arc::clone(&ledger),
            health,
            metrics: Arc::clone(&metrics),
            started_at,
        };
        let (server, address) = api::bind(&config.http, context)?;
        if config.store.measurement_bundles {
            spawn_behind(&store, Bundler::new(store.clone()).run());
        }
        spawn_behind(&store, probes::watch_tables(store.clone(), Arc::clone(&metrics)));
        spawn_behind(&store, fleet.run());
        let housekeeper = Housekeeper::new(store.clone(), &config.store);
        spawn_behind(&store, keep_house(housekeeper, metrics));
        actix_rt::spawn(Arc::clone(&hub).run(news));
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
    /// When the migrations that were asked for fail, or a part without which nothing goes on. What is un-acknowledged stays with the
    /// broker: end the process and start it anew.
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
        match failure {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
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

/// What a message meets, from its PUBLISH to its PUBACK; built on the ingest arbiter's thread.
struct Path {
    config: Config,
    faults: Faults,
    audience: Arc<Audience>,
    store: Store,
    handles: InboundHandles,
    writing: ArbiterHandle,
    /// What is asked of the replayer, and the store that it reads: the API's, whose slow readers may
    /// keep it waiting.
    replays: (ReplayRequests, Store),
    told: watch::Receiver<bool>,
    grace: Duration,
}

impl Path {
    async fn run(
        self,
        started: oneshot::Sender<Addr<Supervisor>>,
        ending: oneshot::Sender<Ending>,
    ) {
        let topics = Topics::new(&self.config.mqtt.topic_prefix);
        let decoder = Decoder::new(topics.clone(), self.config.limits);
        let (settled, hears) = mpsc::unbounded_channel();
        let (replayed, hears_replayed) = mpsc::unbounded_channel();
        let (down, goes_down) = mpsc::channel(DOWNLINKS_WAITING);
        let InboundHandles { ledger, health, metrics, .. } = self.handles.clone();

        let probed = self.store.clone();
        probes::watch_pool(&metrics, "path", PATH_CONNECTIONS, move || probed.pool_use());
        let audience = Arc::clone(&self.audience);
        let outbox = Outbox::new(self.store.clone(), down, audience, Arc::clone(&metrics)).start();
        let (router, writer) = self.supervisor((settled, replayed), &outbox);
        let outbound = Outbound::new(
            self.config.mqtt.clone(),
            topics,
            goes_down,
            (health, metrics),
            self.told.clone(),
        );
        let (replay_requests, store) = self.replays;
        let ways = ReplayerWays {
            router: router.clone(),
            decoder: decoder.clone(),
            ledger,
            store,
            replayed: hears_replayed,
        };
        let replayer = Replayer::new(replay_requests, ways);
        let inbound = Inbound::new(
            self.config.mqtt,
            decoder,
            router.clone(),
            self.handles,
            hears,
            (self.told.clone(), self.grace),
        );
        if started.send(router.supervisor()).is_err() {
            return;
        }
        actix_rt::spawn(outbound.run());
        actix_rt::spawn(replayer.run());
        let store = self.store;
        let mut told = self.told;
        // Until the tables are there everything stays with the broker.
        let ingest = async {
            tokio::select! {
                biased;
                () = store.migrated() => inbound.run().await,
                _ = told.wait_for(|told| *told) => {}
            }
        };
        let alive = move || router.is_alive() && writer.connected() && outbox.connected();
        let told = tokio::select! {
            () = ingest => Ending::Told,
            () = vital_signs(alive) => Ending::ActorGone,
        };
        if ending.send(told).is_err() {
            debug!("nobody waits for the end of ingest");
        }
    }

    fn supervisor(
        &self,
        (settled, replayed): (mpsc::UnboundedSender<Committed>, mpsc::UnboundedSender<Committed>),
        outbox: &Addr<Outbox>,
    ) -> (Router, Addr<WriterActor<Committer>>) {
        let InboundHandles { health, flow, metrics, .. } = self.handles.clone();
        let config = self.config.writer.clone();
        let audience = Arc::clone(&self.audience);
        let committer = Committer::new(&self.config.store, config.connections)
            .watched_by(Arc::clone(&audience));
        let faults = self.faults.clone();
        // On the thread that drives them from then on.
        let (store, connecting) = (self.store.clone(), committer.clone());
        self.writing.spawn(async move {
            store.migrated().await;
            connecting.connect(config.connections).await;
        });
        let probed = committer.clone();
        probes::watch_pool(&metrics, "writers", config.connections, move || probed.pool_use());
        let mut writer_address = None;
        let router = Supervisor::start_here(
            self.store.clone(),
            self.config.sensor.clone(),
            (Arc::clone(&metrics), self.faults.clone()),
            |supervisor| {
                let reports = Reports {
                    settled,
                    replayed,
                    acknowledged: supervisor.clone().recipient(),
                    deleted: supervisor.clone().recipient(),
                    audience,
                    health,
                    flow,
                    metrics,
                    faults,
                };
                let writer = WriterActor::start_in_arbiter(&self.writing, move |_| {
                    WriterActor::new(config, committer, reports)
                });
                writer_address = Some(writer.clone());
                SupervisorWays {
                    writer: writer.recipient(),
                    republish: outbox.clone().recipient(),
                    wake: outbox.clone().recipient(),
                }
            },
        );
        (router, writer_address.expect("the closure has run"))
    }
}

/// Returns when an actor without which nothing goes on is gone.
async fn vital_signs(alive: impl Fn() -> bool) {
    let mut tick = tokio::time::interval(VITAL_SIGNS_INTERVAL);
    while alive() {
        tick.tick().await;
    }
}

async fn keep_house(housekeeper: Housekeeper, metrics: Arc<Metrics>) {
    let mut failures = 0;
    loop {
        let wait = match housekeeper.round().await {
            Ok(()) => {
                failures = 0;
                metrics.housekeeping_success.set(Timestamp::now().unix_seconds());
                HOUSEKEEPING_INTERVAL
            }
            Err(error) => {
                failures += 1;
                metrics.housekeeping_failures.inc();
                if failures == 1 {
                    warn!(%error, "housekeeping failed; it is tried again");
                } else {
                    debug!(%error, failures, "housekeeping failed again");
                }
                pause(failures, rand::random())
            }
        };
        tokio::time::sleep(wait).await;
    }
}
