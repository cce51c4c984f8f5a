//! What a sensor measured: any span of it in either direction, and the newest. Reads the rows that
//! the writer committed. Promises that the numbers of a value come out as the table has them, not
//! through a float.

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use serde::Serialize;
use serde_json::value::RawValue;

use super::page::{Listing, NoParameters, Parameters, row_listing};
use super::path::SensorPath;
use super::problem::{Kind, Problem};
use super::routes::{Access, Routes};
use super::{Context, cursor};
use crate::store::{MeasurementRow, Order, Page, Selection, Span};

/// More than anybody names by hand.
pub(super) const MAX_ATTRIBUTES: usize = 64;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
    routes.add(Access::VIEWER, __path_latest, latest);
}

/// A measurement as it stands on the wire.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Measurement)]
pub(super) struct Item {
    /// By the sensor's clock, in Unix seconds.
    #[schema(example = 1_782_896_400.25)]
    timestamp: f64,
    /// The same, as RFC 3339.
    creation_timestamp: jiff::Timestamp,
    /// When it reached the service.
    receipt_timestamp: jiff::Timestamp,
    /// The revision of the configuration under which it was taken.
    revision: i32,
    /// An object without nesting, its numbers as the sensor wrote them.
    #[schema(value_type = Object, example = json!({ "temperature": 21.5 }))]
    value: Box<RawValue>,
}

impl From<MeasurementRow> for Item {
    fn from(row: MeasurementRow) -> Self {
        Self {
            timestamp: row.key.timestamp.unix_seconds(),
            creation_timestamp: row.key.timestamp.to_jiff(),
            receipt_timestamp: row.received_at.to_jiff(),
            revision: row.revision,
            value: row.value,
        }
    }
}

/// Measurements of a sensor, page by page
///
/// Newest first if nothing else is said. With `attributes`, only measurements that have one of these
/// members, and of their values only these.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/measurements",
    operation_id = "list_measurements",
    tag = "measurements",
    params(
        ("identifier" = uuid::Uuid, Path, description = "The sensor"),
        ("from" = Option<String>, Query, description = "From this time on: RFC 3339 or Unix seconds"),
        ("to" = Option<String>, Query, description = "Before this time: RFC 3339 or Unix seconds"),
        ("order" = Option<String>, Query, description = "`desc`: newest first"),
        ("attributes" = Option<String>, Query, description = "Names of members, with commas between them"),
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
    let selection = parameters.selection(cursor::MEASUREMENTS)?;
    let attributes = parameters.attributes(MAX_ATTRIBUTES)?;
    parameters.finish()?;
    let page = context.store.list_measurements(sensor, &selection, attributes.as_deref()).await?;
    let page = page.ok_or_else(Problem::sensor_not_found)?;
    let list = cursor::rows(cursor::MEASUREMENTS, selection.order);
    Ok(row_listing(list, page, |row| row.key, Item::from))
}

/// The newest measurement of a sensor, by its own clock
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/measurements/latest",
    operation_id = "latest_measurement",
    tag = "measurements",
    params(("identifier" = uuid::Uuid, Path, description = "The sensor")),
    responses(
        (status = 200, description = "The newest measurement", body = Item),
        (status = 404, description = "No such sensor, or it has not measured anything yet"),
        (status = 503, description = "The database is away, or the read takes too long"),
    )
)]
pub(super) async fn latest(
    context: web::Data<Context>,
    SensorPath(sensor): SensorPath,
    _: NoParameters,
) -> Result<impl Responder, Problem> {
    let page = Page { limit: 1, after: None };
    let selection = Selection { span: Span::default(), order: Order::NewestFirst, page };
    let page = context.store.list_measurements(sensor, &selection, None).await?;
    let newest = page.ok_or_else(Problem::sensor_not_found)?.rows.pop();
    let newest = newest.ok_or_else(|| {
        Problem::new(Kind::MeasurementNotFound, "the sensor has not measured anything yet")
    })?;
    Ok(HttpResponse::Ok().json(Item::from(newest)))
}
