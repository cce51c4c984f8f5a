//! What the document says of parameters by their names, which mean the same wherever they stand: their
//! bounds, their words, and what holds where nothing is said. Pure. Promises that a parameter of a known
//! name is described in full, whatever its annotation leaves out.

use serde_json::{Value, json};

use super::page::{DEFAULT_LIMIT, MAX_LIMIT};

/// Completes the parameters of an operation.
pub(super) fn complete(operation: &mut Value) {
    let identifier = operation["operationId"].as_str().unwrap_or_default().to_owned();
    // An index that may be written makes what is not there.
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        let schema = &mut parameter["schema"];
        drop_null(schema);
        match name.as_str() {
            "limit" => limit(schema, &identifier),
            "order" => one_of(schema, &["desc", "asc"], true),
            "sort" => one_of(schema, &["name", "last_seen", "-last_seen"], true),
            "format" => one_of(schema, &["csv", "ndjson"], false),
            "Idempotency-Key" => {
                schema["minLength"] = 1.into();
                schema["maxLength"] = 255.into();
            }
            "all" => schema["enum"] = json!([true]),
            _ => {}
        }
    }
}

/// A parameter is there or not; it is never null.
fn drop_null(schema: &mut Value) {
    if let Some(types) = schema["type"].as_array() {
        let left: Vec<Value> = types.iter().filter(|it| **it != "null").cloned().collect();
        if let [one] = &*left {
            schema["type"] = one.clone();
        }
    }
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    let mut left: Vec<Value> = choices.filter(|it| it["type"] != "null").cloned().collect();
    if left.len() == 1 {
        *schema = left.swap_remove(0);
    }
}

fn limit(schema: &mut Value, operation: &str) {
    let most = schema["maximum"].as_u64().unwrap_or(u64::from(MAX_LIMIT));
    schema["minimum"] = 1.into();
    schema["maximum"] = most.into();
    // What deletes and what draws charts takes as much as it may.
    let takes_most = most > u64::from(MAX_LIMIT) || operation == "aggregate_measurements";
    schema["default"] = if takes_most { most } else { u64::from(DEFAULT_LIMIT) }.into();
}

/// The first word is what holds where nothing is said, if any does.
fn one_of(schema: &mut Value, words: &[&str], first_is_default: bool) {
    schema["enum"] = json!(words);
    if first_is_default {
        schema["default"] = words[0].into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_optional_is_not_null() {
        let mut operation = json!({ "operationId": "list_x", "parameters": [
            { "name": "limit", "schema": { "type": ["integer", "null"], "minimum": 0 } },
            { "name": "kind", "schema": { "oneOf": [{ "type": "null" }, { "$ref": "#/x" }] } },
            { "name": "order", "schema": { "type": ["string", "null"] } },
        ]});
        complete(&mut operation);
        assert_eq!(
            operation["parameters"],
            json!([
                { "name": "limit", "schema":
                    { "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 } },
                { "name": "kind", "schema": { "$ref": "#/x" } },
                { "name": "order", "schema":
                    { "type": "string", "enum": ["desc", "asc"], "default": "desc" } },
            ])
        );
    }
}
