//! Connections for reading and for everything off the hot path: the registry's look-ups, the
//! outbox, the API.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bb8::{ErrorSink, Pool, PooledConnection, RunError};
use bb8_postgres::PostgresConnectionManager;
use tokio_postgres::NoTls;

use super::error::sentence;
use super::{Config, StoreError};

pub(super) type Manager = PostgresConnectionManager<NoTls>;

/// The API must answer within 2 s when the database is away; half of that is left for the query.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(1);

/// A read that takes longer helps nobody and holds a connection.
const STATEMENT_TIMEOUT_MILLISECONDS: u32 = 10_000;

/// Where this answers, the migrations have been applied.
const LATEST_TABLE: &str = "select from token limit 0";

/// Reads, and the small writes of the API.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool<Manager>,
    complaints: Complaints,
}

impl Store {
    /// A pool that connects when it is first used; the database may be away meanwhile.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut postgres = with_defaults(&config.postgres, "tributary-read");
        append_option(
            &mut postgres,
            &format!("-c statement_timeout={STATEMENT_TIMEOUT_MILLISECONDS}"),
        );
        let complaints = Complaints::default();
        let pool = Pool::builder()
            .max_size(config.readers)
            .connection_timeout(CHECKOUT_TIMEOUT)
            // A server that is frozen, or gone without a word, is found out here, within the second
            // of the checkout, and not by a query that would wait for it.
            .test_on_check_out(true)
            .error_sink(Box::new(complaints.clone()))
            .build_unchecked(Manager::new(postgres, NoTls));
        Self { pool, complaints }
    }

    /// A connection.
    ///
    /// # Errors
    /// When none can be had within a second.
    pub(super) async fn connection(&self) -> Result<PooledConnection<'_, Manager>, StoreError> {
        let checked_out = self.pool.get().await;
        checked_out.map_err(|error| self.complaints.checkout_error(error, CHECKOUT_TIMEOUT))
    }

    /// Whether the database answers, and has our tables.
    ///
    /// # Errors
    /// When it does not, or only after a second.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        match tokio::time::timeout(CHECKOUT_TIMEOUT, connection.simple_query(LATEST_TABLE)).await {
            Ok(answer) => answer.map(drop).map_err(StoreError::from),
            Err(_elapsed) => Err(StoreError::PoolTimeout { waited: CHECKOUT_TIMEOUT, last: None }),
        }
    }
}

/// Why connections could not be made lately; a pool that waits in vain would not say.
#[derive(Clone, Debug, Default)]
pub(super) struct Complaints(Arc<Mutex<Option<String>>>);

impl Complaints {
    pub(super) fn checkout_error(
        &self,
        error: RunError<tokio_postgres::Error>,
        waited: Duration,
    ) -> StoreError {
        match error {
            RunError::User(error) => StoreError::Postgres(error),
            RunError::TimedOut => StoreError::PoolTimeout { waited, last: self.last().take() },
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ErrorSink<tokio_postgres::Error> for Complaints {
    fn sink(&self, error: tokio_postgres::Error) {
        *self.last() = Some(sentence(&error));
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<tokio_postgres::Error>> {
        Box::new(self.clone())
    }
}

/// The user's settings, with ours where the user said nothing.
pub(super) fn with_defaults(
    postgres: &tokio_postgres::Config,
    application_name: &str,
) -> tokio_postgres::Config {
    let mut postgres = postgres.clone();
    if postgres.get_application_name().is_none() {
        postgres.application_name(application_name);
    }
    if postgres.get_connect_timeout().is_none() {
        postgres.connect_timeout(Duration::from_secs(5));
    }
    if postgres.get_tcp_user_timeout().is_none() {
        // A peer that vanished without a word is noticed after this long.
        postgres.tcp_user_timeout(Duration::from_secs(20));
    }
    if postgres.get_keepalives_idle() == DRIVERS_KEEPALIVES_IDLE {
        postgres.keepalives_idle(Duration::from_secs(10));
        postgres.keepalives_interval(Duration::from_secs(5));
        postgres.keepalives_retries(3);
    }
    append_option(&mut postgres, SERVERS_SIDE);
    postgres
}

/// The driver would ask a silent peer after two hours for the first time. A COMMIT whose answer is
/// on no way holds up every PUBACK behind it.
const DRIVERS_KEEPALIVES_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// The same on PostgreSQL's side: a session that we have lost must not keep its uncommitted rows,
/// on which our next attempt waits.
const SERVERS_SIDE: &str = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 \
     -c tcp_keepalives_count=3 -c tcp_user_timeout=20000 \
     -c idle_in_transaction_session_timeout=60000";

pub(super) fn append_option(postgres: &mut tokio_postgres::Config, option: &str) {
    let options = match postgres.get_options() {
        Some(present) => format!("{present} {option}"),
        None => option.to_owned(),
    };
    postgres.options(options);
}
