//! PostgreSQL: the only module with SQL, in folders by caller. [`ingest`] is the hot path. Readers and
//! writers have separate pools, so that neither can starve the other.

mod ingest;
mod instances;
mod configurations;
mod rollup;
mod sensors;
mod query;
mod access;
mod engines;
mod maintenance;
mod background;
mod columns;
mod connections;
mod error;
mod migrations;
mod pool;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

pub use access::access_watch::{AccessWatch, Existing};
pub use access::networks::{AccessError, Network};
pub use access::sign_ins::SignInBucket;
pub use access::tokens::{NewToken, TokenRow};
pub use access::users::{NewUser, UserChange, UserRow};
pub use configurations::outbox::{PendingConfiguration, RefusedConfiguration};
pub use configurations::revisions::{Configuration, Creation, Idempotency};
pub use configurations::state::ConfigurationState;
pub use connections::last_connect_error::PoolUse;
pub use connections::listener::Listener;
pub use connections::{
    Ssl, SslError, SslMode, UrlError, describe, placeholder, read_url, refuse_transaction_pooling,
    without_password,
};
pub use engines::engine::TableCensus;
pub use engines::recorded::EngineName;
pub use error::{ConnectProblem, Recovery, StoreError, recovery};
pub use ingest::acknowledge::Acknowledgement;
pub use ingest::commit::{Committed, Committer, Uncommitted};
pub use ingest::insert::CopyMode;
pub use ingest::replays::Replayed;
pub use instances::leader_lock::LeaderLock;
pub use instances::relay::RelayedBatch;
pub use instances::rows::{InstanceRow, KnownVersions};
pub use maintenance::benchmark::{
    BENCHMARK_DATABASE_PREFIX, Bench, create_tables, encode_measurements,
};
pub(crate) use maintenance::benchmark::{RolledUp, TableCounts, Watch, copy_line, copy_script};
pub use maintenance::clock::Clocks;
pub use maintenance::housekeeping::{BlockedPartitions, Housekeeper};
pub use maintenance::log_index::{IndexError, index_log_messages};
pub use migrations::{engine_of, migrate, migrate_to};
pub use pool::Store;
pub use query::activity_page::{ActivityTotals, SensorActivity};
pub use query::aggregates::{Aggregates, Source};
pub use query::attributes::{Attribute, FoundAttributes};
pub use query::export::{CutOff, ExportError, ExportStream};
pub use query::export_statement::{Export, ExportFormat, ExportOf};
pub use query::fleet_log::{FleetLogFilter, FleetLogKey, FleetLogRow};
pub use query::log_summary::{LogSummary, SummaryKey};
pub use query::rejection_summary::ReasonCount;
pub use query::rows::{
    HeartbeatFilter, HeartbeatRow, LogFilter, LogMessageRow, MeasurementRow, Newest, Order, Page,
    RejectionFilter, RejectionRow, RowKey, RowPage, Selection, TimeRange,
};
pub use query::sensor_list::{Sensor, SensorFilter, SensorKey, SensorOrder};
pub use query::sensor_summary::{StateCount, StateCounts};
pub use query::stored_rejections::{ReplayRange, StoredRejectionPage};
pub use query::turns::LongRead;
pub use rollup::aggregation::{Aggregate, Aggregation};
pub use rollup::fold::{Fold, fold_statements};
pub use rollup::hours::{Activity, BUCKET_SECS, BUCKETS, Counts, bucket_begin, bucket_of};
pub use rollup::rebuild::Rebuilder;
pub use rollup::recount::RollUp;
pub use sensors::changes::{NewSensor, SensorChange, SensorError};
pub use sensors::lookups::{KnownSensor, SensorLocation};

/// `DATABASE_…`, `PARTITION_…`, `COMPRESS_AFTER_DAYS`, `RETENTION_…`, `FUTURE_TOLERANCE_SECS`, `EXPORTS_AT_ONCE`,
/// `IDEMPOTENCY_HOURS`
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_URL`, without its parameters of TLS.
    pub postgres: tokio_postgres::Config,
    /// Index of the address that answered last; all pools try it first.
    pub last_good_address: Arc<AtomicUsize>,
    /// The `ssl…` parameters of `DATABASE_URL`
    pub ssl: Ssl,
    /// `DATABASE_READERS`
    pub readers: u32,
    /// `DATABASE_READ_TIMEOUT_SECS`: PostgreSQL ends a read that takes longer.
    pub read_timeout_secs: u32,
    /// `TIMESTAMP_MISSING=receipt`: rows say whether their timestamp is that of their receipt.
    pub receipt_times: bool,
    /// `EXPORTS_AT_ONCE`
    pub exports: u32,
    /// `IDEMPOTENCY_HOURS`: how long a repeated request gets the first response.
    pub idempotency_hours: u32,
    /// `DATABASE_STATEMENT_TIMEOUT_SECS`
    pub statement_timeout_secs: u32,
    /// `FUTURE_TOLERANCE_SECS`: a row further ahead of our clock is in the future.
    pub future_tolerance_secs: u32,
    /// `PARTITION_INTERVAL_DAYS`
    pub partition_days: u32,
    /// `PARTITION_PAST_DAYS`
    pub partition_past_days: u32,
    /// `CITUS_SHARDS`: shards of each distributed table, decided by `migrate`.
    pub citus_shards: u32,
    /// `COMPRESS_AFTER_DAYS`: TimescaleDB compresses chunks that end so long ago; none never does.
    pub compress_after_days: Option<u32>,
    /// `RETENTION_LOG_MESSAGE_DAYS`; none keeps them for ever.
    pub log_message_retention_days: Option<u32>,
    /// `RETENTION_MEASUREMENT_DAYS`; none keeps them for ever.
    pub measurement_retention_days: Option<u32>,
    /// `RETENTION_HEARTBEAT_DAYS`; none keeps them for ever.
    pub heartbeat_retention_days: Option<u32>,
    /// `RETENTION_ROLLUP_DAYS`: of counts and sums by hour; none keeps them for ever.
    pub rollup_retention_days: Option<u32>,
}
