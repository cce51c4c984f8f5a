//! The replay of rejections within a commit: their rows in `rejection` are locked first, then deleted
//! if their items were stored, or updated with the new reason. Called by the commit.
//!
//! Invariant: a message is replayed only while its row exists and is locked. So two replays of one
//! row, even in two processes, store it once; and the retry of a COMMIT that got no answer finds that
//! the row no longer exists.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::rejections;
use crate::domain::{Batch, Rejection, Tally, Uplink};
use crate::store::StoreError;
use crate::store::ingest::writer_connection::WriterConnection;

/// The outcome of replayed messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Rejections that were deleted.
    pub removed: u64,
    /// Rejections that stay.
    pub kept: u64,
    /// Rejections that no longer existed.
    pub missing: u64,
    /// Items stored as new rows.
    pub stored_items: u64,
    /// Items that were stored before.
    pub duplicate_items: u64,
    /// Items that were rejected again.
    pub refused_items: u64,
}

/// The locked rows, each with its `item_index`.
pub(in crate::store) struct LockedRows(BTreeMap<i64, Option<i32>>);

const LOCK: &str = "\
select identifier, item_index from rejection where identifier = any ($1)
order by identifier for update";

const REMOVE: &str = "delete from rejection where identifier = any ($1)";

/// Leaves unchanged rows alone: rejecting a page again for the same reasons writes no row.
const REFUSE_AGAIN: &str = "\
update rejection
set reason = again.reason, detail = again.detail, item_count = again.item_count
from unnest($1::int8[], $2::text[], $3::text[], $4::int4[])
    as again (identifier, reason, detail, item_count)
where rejection.identifier = again.identifier
    and (rejection.reason, rejection.detail, rejection.item_count)
        is distinct from (again.reason, again.detail, again.item_count)";

/// Locks the rows that a batch replays; messages whose row no longer exists become
/// [`crate::domain::Items::AlreadyHandled`]. None if the batch replays nothing.
pub(in crate::store) async fn lock(
    connection: &WriterConnection,
    batch: &mut Batch,
    tally: &mut Tally,
    replayed: &mut Replayed,
) -> Result<Option<LockedRows>, StoreError> {
    let identifiers: Vec<i64> =
        batch.uplinks().iter().filter_map(|uplink| uplink.message.replayed_from).collect();
    if identifiers.is_empty() {
        return Ok(None);
    }
    let rows = connection.client.query_typed(LOCK, &[(&identifiers, Type::INT8_ARRAY)]).await?;
    let locked: BTreeMap<i64, Option<i32>> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for uplink in batch.uplinks_mut() {
        if uplink.message.replayed_from.is_some_and(|from| !locked.contains_key(&from)) {
            let item_count = uplink.set_already_handled();
            tally.duplicate(uplink.kind, item_count.into());
            replayed.missing += 1;
        }
    }
    Ok(Some(LockedRows(locked)))
}

/// Deletes or updates the locked rows.
pub(in crate::store) async fn settle(
    connection: &WriterConnection,
    batch: &Batch,
    LockedRows(locked): &LockedRows,
    (tally, replayed): (&mut Tally, &mut Replayed),
) -> Result<(), StoreError> {
    let mut removed: Vec<i64> = Vec::new();
    let mut again: Vec<(i64, &Rejection)> = Vec::new();
    let mut parts: Vec<&Rejection> = Vec::new();
    for uplink in batch.uplinks() {
        let Some((from, item_index)) = locked_row(uplink, locked) else { continue };
        for rejection in &uplink.rejections {
            let items = u64::from(rejection.item_count);
            tally.duplicate(rejection.kind, items);
            replayed.refused_items += items;
        }
        match &uplink.rejections[..] {
            [only] if only.item_index.is_none() || item_index.is_some() => again.push((from, only)),
            // The message had been rejected as a whole; now only some of its items are.
            some => {
                removed.push(from);
                parts.extend(some);
            }
        }
    }
    replayed.removed += removed.len() as u64;
    replayed.kept += again.len() as u64;
    if !removed.is_empty() {
        connection.client.query_typed(REMOVE, &[(&removed, Type::INT8_ARRAY)]).await?;
    }
    if !again.is_empty() {
        refuse_again(connection, &again).await?;
    }
    if !parts.is_empty() {
        rejections::insert(connection, &parts).await?;
    }
    Ok(())
}

fn locked_row(uplink: &Uplink, locked: &BTreeMap<i64, Option<i32>>) -> Option<(i64, Option<i32>)> {
    let from = uplink.message.replayed_from?;
    locked.get(&from).map(|item_index| (from, *item_index))
}

async fn refuse_again(
    connection: &WriterConnection,
    again: &[(i64, &Rejection)],
) -> Result<(), StoreError> {
    let identifiers: Vec<_> = again.iter().map(|(from, _)| *from).collect();
    let reasons: Vec<_> = again.iter().map(|(_, it)| it.reason.code()).collect();
    let details: Vec<_> = again.iter().map(|(_, it)| rejections::storable(&it.detail)).collect();
    let counts: Vec<_> = again.iter().map(|(_, it)| rejections::narrow(it.item_count)).collect();
    connection
        .client
        .query_typed(
            REFUSE_AGAIN,
            &[
                (&identifiers, Type::INT8_ARRAY),
                (&reasons, Type::TEXT_ARRAY),
                (&details, Type::TEXT_ARRAY),
                (&counts, Type::INT4_ARRAY),
            ],
        )
        .await?;
    Ok(())
}

impl std::ops::AddAssign for Replayed {
    fn add_assign(&mut self, more: Self) {
        self.removed += more.removed;
        self.kept += more.kept;
        self.missing += more.missing;
        self.stored_items += more.stored_items;
        self.duplicate_items += more.duplicate_items;
        self.refused_items += more.refused_items;
    }
}

impl Replayed {
    /// Of `offered` items of one kind, `inserted` are new rows.
    pub(in crate::store) fn stored(&mut self, offered: u64, inserted: u64) {
        self.stored_items += inserted;
        self.duplicate_items += offered - inserted;
    }
}
