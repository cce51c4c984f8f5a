//! `GET /rejections/summary`: the number of rejections per reason. Called by the dashboard. Takes the conditions and
//! has the scope of the list of rejections.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::access::Access;
use super::caller::Caller;
use super::fields::ReasonCode;
use super::page::Listing;
use super::problem::{Kind, Problem};
use super::query::Query;
use super::rejections::{RejectionsQuery, within};
use super::routes::Routes;
use crate::store;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_summarise, summarise).fails_with(&[Kind::SensorNotFound]);
}

/// The rejections of one reason.
#[derive(Serialize, ToSchema)]
pub(super) struct RejectionCount {
    #[schema(value_type = ReasonCode)]
    reason: String,
    /// The number of rejections.
    count: i64,
    /// The number of items in them.
    item_count: i64,
    /// When the first was received.
    first_receipt_timestamp: jiff::Timestamp,
    /// When the last was received.
    last_receipt_timestamp: jiff::Timestamp,
}

impl From<store::ReasonCount> for RejectionCount {
    fn from(it: store::ReasonCount) -> Self {
        Self {
            reason: it.reason,
            count: it.rejections,
            item_count: it.items,
            first_receipt_timestamp: it.first_at.to_jiff(),
            last_receipt_timestamp: it.last_at.to_jiff(),
        }
    }
}

/// Counts of rejections, by reason
///
/// The most frequent first; all on one page.
#[utoipa::path(
    get, path = "/api/v1/rejections/summary", tag = "rejections", operation_id = "summarise_rejections",
    responses(
        (status = 200, description = "Each reason that occurs", body = Listing<RejectionCount>),
        (status = 404, description = "The sensor is outside of the caller's network"),
    ),
)]
async fn summarise(
    context: web::Data<Context>,
    caller: Caller,
    Query(query): Query<RejectionsQuery>,
) -> Result<HttpResponse, Problem> {
    let filter = within(&context, caller.scope, query.into()).await;
    let filter = filter.map_err(|problem| problem.in_parameter("sensor"))?;
    let _turn = context.store.long_read(caller.holder()).await?;
    let counts = context.store.summarise_rejections(&filter).await?;
    let items = counts.into_iter().map(RejectionCount::from).collect();
    Ok(HttpResponse::Ok().json(Listing { items, next: None }))
}
