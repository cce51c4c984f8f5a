//! Messages that are stored while they are published. Used by the scenarios `live`, `overload` and `reads`. The
//! clock runs from the first PUBLISH until everything is settled; the first message of every sensor comes before.

use std::future::{Future, pending};
use std::time::{Duration, Instant};

use super::backlog::fill;
use super::baseline::Baseline;
use super::messages::{Copies, Load, SENSORS, Shape, sensors};
use super::probe::{PROBE_SENSOR, Probe};
use super::report::{Measured, Row};
use super::service::Service;
use super::test_bed::{Publishing, Run, TestBed};
use crate::load::{Account, Limit, Rate};

/// A fleet has many; a broker that takes one packet of each connection in turn is faster with several.
const CONNECTIONS: u64 = 8;
const LIMIT: Limit = Limit { messages: 250, payload_bytes: 8 << 20 };

/// A service that knows every sensor, and everything that was published for it.
pub(super) struct Live<'a> {
    bed: &'a TestBed,
    run: Run,
    pub(super) service: Service,
    published: Account,
    parts: u32,
}

/// One part of it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) messages: u64,
    /// Measurements in each message.
    pub(super) items: u32,
    pub(super) rate: Rate,
    /// None until all messages are published.
    pub(super) duration: Option<Duration>,
}

impl Part {
    fn publishing(&self, load: Load) -> Publishing {
        let (rate, duration) = (self.rate.clone(), self.duration);
        let step = format!("{}: live", self.name);
        Publishing { step, load, rate, duration, connections: CONNECTIONS, limit: LIMIT }
    }

    fn load(&self, run: &Run, part: u32) -> Load {
        Load {
            topics: run.topics.clone(),
            sensors: sensors(SENSORS),
            messages: self.messages,
            shape: Shape::Measurements(self.items),
            copies: Copies::default(),
            begins_at: run.part(part),
        }
    }
}

impl<'a> Live<'a> {
    /// Starts a service on an empty database, and publishes one message of every sensor.
    pub(super) async fn start(bed: &'a TestBed) -> anyhow::Result<Self> {
        let mut known = sensors(SENSORS);
        known.push(PROBE_SENSOR);
        let run = bed.run(&known).await?;
        let mut service = Service::spawn(run.settings(bed))?;
        service.ready().await?;
        let (name, messages, rate) = ("first contact", SENSORS as u64, Rate::Unlimited);
        let first = Part { name, messages, items: 1, rate, duration: None }.load(&run, 0);
        let published = fill(bed, &run, first, name).await?;
        service.settled(published.items(), |_| {}).await?;
        bed.checkpoint().await;
        Ok(Self { bed, run, service, published, parts: 1 })
    }

    /// Publishes a part, and measures until all of it is settled. `meanwhile` runs until then.
    pub(super) async fn measure<T>(
        &mut self,
        part: &Part,
        meanwhile: impl Future<Output = T>,
    ) -> anyhow::Result<Row> {
        let load = part.load(&self.run, self.parts);
        self.parts += 1;
        let probe = Probe::start(self.bed, &self.run).await?;
        let meters = self.bed.meters(Some(self.service.pid), vec![probe.backend_pid]);
        let (cpu, batches) = (meters.read(), self.service.batches().await?);
        let started_at = Instant::now();
        let settle = async {
            let mut account = self.bed.publish(&self.run, part.publishing(load)).await?;
            let probed = probe.stop().await?;
            account += probed.account;
            self.published += account;
            let ledger = self.service.settled(self.published.items(), |_| {}).await?;
            anyhow::Ok((account, ledger, probed))
        };
        let (account, ledger, probed) = tokio::select! {
            settled = settle => settled?,
            _ = async { meanwhile.await; pending::<()>().await } => unreachable!("it never ends"),
        };
        let elapsed = started_at.elapsed();
        let cpu = meters.read().since(cpu);
        let batches = self.service.batches().await?.since(batches);
        let memory = self.service.memory();
        let tables = self.run.database.count().await?;
        let measured = Measured { account, elapsed, cpu, memory, batches };
        let mut row = measured.row(part.name).with_books(&self.published, &ledger, &tables);
        row.publish_to_puback = probed.puback;
        row.publish_to_visible = probed.visible;
        Ok(row)
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.service.stop().await?;
        self.bed.clear().await
    }
}

pub(super) async fn live(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    const RATE: u64 = 10_000;
    let mut live = Live::start(bed).await?;
    let seconds = bed.scaled_time(Duration::from_secs(30)).as_secs();
    let mut steady = Part {
        name: "live-10000/s",
        messages: RATE * seconds,
        items: 1,
        rate: Rate::PerSecond(RATE as f64),
        duration: None,
    };
    let steady_row = live.measure(&steady, pending::<()>()).await?;
    steady = Part {
        name: "live-flat-out",
        // More than any broker takes in that time.
        messages: 5_000_000,
        rate: Rate::Unlimited,
        duration: Some(bed.scaled_time(Duration::from_secs(10))),
        ..steady
    };
    let row = live.measure(&steady, pending::<()>()).await?;
    live.stop().await?;

    let baseline = Baseline::MosquittoSub;
    let mut rounds = Vec::new();
    if baseline.is_installed().await {
        let part = Part { messages: row.messages, duration: None, ..steady };
        let run = bed.run(&[]).await?;
        let session = baseline.subscribe(bed, &run).await?;
        let (_, elapsed) = tokio::try_join!(
            bed.publish(&run, part.publishing(part.load(&run, 0))),
            session.drain(bed, part.messages)
        )?;
        bed.clear().await?;
        rounds.push((row.items_per_second, part.messages as f64 / elapsed.as_secs_f64()));
    }
    Ok(vec![steady_row, row.against(baseline.name(), rounds)])
}
