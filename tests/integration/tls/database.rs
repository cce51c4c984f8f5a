//! `sslmode` has the same meaning as for libpq: which connections succeed, whether they are encrypted, and the error
//! messages of the others. psql must give the same results.

use std::collections::HashMap;

use tributary::config::read_store;
use tributary::store::Bench;

use crate::support::broker::Broker;
use crate::support::certificates::{Authority, Files, ServerTls};
use crate::support::postgres::{Database, Postgres, Settings, connect};
use crate::support::service::{Service, count};
use crate::support::wait::{TIMEOUT, eventually};

const HOST_BASED_ACCESS: &str = "\
hostssl   all only_with    all trust
hostnossl all only_with    all reject
hostssl   all only_without all reject
hostnossl all only_without all trust
hostssl   all certified    all cert";

const ROLES: &str = "\
create role only_with superuser login; create role only_without superuser login;
create role certified superuser login";

/// Connects with this URL; returns `tls`, `plain` or the error message. `database` is on the same server.
async fn attempt(database: &Database, url: &str) -> String {
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
    if count(database, &query).await == 1 { "tls".into() } else { "plain".into() }
}

/// The same with psql.
fn attempt_with_psql(url: &str, home: &Files) -> String {
    let psql = std::process::Command::new("psql")
        .args(["-X", "-At", "-d", url, "-c"])
        .arg("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        // psql looks for default certificate files in this directory.
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
async fn each_sslmode_accepts_the_same_connections_as_libpq() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = Files::new();
    let authority = files.write("ours.pem", ours.certificate());
    let wrong_authority = files.write("others.pem", others.certificate());
    let client = ours.client("certified");
    let certificate = files.write("client.pem", &client.certificate);
    let key = files.write("client.key", &client.key);
    let tls = |pair| ServerTls { pair, client_authority: Some(ours.certificate()) };
    let (_server_with_tls, database) = server(Some(tls(ours.server(&["127.0.0.1"])))).await;
    let (_server_without_tls, without_tls) = server(None).await;
    let (_server_expired, expired) = server(Some(tls(ours.expired_server(&["127.0.0.1"])))).await;

    let url = database.url.as_str();
    let by_name = url.replace("127.0.0.1", "localhost");
    let as_user = |user: &str| url.replace("postgres@", &format!("{user}@"));
    let (only_with, only_without) = (as_user("only_with"), as_user("only_without"));
    let certified = as_user("certified");
    let identity = format!("sslmode=require&sslcert={certificate}&sslkey={key}");
    let ca = format!("sslrootcert={authority}");
    let wrong_ca = format!("sslrootcert={wrong_authority}");
    for (database, base, query, expected) in [
        (&database, url, String::new(), "tls"),
        (&database, url, "sslmode=disable".into(), "plain"),
        (&database, url, "sslmode=prefer".into(), "tls"),
        (&database, url, "sslmode=require".into(), "tls"),
        (&database, url, format!("sslmode=verify-ca&{ca}"), "tls"),
        (&database, url, format!("sslmode=verify-full&{ca}"), "tls"),
        // A name that the certificate does not contain.
        (&database, &by_name, "sslmode=require".into(), "tls"),
        (&database, &by_name, format!("sslmode=verify-ca&{ca}"), "tls"),
        (
            &database,
            &by_name,
            format!("sslmode=verify-full&{ca}"),
            "is for 127.0.0.1, not for localhost",
        ),
        // Another authority: with a root certificate, require means verify-ca.
        (
            &database,
            url,
            format!("sslmode=require&{wrong_ca}"),
            "not signed by a trusted authority",
        ),
        (
            &database,
            url,
            format!("sslmode=verify-ca&{wrong_ca}"),
            "not signed by a trusted authority",
        ),
        (
            &database,
            url,
            format!("sslmode=verify-full&{wrong_ca}"),
            "not signed by a trusted authority",
        ),
        (
            &database,
            url,
            "sslmode=verify-full&sslrootcert=system".into(),
            "not signed by a trusted authority",
        ),
        (&database, url, format!("sslmode=prefer&{wrong_ca}"), "plain"),
        // A server without TLS.
        (&without_tls, &without_tls.url, "sslmode=prefer".into(), "plain"),
        (&without_tls, &without_tls.url, "sslmode=require".into(), "server does not support TLS"),
        (
            &without_tls,
            &without_tls.url,
            format!("sslmode=verify-full&{ca}"),
            "server does not support TLS",
        ),
        // An expired certificate.
        (&expired, &expired.url, "sslmode=require".into(), "tls"),
        (&expired, &expired.url, format!("sslmode=verify-ca&{ca}"), "expired, on 2020-01-01"),
        (&expired, &expired.url, format!("sslmode=verify-full&{ca}"), "has expired"),
        (&expired, &expired.url, format!("sslmode=prefer&{ca}"), "plain"),
        // Accounts that pg_hba.conf limits.
        (&database, &only_with, "sslmode=disable".into(), "SQLSTATE 28000"),
        (&database, &only_with, "sslmode=prefer".into(), "tls"),
        (&database, &only_without, "sslmode=prefer".into(), "plain"),
        (&database, &only_without, "sslmode=require".into(), "SQLSTATE 28000"),
        // A client certificate.
        (&database, &certified, identity, "tls"),
        (&database, &certified, "sslmode=require".into(), "SQLSTATE 28000"),
    ] {
        let url = format!("{base}?{query}");
        let outcome = attempt(database, &url).await;
        assert!(
            outcome == expected || (expected.len() > 5 && outcome.contains(expected)),
            "{url}: {outcome}"
        );
        let of_psql = attempt_with_psql(&url, &files);
        let is_connected = |outcome: &str| ["tls", "plain"].contains(&outcome);
        if is_connected(expected) {
            assert_eq!(of_psql, expected, "{url}");
        } else {
            assert!(!is_connected(&of_psql), "{url}: psql connects");
        }
    }
}

/// With all pools and the migrations.
#[actix_rt::test]
async fn the_service_runs_with_verify_full_and_reports_an_untrusted_certificate() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = Files::new();
    let authority = files.write("authority.pem", ours.certificate());
    let (_server, database) = server(Some(ServerTls::new(ours.server(&["127.0.0.1"])))).await;
    let broker = Broker::shared().await;
    let url = format!(
        "{}?sslmode=verify-full&sslrootcert={authority}",
        database.url.replace("postgres@", "only_with@")
    );
    let mut service = Service::start(&database, broker, &[("DATABASE_URL", &url)]).await;
    service.create_sensor("verified").await;
    let plain = "select count(*) from pg_stat_ssl natural join pg_stat_activity \
        where application_name like 'tributary%' and not ssl";
    let encrypted = "select count(*) from pg_stat_ssl natural join pg_stat_activity \
        where application_name like 'tributary%' and ssl";
    assert_eq!(count(&database, plain).await, 0);
    assert!(count(&database, encrypted).await > 0);

    files.write("authority.pem", others.certificate());
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
