//! Pages of the hot tables: what one sensor said, by its own clock. Called by the API. Promises the
//! order that was asked for, a key that survives inserts, and a page that is bounded in bytes too:
//! PostgreSQL cuts it, so that no more is sent.
//!
//! A table can have hundreds of partitions, and to plan for all of them takes longer than to read a
//! page. Most pages lie near their beginning, so that part is asked for first, which leaves the other
//! partitions out.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::rows::{
    HeartbeatFilter, HeartbeatRow, LogFilter, LogMessageRow, MeasurementRow, Newest, Order, Page,
    RowKey, RowPage, Selection, TimeRange,
};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::columns::{Parameters, raw_json, timestamp};
use crate::store::connections::reader::{Planning, Reader};
use crate::store::pool::CHECKOUT_TIMEOUT;
use crate::store::sensors::lookups::SENSOR_EXISTS;
use crate::store::{Store, StoreError};

/// A page is cut behind the row that takes it beyond this. What holds a page holds it once as rows
/// and once as JSON.
pub(super) const PAGE_BYTES: u32 = 4 << 20;

/// Whether a page lies near its beginning shows in this part of it.
const NEAR: Duration = Duration::from_secs(14 * 86_400);

/// A table, and what is read of it.
struct Table<'a> {
    name: &'static str,
    /// What is computed of a row, once.
    columns: String,
    /// Their names.
    names: &'static str,
    /// What a row counts in bytes.
    size: &'static str,
    conditions: Conditions<'a>,
}

/// What rows must meet: only what is asked for, so that one plan serves all who ask for the same.
#[derive(Clone)]
struct Conditions<'a> {
    text: String,
    parameters: Vec<(&'a (dyn ToSql + Sync), Type)>,
}

impl<'a> Conditions<'a> {
    fn of(sensor: &'a SensorIdentifier) -> Self {
        Self {
            text: "sensor_identifier = $1".to_owned(),
            parameters: vec![(&sensor.0, Type::UUID)],
        }
    }

    /// Returns its place.
    fn bind(&mut self, value: &'a (dyn ToSql + Sync), of: Type) -> String {
        self.parameters.push((value, of));
        format!("${}", self.parameters.len())
    }

    /// One more; `{}` stands for the parameter.
    fn and(&mut self, condition: &str, value: &'a (dyn ToSql + Sync), of: Type) {
        let place = self.bind(value, of);
        self.text.push_str(" and ");
        self.text.push_str(&condition.replace("{}", &place));
    }
}

/// The bounds of a page, as PostgreSQL's driver has them.
struct Bounds {
    from: Option<jiff::Timestamp>,
    to: Option<jiff::Timestamp>,
    after: Option<(jiff::Timestamp, i64)>,
}

impl Bounds {
    fn of(selection: &Selection) -> Self {
        let Selection { range: TimeRange { from, to }, page, .. } = selection;
        Self {
            from: from.map(Timestamp::to_jiff),
            to: to.map(Timestamp::to_jiff),
            after: page.after.map(|key| (key.timestamp.to_jiff(), key.digest)),
        }
    }
}

impl<'a> Table<'a> {
    /// The statement, and its parameters. The bound on the timestamp alone says less than the one on
    /// the key, but it is the one that leaves partitions out. The limit is not a parameter: a plan
    /// that does not know it prepares for many rows.
    fn page(
        &self,
        selection: &Selection,
        bounds: &'a Bounds,
    ) -> (String, Vec<(&'a (dyn ToSql + Sync), Type)>) {
        let limit = selection.page.row_count();
        let (behind, direction) = match selection.order {
            Order::NewestFirst => ("<", "desc"),
            Order::OldestFirst => (">", "asc"),
        };
        let mut conditions = self.conditions.clone();
        if let Some(from) = &bounds.from {
            conditions.and("creation_timestamp >= {}", from, Type::TIMESTAMPTZ);
        }
        if let Some(to) = &bounds.to {
            conditions.and("creation_timestamp < {}", to, Type::TIMESTAMPTZ);
        }
        if let Some((timestamp, digest)) = &bounds.after {
            let place = conditions.bind(digest, Type::INT8);
            let condition = format!(
                "creation_timestamp {behind}= {{}} \
                 and (creation_timestamp, digest) {behind} ({{}}, {place})"
            );
            conditions.and(&condition, timestamp, Type::TIMESTAMPTZ);
        }
        let Self { name, columns, names, size, .. } = self;
        let Conditions { text, parameters } = conditions;
        let sorted = format!("order by creation_timestamp {direction}, digest {direction}");
        let statement = format!(
            "\
select {names}, is_followed
from (
    select page.*, sum({size}) over behind as bytes, lead(true) over behind as is_followed
    from (select {columns} from {name} where {text} {sorted} limit {limit}) page
    window behind as ({sorted} rows between unbounded preceding and 1 preceding)
) measured
where coalesce(bytes, 0) < {PAGE_BYTES}
{sorted}"
        );
        (statement, parameters)
    }
}

impl Store {
    /// Measurements of a sensor, with all members of their values or with these alone (then only
    /// measurements that have one of them); none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is unavailable, or it takes too long.
    pub async fn list_measurements(
        &self,
        sensor: SensorIdentifier,
        selection: &Selection,
        attributes: Option<&[String]>,
    ) -> Result<Option<RowPage<MeasurementRow>>, StoreError> {
        let mut conditions = Conditions::of(&sensor);
        let mut value = "value::text as value".to_owned();
        if let Some(attributes) = &attributes {
            conditions.and("value ?| {}", attributes, Type::TEXT_ARRAY);
            let place = conditions.parameters.len();
            value = format!(
                "(select coalesce(jsonb_object_agg(key, member), '{{}}')::text
                  from jsonb_each(value) as members (key, member) where key = any (${place})) as value"
            );
        }
        self.hot_page(sensor, selection, measurements(&value, conditions), measurement).await
    }

    /// The newest measurement of a sensor that is not of the future, or else the newest of all; none
    /// if it has none, and none of that if there is no such sensor.
    ///
    /// # Errors
    /// When the database is unavailable, or it takes too long.
    pub async fn newest_measurement(
        &self,
        sensor: SensorIdentifier,
    ) -> Result<Option<Option<Newest>>, StoreError> {
        let horizon = Timestamp::now().saturating_add(self.future_tolerance);
        let page = Page { limit: 1, after: None };
        let selection = |range| Selection { range, order: Order::NewestFirst, page };
        let past = selection(TimeRange { from: None, to: Some(horizon) });
        let future = selection(TimeRange { from: Some(horizon), to: None });
        let table = measurements("value::text as value", Conditions::of(&sensor));
        self.within(async {
            let rows = self.hot_read_of(async |reader, until| {
                let bounds = Bounds::of(&future);
                let (page, parameters) = table.page(&future, &bounds);
                tokio::try_join!(
                    biased;
                    hot_rows(reader, until, sensor, &past, &table),
                    reader.query_prepared(&page, &parameters),
                )
            });
            let (Some(past), future) = rows.await? else { return Ok(None) };
            let newest = past.first().or(future.first()).map(|row| -> Result<_, StoreError> {
                Ok(Newest {
                    row: measurement(row)?,
                    in_future: past.is_empty(),
                    newer_in_future: !past.is_empty() && !future.is_empty(),
                })
            });
            Ok(Some(newest.transpose()?))
        })
        .await
    }

    /// Log messages of a sensor; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is unavailable, or it takes too long.
    pub async fn list_log_messages(
        &self,
        sensor: SensorIdentifier,
        selection: &Selection,
        filter: &LogFilter,
    ) -> Result<Option<RowPage<LogMessageRow>>, StoreError> {
        let read = |row: &Row| {
            Ok(LogMessageRow {
                key: key(row)?,
                received_at: timestamp(row, 2)?,
                revision: row.try_get(3)?,
                severity: row.try_get(4)?,
                subject: row.try_get(5)?,
                details: row.try_get(6)?,
            })
        };
        let (severities, pattern) = (filter.severities(), filter.pattern());
        let mut conditions = Conditions::of(&sensor);
        if let Some(severities) = &severities {
            conditions.and("severity = any ({})", severities, Type::TEXT_ARRAY);
        }
        if let Some(pattern) = &pattern {
            conditions.and("(subject ilike {} or details ilike {})", pattern, Type::TEXT);
        }
        let columns =
            "creation_timestamp, digest, receipt_timestamp, revision, severity, subject, details";
        let table = Table {
            name: "log_message",
            columns: columns.to_owned(),
            names: columns,
            size: "octet_length(subject) + coalesce(octet_length(details), 0)",
            conditions,
        };
        self.hot_page(sensor, selection, table, read).await
    }

    /// Heartbeats of a sensor; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is unavailable, or it takes too long.
    pub async fn list_heartbeats(
        &self,
        sensor: SensorIdentifier,
        selection: &Selection,
        filter: HeartbeatFilter,
    ) -> Result<Option<RowPage<HeartbeatRow>>, StoreError> {
        let read = |row: &Row| {
            Ok(HeartbeatRow {
                key: key(row)?,
                received_at: timestamp(row, 2)?,
                revision: row.try_get(3)?,
                success: row.try_get(4)?,
            })
        };
        let mut conditions = Conditions::of(&sensor);
        if let Some(revision) = &filter.revision {
            conditions.and("revision = {}", revision, Type::INT4);
        }
        if let Some(success) = &filter.success {
            conditions.and("success = {}", success, Type::BOOL);
        }
        let columns = "creation_timestamp, digest, receipt_timestamp, revision, success";
        let table = Table {
            name: "heartbeat",
            columns: columns.to_owned(),
            names: columns,
            size: "0",
            conditions,
        };
        self.hot_page(sensor, selection, table, read).await
    }

    /// By a connection that is checked by what is read, and by another one if it is found lost.
    async fn hot_read_of<T>(
        &self,
        read: impl AsyncFn(&Reader, Instant) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let until = Instant::now() + CHECKOUT_TIMEOUT;
        let _turn = self.hot_read(until).await?;
        let reader = self.unchecked_connection(until).await?;
        match read(&reader, until).await {
            Err(_) if reader.is_lost() => {
                drop(reader);
                let reader = self.connection_by(until).await?;
                read(&reader, until).await
            }
            rows => rows,
        }
    }

    async fn hot_page<T>(
        &self,
        sensor: SensorIdentifier,
        selection: &Selection,
        table: Table<'_>,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<RowPage<T>>, StoreError> {
        self.within(async {
            let rows = self.hot_read_of(async |reader, until| {
                hot_rows(reader, until, sensor, selection, &table).await
            });
            let Some(rows) = rows.await? else { return Ok(None) };
            let shown = rows.len().min(selection.page.limit as usize);
            let more = shown < rows.len() || is_followed(&rows)?;
            let rows = rows.iter().take(shown).map(read).collect::<Result<_, _>>()?;
            Ok(Some(RowPage { rows, more }))
        })
        .await
    }
}

fn measurements<'a>(value: &str, conditions: Conditions<'a>) -> Table<'a> {
    Table {
        name: "measurement",
        columns: format!("creation_timestamp, digest, receipt_timestamp, revision, {value}"),
        names: "creation_timestamp, digest, receipt_timestamp, revision, value",
        size: "octet_length(value)",
        conditions,
    }
}

fn measurement(row: &Row) -> Result<MeasurementRow, tokio_postgres::Error> {
    Ok(MeasurementRow {
        key: key(row)?,
        received_at: timestamp(row, 2)?,
        revision: row.try_get(3)?,
        value: raw_json(row.try_get(4)?),
    })
}

/// The rows of a page, and one more if there is one; none if there is no such sensor. Something is heard
/// by then.
async fn hot_rows(
    reader: &Reader,
    until: Instant,
    sensor: SensorIdentifier,
    selection: &Selection,
    table: &Table<'_>,
) -> Result<Option<Vec<Row>>, StoreError> {
    let (first, is_all) = near(selection);
    let identifier: Parameters<'_> = &[(&sensor.0, Type::UUID)];
    let bounds = Bounds::of(&first);
    let (page, parameters) = table.page(&first, &bounds);
    // All are under way at once, one behind the other on the connection.
    let ((), exists, rows) = tokio::try_join!(
        biased;
        reader.health_check(Planning::Once, until),
        reader.query_prepared(SENSOR_EXISTS, identifier),
        reader.query_prepared(&page, &parameters),
    )?;
    if exists.is_empty() {
        return Ok(None);
    }
    if is_all || rows.len() > selection.page.limit as usize || is_followed(&rows)? {
        return Ok(Some(rows));
    }
    let bounds = Bounds::of(selection);
    let (page, parameters) = table.page(selection, &bounds);
    reader.query_prepared(&page, &parameters).await.map(Some)
}

/// Whether the page was cut behind these.
pub(super) fn is_followed(rows: &[Row]) -> Result<bool, tokio_postgres::Error> {
    let followed = rows.last().map(|row| row.try_get::<_, Option<bool>>("is_followed"));
    Ok(followed.transpose()?.flatten().unwrap_or(false))
}

/// The part near the beginning, and whether that is all.
pub(super) fn near(selection: &Selection) -> (Selection, bool) {
    let Selection { range: TimeRange { from, to }, order, page } = *selection;
    let after = page.after.map(|key| key.timestamp);
    let range = match order {
        Order::NewestFirst => {
            let begin = [after, to].into_iter().flatten().min().unwrap_or_else(Timestamp::now);
            let bound = begin.saturating_sub(NEAR);
            (from.is_none_or(|from| from < bound)).then_some(TimeRange { from: Some(bound), to })
        }
        Order::OldestFirst => {
            let begin = [after, from].into_iter().flatten().max();
            let bound = begin.map(|begin| begin.saturating_add(NEAR));
            bound
                .filter(|bound| to.is_none_or(|to| to > *bound))
                .map(|bound| TimeRange { from, to: Some(bound) })
        }
    };
    match range {
        Some(range) => (Selection { range, order, page }, false),
        None => (*selection, true),
    }
}

pub(super) fn key(row: &Row) -> Result<RowKey, tokio_postgres::Error> {
    Ok(RowKey { timestamp: timestamp(row, 0)?, digest: row.try_get(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Page;

    fn days(count: i64) -> Timestamp {
        Timestamp::from_unix_microseconds(count * 86_400_000_000)
    }

    fn near_of(
        order: Order,
        from: Option<i64>,
        to: Option<i64>,
        after: Option<i64>,
    ) -> Option<TimeRange> {
        let after = after.map(|day| RowKey { timestamp: days(day), digest: 0 });
        let range = TimeRange { from: from.map(days), to: to.map(days) };
        let selection = Selection { range, order, page: Page { limit: 1, after } };
        let (near, is_all) = near(&selection);
        assert_eq!((near.order, near.page), (order, selection.page));
        (!is_all).then_some(near.range)
    }

    #[test]
    fn the_near_part_begins_where_the_page_does() {
        let range = |from: Option<i64>, to: Option<i64>| {
            Some(TimeRange { from: from.map(days), to: to.map(days) })
        };
        let newest = |from, to, after| near_of(Order::NewestFirst, from, to, after);
        assert_eq!(newest(None, Some(100), None), range(Some(86), Some(100)));
        assert_eq!(newest(Some(10), Some(100), Some(50)), range(Some(36), Some(100)));
        assert_eq!(newest(Some(90), Some(100), None), None, "it is all");
        assert!(newest(None, None, None).is_some_and(|range| range.from < Some(Timestamp::now())));
        let oldest = |from, to, after| near_of(Order::OldestFirst, from, to, after);
        assert_eq!(oldest(Some(10), None, None), range(Some(10), Some(24)));
        assert_eq!(oldest(Some(10), Some(100), Some(50)), range(Some(10), Some(64)));
        assert_eq!(oldest(Some(10), Some(20), None), None, "it is all");
        assert_eq!(oldest(None, None, None), None, "where it begins is not known");
    }
}
