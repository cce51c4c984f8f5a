//! The service: the real binary, as a process to which a test can send requests and signals. Called by every test of
//! the whole pipeline. Guarantees that the process ends with its test, and that the log is printed if the test fails.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::broker::Broker;
use super::ports::free_port;
use super::postgres::{Database, Postgres, connect};
use super::server::variable;
use super::wait::{TIMEOUT, eventually};

/// A service process with a database and a topic prefix of its own.
pub(crate) struct Service {
    settings: Vec<(String, String)>,
    address: String,
    log: PathBuf,
    child: Child,
}

/// The ledger entry of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LedgerEntry {
    pub(crate) received: u64,
    pub(crate) committed: u64,
    pub(crate) duplicate: u64,
    pub(crate) rejected: u64,
    pub(crate) in_flight: u64,
}

impl LedgerEntry {
    pub(crate) fn balances(self) -> bool {
        self.received == self.committed + self.duplicate + self.rejected + self.in_flight
    }
}

impl Service {
    /// Starts the service and waits until it is ready. Its client identifier and topic prefix are the name of the
    /// database, so that tests can share a broker.
    pub(crate) async fn start(
        database: &Database,
        broker: &Broker,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut service = Self::start_unready(database, broker, settings);
        service.wait_until_ready().await;
        service
    }

    /// Starts the service without waiting.
    pub(crate) fn start_unready(
        database: &Database,
        broker: &Broker,
        settings: &[(&str, &str)],
    ) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut all: Vec<(String, String)> = [
            ("DATABASE_URL", database.url.as_str()),
            ("MQTT_URL", broker.url()),
            ("MQTT_CLIENT_ID", &database.name),
            ("MQTT_TOPIC_PREFIX", &database.name),
            ("HTTP_ADDR", &address),
            ("MIGRATE_ON_START", "true"),
            ("AUTH", "off"),
            ("LOG_FILTER", "info,tributary=debug"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        all.extend(settings.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        let log = std::env::temp_dir().join(format!("{}-{}.log", database.name, free_port()));
        let child = spawn("serve", &all, &log);
        Self { settings: all, address, log, child }
    }

    /// Waits until `/readyz` returns status 200.
    pub(crate) async fn wait_until_ready(&mut self) {
        eventually(TIMEOUT, async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the service ended with {status}:\n{}", self.log());
            }
            match self.get("/readyz").await {
                Ok((200, _)) => Ok(()),
                answer => Err((answer, self.log())),
            }
        })
        .await;
    }

    /// Removes a setting, from the next start on.
    pub(crate) fn remove_setting(&mut self, setting: &str) {
        self.settings.retain(|(name, _)| name != setting);
    }

    /// Starts the service again with the same settings, without waiting.
    pub(crate) fn restart(&mut self) {
        self.start_command("serve");
    }

    /// Runs another command with the same settings, after the process has ended.
    pub(crate) fn start_command(&mut self, command: &str) {
        self.child = spawn(command, &self.settings, &self.log);
    }

    /// The exit status, or `None` while the process runs.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is a child process")
    }

    /// The PID of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL; returns when the process has ended.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the process was running");
        self.child.wait().expect("it is a child process");
    }

    /// SIGTERM; returns the exit status.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.send_sigterm();
        self.wait_for_exit().await
    }

    /// SIGTERM.
    pub(crate) fn send_sigterm(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill is installed");
        assert!(sent.success(), "the process was running");
    }

    /// Waits for the end of the process, and returns the exit status.
    pub(crate) async fn wait_for_exit(&mut self) -> ExitStatus {
        eventually(TIMEOUT, async || match self.child.try_wait().expect("it is a child process") {
            Some(status) => Ok(status),
            None => Err(self.log()),
        })
        .await
    }

    /// Starts the service again with the same settings, and waits until it is ready.
    pub(crate) async fn start_again(&mut self) {
        self.restart();
        self.wait_until_ready().await;
    }

    /// The log of all processes so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log exists since the start")
    }

    /// The URL of the API: `http://host:port`, or `https://` if the service has a certificate.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.secure() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    fn secure(&self) -> bool {
        self.settings.iter().any(|(name, _)| name == "HTTP_CERTIFICATE_FILE")
    }

    pub(crate) async fn get(&self, path: &str) -> Result<(u16, Value), String> {
        self.request("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value), String> {
        self.request("POST", path, Some(body)).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), String> {
        let method = method.parse().expect("the method is valid");
        let mut request =
            client(self.secure()).request(method, format!("{}{path}", self.url())).timeout(TIMEOUT);
        // With AUTH=off a POST needs this header even without a body.
        if request.get_method() == actix_web::http::Method::POST {
            request = request.insert_header(("content-type", "application/json"));
        }
        let sent = match body {
            Some(body) => request.send_json(body),
            None => request.send(),
        };
        let mut answer = sent.await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body = answer.body().limit(64 << 20).await.map_err(|error| error.to_string())?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Creates a sensor, and returns its identifier.
    pub(crate) async fn create_sensor(&self, name: &str) -> String {
        let body = serde_json::json!({ "name": name });
        let (status, answer) = self.post("/api/v1/sensors", &body).await.unwrap();
        assert_eq!(status, 201, "{answer}");
        answer["identifier"].as_str().unwrap().to_owned()
    }

    /// The ledger entry of `measurements`, `log_messages`, `heartbeats` or `unknown`.
    pub(crate) async fn ledger_entry(&self, kind: &str) -> Result<LedgerEntry, String> {
        let (_, status) = self.get("/api/v1/status").await?;
        let entry = &status["ledger"][kind];
        let number = |name: &str| entry[name].as_u64().ok_or(format!("no {name} in {status}"));
        Ok(LedgerEntry {
            received: number("received")?,
            committed: number("committed")?,
            duplicate: number("duplicate")?,
            rejected: number("rejected")?,
            in_flight: number("in_flight")?,
        })
    }

    /// Waits until the ledger entry of measurements satisfies `wanted`.
    pub(crate) async fn wait_for_ledger(
        &self,
        wanted: impl Fn(LedgerEntry) -> bool,
    ) -> LedgerEntry {
        self.wait_for_ledger_of("measurements", wanted).await
    }

    /// Waits until the ledger entry of one kind satisfies `wanted`.
    pub(crate) async fn wait_for_ledger_of(
        &self,
        kind: &str,
        wanted: impl Fn(LedgerEntry) -> bool,
    ) -> LedgerEntry {
        eventually(TIMEOUT, async || {
            let entry = self.ledger_entry(kind).await?;
            assert!(entry.balances(), "{entry:?}");
            if wanted(entry) { Ok(entry) } else { Err(format!("{entry:?}")) }
        })
        .await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // An error means that the process has already ended.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the log of the service\n{}", self.log());
        }
        drop(std::fs::remove_file(&self.log));
    }
}

/// An HTTP client that accepts any certificate: the tests of TLS check certificates.
pub(crate) fn client(secure: bool) -> awc::Client {
    if !secure {
        return awc::Client::default();
    }
    let options = tributary::tls::ClientOptions {
        authority: None,
        check_name: false,
        identity: None,
        protocol: Some("http/1.1"),
    };
    let tls =
        tributary::tls::Client::new(options).expect("the options name no file").configuration();
    awc::Client::builder().connector(awc::Connector::new().rustls_0_23(tls)).finish()
}

/// The name of a pseudo-setting: a file that replaces `/etc/hosts` for the service only.
pub(crate) const HOSTS_FILE: &str = "hosts";

/// The PATH with `unshare`, `sh` and `mount`.
const SYSTEM: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn spawn(command: &str, settings: &[(String, String)], log: &PathBuf) -> Child {
    let append =
        || File::options().append(true).create(true).open(log).expect("the log file is writable");
    let binary = variable("TRIBUTARY_TEST_BINARY");
    let binary = binary.as_deref().unwrap_or(env!("CARGO_BIN_EXE_tributary"));
    let hosts = settings.iter().find(|(name, _)| name == HOSTS_FILE).map(|(_, file)| file);
    let mut process = Command::new(if hosts.is_some() { "unshare" } else { binary });
    if let Some(hosts) = hosts {
        let script = format!("mount --bind {hosts} /etc/hosts && exec {binary} {command}");
        process.args(["--map-root-user", "--mount", "sh", "-c", &script]);
    } else {
        process.arg(command);
    }
    process
        .env_clear()
        .env("PATH", SYSTEM)
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(append())
        .stderr(append())
        .spawn()
        .expect("the binary starts")
}

/// A migrated database on the shared server.
pub(crate) async fn database() -> Database {
    Postgres::shared().await.create_database(None).await
}

/// Runs a query that returns one number.
pub(crate) async fn count(database: &Database, query: &str) -> i64 {
    let client = connect(&database.url).await.expect("the database is available");
    client.query_one(query, &[]).await.expect(query).get(0)
}
