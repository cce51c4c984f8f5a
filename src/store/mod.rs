//! PostgreSQL: the only place that speaks SQL. [`commit`] is the hot path, the rest serves the
//! registry, the outbox and the API. Readers and writers have pools of their own, so that neither
//! can starve the other.

mod acknowledge;
mod benchmark;
mod commit;
mod configurations;
mod connection;
mod copy;
mod error;
mod last_seen;
mod migrations;
mod networks;
mod outbox;
mod partitions;
mod pool;
mod reads;
mod recorded;
mod rejections;
mod replays;
mod rows;
mod sensor_list;
mod sensors;
mod tokens;
mod users;

pub use benchmark::{
    BENCHMARK_DATABASE_PREFIX, Bench, TableCounts, Watch, copy_line, copy_script,
    encode_measurements, furnish,
};
pub use commit::{Acknowledgement, Committed, Committer, Path, Uncommitted};
pub use configurations::{Configuration, ConfigurationState};
pub use error::{StoreError, Verdict, verdict};
pub use migrations::migrate;
pub use networks::{AccessError, Network};
pub use outbox::{KnownSensor, PendingConfiguration};
pub use partitions::Housekeeper;
pub use pool::Store;
pub use recorded::{Recorded, RecordedPage, Stretch};
pub use replays::Replayed;
pub use rows::{
    HeartbeatRow, LogMessageRow, MeasurementRow, Page, RejectionFilter, RejectionRow, RowKey,
};
pub use sensor_list::{Sensor, SensorFilter, SensorKey, SensorOrder};
pub use sensors::{NewSensor, SensorChange, SensorError};
pub use tokens::{NewToken, TokenRow};
pub use users::{NewUser, UserChange, UserRow};

/// `DATABASE_…`, `PARTITION_…`, `RETENTION_…`
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_URL`
    pub postgres: tokio_postgres::Config,
    /// `DATABASE_READERS`
    pub readers: u32,
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
