//! Tokens: shown once, valid until revoked or expired, rate-limited, and accepted from the cache for a
//! limited time while the database is unavailable.

use std::time::{Duration, Instant};

use actix_web::http::Method;
use serde_json::{Value, json};
use tributary::domain::{Role, Scope};

use super::fixture::Api;
use crate::support::postgres::Postgres;
use crate::support::wait::{TIMEOUT, eventually};

const TOKENS: &str = "/api/v1/tokens";
const STATUS: &str = "/api/v1/status";

async fn create(api: &Api, admin: &str, body: Value) -> Value {
    let answer = api.call(Some(admin), Method::POST, TOKENS, Some(&body.to_string())).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.expect(201)
}

#[actix_rt::test]
async fn a_token_is_shown_once_and_rejected_as_soon_as_it_is_revoked() {
    let api = Api::start_guarded().await;
    let admin = api.token(Role::Admin, Scope::All).await;

    let created = create(&api, &admin, json!({ "name": "notebook", "role": "viewer" })).await;

    let token = created["token"].as_str().unwrap().to_owned();
    let path = format!("{TOKENS}/{}", created["identifier"].as_str().unwrap());
    assert_eq!((&created["role"], &created["network"]), (&json!("viewer"), &json!(null)));
    assert_eq!(created["last_used_timestamp"], json!(null));
    api.call(Some(&token), Method::GET, STATUS, None).await.expect(200);
    let list = api.call(Some(&admin), Method::GET, TOKENS, None).await;
    assert!(!list.text.contains(&token), "{list:?}");
    assert!(list.expect(200)["items"].as_array().unwrap().len() == 2);
    assert_eq!(api.count("select count(*) from token where digest::text like '%trb%'").await, 0);
    eventually(TIMEOUT, async || {
        let one = api.call(Some(&admin), Method::GET, &path, None).await.expect(200);
        if one["last_used_timestamp"].is_string() { Ok(()) } else { Err(one) }
    })
    .await;

    api.call(Some(&admin), Method::DELETE, &path, None).await.expect(204);

    let problem = api.call(Some(&token), Method::GET, STATUS, None).await;
    assert!(problem.header("www-authenticate").contains("invalid_token"), "{problem:?}");
    assert_eq!(problem.expect(401)["type"], "/problems/unauthenticated");
    api.call(Some(&admin), Method::DELETE, &path, None).await.expect(404);
    api.call(Some(&admin), Method::GET, &format!("{TOKENS}/7"), None).await.expect(404);
}

#[actix_rt::test]
async fn a_token_deleted_in_the_database_is_rejected_within_three_seconds() {
    let api = Api::start_guarded().await;
    let token = api.token(Role::Viewer, Scope::All).await;
    api.call(Some(&token), Method::GET, STATUS, None).await.expect(200);
    api.execute("delete from token").await;
    let deleted_at = Instant::now();
    eventually(TIMEOUT, async || {
        match api.call(Some(&token), Method::GET, STATUS, None).await.status {
            401 => Ok(()),
            status => Err(status),
        }
    })
    .await;
    assert!(deleted_at.elapsed() < Duration::from_secs(3), "{:?}", deleted_at.elapsed());
}

#[actix_rt::test]
async fn an_expired_token_is_rejected_even_if_it_is_cached() {
    let api = Api::start_guarded().await;
    let admin = api.token(Role::Admin, Scope::All).await;
    let expiry = jiff::Timestamp::now() + Duration::from_millis(1_500);
    let body = json!({ "name": "brief", "role": "viewer", "expiry_timestamp": expiry });
    let created = create(&api, &admin, body).await;
    let token = created["token"].as_str().unwrap();
    api.call(Some(token), Method::GET, STATUS, None).await.expect(200);
    eventually(TIMEOUT, async || {
        let status = api.call(Some(token), Method::GET, STATUS, None).await.status;
        assert!(status == 401 || jiff::Timestamp::now() < expiry + Duration::from_secs(1));
        if status == 401 { Ok(()) } else { Err(status) }
    })
    .await;
    assert!(jiff::Timestamp::now() >= expiry);
    for body in [
        json!({ "name": "x", "role": "viewer", "expiry_timestamp": "2020-01-01T00:00:00Z" }),
        json!({ "name": "x", "role": "viewer", "expiry_timestamp": 7 }),
    ] {
        let answer = api.call(Some(&admin), Method::POST, TOKENS, Some(&body.to_string())).await;
        assert_eq!(answer.expect(422)["pointer"], "/expiry_timestamp");
    }
}

#[actix_rt::test]
async fn an_admin_of_one_network_creates_tokens_only_for_that_network() {
    let api = Api::start_guarded().await;
    let (here, elsewhere) = (api.network("here").await, api.network("elsewhere").await);
    let admin = api.token(Role::Admin, Scope::Network(here)).await;
    api.token(Role::Viewer, Scope::Network(elsewhere)).await;

    let own = create(&api, &admin, json!({ "name": "a", "role": "admin" })).await;
    let same =
        create(&api, &admin, json!({ "name": "b", "role": "viewer", "network": here })).await;

    assert_eq!((&own["network"], &same["network"]), (&json!(here), &json!(here)));
    let list = api.call(Some(&admin), Method::GET, TOKENS, None).await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    assert!(items.iter().all(|item| item["network"] == json!(here)), "{list}");
    let unknown_network = tributary::domain::NetworkIdentifier::random();
    for network in [elsewhere, unknown_network] {
        let body = json!({ "name": "c", "role": "viewer", "network": network }).to_string();
        let answer = api.call(Some(&admin), Method::POST, TOKENS, Some(&body)).await;
        assert_eq!(answer.expect(422)["pointer"], "/network");
    }
    let owner = api.token(Role::Admin, Scope::All).await;
    for (body, status, pointer) in [
        (json!({ "name": "d", "role": "viewer", "network": unknown_network }), 422, "/network"),
        (json!({ "name": "a", "role": "viewer", "network": here }), 409, "/name"),
        (json!({ "name": "e", "role": "root" }), 422, "/role"),
        (json!({ "name": "e" }), 422, "/role"),
        (json!({ "role": "viewer" }), 422, "/name"),
        (json!({ "name": "e", "role": "viewer", "scope": 1 }), 422, "/scope"),
    ] {
        let answer = api.call(Some(&owner), Method::POST, TOKENS, Some(&body.to_string())).await;
        assert_eq!(answer.expect(status)["pointer"], pointer, "{body}");
    }
}

#[actix_rt::test]
async fn tokens_are_paged() {
    let api = Api::start_guarded().await;
    let admin = api.token(Role::Admin, Scope::All).await;
    for _ in 0..4 {
        api.token(Role::Viewer, Scope::All).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{TOKENS}?limit=2{cursor}");
        let page = api.call(Some(&admin), Method::GET, &path, None).await.expect(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|it| it["identifier"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let unique: std::collections::HashSet<_> = seen.iter().map(Value::to_string).collect();
    assert_eq!((seen.len(), unique.len()), (5, 5));
}

#[actix_rt::test]
async fn a_token_over_its_rate_limit_gets_429_with_retry_after() {
    let settings = [("REQUESTS_PER_SECOND", "3")];
    let api = Api::start_with(Postgres::shared().await, &settings).await;
    let limited = api.token(Role::Viewer, Scope::All).await;
    let other = api.token(Role::Viewer, Scope::All).await;
    // The first use of a token also counts against its address.
    for token in [&limited, &other] {
        api.call(Some(token), Method::GET, STATUS, None).await.expect(200);
    }

    let requests = (0..12).map(|_| api.call(Some(&limited), Method::GET, STATUS, None));
    let answers = futures_util::future::join_all(requests).await;

    let successes = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((2..=6).contains(&successes), "{successes}");
    let refused = answers.into_iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.expect(429)["type"], "/problems/too-many-requests");
    api.call(Some(&other), Method::GET, STATUS, None).await.expect(200);
    // Requests without a valid token count against the address.
    let requests = (0..12).map(|_| api.call(Some("trb_"), Method::GET, STATUS, None));
    let statuses: Vec<u16> =
        futures_util::future::join_all(requests).await.iter().map(|it| it.status).collect();
    assert!(statuses.contains(&401) && statuses.contains(&429), "{statuses:?}");
    api.get("/healthz").await.expect(200);
}

#[actix_rt::test]
async fn without_a_database_only_cached_tokens_are_accepted() {
    let mut postgres = Postgres::start().await;
    let api = Api::start_with(&postgres, &[]).await;
    let known = api.token(Role::Viewer, Scope::All).await;
    let unknown = api.token(Role::Viewer, Scope::All).await;
    api.call(Some(&known), Method::GET, STATUS, None).await.expect(200);

    postgres.stop_immediate().await;

    let start = Instant::now();
    let answer = api.call(Some(&unknown), Method::GET, STATUS, None).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(answer.expect(503)["type"], "/problems/database-unavailable");
    for _ in 0..3 {
        let start = Instant::now();
        api.call(Some(&known), Method::GET, "/api/v1/sensors", None).await.expect(503);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    let status = api.call(Some(&known), Method::GET, STATUS, None).await.expect(200);
    assert_eq!(status["connections"]["database"]["up"], false);
    postgres.start_again().await;
    eventually(TIMEOUT, async || {
        match api.call(Some(&unknown), Method::GET, STATUS, None).await.status {
            200 => Ok(()),
            status => Err(status),
        }
    })
    .await;
}

#[actix_rt::test]
async fn metrics_need_a_token_unless_a_setting_opens_them() {
    let closed = Api::start_guarded().await;
    closed.get("/healthz").await.expect(200);
    closed.get("/readyz").await.expect(200);
    closed.get("/metrics").await.expect(401);
    closed.get("/nothing").await.expect(401);
    let viewer = closed.token(Role::Viewer, Scope::All).await;
    assert_eq!(closed.call(Some(&viewer), Method::GET, "/metrics", None).await.status, 200);
    closed.call(Some(&viewer), Method::GET, "/nothing", None).await.expect(404);
    let open = Api::start_with(Postgres::shared().await, &[("METRICS_OPEN", "true")]).await;
    assert_eq!(open.get("/metrics").await.status, 200);
    for scheme in ["Basic", "Token"] {
        let header = format!("{scheme} {viewer}");
        let answer = closed.send(Method::GET, STATUS, &[("authorization", &header)], "").await;
        answer.expect(401);
    }
    let header = format!("bearer {viewer}");
    closed.send(Method::GET, STATUS, &[("authorization", &header)], "").await.expect(200);
}

#[actix_rt::test]
async fn a_403_names_the_required_role_and_whether_it_must_cover_all_networks() {
    let api = Api::start_guarded().await;
    let here = api.network("here").await;
    let unknown = uuid::Uuid::new_v4();
    let (admin, all_networks) = ("the role admin", "the role admin in all networks");
    for (method, path, required) in [
        (Method::POST, "networks".to_owned(), all_networks),
        (Method::PATCH, format!("networks/{here}"), all_networks),
        (Method::DELETE, format!("networks/{here}"), all_networks),
        (Method::POST, "sensors".into(), admin),
        (Method::PATCH, format!("sensors/{unknown}"), admin),
        (Method::DELETE, format!("sensors/{unknown}"), admin),
        (Method::POST, format!("sensors/{unknown}/configurations"), "the role operator"),
        (Method::POST, "rejections/replay".into(), "the role operator"),
        (Method::GET, "tokens".into(), admin),
        (Method::POST, "tokens".into(), admin),
        (Method::DELETE, format!("tokens/{unknown}"), admin),
        (Method::PATCH, format!("users/{unknown}"), admin),
        (Method::GET, "ingest".into(), all_networks),
        (Method::POST, "ingest/pause".into(), all_networks),
        (Method::PUT, "ingest/log-level".into(), all_networks),
    ] {
        for role in [Role::Viewer, Role::Operator] {
            for (scope, reach) in [(Scope::All, ""), (Scope::Network(here), ", in one network")] {
                if required == format!("the role {role}") {
                    continue;
                }
                let token = api.token(role, scope).await;
                let path = format!("/api/v1/{path}");
                let refused = api.call(Some(&token), method.clone(), &path, Some("{}")).await;
                let detail = format!("it takes {required}; the caller's is {role}{reach}");
                assert_eq!(refused.expect(403)["detail"], detail, "{method} {path}");
            }
        }
    }
    // An admin of one network has the role, but not in all networks.
    let token = api.token(Role::Admin, Scope::Network(here)).await;
    let refused = api.call(Some(&token), Method::POST, "/api/v1/networks", Some("{}")).await;
    let detail = format!("it takes {all_networks}; the caller's is admin, in one network");
    assert_eq!(refused.expect(403)["detail"], detail);
}
