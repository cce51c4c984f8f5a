//! Checks passwords, with limits against guessing. Used by `sessions.rs`. An unknown name takes as long as a
//! known one; few passwords are checked at a time, on threads that serve nothing else; its memory is bounded.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web;
use secrecy::SecretString;
use tokio::sync::Semaphore;

use super::problem::Problem;
use super::rate_limiter::{Rate, RateLimiter};
use crate::domain::is_password;

/// Failures with one name: five, then one every ten seconds.
const BY_NAME: Rate = Rate { burst: 5, interval: Duration::from_secs(10) };

/// Failures from one address, which many users may share.
const BY_ADDRESS: Rate = Rate { burst: 30, interval: Duration::from_secs(2) };

/// A check takes a core for tens of milliseconds, and 19 MiB; ingest needs the cores.
const CHECKS_AT_ONCE: usize = 1;

/// How long a request waits for its check before it gets 429.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct SignInChecks {
    by_name: Mutex<RateLimiter<String>>,
    by_address: Mutex<RateLimiter<Option<IpAddr>>>,
    checks: Semaphore,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    pub(super) name: &'a str,
    pub(super) address: Option<IpAddr>,
}

impl SignInChecks {
    pub(super) fn new() -> Self {
        Self {
            by_name: Mutex::new(RateLimiter::new(BY_NAME)),
            by_address: Mutex::new(RateLimiter::new(BY_ADDRESS)),
            checks: Semaphore::new(CHECKS_AT_ONCE),
        }
    }

    /// Whether the password matches the stored hash; there is none for an unknown name. 429 where the name or the
    /// address has failed too often.
    pub(super) async fn check(
        &self,
        attempt: Attempt<'_>,
        password: SecretString,
        kept: Option<String>,
    ) -> Result<bool, Problem> {
        // Counted as a failure first, so that parallel attempts are limited too.
        self.count(attempt)?;
        let permit = tokio::time::timeout(PERMIT_TIMEOUT, self.checks.acquire()).await;
        let Ok(_permit) = permit else {
            self.put_back(attempt);
            return Err(Problem::too_many_requests("too many sign-ins at once", PERMIT_TIMEOUT));
        };
        let fits = web::block(move || is_password(&password, kept.as_deref())).await;
        let fits = fits.map_err(Problem::internal)?;
        if fits {
            self.put_back(attempt);
        }
        Ok(fits)
    }

    fn count(&self, attempt: Attempt<'_>) -> Result<(), Problem> {
        const DETAIL: &str = "too many failed sign-ins";
        let now = Instant::now();
        let name = attempt.name.to_owned();
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = by_address.take(&attempt.address, now);
        taken.map_err(|wait| Problem::too_many_requests(DETAIL, wait))?;
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.take(&name, now).map_err(|wait| Problem::too_many_requests(DETAIL, wait))
    }

    fn put_back(&self, attempt: Attempt<'_>) {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        by_address.put_back(&attempt.address);
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.put_back(&attempt.name.to_owned());
    }
}
