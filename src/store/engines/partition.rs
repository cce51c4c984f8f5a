//! Creates one declarative partition with all properties of its table. Called by the engines that have them.
//! It waits at most 1 s for a lock, locks no other partition than the default one, and leaves nothing
//! behind if it fails.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::engine::NewPartition;
use super::locks::{self, in_transaction, stored_columns};
use crate::store::StoreError;

/// ATTACH reads the default partition while it is locked, and so does moving rows out of it. If that
/// takes longer than this, the rows stay there.
const LOCKED_AT_MOST: Duration = Duration::from_secs(10);

/// Sets the role to the table's owner for this transaction, so that the partition has the same owner,
/// and the default tablespace and access method to the table's. Parameter: table.
const AS_THE_TABLE: &str = "\
select set_config('role', case pg_get_userbyid(relowner)
           when current_user then current_setting('role') else pg_get_userbyid(relowner) end, true),
       set_config('default_tablespace',
           coalesce(spcname, current_setting('default_tablespace')), true),
       set_config('default_table_access_method',
           coalesce(amname, current_setting('default_table_access_method')), true)
from pg_class
left join pg_tablespace on pg_tablespace.oid = reltablespace
left join pg_am on pg_am.oid = relam
where pg_class.oid = $1::text::regclass";

/// The statements that give a partition what neither LIKE nor ATTACH copies: statistics targets and
/// options of columns, the default partition's storage parameters, the table's grants, its replica
/// identity. PostgreSQL 15.20 and later keep a version of each column in its options, as `pg_attver`, which is not
/// copied. Under row-level security no grant is copied, because a partition has no policies.
/// Parameters: table, partition.
const TO_INHERIT: &str = "\
with parent as (select * from pg_class where oid = $1::text::regclass),
columns as (
    select attname, attstattarget, attacl, array(
        select option from unnest(attoptions) as option where option not like 'pg\\_%'
    ) as options
    from pg_attribute join parent on attrelid = oid
    where attnum > 0 and not attisdropped
),
grants as (
    select '' as columns, acl.* from parent, aclexplode(relacl) as acl
    union all
    select format(' (%I)', attname), acl.* from columns, aclexplode(attacl) as acl
),
identity as (
    select parent.relreplident as kind, (
        select quote_ident(part.relname)
        from pg_index of_table
        join pg_inherits on inhparent = of_table.indexrelid
        join pg_index of_part on of_part.indexrelid = inhrelid
        join pg_class part on part.oid = inhrelid
        where of_table.indrelid = parent.oid and of_part.indrelid = $2::text::regclass
          and (of_table.indisreplident or parent.relreplident = 'd'
              and of_table.indexrelid = to_regclass($1 || '_identity'))
    ) as index from parent
)
select format('alter table %s alter column %I set statistics %s', $2, attname, attstattarget)
from columns where attstattarget >= 0
union all
select format('alter table %s alter column %I set (%s)', $2, attname, array_to_string(options, ', '))
from columns where options <> '{}'
union all
select format('alter table %s set (%s)', $2, array_to_string(reloptions, ', '))
from pg_class where oid = to_regclass($1 || '_default') and reloptions is not null
union all
select format('grant %s%s on %s to %s%s', privilege_type, grants.columns, $2,
    case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
    case when is_grantable then ' with grant option' else '' end)
from grants, parent where grantee <> relowner and not relrowsecurity
union all
select format('alter table %s replica identity %s', $2, case
    when kind = 'f' then 'full' when kind = 'n' then 'nothing' else 'using index ' || index end)
from identity where kind in ('f', 'n') or index is not null";

/// Statements for the partitions without a replica identity, which logical replication needs for
/// deletions: those of earlier versions, and the default one. Parameter: table.
const WITHOUT_IDENTITY: &str = "\
select format('alter table %s replica identity using index %I', indrelid::regclass, index.relname)
from pg_partition_tree(to_regclass($1 || '_identity')) as tree
join pg_class index on index.oid = tree.relid
join pg_index on indexrelid = tree.relid
join pg_class of_index on of_index.oid = indrelid
where of_index.relreplident = 'd'";

/// Creates a partition if it does not exist, and moves its rows from the default partition.
/// If that fails, its rows go to the default partition.
pub(in crate::store) async fn create(
    client: &Client,
    new: &NewPartition,
) -> Result<(), StoreError> {
    if exists(client, new).await? {
        return Ok(());
    }
    let mut outcome = in_transaction(client, attach(client, new, false)).await;
    // The default partition holds rows of it, which is rare.
    if is(&outcome, &SqlState::CHECK_VIOLATION) {
        outcome = in_transaction(client, attach(client, new, true)).await;
    }
    if is_duplicate_or_overlap(&outcome) {
        tracing::debug!(partition = new.name, "partition exists, or would overlap another");
        return Ok(());
    }
    outcome?;
    tracing::info!(partition = new.name, "partition created");
    Ok(())
}

pub(in crate::store) async fn exists(
    client: &Client,
    new: &NewPartition,
) -> Result<bool, StoreError> {
    let exists = "select to_regclass($1) is not null";
    Ok(client.query_typed_one(exists, &[(&new.name, Type::TEXT)]).await?.try_get(0)?)
}

/// Another session has created it, or it overlaps a partition that was created with another PARTITION_INTERVAL_DAYS.
pub(in crate::store) fn is_duplicate_or_overlap(
    outcome: &Result<(), tokio_postgres::Error>,
) -> bool {
    is(outcome, &SqlState::DUPLICATE_TABLE) || is(outcome, &SqlState::INVALID_OBJECT_DEFINITION)
}

async fn attach(
    client: &Client,
    new: &NewPartition,
    moves: bool,
) -> Result<(), tokio_postgres::Error> {
    let NewPartition { table, name, from, to } = new;
    let (from, to) = (from.to_jiff(), to.to_jiff());
    begin(client, table).await?;
    // Identity columns take their values from the table; a partition must not have its own.
    let create = format!("create table {name} (like {table} including all excluding identity)");
    client.batch_execute(&create).await?;
    if moves {
        let columns = stored_columns(client, table).await?;
        let take = format!(
            "lock table only {table}_default in access exclusive mode;
             with moved as (
                 delete from {table}_default
                 where creation_timestamp >= '{from}' and creation_timestamp < '{to}'
                 returning {columns}
             ) insert into {name} ({columns}) select {columns} from moved"
        );
        client.batch_execute(&take).await?;
    }
    let attach = format!(
        "alter table {table} attach partition {name} for values from ('{from}') to ('{to}')"
    );
    client.batch_execute(&attach).await?;
    let parameters = [(table as _, Type::TEXT), (name as _, Type::TEXT)];
    run(client, &client.query_typed(TO_INHERIT, &parameters).await?).await
}

/// Gives the partitions without a replica identity that of their table: otherwise deletions fail while
/// the table is published.
pub(in crate::store) async fn give_identities(
    client: &Client,
    table: &str,
) -> Result<(), StoreError> {
    let parameters = [(&table as _, Type::TEXT)];
    let statements = client.query_typed(WITHOUT_IDENTITY, &parameters).await?;
    for statement in statements.chunks(1) {
        let alter = async {
            begin(client, table).await?;
            run(client, statement).await
        };
        in_transaction(client, alter).await?;
    }
    Ok(())
}

async fn begin(client: &Client, table: &str) -> Result<(), tokio_postgres::Error> {
    locks::begin(client, LOCKED_AT_MOST, "").await?;
    client.query_typed(AS_THE_TABLE, &[(&table, Type::TEXT)]).await.map(drop)
}

/// Runs the statements that a query has returned.
async fn run(client: &Client, rows: &[tokio_postgres::Row]) -> Result<(), tokio_postgres::Error> {
    let statements: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    client.batch_execute(&statements.join("; ")).await
}

fn is(outcome: &Result<(), tokio_postgres::Error>, state: &SqlState) -> bool {
    outcome.as_ref().is_err_and(|error| error.code() == Some(state))
}
