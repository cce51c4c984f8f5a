//! Connects to PostgreSQL, with as much TLS as `sslmode` asks for. Used by the pools, the migrations
//! and the benchmark: the only place where a connection is made.

use std::io;

use bb8::ManageConnection;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Connection, Error, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use super::pool::{CONNECT_PATIENCE, VALIDITY_TIMEOUT, in_time, with_defaults};
use super::ssl::{Ssl, SslMode};
use super::{Config, error::sentence};
use crate::tls::handshake_reason;

/// Makes connections, and as a manager of bb8's a pool of them.
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

impl ManageConnection for Connector {
    type Connection = Client;
    type Error = Error;

    async fn connect(&self) -> Result<Client, Error> {
        // The driver ends when the client is dropped.
        in_time(CONNECT_PATIENCE, self.open()).await.map(|(client, _driver)| client)
    }

    async fn is_valid(&self, client: &mut Client) -> Result<(), Error> {
        // One that is checked out and does not answer at once goes: it would otherwise wait for the
        // next one in the pool.
        in_time(VALIDITY_TIMEOUT, client.simple_query("")).await.map(drop)
    }

    fn has_broken(&self, client: &mut Client) -> bool {
        client.is_closed()
    }
}
