//! Stored rejections: lists them (newest first), reads them for a replay (oldest first), and deletes
//! them. Called by the API and the replayer. Pages are bounded in rows and in bytes.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::rows::{Page, RejectionFilter, RejectionRow, RowPage};
use crate::domain::RejectionDigest;
use crate::store::columns::Parameters;
use crate::store::ingest::rejections::named;
use crate::store::{Store, StoreError};

/// Limit of the rejected bytes on a page to replay; one row is always included.
const REPLAY_PAGE_BYTES: u32 = 16 << 20;

/// Limit of the rejected bytes on a page for the API; one row is always included.
const PAGE_BYTES: u32 = 4 << 20;

/// The rejections that a replay has not read yet; none that were recorded after it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplayRange {
    /// The identifier of the last rejection that was read.
    pub after: i64,
    /// The identifier of the last rejection to replay.
    pub until: i64,
}

/// A page of rejections to replay.
#[derive(Debug)]
pub struct StoredRejectionPage {
    /// Oldest first.
    pub rows: Vec<RejectionRow>,
    /// The rejections that are left; none after the last page.
    pub rest: Option<ReplayRange>,
}

/// The conditions of a [`RejectionFilter`]; its parameters are the first seven.
pub(in crate::store) const CONDITIONS: &str = "\
($1::bigint[] is null or identifier = any ($1))
  and ($2::uuid is null or sensor_identifier = $2)
  and ($3::text is null or reason = $3)
  and ($4::text is null or kind = $4)
  and ($5::timestamptz is null or receipt_timestamp >= $5)
  and ($6::timestamptz is null or receipt_timestamp < $6)
  and ($7::uuid is null
       or sensor_identifier in (select identifier from sensor where network_identifier = $7))";

const NEWEST: &str = "select coalesce(max(identifier), 0) from rejection";

/// A [`RejectionFilter`] as the parameters of [`CONDITIONS`], followed by others.
pub(in crate::store) fn conditions<'a>(
    filter: &'a RejectionFilter,
    rest: &[(&'a (dyn ToSql + Sync), Type)],
) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![
        (&filter.identifiers, Type::INT8_ARRAY),
        (&filter.sensor, Type::UUID),
        (&filter.reason, Type::TEXT),
        (&filter.kind, Type::TEXT),
        (&filter.since, Type::TIMESTAMPTZ),
        (&filter.until, Type::TIMESTAMPTZ),
        (&filter.network, Type::UUID),
    ];
    parameters.extend(rest.iter().cloned());
    parameters
}

impl Store {
    /// A page of rejections, newest first.
    pub async fn list_rejections(
        &self,
        page: &Page<i64>,
        filter: &RejectionFilter,
    ) -> Result<RowPage<RejectionRow>, StoreError> {
        self.within(async {
            let (_turn, connection) = self.hot_connection().await?;
            Ok(read_page(&connection, filter, page, None).await?)
        })
        .await
    }

    /// A page of at most `limit` rejections of a range, oldest first; without a range, of all that exist
    /// now.
    pub async fn stored_rejections(
        &self,
        filter: &RejectionFilter,
        range: Option<ReplayRange>,
        limit: u32,
    ) -> Result<StoredRejectionPage, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            let range = match range {
                Some(range) => range,
                None => ReplayRange {
                    after: 0,
                    until: connection.query_typed_one(NEWEST, &[]).await?.get(0),
                },
            };
            let page = Page { limit, after: Some(range.after) };
            let RowPage { rows, more } =
                read_page(&connection, filter, &page, Some(range.until)).await?;
            let last = rows.last().map(|row| row.identifier);
            let rest = last.filter(|_| more).map(|after| ReplayRange { after, ..range });
            Ok(StoredRejectionPage { rows, rest })
        })
        .await
    }

    /// Deletes at most `limit` rejections, oldest first. Returns their number.
    pub async fn delete_rejections(
        &self,
        filter: &RejectionFilter,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.within(async {
            let (_turn, connection) = self.hot_connection().await?;
            let statement = format!(
                "delete from rejection where identifier in (
                     select identifier from rejection where {CONDITIONS}
                     order by identifier limit $8 for update
                 ) returning identifier"
            );
            let limit = i64::from(limit);
            let parameters = conditions(filter, &[(&limit, Type::INT8)]);
            Ok(connection.query_typed(&statement, &parameters).await?.len() as u64)
        })
        .await
    }
}

/// Newest first; with `until` oldest first, up to this identifier.
async fn read_page(
    client: &Client,
    filter: &RejectionFilter,
    page: &Page<i64>,
    until: Option<i64>,
) -> Result<RowPage<RejectionRow>, tokio_postgres::Error> {
    let (order, beyond, bytes) = match until {
        None => ("desc", "<", PAGE_BYTES),
        Some(_) => ("asc", ">", REPLAY_PAGE_BYTES),
    };
    // octet_length() of a stored bytea does not read the value.
    let statement = format!(
        "select identifier, receipt_timestamp, topic, sensor_identifier, kind, item_index,
                item_count, reason, detail, raw, delivered_once, digest, found
         from (
             select *, count(*) over () as found,
                    sum(octet_length(raw)) over (order by identifier {order}) - octet_length(raw)
                        as ahead
             from (
                 select * from rejection
                 where {CONDITIONS} and ($8::bigint is null or identifier {beyond} $8)
                     and ($9::bigint is null or identifier <= $9)
                 order by identifier {order} limit $10
             ) as page
         ) as measured
         where ahead < {bytes} order by identifier {order} limit $10 - 1"
    );
    let limit = page.row_count();
    let range: Parameters<'_> =
        &[(&page.after, Type::INT8), (&until, Type::INT8), (&limit, Type::INT8)];
    let rows = client.query_typed(&statement, &conditions(filter, range)).await?;
    let found: i64 = rows.first().map_or(Ok(0), |row| row.try_get(12))?;
    let more = found > rows.len() as i64;
    let rows = rows.iter().map(rejection).collect::<Result<_, _>>()?;
    Ok(RowPage { rows, more })
}

fn rejection(row: &Row) -> Result<RejectionRow, tokio_postgres::Error> {
    Ok(RejectionRow {
        identifier: row.try_get(0)?,
        received_at: row.try_get(1)?,
        topic: row.try_get(2)?,
        sensor: row.try_get(3)?,
        kind: row.try_get::<_, Option<&str>>(4)?.and_then(named),
        item_index: row.try_get::<_, Option<i32>>(5)?.and_then(|index| index.try_into().ok()),
        item_count: row.try_get(6)?,
        reason: row.try_get(7)?,
        detail: row.try_get(8)?,
        raw: row.try_get(9)?,
        delivered_once: row.try_get(10)?,
        digest: RejectionDigest(row.try_get::<_, uuid::Uuid>(11)?.as_u128()),
    })
}
