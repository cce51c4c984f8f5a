//! A pool for everything but the writers. `app` opens one [`Store`] each for look-ups and the outbox, the API,
//! authentication, purges and the background. Every call ends in bounded time, also if the database stops responding.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bb8::{ErrorSink as _, Pool, PooledConnection, QueueStrategy, RunError};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use tokio_postgres::Client;
use uuid::Uuid;

use super::connections::connector::Connector;
use super::connections::last_connect_error::{LastConnectError, PoolUse};
use super::connections::reader::{Planning, ReaderManager};
use super::engines::engine::Engine;
use super::engines::recorded::recorded;
use super::query::turns::{CallerTurns, LongRead, Turns};
use super::{Config, StoreError};

/// For getting a connection, including its health check. The API must answer within 2 s when the
/// database is unavailable, and authentication may have taken half a second before.
pub(super) const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(1);

/// PostgreSQL cancels a statement that takes too long, and reports it. If it does not within this
/// additional time, it has stopped responding.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(1);

/// For short statements JIT compilation costs more than it saves; sums over some ten thousand rows should
/// fit in memory.
const READER_SESSION: &str = "set jit = off; set work_mem = '16MB'";

/// An export takes as long as its reader. While the reader pauses we read nothing, and a
/// `tcp_user_timeout` would close the connection.
const EXPORT_SESSION: &str = "set statement_timeout = 0; set tcp_user_timeout = 0; \
     set standard_conforming_strings = on; set jit = off";

/// PostgreSQL cancels a statement earlier, unless it is unreachable.
pub(super) const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(15);

/// Fails unless the migrations have been applied.
const LATEST_TABLE: &str = "select limit_timestamp from retention_limit limit 0";

pub(super) type Checkout<'a> = PooledConnection<'a, ReaderManager>;

/// Reads, and writes off the hot path. Every call fails if the database is unavailable or does not answer
/// in time; their docs name only other causes.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool<ReaderManager>,
    last_connect_error: LastConnectError,
    statement_timeout: Duration,
    turns: Arc<Turns>,
    /// Purges wait for a permit without a connection; one connection remains free of them.
    pub(super) purge_permits: Arc<Semaphore>,
    /// One deletion at a time, because they exclude each other by a lock.
    pub(super) deletion_permit: Arc<Semaphore>,
    /// While false the migrations are being applied, and there are no connections.
    migrated: watch::Receiver<bool>,
    pub(super) idempotency_hours: i32,
    /// `FUTURE_TOLERANCE_SECS`
    pub(super) future_tolerance: Duration,
    pub(super) export_permits: Arc<Semaphore>,
    pub(super) max_exports: u32,
    pub(super) exports_of_callers: Arc<CallerTurns>,
    pub(super) export_connector: Connector,
    /// Entries of the roll-up's journal that one transaction folds.
    pub(super) fold_entries: Arc<AtomicUsize>,
    engine: Arc<OnceCell<&'static dyn Engine>>,
}

impl Store {
    /// Connects on first use; the database may be unavailable before.
    pub fn new(config: &Config) -> Self {
        let secs = config.read_timeout_secs;
        let session = format!("set statement_timeout = '{secs}s'; {READER_SESSION}");
        let connector = Connector::new(config, "tributary-read").with_session(&session);
        let last_connect_error = LastConnectError::default();
        let pool = Pool::builder()
            .max_size(config.readers)
            .connection_timeout(CHECKOUT_TIMEOUT)
            // Checked by callers: page reads pipeline the health check with their query.
            .test_on_check_out(false)
            // So that a few connections do most of the work, with cached tables and plans.
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(last_connect_error.clone()))
            .build_unchecked(ReaderManager(connector));
        Self {
            pool,
            last_connect_error,
            statement_timeout: Duration::from_secs(config.read_timeout_secs.into()),
            turns: Arc::new(Turns::of(config.readers)),
            purge_permits: Arc::new(Semaphore::new(
                config.readers.saturating_sub(1).max(1) as usize
            )),
            deletion_permit: Arc::new(Semaphore::new(1)),
            migrated: watch::channel(true).1,
            idempotency_hours: i32::try_from(config.idempotency_hours).unwrap_or(i32::MAX),
            future_tolerance: Duration::from_secs(config.future_tolerance_secs.into()),
            export_permits: Arc::new(Semaphore::new(config.exports as usize)),
            max_exports: config.exports,
            exports_of_callers: Arc::new(CallerTurns::new((config.exports / 2).max(1))),
            export_connector: Connector::new(config, "tributary-export")
                .with_session(EXPORT_SESSION),
            fold_entries: Arc::new(AtomicUsize::new(usize::MAX)),
            engine: Arc::default(),
        }
    }

    /// The same store, without connections until `migrated` is true.
    #[must_use]
    pub fn held_until(self, migrated: watch::Receiver<bool>) -> Self {
        Self { migrated, ..self }
    }

    /// Returns when the tables may be used; never, if the migrations have failed.
    pub async fn migrated(&self) {
        let mut migrated = self.migrated.clone();
        if migrated.wait_for(|migrated| *migrated).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The engine of the database, which is read once.
    pub(super) async fn engine(&self, client: &Client) -> Result<&'static dyn Engine, StoreError> {
        let read = async || Ok(recorded(client).await?.engine());
        self.engine.get_or_try_init(read).await.copied()
    }

    /// Limits a request to the time for one statement. After a timeout it is unknown whether a change was
    /// committed.
    pub(super) async fn within<T, E: From<StoreError>>(
        &self,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let waited = CHECKOUT_TIMEOUT + self.statement_timeout + SILENCE_TIMEOUT;
        match tokio::time::timeout(waited, request).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(StoreError::Silence { waited }.into()),
        }
    }

    /// The state of its pool.
    pub fn pool_use(&self) -> PoolUse {
        PoolUse::of(&self.pool)
    }

    /// Waits for a turn of a long read, at most `DATABASE_READ_TIMEOUT_SECS`, without holding a
    /// connection. Without authentication there is no limit per caller.
    pub async fn long_read(&self, caller: Option<Uuid>) -> Result<LongRead, StoreError> {
        let turn = tokio::time::timeout(self.statement_timeout, self.turns.long(caller)).await;
        turn.ok().flatten().ok_or(StoreError::LimitReached("long reads"))
    }

    /// Waits for a turn of a read of a hot table.
    pub(super) async fn hot_read(&self, until: Instant) -> Result<SemaphorePermit<'_>, StoreError> {
        let turn = tokio::time::timeout_at(until, self.turns.hot()).await;
        let late = StoreError::PoolTimeout { waited: CHECKOUT_TIMEOUT, last: None };
        turn.ok().flatten().ok_or(late)
    }

    /// A turn of a read of a hot table, to be kept until it ends, and a connection for it.
    pub(super) async fn hot_connection(
        &self,
    ) -> Result<(SemaphorePermit<'_>, Checkout<'_>), StoreError> {
        let until = Instant::now() + CHECKOUT_TIMEOUT;
        let turn = self.hot_read(until).await?;
        Ok((turn, self.connection_by(until).await?))
    }

    /// A connection that has passed its health check, so that no query waits for a server that has stopped
    /// responding.
    pub(super) async fn connection(&self) -> Result<Checkout<'_>, StoreError> {
        self.connection_by(Instant::now() + CHECKOUT_TIMEOUT).await
    }

    pub(super) async fn connection_by(&self, until: Instant) -> Result<Checkout<'_>, StoreError> {
        self.has_tables()?;
        self.checked_connection(until).await
    }

    /// A connection that the caller must check first
    /// ([`super::connections::reader::ReaderConnection::health_check`]), and replace if that fails.
    pub(super) async fn unchecked_connection(
        &self,
        until: Instant,
    ) -> Result<Checkout<'_>, StoreError> {
        self.has_tables()?;
        self.checked_out(until, self.usable_connection()).await
    }

    fn has_tables(&self) -> Result<(), StoreError> {
        if *self.migrated.borrow() { Ok(()) } else { Err(StoreError::Migrating) }
    }

    async fn checked_connection(&self, until: Instant) -> Result<Checkout<'_>, StoreError> {
        let answering = async {
            loop {
                let reader = self.usable_connection().await?;
                match reader.health_check(Planning::Anew, until).await {
                    Ok(()) => return Ok(reader),
                    Err(error) => self.last_connect_error.sink(error),
                }
            }
        };
        // Boxed, because the future is large and its callers are many.
        self.checked_out(until, Box::pin(answering)).await
    }

    /// A connection that is not known to be lost.
    async fn usable_connection(&self) -> Result<Checkout<'_>, RunError<StoreError>> {
        loop {
            let reader = self.pool.get().await?;
            if !reader.is_lost() {
                return Ok(reader);
            }
        }
    }

    async fn checked_out<'a>(
        &self,
        until: Instant,
        connection: impl Future<Output = Result<Checkout<'a>, RunError<StoreError>>>,
    ) -> Result<Checkout<'a>, StoreError> {
        let checked_out = tokio::time::timeout_at(until, connection).await;
        let checked_out = checked_out.unwrap_or(Err(RunError::TimedOut));
        checked_out.map_err(|error| self.last_connect_error.checkout_error(error, CHECKOUT_TIMEOUT))
    }

    /// Fails after `timeout`: a server or network path that stops responding without closing the
    /// connection would hold the caller for ever. The next health check finds such a connection.
    pub(super) async fn answered_within<T>(
        timeout: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        // The unit tests have a server that never answers.
        let timeout = if cfg!(test) { timeout / 10_000 } else { timeout };
        let answered = tokio::time::timeout(timeout, work).await;
        answered.unwrap_or(Err(StoreError::Silence { waited: timeout }))
    }

    /// Checks that the database answers, and has our tables.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let connection = self.checked_connection(Instant::now() + CHECKOUT_TIMEOUT).await?;
        self.has_tables()?;
        match tokio::time::timeout(CHECKOUT_TIMEOUT, connection.simple_query(LATEST_TABLE)).await {
            Ok(answer) => answer.map(drop).map_err(StoreError::from),
            Err(_elapsed) => Err(StoreError::PoolTimeout { waited: CHECKOUT_TIMEOUT, last: None }),
        }
    }
}
