//! The SQL of the benchmark: its databases, row counts, the settings that affect a result, and the script of its
//! baseline, `psql`. Called only by `bench`. It drops only databases whose name has the benchmark's prefix.

use tokio_postgres::{Row, Statement};

use crate::domain::{Batch, Kind, Measurement, RowRef, SensorIdentifier, Timestamp};
use crate::store::connections::connector::Connector;
use crate::store::connections::pooled_client::PooledClient;
use crate::store::ingest::copy::{Encoder, MEASUREMENT_COLUMNS};
use crate::store::rollup::hours::END_HOUR;
use crate::store::{Config, EngineName, Housekeeper, Store, StoreError, migrate_to};

/// Prefix of the benchmark's database names.
pub const BENCHMARK_DATABASE_PREFIX: &str = "tributary_bench_";

/// Settings that affect a result.
const SETTINGS: [&str; 10] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_compression",
    "wal_level",
    "autovacuum",
];

const COUNT: &str = "\
select (select count(*) from measurement), (select count(*) from log_message),
       (select count(*) from heartbeat),
       (select coalesce(sum(item_count), 0)::int8 from rejection)
           + (select coalesce(sum(item_count), 0)::int8 from rejection_overflow)";

const REGISTER: &str = "\
insert into sensor (identifier, name)
select identifier, 'bench-' || number
from unnest($1::uuid[]) with ordinality as created (identifier, number)";

const VISIBLE: &str = "\
select creation_timestamp from measurement
where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp <= $3";

/// One measurement per sensor and minute, in order of time, so that the rows of one sensor are scattered among those
/// of the others. The first $4 sensors have small values and the others large ones, so that a page holds one row of
/// each of the first. Parameters: sensors, from, to, number of sensors with small values.
const INSERT_MEASUREMENTS: &str = "\
insert into measurement
    (sensor_identifier, creation_timestamp, receipt_timestamp, digest, revision, value)
select sensor, created, created + interval '1 second', hashtextextended(sensor::text || created, 0), 0,
       jsonb_build_object('temperature', round((20 + 5 * sin(extract(epoch from created) / 13750) + random())::numeric, 2),
           'humidity', round((60 + 10 * random())::numeric, 1), 'wind', round((8 * random())::numeric, 2), 'sky', 'clear')
           || case when number <= $4 then '{}' else jsonb_build_object('note', repeat('.', 480)) end
from generate_series($2::timestamptz, $3::timestamptz - interval '1 second', interval '1 minute') as created
cross join unnest($1::uuid[]) with ordinality as publishing (sensor, number)
order by created";

/// Asks the service to count all rows. Parameter: the hour after the last.
const ASK_FOR_ROLLUP: &str = "\
insert into rollup_rebuild (from_hour, to_hour) values (0, $1)";

/// Days in the roll-up, and those with hours that are over and not summed up.
const ROLLED_UP: &str = "\
select (select count(*) from sensor_hour),
    (select count(*) from sensor_hour where recount_at <= now()) + (select count(*) from rollup_rebuild)";

/// Items in the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TableCounts {
    pub(crate) measurements: u64,
    pub(crate) log_messages: u64,
    pub(crate) heartbeats: u64,
    /// Items recorded as rejected, or only counted.
    pub(crate) rejected: u64,
}

/// Days of sensors in the roll-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RolledUp {
    pub(crate) days: u64,
    /// Of them, and of rebuilds, those that are due.
    pub(crate) due: u64,
}

/// A connection of the benchmark.
pub struct Bench {
    client: PooledClient,
}

impl Bench {
    /// Connects.
    pub async fn connect(config: &Config) -> Result<Self, StoreError> {
        let client = Connector::new(config, "tributary-bench").connect().await?;
        Ok(Self { client })
    }

    /// Creates an empty database; drops one that an earlier run left.
    pub async fn create_database(&self, name: &str) -> Result<(), StoreError> {
        self.drop_database(name).await?;
        Ok(self.client.batch_execute(&format!("create database {name}")).await?)
    }

    /// Drops a database, and closes its connections.
    pub async fn drop_database(&self, name: &str) -> Result<(), StoreError> {
        assert!(name.starts_with(BENCHMARK_DATABASE_PREFIX), "{name} is not the benchmark's");
        let drop = format!("drop database if exists {name} with (force)");
        Ok(self.client.batch_execute(&drop).await?)
    }

    pub(crate) async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(self.client.batch_execute("checkpoint").await?)
    }

    /// The settings that affect a result, by name.
    pub(crate) async fn settings(&self) -> Result<Vec<(String, String)>, StoreError> {
        let mut settings = Vec::with_capacity(SETTINGS.len());
        for name in SETTINGS {
            let row = self.client.query_one("select current_setting($1)", &[&name]).await?;
            settings.push((name.to_owned(), row.get(0)));
        }
        Ok(settings)
    }

    /// The PID of this connection's server process.
    pub async fn backend_pid(&self) -> Result<u32, StoreError> {
        let pid: i32 = self.client.query_one("select pg_backend_pid()", &[]).await?.get(0);
        Ok(pid.unsigned_abs())
    }

    pub(crate) async fn register(&self, sensors: &[SensorIdentifier]) -> Result<(), StoreError> {
        let identifiers: Vec<uuid::Uuid> = sensors.iter().map(|sensor| sensor.0).collect();
        self.client.execute(REGISTER, &[&identifiers]).await?;
        Ok(())
    }

    /// Inserts one measurement per minute of these sensors (with small values) and of others.
    pub(crate) async fn insert_measurements(
        &self,
        sensors: &[SensorIdentifier],
        others: &[SensorIdentifier],
        (from, to): (Timestamp, Timestamp),
    ) -> Result<u64, StoreError> {
        let all: Vec<uuid::Uuid> = sensors.iter().chain(others).map(|sensor| sensor.0).collect();
        let (from, to, few) = (from.to_jiff(), to.to_jiff(), sensors.len() as i64);
        Ok(self.client.execute(INSERT_MEASUREMENTS, &[&all, &from, &to, &few]).await?)
    }

    /// Asks the service to roll all measurements up, and vacuums the table, as autovacuum does with a table that grows.
    pub(crate) async fn ask_for_rollup(&self) -> Result<(), StoreError> {
        self.client.execute(ASK_FOR_ROLLUP, &[&END_HOUR]).await?;
        Ok(self.client.batch_execute("vacuum analyze measurement").await?)
    }

    /// Lets commits write nothing into the journal of the roll-up.
    pub(crate) async fn discard_journal(&self) -> Result<(), StoreError> {
        let rule = "create rule discard as on insert to sensor_hour_journal do instead nothing";
        Ok(self.client.batch_execute(rule).await?)
    }

    pub(crate) async fn rolled_up(&self) -> Result<RolledUp, StoreError> {
        let row = self.client.query_one(ROLLED_UP, &[]).await?;
        Ok(RolledUp { days: count(&row, 0), due: count(&row, 1) })
    }

    /// Counts all rows.
    pub(crate) async fn count(&self) -> Result<TableCounts, StoreError> {
        let row = self.client.query_one(COUNT, &[]).await?;
        Ok(TableCounts {
            measurements: count(&row, 0),
            log_messages: count(&row, 1),
            heartbeats: count(&row, 2),
            rejected: count(&row, 3),
        })
    }

    /// Turns this connection into a [`Watch`].
    pub(crate) async fn watch(self) -> Result<Watch, StoreError> {
        let backend_pid = self.backend_pid().await?;
        let visible = self.client.prepare(VISIBLE).await?;
        Ok(Watch { client: self.client, visible, backend_pid })
    }
}

fn count(row: &Row, column: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(column)).unwrap_or(0)
}

/// A connection that watches a sensor's measurements appear.
pub(crate) struct Watch {
    client: PooledClient,
    visible: Statement,
    pub(crate) backend_pid: u32,
}

impl Watch {
    /// The timestamps of a sensor's visible measurements in this range.
    pub(crate) async fn visible(
        &self,
        sensor: SensorIdentifier,
        (first, last): (Timestamp, Timestamp),
    ) -> Result<Vec<Timestamp>, StoreError> {
        let rows = self.client.query(&self.visible, &[&sensor, &first, &last]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// Migrates a database and creates the partitions that a service would have created.
pub async fn create_tables(config: &Config, engine: EngineName) -> Result<(), StoreError> {
    migrate_to(config, Some(engine)).await?;
    Housekeeper::new(Store::new(config), config).round().await.map(drop)
}

/// Encodes the COPY stream of these measurements, for the benches. Returns its length.
#[doc(hidden)]
pub fn encode_measurements(batch: &Batch, rows: &[RowRef]) -> usize {
    let mut stream = Encoder::begin(false);
    let rows = stream.rows(Kind::Measurement, batch, rows);
    rows.len() + stream.end().len()
}

/// The script with which `psql` copies these files, one transaction per file.
pub(crate) fn copy_script<'a>(
    engine: EngineName,
    files: impl Iterator<Item = &'a std::path::Path>,
) -> String {
    let table = engine.engine().tables(Kind::Measurement).swap_remove(0);
    let copy = |file: &std::path::Path| {
        format!("\\copy {table} ({MEASUREMENT_COLUMNS}) from '{}'\n", file.display())
    };
    files.map(copy).collect()
}

/// Writes a row of `measurement` in the text format of COPY, with the columns of [`copy_script`].
pub(crate) fn copy_line(
    sensor: SensorIdentifier,
    item: &Measurement,
    value: &str,
    received_at: Timestamp,
    line: &mut Vec<u8>,
) {
    use std::io::Write as _;
    let head = &item.head;
    let (created_at, received_at) = (head.timestamp.to_jiff(), received_at.to_jiff());
    let digest = head.digest.cast_signed();
    let revision = head.revision.map_or_else(|| "\\N".to_owned(), |it| it.to_string());
    writeln!(line, "{sensor}\t{created_at}\t{received_at}\t{digest}\t{revision}\t{value}")
        .expect("writing to memory succeeds");
}
