//! Three times what it can take, for half a minute, and then silence. What it can take is found
//! out on the way: the offer follows what was settled lately. Messages of 30 items, so that the
//! service gives way and not the broker.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ground::Ground;
use super::live::{Live, Part, tell};
use super::load::{SENSORS, Shape};
use super::publisher::Pace;
use super::report::Row;
use super::service::{Service, settled_items};

const LASTS: Duration = Duration::from_secs(30);

const ITEMS_PER_MESSAGE: u32 = 30;

/// Offered, in what is taken: a little more than three, for the moments in which it is not known.
const EXCESS: f64 = 3.2;

/// Messages a second until it is known what is taken.
const FIRST_OFFER: u64 = 15_000;

/// Whatever is taken, no fewer.
const LEAST_OFFER: u64 = 1_000;

/// A bound for what queues in the broker: about 2.5 kB each.
const MAX_MESSAGES: u64 = 800_000;

/// Memory is held against its value then.
const REFERENCE: Duration = Duration::from_secs(5);

const OBSERVATION_INTERVAL: Duration = Duration::from_millis(500);

/// What is taken is averaged over so many observations.
const OBSERVATIONS: usize = 4;

/// What was observed meanwhile.
#[derive(Debug, Default)]
struct Observed {
    /// After [`REFERENCE`].
    reference_rss: Cell<u64>,
    /// At its highest after that.
    highest_rss: Cell<u64>,
    settled: Cell<u64>,
}

pub(super) async fn overload(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let mut live = Live::start(ground, SENSORS).await?;
    let lasts = ground.scaled_time(LASTS);
    let offer = Arc::new(AtomicU64::new(FIRST_OFFER));
    let part = Part {
        what: "overload",
        messages: MAX_MESSAGES,
        shape: Shape::Measurements(ITEMS_PER_MESSAGE),
        pace: Pace::Governed(Arc::clone(&offer)),
        lasts: Some(lasts),
    };
    let load = live.load(part.messages, part.shape);
    let before = live.begin().await?;
    let settled_before = settled_items(&live.service.ledger().await?);
    let observed = Rc::new(Observed::default());

    let published = tokio::select! {
        published = tell(ground, &live.stage, load, &part) => published?,
        never = observe(&live.service, &offer, &observed) => match never {},
    };
    let taken = observed.settled.get() - settled_before;
    let silence_at = Instant::now();
    let reference = observed.reference_rss.get();
    let mut run = live.end(before, published).await?;
    let highest = observed.highest_rss.get().max(live.service.memory().peak);

    let growth = highest as f64 / reference.max(1) as f64;
    let (offered, mebibyte) = (published.items() as f64, f64::from(1 << 20));
    run.notes.push(format!(
        "offered {:.0} items/s for {:.0} s, {:.1} times the {:.0} items/s that were settled \
         meanwhile; all was stored {:.1} s after the last",
        offered / lasts.as_secs_f64(),
        lasts.as_secs_f64(),
        offered / taken.max(1) as f64,
        taken as f64 / lasts.as_secs_f64(),
        silence_at.elapsed().as_secs_f64(),
    ));
    run.notes.push(format!(
        "RSS {:.1} MiB after {:.0} s, {:.1} MiB at its highest: {growth:.2} times",
        reference as f64 / mebibyte,
        REFERENCE.as_secs_f64(),
        highest as f64 / mebibyte,
    ));
    let mut row = run.row("overload");
    row.figures.insert("rss_growth", growth);
    live.stop().await?;
    Ok(vec![row])
}

/// Watches what is taken and what memory it takes, and governs the offer.
async fn observe(
    service: &Service,
    offer: &AtomicU64,
    observed: &Observed,
) -> std::convert::Infallible {
    let begun_at = Instant::now();
    let mut lately: Vec<(Instant, u64)> = Vec::new();
    loop {
        tokio::time::sleep(OBSERVATION_INTERVAL).await;
        let rss = service.memory().resident;
        if begun_at.elapsed() < REFERENCE || observed.reference_rss.get() == 0 {
            observed.reference_rss.set(rss);
        } else {
            observed.highest_rss.set(observed.highest_rss.get().max(rss));
        }
        // An answer that did not come is one observation less.
        let Ok(ledger) = service.ledger().await else { continue };
        let now = (Instant::now(), settled_items(&ledger));
        observed.settled.set(now.1);
        lately.push(now);
        if lately.len() > OBSERVATIONS {
            let then = lately.remove(0);
            let taken = (now.1 - then.1) as f64 / (now.0 - then.0).as_secs_f64();
            let wanted = EXCESS * taken / f64::from(ITEMS_PER_MESSAGE);
            offer.store((wanted as u64).max(LEAST_OFFER), Ordering::Relaxed);
        }
    }
}
