//! Measurements by the million: of a sensor, or of all sensors of a network, as CSV or a JSON object
//! a line, compressed if the client wants that. Called by notebooks. Promises a stream that begins at
//! once, holds little memory, and ends in the middle, not at its end, if something goes wrong.

use actix_web::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue,
};
use actix_web::middleware::Compress;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Responder};

use super::caller::Caller;
use super::measurements::MAX_ATTRIBUTES;
use super::page::Parameters;
use super::path::SensorPath;
use super::problem::{Kind, Problem};
use super::{Context, resource};
use crate::domain::{NetworkIdentifier, Role};
use crate::store::{Export, ExportError, ExportFormat, ExportOf};

const CSV: &str = "text/csv; charset=utf-8";
const NDJSON: &str = "application/x-ndjson";

/// Within `/sensors/{identifier}`.
pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(
        resource("/measurements/export", "GET")
            .route(web::get().to(of_sensor))
            .wrap(Compress::default()),
    );
}

/// Within `/api/v1`.
pub(super) fn network_routes(config: &mut ServiceConfig) {
    config.service(
        resource("/networks/{network}/measurements/export", "GET")
            .route(web::get().to(of_network))
            .wrap(Compress::default()),
    );
}

/// Exports the measurements of a sensor, oldest first
///
/// As CSV (RFC 4180, with a header) or as a JSON object a line; gzip if `Accept-Encoding` asks for it.
/// With `attributes`, only measurements that have one of these members; in CSV each is a column.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/measurements/export",
    operation_id = "export_sensor",
    tag = "measurements",
    params(
        ("identifier" = uuid::Uuid, Path, description = "The sensor"),
        ("format" = Option<String>, Query, description = "If nothing is said, as `Accept` says, else `csv`"),
        ("from" = Option<String>, Query, description = "From this time on: RFC 3339 or Unix seconds"),
        ("to" = Option<String>, Query, description = "Before this time: RFC 3339 or Unix seconds"),
        ("attributes" = Option<String>, Query, description = "Names of members, with commas between them"),
    ),
    responses(
        (status = 200, description = "The measurements", content(
            (String = "text/csv"), (String = "application/x-ndjson"),
        )),
        (status = 400, description = "A parameter is not usable"),
        (status = 404, description = "No such sensor"),
        (status = 503, description = "The database is away, or as many exports run as may"),
    )
)]
pub(super) async fn of_sensor(
    context: web::Data<Context>,
    caller: Caller,
    SensorPath(sensor): SensorPath,
    request: HttpRequest,
    parameters: Parameters,
) -> Result<impl Responder, Problem> {
    caller.may(Role::Viewer)?;
    let export = read(ExportOf::Sensor(sensor), &request, parameters)?;
    answer(&context, export, Problem::sensor_not_found).await
}

/// Exports the measurements of all sensors of a network, sensor by sensor, oldest first
///
/// As for one sensor.
#[utoipa::path(
    get,
    path = "/api/v1/networks/{network}/measurements/export",
    operation_id = "export_network",
    tag = "measurements",
    params(
        ("network" = uuid::Uuid, Path, description = "The network"),
        ("format" = Option<String>, Query, description = "If nothing is said, as `Accept` says, else `csv`"),
        ("from" = Option<String>, Query, description = "From this time on: RFC 3339 or Unix seconds"),
        ("to" = Option<String>, Query, description = "Before this time: RFC 3339 or Unix seconds"),
        ("attributes" = Option<String>, Query, description = "Names of members, with commas between them"),
    ),
    responses(
        (status = 200, description = "The measurements", content(
            (String = "text/csv"), (String = "application/x-ndjson"),
        )),
        (status = 400, description = "A parameter is not usable"),
        (status = 404, description = "No such network"),
        (status = 503, description = "The database is away, or as many exports run as may"),
    )
)]
pub(super) async fn of_network(
    context: web::Data<Context>,
    caller: Caller,
    identifier: web::Path<String>,
    request: HttpRequest,
    parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.may(Role::Viewer)?;
    let not_found = || Problem::new(Kind::NetworkNotFound, "no network has this identifier");
    let network = NetworkIdentifier::parse(&identifier).filter(|network| scope.covers(*network));
    let network = network.ok_or_else(not_found)?;
    let export = read(ExportOf::Network(network), &request, parameters)?;
    answer(&context, export, not_found).await
}

fn read(
    of: ExportOf,
    request: &HttpRequest,
    mut parameters: Parameters,
) -> Result<Export, Problem> {
    let format = parameters.take_as("format", "csv or ndjson", |text| match text {
        "csv" => Some(ExportFormat::Csv),
        "ndjson" => Some(ExportFormat::NdJson),
        _ => None,
    })?;
    let (span, attributes) = (parameters.span()?, parameters.attributes(MAX_ATTRIBUTES)?);
    parameters.finish()?;
    let format = format.unwrap_or_else(|| accepted(request.headers().get(ACCEPT)));
    Ok(Export { of, span, attributes, format })
}

/// What the client asks for; CSV if it does not say.
fn accepted(accept: Option<&HeaderValue>) -> ExportFormat {
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essences = accept.split(',').filter_map(|range| range.split(';').next()).map(str::trim);
    let formats = essences.filter_map(|essence| match essence {
        "text/csv" => Some(ExportFormat::Csv),
        NDJSON | "application/ndjson" | "application/jsonl" => Some(ExportFormat::NdJson),
        _ => None,
    });
    formats.into_iter().next().unwrap_or_default()
}

async fn answer(
    context: &Context,
    export: Export,
    not_found: impl FnOnce() -> Problem,
) -> Result<HttpResponse, Problem> {
    let (media_type, name) = match export.format {
        ExportFormat::Csv => (CSV, "csv"),
        ExportFormat::NdJson => (NDJSON, "ndjson"),
    };
    let lines = context.store.export(export).await?.ok_or_else(not_found)?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, media_type))
        .insert_header((
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"measurements.{name}\""),
        ))
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(lines))
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Busy(most) => {
                let detail = format!("no more than {most} exports run at once");
                Self::new(Kind::Busy, detail).busy()
            }
            ExportError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_says_what_it_reads() {
        for (accept, expected) in [
            ("*/*", ExportFormat::Csv),
            ("text/csv", ExportFormat::Csv),
            ("application/x-ndjson;q=0.9, */*", ExportFormat::NdJson),
            ("text/html, application/ndjson", ExportFormat::NdJson),
        ] {
            let header = HeaderValue::from_static(accept);
            assert_eq!(accepted(Some(&header)), expected, "{accept}");
        }
        assert_eq!(accepted(None), ExportFormat::Csv);
    }
}
