//! One page of a hot table, whichever that is. Called by `pages.rs`. PostgreSQL bounds a page also in
//! bytes, so that no more is sent.
//!
//! A table can have hundreds of partitions, and planning for all of them takes longer than reading a
//! page. The rows of most pages are close to where the page begins, so a time range of [`NEAR`] is read
//! first, which excludes the other partitions.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::rows::{Order, RowKey, RowPage, Selection, TimeRange};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::connections::reader::{Planning, ReaderConnection};
use crate::store::maintenance::log_index::HAS_LOG_INDEX;
use crate::store::pool::CHECKOUT_TIMEOUT;
use crate::store::sensors::lookups::SENSOR_EXISTS;
use crate::store::{Store, StoreError};

/// A page ends after the row that exceeds this. In memory it is held once as rows and once as JSON.
pub(super) const PAGE_BYTES: u32 = 4 << 20;

/// The time range that is read first.
const NEAR: Duration = Duration::from_secs(14 * 86_400);

/// A table, and what is read from it.
pub(super) struct Table<'a> {
    pub(super) name: &'static str,
    /// Expressions, computed once per row.
    pub(super) columns: String,
    /// The names of the columns.
    pub(super) names: &'static str,
    /// The expression for a row's size in bytes.
    pub(super) size: &'static str,
    pub(super) conditions: Conditions<'a>,
}

/// A `where` clause with only the conditions of the request, so that equal requests share a plan.
#[derive(Clone)]
pub(super) struct Conditions<'a> {
    text: String,
    /// Whether it searches for a text, which the log index serves if the plan is made for this text.
    pub(super) has_text: bool,
    pub(super) parameters: Vec<(&'a (dyn ToSql + Sync), Type)>,
}

impl<'a> Conditions<'a> {
    pub(super) fn of(sensor: &'a SensorIdentifier) -> Self {
        Self {
            text: "sensor_identifier = $1".to_owned(),
            has_text: false,
            parameters: vec![(sensor, Type::UUID)],
        }
    }

    /// Returns the parameter's placeholder.
    fn bind(&mut self, value: &'a (dyn ToSql + Sync), of: Type) -> String {
        self.parameters.push((value, of));
        format!("${}", self.parameters.len())
    }

    /// Adds a condition, in which `{}` is the parameter.
    pub(super) fn and(&mut self, condition: &str, value: &'a (dyn ToSql + Sync), of: Type) {
        let placeholder = self.bind(value, of);
        self.text.push_str(" and ");
        self.text.push_str(&condition.replace("{}", &placeholder));
    }
}

impl<'a> Table<'a> {
    /// The statement and its parameters. The condition on the timestamp alone is implied by the one on the
    /// key, but only it excludes partitions. The limit is not a parameter, because a generic plan would
    /// expect many rows.
    pub(super) fn page(
        &self,
        selection: &'a Selection,
    ) -> (String, Vec<(&'a (dyn ToSql + Sync), Type)>) {
        let limit = selection.page.row_count();
        let (operator, direction) = match selection.order {
            Order::NewestFirst => ("<", "desc"),
            Order::OldestFirst => (">", "asc"),
        };
        let mut conditions = self.conditions.clone();
        if let Some(from) = &selection.range.from {
            conditions.and("creation_timestamp >= {}", from, Type::TIMESTAMPTZ);
        }
        if let Some(to) = &selection.range.to {
            conditions.and("creation_timestamp < {}", to, Type::TIMESTAMPTZ);
        }
        if let Some(RowKey { timestamp, digest }) = &selection.page.after {
            let placeholder = conditions.bind(digest, Type::INT8);
            let condition = format!(
                "creation_timestamp {operator}= {{}} \
                 and (creation_timestamp, digest) {operator} ({{}}, {placeholder})"
            );
            conditions.and(&condition, timestamp, Type::TIMESTAMPTZ);
        }
        let Self { name, columns, names, size, .. } = self;
        let Conditions { text, parameters, .. } = conditions;
        let sorted = format!("order by creation_timestamp {direction}, digest {direction}");
        let statement = format!(
            "\
select {names}, is_followed
from (
    select page.*, sum({size}) over preceding_rows as bytes,
        lead(true) over preceding_rows as is_followed
    from (select {columns} from {name} where {text} {sorted} limit {limit}) page
    window preceding_rows as ({sorted} rows between unbounded preceding and 1 preceding)
) measured
where coalesce(bytes, 0) < {PAGE_BYTES}
{sorted}"
        );
        (statement, parameters)
    }
}

impl Store {
    /// Reads with an unchecked connection, whose health check `read` pipelines; if it is lost, once more
    /// with a checked one.
    pub(super) async fn hot_read_of<T>(
        &self,
        read: impl AsyncFn(&ReaderConnection, Instant) -> Result<T, StoreError>,
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

    pub(super) async fn hot_page<T>(
        &self,
        sensor: SensorIdentifier,
        selection: &Selection,
        table: Table<'_>,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<RowPage<T>>, StoreError> {
        self.within(async {
            let rows = self.hot_read_of(async |reader, until| {
                self.hot_rows(reader, until, sensor, selection, &table).await
            });
            let Some(rows) = rows.await? else { return Ok(None) };
            let shown = rows.len().min(selection.page.limit as usize);
            let more = shown < rows.len() || is_followed(&rows)?;
            let rows = rows.iter().take(shown).map(read).collect::<Result<_, _>>()?;
            Ok(Some(RowPage { rows, more }))
        })
        .await
    }

    /// The rows of a page, and one more if there is one; none if the sensor does not exist. The health check
    /// must succeed by `until`.
    pub(super) async fn hot_rows(
        &self,
        reader: &ReaderConnection,
        until: Instant,
        sensor: SensorIdentifier,
        selection: &Selection,
        table: &Table<'_>,
    ) -> Result<Option<Vec<Row>>, StoreError> {
        let (first, is_all) = near(selection);
        let identifier: Parameters<'_> = &[(&sensor, Type::UUID)];
        let (page, parameters) = table.page(&first);
        let is_planned_anew = !self.engine(reader).await?.plans_once()
            || table.conditions.has_text && has_log_index(reader, until).await?;
        let planning = if is_planned_anew { Planning::Anew } else { Planning::Once };
        // Pipelined: one round trip.
        let ((), exists, rows) = tokio::try_join!(
            biased;
            reader.health_check(planning, until),
            reader.query_prepared(SENSOR_EXISTS, identifier),
            reader.query_planned(planning, &page, &parameters),
        )?;
        if exists.is_empty() {
            return Ok(None);
        }
        if is_all || rows.len() > selection.page.limit as usize || is_followed(&rows)? {
            return Ok(Some(rows));
        }
        let (page, parameters) = table.page(selection);
        reader.query_planned(planning, &page, &parameters).await.map(Some)
    }
}

async fn has_log_index(reader: &ReaderConnection, until: Instant) -> Result<bool, StoreError> {
    reader.health_check(Planning::Anew, until).await?;
    Ok(reader.query_typed_one(HAS_LOG_INDEX, &[]).await?.try_get(0)?)
}

/// Whether the page was ended by its size in bytes.
pub(super) fn is_followed(rows: &[Row]) -> Result<bool, tokio_postgres::Error> {
    let followed = rows.last().map(|row| row.try_get::<_, Option<bool>>("is_followed"));
    Ok(followed.transpose()?.flatten().unwrap_or(false))
}

/// The part of the selection to read first, and whether that is all of it.
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
    fn the_recent_part_begins_where_the_page_does() {
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
