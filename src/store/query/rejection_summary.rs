//! Counts rejections by reason. Called by the API. The counts include all rejections that match the filter.

use tokio_postgres::Row;

use super::rows::RejectionFilter;
use super::stored_rejections::{CONDITIONS, conditions};
use crate::domain::Timestamp;
use crate::store::{Store, StoreError};

/// The rejections of one reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReasonCount {
    /// The reason's code.
    pub reason: String,
    /// The number of rejections.
    pub rejections: i64,
    /// The number of rejected items.
    pub items: i64,
    /// When the first was received.
    pub first_at: Timestamp,
    /// When the last was received.
    pub last_at: Timestamp,
}

impl Store {
    /// Counts rejections by reason, the most frequent first. There are fewer reasons than rows on a page.
    pub async fn summarise_rejections(
        &self,
        filter: &RejectionFilter,
    ) -> Result<Vec<ReasonCount>, StoreError> {
        let statement = format!(
            "select reason, count(*), sum(item_count), min(receipt_timestamp), max(receipt_timestamp)
             from rejection where {CONDITIONS}
             group by reason order by 2 desc, 1"
        );
        let parameters = conditions(filter, &[]);
        self.within(async {
            let (_turn, connection) = self.hot_connection().await?;
            let rows = connection.query_typed(&statement, &parameters).await?;
            Ok(rows.iter().map(rejection_count).collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn rejection_count(row: &Row) -> Result<ReasonCount, tokio_postgres::Error> {
    Ok(ReasonCount {
        reason: row.try_get(0)?,
        rejections: row.try_get(1)?,
        items: row.try_get(2)?,
        first_at: row.try_get(3)?,
        last_at: row.try_get(4)?,
    })
}
