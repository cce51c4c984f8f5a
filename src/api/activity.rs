//! How much each sensor sent, in buckets of four hours: what the fleet's stream refers to. Promises
//! pages of bounded size, whatever the size of the fleet.

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use uuid::Uuid;

use super::Context;
use super::caller::Caller;
use super::cursor;
use super::narrow::{MOMENT_EXPECTED, moment};
use super::page::{DEFAULT_LIMIT, Listing, Parameters, listing_in};
use super::problem::Problem;
use super::routes::{Access, Routes};
use crate::streams::SensorCounts;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
}

/// Counts of each sensor per four hours, over 28 days, page by page
///
/// By the sensors' clocks, ordered by identifier; sensors without an item in that time are left out. A
/// page holds at most 16,800 counts: 100 sensors with all their buckets, so fewer than `limit` if need
/// be. The counts are up to a minute old, and up to two seconds while the fleet's stream is open.
/// Together with that stream: open it first, then read the pages, and keep the greater of two
/// counts, since a count of a bucket only grows. When the stream sends `fleet` again, read the pages
/// again, with `from` two buckets before the last page was read if the counts until then are at hand.
#[utoipa::path(
    get, path = "/api/v1/activity", tag = "streams", operation_id = "list_activity",
    params(
        ("from" = Option<String>, Query, description = "From the bucket of this time on: RFC 3339 or Unix seconds"),
        ("limit" = Option<u32>, Query, description = "Items of a page"),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses(
        (status = 200, description = "One page", body = Listing<SensorCounts>),
        (status = 400, description = "A parameter is not usable"),
        (status = 503, description = "The database is unavailable, or the read takes too long"),
    )
)]
pub(super) async fn list(
    context: web::Data<Context>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let from = parameters.take_as("from", MOMENT_EXPECTED, moment)?;
    let page = parameters.page_in::<Uuid>(cursor::ACTIVITY, DEFAULT_LIMIT)?;
    parameters.finish()?;
    let (rows, page) = context.store.list_activity(caller.scope(), from, page).await?;
    let item = |row: crate::store::SensorActivity| SensorCounts::new(row.sensor, &row.buckets);
    let response: HttpResponse =
        listing_in(cursor::ACTIVITY, rows, &page, (|row: &_| key(row), item));
    Ok(response)
}

fn key(row: &crate::store::SensorActivity) -> Uuid {
    row.sensor.0
}
