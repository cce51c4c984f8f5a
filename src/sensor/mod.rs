//! One actor per sensor. `registry` knows their addresses and hands messages to them, `supervisor`
//! starts, restarts and retires them, `actor` is one of them with its pure `state`, and `outbox`
//! publishes what they are to be configured with.

mod actor;
mod funnel;
mod outbox;
mod protocol;
mod registry;
mod state;
mod supervisor;
#[cfg(test)]
pub(crate) mod tests;

use std::str::FromStr;

pub use outbox::{Downlink, Outbox, Wake};
pub use registry::Router;
pub use supervisor::{Supervisor, SupervisorWays};

pub use crate::domain::Faults;
pub use crate::writer::Committed;
pub use protocol::{
    Acknowledged, Activity, Census, Configured, Deleted, Moved, Observe, Republish, Snapshot,
    TakeCensus,
};

/// `UNKNOWN_SENSOR`, `SENSOR_…`, `CONFIGURATION_…`
#[derive(Clone, Debug)]
pub struct Config {
    /// `UNKNOWN_SENSOR`
    pub unknown: UnknownSensor,
    /// `SENSOR_IDLE_SECS`
    pub idle_secs: u64,
    /// `CONFIGURATION_REPUBLISH_SECS`
    pub republish_secs: u64,
}

/// What becomes of a message whose sensor nobody has created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnknownSensor {
    /// It is recorded as rejected.
    Reject,
    /// The sensor is created.
    Register,
}

impl FromStr for UnknownSensor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "reject" => Ok(Self::Reject),
            "register" => Ok(Self::Register),
            _ => Err("it takes reject or register".into()),
        }
    }
}
