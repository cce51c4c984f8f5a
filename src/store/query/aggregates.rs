//! Aggregates of a sensor's measurements by time bucket. Called by the API. Buckets of whole hours are read from the
//! roll-up, except for hours whose sums do not hold (yet), and others from the rows.
//!
//! Invariant: an item counts once, from the roll-up or from the rows, because each hour is read from one of them.

use std::pin::pin;

use futures_util::TryStreamExt as _;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::hour_page::{HourPage, Range, is_in};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::rollup::aggregation::{Aggregate, Aggregation, Sums};
use crate::store::rollup::hours::{HOUR_SECS, SETTLED};
use crate::store::sensors::lookups::SENSOR_EXISTS;
use crate::store::{Store, StoreError};

/// The aggregates of a range.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregates {
    /// By bucket, then by attribute; attributes without a number are omitted.
    pub rows: Vec<Aggregate>,
    /// What they were read from.
    pub source: Source,
    /// The beginning of the next page.
    pub next: Option<Timestamp>,
}

/// What aggregates were read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The sums by hour, and the rows of hours that are not summed up.
    Rollup,
    /// The rows.
    Rows,
}

/// Parameters: sensor, from, to.
const VALUES: &str = "\
select creation_timestamp, value::text
from measurement
where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3";

/// Parameters: sensor, first and last day, number.
const HOURS: &str = "\
select day - date '1970-01-01', measurement_counts, sums::text
from sensor_hour
where sensor_identifier = $1
  and day >= date '1970-01-01' + $2 and day <= date '1970-01-01' + $3
order by day limit $4";

/// Parameters: sensor, first days of the first and the last month, number.
const MONTHS: &str = "\
select month - date '1970-01-01', (month + interval '1 month')::date - date '1970-01-01', sums::text
from sensor_month
where sensor_identifier = $1
  and month >= date '1970-01-01' + $2 and month <= date '1970-01-01' + $3
  and recount_at is null
order by month limit $4";

/// The hours of a sensor with measurements that are not in its counts yet. Parameter: sensor.
const JOURNALLED: &str = "\
select distinct hour
from sensor_hour_journal
cross join lateral unnest(sensors, hours, kinds) as entry (sensor, hour, kind)
where sensors @> array[$1] and sensor = $1 and kind = 0";

/// Until then, counts are missing.
const IS_REBUILDING: &str = "select 1 from rollup_rebuild limit 1";

/// Parameters: sensor, from, to, number of measurements before it.
const NTH: &str = "\
select creation_timestamp from measurement
where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3
order by creation_timestamp offset $4 limit 1";

impl Aggregation {
    /// Paths into nested values are not in the roll-up.
    fn is_rolled_up(&self) -> bool {
        i64::from(self.bucket_secs) % HOUR_SECS == 0
            && self.attributes.iter().all(|attribute| !attribute.contains('.'))
    }
}

impl Store {
    /// Aggregates a sensor's measurements; none if the sensor does not exist.
    pub async fn aggregate_measurements(
        &self,
        sensor: SensorIdentifier,
        aggregation: &Aggregation,
    ) -> Result<Option<Aggregates>, StoreError> {
        let now = Timestamp::now();
        let is_rolled_up = aggregation.is_rolled_up()
            && aggregation.from < now.saturating_sub(SETTLED)
            && self.rows(IS_REBUILDING, &[]).await?.is_empty();
        if is_rolled_up {
            self.aggregate_hours(sensor, aggregation, now).await
        } else {
            self.aggregate_rows(sensor, aggregation).await
        }
    }

    /// From the rows. A page ends `limit` buckets after its beginning, or later if most of them are empty: `limit`
    /// measurements are in at most `limit` buckets.
    async fn aggregate_rows(
        &self,
        sensor: SensorIdentifier,
        aggregation: &Aggregation,
    ) -> Result<Option<Aggregates>, StoreError> {
        let &Aggregation { from, to, limit, .. } = aggregation;
        let mut end = aggregation.after(from, limit);
        if end < to {
            let next = self.nth_measurement(sensor, (from, to), limit).await?;
            end = next.map_or(to, |next| aggregation.floor(next).max(end));
        }
        let mut sums = Sums::new(aggregation);
        let range = (from, to.min(end).max(from));
        let add = |created: Timestamp, value: &str| sums.add(created, value);
        if self.each_value(sensor, range, add).await?.is_none() {
            return Ok(None);
        }
        let next = match end < to {
            true => self.nth_measurement(sensor, (end, to), 0).await?,
            false => None,
        };
        let next = next.map(|next| aggregation.floor(next));
        Ok(Some(Aggregates { rows: sums.finish(), source: Source::Rows, next }))
    }

    /// From the roll-up. The page ends with the present bucket: what is in the future is read from the rows.
    async fn aggregate_hours(
        &self,
        sensor: SensorIdentifier,
        aggregation: &Aggregation,
        now: Timestamp,
    ) -> Result<Option<Aggregates>, StoreError> {
        let mut page = HourPage::new(aggregation, now);
        let exists = self.within(async {
            let (_turn, connection) = self.hot_connection().await?;
            // First: what is folded meanwhile is in the counts, and what is committed meanwhile in neither.
            let identifier: Parameters<'_> = &[(&sensor, Type::UUID)];
            for row in connection.query_typed(JOURNALLED, identifier).await? {
                page.journalled.insert(row.try_get(0)?);
            }
            let months = match aggregation.has_whole_days() {
                true => read(&connection, MONTHS, sensor, page.months(), page.max_months()).await?,
                false => Vec::new(),
            };
            let mut max_days = page.max_days();
            for range in page.add_months(&months)? {
                let days = read(&connection, HOURS, sensor, range, max_days).await?;
                page.add_days(&days)?;
                max_days -= days.len() as i64;
                if let Some(last) = days.last().filter(|_| max_days == 0) {
                    page.end_after(last)?;
                    break;
                }
            }
            page.complete();
            let exists = connection.query_typed_opt(SENSOR_EXISTS, identifier).await?.is_some();
            Ok::<_, StoreError>(exists)
        });
        if !exists.await? {
            return Ok(None);
        }
        let (ranges, wanted) = page.ranges();
        for range in ranges {
            let add = |created: Timestamp, value: &str| {
                if is_in(&wanted, created) {
                    page.sums.add(created, value);
                }
            };
            self.each_value(sensor, range, add).await?;
        }
        let next = match page.next() {
            Some(next) => Some(next),
            None if page.end < aggregation.to => {
                let range = (page.end, aggregation.to);
                let next = self.nth_measurement(sensor, range, 0).await?;
                next.map(|next| aggregation.floor(next))
            }
            None => None,
        };
        Ok(Some(Aggregates { rows: page.sums.finish(), source: Source::Rollup, next }))
    }

    /// Passes every value of a sensor in a range to `visit`, in no order; none if the sensor does not exist.
    pub(super) async fn each_value(
        &self,
        sensor: SensorIdentifier,
        range: Range,
        mut visit: impl FnMut(Timestamp, &str),
    ) -> Result<Option<()>, StoreError> {
        let (from, to) = range;
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&sensor, Type::UUID), (&from, Type::TIMESTAMPTZ), (&to, Type::TIMESTAMPTZ)];
        self.within(async {
            let (_turn, connection) = self.hot_connection().await?;
            let identifier: Parameters<'_> = &[(&sensor, Type::UUID)];
            let (exists, rows) = tokio::try_join!(
                connection.query_typed_opt(SENSOR_EXISTS, identifier),
                connection.query_typed_raw(VALUES, parameters),
            )?;
            if exists.is_none() {
                return Ok(None);
            }
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await? {
                visit(row.try_get(0)?, row.try_get(1)?);
            }
            Ok(Some(()))
        })
        .await
    }

    /// The timestamp of a sensor's n-th measurement in a range, from 0.
    async fn nth_measurement(
        &self,
        sensor: SensorIdentifier,
        (from, to): Range,
        n: u32,
    ) -> Result<Option<Timestamp>, StoreError> {
        let n = i64::from(n);
        let parameters: Parameters<'_> = &[
            (&sensor, Type::UUID),
            (&from, Type::TIMESTAMPTZ),
            (&to, Type::TIMESTAMPTZ),
            (&n, Type::INT8),
        ];
        self.within(async {
            let (_turn, connection) = self.hot_connection().await?;
            let row = connection.query_typed_opt(NTH, parameters).await?;
            Ok(row.map(|row| row.try_get(0)).transpose()?)
        })
        .await
    }
}

async fn read(
    client: &Client,
    statement: &str,
    sensor: SensorIdentifier,
    (first, last): (i32, i32),
    limit: i64,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let parameters: Parameters<'_> =
        &[(&sensor, Type::UUID), (&first, Type::INT4), (&last, Type::INT4), (&limit, Type::INT8)];
    client.query_typed(statement, parameters).await
}
