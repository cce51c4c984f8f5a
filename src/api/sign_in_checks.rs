//! Checks passwords, with limits against guessing that keep no other user out. Used by `sessions.rs`. An unknown
//! name takes as long as a known one; few passwords are checked at a time, on threads that serve nothing else;
//! its memory is bounded. Failures count over all instances: first here, and then in a table.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use super::peer;
use super::problem::{Kind, Problem};
use super::rate_limiter::{RateLimiter, RequestRate};
use super::sign_in_queue::SignInQueue;
use crate::domain::is_password;
use crate::store::{SignInBucket, Store, StoreError};

/// Failures of one address with one name: five, then one every ten seconds. Failures of other addresses with that
/// name do not count: an attacker who knows a name could lock its user out.
const BY_NAME: RequestRate = RequestRate { burst: 5, interval: Duration::from_secs(10) };

/// Failures from one address, or one network of IPv6, which many users may share.
const BY_ADDRESS: RequestRate = RequestRate { burst: 30, interval: Duration::from_secs(2) };

/// Attempts of an address without success, by which those who wait are ordered: one is remembered for a minute.
/// Those that were turned away count, or all who guess would be newcomers for ever.
const RECENT_ATTEMPTS: RequestRate =
    RequestRate { burst: 1_000, interval: Duration::from_secs(60) };

const DETAIL: &str = "too many failed sign-ins";

/// A check takes a core for tens of milliseconds, and 19 MiB; ingest needs the cores.
const CHECKS_AT_ONCE: usize = 2;

/// The name, and the address or network.
type Attempt = (String, Option<IpAddr>);

/// The same limits over all instances.
fn shared_buckets((name, network): &Attempt) -> [SignInBucket; 2] {
    let bucket = |RequestRate { burst, interval }, counted: String| SignInBucket {
        key: Sha256::digest(counted).into(),
        interval_secs: interval.as_secs_f64(),
        burst,
    };
    let address = bucket(BY_ADDRESS, format!("address {network:?}"));
    [address, bucket(BY_NAME, format!("name {network:?} {name}"))]
}

pub(super) struct SignInChecks {
    limits: Mutex<SignInLimits>,
    queue: Arc<SignInQueue>,
}

struct SignInLimits {
    by_name: RateLimiter<Attempt>,
    by_address: RateLimiter<Option<IpAddr>>,
    recent_attempts: RateLimiter<Option<IpAddr>>,
}

impl SignInChecks {
    pub(super) fn new() -> Self {
        let limits = SignInLimits {
            by_name: RateLimiter::new(BY_NAME),
            by_address: RateLimiter::new(BY_ADDRESS),
            recent_attempts: RateLimiter::new(RECENT_ATTEMPTS),
        };
        Self { limits: Mutex::new(limits), queue: SignInQueue::new(CHECKS_AT_ONCE) }
    }

    /// The user with this name and password, as `look_up` finds it with the stored hash; none for an unknown name
    /// or a wrong password.
    ///
    /// # Errors
    /// 429 where that address has failed too often, with this name or in all; 503 where too many others sign in.
    pub(super) async fn check<U>(
        &self,
        (name, address): (&str, Option<IpAddr>),
        password: SecretString,
        store: &Store,
        look_up: impl Future<Output = Result<Option<(U, String)>, StoreError>>,
    ) -> Result<Option<(U, String)>, Problem> {
        let network = address.map(peer::network);
        let attempt = (name.to_owned(), network);
        // Counted as a failure first, so that parallel attempts are limited too.
        let attempts = self.count(&attempt)?;
        let Some(_turn) = self.queue.turn(attempts).await else {
            self.put_back(&attempt);
            return Err(Problem::later(Kind::Busy, "too many sign in at once"));
        };
        let buckets = shared_buckets(&attempt);
        let taken = store.take_sign_ins(&buckets).await.inspect_err(|_| self.put_back(&attempt))?;
        if !taken {
            return Err(Problem::too_many_requests(DETAIL, BY_NAME.interval));
        }
        let found = look_up.await.inspect_err(|_| self.put_back(&attempt))?;
        let kept = found.as_ref().map(|(_, kept)| kept.clone());
        let fits = web::block(move || is_password(&password, kept.as_deref())).await;
        if !fits.map_err(Problem::internal)? {
            return Ok(None);
        }
        store.put_back_sign_ins(&buckets).await?;
        self.put_back(&attempt);
        self.limits().recent_attempts.put_back(&attempt.1);
        Ok(found)
    }

    /// Returns how often that address has tried lately.
    fn count(&self, attempt: &Attempt) -> Result<u32, Problem> {
        let (now, network) = (Instant::now(), &attempt.1);
        let mut limits = self.limits();
        let taken = limits.by_address.take(network, now);
        let taken = taken.and_then(|_| limits.by_name.take(attempt, now));
        taken.map_err(|wait| Problem::too_many_requests(DETAIL, wait))?;
        let attempts = limits.recent_attempts.used(network, now);
        // One with more has its place at the end anyway.
        limits.recent_attempts.take(network, now).ok();
        Ok(attempts)
    }

    fn put_back(&self, attempt: &Attempt) {
        let mut limits = self.limits();
        limits.by_address.put_back(&attempt.1);
        limits.by_name.put_back(attempt);
    }

    fn limits(&self) -> MutexGuard<'_, SignInLimits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
