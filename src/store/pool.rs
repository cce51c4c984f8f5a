//! Connections for reading and for everything off the hot path: the registry's look-ups, the
//! outbox, the API.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bb8::{ErrorSink as _, Pool, PooledConnection, QueueStrategy, RunError};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::connections::connector::Connector;
use super::connections::last_connect_error::{LastConnectError, PoolUse};
use super::connections::reader::{Planning, ReaderManager};
use super::query::callers::Callers;
use super::query::turns::{LongRead, Turns};
use super::{Config, StoreError};

/// The API must answer within 2 s when the database is away. This is for a connection, and for the
/// first word over it; to know the caller may have taken half a second before.
pub(super) const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(1);

/// PostgreSQL ends a statement that takes too long, and says so. If it does not say so within this
/// time more, it is frozen, or gone without a word.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Short statements, for which compiling costs more than it brings, and sums over some ten thousand
/// rows that should not go by way of a file.
const READER_SESSION: &str = "set jit = off; set work_mem = '16MB'";

/// An export takes as long as its reader does. While the reader pauses we take nothing, and with a `tcp_user_timeout`
/// the system would cut off the backend that waits.
const EXPORT_SESSION: &str = "set statement_timeout = 0; set tcp_user_timeout = 0; \
     set standard_conforming_strings = on; set jit = off";

/// PostgreSQL cancels a statement before that, if it is there to do so.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Where this answers, the migrations have been applied.
const LATEST_TABLE: &str = "select purge_timestamp from deleted_sensor limit 0";

/// Of the readers' pool.
pub(super) type Checkout<'a> = PooledConnection<'a, ReaderManager>;

/// Reads, and the small writes of the API.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool<ReaderManager>,
    last_connect_error: LastConnectError,
    statement_timeout: Duration,
    turns: Arc<Turns>,
    /// Purges wait here, and not for a connection. One connection stays free of them.
    pub(super) purge_permits: Arc<Semaphore>,
    /// Deletions wait for each other in any case.
    pub(super) deletion_permit: Arc<Semaphore>,
    /// Until this says true the tables are being made: nobody reads or writes them.
    migrated: watch::Receiver<bool>,
    pub(super) idempotency_hours: i32,
    /// One bundles on demand at a time; none, where nobody does.
    pub(super) bundle_permit: Option<Arc<Semaphore>>,
    pub(super) export_permits: Arc<Semaphore>,
    pub(super) max_exports: u32,
    /// How many exports each caller runs.
    pub(super) exporting_callers: Callers,
    pub(super) export_connector: Connector,
    /// Entries of the activity journal that one transaction folds.
    pub(super) fold_entries: Arc<AtomicUsize>,
}

impl Store {
    /// A pool that connects when it is first used; the database may be away meanwhile.
    #[must_use]
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
            // So that few of them do most of the work, and know the tables and the plans.
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
            bundle_permit: config.measurement_bundles.then(|| Arc::new(Semaphore::new(1))),
            export_permits: Arc::new(Semaphore::new(config.exports as usize)),
            max_exports: config.exports,
            exporting_callers: Callers::default(),
            export_connector: Connector::new(config, "tributary-export")
                .with_session(EXPORT_SESSION),
            fold_entries: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }

    /// The same, and until this says true it has no connection for anybody.
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

    /// A request of the database that ends, whatever becomes of it. Nobody knows then whether a
    /// change has been made.
    ///
    /// # Errors
    /// Those of the request; and when the database says nothing for longer than a statement may take.
    pub(super) async fn within<T, E: From<StoreError>>(
        &self,
        asked: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let waited = CHECKOUT_TIMEOUT + self.statement_timeout + SILENCE_TIMEOUT;
        match tokio::time::timeout(waited, asked).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(StoreError::Silence { waited }.into()),
        }
    }

    /// How its connections are used.
    #[must_use]
    pub fn pool_use(&self) -> PoolUse {
        PoolUse::of(&self.pool)
    }

    /// Waits for a turn of a long read, as long as a read may take. Whoever waits holds no
    /// connection. Who is not asked for a token has no share of its own.
    ///
    /// # Errors
    /// When there is none in this time.
    pub async fn long_read(&self, caller: Option<Uuid>) -> Result<LongRead, StoreError> {
        let turn = tokio::time::timeout(self.statement_timeout, self.turns.long(caller)).await;
        turn.ok().flatten().ok_or(StoreError::Crowded("long reads"))
    }

    /// A turn of a read of a hot table, by then.
    pub(super) async fn hot_read(&self, until: Instant) -> Result<SemaphorePermit<'_>, StoreError> {
        let turn = tokio::time::timeout_at(until, self.turns.hot()).await;
        let late = StoreError::PoolTimeout { waited: CHECKOUT_TIMEOUT, last: None };
        turn.ok().flatten().ok_or(late)
    }

    /// A connection that answers. A server that is frozen, or gone without a word, is found out here,
    /// and not by a query that would wait for it.
    ///
    /// # Errors
    /// When none can be had within a second, or the tables are being made.
    pub(super) async fn connection(&self) -> Result<Checkout<'_>, StoreError> {
        self.connection_by(Instant::now() + CHECKOUT_TIMEOUT).await
    }

    /// The same, by then.
    pub(super) async fn connection_by(&self, until: Instant) -> Result<Checkout<'_>, StoreError> {
        self.has_tables()?;
        self.answering(until).await
    }

    /// A connection that answered when it was last used: whoever takes it checks it
    /// ([`super::connections::reader::Reader::health_check`]) ahead of all else, and takes another one
    /// if it fails.
    ///
    /// # Errors
    /// As above.
    pub(super) async fn unchecked_connection(
        &self,
        until: Instant,
    ) -> Result<Checkout<'_>, StoreError> {
        self.has_tables()?;
        self.checked_out(until, self.any()).await
    }

    fn has_tables(&self) -> Result<(), StoreError> {
        if *self.migrated.borrow() { Ok(()) } else { Err(StoreError::Migrating) }
    }

    async fn answering(&self, until: Instant) -> Result<Checkout<'_>, StoreError> {
        let answering = async {
            loop {
                let reader = self.any().await?;
                match reader.health_check(Planning::Anew, until).await {
                    Ok(()) => return Ok(reader),
                    Err(error) => self.last_connect_error.sink(error),
                }
            }
        };
        // Boxed, so that the many who ask for one are not as large as this.
        self.checked_out(until, Box::pin(answering)).await
    }

    /// One that is not known to be lost.
    async fn any(&self) -> Result<Checkout<'_>, RunError<StoreError>> {
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

    /// Gives up after so long: a server or a way that is silent and closes nothing would hold the
    /// caller for ever. The connection is found out when it is next checked out.
    pub(super) async fn answered_within<T>(
        timeout: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        // The tests of it have a server that never answers, and less timeout.
        let timeout = if cfg!(test) { timeout / 10_000 } else { timeout };
        let answered = tokio::time::timeout(timeout, work).await;
        answered.unwrap_or(Err(StoreError::Silence { waited: timeout }))
    }

    /// Whether the database answers, and has our tables.
    ///
    /// # Errors
    /// When it does not, or only after a second.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let connection = self.answering(Instant::now() + CHECKOUT_TIMEOUT).await?;
        self.has_tables()?;
        match tokio::time::timeout(CHECKOUT_TIMEOUT, connection.simple_query(LATEST_TABLE)).await {
            Ok(answer) => answer.map(drop).map_err(StoreError::from),
            Err(_elapsed) => Err(StoreError::PoolTimeout { waited: CHECKOUT_TIMEOUT, last: None }),
        }
    }
}
