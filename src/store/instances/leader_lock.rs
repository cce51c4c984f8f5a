//! The session advisory lock of the leader. Called once a second by the task that leads. At most one process believes
//! that it holds the lock.
//!
//! Invariant: PostgreSQL releases the lock when it has received nothing for [`IDLE_TIMEOUT`], so also where the
//! connection is half-open. A holder leads for [`LeaderLock::TERM`] from the start of its last successful
//! [`LeaderLock::hold`], which is shorter.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::store::connections::connector::Connector;
use crate::store::connections::pooled_client::{PooledClient, in_time};
use crate::store::{Config, StoreError};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// More than [`LeaderLock::TERM`].
const IDLE_TIMEOUT: &str = "set idle_session_timeout = '5s'";

/// A standby has locks of its own.
const TRY_LOCK: &str = "\
select not pg_is_in_recovery() and pg_try_advisory_lock(hashtextextended('tributary leader', 0))";

/// The lock, and the connection that holds it.
#[derive(Debug)]
pub struct LeaderLock {
    connector: Connector,
    disconnected: Arc<Notify>,
    client: Option<PooledClient>,
    is_held: bool,
}

impl LeaderLock {
    /// Two answers that take [`ANSWER_TIMEOUT`] each are in time.
    pub const TERM: Duration = Duration::from_secs(4);

    /// Not held, and without a connection.
    pub fn new(config: &Config) -> Self {
        let disconnected = Arc::new(Notify::new());
        let connector = Connector::new(config, "tributary-leader")
            .with_session(IDLE_TIMEOUT)
            .notifying(Arc::clone(&disconnected));
        Self { connector, disconnected, client: None, is_held: false }
    }

    /// Whether there is no connection: PostgreSQL has released the lock, if it was held.
    pub fn is_lost(&self) -> bool {
        self.client.as_ref().is_none_or(|client| client.is_closed())
    }

    /// Returns when the connection may have ended.
    pub async fn disconnected(&self) {
        self.disconnected.notified().await;
    }

    /// Whether this process holds the lock; takes it if nobody does.
    /// If it fails the lock counts as lost.
    pub async fn hold(&mut self) -> Result<bool, StoreError> {
        let held = in_time(ANSWER_TIMEOUT, self.try_hold()).await;
        self.is_held = matches!(held, Ok(true));
        if held.is_err() {
            self.client = None;
        }
        held
    }

    async fn try_hold(&mut self) -> Result<bool, StoreError> {
        let client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => {
                self.is_held = false;
                self.connector.connect_within(ANSWER_TIMEOUT).await?
            }
        };
        // An old primary that has become read-only gives way to the new one, whose lock is another.
        client.health_check("", ANSWER_TIMEOUT).await?;
        // So that it is closed, and the lock released, if this future is dropped.
        client.set_abandoned(true);
        let is_held = self.is_held || client.query_one(TRY_LOCK, &[]).await?.try_get(0)?;
        self.client = Some(client);
        Ok(is_held)
    }
}
