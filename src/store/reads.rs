//! What the API reads of the hot tables and of the rejections, page by page. Called by the API.
//! Promises newest first, a key that survives inserts, one row more than a page holds if there are
//! more, and the text of a value as PostgreSQL prints it.

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::recorded::{CONDITIONS, Conditions};
use super::rows::{
    HeartbeatRow, LogMessageRow, MeasurementRow, Page, RejectionFilter, RejectionRow, RowKey,
};
use super::{Store, StoreError};
use crate::domain::{SensorIdentifier, Timestamp};

/// Parameters and their types, so that a statement needs no round trip of its own to be prepared.
pub(super) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

const SENSOR_EXISTS: &str = "select 1 from sensor where identifier = $1";

// The hot tables. Parameters: sensor, key to go on behind (both or neither null), limit. The bound
// on the timestamp alone says less than the one on the key, but it is the one that leaves partitions
// out.

const LIST_MEASUREMENTS: &str = "\
select creation_timestamp, digest, receipt_timestamp, revision, value::text
from measurement
where sensor_identifier = $1
  and ($2::timestamptz is null or creation_timestamp <= $2)
  and ($2::timestamptz is null or (creation_timestamp, digest) < ($2, $3::bigint))
order by creation_timestamp desc, digest desc
limit $4";

const LIST_LOG_MESSAGES: &str = "\
select creation_timestamp, digest, receipt_timestamp, revision, severity, subject, details
from log_message
where sensor_identifier = $1
  and ($2::timestamptz is null or creation_timestamp <= $2)
  and ($2::timestamptz is null or (creation_timestamp, digest) < ($2, $3::bigint))
order by creation_timestamp desc, digest desc
limit $4";

const LIST_HEARTBEATS: &str = "\
select creation_timestamp, digest, receipt_timestamp, revision, success
from heartbeat
where sensor_identifier = $1
  and ($2::timestamptz is null or creation_timestamp <= $2)
  and ($2::timestamptz is null or (creation_timestamp, digest) < ($2, $3::bigint))
order by creation_timestamp desc, digest desc
limit $4";

impl Store {
    /// Measurements of a sensor, newest first; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list_measurements(
        &self,
        sensor: SensorIdentifier,
        page: &Page<RowKey>,
    ) -> Result<Option<Vec<MeasurementRow>>, StoreError> {
        let read = |row: &Row| {
            Ok(MeasurementRow {
                key: key(row)?,
                received_at: moment(row, 2)?,
                revision: row.try_get(3)?,
                value: raw_json(row.try_get(4)?),
            })
        };
        self.hot_rows(sensor, page, LIST_MEASUREMENTS, read).await
    }

    /// Log messages of a sensor, newest first; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list_log_messages(
        &self,
        sensor: SensorIdentifier,
        page: &Page<RowKey>,
    ) -> Result<Option<Vec<LogMessageRow>>, StoreError> {
        let read = |row: &Row| {
            Ok(LogMessageRow {
                key: key(row)?,
                received_at: moment(row, 2)?,
                revision: row.try_get(3)?,
                severity: row.try_get(4)?,
                subject: row.try_get(5)?,
                details: row.try_get(6)?,
            })
        };
        self.hot_rows(sensor, page, LIST_LOG_MESSAGES, read).await
    }

    /// Heartbeats of a sensor, newest first; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list_heartbeats(
        &self,
        sensor: SensorIdentifier,
        page: &Page<RowKey>,
    ) -> Result<Option<Vec<HeartbeatRow>>, StoreError> {
        let read = |row: &Row| {
            Ok(HeartbeatRow {
                key: key(row)?,
                received_at: moment(row, 2)?,
                revision: row.try_get(3)?,
                success: row.try_get(4)?,
            })
        };
        self.hot_rows(sensor, page, LIST_HEARTBEATS, read).await
    }

    /// Rejections, newest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list_rejections(
        &self,
        page: &Page<i64>,
        filter: &RejectionFilter,
    ) -> Result<Vec<RejectionRow>, StoreError> {
        let connection = self.connection().await?;
        let statement = format!(
            "select identifier, receipt_timestamp, topic, sensor_identifier, kind, item_index,
                    item_count, reason, detail, raw
             from rejection
             where {CONDITIONS} and ($7::bigint is null or identifier < $7)
             order by identifier desc limit $8"
        );
        let limit = page.row_count();
        let conditions = Conditions::of(filter);
        let parameters = conditions.with(&[(&page.after, Type::INT8), (&limit, Type::INT8)]);
        let rows = connection.query_typed(&statement, &parameters).await?;
        Ok(rows.iter().map(rejection).collect::<Result<_, _>>()?)
    }

    async fn hot_rows<T>(
        &self,
        sensor: SensorIdentifier,
        page: &Page<RowKey>,
        statement: &str,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<Vec<T>>, StoreError> {
        let timestamp = page.after.map(|key| key.timestamp.to_jiff());
        let digest = page.after.map(|key| key.digest);
        let limit = page.row_count();
        let parameters: Parameters<'_> = &[
            (&sensor.0, Type::UUID),
            (&timestamp, Type::TIMESTAMPTZ),
            (&digest, Type::INT8),
            (&limit, Type::INT8),
        ];
        self.rows_of_sensor(sensor, statement, parameters, read).await
    }

    /// Rows that belong to a sensor; none if there is no such sensor.
    pub(super) async fn rows_of_sensor<T>(
        &self,
        sensor: SensorIdentifier,
        statement: &str,
        parameters: Parameters<'_>,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<Vec<T>>, StoreError> {
        let connection = self.connection().await?;
        let identifier: Parameters<'_> = &[(&sensor.0, Type::UUID)];
        // Both are under way at once, one behind the other on the connection.
        let (exists, rows) = tokio::try_join!(
            connection.query_typed_opt(SENSOR_EXISTS, identifier),
            connection.query_typed(statement, parameters),
        )?;
        if exists.is_none() {
            return Ok(None);
        }
        Ok(Some(rows.iter().map(read).collect::<Result<_, _>>()?))
    }
}

fn rejection(row: &Row) -> Result<RejectionRow, tokio_postgres::Error> {
    Ok(RejectionRow {
        identifier: row.try_get(0)?,
        received_at: moment(row, 1)?,
        topic: row.try_get(2)?,
        sensor: row.try_get::<_, Option<uuid::Uuid>>(3)?.map(SensorIdentifier),
        kind: row.try_get(4)?,
        item_index: row.try_get(5)?,
        item_count: row.try_get(6)?,
        reason: row.try_get(7)?,
        detail: row.try_get(8)?,
        raw: row.try_get(9)?,
    })
}

fn key(row: &Row) -> Result<RowKey, tokio_postgres::Error> {
    Ok(RowKey { timestamp: moment(row, 0)?, digest: row.try_get(1)? })
}

pub(super) fn moment(row: &Row, index: usize) -> Result<Timestamp, tokio_postgres::Error> {
    row.try_get::<_, jiff::Timestamp>(index).map(Into::into)
}

/// The text of a `jsonb`, to be handed on as it is.
pub(super) fn raw_json(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("PostgreSQL prints a jsonb as JSON")
}
