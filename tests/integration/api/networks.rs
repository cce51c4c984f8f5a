//! Networks contain sensors, and can be deleted only when they are empty.

use actix_web::http::Method;
use serde_json::{Value, json};
use tributary::domain::{NetworkIdentifier, Role, Scope};

use super::fixture::Api;

const NETWORKS: &str = "/api/v1/networks";
const DEFAULT: &str = "/api/v1/networks/00000000-0000-0000-0000-000000000000";

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect()
}

#[actix_rt::test]
async fn a_network_is_created_renamed_and_deleted() {
    let api = Api::start().await;
    let created = api.post(NETWORKS, r#"{"name":"north"}"#).await;
    let location = created.header("location").to_owned();
    let created = created.expect(201);
    assert_eq!(location, format!("{NETWORKS}/{}", created["identifier"].as_str().unwrap()));
    assert_eq!((&created["name"], &created["sensor_count"]), (&json!("north"), &json!(0)));
    assert_eq!(api.get(&location).await.expect(200), created);
    assert_eq!(names(&api.get(NETWORKS).await.expect(200)), ["default", "north"]);

    let renamed = api.send_json(Method::PATCH, &location, r#"{"name":"south"}"#).await.expect(200);
    assert_eq!(renamed["name"], "south");
    for (method, path) in [(Method::POST, NETWORKS), (Method::PATCH, location.as_str())] {
        let taken = api.send_json(method.clone(), path, r#"{"name":"default"}"#).await.expect(409);
        assert_eq!(
            (&taken["type"], &taken["pointer"]),
            (&json!("/problems/name-taken"), &json!("/name"))
        );
        for body in ["{}", r#"{"name":""}"#, r#"{"name":"x","color":1}"#] {
            api.send_json(method.clone(), path, body).await.expect(422);
        }
    }

    api.request(Method::DELETE, &location).await.expect(204);
    api.request(Method::DELETE, &location).await.expect(404);
    api.get(&location).await.expect(404);
    let unknown_network_path = format!("{NETWORKS}/{}", NetworkIdentifier::random());
    for path in [unknown_network_path.as_str(), "/api/v1/networks/7"] {
        let problem = api.send_json(Method::PATCH, path, r#"{"name":"x"}"#).await.expect(404);
        assert_eq!(problem["type"], "/problems/network-not-found");
    }
}

#[actix_rt::test]
async fn networks_are_paged_by_name() {
    let api = Api::start().await;
    for name in ["c", "a", "b"] {
        api.network(name).await;
    }
    let first = api.get(&format!("{NETWORKS}?limit=3")).await.expect(200);
    assert_eq!(names(&first), ["a", "b", "c"]);
    let next = first["next"].as_str().unwrap();
    let last = api.get(&format!("{NETWORKS}?limit=3&cursor={next}")).await.expect(200);
    assert_eq!((names(&last), &last["next"]), (vec!["default"], &json!(null)));
}

#[actix_rt::test]
async fn a_network_with_sensors_and_the_default_network_cannot_be_deleted() {
    let api = Api::start().await;
    let here = api.network("here").await;
    let path = format!("{NETWORKS}/{here}");
    let body = json!({ "name": "one", "network": here });
    let sensor = api.post("/api/v1/sensors", body).await.expect(201);
    let sensor = format!("/api/v1/sensors/{}", sensor["identifier"].as_str().unwrap());
    assert_eq!(api.get(&path).await.expect(200)["sensor_count"], 1);

    for path in [path.as_str(), DEFAULT] {
        let problem = api.request(Method::DELETE, path).await.expect(409);
        assert_eq!(problem["type"], "/problems/network-not-empty");
    }
    api.request(Method::DELETE, &sensor).await.expect(204);
    api.request(Method::DELETE, &path).await.expect(204);
    api.get(DEFAULT).await.expect(200);
}

#[actix_rt::test]
async fn deleting_a_network_deletes_its_tokens_and_users() {
    let api = Api::start_guarded().await;
    let here = api.network("here").await;
    let admin = api.token(Role::Admin, Scope::All).await;
    let own = api.token(Role::Admin, Scope::Network(here)).await;
    let seen = api.call(Some(&own), Method::GET, NETWORKS, None).await.expect(200);
    assert_eq!(names(&seen), ["here"]);
    let body = r#"{"name":"ada","password":"correct horse battery","role":"viewer"}"#;
    api.call(Some(&own), Method::POST, "/api/v1/users", Some(body)).await.expect(201);

    let path = format!("{NETWORKS}/{here}");
    api.call(Some(&admin), Method::DELETE, &path, None).await.expect(204);

    api.call(Some(&own), Method::GET, NETWORKS, None).await.expect(401);
    assert_eq!(api.count("select count(*) from account").await, 0);
    assert_eq!(api.count("select count(*) from token").await, 1);
}

#[actix_rt::test]
async fn name_conflicts_do_not_reveal_names_of_other_networks() {
    let api = Api::start_guarded().await;
    let (here, there) = (api.network("here").await, api.network("there").await);
    let owner = api.token(Role::Admin, Scope::All).await;
    let mut admins = Vec::new();
    for network in [here, there] {
        admins.push((network, api.token(Role::Admin, Scope::Network(network)).await));
    }
    let user = json!({ "name": "ada", "password": "a password of ada", "role": "viewer" });
    let create = async |token: &str, path: &str, body: &Value| {
        api.call(Some(token), Method::POST, &format!("/api/v1/{path}"), Some(&body.to_string()))
            .await
    };
    let sign_in = async |password: &str, network: Option<NetworkIdentifier>| {
        let body = json!({ "name": "ada", "password": password, "network": network }).to_string();
        api.call(None, Method::POST, "/api/v1/sessions", Some(&body)).await
    };

    // A user in all networks, a token and a sensor already have these names.
    let owners = json!({ "name": "ada", "password": "the owner's own", "role": "admin" });
    let owner_user = create(&owner, "users", &owners).await.expect(201);
    assert_eq!(owner_user["signs_in_with_network"], false);
    create(&owner, "tokens", &json!({ "name": "dashboard", "role": "viewer" })).await.expect(201);
    create(&owner, "sensors", &json!({ "name": "roof" })).await.expect(201);
    for (network, admin) in &admins {
        for (path, body) in [
            ("users", user.clone()),
            ("tokens", json!({ "name": "dashboard", "role": "viewer" })),
            ("sensors", json!({ "name": "roof" })),
        ] {
            let created = create(admin, path, &body).await.expect(201);
            assert_eq!(created["network"], json!(network));
            assert_eq!(created["signs_in_with_network"] == true, path == "users", "{created}");
            // Within the admin's network, the name is taken.
            create(admin, path, &body).await.expect(409);
        }
        let path = format!("/api/v1/networks/{network}");
        for name in ["here", "there", "nowhere"] {
            let body = json!({ "name": name }).to_string();
            api.call(Some(admin), Method::PATCH, &path, Some(&body)).await.expect(403);
        }
        let session = sign_in("a password of ada", Some(*network)).await.expect(201);
        assert_eq!(session["network"], json!(network));
        sign_in("the owner's own", Some(*network)).await.expect(401);
    }
    sign_in("a password of ada", None).await.expect(401);
    sign_in("the owner's own", None).await.expect(201);
    let unknown_network = Some(NetworkIdentifier::random());
    sign_in("a password of ada", unknown_network).await.expect(401);

    // A user in all networks signs in without a network, so its name must be unique among such users.
    let users = api.call(Some(&admins[0].1), Method::GET, "/api/v1/users", None).await.expect(200);
    let path = format!("/api/v1/users/{}", users["items"][0]["identifier"].as_str().unwrap());
    let all_networks = Some(r#"{"network":null}"#);
    let taken = api.call(Some(&owner), Method::PATCH, &path, all_networks).await.expect(409);
    assert_eq!(taken["type"], "/problems/name-taken");
    let owners = format!("/api/v1/users/{}", owner_user["identifier"].as_str().unwrap());
    api.call(Some(&owner), Method::DELETE, &owners, None).await.expect(204);
    let moved = api.call(Some(&owner), Method::PATCH, &path, all_networks).await.expect(200);
    assert_eq!(moved["signs_in_with_network"], false);
    sign_in("a password of ada", None).await.expect(201);
}
