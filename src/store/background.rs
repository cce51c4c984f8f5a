//! Single statements of the background: the registry's look-ups, the outbox, the probes. Promises an
//! answer or an error within `ANSWER_TIMEOUT`, whatever becomes of the database.

use tokio_postgres::Row;
use uuid::Uuid;

use super::columns::Parameters;
use super::pool::ANSWER_TIMEOUT;
use super::{Store, StoreError};
use crate::domain::SensorIdentifier;

impl Store {
    pub(in crate::store) async fn rows(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        Self::answered_within(ANSWER_TIMEOUT, async {
            Ok(self.connection().await?.query_typed(statement, parameters).await?)
        })
        .await
    }

    /// Returns how many rows the statement has changed.
    pub(in crate::store) async fn execute(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
    ) -> Result<u64, StoreError> {
        Self::answered_within(ANSWER_TIMEOUT, async {
            Ok(self.connection().await?.execute_typed(statement, parameters).await?)
        })
        .await
    }
}

pub(in crate::store) fn uuids(sensors: &[SensorIdentifier]) -> Vec<Uuid> {
    sensors.iter().map(|sensor| sensor.0).collect()
}
