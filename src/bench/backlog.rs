//! A backlog waits in the broker for the service's session; then the service starts, and drains it. The clock
//! runs from the start of the process until everything is settled. The scenarios here compare that with a
//! baseline, or drains of several backlogs with each other; each round measures all of them in turn.

use super::baseline::Baseline;
use super::messages::{Copies, Load, SENSORS, Shape, sensors};
use super::report::{Measured, Row};
use super::service::{Batches, Service};
use super::test_bed::{Publishing, Run, TestBed};
use crate::load::{Account, Limit, Rate};

/// Un-acknowledged while a backlog is published.
const LIMIT: Limit = Limit { messages: 10_000, payload_bytes: 8 << 20 };
/// Rounds of a comparison between measurements of our own, at most.
const OWN_ROUNDS: u32 = 2;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Backlog {
    messages: u64,
    sensors: usize,
    shape: Shape,
    copies: Copies,
}

impl Backlog {
    /// Messages of one measurement.
    fn of_1(bed: &TestBed, sensors: usize) -> Self {
        let messages = bed.scaled(300_000);
        Self { messages, sensors, shape: Shape::Measurements(1), copies: Copies::default() }
    }

    /// Messages of 100 measurements.
    fn of_100(bed: &TestBed, messages: u64, copies: Copies) -> Self {
        let (messages, shape) = (bed.scaled(messages), Shape::Measurements(100));
        Self { messages, sensors: SENSORS, shape, copies }
    }

    pub(super) fn load(&self, run: &Run) -> Load {
        Load {
            topics: run.topics.clone(),
            sensors: sensors(self.sensors),
            messages: self.messages,
            shape: self.shape,
            copies: self.copies,
            begins_at: run.begins_at,
        }
    }
}

pub(super) async fn drain_1(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    drain_against(bed, "drain-1", &Backlog::of_1(bed, SENSORS), Baseline::MosquittoSub).await
}

pub(super) async fn drain_100(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    let backlog = Backlog::of_100(bed, 10_000, Copies::default());
    drain_against(bed, "drain-100", &backlog, Baseline::PsqlCopy).await
}

pub(super) async fn mixed(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    let backlog = Backlog { shape: Shape::Mixture, ..Backlog::of_1(bed, SENSORS) };
    Ok(vec![drain(bed, &backlog, "mixed", "mixed").await?])
}

async fn drain_against(
    bed: &TestBed,
    name: &str,
    backlog: &Backlog,
    baseline: Baseline,
) -> anyhow::Result<Vec<Row>> {
    let (mut rows, mut rounds) = (Vec::new(), Vec::new());
    for round in 1..=bed.rounds {
        let step = format!("{name}, round {round}");
        let row = drain(bed, backlog, name, &step).await?;
        if baseline.is_installed().await {
            let theirs = baseline.drain(bed, backlog, &step).await?;
            rounds.push((row.items_per_second, row.items as f64 / theirs.as_secs_f64()));
        }
        rows.push(row);
    }
    Ok(vec![Row::median_of(rows).against(baseline.name(), rounds)])
}

/// Drains it once.
async fn drain(bed: &TestBed, backlog: &Backlog, name: &str, step: &str) -> anyhow::Result<Row> {
    let run = bed.run(&sensors(backlog.sensors)).await?;
    // Its session and its subscriptions remain with the broker.
    let mut first = Service::spawn(run.settings(bed))?;
    first.ready().await?;
    first.stop().await?;

    let account = fill(bed, &run, backlog.load(&run), step).await?;
    let progress = bed.progress(step, account.items());
    bed.checkpoint().await;
    let before = bed.meters(None, Vec::new()).read();
    let mut service = Service::spawn(run.settings(bed))?;
    let meters = bed.meters(Some(service.pid), Vec::new());
    let ledger = service.settled(account.items(), |items| progress.set(items)).await?;
    let elapsed = service.spawned_at.elapsed();
    let cpu = meters.read().since(before);
    let memory = service.memory();
    let batches = service.batches().await?.since(Batches::default());
    service.stop().await?;
    let tables = run.database.count().await?;
    bed.clear().await?;
    let measured = Measured { account, elapsed, cpu, memory, batches };
    Ok(measured.row(name).with_books(&account, &ledger, &tables))
}

/// Publishes a backlog as fast as the broker takes it.
pub(super) async fn fill(
    bed: &TestBed,
    run: &Run,
    load: Load,
    step: &str,
) -> anyhow::Result<Account> {
    let (step, rate, duration) = (format!("{step}: backlog"), Rate::Unlimited, None);
    // One connection: only that keeps the order of a load.
    let publishing = Publishing { step, load, rate, duration, connections: 1, limit: LIMIT };
    bed.publish(run, publishing).await
}

/// Drains several backlogs in turn, and compares the others with the first.
async fn in_turn(
    bed: &TestBed,
    backlogs: &[(String, Backlog)],
    rounds: u32,
) -> anyhow::Result<Vec<Vec<Row>>> {
    let mut all: Vec<Vec<Row>> = vec![Vec::new(); backlogs.len()];
    for round in 1..=rounds.min(bed.rounds) {
        for ((name, backlog), rows) in backlogs.iter().zip(&mut all) {
            rows.push(drain(bed, backlog, name, &format!("{name}, round {round}")).await?);
        }
    }
    Ok(all)
}

/// The median round of each, the others compared with the first.
fn compared(all: Vec<Vec<Row>>) -> Vec<Row> {
    let base = all[0].clone();
    let rows = all.into_iter().enumerate().map(|(index, rows)| {
        let rates = rows.iter().zip(&base);
        let rounds = rates.map(|(it, base)| (it.items_per_second, base.items_per_second));
        let rounds = rounds.collect();
        let row = Row::median_of(rows);
        if index == 0 { row } else { row.against(&base[0].name, rounds) }
    });
    rows.collect()
}

/// The same backlog from ever more sensors.
pub(super) async fn fleet(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    const SIZES: [usize; 3] = [SENSORS, 10_000, 100_000];
    let backlogs = SIZES.map(|size| (format!("fleet-{size}"), Backlog::of_1(bed, size)));
    let all = in_turn(bed, &backlogs, OWN_ROUNDS).await?;
    let mean = |rows: &[Row], bytes: fn(&Row) -> u64| {
        rows.iter().map(|row| bytes(row) as f64).sum::<f64>() / rows.len() as f64
    };
    let (peak, resident): (Vec<f64>, Vec<f64>) = all
        .iter()
        .map(|rows| (mean(rows, |row| row.peak_rss_bytes), mean(rows, |row| row.resident_bytes)))
        .unzip();
    let mut rows = compared(all);
    for (index, row) in rows.iter_mut().enumerate().skip(1) {
        // At a small scale not every sensor has its turn.
        let heard = (backlogs[index].1.messages as usize).min(SIZES[index]);
        let more = heard.saturating_sub(SENSORS).max(1) as f64;
        let (at_peak, in_the_end) =
            ((peak[index] - peak[0]) / more, (resident[index] - resident[0]) / more);
        row.figures.insert("rss_bytes_per_sensor", at_peak);
        row.notes.push(format!(
            "RSS per sensor beyond the first {SENSORS}: {at_peak:.0} bytes at its peak, {in_the_end:.0} bytes at the end"
        ));
    }
    Ok(rows)
}

/// The same backlog, with ever more of it sent twice. It is twice that of drain-100: messages that arrive while
/// sensors are looked up for the first time are grouped by sensor, and a copy meets its original in one batch.
pub(super) async fn redelivery(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    const MESSAGES: u64 = 20_000;
    /// A copy that follows this many messages later is mostly in another batch than its original.
    const LAG: u64 = 8_000;
    let backlog = |percent: u32, lag: u64| {
        let suffix = if lag > 0 { "-later" } else { "" };
        let copies = Copies { share: f64::from(percent) / 100.0, lag };
        (format!("redelivery-{percent}%{suffix}"), Backlog::of_100(bed, MESSAGES, copies))
    };
    let mut rows = Vec::new();
    for (percent, rounds) in [(1, OWN_ROUNDS), (10, 1), (100, 1)] {
        let backlogs = [backlog(0, 0), backlog(percent, 0), backlog(percent, bed.scaled(LAG))];
        let compared = compared(in_turn(bed, &backlogs, rounds).await?);
        // The first is in the report already, but for the first time.
        rows.extend(compared.into_iter().skip(usize::from(!rows.is_empty())));
    }
    Ok(rows)
}
