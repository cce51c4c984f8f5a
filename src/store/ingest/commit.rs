//! One batch, one transaction: the rows by COPY, what they acknowledge, the rejections, COMMIT.
//! Called by the writer, and by nobody else.
//!
//! Invariant: [`Committed`] has one constructor, private to this file and called after COMMIT
//! returned. A PUBACK is made from a `Committed`, so none precedes its COMMIT.

use std::sync::Arc;
use std::time::Duration;

use bb8::{Pool, PooledConnection};
use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::acknowledge::{self, Acknowledgement};
use super::events::gather;
use super::insert::{self, CopyMode};
use super::replays::{self, Replayed};
use super::{examine, journal, rejections};
use crate::domain::{
    AckToken, Batch, Event, Kind, Reason, RowRef, Rows, SensorIdentifier, Subscriptions, Tally,
};
use crate::store::connections::last_connect_error::{LastConnectError, PoolUse};
use crate::store::ingest::writer_connection::{
    CHECKOUT_TIMEOUT, WriterConnection, WriterManager, writer_pool,
};
use crate::store::maintenance::partitions::Partitions;
use crate::store::sensors::deletion::DELETION_LOCK;
use crate::store::{Config, StoreError};

/// A new partition takes over what the default partition holds of it, however much that is.
const PROVIDING_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Proof that a batch is in the database.
#[derive(Debug)]
pub struct Committed {
    /// What is now to be acknowledged.
    pub ack_tokens: Vec<AckToken>,
    /// What became of the items.
    pub tally: Tally,
    /// What was acknowledged for the first time.
    pub acknowledgements: Vec<Acknowledgement>,
    /// Sensors in the batch that were deleted meanwhile; their items are rejected.
    pub deleted: Vec<SensorIdentifier>,
    /// What those who watch want to know of it.
    pub events: Vec<Event>,
    /// What became of replayed messages; a batch has them all or none.
    pub replayed: Replayed,
}

impl Committed {
    fn after_commit(batch: Batch, account: Account, subscriptions: &Subscriptions) -> Self {
        // Behind COMMIT: whoever began to watch before it finds its rows here, and whoever begins
        // now, in the tables.
        let events = if subscriptions.is_empty() {
            Vec::new()
        } else {
            gather(subscriptions, &batch, &account.stored, &account.acknowledgements)
        };
        Self {
            events,
            ack_tokens: batch.into_uplinks().into_iter().map(|uplink| uplink.ack_token).collect(),
            tally: account.tally,
            acknowledgements: account.acknowledgements,
            deleted: account.deleted,
            replayed: account.replayed,
        }
    }

    /// As if committed: for the tests of what happens around a commit.
    #[cfg(test)]
    pub(crate) fn pretend(batch: Batch) -> Self {
        Self::pretend_with(batch, Tally::default())
    }

    /// The same, with what became of the items.
    #[cfg(test)]
    pub(crate) fn pretend_with(batch: Batch, tally: Tally) -> Self {
        Self::after_commit(batch, Account { tally, ..Account::default() }, &Subscriptions::none())
    }
}

/// A batch that is not in the database, or not known to be, and why.
#[derive(Debug)]
pub struct Uncommitted {
    /// To be tried again.
    pub batch: Batch,
    /// What went wrong.
    pub error: StoreError,
}

/// What is written about a batch while it is on its way.
#[derive(Debug, Default)]
struct Account {
    tally: Tally,
    acknowledgements: Vec<Acknowledgement>,
    deleted: Vec<SensorIdentifier>,
    /// References to the rows that were new, by kind.
    stored: [Vec<RowRef>; Kind::ALL.len()],
    replayed: Replayed,
}

/// Writes batches. Clones share the pool.
#[derive(Clone)]
pub struct Committer {
    pool: Pool<WriterManager>,
    last_connect_error: LastConnectError,
    partitions: Arc<Partitions>,
    subscriptions: Arc<Subscriptions>,
    patience: Duration,
}

impl Committer {
    /// With so many connections, made when they are first needed or [`Self::connect`] is called. Nobody
    /// watches.
    #[must_use]
    pub fn new(config: &Config, connections: u32) -> Self {
        let last_connect_error = LastConnectError::default();
        Self {
            pool: writer_pool(config, connections, &last_connect_error),
            last_connect_error,
            partitions: Arc::new(Partitions::new(config)),
            subscriptions: Subscriptions::none(),
            // PostgreSQL cancels a statement earlier, if it is there to do so.
            patience: Duration::from_secs(2 * u64::from(config.statement_timeout_secs)),
        }
    }

    /// How its connections are used.
    #[must_use]
    pub fn pool_use(&self) -> PoolUse {
        PoolUse::of(&self.pool)
    }

    /// The same, and these may watch.
    #[must_use]
    pub fn publishing_to(self, subscriptions: Arc<Subscriptions>) -> Self {
        Self { subscriptions, ..self }
    }

    /// Makes so many connections ahead, so that the first batches find them. They are driven on the
    /// thread that calls this. One that cannot be made now is made when it is needed, which is when
    /// that is told.
    pub async fn connect(&self, connections: u32) {
        join_all((0..connections).map(|_| async { drop(self.pool.get().await) })).await;
    }

    /// Writes a batch in one transaction.
    ///
    /// # Errors
    /// Gives the batch back. After an error during COMMIT itself nobody knows whether it is in the
    /// database; written again through [`CopyMode::Staged`], it is there once.
    pub async fn commit(
        &self,
        mut batch: Batch,
        mode: CopyMode,
    ) -> Result<Committed, Box<Uncommitted>> {
        match self.write(&mut batch, mode).await {
            Ok(account) => Ok(Committed::after_commit(batch, account, &self.subscriptions)),
            Err(error) => Err(Box::new(Uncommitted { batch, error })),
        }
    }

    /// Finds the items of a one-message batch that PostgreSQL refuses, by trying them in ever
    /// smaller parts, all of it rolled back. Returns the item's index among the stored ones, and
    /// PostgreSQL's sentence.
    ///
    /// # Errors
    /// When the database fails for another reason than an item.
    pub async fn examine(&self, batch: &Batch) -> Result<Vec<(u32, String)>, StoreError> {
        let connection = self.connection().await?;
        self.answered(&connection, self.patience, async {
            let refused = examine::find_refused(&connection, batch).await;
            roll_back(&connection).await;
            refused
        })
        .await
    }

    /// A server or a way that is silent and does not close the connection would hold the batch, and
    /// with it every PUBACK behind it, for ever.
    async fn answered<T>(
        &self,
        connection: &WriterConnection,
        patience: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        connection.client.set_abandoned(true);
        let Ok(outcome) = tokio::time::timeout(patience, work).await else {
            return Err(StoreError::Silence { waited: patience });
        };
        // The primary became a standby, or is being made one: the next connection is another server's.
        let is_read_only = matches!(&outcome, Err(error) if error.is_read_only());
        connection.client.set_abandoned(is_read_only);
        outcome
    }

    async fn connection(&self) -> Result<PooledConnection<'_, WriterManager>, StoreError> {
        let checked_out = self.pool.get().await;
        checked_out.map_err(|error| self.last_connect_error.checkout_error(error, CHECKOUT_TIMEOUT))
    }

    async fn write(&self, batch: &mut Batch, mode: CopyMode) -> Result<Account, StoreError> {
        let mut rows = Kind::ALL.map(|kind| (kind, batch.rows(kind)));
        let connection = self.connection().await?;
        tracing::Span::current().record("connection", connection.backend);
        let missing = self.partitions.missing(&rows);
        if !missing.is_empty() {
            // A silent way is found out before the long patience begins.
            self.answered(&connection, self.patience, async {
                Ok(connection.client.simple_query("").await.map(drop)?)
            })
            .await?;
            self.answered(&connection, PROVIDING_PATIENCE, async {
                let provided = self.partitions.provide(&connection.client, missing).await;
                if provided.is_err() {
                    roll_back(&connection).await;
                }
                provided
            })
            .await?;
        }
        self.answered(&connection, self.patience, async {
            let outcome = transact(&connection, batch, &mut rows, mode).await;
            if let Err(error) = &outcome {
                if error.sqlstate() == Some(&SqlState::FEATURE_NOT_SUPPORTED) {
                    connection.refused_copy();
                }
                roll_back(&connection).await;
            }
            outcome
        })
        .await
    }
}

/// Nothing of a failed transaction may reach the next one on its connection.
async fn roll_back(connection: &WriterConnection) {
    // Where even this fails the connection is broken, and the pool sees to it.
    if let Err(broken) = connection.client.batch_execute("rollback").await {
        tracing::debug!(error = %broken, "a transaction could not be rolled back");
    }
}

/// Where PostgreSQL checks rows one by one, none goes straight into the table.
fn mode_of(connection: &WriterConnection, kind: Kind, mode: CopyMode) -> CopyMode {
    if connection.takes_copy(kind) { mode } else { CopyMode::Staged }
}

async fn transact(
    connection: &WriterConnection,
    batch: &mut Batch,
    rows: &mut [(Kind, Rows); Kind::ALL.len()],
    mode: CopyMode,
) -> Result<Account, StoreError> {
    let mut account = Account { deleted: begin(connection, rows).await?, ..Account::default() };
    reject_deleted(batch, &account.deleted);
    let Account { tally, replayed, .. } = &mut account;
    let held = replays::lock(connection, batch, tally, replayed).await?;
    if !account.deleted.is_empty() || account.replayed.gone > 0 {
        *rows = Kind::ALL.map(|kind| (kind, batch.rows(kind)));
    }
    for (kind, rows) in rows.iter() {
        if rows.offered > 0 {
            let mode = mode_of(connection, *kind, mode);
            let staged = insert::rows(connection, batch, *kind, rows, mode).await?;
            let fresh = if mode == CopyMode::Direct { rows.new.len() } else { 0 };
            let inserted = (fresh + staged.len()) as u64;
            account.tally.stored(*kind, rows.offered, inserted);
            if held.is_some() {
                account.replayed.stored(rows.offered, inserted);
            }
            account.stored[*kind as usize] = staged;
        }
    }
    let heartbeats = &rows[Kind::Heartbeat as usize].1;
    let heartbeats = heartbeats.new.iter().chain(&heartbeats.maybe_duplicate);
    account.acknowledgements = acknowledge::write(connection, batch, heartbeats).await?;
    rejections::write(connection, batch, &mut account.tally).await?;
    rejections::supersede(connection, batch).await?;
    if let Some(held) = &held {
        let Account { tally, replayed, .. } = &mut account;
        replays::settle(connection, batch, held, (tally, replayed)).await?;
    }
    for (kind, rows) in rows {
        if mode_of(connection, *kind, mode) == CopyMode::Direct {
            account.stored[*kind as usize].append(&mut rows.new);
        }
    }
    // Both in one round trip. A journal that fails fails the transaction, and its COMMIT commits
    // nothing; both must have succeeded.
    let journaled = journal::write(connection, &account.stored);
    let committed = connection.client.batch_execute("commit");
    tokio::try_join!(biased; journaled, committed)?;
    Ok(account)
}

/// Begins, and finds the sensors of the batch that were deleted. The shared lock makes a deletion
/// wait for this commit, and this look-up see every deletion before it; both in one round trip.
async fn begin(
    connection: &WriterConnection,
    rows: &[(Kind, Rows)],
) -> Result<Vec<SensorIdentifier>, StoreError> {
    let mut sensors: Vec<Uuid> = Vec::new();
    for (_, rows) in rows {
        for rows in [&rows.new, &rows.maybe_duplicate] {
            sensors.extend(
                rows.chunk_by(|one, next| one.sensor == next.sensor).map(|run| run[0].sensor.0),
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
    Ok(deleted.iter().map(|row| SensorIdentifier(row.get(0))).collect())
}

fn reject_deleted(batch: &mut Batch, deleted: &[SensorIdentifier]) {
    if deleted.is_empty() {
        return;
    }
    for uplink in batch.uplinks_mut() {
        if uplink.sensor.is_some_and(|sensor| deleted.contains(&sensor)) {
            uplink.reject(Reason::UnknownSensor, "the sensor was deleted".into());
        }
    }
}
