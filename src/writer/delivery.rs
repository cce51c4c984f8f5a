//! Writes one batch until all of it is committed: retried after a pause while the database is
//! unavailable, through the staging tables if a row exists already, in halves if PostgreSQL refuses a
//! row. Started by the writer's actor. Invariant: it reports only what COMMIT has confirmed, and gives
//! nothing up.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Recipient;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{Instrument as _, debug, debug_span, error, field, info, warn};

use super::budget::RejectionBudget;
use super::protocol::{Acknowledged, Deleted, Duplicates};
use crate::domain::{
    Batch, Flow, Health, Part, Reason, Subscriptions, Task, Timestamp, Uplink, ledger_names, pause,
};
use crate::metrics::Metrics;
use crate::store::{
    Acknowledgement, Committed, Committer, CopyMode, Recovery, StoreError, Uncommitted, recovery,
};
use crate::tasks::Tasks;

/// Retries of a message that PostgreSQL refuses although it refuses none of its items.
const UNEXPLAINED_RETRIES: u32 = 3;

/// A commit that takes longer is reported as not ready: behind a lock, or behind a standby that
/// synchronous_standby_names waits for.
const SLOW_COMMIT: Duration = Duration::from_secs(5);

/// Commits a batch: tests replace the database here.
pub trait Commit: Clone + Unpin + 'static {
    /// As [`Committer::commit`].
    fn commit(
        &self,
        batch: Batch,
        mode: CopyMode,
    ) -> impl Future<Output = Result<Committed, Box<Uncommitted>>>;

    /// As [`Committer::isolate`].
    fn isolate(
        &self,
        batch: &Batch,
    ) -> impl Future<Output = Result<Vec<(u32, String)>, StoreError>>;
}

impl Commit for Committer {
    async fn commit(&self, batch: Batch, mode: CopyMode) -> Result<Committed, Box<Uncommitted>> {
        Self::commit(self, batch, mode).await
    }

    async fn isolate(&self, batch: &Batch) -> Result<Vec<(u32, String)>, StoreError> {
        Self::isolate(self, batch).await
    }
}

/// The receivers of what was committed.
#[derive(Clone, Debug)]
pub struct Reports {
    /// The inbound loop, which settles the tokens. Bounded by its window.
    pub settled: UnboundedSender<Committed>,
    /// The replayer, which settles its tokens. Bounded by a page.
    pub replayed: UnboundedSender<Committed>,
    /// The supervisor.
    pub acknowledged: Recipient<Acknowledged>,
    /// The supervisor.
    pub duplicates: Recipient<Duplicates>,
    /// The supervisor and the outbox.
    pub deleted: [Recipient<Deleted>; 2],
    /// For event streams.
    pub subscriptions: Arc<Subscriptions>,
    /// For [`Part::Writing`].
    pub health: Arc<Health>,
    /// For the present load.
    pub flow: Arc<Flow>,
    /// For counters.
    pub metrics: Arc<Metrics>,
    /// Runs the deliveries.
    pub tasks: Tasks,
}

impl Reports {
    /// For batches of replayed messages.
    pub(super) fn for_replays(&self) -> Self {
        Self { settled: self.replayed.clone(), ..self.clone() }
    }
}

/// The delivery of one batch.
pub(super) struct Delivery<C> {
    committer: C,
    reports: Reports,
    budget: Rc<RefCell<RejectionBudget>>,
    failures: u32,
    /// How often the present message was refused, although none of its items was.
    unexplained: u32,
}

impl<C: Commit> Delivery<C> {
    pub(super) const fn new(
        committer: C,
        reports: Reports,
        budget: Rc<RefCell<RejectionBudget>>,
    ) -> Self {
        Self { committer, reports, budget, failures: 0, unexplained: 0 }
    }

    /// Returns once all of it is committed.
    pub(super) async fn deliver(self, batch: Batch) {
        let span =
            debug_span!("batch", messages = batch.uplinks().len(), items = batch.item_count());
        self.deliver_parts(batch).instrument(span).await;
    }

    async fn deliver_parts(mut self, batch: Batch) {
        let first_attempt = Instant::now();
        let mut parts = vec![(batch, CopyMode::Direct)];
        while let Some((batch, mode)) = parts.pop() {
            let started_at = Instant::now();
            let items = batch.item_count();
            self.reports.tasks.faults().at(Task::Delivery);
            // `connection` is recorded by the store.
            let span = debug_span!("attempt", items, ?mode, connection = field::Empty);
            let mut attempt = Box::pin(self.committer.commit(batch, mode).instrument(span));
            let outcome = match tokio::time::timeout(SLOW_COMMIT, &mut attempt).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => {
                    let problem =
                        "a batch waits for PostgreSQL, which has neither committed nor refused it";
                    self.reports.health.down(Part::Writing, problem.into());
                    warn!(items, waited_ms = SLOW_COMMIT.as_millis(), "{problem}");
                    (&mut attempt).await
                }
            };
            drop(attempt);
            match outcome {
                Ok(committed) => self.report(committed, items, started_at).await,
                Err(failed) => self.next_step(*failed, mode, &mut parts).await,
            }
        }
        self.reports.metrics.batch_seconds.observe(first_attempt.elapsed().as_secs_f64());
    }

    async fn next_step(
        &mut self,
        Uncommitted { batch, error }: Uncommitted,
        mode: CopyMode,
        parts: &mut Vec<(Batch, CopyMode)>,
    ) {
        match (recovery(&error), mode) {
            (Recovery::Stage, CopyMode::Direct) => {
                self.count("duplicate");
                debug!(
                    items = batch.item_count(),
                    "a row exists already; retrying the batch through the staging tables"
                );
                parts.push((batch, CopyMode::Staged));
            }
            // In staged mode, a unique violation can only come from a constraint of the operator.
            (Recovery::Isolate, _) | (Recovery::Stage, CopyMode::Staged) => {
                self.count("refused");
                if batch.uplinks().len() > 1 {
                    debug!(items = batch.item_count(), %error, "PostgreSQL refuses a row; retrying the batch in halves");
                    let (first, second) = batch.halve();
                    parts.extend([(second, CopyMode::Staged), (first, CopyMode::Staged)]);
                } else {
                    parts.push((self.isolate(batch, &error).await, CopyMode::Staged));
                }
            }
            (Recovery::Retry, _) => {
                self.count("unavailable");
                self.wait(&error).await;
                // Staged, because the rows may have been committed and the answer lost. In halves, if the
                // batch timed out.
                if error.is_timeout() && batch.uplinks().len() > 1 {
                    let (first, second) = batch.halve();
                    parts.extend([(second, CopyMode::Staged), (first, CopyMode::Staged)]);
                } else {
                    parts.push((batch, CopyMode::Staged));
                }
            }
        }
    }

    /// Rejects the items of one message that PostgreSQL refuses.
    async fn isolate(&mut self, mut batch: Batch, refusal: &StoreError) -> Batch {
        let outcome = self.committer.isolate(&batch).await;
        let [uplink] = batch.uplinks_mut() else {
            unreachable!("only a batch of one message is isolated")
        };
        match outcome {
            Ok(refused) if refused.is_empty() => {
                // No single item is refused, but possibly their combination. A retry loses nothing, but
                // blocks all later PUBACKs, so the number of retries is bounded.
                self.unexplained += 1;
                if self.unexplained > UNEXPLAINED_RETRIES && !uplink.items.is_empty() {
                    self.reject_whole(uplink, refusal);
                } else {
                    self.wait(refusal).await;
                }
            }
            Ok(refused) => self.reject(uplink, refused),
            Err(error) => self.wait(&error).await,
        }
        batch
    }

    fn reject(&self, uplink: &mut Uplink, refused: Vec<(u32, String)>) {
        let before = uplink.rejections.len();
        uplink.reject_items(refused, Reason::RefusedByDatabase);
        self.keep_within_budget(uplink, before);
    }

    fn reject_whole(&mut self, uplink: &mut Uplink, refusal: &StoreError) {
        self.unexplained = 0;
        uplink.reject(Reason::RefusedByDatabase, refusal.to_string());
        self.keep_within_budget(uplink, 0);
    }

    /// No budget applies to a replay, because its rejections are stored already.
    fn keep_within_budget(&self, uplink: &mut Uplink, before: usize) {
        let new = &mut uplink.rejections[before..];
        if uplink.message.replayed_from.is_none() {
            let over_limit = self.budget.borrow_mut().apply_to(new, Timestamp::now());
            self.reports.metrics.rejections_over_bound.inc_by(over_limit);
        }
        for rejection in new.iter().filter(|rejection| rejection.kept) {
            let (item, sentence) = (rejection.item_index, &rejection.detail);
            warn!(sensor = ?uplink.sensor, item, sentence, "PostgreSQL refused an item; recorded as rejected");
        }
    }

    async fn wait(&mut self, error: &StoreError) {
        self.failures = self.failures.saturating_add(1);
        let pause = pause(self.failures, rand::random());
        self.reports.health.down(Part::Writing, error.to_string());
        let (failures, pause_ms) = (self.failures, pause.as_millis());
        if self.failures == 1 {
            warn!(%error, pause_ms, "batch could not be written; it will be retried, its PUBACKs wait");
        } else {
            error!(%error, failures, pause_ms, "batch still could not be written; its PUBACKs wait");
        }
        tokio::time::sleep(pause).await;
    }

    async fn report(&mut self, mut committed: Committed, items: usize, started_at: Instant) {
        let elapsed = started_at.elapsed();
        let Reports {
            settled,
            acknowledged,
            duplicates: supervisor,
            deleted,
            subscriptions,
            health,
            flow,
            metrics,
            ..
        } = &self.reports;
        flow.batch(items);
        metrics.batch_items.observe(items as f64);
        metrics.commit_seconds.observe(elapsed.as_secs_f64());
        health.up(Part::Writing);
        if self.failures > 0 {
            info!(failures = self.failures, "writing works again");
            self.failures = 0;
        }
        debug!(items, elapsed_ms = elapsed.as_millis(), "batch committed");
        let acknowledgements: Vec<Acknowledgement> =
            std::mem::take(&mut committed.acknowledgements);
        let deleted_sensors = std::mem::take(&mut committed.deleted);
        let duplicates = std::mem::take(&mut committed.duplicates);
        let events = std::mem::take(&mut committed.events);
        for (kind, count) in ledger_names().into_iter().zip(committed.future) {
            if count > 0 {
                metrics.future_items.with_label_values(&[kind]).inc_by(count);
            }
        }
        // Before the others, because PUBACKs wait for it.
        if settled.send(committed).is_err() {
            debug!("batch committed after its receiver had shut down");
        }
        subscriptions.publish_batch(events);
        if !acknowledgements.is_empty()
            && acknowledged.send(Acknowledged(acknowledgements)).await.is_err()
        {
            warn!("the supervisor has stopped; acknowledgements will be read from the table");
        }
        if !duplicates.is_empty() && supervisor.send(Duplicates(duplicates)).await.is_err() {
            debug!("the supervisor has stopped; it counts no duplicates");
        }
        if !deleted_sensors.is_empty() {
            for recipient in deleted {
                if recipient.send(Deleted(deleted_sensors.clone())).await.is_err() {
                    warn!(
                        "the supervisor or the outbox has stopped; deletions will be read from the table"
                    );
                }
            }
        }
    }

    fn count(&self, cause: &str) {
        self.reports.metrics.commit_retries.with_label_values(&[cause]).inc();
    }
}
