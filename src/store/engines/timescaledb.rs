//! TimescaleDB: hypertables, whose chunks it creates and compresses by itself. Used if it is the recorded engine. What a
//! clock that is wrong makes goes to a plain table, `<table>_outlier`, so that the number of chunks is bounded.
//!
//! Invariant: a row goes to the hypertable if its interval is in `chunk_interval`, and else to the outliers. So equal
//! rows always meet in one table, whose unique index finds them.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::chunks::{LOCKED_AT_MOST, chunks, compress, drop_expired};
use super::engine::{Done, Engine, KeptPartitions, NewPartition, Retention, TableCensus};
use super::locks::{begin, in_transaction, stored_columns};
use super::retention::delete_expired_rows;
use crate::domain::{Kind, Timestamp};
use crate::store::columns::Parameters;

/// Whether the interval is recorded. Parameters: table, its begin, its end.
const HAS_INTERVAL: &str = "\
select exists (
    select 1 from chunk_interval
    where table_name = $1 and begin_timestamp = $2 and end_timestamp = $3
)";

/// Parameters: hypertable, table of outliers.
const CENSUS: &str = "\
select count(*), max(range_end),
    coalesce(hypertable_size($1::text::regclass), 0) + pg_total_relation_size($2::text::regclass),
    pg_relation_size($2::text::regclass)
from timescaledb_information.chunks
where hypertable_name = $1 and hypertable_schema = current_schema()";

fn outliers(table: &str) -> String {
    format!("{table}_outlier")
}

#[derive(Debug)]
pub(in crate::store) struct TimescaleDb;

impl Engine for TimescaleDb {
    fn tables(&self, kind: Kind) -> Vec<String> {
        vec![chunks(kind.name()), outliers(kind.name())]
    }

    fn copies_only_known_partitions(&self) -> bool {
        true
    }

    fn settle(&self, kind: Kind, columns: &str, staged: &str) -> String {
        let table = kind.name();
        let insert = |target: String, condition: &str| {
            format!(
                "insert into {target} ({columns}) select {columns} from routed where {condition} \
                 on conflict (sensor_identifier, creation_timestamp, digest) do nothing \
                 returning sensor_identifier, creation_timestamp, digest"
            )
        };
        let into_chunks = insert(chunks(table), "has_chunk");
        let into_outliers = insert(outliers(table), "not has_chunk");
        format!(
            "with routed as materialized ( \
                 select {columns}, exists ( \
                     select 1 from chunk_interval \
                     where table_name = '{table}' and begin_timestamp <= creation_timestamp \
                         and creation_timestamp < end_timestamp \
                 ) as has_chunk \
                 from {staged} order by sensor_identifier, creation_timestamp, digest \
             ), chunk_rows as ({into_chunks}), outliers as ({into_outliers}) \
             select * from chunk_rows union all select * from outliers"
        )
    }

    /// By default TimescaleDB refuses to delete more than 100,000 compressed rows.
    fn purge_setting(&self) -> &'static str {
        "set local timescaledb.max_tuples_decompressed_per_dml_transaction = 0"
    }

    fn create<'a>(&'a self, client: &'a Client, new: &'a NewPartition) -> Done<'a, ()> {
        Box::pin(async {
            let interval: Parameters<'_> = &[
                (&new.table, Type::TEXT),
                (&new.from, Type::TIMESTAMPTZ),
                (&new.to, Type::TIMESTAMPTZ),
            ];
            if client.query_typed_one(HAS_INTERVAL, interval).await?.try_get(0)? {
                return Ok(());
            }
            in_transaction(client, record(client, new)).await?;
            tracing::info!(partition = new.name, "interval of chunks recorded");
            Ok(())
        })
    }

    fn expire<'a>(
        &'a self,
        client: &'a mut Client,
        retention: &'a Retention,
        kept: &'a mut KeptPartitions,
    ) -> Done<'a, usize> {
        Box::pin(async {
            let waiting = drop_expired(client, retention, kept).await;
            delete_expired_rows(retention, &outliers(retention.table), client).await?;
            waiting
        })
    }

    fn compress<'a>(
        &'a self,
        client: &'a mut Client,
        table: &'static str,
        before: Timestamp,
    ) -> Done<'a, ()> {
        Box::pin(compress(client, table, before))
    }

    fn census<'a>(&'a self, client: &'a Client) -> Done<'a, Vec<TableCensus>> {
        Box::pin(async {
            let mut tables = Vec::new();
            for table in Kind::ALL.map(Kind::name) {
                let names =
                    [(&chunks(table) as _, Type::TEXT), (&outliers(table) as _, Type::TEXT)];
                let row = client.query_typed_one(CENSUS, &names).await?;
                tables.push(TableCensus::read(table.to_owned(), &row)?);
            }
            Ok(tables)
        })
    }
}

/// Records an interval, and moves its rows from the outliers. The lock waits for the commits that are inserting outliers;
/// later ones find the interval.
fn record_statements(new: &NewPartition, columns: &str) -> String {
    let NewPartition { table, from, to, .. } = new;
    let (from, to) = (from.to_jiff(), to.to_jiff());
    let (chunks, outliers) = (chunks(table), outliers(table));
    format!(
        "lock table {outliers} in share row exclusive mode;
         insert into chunk_interval (table_name, begin_timestamp, end_timestamp)
         values ('{table}', '{from}', '{to}') on conflict do nothing;
         with moved as (
             delete from {outliers} where creation_timestamp >= '{from}' and creation_timestamp < '{to}'
             returning {columns}
         ) insert into {chunks} ({columns}) select {columns} from moved on conflict do nothing"
    )
}

async fn record(client: &Client, new: &NewPartition) -> Result<(), tokio_postgres::Error> {
    begin(client, LOCKED_AT_MOST, "").await?;
    let columns = stored_columns(client, &chunks(new.table)).await?;
    client.batch_execute(&record_statements(new, &columns)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_to_the_chunks_only_if_its_interval_is_recorded() {
        let columns = "sensor_identifier, creation_timestamp, digest";
        let settle = TimescaleDb.settle(Kind::Heartbeat, columns, "staged_heartbeat");
        for part in [
            "table_name = 'heartbeat' and begin_timestamp <= creation_timestamp and creation_timestamp < end_timestamp",
            "insert into heartbeat_chunks (sensor_identifier, creation_timestamp, digest) \
             select sensor_identifier, creation_timestamp, digest from routed where has_chunk on conflict",
            "insert into heartbeat_outlier (sensor_identifier, creation_timestamp, digest) \
             select sensor_identifier, creation_timestamp, digest from routed where not has_chunk on conflict",
        ] {
            assert!(
                settle.split_whitespace().collect::<Vec<_>>().join(" ").contains(part),
                "{settle}"
            );
        }
    }

    #[test]
    fn recording_an_interval_locks_the_outliers_first() {
        let new = NewPartition {
            table: "measurement",
            name: String::new(),
            from: Timestamp::from_unix_microseconds(0),
            to: Timestamp::from_unix_microseconds(86_400_000_000),
        };
        let statements = record_statements(&new, "a, b");
        let lock = "lock table measurement_outlier in share row exclusive mode;";
        assert!(statements.starts_with(lock), "{statements}");
        assert!(statements.contains(">= '1970-01-01T00:00:00Z'"), "{statements}");
        assert!(statements.contains("< '1970-01-02T00:00:00Z'"), "{statements}");
    }
}
