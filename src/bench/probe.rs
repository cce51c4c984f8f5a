//! How long a message takes until it can be seen in the table: one sensor more publishes a
//! measurement every 20 ms, and a database connection asks for those that are missing, about once
//! a millisecond. Both ends are looked at by one clock, on a thread of their own. The backend that
//! answers is left out of PostgreSQL's CPU time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ground::{Ground, Stage};
use super::line::{Closed, Line, latencies, record};
use super::load::{Account, probe_message, probe_sensor};
use crate::domain::Timestamp;
use crate::mqtt::BrokerUrl;
use crate::store::{self, Bench, Watch};
use crate::wire::Topics;

const INTERVAL: Duration = Duration::from_millis(20);

/// Half a minute of them: more than that are not in flight.
const WINDOW: usize = 1_500;

/// After the last one, the missing ones are waited for so long.
const PATIENCE: Duration = Duration::from_secs(240);

/// A probe under way.
pub(super) struct Probe {
    /// The backend that it asks.
    pub(super) backend_pid: u32,
    stop: Arc<AtomicBool>,
    outcome: oneshot::Receiver<anyhow::Result<Probed>>,
    thread: Thread,
}

/// What it found.
pub(super) struct Probed {
    /// What it published itself.
    pub(super) account: Account,
    /// From PUBLISH to the broker's PUBACK, in microseconds.
    pub(super) puback: Histogram<u64>,
    /// From PUBLISH to visible in the table, in microseconds.
    pub(super) visible: Histogram<u64>,
    pub(super) held: Held,
}

/// The connection to the database, and the thread that it lives on.
pub(super) struct Held {
    _watch: Watch,
    thread: Option<Thread>,
}

/// The thread that the probe runs on.
struct Thread(actix_rt::Arbiter);

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Probe {
    /// Starts it.
    pub(super) async fn start(ground: &Ground, stage: &Stage) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, watching) = oneshot::channel();
        let (done, outcome) = oneshot::channel();
        let arbiter = actix_rt::Arbiter::new();
        let prober = Prober {
            broker: ground.servers.mqtt.broker.clone(),
            client_id: format!("{}-probe", stage.name),
            topics: stage.topics.clone(),
            store: stage.store.clone(),
            stop: Arc::clone(&stop),
        };
        arbiter.spawn_fn(move || {
            actix_rt::spawn(async move {
                // Nobody waits for it when the benchmark was interrupted.
                done.send(prober.run(ready).await).ok();
            });
        });
        match watching.await {
            Ok(backend_pid) => Ok(Self { backend_pid, stop, outcome, thread: Thread(arbiter) }),
            Err(_) => Err(outcome.await?.err().context("the probe ended before it began")?),
        }
    }

    /// Lets it publish no more, and waits until all that it published can be seen.
    pub(super) async fn stop(self) -> anyhow::Result<Probed> {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.outcome.await.context("the probe's thread ended")?;
        let mut probed = outcome.context("probing")?;
        probed.held.thread = Some(self.thread);
        Ok(probed)
    }
}

struct Prober {
    broker: BrokerUrl,
    client_id: String,
    topics: Topics,
    store: store::Config,
    stop: Arc<AtomicBool>,
}

impl Prober {
    async fn run(self, ready: oneshot::Sender<u32>) -> anyhow::Result<Probed> {
        let watch = Bench::connect(&self.store).await?.watch().await?;
        let mut line = Line::open(&self.broker, &self.client_id, WINDOW).await?;
        let mut missing = Missing { watch, since: BTreeMap::new(), visible: latencies() };
        ready.send(missing.watch.backend_pid).ok().context("nobody waits for the probe")?;
        let mut due_at = Instant::now();
        let mut progressed_at = due_at;
        loop {
            let now = Instant::now();
            let stopped = self.stop.load(Ordering::Relaxed);
            if !stopped && now >= due_at && !line.is_full() {
                let moment = Timestamp::now();
                line.send(probe_message(&self.topics, moment), now)?;
                missing.since.insert(moment, now);
                due_at += INTERVAL;
            }
            if missing.look().await? {
                progressed_at = Instant::now();
            }
            if stopped && missing.since.is_empty() && line.is_empty() {
                break;
            }
            ensure!(
                progressed_at.elapsed() < PATIENCE,
                "{} probes cannot be seen in the table",
                missing.since.len()
            );
            let only_for_a_tick = true;
            line.hear(only_for_a_tick).await?;
        }
        let Closed { account, puback } = line.close().await?;
        let Missing { watch, visible, .. } = missing;
        Ok(Probed { account, puback, visible, held: Held { _watch: watch, thread: None } })
    }
}

/// What was published and not seen.
struct Missing {
    watch: Watch,
    since: BTreeMap<Timestamp, Instant>,
    visible: Histogram<u64>,
}

impl Missing {
    /// Whether anything was seen, or nothing is missing.
    async fn look(&mut self) -> anyhow::Result<bool> {
        let (Some((first, _)), Some((last, _))) =
            (self.since.first_key_value(), self.since.last_key_value())
        else {
            return Ok(true);
        };
        let seen = self.watch.visible(probe_sensor(), (*first, *last)).await?;
        let now = Instant::now();
        let mut any = false;
        for moment in seen {
            if let Some(sent_at) = self.since.remove(&moment) {
                record(&mut self.visible, now - sent_at);
                any = true;
            }
        }
        Ok(any)
    }
}
