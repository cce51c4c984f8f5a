//! The list of sensors, filtered and sorted. Inserts leave no gap between pages; in the order of last_seen, a
//! sensor that sends meanwhile moves.

use std::convert::identity;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Context;
use super::access::Access;
use super::caller::Caller;
use super::fields::{Identifier, Name, SearchText, Sort, State, Time};
use super::page::{Listing, PageQuery, listing};
use super::problem::Problem;
use super::query::{And, Query};
use super::routes::Routes;
use crate::domain::NetworkIdentifier;
use crate::store::{Sensor, SensorFilter, SensorKey, SensorOrder};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
}

/// The sensors that the caller may see.
#[utoipa::path(
    get, path = "/api/v1/sensors", tag = "sensors", operation_id = "list_sensors",
    responses((status = 200, description = "A page of sensors", body = Listing<Sensor>)),
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Query(And(page, query)): Query<And<PageQuery, SensorsQuery>>,
) -> Result<HttpResponse, Problem> {
    let page = page.page::<SensorKey>()?;
    let order = query.sort.map_or(SensorOrder::Name, |sort| sort.0);
    let filter = SensorFilter {
        scope: caller.scope,
        network: query.network.map(|network| NetworkIdentifier(network.0)),
        name: query.name.map(|name| name.0),
        part_of_name: query.q.map(|text| text.0),
        silent_since: query.silent_since.map(|time| time.0),
        state: query.configuration_state.map(|state| state.0),
    };
    if page.after.as_ref().is_some_and(|key| !key.suits(order)) {
        return Err(Problem::parameter("cursor", "it is of a list in another order"));
    }
    let sensors = context.store.list_sensors(&page, &filter, order).await?;
    Ok(listing(sensors, &page, |sensor| sensor.key(order), identity))
}

#[derive(Debug, Deserialize, IntoParams)]
struct SensorsQuery {
    /// Those of one network
    #[param(inline)]
    network: Option<Identifier>,
    /// Those of exactly this name
    #[param(inline)]
    name: Option<Name>,
    /// Those with this text in their name, in either case
    #[param(inline)]
    q: Option<SearchText>,
    /// Sensors without a message since this time (RFC 3339 or Unix seconds), including those that never sent one
    #[param(inline)]
    silent_since: Option<Time>,
    /// Sensors whose newest configuration is in this state; `stale`: not acknowledged, though the sensor sent a
    /// message more than five minutes after its publication
    #[param(inline)]
    configuration_state: Option<State>,
    /// By name, or by the time of the last message: the oldest first, or last
    #[param(inline, default = "name")]
    sort: Option<Sort>,
}
