//! The entry of the sensors' actors: hands each message to the actor of its sensor. Used by the inbound
//! loop and the replayer, on whose thread the actors run. No message is dropped here: one whose sensor
//! is unknown to the process waits until the supervisor has looked it up.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, AsyncContext as _, Context, Recipient};
use actix_rt::task::JoinHandle;

use super::Config;
use super::actor::ActorShared;
use super::outbox::Republish;
use super::registry::Registry;
use super::state::Tolerances;
use super::supervisor::{LookUpSensors, Supervisor};
use super::uplink_buffer::UplinkBuffer;
use crate::domain::{Task, Uplink};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::tasks::{Panic, Tasks};
use crate::writer::Write;

/// What the sensors' actors and their supervisor use.
#[derive(Clone, Debug)]
pub struct RouterHandles {
    /// For look-ups of sensors and `last_seen`.
    pub store: Store,
    /// Publishes a configuration again.
    pub outbox: Recipient<Republish>,
    /// Counts actors.
    pub metrics: Arc<Metrics>,
    /// Runs the actors.
    pub tasks: Tasks,
}

/// Routes messages to the sensors' actors.
#[derive(Clone, Debug)]
pub struct Router {
    registry: Rc<RefCell<Registry>>,
    supervisor: Addr<Supervisor>,
}

impl Router {
    /// Starts the supervisor on this thread, and reports its end. `writer` starts the writer, which
    /// reports to it.
    #[must_use]
    pub fn start(
        config: Config,
        handles: RouterHandles,
        writer: impl FnOnce(&Addr<Supervisor>) -> Recipient<Write>,
    ) -> (Self, JoinHandle<Result<(), Panic>>) {
        let RouterHandles { store, outbox, metrics, tasks } = handles;
        let context = Context::new();
        let supervisor = context.address();
        let shared = ActorShared {
            buffer: UplinkBuffer::new(writer(&supervisor)),
            outbox,
            tolerances: Tolerances {
                republish: Duration::from_secs(config.republish_secs),
                future: Duration::from_secs(config.future_tolerance_secs.into()),
            },
            tasks: tasks.clone(),
        };
        let registry = Registry::new(Rc::new(shared), metrics);
        let registry = Rc::new(RefCell::new(registry));
        let actor = Supervisor::new((store, tasks.clone()), config, Rc::clone(&registry));
        let (_, ended) = tasks.run_actor(Task::Supervisor, context, actor);
        (Self { registry, supervisor }, ended)
    }

    /// Hands a message to the actor of its sensor, which is started if necessary.
    #[expect(
        clippy::disallowed_methods,
        reason = "the inbound window bounds what is in flight, and a send().await per message costs 49 µs"
    )]
    pub fn route(&self, uplink: Box<Uplink>) {
        if self.registry.borrow_mut().route(uplink) {
            self.supervisor.do_send(LookUpSensors);
        }
    }

    /// Hands a message that has made its actor panic too often to the writer.
    pub fn bypass_actor(&self, uplink: Box<Uplink>) {
        self.registry.borrow().bypass_actor(uplink);
    }

    /// For those who ask about sensors.
    pub fn supervisor(&self) -> Addr<Supervisor> {
        self.supervisor.clone()
    }

    /// Starts the actor of a sensor without a look-up, for benches and tests without a database.
    #[doc(hidden)]
    pub fn admit(&self, known: &crate::store::KnownSensor) {
        self.registry.borrow_mut().admit(known);
    }

    /// As if a look-up had not found the sensor.
    #[cfg(test)]
    pub(crate) fn refuse(&self, sensor: crate::domain::SensorIdentifier) {
        self.registry.borrow_mut().reject(sensor);
    }
}
