//! Records which revisions the heartbeats of a batch acknowledge. Called by the commit, within its
//! transaction. The first heartbeat for a revision wins; one without a revision acknowledges none.

use std::collections::hash_map::Entry;

use super::copy;
use crate::domain::{Batch, Heartbeat, RowRef, SensorIdentifier, Timestamp, Uplink};
use crate::store::StoreError;
use crate::store::ingest::writer_connection::WriterConnection;

/// A revision that a heartbeat acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acknowledgement {
    /// The sensor that acknowledged it.
    pub sensor: SensorIdentifier,
    /// The acknowledged revision.
    pub revision: i32,
    /// Whether the sensor could apply it.
    pub success: bool,
}

/// The heartbeats that can acknowledge a revision: not a redelivered one that was committed before, because the
/// revision may have been sent since. `stored` are those of `rows` that were new, sorted.
pub(in crate::store) fn first_deliveries<'a>(
    batch: &'a Batch,
    rows: &'a [RowRef],
    stored: &'a [RowRef],
) -> impl Iterator<Item = &'a RowRef> {
    rows.iter().filter(|row| {
        let is_redelivered = batch.uplinks()[row.uplink as usize].message.redelivered;
        !is_redelivered || stored.binary_search(row).is_ok()
    })
}

/// Returns the revisions that were not acknowledged before.
pub(in crate::store) async fn write(
    connection: &WriterConnection,
    batch: &Batch,
    heartbeats: impl Iterator<Item = &RowRef>,
) -> Result<Vec<Acknowledgement>, StoreError> {
    let first = first_of_each(batch, heartbeats);
    if first.is_empty() {
        return Ok(Vec::new());
    }
    let column = |of: fn(&(SensorIdentifier, &Uplink, &Heartbeat)) -> Timestamp| -> Vec<Timestamp> {
        first.iter().map(of).collect()
    };
    let sensors: Vec<_> = first.iter().map(|(sensor, ..)| *sensor).collect();
    let revisions: Vec<i32> =
        first.iter().filter_map(|(.., heartbeat)| heartbeat.head.revision).collect();
    let timestamp = column(|(.., heartbeat)| heartbeat.head.timestamp);
    let received = column(|(_, uplink, _)| uplink.message.received_at);
    let success: Vec<bool> = first.iter().map(|(.., heartbeat)| heartbeat.success).collect();
    let rows = connection
        .client
        .query(&connection.acknowledge, &[&sensors, &revisions, &timestamp, &received, &success])
        .await?;
    Ok(rows
        .iter()
        .map(|row| Acknowledgement {
            sensor: row.get(0),
            revision: row.get(1),
            success: row.get(2),
        })
        .collect())
}

/// The first heartbeat to arrive for each sensor and revision, sorted by the primary key of
/// `configuration`, so that two commits lock its rows in the same order.
fn first_of_each<'a, 'b>(
    batch: &'a Batch,
    heartbeats: impl Iterator<Item = &'b RowRef>,
) -> Vec<(SensorIdentifier, &'a Uplink, &'a Heartbeat)> {
    let mut first = foldhash::HashMap::default();
    for row in heartbeats {
        let (uplink, heartbeat) = copy::heartbeat(batch, row);
        // A retained one may have been published long before the revision was sent.
        if heartbeat.head.revision.is_none() || uplink.message.retained {
            continue;
        }
        let arrival = (row.uplink, row.item);
        match first.entry((row.sensor, heartbeat.head.revision)) {
            Entry::Vacant(entry) => {
                entry.insert((arrival, uplink, heartbeat));
            }
            Entry::Occupied(mut entry) if arrival < entry.get().0 => {
                entry.insert((arrival, uplink, heartbeat));
            }
            Entry::Occupied(_) => {}
        }
    }
    let mut sorted: Vec<_> = first
        .into_iter()
        .map(|((sensor, _), (_, uplink, heartbeat))| (sensor, uplink, heartbeat))
        .collect();
    sorted.sort_unstable_by_key(|(sensor, _, heartbeat)| (*sensor, heartbeat.head.revision));
    sorted
}
