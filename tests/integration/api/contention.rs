//! Long reads, purges, locks and password guessing do not block other callers: authentication, readiness
//! and short reads still work.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use futures_util::future::join_all;
use tokio_postgres::Client;
use tributary::domain::{Role, Scope, SensorIdentifier};

use super::fixture::Api;
use crate::support::postgres::{Postgres, connect};
use crate::support::wait::{TIMEOUT, eventually};

/// The advisory lock that commits of batches take shared, and deletions exclusive.
const DELETION_LOCK: i64 = 0x7472_6962;

async fn lock_table(api: &Api, table: &str) -> Client {
    let lock_holder = connect(&api.database.url).await.unwrap();
    let lock = format!("begin; lock table {table} in access exclusive mode");
    lock_holder.batch_execute(&lock).await.unwrap();
    lock_holder
}

/// The number of sessions that wait for a lock in a statement like this.
async fn lock_waiters(api: &Api, statement: &str) -> i64 {
    let count = format!(
        "select count(*) from pg_stat_activity where datname = current_database()
         and wait_event_type = 'Lock' and query like '{statement}'"
    );
    api.count(&count).await
}

async fn wait_for_lock_waiters(api: &Api, statement: &str, expected: i64) {
    eventually(TIMEOUT, async || match lock_waiters(api, statement).await {
        count if count == expected => Ok(()),
        count => Err(count),
    })
    .await;
}

/// Uses a new token, which is not cached.
async fn assert_others_are_served(api: &Api, sensor: &str) {
    let token = api.token(Role::Viewer, Scope::All).await;
    let start = Instant::now();
    api.get("/readyz").await.expect(200);
    for path in ["/api/v1/sessions/current", sensor, "/api/v1/networks"] {
        api.call(Some(&token), Method::GET, path, None).await.expect(200);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

async fn start_with_sensor() -> (Api, String, SensorIdentifier, String) {
    let settings = [("DATABASE_READ_TIMEOUT_SECS", "6")];
    let api = Api::start_with(Postgres::shared().await, &settings).await;
    let admin = api.token(Role::Admin, Scope::All).await;
    let (identifier, sensor) = create_sensor(&api, &admin, "one").await;
    (api, admin, identifier, sensor)
}

async fn create_sensor(api: &Api, admin: &str, name: &str) -> (SensorIdentifier, String) {
    let body = format!(r#"{{"name":"{name}"}}"#);
    let created = api.call(Some(admin), Method::POST, "/api/v1/sensors", Some(&body)).await;
    let created = created.expect(201);
    let identifier = SensorIdentifier::parse(created["identifier"].as_str().unwrap()).unwrap();
    (identifier, format!("/api/v1/sensors/{identifier}"))
}

#[actix_rt::test]
async fn text_searches_of_one_token_do_not_block_other_tokens() {
    let (api, _, _, sensor) = start_with_sensor().await;
    let greedy = api.token(Role::Viewer, Scope::All).await;
    let other = api.token(Role::Viewer, Scope::All).await;
    // The lock makes every search run until its timeout.
    let lock_holder = lock_table(&api, "log_message").await;
    let search = format!("{sensor}/log-messages?text=x");

    let searches = join_all((0..8).map(|_| api.call(Some(&greedy), Method::GET, &search, None)));
    let meanwhile = async {
        eventually(TIMEOUT, async || match lock_waiters(&api, "%from log_message%").await {
            0 => Err("no search waits yet"),
            _ => Ok(()),
        })
        .await;
        assert_others_are_served(&api, &sensor).await;
        assert_eq!(lock_waiters(&api, "%from log_message%").await, 1, "the limit of one token");
        let aggregates = format!("{sensor}/measurements/aggregates?bucket=1h&attributes=a");
        api.call(Some(&other), Method::GET, &aggregates, None).await.expect(200);
    };
    let (answers, ()) = tokio::join!(searches, meanwhile);
    let mut types = Vec::new();
    for answer in answers {
        assert_eq!(answer.header("retry-after"), "10", "{answer:?}");
        types.push(answer.expect(503)["type"].as_str().unwrap().to_owned());
    }
    assert!(types.iter().any(|it| it == "/problems/busy"), "{types:?}");
    assert!(types.iter().any(|it| it == "/problems/read-timeout"), "{types:?}");
    lock_holder.batch_execute("rollback").await.unwrap();
}

#[actix_rt::test]
async fn reads_of_a_locked_table_do_not_block_reads_of_other_tables() {
    let (api, admin, _, sensor) = start_with_sensor().await;
    let lock_holder = lock_table(&api, "measurement").await;
    let page = format!("{sensor}/measurements");

    let pages = join_all((0..12).map(|_| api.call(Some(&admin), Method::GET, &page, None)));
    let meanwhile = async {
        wait_for_lock_waiters(&api, "%from measurement%", 3).await;
        assert_others_are_served(&api, &sensor).await;
        lock_holder.batch_execute("rollback").await.unwrap();
    };
    let (pages, ()) = tokio::join!(pages, meanwhile);
    let statuses: Vec<u16> = pages.iter().map(|page| page.status).collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(served >= 3 && statuses.iter().all(|it| [200, 503].contains(it)), "{statuses:?}");
}

#[actix_rt::test]
async fn purges_do_not_block_reads() {
    let (api, admin, _, kept) = start_with_sensor().await;
    let mut sensors = Vec::new();
    for name in ["two", "three", "four", "five"] {
        sensors.push(create_sensor(&api, &admin, name).await.1);
    }
    let lock_holder = lock_table(&api, "heartbeat").await;

    let deletions =
        join_all(sensors.iter().map(|it| api.call(Some(&admin), Method::DELETE, it, None)));
    let meanwhile = async {
        wait_for_lock_waiters(&api, "delete from heartbeat%", 2).await;
        assert_others_are_served(&api, &kept).await;
        lock_holder.batch_execute("rollback").await.unwrap();
    };
    let (answers, ()) = tokio::join!(deletions, meanwhile);
    for answer in answers {
        answer.expect(204);
    }
}

#[actix_rt::test]
async fn a_deletion_gets_503_while_a_commit_holds_the_lock() {
    let (api, admin, _, sensor) = start_with_sensor().await;
    let mut writer = connect(&api.database.url).await.unwrap();
    let batch = writer.transaction().await.unwrap();
    batch.query("select pg_advisory_xact_lock_shared($1)", &[&DELETION_LOCK]).await.unwrap();

    let start = Instant::now();
    let answer = api.call(Some(&admin), Method::DELETE, &sensor, None).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(answer.header("retry-after"), "10", "{answer:?}");
    assert_eq!(answer.expect(503)["type"], "/problems/busy");

    // The deletion no longer blocks other commits, and the sensor still exists.
    let another = "select pg_try_advisory_lock_shared(1953655138)::int::bigint";
    assert_eq!(api.count(another).await, 1);
    api.call(Some(&admin), Method::GET, &sensor, None).await.expect(200);
    batch.rollback().await.unwrap();
    api.call(Some(&admin), Method::DELETE, &sensor, None).await.expect(204);
}

/// 60 addresses guess the password of one user, 60 more guess a new name each time; the user signs in from
/// another address.
#[actix_rt::test]
#[cfg(target_os = "linux")]
async fn password_guesses_from_120_addresses_do_not_block_a_user() {
    const PASSWORD: &str = "correct horse battery";
    let api = Api::start_guarded().await;
    let admin = api.token(Role::Admin, Scope::All).await;
    let user = serde_json::json!({ "name": "ada", "password": PASSWORD, "role": "viewer" });
    let path = "/api/v1/users";
    api.call(Some(&admin), Method::POST, path, Some(&user.to_string())).await.expect(201);

    let url = format!("{}/api/v1/sessions", api.base);
    let client = |address: [u8; 4]| {
        awc::Client::builder().local_address(address.into()).timeout(TIMEOUT).finish()
    };
    let sign_in = async |client: &awc::Client, name: String, password: &'static str| {
        let body = serde_json::json!({ "name": name, "password": password });
        let mut answer = client.post(&url).send_json(&body).await.unwrap();
        let body = answer.body().await.unwrap();
        (answer.status().as_u16(), String::from_utf8_lossy(&body).into_owned())
    };
    let answers = std::cell::RefCell::new(Vec::new());
    let guess = async |guesser: u8| {
        let client = client([127, 0, 1, guesser]);
        for number in 0.. {
            let name = if guesser < 60 { "ada".into() } else { format!("guess {number}") };
            let (status, _) = sign_in(&client, name, "a wrong password").await;
            answers.borrow_mut().push((guesser, status));
        }
    };
    let user = async {
        eventually(TIMEOUT, async || {
            let guessers = answers.borrow().iter().map(|it| it.0).collect::<HashSet<_>>();
            if guessers.len() == 120 { Ok(()) } else { Err(guessers.len()) }
        })
        .await;
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            let start = Instant::now();
            let (status, answer) = sign_in(&client([127, 0, 0, 1]), "ada".into(), PASSWORD).await;
            assert_eq!(status, 201, "{answer} after {:?}", start.elapsed());
            slowest = slowest.max(start.elapsed());
        }
        slowest
    };
    tokio::pin!(user);
    let guessing = join_all((0..120).map(guess));
    let slowest = tokio::select! {
        slowest = &mut user => slowest,
        _ = guessing => unreachable!("the guesses have no end"),
    };
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    let answers = answers.borrow();
    assert!(answers.iter().all(|(_, status)| [401, 429, 503].contains(status)));
}
