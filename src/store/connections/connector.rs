//! Connects to PostgreSQL: tries each address of DATABASE_URL in turn, with TLS as
//! `sslmode` says. Used by the pools and everything else that needs a connection. No address uses up
//! the time of the others. Session settings are made by SET, because PgBouncer refuses options in the
//! startup packet.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bb8::ManageConnection as _;
use bb8_postgres::PostgresConnectionManager;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::config::{
    Host, LoadBalanceHosts, SslMode as DriverSslMode, SslNegotiation, TargetSessionAttrs,
};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client};
use tracing::debug;

use super::pooled_client::{PooledClient, in_time};
use super::ssl::{Ssl, SslMode};
use super::stream::{Cutter, Negotiation};
use crate::store::{Config, StoreError};
use crate::tls::handshake_reason;

/// Name look-up, TCP, TLS, login, settings, and for a writer its statements.
pub(in crate::store) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit for each address but the last.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// A healthy server answers within milliseconds; this leaves time to reconnect.
pub(in crate::store) const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_millis(600);

/// The driver's default. It is replaced: a COMMIT without an answer holds up all later PUBACKs.
const DRIVERS_KEEPALIVES_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// Keep-alive on the server's side: a session whose connection broke must not keep its uncommitted rows,
/// for which our next attempt waits, and must end also while it waits for a lock.
const SESSION: &str = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; \
     set tcp_keepalives_count = 3; set tcp_user_timeout = 20000; \
     set client_connection_check_interval = '1s'; \
     set idle_in_transaction_session_timeout = '60s'";

/// The routine in which PostgreSQL cancels the wait for a synchronous standby. Its warning has no SQLSTATE
/// of its own, and its text depends on `lc_messages`.
const UNCONFIRMED_COMMIT: &str = "SyncRepWaitForLSN";

/// Makes connections.
#[derive(Clone, Debug)]
pub(in crate::store) struct Connector {
    postgres: tokio_postgres::Config,
    ssl: Ssl,
    session: String,
    /// Notified of each PostgreSQL notification, and of the end of a connection.
    notified: Option<Arc<Notify>>,
    /// Whether its connections detect that a standby did not confirm a commit.
    watches_commits: bool,
    /// [`Config::last_good_address`].
    last_good: Arc<AtomicUsize>,
}

struct Address {
    host: Host,
    /// The resolved name.
    ip: Option<std::net::IpAddr>,
    port: u16,
}

impl Connector {
    /// `application_name` applies unless DATABASE_URL sets one.
    pub(in crate::store) fn new(config: &Config, application_name: &str) -> Self {
        let mut postgres = config.postgres.clone();
        if postgres.get_application_name().is_none() {
            postgres.application_name(application_name);
        }
        let last_good = Arc::clone(&config.last_good_address);
        let session = SESSION.to_owned();
        let ssl = config.ssl.clone();
        Self { postgres, ssl, session, notified: None, watches_commits: false, last_good }
    }

    /// The same connector; its connections notify `notified` of each PostgreSQL notification, and of their end.
    pub(in crate::store) fn notifying(self, notified: Arc<Notify>) -> Self {
        Self { notified: Some(notified), ..self }
    }

    /// The same connector; its connections detect that a standby did not confirm a commit
    /// ([`PooledClient::take_unconfirmed`]).
    pub(in crate::store) fn watching_commits(self) -> Self {
        Self { watches_commits: true, ..self }
    }

    /// The same connector, with further statements that are run on each connection.
    pub(in crate::store) fn with_session(self, statements: &str) -> Self {
        Self { session: format!("{}; {statements}", self.session), ..self }
    }

    pub(in crate::store) async fn connect(&self) -> Result<PooledClient, StoreError> {
        self.connect_within(CONNECT_TIMEOUT).await
    }

    /// Boxed, because the future is large and every pool holds one.
    pub(in crate::store) async fn connect_within(
        &self,
        timeout: Duration,
    ) -> Result<PooledClient, StoreError> {
        let connected =
            in_time(timeout, Box::pin(self.try_addresses(Instant::now() + timeout))).await;
        connected.map_err(|error| match error {
            // No statement timed out: there was no connection.
            StoreError::Silence { waited } => StoreError::PoolTimeout { waited, last: None },
            other => other,
        })
    }

    async fn try_addresses(&self, until: Instant) -> Result<PooledClient, StoreError> {
        let (addresses, mut failure) = self.addresses(until).await;
        let count = addresses.len();
        let is_random = self.postgres.get_load_balance_hosts() == LoadBalanceHosts::Random;
        let first = if is_random {
            rand::random::<u32>() as usize
        } else {
            self.last_good.load(Ordering::Relaxed)
        };
        for tried in 0..count {
            let index = (first + tried) % count;
            let share = share_of(until, count - tried);
            match in_time(share, self.connect_to(&addresses[index])).await {
                Ok(client) => {
                    self.last_good.store(index, Ordering::Relaxed);
                    return Ok(client);
                }
                // An error of PostgreSQL or TLS is more specific than an unreachable address.
                Err(error) => match &failure {
                    Some(earlier) if is_specific(earlier) && !is_specific(&error) => {}
                    _ => failure = Some(error),
                },
            }
        }
        Err(failure.unwrap_or(StoreError::NoAddress))
    }

    /// All addresses, and the error of a name that could not be resolved.
    async fn addresses(&self, until: Instant) -> (Vec<Address>, Option<StoreError>) {
        let hosts = self.postgres.get_hosts();
        let ips = self.postgres.get_hostaddrs();
        let count = hosts.len().max(ips.len());
        let mut addresses = Vec::with_capacity(count);
        let mut failure = None;
        for index in 0..count {
            let ports = self.postgres.get_ports();
            let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
            let ip = ips.get(index).copied();
            let host = match (hosts.get(index), ip) {
                (Some(host), _) => host.clone(),
                (None, Some(ip)) => Host::Tcp(ip.to_string()),
                (None, None) => continue,
            };
            match (&host, ip) {
                (Host::Tcp(name), None) => {
                    let share = share_of(until, count - index);
                    let found = in_time(share, async {
                        let found = tokio::net::lookup_host((name.as_str(), port)).await;
                        found.map_err(|error| StoreError::Lookup(error.to_string()))
                    });
                    match found.await {
                        Ok(found) => addresses.extend(found.map(|address| Address {
                            host: host.clone(),
                            ip: Some(address.ip()),
                            port,
                        })),
                        Err(error) => failure = Some(error),
                    }
                }
                _ => addresses.push(Address { host, ip, port }),
            }
        }
        (addresses, failure)
    }

    async fn connect_to(&self, address: &Address) -> Result<PooledClient, StoreError> {
        let (cutter, unconfirmed) = (Cutter::default(), Arc::new(AtomicBool::new(false)));
        let log_in = |ssl| self.log_in(address, ssl, &cutter, &unconfirmed);
        let without_tls = Ssl::disabled();
        let client = match log_in(&self.ssl).await {
            Err(error) if self.ssl.mode == SslMode::Prefer && wants_no_tls(&error) => {
                debug!(%error, "TLS with the database failed; retrying without, as sslmode=prefer says");
                // If both fail, the first error is more specific.
                log_in(&without_tls).await.map_err(|_| error)
            }
            outcome => outcome,
        }?;
        let must_write = self.postgres.get_target_session_attrs() == TargetSessionAttrs::ReadWrite;
        let client = PooledClient::new(client, cutter, must_write, unconfirmed);
        client.set_abandoned(true);
        client.batch_execute(&self.session).await?;
        client.set_abandoned(false);
        Ok(client)
    }

    async fn log_in(
        &self,
        address: &Address,
        ssl: &Ssl,
        cutter: &Cutter,
        unconfirmed: &Arc<AtomicBool>,
    ) -> Result<Client, tokio_postgres::Error> {
        let is_direct = self.postgres.get_ssl_negotiation() == SslNegotiation::Direct;
        let negotiation = Negotiation { ssl: ssl.clone(), is_direct, cutter: cutter.clone() };
        let config = self.config_for(address);
        if self.notified.is_none() && !self.watches_commits {
            return PostgresConnectionManager::new(config, negotiation).connect().await;
        }
        // The manager's own driver task drops notifications and notices.
        let (client, mut connection) = config.connect(negotiation).await?;
        let (notified, unconfirmed) = (self.notified.clone(), Arc::clone(unconfirmed));
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                match (message, &notified) {
                    (AsyncMessage::Notification(_), Some(notified)) => notified.notify_one(),
                    // It precedes the answer to COMMIT.
                    (AsyncMessage::Notice(notice), _)
                        if notice.routine() == Some(UNCONFIRMED_COMMIT) =>
                    {
                        unconfirmed.store(true, Ordering::Release);
                    }
                    _ => {}
                }
            }
            drop(connection);
            notified.inspect(|notified| notified.notify_one());
        });
        Ok(client)
    }

    /// The settings of DATABASE_URL for this address, with our defaults.
    fn config_for(&self, address: &Address) -> tokio_postgres::Config {
        let user = &self.postgres;
        let mut config = tokio_postgres::Config::new();
        match &address.host {
            Host::Tcp(name) => {
                config.host(name);
                // `Negotiation` negotiates TLS itself: with these settings the driver passes it every stream.
                config.ssl_mode(DriverSslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            }
            Host::Unix(directory) => {
                config.host_path(directory).ssl_mode(DriverSslMode::Disable);
            }
        }
        if let Some(ip) = address.ip {
            config.hostaddr(ip);
        }
        config.port(address.port);
        user.get_user().map(|it| config.user(it));
        user.get_password().map(|it| config.password(it));
        user.get_dbname().map(|it| config.dbname(it));
        user.get_options().map(|it| config.options(it));
        user.get_application_name().map(|it| config.application_name(it));
        config.channel_binding(user.get_channel_binding());
        config.target_session_attrs(user.get_target_session_attrs());
        let or = |set: Option<&Duration>, secs| set.copied().unwrap_or(Duration::from_secs(secs));
        config.connect_timeout(or(user.get_connect_timeout(), 5));
        // Detects a peer that disappeared without closing the connection.
        config.tcp_user_timeout(or(user.get_tcp_user_timeout(), 20));
        config.keepalives(user.get_keepalives());
        if user.get_keepalives_idle() == DRIVERS_KEEPALIVES_IDLE {
            config.keepalives_idle(Duration::from_secs(10));
            config.keepalives_interval(Duration::from_secs(5)).keepalives_retries(3);
        } else {
            config.keepalives_idle(user.get_keepalives_idle());
            user.get_keepalives_interval().map(|it| config.keepalives_interval(it));
            user.get_keepalives_retries().map(|it| config.keepalives_retries(it));
        }
        config
    }
}

/// The time for one address, if `left` addresses have not been tried yet.
fn share_of(until: Instant, left: usize) -> Duration {
    let remaining = until.saturating_duration_since(Instant::now());
    match left {
        0 | 1 => remaining,
        left => (remaining / u32::try_from(left).unwrap_or(u32::MAX)).min(ADDRESS_TIMEOUT),
    }
}

fn is_specific(error: &StoreError) -> bool {
    error.sqlstate().is_some() || error.handshake_problem().is_some()
}

/// Whether a connection without TLS may succeed: the handshake failed, or pg_hba.conf refuses TLS.
fn wants_no_tls(error: &tokio_postgres::Error) -> bool {
    if let Some(state) = error.code() {
        return *state == SqlState::INVALID_AUTHORIZATION_SPECIFICATION;
    }
    let cut_off = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
    cut_off || handshake_reason(error).is_some()
}
