//! The document is true: it describes what is served, all of it and nothing else, and the page that
//! shows it asks nobody but the service.

use std::collections::BTreeSet;

use actix_web::http::Method;
use serde_json::{Value, json};
use tributary::domain::Reason;

use super::fixture::Api;

const DOCUMENT: &str = "/api/v1/openapi.json";

fn methods_of(operations: &Value) -> BTreeSet<String> {
    operations.as_object().unwrap().keys().map(|it| it.to_uppercase()).collect()
}

/// A path of the document with something in the place of its names.
fn filled(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    for part in parts.iter_mut().filter(|part| part.starts_with('{')) {
        *part = "81bf7042-e20f-4a97-ac44-c15853e3618f";
    }
    parts.join("/")
}

#[actix_rt::test]
async fn every_path_and_method_is_served_and_no_other() {
    let api = Api::start().await;
    let document = api.get(DOCUMENT).await.expect(200);
    let paths = document["paths"].as_object().unwrap();
    for (path, operations) in paths {
        // A method that nobody serves is answered with those that are served.
        let answer = api.ask(Method::TRACE, &filled(path)).await;
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

/// Its script and style are built with the dashboard, whose tests show the page in a browser.
#[actix_rt::test]
async fn the_page_lists_every_operation_without_its_script() {
    let api = Api::start().await;
    let to_the_page = api.get("/docs").await;
    assert_eq!((to_the_page.status, to_the_page.header("location")), (200, ""), "it was followed");
    let page = api.get("/docs/").await;
    let without_script = page.text.split("<noscript>").nth(1).expect("there is a text");
    for line in ["<code>GET /api/v1/sensors</code>", "republish</code>", "(admin)", "(no token)"] {
        assert!(without_script.contains(line), "{line}: {without_script}");
    }
    assert!(page.text.contains("href=\"../api/v1/openapi.json\""), "{}", page.text);
    assert!(!page.text.contains("=\"//") && !page.text.contains("=\"http"), "{}", page.text);
    assert!(page.header("content-security-policy").contains("default-src 'none'"), "{page:?}");
    api.get("/docs/nothing.js").await.expect(404);
}

#[actix_rt::test]
async fn what_can_be_said_is_said_in_the_document() {
    let api = Api::start().await;
    let document = api.get(DOCUMENT).await.expect(200);
    let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(document["components"]["schemas"]["RejectionReason"]["enum"], json!(codes));
    let detail = api.get("/api/v1/rejections?reason=bogus").await.expect(400);
    let detail = detail["detail"].as_str().unwrap();
    assert!(codes.iter().all(|code| detail.contains(code)), "{detail}");

    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let what = format!("{method} {path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = &parameter["schema"];
                if parameter["name"] == "limit" {
                    let most = if what.starts_with("delete") { 10_000 } else { 1_000 };
                    assert_eq!(
                        (&schema["minimum"], &schema["maximum"]),
                        (&json!(1), &json!(most)),
                        "{what}"
                    );
                    assert!(schema["default"].is_u64(), "{what}");
                }
                let words = ["order", "sort", "format"].iter().any(|it| parameter["name"] == *it);
                assert!(!words || schema["enum"].is_array(), "{what}: {parameter}");
                assert!(!schema.to_string().contains("\"null\""), "{what}: {parameter}");
            }
            assert!(operation["responses"]["405"]["headers"]["Allow"].is_object(), "{what}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                for content in response["content"].as_object().into_iter().flatten() {
                    let examples = content.1["examples"].as_object();
                    let has_some = examples.is_some_and(|examples| !examples.is_empty());
                    assert!(has_some || !content.1["example"].is_null(), "{what} {status}");
                    for example in examples.into_iter().flatten() {
                        assert_eq!(example.1["value"]["status"].to_string(), *status, "{what}");
                    }
                }
            }
        }
    }
    let of = |path: &str, method: &str, status: &str| -> Vec<String> {
        let response = &document["paths"][path][method]["responses"][status];
        let examples = &response["content"]["application/problem+json"]["examples"];
        examples.as_object().unwrap().keys().cloned().collect()
    };
    let sensors = "/api/v1/sensors";
    let republish = "/api/v1/sensors/{identifier}/configurations/{revision}/republish";
    assert_eq!(of(sensors, "post", "409"), ["identifier-taken", "name-taken"]);
    assert_eq!(of(republish, "post", "409"), ["not-newest"]);
    assert_eq!(of(republish, "post", "404"), ["configuration-not-found", "sensor-not-found"]);
    assert_eq!(of("/api/v1/tokens/{token}", "get", "404"), ["token-not-found"]);
}

#[actix_rt::test]
async fn examples_have_the_members_that_answers_have() {
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

/// The tool that holds the rest to the document waits for the end of an answer.
#[actix_rt::test]
async fn streams_answer_as_the_document_describes() {
    let api = Api::start().await;
    let document = api.get(DOCUMENT).await.expect(200);
    let (_, one) = api.create_sensor("one").await;
    let nobody = format!("/api/v1/sensors/{}", uuid::Uuid::new_v4());
    let (sensors, sensor) = ("/api/v1/streams/sensors", "/api/v1/sensors/{identifier}/stream");
    let described = |path: &str, status: u16| {
        let response = &document["paths"][path]["get"]["responses"][status.to_string()];
        let content = response["content"].as_object();
        content.map(|content| content.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    for (template, path) in [(sensors, sensors.to_owned()), (sensor, format!("{one}/stream"))] {
        let mut opened = api.begin(&path).await;
        assert_eq!(opened.status(), 200, "{path}");
        let media_type = opened.headers().get("content-type").unwrap().to_str().unwrap().to_owned();
        assert_eq!(described(template, 200), [media_type.as_str()], "{path}");
        let mut first = Vec::new();
        while !first.ends_with(b"\n\n") {
            let chunk = futures_util::StreamExt::next(&mut opened).await.unwrap().unwrap();
            first.extend_from_slice(&chunk);
        }
        assert!(first.starts_with(b"retry: 3000\nevent: "), "{first:?}");
        // The first event has the members of the schema that is named for it.
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
        (sensor, api.get(&format!("{nobody}/stream")).await),
    ] {
        assert!(answer.status >= 400, "{template}: {answer:?}");
        let media_type = answer.header("content-type").to_owned();
        assert_eq!(described(template, answer.status), [media_type], "{template}: {answer:?}");
        let problem = answer.json();
        let types = &document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"];
        assert!(types.as_array().unwrap().contains(&problem["type"]), "{problem}");
    }
}
