//! The partitions and sizes of the hot tables. Called by the metrics, once a minute. Reads only the
//! system catalogue.

use crate::domain::{Kind, Timestamp};
use crate::store::ingest::writer_connection::table;
use crate::store::pool::BACKGROUND_TIMEOUT;
use crate::store::{Store, StoreError};

/// Parameter: tables.
const CENSUS: &str = "\
select parent.relname::text,
    count(*) filter (where bound <> 'DEFAULT'),
    max((regexp_match(bound, $$TO \\('([^']+)'\\)$$))[1]::timestamptz),
    coalesce(sum(pg_total_relation_size(child)), 0)::int8,
    coalesce(sum(pg_relation_size(child)) filter (where bound = 'DEFAULT'), 0)::int8
from pg_class parent
join (
    select inhparent, inhrelid as child, pg_get_expr(relpartbound, pg_class.oid) as bound
    from pg_inherits join pg_class on pg_class.oid = inhrelid
) as part on inhparent = parent.oid
where parent.oid = any ($1::text[]::regclass[])
group by parent.relname";

/// One table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableCensus {
    /// The table's name.
    pub table: String,
    /// The number of partitions, without the default partition.
    pub partitions: i64,
    /// The end of the newest partition.
    pub end: Option<Timestamp>,
    /// Its size on disk, including indexes.
    pub bytes: i64,
    /// The size of its default partition, without indexes.
    pub default_bytes: i64,
}

impl Store {
    /// The census of every partitioned table.
    ///
    /// # Errors
    /// When the database is unavailable, or its tables do not exist.
    pub async fn census(&self) -> Result<Vec<TableCensus>, StoreError> {
        let rows = Self::answered_within(BACKGROUND_TIMEOUT, async {
            Ok(self.connection().await?.query(CENSUS, &[&Kind::ALL.map(table).as_slice()]).await?)
        })
        .await?;
        rows.iter()
            .map(|row| {
                Ok(TableCensus {
                    table: row.try_get(0)?,
                    partitions: row.try_get(1)?,
                    end: row.try_get::<_, Option<jiff::Timestamp>>(2)?.map(Timestamp::from),
                    bytes: row.try_get(3)?,
                    default_bytes: row.try_get(4)?,
                })
            })
            .collect()
    }
}
