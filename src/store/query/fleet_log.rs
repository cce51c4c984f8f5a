//! Log messages of all sensors in one list, by the sensors' clocks. Called by the API. A page's key remains
//! valid after inserts, and PostgreSQL bounds a page also in bytes.

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::hot_page::{PAGE_BYTES, is_followed, near};
use super::pages::log_message;
use super::rows::{LogFilter, LogMessageRow, Order, Page, RowKey, RowPage, Selection, TimeRange};
use crate::domain::{NetworkIdentifier, Scope, SensorIdentifier};
use crate::store::columns::Parameters;
use crate::store::pool::Checkout;
use crate::store::{Store, StoreError};

/// Conditions that a listed log message fulfils.
#[derive(Clone, Debug)]
pub struct FleetLogFilter {
    /// The networks that the caller may see.
    pub scope: Scope,
    /// The sensor's network.
    pub network: Option<NetworkIdentifier>,
    /// The message's severity and text.
    pub log: LogFilter,
}

/// The key of a row among those of all sensors, and its order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FleetLogKey {
    /// The key among the rows of its sensor.
    pub row: RowKey,
    /// Distinguishes equal messages of two sensors.
    pub sensor: SensorIdentifier,
}

/// A log message with its sensor.
#[derive(Clone, Debug)]
pub struct FleetLogRow {
    /// The message.
    pub message: LogMessageRow,
    /// The sensor's identifier.
    pub sensor: SensorIdentifier,
    /// The sensor's name.
    pub sensor_name: String,
    /// The sensor's network.
    pub network: NetworkIdentifier,
}

impl FleetLogRow {
    /// The key after which a list continues.
    pub const fn key(&self) -> FleetLogKey {
        FleetLogKey { row: self.message.key, sensor: self.sensor }
    }
}

impl Store {
    /// One page of the log messages of all sensors of a scope.
    pub async fn list_fleet_log(
        &self,
        (range, order): (TimeRange, Order),
        page: &Page<FleetLogKey>,
        filter: &FleetLogFilter,
    ) -> Result<RowPage<FleetLogRow>, StoreError> {
        let after = page.after.map(|key| key.row);
        let selection = Selection { range, order, page: Page { limit: page.limit, after } };
        // Planning for all partitions takes longer than reading the page; see `pages`.
        let (first, is_all) = near(&selection);
        self.within(async {
            let (_turn, connection) = self.hot_connection().await?;
            let mut rows = page_of(&connection, (first.range, order), page, filter).await?;
            let limit = page.limit as usize;
            if !is_all && rows.len() <= limit && !is_followed(&rows)? {
                rows = page_of(&connection, (range, order), page, filter).await?;
            }
            let shown = rows.len().min(limit);
            let more = shown < rows.len() || is_followed(&rows)?;
            let rows = rows.iter().take(shown).map(fleet_log_row).collect::<Result<_, _>>()?;
            Ok(RowPage { rows, more })
        })
        .await
    }
}

/// The rows of a page, and one more if there is one. The condition on the timestamp alone excludes
/// partitions.
async fn page_of(
    connection: &Checkout<'_>,
    (range, order): (TimeRange, Order),
    page: &Page<FleetLogKey>,
    filter: &FleetLogFilter,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (operator, direction) = match order {
        Order::NewestFirst => ("<", "desc"),
        Order::OldestFirst => (">", "asc"),
    };
    let sorted = format!(
        "order by creation_timestamp {direction}, digest {direction}, sensor_identifier {direction}"
    );
    let limit = page.row_count();
    let statement = format!(
        "\
select creation_timestamp, digest, receipt_timestamp, timed_at_receipt, revision, severity, subject, details,
       sensor_identifier, name, network_identifier, is_followed
from (
    select page.*, lead(true) over preceding_rows as is_followed,
           sum(octet_length(subject) + coalesce(octet_length(details), 0)) over preceding_rows as bytes
    from (
        select log_message.*, name, network_identifier
        from log_message join sensor on sensor.identifier = sensor_identifier
        where ($1::uuid is null or network_identifier = $1)
          and ($2::uuid is null or network_identifier = $2)
          and ($3::timestamptz is null or log_message.creation_timestamp >= $3)
          and ($4::timestamptz is null or log_message.creation_timestamp < $4)
          and ($5::text[] is null or severity = any ($5))
          and ($6::text is null or subject ilike $6 or details ilike $6)
          and ($7::timestamptz is null
               or (log_message.creation_timestamp {operator}= $7
                   and (log_message.creation_timestamp, digest, sensor_identifier) {operator} ($7, $8, $9)))
        order by log_message.creation_timestamp {direction}, digest {direction},
                 sensor_identifier {direction}
        limit {limit}
    ) page
    window preceding_rows as ({sorted} rows between unbounded preceding and 1 preceding)
) measured
where coalesce(bytes, 0) < {PAGE_BYTES}
{sorted}"
    );
    let (severities, pattern) = (filter.log.severities(), filter.log.pattern());
    let after = page.after;
    let timestamp = after.map(|key| key.row.timestamp);
    let digest = after.map(|key| key.row.digest);
    let sensor = after.map(|key| key.sensor);
    let parameters: Parameters<'_> = &[
        (&filter.scope, Type::UUID),
        (&filter.network, Type::UUID),
        (&range.from, Type::TIMESTAMPTZ),
        (&range.to, Type::TIMESTAMPTZ),
        (&severities, Type::TEXT_ARRAY),
        (&pattern, Type::TEXT),
        (&timestamp, Type::TIMESTAMPTZ),
        (&digest, Type::INT8),
        (&sensor, Type::UUID),
    ];
    connection.query_typed(&statement, parameters).await
}

fn fleet_log_row(row: &Row) -> Result<FleetLogRow, tokio_postgres::Error> {
    Ok(FleetLogRow {
        message: log_message(row)?,
        sensor: row.try_get(8)?,
        sensor_name: row.try_get(9)?,
        network: row.try_get(10)?,
    })
}
