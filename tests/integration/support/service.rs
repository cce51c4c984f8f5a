//! The service itself: the real binary, as a process that a test can ask, end and kill.
//! Called by every test of the whole pipeline. Promises that it dies with its test, and that what
//! it logged is at hand when an expectation fails.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::broker::Broker;
use super::ports::free_port;
use super::postgres::{Database, Postgres, connect};
use super::server::variable;
use super::wait::{TIMEOUT, eventually};

/// What one test runs on: a database of its own, a topic prefix of its own, and the service.
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
    /// Starts it on these servers, and waits until it is ready. Its session's name and its topic
    /// prefix are those of the database, so that tests can share a broker.
    pub(crate) async fn start(
        database: &Database,
        broker: &Broker,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut service = Self::start_unready(database, broker, settings);
        service.ready().await;
        service
    }

    /// The same without waiting.
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

    /// Waits until broker and database are there.
    pub(crate) async fn ready(&mut self) {
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

    /// From its next start on, it is without this setting.
    pub(crate) fn unset(&mut self, setting: &str) {
        self.settings.retain(|(name, _)| name != setting);
    }

    /// The same again, with the same session and the same tables, without waiting.
    pub(crate) fn restart(&mut self) {
        self.start_command("serve");
    }

    /// Another command with the same settings, once the last one has ended.
    pub(crate) fn start_command(&mut self, command: &str) {
        self.child = spawn(command, &self.settings, &self.log);
    }

    /// How it ended, once it has.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it was ours")
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it was alive");
        self.child.wait().expect("it was ours");
    }

    /// SIGTERM, and how it ended.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.send_sigterm();
        self.ended().await
    }

    /// SIGTERM.
    pub(crate) fn send_sigterm(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(sent.success(), "it was alive");
    }

    /// How it ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        eventually(TIMEOUT, async || match self.child.try_wait().expect("it was ours") {
            Some(status) => Ok(status),
            None => Err(self.log()),
        })
        .await
    }

    /// The same again, with the same session and the same tables.
    pub(crate) async fn start_again(&mut self) {
        self.restart();
        self.ready().await;
    }

    /// What it has logged, over all its lives.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where its API is: `http://host:port`, or `https://` if it was given a certificate.
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
        let method = method.parse().expect("it is a method");
        let mut request =
            client(self.secure()).request(method, format!("{}{path}", self.url())).timeout(TIMEOUT);
        // With AUTH=off a POST without a body says so, too.
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
        // It may have ended already; a test that fails wants its log.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the service's log\n{}", self.log());
        }
        drop(std::fs::remove_file(&self.log));
    }
}

/// One that takes any certificate: whether that is the right one is for the tests of TLS to see.
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
    let tls = tributary::tls::Client::new(options).expect("it reads no file").configuration();
    awc::Client::builder().connector(awc::Connector::new().rustls_0_23(tls)).finish()
}

/// In place of a setting: a file that takes the place of `/etc/hosts` for the service alone.
pub(crate) const HOSTS: &str = "hosts";

/// Where `unshare`, `sh` and `mount` are.
const SYSTEM: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn spawn(command: &str, settings: &[(String, String)], log: &PathBuf) -> Child {
    let append = || File::options().append(true).create(true).open(log).expect("a log file");
    let binary = variable("TRIBUTARY_TEST_BINARY");
    let binary = binary.as_deref().unwrap_or(env!("CARGO_BIN_EXE_tributary"));
    let hosts = settings.iter().find(|(name, _)| name == HOSTS).map(|(_, file)| file);
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

/// One number from the database.
pub(crate) async fn count(database: &Database, query: &str) -> i64 {
    let client = connect(&database.url).await.expect("the database answers");
    client.query_one(query, &[]).await.expect(query).get(0)
}
