//! Sensors: create, read, change, delete; `sensor_list.rs` lists them. Handlers call the store, then notify the
//! supervisor and the outbox. A name is unique in its network; a 204 means that a deleted sensor's rows are deleted.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::{info, warn};
use utoipa::ToSchema;

use super::access::Access;
use super::answer::created;
use super::body::Json;
use super::caller::Caller;
use super::configurations;
use super::field_error::pointer;
use super::fields::{self, Name, Network, not_null};
use super::path::{Path, SensorPath};
use super::problem::{Kind, Problem};
use super::routes::Routes;
use super::{Context, run_to_completion};
use crate::domain::{EventKind, NetworkIdentifier, Scope, SensorIdentifier, Task, Timestamp};
use crate::sensor::Snapshot;
use crate::store::{NewSensor, Sensor, SensorChange, SensorError};
use crate::wire::value::{self, NestedValues};

/// Bounds a page of a thousand sensors.
const MAX_METADATA_BYTES: usize = 16 << 10;

/// How long a creation waits for the purge of an earlier sensor with the same identifier.
const PURGE_WAIT: Duration = Duration::from_secs(2);

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::ADMIN, __path_create, create).fails_with(&[
        Kind::NameTaken,
        Kind::IdentifierTaken,
        Kind::InvalidConfiguration,
        Kind::PurgeUnderWay,
    ]);
    routes.add(Access::VIEWER, __path_one, one);
    routes.add(Access::ADMIN, __path_change, change).fails_with(&[Kind::NameTaken]);
    routes.add(Access::ADMIN, __path_delete, delete);
}

#[derive(Serialize, ToSchema)]
pub(super) struct SensorDetail {
    #[serde(flatten)]
    item: Sensor,
    /// Null where it sent nothing for a while.
    live: Option<Snapshot>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSensorBody {
    /// Unique in its network.
    #[schema(inline)]
    name: Name,
    /// Random, by default. Unique in all networks, as it names the sensor's topics: choose a random one,
    /// which nobody else can guess.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    identifier: Option<fields::Sensor>,
    /// The caller's own, or the default network, by default.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    network: Option<Network>,
    /// Becomes revision 0: an object whose members are strings, numbers, booleans or null.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Object, required = false)]
    configuration: Option<Box<RawValue>>,
    /// Any object of at most 16 KiB.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Object, required = false)]
    metadata: Option<Box<RawValue>>,
}

/// Members that are left out do not change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SensorChangeBody {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    name: Option<Name>,
    /// The network to which it moves.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    network: Option<Network>,
    /// Any object of at most 16 KiB, in place of the one before.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Object, required = false)]
    metadata: Option<Box<RawValue>>,
}

impl From<SensorError> for Problem {
    fn from(error: SensorError) -> Self {
        match error {
            SensorError::NameTaken => {
                Self::new(Kind::NameTaken, "a sensor of the network has this name")
                    .at("/name".into())
            }
            SensorError::IdentifierTaken => {
                Self::new(Kind::IdentifierTaken, "a sensor has this identifier")
                    .at("/identifier".into())
            }
            SensorError::NoSuchNetwork => Problem::no_such_network(),
            SensorError::NotPurged => Self::new(
                Kind::PurgeUnderWay,
                "the rows of the deleted sensor with this identifier are still being removed",
            )
            .at("/identifier".into())
            .busy(),
            SensorError::Refused => {
                Self::new(Kind::InvalidConfiguration, "the database cannot hold it")
            }
            SensorError::Store(error) => error.into(),
        }
    }
}

/// Creates a sensor, and with it its first configuration
///
/// An identifier that a deleted sensor had can be used again once that one's rows are removed, which
/// takes minutes where there are millions. Until then it is 503, `purge-under-way`. An `Idempotency-Key` is
/// not looked at here: give the sensor an `identifier` of your own, and a request that is repeated is 409,
/// `identifier-taken`.
#[utoipa::path(
    post, path = "/api/v1/sensors", tag = "sensors", operation_id = "create_sensor",
    responses(
        (status = 201, description = "The sensor", body = Sensor),
        (status = 409, description = "Another sensor has the name or the identifier"),
    ),
)]
async fn create(
    context: web::Data<Context>,
    caller: Caller,
    Json(body): Json<NewSensorBody>,
) -> Result<HttpResponse, Problem> {
    let new = new_sensor(body, caller.scope, context.settings.nested_values)?;
    let sensor = run_to_completion(async move {
        let sensor = match context.store.create_sensor(&new).await {
            Err(SensorError::NotPurged) if purged_in_time(&context, new.identifier).await => {
                context.store.create_sensor(&new).await?
            }
            outcome => outcome?,
        };
        if let Some(revision) = sensor.newest_revision {
            context.supervisor.configured(sensor.identifier, revision).await;
        }
        Ok(sensor)
    })
    .await?;
    let location = format!("/api/v1/sensors/{}", sensor.identifier);
    Ok(created(location, sensor))
}

/// Continues an interrupted purge, unless another process does so; returns whether it finished in time. It
/// continues in any case.
async fn purged_in_time(context: &Context, identifier: SensorIdentifier) -> bool {
    let (store, tasks) = (context.work.clone(), context.tasks.clone());
    let purge = async move {
        let outcome = store.resume_purge(identifier).await;
        if let Err(error) = &outcome {
            warn!(sensor = %identifier, %error, "rows of a deleted sensor remain; they will be purged later");
        }
        outcome.unwrap_or(false)
    };
    let purge = actix_web::rt::spawn(async move { tasks.watch(Task::Request, purge).await });
    let outcome = tokio::time::timeout(PURGE_WAIT, purge).await;
    matches!(outcome, Ok(Ok(Ok(true))))
}

fn new_sensor(
    body: NewSensorBody,
    own: Scope,
    nested_values: NestedValues,
) -> Result<NewSensor, Problem> {
    let network = network_in(own, body.network)?.or(own.network());
    let identifier = body.identifier.map(|identifier| identifier.0);
    let configuration = body
        .configuration
        .map(|json| configurations::usable(json.get(), "/configuration", nested_values));
    Ok(NewSensor {
        identifier: identifier.unwrap_or_else(SensorIdentifier::random),
        network: network.unwrap_or(NetworkIdentifier::DEFAULT),
        name: body.name.0,
        metadata: body.metadata.map(|json| usable_metadata(json.get())).transpose()?,
        configuration: configuration.transpose()?,
    })
}

/// The text of a JSON object, if the database can hold it. Its depth was checked with the body's.
fn usable_metadata(json: &str) -> Result<String, Problem> {
    if json.len() > MAX_METADATA_BYTES {
        return Err(Problem::member("/metadata".into(), "it is larger than 16 KiB"));
    }
    value::check_metadata(json).map_err(|flawed| {
        let member: String = flawed.path.iter().map(|name| pointer(name)).collect();
        Problem::member(format!("/metadata{member}"), flawed.flaw.to_string())
    })?;
    Ok(json.to_owned())
}

fn network_in(own: Scope, network: Option<Network>) -> Result<Option<NetworkIdentifier>, Problem> {
    match network {
        Some(Network(network)) if !own.covers(network) => Err(Problem::no_such_network()),
        network => Ok(network.map(|network| network.0)),
    }
}

/// One sensor, with its actor's state
///
/// 503 while the database is unavailable; `…/live` then still shows the actor's state.
#[utoipa::path(
    get, path = "/api/v1/sensors/{identifier}", tag = "sensors", operation_id = "read_sensor",
    responses(
        (status = 200, description = "The sensor", body = SensorDetail),
    ),
)]
async fn one(
    context: web::Data<Context>,
    Path(path): Path<SensorPath>,
) -> Result<HttpResponse, Problem> {
    let identifier = path.identifier.0;
    let (sensor, live) =
        tokio::join!(context.store.sensor(identifier), context.supervisor.snapshot(identifier));
    let mut sensor = sensor?.ok_or_else(Problem::sensor_not_found)?;
    // The actor is ahead of the table.
    let received_at = live.as_ref().and_then(Snapshot::last_receipt).map(Timestamp::to_jiff);
    sensor.last_seen_timestamp = sensor.last_seen_timestamp.max(received_at);
    Ok(HttpResponse::Ok().json(SensorDetail { item: sensor, live }))
}

/// Renames a sensor, moves it to another network, or replaces its metadata.
#[utoipa::path(
    patch, path = "/api/v1/sensors/{identifier}", tag = "sensors", operation_id = "change_sensor",
    responses(
        (status = 200, description = "The sensor", body = Sensor),
        (status = 409, description = "Another sensor of the network has the name"),
    ),
)]
async fn change(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<SensorPath>,
    Json(body): Json<SensorChangeBody>,
) -> Result<HttpResponse, Problem> {
    let identifier = path.identifier.0;
    let change = SensorChange {
        name: body.name.map(|name| name.0),
        network: network_in(caller.scope, body.network)?,
        metadata: body.metadata.map(|json| usable_metadata(json.get())).transpose()?,
    };
    let sensor = run_to_completion(async move {
        let sensor = context.store.change_sensor(identifier, &change).await?;
        sensor.ok_or_else(Problem::sensor_not_found)
    })
    .await?;
    Ok(HttpResponse::Ok().json(sensor))
}

/// Deletes a sensor with all its rows, and clears its retained configuration.
#[utoipa::path(
    delete, path = "/api/v1/sensors/{identifier}", tag = "sensors", operation_id = "delete_sensor",
    responses(
        (status = 204, description = "It is deleted, with all its rows"),
    ),
)]
async fn delete(
    context: web::Data<Context>,
    Path(path): Path<SensorPath>,
) -> Result<HttpResponse, Problem> {
    let identifier = path.identifier.0;
    run_to_completion(async move {
        if !context.store.delete_sensor(identifier).await? {
            return Err(Problem::sensor_not_found());
        }
        context.streams.hub.subscriptions().publish(identifier, EventKind::Deleted);
        context.supervisor.deleted(identifier).await;
        match context.work.purge_sensor(identifier).await {
            Ok(row_count) => info!(sensor = %identifier, row_count, "sensor deleted"),
            // The sensor is deleted, and a repeated request would be 404: housekeeping continues the purge.
            Err(error) => {
                warn!(sensor = %identifier, %error, "rows of a deleted sensor remain; they will be purged later");
            }
        }
        Ok(())
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}
