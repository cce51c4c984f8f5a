//! The support of the integration tests: a real PostgreSQL, a real broker, an independent MQTT client, and waiting
//! for a state. `DATABASE_URL` and `MQTT_URL` name external servers; otherwise servers run in Docker, or from the
//! binaries on this machine. `TRIBUTARY_TEST_SERVERS=docker|binaries` forces one of the last two.

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
