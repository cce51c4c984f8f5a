//! `GET /sensors/{identifier}/attributes`: the members of a sensor's values, from the measurements of a time range.
//! Called by the dashboard, which draws a chart for each numeric one.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::access::Access;
use super::caller::Caller;
use super::page::TimeRangeQuery;
use super::path::{Path, SensorPath};
use super::problem::Problem;
use super::query::Query;
use super::routes::Routes;
use crate::domain::Timestamp;
use crate::store::Attribute;

/// The default range.
const LOOK_BACK: Duration = Duration::from_secs(28 * 86_400);

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
}

/// The members of a sensor's values.
#[derive(Serialize, ToSchema)]
pub(super) struct Attributes {
    /// By name; at most 1,000.
    items: Vec<Attribute>,
    /// Whether there are more than 1,000; the rest is left out.
    more: bool,
    /// The time range.
    from: jiff::Timestamp,
    to: jiff::Timestamp,
}

/// The members of a sensor's values: their names, types and times
///
/// Of the last 28 days, unless `from` and `to` say otherwise.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/attributes",
    operation_id = "list_attributes",
    tag = "measurements",
    responses((status = 200, description = "All members", body = Attributes)),
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<SensorPath>,
    Query(range): Query<TimeRangeQuery>,
) -> Result<HttpResponse, Problem> {
    let range = range.range()?;
    // Includes the measurements of a sensor whose clock is fast.
    let to = range.to.unwrap_or_else(|| Timestamp::now().saturating_add(LOOK_BACK));
    let back = || to.min(Timestamp::now()).saturating_sub(LOOK_BACK);
    let from = range.from.unwrap_or_else(back);
    let _turn = context.store.long_read(caller.holder()).await?;
    let found = context.store.list_attributes(path.identifier.0, (from, to)).await?;
    let found = found.ok_or_else(Problem::sensor_not_found)?;
    Ok(HttpResponse::Ok().json(Attributes {
        items: found.items,
        more: found.more,
        from: from.to_jiff(),
        to: to.to_jiff(),
    }))
}
