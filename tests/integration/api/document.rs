//! The document is true: it describes what is served, all of it and nothing else, and the page that
//! shows it asks nobody but the service.

use std::collections::BTreeSet;
use std::path::Path;

use actix_web::http::Method;
use serde_json::Value;

use super::fixture::Api;

const DOCUMENT: &str = "/api/v1/openapi.json";

/// Served beside the API, and no part of it.
const PAGE_PATHS: usize = 2;

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
    // Each resource of the source has its path in the document, so none is left out.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let resources: usize = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .map(|text| text.matches("resource(\"").count())
        .sum();
    assert_eq!(resources, paths.len() + PAGE_PATHS, "{:?}", paths.keys());
}

#[actix_rt::test]
async fn the_page_has_all_that_it_needs_in_the_binary() {
    let api = Api::start().await;
    let to_the_page = api.get("/docs").await;
    assert_eq!((to_the_page.status, to_the_page.header("location")), (200, ""), "it was followed");
    let page = api.get("/docs/").await;
    assert!(page.header("content-security-policy").contains("default-src 'none'"), "{page:?}");
    let mut assets = 0;
    for attribute in ["src=\"", "href=\""] {
        for after in page.text.split(attribute).skip(1) {
            let asset = after.split('"').next().unwrap();
            assert!(!asset.contains("//"), "{asset} is somewhere else");
            let path = format!("/docs/{}", asset.trim_start_matches("./"));
            assert_eq!(api.ask(Method::HEAD, &path).await.status, 200, "{path}");
            assets += 1;
        }
    }
    assert!(assets >= 4, "{}", page.text);
    let settings = api.get("/docs/swagger-initializer.js").await.text;
    assert!(settings.contains(DOCUMENT), "{settings}");
    assert!(settings.contains("\"validatorUrl\": \"none\""), "{settings}");
    api.get("/docs/nothing.js").await.expect(404);
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
        let media_type = opened.headers().get("content-type").unwrap().to_str().unwrap();
        assert_eq!(described(template, 200), [media_type], "{path}");
        let first = futures_util::StreamExt::next(&mut opened).await.unwrap().unwrap();
        assert!(first.starts_with(b"retry: 3000\nevent: "), "{first:?}");
    }
    let accept = [("accept", "application/json")];
    for (template, answer) in [
        (sensors, api.get(&format!("{sensors}?since=1")).await),
        (sensors, api.send(Method::GET, sensors, &accept, "").await),
        (sensor, api.get(&format!("{one}/stream?since=1")).await),
        (sensor, api.send(Method::GET, &format!("{one}/stream"), &accept, "").await),
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
