//! A reading connection: PostgreSQL's, with the statements that are asked again and again. To parse
//! and plan a page of a table with partitions takes longer than to read it, and so does a round trip
//! more: whether the server is there shows in the answer to the first statement, and how to plan is
//! said only where it changes.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bb8::ManageConnection;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

use super::connect::{Connector, Line};
use super::pool::{VALIDITY_TIMEOUT, in_time};
use super::reads::Parameters;

/// Statements kept by a connection. Ordinary callers need a few; one who asks in ever new ways makes
/// it begin anew.
const MAX_STATEMENTS: usize = 64;

/// What differs from one execution to the next stands in parameters, so that one plan serves all.
const ONE_PLAN: &str = "set plan_cache_mode = force_generic_plan";
const ANY_PLAN: &str = "reset plan_cache_mode";
const AS_BEFORE: &str = "";

/// A connection and its statements.
pub(super) struct Reader {
    line: Line,
    statements: Mutex<HashMap<String, Statement>>,
    /// As PostgreSQL was told last: what is asked goes out, in its order, when it is first polled.
    has_one_plan: AtomicBool,
}

impl Reader {
    fn new(line: Line) -> Self {
        Self { line, statements: Mutex::default(), has_one_plan: AtomicBool::new(false) }
    }

    /// Makes sure that the server answers, and that it plans each query by itself. A connection on which
    /// it does not is lost.
    pub(super) async fn prove(&self) -> Result<(), Error> {
        let said =
            if self.has_one_plan.swap(false, Ordering::Relaxed) { ANY_PLAN } else { AS_BEFORE };
        in_time(VALIDITY_TIMEOUT, self.line.batch_execute(said))
            .await
            .inspect_err(|_| self.line.set_abandoned(true))
    }

    /// What a server that is there answers at once.
    ///
    /// # Errors
    /// Those of the statement; and when nothing is heard: the connection is lost then.
    pub(super) async fn at_once<T>(
        &self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answered = in_time(VALIDITY_TIMEOUT, answer).await;
        answered.inspect_err(|error| {
            if error.code().is_none() {
                self.line.set_abandoned(true);
            }
        })
    }

    /// Whether it is of no use any more.
    pub(super) fn is_lost(&self) -> bool {
        self.line.is_lost()
    }

    /// Runs a statement by the one plan that is made when its text comes for the first time.
    pub(super) async fn query_planned(
        &self,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Error> {
        let statement = self.prepared(text, parameters).await?;
        let values = parameters.iter().map(|(value, _type)| *value);
        let values: Vec<&(dyn ToSql + Sync)> = values.collect();
        let rows = self.line.query(&statement, &values);
        if self.has_one_plan.swap(true, Ordering::Relaxed) {
            return rows.await;
        }
        let (told, rows) = tokio::join!(self.line.batch_execute(ONE_PLAN), rows);
        told.and(rows)
    }

    /// A statement, parsed when its text comes for the first time.
    pub(super) async fn prepared(
        &self,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<Statement, Error> {
        let known = self.statements().get(text).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let types: Vec<Type> = parameters.iter().map(|(_value, of)| of.clone()).collect();
        let statement = self.line.prepare_typed(text, &types).await?;
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
        &self.line
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.line
    }
}

/// Makes [`Reader`]s, by way of the ordinary connector.
#[derive(Clone, Debug)]
pub(super) struct ReaderManager(pub(super) Connector);

impl ManageConnection for ReaderManager {
    type Connection = Reader;
    type Error = Error;

    async fn connect(&self) -> Result<Reader, Error> {
        self.0.connect().await.map(Reader::new)
    }

    async fn is_valid(&self, reader: &mut Reader) -> Result<(), Error> {
        reader.prove().await
    }

    fn has_broken(&self, reader: &mut Reader) -> bool {
        reader.is_lost()
    }
}
