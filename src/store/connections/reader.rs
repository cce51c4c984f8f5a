//! A reading connection: PostgreSQL's, with the statements that are asked again and again. To parse
//! and plan a page of a table with partitions takes longer than to read it, and so does a round trip
//! more: whether the server is there shows in the answer to what is said ahead of the page.

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

/// Statements kept by a connection. Ordinary callers need a few; one who asks in ever new ways makes
/// it begin anew.
const MAX_STATEMENTS: usize = 64;

const ONE_PLAN: &str = "set plan_cache_mode = force_generic_plan";
const ANY_PLAN: &str = "reset plan_cache_mode";
const AS_BEFORE: &str = "";

/// How PostgreSQL plans what is prepared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Planning {
    /// As it sees fit, anew for each execution if need be.
    Anew,
    /// Once: what differs from one execution to the next stands in parameters.
    Once,
}

/// A connection and its statements.
pub(in crate::store) struct Reader {
    client: PooledClient,
    statements: Mutex<HashMap<String, Statement>>,
    /// As PostgreSQL was told last: what is said goes out, in its order, when it is first polled.
    plans_once: AtomicBool,
}

impl Reader {
    fn new(client: PooledClient) -> Self {
        Self { client, statements: Mutex::default(), plans_once: AtomicBool::new(false) }
    }

    /// Sets how to plan, or sends the empty query. Others may be under way behind it. Until it is
    /// answered the connection counts as lost.
    ///
    /// # Errors
    /// When no answer comes, or not by then, or the server became read-only: nobody gets this
    /// connection again.
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

    /// Whether it is of no use any more.
    pub(in crate::store) fn is_lost(&self) -> bool {
        self.client.is_lost()
    }

    /// Runs a statement, which is parsed when its text comes for the first time. Behind a
    /// [`Planning::Once`] it is also planned only then.
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

impl Deref for Reader {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Makes [`Reader`]s, by way of the ordinary connector.
#[derive(Clone, Debug)]
pub(in crate::store) struct ReaderManager(pub(in crate::store) Connector);

impl ManageConnection for ReaderManager {
    type Connection = Reader;
    type Error = StoreError;

    async fn connect(&self) -> Result<Reader, StoreError> {
        self.0.connect().await.map(Reader::new)
    }

    /// The pool does not ask: those who check one out do.
    async fn is_valid(&self, reader: &mut Reader) -> Result<(), StoreError> {
        reader.health_check(Planning::Anew, Instant::now() + HEALTH_CHECK_TIMEOUT).await
    }

    fn has_broken(&self, reader: &mut Reader) -> bool {
        reader.is_lost()
    }
}
