//! Connects to PostgreSQL, with as much TLS as `sslmode` asks for. Used by the pools, the migrations
//! and the benchmark: the only place where a connection is made.

use std::future::poll_fn;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Connection, Error, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use super::connections::{Ssl, SslMode};
use super::{Config, error::sentence};
use crate::tls::handshake_reason;

/// TCP, the login, and for a writer its statements. The driver's own timeout is for TCP alone.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// A server that is there answers within milliseconds; this leaves time to connect anew.
pub(super) const VALIDITY_TIMEOUT: Duration = Duration::from_millis(600);

/// The driver would ask a silent peer after two hours for the first time. A COMMIT whose answer is
/// on no way holds up every PUBACK behind it.
const DRIVERS_KEEPALIVES_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// The same on PostgreSQL's side: a session that we have lost must not keep its uncommitted rows,
/// on which our next attempt waits. One that we have cut ends, whatever it is waiting for.
const SERVERS_SIDE: &str = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 \
     -c tcp_keepalives_count=3 -c tcp_user_timeout=20000 -c client_connection_check_interval=1s \
     -c idle_in_transaction_session_timeout=60000";

/// Makes connections, for pools and for others.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    postgres: tokio_postgres::Config,
    ssl: Ssl,
    /// Told of each notification.
    notified: Option<Arc<Notify>>,
}

impl Connector {
    /// By these settings, under this name unless they have one of their own.
    pub(super) fn new(config: &Config, application_name: &str) -> Self {
        let postgres = with_defaults(&config.postgres, application_name);
        Self { postgres, ssl: config.ssl.clone(), notified: None }
    }

    /// The same, and this is told of each notification.
    pub(super) fn notifying(self, notified: Arc<Notify>) -> Self {
        Self { notified: Some(notified), ..self }
    }

    /// The same, with these options of PostgreSQL's, too.
    pub(super) fn with_options(mut self, options: &str) -> Self {
        append_option(&mut self.postgres, options);
        self
    }

    /// A connection, and the task that drives it to its end.
    pub(super) async fn open(&self) -> Result<(Client, JoinHandle<()>), Error> {
        match self.attempt(&self.postgres).await {
            Err(error) if self.ssl.mode == SslMode::Prefer && wants_no_tls(&error) => {
                debug!(
                    why = sentence(&error),
                    "no TLS with the database; sslmode=prefer goes without"
                );
                let mut plain = self.postgres.clone();
                plain.ssl_mode(tokio_postgres::config::SslMode::Disable);
                // Of the two refusals, the first one says more.
                self.attempt(&plain).await.map_err(|_| error)
            }
            outcome => outcome,
        }
    }

    /// The same for a pool, in time.
    pub(super) async fn connect(&self) -> Result<Line, Error> {
        let (client, driver) = in_time(CONNECT_PATIENCE, self.open()).await?;
        let driver = driver.abort_handle();
        Ok(Line { client, driver, is_abandoned: AtomicBool::new(false) })
    }

    async fn attempt(
        &self,
        postgres: &tokio_postgres::Config,
    ) -> Result<(Client, JoinHandle<()>), Error> {
        match &self.ssl.client {
            Some(client) => {
                let tls = MakeRustlsConnect::new((*client.configuration()).clone());
                let (client, connection) = postgres.connect(tls).await?;
                Ok((client, tokio::spawn(drive(connection, self.notified.clone()))))
            }
            None => {
                let (client, connection) = postgres.connect(NoTls).await?;
                Ok((client, tokio::spawn(drive(connection, self.notified.clone()))))
            }
        }
    }
}

/// Its end is the client's to notice, and to report with what it was doing.
async fn drive<T>(mut connection: Connection<Socket, T>, notified: Option<Arc<Notify>>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(_))) => {
                notified.iter().for_each(|notified| notified.notify_one());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                return debug!(why = sentence(&error), "a database connection ended");
            }
            None => return,
        }
    }
}

/// Whether the same without TLS may go better: the handshake failed, or pg_hba.conf lets nobody in
/// who comes by TLS.
fn wants_no_tls(error: &Error) -> bool {
    if let Some(state) = error.code() {
        return *state == SqlState::INVALID_AUTHORIZATION_SPECIFICATION;
    }
    let source = std::error::Error::source(error);
    let cut_off = source
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
    cut_off || handshake_reason(error).is_some()
}

/// A connection of a pool, and the task that drives it.
pub(super) struct Line {
    client: Client,
    driver: AbortHandle,
    is_abandoned: AtomicBool,
}

impl Line {
    /// Whether somebody went away in the middle of what was asked on it. It is of no use to others then,
    /// and is cut when it is dropped: the driver would wait for the answers as long as the way stays
    /// open, and PostgreSQL would keep what is not committed, and its locks.
    pub(super) fn set_abandoned(&self, is_abandoned: bool) {
        self.is_abandoned.store(is_abandoned, Ordering::Relaxed);
    }

    /// Whether it is of no use any more.
    pub(super) fn is_lost(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed) || self.client.is_closed()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if *self.is_abandoned.get_mut() {
            self.driver.abort();
        }
    }
}

impl Deref for Line {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Line {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// The pool has a place for each connection that is being made: one that is never answered would
/// keep it for ever.
pub(super) async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    let answered = tokio::time::timeout(patience, work).await;
    // The driver has an error for just this, and no other way to make one.
    answered.unwrap_or_else(|_elapsed| Err(tokio_postgres::Error::__private_api_timeout()))
}

/// The user's settings, with ours where the user said nothing.
fn with_defaults(
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

fn append_option(postgres: &mut tokio_postgres::Config, option: &str) {
    let options = match postgres.get_options() {
        Some(present) => format!("{present} {option}"),
        None => option.to_owned(),
    };
    postgres.options(options);
}
