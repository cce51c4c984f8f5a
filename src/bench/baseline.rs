//! The baselines of our figures: other clients that do half of the work, measured in the same run.
//! `mosquitto_sub` takes the messages and stores nothing; `psql` stores the rows and takes no messages. Called by
//! the scenarios between their own measurements.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use super::test_bed::{Run, TestBed};
use crate::domain::{AckTokens, Items, Kind, RawMessage, Timestamp};
use crate::load::{Fleet, Message};
use crate::store::{EngineName, copy_line, copy_script, without_password};
use crate::wire::{Decoder, Limits};

/// Rows in one transaction of psql.
const ROWS_PER_FILE: usize = 10_000;
const SCRIPT: &str = "script";
/// A child that takes longer is stuck.
const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Baseline {
    MosquittoSub,
    PsqlCopy,
}

impl Baseline {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::MosquittoSub => "mosquitto_sub",
            Self::PsqlCopy => "psql \\copy",
        }
    }

    pub(super) async fn is_installed(self) -> bool {
        let program = match self {
            Self::MosquittoSub => "mosquitto_sub",
            Self::PsqlCopy => "psql",
        };
        let mut command = Command::new(program);
        let silent = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        silent.status().await.is_ok()
    }

    /// How long it takes with a backlog.
    pub(super) async fn drain(
        self,
        bed: &TestBed,
        backlog: &Fleet,
        step: &str,
    ) -> anyhow::Result<Duration> {
        let step = format!("{step}: {}", self.name());
        let run = bed.run(&backlog.identifiers).await?;
        let elapsed = match self {
            Self::MosquittoSub => {
                subscribe(bed, &run).await?;
                let messages = bed.publish(&run, backlog, &step).await?.messages;
                bed.checkpoint().await;
                take(bed, &run, messages).await?
            }
            Self::PsqlCopy => {
                let _progress = bed.progress(&step, backlog.limit);
                let files = write_files(backlog, &run, bed.engine)?;
                bed.checkpoint().await;
                finished(&mut psql(&run, &files.path().join(SCRIPT))?).await?
            }
        };
        bed.clear().await?;
        Ok(elapsed)
    }
}

/// Makes the session of `mosquitto_sub`, with a subscription to the measurements of the run.
pub(super) async fn subscribe(bed: &TestBed, run: &Run) -> anyhow::Result<Duration> {
    finished(subscriber(bed, run).arg("-E")).await
}

/// Takes this many messages to /dev/null; from its start to its end.
pub(super) async fn take(bed: &TestBed, run: &Run, messages: u64) -> anyhow::Result<Duration> {
    finished(subscriber(bed, run).args(["-C", &messages.to_string()])).await
}

fn subscriber(bed: &TestBed, run: &Run) -> Command {
    let topic = run.topics.filters().swap_remove(Kind::Measurement as usize);
    let mut command = mosquitto_sub(bed);
    command.args(["-V", "mqttv5", "-c", "-x", "3600", "-i", &run.mosquitto_session()]);
    command.args(["-D", "connect", "receive-maximum", "65535", "-q", "1", "-t", &topic]);
    command
}

fn mosquitto_sub(bed: &TestBed) -> Command {
    let broker = &bed.servers.mqtt.broker;
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", &broker.host, "-p", &broker.port.to_string()]);
    if let Some(username) = &broker.username {
        command.args(["-u", username]);
    }
    // A command line is public: the password is in a file of options.
    if let Some(options) = &bed.client_options {
        command.env("XDG_CONFIG_HOME", options.path());
    }
    command
}

/// The broker's version as it reports it, and the settings that the user named.
pub(super) async fn broker_settings(
    bed: &TestBed,
    settings: Option<String>,
) -> Vec<(String, String)> {
    let mut command = mosquitto_sub(bed);
    // Retained, by brokers that have it.
    command.args(["-t", "$SYS/broker/version", "-C", "1", "-W", "2"]).stdin(Stdio::null());
    let version = match command.output().await {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    };
    let version = ("version".to_owned(), version);
    std::iter::once(version).chain(settings.map(|it| ("settings".to_owned(), it))).collect()
}

/// Writes the rows of a load into text files, for a transaction each, and a script that copies them.
fn write_files(backlog: &Fleet, run: &Run, engine: EngineName) -> anyhow::Result<TempDir> {
    let directory = tempfile::tempdir()?;
    let decoder = Decoder::new(run.topics.clone(), Limits::DEFAULT);
    let (mut files, mut rows, mut count) = (Vec::new(), Vec::new(), 0);
    let backlog = Fleet { topics: run.topics.clone(), ..backlog.clone() };
    for mut sensors in backlog.sensors() {
        while !sensors.has_ended() {
            count += write_rows(&decoder, &sensors.next(Timestamp::now()), &mut rows);
            if count >= ROWS_PER_FILE || sensors.has_ended() {
                let path = directory.path().join(files.len().to_string());
                std::fs::write(&path, &rows)?;
                files.push(path);
                rows.clear();
                count = 0;
            }
        }
    }
    let script = copy_script(engine, files.iter().map(PathBuf::as_path));
    std::fs::write(directory.path().join(SCRIPT), script)?;
    Ok(directory)
}

fn psql(run: &Run, script: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new("psql");
    let url = without_password(&run.database_url)?;
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &url, "-f"]).arg(script);
    if let Some(password) = run.store.postgres.get_password() {
        command.env("PGPASSWORD", OsStr::from_bytes(password));
    }
    Ok(command)
}

/// The rows that the service makes of a message, by the service's own decoder.
fn write_rows(decoder: &Decoder, message: &Message, rows: &mut Vec<u8>) -> usize {
    let (ack_tokens, _lost) = AckTokens::new();
    let may_be_stored = false;
    let raw = RawMessage::new(&message.topic, &message.payload, Timestamp::now(), may_be_stored);
    let uplink = decoder.decode(raw, ack_tokens.issue(0));
    let (Some(sensor), Items::Measurements(items)) = (uplink.sensor, &uplink.items) else {
        return 0;
    };
    for item in items {
        let value = String::from_utf8_lossy(uplink.message.bytes(item.value));
        copy_line(sensor, item, &value, uplink.message.received_at, rows);
    }
    items.len()
}

/// Runs a child to its end. Returns how long it took.
async fn finished(command: &mut Command) -> anyhow::Result<Duration> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let started_at = Instant::now();
    let status = tokio::time::timeout(TIMEOUT, command.status()).await;
    let status = status.with_context(|| format!("{program} did not end within {TIMEOUT:?}"))?;
    let status = status.with_context(|| program.clone())?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(started_at.elapsed())
}
