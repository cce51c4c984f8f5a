//! `GET /sensors/{identifier}/live`: what a sensor's actor knows. The only read of a sensor that is
//! answered while the database is unavailable, then only to callers with a role in all networks,
//! because the sensor's network is unknown.

use std::time::Duration;

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::access::Access;
use super::caller::Caller;
use super::path::{Path, UncheckedSensorPath};
use super::problem::Problem;
use super::routes::Routes;
use crate::domain::{NetworkIdentifier, Scope, SensorIdentifier, Timestamp};
use crate::sensor::Snapshot;
use crate::store::StoreError;

/// Longest wait for the tables. Authentication before it may have waited as long.
const LOOK_UP_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_one, one);
}

#[derive(Serialize, ToSchema)]
pub(super) struct LiveState {
    #[schema(value_type = uuid::Uuid)]
    sensor_identifier: SensorIdentifier,
    /// Null while the database is unavailable.
    #[schema(value_type = Option<uuid::Uuid>)]
    network: Option<NetworkIdentifier>,
    /// When its last message reached the service.
    last_seen_timestamp: Option<jiff::Timestamp>,
    /// Null where it sent nothing for a while.
    live: Option<Snapshot>,
}

/// What a sensor's actor knows of it, also while the database is unavailable
///
/// Its desired, acknowledged and reported revisions, and how much of each kind was received and when.
/// While the database is unavailable, this is answered for every sensor that sent a message to this
/// process within `SENSOR_IDLE_SECS`, to callers that were authenticated within the last five minutes and
/// whose role holds in all networks. All others get 503 then.
#[utoipa::path(
    get, path = "/api/v1/sensors/{identifier}/live", tag = "sensors", operation_id = "read_live_state",
    responses(
        (status = 200, description = "Its live state", body = LiveState),
    ),
)]
async fn one(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<UncheckedSensorPath>,
) -> Result<impl Responder, Problem> {
    let (sensor, scope) = (path.identifier.0, caller.scope);
    let look_up = tokio::time::timeout(LOOK_UP_TIMEOUT, context.store.sensor_location(sensor));
    let (found, live) = tokio::join!(look_up, context.supervisor.snapshot(sensor));
    let found =
        found.unwrap_or(Err(StoreError::PoolTimeout { waited: LOOK_UP_TIMEOUT, last: None }));
    let (network, stored_at) = match found {
        Ok(Some(it)) if scope.covers(it.network) => (Some(it.network), it.last_seen_at),
        Ok(_) => return Err(Problem::sensor_not_found()),
        // To which network the sensor belongs is unknown then.
        Err(error) if error.is_unavailable() && scope == Scope::All && live.is_some() => {
            (None, None)
        }
        Err(error) => return Err(error.into()),
    };
    // The actor is ahead of the table.
    let last_seen_at = stored_at.max(live.as_ref().and_then(Snapshot::last_receipt));
    let last_seen_timestamp = last_seen_at.map(Timestamp::to_jiff);
    Ok(HttpResponse::Ok().json(LiveState {
        sensor_identifier: sensor,
        network,
        last_seen_timestamp,
        live,
    }))
}
