//! Bundles: copies of a sensor's measurements, one row per four hours, so that weeks of one sensor are
//! a hundred rows instead of tens of thousands that are scattered among those of other sensors. Made in
//! the background by the [`Bundler`], and for older rows after a slow read.
//!
//! Invariant: a reader uses a bundle only if its row count and digest match those of the rows; an
//! outdated bundle is ignored.

use std::time::{Duration, Instant};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::activity::{BUCKET_SECS, BUCKETS, bucket_begin, bucket_of};
use crate::domain::{Faults, SensorIdentifier, Task, Timestamp, pause};
use crate::store::columns::{Parameters, timestamp};
use crate::store::{Store, StoreError};

/// A period is bundled this long after its end; before, more rows are likely to arrive.
pub(in crate::store) const SETTLED: Duration = Duration::from_secs(600);

/// Pause after each statement, as a multiple of its duration: together at most a twentieth of one core.
const PAUSE_FACTOR: u32 = 19;

/// From the end of one round over all sensors to the next.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(60);

/// Sensors per look-up, with at most 168 periods each.
const SENSORS_PER_LOOK_UP: i64 = 250;

/// Rows and bundles per statement, so that it takes some tens of milliseconds.
const ROWS_PER_STATEMENT: i64 = 20_000;
const BUNDLES_PER_STATEMENT: usize = 500;

/// Limits of one bundle, which is read as a whole: rows (7 per second), and the size of their values.
const MAX_BUNDLE_ROWS: i64 = 100_000;
const MAX_BUNDLE_BYTES: i64 = 16 << 20;

/// The periods to bundle of a range of sensors, the latest first and of all sensors together, because
/// the rows are stored in that order; a sensor without such periods is one row with nulls.
/// Parameters: the sensor before the first, number of sensors, the bucket before the first, the last,
/// [`MAX_BUNDLE_ROWS`].
const UNBUNDLED: &str = "\
select next.identifier, wanted.bucket, wanted.measurement_count
from (
    select identifier from sensor where $1::uuid is null or identifier > $1
    order by identifier limit $2
) next
left join lateral (
    select bucket, measurement_count
    from activity left join measurement_bundle bundle
        on bundle.sensor_identifier = activity.sensor_identifier
        and bundle.period = to_timestamp(activity.bucket * 14400::float8)
    where activity.sensor_identifier = next.identifier
      and bucket > $3 and bucket <= $4 and measurement_count between 1 and $5
      and said_count is distinct from measurement_count
    offset 0
) wanted on true
order by wanted.bucket desc nulls last, next.identifier";

/// The periods of a sensor without an up-to-date bundle. Parameters: sensor, from, to, [`MAX_BUNDLE_ROWS`].
const OUT_OF_DATE: &str = "\
select period, row_count::bigint
from (
    select date_bin('4 hours', creation_timestamp, '1970-01-05Z') as period,
           count(*)::integer as row_count, bit_xor(digest) as digest_xor
    from measurement
    where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3
    group by 1
) seen
left join (select * from measurement_bundle where sensor_identifier = $1) bundle
    using (period, row_count, digest_xor)
where bundle.sensor_identifier is null and row_count <= $4
order by 1";

/// One process at a time: a second one would make the same bundles again.
/// Parameters: sensors, periods, their row counts, [`MAX_BUNDLE_BYTES`].
const BUNDLE: &str = "\
with bundle_lock as materialized (
    select pg_try_advisory_xact_lock(hashtextextended('tributary bundles', 0)) as is_held
)
insert into measurement_bundle
    (sensor_identifier, period, said_count, row_count, digest_xor, moments, lines)
select wanted.sensor, wanted.period, wanted.said_count, bundle.*
from bundle_lock
cross join unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) as wanted (sensor, period, said_count)
join sensor on sensor.identifier = wanted.sensor
cross join lateral (
    select count(*)::integer, coalesce(bit_xor(digest), 0),
           case when sum(pg_column_size(value)) <= $4 then array_agg(creation_timestamp) end,
           case when sum(pg_column_size(value)) <= $4 then string_agg(value::text, e'\\n') end
    from (
        select creation_timestamp, digest, value
        from measurement
        where sensor_identifier = wanted.sensor and creation_timestamp >= wanted.period
          and creation_timestamp < wanted.period + interval '4 hours'
        order by creation_timestamp, digest
        offset 0
    ) as measurements
) as bundle
where is_held and not exists (
    select from measurement_bundle known
    where known.sensor_identifier = wanted.sensor and known.period = wanted.period
      and known.said_count = wanted.said_count and known.row_count = wanted.said_count
)
on conflict (sensor_identifier, period) do update
set said_count = excluded.said_count, row_count = excluded.row_count,
    digest_xor = excluded.digest_xor, moments = excluded.moments, lines = excluded.lines";

const DELETE: &str = "delete from measurement_bundle where period < $1";

/// Four hours of a sensor that are to be bundled.
#[derive(Clone, Copy, Debug)]
struct Period {
    sensor: Uuid,
    begin: Timestamp,
    /// The number of rows, by the activity counts or by a look at the table.
    row_count: i64,
}

/// Bundles what has settled, of one sensor after the other.
#[derive(Clone, Debug)]
pub struct Bundler {
    store: Store,
}

impl Bundler {
    /// Uses the readers' pool, so that no writer waits for it.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Runs rounds for ever.
    pub async fn run(&self, faults: &Faults) {
        let mut failures = 0;
        loop {
            faults.at(Task::Bundler);
            let wait = match self.round().await {
                Ok(()) => {
                    failures = 0;
                    BETWEEN_ROUNDS
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(%error, failures, "bundling measurements failed; it will be retried");
                    pause(failures, rand::random())
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Bundles the settled periods of all sensors.
    ///
    /// # Errors
    /// When the database is unavailable, or a statement times out; the next round starts again.
    pub async fn round(&self) -> Result<(), StoreError> {
        let mut last = None;
        loop {
            let started_at = Instant::now();
            let found = self.store.unbundled(last).await?;
            tokio::time::sleep(started_at.elapsed() * PAUSE_FACTOR).await;
            let Some(end) = found.last else { return Ok(()) };
            last = Some(end);
            for some in statements(&found.periods) {
                let started_at = Instant::now();
                self.store.make_bundles(some).await?;
                tokio::time::sleep(started_at.elapsed() * PAUSE_FACTOR).await;
            }
        }
    }
}

/// The periods to bundle of a range of sensors.
struct Unbundled {
    periods: Vec<Period>,
    /// The last sensor of the range; none if the range is empty.
    last: Option<Uuid>,
}

/// Splits periods into the parts that one statement bundles.
fn statements(mut periods: &[Period]) -> impl Iterator<Item = &[Period]> {
    std::iter::from_fn(move || {
        let mut row_count = 0;
        let fits = periods.iter().take(BUNDLES_PER_STATEMENT).take_while(|it| {
            row_count += it.row_count;
            row_count <= ROWS_PER_STATEMENT
        });
        // A period over the limit has a statement of its own.
        let (some, rest) = periods.split_at(fits.count().max(1).min(periods.len()));
        periods = rest;
        (!some.is_empty()).then_some(some)
    })
}

impl Store {
    async fn unbundled(&self, after: Option<Uuid>) -> Result<Unbundled, StoreError> {
        let settled = Timestamp::now().saturating_sub(SETTLED);
        let last = bucket_of(settled) - 1;
        let before = bucket_of(Timestamp::now()) - BUCKETS;
        let parameters: Parameters<'_> = &[
            (&after, Type::UUID),
            (&SENSORS_PER_LOOK_UP, Type::INT8),
            (&before, Type::INT4),
            (&last, Type::INT4),
            (&MAX_BUNDLE_ROWS, Type::INT8),
        ];
        self.within(async {
            let rows = self.connection().await?.query_typed(UNBUNDLED, parameters).await?;
            let periods = rows.iter().filter_map(|row| period(row).transpose());
            Ok(Unbundled {
                periods: periods.collect::<Result<_, _>>()?,
                last: rows.iter().map(|row| row.get::<_, Uuid>(0)).max(),
            })
        })
        .await
    }

    async fn make_bundles(&self, periods: &[Period]) -> Result<(), StoreError> {
        let sensors: Vec<_> = periods.iter().map(|it| it.sensor).collect();
        let begins: Vec<_> = periods.iter().map(|it| it.begin.to_jiff()).collect();
        let row_counts: Vec<_> = periods.iter().map(|it| it.row_count).collect();
        let parameters: Parameters<'_> = &[
            (&sensors, Type::UUID_ARRAY),
            (&begins, Type::TIMESTAMPTZ_ARRAY),
            (&row_counts, Type::INT8_ARRAY),
            (&MAX_BUNDLE_BYTES, Type::INT8),
        ];
        // Checks out a connection per statement, so that readers get it in between.
        self.within(async {
            self.connection().await?.query_typed(BUNDLE, parameters).await?;
            Ok(())
        })
        .await
    }

    /// Bundles what was slow to read, for later reads. Does nothing if this process is already doing so,
    /// or if bundles are disabled.
    ///
    /// # Errors
    /// When the database is unavailable, or a statement times out.
    pub async fn bundle(
        &self,
        sensor: SensorIdentifier,
        span: (Timestamp, Timestamp),
    ) -> Result<(), StoreError> {
        let Some(permit) = &self.bundle_permit else { return Ok(()) };
        let Ok(_permit) = permit.try_acquire() else { return Ok(()) };
        let Some((from, to)) = whole_periods(span, Timestamp::now()) else { return Ok(()) };
        let (from, to) = (from.to_jiff(), to.to_jiff());
        let parameters: Parameters<'_> = &[
            (&sensor.0, Type::UUID),
            (&from, Type::TIMESTAMPTZ),
            (&to, Type::TIMESTAMPTZ),
            (&MAX_BUNDLE_ROWS, Type::INT8),
        ];
        let periods: Vec<Period> = self
            .within(async {
                let rows = self.connection().await?.query_typed(OUT_OF_DATE, parameters).await?;
                let read = |row: &Row| -> Result<Period, tokio_postgres::Error> {
                    let (begin, row_count) = (timestamp(row, 0)?, row.try_get(1)?);
                    Ok(Period { sensor: sensor.0, begin, row_count })
                };
                Ok::<_, StoreError>(rows.iter().map(read).collect::<Result<_, _>>()?)
            })
            .await?;
        for some in statements(&periods) {
            self.make_bundles(some).await?;
        }
        Ok(())
    }
}

fn period(row: &Row) -> Result<Option<Period>, tokio_postgres::Error> {
    let Some(bucket) = row.try_get(1)? else { return Ok(None) };
    let (sensor, row_count) = (row.try_get(0)?, row.try_get(2)?);
    Ok(Some(Period { sensor, begin: bucket_begin(bucket), row_count }))
}

/// Deletes the bundles of measurements whose retention is over.
pub(in crate::store) async fn delete_bundles(
    client: &Client,
    before: Timestamp,
) -> Result<(), StoreError> {
    client.execute_typed(DELETE, &[(&before.to_jiff(), Type::TIMESTAMPTZ)]).await?;
    Ok(())
}

/// The range of settled periods that lie entirely within the span.
pub(in crate::store) fn whole_periods(
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
) -> Option<(Timestamp, Timestamp)> {
    let length = BUCKET_SECS * 1_000_000;
    let to = to.min(now.saturating_sub(SETTLED));
    let first = -(-from.unix_microseconds()).div_euclid(length);
    let end = to.unix_microseconds().div_euclid(length);
    let timestamp = |period| Timestamp::from_unix_microseconds(period * length);
    (first < end).then(|| (timestamp(first), timestamp(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_and_settled_periods_are_bundled() {
        let at = |secs: i64| Timestamp::from_unix_microseconds(secs * 1_000_000);
        let kept = |from, to, now| whole_periods((at(from), at(to)), at(now));
        assert_eq!(kept(0, 28_800, 1_000_000), Some((at(0), at(28_800))));
        assert_eq!(kept(1, 43_199, 1_000_000), Some((at(14_400), at(28_800))));
        assert_eq!(kept(0, 100_000, 29_000), Some((at(0), at(14_400))), "not settled");
        assert_eq!(kept(1, 28_799, 1_000_000), None);
    }

    #[test]
    fn a_statement_has_a_bounded_number_of_rows() {
        let periods = |counts: &[i64]| -> Vec<Period> {
            let of =
                |&row_count| Period { sensor: Uuid::nil(), begin: Timestamp::default(), row_count };
            counts.iter().map(of).collect()
        };
        let cut = |counts: &[i64]| -> Vec<usize> {
            statements(&periods(counts)).map(<[Period]>::len).collect()
        };
        assert_eq!(cut(&[]), [0; 0]);
        assert_eq!(cut(&[ROWS_PER_STATEMENT / 2; 5]), [2, 2, 1]);
        assert_eq!(cut(&[1, ROWS_PER_STATEMENT + 1, 1]), [1, 1, 1]);
        assert_eq!(cut(&[1; 501]), [500, 1]);
    }
}
