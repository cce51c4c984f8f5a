//! The supervisor of the sensors' actors: looks sensors up, starts and retires actors, stores
//! `last_seen`, and forwards messages to single actors. One per process, on the inbound loop's thread.
//! While the database is unavailable it retries with backoff, and messages wait in the registry.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture,
    WrapFuture as _,
};
use tracing::{debug, info, warn};

use super::protocol::{
    Acknowledged, Deleted, Duplicates, GetSnapshot, Refresh, SensorMessage, SetDesiredRevision,
    Snapshot,
};
use super::registry::Registry;
use super::{Config, UnknownSensor};
use crate::domain::{SensorIdentifier, Task, Timestamp, pause};
use crate::store::{KnownSensor, Store, StoreError};
use crate::tasks::{Panic, Tasks};

/// Sensors looked up in one query.
const LOOK_UP_BATCH: usize = 5_000;

/// Minimum time between look-ups, unless [`EAGER_LOOK_UP`] sensors wait: a fleet that starts to publish
/// all at once is looked up in some dozen queries instead of a thousand.
const LOOK_UP_INTERVAL: Duration = Duration::from_millis(10);
const EAGER_LOOK_UP: usize = 1_000;

/// `last_seen` of at most 5,000 sensors is stored every 10 s, that is 500 rows a second. The table is
/// behind by at most 10 s for a fleet of 5,000, by 200 s for one of 100,000.
const LAST_SEEN_INTERVAL: Duration = Duration::from_secs(10);
const LAST_SEEN_BATCH: usize = 5_000;

/// From the router: the registry holds sensors to be looked up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct LookUpSensors;

/// To the supervisor: store `last_seen` of all sensors, because the process ends.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StoreLastSeen;

/// Why the tables could not be read or written.
#[derive(Debug, thiserror::Error)]
enum LookUpFailure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Panic(Panic),
}

/// Supervises the sensors' actors.
#[derive(Debug)]
pub struct Supervisor {
    store: Store,
    tasks: Tasks,
    config: Config,
    registry: Rc<RefCell<Registry>>,
    /// A look-up runs, or the pause after it: there is one at a time.
    looking_up: bool,
    storing_last_seen: bool,
    /// Look-ups that failed in a row.
    failures: u32,
}

impl Supervisor {
    pub(super) fn new(
        (store, tasks): (Store, Tasks),
        config: Config,
        registry: Rc<RefCell<Registry>>,
    ) -> Self {
        let (looking_up, storing_last_seen, failures) = (false, false, 0);
        Self { store, tasks, config, registry, looking_up, storing_last_seen, failures }
    }

    fn look_up(&mut self, context: &mut Context<Self>) {
        if self.looking_up {
            return;
        }
        let sensors = self.registry.borrow_mut().take_unresolved(LOOK_UP_BATCH);
        if sensors.is_empty() {
            return;
        }
        self.looking_up = true;
        let (store, tasks) = (self.store.clone(), self.tasks.clone());
        let new = match self.config.unknown {
            UnknownSensor::Reject => Vec::new(),
            UnknownSensor::Register => {
                let registry = self.registry.borrow();
                sensors.iter().copied().filter(|sensor| registry.is_present(*sensor)).collect()
            }
        };
        let look_up = async move {
            let work = async {
                tasks.faults().at(Task::LookUp);
                Ok(look_up(&store, &sensors, &new).await?)
            };
            let outcome = tasks.watch(Task::LookUp, work).await;
            let outcome = outcome.unwrap_or_else(|panic| Err(LookUpFailure::Panic(panic)));
            (sensors, new, outcome)
        };
        context.spawn(look_up.into_actor(self).map(
            |(sensors, new, outcome), supervisor, context| {
                let pause = match outcome {
                    Ok(known) => supervisor.looked_up(&sensors, &new, &known),
                    Err(error) => supervisor.look_up_failed(sensors, &error),
                };
                context.run_later(pause, |supervisor, context| {
                    supervisor.looking_up = false;
                    supervisor.look_up(context);
                });
            },
        ));
    }

    /// `new` were to be registered. Returns the pause until the next look-up.
    fn looked_up(
        &mut self,
        sensors: &[SensorIdentifier],
        new: &[SensorIdentifier],
        known: &[KnownSensor],
    ) -> Duration {
        self.failures = 0;
        let mut registry = self.registry.borrow_mut();
        for sensor in known {
            registry.start(sensor);
        }
        if known.len() < sensors.len() {
            let new: HashSet<_> = new.iter().collect();
            let registers = self.config.unknown == UnknownSensor::Register;
            for sensor in sensors {
                // Its first message that is not retained came during the look-up.
                if registers && !new.contains(sensor) && registry.is_present(*sensor) {
                    registry.put_back(vec![*sensor]);
                } else {
                    // Does nothing for those that have been started.
                    registry.reject(*sensor);
                }
            }
        }
        debug!(looked_up = sensors.len(), known = known.len(), "sensors looked up");
        if registry.unresolved_count() < EAGER_LOOK_UP { LOOK_UP_INTERVAL } else { Duration::ZERO }
    }

    fn look_up_failed(
        &mut self,
        sensors: Vec<SensorIdentifier>,
        error: &LookUpFailure,
    ) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = pause(self.failures, rand::random());
        let (waiting, pause_ms) = (sensors.len(), pause.as_millis());
        warn!(%error, waiting, pause_ms, "sensor look-up failed; it will be retried, messages wait");
        self.registry.borrow_mut().put_back(sensors);
        pause
    }

    fn store_last_seen(&mut self, context: &mut Context<Self>) {
        if self.storing_last_seen {
            return;
        }
        let last_seen = self.registry.borrow().unstored_last_seen(LAST_SEEN_BATCH);
        if last_seen.is_empty() {
            return;
        }
        self.storing_last_seen = true;
        let (store, tasks) = (self.store.clone(), self.tasks.clone());
        let stored = async move {
            let work = async {
                tasks.faults().at(Task::LastSeen);
                Ok(store.update_last_seen(&last_seen).await?)
            };
            let outcome = tasks.watch(Task::LastSeen, work).await;
            (outcome.unwrap_or_else(|panic| Err(LookUpFailure::Panic(panic))), last_seen)
        };
        context.spawn(stored.into_actor(self).map(|(outcome, last_seen), supervisor, _| {
            supervisor.storing_last_seen = false;
            match outcome {
                Ok(()) => supervisor.registry.borrow_mut().last_seen_stored(&last_seen),
                Err(error) => debug!(%error, "last_seen update failed; it will be retried"),
            }
        }));
    }
}

async fn look_up(
    store: &Store,
    sensors: &[SensorIdentifier],
    new: &[SensorIdentifier],
) -> Result<Vec<KnownSensor>, StoreError> {
    let known = store.known_sensors(sensors).await?;
    if known.len() == sensors.len() || new.is_empty() {
        return Ok(known);
    }
    let registered = store.register_sensors(new).await?;
    info!(registered, "sensors registered");
    store.known_sensors(sensors).await
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let idle = Duration::from_secs(self.config.idle_secs);
        let interval = (idle / 4).clamp(Duration::from_millis(250), Duration::from_secs(60));
        context.run_interval(interval, move |supervisor, _| {
            let since = Timestamp::now().saturating_sub(idle);
            supervisor.registry.borrow_mut().retire_silent(since);
        });
        context.run_interval(LAST_SEEN_INTERVAL, Self::store_last_seen);
    }
}

impl Handler<LookUpSensors> for Supervisor {
    type Result = ();

    fn handle(&mut self, LookUpSensors: LookUpSensors, context: &mut Context<Self>) {
        self.tasks.faults().at(Task::Supervisor);
        self.look_up(context);
    }
}

impl Handler<StoreLastSeen> for Supervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, StoreLastSeen: StoreLastSeen, _: &mut Context<Self>) -> Self::Result {
        let (store, registry) = (self.store.clone(), Rc::clone(&self.registry));
        Box::pin(async move {
            loop {
                let last_seen = registry.borrow().unstored_last_seen(LAST_SEEN_BATCH);
                if last_seen.is_empty() {
                    return;
                }
                if let Err(error) = store.update_last_seen(&last_seen).await {
                    warn!(%error, "last_seen update failed at shutdown");
                    return;
                }
                registry.borrow_mut().last_seen_stored(&last_seen);
            }
        })
    }
}

impl Handler<GetSnapshot> for Supervisor {
    type Result = ResponseFuture<Option<Snapshot>>;

    fn handle(&mut self, message: GetSnapshot, _: &mut Context<Self>) -> Self::Result {
        let address = self.registry.borrow().address(message.0);
        Box::pin(async move { address?.send(message).await.ok()? })
    }
}

impl Handler<SetDesiredRevision> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: SetDesiredRevision, _: &mut Context<Self>) {
        self.registry.borrow_mut().set_desired_revision(message);
    }
}

impl Handler<Refresh> for Supervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Refresh: Refresh, _: &mut Context<Self>) -> Self::Result {
        let (store, registry) = (self.store.clone(), Rc::clone(&self.registry));
        Box::pin(async move {
            let sensors = registry.borrow().active();
            for sensors in sensors.chunks(LOOK_UP_BATCH) {
                match store.known_sensors(sensors).await {
                    Ok(known) => registry.borrow_mut().refresh(sensors, &known),
                    Err(error) => {
                        debug!(%error, "the sensors could not be read again");
                        return;
                    }
                }
            }
        })
    }
}

impl Handler<Acknowledged> for Supervisor {
    type Result = ();

    #[expect(clippy::disallowed_methods, reason = "once per revision and sensor")]
    fn handle(&mut self, Acknowledged(all): Acknowledged, _: &mut Context<Self>) {
        let registry = self.registry.borrow();
        for it in all {
            if let Some(address) = registry.address(it.sensor) {
                let (revision, success) = (it.revision, it.success);
                address.do_send(SensorMessage::Acknowledged { revision, success });
            }
        }
    }
}

impl Handler<Duplicates> for Supervisor {
    type Result = ();

    #[expect(clippy::disallowed_methods, reason = "once per commit and sensor")]
    fn handle(&mut self, Duplicates(all): Duplicates, _: &mut Context<Self>) {
        let registry = self.registry.borrow();
        for (sensor, items) in all {
            if let Some(address) = registry.address(sensor) {
                address.do_send(SensorMessage::Duplicates(items));
            }
        }
    }
}

impl Handler<Deleted> for Supervisor {
    type Result = ();

    fn handle(&mut self, Deleted(sensors): Deleted, _: &mut Context<Self>) {
        for sensor in sensors {
            self.registry.borrow_mut().retire(sensor);
        }
    }
}

/// How many look-ups failed in a row.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "u32")]
pub(super) struct GetFailures;

#[cfg(test)]
impl Handler<GetFailures> for Supervisor {
    type Result = u32;

    fn handle(&mut self, GetFailures: GetFailures, _: &mut Context<Self>) -> u32 {
        self.failures
    }
}
