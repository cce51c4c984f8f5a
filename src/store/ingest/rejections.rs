//! Writes the rejections of a batch. Called by the commit, within its transaction; `replays` writes
//! those of replayed messages. A redelivery adds no row.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::{Batch, Kind, Rejection, Tally};
use crate::store::StoreError;
use crate::store::ingest::writer_connection::WriterConnection;

/// Rejections that are stored already count as duplicates; those over the limit per sensor and hour
/// are only counted.
pub(in crate::store) async fn write(
    connection: &WriterConnection,
    batch: &Batch,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    let delivered = batch.uplinks().iter().filter(|uplink| uplink.message.replayed_from.is_none());
    let all = || delivered.clone().flat_map(|uplink| &uplink.rejections);
    let kept: Vec<&Rejection> = all().filter(|rejection| rejection.kept).collect();
    if !kept.is_empty() {
        keep(connection, &kept, tally).await?;
    }
    let mut overflow = BTreeMap::<Uuid, i64>::new();
    for rejection in all().filter(|rejection| !rejection.kept) {
        let sensor = rejection.sensor.map_or(Uuid::nil(), |sensor| sensor.0);
        *overflow.entry(sensor).or_default() += i64::from(rejection.item_count);
        tally.rejected(rejection.kind, u64::from(rejection.item_count));
    }
    if !overflow.is_empty() {
        let (sensors, counts): (Vec<Uuid>, Vec<i64>) = overflow.into_iter().unzip();
        connection.client.execute(&connection.overflow, &[&sensors, &counts]).await?;
    }
    Ok(())
}

async fn keep(
    connection: &WriterConnection,
    kept: &[&Rejection],
    tally: &mut Tally,
) -> Result<(), StoreError> {
    let rows = insert(connection, kept).await?;
    let mut recorded = BTreeMap::<Option<&'static str>, u64>::new();
    for row in &rows {
        let kind = row.get::<_, Option<&str>>(0).and_then(named);
        *recorded.entry(kind.map(Kind::name)).or_default() += count(row.get(1));
    }
    for kind in Kind::ALL.map(Some).into_iter().chain([None]) {
        let offered: u64 =
            kept.iter().filter(|it| it.kind == kind).map(|it| u64::from(it.item_count)).sum();
        let inserted = recorded.get(&kind.map(Kind::name)).copied().unwrap_or(0);
        tally.rejected(kind, inserted);
        tally.duplicate(kind, offered - inserted);
    }
    Ok(())
}

/// Returns kind and item count of each rejection that was not stored before.
pub(in crate::store) async fn insert(
    connection: &WriterConnection,
    kept: &[&Rejection],
) -> Result<Vec<Row>, StoreError> {
    let received: Vec<_> = kept.iter().map(|it| it.received_at).collect();
    let topics: Vec<_> = kept.iter().map(|it| storable(&it.topic)).collect();
    let sensors: Vec<_> = kept.iter().map(|it| it.sensor).collect();
    let kinds: Vec<_> = kept.iter().map(|it| it.kind.map(Kind::name)).collect();
    let indices: Vec<_> = kept.iter().map(|it| it.item_index.map(narrow)).collect();
    let counts: Vec<_> = kept.iter().map(|it| narrow(it.item_count)).collect();
    let reasons: Vec<_> = kept.iter().map(|it| it.reason.code()).collect();
    let details: Vec<_> = kept.iter().map(|it| storable(&it.detail)).collect();
    let raws: Vec<&[u8]> = kept.iter().map(|it| &it.raw[..]).collect();
    let digests: Vec<_> = kept.iter().map(|it| Uuid::from_u128(it.digest.0)).collect();
    let once: Vec<_> = kept.iter().map(|it| it.delivered_once).collect();
    Ok(connection
        .client
        .query(
            &connection.reject,
            &[
                &received, &topics, &sensors, &kinds, &indices, &counts, &reasons, &details, &raws,
                &digests, &once,
            ],
        )
        .await?)
}

/// A message that may have been recorded as a whole has all its bad items recorded, or none: the limit per sensor and
/// hour may have been reached between two of them.
pub(in crate::store) fn keep_together(batch: &mut Batch) {
    for uplink in batch.uplinks_mut() {
        if uplink.message.may_be_stored && uplink.rejections.iter().any(|it| it.kept) {
            uplink.rejections.iter_mut().for_each(|rejection| rejection.kept = true);
        }
    }
}

/// Deletes the earlier rejections of redelivered messages whose items are stored now, or rejected one by one, for
/// example because their sensor has been created since.
pub(in crate::store) async fn supersede(
    connection: &WriterConnection,
    batch: &Batch,
) -> Result<(), StoreError> {
    let (mut messages, mut rejected, mut indices) = (Vec::new(), Vec::new(), Vec::new());
    let again = batch.uplinks().iter().filter(|uplink| {
        uplink.message.may_be_stored
            && uplink.message.replayed_from.is_none()
            && (!uplink.items.is_empty()
                || uplink.is_rejected_by_item() && uplink.rejections.iter().all(|it| it.kept))
    });
    for uplink in again {
        let digest = Uuid::from_u128(uplink.digest().0);
        messages.push(digest);
        for index in uplink.rejections.iter().filter_map(|it| it.item_index) {
            rejected.push(digest);
            indices.push(narrow(index));
        }
    }
    if !messages.is_empty() {
        let supersede = &connection.supersede;
        connection.client.execute(supersede, &[&messages, &rejected, &indices]).await?;
    }
    Ok(())
}

pub(in crate::store) fn named(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.name() == name)
}

/// `text` cannot hold U+0000, which a broker must not forward in a topic [MQTT-1.5.4-2].
pub(in crate::store) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(in crate::store) fn narrow(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn count(number: i32) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
