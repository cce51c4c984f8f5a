//! Writes the rows of a batch into their tables: by COPY, or by COPY into a staging table and `insert`
//! from there. Called by the commit, within its transaction.

use std::pin::pin;

use futures_util::SinkExt as _;
use tokio_postgres::Statement;
use uuid::Uuid;

use super::copy;
use crate::domain::{Batch, Kind, RowRef, Rows, Timestamp};
use crate::store::StoreError;
use crate::store::ingest::writer_connection::WriterConnection;

/// Rows in one part of a COPY stream: about 100 KB of small rows, which fits the CPU cache.
const ROWS_PER_PART: usize = 800;

/// How the rows of a batch reach their tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyMode {
    /// COPY into the table. One row that is already stored fails the batch.
    Direct,
    /// COPY into a staging table, and from there only what is new.
    Staged,
}

/// Returns the rows that went through the staging table and were new. Rows that were copied directly
/// are all new.
pub(in crate::store) async fn rows(
    connection: &WriterConnection,
    batch: &Batch,
    kind: Kind,
    rows: &Rows,
    mode: CopyMode,
) -> Result<Vec<RowRef>, StoreError> {
    match mode {
        CopyMode::Direct => {
            let table = connection.copy(kind);
            copy_in(connection, table, batch, kind, &rows.new).await?;
            staged(connection, batch, kind, &rows.maybe_duplicate).await
        }
        CopyMode::Staged => staged(connection, batch, kind, &rows.all()).await,
    }
}

/// Returns the rows that were new, in the order of `rows`.
pub(in crate::store) async fn staged(
    connection: &WriterConnection,
    batch: &Batch,
    kind: Kind,
    rows: &[RowRef],
) -> Result<Vec<RowRef>, StoreError> {
    let staging = connection.staging(kind);
    if copy_in(connection, &staging.copy, batch, kind, rows).await? == 0 {
        return Ok(Vec::new());
    }
    let new: foldhash::HashSet<(Uuid, i64, i64)> = connection
        .client
        .query(&staging.settle, &[])
        .await?
        .iter()
        .map(|row| {
            let timestamp = Timestamp::from(row.get::<_, jiff::Timestamp>(1));
            (row.get(0), timestamp.unix_microseconds(), row.get(2))
        })
        .collect();
    let is_new = |row: &&RowRef| {
        let timestamp = row.timestamp.unix_microseconds();
        new.contains(&(row.sensor.0, timestamp, row.digest.cast_signed()))
    };
    Ok(rows.iter().filter(is_new).copied().collect())
}

async fn copy_in(
    connection: &WriterConnection,
    statement: &Statement,
    batch: &Batch,
    kind: Kind,
    rows: &[RowRef],
) -> Result<u64, StoreError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let mut sink = pin!(connection.client.copy_in(statement).await?);
    let mut encoder = copy::Encoder::begin(connection.receipt_times);
    for part in rows.chunks(ROWS_PER_PART) {
        sink.feed(encoder.rows(kind, batch, part)).await?;
    }
    sink.feed(encoder.end()).await?;
    Ok(sink.finish().await?)
}
