//! Writes the activity journal: counts of what a commit stored, by sensor, bucket and kind. Called by
//! the commit, before COMMIT: one row, in the same transaction as the rows that it counts.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::{Kind, RowRef, Timestamp};
use crate::store::ingest::writer_connection::WriterConnection;
use crate::store::{BUCKETS, bucket_of};

/// Items older than the last [`BUCKETS`], or more than one bucket in the future, are not counted.
pub(in crate::store) async fn write(
    connection: &WriterConnection,
    stored: &[Vec<RowRef>; Kind::ALL.len()],
) -> Result<(), tokio_postgres::Error> {
    let Entries { sensors, buckets, kinds, counts } = entries(stored, bucket_of(Timestamp::now()));
    if sensors.is_empty() {
        return Ok(());
    }
    let parameters: [&(dyn ToSql + Sync); 4] = [&sensors, &buckets, &kinds, &counts];
    connection.client.execute(&connection.journal, &parameters).await.map(drop)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Entries {
    sensors: Vec<Uuid>,
    buckets: Vec<i32>,
    kinds: Vec<i16>,
    counts: Vec<i32>,
}

/// Rows are sorted by sensor and time, so that the rows of one entry are adjacent.
fn entries(stored: &[Vec<RowRef>; Kind::ALL.len()], present: i32) -> Entries {
    let mut entries = Entries::default();
    for (kind, rows) in stored.iter().enumerate() {
        let key = |row: &RowRef| (row.sensor, bucket_of(row.timestamp));
        for run in rows.chunk_by(|one, next| key(one) == key(next)) {
            let (sensor, bucket) = key(&run[0]);
            if bucket > present - BUCKETS && bucket <= present + 1 {
                entries.sensors.push(sensor.0);
                entries.buckets.push(bucket);
                entries.kinds.push(kind as i16);
                entries.counts.push(i32::try_from(run.len()).unwrap_or(i32::MAX));
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SensorIdentifier;
    use crate::store::bucket_begin;

    const PRESENT: i32 = 123_456;

    fn row(sensor: SensorIdentifier, bucket: i32, second: i64) -> RowRef {
        let begin = bucket_begin(bucket).unix_microseconds();
        let timestamp = Timestamp::from_unix_microseconds(begin + second * 1_000_000);
        RowRef { sensor, timestamp, digest: 0, uplink: 0, item: 0 }
    }

    #[test]
    fn a_journal_entry_counts_one_sensor_bucket_and_kind() {
        let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
        let measurements = vec![
            row(one, PRESENT - BUCKETS, 0),
            row(one, PRESENT - 1, 0),
            row(one, PRESENT - 1, 14_399),
            row(one, PRESENT, 0),
            row(other, PRESENT + 1, 0),
            row(other, PRESENT + 2, 0),
        ];
        let heartbeats = vec![row(one, PRESENT, 1)];
        let entries = entries(&[measurements, Vec::new(), heartbeats], PRESENT);
        assert_eq!(
            entries,
            Entries {
                sensors: vec![one.0, one.0, other.0, one.0],
                buckets: vec![PRESENT - 1, PRESENT, PRESENT + 1, PRESENT],
                kinds: vec![0, 0, 0, 2],
                counts: vec![2, 1, 1, 1],
            }
        );
    }
}
