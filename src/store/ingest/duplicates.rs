//! How many items of each sensor were rows already. Called once per commit, after it; pure. Costs nothing while
//! nothing is delivered twice.

use crate::domain::{Batch, Kind, RowRef, SensorIdentifier};

/// Items of these messages that made no row, by sensor; replays aside. `stored` are the rows that were new.
pub(in crate::store) fn per_sensor(
    batch: &Batch,
    stored: &[Vec<RowRef>; Kind::ALL.len()],
) -> Vec<(SensorIdentifier, u64)> {
    let mut counts = foldhash::HashMap::<SensorIdentifier, u64>::default();
    for uplink in batch.uplinks().iter().filter(|it| it.message.replayed_from.is_none()) {
        if let Some(sensor) = uplink.sensor {
            *counts.entry(sensor).or_default() += uplink.items.len() as u64;
        }
    }
    for row in stored.iter().flatten() {
        if let Some(count) = counts.get_mut(&row.sensor) {
            *count = count.saturating_sub(1);
        }
    }
    counts.retain(|_, count| *count > 0);
    counts.into_iter().collect()
}
