//! A backlog waits in the broker for our session; then the service starts, and takes it. The clock
//! runs from the start of the process until all of it is settled, start-up included. Used by every
//! scenario that asks for the service's own speed, with or without a yardstick in turn.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::ground::{Ground, Stage};
use super::load::{Account, Load, Repetition, SENSORS, Shape, sensors};
use super::publisher::{Manner, Pace, publish};
use super::run::{Books, Run};
use super::service::{Batches, Service};
use super::yardstick::{MosquittoSub, PsqlCopy};

/// In flight while a backlog is made, in bytes of payload and in messages.
const WINDOW_BYTES: usize = 8 << 20;
const WINDOW_MESSAGES: usize = 10_000;

/// What is to be drained.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Backlog {
    pub(super) messages: u64,
    pub(super) sensors: usize,
    pub(super) shape: Shape,
    pub(super) repetition: Repetition,
}

/// Of one measurement each.
pub(super) const MESSAGES_OF_1: u64 = 300_000;

const MESSAGES_OF_100: u64 = 10_000;

impl Backlog {
    /// Messages of one measurement.
    pub(super) fn of_1(ground: &Ground, sensors: usize) -> Self {
        Self {
            messages: ground.scaled(MESSAGES_OF_1),
            sensors,
            shape: Shape::Measurements(1),
            repetition: Repetition::NONE,
        }
    }

    /// Messages of 100 measurements.
    pub(super) fn of_100(ground: &Ground) -> Self {
        Self {
            messages: ground.scaled(MESSAGES_OF_100),
            sensors: SENSORS,
            shape: Shape::Measurements(100),
            repetition: Repetition::NONE,
        }
    }

    pub(super) fn load(&self, stage: &Stage) -> Load {
        Load {
            topics: stage.topics.clone(),
            sensors: sensors(self.sensors),
            messages: self.messages,
            shape: self.shape,
            repetition: self.repetition,
            begun_at: stage.begun_at,
        }
    }
}

/// Drains it once.
pub(super) async fn drain(ground: &Ground, backlog: &Backlog, what: &str) -> anyhow::Result<Run> {
    let stage = ground.stage(&sensors(backlog.sensors)).await?;
    let settings = stage.settings(ground);
    // Its session and its subscriptions remain with the broker.
    let mut first = Service::spawn(&settings)?;
    first.ready().await?;
    first.stop().await?;

    let account = fill(ground, &stage, backlog.load(&stage), what).await?;
    let shown = ground.console.step(what, account.items());
    ground.calm().await;
    let before = ground.meters(None, Vec::new()).read();
    let mut service = Service::spawn(&settings)?;
    let meters = ground.meters(Some(&service), Vec::new());
    let ledger = service.settled(account.items(), |items| shown.set(items)).await?;
    let elapsed = service.spawned_at.elapsed();
    let cpu = meters.read().since(before);
    let memory = service.memory();
    let batches = service.batches().await?.since(Batches::default());
    service.stop().await?;
    let tables = stage.database.count().await?;
    ground.clear().await?;
    Ok(Run {
        account,
        elapsed,
        cpu,
        memory,
        batches,
        puback: None,
        visible: None,
        books: Books { account, ledger, tables },
        notes: Vec::new(),
    })
}

/// Publishes a backlog as fast as the broker takes it.
pub(super) async fn fill(
    ground: &Ground,
    stage: &Stage,
    load: Load,
    what: &str,
) -> anyhow::Result<Account> {
    let message_bytes = load.message(0).payload.len();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let shown = ground.console.step(&format!("{what}: backlog"), load.message_count());
    let _shown = shown.follow(&acknowledged);
    let manner = Manner {
        client_id: format!("{}-fleet", stage.name),
        // The order of a load is kept over one connection only.
        connections: 1,
        window: (WINDOW_BYTES / message_bytes).clamp(1, WINDOW_MESSAGES),
        pace: Pace::FlatOut,
        lasts: None,
        acknowledged,
    };
    publish(&ground.servers.mqtt.broker, load, manner).await
}

/// `mosquitto_sub -q 1` drains the same backlog into nothing.
pub(super) async fn mosquitto_sub(
    ground: &Ground,
    backlog: &Backlog,
    what: &str,
) -> anyhow::Result<Duration> {
    let stage = ground.stage(&[]).await?;
    let yardstick = MosquittoSub::subscribe(ground, &stage).await?;
    let what = format!("{what}: mosquitto_sub");
    let messages = fill(ground, &stage, backlog.load(&stage), &what).await?.messages;
    let _shown = ground.console.step(&what, messages);
    ground.calm().await;
    let elapsed = yardstick.drain(ground, messages).await?;
    ground.clear().await?;
    Ok(elapsed)
}

/// `psql \copy` of the same rows.
pub(super) async fn psql_copy(
    ground: &Ground,
    backlog: &Backlog,
    what: &str,
) -> anyhow::Result<Duration> {
    let stage = ground.stage(&sensors(backlog.sensors)).await?;
    let load = backlog.load(&stage);
    let _shown = ground.console.step(&format!("{what}: psql \\copy"), load.messages);
    let yardstick = PsqlCopy::write(&load, &stage.name)?;
    ground.calm().await;
    let elapsed = yardstick.run(&stage).await?;
    ground.clear().await?;
    Ok(elapsed)
}
