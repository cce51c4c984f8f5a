//! Chunks of TimescaleDB: compresses the old ones, and drops those that have expired. Called by its engine in each round of
//! the housekeeping. Whatever takes too long for one chunk does not delay the others.
//!
//! Invariant: a chunk is dropped only in a transaction in which nobody can write to it, and that has seen it without rows
//! within the retention.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::engine::{KeptPartitions, Retention};
use super::locks::{LOCK_TIMEOUT, PARTITIONS_LOCK, got_lock};
use super::retention::{MAX_DROPPED_PARTITIONS, SCAN_TIMEOUT, newest_receipt};
use crate::domain::Timestamp;
use crate::store::StoreError;

/// Chunks that end before a time, the oldest first; the names are quoted. Parameters: hypertable, time, whether only those
/// that are not compressed.
const OLD_CHUNKS: &str = "\
select format('%I.%I', chunk_schema, chunk_name), range_start, range_end, is_compressed,
    format('%I.%I', chunk_schema, index_name), quote_ident(index_name)
from timescaledb_information.chunks
cross join lateral (select left(chunk_name, 54) || '_received' as index_name) as index
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

/// Writers of late rows wait while a chunk is compressed, so it must not take longer.
const COMPRESSION_TIMEOUT: &str = "set local statement_timeout = '30min'";

/// Pages at the end of a chunk (16 MiB) that show whether it still receives rows.
const NEWEST_PAGES: i64 = 2_048;

/// Writers of late rows wait while the chunk that expires is read for the last time.
pub(super) const LOCKED_AT_MOST: Duration = Duration::from_secs(10);

pub(super) fn chunks(table: &str) -> String {
    format!("{table}_chunks")
}

/// A chunk: its name in SQL, and its interval.
struct Chunk {
    name: String,
    from: Timestamp,
    to: Timestamp,
    is_compressed: bool,
    /// The index by receipt: its name in SQL, and without the schema.
    index: (String, String),
}

async fn old_chunks(
    client: &Client,
    table: &str,
    end: Timestamp,
    only_uncompressed: bool,
) -> Result<Vec<Chunk>, StoreError> {
    let parameters = [
        (&chunks(table) as _, Type::TEXT),
        (&end as _, Type::TIMESTAMPTZ),
        (&only_uncompressed as _, Type::BOOL),
    ];
    let rows = client.query_typed(OLD_CHUNKS, &parameters).await?;
    let chunk = |row: &tokio_postgres::Row| {
        Ok(Chunk {
            name: row.try_get(0)?,
            from: row.try_get(1)?,
            to: row.try_get(2)?,
            is_compressed: row.try_get(3)?,
            index: (row.try_get(4)?, row.try_get(5)?),
        })
    };
    rows.iter().map(chunk).collect()
}

/// Drops the chunks that have expired. Returns the number of those that wait.
pub(super) async fn drop_expired(
    client: &mut Client,
    retention: &Retention,
    kept: &mut KeptPartitions,
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
        let newest = match newest_receipt(client, &chunk.name).await {
            Err(error) if timed_out(&error) => {
                tracing::warn!(
                    chunk = chunk.name,
                    "expired chunk not dropped: it takes too long to read"
                );
                waiting += 1;
                continue;
            }
            newest => newest?,
        };
        if let Some(newest) = newest
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

/// False if another session holds a lock, a row has arrived since the chunk was read, or it has to be indexed first.
async fn drop_chunk(
    client: &mut Client,
    retention: &Retention,
    chunk: &Chunk,
) -> Result<bool, StoreError> {
    match try_drop_chunk(client, retention, chunk).await {
        Err(error) if timed_out(&error) => {
            tracing::warn!(
                chunk = chunk.name,
                "expired chunk not dropped: reading it once more takes longer than writers may wait"
            );
            if !chunk.is_compressed {
                index_by_receipt(client, chunk).await?;
            }
            Ok(false)
        }
        outcome => outcome,
    }
}

async fn try_drop_chunk(
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
    let limit = retention.limit();
    let late = transaction.query_typed_one(&late, &[(&limit, Type::TIMESTAMPTZ)]).await?;
    if late.try_get(0)? {
        return Ok(false);
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

fn timed_out(error: &StoreError) -> bool {
    error.sqlstate() == Some(&SqlState::QUERY_CANCELED)
}

/// With this small index the next attempt reads only the pages with late rows. Writers do not wait while it is built.
async fn index_by_receipt(client: &Client, chunk: &Chunk) -> Result<(), StoreError> {
    let (index, name) = &chunk.index;
    let row = client.query_typed_one("select current_setting('statement_timeout')", &[]).await?;
    let earlier: String = row.try_get(0)?;
    client.batch_execute(&SCAN_TIMEOUT.replace("set local", "set")).await?;
    let mut outcome = Ok(());
    // An interrupted build leaves an index that is not valid.
    for statement in [
        format!("drop index concurrently if exists {index}"),
        format!(
            "create index concurrently {name} on {} using brin (receipt_timestamp)",
            chunk.name
        ),
    ] {
        if outcome.is_ok() {
            outcome = client.batch_execute(&statement).await;
        }
    }
    client.batch_execute(&format!("set statement_timeout = '{earlier}'")).await?;
    match outcome.map_err(StoreError::from) {
        Err(error) if timed_out(&error) => Ok(()),
        outcome => outcome,
    }
}

pub(super) async fn compress(
    client: &mut Client,
    table: &'static str,
    before: Timestamp,
) -> Result<(), StoreError> {
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
    let mut compressed = 0;
    for chunk in old {
        if compressed == MAX_COMPRESSED_CHUNKS {
            break;
        }
        if receives_rows(client, &chunk.name).await? {
            tracing::debug!(chunk = chunk.name, "chunk not compressed: it still receives rows");
            continue;
        }
        compressed += 1;
        let transaction = client.transaction().await?;
        transaction.batch_execute(&format!("{LOCK_TIMEOUT}; {COMPRESSION_TIMEOUT}")).await?;
        let compress =
            format!("select compress_chunk('{}', if_not_compressed => true)", chunk.name);
        match got_lock(transaction.batch_execute(&compress).await) {
            Ok(true) => {
                transaction.commit().await?;
                tracing::info!(chunk = chunk.name, "chunk compressed");
            }
            Ok(false) => {}
            Err(error) if timed_out(&error) => {
                tracing::warn!(chunk = chunk.name, "chunk not compressed: it takes too long");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the end of the chunk holds a row that was received within a day.
async fn receives_rows(client: &Client, chunk: &str) -> Result<bool, StoreError> {
    let size =
        format!("select pg_relation_size('{chunk}') / current_setting('block_size')::bigint");
    let pages: i64 = client.query_typed_one(&size, &[]).await?.try_get(0)?;
    let newest = format!(
        "select exists (
             select 1 from {chunk}
             where ctid >= '({},0)' and receipt_timestamp > now() - interval '1 day'
         )",
        (pages - NEWEST_PAGES).max(0)
    );
    Ok(client.query_typed_one(&newest, &[]).await?.try_get(0)?)
}

/// Reads of one sensor decompress only its rows, and its equal rows are found. Of each column of the order TimescaleDB
/// keeps the maximum of every thousand rows: so a chunk need not be decompressed to tell that all of it has expired.
fn enable_compression(hypertable: &str) -> String {
    format!(
        "alter table {hypertable} set (timescaledb.compress, \
         timescaledb.compress_segmentby = 'sensor_identifier', \
         timescaledb.compress_orderby = 'creation_timestamp, digest, receipt_timestamp')"
    )
}
