//! The rows that the reads give the API, and the page that the API asks for. Plain values. Promise
//! times to the microsecond and values as PostgreSQL prints them.

use serde_json::value::RawValue;

use crate::domain::{NetworkIdentifier, SensorIdentifier, Timestamp};
use crate::store::columns::containing;

/// One page of a list, as it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page<K> {
    /// How many items it holds.
    pub limit: u32,
    /// The key of the last item of the page before.
    pub after: Option<K>,
}

impl<K> Page<K> {
    /// How many rows to read: one more, which tells whether this is the last page.
    pub(in crate::store) fn row_count(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}

/// One page of rows that can be large: it ends early when it has become long in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowPage<T> {
    /// No more than were asked for.
    pub rows: Vec<T>,
    /// Whether others follow.
    pub more: bool,
}

/// A range of the sensor's own clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeRange {
    /// The first moment in it; none: from the beginning.
    pub from: Option<Timestamp>,
    /// The first moment behind it; none: without an end.
    pub to: Option<Timestamp>,
}

/// Which way a list goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// Back in time.
    #[default]
    NewestFirst,
    /// On in time.
    OldestFirst,
}

/// Which rows of one sensor to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selection {
    /// When they were made.
    pub range: TimeRange,
    /// Which way.
    pub order: Order,
    /// How many, and behind which.
    pub page: Page<RowKey>,
}

/// Which log messages to list or to count.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogFilter {
    /// Of these severities; empty: of all.
    pub severities: Vec<&'static str>,
    /// With this text in the subject or in the details, in either case.
    pub text: Option<String>,
}

impl LogFilter {
    pub(in crate::store) fn severities(&self) -> Option<&[&'static str]> {
        (!self.severities.is_empty()).then_some(&self.severities)
    }

    /// For `ilike`, in which the text stands for itself.
    pub(in crate::store) fn pattern(&self) -> Option<String> {
        self.text.as_deref().map(containing)
    }
}

/// Which heartbeats to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeartbeatFilter {
    /// Of this revision.
    pub revision: Option<i32>,
    /// That say that it works, or that it does not.
    pub success: Option<bool>,
}

/// What tells the rows of one sensor apart, and sorts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RowKey {
    /// The sensor's own clock.
    pub timestamp: Timestamp,
    /// Of the content, as the table holds it.
    pub digest: i64,
}

/// A row of `measurement`.
#[derive(Clone, Debug)]
pub struct MeasurementRow {
    /// When it was taken.
    pub key: RowKey,
    /// When it reached us.
    pub received_at: Timestamp,
    /// Under which configuration, if under one.
    pub revision: Option<i32>,
    /// As PostgreSQL prints it.
    pub value: Box<RawValue>,
}

/// The newest measurement of a sensor, and what there is beside it.
#[derive(Clone, Debug)]
pub struct Newest {
    /// The measurement.
    pub row: MeasurementRow,
    /// It is further ahead of our clock than `FUTURE_TOLERANCE_SECS`, as all others are.
    pub in_future: bool,
    /// There are newer ones, which are that far ahead.
    pub newer_in_future: bool,
}

/// A row of `log_message`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogMessageRow {
    /// When it was written.
    pub key: RowKey,
    /// When it reached us.
    pub received_at: Timestamp,
    /// Under which configuration, if under one.
    pub revision: Option<i32>,
    /// info, warning or error.
    pub severity: String,
    /// In short.
    pub subject: String,
    /// At length.
    pub details: Option<String>,
}

/// A row of `heartbeat`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeartbeatRow {
    /// When it was sent.
    pub key: RowKey,
    /// When it reached us.
    pub received_at: Timestamp,
    /// Which revision it acknowledges, if the sensor runs under one.
    pub revision: Option<i32>,
    /// Whether that one works.
    pub success: bool,
}

/// A row of `rejection`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RejectionRow {
    /// Its number, in the order of recording.
    pub identifier: i64,
    /// When the message reached us.
    pub received_at: Timestamp,
    /// The topic it came on.
    pub topic: String,
    /// The sensor, where the topic names one.
    pub sensor: Option<SensorIdentifier>,
    /// measurement, `log_message` or heartbeat, where the topic says so.
    pub kind: Option<String>,
    /// The item's index; none where the whole message is refused.
    pub item_index: Option<i32>,
    /// How many items are refused with it.
    pub item_count: i32,
    /// The stable code.
    pub reason: String,
    /// A sentence.
    pub detail: String,
    /// The bytes.
    pub raw: Vec<u8>,
}

/// Which rejections are meant: those that fulfil all of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RejectionFilter {
    /// These.
    pub identifiers: Option<Vec<i64>>,
    /// Those of the sensors of one network.
    pub network: Option<NetworkIdentifier>,
    /// Those of one sensor.
    pub sensor: Option<SensorIdentifier>,
    /// Those with one reason.
    pub reason: Option<&'static str>,
    /// Those of one kind.
    pub kind: Option<&'static str>,
    /// Those that came then or later.
    pub since: Option<Timestamp>,
    /// Those that came before.
    pub until: Option<Timestamp>,
}
