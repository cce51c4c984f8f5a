//! Aggregates of a sensor's measurements by time bucket. Called by the API. The result always matches
//! the present rows, also if some arrived late.
//!
//! A sensor's rows are scattered among those of other sensors, and reading weeks of them takes seconds.
//! Therefore they are read from bundles, if the bundle's row count and xor of digests match those of
//! the rows. Both are read from the index alone, 20 times as fast as the rows.

use std::pin::pin;

use futures_util::TryStreamExt as _;
use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};

use super::sums::{Aggregate, Aggregation, Sums};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::columns::{Parameters, timestamp};
use crate::store::maintenance::bundles::whole_periods;
use crate::store::pool::CHECKOUT_TIMEOUT;
use crate::store::sensors::lookups::SENSOR_EXISTS;
use crate::store::{Store, StoreError};

/// Up to this many unbundled rows, bundling the range is not worth its cost.
const FEW_ROWS: usize = 2_000;

/// The aggregates of a range.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregates {
    /// By bucket, then by attribute; attributes without a number are omitted.
    pub rows: Vec<Aggregate>,
    /// Whether the range should be bundled: [`Store::bundle`].
    pub is_slow: bool,
}

/// The up-to-date bundles, and the rows of the other periods, which include partial periods at the ends
/// of the range. `offset 0` prevents a plan that reads all rows first. Parameters: sensor, from, to.
const READ: &str = "\
with seen as materialized (
    select date_bin('4 hours', creation_timestamp, '1970-01-05Z') as period,
           count(*)::integer as row_count, bit_xor(digest) as digest_xor
    from measurement
    where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3
    group by 1
), kept as materialized (
    select period, moments, lines
    from seen join (
        select * from measurement_bundle
        where sensor_identifier = $1 and period >= $2 and period < $3 and lines is not null
    ) bundle using (period, row_count, digest_xor)
), runs as (
    -- The periods without a bundle; adjacent ones form one run.
    select min(period) as first, max(period) + interval '4 hours' as last
    from (
        select period, period - row_number() over (order by period) * interval '4 hours' as run
        from seen where not exists (select from kept where kept.period = seen.period)
    ) numbered
    group by run
)
select moments, lines from kept
union all
select array[creation_timestamp], value::text
from runs cross join lateral (
    select creation_timestamp, value
    from measurement
    where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3
      and creation_timestamp >= runs.first and creation_timestamp < runs.last
    offset 0
) measurements";

/// Parameters: sensor, from, to, number of measurements before it.
const NTH: &str = "\
select creation_timestamp from measurement
where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3
order by creation_timestamp offset $4 limit 1";

impl Store {
    /// Aggregates a sensor's measurements; none if the sensor does not exist.
    pub async fn aggregate_measurements(
        &self,
        sensor: SensorIdentifier,
        aggregation: &Aggregation,
    ) -> Result<Option<Aggregates>, StoreError> {
        let mut sums = Sums::new(aggregation);
        let range = (aggregation.from, aggregation.to);
        let single_row_count = self
            .each_value(sensor, range, |created, value| sums.add(created.into(), value))
            .await?;
        Ok(single_row_count.map(|single_row_count| Aggregates {
            rows: sums.finish(),
            is_slow: single_row_count > FEW_ROWS,
        }))
    }

    /// Passes every value of a sensor in a range to `visit`, in no order. Returns how many were read as rows
    /// that could have been bundled; none if the sensor does not exist.
    pub(super) async fn each_value(
        &self,
        sensor: SensorIdentifier,
        range: (Timestamp, Timestamp),
        mut visit: impl FnMut(jiff::Timestamp, &str),
    ) -> Result<Option<usize>, StoreError> {
        let (from, to) = (range.0.to_jiff(), range.1.to_jiff());
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&sensor.0, Type::UUID), (&from, Type::TIMESTAMPTZ), (&to, Type::TIMESTAMPTZ)];
        self.within(async {
            let until = Instant::now() + CHECKOUT_TIMEOUT;
            let _turn = self.hot_read(until).await?;
            let connection = self.connection_by(until).await?;
            let identifier: Parameters<'_> = &[(&sensor.0, Type::UUID)];
            let (exists, rows) = tokio::try_join!(
                connection.query_typed_opt(SENSOR_EXISTS, identifier),
                connection.query_typed_raw(READ, parameters),
            )?;
            if exists.is_none() {
                return Ok(None);
            }
            let whole = whole_periods(range, Timestamp::now());
            let could_be_bundled = |created: jiff::Timestamp| {
                whole.is_some_and(|(from, to)| (from..to).contains(&created.into()))
            };
            let mut single_row_count = 0;
            // Streamed, so that never more than one bundle is in memory.
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await? {
                let (timestamps, lines): (Vec<jiff::Timestamp>, &str) =
                    (row.try_get(0)?, row.try_get(1)?);
                if let [created] = timestamps[..] {
                    single_row_count += usize::from(could_be_bundled(created));
                }
                // A newline within a string is escaped as `\\n`.
                for (created, line) in timestamps.into_iter().zip(lines.split('\n')) {
                    visit(created, line);
                }
            }
            Ok(Some(single_row_count))
        })
        .await
    }

    /// The timestamp of a sensor's n-th measurement in a range, from 0.
    pub async fn nth_measurement(
        &self,
        sensor: SensorIdentifier,
        (from, to): (Timestamp, Timestamp),
        n: u32,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (from, to) = (from.to_jiff(), to.to_jiff());
        let n = i64::from(n);
        let parameters: Parameters<'_> = &[
            (&sensor.0, Type::UUID),
            (&from, Type::TIMESTAMPTZ),
            (&to, Type::TIMESTAMPTZ),
            (&n, Type::INT8),
        ];
        self.within(async {
            let until = Instant::now() + CHECKOUT_TIMEOUT;
            let _turn = self.hot_read(until).await?;
            let connection = self.connection_by(until).await?;
            let row = connection.query_typed_opt(NTH, parameters).await?;
            Ok(row.map(|row| timestamp(&row, 0)).transpose()?)
        })
        .await
    }
}
