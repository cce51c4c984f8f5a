//! Log messages of all sensors in one list, by the sensors' clocks. Called by the API. Promises the order
//! that was asked for, a key that survives inserts, and a page that is bounded in bytes: PostgreSQL cuts it.

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::hot_page::{PAGE_BYTES, is_followed, near};
use super::pages::key;
use super::rows::{LogFilter, LogMessageRow, Order, Page, RowKey, RowPage, Selection, TimeRange};
use crate::domain::{NetworkIdentifier, Scope, SensorIdentifier, Timestamp};
use crate::store::columns::{Parameters, timestamp};

use crate::store::pool::{CHECKOUT_TIMEOUT, Checkout};
use crate::store::{Store, StoreError};

/// Which log messages to list.
#[derive(Clone, Debug)]
pub struct FleetLogFilter {
    /// Of the sensors that the caller may see.
    pub scope: Scope,
    /// Of the sensors of one network.
    pub network: Option<NetworkIdentifier>,
    /// What they say.
    pub log: LogFilter,
}

/// What tells the rows of all sensors apart, and sorts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FleetLogKey {
    /// Among those of its sensor.
    pub row: RowKey,
    /// Whose it is: two sensors can say the same at the same time.
    pub sensor: SensorIdentifier,
}

/// A log message, and whose it is.
#[derive(Clone, Debug)]
pub struct FleetLogRow {
    /// What was said.
    pub message: LogMessageRow,
    /// Who said it.
    pub sensor: SensorIdentifier,
    /// Its name for people.
    pub sensor_name: String,
    /// Where it belongs.
    pub network: NetworkIdentifier,
}

impl FleetLogRow {
    /// What a list goes on behind.
    #[must_use]
    pub const fn key(&self) -> FleetLogKey {
        FleetLogKey { row: self.message.key, sensor: self.sensor }
    }
}

impl Store {
    /// One page of the log messages of all sensors of a scope.
    ///
    /// # Errors
    /// When the database is unavailable, or it takes too long.
    pub async fn list_fleet_log(
        &self,
        (range, order): (TimeRange, Order),
        page: &Page<FleetLogKey>,
        filter: &FleetLogFilter,
    ) -> Result<RowPage<FleetLogRow>, StoreError> {
        let after = page.after.map(|key| key.row);
        let selection = Selection { range, order, page: Page { limit: page.limit, after } };
        // To plan for all partitions takes longer than to read the page, which mostly is near.
        let (first, is_all) = near(&selection);
        self.within(async {
            let until = Instant::now() + CHECKOUT_TIMEOUT;
            let _turn = self.hot_read(until).await?;
            let connection = self.connection_by(until).await?;
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

/// The rows of a page, and one more if there is one. The bound on the timestamp alone leaves partitions out.
async fn page_of(
    connection: &Checkout<'_>,
    (range, order): (TimeRange, Order),
    page: &Page<FleetLogKey>,
    filter: &FleetLogFilter,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (behind, direction) = match order {
        Order::NewestFirst => ("<", "desc"),
        Order::OldestFirst => (">", "asc"),
    };
    let sorted = format!(
        "order by creation_timestamp {direction}, digest {direction}, sensor_identifier {direction}"
    );
    let limit = page.row_count();
    let statement = format!(
        "\
select creation_timestamp, digest, receipt_timestamp, revision, severity, subject, details,
       sensor_identifier, name, network_identifier, is_followed
from (
    select page.*, lead(true) over behind as is_followed,
           sum(octet_length(subject) + coalesce(octet_length(details), 0)) over behind as bytes
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
               or (log_message.creation_timestamp {behind}= $7
                   and (log_message.creation_timestamp, digest, sensor_identifier) {behind} ($7, $8, $9)))
        order by log_message.creation_timestamp {direction}, digest {direction},
                 sensor_identifier {direction}
        limit {limit}
    ) page
    window behind as ({sorted} rows between unbounded preceding and 1 preceding)
) measured
where coalesce(bytes, 0) < {PAGE_BYTES}
{sorted}"
    );
    let uuid = |network: Option<NetworkIdentifier>| network.map(|network| network.0);
    let (own, network) = (uuid(filter.scope.network()), uuid(filter.network));
    let (from, to) = (range.from.map(Timestamp::to_jiff), range.to.map(Timestamp::to_jiff));
    let (severities, pattern) = (filter.log.severities(), filter.log.pattern());
    let after = page.after;
    let timestamp = after.map(|key| key.row.timestamp.to_jiff());
    let digest = after.map(|key| key.row.digest);
    let sensor = after.map(|key| key.sensor.0);
    let parameters: Parameters<'_> = &[
        (&own, Type::UUID),
        (&network, Type::UUID),
        (&from, Type::TIMESTAMPTZ),
        (&to, Type::TIMESTAMPTZ),
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
        message: LogMessageRow {
            key: key(row)?,
            received_at: timestamp(row, 2)?,
            revision: row.try_get(3)?,
            severity: row.try_get(4)?,
            subject: row.try_get(5)?,
            details: row.try_get(6)?,
        },
        sensor: SensorIdentifier(row.try_get(7)?),
        sensor_name: row.try_get(8)?,
        network: NetworkIdentifier(row.try_get(9)?),
    })
}
