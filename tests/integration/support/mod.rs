//! What the integration tests stand on: a real PostgreSQL, a real broker, an independent MQTT client, and waiting
//! for a state. Servers come from the variables that name them, else from Docker, else from the machine's binaries;
//! `TRIBUTARY_TEST_SERVERS=docker|binaries` forces one of the last two.

pub(crate) mod broker;
pub(crate) mod certificates;
pub(crate) mod client;
mod docker;
pub(crate) mod events;
pub(crate) mod ports;
pub(crate) mod postgres;
mod process;
pub(crate) mod payloads;
pub(crate) mod fixture;
pub(crate) mod scripted;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod store;
pub(crate) mod wait;
pub(crate) mod tcp_proxy;
