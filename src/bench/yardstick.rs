//! What our figures are held against: other people's clients doing the half of the work, measured
//! in the same run. `mosquitto_sub` takes the messages and stores nothing; `psql` stores the rows
//! and takes no messages. Called by the scenarios between their own measurements.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::ground::{Ground, Stage};
use super::load::Load;
use crate::domain::{AckTokens, Items, Kind, RawMessage, Timestamp};
use crate::mqtt::BrokerUrl;
use crate::store::{copy_line, copy_script, without_password};
use crate::wire::{Decoder, Limits};

/// Rows in one transaction of psql.
const ROWS_PER_FILE: usize = 10_000;

/// A child that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(300);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Whether the program is there.
pub(super) fn has(program: &str) -> bool {
    let asked = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok()
}

/// What the broker tells about itself, and what the user tells about it.
pub(super) async fn broker_settings(
    ground: &Ground,
    told: Option<String>,
) -> Vec<(String, String)> {
    let mut command = Command::new("mosquitto_sub");
    connection(&mut command, ground);
    // Retained, where a broker has it at all.
    command.args(["-t", "$SYS/broker/version", "-C", "1", "-W", "2"]);
    let version = actix_rt::task::spawn_blocking(move || command.output()).await;
    let version = match version {
        Ok(Ok(output)) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    };
    let mut settings = vec![("version".to_owned(), version)];
    settings.extend(told.map(|told| ("settings".to_owned(), told)));
    settings
}

fn connection(command: &mut Command, ground: &Ground) {
    let broker = &ground.servers.mqtt.broker;
    command.args(["-h", &broker.host, "-p", &broker.port.to_string()]);
    if let Some(username) = &broker.username {
        command.args(["-u", username]);
    }
    // Its options can stand in a file too; a command line is for all to read.
    if let Some(options) = &ground.client_options {
        command.env("XDG_CONFIG_HOME", &options.directory);
    }
}

/// Where mosquitto's clients find the password, for nobody else to read.
pub(super) struct ClientOptions {
    directory: PathBuf,
}

impl ClientOptions {
    /// None where the broker wants no password.
    pub(super) fn write(broker: &BrokerUrl) -> anyhow::Result<Option<Self>> {
        let Some(password) = broker.password() else { return Ok(None) };
        let name = format!("tributary-bench-{}-options", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let options = Self { directory };
        std::fs::write(options.directory.join("mosquitto_sub"), format!("-P {password}\n"))?;
        Ok(Some(options))
    }
}

impl Drop for ClientOptions {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// `mosquitto_sub -q 1` into nothing.
pub(super) struct MosquittoSub {
    client_id: String,
    topic: String,
}

impl MosquittoSub {
    /// Makes its session, with a subscription to the measurements of this stage.
    pub(super) async fn subscribe(ground: &Ground, stage: &Stage) -> anyhow::Result<Self> {
        let client_id = ground.session(&format!("{}-mosquitto-sub", stage.name));
        let topic = stage.topics.filters().swap_remove(Kind::Measurement as usize);
        let yardstick = Self { client_id, topic };
        finished(yardstick.command(ground).arg("-E")).await?;
        Ok(yardstick)
    }

    /// Takes so many messages; from its start to its end.
    pub(super) async fn drain(&self, ground: &Ground, messages: u64) -> anyhow::Result<Duration> {
        finished(self.command(ground).args(["-C", &messages.to_string()])).await
    }

    fn command(&self, ground: &Ground) -> Command {
        let mut command = Command::new("mosquitto_sub");
        connection(&mut command, ground);
        command.args(["-V", "mqttv5", "-c", "-x", "3600", "-i", &self.client_id]);
        command.args(["-D", "connect", "receive-maximum", "65535"]);
        command.args(["-q", "1", "-t", &self.topic]);
        command
    }
}

/// `psql \copy` of text files, a transaction each.
pub(super) struct PsqlCopy {
    directory: PathBuf,
    script: PathBuf,
}

impl PsqlCopy {
    /// Writes the rows of a load into files.
    pub(super) fn write(load: &Load, name: &str) -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory)?;
        let yardstick = Self { script: directory.join("script"), directory };
        let mut files = Vec::new();
        let (mut rows, mut count) = (Vec::new(), 0);
        for message in load.messages() {
            count += rows_of(&message.topic, &message.payload, load, &mut rows);
            if count >= ROWS_PER_FILE {
                files.push(yardstick.file(files.len(), &rows)?);
                rows.clear();
                count = 0;
            }
        }
        if count > 0 {
            files.push(yardstick.file(files.len(), &rows)?);
        }
        let script = copy_script(files.iter().map(PathBuf::as_path));
        std::fs::write(&yardstick.script, script)?;
        Ok(yardstick)
    }

    fn file(&self, number: usize, rows: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.directory.join(number.to_string());
        std::fs::File::create(&path)?.write_all(rows)?;
        Ok(path)
    }

    /// Copies them all; from its start to its end.
    pub(super) async fn run(&self, stage: &Stage) -> anyhow::Result<Duration> {
        let mut command = Command::new("psql");
        let url = without_password(&stage.database_url)?;
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &url, "-f"]);
        if let Some(password) = stage.store.postgres.get_password() {
            command.env("PGPASSWORD", OsStr::from_bytes(password));
        }
        finished(command.arg(&self.script)).await
    }
}

impl Drop for PsqlCopy {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        tracing::warn!(directory = %directory.display(), %error, "it could not be removed");
    }
}

/// The rows that the service makes of a message, by the service's own decoder.
fn rows_of(topic: &str, payload: &str, load: &Load, rows: &mut Vec<u8>) -> usize {
    const LIMITS: Limits = Limits { payload_bytes: 1 << 20, items_per_message: 10_000 };
    let decoder = Decoder::new(load.topics.clone(), LIMITS);
    let (ack_tokens, _lost) = AckTokens::new();
    let redelivered = false;
    let message = RawMessage::new(topic, payload.as_bytes(), Timestamp::now(), redelivered);
    let uplink = decoder.decode(message, ack_tokens.issue(0));
    let (Some(sensor), Items::Measurements(items)) = (uplink.sensor, &uplink.items) else {
        return 0;
    };
    for item in items {
        let value = String::from_utf8_lossy(uplink.message.bytes(item.value));
        copy_line(sensor, item, &value, uplink.message.received_at, rows);
    }
    items.len()
}

/// A child that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Mostly it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a child to its end, and says how long it took.
async fn finished(command: &mut Command) -> anyhow::Result<Duration> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let begun_at = Instant::now();
    let mut running = Running(command.spawn().with_context(|| program.clone())?);
    loop {
        if let Some(status) = running.0.try_wait()? {
            let elapsed = begun_at.elapsed();
            ensure!(status.success(), "{program} ended with {status}");
            return Ok(elapsed);
        }
        ensure!(begun_at.elapsed() < PATIENCE, "{program} did not end within {PATIENCE:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
