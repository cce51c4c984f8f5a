//! A mosquitto for tests, configured by `scripts/mosquitto.conf`. Called by tests that need a broker.
//! Guarantees persistent sessions, the same port after a restart, and removal with the test process.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tokio::sync::OnceCell;

use super::certificates::ServerTls;
use super::client::Client;
use super::docker::Container;
use super::ports::free_port;
use super::process::Process;
use super::server::{self, Launcher, Server, ServerSpec, variable};
use super::wait::{TIMEOUT, eventually};

const PRODUCTION: &str = include_str!("../../../scripts/mosquitto.conf");
const LAST_SECTION: &str = "# --- What differs from machine to machine ---";

/// The default of the script.
const HOME_IN_CONTAINER: &str = "/tmp/tributary";

/// Debian installs the broker in this directory, which is in the PATH of root only.
const DEBIAN_SBIN: &str = "/usr/sbin";

/// Settings of a broker that differ from the default.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    /// The user and password in its URL; without them the broker accepts anonymous clients.
    pub(crate) account: Option<(&'static str, &'static str)>,
    /// Further users and passwords.
    pub(crate) more_accounts: Vec<(String, String)>,
    /// The access list; without it, every client may publish and subscribe to every topic.
    pub(crate) access: Option<String>,
    /// Adds a second port, with TLS.
    pub(crate) tls: Option<ServerTls>,
    /// Logs one line per packet: `Received PUBACK from …`.
    pub(crate) log_packets: bool,
    /// An additional line of the configuration.
    pub(crate) more: &'static str,
}

/// A broker that this process starts, or the external one that `MQTT_URL` names.
pub(crate) struct Broker {
    server: Server,
    url: String,
    tls_port: Option<u16>,
}

impl Broker {
    /// The shared broker of a test run, or that of `MQTT_URL`. Each test uses a topic prefix of its own.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Broker> = OnceCell::const_new();
        SHARED
            .get_or_init(async || match variable("MQTT_URL") {
                Some(url) => Self { server: Server::External, url, tls_port: None },
                None => Self::start().await,
            })
            .await
    }

    /// Starts a private broker, which the test may stop and start.
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// Starts a private broker with these settings.
    pub(crate) async fn start_with(settings: Settings) -> Self {
        let port = free_port();
        let tls_port = settings.tls.as_ref().map(|_| free_port());
        let server = match Launcher::for_this_run() {
            Launcher::Docker => {
                let home = Path::new(HOME_IN_CONTAINER);
                let second_port = tls_port.map(|port| (8883, port));
                let spec = server_spec(&settings, ("1883", "8883"), home);
                let spec = ServerSpec { second_port, ..spec };
                Server::Container(Container::start(spec, port).await)
            }
            Launcher::Binaries => {
                let home = Process::home(port);
                let listeners =
                    [port, tls_port.unwrap_or_default()].map(|port| format!("{port} 127.0.0.1"));
                let spec = server_spec(&settings, (&listeners[0], &listeners[1]), &home);
                Server::Process(Process::start(&spec, home, Path::new(DEBIAN_SBIN)))
            }
        };
        let account = settings
            .account
            .map(|(user, password)| format!("{user}:{password}@"))
            .unwrap_or_default();
        let broker = Self { server, url: format!("mqtt://{account}127.0.0.1:{port}"), tls_port };
        broker.wait_until_available().await;
        broker
    }

    /// Starts ejabberd as a process on this machine; scripts/setup installs it.
    pub(crate) async fn start_ejabberd() -> Self {
        let port = free_port();
        let spec = ServerSpec {
            image: String::new(),
            user: "",
            inner_port: port,
            second_port: None,
            script: include_str!("../../../scripts/lib/run-ejabberd.sh"),
            arguments: Vec::new(),
            variables: vec![("EJABBERD_PORT", port.to_string())],
            last_signal: "KILL",
        };
        let process = Process::start(&spec, Process::home(port), Path::new(DEBIAN_SBIN));
        let url = format!("mqtt://anyone:anything@127.0.0.1:{port}");
        let broker = Self { server: Server::Process(process), url, tls_port: None };
        broker.wait_until_available().await;
        broker
    }

    /// `mqtt://user:password@host:port`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The URL of the port with TLS.
    pub(crate) fn tls_url(&self) -> String {
        let mut url: url::Url =
            self.url.replacen("mqtt", "mqtts", 1).parse().expect("the broker has a valid URL");
        url.set_port(Some(self.tls_port.expect("the broker has TLS"))).expect("the URL has a host");
        url.into()
    }

    /// SIGTERM: the broker saves sessions and their queues.
    pub(crate) async fn stop(&mut self) {
        self.server.end("TERM").await;
    }

    /// SIGKILL: the broker loses everything since its last save.
    pub(crate) async fn kill(&mut self) {
        self.server.end("KILL").await;
    }

    /// Makes the broker save its state to disk, and returns when the file is written.
    pub(crate) async fn save(&mut self) {
        let store =
            self.server.file("mosquitto.db").expect("the broker is a process on this machine");
        // The broker writes a new file and renames it.
        let inode = || std::fs::metadata(&store).map(|file| file.ino()).ok();
        let before = inode();
        self.server.signal("USR1").await;
        eventually(TIMEOUT, async || match inode() {
            now if now.is_some() && now != before => Ok(()),
            now => Err(now),
        })
        .await;
    }

    /// SIGSTOP: the broker stops responding, and its connections stay open.
    pub(crate) async fn freeze(&mut self) {
        self.server.signal("STOP").await;
    }

    /// SIGCONT.
    pub(crate) async fn thaw(&mut self) {
        self.server.signal("CONT").await;
    }

    /// Starts a stopped broker again, with the same port and its saved state, and returns when it responds.
    pub(crate) async fn start_again(&mut self) {
        self.server.start_again().await;
        self.wait_until_available().await;
    }

    /// The log of the broker; see [`Settings::log_packets`].
    pub(crate) fn log(&self) -> String {
        self.server.log()
    }

    async fn wait_until_available(&self) {
        let client = eventually(TIMEOUT, async || {
            let client = Client::try_connect(&self.url, "tributary-test-probe", true).await;
            client.map_err(|error| self.server.start_failure(error))
        })
        .await;
        client.disconnect().await;
    }
}

fn server_spec(settings: &Settings, listeners: (&str, &str), home: &Path) -> ServerSpec {
    let mut variables =
        vec![("BROKER_CONF", configuration(settings, listeners, &home.display().to_string()))];
    let first = settings.account.map(|(user, password)| format!("{user}:{password}"));
    let more = settings.more_accounts.iter().map(|(user, password)| format!("{user}:{password}"));
    let accounts: Vec<String> = first.into_iter().chain(more).collect();
    variables.push(("BROKER_ACCOUNTS", accounts.join("\n")));
    variables.push(("BROKER_ACL", settings.access.clone().unwrap_or_default()));
    variables.extend(settings.tls.iter().flat_map(ServerTls::variables));
    ServerSpec {
        image: server::mosquitto_image(),
        user: "mosquitto",
        inner_port: 1883,
        second_port: None,
        script: include_str!("../../../scripts/lib/run-mosquitto.sh"),
        arguments: Vec::new(),
        variables,
        last_signal: "KILL",
    }
}

/// The production settings, and the listeners and paths of this broker.
fn configuration(settings: &Settings, listeners: (&str, &str), home: &str) -> String {
    let (shared, _) = PRODUCTION.split_once(LAST_SECTION).expect("the file has this section");
    let access = match settings.account {
        Some(_) => format!("password_file {home}/passwords"),
        None => "allow_anonymous true".into(),
    };
    let access_list =
        settings.access.as_ref().map(|_| format!("acl_file {home}/acl\n")).unwrap_or_default();
    let tls = settings.tls.as_ref().map_or_else(String::new, |tls| {
        let clients = match tls.client_authority {
            Some(_) => format!("cafile {home}/authority.pem\nrequire_certificate true\n"),
            None => String::new(),
        };
        format!(
            "listener {}\ncertfile {home}/certificate.pem\nkeyfile {home}/key.pem\n{clients}",
            listeners.1
        )
    });
    let (listener, more) = (listeners.0, settings.more);
    let log_type = if settings.log_packets { "all" } else { "notice" };
    format!(
        "{shared}\nlistener {listener}\n{access}\npersistence_location {home}/\nlog_dest stderr\n\
         log_type error\nlog_type warning\nlog_type {log_type}\n{access_list}{more}\n{tls}"
    )
}
