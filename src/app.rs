//! The service: the only file that knows all parts. `App::start` starts them bottom-up, `App::run_until`
//! stops them top-down. Used by `cli`, and by tests.
//!
//! Threads: the ingest arbiter (inbound loop, sensors' actors, outbox, replayer), the writer arbiter
//! (batches, COPY), `HTTP_WORKERS` threads of HTTP, and the main thread (housekeeping, streams).

mod housekeeping;
mod ingest_pipeline;
mod instance_tasks;
mod registration;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use actix_rt::task::JoinHandle;
use anyhow::{Context as _, anyhow};
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};
use uuid::Uuid;

use self::housekeeping::run_housekeeping;
use self::ingest_pipeline::{IngestPipeline, PipelineEnd};
use self::registration::Registration;
use crate::api::{self, SupervisorHandle};
use crate::config::Config;
use crate::domain::{
    Faults, Flow, Health, Leadership, Ledger, Subscriptions, Task, Timestamp, pause,
};
use crate::instances::{Identity, PeersHandles};
use crate::metrics::Metrics;
use crate::mqtt::{InboundEnd, InboundHandles, StopSignals};
use crate::probes;
use crate::replay::Replays;
use crate::store::{self, AccessWatch, Housekeeper, RollUp, Store};
use crate::streams::{self, Hub};
use crate::tasks::Tasks;
use crate::telemetry::LogFilterHandle;

/// For sensor look-ups and the outbox. Separate from the API's, whose slow reads would delay messages.
const INGEST_CONNECTIONS: u32 = 2;

/// For tokens, sessions and readiness, which must not wait for reads.
const ACCESS_CONNECTIONS: u32 = 2;

/// For purges of deleted sensors.
const WORK_CONNECTIONS: u32 = 3;

/// For housekeeping, the roll-up and replays. The API's connections are opened by its own threads.
const BACKGROUND_CONNECTIONS: u32 = 4;

/// Time for HTTP requests in progress to finish.
const HTTP_GRACE_SECS: u64 = 5;

/// A running service.
pub struct App {
    address: SocketAddr,
    registration: Registration,
    ledger: Arc<Ledger>,
    server: actix_server::Server,
    ingest: Arbiter,
    writing: Arbiter,
    hub: Arc<Hub>,
    shutdown: watch::Sender<bool>,
    drain: watch::Sender<bool>,
    drain_on_stop: bool,
    migration: JoinHandle<anyhow::Result<()>>,
    pipeline_ended: oneshot::Receiver<PipelineEnd>,
    grace: Duration,
}

impl App {
    /// Binds the HTTP address and starts every part.
    pub async fn start(
        config: Config,
        faults: Faults,
        log: LogFilterHandle,
    ) -> anyhow::Result<Self> {
        let started_at = Timestamp::now();
        let (migrated_sender, migrated) = watch::channel(!config.migrate_on_start);
        let ledger = Arc::new(Ledger::default());
        let (health, flow) = (Arc::new(Health::default()), Arc::new(Flow::default()));
        let (subscriptions, mut events) = Subscriptions::new();
        let hub = Hub::new(config.streams, Arc::clone(&subscriptions));
        let metrics = Arc::new(Metrics::new(Arc::clone(&ledger)));
        let tasks = Tasks::new(faults);
        probes::watch_tasks(&metrics, tasks.clone());
        let store_of = |name, connections| {
            let config = store::Config { readers: connections, ..config.store.clone() };
            let store = Store::new(&config).held_until(migrated.clone());
            let probed = store.clone();
            probes::watch_pool(&metrics, name, connections, move || probed.pool_use());
            store
        };
        let background = store_of("background", BACKGROUND_CONNECTIONS);
        probes::watch_health(&metrics, Arc::clone(&health));
        let grace = Duration::from_secs(config.shutdown_grace_secs);
        let (leads_until, leadership) = Leadership::new();
        probes::watch_leadership(&metrics, leadership.clone());
        let (shutdown, shutdown_receiver) = watch::channel(false);
        let (drain, drain_receiver) = watch::channel(config.drain);
        let (ingest, writing) = (Arbiter::new(), Arbiter::new());

        let (replays, replay_requests) = Replays::new();
        let (started, actors) = oneshot::channel();
        let (pipeline_ending, pipeline_ended) = oneshot::channel();
        let pipeline = IngestPipeline {
            config: config.clone(),
            subscriptions: Arc::clone(&subscriptions),
            leadership: leadership.clone(),
            store: store_of("ingest", INGEST_CONNECTIONS),
            handles: InboundHandles {
                ledger: Arc::clone(&ledger),
                health: Arc::clone(&health),
                flow: Arc::clone(&flow),
                metrics: Arc::clone(&metrics),
                tasks: tasks.clone(),
            },
            writer_arbiter: writing.handle(),
            replay_requests,
            replay_store: background.clone(),
            stop: StopSignals { shutdown: shutdown_receiver, drain: drain_receiver, grace },
        };
        ingest.spawn_fn(move || {
            actix_rt::spawn(pipeline.run(started, pipeline_ending));
        });
        let (supervisor, outbox) = actors.await.context("the ingest arbiter failed to start")?;

        let identity = Identity {
            identifier: Uuid::new_v4(),
            client_id: config.mqtt.client_id.clone(),
            host: config.host.clone(),
            started_at,
            topic_prefix: config.mqtt.topic_prefix.clone(),
            broker: format!("{}:{}", config.mqtt.broker.host, config.mqtt.broker.port),
        };
        let peers_handles = PeersHandles {
            supervisor: supervisor.clone(),
            outbox: outbox.clone(),
            hub: Arc::clone(&hub),
            ledger: Arc::clone(&ledger),
            flow: Arc::clone(&flow),
            leadership: leadership.clone(),
        };

        let fleet =
            streams::FleetStream::new(Arc::clone(&hub), background.clone(), Arc::clone(&metrics));
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
            access: store_of("access", ACCESS_CONNECTIONS),
            work: store_of("work", WORK_CONNECTIONS),
            supervisor: SupervisorHandle::new(&supervisor, &outbox),
            replays,
            ledger: Arc::clone(&ledger),
            health,
            identity: identity.clone(),
            leadership: leadership.clone(),
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
            settings: api::Settings {
                topic_prefix: config.mqtt.topic_prefix.clone(),
                nested_values: config.limits.nested_values,
                future_tolerance_secs: config.store.future_tolerance_secs,
            },
            started_at,
        };
        let (server, address) = api::bind(&config.http, context)?;
        let background_tasks = BackgroundTasks {
            tasks: tasks.clone(),
            store: background.clone(),
            hub: Arc::clone(&hub),
            metrics,
            leadership,
        };
        background_tasks.spawn(&config.store, fleet);
        let registration =
            background_tasks.spawn_instances(&config.store, leads_until, identity, peers_handles);
        let published = Arc::clone(&hub);
        actix_rt::spawn(async move {
            let work = async || published.run(&mut events, tasks.faults()).await;
            tasks.supervise(Task::Hub, work).await;
        });
        let migration = actix_rt::spawn(async move {
            prepare(&config.store, config.migrate_on_start).await?;
            migrated_sender.send_replace(true);
            Ok(())
        });
        info!(%address, version = env!("CARGO_PKG_VERSION"), "tributary started");
        Ok(Self {
            address,
            registration,
            ledger,
            server,
            ingest,
            writing,
            hub,
            shutdown,
            drain,
            drain_on_stop: config.mqtt.drain_on_stop,
            migration,
            pipeline_ended,
            grace,
        })
    }

    /// The HTTP server's address.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The counts of all items.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Runs until `shutdown`, waits for messages in flight, and stops. With DRAIN_ON_STOP it is drained first, until
    /// `shutdown` ends a second time. If it fails, the process should be restarted; the broker keeps unacknowledged
    /// messages.
    pub async fn run_until(self, mut shutdown: impl AsyncFnMut()) -> anyhow::Result<()> {
        let Self {
            registration,
            server,
            ingest,
            writing,
            hub,
            shutdown: shutdown_sender,
            drain,
            drain_on_stop,
            migration,
            mut pipeline_ended,
            grace,
            ..
        } = self;
        let http = server.handle();
        let serving = actix_rt::spawn(server);
        tokio::pin!(serving);

        let shutdown = async {
            shutdown().await;
            if drain_on_stop {
                info!("draining before the process ends; a second signal stops it at once");
                drain.send_replace(true);
                shutdown().await;
            }
        };
        let mut has_ended = false;
        let mut is_undrained = false;
        let failure = tokio::select! {
            () = shutdown => {
                is_undrained = drain_on_stop;
                None
            }
            failure = failure_of(migration) => Some(failure),
            end = &mut pipeline_ended => {
                has_ended = true;
                match end {
                    Ok(Ok(InboundEnd::Drained)) => None,
                    Ok(Ok(end @ (InboundEnd::NoSession | InboundEnd::TakenOver))) => Some(anyhow!("{end}")),
                    Ok(Err(cause)) => Some(anyhow!("{cause}; restart the process")),
                    end => Some(anyhow!("ingest stopped unexpectedly: {end:?}")),
                }
            }
            outcome = &mut serving => Some(anyhow!("the HTTP server stopped unexpectedly: {outcome:?}")),
        };
        info!("shutting down");
        shutdown_sender.send_replace(true);
        // The server would wait for streams, which do not end by themselves.
        hub.close();
        if tokio::time::timeout(Duration::from_secs(HTTP_GRACE_SECS), http.stop(true))
            .await
            .is_err()
        {
            debug!("HTTP requests in progress were aborted");
        }
        if !has_ended
            && failure.is_none()
            && tokio::time::timeout(grace * 2, pipeline_ended).await.is_err()
        {
            warn!("ingest did not stop within twice the grace period");
        }
        registration.end().await;
        stop(ingest)?;
        stop(writing)?;
        let undrained = || anyhow!("stopped before the session was drained; the broker keeps it");
        failure.or_else(|| is_undrained.then(undrained)).map_or(Ok(()), Err)
    }
}

fn stop(arbiter: Arbiter) -> anyhow::Result<()> {
    arbiter.stop();
    arbiter.join().map_err(|_| anyhow!("an arbiter's thread panicked"))
}

/// What runs once the tables are migrated, to the end of the process.
#[derive(Clone)]
struct BackgroundTasks {
    tasks: Tasks,
    store: Store,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    leadership: Leadership,
}

impl BackgroundTasks {
    fn spawn(&self, config: &store::Config, fleet: Arc<streams::FleetStream>) {
        let roll_up = RollUp::new(self.store.clone(), config);
        self.supervise(Task::RollUp, async move |it| {
            let report = |due_since| it.metrics.rollup_due.set(due_since);
            roll_up.run(it.leadership.clone(), it.tasks.faults(), report).await;
        });
        self.supervise(Task::Census, async |it| {
            probes::watch_tables(&it.store, &it.metrics, it.tasks.faults()).await;
        });
        self.supervise(Task::Fold, async move |it| fleet.run(it.tasks.faults()).await);
        let mut watch = AccessWatch::new(config, self.store.clone());
        self.supervise(Task::AccessWatch, async move |it| {
            streams::check_grants(&it.hub, &mut watch, &it.metrics, it.tasks.faults()).await;
        });
        let housekeeper = Housekeeper::new(self.store.clone(), config);
        self.supervise(Task::Housekeeping, async move |it| {
            let leadership = it.leadership.clone();
            run_housekeeping(&housekeeper, leadership, &it.metrics, it.tasks.faults()).await;
        });
    }

    fn supervise(&self, task: Task, mut work: impl AsyncFnMut(&Self) + 'static) -> JoinHandle<()> {
        let it = self.clone();
        actix_rt::spawn(async move {
            it.store.migrated().await;
            it.tasks.supervise(task, async || work(&it).await).await;
        })
    }
}

/// Returns only if it fails.
async fn failure_of(migration: JoinHandle<anyhow::Result<()>>) -> anyhow::Error {
    match migration.await {
        Ok(Ok(())) => std::future::pending().await,
        Ok(Err(error)) => error,
        Err(panicked) => panicked.into(),
    }
}

/// Waits for the database, fails if a pooler cannot be used, and applies migrations if configured.
async fn prepare(config: &store::Config, migrates: bool) -> anyhow::Result<()> {
    let mut failures = 0;
    loop {
        let outcome = if migrates {
            store::migrate(config).await.map(Some)
        } else {
            check(config).await.map(|()| None)
        };
        match outcome {
            Ok(None) => return Ok(()),
            Ok(Some(applied)) => {
                info!(?applied, "migrations applied");
                return Ok(());
            }
            // Unless we migrate, only this ends the service: a wrong password may be corrected.
            Err(error) if error.is_unavailable() || !migrates && !error.is_unusable_setup() => {
                failures += 1;
                if migrates {
                    warn!(%error, failures, "database unavailable; ingest starts once it is available");
                }
                tokio::time::sleep(pause(failures, rand::random())).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Fails if a pooler or the engine's extension cannot be used. Tables that do not exist are reported by `/readyz`.
async fn check(config: &store::Config) -> Result<(), store::StoreError> {
    store::refuse_transaction_pooling(config).await?;
    match store::engine_of(config).await {
        Ok(engine) => info!(engine = engine.name(), "engine read"),
        Err(error) if error.lacks_tables() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
