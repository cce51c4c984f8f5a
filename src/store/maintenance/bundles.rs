//! The measurements of each sensor, put together four hours at a time: weeks of one sensor are then
//! some hundred rows, and not tens of thousands that lie scattered among those of all others. Made
//! behind the writers' back by the [`Bundler`], and for older rows when somebody has waited for them.
//!
//! Invariant: a bundle is a copy, and never believed by itself. Whoever reads one holds its count and
//! its digests to those of the rows, so that one that is out of date is as good as none.

use std::time::{Duration, Instant};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::activity::{BUCKET_SECS, BUCKETS, bucket_begin, bucket_of};
use crate::domain::{SensorIdentifier, Timestamp, pause};
use crate::store::columns::{Parameters, timestamp};
use crate::store::{Store, StoreError};

/// What a sensor says is bundled once the four hours have been over for so long: before, more is
/// likely to come.
pub(in crate::store) const SETTLED: Duration = Duration::from_secs(600);

/// For each moment of work, so many moments of rest: together a twentieth of one core at the most,
/// however much there is to do.
const REST: u32 = 19;

/// From the end of one round over all sensors to the next.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(60);

/// Sensors that are looked at in one statement, with some 168 periods each.
const SENSORS_AT_ONCE: i64 = 250;

/// Rows that are bundled in one statement, so that it takes some tens of milliseconds, and bundles.
const ROWS_AT_ONCE: i64 = 20_000;
const BUNDLES_AT_ONCE: usize = 500;

/// No bundle is made of more rows (7 a second), or of larger values in all: it would be read as one.
const MAX_ROWS: i64 = 100_000;
const MAX_BYTES: i64 = 16 << 20;

/// Each of these sensors once, and again for each of its periods that is to be bundled: the last period
/// first, and of all of them at once, because so their rows lie.
/// Parameters: the sensor before them, how many, the bucket before the first, the last.
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

/// The periods whose rows are many to read one by one. Parameters: sensor, from, to, rows at the most.
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

/// One process at a time: a second one, which has found the same periods, would make them again.
/// Parameters: sensors, periods, what is said of them, bytes at the most.
const BUNDLE: &str = "\
with alone as materialized (
    select pg_try_advisory_xact_lock(hashtextextended('tributary bundles', 0)) as is_alone
)
insert into measurement_bundle
    (sensor_identifier, period, said_count, row_count, digest_xor, moments, lines)
select wanted.sensor, wanted.period, wanted.said_count, bundle.*
from alone
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
where is_alone and not exists (
    select from measurement_bundle known
    where known.sensor_identifier = wanted.sensor and known.period = wanted.period
      and known.said_count = wanted.said_count and known.row_count = wanted.said_count
)
on conflict (sensor_identifier, period) do update
set said_count = excluded.said_count, row_count = excluded.row_count,
    digest_xor = excluded.digest_xor, moments = excluded.moments, lines = excluded.lines";

const FORGET: &str = "delete from measurement_bundle where period < $1";

/// Four hours of a sensor.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    sensor: Uuid,
    period: Timestamp,
    /// How many rows there are, as far as is known.
    said_count: i64,
}

/// Bundles what has settled, of one sensor after the other.
#[derive(Clone, Debug)]
pub struct Bundler {
    store: Store,
}

impl Bundler {
    /// Over the readers' pool: it must not hold a writer up.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Round after round, for ever.
    pub async fn run(self) {
        let mut failures = 0;
        loop {
            let wait = match self.round().await {
                Ok(()) => {
                    failures = 0;
                    BETWEEN_ROUNDS
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(%error, failures, "measurements were not bundled");
                    pause(failures, rand::random())
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Once over all sensors.
    ///
    /// # Errors
    /// When the database is unavailable, or one statement takes too long; the next round begins anew.
    pub async fn round(&self) -> Result<(), StoreError> {
        let mut last = None;
        loop {
            let began = Instant::now();
            let found = self.store.unbundled(last).await?;
            tokio::time::sleep(began.elapsed() * REST).await;
            let Some(end) = found.last else { return Ok(()) };
            last = Some(end);
            for some in statements(&found.wanted) {
                let began = Instant::now();
                self.store.make_bundles(some).await?;
                tokio::time::sleep(began.elapsed() * REST).await;
            }
        }
    }
}

/// What is to be done for some sensors.
struct Unbundled {
    wanted: Vec<Wanted>,
    /// The last of these sensors; none behind the last of all.
    last: Option<Uuid>,
}

/// Cuts what is wanted into what one statement does.
fn statements(mut wanted: &[Wanted]) -> impl Iterator<Item = &[Wanted]> {
    std::iter::from_fn(move || {
        let mut row_count = 0;
        let fits = wanted.iter().take(BUNDLES_AT_ONCE).take_while(|it| {
            row_count += it.said_count;
            row_count <= ROWS_AT_ONCE
        });
        // One that is too large by itself has a statement of its own.
        let (some, rest) = wanted.split_at(fits.count().max(1).min(wanted.len()));
        wanted = rest;
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
            (&SENSORS_AT_ONCE, Type::INT8),
            (&before, Type::INT4),
            (&last, Type::INT4),
            (&MAX_ROWS, Type::INT8),
        ];
        self.within(async {
            let rows = self.connection().await?.query_typed(UNBUNDLED, parameters).await?;
            let wanted = rows.iter().filter_map(|row| wanted(row).transpose());
            Ok(Unbundled {
                wanted: wanted.collect::<Result<_, _>>()?,
                last: rows.iter().map(|row| row.get::<_, Uuid>(0)).max(),
            })
        })
        .await
    }

    async fn make_bundles(&self, wanted: &[Wanted]) -> Result<(), StoreError> {
        let sensors: Vec<_> = wanted.iter().map(|it| it.sensor).collect();
        let periods: Vec<_> = wanted.iter().map(|it| it.period.to_jiff()).collect();
        let said_counts: Vec<_> = wanted.iter().map(|it| it.said_count).collect();
        let parameters: Parameters<'_> = &[
            (&sensors, Type::UUID_ARRAY),
            (&periods, Type::TIMESTAMPTZ_ARRAY),
            (&said_counts, Type::INT8_ARRAY),
            (&MAX_BYTES, Type::INT8),
        ];
        // A connection for each statement, so that whoever reads now has his turn in between.
        self.within(async {
            self.connection().await?.query_typed(BUNDLE, parameters).await?;
            Ok(())
        })
        .await
    }

    /// Bundles what was slow to read, for the next who asks. Does nothing while another's are made,
    /// or where none are to be made.
    ///
    /// # Errors
    /// When the database is unavailable, the sensor is gone, or it takes too long.
    pub async fn bundle(
        &self,
        sensor: SensorIdentifier,
        span: (Timestamp, Timestamp),
    ) -> Result<(), StoreError> {
        let Some(alone) = &self.bundle_permit else { return Ok(()) };
        let Ok(_alone) = alone.try_acquire() else { return Ok(()) };
        let Some((from, to)) = whole_periods(span, Timestamp::now()) else { return Ok(()) };
        let (from, to) = (from.to_jiff(), to.to_jiff());
        let parameters: Parameters<'_> = &[
            (&sensor.0, Type::UUID),
            (&from, Type::TIMESTAMPTZ),
            (&to, Type::TIMESTAMPTZ),
            (&MAX_ROWS, Type::INT8),
        ];
        let wanted: Vec<Wanted> = self
            .within(async {
                let rows = self.connection().await?.query_typed(OUT_OF_DATE, parameters).await?;
                let read = |row: &Row| -> Result<Wanted, tokio_postgres::Error> {
                    let (period, said_count) = (timestamp(row, 0)?, row.try_get(1)?);
                    Ok(Wanted { sensor: sensor.0, period, said_count })
                };
                Ok::<_, StoreError>(rows.iter().map(read).collect::<Result<_, _>>()?)
            })
            .await?;
        for some in statements(&wanted) {
            self.make_bundles(some).await?;
        }
        Ok(())
    }
}

fn wanted(row: &Row) -> Result<Option<Wanted>, tokio_postgres::Error> {
    let Some(bucket) = row.try_get(1)? else { return Ok(None) };
    let (sensor, said_count) = (row.try_get(0)?, row.try_get(2)?);
    Ok(Some(Wanted { sensor, period: bucket_begin(bucket), said_count }))
}

/// Deletes the bundles of measurements whose retention is over: nobody would ever read them.
pub(in crate::store) async fn forget_bundles(
    client: &Client,
    before: Timestamp,
) -> Result<(), StoreError> {
    client.execute_typed(FORGET, &[(&before.to_jiff(), Type::TIMESTAMPTZ)]).await?;
    Ok(())
}

/// The periods that lie in the span as a whole, and are settled.
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
        let wanted = |counts: &[i64]| -> Vec<Wanted> {
            let of = |&said_count| Wanted {
                sensor: Uuid::nil(),
                period: Timestamp::default(),
                said_count,
            };
            counts.iter().map(of).collect()
        };
        let cut = |counts: &[i64]| -> Vec<usize> {
            statements(&wanted(counts)).map(<[Wanted]>::len).collect()
        };
        assert_eq!(cut(&[]), [0; 0]);
        assert_eq!(cut(&[ROWS_AT_ONCE / 2; 5]), [2, 2, 1]);
        assert_eq!(cut(&[1, ROWS_AT_ONCE + 1, 1]), [1, 1, 1]);
        assert_eq!(cut(&[1; 501]), [500, 1]);
    }
}
