//! Everything between a PUBLISH and its PUBACK. Started by `app` on the ingest arbiter's thread; the
//! writer runs on another thread. Ends on shutdown, or when one of its actors has stopped.

use std::sync::Arc;
use std::time::Duration;

use actix::dev::channel::channel;
use actix::{Addr, Context};
use actix_rt::ArbiterHandle;
use actix_rt::task::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::config::Config;
use crate::domain::{Leadership, Subscriptions, Task};
use crate::mqtt::{Inbound, InboundEnd, InboundHandles, Outbound, StopSignals};
use crate::probes;
use crate::replay::{ReplayRequests, Replayer, ReplayerHandles};
use crate::sensor::{Outbox, PublisherHandle, Router, RouterHandles, StoreLastSeen, Supervisor};
use crate::store::{Committed, Committer, Store};
use crate::tasks::Panic;
use crate::wire::{Decoder, Topics};
use crate::writer::{Reports, WriterActor};

/// Configurations between the outbox and the publisher; the outbox waits while it is full.
const DOWNLINK_CAPACITY: usize = 64;

/// How long shutdown waits for `last_seen` to be stored: 5,000 sensors take some 50 ms.
const LAST_SEEN_GRACE: Duration = Duration::from_secs(3);

/// As actix' own.
const WRITER_MAILBOX: usize = 16;

/// How the inbound loop ended; or, as a sentence, why it or an actor failed, which nothing restarts.
pub(super) type PipelineEnd = Result<InboundEnd, String>;

/// How an actor ended.
type ActorEnd = JoinHandle<Result<(), Panic>>;

/// For the API.
pub(super) type PipelineActors = (Addr<Supervisor>, Addr<Outbox>);

/// The pipeline, before it runs.
pub(super) struct IngestPipeline {
    pub(super) config: Config,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) store: Store,
    pub(super) handles: InboundHandles,
    pub(super) writer_arbiter: ArbiterHandle,
    pub(super) replay_requests: ReplayRequests,
    pub(super) replay_store: Store,
    pub(super) leadership: Leadership,
    pub(super) stop: StopSignals,
}

impl IngestPipeline {
    pub(super) async fn run(
        self,
        started: oneshot::Sender<PipelineActors>,
        ended: oneshot::Sender<PipelineEnd>,
    ) {
        let topics = Topics::new(&self.config.mqtt.topic_prefix);
        let decoder = Decoder::new(topics.clone(), self.config.limits);
        let (settled, settled_receiver) = mpsc::unbounded_channel();
        let (replayed, replayed_receiver) = mpsc::unbounded_channel();
        let (downlinks, downlink_receiver) = mpsc::channel(DOWNLINK_CAPACITY);
        let (connected_sender, connected) = watch::channel(false);
        let publisher = PublisherHandle { downlinks, connected };
        let InboundHandles { ledger, health, metrics, tasks, .. } = self.handles.clone();

        let subscriptions = Arc::clone(&self.subscriptions);
        let store = (self.store.clone(), tasks.clone(), self.leadership.clone());
        let outbox = Outbox::new(store, publisher, subscriptions, Arc::clone(&metrics));
        let (outbox, outbox_end) = tasks.run_actor(Task::Outbox, Context::new(), outbox);
        let (router, supervisor_end, writer_end) = self.start_actors((settled, replayed), &outbox);
        let mut outbound = Outbound::new(
            self.config.mqtt.clone(),
            topics,
            (downlink_receiver, connected_sender),
            (health, metrics, tasks.clone()),
            self.stop.shutdown.clone(),
        );
        let replayer_handles = ReplayerHandles {
            router: router.clone(),
            decoder: decoder.clone(),
            ledger,
            store: self.replay_store,
            replayed: replayed_receiver,
        };
        let mut replayer = Replayer::new(self.replay_requests, replayer_handles);
        let inbound = Inbound::new(
            self.config.mqtt,
            decoder,
            router.clone(),
            self.handles,
            settled_receiver,
            self.stop.clone(),
        );
        if started.send((router.supervisor(), outbox.clone())).is_err() {
            return;
        }
        actix_rt::spawn({
            let tasks = tasks.clone();
            async move { tasks.supervise(Task::Publisher, async || outbound.run().await).await }
        });
        actix_rt::spawn({
            let tasks = tasks.clone();
            async move {
                let work = async || replayer.run(tasks.faults()).await;
                tasks.supervise(Task::Replayer, work).await;
            }
        });
        let (store, mut shutdown) = (self.store, self.stop.shutdown);
        // Until the migrations are applied and the other instances are known, messages stay in the broker.
        let ready = async {
            store.migrated().await;
            self.subscriptions.joined().await;
        };
        let ingest = async {
            tokio::select! {
                biased;
                () = ready => inbound.run().await,
                _ = shutdown.wait_for(|shutdown| *shutdown) => InboundEnd::Shutdown,
            }
        };
        let supervisor = router.supervisor();
        let ingest = async {
            let end = ingest.await;
            let stored = supervisor.send(StoreLastSeen);
            if !matches!(tokio::time::timeout(LAST_SEEN_GRACE, stored).await, Ok(Ok(()))) {
                warn!("last_seen of some sensors could not be stored");
            }
            end
        };
        let writer_end = async move { writer_end.await.ok()?.await.ok() };
        let end = tokio::select! {
            end = tasks.watch(Task::Ingest, ingest) => end.map_err(|panic| panic.to_string()),
            end = outbox_end => Err(failure(Task::Outbox, end.ok())),
            end = supervisor_end => Err(failure(Task::Supervisor, end.ok())),
            end = writer_end => Err(failure(Task::Writer, end)),
        };
        if ended.send(end).is_err() {
            debug!("ingest stopped after the application");
        }
    }

    /// Starts the sensors' actors on this thread, and the writer on its own.
    fn start_actors(
        &self,
        (settled, replayed): (mpsc::UnboundedSender<Committed>, mpsc::UnboundedSender<Committed>),
        outbox: &Addr<Outbox>,
    ) -> (Router, ActorEnd, oneshot::Receiver<ActorEnd>) {
        let InboundHandles { health, flow, metrics, tasks, .. } = self.handles.clone();
        let config = self.config.writer.clone();
        let subscriptions = Arc::clone(&self.subscriptions);
        let committer = Committer::new(&self.config.store, config.connections)
            .publishing_to(Arc::clone(&subscriptions));
        // Connections are driven by the thread that opened them.
        let (store, connecting) = (self.store.clone(), committer.clone());
        self.writer_arbiter.spawn_fn({
            let tasks = tasks.clone();
            move || {
                actix_rt::spawn(async move {
                    store.migrated().await;
                    let work = async || {
                        tasks.faults().at(Task::WriterConnections);
                        connecting.connect(config.connections).await;
                    };
                    tasks.supervise(Task::WriterConnections, work).await;
                });
            }
        });
        let probed = committer.clone();
        probes::watch_pool(&metrics, "writers", config.connections, move || probed.pool_use());
        let handles = RouterHandles {
            store: self.store.clone(),
            outbox: outbox.clone().recipient(),
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
        };
        let (writer_sender, mailbox) = channel(WRITER_MAILBOX);
        let (ending, writer_end) = oneshot::channel();
        let (router, supervisor_end) =
            Router::start(self.config.sensor.clone(), handles, |supervisor| {
                let reports = Reports {
                    settled,
                    replayed,
                    acknowledged: supervisor.clone().recipient(),
                    duplicates: supervisor.clone().recipient(),
                    deleted: [supervisor.clone().recipient(), outbox.clone().recipient()],
                    subscriptions,
                    health,
                    flow,
                    metrics,
                    tasks: tasks.clone(),
                };
                self.writer_arbiter.spawn_fn(move || {
                    let context = Context::with_receiver(mailbox);
                    let writer = WriterActor::new(config, committer, reports);
                    let (_, end) = tasks.run_actor(Task::Writer, context, writer);
                    if ending.send(end).is_err() {
                        debug!("the writer started after ingest had ended");
                    }
                });
                Addr::new(writer_sender).recipient()
            });
        (router, supervisor_end, writer_end)
    }
}

/// None where the actor's thread has ended.
fn failure(task: Task, end: Option<Result<(), Panic>>) -> String {
    match end {
        Some(Err(panic)) => panic.to_string(),
        Some(Ok(())) | None => format!("{} stopped unexpectedly", task.name()),
    }
}
