//! One server, wherever it runs: the life-cycle that PostgreSQL and the broker share. Used by `postgres` and `broker`.
//! Promises that a stop has happened when it returns; that a start is complete is for the caller to find out.

use std::process::Command;
use std::sync::OnceLock;

use super::docker::{self, Container};
use super::process::Process;

/// Where private servers run on this machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Launcher {
    Docker,
    Binaries,
}

impl Launcher {
    /// The same for every server of a run: `TRIBUTARY_TEST_SERVERS`, else Docker if it offers both images, else binaries.
    pub(crate) fn of_this_run() -> Self {
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

/// What is to run, in either place.
pub(crate) struct ServerSpec {
    pub(crate) image: String,
    /// The account inside the image.
    pub(crate) user: &'static str,
    /// The port inside a container.
    pub(crate) inner_port: u16,
    /// Another port inside a container, and where it is reached.
    pub(crate) second_port: Option<(u16, u16)>,
    /// What runs inside the container or on the machine, by `sh -c`.
    pub(crate) script: &'static str,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Ends the server when nobody needs it any more, and whatever it has started.
    pub(crate) last_signal: &'static str,
}

/// What the environment says to the tests; the service's own settings are handed to it as values.
#[expect(
    clippy::disallowed_methods,
    reason = "where the tests' servers are is no setting of the service"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The image that PostgreSQL runs from.
pub(crate) fn postgres_image() -> String {
    variable("TRIBUTARY_TEST_POSTGRES_IMAGE").unwrap_or_else(|| "postgres:17".into())
}

/// The image that the broker runs from.
pub(crate) fn mosquitto_image() -> String {
    variable("TRIBUTARY_TEST_MOSQUITTO_IMAGE").unwrap_or_else(|| "eclipse-mosquitto:2".into())
}

/// Why a server did not answer; its log is fetched when that is printed, not at every look.
pub(crate) struct StartFailure<'a> {
    error: String,
    server: &'a Server,
}

impl std::fmt::Debug for StartFailure<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}; the server's log: {}", self.error, self.server.log())
    }
}

/// A server, and who looks after it.
pub(crate) enum Server {
    Process(Process),
    Container(Container),
    /// Named by a variable; it is not ours to stop.
    External,
}

impl Server {
    /// Sends the signal and returns when the server has ended, without holding the test's thread up: what it runs
    /// beside (the service under test, a client) goes on meanwhile.
    pub(crate) async fn end(&mut self, signal: &'static str) {
        self.elsewhere(move |server| match server {
            Self::Process(process) => process.end(signal),
            Self::Container(container) => container.end(signal),
            Self::External => panic!("a test that stops a server starts its own"),
        })
        .await;
    }

    /// Sends a signal that does not end the server.
    pub(crate) async fn signal(&mut self, signal: &'static str) {
        self.elsewhere(move |server| match server {
            Self::Process(process) => process.signal(signal),
            Self::Container(_) | Self::External => panic!("only a process of ours is signalled"),
        })
        .await;
    }

    /// A file of the server's, where it runs on this machine.
    pub(crate) fn file(&self, name: &str) -> Option<std::path::PathBuf> {
        match self {
            Self::Process(process) => Some(process.file(name)),
            Self::Container(_) | Self::External => None,
        }
    }

    /// Starts the server again, on the same port and the same files.
    pub(crate) async fn start_again(&mut self) {
        self.elsewhere(|server| match server {
            Self::Process(process) => process.start_again(),
            Self::Container(container) => container.start_again(),
            Self::External => panic!("a test that restarts a server starts its own"),
        })
        .await;
    }

    /// A signal to one process of the server, by the number that the server knows it by.
    pub(crate) fn signal_inside(&self, signal: &str, pid: i32) {
        match self {
            Self::Process(_) => {
                let kill = format!("kill -s {signal} {pid}");
                let status = Command::new("sh").args(["-c", &kill]).status();
                assert!(status.expect("every Unix has sh").success(), "there is no process {pid}");
            }
            Self::Container(container) => container.signal_inside(signal, pid),
            Self::External => panic!("a test that signals a backend starts its own server"),
        }
    }

    /// What the server has logged, for a person who reads why it did not start, and for tests of what it saw.
    pub(crate) fn log(&self) -> String {
        match self {
            Self::Process(process) => process.log(),
            Self::Container(container) => container.log(),
            Self::External => "(the log of a server named by a variable is elsewhere)".into(),
        }
    }

    /// What is seen of a server that does not answer.
    pub(crate) fn start_failure(&self, error: String) -> StartFailure<'_> {
        StartFailure { error, server: self }
    }

    async fn elsewhere(&mut self, work: impl FnOnce(&mut Self) + Send + 'static) {
        let mut server = std::mem::replace(self, Self::External);
        let worked = tokio::task::spawn_blocking(move || {
            work(&mut server);
            server
        });
        *self = worked.await.expect("the work does not panic");
    }
}
