//! Connects to PostgreSQL, with as much TLS as `sslmode` asks for. Used by the pools, the migrations
//! and the benchmark: the only place where a connection is made.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, JoinHandle};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Connection, Error, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use super::pool::{CONNECT_PATIENCE, in_time, with_defaults};
use super::ssl::{Ssl, SslMode};
use super::{Config, error::sentence};
use crate::tls::handshake_reason;

/// Makes connections, for pools and for others.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) postgres: tokio_postgres::Config,
    ssl: Ssl,
}

impl Connector {
    /// By these settings, under this name unless they have one of their own.
    pub(super) fn new(config: &Config, application_name: &str) -> Self {
        let postgres = with_defaults(&config.postgres, application_name);
        Self { postgres, ssl: config.ssl.clone() }
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
        Ok(Line::new(client, &driver))
    }

    async fn attempt(
        &self,
        postgres: &tokio_postgres::Config,
    ) -> Result<(Client, JoinHandle<()>), Error> {
        match &self.ssl.client {
            Some(client) => {
                let tls = MakeRustlsConnect::new((*client.configuration()).clone());
                let (client, connection) = postgres.connect(tls).await?;
                Ok((client, tokio::spawn(drive(connection))))
            }
            None => {
                let (client, connection) = postgres.connect(NoTls).await?;
                Ok((client, tokio::spawn(drive(connection))))
            }
        }
    }
}

/// Its end is the client's to notice, and to report with what it was doing.
async fn drive<T>(connection: Connection<Socket, T>)
where
    Connection<Socket, T>: Future<Output = Result<(), Error>>,
{
    if let Err(error) = connection.await {
        debug!(why = sentence(&error), "a database connection ended");
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
    pub(super) fn new(client: Client, driver: &JoinHandle<()>) -> Self {
        Self { client, driver: driver.abort_handle(), is_abandoned: AtomicBool::new(false) }
    }

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
