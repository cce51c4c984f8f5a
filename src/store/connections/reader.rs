//! A reading connection with a cache of prepared statements. Held by the readers' pool. Parsing and
//! planning a page of a partitioned table takes longer than reading it, and so does another round trip:
//! therefore the health check is pipelined with the query.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bb8::ManageConnection;
use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

use super::connector::{Connector, HEALTH_CHECK_TIMEOUT};
use super::pooled_client::PooledClient;
use crate::store::StoreError;
use crate::store::columns::Parameters;

/// Statements per connection. Ordinary callers need a few; when the cache is full it is cleared.
const MAX_STATEMENTS: usize = 64;

const ONE_PLAN: &str = "set plan_cache_mode = force_generic_plan";
const ANY_PLAN: &str = "reset plan_cache_mode";
const AS_BEFORE: &str = "";

/// How PostgreSQL plans prepared statements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Planning {
    /// PostgreSQL's default: possibly again for each execution.
    Anew,
    /// One generic plan for all parameters.
    Once,
}

/// A connection and its statements.
pub(in crate::store) struct ReaderConnection {
    client: PooledClient,
    statements: Mutex<HashMap<String, Statement>>,
    /// The last setting sent. Requests are sent in the order in which they are first polled.
    plans_once: AtomicBool,
}

impl ReaderConnection {
    fn new(client: PooledClient) -> Self {
        Self { client, statements: Mutex::default(), plans_once: AtomicBool::new(false) }
    }

    /// Sets the planning, or sends the empty query. Other requests may be pipelined after it. Until it is
    /// answered the connection counts as lost.
    /// If it fails the connection is lost.
    pub(in crate::store) async fn health_check(
        &self,
        planning: Planning,
        until: Instant,
    ) -> Result<(), StoreError> {
        let once = planning == Planning::Once;
        let statement = match (self.plans_once.swap(once, Ordering::Relaxed), once) {
            (false, true) => ONE_PLAN,
            (true, false) => ANY_PLAN,
            _ => AS_BEFORE,
        };
        let remaining = until.saturating_duration_since(Instant::now());
        self.client.health_check(statement, HEALTH_CHECK_TIMEOUT.min(remaining)).await
    }

    /// Whether it is unusable.
    pub(in crate::store) fn is_lost(&self) -> bool {
        self.client.is_lost()
    }

    /// Runs a statement, which is parsed on first use. After a health check with [`Planning::Once`] it is
    /// also planned only then.
    pub(in crate::store) async fn query_prepared(
        &self,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let statement = self.prepared(text, parameters).await?;
        let values = parameters.iter().map(|(value, _type)| *value);
        let values: Vec<&(dyn ToSql + Sync)> = values.collect();
        Ok(self.client.query(&statement, &values).await?)
    }

    /// Runs a statement, which is planned as was said.
    pub(in crate::store) async fn query_planned(
        &self,
        planning: Planning,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        match planning {
            Planning::Anew => Ok(self.client.query_typed(text, parameters).await?),
            Planning::Once => self.query_prepared(text, parameters).await,
        }
    }

    async fn prepared(&self, text: &str, parameters: Parameters<'_>) -> Result<Statement, Error> {
        let known = self.statements().get(text).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let types: Vec<Type> = parameters.iter().map(|(_value, of)| of.clone()).collect();
        let statement = self.client.prepare_typed(text, &types).await?;
        let mut statements = self.statements();
        if statements.len() == MAX_STATEMENTS {
            statements.clear();
        }
        statements.insert(text.to_owned(), statement.clone());
        Ok(statement)
    }

    fn statements(&self) -> MutexGuard<'_, HashMap<String, Statement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for ReaderConnection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for ReaderConnection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// For bb8.
#[derive(Clone, Debug)]
pub(in crate::store) struct ReaderManager(pub(in crate::store) Connector);

impl ManageConnection for ReaderManager {
    type Connection = ReaderConnection;
    type Error = StoreError;

    async fn connect(&self) -> Result<ReaderConnection, StoreError> {
        self.0.connect().await.map(ReaderConnection::new)
    }

    /// Not called by the pool: callers check a connection themselves.
    async fn is_valid(&self, reader: &mut ReaderConnection) -> Result<(), StoreError> {
        reader.health_check(Planning::Anew, Instant::now() + HEALTH_CHECK_TIMEOUT).await
    }

    fn has_broken(&self, reader: &mut ReaderConnection) -> bool {
        reader.is_lost()
    }
}
