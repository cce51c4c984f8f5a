//! The MQTT client, and with the simulated fleet the only code that uses ntex. [`connect`] opens
//! connections. `inbound` runs the one that receives: `intake` decodes the PUBLISHes of a `session`,
//! `window` holds them until their PUBACK. `outbound` publishes configurations on a connection of its own.

mod address;
mod publish_assembly;
mod connect;
mod drain;
mod read_pacing;
mod inbound;
mod intake;
mod downlink_window;
mod puback;
mod receipt_clock;
mod outbound;
mod session;
mod stop;
mod stream;
mod window;

pub use address::{BrokerUrl, BrokerUrlError};
pub use connect::{ConnectFailure, ConnectOptions, connect};
pub use inbound::{Inbound, InboundHandles};
pub use outbound::Outbound;
pub use stop::{InboundEnd, StopSignals};
pub use stream::DelayedReads;

/// `MQTT_…`, `WINDOW_BYTES`
#[derive(Clone, Debug)]
pub struct Config {
    /// `MQTT_URL`
    pub broker: BrokerUrl,
    /// `MQTT_CLIENT_ID`
    pub client_id: String,
    /// `MQTT_SHARED_GROUP`: the instances of this group share the messages; none: each gets all.
    pub shared_group: Option<String>,
    /// `DRAIN_ON_STOP`: leave the group, and end the session, before the process ends.
    pub drain_on_stop: bool,
    /// `MQTT_TOPIC_PREFIX`
    pub topic_prefix: String,
    /// `MQTT_RECEIVE_MAXIMUM`
    pub receive_maximum: u16,
    /// `MQTT_SESSION_EXPIRY_DAYS`
    pub session_expiry_days: u32,
    /// `MQTT_KEEP_ALIVE_SECS`
    pub keep_alive_secs: u16,
    /// `WINDOW_BYTES`
    pub window_bytes: usize,
}

#[cfg(test)]
mod tests;
