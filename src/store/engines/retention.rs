//! Retention: drops the expired partitions of a table, and deletes expired rows of its default
//! partition. Called by the housekeeping, once an hour. A row is deleted only if it was received before
//! the retention period, whatever its sensor's clock shows.
//!
//! Invariant: a partition is dropped only after it was detached, when it can no longer be written to,
//! and after its rows that are still within the retention have moved to the default partition.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::engine::{KeptPartitions, Retention};
use super::locks::{LOCK_TIMEOUT, PARTITIONS_LOCK, got_lock, stored_columns};
use crate::domain::Timestamp;
use crate::store::StoreError;

/// Partitions of one table dropped per round. Normally one expires per interval. If more expire at once,
/// a setting was lowered or a clock is wrong, and an operator should have time to read the warning.
pub(in crate::store) const MAX_DROPPED_PARTITIONS: usize = 4;

/// Rows deleted from one default partition per round, for the same reason: 2,700 per second for an hour.
pub(in crate::store) const MAX_DELETED_ROWS: u64 = 10_000_000;

/// Pages of the default partition (16 MiB, some 100,000 rows) per transaction: the insertion of an equal
/// row waits for the transaction that deletes it.
const PAGES_AT_ONCE: i64 = 2_048;

/// Enough to read a partition of 180 GB at 100 MB/s.
pub(in crate::store) const SCAN_TIMEOUT: &str = "set local statement_timeout = '30min'";

/// The partitions that end before a time, the oldest first: their names in SQL, and their names once
/// detached. Parameters: table, time.
const EXPIRED: &str = "\
select child.oid::regclass::text, quote_ident(child.relname || '_expired')
from pg_inherits
join pg_class child on child.oid = inhrelid
cross join lateral (
    select (regexp_match(pg_get_expr(relpartbound, oid), $$TO \\('([^']+)'\\)$$))[1]::timestamptz as until
    from pg_class where oid = child.oid
) as bound
where inhparent = $1::text::regclass and child.relkind in ('r', 'p') and until <= $2
order by until";

/// Partitions that were detached and not yet dropped. Parameter: table.
const DETACHED: &str = "\
select oid::regclass::text from pg_class
where relname like $1 || '\\_p%\\_expired' and relkind in ('r', 'p') and not relispartition
    and pg_table_is_visible(oid)";

/// Drops and deletes what has expired. Returns the number of partitions that wait for a lock that
/// another session holds.
pub(in crate::store) async fn enforce(
    retention: &Retention,
    client: &mut Client,
    kept: &mut KeptPartitions,
) -> Result<usize, StoreError> {
    let waiting = drop_partitions(retention, client, kept).await?;
    delete_expired_rows(retention, &format!("{}_default", retention.table), client).await?;
    Ok(waiting)
}

/// Drops the partitions that have expired. Returns the number of those that wait for a lock.
pub(in crate::store) async fn drop_partitions(
    retention: &Retention,
    client: &mut Client,
    kept: &mut KeptPartitions,
) -> Result<usize, StoreError> {
    let detached = client.query_typed(DETACHED, &[(&retention.table, Type::TEXT)]).await?;
    let mut waiting = 0;
    for row in detached {
        waiting += usize::from(!drop_detached(retention, client, row.get(0)).await?);
    }
    waiting += drop_expired(retention, client, kept).await?;
    Ok(waiting)
}

/// Returns the number of partitions that wait for a lock.
async fn drop_expired(
    retention: &Retention,
    client: &mut Client,
    kept: &mut KeptPartitions,
) -> Result<usize, StoreError> {
    let limit = retention.limit();
    let expired = client
        .query_typed(EXPIRED, &[(&retention.table, Type::TEXT), (&limit, Type::TIMESTAMPTZ)])
        .await?;
    kept.retain(|name, until| {
        retention.now < *until && expired.iter().any(|row| row.get::<_, &str>(0) == name)
    });
    let mut dropped = 0;
    for (index, row) in expired.iter().enumerate() {
        let (name, detached): (&str, &str) = (row.get(0), row.get(1));
        if kept.contains_key(name) {
            continue;
        }
        if dropped == MAX_DROPPED_PARTITIONS {
            tracing::warn!(
                table = retention.table,
                dropped,
                "more partitions have expired than are dropped per round; the next round continues"
            );
            break;
        }
        if let Some(newest) = newest_receipt(client, name).await?
            && newest > retention.limit()
        {
            tracing::info!(partition = name, received_at = %newest.to_jiff(), "partition kept: a row in it was received within the retention");
            kept.insert(name.to_owned(), newest.saturating_add(retention.length()));
            continue;
        }
        if !detach(retention, client, name, detached).await? {
            // Each attempt delays all writers, so there is only one per round.
            return Ok(expired.len() - index);
        }
        // A detached partition delays no statement; if it is locked, the next round drops it.
        drop_detached(retention, client, detached).await?;
        dropped += 1;
    }
    Ok(0)
}

/// False if another session holds a lock.
async fn detach(
    retention: &Retention,
    client: &mut Client,
    name: &str,
    detached: &str,
) -> Result<bool, StoreError> {
    let table = retention.table;
    // DETACH CONCURRENTLY is not possible with a default partition, so the table is locked, and its
    // writers wait while we wait. Most long holders of its lock (dumps, reads of the whole table) also
    // lock these two partitions: testing them first makes no writer wait.
    let test =
        format!("lock table only {table}_default, only {name} in access exclusive mode nowait");
    let transaction = client.transaction().await?;
    if !got_lock(transaction.batch_execute(&test).await)? {
        return Ok(false);
    }
    transaction.rollback().await?;
    let transaction = client.transaction().await?;
    // One by one, because Citus takes no several commands in one string.
    for statement in [
        format!("{LOCK_TIMEOUT}; {PARTITIONS_LOCK}"),
        format!("lock table only {table} in access exclusive mode"),
        test,
        format!("alter table {table} detach partition {name}"),
        format!("alter table {name} rename to {detached}"),
    ] {
        if !got_lock(transaction.batch_execute(&statement).await)? {
            return Ok(false);
        }
    }
    Ok(transaction.commit().await.map(|()| true)?)
}

/// False if another session still reads it.
async fn drop_detached(
    retention: &Retention,
    client: &mut Client,
    name: &str,
) -> Result<bool, StoreError> {
    let table = retention.table;
    let transaction = client.transaction().await?;
    transaction.batch_execute(LOCK_TIMEOUT).await?;
    let lock = format!("lock table {name} in access exclusive mode");
    if !got_lock(transaction.batch_execute(&lock).await)? {
        return Ok(false);
    }
    transaction.batch_execute(SCAN_TIMEOUT).await?;
    let columns = stored_columns(transaction.client(), table).await?;
    // Rows may have arrived between reading the newest receipt timestamp and DETACH.
    let rescue = format!(
        "insert into {table} ({columns}) overriding system value
         select {columns} from {name} where receipt_timestamp > $1 on conflict do nothing"
    );
    let limit = retention.limit();
    let rescued = transaction.execute_typed(&rescue, &[(&limit, Type::TIMESTAMPTZ)]).await?;
    transaction.batch_execute(&format!("drop table {name}")).await?;
    transaction.commit().await?;
    tracing::info!(partition = name, rescued, "expired partition dropped");
    Ok(true)
}

/// For the table with the rows of sensors without a correct clock: they expire by ours.
pub(in crate::store) async fn delete_expired_rows(
    retention: &Retention,
    table: &str,
    client: &mut Client,
) -> Result<(), StoreError> {
    let size =
        format!("select pg_relation_size('{table}') / current_setting('block_size')::bigint");
    let pages: i64 = client.query_typed_one(&size, &[]).await?.try_get(0)?;
    let limit = retention.limit();
    let mut deleted = 0;
    let mut first = 0;
    while first < pages {
        let end = first + PAGES_AT_ONCE;
        let delete = format!(
            "delete from {table}
             where ctid >= '({first},0)' and ctid < '({end},0)' and receipt_timestamp < $1"
        );
        deleted += client.execute_typed(&delete, &[(&limit, Type::TIMESTAMPTZ)]).await?;
        if deleted > MAX_DELETED_ROWS {
            tracing::warn!(
                table,
                deleted,
                "more rows have expired than are deleted per round; the next round continues"
            );
            break;
        }
        first = end;
    }
    if deleted > 0 {
        tracing::info!(table, deleted, "expired rows deleted");
    }
    Ok(())
}

/// Reads the whole partition: no index has this column, and another index would slow down every COPY.
/// Done once before a partition is dropped, and again after each time that a late row has kept it.
pub(in crate::store) async fn newest_receipt(
    client: &mut Client,
    partition: &str,
) -> Result<Option<Timestamp>, StoreError> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(SCAN_TIMEOUT).await?;
    let newest = format!("select max(receipt_timestamp) from {partition}");
    let newest = transaction.query_typed_one(&newest, &[]).await?;
    transaction.commit().await?;
    Ok(newest.try_get(0)?)
}
