//! A stream ends when its own access right ends, and not with another one. This instance, another instance or the
//! command line can revoke the right, with or without a notification.

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

/// Two instances with one database: tests open streams on the first, and revoke rights on the second.
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
        let (_, admin) = create_token(&database, "admin", "admin", None).await;
        Self { database, first, second, admin }
    }

    async fn execute(&self, statement: &str) {
        connect(&self.database.url).await.unwrap().batch_execute(statement).await.unwrap();
    }

    /// Sends a request to the second instance as an administrator.
    async fn request(&self, method: &str, path: &str, body: &Value) -> Value {
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
        let sensor = self.request("POST", "/api/v1/sensors", &json!({ "name": name })).await;
        sensor["identifier"].as_str().unwrap().to_owned()
    }

    /// Opens a stream on the first instance, and reads its first event.
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

async fn create_token(
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

async fn assert_dropped(events: &mut Events, reason: &str) {
    loop {
        let event = events.next().await.expect("the last event has the reason");
        if event.name == "dropped" {
            assert_eq!(event.data["reason"], reason);
            break;
        }
    }
    assert_eq!(events.next().await, None);
}

#[actix_rt::test]
async fn a_token_revoked_by_another_instance_or_the_command_line_ends_only_its_streams() {
    let pair = Pair::start().await;
    let sensor = pair.create_sensor("sensor").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let (one, by_api) = create_token(&pair.database, "by-api", "viewer", None).await;
    let (_, by_command) = create_token(&pair.database, "by-command", "viewer", None).await;
    let (_, kept) = create_token(&pair.database, "kept", "viewer", Some(DEFAULT_NETWORK)).await;
    let mut of_api = [pair.open(&path, &by_api).await, pair.open(FLEET, &by_api).await];
    let mut of_command = pair.open(&path, &by_command).await;
    let mut kept = pair.open(&path, &kept).await;

    pair.request("DELETE", &format!("/api/v1/tokens/{one}"), &Value::Null).await;
    for events in &mut of_api {
        assert_dropped(events, "revoked").await;
    }
    let revoked = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(["token", "revoke", "by-command"])
        .env_clear()
        .env("DATABASE_URL", &pair.database.url)
        .output()
        .unwrap();
    assert!(revoked.status.success(), "{revoked:?}");
    assert_dropped(&mut of_command, "revoked").await;

    // The stream of the third token stays open.
    let client =
        Client::connect(Broker::shared().await.url(), &format!("{}-s", pair.database.name)).await;
    let topic = format!("{}/measurements/{sensor}", pair.database.name);
    client.publish(&topic, measurement(1.0)).await.unwrap();
    assert_eq!(kept.expect("measurement").await["timestamp"], 1.0);
}

#[actix_rt::test]
async fn a_sensor_moved_or_deleted_by_another_instance_ends_streams_without_access() {
    let pair = Pair::start().await;
    let (moved, deleted) = (pair.create_sensor("moved").await, pair.create_sensor("deleted").await);
    let stream = |sensor: &str| format!("/api/v1/sensors/{sensor}/stream");
    let (_, scoped) = create_token(&pair.database, "scoped", "viewer", Some(DEFAULT_NETWORK)).await;
    let mut revoked = pair.open(&stream(&moved), &scoped).await;
    let mut kept = pair.open(&stream(&moved), &pair.admin).await;
    let mut ended = pair.open(&stream(&deleted), &pair.admin).await;

    let network = pair.request("POST", "/api/v1/networks", &json!({ "name": "elsewhere" })).await;
    let body = json!({ "network": network["identifier"] });
    pair.request("PATCH", &format!("/api/v1/sensors/{moved}"), &body).await;
    assert_dropped(&mut revoked, "revoked").await;
    pair.request("DELETE", &format!("/api/v1/sensors/{deleted}"), &Value::Null).await;
    assert_dropped(&mut ended, "deleted").await;
    pair.request("DELETE", &format!("/api/v1/sensors/{moved}"), &Value::Null).await;
    assert_dropped(&mut kept, "deleted").await;
}

#[actix_rt::test]
async fn a_user_changed_by_another_instance_loses_the_streams_of_its_sessions() {
    let pair = Pair::start().await;
    let mut users = Vec::new();
    for name in ["changed", "kept"] {
        let body = json!({ "name": name, "password": "a long password", "role": "operator" });
        let user = pair.request("POST", "/api/v1/users", &body).await;
        let session = pair.sign_in(name).await;
        users.push((
            user["identifier"].as_str().unwrap().to_owned(),
            pair.open(FLEET, &session).await,
        ));
    }
    let [(changed, of_changed), (deleted, of_deleted)] = &mut users[..] else { unreachable!() };
    pair.request("PATCH", &format!("/api/v1/users/{changed}"), &json!({ "role": "viewer" })).await;
    assert_dropped(of_changed, "revoked").await;
    // The change of the first user has not ended the stream of the second.
    pair.request("DELETE", &format!("/api/v1/users/{deleted}"), &Value::Null).await;
    assert_dropped(of_deleted, "revoked").await;
}

#[actix_rt::test]
async fn without_a_notification_the_poll_detects_a_revoked_token() {
    let pair = Pair::start().await;
    let (_, viewer) = create_token(&pair.database, "viewer", "viewer", None).await;
    let mut events = pair.open(FLEET, &viewer).await;
    // With this setting no trigger fires.
    let delete_without_trigger =
        "set session_replication_role = replica; delete from token where name = 'viewer'";
    pair.execute(delete_without_trigger).await;
    assert_dropped(&mut events, "revoked").await;
}

#[actix_rt::test]
async fn a_disconnected_listener_is_replaced_by_the_poll_and_reported() {
    let pair = Pair::start().await;
    let (_, viewer) = create_token(&pair.database, "viewer", "viewer", None).await;
    let mut events = pair.open(FLEET, &viewer).await;
    let wait_for_metric = async |value: &str| {
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
    wait_for_metric("1").await;
    let connected = connect(&pair.database.url).await.unwrap();
    let admin = connect(&Postgres::shared().await.url("postgres")).await.unwrap();
    let allow_connections = async |allowed: bool| {
        let name = &pair.database.name;
        let statement = format!("alter database {name} allow_connections {allowed}");
        admin.batch_execute(&statement).await.unwrap();
    };
    // PostgreSQL rejects new connections, and keeps those that exist.
    allow_connections(false).await;
    connected
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = 'tributary-listen' and datname = current_database()",
            &[],
        )
        .await
        .unwrap();
    wait_for_metric("0").await;
    assert!(pair.first.log().contains("polling every second"), "{}", pair.first.log());
    connected.batch_execute("delete from token where name = 'viewer'").await.unwrap();
    assert_dropped(&mut events, "revoked").await;
    allow_connections(true).await;
    wait_for_metric("1").await;
}
