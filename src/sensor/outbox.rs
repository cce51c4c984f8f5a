//! The outbox: publishes the configurations that the table says are not published yet, and those
//! that a sensor needs again. The table is the truth; this actor only looks at it whenever there
//! may be something, and again after a pause when it fails.

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

/// Configurations read, published and recorded together.
const AT_ONCE: i64 = 500;

/// Another instance, or a hand in the database, may leave something without waking us.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);

/// To the outbox: there may be something to publish.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Wake;

/// To the outbox: publish the newest configuration of this sensor again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Republish(pub SensorIdentifier);

/// One thing to publish, retained at QoS 1, on the sensor's own topic.
#[derive(Debug)]
pub struct Downlink {
    /// For whom.
    pub sensor: SensorIdentifier,
    /// The revision and the configuration's JSON text; none clears what is retained.
    pub configuration: Option<(i32, String)>,
    /// Told when the broker has acknowledged. Dropped when that will not happen.
    pub published: oneshot::Sender<()>,
}

/// Where the next round begins: what a broker refuses for good must not keep the rest waiting.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    unpublished: Option<SensorIdentifier>,
    uncleared: Option<SensorIdentifier>,
}

/// Why a round did not get to its end.
#[derive(Debug, thiserror::Error)]
enum RoundFailure {
    #[error("the outbox cannot be read or written: {0}")]
    Store(#[from] StoreError),
    #[error("the broker did not acknowledge {0} of {1} configurations")]
    Broker(usize, usize),
}

/// Looks after what goes down.
#[derive(Debug)]
pub struct Outbox {
    store: Store,
    down: mpsc::Sender<Downlink>,
    subscriptions: Arc<Subscriptions>,
    metrics: Arc<Metrics>,
    again: BTreeSet<SensorIdentifier>,
    position: Position,
    /// Something before the position has failed.
    skipped: bool,
    running: bool,
    woken: bool,
    /// The database is away: until the next try there is nothing to read, whoever wakes us.
    away: bool,
    failures: u32,
    /// The one timer of the pause, however many wake us during it.
    retry: Option<SpawnHandle>,
}

impl Outbox {
    /// Reads this store, publishes by this channel, and tells those who watch.
    #[must_use]
    pub fn new(
        store: Store,
        down: mpsc::Sender<Downlink>,
        subscriptions: Arc<Subscriptions>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (again, position) = (BTreeSet::new(), Position::default());
        Self {
            store,
            down,
            subscriptions,
            metrics,
            again,
            position,
            skipped: false,
            running: false,
            woken: false,
            away: false,
            failures: 0,
            retry: None,
        }
    }

    fn wake(&mut self, context: &mut Context<Self>) {
        if !self.away {
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
        (self.running, self.woken, self.away) = (true, false, false);
        let again: Vec<SensorIdentifier> = std::mem::take(&mut self.again).into_iter().collect();
        let (store, down) = (self.store.clone(), self.down.clone());
        let (subscriptions, metrics) = (Arc::clone(&self.subscriptions), Arc::clone(&self.metrics));
        let mut position = self.position;
        let round = async move {
            let outcome =
                round(&store, &down, (&subscriptions, &metrics), &again, &mut position).await;
            (again, position, outcome)
        };
        context.spawn(round.into_actor(self).map(|(again, position, outcome), outbox, context| {
            (outbox.running, outbox.position) = (false, position);
            match outcome {
                Ok(published) => outbox.went_well(published, context),
                Err(failure) => outbox.failed(again, &failure, context),
            }
        }));
    }

    fn went_well(&mut self, published: usize, context: &mut Context<Self>) {
        if published > 0 {
            self.metrics.configurations_published.inc_by(published as u64);
            debug!(published, "configurations published");
        }
        let more = self.position.unpublished.is_some() || self.position.uncleared.is_some();
        if !more && std::mem::take(&mut self.skipped) {
            // What failed is before us, now that the rest is done.
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

    fn failed(
        &mut self,
        again: Vec<SensorIdentifier>,
        failure: &RoundFailure,
        context: &mut Context<Self>,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.metrics.outbox_failures.inc();
        self.skipped = true;
        if self.failures == 1 {
            warn!(%failure, "configurations could not be published; they are tried again");
        } else {
            debug!(%failure, failures = self.failures, "configurations could still not be published");
        }
        self.again.extend(again);
        self.away = matches!(failure, RoundFailure::Store(_));
        self.run_later(context);
    }
}

async fn round(
    store: &Store,
    down: &mpsc::Sender<Downlink>,
    (subscriptions, metrics): (&Subscriptions, &Metrics),
    again: &[SensorIdentifier],
    position: &mut Position,
) -> Result<usize, RoundFailure> {
    let mut pending = store.unpublished_configurations(position.unpublished, AT_ONCE).await?;
    position.unpublished = next(pending.iter().map(|it| it.sensor));
    metrics.outbox_waiting.set(pending.len() as i64);
    metrics.outbox_oldest.set(pending.iter().map(|it| it.created_at).min());
    if !again.is_empty() {
        let unpublished: BTreeSet<_> = pending.iter().map(|it| it.sensor).collect();
        let newest = store.newest_configurations(again).await?;
        pending.extend(newest.into_iter().filter(|it| !unpublished.contains(&it.sensor)));
    }
    let cleared = store.uncleared_sensors(position.uncleared, AT_ONCE).await?;
    position.uncleared = next(cleared.iter().copied());
    let wanted = pending.len() + cleared.len();

    let mut answers = Vec::with_capacity(wanted);
    for PendingConfiguration { sensor, revision, value, created_at } in pending {
        let answer = hand_down(down, sensor, Some((revision, value))).await;
        answers.push((sensor, Some((revision, created_at)), answer));
    }
    for sensor in cleared {
        answers.push((sensor, None, hand_down(down, sensor, None).await));
    }

    let (mut published, mut gone) = (Vec::new(), Vec::new());
    for (sensor, configuration, answer) in answers {
        if answer.await.is_ok() {
            match configuration {
                Some((revision, created_at)) => published.push((sensor, revision, created_at)),
                None => gone.push(sensor),
            }
        }
    }
    store.record_publications(&published).await?;
    for (sensor, revision, _) in &published {
        let what = EventKind::Configuration { revision: *revision, step: Step::Published };
        subscriptions.publish(*sensor, what);
    }
    store.record_clearances(&gone).await?;
    match published.len() + gone.len() {
        acknowledged if acknowledged < wanted => {
            Err(RoundFailure::Broker(wanted - acknowledged, wanted))
        }
        acknowledged => Ok(acknowledged),
    }
}

/// Behind a full page; from the start again behind the last one.
fn next(page: impl ExactSizeIterator<Item = SensorIdentifier>) -> Option<SensorIdentifier> {
    let full = page.len() >= AT_ONCE as usize;
    page.last().filter(|_| full)
}

async fn hand_down(
    down: &mpsc::Sender<Downlink>,
    sensor: SensorIdentifier,
    configuration: Option<(i32, String)>,
) -> oneshot::Receiver<()> {
    let (published, answer) = oneshot::channel();
    // When the publisher is gone the answer says so, as it does when the connection is.
    down.send(Downlink { sensor, configuration, published }).await.ok();
    answer
}

impl Actor for Outbox {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let store = self.store.clone();
        let migrated = async move { store.migrated().await };
        context.wait(migrated.into_actor(self).map(|(), outbox, context| outbox.run(context)));
        context.run_interval(LOOK_ANYWAY, |outbox, context| outbox.wake(context));
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

    /// What is retained for them is to be cleared.
    fn handle(&mut self, _: Deleted, context: &mut Context<Self>) {
        self.wake(context);
    }
}

impl Handler<Republish> for Outbox {
    type Result = ();

    fn handle(&mut self, Republish(sensor): Republish, context: &mut Context<Self>) {
        self.again.insert(sensor);
        self.wake(context);
    }
}
