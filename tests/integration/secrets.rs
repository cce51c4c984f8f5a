//! Passwords: from variables and from files, and nowhere to be seen, whatever goes wrong.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::broker::{Broker, Settings};
use crate::support::certificates::{Authority, Files};
use crate::support::postgres::{self, Database, Postgres, connect};
use crate::support::service::{self, Service, count};
use crate::support::wait::{TIMEOUT, eventually};

/// Both passwords hold it, so that one search finds either.
const SECRET: &str = "s3cret";
const OF_DATABASE: &str = "s3cret-of-the-database";
const OF_BROKER: &str = "s3cret-of-the-broker";

async fn servers() -> (Postgres, Database, Broker) {
    let settings = postgres::Settings {
        host_based_access: "host all guarded all scram-sha-256",
        ..postgres::Settings::default()
    };
    let postgres = Postgres::start_with(&settings).await;
    let database = postgres.create_database(None).await;
    let role = format!("create role guarded superuser login password '{OF_DATABASE}'");
    connect(&database.url).await.unwrap().batch_execute(&role).await.unwrap();
    let account = Some(("tributary", OF_BROKER));
    let broker = Broker::start_with(Settings { account, ..Settings::default() }).await;
    (postgres, database, broker)
}

/// Without their passwords.
fn urls(database: &Database, broker: &Broker) -> (String, String) {
    let database = database.url.replace("postgres@", "guarded@");
    (database, broker.url().replace(&format!(":{OF_BROKER}"), ""))
}

/// All that can be seen of a service from outside.
async fn seen(service: &Service) -> String {
    let mut seen = service.log();
    for path in ["/readyz", "/api/v1/status", "/api/v1/sensors", "/metrics"] {
        seen.push_str(&format!("\n{path}: {:?}", service.get(path).await));
    }
    let pid = service.pid();
    let command_line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(command_line.contains("serve"), "{command_line}");
    seen + &command_line
}

#[actix_rt::test]
async fn passwords_from_files_are_used_and_not_shown() {
    let (mut postgres, database, broker) = servers().await;
    let (database_url, mqtt_url) = urls(&database, &broker);
    let files = Files::new();
    let files_of = [
        ("DATABASE_URL_FILE", format!("{database_url}\n")),
        ("DATABASE_PASSWORD_FILE", format!("{OF_DATABASE}\n")),
        ("MQTT_URL_FILE", mqtt_url),
        ("MQTT_PASSWORD_FILE", OF_BROKER.to_owned()),
    ]
    .map(|(name, text)| (name, files.put(name, &text)));
    // Nothing but files, and whatever a library says.
    let mut settings = vec![("DATABASE_URL", ""), ("MQTT_URL", ""), ("LOG_FILTER", "trace")];
    settings.extend(files_of.iter().map(|(name, path)| (*name, path.as_str())));
    let service = Service::start(&database, &broker, &settings).await;
    let ours = "select count(*) from pg_stat_activity where usename = 'guarded'";
    assert!(count(&database, ours).await > 0);
    // On a busy machine the first connection with SCRAM takes longer than a request waits for one.
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
    let seen = seen(&service).await;
    assert!(seen.contains("TRACE"), "libraries speak too");
    assert!(!seen.contains(SECRET), "{}", around(&seen));
}

#[actix_rt::test]
async fn a_refused_password_is_not_shown() {
    let (_postgres, database, broker) = servers().await;
    let (database_url, mqtt_url) = urls(&database, &broker);
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
    let seen = log + &seen(&service).await;
    assert!(!seen.contains(SECRET), "{}", around(&seen));
}

/// What the binary says and how it ends.
fn run(directory: &Files, arguments: &[&str], settings: &[(&str, &str)]) -> (bool, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .current_dir(directory.directory())
        .output()
        .unwrap();
    let said = [run.stdout, run.stderr].concat();
    (run.status.success(), String::from_utf8(said).unwrap())
}

#[actix_rt::test]
async fn no_error_shows_a_password() {
    let (_postgres, database, broker) = servers().await;
    let (database_url, mqtt_url) = urls(&database, &broker);
    let files = Files::new();
    let secret = files.put("secret", "s3cret-in-a-file");
    let wrong = database_url.replace("guarded@", "guarded:s3cret-and-wrong@");
    let api = ["simulate", "--api", "http://127.0.0.1:9", "--quiet"];
    for (arguments, settings, says) in [
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
        let (success, said) = run(&files, arguments, &settings);
        assert!(!success, "{settings:?}");
        let (said, says) = (said.to_lowercase(), says.to_lowercase());
        assert!(said.contains(&says) && !said.contains(SECRET), "{settings:?}: {said}");
    }
}

/// Each of these was written by somebody. The first is the URL, the second what the remedy says.
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
    // Only the URL's own form is taken for one: a byte order mark and capitals mean no harm.
    for url in ["\u{feff}postgres://u:s3cret@h/d", "PostgreSQL://u:s3cret@h/d"] {
        let settings = [("DATABASE_URL", url), ("MQTT_URL", "mqtt://u:s3cret@127.0.0.1:1")];
        let (success, output) = run(&files, &["check-config"], &settings);
        assert!(success && output.contains("host=h port=5432 dbname=d user=u"), "{url}: {output}");
        assert!(!output.contains(SECRET), "{url}: {output}");
    }
    // The secret where its file's name belongs.
    for name in ["DATABASE_PASSWORD_FILE", "DATABASE_URL_FILE", "MQTT_PASSWORD_FILE"] {
        let url = if name == "DATABASE_URL_FILE" { "" } else { "postgres://u@h/d" };
        let settings =
            [("DATABASE_URL", url), ("MQTT_URL", "mqtt://u@127.0.0.1:1"), (name, "s3cret")];
        let (success, output) = run(&files, &["check-config"], &settings);
        assert!(!success && output.contains(name) && !output.contains(SECRET), "{name}: {output}");
    }
}

#[test]
fn check_config_tells_all_but_secrets() {
    let files = Files::new();
    let password = files.put("password", OF_DATABASE);
    files.put(".env", "DATABASE_URL=postgres://guarded@db.example/fleet\nHTTP_WORKERS=3\n");
    let mqtt_url = format!("mqtt://tributary:{OF_BROKER}@broker.example");
    let settings = [
        ("DATABASE_PASSWORD_FILE", password.as_str()),
        ("MQTT_URL", &mqtt_url),
        ("HTTP_WORKERS", ""),
    ];
    let (success, said) = run(&files, &["check-config"], &settings);
    assert!(success, "{said}");
    let origin = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}: {said}")).to_owned()
    };
    for (name, expected) in [
        ("DATABASE_URL", &["host=db.example port=5432 dbname=fleet user=guarded", ".env"][..]),
        ("DATABASE_PASSWORD", &["(hidden)", "the file of DATABASE_PASSWORD_FILE"]),
        ("MQTT_URL", &["mqtt://tributary@broker.example:1883", "environment"]),
        ("BATCH_MAX_ITEMS", &["50000", "default"]),
    ] {
        for part in expected {
            assert!(origin(name).contains(part), "{said}");
        }
    }
    assert!(said.contains("\nNo problems found.\n") && !said.contains(SECRET), "{said}");

    let settings =
        [("MQTT_URL", mqtt_url.as_str()), ("MQTT_CA_FILE", "/no/such"), ("WINDOW_BYTES", "65536")];
    let (success, said) = run(&files, &["check-config"], &settings);
    assert!(!success && said.contains("2 problems:"), "{said}");
    assert!(
        said.contains("MQTT_CA_FILE is set, but") && said.contains("WINDOW_BYTES=65536"),
        "{said}"
    );

    files.put(".env", "LOG_FORMAT=text\nDATABASE_PASSWORD=s3cret with spaces\n");
    let (success, said) = run(&files, &["check-config"], &settings);
    assert!(
        !success && said.contains("the line after LOG_FORMAT") && !said.contains(SECRET),
        "{said}"
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
    files.put(".env", misspelt);
    let settings =
        [("DATABASE_URL", "postgres://u@127.0.0.1:1/d"), ("MQTT_URL", "mqtt://127.0.0.1:1")];
    let (success, output) = run(&files, &["check-config"], &settings);
    assert!(success, "it would start: {output}");
    for expected in [
        "DATABSE_URL in .env is not a known setting; did you mean DATABASE_URL?",
        "MQTT_TOPIC_PREFIXES in .env is not a known setting; did you mean MQTT_TOPIC_PREFIX?",
        "AUTH                             off ",
    ] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
    assert!(!output.contains(SECRET) && !output.contains("POSTGRES_DB"), "{output}");
}

/// Shows a token, and returns the status and the `token` of the answer.
async fn ask(service: &Service, token: &str, path: &str, body: &Value) -> (u16, Option<String>) {
    let request = service::client(true).post(format!("{}{path}", service.url()));
    let request = request.bearer_auth(token).timeout(TIMEOUT);
    let mut answer = request.send_json(body).await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap_or(Value::Null);
    (status, body["token"].as_str().map(str::to_owned))
}

#[actix_rt::test]
async fn what_callers_show_and_the_key_of_https_are_in_no_log() {
    let (broker, database) = (Broker::shared().await, service::database().await);
    let files = Files::new();
    let ours = Authority::new("ours");
    let authority = files.put("ours.pem", ours.certificate());
    let pair = ours.server(&["127.0.0.1"]);
    let certificate = files.put("http.pem", &pair.certificate);
    let key = files.put("http.key", &pair.key);
    let settings = [
        ("AUTH", "on"),
        ("HTTP_CERTIFICATE_FILE", certificate.as_str()),
        ("HTTP_KEY_FILE", &key),
        ("LOG_FILTER", "trace"),
    ];
    let service = Service::start(&database, broker, &settings).await;
    let create = ["token", "create", "--name", "me", "--role", "admin"];
    let (success, said) = run(&files, &create, &[("DATABASE_URL", &database.url)]);
    let token = said.lines().last().unwrap();
    assert!(success && token.starts_with("trb_"), "{said}");

    let ada = json!({"name": "ada", "role": "operator", "password": "s3cret-of-ada, long enough"});
    assert_eq!(ask(&service, token, "/api/v1/users", &ada).await.0, 201);
    let right = json!({"name": "ada", "password": "s3cret-of-ada, long enough"});
    let (status, session) = ask(&service, "trb_s3cret", "/api/v1/sessions", &right).await;
    assert_eq!(status, 201);
    let wrong = json!({"name": "ada", "password": "s3cret, but not hers"});
    assert_eq!(ask(&service, token, "/api/v1/sessions", &wrong).await.0, 401);
    let second = json!({"name": "second", "role": "viewer"});
    assert_eq!(ask(&service, "trb_s3cret", "/api/v1/tokens", &second).await.0, 401);
    let (status, second) = ask(&service, token, "/api/v1/tokens", &second).await;
    assert_eq!(status, 201);

    let fleet = ["simulate", "--api", &service.url(), "--api-ca", &authority, "--quiet"];
    let stranger =
        [("MQTT_URL", broker.url()), ("API_TOKEN", "trb_s3cret"), ("LOG_FILTER", "trace")];
    let (success, said) = run(&files, &fleet, &stranger);
    assert!(!success && said.contains("401") && !said.contains(SECRET), "{said}");

    let seen = seen(&service).await;
    assert!(seen.contains("TRACE") && seen.contains("/api/v1/sessions"), "libraries speak too");
    let lines_of_key = pair.key.lines().filter(|line| !line.starts_with('-'));
    let kept = [token, &session.unwrap(), &second.unwrap(), SECRET, "$argon2id$"];
    for secret in kept.into_iter().chain(lines_of_key) {
        let line = seen.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret}: {line:?}");
    }
}

/// Where it stands in much text.
fn around(text: &str) -> &str {
    text.lines().find(|line| line.contains(SECRET)).unwrap_or_default()
}
