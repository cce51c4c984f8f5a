//! The outbox: publishes configurations that are not published yet, or that a sensor needs again, and clears
//! what is retained for deleted sensors. Woken by the API, the writer and the sensors' actors. The tables
//! are the truth: a lost wake-up only delays, and what fails is retried with backoff.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, SpawnHandle,
    WrapFuture as _,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::protocol::Deleted;
use crate::domain::{EventKind, SensorIdentifier, Step, Subscriptions, pause};
use crate::metrics::Metrics;
use crate::store::{PendingConfiguration, Store, StoreError};

/// Configurations per round.
const BATCH: i64 = 500;

/// Reads the tables without being woken: another instance, or an operator, may have changed them.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

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
    /// Sent when the broker has acknowledged; dropped if it will not.
    pub published: oneshot::Sender<()>,
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
}

/// The outbox.
#[derive(Debug)]
pub struct Outbox {
    store: Store,
    downlinks: mpsc::Sender<Downlink>,
    subscriptions: Arc<Subscriptions>,
    metrics: Arc<Metrics>,
    /// Sensors that need their configuration again.
    republish: BTreeSet<SensorIdentifier>,
    position: Position,
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
    /// `downlinks` leads to the publisher.
    #[must_use]
    pub fn new(
        store: Store,
        downlinks: mpsc::Sender<Downlink>,
        subscriptions: Arc<Subscriptions>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (republish, position) = (BTreeSet::new(), Position::default());
        Self {
            store,
            downlinks,
            subscriptions,
            metrics,
            republish,
            position,
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

    fn run_later(&mut self, context: &mut Context<Self>) {
        self.stop_waiting(context);
        let pause = pause(self.failures, rand::random());
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
        let (store, downlinks) = (self.store.clone(), self.downlinks.clone());
        let (subscriptions, metrics) = (Arc::clone(&self.subscriptions), Arc::clone(&self.metrics));
        let mut position = self.position;
        let round = async move {
            let outcome =
                round(&store, &downlinks, (&subscriptions, &metrics), &republish, &mut position)
                    .await;
            (republish, position, outcome)
        };
        context.spawn(round.into_actor(self).map(
            |(republish, position, outcome), outbox, context| {
                (outbox.running, outbox.position) = (false, position);
                match outcome {
                    Ok(published) => outbox.round_succeeded(published, context),
                    Err(failure) => outbox.round_failed(republish, &failure, context),
                }
            },
        ));
    }

    fn round_succeeded(&mut self, published: usize, context: &mut Context<Self>) {
        if published > 0 {
            self.metrics.configurations_published.inc_by(published as u64);
            debug!(published, "configurations published");
        }
        let more = self.position.unpublished.is_some() || self.position.uncleared.is_some();
        if !more && std::mem::take(&mut self.skipped) {
            self.run_later(context);
            return;
        }
        if !self.skipped {
            self.failures = 0;
        }
        if self.woken || published > 0 || more {
            self.run(context);
        }
    }

    fn round_failed(
        &mut self,
        republish: Vec<SensorIdentifier>,
        failure: &RoundFailure,
        context: &mut Context<Self>,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.metrics.outbox_failures.inc();
        self.skipped = true;
        if self.failures == 1 {
            warn!(%failure, "configurations could not be published; they will be retried");
        } else {
            debug!(%failure, failures = self.failures, "configurations still could not be published");
        }
        self.republish.extend(republish);
        self.database_unavailable = matches!(failure, RoundFailure::Store(_));
        self.run_later(context);
    }
}

async fn round(
    store: &Store,
    downlinks: &mpsc::Sender<Downlink>,
    (subscriptions, metrics): (&Subscriptions, &Metrics),
    republish: &[SensorIdentifier],
    position: &mut Position,
) -> Result<usize, RoundFailure> {
    let mut pending = store.unpublished_configurations(position.unpublished, BATCH).await?;
    position.unpublished = next(pending.iter().map(|it| it.sensor));
    metrics.outbox_waiting.set(pending.len() as i64);
    metrics.outbox_oldest.set(pending.iter().map(|it| it.created_at).min());
    if !republish.is_empty() {
        let unpublished: BTreeSet<_> = pending.iter().map(|it| it.sensor).collect();
        let newest = store.newest_configurations(republish).await?;
        pending.extend(newest.into_iter().filter(|it| !unpublished.contains(&it.sensor)));
    }
    let cleared = store.uncleared_sensors(position.uncleared, BATCH).await?;
    position.uncleared = next(cleared.iter().copied());
    let wanted = pending.len() + cleared.len();

    let mut answers = Vec::with_capacity(wanted);
    for PendingConfiguration { sensor, revision, value, created_at } in pending {
        let answer = send_downlink(downlinks, sensor, Some((revision, value))).await;
        answers.push((sensor, Some((revision, created_at)), answer));
    }
    for sensor in cleared {
        answers.push((sensor, None, send_downlink(downlinks, sensor, None).await));
    }

    let (mut published, mut cleared) = (Vec::new(), Vec::new());
    for (sensor, configuration, answer) in answers {
        if answer.await.is_ok() {
            match configuration {
                Some((revision, created_at)) => published.push((sensor, revision, created_at)),
                None => cleared.push(sensor),
            }
        }
    }
    store.record_publications(&published).await?;
    for (sensor, revision, _) in &published {
        let what = EventKind::Configuration { revision: *revision, step: Step::Published };
        subscriptions.publish(*sensor, what);
    }
    store.record_clearances(&cleared).await?;
    match published.len() + cleared.len() {
        acknowledged if acknowledged < wanted => {
            Err(RoundFailure::Broker(wanted - acknowledged, wanted))
        }
        acknowledged => Ok(acknowledged),
    }
}

/// After the last page, the first one again.
fn next(page: impl ExactSizeIterator<Item = SensorIdentifier>) -> Option<SensorIdentifier> {
    let full = page.len() >= BATCH as usize;
    page.last().filter(|_| full)
}

async fn send_downlink(
    downlinks: &mpsc::Sender<Downlink>,
    sensor: SensorIdentifier,
    configuration: Option<(i32, String)>,
) -> oneshot::Receiver<()> {
    let (published, answer) = oneshot::channel();
    // If the publisher has stopped, `published` is dropped, which is the answer.
    downlinks.send(Downlink { sensor, configuration, published }).await.ok();
    answer
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
        self.wake(context);
    }
}
