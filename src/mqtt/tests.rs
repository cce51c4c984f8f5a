//! The promises of the whole path, under any interleaving: the real inbound loop, actors, writer and
//! ledger between a scripted broker and an in-memory store. Only the connection and PostgreSQL are
//! played. Each step of a plan is one thing that may happen next; after each the invariants hold,
//! and in the end, when nothing fails any more, every item is where it belongs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor as _;
use futures_util::FutureExt as _;
use ntex_bytes::Bytes;
use ntex_mqtt::v5::codec;
use proptest::prelude::*;
use tokio::sync::{Semaphore, mpsc, watch};

use super::assembly::Assembly;
use super::inbound::{Inbound, InboundHandles};
use super::intake::Packets;
use super::session::SessionEnd;
use super::{BrokerUrl, Config};
use crate::domain::{
    AckTokens, Batch, Faults, Health, Kind, Ledger, RawMessage, RejectionDigest, RowRef,
    SensorIdentifier, Subscriptions, Tally, Timestamp, Uplink,
};
use crate::metrics::Metrics;
use crate::replay::{Replayer, ReplayerHandles, Replays, Report};
use crate::sensor::tests::{Nobody, nowhere};
use crate::sensor::{self, Router, RouterHandles, UnknownSensor};
use crate::store::{Committed, KnownSensor, Path, Store, StoreError, Uncommitted, Verdict};
use crate::wire::{Decoder, Limits, Topics};
use crate::writer::{self, Commit, Reports, WriterActor};

const SENSORS: u128 = 3;
const MAX_MESSAGES: u16 = 6;
const MAX_BYTES: usize = 6_000;
const LIMITS: Limits = Limits { payload_bytes: 1 << 16, items_per_message: 10 };

/// Connections in a row that a plan's poisoned messages may cost, once nothing else fails.
const MANY: u32 = 100;

/// A value that PostgreSQL refuses, and one that its sensor's actor panics over.
const REFUSED: &[u8] = b"refused";
const POISON: &[u8] = b"poison";

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    /// A sensor says something.
    Publish(Said),
    /// The broker sends what it may.
    Deliver,
    /// Actors, writer and deliveries get their turn so often.
    Work(u8),
    /// A transaction comes to its end.
    Commit(Fate),
    /// The loop hears what was settled and what was lost, and sends the PUBACKs.
    Hear,
    /// The look-up of a sensor that has spoken finds it, or finds none; until then its messages wait.
    LookUp(u128, bool),
    /// What was rejected as a whole, from this one on, is replayed, if nothing is yet.
    Replay(u8),
    /// The connection ends, and the next one begins.
    Reconnect,
    /// The process is told to end: what is settled is acknowledged still, and the next one begins.
    Drain,
    /// The process ends, and the next one begins.
    Crash,
}

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Commits,
    /// It is not there, and the writer is told so.
    Fails,
    /// It is there, and the writer is told that it is not.
    AnswerLost,
    /// It is there, and nobody is told anything any more.
    NeverHeardOf,
    /// What brings it to the database panics.
    Panics,
}

#[derive(Clone, Debug)]
struct Said {
    sensor: u128,
    kind: Kind,
    payload: String,
}

fn said() -> impl Strategy<Value = Said> {
    let value = prop_oneof![
        6 => (0..3u8).prop_map(|n| format!(r#"{{"a":{n}}}"#)),
        1 => Just(r#"{"a":{}}"#.to_owned()),
        1 => Just(r#"{"a":"refused"}"#.to_owned()),
    ];
    let item = (0..6u8, value)
        .prop_map(|(at, value)| format!(r#"{{"revision":0,"timestamp":{at},"value":{value}}}"#));
    let measurements = proptest::collection::vec(item, 1..5)
        .prop_map(|items| format!(r#"{{"measurements":[{}]}}"#, items.join(",")));
    let payload = prop_oneof![
        12 => measurements.prop_map(|payload| (Kind::Measurement, payload)),
        2 => (0..9u8).prop_map(|at| {
            let beat = format!(r#"{{"revision":0,"timestamp":{at},"success":true}}"#);
            (Kind::Heartbeat, format!(r#"{{"heartbeats":[{beat}]}}"#))
        }),
        1 => (0..4u8).prop_map(|n| (Kind::Measurement, format!("garbage {n}"))),
        1 => Just((Kind::Measurement,
            r#"{"measurements":[{"revision":0,"timestamp":1,"value":{"a":"poison"}}]}"#.into())),
    ];
    (0..SENSORS, payload).prop_map(|(sensor, (kind, payload))| Said { sensor, kind, payload })
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        8 => Just(Fate::Commits), 1 => Just(Fate::Fails), 1 => Just(Fate::AnswerLost),
        1 => Just(Fate::NeverHeardOf), 1 => Just(Fate::Panics),
    ];
    prop_oneof![
        8 => said().prop_map(Step::Publish),
        8 => Just(Step::Deliver),
        8 => (1..8u8).prop_map(Step::Work),
        8 => fate.prop_map(Step::Commit),
        8 => Just(Step::Hear),
        6 => (0..SENSORS, proptest::bool::weighted(0.7)).prop_map(|(who, is)| Step::LookUp(who, is)),
        3 => (0..4u8).prop_map(Step::Replay),
        2 => Just(Step::Reconnect),
        1 => Just(Step::Drain),
        1 => Just(Step::Crash),
    ]
}

// ---- the store

type Key = (SensorIdentifier, Timestamp, u64);

/// What is in the database.
#[derive(Default)]
struct Tables {
    rows: BTreeMap<&'static str, BTreeSet<Key>>,
    /// By the digest of the message and the item's row: the number of the row.
    rejections: BTreeMap<(u128, Option<u32>), i64>,
    rejected_ever: i64,
}

impl Tables {
    /// One transaction, as the store's: straight, a row that is there fails it.
    fn apply(&mut self, batch: &mut Batch, path: Path) -> Result<Tally, Verdict> {
        let mut tally = Tally::default();
        for uplink in batch.uplinks_mut() {
            let is_gone = |from| !self.rejections.values().any(|row| *row == from);
            if uplink.message.replayed_from.is_some_and(is_gone) {
                let item_count = uplink.set_already_handled();
                tally.duplicate(uplink.kind, item_count.into());
            }
        }
        if batch.uplinks().iter().any(|uplink| !refused(uplink).is_empty()) {
            return Err(Verdict::Isolate);
        }
        let sorted = Kind::ALL.map(|kind| (kind, batch.rows(kind)));
        if path == Path::Straight {
            let there = |kind: Kind, row: &RowRef| {
                self.rows.get(kind.name()).is_some_and(|rows| rows.contains(&key(row)))
            };
            if sorted.iter().any(|(kind, rows)| rows.new.iter().any(|it| there(*kind, it))) {
                return Err(Verdict::Stage);
            }
        }
        for (kind, rows) in &sorted {
            let table = self.rows.entry(kind.name()).or_default();
            let inserted = rows.all().iter().filter(|row| table.insert(key(row))).count();
            tally.stored(*kind, rows.offered, inserted as u64);
        }
        for uplink in batch.uplinks() {
            let replayed_from = uplink.message.replayed_from;
            if !uplink.rejections.iter().any(|it| it.item_index.is_none()) {
                self.rejections.retain(|_, row| Some(*row) != replayed_from);
            }
            for rejection in &uplink.rejections {
                let items = u64::from(rejection.item_count);
                if self.reject((rejection.digest.0, rejection.item_index))
                    && replayed_from.is_none()
                {
                    tally.rejected(rejection.kind, items);
                } else {
                    tally.duplicate(rejection.kind, items);
                }
            }
        }
        Ok(tally)
    }

    /// False: it is recorded already.
    fn reject(&mut self, key: (u128, Option<u32>)) -> bool {
        if self.rejections.contains_key(&key) {
            return false;
        }
        self.rejected_ever += 1;
        self.rejections.insert(key, self.rejected_ever);
        true
    }

    /// Whether every item of a message is a row or a recorded rejection.
    fn hold(&self, said: &Said) -> bool {
        let uplink = decode(said);
        let digest = digest(said);
        if self.rejections.contains_key(&(digest, None)) {
            return true;
        }
        let refused = refused(&uplink);
        let stored = (0..uplink.items.len()).all(|item| {
            let (timestamp, content) = uplink.items.identity(item);
            let key = (sensor(said.sensor), timestamp, content);
            refused.contains(&(item as u32))
                || self.rows.get(said.kind.name()).is_some_and(|rows| rows.contains(&key))
        });
        let recorded = self.rejections.keys().filter(|(known, _)| *known == digest).count();
        stored && recorded == uplink.rejections.len() + refused.len()
    }
}

fn key(row: &RowRef) -> Key {
    (row.sensor, row.timestamp, row.digest)
}

fn digest(said: &Said) -> u128 {
    RejectionDigest::of(&topic(said), said.payload.as_bytes()).0
}

fn sensor(number: u128) -> SensorIdentifier {
    SensorIdentifier(uuid::Uuid::from_u128(number))
}

fn topic(said: &Said) -> String {
    Topics::new("").of(said.kind, sensor(said.sensor))
}

fn decode(said: &Said) -> Box<Uplink> {
    let (ack_tokens, _lost) = AckTokens::new();
    let message =
        RawMessage::new(&topic(said), said.payload.as_bytes(), Timestamp::default(), false);
    Decoder::new(Topics::new(""), LIMITS).decode(message, ack_tokens.issue(0))
}

/// The items that PostgreSQL refuses, by their row among those that can be stored.
fn refused(uplink: &Uplink) -> Vec<u32> {
    let crate::domain::Items::Measurements(items) = &uplink.items else { return Vec::new() };
    let says = |item: &crate::domain::Measurement| uplink.message.bytes(item.value);
    let refused = items.iter().zip(0..).filter(|(item, _)| contains(says(item), REFUSED));
    refused.map(|(_, row)| row).collect()
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|it| it == wanted)
}

/// The writer's committer. It lets a transaction end when the plan says how.
#[derive(Clone)]
struct Database {
    tables: Rc<RefCell<Tables>>,
    fates: Rc<RefCell<VecDeque<Fate>>>,
    gate: Arc<Semaphore>,
    /// Transactions that nobody hears of any more: their life has to end.
    stuck: Rc<RefCell<u32>>,
}

impl Commit for Database {
    async fn commit(&self, mut batch: Batch, path: Path) -> Result<Committed, Box<Uncommitted>> {
        match self.gate.acquire().await {
            Ok(permit) => permit.forget(),
            // The process is dead, and does nothing any more.
            Err(_closed) => std::future::pending().await,
        }
        let fate = self.fates.borrow_mut().pop_front().unwrap_or(Fate::Commits);
        let uncommitted = |batch, verdict| {
            let error = StoreError::Pretended(verdict);
            Err(Box::new(Uncommitted { batch, error }))
        };
        match fate {
            Fate::Fails => return uncommitted(batch, Verdict::Retry),
            Fate::Panics => panic!("a fault of the plan's"),
            Fate::Commits | Fate::AnswerLost | Fate::NeverHeardOf => {}
        }
        let applied = self.tables.borrow_mut().apply(&mut batch, path);
        match (applied, fate) {
            (Err(verdict), _) => uncommitted(batch, verdict),
            (Ok(_), Fate::AnswerLost) => uncommitted(batch, Verdict::Retry),
            (Ok(_), Fate::NeverHeardOf) => {
                *self.stuck.borrow_mut() += 1;
                std::future::pending().await
            }
            (Ok(tally), _) => Ok(Committed::pretend_with(batch, tally)),
        }
    }

    async fn examine(&self, batch: &Batch) -> Result<Vec<(u32, String)>, StoreError> {
        let [uplink] = batch.uplinks() else { unreachable!("one message is examined") };
        Ok(refused(uplink).into_iter().map(|item| (item, "it is refused".into())).collect())
    }
}

// ---- the broker

/// The session that the broker keeps for us [MQTT-4.4.0-1].
#[derive(Default)]
struct Broker {
    said: Vec<Said>,
    queue: VecDeque<usize>,
    /// In the order of sending: identifier, message, and whether it was sent on this connection.
    in_flight: VecDeque<(NonZeroU16, usize, bool)>,
    sent_before: BTreeSet<usize>,
}

impl Broker {
    fn publish(&mut self, said: Said) {
        self.queue.push_back(self.said.len());
        self.said.push(said);
    }

    fn connection_ended(&mut self) {
        for (_, _, sent) in &mut self.in_flight {
            *sent = false;
        }
    }

    /// Whether there is something to send now.
    fn has_more(&self) -> bool {
        let room = self.in_flight.len() < usize::from(MAX_MESSAGES);
        self.in_flight.iter().any(|(.., sent)| !sent) || (room && !self.queue.is_empty())
    }

    /// The next PUBLISH on this connection, within Receive Maximum.
    fn send(&mut self) -> Option<codec::Decoded> {
        if let Some((id, message, sent)) = self.in_flight.iter_mut().find(|(.., sent)| !*sent) {
            *sent = true;
            let (id, message) = (*id, *message);
            return Some(self.packet(id, message));
        }
        if self.in_flight.len() >= usize::from(MAX_MESSAGES) {
            return None;
        }
        let message = self.queue.pop_front()?;
        let free = |id: &NonZeroU16| self.in_flight.iter().all(|(used, ..)| used != id);
        let id =
            (1..).filter_map(NonZeroU16::new).find(free).expect("there are more than in flight");
        self.in_flight.push_back((id, message, true));
        Some(self.packet(id, message))
    }

    fn packet(&mut self, id: NonZeroU16, message: usize) -> codec::Decoded {
        let said = &self.said[message];
        let publish = codec::Publish {
            dup: !self.sent_before.insert(message),
            packet_id: Some(id),
            topic: topic(said).into(),
            payload_size: said.payload.len() as u32,
            ..codec::Publish::default()
        };
        codec::Decoded::Publish(publish, Bytes::copy_from_slice(said.payload.as_bytes()), 0)
    }

    fn acknowledged(&mut self, id: NonZeroU16, tables: &Tables) {
        let (oldest, message, sent) = self.in_flight.pop_front().expect("it is in flight");
        assert!(sent, "it was not sent on this connection");
        assert_eq!(oldest, id, "PUBACKs leave in the order of the PUBLISHes");
        assert!(tables.hold(&self.said[message]), "a PUBACK follows its COMMIT");
    }
}

struct Line<'a> {
    broker: &'a mut Broker,
    assembly: Assembly,
}

impl Packets for Line<'_> {
    fn next(&mut self) -> Result<Option<codec::Decoded>, SessionEnd> {
        Ok(self.broker.send())
    }

    fn assembly(&mut self) -> &mut Assembly {
        &mut self.assembly
    }

    fn is_subscribed(&mut self) {}
}

// ---- the service

/// One life of the process.
struct Life {
    inbound: Inbound,
    replayer: Replayer,
    router: Router,
    ledger: Arc<Ledger>,
    gate: Arc<Semaphore>,
    _shutdown: watch::Sender<bool>,
}

impl Life {
    fn begin(database: &Database) -> Self {
        let ledger = Arc::new(Ledger::default());
        let handles = InboundHandles {
            ledger: Arc::clone(&ledger),
            health: Arc::new(Health::default()),
            flow: Arc::default(),
            metrics: Arc::new(Metrics::new(Arc::clone(&ledger))),
            faults: Faults::default(),
        };
        let nobody = Nobody.start();
        let (settled, hears) = mpsc::unbounded_channel();
        let (replayed, hears_replayed) = mpsc::unbounded_channel();
        let reports = Reports {
            settled,
            replayed,
            acknowledged: nobody.clone().recipient(),
            deleted: [nobody.clone().recipient(), nobody.clone().recipient()],
            subscriptions: Subscriptions::none(),
            health: Arc::clone(&handles.health),
            flow: Arc::clone(&handles.flow),
            metrics: Arc::clone(&handles.metrics),
            faults: Faults::default(),
        };
        let config =
            writer::Config { connections: 2, batch_items: 12, rejections_per_sensor_hour: 1_000 };
        let writer = WriterActor::new(config, database.clone(), reports).start();
        let faults = Faults::actor_panics(|uplink| contains(uplink.message.payload(), POISON));
        let sensors =
            sensor::Config { unknown: UnknownSensor::Reject, idle_secs: 600, republish_secs: 60 };
        let router_handles = RouterHandles {
            store: Store::new(&nowhere()),
            outbox: nobody.recipient(),
            metrics: Arc::clone(&handles.metrics),
            faults,
        };
        let router = Router::start(sensors, router_handles, |_| writer.recipient());
        let config = Config {
            broker: "mqtt://127.0.0.1:1".parse::<BrokerUrl>().unwrap(),
            client_id: "x".into(),
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
            replayed: hears_replayed,
        };
        let replayer = Replayer::new(Replays::new().1, replayer_handles);
        let (shutdown, told) = watch::channel(false);
        let times = (told, Duration::from_secs(1));
        let inbound = Inbound::new(config, decoder, router.clone(), handles, hears, times);
        let gate = Arc::clone(&database.gate);
        Self { inbound, replayer, router, ledger, gate, _shutdown: shutdown }
    }

    /// The look-up of a sensor; one whose actor has failed gets a new one.
    fn look_up(&self, number: u128, is_there: bool) {
        if !is_there {
            return self.router.refuse(sensor(number));
        }
        self.router.admit(&KnownSensor {
            identifier: sensor(number),
            desired_revision: None,
            last_acknowledged: None,
        });
    }

    fn deliver(&mut self, broker: &mut Broker) {
        if self.inbound.window.is_full() {
            return;
        }
        let mut line = Line { broker, assembly: Assembly::new(LIMITS.payload_bytes) };
        if let Some(first) = line.broker.send() {
            self.inbound.take_all(&mut line, first).unwrap();
        }
    }

    /// True: the connection is to be given up.
    fn hear(&mut self, broker: &mut Broker, tables: &Tables) -> bool {
        let mut broken = false;
        while let Ok(committed) = self.inbound.settled.try_recv() {
            self.inbound.settle(committed);
        }
        while let Ok(lost) = self.inbound.lost.try_recv() {
            broken |= self.inbound.lose(lost);
        }
        while self.replayer.hear(&mut Report::default()).now_or_never().is_some() {}
        if !broken {
            self.acknowledge(broker, tables);
        }
        broken
    }

    fn acknowledge(&mut self, broker: &mut Broker, tables: &Tables) {
        let broker = RefCell::new(broker);
        let puback = |id| {
            broker.borrow_mut().acknowledged(id, tables);
            Ok(())
        };
        self.inbound.give_turns(puback).unwrap();
    }

    fn reconnect(&mut self, broker: &mut Broker) {
        self.inbound.window.detach();
        broker.connection_ended();
        // What an earlier connection has left is let go of as it is settled.
        self.inbound.give_turns(|id| panic!("{id} is of an earlier connection")).unwrap();
    }

    fn check(&self) {
        for (kind, entry) in self.ledger.snapshot().entries() {
            assert!(entry.balances(), "{kind}: {entry:?}");
        }
        assert!(self.inbound.window.len() <= usize::from(MAX_MESSAGES), "the window is bounded");
    }
}

struct World {
    broker: Broker,
    database: Database,
    life: Life,
}

impl World {
    fn new() -> Self {
        let database = Database {
            tables: Rc::default(),
            fates: Rc::default(),
            gate: Arc::new(Semaphore::new(0)),
            stuck: Rc::default(),
        };
        Self { broker: Broker::default(), life: Life::begin(&database), database }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Publish(said) => self.broker.publish(said),
            Step::Deliver => self.life.deliver(&mut self.broker),
            Step::Work(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            Step::Commit(fate) => {
                self.database.fates.borrow_mut().push_back(fate);
                self.database.gate.add_permits(1);
            }
            Step::Hear => self.hear(),
            Step::LookUp(sensor, is_there) => self.life.look_up(sensor, is_there),
            Step::Replay(first) => self.replay(first.into()),
            Step::Reconnect => self.life.reconnect(&mut self.broker),
            Step::Drain => {
                // As the loop drains: a lost message does not end the connection.
                self.life.hear(&mut self.broker, &self.database.tables.borrow());
                self.life.acknowledge(&mut self.broker, &self.database.tables.borrow());
                self.life.check();
                self.crash();
            }
            Step::Crash => self.crash(),
        }
        self.life.check();
    }

    fn replay(&mut self, first: usize) {
        if !self.life.replayer.is_idle() {
            return;
        }
        let tables = self.database.tables.borrow();
        let whole = tables.rejections.iter().filter(|((_, item), _)| item.is_none());
        for ((message, _), row) in whole.skip(first) {
            let said = self.broker.said.iter().find(|said| digest(said) == *message).unwrap();
            let payload = said.payload.as_bytes();
            let message = RawMessage::replayed(&topic(said), payload, Timestamp::default(), *row);
            self.life.replayer.admit(*row, message);
        }
    }

    fn hear(&mut self) {
        let broken = self.life.hear(&mut self.broker, &self.database.tables.borrow());
        if broken {
            self.life.reconnect(&mut self.broker);
        }
    }

    fn crash(&mut self) {
        self.life.gate.close();
        self.database.gate = Arc::new(Semaphore::new(0));
        self.database.fates = Rc::default();
        self.database.stuck = Rc::default();
        self.broker.connection_ended();
        self.life = Life::begin(&self.database);
    }

    /// From here on nothing fails, and all comes to rest.
    async fn come_to_rest(&mut self) {
        if *self.database.stuck.borrow() > 0 {
            self.crash();
        }
        self.database.fates.borrow_mut().clear();
        self.database.gate.add_permits(1_000_000);
        for reconnects in 0.. {
            assert!(reconnects < MANY, "the same messages come again and again");
            if self.connection_comes_to_rest().await {
                break;
            }
            self.life.reconnect(&mut self.broker);
        }
        self.check_all_is_there();
    }

    /// False: the connection is to be given up.
    async fn connection_comes_to_rest(&mut self) -> bool {
        loop {
            self.life.deliver(&mut self.broker);
            (0..SENSORS).for_each(|sensor| self.life.look_up(sensor, true));
            if self.life.hear(&mut self.broker, &self.database.tables.borrow()) {
                return false;
            }
            self.life.check();
            let Life { inbound, replayer, .. } = &mut self.life;
            let is_quiet = self.broker.queue.is_empty() && self.broker.in_flight.is_empty();
            if is_quiet && replayer.is_idle() {
                return true;
            }
            if self.broker.has_more() && !inbound.window.is_full() {
                continue;
            }
            let mut report = Report::default();
            let news = async {
                tokio::select! {
                    Some(committed) = inbound.settled.recv() => { inbound.settle(committed); false }
                    Some(lost) = inbound.lost.recv() => inbound.lose(lost),
                    () = replayer.hear(&mut report) => false,
                }
            };
            let broken =
                tokio::time::timeout(Duration::from_secs(10), news).await.unwrap_or_else(|_| {
                    panic!("it does not come to rest: {:?}", self.broker.in_flight)
                });
            if broken {
                return false;
            }
        }
    }

    fn check_all_is_there(&self) {
        for (kind, entry) in self.life.ledger.snapshot().entries() {
            assert_eq!(entry.in_flight, 0, "{kind}: {entry:?}");
        }
        let tables = self.database.tables.borrow();
        let mut expected = BTreeMap::<&'static str, BTreeSet<Key>>::new();
        for said in &self.broker.said {
            assert!(tables.hold(said), "lost: {said:?}");
            let uplink = decode(said);
            let refused = refused(&uplink);
            for item in (0..uplink.items.len()).filter(|item| !refused.contains(&(*item as u32))) {
                let (timestamp, content) = uplink.items.identity(item);
                let rows = expected.entry(said.kind.name()).or_default();
                rows.insert((sensor(said.sensor), timestamp, content));
            }
        }
        for (kind, rows) in &tables.rows {
            let invented: Vec<_> = rows
                .iter()
                .filter(|key| !expected.get(kind).is_some_and(|it| it.contains(key)))
                .collect();
            assert!(invented.is_empty(), "nobody said {invented:?}");
        }
    }
}

fn play(plan: Vec<Step>) {
    actix_rt::System::new().block_on(async {
        let mut world = World::new();
        for step in plan {
            world.take(step).await;
        }
        world.come_to_rest().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost_and_nothing_acknowledged_too_early(
        plan in proptest::collection::vec(step(), 0..120),
    ) {
        play(plan);
    }
}
