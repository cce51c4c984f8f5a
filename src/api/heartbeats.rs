//! The heartbeats of a sensor, with which it acknowledges configurations. Lists every heartbeat, not only the
//! first of a revision.

use actix_web::HttpResponse;
use actix_web::web;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::access::Access;
use super::caller::Caller;
use super::fields::{Flag, Revision};
use super::page::{Listing, RowsQuery, row_listing};
use super::path::{Path, SensorPath};
use super::problem::Problem;
use super::query::{And, Query};
use super::routes::Routes;
use super::{Context, cursor};
use crate::store::{HeartbeatFilter, HeartbeatRow};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
}

#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Heartbeat)]
pub(super) struct HeartbeatItem {
    /// By the sensor's clock, in Unix seconds.
    timestamp: f64,
    /// By the sensor's clock, as RFC 3339.
    creation_timestamp: jiff::Timestamp,
    /// When it reached the service.
    receipt_timestamp: jiff::Timestamp,
    /// The sensor named no time, so that its time is that of the receipt (`TIMESTAMP_MISSING=receipt`). Missing if false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    timed_at_receipt: bool,
    /// The revision that it acknowledges; null: the sensor runs under none from the server.
    revision: Option<i32>,
    /// Whether the sensor applied it.
    success: bool,
}

impl From<HeartbeatRow> for HeartbeatItem {
    fn from(row: HeartbeatRow) -> Self {
        Self {
            timestamp: row.key.timestamp.unix_seconds(),
            creation_timestamp: row.key.timestamp.to_jiff(),
            receipt_timestamp: row.received_at.to_jiff(),
            timed_at_receipt: row.timed_at_receipt,
            revision: row.revision,
            success: row.success,
        }
    }
}

/// Heartbeats of a sensor, page by page
///
/// Newest first by default. The first heartbeat of a revision acknowledges it, and says for
/// good whether it works; later ones are kept here and change nothing. One for a revision that was never
/// made is kept too: it acknowledges nothing, and stands in the sensor's `live.reported_revision`.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/heartbeats",
    operation_id = "list_heartbeats",
    tag = "heartbeats",
    responses(
        (status = 200, description = "One page", body = Listing<HeartbeatItem>),
    )
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<SensorPath>,
    Query(And(rows, query)): Query<And<RowsQuery, HeartbeatQuery>>,
) -> Result<HttpResponse, Problem> {
    let (selection, list) = rows.selection(cursor::HEARTBEATS)?;
    let filter = HeartbeatFilter {
        revision: query.revision.map(|revision| revision.0),
        success: query.success.map(|success| success.0),
    };
    let _turn = match filter == HeartbeatFilter::default() {
        true => None,
        false => Some(context.store.long_read(caller.holder()).await?),
    };
    let page = context.store.list_heartbeats(path.sensor(), &selection, filter).await?;
    let page = page.ok_or_else(Problem::sensor_not_found)?;
    Ok(row_listing(list, page, |row| row.key, HeartbeatItem::from))
}

#[derive(Debug, Deserialize, IntoParams)]
struct HeartbeatQuery {
    /// Those that acknowledge this revision
    #[param(inline)]
    revision: Option<Revision>,
    /// Those that say that it works, or does not
    #[param(inline)]
    success: Option<Flag>,
}
