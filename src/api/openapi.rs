//! The document of the API (OpenAPI 3.1), made from the handlers' own annotations, and the page that
//! shows it. Promises that what every operation shares (problems, security, the request's identifier)
//! is said once, here, and that the page asks nobody but us: its assets are in the binary.

use std::sync::{Arc, LazyLock};

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::web::{Bytes, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Responder};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::page::NoParameters;
use super::problem::{Kind, Problem};
use super::{
    aggregates, configurations, export, health, heartbeats, ingest, live, log_messages,
    measurements, networks, read, rejections, resource, sensor_list, sensors, sessions, status,
    streams, tokens, users,
};

const DOCUMENT: &str = "/api/v1/openapi.json";

/// The page loads its own scripts and styles, and asks this service.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

const ABOUT: &str = "\
What fleets of sensors say over MQTT, as it stands in the tables; how they are configured; and how \
the service fares.\n\n\
Times are RFC 3339, and the sensor's own in Unix seconds too. Lists are pages: give `next` as \
`cursor`. Every error is a problem document (RFC 9457) with a stable `type`; the member of the body \
at fault is named by `pointer`, the query parameter by `parameter`. What lies outside of the network \
of a token is not found.\n\n\
Two answers have no body, because they precede the request: 408 where its head does not come within \
five seconds, and 400 where it is no HTTP. After either the connection is closed.";

/// Every operation. A test holds it to what is served.
#[derive(OpenApi)]
#[openapi(
    paths(
        health::alive, health::ready, health::metrics, document, status::status,
        sensor_list::list, sensors::create, sensors::one, sensors::change, sensors::delete,
        live::one,
        configurations::create, configurations::list, configurations::one,
        configurations::republish, configurations::compare,
        measurements::list, measurements::latest, aggregates::list,
        export::of_sensor, export::of_network,
        log_messages::list, log_messages::summarise, heartbeats::list,
        rejections::list,
        rejections::delete,
        rejections::replay,
        streams::fleet, streams::sensor,
        networks::create, networks::list, networks::one, networks::rename, networks::delete,
        sessions::open, sessions::current, sessions::end,
        tokens::create, tokens::list, tokens::one, tokens::revoke,
        users::create, users::list, users::one, users::change, users::delete,
        ingest::state, ingest::pause, ingest::resume, ingest::set_log_level,
    ),
    tags(
        (name = "sensors", description = "Who speaks"),
        (name = "configurations", description = "What sensors are told, and what became of it"),
        (name = "measurements", description = "What sensors measured"),
        (name = "log messages", description = "What sensors wrote to their log"),
        (name = "heartbeats", description = "How sensors acknowledged"),
        (name = "rejections", description = "What could not be stored"),
        (name = "streams", description = "Server-sent events of what is committed"),
        (name = "networks", description = "What holds sensors"),
        (name = "access", description = "Who may what"),
        (name = "ingest", description = "Ingest under an operator's hand"),
        (name = "service", description = "How the service fares"),
    ),
)]
struct Annotations;

static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
    let text = serde_json::to_vec(&written()).expect("a document of texts is JSON");
    text.into()
});

/// The page's settings: no badge of a validator that is somewhere else.
static PAGE: LazyLock<Arc<utoipa_swagger_ui::Config<'static>>> = LazyLock::new(|| {
    let config = utoipa_swagger_ui::Config::from(DOCUMENT);
    Arc::new(config.validator_url("none").persist_authorization(false).filter(true))
});

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .service(resource("/api/v1/openapi.json", "GET, HEAD").route(read().to(document)))
        .service(resource("/docs", "GET, HEAD").route(read().to(to_the_page)))
        .service(resource("/docs/{file:.*}", "GET, HEAD").route(read().to(page)));
}

/// This document
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "service", operation_id = "read_document",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
    security((), ("bearer" = [])),
)]
async fn document(_: NoParameters) -> impl Responder {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(TEXT.clone())
}

async fn to_the_page() -> impl Responder {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "/docs/")).finish()
}

async fn page(request: HttpRequest) -> Result<impl Responder, Problem> {
    let file = request.match_info().get("file").unwrap_or_default();
    let found = utoipa_swagger_ui::serve(file, Arc::clone(&PAGE)).map_err(|error| {
        Problem::internal(std::io::Error::other(format!("the page cannot be made: {error}")))
    })?;
    let found = found.ok_or_else(|| Problem::new(Kind::RouteNotFound, "no file of the page"))?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, found.content_type))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CACHE_CONTROL, "max-age=3600"))
        .body(found.bytes.to_vec()))
}

/// The annotations, and what all of them share.
fn written() -> Value {
    let mut document =
        serde_json::to_value(Annotations::openapi()).expect("the annotations are a document");
    document["info"] = json!({
        "title": "Tributary",
        "version": env!("CARGO_PKG_VERSION"),
        "description": ABOUT,
        "license": { "name": "MIT", "identifier": "MIT" },
    });
    document["security"] = json!([{ "bearer": [] }]);
    document["components"]["securitySchemes"] = json!({ "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token: `tributary token create`, or `POST /api/v1/sessions`. Where \
                        `AUTH=off`, none is asked for.",
    }});
    document["components"]["schemas"]["Problem"] = problem_schema();
    document["components"]["headers"] = json!({
        "X-Request-Id": {
            "description": "The request's own, or one of ours; the log has it too",
            "schema": { "type": "string" },
        },
    });
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if ["get", "post", "put", "patch", "delete"].contains(&method.as_str()) {
                complete(path, operation);
            }
        }
    }
    document
}

/// Adds the problems that every operation of the kind has.
fn complete(path: &str, operation: &mut Value) {
    let is_open = path == "/healthz" || path == "/readyz";
    let may_be_open = operation.get("security").is_some() && path != "/metrics";
    if is_open {
        operation["security"] = json!([]);
    }
    let mut shared = vec![
        (400, "The request cannot be read, or a parameter is not usable"),
        (406, "The client accepts nothing that is served here"),
        (503, "Not now; `Retry-After` says when"),
    ];
    if !is_open {
        shared.push((401, "No valid token is shown"));
        shared.push((429, "More requests a second than one may make"));
    }
    if !is_open && !may_be_open {
        shared.push((403, "The role does not suffice"));
    }
    if path.contains('{') {
        shared.push((404, "There is none, or it lies outside of the caller's network"));
    }
    if operation.get("requestBody").is_some() {
        shared.extend([
            (408, "The body did not come in time"),
            (413, "The body is too large"),
            (415, "The body is not announced as JSON"),
            (422, "A member of the body is not usable"),
        ]);
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, description) in shared {
        let response = responses.entry(status.to_string());
        response.or_insert_with(|| json!({ "description": description }));
    }
    for (status, response) in responses.iter_mut() {
        response["headers"]["X-Request-Id"] =
            json!({ "$ref": "#/components/headers/X-Request-Id" });
        let is_problem = status.starts_with('4') || status.starts_with('5');
        if is_problem && response.get("content").is_none() {
            response["content"] = json!({ "application/problem+json": {
                "schema": { "$ref": "#/components/schemas/Problem" },
                "example": example(status),
            }});
        }
    }
}

fn kinds_of(status: &str) -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(move |kind| kind.status().as_str() == status)
}

fn example(status: &str) -> Value {
    let Some(kind) = kinds_of(status).next() else { return Value::Null };
    let mut example = json!({
        "type": kind.type_uri(),
        "title": kind.title(),
        "status": kind.status().as_u16(),
        "detail": "what was wrong, in one sentence",
        "request_id": "81bf7042-e20f-4a97-ac44-c15853e3618f",
    });
    if status == "422" {
        example["pointer"] = "/name".into();
    }
    example
}

fn problem_schema() -> Value {
    let types: Vec<&str> = Kind::ALL.iter().map(|kind| kind.type_uri()).collect();
    let titles: Map<String, Value> = Kind::ALL
        .iter()
        .map(|kind| (kind.type_uri().to_owned(), Value::from(kind.title())))
        .collect();
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457)",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string", "enum": types, "x-titles": titles,
                "description": "Stable: compare this one" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "description": "For people" },
            "pointer": { "type": "string",
                "description": "The member of the body at fault (RFC 6901)" },
            "parameter": { "type": "string", "description": "The query parameter at fault" },
            "reason": { "type": "string",
                "description": "The code of a flaw, the same as in rejections" },
            "missing": { "type": "array", "description": "What is not up", "items": {
                "type": "object",
                "required": ["part", "problem", "since"],
                "properties": {
                    "part": { "type": "string" },
                    "problem": { "type": "string" },
                    "since": { "type": ["string", "null"], "format": "date-time" },
                },
            }},
            "request_id": { "type": "string" },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|it| references(it, found));
                }
                Value::Array(items) => items.iter().for_each(|it| references(it, found)),
                _ => {}
            }
        }
        let document = written();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn each_operation_says_what_it_is_and_how_it_fails() {
        let document = written();
        assert_eq!(document["openapi"], "3.1.0");
        let mut identifiers = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                assert!(identifiers.insert(name), "{name} twice");
                assert!(operation["summary"].is_string(), "{method} {path}");
                let tag = &operation["tags"][0];
                let tags = document["tags"].as_array().unwrap();
                assert!(tags.iter().any(|it| it["name"] == *tag), "{method} {path}: {tag}");
                for status in ["400", "406", "503"] {
                    let content = &operation["responses"][status]["content"];
                    assert!(content["application/problem+json"].is_object(), "{path} {status}");
                }
            }
        }
    }
}
