//! TimescaleDB: hypertables, whose chunks it creates and compresses by itself. Used if it is the recorded engine. What a
//! clock that is wrong makes goes to a plain table, `<table>_outlier`, so that the number of chunks is bounded.
//!
//! Invariant: a row goes to the hypertable if its interval is in `chunk_interval`, and else to the outliers. So equal
//! rows always meet in one table, whose unique index finds them.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::engine::{Compression, Done, Engine, Kept, NewPartition, Retention, TableCensus};
use super::locks::{LOCK_TIMEOUT, PARTITIONS_LOCK, got_lock, in_transaction, stored_columns};
use super::retention::{MAX_DROPPED_PARTITIONS, delete_expired_rows, newest_receipt};
use crate::domain::{Kind, Timestamp};
use crate::store::StoreError;
use crate::store::columns::Parameters;

/// Whether the interval is recorded. Parameters: table, its begin, its end.
const HAS_INTERVAL: &str = "\
select exists (
    select 1 from chunk_interval
    where table_name = $1 and begin_timestamp = $2 and end_timestamp = $3
)";

/// Chunks that end before a time, the oldest first; the name is quoted. Parameters: hypertable, time, whether only those
/// that are not compressed.
const OLD_CHUNKS: &str = "\
select format('%I.%I', chunk_schema, chunk_name), range_start, range_end
from timescaledb_information.chunks
where hypertable_name = $1 and hypertable_schema = current_schema() and range_end <= $2
    and not ($3 and is_compressed)
order by range_end";

const DROP_CHUNK: &str =
    "select drop_chunks($1::text::regclass, older_than => $2, newer_than => $3)";

/// Compression is not in the edition under the Apache licence.
const CAN_COMPRESS: &str =
    "select coalesce(current_setting('timescaledb.license', true) = 'timescale', false)";

const IS_COMPRESSIBLE: &str = "\
select exists (
    select 1 from timescaledb_information.hypertables
    where hypertable_name = $1 and hypertable_schema = current_schema() and compression_enabled
)";

/// Chunks of one table compressed per round: a chunk takes seconds per million rows.
const MAX_COMPRESSED_CHUNKS: usize = 4;

const COMPRESSION_TIMEOUT: &str = "set local statement_timeout = '30min'";

/// Writers of late rows wait while the chunk that expires is read for the last time.
const LOCKED_AT_MOST: Duration = Duration::from_secs(10);

/// Parameters: hypertable, table of outliers.
const CENSUS: &str = "\
select count(*), max(range_end),
    coalesce(hypertable_size($1::text::regclass), 0) + pg_total_relation_size($2::text::regclass),
    pg_relation_size($2::text::regclass)
from timescaledb_information.chunks
where hypertable_name = $1 and hypertable_schema = current_schema()";

fn chunks(table: &str) -> String {
    format!("{table}_chunks")
}

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

    fn create<'a>(&'a self, client: &'a Client, new: &'a NewPartition) -> Done<'a, ()> {
        Box::pin(async {
            let (from, to) = (new.from.to_jiff(), new.to.to_jiff());
            let interval: Parameters<'_> =
                &[(&new.table, Type::TEXT), (&from, Type::TIMESTAMPTZ), (&to, Type::TIMESTAMPTZ)];
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
        kept: &'a mut Kept,
    ) -> Done<'a, usize> {
        Box::pin(async {
            let waiting = drop_expired(client, retention, kept).await?;
            delete_expired_rows(retention, &outliers(retention.table), client).await?;
            Ok(waiting)
        })
    }

    fn compress<'a>(&'a self, client: &'a mut Client, compression: Compression) -> Done<'a, ()> {
        Box::pin(compress(client, compression))
    }

    fn census<'a>(&'a self, client: &'a Client) -> Done<'a, Vec<TableCensus>> {
        Box::pin(async {
            let mut tables = Vec::new();
            for table in Kind::ALL.map(Kind::name) {
                let names =
                    [(&chunks(table) as _, Type::TEXT), (&outliers(table) as _, Type::TEXT)];
                let row = client.query_typed_one(CENSUS, &names).await?;
                tables.push(TableCensus {
                    table: table.to_owned(),
                    partitions: row.try_get(0)?,
                    end: row.try_get::<_, Option<jiff::Timestamp>>(1)?.map(Timestamp::from),
                    bytes: row.try_get(2)?,
                    default_bytes: row.try_get(3)?,
                });
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
    let timeout = LOCKED_AT_MOST.as_millis();
    let begin = format!(
        "begin; set local statement_timeout = {timeout}; {LOCK_TIMEOUT}; {PARTITIONS_LOCK}"
    );
    client.batch_execute(&begin).await?;
    let columns = stored_columns(client, &chunks(new.table)).await?;
    client.batch_execute(&record_statements(new, &columns)).await
}

/// A chunk: its name in SQL, and its interval.
struct Chunk {
    name: String,
    from: jiff::Timestamp,
    to: jiff::Timestamp,
}

async fn old_chunks(
    client: &Client,
    table: &str,
    end: Timestamp,
    only_uncompressed: bool,
) -> Result<Vec<Chunk>, StoreError> {
    let parameters = [
        (&chunks(table) as _, Type::TEXT),
        (&end.to_jiff() as _, Type::TIMESTAMPTZ),
        (&only_uncompressed as _, Type::BOOL),
    ];
    let rows = client.query_typed(OLD_CHUNKS, &parameters).await?;
    let chunk = |row: &tokio_postgres::Row| {
        Ok(Chunk { name: row.try_get(0)?, from: row.try_get(1)?, to: row.try_get(2)? })
    };
    rows.iter().map(chunk).collect()
}

async fn drop_expired(
    client: &mut Client,
    retention: &Retention,
    kept: &mut Kept,
) -> Result<usize, StoreError> {
    let expired = old_chunks(client, retention.table, retention.limit(), false).await?;
    kept.retain(|name, until| {
        retention.now < *until && expired.iter().any(|chunk| chunk.name == *name)
    });
    let (mut dropped, mut waiting) = (0, 0);
    for chunk in expired {
        if kept.contains_key(&chunk.name) {
            continue;
        }
        if dropped == MAX_DROPPED_PARTITIONS {
            tracing::warn!(
                table = retention.table,
                dropped,
                "more chunks have expired than are dropped per round; the next round continues"
            );
            break;
        }
        if let Some(newest) = newest_receipt(client, &chunk.name).await?
            && newest > retention.limit()
        {
            tracing::info!(chunk = chunk.name, received_at = %newest.to_jiff(), "chunk kept: a row in it was received within the retention");
            kept.insert(chunk.name, newest.saturating_add(retention.length()));
            continue;
        }
        match drop_chunk(client, retention, &chunk).await? {
            true => dropped += 1,
            false => waiting += 1,
        }
    }
    Ok(waiting)
}

/// False if another session holds a lock, or a row has arrived since the chunk was read.
async fn drop_chunk(
    client: &mut Client,
    retention: &Retention,
    chunk: &Chunk,
) -> Result<bool, StoreError> {
    let transaction = client.transaction().await?;
    let lock = format!(
        "{LOCK_TIMEOUT}; {PARTITIONS_LOCK}; set local statement_timeout = {};
         lock table {} in exclusive mode",
        LOCKED_AT_MOST.as_millis(),
        chunk.name
    );
    if !got_lock(transaction.batch_execute(&lock).await)? {
        return Ok(false);
    }
    let late = format!("select exists (select 1 from {} where receipt_timestamp > $1)", chunk.name);
    let limit = retention.limit().to_jiff();
    match transaction.query_typed_one(&late, &[(&limit, Type::TIMESTAMPTZ)]).await {
        // Reading it takes longer than writers of late rows may wait.
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
            tracing::warn!(
                chunk = chunk.name,
                "expired chunk not dropped: reading it once more takes too long; compress it"
            );
            return Ok(false);
        }
        late => {
            if late?.try_get(0)? {
                return Ok(false);
            }
        }
    }
    let parameters = [
        (&chunks(retention.table) as _, Type::TEXT),
        (&chunk.to as _, Type::TIMESTAMPTZ),
        (&chunk.from as _, Type::TIMESTAMPTZ),
    ];
    let dropped = transaction.query_typed(DROP_CHUNK, &parameters).await.map(drop);
    if !got_lock(dropped)? {
        return Ok(false);
    }
    transaction.commit().await?;
    tracing::info!(chunk = chunk.name, "expired chunk dropped");
    Ok(true)
}

async fn compress(client: &mut Client, compression: Compression) -> Result<(), StoreError> {
    let Compression { table, before } = compression;
    let hypertable = chunks(table);
    if !client.query_typed_one(CAN_COMPRESS, &[]).await?.try_get(0)? {
        return Ok(());
    }
    let old = old_chunks(client, table, before, true).await?;
    if old.is_empty() {
        return Ok(());
    }
    let name = [(&hypertable as _, Type::TEXT)];
    if !client.query_typed_one(IS_COMPRESSIBLE, &name).await?.try_get::<_, bool>(0)? {
        client
            .batch_execute(&format!(
                "begin; {LOCK_TIMEOUT}; {}; commit",
                enable_compression(&hypertable)
            ))
            .await?;
    }
    for chunk in old.into_iter().take(MAX_COMPRESSED_CHUNKS) {
        let transaction = client.transaction().await?;
        transaction.batch_execute(&format!("{LOCK_TIMEOUT}; {COMPRESSION_TIMEOUT}")).await?;
        let compress =
            format!("select compress_chunk('{}', if_not_compressed => true)", chunk.name);
        if got_lock(transaction.batch_execute(&compress).await)? {
            transaction.commit().await?;
            tracing::info!(chunk = chunk.name, "chunk compressed");
        }
    }
    Ok(())
}

/// Reads of one sensor decompress only its rows, and its equal rows are found.
fn enable_compression(hypertable: &str) -> String {
    format!(
        "alter table {hypertable} set (timescaledb.compress, \
         timescaledb.compress_segmentby = 'sensor_identifier', \
         timescaledb.compress_orderby = 'creation_timestamp, digest')"
    )
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
