//! Measurements of a sensor, aggregated by bucket of time, for charts of weeks and years. Buckets begin at the same
//! times whatever range is requested.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::Context;
use super::access::Access;
use super::caller::Caller;
use super::cursor::{self, CursorKey};
use super::fields::{self, Attributes, Limit};
use super::measurements::checked_names;
use super::page::{TimeRangeQuery, after};
use super::path::{Path, SensorPath};
use super::problem::Problem;
use super::query::{And, Query};
use super::routes::Routes;
use crate::domain::Timestamp;
use crate::store::{Aggregate, Aggregates, Aggregation, Source};

/// Lines in one chart.
const MAX_ATTRIBUTES: usize = 8;

/// Points in one chart.
const DEFAULT_LIMIT: u32 = 1_000;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
}

#[derive(Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = MeasurementBucket)]
pub(super) struct BucketItem {
    /// When the bucket begins, in Unix seconds.
    #[schema(example = 1_782_896_400.0)]
    timestamp: f64,
    /// The same, as RFC 3339.
    bucket_timestamp: jiff::Timestamp,
    /// The numbers of each attribute that has any in this bucket.
    attributes: BTreeMap<String, Numbers>,
}

/// One page of buckets.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MeasurementBucketListing)]
pub(super) struct BucketListing {
    /// No more than `limit`.
    items: Vec<BucketItem>,
    /// What to give as `cursor` for the next page; null on the last.
    next: Option<String>,
    /// `rollup`: from the sums by hour, which outlive the measurements (from the measurements where an hour is not
    /// summed up). `rows`: from the measurements.
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub(super) struct Numbers {
    /// How many measurements have a number for the attribute; others are left out.
    count: i64,
    /// The least.
    min: f64,
    /// The arithmetic mean.
    mean: f64,
    /// The greatest.
    max: f64,
}

#[derive(Debug, Deserialize, IntoParams)]
struct ChartQuery {
    /// 1 to 8 names of members, with commas between them
    #[param(inline)]
    attributes: Attributes,
    /// The length of a bucket, 1s to 30d: `60`, `90s`, `5m`, `1h`, `1d`, `1w`
    #[param(inline)]
    bucket: fields::Bucket,
    /// The buckets of a page
    #[param(inline, default = 1000)]
    limit: Option<Limit>,
    /// The `next` of the page before
    cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Bucket(Timestamp);

impl CursorKey for Bucket {
    const TAG: u8 = b'b';

    fn is_usable(&self) -> bool {
        cursor::is_storable_time(self.0)
    }
}

/// What a sensor measured, summed up by bucket of time
///
/// Count, least, mean and greatest of each attribute, oldest bucket first. Only numbers count: texts,
/// booleans and null are left out, and so is a number of 1e300 or more. A bucket without a number is
/// left out. Buckets are counted from Monday, 1970-01-05T00:00:00Z, in UTC; the first and the last may
/// be cut by `from` and `to`. Buckets of whole hours are read from the roll-up, which outlives the
/// measurements. Other buckets, and names with a dot, are read from the measurements; `source` says which.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/measurements/aggregates",
    operation_id = "aggregate_measurements",
    tag = "measurements",
    responses(
        (status = 200, description = "One page", body = BucketListing),
    )
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<SensorPath>,
    Query(And(range, query)): Query<And<TimeRangeQuery, ChartQuery>>,
) -> Result<HttpResponse, Problem> {
    let sensor = path.identifier.0;
    let attributes = checked_names(query.attributes, MAX_ATTRIBUTES)?;
    let bucket_secs = query.bucket.0;
    let range = range.range()?;
    let limit = query.limit.map_or(DEFAULT_LIMIT, |limit| limit.0);
    let after = after::<Bucket>(Bucket::TAG, query.cursor.as_deref())?;

    let to = range.to.unwrap_or_else(Timestamp::now);
    let from = range.from.unwrap_or_else(|| Aggregation::before(to, bucket_secs, limit));
    let from = after.map_or(from, |Bucket(after)| after.max(from)).max(Timestamp::default());
    let _turn = context.store.long_read(caller.holder()).await?;
    let aggregation = Aggregation { from, to: to.max(from), bucket_secs, attributes, limit };
    let aggregates = context.store.aggregate_measurements(sensor, &aggregation).await?;
    let Aggregates { rows, source, next } = aggregates.ok_or_else(Problem::sensor_not_found)?;
    let next = next.map(|next| cursor::encode(&Bucket(next)));
    Ok(HttpResponse::Ok().json(BucketListing { items: items(rows), next, source }))
}

fn items(rows: Vec<Aggregate>) -> Vec<BucketItem> {
    let mut items: Vec<(Timestamp, BucketItem)> = Vec::new();
    for row in rows {
        if items.last().is_none_or(|(bucket, _)| *bucket != row.bucket) {
            let item = BucketItem {
                timestamp: row.bucket.unix_seconds(),
                bucket_timestamp: row.bucket.to_jiff(),
                attributes: BTreeMap::new(),
            };
            items.push((row.bucket, item));
        }
        if let Some((_, item)) = items.last_mut() {
            let Aggregate { count, minimum, mean, maximum, .. } = row;
            let numbers = Numbers { count, min: minimum, mean, max: maximum };
            item.attributes.insert(row.attribute, numbers);
        }
    }
    items.into_iter().map(|(_, item)| item).collect()
}
