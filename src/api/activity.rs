//! Counts of items per sensor and bucket of four hours; the fleet's stream refers to this list. A page is
//! bounded, whatever the size of the fleet.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Context;
use super::access::Access;
use super::caller::Caller;
use super::cursor;
use super::fields::{SensorIdentifiers, Time};
use super::page::{Listing, PageQuery, listing_in};
use super::problem::Problem;
use super::query::{And, Query};
use super::routes::Routes;
use crate::store::SensorActivity;
use crate::streams::SensorCounts;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
}

/// Counts of each sensor per four hours, over 28 days, page by page
///
/// By the sensors' clocks, ordered by identifier; sensors without an item in that time are left out. A
/// page holds at most 16,800 counts: 100 sensors with all their buckets, so fewer than `limit` if need
/// be. The counts are up to ten seconds old, and up to two seconds while the fleet's stream is open.
/// Together with that stream: open it first, then read the pages, and keep the greater of two
/// counts, since a count of a bucket only grows. When the stream sends `fleet` again, read the pages
/// again, with `from` two buckets before the last page was read if the counts until then are at hand.
#[utoipa::path(
    get, path = "/api/v1/activity", tag = "streams", operation_id = "list_activity",
    responses((status = 200, description = "One page", body = Listing<SensorCounts>)),
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Query(And(query, page)): Query<And<ActivityQuery, PageQuery>>,
) -> Result<HttpResponse, Problem> {
    let from = query.from.map(|time| time.0);
    let sensors = query.sensors.map(|sensors| sensors.0);
    let page = page.page_of::<Uuid>(cursor::ACTIVITY)?;
    let (rows, page) =
        context.store.list_activity(caller.scope, (from, sensors.as_deref()), page).await?;
    let item = |row: SensorActivity| SensorCounts::new(row.sensor, &row.buckets);
    let key = |row: &SensorActivity| row.sensor.0;
    Ok(listing_in(cursor::ACTIVITY, rows, &page, (key, item)))
}

#[derive(Debug, Deserialize, IntoParams)]
struct ActivityQuery {
    /// From the bucket of this time on: RFC 3339 or Unix seconds
    #[param(inline)]
    from: Option<Time>,
    /// Of these sensors: at most 100, with commas between them
    #[param(inline, style = Form, explode = false)]
    sensors: Option<SensorIdentifiers>,
}
