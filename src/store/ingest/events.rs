//! What a commit tells those who watch: of the rows that it added, those of watched sensors, and
//! the revisions acknowledged by them. Called behind COMMIT, and only when somebody watches.

use super::copy;
use crate::domain::{Audience, Batch, Kind, News, RowRef, Step, Tidings};
use crate::store::Acknowledgement;

/// The news for this audience: of rows that were there before, nothing.
pub(in crate::store) fn gather(
    audience: &Audience,
    batch: &Batch,
    stored: &[Vec<RowRef>; Kind::ALL.len()],
    acknowledgements: &[Acknowledgement],
) -> Vec<News> {
    let mut news = Vec::new();
    for (kind, places) in Kind::ALL.into_iter().zip(stored) {
        for run in places.chunk_by(|one, next| one.sensor == next.sensor) {
            if audience.watches(run[0].sensor) {
                news.extend(
                    run.iter().map(|it| News { sensor: it.sensor, what: tidings(kind, batch, it) }),
                );
            }
        }
    }
    for it in acknowledgements.iter().filter(|it| audience.watches(it.sensor)) {
        let step = if it.success { Step::Acknowledged } else { Step::Failed };
        let what = Tidings::Configuration { revision: it.revision, step };
        news.push(News { sensor: it.sensor, what });
    }
    news
}

fn tidings(kind: Kind, batch: &Batch, place: &RowRef) -> Tidings {
    let timestamp = place.timestamp;
    match kind {
        Kind::Measurement => {
            let (uplink, item) = copy::measurement(batch, place);
            Tidings::Measurement {
                timestamp,
                received_at: uplink.message.received_at,
                revision: item.revision,
                value: uplink.message.keep(item.value),
            }
        }
        Kind::LogMessage => {
            let (uplink, item) = copy::log_message(batch, place);
            Tidings::LogMessage {
                timestamp,
                received_at: uplink.message.received_at,
                revision: item.revision,
                severity: item.severity,
                subject: item.subject.clone(),
                details: item.details.clone(),
            }
        }
        Kind::Heartbeat => {
            let (uplink, item) = copy::heartbeat(batch, place);
            Tidings::Heartbeat {
                timestamp,
                received_at: uplink.message.received_at,
                revision: item.revision,
                success: item.success,
            }
        }
    }
}
