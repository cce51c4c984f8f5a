//! The whole pipeline under any interleaving: the real inbound loop, actors, writer, replayer and ledger
//! between a scripted broker (`broker`) and an in-memory database (`database`), as one `process`. Each
//! step of a plan is one thing that may happen next; invariants are checked after each step, and after
//! the last one, when nothing fails any more, every item must be stored or rejected.

mod broker;
mod database;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::Semaphore;

use self::broker::Broker;
use self::database::{Database, Key, decode, digest, refused, sensor, topic};
use self::process::Process;
use crate::domain::{Kind, RawMessage, Timestamp};
use crate::replay::ReplayReport;
use crate::wire::Limits;

const SENSORS: u128 = 3;
const MAX_MESSAGES: u16 = 6;
const MAX_BYTES: usize = 6_000;
const LIMITS: Limits = Limits { payload_bytes: 1 << 16, items_per_message: 10, ..Limits::DEFAULT };

/// Reconnects that the poisoned messages of a plan may cost, once nothing else fails.
const MAX_RECONNECTS: u32 = 100;

/// A value that PostgreSQL refuses, and one that its sensor's actor panics over.
const REFUSED: &[u8] = b"refused";
const POISON: &[u8] = b"poison";

/// One event of a plan.
#[derive(Clone, Debug)]
enum Step {
    /// A sensor publishes.
    Publish(Publication),
    /// The broker sends what Receive Maximum allows.
    Deliver,
    /// Actors, writer and deliveries run for this many turns.
    Work(u8),
    /// A transaction ends.
    Commit(CommitOutcome),
    /// The loop receives settled batches and lost tokens, and sends PUBACKs.
    Receive,
    /// The look-up of a sensor ends: it exists, or not.
    LookUp(u128, bool),
    /// Replays the messages that were rejected whole, from the n-th on.
    Replay(u8),
    /// The connection is closed and made again.
    Reconnect,
    /// Orderly shutdown: acknowledges what is settled; the next process starts.
    Drain,
    /// The process is killed; the next one starts.
    Crash,
}

/// The end of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CommitOutcome {
    Commits,
    /// Rolled back, and the writer receives an error.
    Fails,
    /// Committed, but the writer receives an error.
    AnswerLost,
    /// Committed, but the writer never receives an answer.
    NeverAnswers,
    /// The delivery panics.
    Panics,
}

#[derive(Clone, Debug)]
struct Publication {
    sensor: u128,
    kind: Kind,
    payload: String,
}

fn publication() -> impl Strategy<Value = Publication> {
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
    (0..SENSORS, payload).prop_map(|(sensor, (kind, payload))| Publication {
        sensor,
        kind,
        payload,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        8 => Just(CommitOutcome::Commits), 1 => Just(CommitOutcome::Fails), 1 => Just(CommitOutcome::AnswerLost),
        1 => Just(CommitOutcome::NeverAnswers), 1 => Just(CommitOutcome::Panics),
    ];
    prop_oneof![
        8 => publication().prop_map(Step::Publish),
        8 => Just(Step::Deliver),
        8 => (1..8u8).prop_map(Step::Work),
        8 => outcome.prop_map(Step::Commit),
        8 => Just(Step::Receive),
        6 => (0..SENSORS, proptest::bool::weighted(0.7)).prop_map(|(who, is)| Step::LookUp(who, is)),
        3 => (0..4u8).prop_map(Step::Replay),
        2 => Just(Step::Reconnect),
        1 => Just(Step::Drain),
        1 => Just(Step::Crash),
    ]
}

struct World {
    broker: Broker,
    database: Database,
    process: Process,
}

impl World {
    fn new() -> Self {
        let database = Database {
            tables: Rc::default(),
            outcomes: Rc::default(),
            gate: Arc::new(Semaphore::new(0)),
            stuck: Rc::default(),
        };
        Self { broker: Broker::default(), process: Process::start(&database), database }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Publish(publication) => self.broker.publish(publication),
            Step::Deliver => self.process.deliver(&mut self.broker),
            Step::Work(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            Step::Commit(outcome) => {
                self.database.outcomes.borrow_mut().push_back(outcome);
                self.database.gate.add_permits(1);
            }
            Step::Receive => self.receive(),
            Step::LookUp(sensor, exists) => self.process.look_up(sensor, exists),
            Step::Replay(first) => self.replay(first.into()),
            Step::Reconnect => self.process.reconnect(&mut self.broker),
            Step::Drain => {
                // While draining, a lost message does not close the connection.
                self.process.receive(&mut self.broker, &self.database.tables.borrow());
                self.process.acknowledge(&mut self.broker, &self.database.tables.borrow());
                self.process.check();
                self.crash();
            }
            Step::Crash => self.crash(),
        }
        self.process.check();
    }

    fn replay(&mut self, first: usize) {
        if !self.process.replayer.is_idle() {
            return;
        }
        let tables = self.database.tables.borrow();
        let whole = tables.rejections.iter().filter(|((_, item), _)| item.is_none());
        for ((message, _), row) in whole.skip(first) {
            let publication = self
                .broker
                .published
                .iter()
                .find(|publication| digest(publication) == *message)
                .unwrap();
            let payload = publication.payload.as_bytes();
            let message =
                RawMessage::replayed(&topic(publication), payload, Timestamp::default(), *row);
            self.process.replayer.admit(*row, message);
        }
    }

    fn receive(&mut self) {
        let broken = self.process.receive(&mut self.broker, &self.database.tables.borrow());
        if broken {
            self.process.reconnect(&mut self.broker);
        }
    }

    fn crash(&mut self) {
        self.process.gate.close();
        self.database.gate = Arc::new(Semaphore::new(0));
        self.database.outcomes = Rc::default();
        self.database.stuck = Rc::default();
        self.broker.connection_ended();
        self.process = Process::start(&self.database);
    }

    /// Lets everything succeed until nothing is in flight.
    async fn settle_everything(&mut self) {
        if *self.database.stuck.borrow() > 0 {
            self.crash();
        }
        self.database.outcomes.borrow_mut().clear();
        self.database.gate.add_permits(1_000_000);
        for reconnects in 0.. {
            assert!(reconnects < MAX_RECONNECTS, "the same messages are delivered again and again");
            if self.settle_connection().await {
                break;
            }
            self.process.reconnect(&mut self.broker);
        }
        self.check_everything_is_stored();
    }

    /// False: the connection must be closed.
    async fn settle_connection(&mut self) -> bool {
        loop {
            self.process.deliver(&mut self.broker);
            (0..SENSORS).for_each(|sensor| self.process.look_up(sensor, true));
            if self.process.receive(&mut self.broker, &self.database.tables.borrow()) {
                return false;
            }
            self.process.check();
            let Process { inbound, replayer, .. } = &mut self.process;
            let is_quiet = self.broker.queue.is_empty() && self.broker.in_flight.is_empty();
            if is_quiet && replayer.is_idle() {
                return true;
            }
            if self.broker.has_more() && inbound.window.has_room() {
                continue;
            }
            let mut report = ReplayReport::default();
            let progress = async {
                tokio::select! {
                    Some(committed) = inbound.settled.recv() => { inbound.settle(committed); false }
                    Some(lost) = inbound.lost.recv() => inbound.lose(lost),
                    () = replayer.receive(&mut report) => false,
                }
            };
            let broken = tokio::time::timeout(Duration::from_secs(10), progress)
                .await
                .unwrap_or_else(|_| panic!("messages stay in flight: {:?}", self.broker.in_flight));
            if broken {
                return false;
            }
        }
    }

    fn check_everything_is_stored(&self) {
        for (kind, entry) in self.process.ledger.snapshot().entries() {
            assert_eq!(entry.in_flight, 0, "{kind}: {entry:?}");
        }
        let tables = self.database.tables.borrow();
        let mut expected = BTreeMap::<&'static str, BTreeSet<Key>>::new();
        for publication in &self.broker.published {
            assert!(tables.hold(publication), "lost: {publication:?}");
            let uplink = decode(publication);
            let refused = refused(&uplink);
            for item in (0..uplink.items.len()).filter(|item| !refused.contains(&(*item as u32))) {
                let (timestamp, content) = uplink.items.identity(item);
                let rows = expected.entry(publication.kind.name()).or_default();
                rows.insert((sensor(publication.sensor), timestamp, content));
            }
        }
        for (kind, rows) in &tables.rows {
            let invented: Vec<_> = rows
                .iter()
                .filter(|key| !expected.get(kind).is_some_and(|it| it.contains(key)))
                .collect();
            assert!(invented.is_empty(), "rows that were not published: {invented:?}");
        }
    }
}

fn play(plan: Vec<Step>) {
    actix_rt::System::new().block_on(async {
        let mut world = World::new();
        for step in plan {
            world.take(step).await;
        }
        world.settle_everything().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_is_acknowledged_too_early(
        plan in proptest::collection::vec(step(), 0..120),
    ) {
        play(plan);
    }
}
