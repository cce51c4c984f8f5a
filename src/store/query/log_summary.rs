//! Counts a sensor's log messages by severity and subject. Called by the API. The counts include all rows
//! that match the filter; their order is fixed, with a key to continue.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::rows::{LogFilter, Page, TimeRange};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::pool::CHECKOUT_TIMEOUT;
use crate::store::{Store, StoreError};

/// The key of a line of the summary, and its order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SummaryKey {
    /// info, warning or error.
    pub severity: String,
    /// The messages' subject.
    pub subject: String,
}

/// All log messages of a sensor with the same severity and subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSummary {
    /// Severity and subject.
    pub key: SummaryKey,
    /// The number of messages.
    pub count: i64,
    /// The lowest revision of the messages, if any has one.
    pub first_revision: Option<i32>,
    /// The highest revision of the messages, if any has one.
    pub last_revision: Option<i32>,
    /// The earliest timestamp, by the sensor's clock.
    pub first_at: Timestamp,
    /// The latest timestamp.
    pub last_at: Timestamp,
}

/// Errors first. Parameters: sensor, from, to, severity and subject after which to continue (both or
/// neither null), limit, severities, pattern; all but the sensor and the limit may be null.
const SUMMARISE: &str = "\
select severity, subject, count(*), min(revision), max(revision), min(creation_timestamp),
       max(creation_timestamp)
from log_message
where sensor_identifier = $1
  and ($2::timestamptz is null or creation_timestamp >= $2)
  and ($3::timestamptz is null or creation_timestamp < $3)
  and ($4::text is null
       or (array_position(array['error', 'warning', 'info'], severity), subject)
        > (array_position(array['error', 'warning', 'info'], $4), $5::text))
  and ($7::text[] is null or severity = any ($7))
  and ($8::text is null or subject ilike $8 or details ilike $8)
group by severity, subject
order by array_position(array['error', 'warning', 'info'], severity), subject
limit $6";

impl Store {
    /// The lines of a summary, one more than the page holds if there are more; none if the sensor does
    /// not exist.
    pub async fn summarise_log_messages(
        &self,
        sensor: SensorIdentifier,
        (range, filter): (TimeRange, &LogFilter),
        page: &Page<SummaryKey>,
    ) -> Result<Option<Vec<LogSummary>>, StoreError> {
        let severity = page.after.as_ref().map(|key| key.severity.as_str());
        let subject = page.after.as_ref().map(|key| key.subject.as_str());
        let limit = page.row_count();
        let (severities, pattern) = (filter.severities(), filter.pattern());
        let parameters: Parameters<'_> = &[
            (&sensor, Type::UUID),
            (&range.from, Type::TIMESTAMPTZ),
            (&range.to, Type::TIMESTAMPTZ),
            (&severity, Type::TEXT),
            (&subject, Type::TEXT),
            (&limit, Type::INT8),
            (&severities, Type::TEXT_ARRAY),
            (&pattern, Type::TEXT),
        ];
        let _turn = self.hot_read(Instant::now() + CHECKOUT_TIMEOUT).await?;
        self.rows_of_sensor(sensor, SUMMARISE, parameters, summary).await
    }
}

fn summary(row: &Row) -> Result<LogSummary, tokio_postgres::Error> {
    Ok(LogSummary {
        key: SummaryKey { severity: row.try_get(0)?, subject: row.try_get(1)? },
        count: row.try_get(2)?,
        first_revision: row.try_get(3)?,
        last_revision: row.try_get(4)?,
        first_at: row.try_get(5)?,
        last_at: row.try_get(6)?,
    })
}
