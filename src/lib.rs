//! Tributary
pub mod api;
pub mod config;
pub mod domain;
pub mod metrics;
pub mod mqtt;
pub mod sensor;
pub mod simulate;
pub mod store;
pub mod telemetry;
pub mod wire;
pub mod writer;
