//! Passwords from variables and from files: no log, answer, error or command line contains them.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::broker::{Broker, Settings};
use crate::support::certificates::{Authority, Files};
use crate::support::postgres::{self, Database, Postgres, connect};
use crate::support::service::{self, Service, count};
use crate::support::wait::{TIMEOUT, eventually};

/// Part of every password, so that one search finds any of them.
const SECRET: &str = "s3cret";
const DATABASE_PASSWORD: &str = "s3cret-of-the-database";
const BROKER_PASSWORD: &str = "s3cret-of-the-broker";

async fn servers() -> (Postgres, Database, Broker) {
    let settings = postgres::Settings {
        host_based_access: "host all guarded all scram-sha-256",
        ..postgres::Settings::default()
    };
    let postgres = Postgres::start_with(&settings).await;
    let database = postgres.create_database(None).await;
    let role = format!("create role guarded superuser login password '{DATABASE_PASSWORD}'");
    connect(&database.url).await.unwrap().batch_execute(&role).await.unwrap();
    let account = Some(("tributary", BROKER_PASSWORD));
    let broker = Broker::start_with(Settings { account, ..Settings::default() }).await;
    (postgres, database, broker)
}

/// The URLs of both, without passwords.
fn urls_without_passwords(database: &Database, broker: &Broker) -> (String, String) {
    let database = database.url.replace("postgres@", "guarded@");
    (database, broker.url().replace(&format!(":{BROKER_PASSWORD}"), ""))
}

/// The log, the answers and the command line of a service.
async fn all_output(service: &Service) -> String {
    let mut output = service.log();
    for path in ["/readyz", "/api/v1/status", "/api/v1/sensors", "/metrics"] {
        output.push_str(&format!("\n{path}: {:?}", service.get(path).await));
    }
    let pid = service.pid();
    let command_line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(command_line.contains("serve"), "{command_line}");
    output + &command_line
}

#[actix_rt::test]
async fn passwords_from_files_are_used_and_not_shown() {
    let (mut postgres, database, broker) = servers().await;
    let (database_url, mqtt_url) = urls_without_passwords(&database, &broker);
    let files = Files::new();
    let files_of = [
        ("DATABASE_URL_FILE", format!("{database_url}\n")),
        ("DATABASE_PASSWORD_FILE", format!("{DATABASE_PASSWORD}\n")),
        ("MQTT_URL_FILE", mqtt_url),
        ("MQTT_PASSWORD_FILE", BROKER_PASSWORD.to_owned()),
    ]
    .map(|(name, text)| (name, files.write(name, &text)));
    // Only the files, and the logs of all libraries.
    let mut settings = vec![("DATABASE_URL", ""), ("MQTT_URL", ""), ("LOG_FILTER", "trace")];
    settings.extend(files_of.iter().map(|(name, path)| (*name, path.as_str())));
    let service = Service::start(&database, &broker, &settings).await;
    let sessions = "select count(*) from pg_stat_activity where usename = 'guarded'";
    assert!(count(&database, sessions).await > 0);
    // On a busy machine the first connection with SCRAM takes longer than the timeout of a request.
    eventually(TIMEOUT, async || {
        match service.post("/api/v1/sensors", &json!({ "name": "guarded" })).await {
            Ok((201, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    postgres.stop_immediate().await;
    eventually(TIMEOUT, async || match service.get("/readyz").await {
        Ok((503, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let output = all_output(&service).await;
    assert!(output.contains("TRACE"), "libraries also log");
    assert!(!output.contains(SECRET), "{}", first_line_with_secret(&output));
}

#[actix_rt::test]
async fn a_refused_password_is_not_shown() {
    let (_postgres, database, broker) = servers().await;
    let (database_url, mqtt_url) = urls_without_passwords(&database, &broker);
    let settings = [
        ("DATABASE_URL", database_url.as_str()),
        ("DATABASE_PASSWORD", "s3cret-but-wrong"),
        ("MQTT_URL", &mqtt_url.replace("@", ":s3cret-and-wrong@")),
        ("MIGRATE_ON_START", "false"),
        ("LOG_FILTER", "trace"),
    ];
    let service = Service::start_unready(&database, &broker, &settings);
    let log = eventually(TIMEOUT, async || {
        let log = service.log();
        let refused = log.contains("SQLSTATE 28P01") && log.contains("NotAuthorized");
        if refused && service.get("/healthz").await.is_ok() { Ok(log) } else { Err(log) }
    })
    .await;
    let output = log + &all_output(&service).await;
    assert!(!output.contains(SECRET), "{}", first_line_with_secret(&output));
}

/// Whether the command succeeds, and its output.
fn run(directory: &Files, arguments: &[&str], settings: &[(&str, &str)]) -> (bool, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .current_dir(directory.directory())
        .output()
        .unwrap();
    let output = [run.stdout, run.stderr].concat();
    (run.status.success(), String::from_utf8(output).unwrap())
}

#[actix_rt::test]
async fn no_error_message_shows_a_password() {
    let (_postgres, database, broker) = servers().await;
    let (database_url, mqtt_url) = urls_without_passwords(&database, &broker);
    let files = Files::new();
    let secret = files.write("secret", "s3cret-in-a-file");
    let wrong = database_url.replace("guarded@", "guarded:s3cret-and-wrong@");
    let api = ["simulate", "--api", "http://127.0.0.1:9", "--quiet"];
    for (arguments, settings, expected) in [
        (&["migrate"][..], vec![("DATABASE_URL", wrong.as_str())], "28P01"),
        (&["migrate"], vec![("DATABASE_URL", "postgres://u:s3cret@h:port/d")], "DATABASE_URL"),
        (&["migrate"], vec![("DATABASE_URL", "user=u password='s3cret")], "malformed"),
        (&["migrate"], vec![("DATABASE_URL", "postgres://u:s3cret@h/d?sslmode=s3cret")], "sslmode"),
        (
            &["migrate"],
            vec![("DATABASE_URL", &wrong), ("DATABASE_PASSWORD_FILE", &secret)],
            "holds a password too",
        ),
        (
            &["migrate"],
            vec![
                ("DATABASE_URL", database_url.as_str()),
                ("DATABASE_PASSWORD", "s3cret"),
                ("DATABASE_PASSWORD_FILE", &secret),
            ],
            "are both set",
        ),
        (&api, vec![("MQTT_URL", "mqtt://u:s3cret@h/path")], "MQTT_TOPIC_PREFIX"),
        (&api, vec![("MQTT_URL", "mqtt://u:s3cret@h:port")], "MQTT_URL"),
        (&api, vec![("MQTT_URL", &mqtt_url), ("MQTT_PASSWORD_FILE", &secret)], "No answer"),
    ] {
        let (success, output) = run(&files, arguments, &settings);
        assert!(!success, "{settings:?}");
        let (output, expected) = (output.to_lowercase(), expected.to_lowercase());
        assert!(output.contains(&expected) && !output.contains(SECRET), "{settings:?}: {output}");
    }
}

/// URLs that users have written, each with part of the advice in the error message.
const MALFORMED: &[(&str, &str)] = &[
    ("\"postgres://u:s3cret@h/d\"", "remove them"),
    ("'postgres://u:s3cret@h/d'", "remove them"),
    ("postgres://u:s3cret@h/d\"", "remove them"),
    ("postgresql+asyncpg://u:s3cret@h/d", "postgres://user:password@host:port/database"),
    ("postgresql+psycopg2://u:s3cret@h/d", "postgres://"),
    ("jdbc:postgresql://h/d?user=u&password=s3cret", "postgres://"),
    ("mysql://u:s3cret@h/d", "postgres://"),
    ("u:s3cret@h/d", "postgres://"),
    ("//u:s3cret@h/d", "postgres://"),
    ("u:s3cret@h:5432/d?sslmode=require", "postgres://"),
    ("postgres:u:s3cret@h/d", "postgres://"),
    ("postgres:/u:s3cret@h/d", "postgres://"),
    ("postgres//u:s3cret@h/d", "postgres://"),
    ("<postgres://u:s3cret@h/d>", "postgres://"),
    ("DATABASE_URL=postgres://u:s3cret@h/d", "not known"),
    ("psql postgres://u:s3cret@h/d", "postgres://"),
    ("postgres://u:s3cret@2@h/d", "%40"),
    ("postgres://u:@s3cret@h/d", "DATABASE_PASSWORD"),
    ("postgres://u:s3cret?x@h/d", "%3F"),
    ("postgres://u:1?s3cret@h/d", "%3F"),
    ("postgres://u:s3cret/x@h/d", "%2F"),
    ("postgres://u:1/s3cret@h/d", "%2F"),
    ("postgres://u:s3cret#x@h/d", "%23"),
    ("postgres://u:s3cret x@h/d", "%20"),
    ("postgres://u:s3cret@h/d # the database", "%20"),
    ("postgres://u:s3cret@h:port/d", "1 to 65535"),
    ("postgres://u:s3cret@h:99999/d", "1 to 65535"),
    ("postgres://u:s3cret", "1 to 65535"),
    ("postgres://u:s3cret@[h]/d", "host"),
    ("postgres://u%3As3cret%40h/d", "host"),
    ("postgres:///u:s3cret@h/d", "%40"),
    ("postgres://h/d?user=u&pasword=s3cret", "did you mean password?"),
    ("postgres://h/d?user=u&password=a&s3cret", "DATABASE_PASSWORD"),
    ("postgres://u:p@h/d?s3cret=1", "not known"),
    ("postgres://u:p@h/d?sslmode=s3cret", "sslmode takes"),
    ("host=h user=u password=my s3cret dbname=d", "quotes"),
    ("host=h user=u password='s3cret", "malformed"),
    ("host=h;user=u;password=s3cret", "separated by spaces"),
    ("Host=h;Username=u;Password=s3cret", "not known"),
    ("user=u password=s3cret", "names no host"),
];

#[test]
fn no_malformed_url_shows_its_password() {
    let files = Files::new();
    for (url, remedy) in MALFORMED {
        for command in ["check-config", "migrate", "serve"] {
            let settings = [("DATABASE_URL", *url), ("MQTT_URL", "mqtt://127.0.0.1:1")];
            let (success, output) = run(&files, &[command], &settings);
            assert!(!success && !output.contains(SECRET), "{command} {url}: {output}");
            assert!(output.contains(remedy), "{command} {url}: {output}");
        }
    }
    // A byte order mark and capitals are accepted.
    for url in ["\u{feff}postgres://u:s3cret@h/d", "PostgreSQL://u:s3cret@h/d"] {
        let settings = [("DATABASE_URL", url), ("MQTT_URL", "mqtt://u:s3cret@127.0.0.1:1")];
        let (success, output) = run(&files, &["check-config"], &settings);
        assert!(success && output.contains("host=h port=5432 dbname=d user=u"), "{url}: {output}");
        assert!(!output.contains(SECRET), "{url}: {output}");
    }
    // The secret instead of a file name.
    for name in ["DATABASE_PASSWORD_FILE", "DATABASE_URL_FILE", "MQTT_PASSWORD_FILE"] {
        let url = if name == "DATABASE_URL_FILE" { "" } else { "postgres://u@h/d" };
        let settings =
            [("DATABASE_URL", url), ("MQTT_URL", "mqtt://u@127.0.0.1:1"), (name, "s3cret")];
        let (success, output) = run(&files, &["check-config"], &settings);
        assert!(!success && output.contains(name) && !output.contains(SECRET), "{name}: {output}");
    }
}

#[test]
fn check_config_prints_all_settings_without_secrets() {
    let files = Files::new();
    let password = files.write("password", DATABASE_PASSWORD);
    files.write(".env", "DATABASE_URL=postgres://guarded@db.example/fleet\nHTTP_WORKERS=3\n");
    let mqtt_url = format!("mqtt://tributary:{BROKER_PASSWORD}@broker.example");
    let settings = [
        ("DATABASE_PASSWORD_FILE", password.as_str()),
        ("MQTT_URL", &mqtt_url),
        ("HTTP_WORKERS", ""),
    ];
    let (success, output) = run(&files, &["check-config"], &settings);
    assert!(success, "{output}");
    let line_of = |name: &str| {
        let line = output.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}: {output}")).to_owned()
    };
    for (name, expected) in [
        ("DATABASE_URL", &["host=db.example port=5432 dbname=fleet user=guarded", ".env"][..]),
        ("DATABASE_PASSWORD", &["(hidden)", "the file of DATABASE_PASSWORD_FILE"]),
        ("MQTT_URL", &["mqtt://tributary@broker.example:1883", "environment"]),
        ("BATCH_MAX_ITEMS", &["50000", "default"]),
    ] {
        for part in expected {
            assert!(line_of(name).contains(part), "{output}");
        }
    }
    assert!(output.contains("\nNo problems found.\n") && !output.contains(SECRET), "{output}");

    let settings =
        [("MQTT_URL", mqtt_url.as_str()), ("MQTT_CA_FILE", "/no/such"), ("WINDOW_BYTES", "65536")];
    let (success, output) = run(&files, &["check-config"], &settings);
    assert!(!success && output.contains("2 problems:"), "{output}");
    assert!(
        output.contains("MQTT_CA_FILE is set, but") && output.contains("WINDOW_BYTES=65536"),
        "{output}"
    );

    files.write(".env", "LOG_FORMAT=text\nDATABASE_PASSWORD=s3cret with spaces\n");
    let (success, output) = run(&files, &["check-config"], &settings);
    assert!(
        !success && output.contains("the line after LOG_FORMAT") && !output.contains(SECRET),
        "{output}"
    );
}

#[test]
fn check_config_fails_where_serve_does_and_names_misspelt_settings() {
    let files = Files::new();
    for (name, value) in [
        ("HTTP_ADDR", "localhost"),
        ("HTTP_ADDR", "127.0.0.1:99999"),
        ("LOG_FILTER", "tributary=loud"),
        ("AUTH", "maybe"),
    ] {
        for command in ["check-config", "serve"] {
            let settings = [
                ("DATABASE_URL", "postgres://u@127.0.0.1:1/d"),
                ("MQTT_URL", "mqtt://127.0.0.1:1"),
                (name, value),
            ];
            let (success, output) = run(&files, &[command], &settings);
            let expected = format!("{name}={value:?} is not usable");
            assert!(!success && output.contains(&expected), "{command} {name}: {output}");
        }
    }
    let misspelt =
        "DATABSE_URL=postgres://u:s3cret@h/d\nMQTT_TOPIC_PREFIXES=a\nPOSTGRES_DB=d\nAUTH=off\n";
    files.write(".env", misspelt);
    let settings =
        [("DATABASE_URL", "postgres://u@127.0.0.1:1/d"), ("MQTT_URL", "mqtt://127.0.0.1:1")];
    let (success, output) = run(&files, &["check-config"], &settings);
    assert!(success, "{output}");
    for expected in [
        "DATABSE_URL in .env is not a known setting; did you mean DATABASE_URL?",
        "MQTT_TOPIC_PREFIXES in .env is not a known setting; did you mean MQTT_TOPIC_PREFIX?",
        "AUTH                             off ",
    ] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
    assert!(!output.contains(SECRET) && !output.contains("POSTGRES_DB"), "{output}");
}

/// Sends a POST with this bearer token, and returns the status and the `token` of the answer.
async fn post(service: &Service, token: &str, path: &str, body: &Value) -> (u16, Option<String>) {
    let request = service::client(true).post(format!("{}{path}", service.url()));
    let request = request.bearer_auth(token).timeout(TIMEOUT);
    let mut answer = request.send_json(body).await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap_or(Value::Null);
    (status, body["token"].as_str().map(str::to_owned))
}

#[actix_rt::test]
async fn no_log_contains_credentials_of_callers_or_the_key_of_https() {
    let (broker, database) = (Broker::shared().await, service::database().await);
    let files = Files::new();
    let ours = Authority::new("ours");
    let authority = files.write("ours.pem", ours.certificate());
    let pair = ours.server(&["127.0.0.1"]);
    let certificate = files.write("http.pem", &pair.certificate);
    let key = files.write("http.key", &pair.key);
    let settings = [
        ("AUTH", "on"),
        ("HTTP_CERTIFICATE_FILE", certificate.as_str()),
        ("HTTP_KEY_FILE", &key),
        ("LOG_FILTER", "trace"),
    ];
    let service = Service::start(&database, broker, &settings).await;
    let create = ["token", "create", "--name", "me", "--role", "admin"];
    let (success, output) = run(&files, &create, &[("DATABASE_URL", &database.url)]);
    let token = output.lines().last().unwrap();
    assert!(success && token.starts_with("trb_"), "{output}");

    let ada = json!({"name": "ada", "role": "operator", "password": "s3cret-of-ada, long enough"});
    assert_eq!(post(&service, token, "/api/v1/users", &ada).await.0, 201);
    let right = json!({"name": "ada", "password": "s3cret-of-ada, long enough"});
    let (status, session) = post(&service, "trb_s3cret", "/api/v1/sessions", &right).await;
    assert_eq!(status, 201);
    let wrong = json!({"name": "ada", "password": "s3cret, but not hers"});
    assert_eq!(post(&service, token, "/api/v1/sessions", &wrong).await.0, 401);
    let second = json!({"name": "second", "role": "viewer"});
    assert_eq!(post(&service, "trb_s3cret", "/api/v1/tokens", &second).await.0, 401);
    let (status, second) = post(&service, token, "/api/v1/tokens", &second).await;
    assert_eq!(status, 201);

    let fleet = ["simulate", "--api", &service.url(), "--api-ca", &authority, "--quiet"];
    let wrong_token =
        [("MQTT_URL", broker.url()), ("API_TOKEN", "trb_s3cret"), ("LOG_FILTER", "trace")];
    let (success, output) = run(&files, &fleet, &wrong_token);
    assert!(!success && output.contains("401") && !output.contains(SECRET), "{output}");

    let output = all_output(&service).await;
    assert!(output.contains("TRACE") && output.contains("/api/v1/sessions"), "libraries also log");
    let lines_of_key = pair.key.lines().filter(|line| !line.starts_with('-'));
    let secrets = [token, &session.unwrap(), &second.unwrap(), SECRET, "$argon2id$"];
    for secret in secrets.into_iter().chain(lines_of_key) {
        let line = output.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret}: {line:?}");
    }
}

fn first_line_with_secret(text: &str) -> &str {
    text.lines().find(|line| line.contains(SECRET)).unwrap_or_default()
}
