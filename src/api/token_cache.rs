//! A cache of the tokens used recently, and their rate limits. Used by `authenticate.rs` for every request. A
//! token revoked by this process is refused at once, one revoked by another within two seconds. Its size is
//! bounded.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::debug;
use uuid::Uuid;

use super::AccessConfig;
use super::caller::Caller;
use super::problem::Problem;
use super::rate_limiter::{RateLimiter, RequestRate};
use crate::domain::{Timestamp, TokenDigest};
use crate::store::{Store, StoreError, TokenRow};

/// How long a token is accepted without a query. With the timeout below it bounds how long a token that another
/// process revoked is still accepted.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// How long a valid token is accepted while the database is unavailable, so that routes without a query are
/// still served.
const STALE_FOR: Duration = Duration::from_secs(300);

/// How long a request with a cached valid token waits for the database; its handler needs the rest of the two
/// seconds.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(500);

/// Over this limit the cache is cleared.
const MAX_TOKENS: usize = 10_000;

/// `last_used` of a token is updated at most this often.
const LAST_USED_INTERVAL_SECS: f64 = 60.0;

/// The key of the rate limit.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum RateLimitKey {
    Token(Uuid),
    Address(Option<IpAddr>),
}

/// Shared by all HTTP workers.
pub(super) struct TokenCache {
    pub(super) config: AccessConfig,
    store: Store,
    known: Mutex<Known>,
    requests: Mutex<RateLimiter<RateLimitKey>>,
}

#[derive(Default)]
struct Known {
    tokens: foldhash::HashMap<TokenDigest, Remembered>,
    /// Incremented by each revocation; a look-up that began before is not cached.
    revocations: u64,
}

#[derive(Clone)]
struct Remembered {
    caller: Caller,
    /// When the database last confirmed it.
    confirmed_at: Instant,
    /// When the database was last queried, successfully or not.
    asked_at: Instant,
}

impl TokenCache {
    pub(super) fn new(store: Store, config: AccessConfig) -> Self {
        let interval = Duration::from_secs(1) / config.requests_per_second;
        let rate = RequestRate { burst: config.requests_per_second, interval };
        Self {
            config,
            store,
            known: Mutex::default(),
            requests: Mutex::new(RateLimiter::new(rate)),
        }
    }

    /// The holder of the token; `None` if it is invalid.
    pub(super) async fn holder(&self, digest: TokenDigest) -> Result<Option<Caller>, StoreError> {
        let now = Instant::now();
        let (stale, revocations) = self.remembered(digest, now);
        if let Some(it) = &stale {
            if now.duration_since(it.asked_at) < FRESH_FOR {
                return Ok(Some(it.caller.clone()));
            }
            // One request queries; the others continue meanwhile.
            self.asked(digest, now);
        }
        let found = match &stale {
            None => self.store.token_of(digest).await,
            Some(_) => {
                let asked = self.store.token_of(digest);
                match tokio::time::timeout(REFRESH_TIMEOUT, asked).await {
                    Ok(found) => found,
                    Err(_elapsed) => {
                        Err(StoreError::PoolTimeout { waited: REFRESH_TIMEOUT, last: None })
                    }
                }
            }
        };
        match (found, stale) {
            (Ok(Some(row)), _) => {
                self.note_use(&row);
                let caller = Caller::from(row);
                self.remember(digest, revocations, &caller, now);
                Ok(Some(caller))
            }
            (Ok(None), _) => {
                self.known().tokens.remove(&digest);
                Ok(None)
            }
            (Err(error), Some(stale)) if error.is_unavailable() => {
                debug!(%error, "database unavailable: the cached token is accepted");
                Ok(Some(stale.caller))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Whether the token is cached.
    pub(super) fn remembers(&self, digest: TokenDigest) -> bool {
        self.remembered(digest, Instant::now()).0.is_some()
    }

    /// Counts a request.
    pub(super) fn count(&self, key: &RateLimitKey) -> Result<(), Problem> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.take(key, Instant::now()).map_err(|wait| {
            Problem::too_many_requests("over the limit of requests per second of one token", wait)
        })
    }

    pub(super) fn forget(&self, token: Uuid) {
        let mut known = self.known();
        known.revocations += 1;
        known.tokens.retain(|_, it| it.caller.token != Some(token));
    }

    /// Several tokens may have been revoked.
    pub(super) fn forget_all(&self) {
        let mut known = self.known();
        known.revocations += 1;
        known.tokens.clear();
    }

    /// The cached token, if it may still be accepted, and the number of revocations so far.
    fn remembered(&self, digest: TokenDigest, now: Instant) -> (Option<Remembered>, u64) {
        let known = self.known();
        let today = Timestamp::now();
        let believed = known.tokens.get(&digest).filter(|it| {
            now.duration_since(it.confirmed_at) < STALE_FOR
                && it.caller.expires_at.is_none_or(|at| today < at)
        });
        (believed.cloned(), known.revocations)
    }

    fn asked(&self, digest: TokenDigest, now: Instant) {
        if let Some(it) = self.known().tokens.get_mut(&digest) {
            it.asked_at = now;
        }
    }

    fn remember(&self, digest: TokenDigest, revocations: u64, caller: &Caller, now: Instant) {
        let mut known = self.known();
        if known.revocations != revocations {
            return;
        }
        if known.tokens.len() >= MAX_TOKENS {
            known.tokens.clear();
        }
        let remembered = Remembered { caller: caller.clone(), confirmed_at: now, asked_at: now };
        known.tokens.insert(digest, remembered);
    }

    fn note_use(&self, row: &TokenRow) {
        let now = Timestamp::now();
        let used_at = row.last_used_timestamp.map(Timestamp::from);
        if used_at.is_some_and(|at| now.seconds_since(at) < LAST_USED_INTERVAL_SECS) {
            return;
        }
        let (store, token) = (self.store.clone(), row.identifier);
        actix_web::rt::spawn(async move {
            if let Err(error) = store.update_last_used(token).await {
                debug!(%error, "the last use of a token was not recorded");
            }
        });
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
