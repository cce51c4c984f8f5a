//! Heartbeats acknowledge the configurations of which they speak: the first one that does wins.

use std::collections::hash_map::Entry;

use jiff::Timestamp;
use uuid::Uuid;

use super::copy;
use crate::domain::{Batch, Heartbeat, RowRef, SensorIdentifier, Uplink};
use crate::store::StoreError;
use crate::store::ingest::writer_connection::WriterConnection;

/// A revision that a heartbeat acknowledged in a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acknowledgement {
    /// By whom.
    pub sensor: SensorIdentifier,
    /// Which one.
    pub revision: i32,
    /// Whether it works.
    pub success: bool,
}

/// Writes what the heartbeats of a batch acknowledge, and returns what was not acknowledged before.
pub(in crate::store) async fn write(
    connection: &WriterConnection,
    batch: &Batch,
    heartbeats: impl Iterator<Item = &RowRef>,
) -> Result<Vec<Acknowledgement>, StoreError> {
    let heard = first_of_each(batch, heartbeats);
    if heard.is_empty() {
        return Ok(Vec::new());
    }
    let column = |of: fn(&(SensorIdentifier, &Uplink, &Heartbeat)) -> Timestamp| -> Vec<Timestamp> {
        heard.iter().map(of).collect()
    };
    let sensors: Vec<Uuid> = heard.iter().map(|(sensor, ..)| sensor.0).collect();
    let revisions: Vec<i32> = heard.iter().map(|(.., heartbeat)| heartbeat.revision).collect();
    let timestamp = column(|(.., heartbeat)| heartbeat.timestamp.to_jiff());
    let received = column(|(_, uplink, _)| uplink.message.received_at.to_jiff());
    let success: Vec<bool> = heard.iter().map(|(.., heartbeat)| heartbeat.success).collect();
    let rows = connection
        .client
        .query(&connection.acknowledge, &[&sensors, &revisions, &timestamp, &received, &success])
        .await?;
    Ok(rows
        .iter()
        .map(|row| Acknowledgement {
            sensor: SensorIdentifier(row.get(0)),
            revision: row.get(1),
            success: row.get(2),
        })
        .collect())
}

/// The first heartbeat of each sensor and revision by arrival, in the order of the table's key, so
/// that two commits lock its rows in the same order.
fn first_of_each<'a, 'b>(
    batch: &'a Batch,
    heartbeats: impl Iterator<Item = &'b RowRef>,
) -> Vec<(SensorIdentifier, &'a Uplink, &'a Heartbeat)> {
    let mut first = foldhash::HashMap::default();
    for row in heartbeats {
        let (uplink, heartbeat) = copy::heartbeat(batch, row);
        let arrival = (row.uplink, row.item);
        match first.entry((row.sensor, heartbeat.revision)) {
            Entry::Vacant(entry) => {
                entry.insert((arrival, uplink, heartbeat));
            }
            Entry::Occupied(mut entry) if arrival < entry.get().0 => {
                entry.insert((arrival, uplink, heartbeat));
            }
            Entry::Occupied(_) => {}
        }
    }
    let mut heard: Vec<_> = first
        .into_iter()
        .map(|((sensor, _), (_, uplink, heartbeat))| (sensor, uplink, heartbeat))
        .collect();
    heard.sort_unstable_by_key(|(sensor, _, heartbeat)| (*sensor, heartbeat.revision));
    heard
}
