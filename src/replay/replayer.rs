//! Replays stored rejections: reads a page, sends its messages to the sensors' actors, and answers once
//! each is committed or lost. Runs on the inbound loop's thread; requested by the API. At most one page is
//! in flight, and the ledger balances at every step.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info};

use super::message::{NotReplayableCause, message};
use crate::domain::{
    AckTokens, Faults, Kind, KindCounts, Ledger, LostToken, RawMessage, Reason, Task,
};
use crate::sensor::Router;
use crate::store::{Committed, RejectionFilter, ReplayRange, Replayed, Store, StoreError};
use crate::wire::Decoder;

/// Requests that wait; more are refused.
const REQUEST_CAPACITY: usize = 16;

/// Messages sent before the inbound loop, on the same thread, gets a turn.
const MESSAGES_PER_TURN: usize = 50;

/// Maximum number of quarantined rejections. Over the limit the set is cleared, and each may panic its
/// actor once more.
const MAX_QUARANTINED: usize = 10_000;

/// A page to replay.
#[derive(Clone, Debug)]
pub struct ReplayRequest {
    /// Selects the rejections.
    pub filter: RejectionFilter,
    /// The rejections that are left; none for the first page.
    pub range: Option<ReplayRange>,
    /// Maximum number of rejections.
    pub limit: u32,
}

/// The outcome of a page.
#[derive(Debug, Default)]
pub struct ReplayReport {
    /// Rejections that went through the pipeline.
    pub replayed: u64,
    /// The outcome of those that were committed.
    pub outcome: Replayed,
    /// Rejections that were lost because an actor panicked: they stay.
    pub failed: u64,
    /// Rejections that cannot be replayed, and why: they stay.
    pub not_replayable: Vec<(i64, NotReplayableCause)>,
    /// The rejections that are left; none after the last page.
    pub rest: Option<ReplayRange>,
}

/// Why a page was not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Too many requests wait.
    #[error("too many replays are waiting")]
    Busy,
    /// The service is shutting down.
    #[error("the service is shutting down")]
    Ended,
    /// The replayer panicked, and was started again.
    #[error("the replay failed; the log says why, and what was not replayed stays")]
    Failed,
    /// The database is unavailable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type ReportSender = oneshot::Sender<Result<ReplayReport, StoreError>>;

/// The requests that the replayer receives.
pub type ReplayRequests = mpsc::Receiver<(ReplayRequest, ReportSender)>;

/// Requests replays.
#[derive(Clone, Debug)]
pub struct Replays(mpsc::Sender<(ReplayRequest, ReportSender)>);

impl Replays {
    /// The two ends of the channel.
    pub fn new() -> (Self, ReplayRequests) {
        let (sender, receiver) = mpsc::channel(REQUEST_CAPACITY);
        (Self(sender), receiver)
    }

    /// Replays a page. Once started it is finished, even if the caller has disconnected.
    /// If it cannot start, the rejections stay.
    pub async fn replay(&self, request: ReplayRequest) -> Result<ReplayReport, ReplayError> {
        let (answer, report) = oneshot::channel();
        self.0.try_send((request, answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReplayError::Busy,
            mpsc::error::TrySendError::Closed(_) => ReplayError::Ended,
        })?;
        let ended = |_| if self.0.is_closed() { ReplayError::Ended } else { ReplayError::Failed };
        Ok(report.await.map_err(ended)??)
    }
}

/// What the replayer uses.
pub struct ReplayerHandles {
    /// The sensors' actors.
    pub router: Router,
    /// The inbound loop's decoder.
    pub decoder: Decoder,
    /// Counts the items.
    pub ledger: Arc<Ledger>,
    /// Reads the rejections.
    pub store: Store,
    /// Committed batches, from the writer.
    pub replayed: mpsc::UnboundedReceiver<Committed>,
}

/// A message in flight.
#[derive(Clone, Copy)]
struct ReplayedMessage {
    /// The identifier of its row of `rejection`.
    rejection: i64,
    /// The kind under which the ledger counts it.
    kind: Option<Kind>,
    /// The number of items that the ledger counts.
    items: u32,
}

/// The replayer, before it runs.
pub struct Replayer {
    requests: ReplayRequests,
    handles: ReplayerHandles,
    ack_tokens: AckTokens,
    lost: mpsc::UnboundedReceiver<LostToken>,
    /// At most one page, by the sequence numbers of their tokens, which are never reused.
    in_flight: foldhash::HashMap<u64, ReplayedMessage>,
    next_sequence: u64,
    /// Rejections that made an actor panic. This process does not send them to an actor again, because the
    /// panic also loses new messages of the sensor.
    quarantined: foldhash::HashSet<i64>,
}

impl Replayer {
    /// Processes the requests of [`Replays`].
    pub fn new(requests: ReplayRequests, handles: ReplayerHandles) -> Self {
        let (ack_tokens, lost) = AckTokens::new();
        let (in_flight, quarantined) = Default::default();
        Self { requests, handles, ack_tokens, lost, in_flight, next_sequence: 0, quarantined }
    }

    /// Runs until the last [`Replays`] is dropped.
    pub async fn run(&mut self, faults: &Faults) {
        // Else nothing is in flight.
        while !self.is_idle() {
            self.receive(&mut ReplayReport::default()).await;
        }
        while let Some((request, answer)) = self.requests.recv().await {
            if answer.is_closed() {
                debug!("replay request dropped; its caller has disconnected");
                continue;
            }
            let outcome = self.replay(&request, faults).await;
            if answer.send(outcome).is_err() {
                debug!("replay finished after its caller had disconnected");
            }
        }
    }

    async fn replay(
        &mut self,
        request: &ReplayRequest,
        faults: &Faults,
    ) -> Result<ReplayReport, StoreError> {
        let ReplayRequest { filter, range, limit } = request;
        let page = self.handles.store.stored_rejections(filter, *range, *limit).await?;
        let mut report = ReplayReport { rest: page.rest, ..ReplayReport::default() };
        for (row, number) in page.rows.iter().zip(1..) {
            faults.at(Task::Replayer);
            match message(row) {
                Ok(message) => {
                    self.admit(row.identifier, message);
                    report.replayed += 1;
                }
                Err(flaw) => report.not_replayable.push((row.identifier, flaw)),
            }
            if number % MESSAGES_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        while !self.is_idle() {
            self.receive(&mut report).await;
        }
        let Replayed { removed, kept, .. } = report.outcome;
        info!(replayed = report.replayed, removed, kept, "rejections replayed");
        Ok(report)
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Waits for the next settled batch or lost message.
    pub(crate) async fn receive(&mut self, report: &mut ReplayReport) {
        tokio::select! {
            Some(committed) = self.handles.replayed.recv() => self.settle(committed, report),
            Some(lost) = self.lost.recv() => self.lose(lost, report),
        }
    }

    pub(crate) fn admit(&mut self, rejection: i64, message: RawMessage) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let ack_token = self.ack_tokens.issue(sequence);
        let mut uplink = self.handles.decoder.decode(message, ack_token);
        let quarantined = self.quarantined.contains(&rejection);
        if quarantined {
            let detail = "the message made its sensor's actor panic when it was replayed";
            uplink.reject(Reason::ActorFailed, detail.into());
        }
        let replayed = ReplayedMessage { rejection, kind: uplink.kind, items: uplink.item_count() };
        self.in_flight.insert(sequence, replayed);
        let mut arrivals = KindCounts::default();
        arrivals.add(replayed.kind, replayed.items);
        self.handles.ledger.replay(arrivals);
        let router = &self.handles.router;
        if quarantined { router.bypass_actor(uplink) } else { router.route(uplink) }
    }

    fn settle(&mut self, committed: Committed, report: &mut ReplayReport) {
        let Committed { ack_tokens, tally, replayed, .. } = committed;
        let in_flight = &mut self.in_flight;
        let arrived = ack_tokens
            .into_iter()
            .filter_map(|ack_token| in_flight.remove(&ack_token.settle()))
            .map(|it| (it.kind, it.items));
        self.handles.ledger.settle(arrived, &tally);
        report.outcome += replayed;
    }

    fn lose(&mut self, lost: LostToken, report: &mut ReplayReport) {
        let Some(replayed) = self.in_flight.remove(&lost.sequence) else { return };
        self.handles.ledger.release_replayed(replayed.kind, replayed.items);
        report.failed += 1;
        if lost.caused_panic {
            let rejection = replayed.rejection;
            error!(
                rejection,
                "a replayed message made its sensor's actor panic; it stays rejected"
            );
            if self.quarantined.len() >= MAX_QUARANTINED {
                self.quarantined.clear();
            }
            self.quarantined.insert(rejection);
        }
    }
}
