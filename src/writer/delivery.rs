//! Brings one batch into the database, whatever it takes: again after a pause when the database is
//! away, through the staging tables when a row is there already, in parts when PostgreSQL refuses
//! one.
//!
//! Invariant: a delivery ends only when every message of its batch is committed. Nothing is given
//! up, and nothing is reported that COMMIT did not confirm.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::Recipient;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{Instrument as _, debug, debug_span, error, field, info, warn};

use super::budget::RejectionBudget;
use super::protocol::{Acknowledged, Deleted};
use crate::domain::{
    Batch, FaultPoint, Faults, Flow, Health, Part, Reason, Subscriptions, Timestamp, Uplink, pause,
};
use crate::metrics::Metrics;
use crate::store::{
    Acknowledgement, Committed, Committer, Path, StoreError, Uncommitted, Verdict, verdict,
};

/// Puts a batch into the database: the one seam at which tests hand in faults.
pub trait Commit: Clone + Unpin + 'static {
    /// See [`Committer::commit`].
    fn commit(
        &self,
        batch: Batch,
        path: Path,
    ) -> impl Future<Output = Result<Committed, Box<Uncommitted>>>;

    /// See [`Committer::examine`].
    fn examine(
        &self,
        batch: &Batch,
    ) -> impl Future<Output = Result<Vec<(u32, String)>, StoreError>>;
}

impl Commit for Committer {
    async fn commit(&self, batch: Batch, path: Path) -> Result<Committed, Box<Uncommitted>> {
        Self::commit(self, batch, path).await
    }

    async fn examine(&self, batch: &Batch) -> Result<Vec<(u32, String)>, StoreError> {
        Self::examine(self, batch).await
    }
}

/// Who is told what a commit brought about.
#[derive(Clone, Debug)]
pub struct Reports {
    /// The inbound loop: it settles the ack tokens. What waits in the channel is bounded by its window.
    pub settled: UnboundedSender<Committed>,
    /// The replayer: it settles the ack tokens of what it has replayed, a page at most.
    pub replayed: UnboundedSender<Committed>,
    /// The supervisor: what was acknowledged.
    pub acknowledged: Recipient<Acknowledged>,
    /// The supervisor and the outbox: which sensors are deleted.
    pub deleted: [Recipient<Deleted>; 2],
    /// Those who watch: what is new.
    pub subscriptions: Arc<Subscriptions>,
    /// Whether writing works.
    pub health: Arc<Health>,
    /// What waits, and how large the batches are.
    pub flow: Arc<Flow>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// None in production.
    pub faults: Faults,
}

impl Reports {
    /// The same, for batches of replayed messages.
    pub(super) fn for_replays(&self) -> Self {
        Self { settled: self.replayed.clone(), ..self.clone() }
    }
}

/// One batch on its way.
pub(super) struct Delivery<C> {
    committer: C,
    reports: Reports,
    budget: Rc<RefCell<RejectionBudget>>,
    failures: u32,
}

impl<C: Commit> Delivery<C> {
    pub(super) const fn new(
        committer: C,
        reports: Reports,
        budget: Rc<RefCell<RejectionBudget>>,
    ) -> Self {
        Self { committer, reports, budget, failures: 0 }
    }

    /// Returns when all of it is committed.
    pub(super) async fn deliver(self, batch: Batch) {
        // A span that nobody wants costs a look at one atomic, once per batch.
        let span =
            debug_span!("batch", messages = batch.uplinks().len(), items = batch.item_count());
        self.deliver_parts(batch).instrument(span).await;
    }

    async fn deliver_parts(mut self, batch: Batch) {
        let first_attempt = Instant::now();
        let mut parts = vec![(batch, Path::Straight)];
        while let Some((batch, path)) = parts.pop() {
            let begun = Instant::now();
            let items = batch.item_count();
            self.reports.faults.at(FaultPoint::Delivery);
            // The store records the connection.
            let span = debug_span!("attempt", items, ?path, connection = field::Empty);
            match self.committer.commit(batch, path).instrument(span).await {
                Ok(committed) => self.report(committed, items, begun).await,
                Err(failed) => self.next_step(*failed, path, &mut parts).await,
            }
        }
        self.reports.metrics.batch_seconds.observe(first_attempt.elapsed().as_secs_f64());
    }

    async fn next_step(
        &mut self,
        Uncommitted { batch, error }: Uncommitted,
        path: Path,
        parts: &mut Vec<(Batch, Path)>,
    ) {
        match (verdict(&error), path) {
            (Verdict::Stage, Path::Straight) => {
                self.count("duplicate");
                debug!(items = batch.item_count(), "a row is there already; the batch is staged");
                parts.push((batch, Path::Staged));
            }
            // Staged rows meet no conflict but on a constraint of the user's.
            (Verdict::Isolate, _) | (Verdict::Stage, Path::Staged) => {
                self.count("refused");
                if batch.uplinks().len() > 1 {
                    debug!(items = batch.item_count(), %error, "a row is refused; the batch is halved");
                    let (first, second) = batch.halve();
                    parts.extend([(second, Path::Staged), (first, Path::Staged)]);
                } else {
                    parts.push((self.isolate(batch, &error).await, Path::Staged));
                }
            }
            (Verdict::Retry, _) => {
                self.count("unavailable");
                self.wait(&error).await;
                // Whether COMMIT was lost or its answer, the staged way is right. What takes too long
                // as a whole is tried in halves.
                if error.is_timeout() && batch.uplinks().len() > 1 {
                    let (first, second) = batch.halve();
                    parts.extend([(second, Path::Staged), (first, Path::Staged)]);
                } else {
                    parts.push((batch, Path::Staged));
                }
            }
        }
    }

    /// Rejects what PostgreSQL refuses of one message, and nothing else.
    async fn isolate(&mut self, mut batch: Batch, refusal: &StoreError) -> Batch {
        let outcome = self.committer.examine(&batch).await;
        let [uplink] = batch.uplinks_mut() else {
            unreachable!("only a batch of one message is examined")
        };
        match outcome {
            Ok(refused) if refused.is_empty() => {
                // No single item is refused; a retry loses nothing.
                self.wait(refusal).await;
            }
            Ok(refused) => self.reject(uplink, refused),
            Err(error) => self.wait(&error).await,
        }
        batch
    }

    /// What a replay refuses is recorded already, and no budget bounds it.
    fn reject(&self, uplink: &mut Uplink, refused: Vec<(u32, String)>) {
        let before = uplink.rejections.len();
        uplink.reject_items(refused, Reason::RefusedByDatabase);
        let new = &mut uplink.rejections[before..];
        if uplink.message.replayed_from.is_none() {
            let beyond = self.budget.borrow_mut().apply_to(new, Timestamp::now());
            self.reports.metrics.rejections_over_bound.inc_by(beyond);
        }
        for rejection in new.iter().filter(|rejection| rejection.kept) {
            let (item, sentence) = (rejection.item_index, &rejection.detail);
            warn!(sensor = ?uplink.sensor, item, sentence, "PostgreSQL refuses a row; it is rejected");
        }
    }

    async fn wait(&mut self, error: &StoreError) {
        self.failures = self.failures.saturating_add(1);
        let pause = pause(self.failures, rand::random());
        self.reports.health.down(Part::Writing, error.to_string());
        let (failures, pause_ms) = (self.failures, pause.as_millis());
        if self.failures == 1 {
            warn!(%error, pause_ms, "a batch could not be written; it is tried again, its PUBACKs wait");
        } else {
            error!(%error, failures, pause_ms, "a batch can still not be written; its PUBACKs wait");
        }
        tokio::time::sleep(pause).await;
    }

    async fn report(&mut self, mut committed: Committed, items: usize, begun: Instant) {
        let elapsed = begun.elapsed();
        let Reports {
            settled, acknowledged, deleted, subscriptions, health, flow, metrics, ..
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
        let gone = std::mem::take(&mut committed.deleted);
        let events = std::mem::take(&mut committed.events);
        // First of all the ack tokens: PUBACKs are waiting.
        if settled.send(committed).is_err() {
            debug!("a batch was committed after those who wait for it had ended");
        }
        subscriptions.publish_batch(events);
        if !acknowledgements.is_empty()
            && acknowledged.send(Acknowledged(acknowledgements)).await.is_err()
        {
            warn!("the supervisor is gone; it learns what was acknowledged from the table");
        }
        if !gone.is_empty() {
            for recipient in deleted {
                if recipient.send(Deleted(gone.clone())).await.is_err() {
                    warn!("supervisor or outbox stopped before it was told of deleted sensors");
                }
            }
        }
    }

    fn count(&self, cause: &str) {
        self.reports.metrics.commit_retries.with_label_values(&[cause]).inc();
    }
}
