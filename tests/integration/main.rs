//! The one integration-test binary: a file per promise, all on real servers.
//! `support` starts those servers; every other module holds the tests of what it is named after.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod access;
mod accounts;
mod activity;
mod api;
mod brokers;
mod clients;
mod configuration_states;
mod configurations;
mod chunks;
mod connecting;
mod contract;
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
mod live;
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
