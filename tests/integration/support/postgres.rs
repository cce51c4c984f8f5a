//! A PostgreSQL for tests: one shared by a run, or a private one for a test that stops it. Called by every test.
//! Guarantees an empty cluster (or the server that `DATABASE_URL` names), a database per test, and removal of both.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::ValueEnum as _;
use tokio::sync::OnceCell;
use tokio_postgres::NoTls;
use tributary::domain::Kind;
use tributary::store::{self, EngineName};
use url::Url;

use super::certificates::ServerTls;
use super::docker::Container;
use super::ports::free_port;
use super::process::Process;
use super::server::{self, Launcher, Server, ServerSpec, variable};
use super::wait::{TIMEOUT, eventually};

/// Tests kill processes, not the machine: data in the page cache of the kernel is durable enough.
const SETTINGS: &[&str] =
    &["fsync=off", "full_page_writes=off", "max_connections=200", "max_prepared_transactions=200"];
const DURABLE: &[&str] = &["max_connections=200", "max_prepared_transactions=200"];

/// The engine of the databases of this run: `TRIBUTARY_TEST_ENGINE`, else plain PostgreSQL.
pub(crate) fn engine() -> EngineName {
    let named = variable("TRIBUTARY_TEST_ENGINE");
    named.map_or(EngineName::Postgres, |name| {
        EngineName::from_str(&name, true).expect("TRIBUTARY_TEST_ENGINE names an engine")
    })
}

/// Whether the engine of this run is one of these; then it prints why the test is skipped.
pub(crate) fn skipped_on(engines: &[EngineName], why: &str) -> bool {
    let skipped = engines.contains(&engine());
    if skipped {
        eprintln!("skipped on {}: {why}", engine().name());
    }
    skipped
}

/// Whether to skip a test that needs an empty database.
pub(crate) fn without_empty_databases() -> bool {
    skipped_on(&[EngineName::TimescaleDb, EngineName::Citus], "its databases are already migrated")
}

/// Whether to skip a test about the partitions of PostgreSQL.
pub(crate) fn without_partitions() -> bool {
    skipped_on(&[EngineName::TimescaleDb], "it has chunks instead of partitions")
}

/// Replaces a hot table in a statement by the tables in which the engine stores its rows.
pub(crate) fn for_engine_tables(statement: &str) -> String {
    match engine() {
        EngineName::TimescaleDb => {
            let tables = Kind::ALL.map(Kind::name);
            let table = tables.into_iter().find(|table| statement.contains(table));
            let table = table.expect("the statement names a hot table");
            ["chunks", "outlier"]
                .map(|part| statement.replacen(table, &format!("{table}_{part}"), 1))
                .join("; ")
        }
        EngineName::Postgres | EngineName::Citus => statement.to_owned(),
    }
}

/// The interval in which a standby retries the connection to its primary.
const STANDBY: &str = "wal_retrieve_retry_interval=100ms";

/// Settings of a server that differ from the default.
#[derive(Default)]
pub(crate) struct Settings {
    /// Enables TLS.
    pub(crate) tls: Option<ServerTls>,
    /// The first lines of `pg_hba.conf`.
    pub(crate) host_based_access: &'static str,
    /// Waits for the disk, as in production.
    pub(crate) durable: bool,
    /// The offset of its clock in the format of libfaketime, such as `+200d`. Needs [`Launcher::Binaries`].
    pub(crate) clock: Option<&'static str>,
    /// The URL of its primary if it is a standby. Needs [`Launcher::Binaries`].
    pub(crate) primary: Option<String>,
}

/// A server that this process starts, or the external one that `DATABASE_URL` names.
pub(crate) struct Postgres {
    server: Server,
    /// The URL of the maintenance database; the URLs of others have another path.
    base: Url,
}

/// A database of one test. `Drop` drops it on an external server; other servers are removed as a whole.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) url: String,
    external_server: Option<String>,
}

impl Postgres {
    /// The shared server of a test run, or the one that `DATABASE_URL` names.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED
            .get_or_init(async || match variable("DATABASE_URL") {
                Some(named) => Self {
                    server: Server::External,
                    base: named.parse().expect("DATABASE_URL is a URL"),
                },
                None => Self::start().await,
            })
            .await
    }

    /// Starts a private server, which the test may stop and start.
    pub(crate) async fn start() -> Self {
        Self::start_with(&Settings::default()).await
    }

    /// Starts a private server with these settings.
    pub(crate) async fn start_with(settings: &Settings) -> Self {
        let port = free_port();
        let server = match Launcher::for_this_run() {
            Launcher::Docker => {
                Server::Container(Container::start(server_spec(settings, "*", 5432), port).await)
            }
            Launcher::Binaries => {
                let spec = server_spec(settings, "127.0.0.1", port);
                let start = move || Process::start(&spec, Process::home(port), &newest_binaries());
                Server::Process(
                    tokio::task::spawn_blocking(start).await.expect("the server starts"),
                )
            }
        };
        let base = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let postgres = Self { server, base: base.parse().expect("the URL is valid") };
        postgres.wait_until_available().await;
        postgres
    }

    /// Starts a standby of this server, with this clock offset.
    pub(crate) async fn start_standby(&self, clock: Option<&'static str>) -> Self {
        let primary = Some(self.base.as_str().to_owned());
        Self::start_with(&Settings { clock, primary, ..Settings::default() }).await
    }

    /// Changes the clock offset of a server that was started with [`Settings::clock`].
    pub(crate) fn set_clock(&self, offset: &str) {
        let clock = self.server.file("clock").expect("the server is a process on this machine");
        std::fs::write(clock, format!("{offset}\n")).expect("the file is writable");
    }

    /// The URL of a database of this server.
    pub(crate) fn url(&self, database: &str) -> String {
        let mut url = self.base.clone();
        url.set_path(database);
        url.into()
    }

    /// Creates a database: empty, or a copy of `template`, to which no session may be connected.
    pub(crate) async fn create_database(&self, template: Option<&str>) -> Database {
        self.create_database_in("pg_default", template).await
    }

    /// The same in a tablespace.
    pub(crate) async fn create_database_in(
        &self,
        tablespace: &str,
        template: Option<&str>,
    ) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tributary_test_{}_{number}", std::process::id());
        let source = template.unwrap_or("template0");
        let client = connect(self.base.as_str()).await.expect("the server accepts connections");
        let created = client
            .batch_execute(&format!(
                "create database {name} template {source} tablespace {tablespace}"
            ))
            .await;
        created.unwrap_or_else(|error| panic!("no database {name} from {source}: {error:?}"));
        if template.is_none() && engine() != EngineName::Postgres {
            let url = self.url(&name);
            let settings = |setting: &str| (setting == "DATABASE_URL").then(|| url.clone());
            let config = tributary::config::read_store(settings).expect("the URL is valid");
            store::migrate_to(&config, Some(engine())).await.expect("the engine is installed");
        }
        let is_external = matches!(self.server, Server::External);
        let external_server = is_external.then(|| self.base.as_str().to_owned());
        Database { url: self.url(&name), name, external_server }
    }

    /// SIGINT: the server closes sessions, rolls back transactions and writes a checkpoint.
    pub(crate) async fn stop_fast(&mut self) {
        self.server.end("INT").await;
    }

    /// SIGQUIT: the server ends without a checkpoint, and the next start recovers from the WAL.
    pub(crate) async fn stop_immediate(&mut self) {
        self.server.end("QUIT").await;
    }

    /// Starts a stopped server again, with the same port and data, and returns when it responds.
    pub(crate) async fn start_again(&mut self) {
        self.server.start_again().await;
        self.wait_until_available().await;
    }

    /// SIGKILL to the backend with this `pg_backend_pid()`; the server then closes all sessions and recovers.
    pub(crate) fn kill_backend(&self, pid: i32) {
        self.server.signal_inside("KILL", pid);
    }

    /// SIGSTOP to the backend with this `pg_backend_pid()`: it stops responding, and its connection stays open.
    pub(crate) fn freeze_backend(&self, pid: i32) {
        self.server.signal_inside("STOP", pid);
    }

    /// SIGCONT.
    pub(crate) fn thaw_backend(&self, pid: i32) {
        self.server.signal_inside("CONT", pid);
    }

    /// Returns when the server accepts connections.
    pub(crate) async fn wait_until_available(&self) {
        let attempt = async || connect(self.base.as_str()).await?.batch_execute("select 1").await;
        eventually(TIMEOUT, async || {
            attempt().await.map_err(|error| self.server.start_failure(error.to_string()))
        })
        .await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(base) = self.external_server.take() else {
            return;
        };
        let statement = format!("drop database if exists {} with (force)", self.name);
        // A thread, because `drop` may run within a runtime, and runtimes cannot be nested.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                anyhow::Ok(connect(&base).await?.batch_execute(&statement).await?)
            })
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            eprintln!("the test database {} could not be dropped", self.name);
        }
    }
}

/// A connection without TLS, driven by a task of the current runtime.
pub(crate) async fn connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        // Tests close connections on purpose; the next call of the client returns the error.
        drop(connection.await);
    });
    Ok(client)
}

fn server_spec(settings: &Settings, listen_addresses: &str, inner_port: u16) -> ServerSpec {
    let address = [format!("listen_addresses={listen_addresses}"), format!("port={inner_port}")];
    let tls = settings.tls.iter().flat_map(|tls| {
        let authority = tls.client_authority.as_ref().map(|_| "ssl_ca_file=../authority.pem");
        ["ssl=on", "ssl_cert_file=../certificate.pem", "ssl_key_file=../key.pem"]
            .into_iter()
            .chain(authority)
    });
    let arguments = if settings.durable { DURABLE } else { SETTINGS };
    let standby = settings.primary.as_ref().map(|_| STANDBY);
    let preloaded: &[&str] = match engine() {
        EngineName::Postgres => &[],
        EngineName::TimescaleDb => &["shared_preload_libraries=timescaledb"],
        // Citus connects to itself; without TLS, because it would look for certificates in the home of another account.
        // It needs a worker per database, which ends abandoned prepared transactions, and further ones per session.
        EngineName::Citus => &[
            "shared_preload_libraries=citus",
            "citus.node_conninfo=sslmode=disable",
            "max_worker_processes=500",
            "max_connections=1000",
            "max_prepared_transactions=1000",
            "citus.recover_2pc_interval=1s",
        ],
    };
    let arguments = arguments.iter().chain(preloaded).copied().chain(tls).chain(standby);
    let arguments = arguments.map(str::to_owned).chain(address);
    let mut variables: Vec<_> = settings.tls.iter().flat_map(ServerTls::variables).collect();
    variables.push(("POSTGRES_HBA", settings.host_based_access.to_owned()));
    if let Some(offset) = settings.clock {
        let file = Process::home(inner_port).join("clock").display().to_string();
        variables.extend([
            ("FAKED_TIME", offset.to_owned()),
            ("LD_PRELOAD", libfaketime()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]);
    }
    if let Some(primary) = &settings.primary {
        variables.push(("POSTGRES_PRIMARY", primary.clone()));
    }
    ServerSpec {
        image: server::postgres_image(),
        user: "postgres",
        inner_port,
        script: include_str!("../../../scripts/lib/run-postgres.sh"),
        arguments: arguments.flat_map(|argument| ["-c".to_owned(), argument]).collect(),
        variables,
        second_port: None,
        // Not SIGKILL: on SIGQUIT the server also ends its backends and removes its shared memory.
        last_signal: "QUIT",
    }
}

/// Debian installs it outside the path of the linker, in a directory named after the architecture.
fn libfaketime() -> String {
    let directories = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    directories
        .map(|directory| directory.path().join("faketime/libfaketime.so.1"))
        .find(|library| library.exists())
        .expect("libfaketime is missing: run scripts/setup")
        .display()
        .to_string()
}

/// Debian installs PostgreSQL outside PATH, with several versions in parallel.
fn newest_binaries() -> PathBuf {
    let in_path = variable("PATH").unwrap_or_default();
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let in_path = std::env::split_paths(&in_path).filter_map(|directory| {
        directory.join("postgres").canonicalize().ok()?.parent().map(PathBuf::from)
    });
    let in_path: Vec<_> = in_path.collect();
    // `max_by_key` returns the last of several with the same version: the one that is first in PATH.
    packaged
        .map(|version| version.path().join("bin"))
        .chain(in_path.into_iter().rev())
        .filter(|directory| directory.join("initdb").exists())
        .max_by_key(|directory| major_version(directory))
        .expect("PostgreSQL is missing: run scripts/setup")
}

/// The 17 of `postgres (PostgreSQL) 17.2 (Debian 17.2-1)`.
fn major_version(binaries: &std::path::Path) -> Option<u32> {
    let output = Command::new(binaries.join("postgres")).arg("--version").output().ok()?;
    let stdout = String::from_utf8(output.stdout).ok()?;
    let version = stdout.split(' ').nth(2)?;
    version.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
}
