//! What applies to every request: size limits, timeouts, compression, CORS, and the request identifier in
//! the log.

use std::process::Command;

use actix_web::http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fixture::Api;
use crate::support::broker::Broker;
use crate::support::postgres::{Postgres, connect};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

const SENSORS: &str = "/api/v1/sensors";

async fn start_with(setting: (&str, &str)) -> Api {
    Api::start_with(Postgres::shared().await, &[("AUTH", "off"), setting]).await
}

#[actix_rt::test]
async fn a_body_has_a_maximum_depth_and_a_maximum_size() {
    let api = Api::start().await;
    let nested = |depth| format!(r#"{{"name":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let problem = api.post(SENSORS, nested(64)).await.expect(400);
    assert_eq!(problem["type"], "/problems/invalid-json", "{problem}");
    // At a depth within the limit, the body is parsed, and the name is invalid.
    let problem = api.post(SENSORS, nested(63)).await.expect(422);
    assert_eq!(problem["pointer"], "/name", "{problem}");
    let large = json!({ "name": "x".repeat(1 << 20) });
    let problem = api.post(SENSORS, large).await.expect(413);
    assert_eq!(problem["type"], "/problems/payload-too-large");

    let api = start_with(("HTTP_MAX_BODY_BYTES", "2000")).await;
    api.post(SENSORS, json!({ "name": "x".repeat(1_900) })).await.expect(422);
    let problem = api.post(SENSORS, json!({ "name": "x".repeat(2_000) })).await.expect(413);
    assert_eq!(problem["detail"], "a body has at most 2000 bytes");
}

#[actix_rt::test]
async fn a_request_over_the_timeout_gets_503_or_408() {
    let api = start_with(("HTTP_TIMEOUT_SECS", "1")).await;
    let mut locker = connect(&api.database.url).await.unwrap();
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute("lock table sensor in access exclusive mode").await.unwrap();
    let answer = api.get(SENSORS).await;
    assert_eq!(answer.header("retry-after"), "2", "{answer:?}");
    assert_eq!(answer.expect(503)["type"], "/problems/timeout");
    lock.rollback().await.unwrap();
    api.get(SENSORS).await.expect(200);

    // An incomplete body gets 408.
    let host = api.base.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST {SENSORS} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{{"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(TIMEOUT, connection.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
}

#[actix_rt::test]
async fn only_pages_of_the_configured_origins_may_call() {
    const ORIGIN: &str = "https://dashboard.example:8443";
    let allowed = "access-control-allow-origin";
    let api = start_with(("CORS_ORIGINS", ORIGIN)).await;
    let preflight_headers = [("access-control-request-method", "PATCH"), ("origin", ORIGIN)];
    let preflight = api.send(Method::OPTIONS, SENSORS, &preflight_headers, "").await;
    assert_eq!((preflight.status, preflight.header(allowed)), (200, ORIGIN), "{preflight:?}");
    assert!(preflight.header("access-control-allow-methods").contains("PATCH"), "{preflight:?}");

    let answer = api.send(Method::GET, SENSORS, &[("origin", ORIGIN)], "").await;
    assert_eq!((answer.status, answer.header(allowed)), (200, ORIGIN), "{answer:?}");
    assert!(answer.header("access-control-expose-headers").contains("x-request-id"), "{answer:?}");
    // Errors have the header, too.
    let answer = api.send(Method::GET, "/api/v1/sensors/x", &[("origin", ORIGIN)], "").await;
    assert_eq!((answer.status, answer.header(allowed)), (404, ORIGIN), "{answer:?}");

    let other = [("origin", "https://other.example"), ("access-control-request-method", "PATCH")];
    let refused = api.send(Method::OPTIONS, SENSORS, &other, "").await;
    assert_eq!((refused.status, refused.header(allowed)), (400, ""), "{refused:?}");

    // Without the setting, no page of another origin may call.
    let api = Api::start().await;
    let answer = api.send(Method::GET, SENSORS, &[("origin", ORIGIN)], "").await;
    assert_eq!((answer.status, answer.header(allowed)), (403, ""), "{answer:?}");
}

#[actix_rt::test]
async fn an_answer_is_compressed_if_the_client_accepts_it() {
    let api = Api::start().await;
    for number in 0..50 {
        api.create_sensor(&format!("compressed {number}")).await;
    }
    let plain = api.send(Method::GET, SENSORS, &[("accept-encoding", "identity")], "").await;
    assert_eq!(plain.header("content-encoding"), "");
    let curl = Command::new("curl")
        .args(["-s", "--compressed", "-w", "%{size_download}", &format!("{}{SENSORS}", api.base)])
        .output()
        .unwrap();
    let stdout = String::from_utf8(curl.stdout).unwrap();
    let size_download = stdout.strip_prefix(&plain.text).expect("curl prints the same body");
    assert!(size_download.parse::<usize>().unwrap() < plain.text.len() / 2, "{size_download}");
}

#[actix_rt::test]
async fn log_lines_of_a_request_contain_its_identifier() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service =
        Service::start(&database, broker, &[("LOG_FILTER", "warn,tributary=debug")]).await;
    let get = async |path: &str, identifier: &str| {
        awc::Client::default()
            .get(format!("{}{path}", service.url()))
            .insert_header(("x-request-id", identifier))
            .send()
            .await
            .unwrap()
    };
    let answer = get("/api/v1/sensors", "given-by-the-client").await;
    let echoed = answer.headers().get("x-request-id").unwrap().to_str().unwrap().to_owned();
    assert_eq!(echoed, "given-by-the-client");
    eventually(TIMEOUT, async || {
        let log = service.log();
        let answered = log.lines().filter(|line| line.contains("request answered"));
        let without_identifier = answered.clone().find(|line| !line.contains("request_id="));
        assert_eq!(without_identifier, None);
        let mut expected = answered.filter(|line| line.contains("given-by-the-client"));
        expected.next().map(|_| ()).ok_or(log.clone())
    })
    .await;
    // An identifier that could forge a log line is replaced.
    let answer = get("/api/v1/sensors", "a b").await;
    assert_ne!(answer.headers().get("x-request-id").unwrap(), "a b");

    // Warnings contain the identifier, too, at any log level.
    let body = json!({ "filter": "warn" });
    service.request("PUT", "/api/v1/ingest/log-level", Some(&body)).await.unwrap();
    let client = connect(&database.url).await.unwrap();
    client.batch_execute("alter table sensor rename to hidden").await.unwrap();
    assert_eq!(get("/api/v1/sensors", "that-failed").await.status().as_u16(), 500);
    eventually(TIMEOUT, async || {
        let log = service.log();
        let failed = log.lines().find(|line| line.contains("request failed")).map(str::to_owned);
        failed.filter(|line| line.contains("that-failed")).ok_or(log)
    })
    .await;
}

/// Requests that a web page can send from a browser on the host of a service with `AUTH=off`.
#[actix_rt::test]
async fn web_pages_cannot_call_a_service_without_authentication() {
    const JSON: (&str, &str) = ("content-type", "application/json");
    let api = Api::start().await;
    let port = api.base.rsplit_once(':').unwrap().1;
    let (ours, localhost) = (format!("http://127.0.0.1:{port}"), format!("localhost:{port}"));
    let rebound = format!("rebound.example:{port}");
    let pause = "/api/v1/ingest/pause";
    for (method, path, headers, status) in [
        // DNS rebinding: a foreign name that resolves to 127.0.0.1; another port.
        (Method::GET, SENSORS, vec![("host", rebound.as_str())], 403),
        (Method::GET, SENSORS, vec![("host", "localhost:1")], 403),
        (Method::GET, SENSORS, vec![("host", "localhost")], 403),
        (Method::DELETE, SENSORS, vec![("host", &rebound)], 403),
        (Method::GET, SENSORS, vec![("host", &localhost)], 200),
        (Method::GET, "/healthz", vec![("host", &rebound)], 200),
        // A foreign page, a file, another port, and the service's own page.
        (Method::GET, SENSORS, vec![("origin", "https://evil.example")], 403),
        (Method::GET, SENSORS, vec![("origin", "null")], 403),
        (Method::GET, SENSORS, vec![("origin", "http://localhost:1")], 403),
        (Method::GET, SENSORS, vec![("origin", &ours)], 200),
        (Method::POST, pause, vec![("origin", "https://evil.example"), JSON], 403),
        (Method::POST, pause, vec![("origin", &ours)], 200),
        // A form, from a browser that sends no Origin.
        (Method::POST, pause, vec![], 415),
        (Method::POST, pause, vec![("content-type", "text/plain")], 415),
        (Method::POST, pause, vec![JSON], 200),
        (Method::POST, pause, vec![("x-requested-with", "curl")], 200),
    ] {
        let what = format!("{method} {path} {headers:?}");
        let answer = api.send(method, path, &headers, "").await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{what}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{what}");
    }
    // With authentication, the host is not checked.
    let api = Api::start_guarded().await;
    let answer = api.send(Method::GET, SENSORS, &[("host", "rebound.example")], "").await;
    assert_eq!(answer.status, 401, "{answer:?}");
}
