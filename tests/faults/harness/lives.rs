//! The service's lives: a keeper starts it again whenever it ends, as an init system would, and an auditor reads its
//! ledger all the time. Promises that an end that nobody ordered, and an account that does not balance, are remembered.

use std::cell::{Cell, RefCell};
use std::os::unix::process::ExitStatusExt as _;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::service::Service;
use crate::support::wait::{PATIENCE, eventually};

/// Between an end and the next start.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An answer that takes longer is none.
const ANSWER_SECS: Duration = Duration::from_secs(3);

/// Given to the service as `SHUTDOWN_GRACE_SECS`.
pub(crate) const GRACE_SECS: u64 = 10;

/// All of them.
pub(crate) struct Lives {
    service: RefCell<Service>,
    url: String,
    over: Cell<bool>,
    terminating: Cell<bool>,
    pub(crate) count: Cell<u64>,
    pub(crate) looks: Cell<u64>,
    /// What must not be.
    pub(crate) complaints: RefCell<Vec<String>>,
    /// Ends by a panic that the plan ordered are none.
    panics_expected: bool,
}

impl Lives {
    pub(crate) fn keep(service: Service, panics_expected: bool) -> Rc<Self> {
        let lives = Rc::new(Self {
            url: service.url(),
            service: RefCell::new(service),
            over: Cell::new(false),
            terminating: Cell::new(false),
            count: Cell::new(1),
            looks: Cell::new(0),
            complaints: RefCell::default(),
            panics_expected,
        });
        actix_rt::spawn(Rc::clone(&lives).restart());
        actix_rt::spawn(Rc::clone(&lives).audit());
        lives
    }

    /// SIGKILL; the keeper starts it again.
    pub(crate) fn kill(&self) {
        let mut service = self.service.borrow_mut();
        if service.exit_status().is_none() {
            service.kill();
        }
    }

    /// SIGTERM; it has to end with 0 within its grace time. The keeper starts it again, unless this is the last life.
    pub(crate) async fn terminate(&self, last: bool) {
        self.over.set(last);
        if self.service.borrow_mut().exit_status().is_some() {
            return;
        }
        let (life, begun) = (self.count.get(), Instant::now());
        self.terminating.set(true);
        self.service.borrow().tell_to_stop();
        // Requests under way have 5 s more, and a debug build on a busy machine some.
        let grace = Duration::from_secs(GRACE_SECS + 8);
        loop {
            if self.count.get() > life {
                break;
            }
            if last && let Some(status) = self.service.borrow_mut().exit_status() {
                if !status.success() {
                    self.complain(format!("told to stop, it ended with {status}"));
                }
                break;
            }
            if begun.elapsed() > grace {
                self.complain(format!("told to stop, it still ran after {grace:?}"));
                self.kill();
                break;
            }
            tokio::time::sleep(LOOK_EVERY / 4).await;
        }
        self.terminating.set(false);
    }

    /// Tells it to stop, and does not wait.
    pub(crate) fn tell_to_stop(&self) {
        let mut service = self.service.borrow_mut();
        if service.exit_status().is_none() {
            self.terminating.set(true);
            service.tell_to_stop();
        }
    }

    /// Each life to come is without the panic that the plan ordered.
    pub(crate) fn order_no_more_panics(&self) {
        self.service.borrow_mut().unset("TRIBUTARY_FAULTS");
    }

    /// Where its API is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.service.borrow().pid()
    }

    /// Returns when it has had another life.
    pub(crate) async fn reborn_after(&self, life: u64) {
        eventually(PATIENCE, async || match self.count.get() {
            now if now > life => Ok(()),
            now => Err(now),
        })
        .await;
    }

    pub(crate) fn log(&self) -> String {
        self.service.borrow().log()
    }

    pub(crate) fn complain(&self, complaint: String) {
        self.complaints.borrow_mut().push(complaint);
    }

    pub(crate) async fn get(&self, path: &str) -> Result<(u16, Value), String> {
        request(&self.url, "GET", path, None).await
    }

    /// Asks until it is answered with success.
    pub(crate) async fn insist(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        eventually(PATIENCE * 2, async || {
            match request(&self.url, method, path, body).await {
                Ok((200..=299, answer)) => Ok(answer),
                // The answer to an earlier attempt may have been lost.
                Ok((409, answer)) if method == "POST" => Ok(answer),
                Ok((404, answer)) if method == "DELETE" => Ok(answer),
                other => Err(format!("{method} {path}: {other:?}")),
            }
        })
        .await
    }

    async fn restart(self: Rc<Self>) {
        while !self.over.get() {
            let ended = self.service.borrow_mut().exit_status();
            if let Some(status) = ended {
                // A process that has just begun does not handle SIGTERM yet.
                let told = self.terminating.get()
                    && (status.success() || status.signal() == Some(SIGTERM));
                let killed = status.signal() == Some(SIGKILL);
                // Another program on this machine has taken the port meanwhile: an accident of ours.
                let port_taken = status.code() == Some(1)
                    && self.log().lines().last().is_some_and(|last| last.contains("in use"));
                if !told && !killed && !port_taken && !self.panics_expected {
                    self.complain(format!("it ended by itself with {status}"));
                }
                self.terminating.set(false);
                tokio::time::sleep(RESTART_PAUSE).await;
                if self.over.get() {
                    break;
                }
                self.service.borrow_mut().restart();
                self.count.set(self.count.get() + 1);
            }
            tokio::time::sleep(LOOK_EVERY / 4).await;
        }
    }

    async fn audit(self: Rc<Self>) {
        while !self.over.get() {
            if let Ok((200, status)) = self.get("/api/v1/status").await {
                self.looks.set(self.looks.get() + 1);
                for (kind, entry) in status["ledger"].as_object().into_iter().flatten() {
                    let number = |name: &str| entry[name].as_u64().unwrap_or(u64::MAX / 8);
                    let ended = number("committed") + number("duplicate") + number("rejected");
                    if number("received") != ended + number("in_flight") {
                        self.complain(format!("the ledger does not add up: {kind} {entry}"));
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// One question over HTTP.
pub(crate) async fn request(
    url: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Value), String> {
    let method = method.parse().map_err(|_| "no method".to_owned())?;
    let request =
        awc::Client::default().request(method, format!("{url}{path}")).timeout(ANSWER_SECS);
    let sent = match body {
        Some(body) => request.send_json(body),
        None => request.send(),
    };
    let mut answer = sent.await.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let body = answer.body().limit(16 << 20).await.map_err(|error| error.to_string())?;
    Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}
