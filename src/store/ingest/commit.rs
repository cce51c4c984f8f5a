//! Commits a batch in one transaction: rows by COPY, acknowledgements of configurations, rejections,
//! COMMIT. Called only by the writer.
//!
//! Invariant: [`Committed`] has one constructor, private to this file and called after COMMIT
//! returned. A PUBACK is made from a `Committed`, so none precedes its COMMIT.

use std::sync::Arc;
use std::time::Duration;

use bb8::{Pool, PooledConnection};
use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::acknowledge::{self, Acknowledgement};
use super::events::gather;
use super::insert::{self, CopyMode};
use super::replays::{self, Replayed};
use super::{duplicates, isolate, journal, rejections};
use crate::domain::{
    AckToken, Batch, Event, Kind, Reason, RowRef, Rows, SensorIdentifier, Subscriptions, Tally,
};
use crate::store::connections::last_connect_error::{LastConnectError, PoolUse};
use crate::store::ingest::writer_connection::{
    WRITER_CHECKOUT_TIMEOUT, WriterConnection, WriterManager, writer_pool,
};
use crate::store::maintenance::partitions::Partitions;
use crate::store::sensors::deletion::DELETION_LOCK;
use crate::store::{Config, StoreError};

/// For one partition, if the server stops responding: its own statements end after 10 s each.
const CREATION_TIMEOUT: Duration = Duration::from_secs(60);

/// A COMMIT without WAL records does not wait for a standby. This one writes a record, so that the rows of
/// an earlier transaction whose wait was cancelled are confirmed, too. One at a time: abandoned attempts
/// keep waiting, and further ones must not add to them.
const CONFIRM_AND_COMMIT: &str = "\
select pg_advisory_xact_lock(hashtextextended('tributary confirmation', 0)),
    pg_logical_emit_message(true, 'tributary', '');
commit";

/// Proof that a batch is in the database.
#[derive(Debug)]
pub struct Committed {
    /// The tokens of the messages to acknowledge.
    pub ack_tokens: Vec<AckToken>,
    /// How many items were stored, duplicate or rejected.
    pub tally: Tally,
    /// Revisions acknowledged for the first time.
    pub acknowledgements: Vec<Acknowledgement>,
    /// Sensors of the batch that have been deleted; their items are rejected.
    pub deleted: Vec<SensorIdentifier>,
    /// The number of duplicate items, by sensor.
    pub duplicates: Vec<(SensorIdentifier, u64)>,
    /// For the subscribers of these sensors.
    pub events: Vec<Event>,
    /// The outcome of replayed messages. A batch consists of replayed messages only, or has none.
    pub replayed: Replayed,
    /// New rows that were further ahead of their receipt than FUTURE_TOLERANCE_SECS, by kind.
    pub future: [u64; Kind::ALL.len()],
}

impl Committed {
    fn after_commit(batch: Batch, outcome: BatchOutcome, subscriptions: &Subscriptions) -> Self {
        // After COMMIT: a subscriber that was there before it gets these rows as events; one that
        // subscribes later reads them from the tables.
        let events = if subscriptions.is_empty() && !subscriptions.has_peers() {
            Vec::new()
        } else {
            gather(subscriptions, &batch, &outcome.stored, &outcome.acknowledgements)
        };
        let duplicates = match outcome.tally.has_duplicates() {
            true => duplicates::per_sensor(&batch, &outcome.stored),
            false => Vec::new(),
        };
        Self {
            events,
            duplicates,
            ack_tokens: batch.into_uplinks().into_iter().map(|uplink| uplink.ack_token).collect(),
            tally: outcome.tally,
            acknowledgements: outcome.acknowledgements,
            deleted: outcome.deleted,
            replayed: outcome.replayed,
            future: outcome.future,
        }
    }

    /// For tests without a database.
    #[cfg(test)]
    pub(crate) fn pretend(batch: Batch) -> Self {
        Self::pretend_with(batch, Tally::default())
    }

    #[cfg(test)]
    pub(crate) fn pretend_with(batch: Batch, tally: Tally) -> Self {
        Self::after_commit(
            batch,
            BatchOutcome { tally, ..BatchOutcome::default() },
            &Subscriptions::none(),
        )
    }
}

/// A batch that was not committed, or whose COMMIT got no answer.
#[derive(Debug)]
pub struct Uncommitted {
    /// The batch, for a retry.
    pub batch: Batch,
    /// The cause.
    pub error: StoreError,
}

/// The outcome of a batch, filled in step by step before COMMIT.
#[derive(Debug, Default)]
struct BatchOutcome {
    tally: Tally,
    acknowledgements: Vec<Acknowledgement>,
    deleted: Vec<SensorIdentifier>,
    /// The rows that were new, by kind.
    stored: [Vec<RowRef>; Kind::ALL.len()],
    replayed: Replayed,
    future: [u64; Kind::ALL.len()],
}

impl BatchOutcome {
    fn count_future(&mut self, batch: &Batch, tolerance: Duration) {
        let is_future = |row: &&RowRef| {
            let received_at = batch.uplinks()[row.uplink as usize].message.received_at;
            row.timestamp > received_at.saturating_add(tolerance)
        };
        for (future, rows) in self.future.iter_mut().zip(&self.stored) {
            *future = rows.iter().filter(is_future).count() as u64;
        }
    }
}

/// Commits batches. Clones share the pool.
#[derive(Clone)]
pub struct Committer {
    pool: Pool<WriterManager>,
    last_connect_error: LastConnectError,
    partitions: Arc<Partitions>,
    subscriptions: Arc<Subscriptions>,
    timeout: Duration,
    future_tolerance: Duration,
}

impl Committer {
    /// A committer without subscribers. Its pool connects on first use, or in [`Self::connect`].
    pub fn new(config: &Config, connections: u32) -> Self {
        let last_connect_error = LastConnectError::default();
        Self {
            pool: writer_pool(config, connections, &last_connect_error),
            last_connect_error,
            partitions: Arc::new(Partitions::new(config)),
            subscriptions: Subscriptions::none(),
            // PostgreSQL cancels a statement earlier, unless it is unreachable.
            timeout: Duration::from_secs(2 * u64::from(config.statement_timeout_secs)),
            future_tolerance: Duration::from_secs(config.future_tolerance_secs.into()),
        }
    }

    /// The state of its pool.
    pub fn pool_use(&self) -> PoolUse {
        PoolUse::of(&self.pool)
    }

    /// The same committer, with these subscriptions.
    #[must_use]
    pub fn publishing_to(self, subscriptions: Arc<Subscriptions>) -> Self {
        Self { subscriptions, ..self }
    }

    /// Opens connections before the first batch. They are driven on the calling thread. Failures are
    /// ignored here; they are reported when the connection is needed.
    pub async fn connect(&self, connections: u32) {
        join_all((0..connections).map(|_| async { drop(self.pool.get().await) })).await;
    }

    /// Commits a batch in one transaction.
    /// On an error it returns the batch. After an error during COMMIT it may have been stored; committed again in
    /// [`CopyMode::Staged`], it is stored once.
    pub async fn commit(
        &self,
        mut batch: Batch,
        mode: CopyMode,
    ) -> Result<Committed, Box<Uncommitted>> {
        match self.write(&mut batch, mode).await {
            Ok(mut outcome) => {
                outcome.count_future(&batch, self.future_tolerance);
                Ok(Committed::after_commit(batch, outcome, &self.subscriptions))
            }
            Err(error) => Err(Box::new(Uncommitted { batch, error })),
        }
    }

    /// Finds the items of a one-message batch that PostgreSQL refuses, and rolls back. Returns the index
    /// in `items` of each, and PostgreSQL's message.
    pub async fn isolate(&self, batch: &Batch) -> Result<Vec<(u32, String)>, StoreError> {
        let connection = self.connection().await?;
        self.answered(&connection, self.timeout, async {
            let refused = isolate::refused_items(&connection, batch).await;
            roll_back(&connection).await;
            refused
        })
        .await
    }

    /// A server or network path that stops responding without closing the connection would otherwise
    /// hold the batch, and all PUBACKs after it, for ever.
    async fn answered<T>(
        &self,
        connection: &WriterConnection,
        timeout: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        connection.client.set_abandoned(true);
        let Ok(outcome) = tokio::time::timeout(timeout, work).await else {
            return Err(StoreError::Silence { waited: timeout });
        };
        // The primary has become a standby: the next connection may reach the new primary.
        let is_read_only = matches!(&outcome, Err(error) if error.is_read_only());
        connection.client.set_abandoned(is_read_only);
        outcome
    }

    async fn connection(&self) -> Result<PooledConnection<'_, WriterManager>, StoreError> {
        let checked_out = self.pool.get().await;
        checked_out
            .map_err(|error| self.last_connect_error.checkout_error(error, WRITER_CHECKOUT_TIMEOUT))
    }

    async fn write(&self, batch: &mut Batch, mode: CopyMode) -> Result<BatchOutcome, StoreError> {
        let connection = self.connection().await?;
        tracing::Span::current().record("connection", connection.backend);
        let rows = Kind::ALL.map(|kind| (kind, batch.rows(kind)));
        let not_yet_known = self.partitions.not_yet_known(&rows);
        if !not_yet_known.is_empty() {
            // Detects a server that does not respond, before the long timeout begins.
            self.answered(&connection, self.timeout, async {
                Ok(connection.client.simple_query("").await.map(drop)?)
            })
            .await?;
            for partition in not_yet_known {
                self.answered(&connection, CREATION_TIMEOUT, async {
                    let WriterConnection { client, engine, .. } = &*connection;
                    let outcome = self.partitions.ensure(*engine, client, partition).await;
                    if outcome.is_err() {
                        roll_back(&connection).await;
                    }
                    outcome
                })
                .await?;
            }
        }
        self.answered(&connection, self.timeout, async {
            let outcome = transact((&connection, &self.partitions), batch, rows, mode).await;
            if let Err(error) = &outcome {
                if error.sqlstate() == Some(&SqlState::FEATURE_NOT_SUPPORTED) {
                    connection.refused_copy();
                }
                roll_back(&connection).await;
            }
            match outcome {
                Err(StoreError::Postgres(error))
                    if mode == CopyMode::Direct && connection.engine.refused_copy(error.code()) =>
                {
                    Err(StoreError::RefusedCopy(error))
                }
                outcome => outcome,
            }
        })
        .await
    }
}

async fn roll_back(connection: &WriterConnection) {
    // If this fails the connection is broken, and the pool discards it.
    if let Err(error) = connection.client.batch_execute("rollback").await {
        tracing::debug!(%error, "rollback failed");
    }
}

/// A table under row-level security takes no COPY.
fn mode_of(connection: &WriterConnection, kind: Kind, mode: CopyMode) -> CopyMode {
    if connection.takes_copy(kind) { mode } else { CopyMode::Staged }
}

async fn transact(
    (connection, partitions): (&WriterConnection, &Partitions),
    batch: &mut Batch,
    mut rows: [(Kind, Rows); Kind::ALL.len()],
    mode: CopyMode,
) -> Result<BatchOutcome, StoreError> {
    let mut outcome =
        BatchOutcome { deleted: begin(connection, batch, &rows).await?, ..BatchOutcome::default() };
    reject_deleted(batch, &outcome.deleted);
    rejections::keep_together(batch);
    let BatchOutcome { tally, replayed, .. } = &mut outcome;
    let locked = replays::lock(connection, batch, tally, replayed).await?;
    if !outcome.deleted.is_empty() || outcome.replayed.missing > 0 {
        rows = Kind::ALL.map(|kind| (kind, batch.rows(kind)));
    }
    if connection.engine.copies_only_known_partitions() {
        partitions.stage_unknown(&mut rows);
    }
    for (kind, rows) in &rows {
        if rows.offered > 0 {
            let mode = mode_of(connection, *kind, mode);
            let staged = insert::rows(connection, batch, *kind, rows, mode).await?;
            let copied = if mode == CopyMode::Direct { rows.new.len() } else { 0 };
            let inserted = (copied + staged.len()) as u64;
            outcome.tally.stored(*kind, rows.offered, inserted);
            if locked.is_some() {
                outcome.replayed.stored(rows.offered, inserted);
            }
            outcome.stored[*kind as usize] = staged;
        }
    }
    let heartbeats = &rows[Kind::Heartbeat as usize].1;
    let stored = &outcome.stored[Kind::Heartbeat as usize];
    let repeated = acknowledge::first_deliveries(batch, &heartbeats.maybe_duplicate, stored);
    let heartbeats = heartbeats.new.iter().chain(repeated);
    outcome.acknowledgements = acknowledge::write(connection, batch, heartbeats).await?;
    rejections::write(connection, batch, &mut outcome.tally).await?;
    rejections::supersede(connection, batch).await?;
    if let Some(locked) = &locked {
        let BatchOutcome { tally, replayed, .. } = &mut outcome;
        replays::settle(connection, batch, locked, (tally, replayed)).await?;
    }
    for (kind, rows) in &mut rows {
        if mode_of(connection, *kind, mode) == CopyMode::Direct {
            outcome.stored[*kind as usize].append(&mut rows.new);
        }
    }
    // Both in one round trip. If the journal fails, the transaction is aborted and its COMMIT commits
    // nothing; both must succeed.
    let journaled = journal::write(connection, &outcome.stored);
    let commit = if outcome.tally.has_duplicates() { CONFIRM_AND_COMMIT } else { "commit" };
    let committed = connection.client.batch_execute(commit);
    tokio::try_join!(biased; journaled, committed)?;
    if connection.client.take_unconfirmed() {
        return Err(StoreError::Unconfirmed);
    }
    Ok(outcome)
}

/// Begins the transaction and returns the sensors of the batch that have a tombstone, in one round
/// trip. The shared lock makes later deletions wait for this commit, and earlier ones visible to the
/// look-up.
async fn begin(
    connection: &WriterConnection,
    batch: &Batch,
    rows: &[(Kind, Rows)],
) -> Result<Vec<SensorIdentifier>, StoreError> {
    // Also of messages without a row: a redelivery after the deletion is rejected as a whole, not by item.
    let rejected = batch.uplinks().iter().filter(|it| it.is_rejected_by_item());
    let mut sensors: Vec<SensorIdentifier> = rejected.filter_map(|uplink| uplink.sensor).collect();
    for (_, rows) in rows {
        for rows in [&rows.new, &rows.maybe_duplicate] {
            sensors.extend(
                rows.chunk_by(|one, next| one.sensor == next.sensor).map(|run| run[0].sensor),
            );
        }
    }
    let begin = format!(
        "begin isolation level read committed; select pg_advisory_xact_lock_shared({DELETION_LOCK})"
    );
    let begin = connection.client.batch_execute(&begin);
    let parameters: [&(dyn ToSql + Sync); 1] = [&sensors];
    let deleted = connection.client.query(&connection.tombstones, &parameters);
    let ((), deleted) = tokio::try_join!(begin, deleted)?;
    Ok(deleted.iter().map(|row| row.get(0)).collect())
}

fn reject_deleted(batch: &mut Batch, deleted: &[SensorIdentifier]) {
    if deleted.is_empty() {
        return;
    }
    for uplink in batch.uplinks_mut() {
        let is_deleted = uplink.sensor.is_some_and(|sensor| deleted.contains(&sensor));
        if is_deleted && (uplink.is_rejected_by_item() || !uplink.items.is_empty()) {
            // Unless all of it is over the limit per sensor and hour.
            let kept = !uplink.items.is_empty() || uplink.rejections.iter().any(|it| it.kept);
            uplink.reject(Reason::UnknownSensor, "the sensor was deleted".into());
            uplink.rejections[0].kept = kept;
        }
    }
}
