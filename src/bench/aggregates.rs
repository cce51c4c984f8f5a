//! Aggregates over four weeks of one sensor: how long the first answer takes, and the same request again, for
//! buckets from a second to 30 days; and what it costs PostgreSQL to prepare them before anybody asks. The rows are
//! inserted in the order in which a fleet publishes them, so that those of one sensor are scattered.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde_json::Value;

use super::load::sensors;
use super::report::{Measured, Row};
use super::service::{Batches, Service};
use super::test_bed::{Run, TestBed};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::load::Account;
use crate::store::{Bench, RolledUp};

const MINUTES: u64 = 28 * 24 * 60;
/// Each is asked first for all of its rows in buckets of one length, so that nothing of it is cached then.
const SENSORS: usize = 4;
/// They are not registered: their rows lie between the others and are not rolled up. Their values are larger, so that
/// a minute of all sensors fills a page.
const OTHERS: u64 = 12;
/// Buckets, and the measurements that they hold: all, or those of the first page.
const BUCKETS: [(&str, u64); 6] = [
    ("1h", MINUTES),
    ("6h", MINUTES),
    ("1d", MINUTES),
    ("30d", MINUTES),
    ("60s", 1_000),
    ("1s", 1_000),
];
/// Requests after the first.
const REPETITIONS: usize = 9;
/// The rows are inserted in this many parts at once.
const PARTS: i64 = 2;
/// About 10,000 rows are rolled up per second.
const ROLLUP_TIMEOUT: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn aggregates(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    let others = usize::try_from(bed.scaled(OTHERS))?;
    let all = sensors(SENSORS + others);
    let (asked, others) = all.split_at(SENSORS);
    let run = bed.run(asked).await?;
    // Whole minutes, so that the range holds as many measurements as minutes.
    let to = Timestamp::now().unix_microseconds() / 60_000_000;
    let minute = |minute: i64| Timestamp::from_unix_microseconds(minute * 60_000_000);
    let bound = |part: i64| minute(to - MINUTES as i64 + MINUTES as i64 * part / PARTS);
    let row_count = MINUTES * all.len() as u64;
    let progress = bed.progress("aggregates: rows of four weeks", Some(row_count));
    let parts = (0..PARTS).map(|part| {
        let range = (bound(part), bound(part + 1));
        let store = &run.store;
        async move { Bench::connect(store).await?.insert_measurements(asked, others, range).await }
    });
    let inserted: u64 = try_join_all(parts).await?.into_iter().sum();
    ensure!(inserted == row_count, "{inserted} of {row_count} rows were inserted");
    drop(progress);
    run.database.ask_for_rollup().await?;
    bed.checkpoint().await;

    let mut service = Service::spawn(run.settings(bed))?;
    service.ready().await?;
    let rolled_up = rollup(bed, &run).await?;
    let mut row = requests(bed, &service, asked, (bound(0), bound(PARTS))).await?;
    (row.rows_in_tables, row.distinct_items) = (row_count, row_count);
    row.notes.push(format!("the rows of {} sensors are scattered; before, {rolled_up}", all.len()));
    service.stop().await?;
    bed.clear().await?;
    Ok(vec![row])
}

/// Waits until the service has rolled the rows up. Returns what that cost PostgreSQL.
async fn rollup(bed: &TestBed, run: &Run) -> anyhow::Result<String> {
    let meters = bed.meters(None, vec![run.database.backend_pid().await?]);
    let (before, started_at) = (meters.read(), Instant::now());
    let progress = bed.progress("aggregates: days that are due", None);
    loop {
        let RolledUp { days, due } = run.database.rolled_up().await?;
        progress.set_position(due);
        if days > 0 && due == 0 {
            let (rows, seconds) = (SENSORS as u64 * MINUTES, started_at.elapsed().as_secs_f64());
            let cost = meters.since(before)[1].map_or_else(String::new, |time| {
                let cost = time.as_secs_f64() * 1e6 / rows as f64;
                format!(", {cost:.1} µs of PostgreSQL's CPU a row")
            });
            return Ok(format!(
                "{rows} rows were rolled up into {days} days in {seconds:.1} s{cost}"
            ));
        }
        ensure!(started_at.elapsed() < ROLLUP_TIMEOUT, "{due} due after {ROLLUP_TIMEOUT:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// As a row: a message is a request, and an item a measurement that it sums up.
async fn requests(
    bed: &TestBed,
    service: &Service,
    asked: &[SensorIdentifier],
    (from, to): (Timestamp, Timestamp),
) -> anyhow::Result<Row> {
    // Connections are made before.
    for sensor in asked {
        service.http.get(&format!("/api/v1/sensors/{sensor}/measurements?limit=1")).await?;
    }
    let meters = bed.meters(Some(service.pid), Vec::new());
    let before = meters.read();
    let (mut notes, mut differences) = (Vec::new(), Vec::new());
    let mut account = Account::default();
    let (mut elapsed, mut slowest_first) = (Duration::ZERO, 0.0);
    for (sensor, (bucket, expected)) in asked.iter().cycle().zip(BUCKETS) {
        let (from, to) = (from.unix_seconds(), to.unix_seconds());
        let path = format!(
            "/api/v1/sensors/{sensor}/measurements/aggregates?bucket={bucket}&attributes=temperature&from={from}&to={to}"
        );
        let mut millis = Vec::with_capacity(REPETITIONS + 1);
        for _ in 0..=REPETITIONS {
            let started_at = Instant::now();
            let answer = service.http.get(&path).await?;
            elapsed += started_at.elapsed();
            millis.push(started_at.elapsed().as_secs_f64() * 1e3);
            let page: Value = serde_json::from_slice(&answer)?;
            let buckets = page["items"].as_array().context("no buckets")?.iter();
            let counts = buckets.map(|it| it["attributes"]["temperature"]["count"].as_u64());
            let counted: u64 = counts.map(Option::unwrap_or_default).sum();
            if counted != expected {
                differences.push(format!("{counted} measurements in {bucket}, not {expected}"));
            }
            account.messages += 1;
            account.kinds[0].published += counted;
        }
        let first = millis.remove(0);
        slowest_first = f64::max(slowest_first, first);
        millis.sort_by(f64::total_cmp);
        let (median, slowest) = (millis[REPETITIONS / 2], millis[REPETITIONS - 1]);
        notes.push(format!(
            "{bucket}: {first:.0} ms, again {median:.0} ms (median of {REPETITIONS}, max {slowest:.0} ms)"
        ));
    }
    let (cpu, memory) = (meters.since(before), service.memory());
    let measured = Measured { account, elapsed, cpu, memory, batches: Batches::default() };
    let mut row = measured.row("aggregates");
    row.figures.insert("slowest_first_ms", slowest_first);
    (row.exact, row.differences, row.notes) = (differences.is_empty(), differences, notes);
    Ok(row)
}
