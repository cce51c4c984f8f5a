//! The supervisor: looks up the sensors that speak for the first time, starts and retires their
//! actors, and passes on what concerns one of them. One per process, on the thread of the inbound
//! loop.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt as _, Addr, AsyncContext as _, Context, Handler, Message, MessageResult,
    Recipient, ResponseFuture, WrapFuture as _,
};
use tracing::{debug, info, warn};

use super::actor::Ways;
use super::funnel::Funnel;
use super::protocol::{Acknowledge, Look};
use super::registry::{Registry, Router};
use super::{
    Acknowledged, Census, Config, Configured, Deleted, Faults, Moved, Observe, Republish, Snapshot,
    TakeCensus, UnknownSensor, Wake,
};
use crate::domain::{SensorIdentifier, Timestamp, pause};
use crate::metrics::Metrics;
use crate::store::{KnownSensor, Store, StoreError};
use crate::writer::Write;

/// Sensors looked up in one query.
const LOOK_UP_AT_ONCE: usize = 5_000;

/// When sensors were last heard is noted so often, for so many of them: at most 500 rows a second,
/// beside the path of the rows. A fleet of 5,000 is at most this far behind in the table, one of
/// 100,000 at most 20 times as far; what the actors know is not behind.
const NOTE_LAST_SEEN_EVERY: Duration = Duration::from_secs(10);
const NOTED_AT_ONCE: usize = 5_000;

/// To the supervisor, from the router: sensors wait for their look-up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Resolve;

/// The ways out of the sensors' actors and of their supervisor.
#[derive(Debug)]
pub struct SupervisorWays {
    /// Up.
    pub writer: Recipient<Write>,
    /// Down, for one that lags.
    pub republish: Recipient<Republish>,
    /// Down, for what is new in the outbox.
    pub wake: Recipient<Wake>,
}

/// Watches over the sensors' actors.
#[derive(Debug)]
pub struct Supervisor {
    store: Store,
    config: Config,
    registry: Rc<RefCell<Registry>>,
    metrics: Arc<Metrics>,
    wake: Recipient<Wake>,
    republish: Recipient<Republish>,
    /// A look-up is under way, or waits until its pause is over: there is one at a time.
    resolving: bool,
    noting: bool,
    failures: u32,
}

impl Supervisor {
    /// Starts on this thread. `ways` makes the ways out, one of which leads back here by way of
    /// what was committed. The router is for the inbound loop.
    #[must_use]
    pub fn start_here(
        store: Store,
        config: Config,
        (metrics, faults): (Arc<Metrics>, Faults),
        ways: impl FnOnce(&Addr<Self>) -> SupervisorWays,
    ) -> Router {
        let context = Context::new();
        let supervisor = context.address();
        let ways = ways(&supervisor);
        let actor_ways = Ways {
            up: Funnel::new(ways.writer),
            outbox: ways.republish.clone(),
            republish_secs: config.republish_secs,
            faults,
        };
        let registry = Registry::new(Rc::new(actor_ways), Arc::clone(&metrics));
        let registry = Rc::new(RefCell::new(registry));
        context.run(Self {
            store,
            config,
            registry: Rc::clone(&registry),
            metrics,
            wake: ways.wake,
            republish: ways.republish,
            resolving: false,
            noting: false,
            failures: 0,
        });
        Router { registry, supervisor }
    }

    fn resolve(&mut self, context: &mut Context<Self>) {
        if self.resolving {
            return;
        }
        let sensors = self.registry.borrow_mut().take_unresolved(LOOK_UP_AT_ONCE);
        if sensors.is_empty() {
            return;
        }
        self.resolving = true;
        let (store, unknown) = (self.store.clone(), self.config.unknown);
        let looked_up = async move {
            let outcome = look_up(&store, &sensors, unknown).await;
            (sensors, outcome)
        };
        context.spawn(looked_up.into_actor(self).map(|(sensors, outcome), supervisor, context| {
            match outcome {
                Ok(known) => supervisor.resolved(&sensors, &known, context),
                Err(error) => supervisor.unresolved(sensors, &error, context),
            }
        }));
    }

    fn resolved(
        &mut self,
        sensors: &[SensorIdentifier],
        known: &[KnownSensor],
        context: &mut Context<Self>,
    ) {
        (self.resolving, self.failures) = (false, 0);
        let mut registry = self.registry.borrow_mut();
        for sensor in known {
            registry.start(sensor);
        }
        if known.len() < sensors.len() {
            // Those that have been started are not waiting any more.
            for sensor in sensors {
                registry.reject(*sensor);
            }
        }
        debug!(looked_up = sensors.len(), known = known.len(), "sensors looked up");
        drop(registry);
        self.resolve(context);
    }

    /// Beside everything else, and never twice at once: a slow database is not pressed.
    fn note_last_seen(&mut self, context: &mut Context<Self>) {
        if self.noting {
            return;
        }
        let heard = self.registry.borrow().heard(NOTED_AT_ONCE);
        if heard.is_empty() {
            return;
        }
        self.noting = true;
        let (store, moves) = (self.store.clone(), self.registry.borrow().moves());
        let noted = async move { (store.note_last_seen(&heard).await, heard) };
        context.spawn(noted.into_actor(self).map(move |(noted, heard), supervisor, _| {
            supervisor.noting = false;
            let mut registry = supervisor.registry.borrow_mut();
            match noted {
                // Of one that went meanwhile nobody knows whether it was read before: once more.
                Ok(_) if registry.moves() != moves => {}
                Ok(networks) => registry.noted(&heard, &networks),
                Err(error) => debug!(%error, "when sensors were last heard is noted later"),
            }
        }));
    }

    fn unresolved(
        &mut self,
        sensors: Vec<SensorIdentifier>,
        error: &StoreError,
        context: &mut Context<Self>,
    ) {
        self.failures = self.failures.saturating_add(1);
        let pause = pause(self.failures, rand::random());
        warn!(%error, waiting = sensors.len(), "sensors could not be looked up; their messages wait");
        self.registry.borrow_mut().put_back(sensors);
        context.run_later(pause, |supervisor, context| {
            supervisor.resolving = false;
            supervisor.resolve(context);
        });
    }
}

async fn look_up(
    store: &Store,
    sensors: &[SensorIdentifier],
    unknown: UnknownSensor,
) -> Result<Vec<KnownSensor>, StoreError> {
    let known = store.known_sensors(sensors).await?;
    if known.len() == sensors.len() || unknown == UnknownSensor::Reject {
        return Ok(known);
    }
    let registered = store.register_sensors(sensors).await?;
    info!(registered, "sensors registered on first contact");
    store.known_sensors(sensors).await
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let idle = Duration::from_secs(self.config.idle_secs);
        let sweep = (idle / 4).clamp(Duration::from_millis(250), Duration::from_secs(60));
        context.run_interval(sweep, move |supervisor, _| {
            let since = Timestamp::from_unix_microseconds(
                Timestamp::now().unix_microseconds()
                    - i64::try_from(idle.as_micros()).unwrap_or(i64::MAX),
            );
            supervisor.registry.borrow_mut().retire_silent(since);
        });
        context.run_interval(NOTE_LAST_SEEN_EVERY, Self::note_last_seen);
    }
}

impl Handler<Resolve> for Supervisor {
    type Result = ();

    fn handle(&mut self, Resolve: Resolve, context: &mut Context<Self>) {
        self.resolve(context);
    }
}

impl Handler<Observe> for Supervisor {
    type Result = ResponseFuture<Option<Snapshot>>;

    fn handle(&mut self, Observe(sensor): Observe, _: &mut Context<Self>) -> Self::Result {
        let registry = self.registry.borrow();
        let (address, network) = (registry.address(sensor), registry.network(sensor));
        Box::pin(async move { Some(Snapshot { network, ..address?.send(Look).await.ok()? }) })
    }
}

impl Handler<TakeCensus> for Supervisor {
    type Result = MessageResult<TakeCensus>;

    fn handle(&mut self, TakeCensus: TakeCensus, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Census {
            alive: u64::try_from(self.metrics.actors_alive.get()).unwrap_or(0),
            started: self.metrics.actors_started.get(),
            restarted: self.metrics.actors_restarted.get(),
            retired: self.metrics.actors_retired.get(),
        })
    }
}

impl Handler<Configured> for Supervisor {
    type Result = ();

    #[expect(clippy::disallowed_methods, reason = "one per HTTP request, and each was awaited")]
    fn handle(&mut self, message: Configured, _: &mut Context<Self>) {
        self.registry.borrow_mut().desire(message.sensor, message.revision);
        self.wake.do_send(Wake);
    }
}

impl Handler<Acknowledged> for Supervisor {
    type Result = ();

    #[expect(clippy::disallowed_methods, reason = "once per revision and sensor, ever")]
    fn handle(&mut self, Acknowledged(all): Acknowledged, _: &mut Context<Self>) {
        let registry = self.registry.borrow();
        for it in all {
            if let Some(address) = registry.address(it.sensor) {
                address.do_send(Acknowledge { revision: it.revision, success: it.success });
            }
        }
    }
}

impl Handler<Deleted> for Supervisor {
    type Result = ();

    #[expect(clippy::disallowed_methods, reason = "one per deletion, and each was awaited")]
    fn handle(&mut self, Deleted(sensors): Deleted, _: &mut Context<Self>) {
        for sensor in sensors {
            self.registry.borrow_mut().deleted(sensor);
        }
        self.wake.do_send(Wake);
    }
}

impl Handler<Republish> for Supervisor {
    type Result = ();

    #[expect(clippy::disallowed_methods, reason = "one per HTTP request, and each was awaited")]
    fn handle(&mut self, message: Republish, _: &mut Context<Self>) {
        self.republish.do_send(message);
    }
}

impl Handler<Moved> for Supervisor {
    type Result = ();

    fn handle(&mut self, Moved(sensor): Moved, _: &mut Context<Self>) {
        self.registry.borrow_mut().moved(sensor);
    }
}

/// To the supervisor: how often in a row could sensors not be looked up?
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "u32")]
pub(super) struct Failures;

#[cfg(test)]
impl Handler<Failures> for Supervisor {
    type Result = u32;

    fn handle(&mut self, Failures: Failures, _: &mut Context<Self>) -> u32 {
        self.failures
    }
}
