//! How a sensor acknowledged its configurations, newest first. Reads the rows that the writer
//! committed. Promises every heartbeat, not only the first of a revision.

use actix_web::Responder;
use actix_web::web;
use serde::Serialize;

use super::page::{Listing, Parameters, row_listing};
use super::path::{REVISION_EXPECTED, SensorPath, revision};
use super::problem::Problem;
use super::routes::{Access, Routes};
use super::{Context, cursor};
use crate::store::{HeartbeatFilter, HeartbeatRow};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
}

/// A heartbeat as it stands on the wire.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Heartbeat)]
pub(super) struct Item {
    /// By the sensor's clock, in Unix seconds.
    timestamp: f64,
    /// The same, as RFC 3339.
    creation_timestamp: jiff::Timestamp,
    /// When it reached the service.
    receipt_timestamp: jiff::Timestamp,
    /// The revision that it acknowledges.
    revision: i32,
    /// Whether that one works.
    success: bool,
}

impl From<HeartbeatRow> for Item {
    fn from(row: HeartbeatRow) -> Self {
        Self {
            timestamp: row.key.timestamp.unix_seconds(),
            creation_timestamp: row.key.timestamp.to_jiff(),
            receipt_timestamp: row.received_at.to_jiff(),
            revision: row.revision,
            success: row.success,
        }
    }
}

/// Heartbeats of a sensor, page by page
///
/// Newest first if nothing else is said. The first heartbeat of a revision acknowledges it, and says for
/// good whether it works; later ones are kept here and change nothing. One for a revision that was never
/// made is kept too: it acknowledges nothing, and stands in the sensor's `live.reported_revision`.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/heartbeats",
    operation_id = "list_heartbeats",
    tag = "heartbeats",
    params(
        ("identifier" = uuid::Uuid, Path, description = "The sensor"),
        ("revision" = Option<i32>, Query, description = "Those that acknowledge this revision"),
        ("success" = Option<bool>, Query, description = "Those that say that it works, or does not"),
        ("from" = Option<String>, Query, description = "From this time on: RFC 3339 or Unix seconds"),
        ("to" = Option<String>, Query, description = "Before this time: RFC 3339 or Unix seconds"),
        ("order" = Option<String>, Query, description = "`desc`: newest first"),
        ("limit" = Option<u32>, Query, description = "Items of a page"),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses(
        (status = 200, description = "One page", body = Listing<Item>),
        (status = 400, description = "A parameter is not usable"),
        (status = 404, description = "No such sensor"),
        (status = 503, description = "The database is away, or the read takes too long"),
    )
)]
pub(super) async fn list(
    context: web::Data<Context>,
    SensorPath(sensor): SensorPath,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let selection = parameters.selection(cursor::HEARTBEATS)?;
    let filter = HeartbeatFilter {
        revision: parameters.take_as("revision", REVISION_EXPECTED, revision)?,
        success: parameters.take_as("success", "true or false", |text| text.parse().ok())?,
    };
    parameters.finish()?;
    let page = context.store.list_heartbeats(sensor, &selection, filter).await?;
    let page = page.ok_or_else(Problem::sensor_not_found)?;
    let list = cursor::rows(cursor::HEARTBEATS, selection.order);
    Ok(row_listing(list, page, |row| row.key, Item::from))
}
