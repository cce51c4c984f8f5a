//! Single statements of background work: the registry's look-ups, the outbox, the probes. Each returns
//! within [`BACKGROUND_TIMEOUT`], also if the database stops responding.

use tokio_postgres::Row;
use uuid::Uuid;

use super::columns::Parameters;
use super::pool::BACKGROUND_TIMEOUT;
use super::{Store, StoreError};
use crate::domain::SensorIdentifier;

impl Store {
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

pub(in crate::store) fn uuids(sensors: &[SensorIdentifier]) -> Vec<Uuid> {
    sensors.iter().map(|sensor| sensor.0).collect()
}
