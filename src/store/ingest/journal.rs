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
