//! How long a message takes until its row can be seen: one more sensor publishes a measurement every 20 ms, and
//! a database connection asks about once a millisecond for those that are missing. Both ends are measured by one
//! clock, on a thread of their own. The backend that answers is left out of PostgreSQL's CPU time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::report::Percentiles;
use super::test_bed::{Run, TestBed, Thread, on_own_thread};
use crate::domain::{Kind, SensorIdentifier, Timestamp};
use crate::load::{
    Account, Message, Pace, Plan, Publisher, Rate, Sent, Source, Stop, Totals, latencies,
    measurement, record,
};
use crate::store::{Bench, Watch};
use crate::wire::Topics;

const PER_SECOND: f64 = 50.0;
/// Half a minute of them: more than are ever in flight.
const WINDOW: usize = 1_500;
const TICK: Duration = Duration::from_millis(1);
/// How long missing rows are waited for while none appears.
const TIMEOUT: Duration = Duration::from_secs(240);

/// None of the benchmark's other sensors.
pub(super) const PROBE_SENSOR: SensorIdentifier =
    SensorIdentifier(uuid::Uuid::from_u128(0x7072_6f62_6500_4000_8000_0000_0000_0001));

/// A running probe.
pub(super) struct Probe {
    /// The backend that it asks.
    pub(super) backend_pid: u32,
    stop: watch::Sender<Stop>,
    outcome: JoinHandle<anyhow::Result<(Thread, (Watch, Probed))>>,
}

/// The connection, and the thread that drives it.
type Held = (Watch, Thread);

/// What it found.
pub(super) struct Probed {
    pub(super) account: Account,
    pub(super) puback: Option<Percentiles>,
    pub(super) visible: Option<Percentiles>,
}

/// What was published and not seen, and when it was sent.
type Missing = Rc<RefCell<BTreeMap<Timestamp, Instant>>>;

struct Probes {
    topics: Topics,
    missing: Missing,
}

impl Source for Probes {
    fn next(&mut self, now: Timestamp) -> Message {
        let mut missing = self.missing.borrow_mut();
        let latest = missing.last_key_value().map_or(Timestamp::default(), |(latest, _)| *latest);
        let timestamp = now.max(latest.saturating_add(Duration::from_micros(1)));
        missing.insert(timestamp, Instant::now());
        let payload = measurement(timestamp, r#""temperature":10.00,"humidity":30"#).into();
        let topic = self.topics.of(Kind::Measurement, PROBE_SENSOR).into();
        Message { topic, payload, sent: Sent::good(Kind::Measurement, 1) }
    }
}

impl Probe {
    pub(super) async fn start(bed: &TestBed, run: &Run) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(Stop::No);
        let (ready, watching) = oneshot::channel();
        let (mqtt, store) = (bed.servers.mqtt.clone(), run.store.clone());
        let (topics, client_id) = (run.topics.clone(), format!("{}-probe", run.name));
        let outcome = actix_rt::spawn(on_own_thread(move || async move {
            let watch = Bench::connect(&store).await?.watch().await?;
            let (missing, latency) = (Missing::default(), Some(latencies()));
            let totals = Rc::new(RefCell::new(Totals { latency, ..Totals::default() }));
            let plan = Plan {
                mqtt,
                client_id,
                filters: Vec::new(),
                pace: Pace::new(Rate::PerSecond(PER_SECOND)),
                window: WINDOW,
                tick: TICK,
                reconnect: false,
                totals: Rc::clone(&totals),
            };
            let probes = Probes { topics, missing: Rc::clone(&missing) };
            let publishers = vec![Publisher::new(probes, plan)];
            let publishing = actix_rt::spawn(Publisher::run_all(publishers, None, stopped));
            ready.send(watch.backend_pid).ok().context("nobody waits for the probe")?;
            let visible = see(&watch, &missing, || publishing.is_finished()).await?;
            publishing.await??;
            let totals = totals.borrow();
            let puback = totals.latency.as_ref().and_then(Percentiles::of);
            let visible = Percentiles::of(&visible);
            Ok((watch, Probed { account: totals.account, puback, visible }))
        }));
        match watching.await {
            Ok(backend_pid) => Ok(Self { backend_pid, stop, outcome }),
            Err(_) => Err(outcome.await?.err().context("the probe ended before it began")?),
        }
    }

    /// Ends the publishing, and waits until everything that it published is visible. The connection is to be held
    /// until the meters are read: a backend that ends leaves its CPU time to its parent.
    pub(super) async fn stop(self) -> anyhow::Result<(Probed, Held)> {
        self.stop.send_replace(Stop::Publishing);
        let (thread, (watch, probed)) = self.outcome.await?.context("probing")?;
        Ok((probed, (watch, thread)))
    }
}

/// Looks for what is missing, until nothing is and nothing more will be published.
async fn see(
    watch: &Watch,
    missing: &Missing,
    is_published: impl Fn() -> bool,
) -> anyhow::Result<Histogram<u64>> {
    let (mut latency, mut progressed_at) = (latencies(), Instant::now());
    loop {
        let is_published = is_published();
        let range = {
            let missing = missing.borrow();
            let first = missing.first_key_value().map(|(first, _)| *first);
            first.zip(missing.last_key_value().map(|(last, _)| *last))
        };
        match range {
            None if is_published => return Ok(latency),
            None => progressed_at = Instant::now(),
            Some(range) => {
                let visible = watch.visible(PROBE_SENSOR, range).await?;
                let now = Instant::now();
                for timestamp in visible {
                    if let Some(sent_at) = missing.borrow_mut().remove(&timestamp) {
                        record(&mut latency, now - sent_at);
                        progressed_at = now;
                    }
                }
            }
        }
        let count = missing.borrow().len();
        ensure!(progressed_at.elapsed() < TIMEOUT, "{count} probes are not visible in the table");
        sleep(TICK).await;
    }
}
