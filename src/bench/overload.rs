//! Three times what the service can store for half a minute, then silence. What it can store is found out on the
//! way: the offered rate follows what was settled lately. Messages of 30 items, so that the service is the
//! bottleneck and not the broker.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::live::Live;
use super::load;
use super::meters;
use super::report::Row;
use super::service::settled_items;
use super::test_bed::TestBed;
use crate::load::{HttpClient, Rate};

const DURATION: Duration = Duration::from_secs(30);
const ITEMS_PER_MESSAGE: u32 = 30;
/// Offered ÷ settled: a little more than three, for the time in which it is not known yet.
const EXCESS: f64 = 3.2;
/// Messages per second until the first measurement of the settled rate.
const FIRST_RATE: u64 = 15_000;
const MIN_RATE: u64 = 1_000;
/// A bound for the broker's queue: about 2.5 kB each.
const MAX_MESSAGES: u64 = 800_000;
/// Memory is compared with what it is then.
const REFERENCE: Duration = Duration::from_secs(5);
const OBSERVATION_INTERVAL: Duration = Duration::from_millis(500);
/// Observations over which the settled items are averaged.
const OBSERVATIONS: usize = 4;

/// Of one moment.
#[derive(Clone, Copy)]
struct Observation {
    elapsed: Duration,
    settled: u64,
    resident_bytes: u64,
}

pub(super) async fn overload(bed: &TestBed) -> anyhow::Result<Vec<Row>> {
    let mut live = Live::start(bed).await?;
    let duration = bed.scaled_time(DURATION);
    let per_second = Arc::new(AtomicU64::new(FIRST_RATE));
    let rate = Rate::Governed { per_second: Arc::clone(&per_second), share: 1.0 };
    let mut load = load::live(MAX_MESSAGES, ITEMS_PER_MESSAGE, rate);
    load.duration = Some(duration);
    let observations = Rc::new(RefCell::new(Vec::new()));
    let (http, pid) = (live.service.http.clone(), live.service.pid);
    let before = settled_items(&http.ledger().await?);
    let observe = observe(http, pid, per_second, Rc::clone(&observations));
    let mut row = live.measure("overload", &load, observe).await?;
    live.stop().await?;

    let observations = observations.borrow();
    let meanwhile = observations.iter().rfind(|it| it.elapsed <= duration);
    let settled = meanwhile.map_or(0, |it| it.settled - before) as f64;
    let reference = observations.iter().rfind(|it| it.elapsed <= REFERENCE);
    let reference = reference.map_or(row.resident_bytes, |it| it.resident_bytes) as f64;
    let growth = row.peak_rss_bytes as f64 / reference.max(1.0);
    let (seconds, offered) = (duration.as_secs_f64(), row.items as f64);
    row.notes.push(format!(
        "offered {:.0} items/s for {seconds:.0} s, {:.1} times the {:.0} items/s that were settled \
         meanwhile; all was stored {:.1} s after the last",
        offered / seconds,
        offered / settled.max(1.0),
        settled / seconds,
        row.seconds - seconds,
    ));
    let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
    row.notes.push(format!(
        "RSS {:.1} MiB after {:.0} s, {:.1} MiB at its highest: {growth:.2} times",
        mebibytes(reference),
        REFERENCE.as_secs_f64(),
        mebibytes(row.peak_rss_bytes as f64),
    ));
    row.figures.insert("rss_growth", growth);
    Ok(vec![row])
}

/// Measures the settled rate and the memory, and sets the offered rate.
async fn observe(
    http: HttpClient,
    pid: u32,
    per_second: Arc<AtomicU64>,
    observations: Rc<RefCell<Vec<Observation>>>,
) {
    let started_at = Instant::now();
    loop {
        tokio::time::sleep(OBSERVATION_INTERVAL).await;
        // A missing answer is one observation less.
        let Ok(ledger) = http.ledger().await else { continue };
        let (elapsed, settled) = (started_at.elapsed(), settled_items(&ledger));
        let resident_bytes = meters::memory(pid).resident;
        let mut observations = observations.borrow_mut();
        observations.push(Observation { elapsed, settled, resident_bytes });
        if let Some([then, .., now]) = observations.last_chunk::<{ OBSERVATIONS + 1 }>() {
            let settled = (now.settled - then.settled) as f64;
            let rate = settled / (now.elapsed - then.elapsed).as_secs_f64();
            let wanted = EXCESS * rate / f64::from(ITEMS_PER_MESSAGE);
            per_second.store((wanted as u64).max(MIN_RATE), Ordering::Relaxed);
        }
    }
}
