//! One actor per sensor (`actor`, with its pure `state`), found by the `registry`, started and retired
//! by the `supervisor`; the `outbox` publishes configurations. The inbound loop and the replayer send
//! messages in by the [`Router`]; the API asks the supervisor and wakes the outbox.

mod actor;
mod refusals;
mod outbox;
mod outbox_round;
mod protocol;
mod registry;
mod router;
mod state;
mod supervisor;
#[cfg(test)]
pub(crate) mod tests;
mod uplink_buffer;

pub use outbox::{Outbox, Republish, Wake};
pub use outbox_round::{Downlink, PublisherHandle};
pub use protocol::{
    Acknowledged, Deleted, Duplicates, GetSnapshot, ReceiptStats, Refresh, SetDesiredRevision,
    Snapshot,
};
pub use refusals::Refusal;
pub use router::{Router, RouterHandles};
pub use supervisor::{StoreLastSeen, Supervisor};

/// `UNKNOWN_SENSOR`, `SENSOR_…`, `CONFIGURATION_…`, `FUTURE_TOLERANCE_SECS`
#[derive(Clone, Debug)]
pub struct Config {
    /// `UNKNOWN_SENSOR`
    pub unknown: UnknownSensor,
    /// `SENSOR_IDLE_SECS`
    pub idle_secs: u64,
    /// `CONFIGURATION_REPUBLISH_SECS`
    pub republish_secs: u64,
    /// `FUTURE_TOLERANCE_SECS`
    pub future_tolerance_secs: u32,
}

/// What to do with messages of a sensor that does not exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnknownSensor {
    /// Record them as rejected.
    Reject,
    /// Create the sensor.
    Register,
}
