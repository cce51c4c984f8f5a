//! What differs between PostgreSQL, TimescaleDB and Citus: how the rows of the hot tables are kept, grow and expire.

pub(super) mod engine;
pub(super) mod locks;
pub(super) mod partition;
pub(super) mod retention;
pub(super) mod postgres;
pub(super) mod timescaledb;
mod chunks;
pub(super) mod citus;
pub(super) mod recorded;
