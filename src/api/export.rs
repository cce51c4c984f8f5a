//! Bulk export of measurements of a sensor, or of all sensors of a network, as CSV or NDJSON, compressed on
//! request. The stream begins at once and needs little memory; after an error it is cut off, so that no client
//! takes it for complete.

use std::convert::Infallible;

use actix_web::http::Method;
use actix_web::http::header::{
    Accept, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, Header as _,
};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Context;
use super::access::Access;
use super::caller::Caller;
use super::fields::{Format, SafeFor};
use super::measurements::{AttributesQuery, MAX_ATTRIBUTES};
use super::page::TimeRangeQuery;
use super::path::{NetworkPath, Path, SensorPath};
use super::problem::{Kind, Problem};
use super::query::{And, Query};
use super::routes::Routes;
use crate::store::{Export, ExportError, ExportFormat, ExportOf};

const CSV: &str = "text/csv; charset=utf-8";
const NDJSON: &str = "application/x-ndjson";

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_of_sensor, of_sensor);
    routes.add(Access::VIEWER, __path_of_network, of_network);
}

/// Exports the measurements of a sensor, oldest first
///
/// As CSV (RFC 4180, with a header) or as a JSON object a line; gzip if `Accept-Encoding` asks for it.
/// With `attributes`, only measurements that have one of these members; in CSV each is a column. The column
/// of a member that is named as another column is, `timestamp` for instance, is named `value.timestamp`, and
/// that of a member `value.timestamp` `value.value.timestamp`.
/// It is whole only if the answer ends as HTTP/1.1 says: one that goes wrong on its way is cut off
/// without its last chunk, which clients report as an error (`curl` ends with 18 or 56).
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/measurements/export",
    operation_id = "export_sensor",
    tag = "measurements",
    responses(
        (status = 200, description = "The measurements", content(
            (String = "text/csv"), (String = "application/x-ndjson"),
        )),
    )
)]
async fn of_sensor(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<SensorPath>,
    request: HttpRequest,
    Query(query): Query<ExportQuery>,
) -> Result<HttpResponse, Problem> {
    let export = export_request(ExportOf::Sensor(path.identifier.0), &request, query)?;
    if request.method() == Method::HEAD {
        let sensor = context.store.sensor(path.identifier.0).await?;
        sensor.ok_or_else(Problem::sensor_not_found)?;
        return Ok(head(export.format));
    }
    answer(&context, (export, &caller), Kind::SensorNotFound).await
}

/// Exports the measurements of all sensors of a network, sensor by sensor, oldest first
///
/// As for one sensor.
#[utoipa::path(
    get,
    path = "/api/v1/networks/{network}/measurements/export",
    operation_id = "export_network",
    tag = "measurements",
    responses(
        (status = 200, description = "The measurements", content(
            (String = "text/csv"), (String = "application/x-ndjson"),
        )),
    )
)]
async fn of_network(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<NetworkPath>,
    request: HttpRequest,
    Query(query): Query<ExportQuery>,
) -> Result<HttpResponse, Problem> {
    let export = export_request(ExportOf::Network(path.network()), &request, query)?;
    if request.method() == Method::HEAD {
        let network = context.store.network(path.network()).await?;
        network.ok_or_else(|| Problem::not_found(Kind::NetworkNotFound))?;
        return Ok(head(export.format));
    }
    answer(&context, (export, &caller), Kind::NetworkNotFound).await
}

type ExportQuery = And<And<FormatQuery, TimeRangeQuery>, AttributesQuery>;

#[derive(Debug, Deserialize, IntoParams)]
struct FormatQuery {
    /// Default: the format that `Accept` names, else `csv`
    #[param(inline)]
    format: Option<Format>,
    /// `excel`: CSV with a byte order mark, and with `'` before texts and names that begin with `=`, `+`,
    /// `-`, `@`, a tab or a line break, so that Excel takes none for a formula. Numbers stay as they are
    #[param(inline)]
    safe: Option<SafeFor>,
}

fn export_request(
    of: ExportOf,
    request: &HttpRequest,
    query: ExportQuery,
) -> Result<Export, Problem> {
    let And(And(FormatQuery { format, safe }, range), attributes) = query;
    let format = format.map_or_else(|| accepted(request), |format| format.0);
    if safe.is_some() && format != ExportFormat::Csv {
        return Err(Problem::parameter("safe", "it is for CSV; ask for format=csv"));
    }
    let (range, attributes) = (range.range()?, attributes.attributes(MAX_ATTRIBUTES)?);
    Ok(Export { of, range, attributes, format, for_excel: safe.is_some() })
}

/// What the client names in `Accept`; CSV if it names neither or takes both alike.
fn accepted(request: &HttpRequest) -> ExportFormat {
    let ranked = Accept::parse(request).map(|accept| accept.ranked()).unwrap_or_default();
    let essences: Vec<&str> = ranked.iter().map(|mime| mime.essence_str()).collect();
    let named = essences.iter().find_map(|essence| match *essence {
        "text/csv" => Some(ExportFormat::Csv),
        NDJSON | "application/ndjson" | "application/jsonl" => Some(ExportFormat::NdJson),
        _ => None,
    });
    let takes_ndjson_only = essences.contains(&"application/*")
        && !essences.iter().any(|it| ["*/*", "text/*"].contains(it));
    named.unwrap_or(if takes_ndjson_only { ExportFormat::NdJson } else { ExportFormat::Csv })
}

async fn answer(
    context: &Context,
    (export, caller): (Export, &Caller),
    not_found: Kind,
) -> Result<HttpResponse, Problem> {
    let format = export.format;
    let lines = context.store.export(export, caller.holder()).await?;
    let lines = lines.ok_or_else(|| Problem::not_found(not_found))?;
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
                let detail = format!("at most {most} exports run at once");
                Self::new(Kind::Busy, detail).busy()
            }
            ExportError::CallerBusy(most) => {
                let detail = format!("one caller runs no more than {most} exports at once");
                Self::new(Kind::Busy, detail).busy()
            }
            ExportError::Store(error) => error.into(),
        }
    }
}
