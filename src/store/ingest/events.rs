//! The events of a commit: its new rows of sensors with subscribers, and the revisions that they
//! acknowledged. Called after COMMIT, and only if there are subscribers or other instances. Duplicates cause no event.

use super::copy;
use crate::domain::{
    Batch, Event, EventKind, ItemHead, ItemTimes, Kind, RowRef, Step, Subscriptions, Uplink,
};
use crate::store::Acknowledgement;

pub(in crate::store) fn gather(
    subscriptions: &Subscriptions,
    batch: &Batch,
    stored: &[Vec<RowRef>; Kind::ALL.len()],
    acknowledgements: &[Acknowledgement],
) -> Vec<Event> {
    let mut events = Vec::new();
    for (kind, rows) in Kind::ALL.into_iter().zip(stored) {
        for run in rows.chunk_by(|one, next| one.sensor == next.sensor) {
            if subscriptions.is_subscribed(run[0].sensor) {
                events.extend(
                    run.iter()
                        .map(|it| Event { sensor: it.sensor, what: event_kind(kind, batch, it) }),
                );
            }
        }
    }
    // The actors of other instances have to know.
    let has_peers = subscriptions.has_peers();
    for it in
        acknowledgements.iter().filter(|it| has_peers || subscriptions.is_subscribed(it.sensor))
    {
        let step = if it.success { Step::Acknowledged } else { Step::Failed };
        let what = EventKind::Configuration { revision: it.revision, step };
        events.push(Event { sensor: it.sensor, what });
    }
    events
}

fn event_kind(kind: Kind, batch: &Batch, row: &RowRef) -> EventKind {
    let times = |uplink: &Uplink, head: &ItemHead| ItemTimes {
        timestamp: row.timestamp,
        timed_at_receipt: head.timed_at_receipt,
        received_at: uplink.message.received_at,
        revision: head.revision,
    };
    match kind {
        Kind::Measurement => {
            let (uplink, item) = copy::measurement(batch, row);
            EventKind::Measurement {
                times: times(uplink, &item.head),
                value: uplink.message.keep(item.value),
            }
        }
        Kind::LogMessage => {
            let (uplink, item) = copy::log_message(batch, row);
            EventKind::LogMessage {
                times: times(uplink, &item.head),
                severity: item.severity,
                subject: item.subject.clone(),
                details: item.details.clone(),
            }
        }
        Kind::Heartbeat => {
            let (uplink, item) = copy::heartbeat(batch, row);
            EventKind::Heartbeat { times: times(uplink, &item.head), success: item.success }
        }
    }
}
