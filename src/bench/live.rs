//! Messages that are stored while they are published. Used by the scenarios `live`, `overload` and `reads`. The
//! clock runs from the first PUBLISH until everything is settled; the first message of every sensor comes before.

use std::future::pending;
use std::time::{Duration, Instant};

use super::baseline::{self, Baseline};
use super::load::{self, SENSORS, sensors};
use super::probe::{PROBE_SENSOR, Probe};
use super::report::{Measured, Row};
use super::service::{Batches, Service};
use super::test_bed::{Run, TestBed};
use crate::load::{Account, Fleet, Rate};

/// A service that knows every sensor, and everything that was published for it.
pub(super) struct Live<'a> {
    bed: &'a TestBed,
    run: Run,
    pub(super) service: Service,
    published: Account,
}

impl<'a> Live<'a> {
    /// Starts a service on an empty database, and publishes one message of every sensor.
    pub(super) async fn start(bed: &'a TestBed) -> anyhow::Result<Self> {
        let mut known = sensors(SENSORS);
        known.push(PROBE_SENSOR);
        let run = bed.run(&known).await?;
        let mut service = Service::spawn(run.settings(bed))?;
        service.ready().await?;
        let first = load::backlog(SENSORS as u64, SENSORS, 1);
        let published = bed.publish(&run, &first, "first contact").await?;
        service.settled(published.items(), |_| {}).await?;
        bed.checkpoint().await;
        Ok(Self { bed, run, service, published })
    }

    /// Publishes a load, and measures until all of it is settled. `meanwhile` runs until then.
    pub(super) async fn measure(
        &mut self,
        name: &str,
        load: &Fleet,
        meanwhile: impl Future<Output = ()>,
    ) -> anyhow::Result<Row> {
        let probe = Probe::start(self.bed, &self.run).await?;
        let meters = self.bed.meters(Some(self.service.pid), vec![probe.backend_pid]);
        let (cpu, batches) = (meters.read(), self.service.batches(Batches::default()).await?);
        let started_at = Instant::now();
        let settle = async {
            let mut account = self.bed.publish(&self.run, load, name).await?;
            let (probed, held) = probe.stop().await?;
            account += probed.account;
            self.published += account;
            let ledger = self.service.settled(self.published.items(), |_| {}).await?;
            anyhow::Ok((account, ledger, probed, held))
        };
        let (account, ledger, probed, held) = tokio::select! {
            settled = settle => settled?,
            () = meanwhile => unreachable!("it never ends"),
        };
        let elapsed = started_at.elapsed();
        let cpu = meters.since(cpu);
        drop(held);
        let batches = self.service.batches(batches).await?;
        let memory = self.service.memory();
        let tables = self.run.database.count().await?;
        let measured = Measured { account, elapsed, cpu, memory, batches };
        let mut row = measured.row(name).with_books(&self.published, &ledger, &tables);
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
    let steady = load::live(RATE * seconds, 1, Rate::PerSecond(RATE as f64));
    let steady = live.measure("live-10000/s", &steady, pending()).await?;
    // More than any broker takes in that time.
    let mut load = load::live(5_000_000, 1, Rate::Unlimited);
    load.duration = Some(bed.scaled_time(Duration::from_secs(10)));
    let row = live.measure("live-flat-out", &load, pending()).await?;
    live.stop().await?;

    let baseline = Baseline::MosquittoSub;
    let mut rounds = Vec::new();
    if baseline.is_installed().await {
        (load.limit, load.duration) = (Some(row.messages), None);
        let run = bed.run(&[]).await?;
        baseline::subscribe(bed, &run).await?;
        let published = bed.publish(&run, &load, "live-flat-out: mosquitto_sub");
        let taken = baseline::take(bed, &run, row.messages);
        let (_, elapsed) = tokio::try_join!(published, taken)?;
        bed.clear().await?;
        rounds.push((row.items_per_second, row.messages as f64 / elapsed.as_secs_f64()));
    }
    Ok(vec![steady, row.against(baseline.name(), rounds)])
}
