//! `GET /log-messages`: the log messages of all sensors that the caller may see, in one list. Called by the
//! dashboard.

use actix_web::HttpResponse;
use actix_web::web;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::access::Access;
use super::caller::Caller;
use super::fields::Identifier;
use super::log_messages::{self, LogQuery};
use super::page::{Listing, RowsQuery, row_listing};
use super::problem::Problem;
use super::query::{And, Query};
use super::routes::Routes;
use super::{Context, cursor};
use crate::domain::{NetworkIdentifier, SensorIdentifier};
use crate::store::{FleetLogFilter, FleetLogKey, FleetLogRow};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
}

/// A log message with its sensor.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = FleetLogMessage)]
pub(super) struct Item {
    #[schema(value_type = uuid::Uuid)]
    sensor_identifier: SensorIdentifier,
    sensor_name: String,
    #[schema(value_type = uuid::Uuid)]
    network: NetworkIdentifier,
    #[serde(flatten)]
    message: log_messages::LogMessageItem,
}

impl From<FleetLogRow> for Item {
    fn from(row: FleetLogRow) -> Self {
        Self {
            sensor_identifier: row.sensor,
            sensor_name: row.sensor_name,
            network: row.network,
            message: row.message.into(),
        }
    }
}

/// Log messages of all sensors, page by page
///
/// By the sensors' clocks, newest first by default.
#[utoipa::path(
    get,
    path = "/api/v1/log-messages",
    operation_id = "list_fleet_log_messages",
    tag = "log messages",
    responses(
        (status = 200, description = "One page", body = Listing<Item>),
    )
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Query(And(And(rows, log), query)): Query<And<And<RowsQuery, LogQuery>, FleetLogQuery>>,
) -> Result<HttpResponse, Problem> {
    let (range, order, page, list) = rows.parts::<FleetLogKey>(cursor::FLEET_LOG)?;
    let network = query.network.map(|network| NetworkIdentifier(network.0));
    let filter = FleetLogFilter { scope: caller.scope, network, log: log.into() };
    // Whatever is left out has to be read.
    let _turn = context.store.long_read(caller.holder()).await?;
    let page = context.store.list_fleet_log((range, order), &page, &filter).await?;
    Ok(row_listing(list, page, FleetLogRow::key, Item::from))
}

/// Selects the sensors.
#[derive(Debug, Deserialize, IntoParams)]
struct FleetLogQuery {
    /// Sensors of one network
    #[param(inline)]
    network: Option<Identifier>,
}
