//! The runs of the service's process: it is restarted whenever it exits, as by an init system, and its ledger is read ten times
//! per second. Used by `run`. Records every unplanned exit and every ledger that does not balance.

use std::cell::{Cell, RefCell};
use std::os::unix::process::ExitStatusExt as _;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::service::Service;
use crate::support::wait::{TIMEOUT, eventually};

/// The pause between an exit and the next start.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// Later runs have no planned panic: one before the first commit of each run would prevent all progress.
const RUNS_WITH_PANIC: u64 = 5;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const POLL_INTERVAL: Duration = Duration::from_millis(100);

const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Given to the service as `SHUTDOWN_GRACE_SECS`.
pub(crate) const GRACE_SECS: u64 = 10;

/// The current process, and the observations of all processes of the run.
pub(crate) struct ProcessRuns {
    service: RefCell<Service>,
    url: String,
    ended: Cell<bool>,
    terminating: Cell<bool>,
    pub(crate) count: Cell<u64>,
    pub(crate) ledger_reads: Cell<u64>,
    /// Failed checks.
    pub(crate) violations: RefCell<Vec<String>>,
    /// Exits after a planned panic are not violations.
    panics_expected: bool,
}

impl ProcessRuns {
    pub(crate) fn keep(service: Service, panics_expected: bool) -> Rc<Self> {
        let process_runs = Rc::new(Self {
            url: service.url(),
            service: RefCell::new(service),
            ended: Cell::new(false),
            terminating: Cell::new(false),
            count: Cell::new(1),
            ledger_reads: Cell::new(0),
            violations: RefCell::default(),
            panics_expected,
        });
        actix_rt::spawn(Rc::clone(&process_runs).restart());
        actix_rt::spawn(Rc::clone(&process_runs).audit());
        process_runs
    }

    /// Waits until the service is connected to the broker and the database.
    pub(crate) async fn wait_until_ready(&self) {
        eventually(TIMEOUT, async || match self.get("/readyz").await {
            Ok((200, _)) => Ok(()),
            answer => Err((answer, self.log())),
        })
        .await;
    }

    /// SIGKILL; the process is restarted.
    pub(crate) fn kill(&self) {
        let mut service = self.service.borrow_mut();
        if service.exit_status().is_none() {
            service.kill();
        }
    }

    /// SIGTERM; the process must exit with 0 within its grace period. It is restarted, unless this is the last run.
    pub(crate) async fn terminate(&self, last: bool) {
        self.ended.set(last);
        if self.service.borrow_mut().exit_status().is_some() {
            return;
        }
        let (run, started_at) = (self.count.get(), Instant::now());
        self.terminating.set(true);
        self.service.borrow().send_sigterm();
        // Plus 5 s for requests in progress, and 3 s for a debug build on a busy machine.
        let grace = Duration::from_secs(GRACE_SECS + 8);
        loop {
            if self.count.get() > run {
                break;
            }
            if last && let Some(status) = self.service.borrow_mut().exit_status() {
                if !status.success() {
                    self.report_violation(format!(
                        "after SIGTERM the process exited with {status}"
                    ));
                }
                break;
            }
            if started_at.elapsed() > grace {
                self.report_violation(format!(
                    "{grace:?} after SIGTERM the process is still running"
                ));
                self.kill();
                break;
            }
            tokio::time::sleep(POLL_INTERVAL / 4).await;
        }
        self.terminating.set(false);
    }

    /// SIGTERM, without waiting.
    pub(crate) fn send_sigterm(&self) {
        let mut service = self.service.borrow_mut();
        if service.exit_status().is_none() {
            self.terminating.set(true);
            service.send_sigterm();
        }
    }

    /// The URL of its API.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.service.borrow().pid()
    }

    /// Returns once the process has been restarted after this run.
    pub(crate) async fn restarted_after(&self, run: u64) {
        eventually(TIMEOUT, async || match self.count.get() {
            now if now > run => Ok(()),
            now => Err(now),
        })
        .await;
    }

    pub(crate) fn log(&self) -> String {
        self.service.borrow().log()
    }

    pub(crate) fn report_violation(&self, violation: String) {
        self.violations.borrow_mut().push(violation);
    }

    pub(crate) async fn get(&self, path: &str) -> Result<(u16, Value), String> {
        request(&self.url, "GET", path, None).await
    }

    pub(crate) async fn request_until_success(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Value {
        eventually(TIMEOUT * 2, async || {
            match request(&self.url, method, path, body).await {
                Ok((200..=299, answer)) => Ok(answer),
                // The response to an earlier attempt may have been lost.
                Ok((409, answer)) if method == "POST" => Ok(answer),
                Ok((404, answer)) if method == "DELETE" => Ok(answer),
                other => Err(format!("{method} {path}: {other:?}")),
            }
        })
        .await
    }

    async fn restart(self: Rc<Self>) {
        while !self.ended.get() {
            let exit_status = self.service.borrow_mut().exit_status();
            if let Some(status) = exit_status {
                // A process that has just started does not handle SIGTERM yet.
                let is_stopping = self.terminating.get()
                    && (status.success() || status.signal() == Some(SIGTERM));
                let killed = status.signal() == Some(SIGKILL);
                // Another program on this machine has taken the port: not a defect of the service.
                let port_taken = status.code() == Some(1)
                    && self.log().lines().last().is_some_and(|last| last.contains("in use"));
                if !is_stopping && !killed && !port_taken && !self.panics_expected {
                    self.report_violation(format!("the process exited unexpectedly with {status}"));
                }
                self.terminating.set(false);
                tokio::time::sleep(RESTART_PAUSE).await;
                if self.ended.get() {
                    break;
                }
                if self.count.get() == RUNS_WITH_PANIC {
                    self.service.borrow_mut().remove_setting("TRIBUTARY_FAULTS");
                }
                self.service.borrow_mut().restart();
                self.count.set(self.count.get() + 1);
            }
            tokio::time::sleep(POLL_INTERVAL / 4).await;
        }
    }

    async fn audit(self: Rc<Self>) {
        while !self.ended.get() {
            if let Ok((200, status)) = self.get("/api/v1/status").await {
                self.ledger_reads.set(self.ledger_reads.get() + 1);
                for (kind, entry) in status["ledger"].as_object().into_iter().flatten() {
                    let number = |name: &str| entry[name].as_u64().unwrap_or(u64::MAX / 8);
                    let completed = number("committed") + number("duplicate") + number("rejected");
                    if number("received") != completed + number("in_flight") {
                        self.report_violation(format!(
                            "the ledger does not balance: {kind} {entry}"
                        ));
                    }
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Sends one HTTP request.
pub(crate) async fn request(
    url: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Value), String> {
    let method = method.parse().map_err(|_| "not an HTTP method".to_owned())?;
    let request =
        awc::Client::default().request(method, format!("{url}{path}")).timeout(REQUEST_TIMEOUT);
    let sent = match body {
        Some(body) => request.send_json(body),
        None => request.send(),
    };
    let mut response = sent.await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = response.body().limit(16 << 20).await.map_err(|error| error.to_string())?;
    Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}
