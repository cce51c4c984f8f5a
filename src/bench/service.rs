//! The service under measurement: this executable as a child process, asked over HTTP only. Started and stopped
//! by the scenarios. Promises that the child does not outlive its owner, and that its log is in the error when
//! it fails.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

use super::meters::{self, Memory};
use crate::domain::LedgerSnapshot;
use crate::load::HttpClient;

/// For what takes a second or less.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Lines of the log that an error shows.
const LOG_TAIL: usize = 15;

pub(super) struct Service {
    child: Child,
    pub(super) pid: u32,
    pub(super) url: String,
    pub(super) http: HttpClient,
    log: NamedTempFile,
    pub(super) spawned_at: Instant,
}

/// Of the batches that were committed: how many, their items, seconds from BEGIN to COMMIT, and how many found a row
/// that existed already and were written again through the staging table.
pub(super) type Batches = [f64; 4];

const BATCHES: [&str; 4] = [
    "tributary_batch_items_count ",
    "tributary_batch_items_sum ",
    "tributary_commit_seconds_sum ",
    r#"tributary_commit_retries_total{cause="duplicate"} "#,
];

/// From the text of /metrics; a counter is absent before it counts.
fn batches(text: &str) -> Batches {
    let number = |name| text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
    BATCHES.map(|name| number(name).unwrap_or(0.0))
}

/// Items of all kinds that are committed, duplicate or rejected.
pub(super) fn settled_items(ledger: &LedgerSnapshot) -> u64 {
    ledger.entries().iter().map(|(_, it)| it.committed + it.duplicate + it.rejected).sum()
}

impl Service {
    /// Starts it, without waiting for anything.
    pub(super) fn spawn(settings: Vec<(&'static str, String)>) -> anyhow::Result<Self> {
        // Asking for port 0 would not show which one it got.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string();
        let log = NamedTempFile::new().context("the service's log")?;
        let file = log.reopen()?;
        let spawned_at = Instant::now();
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .envs(settings)
            .env("HTTP_ADDR", &address)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .context("starting the service")?;
        let pid = child.id().context("the service ended at once")?;
        let url = format!("http://{address}");
        let http = HttpClient::new(&url, None, None)?;
        Ok(Self { child, pid, url, http, log, spawned_at })
    }

    pub(super) fn memory(&self) -> Memory {
        meters::memory(self.pid)
    }

    /// Waits until both servers are connected and the subscriptions are made.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + TIMEOUT;
        while self.http.get("/readyz").await.is_err() {
            self.check_alive()?;
            ensure!(Instant::now() < until, "the service is not ready:\n{}", self.log_tail());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Since `before`.
    pub(super) async fn batches(&self, before: Batches) -> anyhow::Result<Batches> {
        let now = batches(str::from_utf8(&self.http.get("/metrics").await?)?);
        Ok(std::array::from_fn(|it| now[it] - before[it]))
    }

    /// Waits until `items` items of all kinds are settled and none is in flight. Calls `progress` with the
    /// settled items on the way. Fails when none is settled for a minute.
    pub(super) async fn settled(
        &mut self,
        items: u64,
        progress: impl Fn(u64),
    ) -> anyhow::Result<LedgerSnapshot> {
        let (mut settled, mut in_flight, mut progressed_at) = (0, 0, Instant::now());
        loop {
            self.check_alive()?;
            // There is no answer before it listens.
            if let Ok(ledger) = self.http.ledger().await {
                let now = settled_items(&ledger);
                if now != settled {
                    (settled, progressed_at) = (now, Instant::now());
                    progress(settled);
                }
                in_flight = ledger.entries().iter().map(|(_, it)| it.in_flight).sum();
                if settled >= items && in_flight == 0 {
                    return Ok(ledger);
                }
            }
            ensure!(
                progressed_at.elapsed() < TIMEOUT,
                "{settled} of {items} items are settled, {in_flight} are in flight, and nothing has changed \
                 for {TIMEOUT:?}:\n{}",
                self.log_tail()
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// SIGTERM; the child has ended when this returns.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let kill = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await;
        ensure!(kill.context("kill")?.success(), "the service had ended:\n{}", self.log_tail());
        let Ok(status) = tokio::time::timeout(TIMEOUT, self.child.wait()).await else {
            bail!("the service does not end:\n{}", self.log_tail())
        };
        let status = status?;
        ensure!(status.success(), "the service ended with {status}:\n{}", self.log_tail());
        Ok(())
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the service ended with {status}:\n{}", self.log_tail());
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_read_from_the_metrics() {
        let text = "# HELP x y\ntributary_batch_items_sum 120\ntributary_batch_items_count 3\n\
                    tributary_commit_seconds_sum 0.5\ntributary_commit_seconds_count 3\n\
                    tributary_commit_retries_total{cause=\"duplicate\"} 2\n";
        assert_eq!(batches(text), [3.0, 120.0, 0.5, 2.0]);
    }
}
