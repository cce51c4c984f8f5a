//! The way from a request to the sensors' actors. Used by handlers; made by `app.rs` from the
//! supervisor's address. Promises that a request never waits long for an actor: the tables hold
//! the truth, and what an actor does not hear it finds there.

use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message, Recipient};
use tracing::warn;

use crate::domain::SensorIdentifier;
use crate::sensor::{Census, Configured, Deleted, Moved, Observe, Republish, Snapshot, TakeCensus};

/// An actor that takes longer is not waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Whom the API tells what it did, and asks what is going on.
#[derive(Clone)]
pub struct Fleet {
    /// Knows what a sensor last said.
    pub observe: Recipient<Observe>,
    /// Publishes a new revision.
    pub configured: Recipient<Configured>,
    /// Publishes the newest revision again.
    pub republish: Recipient<Republish>,
    /// Forgets sensors, and clears what is retained for them.
    pub deleted: Recipient<Deleted>,
    /// Forgets to which network a sensor belonged.
    pub moved: Recipient<Moved>,
    /// Counts the actors.
    pub census: Recipient<TakeCensus>,
}

impl Fleet {
    /// All of it from the one actor that understands it.
    #[must_use]
    pub fn of<A>(supervisor: &Addr<A>) -> Self
    where
        A: Actor
            + Handler<Observe>
            + Handler<Configured>
            + Handler<Republish>
            + Handler<Deleted>
            + Handler<Moved>
            + Handler<TakeCensus>,
        A::Context: ToEnvelope<A, Observe>
            + ToEnvelope<A, Configured>
            + ToEnvelope<A, Republish>
            + ToEnvelope<A, Deleted>
            + ToEnvelope<A, Moved>
            + ToEnvelope<A, TakeCensus>,
    {
        Self {
            observe: supervisor.clone().recipient(),
            configured: supervisor.clone().recipient(),
            republish: supervisor.clone().recipient(),
            deleted: supervisor.clone().recipient(),
            moved: supervisor.clone().recipient(),
            census: supervisor.clone().recipient(),
        }
    }

    /// What the sensor's actor knows; none where there is no actor, or no answer.
    pub(super) async fn snapshot(&self, sensor: SensorIdentifier) -> Option<Snapshot> {
        ask(&self.observe, Observe(sensor)).await.flatten()
    }

    /// The actors of the process; none where there is no answer.
    pub(super) async fn take_census(&self) -> Option<Census> {
        ask(&self.census, TakeCensus).await
    }

    /// A revision is committed. Should the message not arrive, the outbox still holds the row.
    pub(super) async fn announce(&self, sensor: SensorIdentifier, revision: i32) {
        ask(&self.configured, Configured { sensor, revision }).await;
    }

    /// The newest configuration of a sensor is wanted once more; false if nobody heard it.
    pub(super) async fn publish_again(&self, sensor: SensorIdentifier) -> bool {
        ask(&self.republish, Republish(sensor)).await.is_some()
    }

    /// A sensor belongs to another network. Should the message not arrive, the supervisor reads it
    /// when it next notes that the sensor was heard.
    pub(super) async fn tell_of_move(&self, sensor: SensorIdentifier) {
        ask(&self.moved, Moved(sensor)).await;
    }

    /// A sensor is no more. Should the message not arrive, `deleted_sensor` still holds it.
    pub(super) async fn forget(&self, sensor: SensorIdentifier) {
        ask(&self.deleted, Deleted(vec![sensor])).await;
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
            warn!(%error, "the supervisor of the sensors does not answer");
            None
        }
    }
}
