//! PostgreSQL without an extension: declarative partitions, with a default one. Used unless another engine is recorded.
//! A partition is created and dropped whole, and its size is read from the system catalogue.

use tokio_postgres::Client;

use super::engine::{Done, Engine, KeptPartitions, NewPartition, Retention, TableCensus};
use super::{partition, retention};
use crate::domain::Kind;

/// Parameter: tables.
const CENSUS: &str = "\
select count(*) filter (where bound <> 'DEFAULT'),
    max((regexp_match(bound, $$TO \\('([^']+)'\\)$$))[1]::timestamptz),
    coalesce(sum(pg_total_relation_size(child)), 0)::int8,
    coalesce(sum(pg_relation_size(child)) filter (where bound = 'DEFAULT'), 0)::int8,
    parent.relname::text
from pg_class parent
join (
    select inhparent, inhrelid as child, pg_get_expr(relpartbound, pg_class.oid) as bound
    from pg_inherits join pg_class on pg_class.oid = inhrelid
) as part on inhparent = parent.oid
where parent.oid = any ($1::text[]::regclass[])
group by parent.relname";

#[derive(Debug)]
pub(in crate::store) struct Postgres;

impl Engine for Postgres {
    fn create<'a>(&'a self, client: &'a Client, new: &'a NewPartition) -> Done<'a, ()> {
        Box::pin(partition::create(client, new))
    }

    fn complete<'a>(&'a self, client: &'a Client, table: &'static str) -> Done<'a, ()> {
        Box::pin(partition::give_identities(client, table))
    }

    fn expire<'a>(
        &'a self,
        client: &'a mut Client,
        retention: &'a Retention,
        kept: &'a mut KeptPartitions,
    ) -> Done<'a, usize> {
        Box::pin(retention::enforce(retention, client, kept))
    }

    fn census<'a>(&'a self, client: &'a Client) -> Done<'a, Vec<TableCensus>> {
        Box::pin(async {
            let rows = client.query(CENSUS, &[&Kind::ALL.map(Kind::name).as_slice()]).await?;
            rows.iter().map(|row| TableCensus::read(row.try_get(4)?, row)).collect()
        })
    }
}
