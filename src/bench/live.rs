//! Messages that are taken as they are published: at a steady rate, as fast as the broker goes, and
//! faster than the service can. Used by the scenarios `live` and `overload`. The clock runs from
//! the first PUBLISH until all of it is settled; the first contact of every sensor lies before.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use super::drain::fill;
use super::ground::{Ground, Reading, Stage};
use super::load::{Account, Load, Repetition, Shape, probe_sensor, sensors};
use super::probe::{Probe, Probed};
use super::publisher::{Manner, Pace, publish};
use super::run::{Books, Run};
use super::service::{Batches, Service};
use super::yardstick::MosquittoSub;

/// A fleet has many; a broker that takes one packet of each connection in turn is faster with them.
const CONNECTIONS: u16 = 8;

/// Messages un-acknowledged by the broker at the most, on each connection.
const WINDOW_MESSAGES: usize = 250;

/// A service that has heard every sensor, and all that it has been told.
pub(super) struct Live<'a> {
    pub(super) ground: &'a Ground,
    pub(super) stage: Stage,
    pub(super) service: Service,
    pub(super) told: Account,
    sensor_count: usize,
    parts: u8,
}

/// One part of what it is told.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) what: &'static str,
    pub(super) messages: u64,
    pub(super) shape: Shape,
    pub(super) pace: Pace,
    pub(super) lasts: Option<Duration>,
}

/// The meters before a part.
pub(super) struct Before {
    probe: Probe,
    cpu: Reading,
    batches: Batches,
    begun_at: Instant,
}

impl<'a> Live<'a> {
    /// Starts a service on an empty database, and lets it hear every sensor once.
    pub(super) async fn start(ground: &'a Ground, sensor_count: usize) -> anyhow::Result<Self> {
        let mut known = sensors(sensor_count);
        known.push(probe_sensor());
        let stage = ground.stage(&known).await?;
        let mut service = Service::spawn(&stage.settings(ground))?;
        service.ready().await?;
        let told = Account::default();
        let mut live = Self { ground, stage, service, told, sensor_count, parts: 0 };
        let load = live.load(sensor_count as u64, Shape::Measurements(1));
        live.told = fill(ground, &live.stage, load, "first contact").await?;
        live.service.settled(live.told.items(), |_| {}).await?;
        ground.calm().await;
        Ok(live)
    }

    /// Messages of moments that no earlier part has used.
    pub(super) fn load(&mut self, messages: u64, shape: Shape) -> Load {
        self.parts += 1;
        Load {
            topics: self.stage.topics.clone(),
            sensors: sensors(self.sensor_count),
            messages,
            shape,
            repetition: Repetition::NONE,
            begun_at: self.stage.part(self.parts - 1),
        }
    }

    pub(super) async fn begin(&self) -> anyhow::Result<Before> {
        let probe = Probe::start(self.ground, &self.stage).await?;
        let meters = self.ground.meters(Some(&self.service), vec![probe.backend_pid]);
        let batches = self.service.batches().await?;
        Ok(Before { cpu: meters.read(), batches, begun_at: Instant::now(), probe })
    }

    /// Waits until all that was published is settled.
    pub(super) async fn end(&mut self, before: Before, published: Account) -> anyhow::Result<Run> {
        let meters = self.ground.meters(Some(&self.service), vec![before.probe.backend_pid]);
        // Held until the meters are read: a backend that ends leaves its CPU time to its parent.
        let Probed { account: probes, puback, visible, held } = before.probe.stop().await?;
        let mut account = published;
        account.merge(&probes);
        self.told.merge(&account);
        let ledger = self.service.settled(self.told.items(), |_| {}).await?;
        let elapsed = before.begun_at.elapsed();
        let cpu = meters.read().since(before.cpu);
        let batches = self.service.batches().await?.since(before.batches);
        drop(held);
        let tables = self.stage.database.count().await?;
        Ok(Run {
            account,
            elapsed,
            cpu,
            memory: self.service.memory(),
            batches,
            puback: Some(puback),
            visible: Some(visible),
            books: Books { account: self.told, ledger, tables },
            notes: Vec::new(),
        })
    }

    /// Publishes a part, and measures what becomes of it.
    pub(super) async fn tell(&mut self, part: &Part) -> anyhow::Result<Run> {
        let load = self.load(part.messages, part.shape);
        let before = self.begin().await?;
        let published = tell(self.ground, &self.stage, load, part).await?;
        self.end(before, published).await
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.service.stop().await?;
        self.ground.clear().await
    }
}

/// Publishes a part.
pub(super) async fn tell(
    ground: &Ground,
    stage: &Stage,
    load: Load,
    part: &Part,
) -> anyhow::Result<Account> {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let shown = ground.console.step(part.what, load.messages);
    let _shown = shown.follow(&acknowledged);
    let manner = Manner {
        client_id: format!("{}-fleet", stage.name),
        connections: CONNECTIONS,
        window: WINDOW_MESSAGES,
        pace: part.pace.clone(),
        lasts: part.lasts,
        acknowledged,
    };
    publish(&ground.servers.mqtt.broker, load, manner).await
}

/// The same part with `mosquitto_sub` at the other end: messages a second.
pub(super) async fn mosquitto_sub(
    ground: &Ground,
    sensor_count: usize,
    part: &Part,
) -> anyhow::Result<f64> {
    let stage = ground.stage(&[]).await?;
    let yardstick = MosquittoSub::subscribe(ground, &stage).await?;
    let load = Load {
        topics: stage.topics.clone(),
        sensors: sensors(sensor_count),
        messages: part.messages,
        shape: part.shape,
        repetition: Repetition::NONE,
        begun_at: stage.begun_at,
    };
    let told = tell(ground, &stage, load, part);
    let drained = yardstick.drain(ground, part.messages);
    let (_, elapsed) = tokio::try_join!(told, drained)?;
    ground.clear().await?;
    Ok(part.messages as f64 / elapsed.as_secs_f64())
}
