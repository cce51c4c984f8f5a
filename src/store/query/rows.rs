//! The rows that reads return to the API, and the selections that the API passes. Plain values. Times have
//! microseconds; values are as PostgreSQL prints them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{Kind, NetworkIdentifier, RejectionDigest, SensorIdentifier, Timestamp};
use crate::store::columns::containing;

/// A request for one page of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page<K> {
    /// Maximum number of entries.
    pub limit: u32,
    /// The key of the last entry of the previous page.
    pub after: Option<K>,
}

impl<K> Page<K> {
    /// The number of rows to read: one more, which shows whether another page follows.
    pub(in crate::store) fn row_count(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}

/// A page of rows, which may end early because of its size in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowPage<T> {
    /// At most the limit.
    pub rows: Vec<T>,
    /// Whether more rows follow.
    pub more: bool,
}

/// A range of the sensor's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeRange {
    /// Inclusive; none if unbounded.
    pub from: Option<Timestamp>,
    /// Exclusive; none if unbounded.
    pub to: Option<Timestamp>,
}

/// The order of a list, by the sensor's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// The rows of one sensor to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selection {
    /// Their timestamps.
    pub range: TimeRange,
    /// Their order.
    pub order: Order,
    /// The page.
    pub page: Page<RowKey>,
}

/// Conditions that a listed or counted log message fulfils.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogFilter {
    /// It has one of these severities; empty for all.
    pub severities: Vec<&'static str>,
    /// Its subject or details contain this text, ignoring case.
    pub text: Option<String>,
}

impl LogFilter {
    pub(in crate::store) fn severities(&self) -> Option<&[&'static str]> {
        (!self.severities.is_empty()).then_some(&self.severities)
    }

    /// The text as a pattern for `ilike`, escaped.
    pub(in crate::store) fn pattern(&self) -> Option<String> {
        self.text.as_deref().map(containing)
    }
}

/// Conditions that a listed heartbeat fulfils.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the members of the row")]
pub struct HeartbeatFilter {
    pub revision: Option<i32>,
    pub success: Option<bool>,
}

/// The key of a sensor's row, and its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct RowKey {
    /// By the sensor's clock.
    pub timestamp: Timestamp,
    /// The content digest, as a signed integer.
    pub digest: i64,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Measurement)]
#[expect(missing_docs, reason = "the members of the answer")]
pub struct MeasurementRow {
    #[serde(skip)]
    pub key: RowKey,
    /// By the sensor's clock, in Unix seconds.
    #[schema(example = 1_782_896_400.25)]
    pub timestamp: f64,
    /// By the sensor's clock, as RFC 3339.
    pub creation_timestamp: jiff::Timestamp,
    /// When it reached the service.
    pub receipt_timestamp: jiff::Timestamp,
    /// The sensor named no time, so that its time is that of the receipt (`TIMESTAMP_MISSING=receipt`). Missing if false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub timed_at_receipt: bool,
    /// The revision of the configuration under which it was taken; null: under none from the server.
    pub revision: Option<i32>,
    /// An object without nesting, its numbers as the sensor wrote them.
    #[schema(value_type = Object, example = json!({ "temperature": 21.5 }))]
    pub value: Box<RawValue>,
}

/// The newest measurement, and whether there are some of the future.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = LatestMeasurement)]
#[expect(missing_docs, reason = "the members of the answer")]
pub struct Newest {
    #[serde(flatten)]
    pub row: MeasurementRow,
    /// Its timestamp is more than `FUTURE_TOLERANCE_SECS` ahead of the service's clock; the sensor has no
    /// other measurement.
    pub in_future: bool,
    /// The sensor has newer measurements, all of them more than `FUTURE_TOLERANCE_SECS` ahead of the
    /// service's clock.
    pub newer_in_future: bool,
}

/// A row of `log_message`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the columns of the table")]
pub struct LogMessageRow {
    pub key: RowKey,
    pub received_at: Timestamp,
    pub timed_at_receipt: bool,
    pub revision: Option<i32>,
    pub severity: String,
    pub subject: String,
    pub details: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
#[schema(as = Heartbeat)]
#[expect(missing_docs, reason = "the members of the answer")]
pub struct HeartbeatRow {
    #[serde(skip)]
    pub key: RowKey,
    /// By the sensor's clock, in Unix seconds.
    pub timestamp: f64,
    /// By the sensor's clock, as RFC 3339.
    pub creation_timestamp: jiff::Timestamp,
    /// When it reached the service.
    pub receipt_timestamp: jiff::Timestamp,
    /// The sensor named no time, so that its time is that of the receipt (`TIMESTAMP_MISSING=receipt`). Missing if false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub timed_at_receipt: bool,
    /// The revision that it acknowledges; null: the sensor runs under none from the server.
    pub revision: Option<i32>,
    /// Whether the sensor applied it.
    pub success: bool,
}

/// A row of `rejection`; see [`crate::domain::Rejection`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the columns of the table")]
pub struct RejectionRow {
    /// Increases in the order of recording.
    pub identifier: i64,
    pub received_at: Timestamp,
    pub topic: String,
    pub sensor: Option<SensorIdentifier>,
    /// None if the topic names none.
    pub kind: Option<Kind>,
    /// None if the whole message was rejected.
    pub item_index: Option<u32>,
    pub item_count: i32,
    pub reason: String,
    pub detail: String,
    /// The stored bytes: the payload, its beginning, or the item.
    pub raw: Vec<u8>,
    /// See [`RawMessage`](crate::domain::RawMessage).
    pub delivered_once: bool,
    /// The digest of the whole message.
    pub digest: RejectionDigest,
}

/// Conditions that a listed, replayed or deleted rejection fulfils.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RejectionFilter {
    /// It has one of these identifiers.
    pub identifiers: Option<Vec<i64>>,
    /// It is of a sensor of this network.
    pub network: Option<NetworkIdentifier>,
    /// It is of this sensor.
    pub sensor: Option<SensorIdentifier>,
    /// The code of its reason.
    pub reason: Option<&'static str>,
    /// The name of its kind.
    pub kind: Option<&'static str>,
    /// It was received at this time or later.
    pub since: Option<Timestamp>,
    /// It was received before this time.
    pub until: Option<Timestamp>,
}
