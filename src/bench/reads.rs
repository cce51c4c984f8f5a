//! 200 requests per second while ingest runs as fast as possible: how long the readers wait, and what ingest
//! loses to them. Each round measures without readers, twice with them and once more without, and sums up both
//! of each kind: a message costs more the larger the table has become.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use anyhow::ensure;
use hdrhistogram::Histogram;
use tokio::time::{Instant, MissedTickBehavior};

use super::live::Live;
use super::load::{self, SENSORS, sensors};
use super::report::Row;
use super::test_bed::TestBed;
use crate::load::{HttpClient, Rate, latencies, record};

const REQUESTS_PER_SECOND: u32 = 200;
const QUERY: &str = "measurements?limit=64";
/// Unanswered requests at most; more are counted as failed.
const MAX_UNANSWERED: usize = 1_000;

#[derive(Debug)]
struct Requests {
    /// From when a request was due until its answer was read, in microseconds.
    latency: Histogram<u64>,
    failed: u64,
    unanswered: usize,
}

pub(super) async fn reads(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    // More than the broker takes in that time; of ten, so that the database has as much to do as the broker.
    let mut load = load::live(500_000, 10, Rate::Unlimited);
    load.duration = Some(bed.scaled_time(Duration::from_secs(5)));
    let requests = Requests { latency: latencies(), failed: 0, unanswered: 0 };
    let requests = Rc::new(RefCell::new(requests));
    let (mut rows, mut rounds) = (Vec::new(), Vec::new());
    for _ in 0..bed.rounds {
        let mut live = Live::start(bed).await?;
        let (mut with, mut without) = (Vec::new(), Vec::new());
        without.push(live.measure("reads", &load, pending()).await?);
        for _ in 0..2 {
            // On connections of its own.
            let http = HttpClient::new(&live.service.url, None, None)?;
            let read = read(http, Rc::clone(&requests));
            with.push(live.measure("reads", &load, read).await?);
        }
        without.push(live.measure("reads", &load, pending()).await?);
        live.stop().await?;
        rounds.push((rate_of(&with), rate_of(&without)));
        rows.extend(with);
    }
    let Requests { latency, failed, .. } = &*requests.borrow();
    ensure!(!latency.is_empty(), "no request was answered");
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
    let mut row = Row::median_of(rows).against("without readers", rounds);
    row.figures.extend([("read_p99_ms", at(0.99)), ("read_failures", *failed as f64)]);
    row.notes.push(format!(
        "{REQUESTS_PER_SECOND} requests/s of {QUERY}: {} answered, {failed} failed; from when one was \
         due until it was read p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        latency.len(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0),
    ));
    Ok(vec![row])
}

/// Items per second of all of them.
fn rate_of(rows: &[Row]) -> f64 {
    let items: u64 = rows.iter().map(|row| row.items).sum();
    items as f64 / rows.iter().map(|row| row.seconds).sum::<f64>()
}

/// Sends each request when it is due, whether those before are answered or not.
async fn read(http: HttpClient, requests: Rc<RefCell<Requests>>) {
    let sensors = sensors(SENSORS);
    let mut due = tokio::time::interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for sensor in sensors.iter().cycle() {
        let due_at: Instant = due.tick().await;
        if requests.borrow().unanswered >= MAX_UNANSWERED {
            requests.borrow_mut().failed += 1;
            continue;
        }
        requests.borrow_mut().unanswered += 1;
        let (http, requests) = (http.clone(), Rc::clone(&requests));
        let path = format!("/api/v1/sensors/{sensor}/{QUERY}");
        actix_rt::spawn(async move {
            let outcome = http.get(&path).await;
            let requests = &mut *requests.borrow_mut();
            requests.unanswered -= 1;
            match outcome {
                Ok(_) => record(&mut requests.latency, due_at.elapsed()),
                Err(_) => requests.failed += 1,
            }
        });
    }
}
