//! A backlog waits in the broker for the service's session; then the service starts, and drains it. The clock runs
//! from the start of the process until everything is settled. The scenarios here compare that with a baseline, or
//! drains of several backlogs with each other; each round measures all of them in turn.

use super::baseline::Baseline;
use super::load::{self, SENSORS};
use super::report::{Measured, Row};
use super::service::{Batches, Service};
use super::test_bed::TestBed;
use crate::load::{Content, Copies, Fleet, Invention};

/// Rounds of a comparison between measurements of our own, at most.
const OWN_ROUNDS: u32 = 2;

/// Messages of most of them.
const BACKLOG: u64 = 300_000;

/// Messages of one measurement.
fn of_1(bed: &TestBed, sensors: usize) -> Fleet {
    load::backlog(bed.scaled(BACKLOG), sensors, 1)
}

/// Messages of 100 measurements.
fn of_100(bed: &TestBed, messages: u64) -> Fleet {
    load::backlog(bed.scaled(messages), SENSORS, 100)
}

pub(super) async fn drain_1(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    drain_against(bed, "drain-1", &of_1(bed, SENSORS), Baseline::MosquittoSub).await
}

pub(super) async fn drain_100(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    drain_against(bed, "drain-100", &of_100(bed, 10_000), Baseline::PsqlCopy).await
}

pub(super) async fn mixed(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    let measurements = Invention::of_measurements(1);
    let invention =
        Invention { log_share: 0.05, heartbeat_share: 0.05, bad_share: 0.01, ..measurements };
    let content = Content::Invented(invention);
    let backlog = Fleet { content, ..of_1(bed, SENSORS) };
    Ok(vec![drain(bed, &backlog, ("mixed", JournalUse::Written), 1).await?])
}

async fn drain_against(
    bed: &TestBed,
    name: &str,
    backlog: &Fleet,
    baseline: Baseline,
) -> anyhow::Result<Vec<Row>> {
    let (mut rows, mut rounds) = (Vec::new(), Vec::new());
    for round in 1..=bed.rounds {
        let row = drain(bed, backlog, (name, JournalUse::Written), round).await?;
        if baseline.is_installed().await {
            let theirs = baseline.drain(bed, backlog, &format!("{name}, round {round}")).await?;
            rounds.push((row.items_per_second, row.items as f64 / theirs.as_secs_f64()));
        }
        rows.push(row);
    }
    Ok(vec![Row::median_of(rows).against(baseline.name(), rounds)])
}

/// What commits do with the journal of the roll-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum JournalUse {
    Written,
    Discarded,
}

/// Drains it once.
async fn drain(
    bed: &TestBed,
    backlog: &Fleet,
    (name, journal): (&str, JournalUse),
    round: u32,
) -> anyhow::Result<Row> {
    let step = format!("{name}, round {round}");
    let run = bed.run(&backlog.identifiers).await?;
    if journal == JournalUse::Discarded {
        run.database.discard_journal().await?;
    }
    // Its session and its subscriptions remain with the broker.
    let mut first = Service::spawn(run.settings(bed))?;
    first.ready().await?;
    first.stop().await?;

    let account = bed.publish(&run, backlog, &format!("{step}: backlog")).await?;
    let progress = bed.progress(&step, Some(account.items()));
    bed.checkpoint().await;
    let before = bed.meters(None, Vec::new()).read();
    let mut service = Service::spawn(run.settings(bed))?;
    let meters = bed.meters(Some(service.pid), Vec::new());
    let ledger = service.settled(account.items(), |items| progress.set_position(items)).await?;
    let elapsed = service.spawned_at.elapsed();
    let cpu = meters.since(before);
    let memory = service.memory();
    let batches = service.batches(Batches::default()).await?;
    service.stop().await?;
    let tables = run.database.count().await?;
    bed.clear().await?;
    let measured = Measured { account, elapsed, cpu, memory, batches };
    Ok(measured.row(name).with_books(&account, &ledger, &tables))
}

/// Drains several backlogs in turn.
async fn in_turn(
    bed: &TestBed,
    backlogs: &[(String, Fleet, JournalUse)],
    rounds: u32,
) -> anyhow::Result<Vec<Vec<Row>>> {
    let mut all: Vec<Vec<Row>> = vec![Vec::new(); backlogs.len()];
    for round in 1..=rounds.min(bed.rounds) {
        for ((name, backlog, journal), rows) in backlogs.iter().zip(&mut all) {
            rows.push(drain(bed, backlog, (name, *journal), round).await?);
        }
    }
    Ok(all)
}

/// The median round of each, the others compared with the first.
fn compared(all: Vec<Vec<Row>>) -> Vec<Row> {
    let base = all[0].clone();
    let rows = all.into_iter().enumerate().map(|(index, rows)| {
        let rounds =
            rows.iter().zip(&base).map(|(it, base)| (it.items_per_second, base.items_per_second));
        let rounds = rounds.collect();
        let row = Row::median_of(rows);
        if index == 0 { row } else { row.against(&base[0].name, rounds) }
    });
    rows.collect()
}

/// The same backlog from 100,000 sensors, with and without the journal of the roll-up, in turn.
pub(super) async fn rollup(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    const FLEET: usize = 100_000;
    let backlog = of_1(bed, FLEET);
    let backlogs = [
        ("rollup-none".into(), backlog.clone(), JournalUse::Discarded),
        ("rollup".into(), backlog, JournalUse::Written),
    ];
    Ok(compared(in_turn(bed, &backlogs, bed.rounds).await?))
}

/// The same backlog from ever more sensors.
pub(super) async fn fleet(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    const SIZES: [usize; 3] = [SENSORS, 10_000, 100_000];
    let backlogs =
        SIZES.map(|size| (format!("fleet-{size}"), of_1(bed, size), JournalUse::Written));
    let all = in_turn(bed, &backlogs, OWN_ROUNDS).await?;
    let mean = |rows: &[Row], bytes: fn(&Row) -> u64| {
        rows.iter().map(|row| bytes(row) as f64).sum::<f64>() / rows.len() as f64
    };
    let rss =
        |rows: &Vec<Row>| (mean(rows, |it| it.peak_rss_bytes), mean(rows, |it| it.resident_bytes));
    let rss: Vec<(f64, f64)> = all.iter().map(rss).collect();
    let mut rows = compared(all);
    for (index, row) in rows.iter_mut().enumerate().skip(1) {
        // At a small scale not every sensor has its turn.
        let expected = (bed.scaled(BACKLOG) as usize).min(SIZES[index]);
        let more = expected.saturating_sub(SENSORS).max(1) as f64;
        let (at_peak, at_end) =
            ((rss[index].0 - rss[0].0) / more, (rss[index].1 - rss[0].1) / more);
        row.figures.insert("rss_bytes_per_sensor", at_peak);
        row.notes.push(format!(
            "RSS per sensor beyond the first {SENSORS}: {at_peak:.0} bytes at its peak, {at_end:.0} bytes at the end"
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
        let backlog = Fleet { copies, ..of_100(bed, MESSAGES) };
        (format!("redelivery-{percent}%{suffix}"), backlog, JournalUse::Written)
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
