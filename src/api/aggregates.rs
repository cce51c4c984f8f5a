//! What a sensor measured, summed up by bucket of time: for charts of weeks. Reads through the
//! store's bundles, and has them made where that pays. Promises buckets of one length that begin at
//! the same moments whatever span is asked for, and numbers that are those of the rows.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use serde::Serialize;
use tracing::debug;

use super::Context;
use super::cursor::{self, Position};
use super::page::{Listing, Parameters};
use super::path::SensorPath;
use super::problem::Problem;
use super::routes::{Access, Routes};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::{Aggregate, Aggregation, BUCKET_ORIGIN, Store};

const MAX_BUCKET_SECS: u32 = 30 * 86_400;
const BUCKET_EXPECTED: &str = "a time from 1s to 30d, as in 60, 90s, 5m, 1h, 1d or 1w";

/// A chart has no more lines.
const MAX_ATTRIBUTES: usize = 8;

/// A chart has as many points.
const DEFAULT_LIMIT: u32 = 1_000;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
}

/// A bucket as it stands on the wire.
#[derive(Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = MeasurementBucket)]
pub(super) struct Item {
    /// When the bucket begins, in Unix seconds.
    #[schema(example = 1_782_896_400.0)]
    timestamp: f64,
    /// The same, as RFC 3339.
    bucket_timestamp: jiff::Timestamp,
    /// The numbers of each attribute that has any in this bucket.
    attributes: BTreeMap<String, Numbers>,
}

/// Of one attribute in one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub(super) struct Numbers {
    /// How many measurements have a number there; others are left out.
    count: i64,
    /// The least.
    min: f64,
    /// The arithmetic mean.
    mean: f64,
    /// The greatest.
    max: f64,
}

/// When the next page begins.
#[derive(Clone, Copy, Debug)]
struct Bucket(Timestamp);

impl Position for Bucket {
    const TAG: u8 = b'b';

    fn write(&self) -> Vec<u8> {
        self.0.unix_microseconds().to_be_bytes().into()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let moment = i64::from_be_bytes(bytes.try_into().ok()?);
        let last = Timestamp::from_unix_seconds(Timestamp::MAX_UNIX_SECONDS)?;
        let is_usable = (0..=last.unix_microseconds()).contains(&moment);
        is_usable.then(|| Self(Timestamp::from_unix_microseconds(moment)))
    }
}

/// What a sensor measured, summed up by bucket of time
///
/// Count, least, mean and greatest of each attribute, oldest bucket first. Only numbers count: texts,
/// booleans and null are left out, and so is a number of 1e300 or more. A bucket without a number is
/// left out. Buckets are counted from Monday, 1970-01-05T00:00:00Z, in UTC; the first and the last may
/// be cut by `from` and `to`.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/measurements/aggregates",
    operation_id = "aggregate_measurements",
    tag = "measurements",
    params(
        ("identifier" = uuid::Uuid, Path, description = "The sensor"),
        ("attributes" = String, Query, description = "1 to 8 names of members, with commas between them"),
        ("bucket" = String, Query, description = "The length of a bucket, 1s to 30d: `60`, `90s`, `5m`, `1h`, `1d`, `1w`"),
        ("from" = Option<String>, Query,
         description = "From this time on: RFC 3339 or Unix seconds; `limit` buckets before `to` if nothing is said"),
        ("to" = Option<String>, Query, description = "Before this time; now, if nothing is said"),
        ("limit" = Option<u32>, Query, description = "The buckets of a page"),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses(
        (status = 200, description = "One page", body = Listing<Item>),
        (status = 400, description = "A parameter is missing or not usable"),
        (status = 404, description = "No such sensor"),
        (status = 503, description = "The database is away, or the read takes too long"),
    )
)]
pub(super) async fn list(
    context: web::Data<Context>,
    SensorPath(sensor): SensorPath,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let attributes = parameters.attributes(MAX_ATTRIBUTES)?;
    let bucket_secs = parameters.take_as("bucket", BUCKET_EXPECTED, bucket)?;
    let span = parameters.span()?;
    let page = parameters.page_of::<Bucket>(DEFAULT_LIMIT)?;
    parameters.finish()?;
    let missing = |name| move || Problem::parameter(name, "it is missing");
    let attributes = attributes.ok_or_else(missing("attributes"))?;
    let bucket_secs = bucket_secs.ok_or_else(missing("bucket"))?;

    let to = span.to.unwrap_or_else(Timestamp::now);
    let grid = Grid { bucket_secs };
    let from = span.from.unwrap_or_else(|| to.saturating_sub(grid.length(page.limit)));
    let from = page.after.map_or(from, |Bucket(after)| after.max(from)).max(Timestamp::default());
    let end = page_end(&context.store, sensor, (from, to), (grid, page.limit)).await?;
    let aggregation = Aggregation { from, to: to.min(end).max(from), bucket_secs, attributes };
    let aggregates = context.store.aggregate_measurements(sensor, &aggregation).await;
    let is_slow = match &aggregates {
        Ok(aggregates) => aggregates.as_ref().is_some_and(|aggregates| aggregates.is_slow),
        // Else it would be too slow the next time too.
        Err(error) => error.is_timeout(),
    };
    if is_slow {
        let span = (aggregation.from, aggregation.to);
        actix_web::rt::spawn(bundle(context.store.clone(), sensor, span));
    }
    let aggregates = aggregates?.ok_or_else(Problem::sensor_not_found)?;
    let next = match end < to {
        true => context.store.nth_measurement(sensor, (end, to), 0).await?,
        false => None,
    };
    Ok(HttpResponse::Ok().json(Listing {
        items: items(aggregates.rows),
        next: next.map(|next| cursor::encode(&Bucket(grid.floor(next)))),
    }))
}

/// For the next who asks.
async fn bundle(store: Store, sensor: SensorIdentifier, span: (Timestamp, Timestamp)) {
    if let Err(error) = store.bundle(sensor, span).await {
        debug!(%sensor, %error, "measurements were not bundled");
    }
}

/// Where a page ends: `limit` buckets behind its begin, or further on if they are mostly empty; so
/// many measurements lie in no more buckets.
async fn page_end(
    store: &Store,
    sensor: SensorIdentifier,
    (from, to): (Timestamp, Timestamp),
    (grid, limit): (Grid, u32),
) -> Result<Timestamp, Problem> {
    let end = grid.floor(from).saturating_add(grid.length(limit));
    if end >= to {
        return Ok(end);
    }
    let next = store.nth_measurement(sensor, (from, to), limit).await?;
    Ok(next.map_or(to, |next| grid.floor(next).max(end)))
}

/// The buckets of one length.
#[derive(Clone, Copy)]
struct Grid {
    bucket_secs: u32,
}

impl Grid {
    fn length(self, buckets: u32) -> Duration {
        Duration::from_secs(u64::from(self.bucket_secs) * u64::from(buckets))
    }

    /// When the bucket of a moment begins.
    fn floor(self, moment: Timestamp) -> Timestamp {
        let length = i64::from(self.bucket_secs) * 1_000_000;
        let origin = BUCKET_ORIGIN.unix_microseconds();
        let since = moment.unix_microseconds() - origin;
        Timestamp::from_unix_microseconds(since.div_euclid(length) * length + origin)
    }
}

fn items(rows: Vec<Aggregate>) -> Vec<Item> {
    let mut items: Vec<(Timestamp, Item)> = Vec::new();
    for row in rows {
        if items.last().is_none_or(|(bucket, _)| *bucket != row.bucket) {
            let item = Item {
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

/// Seconds, or a number and its unit.
fn bucket(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|it: char| it.is_ascii_lowercase());
    let unit = match text.strip_prefix(digits)? {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u32 = digits.parse().ok().filter(|_| is_number)?;
    count.checked_mul(unit).filter(|secs| (1..=MAX_BUCKET_SECS).contains(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_a_unit() {
        for (text, secs) in [
            ("1", 1),
            ("60", 60),
            ("90s", 90),
            ("5m", 300),
            ("1h", 3_600),
            ("1d", 86_400),
            ("2w", 1_209_600),
            ("30d", 2_592_000),
        ] {
            assert_eq!(bucket(text), Some(secs), "{text}");
        }
        for text in
            ["", "0", "0s", "s", "31d", "5w", "1y", "1.5h", "-1", "+1", "1 h", "99999999999"]
        {
            assert_eq!(bucket(text), None, "{text}");
        }
    }

    #[test]
    fn a_week_begins_on_monday_and_a_day_at_midnight() {
        let at = |text: &str| Timestamp::from(text.parse::<jiff::Timestamp>().unwrap());
        let floor = |bucket_secs, text| Grid { bucket_secs }.floor(at(text));
        assert_eq!(floor(7 * 86_400, "2026-11-24T12:00:00Z"), at("2026-11-23T00:00:00Z"));
        assert_eq!(floor(86_400, "2026-11-24T12:00:00Z"), at("2026-11-24T00:00:00Z"));
        assert_eq!(floor(86_400, "1970-01-01T12:00:00Z"), at("1970-01-01T00:00:00Z"));
        assert_eq!(floor(1, "2026-11-24T12:00:00.9Z"), at("2026-11-24T12:00:00Z"));
    }

    #[test]
    fn attributes_of_one_bucket_stand_together() {
        let row = |secs: i64, attribute: &str| Aggregate {
            bucket: Timestamp::from_unix_microseconds(secs * 1_000_000),
            attribute: attribute.into(),
            count: 1,
            minimum: 1.0,
            mean: 2.0,
            maximum: 3.0,
        };
        let items = items(vec![row(0, "a"), row(0, "b"), row(60, "a")]);
        let names: Vec<Vec<_>> = items.iter().map(|it| it.attributes.keys().collect()).collect();
        assert_eq!(names, [vec!["a", "b"], vec!["a"]]);
        assert_eq!(items[1].timestamp, 60.0);
    }
}
