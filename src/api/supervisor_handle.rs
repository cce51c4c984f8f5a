//! The API's handle to the sensors' supervisor and to the outbox. Created by `app` from their addresses, used by
//! the handlers of sensors and configurations. A request waits at most 1 s for an actor; actors recover lost
//! messages from the tables.

use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message, Recipient};
use tracing::warn;

use crate::domain::SensorIdentifier;
use crate::sensor::{Deleted, GetSnapshot, Republish, SetDesiredRevision, Snapshot, Wake};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The supervisor, and the outbox.
#[derive(Clone)]
pub struct SupervisorHandle {
    get_snapshot: Recipient<GetSnapshot>,
    set_desired_revision: Recipient<SetDesiredRevision>,
    deleted: Recipient<Deleted>,
    wake_outbox: Recipient<Wake>,
    republish: Recipient<Republish>,
}

impl SupervisorHandle {
    /// A handle to a supervisor and an outbox, or to their replacements in a test.
    pub fn new<S, O>(supervisor: &Addr<S>, outbox: &Addr<O>) -> Self
    where
        S: Actor<Context = Context<S>>
            + Handler<GetSnapshot>
            + Handler<SetDesiredRevision>
            + Handler<Deleted>,
        O: Actor<Context = Context<O>> + Handler<Wake> + Handler<Republish>,
    {
        Self {
            get_snapshot: supervisor.clone().recipient(),
            set_desired_revision: supervisor.clone().recipient(),
            deleted: supervisor.clone().recipient(),
            wake_outbox: outbox.clone().recipient(),
            republish: outbox.clone().recipient(),
        }
    }

    /// None if the sensor has no actor, or no answer came.
    pub(super) async fn snapshot(&self, sensor: SensorIdentifier) -> Option<Snapshot> {
        ask(&self.get_snapshot, GetSnapshot(sensor)).await.flatten()
    }

    /// A revision is committed. The outbox finds its row even if the message is lost.
    pub(super) async fn configured(&self, sensor: SensorIdentifier, revision: i32) {
        let message = SetDesiredRevision { sensor, revision };
        tokio::join!(ask(&self.set_desired_revision, message), ask(&self.wake_outbox, Wake));
    }

    /// Publishes the newest configuration of a sensor again; false if the outbox did not answer.
    pub(super) async fn republish(&self, sensor: SensorIdentifier) -> bool {
        ask(&self.republish, Republish(sensor)).await.is_some()
    }

    /// A sensor is deleted. The outbox finds its row of `deleted_sensor` even if the message is lost.
    pub(super) async fn deleted(&self, sensor: SensorIdentifier) {
        tokio::join!(ask(&self.deleted, Deleted(vec![sensor])), ask(&self.wake_outbox, Wake));
    }
}

async fn ask<M>(recipient: &Recipient<M>, message: M) -> Option<M::Result>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    match recipient.send(message).timeout(ANSWER_TIMEOUT).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            warn!(%error, message = std::any::type_name::<M>(), "no answer from an actor");
            None
        }
    }
}
