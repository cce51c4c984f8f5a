//! Writes the journal of the roll-up: counts of what a commit stored, by sensor, hour and kind. Called by the
//! commit, before COMMIT: one row, in the same transaction as the rows that it counts.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::{Kind, RowRef};
use crate::store::ingest::writer_connection::WriterConnection;
use crate::store::rollup::hours::hour_of;

pub(in crate::store) async fn write(
    connection: &WriterConnection,
    stored: &[Vec<RowRef>; Kind::ALL.len()],
) -> Result<(), tokio_postgres::Error> {
    let Entries { sensors, hours, kinds, counts } = entries(stored);
    if sensors.is_empty() {
        return Ok(());
    }
    let parameters: [&(dyn ToSql + Sync); 4] = [&sensors, &hours, &kinds, &counts];
    connection.client.execute(&connection.journal, &parameters).await.map(drop)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Entries {
    sensors: Vec<Uuid>,
    hours: Vec<i32>,
    kinds: Vec<i16>,
    counts: Vec<i32>,
}

/// Rows are sorted by sensor and time, so that the rows of one entry are adjacent.
fn entries(stored: &[Vec<RowRef>; Kind::ALL.len()]) -> Entries {
    let mut entries = Entries::default();
    for (kind, rows) in stored.iter().enumerate() {
        let key = |row: &RowRef| (row.sensor, hour_of(row.timestamp));
        for run in rows.chunk_by(|one, next| key(one) == key(next)) {
            let (sensor, hour) = key(&run[0]);
            entries.sensors.push(sensor.0);
            entries.hours.push(hour);
            entries.kinds.push(kind as i16);
            entries.counts.push(i32::try_from(run.len()).unwrap_or(i32::MAX));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{SensorIdentifier, Timestamp};
    use crate::store::rollup::hours::hour_begin;

    fn row(sensor: SensorIdentifier, hour: i32, second: i64) -> RowRef {
        let begin = hour_begin(hour).unix_microseconds();
        let timestamp = Timestamp::from_unix_microseconds(begin + second * 1_000_000);
        RowRef { sensor, timestamp, digest: 0, uplink: 0, item: 0 }
    }

    #[test]
    fn a_journal_entry_counts_one_sensor_hour_and_kind() {
        let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
        let measurements = vec![
            row(one, 0, 0),
            row(one, 7, 0),
            row(one, 7, 3_599),
            row(one, 8, 0),
            row(other, 8, 0),
        ];
        let heartbeats = vec![row(one, 8, 1)];
        assert_eq!(
            entries(&[measurements, Vec::new(), heartbeats]),
            Entries {
                sensors: vec![one.0, one.0, one.0, other.0, one.0],
                hours: vec![0, 7, 8, 8, 8],
                kinds: vec![0, 0, 0, 0, 2],
                counts: vec![1, 2, 1, 1, 1],
            }
        );
    }
}
