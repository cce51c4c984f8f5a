//! The configurations of a sensor: the next one, and those that were. A POST commits the row, which
//! is the outbox, then tells the fleet. Promises that the text is kept as it came, and that an
//! accepted configuration is one that the database and every sensor can read.

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::body::{Body, not_json, pointer};
use super::page::{NoParameters, Parameters, listing};
use super::path::SensorPath;
use super::problem::{Kind, Problem};
use super::{Context, read, resource, to_the_end};
use crate::domain::{Step, Tidings, Timestamp};
use crate::store::{Configuration, ConfigurationState};
use crate::wire::value::{Flaw, check};

/// Within `/sensors/{identifier}`.
pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(
        resource("/configurations", "GET, HEAD, POST")
            .route(read().to(list))
            .route(web::post().to(create)),
    );
}

/// A configuration as it stands on the wire.
#[derive(Serialize)]
struct Item {
    revision: i32,
    configuration: Box<RawValue>,
    state: ConfigurationState,
    creation_timestamp: jiff::Timestamp,
    publication_timestamp: Option<jiff::Timestamp>,
    acknowledgement_timestamp: Option<jiff::Timestamp>,
    acknowledgement_receipt_timestamp: Option<jiff::Timestamp>,
    success: Option<bool>,
}

async fn create(
    context: web::Data<Context>,
    SensorPath(sensor): SensorPath,
    _: NoParameters,
    body: Body,
) -> Result<impl Responder, Problem> {
    let configuration = serde_json::from_str::<&RawValue>(body.text()).map_err(|e| not_json(&e))?;
    let configuration = usable(configuration.get(), "")?;
    let revision = to_the_end(async move {
        let revision = context.store.create_configuration(sensor, &configuration).await?;
        let revision = revision.ok_or_else(Problem::sensor_not_found)?;
        let what = Tidings::Configuration { revision, step: Step::Pending };
        context.streams.hub.audience().tell_of(sensor, what);
        context.fleet.announce(sensor, revision).await;
        Ok(revision)
    })
    .await?;
    let answer = json!({ "sensor_identifier": sensor, "revision": revision });
    Ok(HttpResponse::Accepted().json(answer))
}

async fn list(
    context: web::Data<Context>,
    SensorPath(sensor): SensorPath,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let page = parameters.page::<i32>()?;
    parameters.finish()?;
    let rows = context.store.list_configurations(sensor, &page).await?;
    let rows = rows.ok_or_else(Problem::sensor_not_found)?;
    Ok(listing(rows, &page, |row| row.revision, Item::from))
}

impl From<Configuration> for Item {
    fn from(row: Configuration) -> Self {
        Self {
            revision: row.revision,
            configuration: row.value,
            state: row.state,
            creation_timestamp: row.created_at.to_jiff(),
            publication_timestamp: row.published_at.map(Timestamp::to_jiff),
            acknowledgement_timestamp: row.acknowledged_at.map(Timestamp::to_jiff),
            acknowledgement_receipt_timestamp: row
                .acknowledgement_received_at
                .map(Timestamp::to_jiff),
            success: row.success,
        }
    }
}

/// The `configuration` of a sensor that is being created.
pub(super) fn configuration_member(json: &str) -> Result<String, Problem> {
    usable(json, "/configuration")
}

/// A text that is JSON, if it is a configuration; `at` points to where it stands in the body.
fn usable(json: &str, at: &str) -> Result<String, Problem> {
    match check(json) {
        Ok(()) => Ok(json.to_owned()),
        Err(flaw) => {
            let member = match &flaw {
                Flaw::Nested(key) | Flaw::DuplicateKey(key) | Flaw::Number(key) => pointer(key),
                Flaw::NotAnObject | Flaw::Key(..) | Flaw::Nul(_) | Flaw::Surrogate(_) => {
                    String::new()
                }
            };
            Err(Problem::new(Kind::InvalidConfiguration, flaw.to_string())
                .at(format!("{at}{member}"))
                .with_reason(flaw.reason().code()))
        }
    }
}
