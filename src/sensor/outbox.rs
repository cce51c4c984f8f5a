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
use tracing::{debug, warn};

use super::outbox_round::{Position, PublisherHandle, Round, RoundFailure};
use super::protocol::Deleted;
use super::refusals::Refusals;
use crate::domain::{Leadership, SensorIdentifier, Subscriptions, Task, pause};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::tasks::Tasks;

/// Reads the tables without being woken: another instance, or an operator, may have changed them.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// To the outbox: there may be something to publish.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Wake;

/// To the outbox: publish the newest configuration of this sensor again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Republish(pub SensorIdentifier);

/// The outbox.
#[derive(Debug)]
pub struct Outbox {
    store: Store,
    tasks: Tasks,
    leadership: Leadership,
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
    pub fn new(
        (store, tasks, leadership): (Store, Tasks, Leadership),
        publisher: PublisherHandle,
        subscriptions: Arc<Subscriptions>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (republish, position) = (BTreeSet::new(), Position::default());
        Self {
            store,
            tasks,
            leadership,
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
        let is_leader = self.leadership.is_leader();
        if !is_leader && self.republish.is_empty() {
            // No retry is left, so the next message must not wait for one.
            self.database_unavailable = false;
            return;
        }
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
            is_leader,
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

impl Actor for Outbox {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let store = self.store.clone();
        let migrated = async move { store.migrated().await };
        context.wait(migrated.into_actor(self).map(|(), outbox, context| outbox.run(context)));
        context.run_interval(POLL_INTERVAL, |outbox, context| outbox.wake(context));
        let (mut leadership, address) = (self.leadership.clone(), context.address());
        actix_rt::spawn(async move {
            while address.connected() {
                leadership.changed().await;
                // A new leader looks at once.
                address.send(Wake).await.ok();
            }
        });
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
