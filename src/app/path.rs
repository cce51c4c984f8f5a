//! What a message meets, from its PUBLISH to its PUBACK: built on the ingest arbiter's thread, with the
//! writer on a thread of its own. It ends when it is told to, or when a part of it is gone.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor as _, Addr};
use actix_rt::ArbiterHandle;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

use crate::config::Config;
use crate::domain::Audience;
use crate::mqtt::{Inbound, InboundHandles, Outbound};
use crate::probes;
use crate::replay::{ReplayRequests, Replayer, ReplayerWays};
use crate::sensor::{Faults, Outbox, Router, Supervisor, SupervisorWays};
use crate::store::{Committer, Store};
use crate::wire::{Decoder, Topics};
use crate::writer::{Committed, Reports, WriterActor};

/// Downlinks that wait for the connection to the broker; the outbox waits behind them.
const DOWNLINKS_WAITING: usize = 64;

const VITAL_SIGNS_INTERVAL: Duration = Duration::from_secs(1);

/// Why ingest ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// Because it was told to.
    Told,
    /// An actor without which nothing goes on is gone.
    ActorGone,
}

/// The parts that the path is built from.
pub(super) struct Path {
    pub(super) config: Config,
    pub(super) faults: Faults,
    pub(super) audience: Arc<Audience>,
    pub(super) store: Store,
    pub(super) handles: InboundHandles,
    pub(super) writing: ArbiterHandle,
    /// What is asked of the replayer, and the store that it reads.
    pub(super) replays: (ReplayRequests, Store),
    pub(super) told: watch::Receiver<bool>,
    pub(super) grace: Duration,
}

impl Path {
    pub(super) async fn run(
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
