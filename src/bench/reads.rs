//! Two hundred requests a second while ingest runs as fast as it goes: what the readers wait, and
//! what ingest loses to them. Each round is measured without readers, twice with them and once more
//! without, and the two of each kind are taken together: a message costs more the larger the table
//! has become.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::ensure;
use hdrhistogram::Histogram;
use tokio::time::{Instant, MissedTickBehavior};

use super::ground::Ground;
use super::line::{latencies, record};
use super::live::{Live, Part, tell};
use super::load::{SENSORS, Shape, sensors};
use super::publisher::Pace;
use super::report::Row;
use super::run::Run;
use super::service::Reader;

const LASTS: Duration = Duration::from_secs(5);

/// The broker takes no more of these meanwhile.
const MAX_MESSAGES: u64 = 500_000;

/// So that the database has as much to do as the broker.
const ITEMS_PER_MESSAGE: u32 = 10;

const REQUESTS_PER_SECOND: u32 = 200;

/// What each of them reads.
const QUERY: &str = "measurements?limit=64";

/// Requests without an answer at the most; those beyond are counted as failed.
const MAX_UNANSWERED: usize = 1_000;

/// What the readers saw.
#[derive(Debug)]
struct Seen {
    /// From the moment when a request was due until its answer was read, in microseconds.
    latency: Histogram<u64>,
    failed: u64,
    unanswered: usize,
}

pub(super) async fn reads(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let seen = Rc::new(RefCell::new(Seen { latency: latencies(), failed: 0, unanswered: 0 }));
    let (mut runs, mut rounds) = (Vec::new(), Vec::new());
    for _ in 0..ground.rounds {
        let mut live = Live::start(ground, SENSORS).await?;
        let begins = live.tell(&part(ground)).await?;
        let read = [with_readers(&mut live, &seen).await?, with_readers(&mut live, &seen).await?];
        let ends = live.tell(&part(ground)).await?;
        live.stop().await?;
        rounds.push((together(&read), together(&[begins, ends])));
        runs.extend(read);
    }
    let Seen { latency, failed, .. } = &*seen.borrow();
    ensure!(!latency.is_empty(), "no request was answered");
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
    let mut row = Row::of_rounds("reads", &runs).against("without readers", rounds);
    row.figures.extend([("read_p99_ms", at(0.99)), ("read_failures", *failed as f64)]);
    row.notes.push(format!(
        "{REQUESTS_PER_SECOND} requests/s of {QUERY}: {} answered, {failed} failed; from when one was \
         due until it was read p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, at the most {:.1} ms",
        latency.len(),
        at(0.5),
        at(0.95),
        at(0.99),
        latency.max() as f64 / 1_000.0,
    ));
    Ok(vec![row])
}

/// Items a second of all of them.
fn together(runs: &[Run]) -> f64 {
    let items: u64 = runs.iter().map(|run| run.account.items()).sum();
    let elapsed: Duration = runs.iter().map(|run| run.elapsed).sum();
    items as f64 / elapsed.as_secs_f64()
}

fn part(ground: &Ground) -> Part {
    Part {
        what: "reads",
        messages: MAX_MESSAGES,
        shape: Shape::Measurements(ITEMS_PER_MESSAGE),
        pace: Pace::FlatOut,
        lasts: Some(ground.scaled_time(LASTS)),
    }
}

/// The same part, while others read.
async fn with_readers(live: &mut Live<'_>, seen: &Rc<RefCell<Seen>>) -> anyhow::Result<Run> {
    let part = part(live.ground);
    let load = live.load(part.messages, part.shape);
    let before = live.begin().await?;
    let readers = actix_rt::spawn(read(live.service.reader(), Rc::clone(seen)));
    let outcome = async {
        let published = tell(live.ground, &live.stage, load, &part).await?;
        live.end(before, published).await
    };
    let outcome = outcome.await;
    readers.abort();
    outcome
}

/// Sends a request whenever one is due, whether those before are answered or not.
async fn read(reader: Reader, seen: Rc<RefCell<Seen>>) {
    let sensors = sensors(SENSORS);
    let mut due = tokio::time::interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for sensor in sensors.iter().cycle() {
        let due_at: Instant = due.tick().await;
        if seen.borrow().unanswered >= MAX_UNANSWERED {
            seen.borrow_mut().failed += 1;
            continue;
        }
        seen.borrow_mut().unanswered += 1;
        let (reader, seen) = (reader.clone(), Rc::clone(&seen));
        let path = format!("/api/v1/sensors/{sensor}/{QUERY}");
        actix_rt::spawn(async move {
            let outcome = reader.get(&path).await;
            let seen = &mut *seen.borrow_mut();
            seen.unanswered -= 1;
            match outcome {
                Ok(_) => record(&mut seen.latency, due_at.elapsed()),
                Err(_) => seen.failed += 1,
            }
        });
    }
}
