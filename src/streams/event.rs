//! How an event looks on the wire (the HTML standard, "Server-sent events"). Pure. Promises that no
//! text of a sensor can end an event or forge another: data is JSON on one line.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{EventKind, ItemTimes, SensorIdentifier, Timestamp};

/// How long a disconnected client waits before it reconnects.
const RETRY_MILLISECONDS: u32 = 3_000;

/// Keeps proxies from closing an idle connection. A comment, which clients ignore.
pub(super) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Why a stream ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CloseReason {
    /// The reader did not keep up.
    TooSlow,
    /// The service did not keep up.
    Overrun,
    /// The service is shutting down.
    Shutdown,
    /// The sensor was deleted.
    Deleted,
    /// The grant has ended.
    Revoked,
}

pub(super) fn event(name: &str, id: Option<i64>, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("what is sent has no map with other keys");
    // The value of a measurement is passed on as received. A line break between its tokens means nothing in JSON
    // but would end the line here; within tokens there is none.
    let data = data.replace(['\n', '\r'], " ");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n").into()
}

/// The `data` of the first event of a sensor's stream.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = StreamOpened)]
pub(crate) struct Opened {
    #[schema(value_type = uuid::Uuid)]
    sensor_identifier: SensorIdentifier,
    /// Rows committed from this time on are sent.
    from: jiff::Timestamp,
    /// Rows committed between this time and `from` are not sent: the lists have them.
    missed_since: Option<jiff::Timestamp>,
}

/// The first event of a sensor's stream.
pub(super) fn open(sensor: SensorIdentifier, now: Timestamp, gap: Option<Timestamp>) -> Bytes {
    let data = Opened {
        sensor_identifier: sensor,
        from: now.to_jiff(),
        missed_since: gap.map(Timestamp::to_jiff),
    };
    let open = event("open", Some(now.unix_microseconds()), &data);
    [format!("retry: {RETRY_MILLISECONDS}\n").as_bytes(), &open].concat().into()
}

/// The first event of the fleet's stream, and any that restarts it.
pub(super) fn fleet(snapshot: &impl Serialize) -> Bytes {
    let fleet = event("fleet", None, snapshot);
    [format!("retry: {RETRY_MILLISECONDS}\n").as_bytes(), &fleet].concat().into()
}

/// The `data` of the last event of a stream.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = StreamDropped)]
pub(crate) struct Dropped {
    /// `too_slow`, `overrun`, `shutdown`, `deleted` or `revoked`.
    reason: &'static str,
    detail: &'static str,
}

/// The last event of a stream.
pub(super) fn dropped(reason: CloseReason) -> Bytes {
    let (reason, detail) = match reason {
        CloseReason::TooSlow => ("too_slow", "more events waited than are kept for one reader"),
        CloseReason::Overrun => ("overrun", "events arrived faster than they could be dispatched"),
        CloseReason::Shutdown => ("shutdown", "the service stops; come again"),
        CloseReason::Deleted => ("deleted", "the sensor was deleted"),
        CloseReason::Revoked => ("revoked", "the token was revoked, or has expired"),
    };
    event("dropped", None, &Dropped { reason, detail })
}

#[derive(Serialize)]
struct Times {
    timestamp: f64,
    creation_timestamp: jiff::Timestamp,
    receipt_timestamp: jiff::Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    timed_at_receipt: bool,
    revision: Option<i32>,
}

impl From<&ItemTimes> for Times {
    fn from(times: &ItemTimes) -> Self {
        Self {
            timestamp: times.timestamp.unix_seconds(),
            creation_timestamp: times.timestamp.to_jiff(),
            receipt_timestamp: times.received_at.to_jiff(),
            timed_at_receipt: times.timed_at_receipt,
            revision: times.revision,
        }
    }
}

#[derive(Serialize)]
struct MeasurementEvent<'a> {
    #[serde(flatten)]
    times: Times,
    value: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct LogMessageEvent<'a> {
    #[serde(flatten)]
    times: Times,
    severity: &'static str,
    subject: &'a str,
    details: Option<&'a str>,
}

#[derive(Serialize)]
struct HeartbeatEvent {
    #[serde(flatten)]
    times: Times,
    success: bool,
}

/// The `data` of a configuration's new state.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = StreamConfiguration)]
pub(crate) struct Configured {
    revision: i32,
    /// `pending`, `published`, `acknowledged` or `failed`.
    state: &'static str,
}

/// An event of a sensor, with the members of the lists; `None` for one that ends the stream.
pub(super) fn sensor_event(what: &EventKind, id: i64) -> Option<Bytes> {
    let id = Some(id);
    Some(match what {
        EventKind::Measurement { times, value } => {
            let value = serde_json::from_slice(value).ok();
            event("measurement", id, &MeasurementEvent { times: times.into(), value })
        }
        EventKind::LogMessage { times, severity, subject, details } => {
            let (severity, details) = (severity.name(), details.as_deref());
            let times = times.into();
            event("log_message", id, &LogMessageEvent { times, severity, subject, details })
        }
        EventKind::Heartbeat { times, success } => {
            event("heartbeat", id, &HeartbeatEvent { times: times.into(), success: *success })
        }
        EventKind::Configuration { revision, step } => {
            event("configuration", id, &Configured { revision: *revision, state: step.name() })
        }
        EventKind::Deleted => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Timestamp = Timestamp::from_unix_microseconds(1_782_896_400_250_000);

    #[test]
    fn a_measurement_is_an_event_on_one_line_of_data() {
        let what = EventKind::Measurement {
            times: ItemTimes {
                timestamp: TIME,
                timed_at_receipt: false,
                received_at: TIME,
                revision: Some(3),
            },
            value: Bytes::from_static(b"{\"t\":\r\n 21.50,\"sky\":\"a\\nb\"}"),
        };
        assert_eq!(
            sensor_event(&what, 7).unwrap(),
            "event: measurement\nid: 7\ndata: {\"timestamp\":1782896400.25,\
             \"creation_timestamp\":\"2026-07-01T09:00:00.25Z\",\
             \"receipt_timestamp\":\"2026-07-01T09:00:00.25Z\",\"revision\":3,\
             \"value\":{\"t\":   21.50,\"sky\":\"a\\nb\"}}\n\n"
        );
    }
}
