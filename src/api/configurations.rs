//! The configurations of a sensor. A POST commits the row, which is the outbox, then notifies the supervisor
//! and the outbox. The text is kept as received; an accepted configuration can be read by the database and by
//! every sensor; a request repeated under its Idempotency-Key creates nothing and gets the first response.

use std::convert::identity;

use actix_web::http::header::{HeaderName, LOCATION};
use actix_web::web;
use actix_web::{HttpResponse, Responder};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::access::Access;
use super::body::{Body, not_json};
use super::configuration_diff::{Diff, diff};
use super::field_error::pointer;
use super::fields::RevisionOrNewest;
use super::idempotency::IdempotencyKey;
use super::page::{Listing, PageQuery, listing};
use super::path::{ConfigurationPath, Path, SensorPath};
use super::problem::{Kind, Problem};
use super::query::Query;
use super::routes::Routes;
use super::{Context, run_to_completion};
use crate::domain::{EventKind, SensorIdentifier, Step};
use crate::store::{Configuration, Creation};
use crate::wire::value::{Flawed, NestedValues, check};

/// Marks a response that repeats the first one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
    routes.add(Access::OPERATOR, __path_create, create).fails_with(&[Kind::InvalidConfiguration]);
    routes.add(Access::VIEWER, __path_compare, compare).fails_with(&[Kind::ConfigurationNotFound]);
    routes.add(Access::VIEWER, __path_one, one);
    routes
        .add(Access::OPERATOR, __path_republish, republish)
        .fails_with(&[Kind::NotNewest, Kind::NotReady]);
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct ConfigurationAccepted {
    #[schema(value_type = uuid::Uuid)]
    sensor_identifier: SensorIdentifier,
    revision: i32,
}

/// Configures a sensor
///
/// The body is the configuration: an object whose members are strings, numbers, booleans or null, and with
/// `NESTED_VALUES=store` also objects and arrays, to a depth of 16. It
/// becomes the next revision, is committed, and then published to the sensor. With an
/// `Idempotency-Key` a repeated request gets the first answer, for a day if nothing else is set, with
/// `Idempotency-Replayed: true`. The request is the same if its body is, byte by byte: with
/// its members in another order it is another one, which is 422.
#[utoipa::path(
    post,
    path = "/api/v1/sensors/{identifier}/configurations",
    operation_id = "create_configuration",
    tag = "configurations",
    params(("Idempotency-Key" = Option<String>, Header,
         description = "1 to 255 characters; all requests of this sensor with this key are one")),
    request_body(content = Object, example = json!({ "interval_secs": 60 })),
    responses(
        (status = 202, description = "Committed; it will be published", body = ConfigurationAccepted),
    )
)]
async fn create(
    context: web::Data<Context>,
    Path(path): Path<SensorPath>,
    key: IdempotencyKey,
    body: Body,
) -> Result<impl Responder, Problem> {
    let sensor = path.identifier.0;
    let configuration = serde_json::from_str::<&RawValue>(body.text()).map_err(|e| not_json(&e))?;
    let configuration = usable(configuration.get(), "", context.settings.nested_values)?;
    let idempotency = key.of(body.text());
    let (revision, is_repeated) = run_to_completion(async move {
        let store = &context.store;
        let creation =
            store.create_configuration(sensor, &configuration, idempotency.as_ref()).await?;
        match creation.ok_or_else(Problem::sensor_not_found)? {
            Creation::Created(revision) => {
                let what = EventKind::Configuration { revision, step: Step::Pending };
                context.streams.hub.subscriptions().publish(sensor, what);
                context.supervisor.configured(sensor, revision).await;
                Ok((revision, false))
            }
            Creation::Repeated(revision) => Ok((revision, true)),
            Creation::OtherBody => {
                let detail = "another body was sent under this Idempotency-Key";
                Err(Problem::new(Kind::IdempotencyKeyReused, detail))
            }
        }
    })
    .await?;
    let location = format!("/api/v1/sensors/{sensor}/configurations/{revision}");
    let mut response = HttpResponse::Accepted();
    response.insert_header((LOCATION, location));
    if is_repeated {
        response.insert_header((REPLAYED, "true"));
    }
    Ok(response.json(ConfigurationAccepted { sensor_identifier: sensor, revision }))
}

/// The configurations of a sensor, newest first, each with its state
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/configurations",
    operation_id = "list_configurations",
    tag = "configurations",
    responses(
        (status = 200, description = "One page", body = Listing<Configuration>),
    )
)]
async fn list(
    context: web::Data<Context>,
    Path(path): Path<SensorPath>,
    Query(query): Query<PageQuery>,
) -> Result<impl Responder, Problem> {
    let page = query.page::<i32>()?;
    let rows = context.store.list_configurations(path.identifier.0, &page).await?;
    let rows = rows.ok_or_else(Problem::sensor_not_found)?;
    Ok(listing(rows, &page, |row| row.revision, identity))
}

/// One configuration of a sensor, with its state
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/configurations/{revision}",
    operation_id = "read_configuration",
    tag = "configurations",
    responses(
        (status = 200, description = "The configuration", body = Configuration),
    )
)]
async fn one(
    context: web::Data<Context>,
    Path(path): Path<ConfigurationPath>,
) -> Result<impl Responder, Problem> {
    let (sensor, revision) = (path.identifier.0, path.revision.0);
    let configuration = find(&context, sensor, revision).await?;
    Ok(HttpResponse::Ok().json(configuration))
}

/// Publishes the newest configuration of a sensor once more
///
/// It is also republished automatically when the sensor reports an older revision. Only the newest can be
/// republished: a sensor's topic retains one.
#[utoipa::path(
    post,
    path = "/api/v1/sensors/{identifier}/configurations/{revision}/republish",
    operation_id = "republish_configuration",
    tag = "configurations",
    responses(
        (status = 202, description = "It will be published again", body = ConfigurationAccepted),
        (status = 409, description = "There is a newer one"),
    )
)]
async fn republish(
    context: web::Data<Context>,
    Path(path): Path<ConfigurationPath>,
) -> Result<impl Responder, Problem> {
    let (sensor, wanted) = (path.identifier.0, path.revision.0);
    let newest = find(&context, sensor, None).await?.revision;
    match wanted {
        Some(wanted) if wanted > newest => return Err(Problem::configuration_not_found()),
        Some(wanted) if wanted < newest => {
            let detail = format!("revision {newest} is the newest; create its like to go back");
            return Err(Problem::new(Kind::NotNewest, detail));
        }
        Some(_) | None => {}
    }
    if !context.supervisor.republish(sensor).await {
        let detail = "the publisher does not answer; the configuration is not published again";
        return Err(Problem::new(Kind::NotReady, detail).busy());
    }
    let answer = ConfigurationAccepted { sensor_identifier: sensor, revision: newest };
    Ok(HttpResponse::Accepted().json(answer))
}

/// The differences between two configurations of a sensor
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/configurations/diff",
    operation_id = "compare_configurations",
    tag = "configurations",
    responses(
        (status = 200, description = "Members added, removed and changed", body = Diff),
    )
)]
async fn compare(
    context: web::Data<Context>,
    Path(path): Path<SensorPath>,
    Query(query): Query<DiffQuery>,
) -> Result<impl Responder, Problem> {
    let (sensor, from) = (path.identifier.0, query.from.0);
    let to = query.to.and_then(|to| to.0);
    let old = find(&context, sensor, from).await?;
    let new = find(&context, sensor, to).await?;
    let diff = diff((old.revision, &old.configuration), (new.revision, &new.configuration));
    Ok(HttpResponse::Ok().json(diff.map_err(Problem::internal)?))
}

#[derive(Debug, Deserialize, IntoParams)]
struct DiffQuery {
    /// The revision with which is compared: a number, or `newest`
    #[param(inline)]
    from: RevisionOrNewest,
    /// The revision that is compared; the newest, by default
    #[param(inline)]
    to: Option<RevisionOrNewest>,
}

async fn find(
    context: &Context,
    sensor: SensorIdentifier,
    revision: Option<i32>,
) -> Result<Configuration, Problem> {
    let found = context.store.configuration(sensor, revision).await?;
    found.ok_or_else(Problem::sensor_not_found)?.ok_or_else(Problem::configuration_not_found)
}

/// The text of a JSON value, if it is a valid configuration; `at` is its pointer in the body.
pub(super) fn usable(json: &str, at: &str, nested_values: NestedValues) -> Result<String, Problem> {
    match check(json, nested_values) {
        Ok(()) => Ok(json.to_owned()),
        Err(Flawed { flaw, path }) => {
            let member: String = path.iter().map(|name| pointer(name)).collect();
            Err(Problem::new(Kind::InvalidConfiguration, flaw.to_string())
                .at(format!("{at}{member}"))
                .with_reason(flaw.reason().code()))
        }
    }
}
