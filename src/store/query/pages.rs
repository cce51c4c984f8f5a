//! Pages of the hot tables: the rows of one sensor, by its own clock. Called by the API. A page's key
//! remains valid after inserts.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::hot_page::{Conditions, Table};
use super::members;
use super::rows::{
    HeartbeatFilter, HeartbeatRow, LogFilter, LogMessageRow, MeasurementRow, Newest, Order, Page,
    RowKey, RowPage, Selection, TimeRange,
};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::columns::raw_json;
use crate::store::{Store, StoreError};

impl Store {
    /// Measurements of a sensor. With `attributes`, only measurements that have one of these members, and
    /// only these members. None if the sensor does not exist.
    pub async fn list_measurements(
        &self,
        sensor: SensorIdentifier,
        selection: &Selection,
        attributes: Option<&[String]>,
    ) -> Result<Option<RowPage<MeasurementRow>>, StoreError> {
        let mut conditions = Conditions::of(&sensor);
        let mut value = "value::text as value".to_owned();
        if let Some(attributes) = &attributes {
            let has_paths = members::has_paths(attributes);
            conditions.and(&members::has_one("{}", has_paths), attributes, Type::TEXT_ARRAY);
            let number = conditions.parameters.len();
            let some = members::some(&format!("${number}::text[]"), has_paths);
            value = format!("coalesce({some}, '{{}}') as value");
        }
        self.hot_page(sensor, selection, measurements(&value, conditions), measurement).await
    }

    /// The newest measurement of a sensor that is not in the future, or else the newest of all. The inner
    /// none if it has no measurement, the outer if it does not exist.
    pub async fn newest_measurement(
        &self,
        sensor: SensorIdentifier,
    ) -> Result<Option<Option<Newest>>, StoreError> {
        let horizon = Timestamp::now().saturating_add(self.future_tolerance);
        let page = Page { limit: 1, after: None };
        let selection = |range| Selection { range, order: Order::NewestFirst, page };
        let past = selection(TimeRange { from: None, to: Some(horizon) });
        let future = selection(TimeRange { from: Some(horizon), to: None });
        let table = measurements("value::text as value", Conditions::of(&sensor));
        self.within(async {
            let rows = self.hot_read_of(async |reader, until| {
                let (page, parameters) = table.page(&future);
                tokio::try_join!(
                    biased;
                    self.hot_rows(reader, until, sensor, &past, &table),
                    reader.query_prepared(&page, &parameters),
                )
            });
            let (Some(past), future) = rows.await? else { return Ok(None) };
            let newest = past.first().or(future.first()).map(|row| -> Result<_, StoreError> {
                Ok(Newest {
                    row: measurement(row)?,
                    in_future: past.is_empty(),
                    newer_in_future: !past.is_empty() && !future.is_empty(),
                })
            });
            Ok(Some(newest.transpose()?))
        })
        .await
    }

    /// Log messages of a sensor; none if the sensor does not exist.
    pub async fn list_log_messages(
        &self,
        sensor: SensorIdentifier,
        selection: &Selection,
        filter: &LogFilter,
    ) -> Result<Option<RowPage<LogMessageRow>>, StoreError> {
        let (severities, pattern) = (filter.severities(), filter.pattern());
        let mut conditions = Conditions::of(&sensor);
        if let Some(severities) = &severities {
            conditions.and("severity = any ({})", severities, Type::TEXT_ARRAY);
        }
        if let Some(pattern) = &pattern {
            conditions.has_text = true;
            conditions.and("(subject ilike {} or details ilike {})", pattern, Type::TEXT);
        }
        let columns = "creation_timestamp, digest, receipt_timestamp, timed_at_receipt, revision, severity, subject, \
             details";
        let table = Table {
            name: "log_message",
            columns: columns.to_owned(),
            names: columns,
            size: "octet_length(subject) + coalesce(octet_length(details), 0)",
            conditions,
        };
        self.hot_page(sensor, selection, table, log_message).await
    }

    /// Heartbeats of a sensor; none if the sensor does not exist.
    pub async fn list_heartbeats(
        &self,
        sensor: SensorIdentifier,
        selection: &Selection,
        filter: HeartbeatFilter,
    ) -> Result<Option<RowPage<HeartbeatRow>>, StoreError> {
        let read = |row: &Row| {
            let key = key(row)?;
            Ok(HeartbeatRow {
                key,
                timestamp: key.timestamp.unix_seconds(),
                creation_timestamp: row.try_get(0)?,
                receipt_timestamp: row.try_get(2)?,
                timed_at_receipt: timed_at_receipt(row)?,
                revision: row.try_get(4)?,
                success: row.try_get(5)?,
            })
        };
        let mut conditions = Conditions::of(&sensor);
        if let Some(revision) = &filter.revision {
            conditions.and("revision = {}", revision, Type::INT4);
        }
        if let Some(success) = &filter.success {
            conditions.and("success = {}", success, Type::BOOL);
        }
        let columns =
            "creation_timestamp, digest, receipt_timestamp, timed_at_receipt, revision, success";
        let table = Table {
            name: "heartbeat",
            columns: columns.to_owned(),
            names: columns,
            size: "0",
            conditions,
        };
        self.hot_page(sensor, selection, table, read).await
    }
}

fn measurements<'a>(value: &str, conditions: Conditions<'a>) -> Table<'a> {
    Table {
        name: "measurement",
        columns: format!(
            "creation_timestamp, digest, receipt_timestamp, timed_at_receipt, revision, {value}"
        ),
        names: "creation_timestamp, digest, receipt_timestamp, timed_at_receipt, revision, value",
        size: "octet_length(value)",
        conditions,
    }
}

pub(super) fn log_message(row: &Row) -> Result<LogMessageRow, tokio_postgres::Error> {
    Ok(LogMessageRow {
        key: key(row)?,
        received_at: row.try_get(2)?,
        timed_at_receipt: timed_at_receipt(row)?,
        revision: row.try_get(4)?,
        severity: row.try_get(5)?,
        subject: row.try_get(6)?,
        details: row.try_get(7)?,
    })
}

fn measurement(row: &Row) -> Result<MeasurementRow, tokio_postgres::Error> {
    let key = key(row)?;
    Ok(MeasurementRow {
        key,
        timestamp: key.timestamp.unix_seconds(),
        creation_timestamp: row.try_get(0)?,
        receipt_timestamp: row.try_get(2)?,
        timed_at_receipt: timed_at_receipt(row)?,
        revision: row.try_get(4)?,
        value: raw_json(row.try_get(5)?),
    })
}

fn timed_at_receipt(row: &Row) -> Result<bool, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<bool>>(3)?.unwrap_or(false))
}

pub(super) fn key(row: &Row) -> Result<RowKey, tokio_postgres::Error> {
    Ok(RowKey { timestamp: row.try_get(0)?, digest: row.try_get(1)? })
}
