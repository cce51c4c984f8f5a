//! The OpenAPI document matches what is served; its page loads nothing from other servers.

use std::collections::BTreeSet;

use actix_web::http::Method;
use serde_json::{Value, json};
use tributary::domain::Reason;

use super::fixture::Api;

const DOCUMENT: &str = "/api/v1/openapi.json";

fn methods_of(operations: &Value) -> BTreeSet<String> {
    operations.as_object().unwrap().keys().map(|it| it.to_uppercase()).collect()
}

/// Replaces the parameters of a path of the document with a UUID.
fn instantiate(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    for part in parts.iter_mut().filter(|part| part.starts_with('{')) {
        *part = "81bf7042-e20f-4a97-ac44-c15853e3618f";
    }
    parts.join("/")
}

#[actix_rt::test]
async fn every_documented_path_serves_exactly_its_documented_methods() {
    let api = Api::start().await;
    let document = api.get(DOCUMENT).await.expect(200);
    let paths = document["paths"].as_object().unwrap();
    for (path, operations) in paths {
        // The 405 for an unknown method lists the methods that are served.
        let answer = api.request(Method::TRACE, &instantiate(path)).await;
        assert_eq!(answer.status, 405, "{path}: {answer:?}");
        let served: BTreeSet<String> = answer
            .header("allow")
            .split(", ")
            .filter(|method| *method != "HEAD")
            .map(str::to_owned)
            .collect();
        assert_eq!(methods_of(operations), served, "{path}");
    }
}

/// The page's script and style are built with the dashboard, whose tests open the page in a browser.
#[actix_rt::test]
async fn the_page_lists_every_operation_without_its_script() {
    let api = Api::start().await;
    let redirected = api.get("/docs").await;
    assert_eq!((redirected.status, redirected.header("location")), (200, ""));
    let page = api.get("/docs/").await;
    let without_script = page.text.split("<noscript>").nth(1).expect("a noscript element");
    for line in ["<code>GET /api/v1/sensors</code>", "republish</code>", "(admin)", "(no token)"] {
        assert!(without_script.contains(line), "{line}: {without_script}");
    }
    assert!(page.text.contains("href=\"../api/v1/openapi.json\""), "{}", page.text);
    assert!(!page.text.contains("=\"//") && !page.text.contains("=\"http"), "{}", page.text);
    assert!(page.header("content-security-policy").contains("default-src 'none'"), "{page:?}");
    api.get("/docs/nothing.js").await.expect(404);
}

#[actix_rt::test]
async fn the_document_lists_bounds_enums_examples_and_problems() {
    let api = Api::start().await;
    let document = api.get(DOCUMENT).await.expect(200);
    let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(document["components"]["schemas"]["RejectionReason"]["enum"], json!(codes));
    let detail = api.get("/api/v1/rejections?reason=bogus").await.expect(400);
    let detail = detail["detail"].as_str().unwrap();
    assert!(codes.iter().all(|code| detail.contains(code)), "{detail}");

    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let route = format!("{method} {path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = &parameter["schema"];
                if parameter["name"] == "limit" {
                    let maximum = if route.starts_with("delete") { 10_000 } else { 1_000 };
                    assert_eq!(
                        (&schema["minimum"], &schema["maximum"]),
                        (&json!(1), &json!(maximum)),
                        "{route}"
                    );
                    assert!(schema["default"].is_u64(), "{route}");
                }
                let is_enum = ["order", "sort", "format"].iter().any(|it| parameter["name"] == *it);
                assert!(!is_enum || schema["enum"].is_array(), "{route}: {parameter}");
                assert!(!schema.to_string().contains("\"null\""), "{route}: {parameter}");
            }
            assert!(operation["responses"]["405"]["headers"]["Allow"].is_object(), "{route}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                for content in response["content"].as_object().into_iter().flatten() {
                    let examples = content.1["examples"].as_object();
                    let has_some = examples.is_some_and(|examples| !examples.is_empty());
                    assert!(has_some || !content.1["example"].is_null(), "{route} {status}");
                    for example in examples.into_iter().flatten() {
                        assert_eq!(example.1["value"]["status"].to_string(), *status, "{route}");
                    }
                }
            }
        }
    }
    let problems = |path: &str, method: &str, status: &str| -> Vec<String> {
        let response = &document["paths"][path][method]["responses"][status];
        let examples = &response["content"]["application/problem+json"]["examples"];
        examples.as_object().unwrap().keys().cloned().collect()
    };
    let sensors = "/api/v1/sensors";
    let republish = "/api/v1/sensors/{identifier}/configurations/{revision}/republish";
    assert_eq!(problems(sensors, "post", "409"), ["identifier-taken", "name-taken"]);
    assert_eq!(problems(republish, "post", "409"), ["not-newest"]);
    assert_eq!(problems(republish, "post", "404"), ["configuration-not-found", "sensor-not-found"]);
    assert_eq!(problems("/api/v1/tokens/{token}", "get", "404"), ["token-not-found"]);
}

#[actix_rt::test]
async fn examples_have_the_same_members_as_answers() {
    let api = Api::start().await;
    let document = api.get(DOCUMENT).await.expect(200);
    let (_, one) = api.create_sensor("one").await;
    let configurations = format!("{one}/configurations");
    api.post(&configurations, &json!({ "a": 1 })).await.expect(202);
    let sensor = "/api/v1/sensors/{identifier}";
    for (template, path) in [
        ("/api/v1/sensors".to_owned(), "/api/v1/sensors".to_owned()),
        ("/api/v1/networks".to_owned(), "/api/v1/networks".to_owned()),
        ("/api/v1/status".to_owned(), "/api/v1/status".to_owned()),
        ("/api/v1/ingest".to_owned(), "/api/v1/ingest".to_owned()),
        ("/api/v1/sessions/current".to_owned(), "/api/v1/sessions/current".to_owned()),
        (sensor.to_owned(), one.clone()),
        (format!("{sensor}/configurations"), configurations),
        (format!("{sensor}/live"), format!("{one}/live")),
    ] {
        let answer = api.get(&path).await.expect(200);
        let response = &document["paths"][&template]["get"]["responses"]["200"];
        let example = &response["content"]["application/json"]["example"];
        let members = |value: &Value| {
            let value = value["items"].get(0).unwrap_or(value);
            value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>()
        };
        assert_eq!(members(example), members(&answer), "{template}");
    }
}

/// The tool that checks the other routes against the document reads each answer to its end.
#[actix_rt::test]
async fn streams_answer_as_the_document_describes() {
    let api = Api::start().await;
    let document = api.get(DOCUMENT).await.expect(200);
    let (_, one) = api.create_sensor("one").await;
    let unknown_sensor = format!("/api/v1/sensors/{}", uuid::Uuid::new_v4());
    let (sensors, sensor) = ("/api/v1/streams/sensors", "/api/v1/sensors/{identifier}/stream");
    let described = |path: &str, status: u16| {
        let response = &document["paths"][path]["get"]["responses"][status.to_string()];
        let content = response["content"].as_object();
        content.map(|content| content.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    for (template, path) in [(sensors, sensors.to_owned()), (sensor, format!("{one}/stream"))] {
        let mut stream = api.get_streamed(&path).await;
        assert_eq!(stream.status(), 200, "{path}");
        let media_type = stream.headers().get("content-type").unwrap().to_str().unwrap().to_owned();
        assert_eq!(described(template, 200), [media_type.as_str()], "{path}");
        let mut first = Vec::new();
        while !first.ends_with(b"\n\n") {
            let chunk = futures_util::StreamExt::next(&mut stream).await.unwrap().unwrap();
            first.extend_from_slice(&chunk);
        }
        assert!(first.starts_with(b"retry: 3000\nevent: "), "{first:?}");
        // The first event has the members of its schema.
        let text = String::from_utf8(first).unwrap();
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let data: Value = serde_json::from_str(line("data: ")).unwrap();
        let content =
            &document["paths"][template]["get"]["responses"]["200"]["content"][&media_type];
        let schema = content["x-events"][line("event: ")]["$ref"].as_str().unwrap();
        let schema = document.pointer(schema.trim_start_matches('#')).unwrap();
        let described: BTreeSet<&String> =
            schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(
            data.as_object().unwrap().keys().collect::<BTreeSet<_>>(),
            described,
            "{template}"
        );
    }
    for (template, answer) in [
        (sensors, api.get(&format!("{sensors}?since=1")).await),
        (sensor, api.get(&format!("{one}/stream?since=1")).await),
        (sensor, api.get(&format!("{unknown_sensor}/stream")).await),
    ] {
        assert!(answer.status >= 400, "{template}: {answer:?}");
        let media_type = answer.header("content-type").to_owned();
        assert_eq!(described(template, answer.status), [media_type], "{template}: {answer:?}");
        let problem = answer.json();
        let types = &document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"];
        assert!(types.as_array().unwrap().contains(&problem["type"]), "{problem}");
    }
}
