//! How long a message takes until its row can be seen: one more sensor publishes a measurement every 20 ms, and
//! a database connection asks about once a millisecond for those that are missing. Both ends are measured by one
//! clock, on a thread of their own. The backend that answers is left out of PostgreSQL's CPU time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::report::Percentiles;
use super::test_bed::{Run, TestBed, Thread, on_own_thread};
use crate::domain::SensorIdentifier;
use crate::load::{
    Account, Content, Fleet, Invention, Rate, Stop, Totals, Unseen, latencies, record,
};
use crate::store::{Bench, Watch};

const PER_SECOND: f64 = 50.0;
const POLL_INTERVAL: Duration = Duration::from_millis(1);
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
type ProbeConnection = (Watch, Thread);

/// What it found.
pub(super) struct Probed {
    pub(super) account: Account,
    pub(super) puback: Option<Percentiles>,
    pub(super) visible: Option<Percentiles>,
}

impl Probe {
    pub(super) async fn start(bed: &TestBed, run: &Run) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(Stop::No);
        let (ready, watching) = oneshot::channel();
        let (mqtt, store) = (bed.servers.mqtt.clone(), run.store.clone());
        let (topics, client_id) = (run.topics.clone(), format!("{}-probe", run.name));
        let outcome = actix_rt::spawn(on_own_thread(move || async move {
            let watch = Bench::connect(&store).await?.watch().await?;
            let (unseen, latency) = (Unseen::default(), Some(latencies()));
            let totals = Rc::new(RefCell::new(Totals { latency, ..Totals::default() }));
            let content = Content::Invented(Invention::of_measurements(1));
            let fleet = Fleet {
                rate: Rate::PerSecond(PER_SECOND),
                unseen: Some(Arc::clone(&unseen)),
                ..Fleet::new(vec![PROBE_SENSOR], topics, content)
            };
            let publishing = {
                let totals = Rc::clone(&totals);
                let publish =
                    async move { fleet.publish(&mqtt, &client_id, &totals, stopped).await };
                actix_rt::spawn(publish)
            };
            ready.send(watch.backend_pid).ok().context("nobody waits for the probe")?;
            let visible = see(&watch, &unseen, || publishing.is_finished()).await?;
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
    pub(super) async fn stop(self) -> anyhow::Result<(Probed, ProbeConnection)> {
        self.stop.send_replace(Stop::Publishing);
        let (thread, (watch, probed)) = self.outcome.await?.context("probing")?;
        Ok((probed, (watch, thread)))
    }
}

/// Looks for what is not seen yet, until there is nothing and nothing more will be published.
async fn see(
    watch: &Watch,
    unseen: &Unseen,
    is_published: impl Fn() -> bool,
) -> anyhow::Result<Histogram<u64>> {
    let unseen = || unseen.lock().expect("nothing panics under it");
    let (mut latency, mut progressed_at) = (latencies(), Instant::now());
    loop {
        let is_published = is_published();
        let range = {
            let unseen = unseen();
            let first = unseen.first_key_value().map(|(first, _)| *first);
            first.zip(unseen.last_key_value().map(|(last, _)| *last))
        };
        match range {
            None if is_published => return Ok(latency),
            None => progressed_at = Instant::now(),
            Some(range) => {
                let visible = watch.visible(PROBE_SENSOR, range).await?;
                let now = Instant::now();
                for timestamp in visible {
                    if let Some(sent_at) = unseen().remove(&timestamp) {
                        record(&mut latency, now - sent_at);
                        progressed_at = now;
                    }
                }
            }
        }
        let count = unseen().len();
        ensure!(progressed_at.elapsed() < TIMEOUT, "{count} probes are not visible in the table");
        sleep(POLL_INTERVAL).await;
    }
}
