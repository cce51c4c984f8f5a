//! One process of the tests, from its start to its crash: everything of the service between the broker
//! and the database.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor as _;
use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, mpsc, watch};

use super::broker::{Broker, BrokerConnection};
use super::database::{Database, Tables, contains, sensor};
use super::{LIMITS, MAX_BYTES, MAX_MESSAGES, POISON};
use crate::domain::{Faults, Health, Ledger, Subscriptions};
use crate::metrics::Metrics;
use crate::mqtt::inbound::{Inbound, InboundHandles};
use crate::mqtt::publish_assembly::PublishAssembly;
use crate::mqtt::{BrokerUrl, Config, StopSignals};
use crate::replay::{ReplayReport, Replayer, ReplayerHandles, Replays};
use crate::sensor::tests::{IgnoringActor, nowhere};
use crate::sensor::{self, Router, RouterHandles, UnknownSensor};
use crate::store::{KnownSensor, Store};
use crate::tasks::Tasks;
use crate::wire::{Decoder, Topics};
use crate::writer::{self, Reports, WriterActor};

/// The parts of the process.
pub(super) struct Process {
    pub(super) inbound: Inbound,
    pub(super) replayer: Replayer,
    pub(super) router: Router,
    pub(super) ledger: Arc<Ledger>,
    pub(super) gate: Arc<Semaphore>,
    _shutdown: watch::Sender<bool>,
}

impl Process {
    pub(super) fn start(database: &Database) -> Self {
        let ledger = Arc::new(Ledger::default());
        let handles = InboundHandles {
            ledger: Arc::clone(&ledger),
            health: Arc::new(Health::default()),
            flow: Arc::default(),
            metrics: Arc::new(Metrics::new(Arc::clone(&ledger))),
            tasks: Tasks::default(),
        };
        let ignoring = IgnoringActor.start();
        let (settled, settled_receiver) = mpsc::unbounded_channel();
        let (replayed, replayed_receiver) = mpsc::unbounded_channel();
        let reports = Reports {
            settled,
            replayed,
            acknowledged: ignoring.clone().recipient(),
            duplicates: ignoring.clone().recipient(),
            deleted: [ignoring.clone().recipient(), ignoring.clone().recipient()],
            subscriptions: Subscriptions::none(),
            health: Arc::clone(&handles.health),
            flow: Arc::clone(&handles.flow),
            metrics: Arc::clone(&handles.metrics),
            tasks: Tasks::default(),
        };
        let config =
            writer::Config { connections: 2, batch_items: 12, rejections_per_sensor_hour: 1_000 };
        let writer = WriterActor::new(config, database.clone(), reports).start();
        let faults = Faults::actor_panics(|uplink| contains(uplink.message.payload(), POISON));
        let sensors = sensor::Config {
            unknown: UnknownSensor::Reject,
            idle_secs: 600,
            republish_secs: 60,
            future_tolerance_secs: 60,
        };
        let router_handles = RouterHandles {
            store: Store::new(&nowhere()),
            outbox: ignoring.recipient(),
            metrics: Arc::clone(&handles.metrics),
            tasks: Tasks::new(faults),
        };
        let router = Router::start(sensors, router_handles, |_| writer.recipient()).0;
        let config = Config {
            broker: "mqtt://127.0.0.1:1".parse::<BrokerUrl>().unwrap(),
            client_id: "x".into(),
            shared_group: None,
            drain_on_stop: false,
            topic_prefix: String::new(),
            receive_maximum: MAX_MESSAGES,
            session_expiry_days: 1,
            keep_alive_secs: 10,
            window_bytes: MAX_BYTES,
        };
        let decoder = Decoder::new(Topics::new(""), LIMITS);
        let replayer_handles = ReplayerHandles {
            router: router.clone(),
            decoder: decoder.clone(),
            ledger: Arc::clone(&ledger),
            store: Store::new(&nowhere()),
            replayed: replayed_receiver,
        };
        let replayer = Replayer::new(Replays::new().1, replayer_handles);
        let (shutdown, shutdown_receiver) = watch::channel(false);
        let stop = StopSignals {
            drain: shutdown_receiver.clone(),
            shutdown: shutdown_receiver,
            grace: Duration::from_secs(1),
        };
        let inbound =
            Inbound::new(config, decoder, router.clone(), handles, settled_receiver, stop);
        let gate = Arc::clone(&database.gate);
        Self { inbound, replayer, router, ledger, gate, _shutdown: shutdown }
    }

    /// The look-up of a sensor ends; a panicked actor is replaced.
    pub(super) fn look_up(&self, number: u128, exists: bool) {
        if !exists {
            return self.router.refuse(sensor(number));
        }
        self.router.admit(&KnownSensor {
            identifier: sensor(number),
            desired_revision: None,
            last_acknowledged: None,
        });
    }

    pub(super) fn deliver(&mut self, broker: &mut Broker) {
        if !self.inbound.window.has_room() {
            return;
        }
        let mut connection =
            BrokerConnection { broker, assembly: PublishAssembly::new(LIMITS.payload_bytes) };
        if let Some(first) = connection.broker.send() {
            self.inbound.receive_all(&mut connection, first).unwrap();
        }
    }

    /// True: the connection must be closed.
    pub(super) fn receive(&mut self, broker: &mut Broker, tables: &Tables) -> bool {
        let mut broken = false;
        while let Ok(committed) = self.inbound.settled.try_recv() {
            self.inbound.settle(committed);
        }
        while let Ok(lost) = self.inbound.lost.try_recv() {
            broken |= self.inbound.lose(lost);
        }
        while self.replayer.receive(&mut ReplayReport::default()).now_or_never().is_some() {}
        if !broken {
            self.acknowledge(broker, tables);
        }
        broken
    }

    pub(super) fn acknowledge(&mut self, broker: &mut Broker, tables: &Tables) {
        let broker = RefCell::new(broker);
        let puback = |id| {
            broker.borrow_mut().acknowledged(id, tables);
            Ok(())
        };
        self.inbound.acknowledge_with(puback).unwrap();
    }

    pub(super) fn reconnect(&mut self, broker: &mut Broker) {
        self.inbound.window.connection_ended();
        broker.connection_ended();
        // Settled messages of the earlier connection leave the window without a PUBACK.
        self.inbound.acknowledge_with(|id| panic!("{id} is of an earlier connection")).unwrap();
    }

    pub(super) fn check(&self) {
        for (kind, entry) in self.ledger.snapshot().entries() {
            assert!(entry.balances(), "{kind}: {entry:?}");
        }
        assert!(self.inbound.window.len() <= usize::from(MAX_MESSAGES), "the window is bounded");
    }
}
