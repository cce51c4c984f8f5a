//! While the database is unavailable, the API answers 503 within two seconds, and recovers by itself.

use std::time::{Duration, Instant};

use actix_web::http::Method;
use serde_json::json;
use tributary::domain::{Part, Role, Scope};

use super::access_routes::routes;
use super::fixture::Api;
use crate::support::postgres::{Postgres, connect};
use crate::support::tcp_proxy::TcpProxy;
use crate::support::wait::{TIMEOUT, eventually};

#[actix_rt::test]
async fn without_a_database_the_api_answers_503_within_two_seconds() {
    let mut postgres = Postgres::start().await;
    let api = Api::start_on(&postgres).await;
    let (_, one) = api.create_sensor("one").await;
    api.get("/readyz").await.expect(200);

    postgres.stop_immediate().await;

    let measurements = format!("{one}/measurements");
    for path in ["/api/v1/sensors", &one, &measurements, "/api/v1/rejections", "/readyz"] {
        let start = Instant::now();
        let answer = api.get(path).await;
        assert!(start.elapsed() < Duration::from_secs(2), "{path}: {:?}", start.elapsed());
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
    eventually(TIMEOUT, async || match api.get(&one).await {
        answer if answer.status == 200 => Ok(()),
        other => Err(other),
    })
    .await;
}

/// The path of every route that reads, with its required parameters.
fn reads(sensor: &str) -> Vec<String> {
    let reads = routes().into_iter().filter(|route| route.method == Method::GET);
    let paths = reads.map(|route| {
        let path = route.path.replace("/api/v1/sensors/{identifier}", sensor);
        let unknown = uuid::Uuid::new_v4().to_string();
        let path = ["{network}", "{token}", "{user}"]
            .iter()
            .fold(path.replace("{revision}", "0"), |path, name| path.replace(name, &unknown));
        match path.as_str() {
            it if it.ends_with("measurements/aggregates") => format!("{it}?bucket=1h&attributes=a"),
            it if it.ends_with("configurations/diff") => format!("{it}?from=0&to=0"),
            it => it.to_owned(),
        }
    });
    paths.chain(["/api/v1/streams/sensors".into(), format!("{sensor}/stream")]).collect()
}

/// Routes that need no table and answer 200 while the database is unavailable.
const WITHOUT_TABLES: [&str; 3] = ["/api/v1/status", "/api/v1/ingest", "/api/v1/sessions/current"];

#[actix_rt::test]
async fn reads_get_503_within_two_seconds_from_an_unresponsive_database() {
    let shared = Postgres::shared().await;
    let mut database = shared.create_database(None).await;
    let proxy = TcpProxy::start_in_front_of(&mut database, usize::MAX).await;
    let api = Api::start_in(database, &[("AUTH", "off")]).await;
    let (_, one) = api.create_sensor("one").await;
    // Fills the pool with connections that look healthy.
    futures_util::future::join_all((0..4).map(|_| api.get(&one))).await;

    proxy.freeze(true);

    let reads = reads(&one);
    assert!(reads.len() > 20, "{}", reads.len());
    for path in reads {
        let start = Instant::now();
        let answer = api.get(&path).await;
        assert!(start.elapsed() < Duration::from_secs(2), "{path}: {:?}", start.elapsed());
        if WITHOUT_TABLES.contains(&path.as_str()) {
            answer.expect_status(200);
            continue;
        }
        assert_eq!(answer.header("retry-after"), "2", "{path}: {answer:?}");
        let problem = answer.expect(503);
        assert_eq!(problem["type"], "/problems/database-unavailable", "{path}");
    }
    proxy.freeze(false);
    eventually(TIMEOUT, async || match api.get(&one).await {
        answer if answer.status == 200 => Ok(()),
        other => Err(other),
    })
    .await;
}

/// The two seconds include authentication.
#[actix_rt::test]
async fn an_authenticated_read_from_an_unresponsive_database_takes_at_most_two_seconds() {
    let shared = Postgres::shared().await;
    let mut database = shared.create_database(None).await;
    let proxy = TcpProxy::start_in_front_of(&mut database, usize::MAX).await;
    let api = Api::start_in(database, &[]).await;
    let token = api.token(Role::Viewer, Scope::All).await;
    let sensor = format!("/api/v1/sensors/{}", uuid::Uuid::new_v4());
    let get = async |path: &str| {
        let start = Instant::now();
        let answer = api.call(Some(&token), Method::GET, path, None).await;
        (answer, start.elapsed())
    };
    let page = format!("{sensor}/measurements");
    // Fills the pools for authentication and for pages with connections that look healthy.
    for (answer, _) in futures_util::future::join_all((0..4).map(|_| get(&page))).await {
        answer.expect(404);
    }
    // After one second, TokenCache queries the database for the token again.
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    proxy.freeze(true);

    let (answer, waited) = get(&page).await;
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    assert!(waited > Duration::from_millis(1_200), "both queries ran: {waited:?}");
    assert_eq!(answer.expect(503)["type"], "/problems/database-unavailable");
}

/// The server responds, although the table is locked.
#[actix_rt::test]
async fn a_page_waits_for_a_locked_table() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    let page = format!("{one}/measurements");
    api.get(&page).await.expect(200);
    let lock_holder = connect(&api.database.url).await.unwrap();
    lock_holder.batch_execute("begin; lock table sensor in access exclusive mode").await.unwrap();
    let lock_waiters = "select count(*) from pg_stat_activity \
                 where wait_event_type = 'Lock' and query like '%from sensor where identifier%'";

    let read = api.get(&page);
    let unlock = async {
        eventually(TIMEOUT, async || match api.count(lock_waiters).await {
            1 => Ok(()),
            count => Err(count),
        })
        .await;
        // Longer than the health check waits for a response.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(api.count(lock_waiters).await, 1);
        lock_holder.batch_execute("rollback").await.unwrap();
    };
    let (answer, ()) = tokio::join!(read, unlock);
    answer.expect(200);
}

/// The page's query is sent with the health check, so the read itself detects a frozen connection.
#[actix_rt::test]
async fn a_page_replaces_an_unresponsive_connection() {
    let postgres = Postgres::start().await;
    let api = Api::start_on(&postgres).await;
    let (_, one) = api.create_sensor("one").await;
    let pages = ["measurements", "log-messages", "heartbeats"].map(|it| format!("{one}/{it}"));
    api.get(&pages[0]).await.expect(200);
    let backend = "select pid::bigint from pg_stat_activity \
                   where application_name = 'tributary-read' and query like '%is_followed%'";

    for page in &pages {
        let frozen = i32::try_from(api.count(backend).await).unwrap();
        postgres.freeze_backend(frozen);
        let start = Instant::now();
        let answer = api.get(page).await;
        let waited = start.elapsed();
        let other = api.get(page).await;
        postgres.thaw_backend(frozen);
        answer.expect(200);
        assert!(waited > Duration::from_millis(500), "{page}: {waited:?}");
        assert!(waited < Duration::from_secs(2), "{page}: {waited:?}");
        other.expect(200);
        // Until the frozen backend ends, `backend` matches two.
        let frozen_backends = format!("select count(*) from pg_stat_activity where pid = {frozen}");
        eventually(TIMEOUT, async || match api.count(&frozen_backends).await {
            0 => Ok(()),
            count => Err(count),
        })
        .await;
    }
}

#[actix_rt::test]
async fn readyz_names_the_missing_parts_and_their_problems() {
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
async fn a_bind_error_names_the_address_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let error = Api::try_bind(&address).map(drop).unwrap_err();

    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let sentence = error.to_string();
    assert!(sentence.contains(&format!("HTTP_ADDR={address}")), "{sentence}");
    assert!(sentence.contains("in use"), "{sentence}");
}
