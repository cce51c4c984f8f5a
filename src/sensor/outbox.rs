//! The outbox: publishes configurations that are not published yet, or that a sensor needs again, and clears
//! what is retained for deleted sensors. Woken by the API, the writer and the sensors' actors. The tables
//! are the truth: a lost wake-up only delays, and what fails is retried with backoff, each sensor by itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, SpawnHandle,
    WrapFuture as _,
};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::protocol::Deleted;
use super::refusals::{Refusal, Refusals};
use crate::domain::{EventKind, SensorIdentifier, Step, Subscriptions, Task, Timestamp, pause};
use crate::metrics::Metrics;
use crate::store::{PendingConfiguration, RefusedConfiguration, Store, StoreError};
use crate::tasks::{Panic, Tasks};

/// Configurations per round.
const BATCH: i64 = 500;

/// Reads the tables without being woken: another instance, or an operator, may have changed them.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// How long the publisher may take nothing, or answer nothing. It gives one PUBLISH 5 s.
const PUBLISHER_DEADLINE: Duration = Duration::from_secs(15);

/// To the outbox: there may be something to publish.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Wake;

/// To the outbox: publish the newest configuration of this sensor again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Republish(pub SensorIdentifier);

/// A retained QoS 1 PUBLISH on the topic of a sensor's configuration.
#[derive(Debug)]
pub struct Downlink {
    /// Whose configuration it is.
    pub sensor: SensorIdentifier,
    /// Revision and JSON text; none clears what is retained.
    pub configuration: Option<(i32, String)>,
    /// Sent when the broker has acknowledged, or why not; dropped if it could not be sent.
    pub published: oneshot::Sender<Result<(), Refusal>>,
}

/// Leads to the publisher.
#[derive(Clone, Debug)]
pub struct PublisherHandle {
    /// What it is to publish.
    pub downlinks: mpsc::Sender<Downlink>,
    /// Whether it has a connection.
    pub connected: watch::Receiver<bool>,
}

/// Where the next round begins: a configuration that the broker refuses must not delay the others.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    unpublished: Option<SensorIdentifier>,
    uncleared: Option<SensorIdentifier>,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum RoundFailure {
    #[error("database: {0}")]
    Store(#[from] StoreError),
    #[error("the broker did not acknowledge {0} of {1} configurations")]
    Broker(usize, usize),
    #[error(transparent)]
    Panic(Panic),
}

/// The outbox.
#[derive(Debug)]
pub struct Outbox {
    store: Store,
    tasks: Tasks,
    publisher: PublisherHandle,
    subscriptions: Arc<Subscriptions>,
    metrics: Arc<Metrics>,
    /// Sensors that need their configuration again.
    republish: BTreeSet<SensorIdentifier>,
    position: Position,
    refusals: Refusals,
    /// Something before the position has failed, and is retried after the last page.
    skipped: bool,
    running: bool,
    woken: bool,
    /// The database is unavailable: wake-ups are ignored until the retry.
    database_unavailable: bool,
    failures: u32,
    /// The only timer, however many wake-ups arrive.
    retry: Option<SpawnHandle>,
}

impl Outbox {
    /// An outbox that has not started.
    #[must_use]
    pub fn new(
        (store, tasks): (Store, Tasks),
        publisher: PublisherHandle,
        subscriptions: Arc<Subscriptions>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (republish, position) = (BTreeSet::new(), Position::default());
        Self {
            store,
            tasks,
            publisher,
            subscriptions,
            metrics,
            republish,
            position,
            refusals: Refusals::default(),
            skipped: false,
            running: false,
            woken: false,
            database_unavailable: false,
            failures: 0,
            retry: None,
        }
    }

    fn wake(&mut self, context: &mut Context<Self>) {
        if !self.database_unavailable {
            self.run(context);
        }
    }

    fn run_later(&mut self, context: &mut Context<Self>, pause: Duration) {
        self.stop_waiting(context);
        self.retry = Some(context.run_later(pause, Self::run));
    }

    fn stop_waiting(&mut self, context: &mut Context<Self>) {
        if let Some(retry) = self.retry.take() {
            context.cancel_future(retry);
        }
    }

    fn run(&mut self, context: &mut Context<Self>) {
        self.woken = true;
        if self.running {
            return;
        }
        self.stop_waiting(context);
        (self.running, self.woken, self.database_unavailable) = (true, false, false);
        let republish: Vec<_> = std::mem::take(&mut self.republish).into_iter().collect();
        let round = Round {
            store: self.store.clone(),
            publisher: self.publisher.clone(),
            subscriptions: Arc::clone(&self.subscriptions),
            metrics: Arc::clone(&self.metrics),
            republish,
            position: self.position,
            refusals: std::mem::take(&mut self.refusals),
        };
        let tasks = self.tasks.clone();
        let round = async move {
            let mut round = round;
            let work = async {
                tasks.faults().at(Task::OutboxRound);
                round.run().await
            };
            let outcome = tasks.watch(Task::OutboxRound, work).await;
            let outcome = outcome.unwrap_or_else(|panic| Err(RoundFailure::Panic(panic)));
            (round, outcome)
        };
        context.spawn(round.into_actor(self).map(|(round, outcome), outbox, context| {
            (outbox.running, outbox.position) = (false, round.position);
            // Those asked for while it ran.
            let forced = std::mem::replace(&mut outbox.refusals, round.refusals);
            outbox.refusals.force_all(&forced);
            outbox.republish.extend(round.republish);
            match outcome {
                Ok(published) => outbox.round_succeeded(published, context),
                Err(failure) => outbox.round_failed(&failure, context),
            }
        }));
    }

    fn round_succeeded(&mut self, published: usize, context: &mut Context<Self>) {
        if published > 0 {
            self.metrics.configurations_published.inc_by(published as u64);
            debug!(published, "configurations published");
        }
        let more = self.position.unpublished.is_some() || self.position.uncleared.is_some();
        if !more && std::mem::take(&mut self.skipped) {
            self.run_later(context, pause(self.failures, rand::random()));
            return;
        }
        if !self.skipped {
            self.failures = 0;
        }
        if self.woken || published > 0 || more {
            self.run(context);
        } else if let Some(wait) = self.refusals.next_attempt(Instant::now()) {
            self.run_later(context, wait);
        }
    }

    fn round_failed(&mut self, failure: &RoundFailure, context: &mut Context<Self>) {
        self.failures = self.failures.saturating_add(1);
        self.metrics.outbox_failures.inc();
        self.skipped = true;
        if self.failures == 1 {
            warn!(%failure, "configurations could not be published; they will be retried");
        } else {
            debug!(%failure, failures = self.failures, "configurations still could not be published");
        }
        self.database_unavailable = !matches!(failure, RoundFailure::Broker(..));
        self.run_later(context, pause(self.failures, rand::random()));
    }
}

/// One round, and what it works on.
struct Round {
    store: Store,
    publisher: PublisherHandle,
    subscriptions: Arc<Subscriptions>,
    metrics: Arc<Metrics>,
    /// Those that need their configuration again, and afterwards those that still do.
    republish: Vec<SensorIdentifier>,
    position: Position,
    refusals: Refusals,
}

/// What was sent: a sensor's configuration, or its clearance.
type Sent = (SensorIdentifier, Option<(i32, Timestamp)>);

impl Round {
    async fn run(&mut self) -> Result<usize, RoundFailure> {
        let mut pending =
            self.store.unpublished_configurations(self.position.unpublished, BATCH).await?;
        self.position.unpublished = next(pending.iter().map(|it| it.sensor));
        self.metrics.outbox_waiting.set(pending.len() as i64);
        self.metrics.outbox_oldest.set(pending.iter().map(|it| it.created_at).min());
        if !self.republish.is_empty() {
            let unpublished: BTreeSet<_> = pending.iter().map(|it| it.sensor).collect();
            let newest = self.store.newest_configurations(&self.republish).await?;
            pending.extend(newest.into_iter().filter(|it| !unpublished.contains(&it.sensor)));
        }
        let cleared = self.store.uncleared_sensors(self.position.uncleared, BATCH).await?;
        self.position.uncleared = next(cleared.iter().copied());

        let now = Instant::now();
        pending.retain(|it| self.refusals.is_due(it.sensor, Some(it.revision), now));
        let cleared: Vec<_> =
            cleared.into_iter().filter(|it| self.refusals.is_due(*it, None, now)).collect();
        let wanted = pending.len() + cleared.len();
        if wanted > 0 {
            // Before anything is recorded as sent.
            let is_connected = self.publisher.connected.wait_for(|is_connected| *is_connected);
            if !matches!(tokio::time::timeout(PUBLISHER_DEADLINE, is_connected).await, Ok(Ok(_))) {
                return Err(RoundFailure::Broker(wanted, wanted));
            }
        }
        self.store.record_sending(&pending).await?;
        let configurations = pending.into_iter().map(|it| {
            let PendingConfiguration { sensor, revision, value, created_at } = it;
            ((sensor, Some((revision, created_at))), Some((revision, value)))
        });
        let clearances = cleared.into_iter().map(|sensor| ((sensor, None), None));
        let answers = self.send(configurations.chain(clearances)).await;
        let (published, answered) = self.record(answers).await?;
        if answered < wanted {
            return Err(RoundFailure::Broker(wanted - answered, wanted));
        }
        self.republish.retain(|sensor| self.refusals.contains(*sensor));
        Ok(published)
    }

    /// The answers of those that the broker or the publisher answered in time.
    async fn send(
        &self,
        downlinks: impl Iterator<Item = (Sent, Option<(i32, String)>)>,
    ) -> Vec<(Sent, Result<(), Refusal>)> {
        let mut waiting = Vec::new();
        for (sent, configuration) in downlinks {
            let (published, answer) = oneshot::channel();
            let downlink = Downlink { sensor: sent.0, configuration, published };
            // If the publisher has stopped, `published` is dropped, which is the answer.
            if self.publisher.downlinks.send_timeout(downlink, PUBLISHER_DEADLINE).await.is_err() {
                break;
            }
            waiting.push((sent, answer));
        }
        let mut answers = Vec::with_capacity(waiting.len());
        let mut deadline = PUBLISHER_DEADLINE;
        for (sent, answer) in waiting {
            match tokio::time::timeout(deadline, answer).await {
                Ok(Ok(answer)) => answers.push((sent, answer)),
                Ok(Err(_not_sent)) => {}
                Err(_elapsed) => deadline = Duration::ZERO,
            }
        }
        answers
    }

    /// How many were published or cleared, and how many were answered at all.
    async fn record(
        &mut self,
        answers: Vec<(Sent, Result<(), Refusal>)>,
    ) -> Result<(usize, usize), StoreError> {
        let (mut published, mut cleared, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let answered = answers.len();
        for ((sensor, configuration), answer) in answers {
            match (answer, configuration) {
                (Ok(()), Some((revision, at))) => published.push((sensor, revision, at)),
                (Ok(()), None) => cleared.push(sensor),
                (Err(refusal), configuration) => {
                    self.refuse(sensor, configuration.map(|it| it.0), &refusal);
                    if let Some((revision, created_at)) = configuration {
                        let is_final = refusal.is_final();
                        let problem = refusal.problem;
                        refused.push(RefusedConfiguration {
                            sensor,
                            revision,
                            created_at,
                            problem,
                            is_final,
                        });
                    }
                }
            }
        }
        for sensor in published.iter().map(|it| &it.0).chain(&cleared) {
            self.refusals.remove(*sensor);
        }
        self.store.record_refusals(&refused).await?;
        self.store.record_publications(&published).await?;
        for (sensor, revision, _) in &published {
            let what = EventKind::Configuration { revision: *revision, step: Step::Published };
            self.subscriptions.publish(*sensor, what);
        }
        self.store.record_clearances(&cleared).await?;
        Ok((published.len() + cleared.len(), answered))
    }

    fn refuse(&mut self, sensor: SensorIdentifier, revision: Option<i32>, refusal: &Refusal) {
        let Refusal { cause, problem } = refusal;
        self.metrics.configurations_refused.with_label_values(&[cause]).inc();
        let pause = self.refusals.add(sensor, revision, Instant::now());
        let pause_secs = pause.as_secs();
        warn!(%sensor, revision, cause, pause_secs, "a configuration was not published: {problem}");
    }
}

/// After the last page, the first one again.
fn next(page: impl ExactSizeIterator<Item = SensorIdentifier>) -> Option<SensorIdentifier> {
    let full = page.len() >= BATCH as usize;
    page.last().filter(|_| full)
}

impl Actor for Outbox {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let store = self.store.clone();
        let migrated = async move { store.migrated().await };
        context.wait(migrated.into_actor(self).map(|(), outbox, context| outbox.run(context)));
        context.run_interval(POLL_INTERVAL, |outbox, context| outbox.wake(context));
    }
}

impl Handler<Wake> for Outbox {
    type Result = ();

    fn handle(&mut self, Wake: Wake, context: &mut Context<Self>) {
        self.tasks.faults().at(Task::Outbox);
        self.wake(context);
    }
}

impl Handler<Deleted> for Outbox {
    type Result = ();

    /// Their retained configurations are to be cleared.
    fn handle(&mut self, _: Deleted, context: &mut Context<Self>) {
        self.wake(context);
    }
}

impl Handler<Republish> for Outbox {
    type Result = ();

    fn handle(&mut self, Republish(sensor): Republish, context: &mut Context<Self>) {
        self.republish.insert(sensor);
        self.refusals.force(sensor);
        self.wake(context);
    }
}
