//! Everything between a PUBLISH and its PUBACK. Started by `app` on the ingest arbiter's thread; the
//! writer runs on another thread. Ends on shutdown, or when one of its actors has stopped.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor as _, Addr};
use actix_rt::ArbiterHandle;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::config::Config;
use crate::domain::Subscriptions;
use crate::mqtt::{Inbound, InboundHandles, Outbound};
use crate::probes;
use crate::replay::{ReplayRequests, Replayer, ReplayerHandles};
use crate::sensor::{Outbox, PublisherHandle, Router, RouterHandles, StoreLastSeen, Supervisor};
use crate::store::{Committed, Committer, Store};
use crate::wire::{Decoder, Topics};
use crate::writer::{Reports, WriterActor};

/// Configurations between the outbox and the publisher; the outbox waits while it is full.
const DOWNLINK_CAPACITY: usize = 64;

/// How long shutdown waits for `last_seen` to be stored: 5,000 sensors take some 50 ms.
const LAST_SEEN_GRACE: Duration = Duration::from_secs(3);

const LIVENESS_INTERVAL: Duration = Duration::from_secs(1);

/// Why the pipeline ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PipelineEnd {
    Shutdown,
    /// An actor that is not restarted.
    ActorStopped,
}

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
    pub(super) shutdown: watch::Receiver<bool>,
    pub(super) grace: Duration,
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
        let InboundHandles { ledger, health, metrics, .. } = self.handles.clone();

        let subscriptions = Arc::clone(&self.subscriptions);
        let outbox =
            Outbox::new(self.store.clone(), publisher, subscriptions, Arc::clone(&metrics)).start();
        let (router, writer) = self.start_actors((settled, replayed), &outbox);
        let outbound = Outbound::new(
            self.config.mqtt.clone(),
            topics,
            (downlink_receiver, connected_sender),
            (health, metrics),
            self.shutdown.clone(),
        );
        let replayer_handles = ReplayerHandles {
            router: router.clone(),
            decoder: decoder.clone(),
            ledger,
            store: self.replay_store,
            replayed: replayed_receiver,
        };
        let replayer = Replayer::new(self.replay_requests, replayer_handles);
        let inbound = Inbound::new(
            self.config.mqtt,
            decoder,
            router.clone(),
            self.handles,
            settled_receiver,
            (self.shutdown.clone(), self.grace),
        );
        if started.send((router.supervisor(), outbox.clone())).is_err() {
            return;
        }
        actix_rt::spawn(outbound.run());
        actix_rt::spawn(replayer.run());
        let (store, mut shutdown) = (self.store, self.shutdown);
        // Until the migrations are applied, messages stay in the broker.
        let ingest = async {
            tokio::select! {
                biased;
                () = store.migrated() => inbound.run().await,
                _ = shutdown.wait_for(|shutdown| *shutdown) => {}
            }
        };
        let supervisor = router.supervisor();
        let alive = move || router.is_alive() && writer.connected() && outbox.connected();
        let ingest = async {
            ingest.await;
            let stored = supervisor.send(StoreLastSeen);
            if !matches!(tokio::time::timeout(LAST_SEEN_GRACE, stored).await, Ok(Ok(()))) {
                warn!("last_seen of some sensors could not be stored");
            }
        };
        let end = tokio::select! {
            () = ingest => PipelineEnd::Shutdown,
            () = until_stopped(alive) => PipelineEnd::ActorStopped,
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
    ) -> (Router, Addr<WriterActor<Committer>>) {
        let InboundHandles { health, flow, metrics, faults, .. } = self.handles.clone();
        let config = self.config.writer.clone();
        let subscriptions = Arc::clone(&self.subscriptions);
        let committer = Committer::new(&self.config.store, config.connections)
            .publishing_to(Arc::clone(&subscriptions));
        // Connections are driven by the thread that opened them.
        let (store, connecting) = (self.store.clone(), committer.clone());
        self.writer_arbiter.spawn(async move {
            store.migrated().await;
            connecting.connect(config.connections).await;
        });
        let probed = committer.clone();
        probes::watch_pool(&metrics, "writers", config.connections, move || probed.pool_use());
        let handles = RouterHandles {
            store: self.store.clone(),
            outbox: outbox.clone().recipient(),
            metrics: Arc::clone(&metrics),
            faults: faults.clone(),
        };
        let mut writer_address = None;
        let router = Router::start(self.config.sensor.clone(), handles, |supervisor| {
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
                faults,
            };
            let writer = WriterActor::start_in_arbiter(&self.writer_arbiter, move |_| {
                WriterActor::new(config, committer, reports)
            });
            writer_address.insert(writer).clone().recipient()
        });
        (router, writer_address.expect("Router::start has called the closure"))
    }
}

async fn until_stopped(alive: impl Fn() -> bool) {
    let mut interval = tokio::time::interval(LIVENESS_INTERVAL);
    while alive() {
        interval.tick().await;
    }
}
