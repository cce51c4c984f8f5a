//! The messages of the sensors' actors and their supervisor, and the snapshots in their answers. The
//! API sends some, the registry and the writer the others. Messages of the outbox are in `outbox`.

use actix::Message;
use serde::Serialize;

use crate::domain::{SensorIdentifier, Timestamp, Uplink};
pub use crate::writer::{Acknowledged, Deleted, Duplicates};

/// To the supervisor, which forwards it to the sensor's actor. `None`: the sensor has no actor.
#[derive(Debug, Message)]
#[rtype(result = "Option<Snapshot>")]
pub struct GetSnapshot(pub SensorIdentifier);

/// To the supervisor, which forwards it to the sensor's actor: this revision is committed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct SetDesiredRevision {
    /// Whose configuration it is.
    pub sensor: SensorIdentifier,
    /// The newest that exists.
    pub revision: i32,
}

/// To the supervisor: read again what the tables say of all sensors with an actor. Another instance may have changed it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Refresh;

/// To a sensor's actor.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) enum SensorMessage {
    Uplink(Box<Uplink>),
    /// This revision is committed.
    Desired(i32),
    /// An acknowledgement of this revision is committed.
    Acknowledged {
        revision: i32,
        success: bool,
    },
    /// The number of its items that were duplicates.
    Duplicates(u64),
    /// Stop. It is the last message in the mailbox.
    Retire,
}

/// What a sensor's actor knows. Times are receipt times; counts begin with the actor.
#[derive(Clone, PartialEq, Debug, Default, Serialize, actix::MessageResponse, utoipa::ToSchema)]
pub struct Snapshot {
    /// The newest revision that the sensor acknowledged.
    pub last_acknowledged_revision: Option<i32>,
    /// `success` of that acknowledgement.
    pub last_acknowledged_success: Option<bool>,
    /// The newest revision that exists.
    pub desired_revision: Option<i32>,
    /// The revision in the sensor's last message; null: it runs under none, or sent nothing yet.
    pub reported_revision: Option<i32>,
    /// Received on `measurements/…`
    pub measurements: ReceiptStats,
    /// Received on `log-messages/…`
    pub log_messages: ReceiptStats,
    /// Received on `heartbeats/…`
    pub heartbeats: ReceiptStats,
    /// Items rejected since the actor began.
    pub rejected_items: u64,
    /// Items received since the actor began whose timestamp was more than `FUTURE_TOLERANCE_SECS` ahead
    /// of our clock: the sensor's clock is wrong.
    pub future_items: u64,
    /// Items since the actor began that changed nothing, because the sensor had sent the same before: with
    /// the same timestamp, revision and content.
    pub duplicate_items: u64,
    /// A warning, if most items since the actor began are dated before the year 2000: the sensor's clock is not
    /// set.
    pub clock: Option<String>,
}

impl Snapshot {
    /// When the last message of any kind was received.
    pub fn last_receipt(&self) -> Option<Timestamp> {
        [&self.measurements, &self.log_messages, &self.heartbeats]
            .into_iter()
            .filter_map(|stats| stats.last_receipt)
            .max()
    }
}

/// What was received of one kind.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct ReceiptStats {
    /// Messages since the actor began.
    pub messages: u64,
    /// Items since the actor began.
    pub items: u64,
    /// When the last message was received.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = Option<jiff::Timestamp>)]
    pub last_receipt: Option<Timestamp>,
}

fn rfc3339<S: serde::Serializer>(
    timestamp: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    timestamp.map(Timestamp::to_jiff).serialize(serializer)
}
