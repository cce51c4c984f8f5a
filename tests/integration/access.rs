//! Tokens and users with the real binary: an operator with access to the database creates them on
//! the command line, and the running service accepts them and no others.

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

/// Runs the binary on the database with `input` as its stdin.
pub(crate) fn run_tributary(database: &Database, arguments: &[&str], input: &str) -> Output {
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

/// The stdout of a command that succeeded.
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The single line that a failed command wrote to stderr.
pub(crate) fn failure(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    text
}

async fn get(service: &Service, token: &str, path: &str) -> (u16, Value) {
    let request = awc::Client::default().get(format!("{}{path}", service.url()));
    let mut answer = request.bearer_auth(token).timeout(TIMEOUT).send().await.unwrap();
    let body = answer.body().limit(1 << 20).await.unwrap();
    (answer.status().as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[actix_rt::test]
async fn a_token_created_on_the_command_line_is_accepted_until_it_is_revoked() {
    let (broker, database) = (Broker::shared().await, database().await);
    let service = Service::start(&database, broker, &[("AUTH", "on")]).await;
    assert_eq!(service.get("/api/v1/sensors").await.unwrap().0, 401);

    let create = ["token", "create", "--name", "me", "--role", "admin", "--expires-in", "7"];
    let created = stdout(&run_tributary(&database, &create, ""));
    let token = created.lines().last().unwrap();

    assert!(token.starts_with("trb_") && token.len() == 47, "{created}");
    let (status, session) = get(&service, token, "/api/v1/sessions/current").await;
    assert_eq!((status, &session["name"], &session["role"]), (200, &json!("me"), &json!("admin")));
    let expiry = session["expiry_timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let in_six_days = jiff::Timestamp::now() + Duration::from_secs(6 * 86_400);
    assert!(expiry > in_six_days && expiry < in_six_days + Duration::from_secs(86_400));
    let listed = stdout(&run_tributary(&database, &["token", "list"], ""));
    assert!(listed.contains("me") && listed.contains("all networks"), "{listed}");
    assert!(!listed.contains(token), "{listed}");
    assert!(failure(&run_tributary(&database, &create, "")).contains("\"me\" already"));

    assert_eq!(stdout(&run_tributary(&database, &["token", "revoke", "me"], "")), "Revoked.\n");
    eventually(TIMEOUT, async || {
        let (status, _) = get(&service, token, "/api/v1/sensors").await;
        if status == 401 { Ok(()) } else { Err(status) }
    })
    .await;
    assert!(
        failure(&run_tributary(&database, &["token", "revoke", "me"], "")).contains("no token")
    );

    // The name of a token is unique within its network only.
    let network = ["--network", "00000000-0000-0000-0000-000000000000"];
    for scope in [&[][..], &network] {
        stdout(&run_tributary(&database, &[&create[..], scope].concat(), ""));
    }
    let message = failure(&run_tributary(&database, &["token", "revoke", "me"], ""));
    assert!(message.contains("2 tokens") && message.contains("identifier"), "{message}");
    let log = service.log();
    assert!(!log.contains(token), "{log}");
}

#[actix_rt::test]
async fn commands_on_a_database_without_tables_name_tributary_migrate() {
    if without_empty_databases() {
        return;
    }
    let database = database().await;
    let create = ["token", "create", "--name", "me", "--role", "admin"];
    for arguments in [&create[..], &["token", "list"], &["token", "revoke", "me"]] {
        let message = failure(&run_tributary(&database, arguments, ""));
        assert!(message.contains("run tributary migrate"), "{message}");
    }
    stdout(&run_tributary(&database, &["migrate"], ""));
    stdout(&run_tributary(&database, &create, ""));
    let unknown_network = ["--network", "81bf7042-e20f-4a97-ac44-c15853e3618f"];
    let scoped = ["token", "create", "--name", "you", "--role", "viewer"];
    let message = failure(&run_tributary(&database, &[&scoped[..], &unknown_network].concat(), ""));
    assert!(message.contains("no such network"), "{message}");
}

#[actix_rt::test]
async fn a_user_created_on_the_command_line_signs_in() {
    let (broker, database) = (Broker::shared().await, database().await);
    let service = Service::start(&database, broker, &[("AUTH", "on")]).await;
    let network = "00000000-0000-0000-0000-000000000000";
    let create = ["user", "create", "--name", "ada", "--role", "operator", "--network", network];
    assert!(failure(&run_tributary(&database, &create, "short\n")).contains("12 to 200"));
    stdout(&run_tributary(&database, &create, "correct horse battery\nnot this\n"));
    let file = std::env::temp_dir().join(format!("{}.password", database.name));
    std::fs::write(&file, "another long one\n").unwrap();
    let file_path = file.display().to_string();
    let bob =
        ["user", "create", "--name", "bob", "--role", "viewer", "--password-file", &file_path];
    stdout(&run_tributary(&database, &bob, ""));
    std::fs::remove_file(&file).unwrap();
    assert!(failure(&run_tributary(&database, &bob, "")).contains(&file_path));

    for (name, password, role) in
        [("ada", "correct horse battery", "operator"), ("bob", "another long one", "viewer")]
    {
        let body = json!({ "name": name, "password": password });
        let (status, session) = service.post("/api/v1/sessions", &body).await.unwrap();
        assert_eq!((status, &session["role"]), (201, &json!(role)), "{session}");
        let token = session["token"].as_str().unwrap();
        assert_eq!(get(&service, token, "/api/v1/sensors").await.0, 200);
    }
    let log = service.log();
    assert!(!log.contains("correct horse") && !log.contains("trb_"), "{log}");
}

#[actix_rt::test]
async fn auth_off_is_rejected_on_an_address_that_is_not_loopback() {
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
    let message = failure(&output);
    assert!(message.contains("AUTH=off") && message.contains("HTTP_ADDR=0.0.0.0:0"), "{message}");
}

#[test]
fn an_unavailable_database_is_named_without_its_password() {
    let migrate = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .arg("migrate")
        .env_clear()
        .env("DATABASE_URL", "postgres://somebody:s3cret@127.0.0.1:9/nothing")
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let message = failure(&migrate);
    assert!(message.contains("host=127.0.0.1 port=9") && !message.contains("s3cret"), "{message}");
}

#[actix_rt::test]
async fn simulate_uses_its_api_token_and_the_sensors_of_its_network() {
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
    let message = failure(&simulate("", &[]).await.unwrap());
    assert!(message.contains("401") && message.contains("API_TOKEN"), "{message}");
    let create = ["token", "create", "--name", "fleet", "--role", "admin"];
    let created = stdout(&run_tributary(&database, &create, ""));
    let token = created.lines().last().unwrap();
    let summary = stdout(&simulate(token, &[]).await.unwrap());
    assert!(summary.contains("every item is accounted for"), "{summary}");

    // Another network has sensors of the same names; they are not used.
    let (north, sensor) = (Uuid::new_v4(), Uuid::new_v4());
    let statements = format!(
        "insert into network (identifier, name) values ('{north}', 'north');
         insert into sensor (identifier, network_identifier, name)
         values ('{sensor}', '{north}', 'simulated-0001')"
    );
    connect(&database.url).await.unwrap().batch_execute(&statements).await.unwrap();
    assert!(failure(&simulate(token, &["--network", "nord"]).await.unwrap()).contains("\"nord\""));
    let summary = stdout(&simulate(token, &["--network", "north"]).await.unwrap());
    assert!(summary.contains("every item is accounted for"), "{summary}");
    let of_sensor =
        format!("select count(*) from measurement where sensor_identifier = '{sensor}'");
    assert!(count(&database, &of_sensor).await > 0, "the network's sensor did not publish");
    let of_north = format!("select count(*) from sensor where network_identifier = '{north}'");
    assert_eq!(count(&database, &of_north).await, 2);
    assert_eq!(count(&database, "select count(*) from sensor").await, 4);
}

#[actix_rt::test]
async fn last_seen_is_stored_after_a_commit_and_used_by_sort_and_filter() {
    let (broker, database) = (Broker::shared().await, database().await);
    let service = Service::start(&database, broker, &[]).await;
    let (sensor, other) = (service.create_sensor("one").await, service.create_sensor("two").await);
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let before = jiff::Timestamp::now();
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurement(1.0)).await.unwrap();

    let seen_sensors = "select count(*) from sensor where last_seen_timestamp is not null";
    eventually(TIMEOUT, async || match count(&database, seen_sensors).await {
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

/// The live state comes from the actors. During an outage of PostgreSQL a cached token of all networks
/// can read it; a token of one network gets 503, because the sensor's network cannot be checked.
#[actix_rt::test]
async fn the_live_state_is_served_while_postgres_is_unavailable() {
    let broker = Broker::shared().await;
    let mut postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    let service = Service::start(&database, broker, &[("AUTH", "on")]).await;
    let [north, inside, outside, moved, silent] = [(); 5].map(|()| Uuid::new_v4());
    let in_north = |sensor: Uuid| format!("('{sensor}', '{north}', '{sensor}')");
    let statements = format!(
        "insert into network (identifier, name) values ('{north}', 'north');
         insert into sensor (identifier, network_identifier, name) values {}, {}, {};
         insert into sensor (identifier, name) values ('{outside}', 'there');
         insert into configuration (sensor_identifier, revision, value) values ('{inside}', 4, '{{}}')",
        in_north(inside),
        in_north(moved),
        in_north(silent),
    );
    connect(&database.url).await.unwrap().batch_execute(&statements).await.unwrap();
    let token = |name: &str, scope: &[&str]| {
        let create = ["token", "create", "--name", name, "--role", "admin"];
        let created = stdout(&run_tributary(&database, &[&create[..], scope].concat(), ""));
        created.lines().last().unwrap().to_owned()
    };
    let (all, scoped) = (token("all", &[]), token("scoped", &["--network", &north.to_string()]));
    let uncached = token("unknown", &[]);
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = |sensor: Uuid| format!("{}/measurements/{sensor}", database.name);
    for sensor in [inside, outside, moved] {
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
        [(&all, outside, 200), (&scoped, inside, 200), (&scoped, outside, 404)]
    {
        assert_eq!(get(&service, token, &path(sensor)).await.0, expected);
    }
    let (status, state) = get(&service, &scoped, &path(silent)).await;
    assert_eq!((status, &state["live"]), (200, &Value::Null), "{state}");
    let patch = awc::Client::default()
        .patch(format!("{}/api/v1/sensors/{moved}", service.url()))
        .bearer_auth(&all)
        .send_json(&json!({ "network": Uuid::nil() }));
    assert_eq!(patch.await.unwrap().status(), 200);

    postgres.stop_immediate().await;
    client.publish(&topic(inside), measurement(2.0)).await.unwrap();

    // The item that waits for its commit is counted.
    let state = eventually(TIMEOUT, async || {
        let started_at = Instant::now();
        let (status, state) = get(&service, &all, &path(inside)).await;
        assert!(started_at.elapsed() < Duration::from_secs(2), "{:?}", started_at.elapsed());
        assert_eq!(status, 200, "{state}");
        if state["live"]["measurements"]["items"] == 2 { Ok(state) } else { Err(state) }
    })
    .await;
    assert_eq!(state["network"], Value::Null, "{state}");
    assert_eq!(state["live"]["desired_revision"], 4, "{state}");
    assert_eq!(state["last_seen_timestamp"], state["live"]["measurements"]["last_receipt"]);
    for (token, sensor, expected) in [
        (&all, inside, 200),
        (&all, outside, 200),
        (&all, moved, 200),
        (&all, silent, 503),
        (&scoped, inside, 503),
        (&scoped, outside, 503),
        (&scoped, silent, 503),
        (&uncached, inside, 503),
    ] {
        let started_at = Instant::now();
        let (status, answer) = get(&service, token, &path(sensor)).await;
        assert_eq!(status, expected, "{answer}");
        assert!(started_at.elapsed() < Duration::from_secs(2), "{:?}", started_at.elapsed());
        if status == 503 {
            assert_eq!(answer["type"], "/problems/database-unavailable");
        }
    }

    postgres.start_again().await;
    eventually(TIMEOUT, async || match get(&service, &scoped, &path(moved)).await {
        (404, _) => Ok(()),
        other => Err(other),
    })
    .await;
}
