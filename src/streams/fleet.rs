//! The fleet's stream: counts per four hours over 28 days at first, then what changes of them. The
//! task [`Fleet::run`] folds the journal that the commits write into the counts, often while
//! somebody reads and once a minute while nobody does; [`Fleet::read`] opens a stream. Promises that
//! the tables are read once for all readers, and that a count is never a row's that is not
//! committed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use super::event;
use super::hub::{Hub, NoRoom, Reader, Right};
use super::model::Model;
use crate::domain::{Timestamp, pause};
use crate::metrics::Metrics;
use crate::store::{Activity, Store, StoreError, bucket_of};

/// How often readers are told what has changed.
const TELL_INTERVAL: Duration = Duration::from_secs(2);

/// How often the journal is folded while nobody reads: it then stays small.
const FOLD_INTERVAL: Duration = Duration::from_secs(60);

/// What another instance has folded, and which sensors have come and gone, is read again so often,
/// and the readers get it as a new beginning.
const READ_AGAIN: Duration = Duration::from_secs(300);

/// While the database is away, it is not asked for each new reader.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Transactions of one fold; what is left of the journal after them is for the next one.
const FOLD_TRANSACTIONS: usize = 20;

/// A fold that keeps failing is warned of again after so many failures: some ten minutes.
const WARN_AGAIN: u32 = 100;

/// Sensors that are told one by one; the store reads as many.
const MAX_SENSORS: usize = 10_000;

/// Why the fleet's stream is not opened.
#[derive(Debug)]
pub enum NotRead {
    /// There is no room.
    NoRoom(NoRoom),
    /// The counts cannot be read.
    Store(StoreError),
    /// They could not be a moment ago.
    Away,
}

/// The counts, and their readers.
#[derive(Debug)]
pub struct Fleet {
    hub: Arc<Hub>,
    store: Store,
    metrics: Arc<Metrics>,
    counts: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None while nobody reads.
    counts: Option<Known>,
    failed_at: Option<Instant>,
    /// The bucket in which was pruned last.
    pruned: Option<i32>,
}

#[derive(Debug)]
struct Known {
    model: Model,
    read_at: Instant,
    /// The bucket of the present.
    present: i32,
    /// The first event by scope, until something changes.
    firsts: Vec<(Option<Uuid>, Bytes)>,
}

impl Known {
    fn first(&mut self, scope: Option<Uuid>) -> Bytes {
        if let Some((_, first)) = self.firsts.iter().find(|(of, _)| *of == scope) {
            return first.clone();
        }
        let first = event::fleet(&self.model.snapshot(scope, self.present));
        self.firsts.push((scope, first.clone()));
        first
    }
}

impl Fleet {
    /// Reads this store, and tells by this hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>, store: Store, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.activity_folded.set(Some(Timestamp::now()));
        Arc::new(Self { hub, store, metrics, counts: Mutex::default() })
    }

    /// Opens a stream for a caller who may see this network, or all.
    ///
    /// # Errors
    /// When there is no room, or the counts cannot be read.
    pub async fn read(&self, right: Right, scope: Option<Uuid>) -> Result<Reader, NotRead> {
        let mut state = self.counts.lock().await;
        let known = match &mut state.counts {
            Some(known) => known,
            None => {
                if state.failed_at.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
                    return Err(NotRead::Away);
                }
                let known = self.know().await.map_err(|error| {
                    state.failed_at = Some(Instant::now());
                    NotRead::Store(error)
                })?;
                state.counts.insert(known)
            }
        };
        // Under the lock: nothing changes between the first event and the changes behind it.
        self.hub.read_fleet(right, scope, known.first(scope)).map_err(NotRead::NoRoom)
    }

    async fn know(&self) -> Result<Known, StoreError> {
        self.fold(drop).await?;
        let model = Model::new(self.store.read_activity().await?);
        let present = bucket_of(Timestamp::now());
        Ok(Known { model, read_at: Instant::now(), present, firsts: Vec::new() })
    }

    /// Folds the journal, and hands on what each transaction has changed.
    async fn fold(&self, mut each: impl FnMut(Vec<Activity>)) -> Result<(), StoreError> {
        for _ in 0..FOLD_TRANSACTIONS {
            let fold = self.store.fold_activity().await?;
            each(fold.changed);
            if fold.is_complete {
                self.metrics.activity_folded.set(Some(Timestamp::now()));
                break;
            }
        }
        Ok(())
    }

    /// Keeps the counts up to date, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut failures = 0;
        let mut folded_at = Instant::now();
        loop {
            let wait = if failures > 0 { pause(failures, rand::random()) } else { TELL_INTERVAL };
            tokio::time::sleep(wait).await;
            let is_read = !self.hub.fleet_scopes().is_empty();
            if !is_read && folded_at.elapsed() < FOLD_INTERVAL && failures == 0 {
                continue;
            }
            match self.round().await {
                Ok(()) => {
                    failures = 0;
                    folded_at = Instant::now();
                }
                Err(error) => {
                    failures += 1;
                    self.metrics.activity_fold_failures.inc();
                    if failures % WARN_AGAIN == 1 {
                        warn!(%error, failures, "activity fold failed; it will be retried");
                    } else {
                        debug!(%error, failures, "activity fold failed again");
                    }
                }
            }
        }
    }

    async fn round(&self) -> Result<(), StoreError> {
        let mut state = self.counts.lock().await;
        // Taken out, so that after a failure half way it is read anew.
        let mut known = state.counts.take();
        let scopes = self.hub.fleet_scopes();
        if scopes.is_empty() || known.as_ref().is_some_and(|it| it.read_at.elapsed() > READ_AGAIN) {
            known = None;
        }
        let present = bucket_of(Timestamp::now());
        self.fold(|changed| {
            if let Some(known) = &mut known
                && (known.present != present || !changed.is_empty())
            {
                known.model.apply(&changed, MAX_SENSORS);
                known.model.forget(present);
                known.present = present;
                known.firsts.clear();
                self.tell(&known.model, &scopes, &changed);
            }
        })
        .await?;
        if state.pruned != Some(present) {
            state.pruned = Some(present);
            if let Err(error) = self.store.prune_activity().await {
                debug!(%error, "old counts are left until the next bucket begins");
            }
        }
        if known.is_none() && !scopes.is_empty() {
            let mut read = self.know().await?;
            for scope in scopes {
                self.hub.tell_fleet(scope, &read.first(scope));
            }
            known = Some(read);
        }
        state.counts = known;
        Ok(())
    }

    fn tell(&self, model: &Model, scopes: &[Option<Uuid>], changed: &[Activity]) {
        for scope in scopes {
            if let Some(change) = model.change(*scope, changed) {
                self.hub.tell_fleet(*scope, &event::event("activity", None, &change));
            }
        }
    }
}
