//! Single statements: those of requests, each within the time for one, and those of background work (the supervisor's
//! look-ups, the outbox, the probes), each within [`BACKGROUND_TIMEOUT`], also if the database stops responding.

use tokio_postgres::Row;

use super::columns::Parameters;
use super::pool::BACKGROUND_TIMEOUT;
use super::{Store, StoreError};

impl Store {
    /// The rows of one statement of a request.
    pub(in crate::store) async fn list<T>(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>, StoreError> {
        self.within(async {
            let rows = self.connection().await?.query_typed(statement, parameters).await?;
            Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The only row of one statement of a request, if there is one.
    pub(in crate::store) async fn one<T>(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<T>, StoreError> {
        self.within(async {
            let row = self.connection().await?.query_typed_opt(statement, parameters).await?;
            Ok(row.as_ref().map(read).transpose()?)
        })
        .await
    }

    /// Returns the number of rows that one statement of a request changed.
    pub(in crate::store) async fn change<E: From<StoreError> + From<tokio_postgres::Error>>(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
    ) -> Result<u64, E> {
        self.within(async {
            Ok(self.connection().await?.execute_typed(statement, parameters).await?)
        })
        .await
    }

    pub(in crate::store) async fn rows(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        Self::answered_within(BACKGROUND_TIMEOUT, async {
            Ok(self.connection().await?.query_typed(statement, parameters).await?)
        })
        .await
    }

    /// Returns the number of rows that the statement changed.
    pub(in crate::store) async fn execute(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
    ) -> Result<u64, StoreError> {
        Self::answered_within(BACKGROUND_TIMEOUT, async {
            Ok(self.connection().await?.execute_typed(statement, parameters).await?)
        })
        .await
    }
}
