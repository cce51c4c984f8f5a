//! Without the database, and without the broker, the API says so at once, and recovers by itself.

use std::time::{Duration, Instant};

use serde_json::json;
use tributary::domain::Part;

use super::fixture::Api;
use crate::support::postgres::Postgres;
use crate::support::wait::{PATIENCE, eventually};

#[actix_rt::test]
async fn without_a_database_it_answers_503_within_two_seconds() {
    let mut postgres = Postgres::start().await;
    let api = Api::start_on(&postgres).await;
    let (_, one) = api.create_sensor("one").await;
    api.get("/readyz").await.expect(200);

    postgres.stop_immediate().await;

    let measurements = format!("{one}/measurements");
    for path in ["/api/v1/sensors", &one, &measurements, "/api/v1/rejections", "/readyz"] {
        let began = Instant::now();
        let answer = api.get(path).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{path}: {:?}", began.elapsed());
        assert_eq!(answer.header("retry-after"), "2", "{path}");
        for secret in ["select", "postgres", "127.0.0.1", "os error"] {
            assert!(!answer.text.contains(secret), "{answer:?}");
        }
        let problem = answer.expect(503);
        let expected = if path == "/readyz" { "not-ready" } else { "database-unavailable" };
        assert_eq!(problem["type"], format!("/problems/{expected}"));
    }
    api.post("/api/v1/sensors", r#"{"name":"two"}"#).await.expect(503);
    api.get("/healthz").await.expect(200);
    let status = api.get("/api/v1/status").await.expect(200);
    assert_eq!(status["connections"]["database"]["up"], false);

    postgres.start_again().await;
    eventually(PATIENCE, async || match api.get(&one).await {
        answer if answer.status == 200 => Ok(()),
        other => Err(other),
    })
    .await;
}

#[actix_rt::test]
async fn readiness_names_what_is_missing_and_why() {
    let api = Api::start().await;
    assert_eq!(api.get("/readyz").await.expect(200), json!({ "status": "ready" }));
    api.health.down(Part::Publishing, "connection refused".into());
    api.health.down(Part::Writing, "disk full".into());

    let problem = api.get("/readyz").await.expect(503);

    let missing = problem["missing"].as_array().unwrap();
    let brief: Vec<_> = missing.iter().map(|it| (&it["part"], &it["problem"])).collect();
    assert_eq!(
        brief,
        [
            (&json!("broker_publishing"), &json!("connection refused")),
            (&json!("database_writing"), &json!("disk full")),
        ]
    );
    assert!(missing.iter().all(|it| it["since"].is_string()));
    api.get("/healthz").await.expect(200);
}

#[actix_rt::test]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let error = Api::try_bind(&address).map(drop).unwrap_err();

    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let sentence = error.to_string();
    assert!(sentence.contains(&format!("HTTP_ADDR={address}")), "{sentence}");
    assert!(sentence.contains("in use"), "{sentence}");
}
