//! The service under measurement: this very executable as a child process, asked over HTTP and in
//! no other way. Started and stopped by the scenarios. Promises that the child does not outlive
//! its owner, and that its log is in the error when it fails.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::process::Memory;
use crate::domain::LedgerSnapshot;

/// For what takes a second at the most.
const PATIENCE: Duration = Duration::from_secs(60);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// An answer of the service is no larger.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The last lines of the log are enough to see what went wrong.
const LOG_TAIL_LINES: usize = 15;

/// What the child is started with.
#[derive(Clone, Debug)]
pub(super) struct Settings(pub(super) Vec<(&'static str, String)>);

/// A running service.
pub(super) struct Service {
    child: Child,
    client: awc::Client,
    address: String,
    log: PathBuf,
    pub(super) spawned_at: Instant,
}

#[derive(Deserialize)]
struct Status {
    ledger: LedgerSnapshot,
}

/// Batches that were committed.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Batches {
    pub(super) count: u64,
    pub(super) items: u64,
    /// From BEGIN to COMMIT, of all of them.
    pub(super) commit: Duration,
    /// Found a row that was there already, and went through the staging table.
    pub(super) staged: u64,
}

impl Batches {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            count: self.count - before.count,
            items: self.items - before.items,
            commit: self.commit.saturating_sub(before.commit),
            staged: self.staged - before.staged,
        }
    }

    /// From the text of /metrics.
    fn parse(text: &str) -> Option<Self> {
        let number = |name: &str| -> Option<f64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        };
        Some(Self {
            count: number("tributary_batch_items_count")? as u64,
            items: number("tributary_batch_items_sum")? as u64,
            commit: Duration::from_secs_f64(number("tributary_commit_seconds_sum")?),
            // Not there before the first.
            staged: number(r#"tributary_commit_retries_total{cause="duplicate"}"#).unwrap_or(0.0)
                as u64,
        })
    }
}

impl Service {
    /// Starts it, and does not wait.
    pub(super) fn spawn(settings: &Settings) -> anyhow::Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let log = std::env::temp_dir().join(format!("{}.log", address.replace(':', "-")));
        let file = std::fs::File::create(&log).context("the service's log")?;
        let spawned_at = Instant::now();
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .envs(settings.0.iter().map(|(name, value)| (name, value)))
            .env("HTTP_ADDR", &address)
            .env("AUTH", "off")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("starting the service")?;
        Ok(Self { child, client: awc::Client::default(), address, log, spawned_at })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its memory, now and at its highest.
    pub(super) fn memory(&self) -> Memory {
        Memory::of(self.pid()).unwrap_or_default()
    }

    /// Waits until both servers are connected and the subscriptions are made.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.check_alive()?;
            if self.get("/readyz").await.is_ok() {
                return Ok(());
            }
            ensure!(Instant::now() < until, "the service does not get ready:\n{}", self.tail());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The account, now.
    pub(super) async fn ledger(&self) -> anyhow::Result<LedgerSnapshot> {
        let status: Status = serde_json::from_slice(&self.get("/api/v1/status").await?)?;
        Ok(status.ledger)
    }

    /// What was committed so far, in batches.
    pub(super) async fn batches(&self) -> anyhow::Result<Batches> {
        let text = String::from_utf8(self.get("/metrics").await?)?;
        Batches::parse(&text).context("/metrics holds no batches")
    }

    /// Waits until so many items of all kinds are settled and none is in flight. `sees` is told of
    /// every account on the way. Fails when none is settled for a minute.
    pub(super) async fn settled(
        &mut self,
        items: u64,
        mut sees: impl FnMut(u64),
    ) -> anyhow::Result<LedgerSnapshot> {
        let (mut settled, mut flying, mut progressed_at) = (0, 0, Instant::now());
        loop {
            self.check_alive()?;
            // Before it listens there is no answer.
            if let Ok(ledger) = self.ledger().await {
                let now = settled_items(&ledger);
                if now != settled {
                    (settled, progressed_at) = (now, Instant::now());
                    sees(settled);
                }
                flying = in_flight(&ledger);
                if settled >= items && flying == 0 {
                    return Ok(ledger);
                }
            }
            ensure!(
                progressed_at.elapsed() < PATIENCE,
                "{settled} of {items} items are settled, {flying} are in flight, and for {PATIENCE:?} \
                 nothing has changed:\n{}",
                self.tail()
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// SIGTERM, and gone when this returns.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.pid().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().context("kill")?;
        ensure!(told.success(), "the service had ended before:\n{}", self.tail());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                return self.ended_well(status);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        bail!("the service does not end:\n{}", self.tail())
    }

    fn ended_well(&self, status: ExitStatus) -> anyhow::Result<()> {
        ensure!(status.success(), "the service ended with {status}:\n{}", self.tail());
        Ok(())
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the service ended with {status}:\n{}", self.tail());
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        get(&self.client, &format!("http://{}{path}", self.address)).await
    }

    /// For those who read while it works: on connections of their own.
    pub(super) fn reader(&self) -> Reader {
        Reader { client: awc::Client::default(), address: self.address.clone() }
    }

    fn tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

/// Reads from a running service.
#[derive(Clone)]
pub(super) struct Reader {
    client: awc::Client,
    address: String,
}

impl Reader {
    /// An answer, read to its end.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        get(&self.client, &format!("http://{}{path}", self.address)).await
    }
}

async fn get(client: &awc::Client, url: &str) -> anyhow::Result<Vec<u8>> {
    let sent = client.get(url).timeout(PATIENCE).send().await;
    let mut answer = sent.map_err(|error| anyhow::anyhow!("{url}: {error}"))?;
    ensure!(answer.status().is_success(), "{url}: {}", answer.status());
    Ok(answer.body().limit(MAX_ANSWER_BYTES).await?.to_vec())
}

impl Drop for Service {
    fn drop(&mut self) {
        // Mostly it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_file(&self.log));
    }
}

/// Items that have come to their end.
pub(super) fn settled_items(ledger: &LedgerSnapshot) -> u64 {
    ledger.entries().iter().map(|(_, it)| it.committed + it.duplicate + it.rejected).sum()
}

fn in_flight(ledger: &LedgerSnapshot) -> u64 {
    ledger.entries().iter().map(|(_, it)| it.in_flight).sum()
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_read_from_the_metrics() {
        let text = "# HELP tributary_batch_items x\ntributary_batch_items_bucket{le=\"1\"} 0\n\
                    tributary_batch_items_sum 300\ntributary_batch_items_count 3\n\
                    tributary_commit_seconds_sum 0.5\ntributary_commit_seconds_count 3\n\
                    tributary_commit_retries_total{cause=\"duplicate\"} 2\n";
        let batches = Batches::parse(text).unwrap();
        let commit = Duration::from_millis(500);
        assert_eq!(batches, Batches { count: 3, items: 300, commit, staged: 2 });
        assert_eq!(batches.since(batches), Batches::default());
        assert_eq!(Batches::parse(""), None);
    }
}
