//! The supervisor and the outbox while the database is unavailable, and messages to a sensor's actor before
//! it is started.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use smallvec::smallvec;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::domain::{
    AckTokens, Heartbeat, ItemHead, Items, Kind, Leadership, Ledger, RawMessage, SensorIdentifier,
    Subscriptions, Timestamp, Uplink,
};
use crate::metrics::Metrics;
use crate::store::{self, KnownSensor, Store};
use crate::tasks::Tasks;
use crate::writer::Write;

/// Events in an outage, and the maximum number of attempts that its pauses allow.
const EVENTS: u32 = 40;
const TRIES: u32 = 15;

/// Ignores all messages, in place of the writer, the outbox and the supervisor.
pub(crate) struct IgnoringActor;

impl Actor for IgnoringActor {
    type Context = Context<Self>;
}

macro_rules! ignores {
    ($($message:ty),+) => { $(impl Handler<$message> for IgnoringActor {
        type Result = ();
        fn handle(&mut self, _: $message, _: &mut Context<Self>) {}
    })+ };
}
ignores!(Write, Acknowledged, Deleted, Duplicates, Republish);

/// A database that does not exist.
pub(crate) fn nowhere() -> store::Config {
    crate::config::read_store(|name| {
        (name == "DATABASE_URL").then(|| "postgres://x@127.0.0.1:1/x".to_owned())
    })
    .unwrap()
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(Arc::new(Ledger::default())))
}

/// Look-ups fail at once: the database is unavailable.
fn router(metrics: &Arc<Metrics>) -> Router {
    let unavailable = watch::channel(false).1;
    let ignoring = IgnoringActor.start();
    let handles = RouterHandles {
        store: Store::new(&nowhere()).held_until(unavailable),
        outbox: ignoring.clone().recipient(),
        metrics: Arc::clone(metrics),
        tasks: Tasks::default(),
    };
    let config = Config {
        unknown: UnknownSensor::Reject,
        idle_secs: 600,
        republish_secs: 60,
        future_tolerance_secs: 60,
    };
    Router::start(config, handles, |_| ignoring.recipient()).0
}

fn heartbeat(sensor: SensorIdentifier) -> Box<Uplink> {
    let (ack_tokens, _lost) = AckTokens::new();
    let timestamp = Timestamp::now();
    Box::new(Uplink {
        sensor: Some(sensor),
        kind: Some(Kind::Heartbeat),
        items: Items::Heartbeats(smallvec![Heartbeat {
            head: ItemHead { timestamp, revision: Some(0), ..ItemHead::default() },
            success: true
        }]),
        rejections: Vec::new(),
        message: RawMessage::new("t", b"", timestamp, false),
        ack_token: ack_tokens.issue(0),
    })
}

#[actix_rt::test]
async fn sensors_that_arrive_during_a_pause_wait_for_one_look_up() {
    let metrics = metrics();
    let router = router(&metrics);
    for _ in 0..EVENTS {
        let sensor = SensorIdentifier::random();
        router.route(heartbeat(sensor));
        // Answered after the message before it was handled.
        router.supervisor().send(GetSnapshot(sensor)).await.unwrap();
    }
    let failures = router.supervisor().send(supervisor::GetFailures).await.unwrap();
    assert!((1..TRIES).contains(&failures), "{failures}");
}

#[actix_rt::test]
async fn a_revision_that_is_posted_during_the_look_up_reaches_the_actor() {
    let router = router(&metrics());
    let identifier = SensorIdentifier::random();
    router.route(heartbeat(identifier));
    let supervisor = router.supervisor();
    supervisor.send(SetDesiredRevision { sensor: identifier, revision: 1 }).await.unwrap();
    assert_eq!(
        supervisor.send(GetSnapshot(identifier)).await.unwrap(),
        None,
        "the look-up has not ended"
    );

    // The look-up read the table before.
    let known = KnownSensor { identifier, desired_revision: Some(0), last_acknowledged: None };
    router.admit(&known);

    let snapshot = supervisor.send(GetSnapshot(identifier)).await.unwrap().unwrap();
    assert_eq!((snapshot.desired_revision, snapshot.heartbeats.messages), (Some(1), 1));
}

#[actix_rt::test]
async fn waking_the_outbox_while_the_database_is_unavailable_adds_no_attempt() {
    let metrics = metrics();
    let (down, _receiver) = mpsc::channel(1);
    let (migrated, is_migrated) = watch::channel(true);
    let store = Store::new(&nowhere()).held_until(is_migrated);
    let publisher = PublisherHandle { downlinks: down, connected: watch::channel(true).1 };
    let store = (store, Tasks::default(), Leadership::always());
    let outbox = Outbox::new(store, publisher, Subscriptions::none(), Arc::clone(&metrics)).start();
    let failures = || u32::try_from(metrics.outbox_failures.get()).unwrap();
    while failures() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Fails at once from now on.
    migrated.send_replace(false);
    for _ in 0..EVENTS {
        outbox.send(Wake).await.unwrap();
        outbox.send(Republish(SensorIdentifier::random())).await.unwrap();
    }
    assert!((1..TRIES).contains(&failures()), "{}", failures());
}
