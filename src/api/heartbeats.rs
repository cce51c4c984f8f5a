//! The heartbeats of a sensor, with which it acknowledges configurations. Lists every heartbeat, not only the
//! first of a revision.

use std::convert::identity;

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
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
        (status = 200, description = "One page", body = Listing<HeartbeatRow>),
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
    let page = context.store.list_heartbeats(path.identifier.0, &selection, filter).await?;
    let page = page.ok_or_else(Problem::sensor_not_found)?;
    Ok(row_listing(list, page, |row| row.key, identity))
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
