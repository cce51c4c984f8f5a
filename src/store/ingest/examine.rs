//! Which items of a message PostgreSQL refuses: tried in ever smaller parts, each under a savepoint,
//! and all of it taken back in the end. Called by the committer, on the way of a batch that was refused.

use super::acknowledge;
use super::insert::staged;
use crate::domain::{Batch, Kind, RowRef};
use crate::store::StoreError;
use crate::store::ingest::writer_connection::{WriterConnection, staging_table};

/// Returns each item's index among the stored ones, and PostgreSQL's sentence.
pub(in crate::store) async fn find_refused(
    connection: &WriterConnection,
    batch: &Batch,
) -> Result<Vec<(u32, String)>, StoreError> {
    // What a constraint of the user's would say at COMMIT it says at once.
    connection.client.batch_execute("begin; set constraints all immediate").await?;
    let mut refused = Vec::new();
    for kind in Kind::ALL {
        let rows = batch.rows(kind).all();
        let mut parts = vec![&rows[..]];
        while let Some(part) = parts.pop() {
            let Err(error) = attempt(connection, batch, kind, part).await else { continue };
            // All of it is staged: what conflicts still does so with a constraint that is not ours.
            if crate::store::verdict(&error) == crate::store::Verdict::Retry {
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

/// Writes a part of a message under a savepoint. What fits stays, so that an item that conflicts
/// with another one of its message is found too.
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
        staged(connection, batch, kind, part).await?;
        // A trigger of the user's may refuse what a heartbeat brings about, and not its row.
        if kind == Kind::Heartbeat {
            acknowledge::write(connection, batch, part.iter()).await?;
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
