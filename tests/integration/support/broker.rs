//! A mosquitto for tests, set up as `scripts/mosquitto.conf` tells everyone to. Called by tests that need a broker.
//! Promises persistent sessions, a port that stays over restarts, and no leftovers.

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

/// The script's own choice, where no variable names another one.
const HOME_IN_CONTAINER: &str = "/tmp/tributary";

/// Debian keeps the broker where only root has its PATH.
const DEBIAN_SBIN: &str = "/usr/sbin";

/// How a broker differs from the others.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    /// The user and password of its URL; without them everyone may connect.
    pub(crate) account: Option<(&'static str, &'static str)>,
    /// Others who may connect then.
    pub(crate) more_accounts: Vec<(String, String)>,
    /// Who may read and write what; without it, everyone all.
    pub(crate) access: Option<String>,
    /// With it there is another port, for TLS.
    pub(crate) tls: Option<ServerTls>,
    /// Every packet goes to the log, one line each: `Received PUBACK from …`.
    pub(crate) log_packets: bool,
    /// One more line of its configuration.
    pub(crate) more: &'static str,
}

/// A broker, or the name of one that is not ours.
pub(crate) struct Broker {
    server: Server,
    url: String,
    tls_port: Option<u16>,
}

impl Broker {
    /// The broker that the tests of a run share, each under a topic prefix of its own; `MQTT_URL`'s, if it is set.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Broker> = OnceCell::const_new();
        SHARED
            .get_or_init(async || match variable("MQTT_URL") {
                Some(url) => Self { server: Server::External, url, tls_port: None },
                None => Self::start().await,
            })
            .await
    }

    /// A broker of one's own, to stop and to start.
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// A broker of one's own with other settings.
    pub(crate) async fn start_with(settings: Settings) -> Self {
        let port = free_port();
        let tls_port = settings.tls.as_ref().map(|_| free_port());
        let server = match Launcher::of_this_run() {
            Launcher::Docker => {
                let home = Path::new(HOME_IN_CONTAINER);
                let second_port = tls_port.map(|port| (8883, port));
                let service = service(&settings, ("1883", "8883"), home);
                let service = ServerSpec { second_port, ..service };
                Server::Container(Container::start(service, port).await)
            }
            Launcher::Binaries => {
                let home = Process::home(port);
                let listeners =
                    [port, tls_port.unwrap_or_default()].map(|port| format!("{port} 127.0.0.1"));
                let service = service(&settings, (&listeners[0], &listeners[1]), &home);
                Server::Process(Process::start(&service, home, Path::new(DEBIAN_SBIN)))
            }
        };
        let account = settings
            .account
            .map(|(user, password)| format!("{user}:{password}@"))
            .unwrap_or_default();
        let broker = Self { server, url: format!("mqtt://{account}127.0.0.1:{port}"), tls_port };
        broker.answers().await;
        broker
    }

    /// A broker of another make, as a process of this machine: scripts/setup installs it.
    pub(crate) async fn start_ejabberd() -> Self {
        let port = free_port();
        let service = ServerSpec {
            image: String::new(),
            user: "",
            inner_port: port,
            second_port: None,
            script: include_str!("../../../scripts/lib/run-ejabberd.sh"),
            arguments: Vec::new(),
            variables: vec![("EJABBERD_PORT", port.to_string())],
            last_signal: "KILL",
        };
        let process = Process::start(&service, Process::home(port), Path::new(DEBIAN_SBIN));
        let url = format!("mqtt://anyone:anything@127.0.0.1:{port}");
        let broker = Self { server: Server::Process(process), url, tls_port: None };
        broker.answers().await;
        broker
    }

    /// `mqtt://user:password@host:port`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The same over TLS.
    pub(crate) fn tls_url(&self) -> String {
        let mut url: url::Url = self.url.replacen("mqtt", "mqtts", 1).parse().expect("it is one");
        url.set_port(Some(self.tls_port.expect("it was started with TLS"))).expect("it has one");
        url.into()
    }

    /// SIGTERM: sessions and their queues are saved.
    pub(crate) async fn stop(&mut self) {
        self.server.end("TERM").await;
    }

    /// SIGKILL: what came since the last save is lost.
    pub(crate) async fn kill(&mut self) {
        self.server.end("KILL").await;
    }

    /// Writes all that it holds to the disk, and returns when it is there.
    pub(crate) async fn save(&mut self) {
        let store = self.server.file("mosquitto.db").expect("it runs on this machine");
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

    /// SIGSTOP: it says nothing, and its connections stay.
    pub(crate) async fn freeze(&mut self) {
        self.server.signal("STOP").await;
    }

    /// SIGCONT.
    pub(crate) async fn thaw(&mut self) {
        self.server.signal("CONT").await;
    }

    /// Starts a stopped broker again, on the same port with what it had saved, and returns when it answers.
    pub(crate) async fn start_again(&mut self) {
        self.server.start_again().await;
        self.answers().await;
    }

    /// What the broker has logged; see [`Settings::log_packets`].
    pub(crate) fn log(&self) -> String {
        self.server.log()
    }

    async fn answers(&self) {
        let client = eventually(TIMEOUT, async || {
            let client = Client::try_connect(&self.url, "tributary-test-probe", true).await;
            client.map_err(|error| self.server.start_failure(error))
        })
        .await;
        client.disconnect().await;
    }
}

fn service(settings: &Settings, listeners: (&str, &str), home: &Path) -> ServerSpec {
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

/// The production settings, and the place of this one.
fn configuration(settings: &Settings, listeners: (&str, &str), home: &str) -> String {
    let (shared, _) = PRODUCTION.split_once(LAST_SECTION).expect("the last section is there");
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
