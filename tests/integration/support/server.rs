//! A server in a container or as a process: the life-cycle that PostgreSQL and the broker share. Used by `postgres` and
//! `broker`. A stop returns when the server has ended; a start returns before the server is available.

use std::process::Command;
use std::sync::OnceLock;

use super::docker::{self, Container};
use super::process::Process;

/// How private servers run on this machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Launcher {
    Docker,
    Binaries,
}

impl Launcher {
    /// The same for all servers of a run: `TRIBUTARY_TEST_SERVERS`, else Docker if it has both images, else binaries.
    pub(crate) fn for_this_run() -> Self {
        static LAUNCHER: OnceLock<Launcher> = OnceLock::new();
        *LAUNCHER.get_or_init(|| match variable("TRIBUTARY_TEST_SERVERS").as_deref() {
            Some("docker") => Self::Docker,
            Some("binaries") => Self::Binaries,
            Some(other) => panic!("TRIBUTARY_TEST_SERVERS is docker or binaries, not {other}"),
            None if docker::offers(&postgres_image()) && docker::offers(&mosquitto_image()) => {
                Self::Docker
            }
            None => Self::Binaries,
        })
    }
}

/// The description of a server, for both launchers.
pub(crate) struct ServerSpec {
    pub(crate) image: String,
    /// The account inside the image.
    pub(crate) user: &'static str,
    /// The port inside a container.
    pub(crate) inner_port: u16,
    /// A second port inside a container, and its port on this machine.
    pub(crate) second_port: Option<(u16, u16)>,
    /// Runs with `sh -c`, inside the container or on this machine.
    pub(crate) script: &'static str,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
    /// The signal that finally ends the server and its child processes.
    pub(crate) last_signal: &'static str,
}

/// Reads an environment variable for the tests. The service gets its settings as values.
#[expect(
    clippy::disallowed_methods,
    reason = "the servers of the tests are not settings of the service"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The image of PostgreSQL.
pub(crate) fn postgres_image() -> String {
    variable("TRIBUTARY_TEST_POSTGRES_IMAGE").unwrap_or_else(|| "postgres:17".into())
}

/// The image of the broker.
pub(crate) fn mosquitto_image() -> String {
    variable("TRIBUTARY_TEST_MOSQUITTO_IMAGE").unwrap_or_else(|| "eclipse-mosquitto:2".into())
}

/// The reason why a server is not available; its log is read only when this is printed.
pub(crate) struct StartFailure<'a> {
    error: String,
    server: &'a Server,
}

impl std::fmt::Debug for StartFailure<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}; the server's log: {}", self.error, self.server.log())
    }
}

/// A server, by the way in which it was started.
pub(crate) enum Server {
    Process(Process),
    Container(Container),
    /// Named by a variable; tests must not stop it.
    External,
}

impl Server {
    /// Sends the signal and returns when the server has ended. Does not block the thread of the test, on which a client
    /// or the service may also run.
    pub(crate) async fn end(&mut self, signal: &'static str) {
        self.run_blocking(move |server| match server {
            Self::Process(process) => process.end(signal),
            Self::Container(container) => container.end(signal),
            Self::External => panic!("a test that stops a server starts its own"),
        })
        .await;
    }

    /// Sends a signal that does not end the server.
    pub(crate) async fn signal(&mut self, signal: &'static str) {
        self.run_blocking(move |server| match server {
            Self::Process(process) => process.signal(signal),
            Self::Container(_) | Self::External => {
                panic!("the server is not a process of the test")
            }
        })
        .await;
    }

    /// The path of a file of the server, if it runs as a process.
    pub(crate) fn file(&self, name: &str) -> Option<std::path::PathBuf> {
        match self {
            Self::Process(process) => Some(process.file(name)),
            Self::Container(_) | Self::External => None,
        }
    }

    /// Starts the server again, with the same port and files.
    pub(crate) async fn start_again(&mut self) {
        self.run_blocking(|server| match server {
            Self::Process(process) => process.start_again(),
            Self::Container(container) => container.start_again(),
            Self::External => panic!("a test that restarts a server starts its own"),
        })
        .await;
    }

    /// Sends a signal to one process of the server, by its PID inside the server.
    pub(crate) fn signal_inside(&self, signal: &str, pid: i32) {
        match self {
            Self::Process(_) => {
                let kill = format!("kill -s {signal} {pid}");
                let status = Command::new("sh").args(["-c", &kill]).status();
                assert!(status.expect("every Unix has sh").success(), "no process {pid}");
            }
            Self::Container(container) => container.signal_inside(signal, pid),
            Self::External => panic!("a test that signals a backend starts its own server"),
        }
    }

    /// The log of the server.
    pub(crate) fn log(&self) -> String {
        match self {
            Self::Process(process) => process.log(),
            Self::Container(container) => container.log(),
            Self::External => "(the log of an external server is not available)".into(),
        }
    }

    /// Adds the log of the server to an error of its start.
    pub(crate) fn start_failure(&self, error: String) -> StartFailure<'_> {
        StartFailure { error, server: self }
    }

    async fn run_blocking(&mut self, work: impl FnOnce(&mut Self) + Send + 'static) {
        let mut server = std::mem::replace(self, Self::External);
        let task = tokio::task::spawn_blocking(move || {
            work(&mut server);
            server
        });
        *self = task.await.expect("the work does not panic");
    }
}
