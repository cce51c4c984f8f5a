//! What the benchmark asks of PostgreSQL: a database of its own, the rows counted, the settings
//! that a figure depends on, and what its yardstick, `psql`, is to run. Called by `bench`, and by
//! nothing that serves. Promises to drop nothing but databases whose name begins as ours do.

use tokio_postgres::{Client, Row, Statement};

use super::activity::{BUCKETS, bucket_of};
use super::bundles::SETTLED;
use crate::domain::{Batch, Kind, Measurement, RowRef, SensorIdentifier, Timestamp};
use crate::store::connect::Connector;
use crate::store::ingest::copy::{Encoder, MEASUREMENT_COLUMNS};
use crate::store::{Config, Housekeeper, Store, StoreError, migrate};

/// What the names of the benchmark's databases begin with.
pub const BENCHMARK_DATABASE_PREFIX: &str = "tributary_bench_";

/// What a figure depends on.
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
from unnest($1::uuid[]) with ordinality as made (identifier, number)";

const VISIBLE: &str = "\
select creation_timestamp from measurement
where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp <= $3";

/// What each of these sensors measures in a span, once a minute, in the order in which it is made: the
/// rows of one lie scattered among those of the others. Those behind the first few say more, so that
/// there is one row of each of the few in a page. Parameters: sensors, from, to, how few.
const LAY_DOWN: &str = "\
insert into measurement
    (sensor_identifier, creation_timestamp, receipt_timestamp, digest, revision, value)
select sensor, made, made + interval '1 second', hashtextextended(sensor::text || made, 0), 0,
       jsonb_build_object('temperature', round((20 + 5 * sin(extract(epoch from made) / 13750) + random())::numeric, 2),
           'humidity', round((60 + 10 * random())::numeric, 1), 'wind', round((8 * random())::numeric, 2), 'sky', 'clear')
           || case when number <= $4 then '{}' else jsonb_build_object('note', repeat('.', 480)) end
from generate_series($2::timestamptz, $3::timestamptz - interval '1 second', interval '1 minute') as made
cross join unnest($1::uuid[]) with ordinality as speaking (sensor, number)
order by made";

/// What the service has counted of these, as of whatever it commits. Parameters: sensors, the bucket
/// before the first.
const COUNT_ACTIVITY: &str = "\
insert into activity
    (sensor_identifier, bucket, measurement_count, log_message_count, heartbeat_count)
select sensor_identifier, floor(extract(epoch from creation_timestamp) / 14400)::integer, count(*), 0, 0
from measurement
where sensor_identifier = any ($1)
group by 1, 2
having floor(extract(epoch from creation_timestamp) / 14400)::integer > $2";

const BUNDLED: &str = "\
select count(*), coalesce(sum(row_count), 0)::int8 from measurement_bundle where lines is not null";

/// What stands in the tables, in items.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableCounts {
    /// Rows of `measurement`.
    pub measurements: u64,
    /// Rows of `log_message`.
    pub log_messages: u64,
    /// Rows of `heartbeat`.
    pub heartbeats: u64,
    /// Items recorded as rejected, or counted as such.
    pub rejected: u64,
}

/// What has been put together, for aggregates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bundled {
    /// So many periods of four hours.
    pub bundles: u64,
    /// So many measurements.
    pub rows: u64,
}

/// How many bundles there will be of a sensor that has spoken for 28 days.
#[must_use]
pub fn bundles_of_28_days(now: Timestamp) -> u64 {
    let last = bucket_of(now.saturating_sub(SETTLED)) - 1;
    u64::try_from(last - (bucket_of(now) - BUCKETS)).unwrap_or(0)
}

/// A connection of the benchmark.
pub struct Bench {
    client: Client,
}

impl Bench {
    /// Connects.
    ///
    /// # Errors
    /// When the database is not there.
    pub async fn connect(config: &Config) -> Result<Self, StoreError> {
        let (client, _driver) = Connector::new(config, "tributary-bench").open().await?;
        Ok(Self { client })
    }

    /// An empty database; one of that name that an earlier run left behind is dropped before.
    ///
    /// # Errors
    /// When the user may not.
    pub async fn create_database(&self, name: &str) -> Result<(), StoreError> {
        self.drop_database(name).await?;
        Ok(self.client.batch_execute(&format!("create database {name}")).await?)
    }

    /// Drops it, whoever is still connected.
    ///
    /// # Errors
    /// When the user may not.
    ///
    /// # Panics
    /// When the name is none of the benchmark's.
    pub async fn drop_database(&self, name: &str) -> Result<(), StoreError> {
        assert!(name.starts_with(BENCHMARK_DATABASE_PREFIX), "{name} is none of ours");
        let drop = format!("drop database if exists {name} with (force)");
        Ok(self.client.batch_execute(&drop).await?)
    }

    /// So that each measurement begins with nothing left to be written by the one before.
    ///
    /// # Errors
    /// When the user may not.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(self.client.batch_execute("checkpoint").await?)
    }

    /// The settings that a figure depends on, by name.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn settings(&self) -> Result<Vec<(String, String)>, StoreError> {
        let mut settings = Vec::with_capacity(SETTINGS.len());
        for name in SETTINGS {
            let row = self.client.query_one("select current_setting($1)", &[&name]).await?;
            settings.push((name.to_owned(), row.get(0)));
        }
        Ok(settings)
    }

    /// The process that serves this connection, by the server's count.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn backend_pid(&self) -> Result<u32, StoreError> {
        let pid: i32 = self.client.query_one("select pg_backend_pid()", &[]).await?.get(0);
        Ok(pid.unsigned_abs())
    }

    /// Creates these sensors.
    ///
    /// # Errors
    /// When the database is away, or has one of them.
    pub async fn register(&self, sensors: &[SensorIdentifier]) -> Result<(), StoreError> {
        const AT_ONCE: usize = 100_000;
        for part in sensors.chunks(AT_ONCE) {
            let identifiers: Vec<uuid::Uuid> = part.iter().map(|sensor| sensor.0).collect();
            self.client.execute(REGISTER, &[&identifiers]).await?;
        }
        Ok(())
    }

    /// Lays down what these sensors and so many others measured in a span, once a minute, as the rows
    /// stand when a fleet has said them.
    ///
    /// # Errors
    /// When the database is away, or has one of the rows.
    pub async fn lay_down(
        &self,
        sensors: &[SensorIdentifier],
        others: &[SensorIdentifier],
        (from, to): (Timestamp, Timestamp),
    ) -> Result<u64, StoreError> {
        let all: Vec<uuid::Uuid> = sensors.iter().chain(others).map(|sensor| sensor.0).collect();
        let (from, to, few) = (from.to_jiff(), to.to_jiff(), sensors.len() as i64);
        Ok(self.client.execute(LAY_DOWN, &[&all, &from, &to, &few]).await?)
    }

    /// Counts what was laid down of these, for those who put it together, and has it vacuumed, as
    /// PostgreSQL does by itself with a table that grows.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn settle(&self, sensors: &[SensorIdentifier]) -> Result<(), StoreError> {
        let sensors: Vec<uuid::Uuid> = sensors.iter().map(|sensor| sensor.0).collect();
        let before = bucket_of(Timestamp::now()) - BUCKETS;
        self.client.execute(COUNT_ACTIVITY, &[&sensors, &before]).await?;
        Ok(self.client.batch_execute("vacuum analyze measurement").await?)
    }

    /// What of the measurements has been put together.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn bundled(&self) -> Result<Bundled, StoreError> {
        let row = self.client.query_one(BUNDLED, &[]).await?;
        let count = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
        Ok(Bundled { bundles: count(0), rows: count(1) })
    }

    /// Counts every row there is.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn count(&self) -> Result<TableCounts, StoreError> {
        let row = self.client.query_one(COUNT, &[]).await?;
        let count = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
        Ok(TableCounts {
            measurements: count(0),
            log_messages: count(1),
            heartbeats: count(2),
            rejected: count(3),
        })
    }

    /// Turns it into one that watches a sensor's measurements appear.
    ///
    /// # Errors
    /// When the database is away, or has no tables.
    pub async fn watch(self) -> Result<Watch, StoreError> {
        let backend_pid = self.backend_pid().await?;
        let visible = self.client.prepare(VISIBLE).await?;
        Ok(Watch { client: self.client, visible, backend_pid })
    }
}

/// A connection that watches a sensor's measurements appear.
pub struct Watch {
    client: Client,
    visible: Statement,
    /// The process that serves it, by the server's count.
    pub backend_pid: u32,
}

impl Watch {
    /// Which of a sensor's measurements of these moments can be seen.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn visible(
        &self,
        sensor: SensorIdentifier,
        (first, last): (Timestamp, Timestamp),
    ) -> Result<Vec<Timestamp>, StoreError> {
        let (first, last) = (first.to_jiff(), last.to_jiff());
        let rows = self.client.query(&self.visible, &[&sensor.0, &first, &last]).await?;
        let moment = |row: &Row| {
            Timestamp::from_unix_microseconds(row.get::<_, jiff::Timestamp>(0).as_microsecond())
        };
        Ok(rows.iter().map(moment).collect())
    }
}

/// Migrates a database and makes the partitions that a service would have made.
///
/// # Errors
/// When the database is away, or not empty.
pub async fn furnish(config: &Config) -> Result<(), StoreError> {
    migrate(config).await?;
    Housekeeper::new(Store::new(config), config).round().await.map(drop)
}

/// The COPY stream of these measurements, and how long it is: for the benches.
#[doc(hidden)]
#[must_use]
pub fn encode_measurements(batch: &Batch, places: &[RowRef]) -> usize {
    let mut stream = Encoder::begin();
    let rows = stream.rows(Kind::Measurement, batch, places);
    rows.len() + stream.end().len()
}

/// What `psql` runs to copy these files in, each in a transaction of its own.
pub fn copy_script<'a>(files: impl Iterator<Item = &'a std::path::Path>) -> String {
    files
        .map(|file| {
            format!("\\copy measurement ({MEASUREMENT_COLUMNS}) from '{}'\n", file.display())
        })
        .collect()
}

/// A row of `measurement` as the text format of COPY has it, in the order of that script.
pub fn copy_line(
    sensor: SensorIdentifier,
    item: &Measurement,
    value: &str,
    received_at: Timestamp,
    line: &mut Vec<u8>,
) {
    use std::io::Write as _;
    let (created_at, received_at) = (item.timestamp.to_jiff(), received_at.to_jiff());
    let digest = item.digest.cast_signed();
    writeln!(line, "{sensor}\t{created_at}\t{received_at}\t{digest}\t{}\t{value}", item.revision)
        .expect("a Vec takes whatever is written to it");
}
