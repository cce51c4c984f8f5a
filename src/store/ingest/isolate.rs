//! Isolates the items of a message that PostgreSQL refuses, by bisection: each part is tried under a
//! savepoint, and the caller rolls everything back. Called by the committer for a refused batch.

use super::acknowledge;
use super::insert::staged;
use crate::domain::{Batch, Kind, RowRef};
use crate::store::StoreError;
use crate::store::ingest::writer_connection::{WriterConnection, staging_table};

/// Returns the index in `items` of each refused item, and PostgreSQL's message.
pub(in crate::store) async fn refused_items(
    connection: &WriterConnection,
    batch: &Batch,
) -> Result<Vec<(u32, String)>, StoreError> {
    // Deferred constraints of the operator are checked immediately instead of at COMMIT.
    connection.client.batch_execute("begin; set constraints all immediate").await?;
    let mut refused = Vec::new();
    for kind in Kind::ALL {
        let rows = batch.rows(kind).all();
        let mut parts = vec![&rows[..]];
        while let Some(part) = parts.pop() {
            let Err(error) = attempt(connection, batch, kind, part).await else { continue };
            // In staged mode, a unique violation can only come from a constraint of the operator.
            if crate::store::recovery(&error) == crate::store::Recovery::Retry {
                return Err(error);
            }
            match part {
                [alone] => refused.push((alone.item, error.to_string())),
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([first, second]);
                }
            }
        }
    }
    Ok(refused)
}

/// Writes a part of a message under a savepoint. Accepted items stay, so that an item that conflicts
/// with another item of the message is found too.
async fn attempt(
    connection: &WriterConnection,
    batch: &Batch,
    kind: Kind,
    part: &[RowRef],
) -> Result<(), StoreError> {
    if part.is_empty() {
        return Ok(());
    }
    connection.client.batch_execute("savepoint part").await?;
    let outcome = async {
        let stored = staged(connection, batch, kind, part).await?;
        // A trigger of the operator may reject the acknowledgement, rather than the heartbeat's row.
        if kind == Kind::Heartbeat {
            let heartbeats = acknowledge::first_deliveries(batch, part, &stored);
            acknowledge::write(connection, batch, heartbeats).await?;
        }
        Ok(())
    }
    .await;
    let end = match &outcome {
        Ok(()) => format!("delete from {}; release savepoint part", staging_table(kind)),
        Err(_) => "rollback to savepoint part".into(),
    };
    connection.client.batch_execute(&end).await?;
    outcome
}
