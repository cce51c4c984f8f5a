//! Counts the duplicates of each sensor. Called once per commit, after COMMIT; pure. Costs nothing without
//! duplicates.

use crate::domain::{Batch, Kind, RowRef, SensorIdentifier};

/// The duplicate items by sensor, without replayed messages. `stored`: the rows that were new.
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
