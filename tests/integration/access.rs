//! Who may, with the real binary: whoever holds the database makes tokens and users on the command
//! line, and the service that runs beside it takes them, and no others.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::measurement;
use crate::support::postgres::{Database, Postgres, connect, without_empty_databases};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// Runs the binary on the database, and gives it this to read.
pub(crate) fn tributary(database: &Database, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", &database.url)
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What it printed, where it did as it was told.
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one sentence with which it refused.
pub(crate) fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    text
}

async fn ask(service: &Service, token: &str, path: &str) -> (u16, Value) {
    let request = awc::Client::default().get(format!("{}{path}", service.url()));
    let mut answer = request.bearer_auth(token).timeout(TIMEOUT).send().await.unwrap();
    let body = answer.body().limit(1 << 20).await.unwrap();
    (answer.status().as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[actix_rt::test]
async fn a_token_of_the_command_line_opens_the_api_until_it_is_revoked() {
    let (broker, database) = (Broker::shared().await, database().await);
    let service = Service::start(&database, broker, &[("AUTH", "on")]).await;
    assert_eq!(service.get("/api/v1/sensors").await.unwrap().0, 401);

    let create = ["token", "create", "--name", "me", "--role", "admin", "--expires-in", "7"];
    let created = stdout(&tributary(&database, &create, ""));
    let token = created.lines().last().unwrap();

    assert!(token.starts_with("trb_") && token.len() == 47, "{created}");
    let (status, session) = ask(&service, token, "/api/v1/sessions/current").await;
    assert_eq!((status, &session["name"], &session["role"]), (200, &json!("me"), &json!("admin")));
    let expiry = session["expiry_timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let in_six_days = jiff::Timestamp::now() + Duration::from_secs(6 * 86_400);
    assert!(expiry > in_six_days && expiry < in_six_days + Duration::from_secs(86_400));
    let listed = stdout(&tributary(&database, &["token", "list"], ""));
    assert!(listed.contains("me") && listed.contains("all networks"), "{listed}");
    assert!(!listed.contains(token), "{listed}");
    assert!(refused(&tributary(&database, &create, "")).contains("\"me\" already"));

    assert_eq!(stdout(&tributary(&database, &["token", "revoke", "me"], "")), "Revoked.\n");
    eventually(TIMEOUT, async || {
        let (status, _) = ask(&service, token, "/api/v1/sensors").await;
        if status == 401 { Ok(()) } else { Err(status) }
    })
    .await;
    assert!(refused(&tributary(&database, &["token", "revoke", "me"], "")).contains("no token"));

    // In each network there may be one of this name.
    let network = ["--network", "00000000-0000-0000-0000-000000000000"];
    for more in [&[][..], &network] {
        stdout(&tributary(&database, &[&create[..], more].concat(), ""));
    }
    let sentence = refused(&tributary(&database, &["token", "revoke", "me"], ""));
    assert!(sentence.contains("2 tokens") && sentence.contains("identifier"), "{sentence}");
    let log = service.log();
    assert!(!log.contains(token), "{log}");
}

#[actix_rt::test]
async fn without_tables_it_says_what_to_run() {
    if without_empty_databases() {
        return;
    }
    let database = database().await;
    let create = ["token", "create", "--name", "me", "--role", "admin"];
    for arguments in [&create[..], &["token", "list"], &["token", "revoke", "me"]] {
        let sentence = refused(&tributary(&database, arguments, ""));
        assert!(sentence.contains("run tributary migrate"), "{sentence}");
    }
    stdout(&tributary(&database, &["migrate"], ""));
    stdout(&tributary(&database, &create, ""));
    let nowhere = ["--network", "81bf7042-e20f-4a97-ac44-c15853e3618f"];
    let scoped = ["token", "create", "--name", "you", "--role", "viewer"];
    let sentence = refused(&tributary(&database, &[&scoped[..], &nowhere].concat(), ""));
    assert!(sentence.contains("no such network"), "{sentence}");
}

#[actix_rt::test]
async fn a_user_of_the_command_line_signs_in() {
    let (broker, database) = (Broker::shared().await, database().await);
    let service = Service::start(&database, broker, &[("AUTH", "on")]).await;
    let network = "00000000-0000-0000-0000-000000000000";
    let create = ["user", "create", "--name", "ada", "--role", "operator", "--network", network];
    assert!(refused(&tributary(&database, &create, "short\n")).contains("12 to 200"));
    stdout(&tributary(&database, &create, "correct horse battery\nnot this\n"));
    let file = std::env::temp_dir().join(format!("{}.password", database.name));
    std::fs::write(&file, "another long one\n").unwrap();
    let of_file = file.display().to_string();
    let bob = ["user", "create", "--name", "bob", "--role", "viewer", "--password-file", &of_file];
    stdout(&tributary(&database, &bob, ""));
    std::fs::remove_file(&file).unwrap();
    assert!(refused(&tributary(&database, &bob, "")).contains(&of_file));

    for (name, password, role) in
        [("ada", "correct horse battery", "operator"), ("bob", "another long one", "viewer")]
    {
        let body = json!({ "name": name, "password": password });
        let (status, session) = service.post("/api/v1/sessions", &body).await.unwrap();
        assert_eq!((status, &session["role"]), (201, &json!(role)), "{session}");
        let token = session["token"].as_str().unwrap();
        assert_eq!(ask(&service, token, "/api/v1/sensors").await.0, 200);
    }
    let log = service.log();
    assert!(!log.contains("correct horse") && !log.contains("trb_"), "{log}");
}

#[actix_rt::test]
async fn nobody_is_let_in_unasked_from_outside() {
    let output = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .arg("serve")
        .env_clear()
        .envs([
            ("DATABASE_URL", "postgres://nowhere/x"),
            ("MQTT_URL", "mqtt://nowhere"),
            ("HTTP_ADDR", "0.0.0.0:0"),
            ("AUTH", "off"),
        ])
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let sentence = refused(&output);
    assert!(
        sentence.contains("AUTH=off") && sentence.contains("HTTP_ADDR=0.0.0.0:0"),
        "{sentence}"
    );
}

#[test]
fn a_database_that_is_away_is_named() {
    let migrate = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .arg("migrate")
        .env_clear()
        .env("DATABASE_URL", "postgres://somebody:s3cret@127.0.0.1:9/nothing")
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let why = refused(&migrate);
    assert!(why.contains("host=127.0.0.1 port=9") && !why.contains("s3cret"), "{why}");
}

#[actix_rt::test]
async fn a_simulated_fleet_shows_its_token() {
    let (broker, database) = (Broker::shared().await, database().await);
    let service = Service::start(&database, broker, &[("AUTH", "on")]).await;
    let simulate = |token: &str, network: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
        let arguments =
            ["simulate", "--sensors", "2", "--messages", "20", "--rate", "100", "--quiet"];
        command.args(arguments).args(["--api", &service.url()]).args(network);
        command.env_clear().env("DATABASE_URL", &database.url).env("API_TOKEN", token);
        command.env("MQTT_URL", broker.url()).env("MQTT_TOPIC_PREFIX", &database.name);
        command.current_dir(std::env::temp_dir());
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let unasked = refused(&simulate("", &[]).await.unwrap());
    assert!(unasked.contains("401") && unasked.contains("API_TOKEN"), "{unasked}");
    let create = ["token", "create", "--name", "fleet", "--role", "admin"];
    let created = stdout(&tributary(&database, &create, ""));
    let token = created.lines().last().unwrap();
    let summary = stdout(&simulate(token, &[]).await.unwrap());
    assert!(summary.contains("every item is accounted for"), "{summary}");

    // The sensors of a network are used, those of the same names in another are not.
    let (north, sensor) = (Uuid::new_v4(), Uuid::new_v4());
    let made = format!(
        "insert into network (identifier, name) values ('{north}', 'north');
         insert into sensor (identifier, network_identifier, name)
         values ('{sensor}', '{north}', 'simulated-0001')"
    );
    connect(&database.url).await.unwrap().batch_execute(&made).await.unwrap();
    assert!(refused(&simulate(token, &["--network", "nord"]).await.unwrap()).contains("\"nord\""));
    let summary = stdout(&simulate(token, &["--network", "north"]).await.unwrap());
    assert!(summary.contains("every item is accounted for"), "{summary}");
    let spoke = format!("select count(*) from measurement where sensor_identifier = '{sensor}'");
    assert!(count(&database, &spoke).await > 0, "it is the network's own that speaks");
    let of_north = format!("select count(*) from sensor where network_identifier = '{north}'");
    assert_eq!(count(&database, &of_north).await, 2);
    assert_eq!(count(&database, "select count(*) from sensor").await, 4);
}

#[actix_rt::test]
async fn when_a_sensor_was_last_heard_is_noted_beside_its_rows() {
    let (broker, database) = (Broker::shared().await, database().await);
    let service = Service::start(&database, broker, &[]).await;
    let (sensor, other) = (service.create_sensor("one").await, service.create_sensor("two").await);
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let before = jiff::Timestamp::now();
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurement(1.0)).await.unwrap();

    let noted = "select count(*) from sensor where last_seen_timestamp is not null";
    eventually(TIMEOUT, async || match count(&database, noted).await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    let (_, list) = service.get("/api/v1/sensors?sort=-last_seen").await.unwrap();
    assert_eq!(list["items"][0]["identifier"], json!(sensor), "{list}");
    let seen: jiff::Timestamp =
        list["items"][0]["last_seen_timestamp"].as_str().unwrap().parse().unwrap();
    assert!(seen >= before && seen <= jiff::Timestamp::now(), "{before} {seen}");
    let path = format!("/api/v1/sensors?silent_since={before}");
    let (_, silent) = service.get(&path).await.unwrap();
    assert_eq!(silent["items"].as_array().unwrap().len(), 1, "{silent}");
    assert_eq!(silent["items"][0]["identifier"], json!(other), "{silent}");
}

/// What is known of a sensor without the tables is told while they are away: to those who were known
/// before, and of no sensor that is not known to be in their network.
#[actix_rt::test]
async fn what_the_actors_know_is_told_while_postgres_is_away() {
    let broker = Broker::shared().await;
    let mut postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    let service = Service::start(&database, broker, &[("AUTH", "on")]).await;
    let [north, here, there, gone, silent] = [(); 5].map(|()| Uuid::new_v4());
    let in_north = |sensor: Uuid| format!("('{sensor}', '{north}', '{sensor}')");
    let statements = format!(
        "insert into network (identifier, name) values ('{north}', 'north');
         insert into sensor (identifier, network_identifier, name) values {}, {}, {};
         insert into sensor (identifier, name) values ('{there}', 'there');
         insert into configuration (sensor_identifier, revision, value) values ('{here}', 4, '{{}}')",
        in_north(here),
        in_north(gone),
        in_north(silent),
    );
    connect(&database.url).await.unwrap().batch_execute(&statements).await.unwrap();
    let token = |name: &str, more: &[&str]| {
        let create = ["token", "create", "--name", name, "--role", "admin"];
        let created = stdout(&tributary(&database, &[&create[..], more].concat(), ""));
        created.lines().last().unwrap().to_owned()
    };
    let (all, scoped) = (token("all", &[]), token("scoped", &["--network", &north.to_string()]));
    let unknown = token("unknown", &[]);
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = |sensor: Uuid| format!("{}/measurements/{sensor}", database.name);
    for sensor in [here, there, gone] {
        client.publish(&topic(sensor), measurement(1.0)).await.unwrap();
    }
    eventually(TIMEOUT, async || {
        match count(&database, "select count(*) from measurement").await {
            3 => Ok(()),
            rows => Err(rows),
        }
    })
    .await;
    let path = |sensor: Uuid| format!("/api/v1/sensors/{sensor}/live");
    for (token, sensor, expected) in
        [(&all, there, 200), (&scoped, here, 200), (&scoped, there, 404)]
    {
        assert_eq!(ask(&service, token, &path(sensor)).await.0, expected);
    }
    let (status, state) = ask(&service, &scoped, &path(silent)).await;
    assert_eq!((status, &state["live"]), (200, &Value::Null), "{state}");
    let moved = awc::Client::default()
        .patch(format!("{}/api/v1/sensors/{gone}", service.url()))
        .bearer_auth(&all)
        .send_json(&json!({ "network": Uuid::nil() }));
    assert_eq!(moved.await.unwrap().status(), 200);

    postgres.stop_immediate().await;
    client.publish(&topic(here), measurement(2.0)).await.unwrap();

    // What waits to be committed is counted.
    let state = eventually(TIMEOUT, async || {
        let began = Instant::now();
        let (status, state) = ask(&service, &all, &path(here)).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(status, 200, "{state}");
        if state["live"]["measurements"]["items"] == 2 { Ok(state) } else { Err(state) }
    })
    .await;
    assert_eq!(state["network"], Value::Null, "{state}");
    assert_eq!(state["live"]["desired_revision"], 4, "{state}");
    assert_eq!(state["last_seen_timestamp"], state["live"]["measurements"]["last_receipt"]);
    for (token, sensor, expected) in [
        (&all, here, 200),
        (&all, there, 200),
        (&all, gone, 200),
        (&all, silent, 503),
        (&scoped, here, 503),
        (&scoped, there, 503),
        (&scoped, silent, 503),
        (&unknown, here, 503),
    ] {
        let began = Instant::now();
        let (status, answer) = ask(&service, token, &path(sensor)).await;
        assert_eq!(status, expected, "{answer}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        if status == 503 {
            assert_eq!(answer["type"], "/problems/database-unavailable");
        }
    }

    postgres.start_again().await;
    eventually(TIMEOUT, async || match ask(&service, &scoped, &path(gone)).await {
        (404, _) => Ok(()),
        other => Err(other),
    })
    .await;
}
