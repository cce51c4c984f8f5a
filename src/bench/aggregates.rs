//! Four weeks of one sensor, summed up: how long the first answer takes, and the same again, for
//! buckets from a second to 30 days; and what it costs PostgreSQL to put the rows together before
//! anybody asks. The rows are laid down in the order in which a fleet says them, so that those of a
//! sensor lie scattered among those of the others; the bundles are made by the service, as always.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde::Deserialize;

use super::ground::{Ground, Stage};
use super::load::{Account, Items, sensors};
use super::report::Row;
use super::run::{Books, Run};
use super::service::{Batches, Service};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::{Bench, Bundled, bundles_of_28_days};

const MINUTES: u64 = 28 * 24 * 60;

/// Each is asked for the whole in buckets of one length first, so that nothing of it is warm then, but
/// what was left by those who put it together.
const SENSORS: usize = 4;

/// Buckets, and how many measurements they hold: all of them, or those of the first page.
const BUCKETS: [(&str, u64); 6] = [
    ("1h", MINUTES),
    ("5000s", MINUTES),
    ("1d", MINUTES),
    ("30d", MINUTES),
    ("60s", 1_000),
    ("1s", 1_000),
];

/// Nobody has created these: their rows lie between the others, and are not put together. They say
/// more, so that a minute of all fills a page.
const OTHERS: u64 = 12;

/// Requests after the first.
const REPETITIONS: usize = 9;

/// The rows are laid down in so many parts at once.
const AT_ONCE: i64 = 2;

/// Bundles are made by and by, of some 12,000 rows a second.
const PATIENCE: Duration = Duration::from_secs(90);

const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Answer {
    items: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    attributes: Attributes,
}

#[derive(Deserialize)]
struct Attributes {
    temperature: Numbers,
}

#[derive(Deserialize)]
struct Numbers {
    count: u64,
}

pub(super) async fn aggregates(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let asked = sensors(SENSORS);
    let stage = ground.stage(&asked).await?;
    let others = usize::try_from(ground.scaled(OTHERS))?;
    let all = sensors(SENSORS + others);
    // A whole minute, so that the span holds as many measurements as minutes.
    let minute = Timestamp::now().unix_microseconds() / 60_000_000;
    let moment = |minute: i64| Timestamp::from_unix_microseconds(minute * 60_000_000);
    let span = (moment(minute - MINUTES as i64), moment(minute));
    lay_down(ground, &stage, all.split_at(SENSORS), span).await?;
    stage.database.settle(&asked).await?;
    ground.calm().await;

    let mut service = Service::spawn(&stage.settings(ground))?;
    service.ready().await?;
    let packing = bundles(ground, &stage, SENSORS as u64).await?;
    let mut row = requests(ground, &service, &asked, span).await?;
    row.rows_in_tables = MINUTES * all.len() as u64;
    row.distinct_items = row.rows_in_tables;
    row.notes.push(format!("the rows of {} sensors lie scattered; before, {packing}", all.len()));
    service.stop().await?;
    ground.clear().await?;
    Ok(vec![row])
}

async fn lay_down(
    ground: &Ground,
    stage: &Stage,
    (sensors, others): (&[SensorIdentifier], &[SensorIdentifier]),
    (from, to): (Timestamp, Timestamp),
) -> anyhow::Result<()> {
    let row_count = MINUTES * (sensors.len() + others.len()) as u64;
    let _shown = ground.console.step("aggregates: rows of four weeks", row_count);
    let cut = |part: i64| {
        let whole = to.unix_microseconds() - from.unix_microseconds();
        Timestamp::from_unix_microseconds(from.unix_microseconds() + whole / AT_ONCE * part)
    };
    let parts = (0..AT_ONCE).map(|part| async move {
        let database = Bench::connect(&stage.store).await?;
        database.lay_down(sensors, others, (cut(part), cut(part + 1))).await
    });
    let laid_down: u64 = try_join_all(parts).await?.into_iter().sum();
    ensure!(laid_down == row_count, "{laid_down} of {row_count} rows were laid down");
    Ok(())
}

/// Waits until the service has put together what it will; says what that cost PostgreSQL.
async fn bundles(ground: &Ground, stage: &Stage, sensors: u64) -> anyhow::Result<String> {
    let meters = ground.meters(None, vec![stage.database.backend_pid().await?]);
    let (first, before, began) = (stage.database.bundled().await?, meters.read(), Instant::now());
    let wanted = sensors * bundles_of_28_days(Timestamp::now());
    let shown = ground.console.step("aggregates: bundles of four hours", wanted);
    loop {
        let Bundled { bundles, rows } = stage.database.bundled().await?;
        shown.set(bundles);
        if bundles >= wanted {
            let (rows, elapsed) = (rows - first.rows, began.elapsed());
            let cost = meters.read().since(before).postgres.map_or_else(String::new, |time| {
                format!(", {:.1} µs of PostgreSQL's CPU a row", micros(time) / rows.max(1) as f64)
            });
            return Ok(format!(
                "{bundles} bundles were made: {rows} rows in {:.1} s{cost}",
                elapsed.as_secs_f64()
            ));
        }
        ensure!(began.elapsed() < PATIENCE, "{bundles} of {wanted} bundles within {PATIENCE:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// As a row: a message is a request, and an item a measurement that it sums up.
async fn requests(
    ground: &Ground,
    service: &Service,
    asked: &[SensorIdentifier],
    (from, to): (Timestamp, Timestamp),
) -> anyhow::Result<Row> {
    let (reader, meters) = (service.reader(), ground.meters(Some(service), Vec::new()));
    // The connections are made by others.
    for sensor in asked {
        reader.get(&format!("/api/v1/sensors/{sensor}/measurements?limit=1")).await?;
    }
    let before = meters.read();
    let (mut notes, mut differences) = (Vec::new(), Vec::new());
    let (mut summed, mut busy, mut slowest_first) = (0, Duration::ZERO, Duration::ZERO);
    for (sensor, (bucket, expected)) in asked.iter().cycle().zip(BUCKETS) {
        let path = format!(
            "/api/v1/sensors/{sensor}/measurements/aggregates?bucket={bucket}\
             &attributes=temperature&from={}&to={}",
            from.unix_seconds(),
            to.unix_seconds(),
        );
        let mut times = Vec::with_capacity(REPETITIONS + 1);
        for _ in 0..=REPETITIONS {
            let began = Instant::now();
            let answer = reader.get(&path).await?;
            times.push(began.elapsed());
            let answer: Answer = serde_json::from_slice(&answer).context("no buckets")?;
            let counted: u64 = answer.items.iter().map(|it| it.attributes.temperature.count).sum();
            if counted != expected {
                differences.push(format!("{counted} measurements in {bucket}, not {expected}"));
            }
            summed += counted;
        }
        busy += times.iter().sum::<Duration>();
        let first = times.remove(0);
        slowest_first = slowest_first.max(first);
        times.sort_unstable();
        notes.push(format!(
            "{bucket}: {:.0} ms, again {:.0} ms (median of {REPETITIONS}, at the most {:.0} ms)",
            millis(first),
            millis(times[times.len() / 2]),
            times.last().copied().map_or(0.0, millis),
        ));
    }
    let cpu = meters.read().since(before);
    let run = Run {
        account: Account {
            messages: (BUCKETS.len() * (REPETITIONS + 1)) as u64,
            measurements: Items { published: summed, ..Items::default() },
            ..Account::default()
        },
        elapsed: busy,
        cpu,
        memory: service.memory(),
        batches: Batches::default(),
        puback: None,
        visible: None,
        books: Books::default(),
        notes,
    };
    let mut row = run.row("aggregates");
    row.figures.insert("slowest_first_ms", millis(slowest_first));
    (row.exact, row.differences) = (differences.is_empty(), differences);
    Ok(row)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
