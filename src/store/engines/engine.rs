//! The trait of what differs between the engines, and the values that it takes. Implemented once per engine, called by
//! the commit, the housekeeping, the metrics and the purge of a sensor. Each call ends within the caller's timeout.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use crate::domain::{Kind, Timestamp};
use crate::store::StoreError;

/// The result of work in the database.
pub(in crate::store) type Done<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// An interval of a hot table whose rows are to be kept together: a partition, or a chunk.
#[derive(Clone, Debug)]
pub(in crate::store) struct NewPartition {
    pub(in crate::store) table: &'static str,
    pub(in crate::store) name: String,
    pub(in crate::store) from: Timestamp,
    pub(in crate::store) to: Timestamp,
}

/// Expired partitions that hold a row within the retention, and until when: so that they are not read
/// again in each round.
pub(in crate::store) type KeptPartitions = HashMap<String, Timestamp>;

/// The retention of one table.
#[derive(Clone, Debug)]
pub(in crate::store) struct Retention {
    pub(in crate::store) table: &'static str,
    pub(in crate::store) days: u32,
    /// The time on which both clocks agree.
    pub(in crate::store) now: Timestamp,
}

impl Retention {
    pub(in crate::store) fn length(&self) -> Duration {
        Duration::from_secs(u64::from(self.days) * 86_400)
    }

    /// Rows received before this time have expired.
    pub(in crate::store) fn limit(&self) -> Timestamp {
        self.now.saturating_sub(self.length())
    }
}

/// The size of one hot table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableCensus {
    /// The table's name.
    pub table: String,
    /// The number of partitions, without the default partition.
    pub partitions: i64,
    /// The end of the newest partition.
    pub end: Option<Timestamp>,
    /// Its size on disk, including indexes.
    pub bytes: i64,
    /// The size of its default partition, without indexes.
    pub default_bytes: i64,
}

impl TableCensus {
    /// From the first four columns of a row, in the order of the fields.
    pub(super) fn read(table: String, row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            table,
            partitions: row.try_get(0)?,
            end: row.try_get(1)?,
            bytes: row.try_get(2)?,
            default_bytes: row.try_get(3)?,
        })
    }
}

/// What differs between the engines.
pub(in crate::store) trait Engine: Debug + Send + Sync {
    /// The tables that hold a kind's rows; COPY uses the first. Reads use the relation with the kind's name.
    fn tables(&self, kind: Kind) -> Vec<String> {
        vec![kind.name().to_owned()]
    }

    /// Creates a partition with all properties of its table, if it does not exist, and moves its rows there.
    /// If that fails, its rows go to the default partition.
    fn create<'a>(&'a self, client: &'a Client, partition: &'a NewPartition) -> Done<'a, ()>;

    /// Whether the statement of a page can have one plan for all parameters.
    fn plans_once(&self) -> bool {
        true
    }

    /// Whether a COPY into a hot table failed for a row that may be a duplicate, although the SQLSTATE does not tell.
    fn refused_copy(&self, _state: Option<&SqlState>) -> bool {
        false
    }

    /// Whether COPY takes only rows of partitions that exist: the others go through the staging table.
    fn copies_only_known_partitions(&self) -> bool {
        false
    }

    /// Inserts the staged rows that are new, and returns sensor, timestamp and digest of each.
    fn settle(&self, kind: Kind, columns: &str, staged: &str) -> String {
        let table = kind.name();
        format!(
            "insert into {table} ({columns}) select {columns} from {staged} \
             order by sensor_identifier, creation_timestamp, digest \
             on conflict (sensor_identifier, creation_timestamp, digest) do nothing \
             returning sensor_identifier, creation_timestamp, digest"
        )
    }

    /// Set in each transaction that purges a sensor.
    fn purge_setting(&self) -> &'static str {
        ""
    }

    /// Repairs what an earlier version left incomplete in a table's partitions.
    fn complete<'a>(&'a self, _client: &'a Client, _table: &'static str) -> Done<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Drops and deletes what has expired. Returns the number of partitions that wait for a lock that
    /// another session holds.
    fn expire<'a>(
        &'a self,
        client: &'a mut Client,
        retention: &'a Retention,
        kept: &'a mut KeptPartitions,
    ) -> Done<'a, usize>;

    /// Compresses the partitions of a table that end before this time, if the engine can.
    fn compress<'a>(
        &'a self,
        _client: &'a mut Client,
        _table: &'static str,
        _before: Timestamp,
    ) -> Done<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// The partitions and sizes of all hot tables. Reads only the system catalogue.
    fn census<'a>(&'a self, client: &'a Client) -> Done<'a, Vec<TableCensus>>;
}
