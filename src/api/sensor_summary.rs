//! `GET /sensors/summary`: how many sensors there are, by the state of their newest configuration, and how
//! many of them are silent. Called by the dashboard. Promises the states and the scope that the list of
//! sensors has.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Context;
use super::access::Access;
use super::caller::Caller;
use super::fields::{Identifier, Time};
use super::problem::Problem;
use super::query::Query;
use super::routes::Routes;
use crate::domain::{NetworkIdentifier, Timestamp};
use crate::store::ConfigurationState;

/// Who was not heard for so long is silent, unless the query says otherwise.
const SILENCE: Duration = Duration::from_secs(3_600);

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_summarise, summarise);
}

/// How many sensors there are.
#[derive(Serialize, ToSchema)]
pub(super) struct SensorSummary {
    /// All that the caller may see, or those of the network.
    sensors: u64,
    /// Those not heard since `silent_since`; never heard is silent.
    silent: u64,
    silent_since: jiff::Timestamp,
    /// By the state of the newest configuration; each state is there.
    #[schema(value_type = BTreeMap<String, u64>, example = json!({
        "none": 0, "pending": 0, "published": 1, "acknowledged": 18, "failed": 1, "stale": 0
    }))]
    configuration_states: BTreeMap<&'static str, u64>,
}

/// Counts of sensors, by the state of their newest configuration
///
/// And of those that are silent. The list of sensors takes the same conditions.
#[utoipa::path(
    get, path = "/api/v1/sensors/summary", tag = "sensors", operation_id = "summarise_sensors",
    responses((status = 200, description = "The counts", body = SensorSummary)),
)]
async fn summarise(
    context: web::Data<Context>,
    caller: Caller,
    Query(query): Query<SummaryQuery>,
) -> Result<HttpResponse, Problem> {
    let network = query.network.map(|network| NetworkIdentifier(network.0));
    let hour_ago = || Timestamp::now().saturating_sub(SILENCE);
    let silent_since = query.silent_since.map_or_else(hour_ago, |time| time.0);
    let _turn = context.store.long_read(caller.holder()).await?;
    let counts = context.store.summarise_sensors(caller.scope(), network, silent_since).await?;
    let mut states: BTreeMap<_, _> =
        ConfigurationState::ALL.into_iter().map(|state| (state.name(), 0)).collect();
    states.extend(counts.iter().map(|count| (count.state.name(), count.sensors)));
    Ok(HttpResponse::Ok().json(SensorSummary {
        sensors: counts.iter().map(|count| count.sensors).sum(),
        silent: counts.iter().map(|count| count.silent).sum(),
        silent_since: silent_since.to_jiff(),
        configuration_states: states,
    }))
}

/// Which sensors, and who of them is silent.
#[derive(Debug, Deserialize, IntoParams)]
struct SummaryQuery {
    /// Those of one network
    #[param(inline)]
    network: Option<Identifier>,
    /// Silent is who was not heard since: RFC 3339 or Unix seconds; an hour ago, by default
    #[param(inline)]
    silent_since: Option<Time>,
}
