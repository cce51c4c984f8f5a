//! A reading connection: PostgreSQL's, with the statements that are asked again and again. To parse
//! and plan a page of a table with partitions takes longer than to read it.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bb8::ManageConnection;
use futures_util::future::try_join_all;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

use super::connect::Connector;
use super::reads::Parameters;

/// Statements kept by a connection. Ordinary callers need a few; one who asks in ever new ways makes
/// it begin anew.
const MAX_STATEMENTS: usize = 64;

/// What differs from one execution to the next stands in parameters, so that one plan serves all.
const ONE_PLAN: &str = "set plan_cache_mode = force_generic_plan";
const ANY_PLAN: &str = "reset plan_cache_mode";

/// A connection and its statements.
#[derive(Debug)]
pub(super) struct Reader {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
}

impl Reader {
    /// Runs statements, each by one plan that is made when its text comes for the first time; all in
    /// one round trip.
    pub(super) async fn query_planned<const N: usize>(
        &self,
        asked: [(&str, Parameters<'_>); N],
    ) -> Result<[Vec<Row>; N], Error> {
        let mut statements = Vec::with_capacity(N);
        for (text, parameters) in asked {
            statements.push(self.prepared(text, parameters).await?);
        }
        let queries = statements.iter().zip(asked).map(|(statement, (_, parameters))| {
            let values = parameters.iter().map(|(value, _type)| *value);
            let values: Vec<&(dyn ToSql + Sync)> = values.collect();
            async move { self.client.query(statement, &values).await }
        });
        // Each is answered by itself, so that the last is done whatever becomes of those before it.
        let (one_plan, rows, any_plan) = tokio::join!(
            self.client.batch_execute(ONE_PLAN),
            try_join_all(queries),
            self.client.batch_execute(ANY_PLAN),
        );
        one_plan.and(any_plan)?;
        Ok(rows?.try_into().unwrap_or_else(|_| unreachable!("one answer to each statement")))
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
pub(super) struct ReaderManager(pub(super) Connector);

impl ManageConnection for ReaderManager {
    type Connection = Reader;
    type Error = Error;

    async fn connect(&self) -> Result<Reader, Error> {
        Ok(Reader { client: self.0.connect().await?, statements: Mutex::default() })
    }

    async fn is_valid(&self, reader: &mut Reader) -> Result<(), Error> {
        self.0.is_valid(&mut reader.client).await
    }

    fn has_broken(&self, reader: &mut Reader) -> bool {
        self.0.has_broken(&mut reader.client)
    }
}
