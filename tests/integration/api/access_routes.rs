//! Every route of the API, with its minimum role and its scope: called without a token, with too low a
//! role, from another network, and with sufficient rights.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use actix_web::http::Method;
use tributary::domain::{NetworkIdentifier, Role, Scope, SensorIdentifier};
use uuid::Uuid;

use super::fixture::Api;

/// What a caller of another network gets if its role is sufficient.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Reach {
    /// The resource belongs to one network; callers of other networks get 404.
    Own,
    /// The answer contains only what belongs to the caller's network.
    Filtered,
    /// The route concerns the whole service and needs a role in all networks.
    Whole,
}

pub(super) struct Route {
    pub(super) method: Method,
    /// As in the source, with the base path prepended.
    pub(super) path: &'static str,
    /// `{n}` is replaced by a number that is unique per request.
    body: Option<&'static str>,
    least: Role,
    reach: Reach,
    /// The status for a caller with sufficient rights.
    status: u16,
}

const fn route(
    method: Method,
    path: &'static str,
    least: Role,
    reach: Reach,
    status: u16,
) -> Route {
    Route { method, path, body: None, least, reach, status }
}

impl Route {
    const fn with(mut self, body: &'static str) -> Self {
        self.body = Some(body);
        self
    }
}

/// Routes without a token, or that a setting can open; `POST /sessions` issues a token.
const OPEN: [&str; 8] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/sessions",
    "/api/v1/openapi.json",
    "/docs",
    "/docs/",
    "/docs/{file}",
];

/// Streams have no end; `streams.rs` tests them.
const ENDLESS: [&str; 2] = ["/streams/sensors", "/stream"];

#[rustfmt::skip]
pub(super) fn routes() -> Vec<Route> {
    use Reach::{Filtered, Own, Whole};
    use Role::{Admin, Operator, Viewer};
    const SENSOR: &str = "/api/v1/sensors/{identifier}";
    vec![
        route(Method::GET, "/api/v1/status", Viewer, Filtered, 200),
        route(Method::GET, "/api/v1/activity", Viewer, Filtered, 200),
        route(Method::GET, "/api/v1/rejections", Viewer, Filtered, 200),
        route(Method::GET, "/api/v1/rejections/summary", Viewer, Filtered, 200),
        route(Method::GET, "/api/v1/log-messages", Viewer, Filtered, 200),
        route(Method::GET, "/api/v1/sensors/summary", Viewer, Filtered, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/attributes", Viewer, Own, 200),
        route(Method::DELETE, "/api/v1/rejections?all=true", Operator, Filtered, 200),
        // The fixture has no replayer: an authorized caller gets 503, others get 403 before that.
        route(Method::POST, "/api/v1/rejections/replay", Operator, Filtered, 503)
            .with(r#"{"all":true}"#),
        route(Method::GET, "/api/v1/sensors", Viewer, Filtered, 200),
        route(Method::POST, "/api/v1/sensors", Admin, Filtered, 201).with(r#"{"name":"s{n}"}"#),
        route(Method::GET, SENSOR, Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/live", Viewer, Own, 200),
        route(Method::PATCH, SENSOR, Admin, Own, 200).with(r#"{"name":"r{n}"}"#),
        route(Method::DELETE, SENSOR, Admin, Own, 204),
        route(Method::GET, "/api/v1/sensors/{identifier}/measurements", Viewer, Own, 200),
        // The sensor has no measurements.
        route(Method::GET, "/api/v1/sensors/{identifier}/measurements/latest", Viewer, Own, 404),
        route(Method::GET, "/api/v1/sensors/{identifier}/measurements/aggregates?attributes=a&bucket=1h", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/measurements/export", Viewer, Own, 200),
        route(Method::GET, "/api/v1/networks/{network}/measurements/export", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/log-messages", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/log-messages/aggregates", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/heartbeats", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/configurations", Viewer, Own, 200),
        route(Method::POST, "/api/v1/sensors/{identifier}/configurations", Operator, Own, 202).with("{}"),
        route(Method::GET, "/api/v1/sensors/{identifier}/configurations/diff?from=0", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/configurations/{revision}", Viewer, Own, 200),
        route(Method::POST, "/api/v1/sensors/{identifier}/configurations/{revision}/republish", Operator, Own, 202),
        route(Method::GET, "/api/v1/ingest", Admin, Whole, 200),
        route(Method::GET, "/api/v1/instances", Admin, Whole, 200),
        route(Method::POST, "/api/v1/ingest/pause", Admin, Whole, 200),
        route(Method::POST, "/api/v1/ingest/resume", Admin, Whole, 200),
        route(Method::PUT, "/api/v1/ingest/log-level", Admin, Whole, 200).with(r#"{"filter":"info"}"#),
        route(Method::GET, "/api/v1/networks", Viewer, Filtered, 200),
        route(Method::POST, "/api/v1/networks", Admin, Whole, 201).with(r#"{"name":"n{n}"}"#),
        route(Method::GET, "/api/v1/networks/{network}", Viewer, Own, 200),
        route(Method::PATCH, "/api/v1/networks/{network}", Admin, Whole, 200).with(r#"{"name":"n{n}"}"#),
        // It contains sensors. An admin of another network does not learn that it exists.
        route(Method::DELETE, "/api/v1/networks/{network}", Admin, Whole, 409),
        route(Method::GET, "/api/v1/tokens", Admin, Filtered, 200),
        route(Method::POST, "/api/v1/tokens", Admin, Filtered, 201).with(r#"{"name":"t{n}","role":"viewer"}"#),
        route(Method::GET, "/api/v1/tokens/{token}", Admin, Own, 200),
        route(Method::DELETE, "/api/v1/tokens/{token}", Admin, Own, 204),
        route(Method::GET, "/api/v1/users", Admin, Filtered, 200),
        route(Method::POST, "/api/v1/users", Admin, Filtered, 201)
            .with(r#"{"name":"u{n}","role":"viewer","password":"correct horse {n}"}"#),
        route(Method::GET, "/api/v1/users/{user}", Admin, Own, 200),
        route(Method::PATCH, "/api/v1/users/{user}", Admin, Own, 200).with(r#"{"role":"operator"}"#),
        route(Method::DELETE, "/api/v1/users/{user}", Admin, Own, 204),
        route(Method::GET, "/api/v1/sessions/current", Viewer, Filtered, 200),
        // The token does not belong to a session; `sessions.rs` ends one.
        route(Method::DELETE, "/api/v1/sessions/current", Viewer, Filtered, 403),
    ]
}

fn number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// Creates the resources that the path names in the network, and returns the path with their identifiers.
async fn instantiate(api: &Api, template: &str, network: NetworkIdentifier) -> String {
    let (one, name) = (SensorIdentifier::random(), number());
    let statement = match template {
        path if path.contains("{identifier}") => format!(
            "insert into sensor (identifier, network_identifier, name) values ('{one}', '{network}', '{name}');
             insert into configuration (sensor_identifier, revision, value) values ('{one}', 0, '{{}}')"
        ),
        path if path.contains("{token}") => format!(
            "insert into token (identifier, name, digest, role, network_identifier)
             values ('{one}', '{name}', sha256('{name}'), 'viewer', '{network}')"
        ),
        path if path.contains("{user}") => format!(
            "insert into account (identifier, name, password_hash, role, network_identifier)
             values ('{one}', '{name}', '', 'viewer', '{network}')"
        ),
        path => return path.replace("{network}", &network.to_string()),
    };
    api.execute(&statement).await;
    ["{identifier}", "{token}", "{user}"]
        .iter()
        .fold(template.replace("{revision}", "0"), |path, name| {
            path.replace(name, &one.to_string())
        })
}

async fn call(api: &Api, token: Option<&str>, route: &Route, network: NetworkIdentifier) -> u16 {
    let path = instantiate(api, route.path, network).await;
    let body = route.body.map(|body| body.replace("{n}", &number().to_string()));
    let answer = api.call(token, route.method.clone(), &path, body.as_deref()).await;
    if answer.status == 401 {
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{answer:?}");
    }
    answer.status
}

#[actix_rt::test]
async fn each_route_requires_its_role_in_its_network() {
    let api = Api::start_guarded().await;
    let (here, elsewhere) = (api.network("here").await, api.network("elsewhere").await);
    api.execute(&format!(
        "insert into sensor (identifier, network_identifier, name)
         values ('{}', '{here}', 'one'), ('{}', '{elsewhere}', 'one')",
        Uuid::new_v4(),
        Uuid::new_v4(),
    ))
    .await;
    let mut tokens = Vec::new();
    for role in Role::ALL {
        let unscoped = api.token(role, Scope::All).await;
        tokens.push((role, unscoped, api.token(role, Scope::Network(here)).await));
    }
    let other_admin = api.token(Role::Admin, Scope::Network(elsewhere)).await;

    for route in routes() {
        let what = format!("{} {}", route.method, route.path);
        assert_eq!(call(&api, None, &route, here).await, 401, "{what} without a token");
        assert_eq!(call(&api, Some("trb_"), &route, here).await, 401, "{what}: bad token");
        for (role, unscoped, scoped) in &tokens {
            let is_sufficient = *role >= route.least;
            let expected = if is_sufficient { route.status } else { 403 };
            assert_eq!(call(&api, Some(unscoped), &route, here).await, expected, "{what} {role}");
            // A role in one network is not sufficient for a route of the whole service.
            let whole = route.reach == Reach::Whole;
            let expected = if is_sufficient && !whole { route.status } else { 403 };
            let status = call(&api, Some(scoped), &route, here).await;
            assert_eq!(status, expected, "{what} {role} of this network");
        }
        let expected = match route.reach {
            Reach::Own => 404,
            Reach::Filtered => route.status,
            Reach::Whole => 403,
        };
        let status = call(&api, Some(&other_admin), &route, here).await;
        assert_eq!(status, expected, "{what} from another network");
    }
}

/// Compares the document with the table above.
#[actix_rt::test]
async fn the_openapi_document_names_the_role_of_each_route() {
    let api = Api::start().await;
    let document = api.get("/api/v1/openapi.json").await.expect(200);
    let (mut documented, mut expected_routes) = (BTreeMap::new(), BTreeMap::new());
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let is_endless = ENDLESS.iter().any(|end| path.ends_with(end));
            let is_open = OPEN.contains(&path.trim_start_matches("/api/v1"));
            if is_endless || is_open || path.ends_with("/openapi.json") {
                continue;
            }
            let role = operation["x-role"].as_str().unwrap().to_owned();
            let whole = operation["x-in-all-networks"].as_bool().unwrap();
            let sentence =
                format!("Takes the role `{role}`{}.", if whole { " in all networks" } else { "" });
            let description = operation["description"].as_str().unwrap();
            assert!(description.ends_with(&sentence), "{method} {path}: {description}");
            let key = format!("{} {path}", method.to_uppercase());
            assert!(documented.insert(key, (role, whole)).is_none());
        }
    }
    for route in routes() {
        let (path, _) = route.path.split_once('?').unwrap_or((route.path, ""));
        let what = format!("{} {path}", route.method);
        let whole = route.reach == Reach::Whole;
        expected_routes.insert(what, (route.least.name().to_owned(), whole));
    }
    assert_eq!(documented, expected_routes);
}
