//! The measurements of a sensor: any range in either order, and the newest. The numbers of a value are those of
//! the table, never converted to floating point.

use std::convert::identity;

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use utoipa::IntoParams;

use super::access::Access;
use super::caller::Caller;
use super::fields::Attributes;
use super::page::{Listing, RowsQuery, row_listing};
use super::path::{Path, SensorPath};
use super::problem::{Kind, Problem};
use super::query::{And, Query};
use super::routes::Routes;
use super::{Context, cursor};
use crate::store::{MeasurementRow, Newest};

pub(super) const MAX_ATTRIBUTES: usize = 64;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
    routes.add(Access::VIEWER, __path_latest, latest).fails_with(&[Kind::MeasurementNotFound]);
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct AttributesQuery {
    /// Names of members, with commas between them
    #[param(inline)]
    attributes: Option<Attributes>,
}

impl AttributesQuery {
    /// At most `max` names, each once.
    pub(super) fn attributes(self, max: usize) -> Result<Option<Vec<String>>, Problem> {
        self.attributes.map(|attributes| checked_names(attributes, max)).transpose()
    }
}

/// At most `max` names, each once.
pub(super) fn checked_names(
    Attributes(names): Attributes,
    max: usize,
) -> Result<Vec<String>, Problem> {
    if names.len() > max {
        return Err(Problem::parameter("attributes", format!("it takes at most {max} names")));
    }
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, twice)) => {
            Err(Problem::parameter("attributes", format!("it names {twice:?} twice")))
        }
        None => Ok(names),
    }
}

/// Measurements of a sensor, page by page
///
/// Newest first by default. With `attributes`, only measurements that have one of these
/// members, and of their values only these.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/measurements",
    operation_id = "list_measurements",
    tag = "measurements",
    responses(
        (status = 200, description = "One page", body = Listing<MeasurementRow>),
    )
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<SensorPath>,
    Query(And(rows, query)): Query<And<RowsQuery, AttributesQuery>>,
) -> Result<HttpResponse, Problem> {
    let (selection, list) = rows.selection(cursor::MEASUREMENTS)?;
    let attributes = query.attributes(MAX_ATTRIBUTES)?;
    let _turn = match attributes {
        None => None,
        Some(_) => Some(context.store.long_read(caller.holder()).await?),
    };
    let page =
        context.store.list_measurements(path.identifier.0, &selection, attributes.as_deref());
    let page = page.await?.ok_or_else(Problem::sensor_not_found)?;
    Ok(row_listing(list, page, |row| row.key, identity))
}

/// The newest measurement of a sensor, by its own clock
///
/// A measurement whose timestamp is more than `FUTURE_TOLERANCE_SECS` ahead of the service's clock is shown
/// only if the sensor has no other.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/measurements/latest",
    operation_id = "latest_measurement",
    tag = "measurements",
    responses(
        (status = 200, description = "The newest measurement", body = Newest),
    )
)]
async fn latest(
    context: web::Data<Context>,
    Path(path): Path<SensorPath>,
) -> Result<HttpResponse, Problem> {
    let newest = context.store.newest_measurement(path.identifier.0).await?;
    let newest = newest.ok_or_else(Problem::sensor_not_found)?.ok_or_else(|| {
        Problem::new(Kind::MeasurementNotFound, "the sensor has not measured anything yet")
    })?;
    Ok(HttpResponse::Ok().json(newest))
}
