//! The document of the API (OpenAPI 3.1), derived from the routes and the handlers' annotations, and the page
//! that shows it. What all operations share is added here and in `openapi_answers.rs`. The page loads nothing
//! from elsewhere: its script and style are built with the dashboard.

use std::sync::LazyLock;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use actix_web::web::{self, Bytes};
use actix_web::{HttpResponse, Responder};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::access::Access;
use super::problem::{Document, Problem};
use super::routes::Routes;
use super::{dashboard, openapi_answers};
use crate::streams::{Configured, Dropped, FleetChange, FleetSnapshot, Opened};

const DOCUMENT: &str = "/api/v1/openapi.json";

/// The page loads only its own scripts and styles, and calls only this service.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

const ABOUT: &str = "\
What fleets of sensors send over MQTT, as it is stored; their configurations; and the state of the \
service.\n\n\
**Who may.** A token is shown as `Authorization: Bearer …`. Its role is `viewer` (reads), `operator` \
(also configures, replays and deletes rejections) or `admin` (also manages sensors, networks, users, \
tokens and ingest); each operation names the least that it takes. A role holds in all networks or in \
one. Anything outside of that network is not found. The account of the whole service, at \
`/api/v1/status` and `/metrics`, is visible to every token: it has counts, and names no sensor.\n\n\
**Pages.** Lists are `{\"items\": […], \"next\": …}`. Give `next` as `cursor`, with all else as \
it was, until it is null. A page has at most `limit` items, and fewer once it holds 4 MiB.\n\n\
**Times** are RFC 3339, and the sensor's own in Unix seconds too.\n\n\
**Errors** are problem documents (RFC 9457) with a stable `type`; the member of the body at fault is \
named by `pointer`, the query parameter by `parameter`. Unknown members and parameters are errors.\n\n\
**Methods.** HEAD is answered as GET is, without the body. It is not listed below. Streams take no \
HEAD. A method that a path does not take is 405, and `Allow` names those that it does.\n\n\
**Bodies** are JSON, as they are or with `Content-Encoding: gzip` or `deflate`; the limit (413) holds for \
what they unpack to as well. Without a token a body has at most 8 KiB.\n\n\
**Repeating.** `Idempotency-Key` is used where a configuration is created, and ignored elsewhere.\n\n\
Two answers have no body, because they precede the request: 408 where its head does not come within \
five seconds, and 400 where it is no HTTP. After either the connection is closed.";

#[derive(OpenApi)]
#[openapi(
    components(schemas(Document<'_>, Opened, Configured, Dropped, FleetSnapshot, FleetChange)),
    tags(
        (name = "sensors", description = "The devices that send"),
        (name = "configurations", description = "What is sent to sensors, and how far it has come"),
        (name = "measurements", description = "What sensors measured"),
        (name = "log messages", description = "What sensors logged"),
        (name = "heartbeats", description = "Acknowledgements of configurations"),
        (name = "rejections", description = "What could not be stored"),
        (name = "streams", description = "Server-sent events of what is committed"),
        (name = "networks", description = "Groups of sensors"),
        (name = "access", description = "Users, tokens and sessions"),
        (name = "ingest", description = "State and control of ingest"),
        (name = "service", description = "State of the service"),
    ),
)]
struct Frame;

static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
    let text = serde_json::to_vec(&document()).expect("a document of texts is JSON");
    text.into()
});

pub(super) fn routes(routes: &mut Routes) {
    const ACCESS: Access = Access::OpenIf(|config| config.docs_open);
    routes.add(ACCESS, __path_read_document, read_document);
    routes.add_page(ACCESS, "/docs", redirect_to_page);
    routes.add_page(ACCESS, "/docs/", page);
    routes.add_page(ACCESS, "/docs/{file}", page_file);
}

/// This document
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "service", operation_id = "read_document",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
)]
async fn read_document() -> impl Responder {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(TEXT.clone())
}

async fn redirect_to_page() -> impl Responder {
    HttpResponse::PermanentRedirect()
        .insert_header((LOCATION, "/docs/"))
        .content_type("text/plain; charset=utf-8")
        .body(format!("The page is at /docs/, and the document that it shows at {DOCUMENT}\n"))
}

async fn page() -> impl Responder {
    answer("text/html; charset=utf-8", PAGE.clone())
}

async fn page_file(file: web::Path<String>) -> Result<impl Responder, Problem> {
    let found = dashboard::file(&format!("docs/{file}"), "no file of the page")?;
    Ok(answer(dashboard::media_type(&file), found.data.into_owned().into()))
}

fn answer(media_type: &'static str, body: Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, media_type))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((CACHE_CONTROL, "max-age=3600"))
        .body(body)
}

/// The page is empty until its script runs; readers without JavaScript find a list of the operations.
static PAGE: LazyLock<Bytes> = LazyLock::new(|| {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Tributary: API</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"swagger-ui.css\">\n<div id=\"swagger-ui\"></div>\n\
         <script src=\"swagger-ui-bundle.js\"></script>\n<script src=\"page.js\"></script>\n{}</html>\n",
        *WITHOUT_SCRIPT
    );
    page.into()
});

/// Every operation, one per line.
static WITHOUT_SCRIPT: LazyLock<String> = LazyLock::new(|| {
    let mut list = String::new();
    let document = document();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let method = method.to_uppercase();
            let summary = operation["summary"].as_str().unwrap_or_default();
            let role = operation["x-role"].as_str().unwrap_or("no token");
            list += &format!("<li><code>{method} {path}</code> {summary} ({role})</li>\n");
        }
    }
    format!(
        "<p>This page is made of <a href=\"..{DOCUMENT}\">{DOCUMENT}</a>.</p>\n<noscript>\n\
         <p>Without JavaScript it shows no more than this: every operation, and the least role \
         that it takes. The document above says the rest.</p>\n<ul>\n{list}</ul>\n</noscript>\n"
    )
});

/// The whole document.
pub fn document() -> Value {
    let mut document = serde_json::to_value(Frame::openapi()).expect("a document of texts is JSON");
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
    document["components"]["headers"] = openapi_answers::headers();
    let routes = super::routes();
    for (name, schema) in routes.iter().flat_map(|declared| &declared.schemas) {
        document["components"]["schemas"][name] = json!(schema);
    }
    merge_inlined(&mut document["components"]["schemas"]);
    let schemas = document["components"]["schemas"].clone();
    for declared in routes.iter() {
        let Some(operation) = &declared.operation else { continue };
        let mut operation = json!(operation);
        describe_access(declared.access, &mut operation);
        drop_null(&mut operation);
        openapi_answers::describe_problems(&declared.problems, &mut operation);
        openapi_answers::complete(&mut operation, &schemas, declared.events);
        let method = declared.method.as_str().to_lowercase();
        document["paths"][&declared.path][method] = operation;
    }
    document
}

/// The same without examples, headers and problems, which are most of it: `web/openapi.json`, from which
/// the dashboard's types are generated.
pub fn document_of_types() -> Value {
    fn reduce(value: &mut Value) {
        match value {
            Value::Object(members) => {
                // A member of a schema may have the name.
                let is_name = |value: &Value| value.get("type").is_some_and(Value::is_string);
                members.retain(|name, value| {
                    let is_problem = name.len() == 3 && name.starts_with(['4', '5']);
                    let is_left_out =
                        ["example", "examples", "headers", "x-events"].contains(&name.as_str());
                    !is_problem && (!is_left_out || is_name(value))
                });
                members.values_mut().for_each(reduce);
            }
            Value::Array(items) => items.iter_mut().for_each(reduce),
            _ => {}
        }
    }
    let mut document = document();
    reduce(&mut document);
    document
}

/// utoipa describes a member of an inlined type by `allOf` of the type and an object with the member's
/// description and example, which no value satisfies; this merges the two.
fn merge_inlined(schema: &mut Value) {
    if let Some([of_type, of_member]) =
        schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice)
        && of_member["type"] == "object"
        && of_member.get("properties").is_none()
    {
        let mut merged = of_type.clone();
        let members = of_member.as_object().into_iter().flatten();
        members.filter(|(name, _)| *name != "type").for_each(|(name, value)| {
            merged[name] = value.clone();
        });
        *schema = merged;
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(merge_inlined),
        Value::Array(items) => items.iter_mut().for_each(merge_inlined),
        _ => {}
    }
}

/// A parameter is present or absent, never null.
fn drop_null(operation: &mut Value) {
    // Indexing mutably would insert a missing member.
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for schema in parameters.into_iter().flatten().map(|parameter| &mut parameter["schema"]) {
        if let Some(types) = schema["type"].as_array() {
            let left: Vec<Value> = types.iter().filter(|it| **it != "null").cloned().collect();
            if let [one] = &*left {
                schema["type"] = one.clone();
            }
        }
        let choices = schema["oneOf"].as_array().into_iter().flatten();
        let mut left: Vec<Value> = choices.filter(|it| it["type"] != "null").cloned().collect();
        if left.len() == 1 {
            let default = schema["default"].take();
            *schema = left.swap_remove(0);
            if !default.is_null() {
                schema["default"] = default;
            }
        }
    }
}

/// Describes who may call.
fn describe_access(access: Access, operation: &mut Value) {
    match access {
        Access::Open => operation["security"] = json!([]),
        Access::OpenIf(_) => operation["security"] = json!([{}, { "bearer": [] }]),
        Access::Role(_) | Access::RoleInAllNetworks(_) => {}
    }
    let sentence = match access.needed() {
        None => "Takes no token.".into(),
        Some((role, in_all_networks)) => {
            operation["x-role"] = role.name().into();
            operation["x-in-all-networks"] = in_all_networks.into();
            let reach = if in_all_networks { " in all networks" } else { "" };
            match access {
                Access::OpenIf(_) => {
                    format!("Takes the role `{role}`, or no token, as the service is set.")
                }
                _ => format!("Takes the role `{role}`{reach}."),
            }
        }
    };
    let description = operation["description"].as_str().unwrap_or_default();
    operation["description"] = format!("{description}\n\n{sentence}").trim_start().into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_dashboard_equals_the_document() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/web/openapi.json");
        let known = std::fs::read_to_string(path).unwrap();
        let present = format!("{:#}\n", document_of_types());
        assert!(known == present, "after a change: tributary openapi --types > web/openapi.json");
    }

    #[test]
    fn no_schema_is_two_types_at_once() {
        fn walk(value: &Value) {
            for part in value.get("allOf").and_then(Value::as_array).into_iter().flatten() {
                let described = part.get("$ref").or(part.get("properties"));
                assert!(described.is_some(), "{value:#}");
            }
            let members = value.as_object().into_iter().flat_map(|members| members.values());
            members.chain(value.as_array().into_iter().flatten()).for_each(walk);
        }
        walk(&document());
    }

    #[test]
    fn every_reference_of_the_document_resolves() {
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
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn each_operation_has_a_summary_and_its_problems() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        let mut identifiers = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                let parameters = operation.get("parameters");
                assert!(parameters.is_none_or(Value::is_array), "{name}: {parameters:?}");
                assert!(identifiers.insert(name), "{name} twice");
                assert!(operation["summary"].is_string(), "{method} {path}");
                let tag = &operation["tags"][0];
                let tags = document["tags"].as_array().unwrap();
                assert!(tags.iter().any(|it| it["name"] == *tag), "{method} {path}: {tag}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(["400", "406", "503"].iter().all(|status| responses.contains_key(*status)));
                for (status, response) in responses {
                    let is_problem = status.starts_with(['4', '5']);
                    let problems = &response["content"]["application/problem+json"]["examples"];
                    assert_eq!(problems.is_object(), is_problem, "{method} {path} {status}");
                }
            }
        }
    }
}
