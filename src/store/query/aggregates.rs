//! The numbers of a sensor's measurements, summed up by bucket of time. Called by the API. Promises
//! that what it tells is what the rows say at this moment, however late some of them came.
//!
//! A sensor's rows lie scattered among those of all others, and to fetch weeks of them takes seconds.
//! So they are taken from their bundles, wherever these have the same count of rows and the same sum
//! (xor) of digests as the rows. Both can be had from the index alone, 20 times as fast as the rows.

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

/// So many rows by themselves are read again and again, and not bundled.
const FEW_ROWS: usize = 2_000;

/// What there is in a range.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregates {
    /// By bucket, then by attribute; those without a number are left out.
    pub rows: Vec<Aggregate>,
    /// Whether it pays to bundle the range: [`Store::bundle`].
    pub is_slow: bool,
}

/// Bundles that hold, and the rows of the periods that have none. Those at the ends of the range have
/// none either, if it cuts them. `offset 0` keeps the planner from reading all rows first, and then
/// choosing among them. Parameters: sensor, from, to.
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
    -- The periods without one, neighbours in one run each.
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

/// Parameters: sensor, from, to, how many are before it.
const NTH: &str = "\
select creation_timestamp from measurement
where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3
order by creation_timestamp offset $4 limit 1";

impl Store {
    /// Sums up what a sensor measured; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is unavailable, or it takes too long.
    pub async fn aggregate_measurements(
        &self,
        sensor: SensorIdentifier,
        aggregation: &Aggregation,
    ) -> Result<Option<Aggregates>, StoreError> {
        let (from, to) = (aggregation.from.to_jiff(), aggregation.to.to_jiff());
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
            let mut sums = Sums::new(aggregation);
            let whole = whole_periods((aggregation.from, aggregation.to), Timestamp::now());
            let could_be_bundled = |made: jiff::Timestamp| {
                whole.is_some_and(|(from, to)| (from..to).contains(&made.into()))
            };
            let mut single_row_count = 0;
            // One bundle after the other, so that years are in memory at no time.
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await? {
                let (moments, lines): (Vec<jiff::Timestamp>, &str) =
                    (row.try_get(0)?, row.try_get(1)?);
                if let [made] = moments[..] {
                    single_row_count += usize::from(could_be_bundled(made));
                }
                // A newline within a text stands there as `\\n`.
                for (made, line) in moments.into_iter().zip(lines.split('\n')) {
                    sums.add(made.into(), line);
                }
            }
            Ok(Some(Aggregates { rows: sums.finish(), is_slow: single_row_count > FEW_ROWS }))
        })
        .await
    }

    /// When a sensor measured in this range, so many measurements behind the first.
    ///
    /// # Errors
    /// When the database is unavailable, or it takes too long.
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
