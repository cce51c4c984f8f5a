//! What a sensor's actor and its supervisor understand.

use actix::Message;
use serde::Serialize;

use crate::domain::{NetworkIdentifier, SensorIdentifier, Timestamp, Uplink};
pub use crate::writer::{Acknowledged, Deleted};

/// To the supervisor: what does this sensor's actor know? `None`: it has no actor at present.
#[derive(Debug, Message)]
#[rtype(result = "Option<Snapshot>")]
pub struct Observe(pub SensorIdentifier);

/// To the supervisor: the revision is committed and waits in the outbox.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Configured {
    /// Whose it is.
    pub sensor: SensorIdentifier,
    /// Which one.
    pub revision: i32,
}

/// To the supervisor: the sensor was moved to another network, which is committed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Moved(pub SensorIdentifier);

/// To the supervisor: publish the newest configuration of this sensor again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Republish(pub SensorIdentifier);

/// To the supervisor: how many actors are there, and what became of them?
#[derive(Debug, Message)]
#[rtype(result = "Census")]
pub struct TakeCensus;

/// To a sensor's actor: this is what it said.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Hear(pub(super) Box<Uplink>);

/// To a sensor's actor: this is the newest revision that there is.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Desire(pub(super) i32);

/// To a sensor's actor: it acknowledged this revision, and whether that works.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Acknowledge {
    pub(super) revision: i32,
    pub(super) success: bool,
}

/// To a sensor's actor: what do you know?
#[derive(Debug, Message)]
#[rtype(result = "Snapshot")]
pub(super) struct Look;

/// To a sensor's actor: nothing follows this; go.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Retire;

/// The actors of the process.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, actix::MessageResponse, utoipa::ToSchema,
)]
pub struct Census {
    /// Alive now.
    pub alive: u64,
    /// Started since the process began.
    pub started: u64,
    /// Started again after a failure.
    pub restarted: u64,
    /// Retired because their sensor was silent, or deleted.
    pub retired: u64,
}

/// What a sensor last said, as its actor knows it. Times are ours; the counts begin with the actor.
#[derive(Clone, PartialEq, Debug, Default, Serialize, actix::MessageResponse, utoipa::ToSchema)]
pub struct Snapshot {
    /// The newest revision that the sensor acknowledged.
    pub last_acknowledged_revision: Option<i32>,
    /// Whether that revision works.
    pub last_acknowledged_success: Option<bool>,
    /// The newest revision that there is.
    pub desired_revision: Option<i32>,
    /// The revision of which the sensor spoke last.
    pub reported_revision: Option<i32>,
    /// Per kind.
    pub measurements: Activity,
    /// Per kind.
    pub log_messages: Activity,
    /// Per kind.
    pub heartbeats: Activity,
    /// Items rejected since the actor began.
    pub rejected_items: u64,
    /// To which network the sensor belongs, where that is known without asking the tables: decides
    /// who is told the rest while they are away.
    #[serde(skip)]
    pub network: Option<NetworkIdentifier>,
}

impl Snapshot {
    /// When the last message of any kind came.
    #[must_use]
    pub fn last_receipt(&self) -> Option<Timestamp> {
        [&self.measurements, &self.log_messages, &self.heartbeats]
            .into_iter()
            .filter_map(|activity| activity.last_receipt)
            .max()
    }
}

/// What came of one kind.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct Activity {
    /// Messages since the actor began.
    pub messages: u64,
    /// Items since the actor began.
    pub items: u64,
    /// When the last message came.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = Option<jiff::Timestamp>)]
    pub last_receipt: Option<Timestamp>,
}

fn rfc3339<S: serde::Serializer>(
    moment: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    moment.map(Timestamp::to_jiff).serialize(serializer)
}
