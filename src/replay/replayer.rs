//! Replays what was recorded, one request after the other and a page for each: reads the page, hands
//! its messages to their sensors' actors, and answers once each has come to its end. Runs on the
//! thread of the inbound loop; the API asks it. Promises constant memory, a page at most on its way,
//! and that the ledger balances at every step.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info};

use super::message::{NotReplayable, message};
use super::places::{Place, Places};
use crate::domain::{AckTokens, KindCounts, Ledger, LostToken, RawMessage, Reason};
use crate::sensor::Router;
use crate::store::{Committed, RejectionFilter, Replayed, Store, StoreError, Stretch};
use crate::wire::Decoder;

/// Requests that wait for their turn; more are turned away.
const REQUESTS_WAITING: usize = 16;

/// Messages handed on before the inbound loop, on the same thread, gets its turn.
const MESSAGES_AT_ONCE: usize = 50;

/// Rejections that are remembered as having stopped their sensor's actor; beyond that all are
/// forgotten, and may each do so once more.
const MAX_CULPRITS: usize = 10_000;

/// What is to be replayed: a page of it.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which rejections.
    pub filter: RejectionFilter,
    /// Where an earlier page ended; none at the beginning.
    pub stretch: Option<Stretch>,
    /// At most so many.
    pub limit: u32,
}

/// What became of a page.
#[derive(Debug, Default)]
pub struct Report {
    /// Rejections that went through the pipeline.
    pub replayed: u64,
    /// What became of them.
    pub outcome: Replayed,
    /// Rejections that stopped their sensor's actor, or came behind one that did: they stay.
    pub failed: u64,
    /// Rejections that cannot be replayed, and why: they stay.
    pub not_replayable: Vec<(i64, NotReplayable)>,
    /// Where the next page begins; none behind the last.
    pub rest: Option<Stretch>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// So many others want to replay.
    #[error("too many replays wait for their turn")]
    Busy,
    /// The service is about to end.
    #[error("the service is shutting down")]
    Ended,
    /// The database is away.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Answer = oneshot::Sender<Result<Report, StoreError>>;

/// What the replayer hears.
pub type ReplayRequests = mpsc::Receiver<(Order, Answer)>;

/// Where replays are asked for.
#[derive(Clone, Debug)]
pub struct Replays(mpsc::Sender<(Order, Answer)>);

impl Replays {
    /// Where to ask, and what the replayer is to hear.
    #[must_use]
    pub fn new() -> (Self, ReplayRequests) {
        let (asks, hears) = mpsc::channel(REQUESTS_WAITING);
        (Self(asks), hears)
    }

    /// Replays a page. What has begun goes on if nobody waits for the report any more.
    ///
    /// # Errors
    /// When it cannot begin. Nothing is lost by it.
    pub async fn replay(&self, order: Order) -> Result<Report, Unanswered> {
        let (answer, report) = oneshot::channel();
        self.0.try_send((order, answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::Busy,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Ended,
        })?;
        Ok(report.await.map_err(|_| Unanswered::Ended)??)
    }
}

/// What a replayer works with.
pub struct ReplayerHandles {
    /// To the sensors' actors.
    pub router: Router,
    /// As the inbound loop has it.
    pub decoder: Decoder,
    /// The account.
    pub ledger: Arc<Ledger>,
    /// The tables.
    pub store: Store,
    /// What was committed of the replays.
    pub replayed: mpsc::UnboundedReceiver<Committed>,
}

/// The loop, before it runs.
pub struct Replayer {
    requests: ReplayRequests,
    handles: ReplayerHandles,
    ack_tokens: AckTokens,
    lost: mpsc::UnboundedReceiver<LostToken>,
    places: Places,
    /// What stops its actor takes what was delivered to it back to the broker, and is not given to
    /// it again in the life of this process.
    culprits: foldhash::HashSet<i64>,
}

impl Replayer {
    /// Takes the requests that [`Replays`] hands on.
    #[must_use]
    pub fn new(requests: ReplayRequests, handles: ReplayerHandles) -> Self {
        let (ack_tokens, lost) = AckTokens::new();
        let (places, culprits) = (Places::default(), foldhash::HashSet::default());
        Self { requests, handles, ack_tokens, lost, places, culprits }
    }

    /// Runs until nobody can ask any more.
    pub async fn run(mut self) {
        while let Some((order, answer)) = self.requests.recv().await {
            if answer.is_closed() {
                debug!("nobody waits for a replay any more; it is not begun");
                continue;
            }
            let outcome = self.replay(&order).await;
            if answer.send(outcome).is_err() {
                debug!("nobody waits for the report of a replay any more");
            }
        }
    }

    async fn replay(&mut self, order: &Order) -> Result<Report, StoreError> {
        let Order { filter, stretch, limit } = order;
        let page = self.handles.store.recorded(filter, *stretch, *limit).await?;
        let mut report = Report { rest: page.rest, ..Report::default() };
        for (row, number) in page.rows.iter().zip(1..) {
            match message(row) {
                Ok(message) => {
                    self.admit(row.identifier, message);
                    report.replayed += 1;
                }
                Err(flaw) => report.not_replayable.push((row.identifier, flaw)),
            }
            if number % MESSAGES_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        while !self.is_idle() {
            self.hear(&mut report).await;
        }
        let Replayed { removed, kept, .. } = report.outcome;
        info!(replayed = report.replayed, removed, kept, "rejections replayed");
        Ok(report)
    }

    /// Whether nothing is on its way.
    pub(crate) const fn is_idle(&self) -> bool {
        self.places.is_empty()
    }

    /// Some messages have come to their end.
    pub(crate) async fn hear(&mut self, report: &mut Report) {
        tokio::select! {
            Some(committed) = self.handles.replayed.recv() => self.settle(committed, report),
            Some(lost) = self.lost.recv() => self.lose(lost, report),
        }
    }

    pub(crate) fn admit(&mut self, rejection: i64, message: RawMessage) {
        let ack_token = self.ack_tokens.issue(self.places.next());
        let mut uplink = self.handles.decoder.decode(message, ack_token);
        let quarantined = self.culprits.contains(&rejection);
        if quarantined {
            let detail = "the message stopped its sensor's actor when it was replayed";
            uplink.reject(Reason::ActorFailed, detail.into());
        }
        let place = Place { rejection, kind: uplink.kind, items: uplink.item_count() };
        self.places.admit(place);
        let mut arrivals = KindCounts::default();
        arrivals.add(place.kind, place.items);
        self.handles.ledger.replay(arrivals);
        let router = &self.handles.router;
        if quarantined { router.bypass_actor(uplink) } else { router.route(uplink) }
    }

    fn settle(&mut self, committed: Committed, report: &mut Report) {
        let Committed { ack_tokens, tally, replayed, .. } = committed;
        let places = &mut self.places;
        let landed = ack_tokens
            .into_iter()
            .filter_map(|ack_token| places.end(ack_token.settle()))
            .map(|place| (place.kind, place.items));
        self.handles.ledger.settle(landed, &tally);
        report.outcome += replayed;
    }

    fn lose(&mut self, lost: LostToken, report: &mut Report) {
        let Some(place) = self.places.end(lost.sequence) else { return };
        self.handles.ledger.release_replayed(place.kind, place.items);
        report.failed += 1;
        if lost.caused_panic {
            let rejection = place.rejection;
            error!(
                rejection,
                "a replayed message has stopped its sensor's actor; it stays a rejection"
            );
            if self.culprits.len() >= MAX_CULPRITS {
                self.culprits.clear();
            }
            self.culprits.insert(rejection);
        }
    }
}
