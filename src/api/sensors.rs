//! Sensors: create, list, read, rename, delete. Handlers read the request, call the store, and
//! tell the fleet. Promises that a name is unique in its network, and that a deleted sensor's rows
//! are gone when the 204 arrives.

use actix_web::http::header::LOCATION;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use serde::Serialize;
use tracing::{error, info};

use super::body::Body;
use super::caller::Caller;
use super::configurations::configuration_member;
use super::page::{NoParameters, Parameters, listing};
use super::path::SensorPath;
use super::problem::{Kind, Problem};
use super::{Context, read, resource, to_the_end};
use crate::domain::{Role, SensorIdentifier, Tidings};
use crate::sensor::Snapshot;
use crate::store::{ConfigurationState, NewSensor, Sensor, SensorError};

const MAX_NAME_CHARACTERS: usize = 200;
pub(super) const NAME_EXPECTED: &str =
    "a string of 1 to 200 characters, none of them a control character";

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(
        resource("/sensors", "GET, HEAD, POST")
            .route(read().to(list))
            .route(web::post().to(create)),
    );
}

/// Within `/sensors/{identifier}`.
pub(super) fn item_routes(config: &mut ServiceConfig) {
    config.service(
        resource("", "GET, HEAD, PATCH, DELETE")
            .route(read().to(one))
            .route(web::patch().to(rename))
            .route(web::delete().to(delete)),
    );
}

/// A sensor as it stands on the wire.
#[derive(Serialize)]
struct Item {
    identifier: SensorIdentifier,
    name: String,
    creation_timestamp: jiff::Timestamp,
    newest_revision: Option<i32>,
    configuration_state: ConfigurationState,
    last_acknowledged_revision: Option<i32>,
}

/// One sensor, with what its actor knows.
#[derive(Serialize)]
struct Detail {
    #[serde(flatten)]
    item: Item,
    live: Option<Snapshot>,
}

impl From<Sensor> for Item {
    fn from(sensor: Sensor) -> Self {
        Self {
            identifier: sensor.identifier,
            name: sensor.name,
            creation_timestamp: sensor.created_at.to_jiff(),
            newest_revision: sensor.newest_revision,
            configuration_state: sensor.configuration_state,
            last_acknowledged_revision: sensor.last_acknowledged_revision,
        }
    }
}

impl From<SensorError> for Problem {
    fn from(error: SensorError) -> Self {
        match error {
            SensorError::NameTaken => {
                Self::new(Kind::NameTaken, "a sensor of this network has the name")
                    .at("/name".into())
            }
            SensorError::IdentifierTaken => {
                Self::new(Kind::IdentifierTaken, "a sensor has the identifier")
                    .at("/identifier".into())
            }
            SensorError::Refused => {
                Self::new(Kind::InvalidConfiguration, "the database cannot hold it")
            }
            SensorError::Store(error) => error.into(),
        }
    }
}

async fn create(
    context: web::Data<Context>,
    caller: Caller,
    _: NoParameters,
    body: Body,
) -> Result<impl Responder, Problem> {
    caller.may(Role::Admin)?;
    let new = read_new(&body)?;
    let sensor = to_the_end(async move {
        let sensor = context.store.create_sensor(&new).await?;
        if let Some(revision) = sensor.newest_revision {
            context.fleet.announce(sensor.identifier, revision).await;
        }
        Ok(sensor)
    })
    .await?;
    let location = format!("/api/v1/sensors/{}", sensor.identifier);
    Ok(HttpResponse::Created().insert_header((LOCATION, location)).json(Item::from(sensor)))
}

fn read_new(body: &Body) -> Result<NewSensor, Problem> {
    let mut members = body.members()?;
    let name = members.take_as("name", NAME_EXPECTED, usable_name)?;
    let identifier =
        members.take_as("identifier", "a UUID in its hyphenated form", |it: String| {
            SensorIdentifier::parse(&it)
        })?;
    let configuration = members.take("configuration").map(configuration_member).transpose()?;
    members.finish()?;
    let name = name.ok_or_else(|| Problem::member("/name".into(), "it is missing"))?;
    Ok(NewSensor {
        identifier: identifier.unwrap_or_else(SensorIdentifier::random),
        name,
        configuration,
    })
}

pub(super) fn usable_name(name: String) -> Option<String> {
    let usable = (1..=MAX_NAME_CHARACTERS).contains(&name.chars().count())
        && !name.chars().any(char::is_control);
    usable.then_some(name)
}

async fn list(
    context: web::Data<Context>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    caller.may(Role::Viewer)?;
    let page = parameters.page::<String>()?;
    let name = parameters.take_as("name", NAME_EXPECTED, |it| usable_name(it.into()))?;
    parameters.finish()?;
    let sensors = context.store.list_sensors(&page, name.as_deref()).await?;
    Ok(listing(sensors, &page, |sensor| sensor.name.clone(), Item::from))
}

async fn one(
    context: web::Data<Context>,
    caller: Caller,
    SensorPath(identifier): SensorPath,
    _: NoParameters,
) -> Result<impl Responder, Problem> {
    caller.may(Role::Viewer)?;
    let (sensor, live) =
        tokio::join!(context.store.sensor(identifier), context.fleet.snapshot(identifier));
    let item = sensor?.ok_or_else(Problem::sensor_not_found)?.into();
    Ok(HttpResponse::Ok().json(Detail { item, live }))
}

async fn rename(
    context: web::Data<Context>,
    caller: Caller,
    SensorPath(identifier): SensorPath,
    _: NoParameters,
    body: Body,
) -> Result<impl Responder, Problem> {
    caller.may(Role::Admin)?;
    let mut members = body.members()?;
    let name = members.take_as("name", NAME_EXPECTED, usable_name)?;
    members.finish()?;
    let name = name.ok_or_else(|| Problem::member("/name".into(), "it is missing"))?;
    let sensor = context.store.rename_sensor(identifier, &name).await?;
    let sensor = sensor.ok_or_else(Problem::sensor_not_found)?;
    Ok(HttpResponse::Ok().json(Item::from(sensor)))
}

async fn delete(
    context: web::Data<Context>,
    caller: Caller,
    SensorPath(identifier): SensorPath,
    _: NoParameters,
) -> Result<impl Responder, Problem> {
    caller.may(Role::Admin)?;
    to_the_end(async move {
        if !context.store.delete_sensor(identifier).await? {
            return Err(Problem::sensor_not_found());
        }
        context.streams.hub.audience().tell_of(identifier, Tidings::Deleted);
        context.fleet.forget(identifier).await;
        match context.store.purge_sensor(identifier).await {
            Ok(row_count) => info!(sensor = %identifier, row_count, "sensor deleted"),
            // The sensor is gone, and asking again would find none: a person must look.
            Err(error) => error!(sensor = %identifier, %error, "a deleted sensor's rows are left"),
        }
        Ok(())
    })
    .await?;
    Ok(HttpResponse::NoContent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_printed() {
        for name in ["a", "Grünfläche 7", &"é".repeat(200)] {
            assert!(usable_name(name.into()).is_some(), "{name}");
        }
        for name in ["", "a\0b", "a\nb", &"é".repeat(201)] {
            assert!(usable_name(name.into()).is_none(), "{name}");
        }
    }
}
