//! Measurements by the million: of a sensor, or of all sensors of a network, as CSV or a JSON object
//! a line, compressed if the client wants that. Called by notebooks. Promises a stream that begins at
//! once, holds little memory, and is cut off, so that no client takes it for whole, if something
//! goes wrong.

use std::convert::Infallible;

use actix_web::http::Method;
use actix_web::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue,
};
use actix_web::middleware::Compress;
use actix_web::web::{self, Bytes, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, Responder};

use super::accept::takes;
use super::caller::Caller;
use super::measurements::MAX_ATTRIBUTES;
use super::networks::{self, network_in};
use super::page::Parameters;
use super::path::SensorPath;
use super::problem::{Kind, Problem};
use super::{Context, resource};
use crate::domain::Role;
use crate::store::{Export, ExportError, ExportFormat, ExportOf};

const CSV: &str = "text/csv; charset=utf-8";
const NDJSON: &str = "application/x-ndjson";

/// Within `/sensors/{identifier}`.
pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(
        resource("/measurements/export", "GET, HEAD")
            .route(super::read().to(of_sensor))
            .wrap(Compress::default()),
    );
}

/// Within `/api/v1`.
pub(super) fn network_routes(config: &mut ServiceConfig) {
    config.service(
        resource("/networks/{network}/measurements/export", "GET, HEAD")
            .route(super::read().to(of_network))
            .wrap(Compress::default()),
    );
}

/// Exports the measurements of a sensor, oldest first
///
/// As CSV (RFC 4180, with a header) or as a JSON object a line; gzip if `Accept-Encoding` asks for it.
/// With `attributes`, only measurements that have one of these members; in CSV each is a column.
/// It is whole only if the answer ends as HTTP/1.1 says: one that goes wrong on its way is cut off
/// without its last chunk, which clients report as an error (`curl` ends with 18 or 56).
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
    if request.method() == Method::HEAD {
        context.store.sensor(sensor).await?.ok_or_else(Problem::sensor_not_found)?;
        return Ok(head(export.format));
    }
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
    request: HttpRequest,
    parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.may(Role::Viewer)?;
    let network = network_in(&request, scope)?;
    let export = read(ExportOf::Network(network), &request, parameters)?;
    let not_found = networks::not_found;
    if request.method() == Method::HEAD {
        context.store.network(network).await?.ok_or_else(not_found)?;
        return Ok(head(export.format));
    }
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

/// What the client asks for; CSV if it takes both alike.
fn accepted(accept: Option<&HeaderValue>) -> ExportFormat {
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let essences = accept.split(',').filter_map(|range| range.split(';').next()).map(str::trim);
    let mut formats = essences.filter_map(|essence| match essence {
        "text/csv" => Some(ExportFormat::Csv),
        NDJSON | "application/ndjson" | "application/jsonl" => Some(ExportFormat::NdJson),
        _ => None,
    });
    let unnamed = || match takes(accept, "text/csv") || !takes(accept, NDJSON) {
        true => ExportFormat::Csv,
        false => ExportFormat::NdJson,
    };
    formats.next().unwrap_or_else(unnamed)
}

async fn answer(
    context: &Context,
    export: Export,
    not_found: impl FnOnce() -> Problem,
) -> Result<HttpResponse, Problem> {
    let format = export.format;
    let lines = context.store.export(export).await?.ok_or_else(not_found)?;
    Ok(response(format).streaming(lines))
}

/// What a HEAD gets: all but the lines.
fn head(format: ExportFormat) -> HttpResponse {
    response(format).streaming(futures_util::stream::empty::<Result<Bytes, Infallible>>())
}

fn response(format: ExportFormat) -> HttpResponseBuilder {
    let (media_type, name) = match format {
        ExportFormat::Csv => (CSV, "csv"),
        ExportFormat::NdJson => (NDJSON, "ndjson"),
    };
    let disposition = format!("attachment; filename=\"measurements.{name}\"");
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, media_type))
        .insert_header((CONTENT_DISPOSITION, disposition))
        .insert_header((CACHE_CONTROL, "no-store"));
    response
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
            ("application/*", ExportFormat::NdJson),
            ("text/*, application/*", ExportFormat::Csv),
        ] {
            let header = HeaderValue::from_static(accept);
            assert_eq!(accepted(Some(&header)), expected, "{accept}");
        }
        assert_eq!(accepted(None), ExportFormat::Csv);
    }
}
