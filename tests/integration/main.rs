//! The only integration-test binary: one file per guarantee, all on real servers.
//! `support` starts the servers; each other module tests what it is named after.

#![expect(clippy::unwrap_used, reason = "a test fails at the first unexpected value")]

mod access;
mod activity;
mod api;
mod broker_acl;
mod brokers;
mod clients;
mod configuration_states;
mod configurations;
mod chunks;
mod contract;
mod database_hosts;
mod devices;
mod engines;
mod ingest;
mod faults;
mod fleet_stream;
mod garbage;
#[path = "../faults/harness/mod.rs"]
#[expect(dead_code, reason = "scripts/faults uses the rest")]
mod harness;
mod grants;
mod instances;
mod isolation;
mod log_search;
mod listen;
mod live_state;
mod mangled_urls;
mod metrics;
mod outages;
mod outbox;
mod partitions;
mod puback;
mod recreated_sensors;
mod refused_configurations;
mod rejections;
mod replay;
mod retention;
mod rollup;
mod second_broker;
mod secrets;
mod sensors;
mod servers;
mod sign_in;
#[cfg(feature = "otlp")]
mod spans;
mod stream_rights;
mod slow_clients;
mod streams;
mod supervision;
mod support;
mod tls;
mod topics;
mod tour;
mod wire;
