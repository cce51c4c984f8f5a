//! DATABASE_URL with several hosts, and servers that are silent, read-only or behind a pooler: which of
//! them the service uses, and what it reports.

use std::cell::Cell;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tributary::config::read_store;
use tributary::store::{self, Bench};

use crate::partitions::wait_for_housekeeping;
use crate::support::broker::Broker;
use crate::support::certificates::Files;
use crate::support::client::Client;
use crate::support::payloads::measurement;
use crate::support::ports::free_port;
use crate::support::postgres::{Database, Postgres, connect};
use crate::support::service::{Service, client, count, database};
use crate::support::wait::{TIMEOUT, eventually};

const ROWS: &str = "select count(*) from measurement";

fn port_of(url: &str) -> u16 {
    url.parse::<url::Url>().unwrap().port().unwrap()
}

fn config(url: &str) -> store::Config {
    read_store(|name| (name == "DATABASE_URL").then(|| url.to_owned())).unwrap()
}

/// The kernel accepts connections to it; nothing answers.
fn silent_server() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn publish(client: &Client, topic: &str, seconds: std::ops::Range<u32>) {
    for second in seconds {
        client.publish(topic, measurement(f64::from(second))).await.unwrap();
    }
}

/// The status and the body of an answer that is not JSON.
async fn get_text(service: &Service, path: &str) -> (u16, String) {
    let request = client(false).get(format!("{}{path}", service.url())).timeout(TIMEOUT);
    let mut answer = request.send().await.unwrap();
    let body = answer.body().await.unwrap();
    (answer.status().as_u16(), String::from_utf8_lossy(&body).into_owned())
}

#[actix_rt::test]
async fn the_service_moves_from_a_primary_that_becomes_read_only_to_the_new_one() {
    let broker = Broker::shared().await;
    let (old, new) = (Postgres::start().await, Postgres::start().await);
    let database = old.create_database(None).await;
    let name = &database.name;
    let admin = connect(&new.url("postgres")).await.unwrap();
    admin.batch_execute(&format!("create database {name}")).await.unwrap();
    store::migrate(&config(&new.url(name))).await.unwrap();
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{name}?target_session_attrs=primary",
        port_of(&database.url),
        port_of(&new.url(name))
    );
    let settings = [("DATABASE_URL", url.as_str()), ("UNKNOWN_SENSOR", "register")];
    let service = Service::start(&database, broker, &settings).await;
    let topic = format!("{name}/measurements/{}", uuid::Uuid::new_v4());
    let client = Client::connect(broker.url(), &format!("{name}-sensor")).await;
    publish(&client, &topic, 0..5).await;
    service.wait_for_ledger(|entry| entry.committed == 5).await;
    assert_eq!(count(&database, ROWS).await, 5);

    let admin = connect(&old.url("postgres")).await.unwrap();
    admin.batch_execute("alter system set default_transaction_read_only = on").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    let sessions = "select count(*) from pg_stat_activity where application_name ~ 'tributary-'";
    publish(&client, &topic, 5..10).await;

    let client_of_new = connect(&new.url(name)).await.unwrap();
    let rows = async || -> i64 { client_of_new.query_one(ROWS, &[]).await.unwrap().get(0) };
    // Each session reloads its settings a little later; until then the old server stores rows.
    eventually(TIMEOUT, async || match (count(&database, ROWS).await, rows().await) {
        (on_old, on_new) if on_old + on_new == 10 => Ok(()),
        other => Err((other, service.log())),
    })
    .await;
    eventually(TIMEOUT, async || {
        let row = admin.query_one("show default_transaction_read_only", &[]).await.unwrap();
        if row.get::<_, String>(0) == "on" { Ok(()) } else { Err("it is not read-only yet") }
    })
    .await;
    let on_old = count(&database, ROWS).await;
    publish(&client, &topic, 10..15).await;
    eventually(TIMEOUT, async || match rows().await {
        on_new if on_old + on_new == 15 => Ok(()),
        other => Err((other, service.log())),
    })
    .await;
    assert!(rows().await >= 5 && count(&database, ROWS).await == on_old);
    // The API's connections move as well; each is checked before use.
    service.create_sensor("on the new one").await;
    eventually(TIMEOUT, async || {
        for _ in 0..8 {
            drop(service.get("/api/v1/sensors").await);
        }
        let row = admin.query_one(sessions, &[]).await.unwrap();
        match row.get::<_, i64>(0) {
            0..=2 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    // The leader's lock and the LISTEN connection move to the new server.
    let leader_locks = "select count(*) from pg_locks join pg_stat_activity using (pid)
                 where locktype = 'advisory' and granted and application_name = 'tributary-leader'";
    let listeners =
        "select count(*) from pg_stat_activity where application_name = 'tributary-instances'";
    eventually(TIMEOUT, async || {
        let mut counts = Vec::new();
        for (server, statement) in [
            (&admin, leader_locks),
            (&admin, listeners),
            (&client_of_new, leader_locks),
            (&client_of_new, listeners),
        ] {
            counts.push(server.query_one(statement, &[]).await.unwrap().get::<_, i64>(0));
        }
        if counts == [0, 0, 1, 1] { Ok(()) } else { Err(counts) }
    })
    .await;
}

#[actix_rt::test]
async fn a_host_that_accepts_but_never_answers_is_skipped() {
    let broker = Broker::shared().await;
    let database = database().await;
    let (_listener, silent) = silent_server();
    let url = format!(
        "postgres://postgres@127.0.0.1:{silent},127.0.0.1:{}/{}",
        port_of(&database.url),
        database.name
    );
    let started_at = Instant::now();
    let bench = Bench::connect(&config(&url)).await.unwrap();
    assert!(started_at.elapsed() < Duration::from_secs(4), "{:?}", started_at.elapsed());
    drop(bench);

    let service = Service::start(&database, broker, &[("DATABASE_URL", &url)]).await;
    let sensor = service.create_sensor("exported").await;
    let path = format!("/api/v1/sensors/{sensor}/measurements/export");
    let (status, answer) = get_text(&service, &path).await;
    assert_eq!(status, 200, "an export connects as the pools do: {answer}");
}

/// COMMIT waits for the standby `name`, which does not exist; it does not wait if `name` is empty.
async fn set_synchronous_standby(admin: &tokio_postgres::Client, name: &str) {
    let statement = format!("alter system set synchronous_standby_names = '{name}'");
    admin.batch_execute("set synchronous_commit = local").await.unwrap();
    admin.batch_execute(&statement).await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
}

#[actix_rt::test]
async fn a_commit_that_waits_for_a_standby_is_reported_within_seconds() {
    let broker = Broker::shared().await;
    let postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    let service = Service::start(&database, broker, &[("UNKNOWN_SENSOR", "register")]).await;
    wait_for_housekeeping(&service).await;
    let topic = format!("{}/measurements/{}", database.name, uuid::Uuid::new_v4());
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    publish(&client, &topic, 0..1).await;
    service.wait_for_ledger(|entry| entry.committed == 1).await;
    let admin = connect(&postgres.url("postgres")).await.unwrap();
    set_synchronous_standby(&admin, "gone").await;
    let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    let writing = format!("{waiting} and application_name = 'tributary-write'");
    let started_at = Instant::now();
    let sent = Cell::new(1);
    eventually(TIMEOUT, async || {
        // A writer's commits do not wait until its session has reloaded its settings.
        if admin.query_one(&writing, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            publish(&client, &topic, sent.get()..sent.get() + 1).await;
            sent.set(sent.get() + 1);
        }
        match service.get("/readyz").await {
            Ok((503, problem)) if problem.to_string().contains("neither committed nor refused") => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(started_at.elapsed() < Duration::from_secs(12), "{:?}", started_at.elapsed());
    // Longer than the statement timeouts of the API and of the background.
    eventually(Duration::from_secs(60), async || {
        drop(service.get("/api/v1/sensors").await);
        let row = admin.query_one(waiting, &[]).await.unwrap();
        let count: i64 = row.get(0);
        assert!(count <= 12, "backends pile up: {count}");
        if started_at.elapsed() > Duration::from_secs(25) { Ok(()) } else { Err(count) }
    })
    .await;

    set_synchronous_standby(&admin, "").await;
    eventually(TIMEOUT, async || match service.get("/readyz").await {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    service.wait_for_ledger(|entry| entry.in_flight == 0).await;
    assert_eq!(count(&database, ROWS).await, i64::from(sent.get()));
}

/// Cancelling or terminating a session that waits for its standby makes its rows visible: they are committed at the
/// primary only, and would be lost with it.
async fn assert_no_puback_before_the_standby_confirms(payload: impl Fn(u32) -> String, rows: &str) {
    let broker = Broker::shared().await;
    let postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    let settings = [("UNKNOWN_SENSOR", "register"), ("DATABASE_STATEMENT_TIMEOUT_SECS", "1")];
    let mut service = Service::start(&database, broker, &settings).await;
    // The housekeeper's COMMIT would wait as well, and its locks would block the writer.
    wait_for_housekeeping(&service).await;
    let topic = format!("{}/measurements/{}", database.name, uuid::Uuid::new_v4());
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    client.publish(&topic, payload(0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.received == 1 && entry.in_flight == 0).await;
    let admin = connect(&postgres.url("postgres")).await.unwrap();
    set_synchronous_standby(&admin, "gone").await;
    // A terminated session may remain: it drops its temporary tables, and that COMMIT waits.
    let waiting = "select pid from pg_stat_activity
        where wait_event = 'SyncRep' and state = 'active'
          and application_name = 'tributary-write' and pid <> all ($1)";
    let other_than = async |known: &[i32], log: &str| -> Result<i32, String> {
        let found = admin.query(waiting, &[&known]).await.map_err(|error| error.to_string())?;
        Ok(found.first().ok_or(log)?.get(0))
    };
    let mut sent = 1;
    let first = eventually(TIMEOUT, async || {
        // A writer's commits do not wait until its session has reloaded its settings.
        let entry = service.ledger_entry("measurements").await?;
        if entry.received == u64::from(sent) && entry.in_flight == 0 {
            client.publish(&topic, payload(sent)).await.map_err(|error| format!("{error:?}"))?;
            sent += 1;
        }
        other_than(&[], &service.log()).await
    })
    .await;

    admin.execute("select pg_cancel_backend($1)", &[&first]).await.unwrap();
    let unconfirmed = "no synchronous standby has confirmed the commit";
    eventually(TIMEOUT, async || match service.log() {
        log if log.contains(unconfirmed) => Ok(()),
        log => Err(log),
    })
    .await;
    assert_eq!(count(&database, rows).await, i64::from(sent), "committed at the primary");

    // The retry finds the row, but waits as well. So does the second retry.
    let second = eventually(TIMEOUT, async || other_than(&[], &service.log()).await).await;
    admin.execute("select pg_terminate_backend($1)", &[&second]).await.unwrap();
    let known = [second];
    let third = eventually(TIMEOUT, async || other_than(&known, &service.log()).await).await;
    let entry = service.ledger_entry("measurements").await.unwrap();
    assert!(entry.in_flight == 1 && entry.balances(), "{entry:?}");

    // After a restart, the row is still unconfirmed.
    service.kill();
    admin.execute("select pg_terminate_backend($1)", &[&third]).await.unwrap();
    service.restart();
    let known = [second, third];
    eventually(TIMEOUT, async || other_than(&known, &service.log()).await).await;
    // The restarted instance receives messages, although its own row is unconfirmed, too.
    service.wait_for_ledger(|entry| entry.in_flight == 1 && entry.received == 1).await;

    set_synchronous_standby(&admin, "").await;
    let entry = service.wait_for_ledger(|entry| entry.in_flight == 0).await;
    assert_eq!((entry.received, entry.duplicate), (1, 1), "{entry:?}");
    assert_eq!(count(&database, rows).await, i64::from(sent));
}

#[actix_rt::test]
async fn rows_that_no_standby_has_confirmed_are_not_acknowledged() {
    let payload = |second| measurement(f64::from(second));
    assert_no_puback_before_the_standby_confirms(payload, ROWS).await;
}

#[actix_rt::test]
async fn rejections_that_no_standby_has_confirmed_are_not_acknowledged() {
    let payload = |number| format!("not json {number}");
    let rows = "select count(*) from rejection";
    assert_no_puback_before_the_standby_confirms(payload, rows).await;
}

/// PgBouncer in front of a database.
struct Pooler {
    process: Child,
    url: String,
    _files: Files,
}

impl Pooler {
    /// With the required settings only, in particular without `ignore_startup_parameters`.
    async fn start(database: &Database, mode: &str) -> Self {
        let (files, port) = (Files::new(), free_port());
        let users = files.write("users", "\"postgres\" \"\"\n");
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\n\
             listen_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\nauth_type=trust\n\
             auth_file={users}\npool_mode={mode}\n",
            port_of(&database.url)
        );
        let configuration = files.write("pgbouncer.ini", &configuration);
        let mut command = Command::new("pgbouncer");
        command.arg("-q").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // PgBouncer refuses to run as root.
        let is_root = std::fs::metadata("/proc/self")
            .is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
        if is_root {
            command.args(["-u", "nobody"]);
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            for file in [files.directory(), users.as_ref(), configuration.as_ref()] {
                std::fs::set_permissions(file, Clone::clone(&readable)).unwrap();
            }
        }
        let process = command.arg(configuration).spawn().expect("pgbouncer is installed");
        let url = format!("postgres://postgres@127.0.0.1:{port}/{}", database.name);
        eventually(TIMEOUT, async || connect(&url).await.map(drop).map_err(|it| it.to_string()))
            .await;
        Self { process, url, _files: files }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[actix_rt::test]
async fn a_pooler_in_session_mode_works_with_its_default_settings() {
    let broker = Broker::shared().await;
    let database = database().await;
    let pooler = Pooler::start(&database, "session").await;
    let settings = [("DATABASE_URL", pooler.url.as_str()), ("UNKNOWN_SENSOR", "register")];
    let service = Service::start(&database, broker, &settings).await;
    let sensor = service.create_sensor("pooled").await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    publish(&client, &topic, 0..20).await;
    service.wait_for_ledger(|entry| entry.committed == 20 && entry.in_flight == 0).await;
    assert_eq!(count(&database, ROWS).await, 20);
    let path = format!("/api/v1/sensors/{sensor}/measurements");
    assert_eq!(service.get(&path).await.unwrap().0, 200);
    let path = format!("/api/v1/sensors/{sensor}/measurements/export");
    assert_eq!(get_text(&service, &path).await.0, 200);
}

#[actix_rt::test]
async fn a_pooler_in_transaction_or_statement_mode_is_rejected_and_named() {
    let broker = Broker::shared().await;
    let database = database().await;
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&database, mode).await;
        let error = store::migrate(&config(&pooler.url)).await.unwrap_err().to_string();
        assert!(error.contains("PgBouncer") && error.contains("pool_mode=session"), "{error}");
        for migrates in ["true", "false"] {
            let settings = [("DATABASE_URL", pooler.url.as_str()), ("MIGRATE_ON_START", migrates)];
            let mut service = Service::start_unready(&database, broker, &settings);
            let status = service.wait_for_exit().await;
            assert_eq!(status.code(), Some(1), "{mode}, {migrates}");
            assert!(service.log().contains("PgBouncer"), "{}", service.log());
        }
    }
}
