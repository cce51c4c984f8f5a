//! Users sign in with a password and sign out; failed sign-ins are rate-limited.

use std::time::{Duration, Instant};

use actix_web::http::Method;
use serde_json::{Value, json};
use tributary::domain::{Role, Scope};

use super::fixture::{Answer, Api};

const SESSIONS: &str = "/api/v1/sessions";
const CURRENT: &str = "/api/v1/sessions/current";
const USERS: &str = "/api/v1/users";
const PASSWORD: &str = "correct horse battery";

async fn create_user(api: &Api, admin: &str, body: Value) -> Answer {
    api.call(Some(admin), Method::POST, USERS, Some(&body.to_string())).await
}

async fn sign_in(api: &Api, name: &str, password: &str) -> Answer {
    api.post(SESSIONS, json!({ "name": name, "password": password })).await
}

#[actix_rt::test]
async fn a_user_signs_in_and_out() {
    let api = Api::start_guarded().await;
    let admin = api.token(Role::Admin, Scope::All).await;
    let here = api.network("here").await;
    let body = json!({ "name": "ada", "password": PASSWORD, "role": "operator", "network": here });
    let user = create_user(&api, &admin, body).await;
    assert!(!user.text.contains("argon2") && !user.text.contains(PASSWORD));
    let user = user.expect(201);

    let session = sign_in(&api, "ada", PASSWORD).await;

    assert_eq!(session.header("cache-control"), "no-store");
    let session = session.expect(201);
    let token = session["token"].as_str().unwrap();
    assert_eq!((&session["role"], &session["network"]), (&json!("operator"), &json!(here)));
    let hours = session["expiry_timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
        - jiff::Timestamp::now();
    assert!((42_000.0..43_201.0).contains(&hours.total(jiff::Unit::Second).unwrap()), "{session}");
    let current = api.call(Some(token), Method::GET, CURRENT, None).await.expect(200);
    assert_eq!((&current["name"], &current["role"]), (&json!("ada"), &json!("operator")));
    let tokens = api.call(Some(&admin), Method::GET, "/api/v1/tokens", None).await.expect(200);
    assert_eq!(tokens["items"].as_array().unwrap().len(), 1, "the list excludes sessions");
    assert_eq!(
        api.count("select count(*) from account where password_hash like '$argon2id$%'").await,
        1
    );

    api.call(Some(token), Method::DELETE, CURRENT, None).await.expect(204);
    api.call(Some(token), Method::GET, CURRENT, None).await.expect(401);
    let answer = api.call(Some(&admin), Method::DELETE, CURRENT, None).await;
    assert_eq!(answer.expect(403)["type"], "/problems/forbidden");

    let listed = api.call(Some(&admin), Method::GET, USERS, None).await.expect(200);
    assert_eq!(listed["items"], json!([user]));
}

#[actix_rt::test]
async fn changing_or_deleting_a_user_ends_its_sessions() {
    let api = Api::start_guarded().await;
    let admin = api.token(Role::Admin, Scope::All).await;
    let here = api.network("here").await;
    let body = json!({ "name": "ada", "password": PASSWORD, "role": "viewer", "network": here });
    let user = create_user(&api, &admin, body).await.expect(201);
    let path = format!("{USERS}/{}", user["identifier"].as_str().unwrap());
    let new_password = "another long password";
    for (change, password, role, network) in [
        (json!({ "role": "operator" }), PASSWORD, "operator", json!(here)),
        (json!({ "network": null }), PASSWORD, "operator", json!(null)),
        (
            json!({ "password": new_password, "network": here }),
            new_password,
            "operator",
            json!(here),
        ),
    ] {
        let session =
            sign_in(&api, "ada", if password == new_password { PASSWORD } else { password });
        let session = session.await.expect(201);
        let token = session["token"].as_str().unwrap();
        api.call(Some(token), Method::GET, CURRENT, None).await.expect(200);

        let changed = api.call(Some(&admin), Method::PATCH, &path, Some(&change.to_string())).await;

        let changed = changed.expect(200);
        assert_eq!((&changed["role"], &changed["network"]), (&json!(role), &network), "{change}");
        api.call(Some(token), Method::GET, CURRENT, None).await.expect(401);
        let session = sign_in(&api, "ada", password).await.expect(201);
        assert_eq!((&session["role"], &session["network"]), (&json!(role), &network));
    }
    sign_in(&api, "ada", PASSWORD).await.expect(401);
    let session = sign_in(&api, "ada", new_password).await.expect(201);
    api.call(Some(&admin), Method::DELETE, &path, None).await.expect(204);
    api.call(session["token"].as_str(), Method::GET, CURRENT, None).await.expect(401);
    api.call(Some(&admin), Method::GET, &path, None).await.expect(404);
    sign_in(&api, "ada", new_password).await.expect(401);
}

#[actix_rt::test]
async fn an_invalid_user_is_rejected() {
    let api = Api::start_guarded().await;
    let admin = api.token(Role::Admin, Scope::All).await;
    let (here, elsewhere) = (api.network("here").await, api.network("elsewhere").await);
    let body = json!({ "name": "ada", "password": PASSWORD, "role": "viewer", "network": here });
    let user = create_user(&api, &admin, body).await.expect(201);
    for (body, status, pointer) in [
        (json!({ "name": "ada", "password": PASSWORD, "role": "viewer" }), 409, "/name"),
        (json!({ "name": "b", "password": "short", "role": "viewer" }), 422, "/password"),
        (json!({ "name": "b", "role": "viewer" }), 422, "/password"),
        (json!({ "name": "b", "password": PASSWORD }), 422, "/role"),
        (json!({ "name": "b", "password": PASSWORD, "role": "viewer", "x": 1 }), 422, "/x"),
    ] {
        let answer = create_user(&api, &admin, body.clone()).await;
        assert_eq!(answer.expect(status)["pointer"], pointer, "{body}");
    }
    let own = api.token(Role::Admin, Scope::Network(here)).await;
    let path = format!("{USERS}/{}", user["identifier"].as_str().unwrap());
    for network in [json!(null), json!(elsewhere)] {
        let change = json!({ "network": network }).to_string();
        let answer = api.call(Some(&own), Method::PATCH, &path, Some(&change)).await;
        assert_eq!(answer.expect(422)["pointer"], "/network", "{change}");
    }
    assert_eq!(api.count("select count(*) from account").await, 1);
}

#[actix_rt::test]
async fn password_guesses_do_not_reveal_names_and_are_rate_limited() {
    let api = Api::start_guarded().await;
    let admin = api.token(Role::Admin, Scope::All).await;
    for name in ["ada", "bob"] {
        let body = json!({ "name": name, "password": PASSWORD, "role": "viewer" });
        create_user(&api, &admin, body).await.expect(201);
    }
    let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        let start = Instant::now();
        let wrong = sign_in(&api, "ada", "a wrong password").await;
        known = known.min(start.elapsed());
        let start = Instant::now();
        let unknown_user = sign_in(&api, "nobody", "a wrong password").await;
        unknown = unknown.min(start.elapsed());
        assert!(wrong.header("www-authenticate").starts_with("Bearer"));
        let (mut wrong, mut unknown_user) = (wrong.expect(401), unknown_user.expect(401));
        assert_eq!(wrong["type"], "/problems/sign-in-failed");
        wrong["request_id"] = json!(null);
        unknown_user["request_id"] = json!(null);
        assert_eq!(wrong, unknown_user);
    }
    // An answer without a password verification would take less than 1/20, even on a busy machine.
    assert!(unknown > known / 5 && known > unknown / 5, "{known:?} {unknown:?}");

    for name in ["ada", "nobody"] {
        let answer = sign_in(&api, name, PASSWORD).await;
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=10).contains(&wait), "{answer:?}");
        answer.expect(429);
    }
    sign_in(&api, "bob", PASSWORD).await.expect(201);
    let mut refused = 0;
    for number in 0..30 {
        refused +=
            u32::from(sign_in(&api, &format!("guess {number}"), PASSWORD).await.status == 429);
    }
    assert!(refused > 0, "the address is rate-limited, too");
}

#[actix_rt::test]
async fn a_sign_in_takes_exactly_a_name_and_a_password() {
    let api = Api::start_guarded().await;
    for (body, status, pointer) in [
        ("{}", 422, json!("/name")),
        (r#"{"name":"a"}"#, 422, json!("/password")),
        (r#"{"name":7,"password":"b"}"#, 422, json!("/name")),
        (r#"{"name":"a\u0000","password":"b"}"#, 422, json!("/name")),
        (r#"{"name":"a","password":"b","remember":true}"#, 422, json!("/remember")),
        ("{", 400, json!(null)),
    ] {
        let problem = api.post(SESSIONS, body).await.expect(status);
        assert_eq!(problem["pointer"], pointer, "{body}");
    }
    api.get(SESSIONS).await.expect(405);
    api.get(CURRENT).await.expect(401);
}
