//! The problems of the document: their schema, and which an operation answers with. Pure. Promises that
//! every problem is described with a type that the operation can have, as an example.

use serde_json::{Map, Value, json};

use super::problem::Kind;

/// Describes the problems that the operation has.
pub(super) fn complete(path: &str, operation: &mut Value) {
    let described = Operation {
        identifier: operation["operationId"].as_str().unwrap_or_default().to_owned(),
        path,
        has_body: operation.get("requestBody").is_some(),
        has_header: operation["parameters"]
            .as_array()
            .is_some_and(|all| all.iter().any(|it| it["in"] == "header")),
    };
    let shared = described.shared(operation.get("security"));
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, description) in shared {
        let response = responses.entry(status.to_string());
        response.or_insert_with(|| json!({ "description": description }));
    }
    for (status, response) in responses.iter_mut() {
        let is_problem = status.starts_with('4') || status.starts_with('5');
        if is_problem && response.get("content").is_none() {
            let examples: Map<String, Value> = described
                .kinds(status)
                .into_iter()
                .map(|kind| (name(kind).to_owned(), json!({ "value": example(kind) })))
                .collect();
            response["content"] = json!({ "application/problem+json": {
                "schema": { "$ref": "#/components/schemas/Problem" },
                "examples": examples,
            }});
        }
    }
}

struct Operation<'a> {
    identifier: String,
    path: &'a str,
    has_body: bool,
    has_header: bool,
}

impl Operation<'_> {
    /// What every operation of the kind can answer.
    fn shared(&self, security: Option<&Value>) -> Vec<(u16, &'static str)> {
        let is_open = security.is_some_and(|all| *all == json!([]));
        let may_be_open = security.is_some() && self.path != "/metrics";
        let mut shared = vec![
            (400, "The request cannot be read, or a parameter or a header is not usable"),
            (405, "The path takes other methods: those in `Allow`"),
            (406, "No content coding is served that `Accept-Encoding` takes"),
            (503, "Not now; `Retry-After` says when"),
        ];
        if !is_open {
            shared.push((401, "No valid token is given"));
            shared.push((429, "Over the limit of requests per second"));
        }
        if !is_open && !may_be_open {
            shared.push((403, "The role does not suffice"));
        }
        if self.path.contains('{') {
            shared.push((404, "It does not exist, or is outside of the caller's network"));
        }
        if self.has_body {
            shared.extend([
                (408, "The body did not come in time"),
                (413, "The body is too large"),
                (415, "The body is not announced as JSON"),
                (422, "A member of the body is not usable"),
            ]);
        }
        shared
    }

    /// Those of a status that this operation can answer with.
    fn kinds(&self, status: &str) -> Vec<Kind> {
        let of_status = Kind::ALL.iter().copied().filter(|kind| kind.status().as_str() == status);
        of_status.filter(|kind| self.has(*kind)).collect()
    }

    fn has(&self, kind: Kind) -> bool {
        let identifier = &*self.identifier;
        let names = |name: &str| self.path.contains(name);
        let is_one_of = |those: &[&str]| those.contains(&identifier);
        match kind {
            // Only where the request is none that a handler is asked for.
            Kind::BadRequest | Kind::RouteNotFound | Kind::Internal => false,
            Kind::InvalidJson => self.has_body,
            Kind::InvalidHeader => self.has_header,
            Kind::Unauthenticated => identifier != "open_session",
            Kind::SignInFailed => identifier == "open_session",
            Kind::SensorNotFound => names("/sensors/{") || names("/rejections"),
            Kind::MeasurementNotFound => identifier == "latest_measurement",
            Kind::ConfigurationNotFound => names("{revision}") || names("/diff"),
            Kind::NetworkNotFound => names("/networks/{"),
            Kind::TokenNotFound => names("{token}"),
            Kind::UserNotFound => names("{user}"),
            Kind::NameTaken => is_one_of(&[
                "create_sensor",
                "change_sensor",
                "create_network",
                "rename_network",
                "create_token",
                "create_user",
                "change_user",
            ]),
            Kind::IdentifierTaken => identifier == "create_sensor",
            Kind::NotNewest => identifier == "republish_configuration",
            Kind::NetworkNotEmpty => identifier == "delete_network",
            Kind::InvalidMember => identifier != "create_configuration",
            Kind::InvalidConfiguration => is_one_of(&["create_configuration", "create_sensor"]),
            Kind::IdempotencyKeyReused => identifier == "create_configuration",
            Kind::Busy => names("/export"),
            Kind::TooManyStreams => names("/stream"),
            Kind::PurgeUnderWay => identifier == "create_sensor",
            Kind::ReplayUnderWay => identifier == "replay_rejections",
            Kind::NotReady => {
                is_one_of(&["is_ready", "republish_configuration"]) || names("/stream")
            }
            Kind::DatabaseUnavailable | Kind::ReadTimeout | Kind::Timeout => {
                identifier != "is_ready"
            }
            _ => true,
        }
    }
}

/// The last part of its type.
fn name(kind: Kind) -> &'static str {
    kind.type_uri().trim_start_matches("/problems/")
}

fn example(kind: Kind) -> Value {
    let mut example = json!({
        "type": kind.type_uri(),
        "title": kind.title(),
        "status": kind.status().as_u16(),
        "detail": "what was wrong, in a sentence",
        "request_id": "81bf7042-e20f-4a97-ac44-c15853e3618f",
    });
    match kind {
        Kind::InvalidParameter => {
            example["detail"] = "unknown parameter".into();
            example["parameter"] = "colour".into();
        }
        Kind::InvalidMember => {
            example["detail"] = "unknown member".into();
            example["pointer"] = "/colour".into();
        }
        Kind::NameTaken => example["pointer"] = "/name".into(),
        Kind::IdentifierTaken | Kind::PurgeUnderWay => example["pointer"] = "/identifier".into(),
        Kind::InvalidConfiguration => {
            example["pointer"] = "/wind".into();
            example["reason"] = "nested_value".into();
        }
        Kind::NotReady => {
            example["detail"] = "not up: database".into();
            example["missing"] = json!([
                { "part": "database", "problem": "it does not answer", "since": null },
            ]);
        }
        _ => {}
    }
    example
}

/// Of every problem.
pub(super) fn schema() -> Value {
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
            "reason": { "$ref": "#/components/schemas/RejectionReason",
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
