//! The numbers of a sensor's measurements, summed up by bucket of time. Called by the API. Promises
//! that what it tells is what the rows say at this moment, however late some of them came.
//!
//! A sensor's rows lie scattered among those of all others, and to fetch weeks of them takes seconds.
//! So what was summed up once is kept, ten minutes at a time (`measurement_rollup`), with the count of
//! the rows and the sum (xor) of their digests. Both can be had from the index alone, 20 times as fast
//! as the rows; where they differ the rows are read again. Writing measurements costs nothing more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::reads::{Parameters, SENSOR_EXISTS, moment};
use super::{Store, StoreError};
use crate::domain::{SensorIdentifier, Timestamp};

/// What is kept is kept by so many seconds.
const SEGMENT_SECS: u32 = 600;

/// In fewer segments than this the rows are read again and again, and nothing is written.
const FEW_SEGMENTS: i64 = 24;

/// So many segments are kept in one statement: a day's, so that a busy server is through in time.
const SEGMENTS_AT_ONCE: i64 = 144;

/// What a sensor says is rolled up once it is this old: before, more is likely to come.
const SETTLED: Duration = Duration::from_secs(600);

/// Buckets are counted from a Monday, so that those of a week begin on Mondays.
pub const BUCKET_ORIGIN: Timestamp = Timestamp::from_unix_microseconds(4 * 86_400_000_000);

/// What to sum up.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregation {
    /// From this moment …
    pub from: Timestamp,
    /// … to before this one.
    pub to: Timestamp,
    /// How long one bucket is.
    pub bucket_secs: u32,
    /// Of these members of the values.
    pub attributes: Vec<String>,
}

/// The numbers of one attribute in one bucket. Doubles, as JSON's readers have them.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregate {
    /// When the bucket begins.
    pub bucket: Timestamp,
    /// Which member of the values.
    pub attribute: String,
    /// How many measurements have a number there.
    pub count: i64,
    /// The least.
    pub minimum: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The greatest.
    pub maximum: f64,
}

/// What there is in a span.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregates {
    /// By bucket, then by attribute; those without a number are left out.
    pub rows: Vec<Aggregate>,
    /// Whether it pays to roll the span up: [`Store::roll_up`].
    pub is_slow: bool,
}

/// A number that is summed up: no larger than a double, so that sums and means are doubles too.
const NUMBER: &str = "\
case when jsonb_typeof(value -> attribute) = 'number' and abs((value -> attribute)::numeric) < 1e300
     then (value -> attribute)::numeric end as number";

/// Parameters from here on: sensor, from, to.
const SEEN: &str = "\
seen as materialized (
    select date_bin('10 minutes', creation_timestamp, '1970-01-05Z') as segment,
           count(*)::integer as row_count, bit_xor(digest) as digest_xor
    from measurement
    where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3
    group by 1
)";

/// The stale segments, neighbours in one run each.
const RUNS: &str = "\
runs as (
    select min(segment) as first, max(segment) + interval '10 minutes' as last
    from (
        select segment, segment - row_number() over (order by segment) * interval '10 minutes' as run
        from stale
    ) numbered
    group by run
)";

/// `offset 0` keeps the planner from reading all rows first, and then choosing among them.
const ROWS_OF_RUNS: &str = "\
runs cross join lateral (
    select creation_timestamp, digest, value
    from measurement
    where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3
      and creation_timestamp >= runs.first and creation_timestamp < runs.last
    offset 0
) measurements";

/// What a bucket shows of its parts, and how many segments were stale.
const SHOWN: &str = "\
select bucket, attribute, sum(value_count)::bigint,
       case when abs(min(minimum)) < 1e-300 then 0 else min(minimum)::float8 end,
       case when abs(sum(total)) < 1e-280 then 0 else (sum(total) / sum(value_count))::float8 end,
       case when abs(max(maximum)) < 1e-300 then 0 else max(maximum)::float8 end,
       (select count(*) from stale)
from parts
group by 1, 2
having sum(value_count) > 0
order by 1, 2";

/// Parameters: sensor, from, to, attributes, seconds of a bucket.
fn by_rollups() -> String {
    format!(
        "\
with {SEEN}, rolled as materialized (
    select r.attribute, r.segment, r.value_count, r.minimum, r.total, r.maximum
    from seen join measurement_rollup r using (segment, row_count, digest_xor)
    where r.sensor_identifier = $1 and r.attribute = any ($4)
      and r.segment > $2 - interval '10 minutes' and r.segment < $3
      and date_bin(make_interval(secs => $5), r.segment, '1970-01-05Z')
        = date_bin(make_interval(secs => $5), r.segment + interval '599.999999 s', '1970-01-05Z')
), stale as materialized (
    select segment
    from seen left join (select segment, count(*) as attributes from rolled group by 1) known
        using (segment)
    where coalesce(attributes, 0) < cardinality($4)
), {RUNS}, parts as (
    select date_bin(make_interval(secs => $5), segment, '1970-01-05Z') as bucket, attribute,
           sum(value_count) as value_count, min(minimum) as minimum, sum(total) as total,
           max(maximum) as maximum
    from rolled
    where not exists (select from stale where stale.segment = rolled.segment)
    group by 1, 2
    union all
    select bucket, attribute, count(number), min(number), sum(number), max(number)
    from (
        select date_bin(make_interval(secs => $5), creation_timestamp, '1970-01-05Z') as bucket,
               attribute, {NUMBER}
        from {ROWS_OF_RUNS}
        cross join unnest($4::text[]) as attributes (attribute)
    ) numbers
    group by 1, 2
)
{SHOWN}"
    )
}

/// Parameters: sensor, from, to, attributes, seconds of a bucket.
fn by_rows() -> String {
    format!(
        "\
with stale as (select where false), parts as (
    select bucket, attribute, count(number) as value_count, min(number) as minimum,
           sum(number) as total, max(number) as maximum
    from (
        select date_bin(make_interval(secs => $5), creation_timestamp, '1970-01-05Z') as bucket,
               attribute, {NUMBER}
        from measurement cross join unnest($4::text[]) as attributes (attribute)
        where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3
    ) numbers
    group by 1, 2
)
{SHOWN}"
    )
}

/// Parameters: sensor, from, to, attributes.
fn roll_up() -> String {
    format!(
        "\
with {SEEN}, stale as materialized (
    select segment
    from seen left join (
        select r.segment, count(*) as attributes
        from seen join measurement_rollup r using (segment, row_count, digest_xor)
        where r.sensor_identifier = $1 and r.attribute = any ($4)
        group by 1
    ) known using (segment)
    where coalesce(attributes, 0) < cardinality($4)
), {RUNS}
insert into measurement_rollup (sensor_identifier, attribute, segment, row_count, digest_xor,
                                value_count, minimum, total, maximum)
select $1, attribute, segment, count(*), bit_xor(digest), count(number), min(number), sum(number),
       max(number)
from (
    select date_bin('10 minutes', creation_timestamp, '1970-01-05Z') as segment, digest, attribute,
           {NUMBER}
    from {ROWS_OF_RUNS}
    cross join unnest($4::text[]) as attributes (attribute)
) numbers
group by attribute, segment
on conflict (sensor_identifier, attribute, segment) do update
set row_count = excluded.row_count, digest_xor = excluded.digest_xor,
    value_count = excluded.value_count, minimum = excluded.minimum, total = excluded.total,
    maximum = excluded.maximum"
    )
}

/// Parameter: days.
const FORGET: &str = "\
delete from measurement_rollup where segment < now() - make_interval(days => $1)";

const NEXT: &str = "\
select min(creation_timestamp) from measurement
where sensor_identifier = $1 and creation_timestamp >= $2 and creation_timestamp < $3";

/// One roll-up at a time: it is for later, and whoever reads now comes first.
#[derive(Clone, Debug)]
pub(super) struct RollUps(Arc<Semaphore>);

impl Default for RollUps {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Store {
    /// Sums up what a sensor measured; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is away, or it takes too long.
    pub async fn aggregate_measurements(
        &self,
        sensor: SensorIdentifier,
        aggregation: &Aggregation,
    ) -> Result<Option<Aggregates>, StoreError> {
        let Aggregation { from, to, bucket_secs, attributes } = aggregation;
        let statement = if *bucket_secs < SEGMENT_SECS { by_rows() } else { by_rollups() };
        let (from, to, bucket) = (from.to_jiff(), to.to_jiff(), f64::from(*bucket_secs));
        let parameters: Parameters<'_> = &[
            (&sensor.0, Type::UUID),
            (&from, Type::TIMESTAMPTZ),
            (&to, Type::TIMESTAMPTZ),
            (attributes, Type::TEXT_ARRAY),
            (&bucket, Type::FLOAT8),
        ];
        self.within(async {
            let connection = self.connection().await?;
            let identifier: Parameters<'_> = &[(&sensor.0, Type::UUID)];
            let (exists, rows) = tokio::try_join!(
                connection.query_typed_opt(SENSOR_EXISTS, identifier),
                connection.query_typed(&statement, parameters),
            )?;
            if exists.is_none() {
                return Ok(None);
            }
            let stale: i64 = rows.first().map_or(Ok(0), |row| row.try_get(6))?;
            let rows = rows.iter().map(aggregate).collect::<Result<_, _>>()?;
            Ok(Some(Aggregates { rows, is_slow: stale > FEW_SEGMENTS }))
        })
        .await
    }

    /// When a sensor measured first in this span.
    ///
    /// # Errors
    /// When the database is away, or it takes too long.
    pub async fn first_measurement(
        &self,
        sensor: SensorIdentifier,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Option<Timestamp>, StoreError> {
        let (from, to) = (from.to_jiff(), to.to_jiff());
        let parameters: Parameters<'_> =
            &[(&sensor.0, Type::UUID), (&from, Type::TIMESTAMPTZ), (&to, Type::TIMESTAMPTZ)];
        self.within(async {
            let row = self.connection().await?.query_typed_one(NEXT, parameters).await?;
            Ok(row.try_get::<_, Option<jiff::Timestamp>>(0)?.map(Into::into))
        })
        .await
    }

    /// Keeps what is slow to sum up, for the next who asks. Does nothing while another is kept.
    ///
    /// # Errors
    /// When the database is away, the sensor is gone, or it takes too long.
    pub async fn roll_up(
        &self,
        sensor: SensorIdentifier,
        aggregation: &Aggregation,
    ) -> Result<(), StoreError> {
        let Ok(_alone) = self.roll_ups.0.try_acquire() else { return Ok(()) };
        let statement = roll_up();
        for (from, to) in whole_segments(aggregation, Timestamp::now()) {
            let (from, to) = (from.to_jiff(), to.to_jiff());
            let parameters: Parameters<'_> = &[
                (&sensor.0, Type::UUID),
                (&from, Type::TIMESTAMPTZ),
                (&to, Type::TIMESTAMPTZ),
                (&aggregation.attributes, Type::TEXT_ARRAY),
            ];
            // A connection for each, so that whoever reads now has his turn in between.
            self.within(async {
                self.connection().await?.query_typed(&statement, parameters).await?;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

/// Deletes what was kept of measurements whose retention is over: nobody would ever read it.
pub(super) async fn forget_rollups(client: &Client, days: u32) -> Result<(), StoreError> {
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    client.query_typed(FORGET, &[(&days, Type::INT4)]).await?;
    Ok(())
}

/// The segments that lie in the span as a whole, and are settled: in spans of a day.
fn whole_segments(
    aggregation: &Aggregation,
    now: Timestamp,
) -> impl Iterator<Item = (Timestamp, Timestamp)> + use<> {
    let length = i64::from(SEGMENT_SECS) * 1_000_000;
    let last = aggregation.to.min(now.saturating_sub(SETTLED));
    // The origin of the buckets is the beginning of a segment, as the epoch is.
    let from = -(-aggregation.from.unix_microseconds()).div_euclid(length);
    let to = last.unix_microseconds().div_euclid(length);
    let moment = move |segment| Timestamp::from_unix_microseconds(segment * length);
    let mut begin = from;
    std::iter::from_fn(move || {
        let end = to.min(begin + SEGMENTS_AT_ONCE);
        let span = (begin < end).then(|| (moment(begin), moment(end)));
        begin = end;
        span
    })
}

fn aggregate(row: &Row) -> Result<Aggregate, tokio_postgres::Error> {
    Ok(Aggregate {
        bucket: moment(row, 0)?,
        attribute: row.try_get(1)?,
        count: row.try_get(2)?,
        minimum: row.try_get(3)?,
        mean: row.try_get(4)?,
        maximum: row.try_get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_and_settled_segments_are_kept() {
        let at = |secs: i64| Timestamp::from_unix_microseconds(secs * 1_000_000);
        let kept = |from, to, now| {
            let attributes = vec!["a".to_owned()];
            let aggregation =
                Aggregation { from: at(from), to: at(to), bucket_secs: 3_600, attributes };
            whole_segments(&aggregation, at(now)).collect::<Vec<_>>()
        };
        assert_eq!(kept(0, 1_200, 100_000), [(at(0), at(1_200))]);
        assert_eq!(kept(1, 1_799, 100_000), [(at(600), at(1_200))]);
        assert_eq!(kept(0, 100_000, 1_900), [(at(0), at(1_200))], "not settled");
        assert_eq!(kept(1, 1_100, 100_000), []);
        let days = [(at(0), at(86_400)), (at(86_400), at(90_000))];
        assert_eq!(kept(0, 90_000, 1_000_000), days);
    }
}
