//! PostgreSQL: the only place that speaks SQL. [`commit`] is the hot path, the rest serves the
//! registry, the outbox and the API. Readers and writers have pools of their own, so that neither
//! can starve the other.

mod acknowledge;
mod activity;
mod aggregates;
mod benchmark;
mod bundles;
mod census;
mod clock;
mod commit;
mod configurations;
mod connect;
mod connection;
mod connections;
mod copy;
mod error;
mod gather;
mod examine;
mod export;
mod fold;
mod hot;
mod housekeeping;
mod last_seen;
mod log_summary;
mod migrations;
mod networks;
mod new_partition;
mod outbox;
mod partitions;
mod pool;
mod reader;
mod reads;
mod recorded;
mod rejections;
mod replays;
mod retention;
mod rows;
mod sensor_list;
mod sensors;
mod sums;
#[cfg(test)]
mod tests;
mod tokens;
mod users;

pub use activity::{
    Activity, ActivityReading, BUCKET_SECS, BUCKETS, Counts, bucket_begin, bucket_of,
};
pub use aggregates::{Aggregate, Aggregates, Aggregation, BUCKET_ORIGIN};
pub use benchmark::{
    BENCHMARK_DATABASE_PREFIX, Bench, Bundled, TableCounts, Watch, bundles_of_28_days, copy_line,
    copy_script, encode_measurements, furnish,
};
pub use bundles::Bundler;
pub use census::TableCensus;
pub use clock::Clocks;
pub use commit::{Acknowledgement, Committed, Committer, Path, Uncommitted};
pub use configurations::{Configuration, ConfigurationState, Creation, Idempotency};
pub use connections::{
    Ssl, SslError, SslMode, UrlError, describe, nowhere, read_url, without_password,
};
pub use error::{Complaint, StoreError, Verdict, verdict};
pub use export::{CutOff, Export, ExportError, ExportFormat, ExportOf, ExportStream};
pub use fold::{FOLD_STATEMENTS, Fold};
pub use housekeeping::Housekeeper;
pub use last_seen::Whereabouts;
pub use log_summary::{LogSummary, SummaryKey};
pub use migrations::migrate;
pub use networks::{AccessError, Network};
pub use outbox::{KnownSensor, PendingConfiguration};
pub use pool::{PoolUse, Store};
pub use recorded::{Recorded, RecordedPage, Stretch};
pub use replays::Replayed;
pub use rows::{
    HeartbeatFilter, HeartbeatRow, LogFilter, LogMessageRow, MeasurementRow, Order, Page,
    RejectionFilter, RejectionRow, RowKey, RowPage, Selection, Span,
};
pub use sensor_list::{Sensor, SensorFilter, SensorKey, SensorOrder};
pub use sensors::{NewSensor, SensorChange, SensorError};
pub use tokens::{NewToken, TokenRow};
pub use users::{NewUser, UserChange, UserRow};

/// `DATABASE_…`, `PARTITION_…`, `RETENTION_…`, `MEASUREMENT_BUNDLES`, `EXPORTS_AT_ONCE`, `IDEMPOTENCY_HOURS`
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_URL`, but for what it says of TLS.
    pub postgres: tokio_postgres::Config,
    /// `sslmode` and its neighbours in `DATABASE_URL`
    pub ssl: Ssl,
    /// `DATABASE_READERS`
    pub readers: u32,
    /// `DATABASE_READ_TIMEOUT_SECS`: PostgreSQL ends a read that takes longer.
    pub read_timeout_secs: u32,
    /// `EXPORTS_AT_ONCE`
    pub exports: u32,
    /// `MEASUREMENT_BUNDLES`: whether a sensor's measurements are put together, for aggregates.
    pub measurement_bundles: bool,
    /// `IDEMPOTENCY_HOURS`: so long a repeated request gets the first answer.
    pub idempotency_hours: u32,
    /// `DATABASE_STATEMENT_TIMEOUT_SECS`
    pub statement_timeout_secs: u32,
    /// `PARTITION_INTERVAL_DAYS`
    pub partition_days: u32,
    /// `PARTITION_PAST_DAYS`
    pub partition_past_days: u32,
    /// `RETENTION_LOG_MESSAGE_DAYS`; none keeps them for ever.
    pub log_message_retention_days: Option<u32>,
    /// `RETENTION_MEASUREMENT_DAYS`; none keeps them for ever.
    pub measurement_retention_days: Option<u32>,
    /// `RETENTION_HEARTBEAT_DAYS`; none keeps them for ever.
    pub heartbeat_retention_days: Option<u32>,
}
