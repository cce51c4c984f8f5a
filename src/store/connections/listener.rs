//! A LISTEN connection, on which PostgreSQL reports at their COMMIT that something has changed. Used by the watch of
//! access and by the relay between instances. Waiting for a change also ends when the connection does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::connector::Connector;
use super::pooled_client::{PooledClient, in_time};
use crate::store::{Config, StoreError};

/// A LISTEN connection.
#[derive(Debug)]
pub struct Listener {
    connector: Connector,
    statement: &'static str,
    /// For connecting and listening, and for an answer.
    timeout: Duration,
    changed: Arc<Notify>,
    pub(in crate::store) client: Option<PooledClient>,
}

impl Listener {
    /// Call [`Self::listen`] next.
    pub(in crate::store) fn new(
        config: &Config,
        name: &str,
        statement: &'static str,
        timeout: Duration,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let connector = Connector::new(config, name).notifying(Arc::clone(&changed));
        Self { connector, statement, timeout, changed, client: None }
    }

    /// Whether the connection is open.
    pub fn is_listening(&self) -> bool {
        self.client.as_ref().is_some_and(|client| !client.is_closed())
    }

    /// Connects, and listens. Earlier changes were not reported, so something may have changed.
    pub async fn listen(&mut self) -> Result<(), StoreError> {
        self.client = None;
        let listening = async {
            let client = self.connector.connect().await?;
            // So that the connection is closed when it is dropped.
            client.set_abandoned(true);
            client.batch_execute(self.statement).await?;
            Ok::<_, StoreError>(client)
        };
        self.client = Some(in_time(self.timeout, listening).await?);
        self.changed.notify_one();
        Ok(())
    }

    /// Closes a connection that does not answer, or whose server has become read-only: neither notifies of anything.
    pub async fn check(&mut self) -> Result<(), StoreError> {
        let Some(client) = self.client.take() else { return Ok(()) };
        client.health_check("", self.timeout).await?;
        self.client = Some(client);
        Ok(())
    }

    /// Returns when something may have changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
