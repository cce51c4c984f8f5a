//! A stream ends with its own right and with nobody else's, whoever ends it: this instance, another
//! one, or the command line, with the notification or without.

use std::process::Command;

use serde_json::{Value, json};
use tributary::domain::Token;
use uuid::Uuid;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::events::Events;
use crate::support::payloads::measurement;
use crate::support::postgres::{Database, Postgres, connect};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

const FLEET: &str = "/api/v1/streams/sensors";
const DEFAULT_NETWORK: &str = "00000000-0000-0000-0000-000000000000";

/// Two instances on one database; streams are opened on the first, rights end on the second.
struct Pair {
    database: Database,
    first: Service,
    second: Service,
    admin: String,
}

impl Pair {
    async fn start() -> Self {
        let broker = Broker::shared().await;
        let database = database().await;
        let second_client = format!("{}-second", database.name);
        let first = Service::start(&database, broker, &[("AUTH", "on")]).await;
        let settings = [
            ("AUTH", "on"),
            ("MQTT_CLIENT_ID", second_client.as_str()),
            ("MQTT_TOPIC_PREFIX", &second_client),
        ];
        let second = Service::start(&database, broker, &settings).await;
        let (_, admin) = token(&database, "admin", "admin", None).await;
        Self { database, first, second, admin }
    }

    async fn execute(&self, statement: &str) {
        connect(&self.database.url).await.unwrap().batch_execute(statement).await.unwrap();
    }

    /// Asks the second instance as an administrator.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let method = method.parse().unwrap();
        let request = awc::Client::default()
            .request(method, format!("{}{path}", self.second.url()))
            .timeout(TIMEOUT)
            .insert_header(("Authorization", format!("Bearer {}", self.admin)));
        let sent =
            if body.is_null() { request.send().await } else { request.send_json(body).await };
        let mut answer = sent.unwrap();
        let body = answer.body().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {} {body:?}", answer.status());
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    }

    async fn create_sensor(&self, name: &str) -> String {
        let sensor = self.ask("POST", "/api/v1/sensors", &json!({ "name": name })).await;
        sensor["identifier"].as_str().unwrap().to_owned()
    }

    /// Opens a stream on the first instance, and takes its first event.
    async fn open(&self, path: &str, token: &str) -> Events {
        let header = format!("Authorization: Bearer {token}\r\n");
        let mut events = Events::open(&self.first.url(), path, &header).await;
        assert_eq!(events.status(), 200, "{}", events.head);
        events.next().await.unwrap();
        events
    }

    async fn sign_in(&self, name: &str) -> String {
        let body = json!({ "name": name, "password": "a long password" });
        let (status, session) = self.first.post("/api/v1/sessions", &body).await.unwrap();
        assert_eq!(status, 201, "{session}");
        session["token"].as_str().unwrap().to_owned()
    }
}

async fn token(
    database: &Database,
    name: &str,
    role: &str,
    network: Option<&str>,
) -> (Uuid, String) {
    let (identifier, token) = (Uuid::new_v4(), Token::random());
    let digest: String = token.digest().0.iter().map(|it| format!("{it:02x}")).collect();
    let network = network.map_or("null".to_owned(), |network| format!("'{network}'"));
    let insert = format!(
        "insert into token (identifier, name, digest, role, network_identifier)
         values ('{identifier}', '{name}', '\\x{digest}', '{role}', {network})"
    );
    connect(&database.url).await.unwrap().batch_execute(&insert).await.unwrap();
    (identifier, token.reveal().to_owned())
}

async fn ends(events: &mut Events, reason: &str) {
    loop {
        let event = events.next().await.expect("it is told why it ends");
        if event.name == "dropped" {
            assert_eq!(event.data["reason"], reason);
            break;
        }
    }
    assert_eq!(events.next().await, None);
}

#[actix_rt::test]
async fn a_token_that_another_instance_or_the_command_line_revokes_ends_its_streams_alone() {
    let pair = Pair::start().await;
    let sensor = pair.create_sensor("sensor").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let (one, by_api) = token(&pair.database, "by-api", "viewer", None).await;
    let (_, by_command) = token(&pair.database, "by-command", "viewer", None).await;
    let (_, kept) = token(&pair.database, "kept", "viewer", Some(DEFAULT_NETWORK)).await;
    let mut of_api = [pair.open(&path, &by_api).await, pair.open(FLEET, &by_api).await];
    let mut of_command = pair.open(&path, &by_command).await;
    let mut kept = pair.open(&path, &kept).await;

    pair.ask("DELETE", &format!("/api/v1/tokens/{one}"), &Value::Null).await;
    for events in &mut of_api {
        ends(events, "revoked").await;
    }
    let revoked = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(["token", "revoke", "by-command"])
        .env_clear()
        .env("DATABASE_URL", &pair.database.url)
        .output()
        .unwrap();
    assert!(revoked.status.success(), "{revoked:?}");
    ends(&mut of_command, "revoked").await;

    // The other one goes on.
    let client =
        Client::connect(Broker::shared().await.url(), &format!("{}-s", pair.database.name)).await;
    let topic = format!("{}/measurements/{sensor}", pair.database.name);
    client.publish(&topic, measurement(1.0)).await.unwrap();
    assert_eq!(kept.expect("measurement").await["timestamp"], 1.0);
}

#[actix_rt::test]
async fn a_sensor_that_is_moved_or_deleted_elsewhere_leaves_the_streams_that_may_not_follow() {
    let pair = Pair::start().await;
    let (moved, deleted) = (pair.create_sensor("moved").await, pair.create_sensor("deleted").await);
    let stream = |sensor: &str| format!("/api/v1/sensors/{sensor}/stream");
    let (_, scoped) = token(&pair.database, "scoped", "viewer", Some(DEFAULT_NETWORK)).await;
    let mut left = pair.open(&stream(&moved), &scoped).await;
    let mut kept = pair.open(&stream(&moved), &pair.admin).await;
    let mut gone = pair.open(&stream(&deleted), &pair.admin).await;

    let network = pair.ask("POST", "/api/v1/networks", &json!({ "name": "elsewhere" })).await;
    let body = json!({ "network": network["identifier"] });
    pair.ask("PATCH", &format!("/api/v1/sensors/{moved}"), &body).await;
    ends(&mut left, "revoked").await;
    pair.ask("DELETE", &format!("/api/v1/sensors/{deleted}"), &Value::Null).await;
    ends(&mut gone, "deleted").await;
    pair.ask("DELETE", &format!("/api/v1/sensors/{moved}"), &Value::Null).await;
    ends(&mut kept, "deleted").await;
}

#[actix_rt::test]
async fn a_user_that_is_changed_elsewhere_loses_the_streams_of_the_sessions() {
    let pair = Pair::start().await;
    let mut users = Vec::new();
    for name in ["changed", "kept"] {
        let body = json!({ "name": name, "password": "a long password", "role": "operator" });
        let user = pair.ask("POST", "/api/v1/users", &body).await;
        let session = pair.sign_in(name).await;
        users.push((
            user["identifier"].as_str().unwrap().to_owned(),
            pair.open(FLEET, &session).await,
        ));
    }
    let [(changed, ended), (kept, going)] = &mut users[..] else { unreachable!() };
    pair.ask("PATCH", &format!("/api/v1/users/{changed}"), &json!({ "role": "viewer" })).await;
    ends(ended, "revoked").await;
    // Not by the change before it.
    pair.ask("DELETE", &format!("/api/v1/users/{kept}"), &Value::Null).await;
    ends(going, "revoked").await;
}

#[actix_rt::test]
async fn without_a_notification_a_right_ends_by_the_poll() {
    let pair = Pair::start().await;
    let (_, viewer) = token(&pair.database, "viewer", "viewer", None).await;
    let mut events = pair.open(FLEET, &viewer).await;
    // No trigger fires in such a session.
    let silently =
        "set session_replication_role = replica; delete from token where name = 'viewer'";
    pair.execute(silently).await;
    ends(&mut events, "revoked").await;
}

#[actix_rt::test]
async fn a_listener_that_is_cut_off_is_replaced_by_the_poll_and_says_so() {
    let pair = Pair::start().await;
    let (_, viewer) = token(&pair.database, "viewer", "viewer", None).await;
    let mut events = pair.open(FLEET, &viewer).await;
    let metric = async |value: &str| {
        eventually(TIMEOUT, async || {
            let mut answer = awc::Client::default()
                .get(format!("{}/metrics", pair.first.url()))
                .insert_header(("Authorization", format!("Bearer {}", pair.admin)))
                .send()
                .await
                .map_err(|error| error.to_string())?;
            let text = answer.body().limit(4 << 20).await.map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let line = format!("tributary_access_listener_up {value}");
            if text.lines().any(|it| it == line) { Ok(()) } else { Err(format!("no {line}")) }
        })
        .await;
    };
    metric("1").await;
    let inside = connect(&pair.database.url).await.unwrap();
    let outside = connect(&Postgres::shared().await.url("postgres")).await.unwrap();
    let allow = async |allowed: bool| {
        let name = &pair.database.name;
        let statement = format!("alter database {name} allow_connections {allowed}");
        outside.batch_execute(&statement).await.unwrap();
    };
    // Nobody connects any more; who is connected stays.
    allow(false).await;
    inside
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = 'tributary-listen' and datname = current_database()",
            &[],
        )
        .await
        .unwrap();
    metric("0").await;
    assert!(pair.first.log().contains("polling every second"), "{}", pair.first.log());
    inside.batch_execute("delete from token where name = 'viewer'").await.unwrap();
    ends(&mut events, "revoked").await;
    allow(true).await;
    metric("1").await;
}
