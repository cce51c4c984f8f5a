//! Completes the responses of the OpenAPI document: the problems that a route has declared, headers, and examples,
//! which are generated from the schemas. Called by `openapi.rs`. Pure.

use serde_json::{Map, Value, json};

use super::problem::{Kind, MEDIA_TYPE, Problem};

const MOMENT: &str = "2026-07-01T09:00:00.25Z";
const SENSOR: &str = "2b1e9f0a-6c1d-4b8e-9a53-0f5d1c7e4a11";

const CSV: &str = "sensor_identifier,timestamp,creation_timestamp,receipt_timestamp,revision,value\r\n\
    2b1e9f0a-6c1d-4b8e-9a53-0f5d1c7e4a11,1782896400.25,2026-07-01T09:00:00.25Z,\
    2026-07-01T09:00:01.5Z,1,\"{\"\"temperature\"\": 21.5}\"\r\n";
const NDJSON: &str = "{\"sensor_identifier\":\"2b1e9f0a-6c1d-4b8e-9a53-0f5d1c7e4a11\",\
    \"timestamp\":1782896400.25,\"creation_timestamp\":\"2026-07-01T09:00:00.25Z\",\
    \"receipt_timestamp\":\"2026-07-01T09:00:01.5Z\",\"revision\":1,\"value\":{\"temperature\": 21.5}}\n";
const METRICS: &str = "# TYPE tributary_window_messages gauge\ntributary_window_messages 0\n";

/// The headers of responses, by name.
pub(super) fn headers() -> Value {
    let header =
        |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "X-Request-Id": header("The request's own, or one of ours; the log has it too"),
        "Location": header("Where what was made can be read"),
        "Idempotency-Replayed": header("`true` where it is the first answer, given again"),
        "Content-Disposition": header("The name of a file"),
        "Content-Encoding": header("As `Accept-Encoding` asks for it"),
        "WWW-Authenticate": header("`Bearer`, and why the token is refused (RFC 6750)"),
        "Allow": header("The methods that the path takes"),
        "Accept": header("The media type of bodies"),
        "Retry-After": {
            "description": "In seconds", "schema": { "type": "integer", "minimum": 1 },
        },
    })
}

/// Describes the problems of an operation.
pub(super) fn describe_problems(problems: &[Kind], operation: &mut Value) {
    for kind in problems {
        let response = &mut operation["responses"][kind.status().as_str()];
        if response.get("description").is_none() {
            response["description"] = shared_description(kind.status().as_u16()).into();
        }
        let content = &mut response["content"][MEDIA_TYPE];
        content["schema"] = json!({ "$ref": "#/components/schemas/Problem" });
        let name = kind.type_uri().trim_start_matches("/problems/");
        content["examples"][name] = json!({ "value": Problem::example(*kind) });
    }
}

/// For a status without a description of its own.
fn shared_description(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be read, or a parameter or a header is not usable",
        401 => "No valid token is given",
        403 => "The role does not suffice",
        404 => "It does not exist, or is outside of the caller's network",
        405 => "The path takes other methods: those in `Allow`",
        406 => "No content coding is served that `Accept-Encoding` takes",
        408 => "The body did not come in time",
        413 => "The body is too large",
        415 => "The body is not announced as JSON",
        422 => "A member of the body is not usable",
        429 => "Over the limit of requests per second",
        503 => "Not now; `Retry-After` says when",
        _ => unreachable!("a route with a problem of another status describes it"),
    }
}

/// Completes the responses of an operation.
pub(super) fn complete(operation: &mut Value, schemas: &Value, events: &[(&str, &str)]) {
    let identifier = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let responses = operation["responses"].as_object_mut();
    for (status, response) in responses.into_iter().flatten() {
        for name in headers_of(&identifier, status) {
            let reference = format!("#/components/headers/{name}");
            response["headers"][name] = json!({ "$ref": reference });
        }
        let contents = response.get_mut("content").and_then(Value::as_object_mut);
        for (media_type, content) in contents.into_iter().flatten() {
            if status.starts_with('2') && content.get("example").is_none() {
                content["example"] = example(&identifier, media_type, &content["schema"], schemas);
            }
            if status == "200" {
                for (event, name) in events {
                    let reference = format!("#/components/schemas/{name}");
                    content["x-events"][*event] = json!({ "$ref": reference });
                }
            }
        }
    }
}

fn headers_of(operation: &str, status: &str) -> Vec<&'static str> {
    let mut headers = vec!["X-Request-Id"];
    headers.extend_from_slice(match status {
        "202" if operation == "create_configuration" => &["Location", "Idempotency-Replayed"],
        "201" => &["Location"],
        "200" if operation.starts_with("export_") => &["Content-Disposition", "Content-Encoding"],
        "401" => &["WWW-Authenticate"],
        "405" => &["Allow"],
        "415" => &["Accept"],
        "429" | "503" => &["Retry-After"],
        _ => &[],
    });
    headers
}

fn example(operation: &str, media_type: &str, schema: &Value, schemas: &Value) -> Value {
    match (operation, media_type) {
        ("read_document", _) => json!({ "openapi": "3.1.0" }),
        (_, "text/csv") => CSV.into(),
        (_, "application/x-ndjson") => NDJSON.into(),
        (_, "text/plain") => METRICS.into(),
        _ => sample("", schema, schemas),
    }
}

/// A value that matches the schema; `name` is that of the member.
fn sample(name: &str, schema: &Value, schemas: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = reference.rsplit('/').next().unwrap_or_default();
        return sample(name, &schemas[target], schemas);
    }
    // As on the last page.
    if name == "next" {
        return Value::Null;
    }
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(word) = schema["enum"].get(0) {
        return word.clone();
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let mut whole = Map::new();
        for part in parts {
            if let Value::Object(members) = sample(name, part, schemas) {
                whole.extend(members);
            }
        }
        return whole.into();
    }
    for choices in ["oneOf", "anyOf"] {
        let mut choices = schema[choices].as_array().into_iter().flatten();
        if let Some(choice) = choices.find(|choice| choice["type"] != "null") {
            return sample(name, choice, schemas);
        }
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    let kind = types.iter().filter_map(Value::as_str).find(|kind| *kind != "null");
    match kind.unwrap_or_default() {
        "object" => object(schema, schemas),
        "array" => json!([sample(name, &schema["items"], schemas)]),
        "integer" => schema["minimum"].as_u64().unwrap_or_default().max(1).into(),
        "number" => json!(21.5),
        "boolean" => true.into(),
        "string" => text(name, &schema["format"]),
        _ => Value::Null,
    }
}

fn object(schema: &Value, schemas: &Value) -> Value {
    let members = schema["properties"].as_object().into_iter().flatten();
    let mut object: Map<String, Value> =
        members.map(|(name, member)| (name.clone(), sample(name, member, schemas))).collect();
    if schema["additionalProperties"].is_object() {
        let value = sample("temperature", &schema["additionalProperties"], schemas);
        drop(object.insert("temperature".into(), value));
    }
    object.into()
}

fn text(name: &str, format: &Value) -> Value {
    let text = match (format.as_str().unwrap_or_default(), name) {
        ("uuid", "network") => "7d0c3f5e-2b1a-4c6d-8e9f-0a1b2c3d4e5f",
        ("uuid", _) => SENSOR,
        ("date-time", _) => MOMENT,
        (_, "name") => "roof",
        (_, "topic") => "measurements/2b1e9f0a-6c1d-4b8e-9a53-0f5d1c7e4a11",
        (_, "raw") => {
            "{\"revision\":1,\"timestamp\":1782896460,\"value\":{\"wind\":{\"speed\":3}}}"
        }
        (_, "subject") => "battery low",
        (_, "details") => "3.1 V",
        (_, "detail") => "what was wrong, in a sentence",
        (_, "problem") => "it does not answer",
        (_, "filter" | "log_filter") => "info",
        (_, "version") => env!("CARGO_PKG_VERSION"),
        (_, "commit") => "unknown",
        (_, _) => "text",
    };
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_has_the_members_of_its_schema() {
        let schemas = json!({
            "Item": { "allOf": [{ "$ref": "#/components/schemas/Part" }, {
                "type": "object", "properties": {
                    "at": { "type": ["string", "null"], "format": "date-time" },
                    "state": { "oneOf": [{ "type": "null" }, { "$ref": "#/x/State" }] },
                },
            }]},
            "Part": { "type": "object", "properties": {
                "numbers": { "type": "object", "additionalProperties": { "type": "number" } },
                "next": { "type": ["string", "null"] },
            }},
            "State": { "type": "string", "enum": ["none", "failed"] },
        });
        assert_eq!(
            sample("", &json!({ "type": "array", "items": { "$ref": "#/x/Item" } }), &schemas),
            json!([{ "numbers": { "temperature": 21.5 }, "next": null, "at": MOMENT,
                "state": "none" }])
        );
    }
}
