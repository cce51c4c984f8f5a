//! Without the database, and without the broker, the API says so at once, and recovers by itself.

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
    eventually(TIMEOUT, async || match api.get(&one).await {
        answer if answer.status == 200 => Ok(()),
        other => Err(other),
    })
    .await;
}

/// Every route that reads, with what it needs to be understood.
fn reads(sensor: &str) -> Vec<String> {
    let reads = routes().into_iter().filter(|route| route.method == Method::GET);
    let paths = reads.map(|route| {
        let path = route.path.replace("/api/v1/sensors/{identifier}", sensor);
        let nobody = uuid::Uuid::new_v4().to_string();
        let path = ["{network}", "{token}", "{user}"]
            .iter()
            .fold(path.replace("{revision}", "0"), |path, name| path.replace(name, &nobody));
        match path.as_str() {
            it if it.ends_with("measurements/aggregates") => format!("{it}?bucket=1h&attributes=a"),
            it if it.ends_with("configurations/diff") => format!("{it}?from=0&to=0"),
            it => it.to_owned(),
        }
    });
    paths.chain(["/api/v1/streams/sensors".into(), format!("{sensor}/stream")]).collect()
}

/// What needs no table, and is told whatever the database does.
const WITHOUT_TABLES: [&str; 3] = ["/api/v1/status", "/api/v1/ingest", "/api/v1/sessions/current"];

#[actix_rt::test]
async fn no_read_waits_for_a_database_that_says_nothing() {
    let shared = Postgres::shared().await;
    let mut database = shared.create_database(None).await;
    let proxy = TcpProxy::before(&mut database, usize::MAX).await;
    let api = Api::start_in(database, &[("AUTH", "off")]).await;
    let (_, one) = api.create_sensor("one").await;
    // So that there are connections that seem to be good.
    futures_util::future::join_all((0..4).map(|_| api.get(&one))).await;

    proxy.freeze(true);

    let reads = reads(&one);
    assert!(reads.len() > 20, "{}", reads.len());
    for path in reads {
        let began = Instant::now();
        let answer = api.get(&path).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{path}: {:?}", began.elapsed());
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

/// To know the caller takes time, too.
#[actix_rt::test]
async fn nobody_who_is_known_waits_longer() {
    let shared = Postgres::shared().await;
    let mut database = shared.create_database(None).await;
    let proxy = TcpProxy::before(&mut database, usize::MAX).await;
    let api = Api::start_in(database, &[]).await;
    let token = api.token(Role::Viewer, Scope::All).await;
    let sensor = format!("/api/v1/sensors/{}", uuid::Uuid::new_v4());
    let ask = async |path: &str| {
        let began = Instant::now();
        let answer = api.call(Some(&token), Method::GET, path, None).await;
        (answer, began.elapsed())
    };
    let page = format!("{sensor}/measurements");
    // So that there are connections that seem to be good, for the caller and for the page.
    for (answer, _) in futures_util::future::join_all((0..4).map(|_| ask(&page))).await {
        answer.expect(404);
    }
    // The gate asks again who that is after a second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    proxy.freeze(true);

    let (answer, waited) = ask(&page).await;
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    assert!(waited > Duration::from_millis(1_200), "the gate asked, and the page: {waited:?}");
    assert_eq!(answer.expect(503)["type"], "/problems/database-unavailable");
}

/// A table that is locked is no server that is away.
#[actix_rt::test]
async fn a_page_waits_for_a_locked_table() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    let page = format!("{one}/measurements");
    api.get(&page).await.expect(200);
    let locker = connect(&api.database.url).await.unwrap();
    locker.batch_execute("begin; lock table sensor in access exclusive mode").await.unwrap();
    let waits = "select count(*) from pg_stat_activity \
                 where wait_event_type = 'Lock' and query like '%from sensor where identifier%'";

    let asked = api.get(&page);
    let unlocked = async {
        eventually(TIMEOUT, async || match api.count(waits).await {
            1 => Ok(()),
            count => Err(count),
        })
        .await;
        // Longer than a server may be silent.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(api.count(waits).await, 1, "it is the one that waited before");
        locker.batch_execute("rollback").await.unwrap();
    };
    let (answer, ()) = tokio::join!(asked, unlocked);
    answer.expect(200);
}

/// A page is asked for at once, and who asks is the first to see that nobody is there.
#[actix_rt::test]
async fn a_page_leaves_a_connection_that_says_nothing_for_another_one() {
    let postgres = Postgres::start().await;
    let api = Api::start_on(&postgres).await;
    let (_, one) = api.create_sensor("one").await;
    let pages = ["measurements", "log-messages", "heartbeats"].map(|it| format!("{one}/{it}"));
    api.get(&pages[0]).await.expect(200);
    let backend = "select pid::bigint from pg_stat_activity \
                   where application_name = 'tributary-read' and query like '%is_followed%'";

    for page in &pages {
        let silent = i32::try_from(api.count(backend).await).unwrap();
        postgres.freeze_backend(silent);
        let began = Instant::now();
        let answer = api.get(page).await;
        let waited = began.elapsed();
        let other = api.get(page).await;
        postgres.thaw_backend(silent);
        answer.expect(200);
        assert!(waited > Duration::from_millis(500), "{page}: it was asked: {waited:?}");
        assert!(waited < Duration::from_secs(2), "{page}: {waited:?}");
        other.expect(200);
        // Before it is gone, there are two.
        let gone = format!("select count(*) from pg_stat_activity where pid = {silent}");
        eventually(TIMEOUT, async || match api.count(&gone).await {
            0 => Ok(()),
            count => Err(count),
        })
        .await;
    }
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
