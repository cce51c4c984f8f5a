//! A PostgreSQL for tests: one shared by a run, or one of its own for a test that stops it. Called by every test.
//! Promises an empty cluster (or the server that `DATABASE_URL` names), a database for each who asks, and no leftovers.

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

/// Tests kill processes, never the machine: what the kernel has taken is durable enough for them.
const SETTINGS: &[&str] =
    &["fsync=off", "full_page_writes=off", "max_connections=200", "max_prepared_transactions=200"];
const DURABLE: &[&str] = &["max_connections=200", "max_prepared_transactions=200"];

/// The engine that each test's database is migrated for: `TRIBUTARY_TEST_ENGINE`, else PostgreSQL itself.
pub(crate) fn engine() -> EngineName {
    let named = variable("TRIBUTARY_TEST_ENGINE");
    named.map_or(EngineName::Postgres, |name| {
        EngineName::from_str(&name, true).expect("TRIBUTARY_TEST_ENGINE names an engine")
    })
}

/// Whether a test cannot apply to the engine of this run; then it prints why.
pub(crate) fn skipped_on(engines: &[EngineName], why: &str) -> bool {
    let skipped = engines.contains(&engine());
    if skipped {
        eprintln!("skipped on {}: {why}", engine().name());
    }
    skipped
}

/// Whether a test that begins with an empty database cannot apply to the engine of this run.
pub(crate) fn without_empty_databases() -> bool {
    skipped_on(&[EngineName::TimescaleDb, EngineName::Citus], "its databases are migrated before")
}

/// Whether a test about the partitions of PostgreSQL cannot apply to the engine of this run.
pub(crate) fn without_partitions() -> bool {
    skipped_on(&[EngineName::TimescaleDb], "it has chunks, and no partitions")
}

/// A statement about a hot table, for the tables where the engine keeps its rows.
pub(crate) fn on_table(statement: &str) -> String {
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

/// A standby looks for its primary again after this long.
const STANDBY: &str = "wal_retrieve_retry_interval=100ms";

/// How a server differs from the others.
#[derive(Default)]
pub(crate) struct Settings {
    /// Without it there is no TLS.
    pub(crate) tls: Option<ServerTls>,
    /// Lines that go before the others of `pg_hba.conf`.
    pub(crate) host_based_access: &'static str,
    /// It waits for its disk, as in production.
    pub(crate) durable: bool,
    /// How far its clock is off, as libfaketime has it: `+200d`. Needs [`Launcher::Binaries`].
    pub(crate) clock: Option<&'static str>,
    /// The server that it is a standby of. Needs [`Launcher::Binaries`].
    pub(crate) primary: Option<String>,
}

/// A server, or the name of one that is not ours.
pub(crate) struct Postgres {
    server: Server,
    /// The maintenance database's URL; the others differ from it in their last part.
    base: Url,
}

/// A database of one's own. On a server that is not ours it is dropped at the end; ours goes as a whole.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) url: String,
    dropped_through: Option<String>,
}

impl Postgres {
    /// The server that the tests of a run share; the one that `DATABASE_URL` names, if it is set.
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

    /// A server of one's own, to stop and to start.
    pub(crate) async fn start() -> Self {
        Self::start_with(&Settings::default()).await
    }

    /// A server of one's own that differs from the others.
    pub(crate) async fn start_with(settings: &Settings) -> Self {
        let port = free_port();
        let server = match Launcher::of_this_run() {
            Launcher::Docker => {
                Server::Container(Container::start(service(settings, "*", 5432), port).await)
            }
            Launcher::Binaries => {
                let service = service(settings, "127.0.0.1", port);
                let start =
                    move || Process::start(&service, Process::home(port), &newest_binaries());
                Server::Process(
                    tokio::task::spawn_blocking(start).await.expect("the binaries work"),
                )
            }
        };
        let base = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let postgres = Self { server, base: base.parse().expect("it is well formed") };
        postgres.answers().await;
        postgres
    }

    /// A standby of this server, with a clock like its.
    pub(crate) async fn start_standby(&self, clock: Option<&'static str>) -> Self {
        let primary = Some(self.base.as_str().to_owned());
        Self::start_with(&Settings { clock, primary, ..Settings::default() }).await
    }

    /// From now on its clock is this far off. For a server that was started with a clock of its own.
    pub(crate) fn set_clock(&self, offset: &str) {
        let clock = self.server.file("clock").expect("it is a process on this machine");
        std::fs::write(clock, format!("{offset}\n")).expect("the server has a clock of its own");
    }

    /// The URL of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        let mut url = self.base.clone();
        url.set_path(database);
        url.into()
    }

    /// A new database with a name of its own: empty, or a copy of `template`, which nobody may be connected to.
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
        let origin = template.unwrap_or("template0");
        let client = connect(self.base.as_str()).await.expect("the server answers");
        let created = client
            .batch_execute(&format!(
                "create database {name} template {origin} tablespace {tablespace}"
            ))
            .await;
        created.unwrap_or_else(|error| panic!("no database {name} from {origin}: {error:?}"));
        if template.is_none() && engine() != EngineName::Postgres {
            let url = self.url(&name);
            let settings = |setting: &str| (setting == "DATABASE_URL").then(|| url.clone());
            let config = tributary::config::read_store(settings).expect("the URL is one");
            store::migrate_to(&config, Some(engine())).await.expect("the engine is there");
        }
        let outside = matches!(self.server, Server::External);
        let dropped_through = outside.then(|| self.base.as_str().to_owned());
        Database { url: self.url(&name), name, dropped_through }
    }

    /// SIGINT: sessions are ended, transactions rolled back, the data saved.
    pub(crate) async fn stop_fast(&mut self) {
        self.server.end("INT").await;
    }

    /// SIGQUIT: sessions are cut off, and the next start recovers from the log.
    pub(crate) async fn stop_immediate(&mut self) {
        self.server.end("QUIT").await;
    }

    /// Starts a stopped server again, on the same port with the same data, and returns when it answers.
    pub(crate) async fn start_again(&mut self) {
        self.server.start_again().await;
        self.answers().await;
    }

    /// SIGKILL to the backend with this `pg_backend_pid()`; the server then ends every session and recovers.
    pub(crate) fn kill_backend(&self, pid: i32) {
        self.server.signal_inside("KILL", pid);
    }

    /// SIGSTOP to the backend with this `pg_backend_pid()`: it says nothing, and its connection stays.
    pub(crate) fn freeze_backend(&self, pid: i32) {
        self.server.signal_inside("STOP", pid);
    }

    /// It goes on.
    pub(crate) fn thaw_backend(&self, pid: i32) {
        self.server.signal_inside("CONT", pid);
    }

    /// Returns when the server takes connections.
    pub(crate) async fn answers(&self) {
        let ask = async || connect(self.base.as_str()).await?.batch_execute("select 1").await;
        eventually(TIMEOUT, async || {
            ask().await.map_err(|error| self.server.start_failure(error.to_string()))
        })
        .await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(base) = self.dropped_through.take() else {
            return;
        };
        let statement = format!("drop database if exists {} with (force)", self.name);
        // A thread, because a runtime cannot be entered from within another, and drop may run within one.
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

/// A plain connection, driven by a task of the current runtime.
pub(crate) async fn connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        // Tests cut connections off on purpose; the client's next call says so.
        drop(connection.await);
    });
    Ok(client)
}

fn service(differs: &Settings, listen_addresses: &str, inner_port: u16) -> ServerSpec {
    let place = [format!("listen_addresses={listen_addresses}"), format!("port={inner_port}")];
    let tls = differs.tls.iter().flat_map(|tls| {
        let authority = tls.client_authority.as_ref().map(|_| "ssl_ca_file=../authority.pem");
        ["ssl=on", "ssl_cert_file=../certificate.pem", "ssl_key_file=../key.pem"]
            .into_iter()
            .chain(authority)
    });
    let settings = if differs.durable { DURABLE } else { SETTINGS };
    let standby = differs.primary.as_ref().map(|_| STANDBY);
    let preloaded: &[&str] = match engine() {
        EngineName::Postgres => &[],
        EngineName::TimescaleDb => &["shared_preload_libraries=timescaledb"],
        // It connects to itself: without TLS, for which it would look for certificates in the home of another account.
        // Each database has a worker, which ends the prepared transactions of dead sessions, and each session others.
        EngineName::Citus => &[
            "shared_preload_libraries=citus",
            "citus.node_conninfo=sslmode=disable",
            "max_worker_processes=500",
            "max_connections=1000",
            "max_prepared_transactions=1000",
            "citus.recover_2pc_interval=1s",
        ],
    };
    let settings = settings.iter().chain(preloaded).copied().chain(tls).chain(standby);
    let settings = settings.map(str::to_owned);
    let mut variables: Vec<_> = differs.tls.iter().flat_map(ServerTls::variables).collect();
    variables.push(("POSTGRES_HBA", differs.host_based_access.to_owned()));
    if let Some(offset) = differs.clock {
        let file = Process::home(inner_port).join("clock").display().to_string();
        variables.extend([
            ("FAKED_TIME", offset.to_owned()),
            ("LD_PRELOAD", libfaketime()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]);
    }
    if let Some(primary) = &differs.primary {
        variables.push(("POSTGRES_PRIMARY", primary.clone()));
    }
    ServerSpec {
        image: server::postgres_image(),
        user: "postgres",
        inner_port,
        script: include_str!("../../../scripts/lib/run-postgres.sh"),
        arguments: settings.chain(place).flat_map(|setting| ["-c".to_owned(), setting]).collect(),
        variables,
        second_port: None,
        // Not SIGKILL: the server takes its backends and its shared memory along.
        last_signal: "QUIT",
    }
}

/// Debian and its kin keep it out of the linker's path, in a directory named after the machine.
fn libfaketime() -> String {
    let directories = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    directories
        .map(|directory| directory.path().join("faketime/libfaketime.so.1"))
        .find(|library| library.exists())
        .expect("libfaketime is installed: scripts/setup does it")
        .display()
        .to_string()
}

/// Debian and its kin keep PostgreSQL out of PATH, several versions side by side.
fn newest_binaries() -> PathBuf {
    let in_path = variable("PATH").unwrap_or_default();
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let in_path = std::env::split_paths(&in_path).filter_map(|directory| {
        directory.join("postgres").canonicalize().ok()?.parent().map(PathBuf::from)
    });
    let in_path: Vec<_> = in_path.collect();
    // Of several of one version the last counts: the one that is first in PATH.
    packaged
        .map(|version| version.path().join("bin"))
        .chain(in_path.into_iter().rev())
        .filter(|directory| directory.join("initdb").exists())
        .max_by_key(|directory| major_version(directory))
        .expect("PostgreSQL is installed: scripts/setup does it")
}

/// The 17 of `postgres (PostgreSQL) 17.2 (Debian 17.2-1)`.
fn major_version(binaries: &std::path::Path) -> Option<u32> {
    let output = Command::new(binaries.join("postgres")).arg("--version").output().ok()?;
    let sentence = String::from_utf8(output.stdout).ok()?;
    let version = sentence.split(' ').nth(2)?;
    version.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
}
