//! Every route of the API, with the least role that it takes and how far it reaches: asked without a
//! token, with too low a role, from another network, and as it should be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use actix_web::http::Method;
use tributary::domain::{NetworkIdentifier, Role, Scope, SensorIdentifier};
use uuid::Uuid;

use super::fixture::Api;

/// What a caller of another network gets, if the role suffices.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Reach {
    /// It concerns one network's own: to others it is not there.
    Own,
    /// It shows what is the caller's.
    Filtered,
    /// It concerns the whole service, and takes a role in all networks.
    Whole,
}

pub(super) struct Route {
    pub(super) method: Method,
    /// As in the source, with the base path before it.
    pub(super) path: &'static str,
    /// `{n}` is a number of its own each time.
    body: Option<&'static str>,
    least: Role,
    reach: Reach,
    /// The answer where all is well.
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

/// What is open, or may be by a setting; `POST /sessions` is how one gets a token.
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

/// What has no end, and is asked in `streams.rs`.
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
        // Nobody replays here: who may is turned away later than who may not.
        route(Method::POST, "/api/v1/rejections/replay", Operator, Filtered, 503)
            .with(r#"{"all":true}"#),
        route(Method::GET, "/api/v1/sensors", Viewer, Filtered, 200),
        route(Method::POST, "/api/v1/sensors", Admin, Filtered, 201).with(r#"{"name":"s{n}"}"#),
        route(Method::GET, SENSOR, Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/live", Viewer, Own, 200),
        route(Method::PATCH, SENSOR, Admin, Own, 200).with(r#"{"name":"r{n}"}"#),
        route(Method::DELETE, SENSOR, Admin, Own, 204),
        route(Method::GET, "/api/v1/sensors/{identifier}/measurements", Viewer, Own, 200),
        // It has not measured anything, and nothing says what to sum up.
        route(Method::GET, "/api/v1/sensors/{identifier}/measurements/latest", Viewer, Own, 404),
        route(Method::GET, "/api/v1/sensors/{identifier}/measurements/aggregates?attributes=a&bucket=1h", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/measurements/export", Viewer, Own, 200),
        route(Method::GET, "/api/v1/networks/{network}/measurements/export", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/log-messages", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/log-messages/aggregates", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/heartbeats", Viewer, Own, 200),
        route(Method::GET, "/api/v1/sensors/{identifier}/configurations", Viewer, Own, 200),
        route(Method::POST, "/api/v1/sensors/{identifier}/configurations", Operator, Own, 202).with("{}"),
        // Nothing says with what to compare.
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
        // It holds sensors. Another network's admin does not learn that it is there.
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
        // A token that is no session's; `sessions.rs` ends one.
        route(Method::DELETE, "/api/v1/sessions/current", Viewer, Filtered, 403),
    ]
}

fn number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// The path with what it names made anew in the network.
async fn filled(api: &Api, template: &str, network: NetworkIdentifier) -> String {
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

async fn ask(api: &Api, token: Option<&str>, route: &Route, network: NetworkIdentifier) -> u16 {
    let path = filled(api, route.path, network).await;
    let body = route.body.map(|body| body.replace("{n}", &number().to_string()));
    let answer = api.call(token, route.method.clone(), &path, body.as_deref()).await;
    if answer.status == 401 {
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{answer:?}");
    }
    answer.status
}

#[actix_rt::test]
async fn each_route_takes_its_role_in_its_network() {
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
        let everywhere = api.token(role, Scope::All).await;
        tokens.push((role, everywhere, api.token(role, Scope::Network(here)).await));
    }
    let stranger = api.token(Role::Admin, Scope::Network(elsewhere)).await;

    for route in routes() {
        let what = format!("{} {}", route.method, route.path);
        assert_eq!(ask(&api, None, &route, here).await, 401, "{what} without a token");
        assert_eq!(ask(&api, Some("trb_"), &route, here).await, 401, "{what} with another text");
        for (role, everywhere, at_home) in &tokens {
            let suffices = *role >= route.least;
            let expected = if suffices { route.status } else { 403 };
            assert_eq!(ask(&api, Some(everywhere), &route, here).await, expected, "{what} {role}");
            // What only an admin of all networks may do, an admin of one may not.
            let whole = route.reach == Reach::Whole;
            let expected = if suffices && !whole { route.status } else { 403 };
            let status = ask(&api, Some(at_home), &route, here).await;
            assert_eq!(status, expected, "{what} {role} of this network");
        }
        let expected = match route.reach {
            Reach::Own => 404,
            Reach::Filtered => route.status,
            Reach::Whole => 403,
        };
        let status = ask(&api, Some(&stranger), &route, here).await;
        assert_eq!(status, expected, "{what} from another network");
    }
}

/// The document says what the table above says, which is what is asked.
#[actix_rt::test]
async fn the_document_names_the_role_of_each_route() {
    let api = Api::start().await;
    let document = api.get("/api/v1/openapi.json").await.expect(200);
    let (mut told, mut of_table) = (BTreeMap::new(), BTreeMap::new());
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
            let said = operation["description"].as_str().unwrap();
            assert!(said.ends_with(&sentence), "{method} {path}: {said}");
            assert!(
                told.insert(format!("{} {path}", method.to_uppercase()), (role, whole)).is_none()
            );
        }
    }
    for route in routes() {
        let (path, _) = route.path.split_once('?').unwrap_or((route.path, ""));
        let what = format!("{} {path}", route.method);
        let whole = route.reach == Reach::Whole;
        of_table.insert(what, (route.least.name().to_owned(), whole));
    }
    assert_eq!(told, of_table);
}
