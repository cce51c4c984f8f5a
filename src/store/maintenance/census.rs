//! The partitions and sizes of the hot tables. Called by the metrics, once a minute. Reads only the
//! system catalogue.

use crate::store::engines::engine::TableCensus;
use crate::store::pool::BACKGROUND_TIMEOUT;
use crate::store::{Store, StoreError};

impl Store {
    /// The census of every hot table.
    pub async fn census(&self) -> Result<Vec<TableCensus>, StoreError> {
        Self::answered_within(BACKGROUND_TIMEOUT, async {
            let client = self.connection().await?;
            self.engine(&client).await?.census(&client).await
        })
        .await
    }
}
