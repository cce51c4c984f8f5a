//! `sslmode`, as PostgreSQL's own clients mean it: which connection comes about, whether it is
//! encrypted, and what is said of one that does not. psql is asked the same and must agree.

use std::collections::HashMap;

use tributary::config::read_store;
use tributary::store::Bench;

use crate::support::broker::Broker;
use crate::support::certificates::{Authority, Files, ServerTls};
use crate::support::postgres::{Database, Postgres, Settings, connect};
use crate::support::service::{Service, count};
use crate::support::wait::{TIMEOUT, eventually};

/// Who may come in which way.
const HOST_BASED_ACCESS: &str = "\
hostssl   all only_with    all trust
hostnossl all only_with    all reject
hostssl   all only_without all reject
hostnossl all only_without all trust
hostssl   all certified    all cert";

const ROLES: &str = "\
create role only_with superuser login; create role only_without superuser login;
create role certified superuser login";

/// How a connection goes with this URL: `tls`, `plain`, or why it does not come about.
async fn attempt(watch: &Database, url: &str) -> String {
    let settings = HashMap::from([("DATABASE_URL", url)]);
    let config = match read_store(|name| settings.get(name).map(ToString::to_string)) {
        Ok(config) => config,
        Err(problem) => return problem.to_string(),
    };
    let connection = match Bench::connect(&config).await {
        Ok(connection) => connection,
        Err(error) => return error.to_string(),
    };
    let pid = connection.backend_pid().await.unwrap();
    let query = format!("select count(*) from pg_stat_ssl where ssl and pid = {pid}");
    if count(watch, &query).await == 1 { "tls".into() } else { "plain".into() }
}

/// The same by PostgreSQL's own client; of a failure, only that it is one.
fn by_psql(url: &str, home: &Files) -> String {
    let psql = std::process::Command::new("psql")
        .args(["-X", "-At", "-d", url, "-c"])
        .arg("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        // Where it would look for files that nobody named.
        .env("HOME", home.directory())
        .output()
        .unwrap();
    match (psql.status.success(), psql.stdout.as_slice()) {
        (true, b"t\n") => "tls".into(),
        (true, b"f\n") => "plain".into(),
        _ => String::from_utf8_lossy(&psql.stderr).into_owned(),
    }
}

async fn server(tls: Option<ServerTls>) -> (Postgres, Database) {
    let settings = Settings { tls, host_based_access: HOST_BASED_ACCESS, ..Settings::default() };
    let postgres = Postgres::start_with(&settings).await;
    let database = postgres.create_database(None).await;
    connect(&database.url).await.unwrap().batch_execute(ROLES).await.unwrap();
    (postgres, database)
}

#[actix_rt::test]
async fn each_mode_takes_what_libpq_takes() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = Files::new();
    let authority = files.put("ours.pem", ours.certificate());
    let wrong = files.put("others.pem", others.certificate());
    let client = ours.client("certified");
    let certificate = files.put("client.pem", &client.certificate);
    let key = files.put("client.key", &client.key);
    let tls = |pair| ServerTls { pair, client_authority: Some(ours.certificate()) };
    let (_right, database) = server(Some(tls(ours.server(&["127.0.0.1"])))).await;
    let (_plain, without) = server(None).await;
    let (_expired, expired) = server(Some(tls(ours.expired_server(&["127.0.0.1"])))).await;

    let url = database.url.as_str();
    let by_name = url.replace("127.0.0.1", "localhost");
    let as_user = |user: &str| url.replace("postgres@", &format!("{user}@"));
    let (only_with, only_without) = (as_user("only_with"), as_user("only_without"));
    let certified = as_user("certified");
    let identity = format!("sslmode=require&sslcert={certificate}&sslkey={key}");
    let checked = format!("sslrootcert={authority}");
    let mistaken = format!("sslrootcert={wrong}");
    for (watch, base, query, says) in [
        (&database, url, String::new(), "tls"),
        (&database, url, "sslmode=disable".into(), "plain"),
        (&database, url, "sslmode=prefer".into(), "tls"),
        (&database, url, "sslmode=require".into(), "tls"),
        (&database, url, format!("sslmode=verify-ca&{checked}"), "tls"),
        (&database, url, format!("sslmode=verify-full&{checked}"), "tls"),
        // Another name than the certificate's.
        (&database, &by_name, "sslmode=require".into(), "tls"),
        (&database, &by_name, format!("sslmode=verify-ca&{checked}"), "tls"),
        (
            &database,
            &by_name,
            format!("sslmode=verify-full&{checked}"),
            "is for 127.0.0.1, not for localhost",
        ),
        // Another authority: with a root certificate, require means verify-ca.
        (
            &database,
            url,
            format!("sslmode=require&{mistaken}"),
            "not signed by a trusted authority",
        ),
        (
            &database,
            url,
            format!("sslmode=verify-ca&{mistaken}"),
            "not signed by a trusted authority",
        ),
        (
            &database,
            url,
            format!("sslmode=verify-full&{mistaken}"),
            "not signed by a trusted authority",
        ),
        (
            &database,
            url,
            "sslmode=verify-full&sslrootcert=system".into(),
            "not signed by a trusted authority",
        ),
        (&database, url, format!("sslmode=prefer&{mistaken}"), "plain"),
        // A server without TLS.
        (&without, &without.url, "sslmode=prefer".into(), "plain"),
        (&without, &without.url, "sslmode=require".into(), "server does not support TLS"),
        (
            &without,
            &without.url,
            format!("sslmode=verify-full&{checked}"),
            "server does not support TLS",
        ),
        // An expired certificate.
        (&expired, &expired.url, "sslmode=require".into(), "tls"),
        (&expired, &expired.url, format!("sslmode=verify-ca&{checked}"), "expired, on 2020-01-01"),
        (&expired, &expired.url, format!("sslmode=verify-full&{checked}"), "has expired"),
        (&expired, &expired.url, format!("sslmode=prefer&{checked}"), "plain"),
        // What pg_hba.conf lets in.
        (&database, &only_with, "sslmode=disable".into(), "SQLSTATE 28000"),
        (&database, &only_with, "sslmode=prefer".into(), "tls"),
        (&database, &only_without, "sslmode=prefer".into(), "plain"),
        (&database, &only_without, "sslmode=require".into(), "SQLSTATE 28000"),
        // A client certificate.
        (&database, &certified, identity, "tls"),
        (&database, &certified, "sslmode=require".into(), "SQLSTATE 28000"),
    ] {
        let url = format!("{base}?{query}");
        let said = attempt(watch, &url).await;
        assert!(said == says || (says.len() > 5 && said.contains(says)), "{url}: {said}");
        let theirs = by_psql(&url, &files);
        let connected = |outcome: &str| ["tls", "plain"].contains(&outcome);
        if connected(says) {
            assert_eq!(theirs, says, "{url}");
        } else {
            assert!(!connected(&theirs), "{url}: psql takes it");
        }
    }
}

/// Every pool, the migrations, and what is said when the certificate does not fit any more.
#[actix_rt::test]
async fn the_service_runs_with_verify_full_and_says_why_it_cannot() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = Files::new();
    let authority = files.put("authority.pem", ours.certificate());
    let (_server, database) = server(Some(ServerTls::showing(ours.server(&["127.0.0.1"])))).await;
    let broker = Broker::shared().await;
    let url = format!(
        "{}?sslmode=verify-full&sslrootcert={authority}",
        database.url.replace("postgres@", "only_with@")
    );
    let mut service = Service::start(&database, broker, &[("DATABASE_URL", &url)]).await;
    service.create_sensor("verified").await;
    let plain = "select count(*) from pg_stat_ssl natural join pg_stat_activity \
        where application_name like 'tributary%' and not ssl";
    let secured = "select count(*) from pg_stat_ssl natural join pg_stat_activity \
        where application_name like 'tributary%' and ssl";
    assert_eq!(count(&database, plain).await, 0);
    assert!(count(&database, secured).await > 0);

    files.put("authority.pem", others.certificate());
    assert!(service.terminate().await.success());
    let service = Service::start_unready(
        &database,
        broker,
        &[("DATABASE_URL", &url), ("MIGRATE_ON_START", "false")],
    );
    let reason =
        "the TLS handshake failed: the server's certificate is not signed by a trusted authority";
    eventually(TIMEOUT, async || match service.get("/readyz").await {
        Ok((503, problem)) if problem.to_string().contains(reason) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    eventually(TIMEOUT, async || {
        let log = service.log();
        if log.contains(reason) { Ok(()) } else { Err(log) }
    })
    .await;
}
