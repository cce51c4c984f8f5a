//! Citus: declarative partitions, each distributed by sensor over the shards of the workers. Used if it is the recorded
//! engine. A partition is attached while it is empty, and its shards' sizes are asked of the workers.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::engine::{Done, Engine, KeptPartitions, NewPartition, Retention, TableCensus};
use super::locks::{begin, in_transaction, stored_columns};
use super::partition::{exists, is_duplicate_or_overlap};
use super::retention::{MAX_DELETED_ROWS, SCAN_TIMEOUT, drop_partitions};
use crate::domain::{Kind, Timestamp};
use crate::store::StoreError;

/// Citus changes the shards of a table one after the other, so that the statements of one transaction use the same
/// connections to a worker.
const SEQUENTIAL: &str = "set local citus.multi_shard_modify_mode = 'sequential'; ";

/// Creating a partition changes each shard; moving rows out of the default partition goes through the coordinator.
const LOCKED_AT_MOST: Duration = Duration::from_secs(30);

/// What expires between two rounds.
const DELETED_AT_ONCE: Duration = Duration::from_secs(3_600);

/// Parameter: table.
const CENSUS: &str = "\
select count(*) filter (where bound <> 'DEFAULT'),
    max((regexp_match(bound, $$TO \\('([^']+)'\\)$$))[1]::timestamptz),
    coalesce(sum(citus_total_relation_size(child, false)), 0)::int8,
    coalesce(sum(citus_relation_size(child)) filter (where bound = 'DEFAULT'), 0)::int8
from (
    select inhrelid::regclass as child, pg_get_expr(relpartbound, pg_class.oid) as bound
    from pg_inherits join pg_class on pg_class.oid = inhrelid
    where inhparent = $1::text::regclass
) as part";

#[derive(Debug)]
pub(in crate::store) struct Citus;

impl Engine for Citus {
    /// "could not create distributed plan" is what Citus answers to a generic plan that has to name a shard.
    fn plans_once(&self) -> bool {
        false
    }

    /// Citus reports what a worker refuses of a COPY as an internal error.
    fn refused_copy(&self, state: Option<&SqlState>) -> bool {
        state == Some(&SqlState::INTERNAL_ERROR)
    }

    fn create<'a>(&'a self, client: &'a Client, new: &'a NewPartition) -> Done<'a, ()> {
        Box::pin(async {
            if exists(client, new).await? {
                return Ok(());
            }
            let outcome = in_transaction(client, create(client, new)).await;
            if is_duplicate_or_overlap(&outcome) {
                return Ok(());
            }
            outcome?;
            tracing::info!(partition = new.name, "partition created");
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
            let waiting = drop_partitions(retention, client, kept).await?;
            delete_expired_rows(retention, client).await?;
            Ok(waiting)
        })
    }

    fn census<'a>(&'a self, client: &'a Client) -> Done<'a, Vec<TableCensus>> {
        Box::pin(async {
            let mut tables = Vec::new();
            for table in Kind::ALL.map(Kind::name) {
                let row = client.query_typed_one(CENSUS, &[(&table, Type::TEXT)]).await?;
                tables.push(TableCensus::read(table.to_owned(), &row)?);
            }
            Ok(tables)
        })
    }
}

/// From the default partition, an hour of receipt per transaction. By pages, as on PostgreSQL, is not possible: the rows
/// are on the workers.
async fn delete_expired_rows(retention: &Retention, client: &mut Client) -> Result<(), StoreError> {
    let table = format!("{}_default", retention.table);
    let oldest = format!("select min(receipt_timestamp) from {table} where receipt_timestamp < $1");
    let delete = format!("delete from {table} where receipt_timestamp < $1");
    let limit = retention.limit();
    let mut deleted = 0;
    while deleted <= MAX_DELETED_ROWS {
        let transaction = client.transaction().await?;
        transaction.batch_execute(SCAN_TIMEOUT).await?;
        let parameters = [(&limit as _, Type::TIMESTAMPTZ)];
        let row = transaction.query_typed_one(&oldest, &parameters).await?;
        let Some(oldest) = row.try_get::<_, Option<Timestamp>>(0)? else { break };
        let end = oldest.saturating_add(DELETED_AT_ONCE).min(limit);
        deleted += transaction.execute_typed(&delete, &[(&end, Type::TIMESTAMPTZ)]).await?;
        transaction.commit().await?;
    }
    if deleted > MAX_DELETED_ROWS {
        tracing::warn!(
            table,
            deleted,
            "more rows may have expired than are deleted per round; the next round continues"
        );
    } else if deleted > 0 {
        tracing::info!(table, deleted, "expired rows deleted");
    }
    Ok(())
}

/// Grants, statistics targets and storage parameters are left out: Citus passes on to the shards what an operator sets.
fn statements(new: &NewPartition, columns: &str) -> Vec<String> {
    let NewPartition { table, name, from, to } = new;
    let (from, to) = (from.to_jiff(), to.to_jiff());
    let is_moved = format!("creation_timestamp >= '{from}' and creation_timestamp < '{to}'");
    vec![
        format!("lock table {table}_default in access exclusive mode"),
        format!(
            "create temporary table moved on commit drop as \
             select {columns} from {table}_default where {is_moved}"
        ),
        format!("delete from {table}_default where {is_moved}"),
        format!("create table {name} (like {table} including all excluding identity)"),
        format!(
            "alter table {table} attach partition {name} for values from ('{from}') to ('{to}')"
        ),
        format!("insert into {table} ({columns}) select {columns} from moved"),
    ]
}

async fn create(client: &Client, new: &NewPartition) -> Result<(), tokio_postgres::Error> {
    begin(client, LOCKED_AT_MOST, SEQUENTIAL).await?;
    let columns = stored_columns(client, new.table).await?;
    // Citus takes no several commands in one string.
    for statement in statements(new, &columns) {
        client.batch_execute(&statement).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_attached_while_it_is_empty() {
        let new = NewPartition {
            table: "measurement",
            name: "measurement_p1970_01_01".into(),
            from: Timestamp::from_unix_microseconds(0),
            to: Timestamp::from_unix_microseconds(604_800_000_000),
        };
        let statements = statements(&new, "a, b");
        let position = |of: &str| statements.iter().position(|it| it.starts_with(of)).unwrap();
        assert!(position("lock table measurement_default") < position("create temporary table"));
        assert!(
            position("delete from measurement_default")
                < position("alter table measurement attach")
        );
        assert!(
            position("alter table measurement attach") < position("insert into measurement (a, b)")
        );
        assert!(statements.iter().all(|statement| !statement.contains(';')), "{statements:?}");
    }
}
