//! The fleet's stream: totals per four hours over 28 days, then their changes. The task [`FleetStream::run`] folds the
//! journal that the commits write into the counts, every two seconds while a reader exists and every ten
//! otherwise; [`FleetStream::read`] opens a stream. The tables are read once for all readers, never by HTTP workers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use super::event;
use super::hub::{Hub, NoRoom, Reader, StreamGrant};
use super::model::Model;
use crate::domain::{Faults, Task, Timestamp, pause};
use crate::metrics::Metrics;
use crate::store::{Activity, Store, StoreError, bucket_of};

/// How often readers get changes.
const CHANGE_INTERVAL: Duration = Duration::from_secs(2);

/// How often the journal is folded without a reader, so that it stays small.
const FOLD_INTERVAL: Duration = Duration::from_secs(10);

/// The totals are read again this often, for what other instances have folded and for sensors that
/// were created, moved or deleted. The readers get a new `fleet` event.
const READ_INTERVAL: Duration = Duration::from_secs(300);

/// The same at least while other instances are alive, which fold part of the journal.
const READ_INTERVAL_OF_SEVERAL: Duration = Duration::from_secs(10);

/// And this many times as long as a read takes: with many sensors it reads millions of rows.
const READ_PAUSE_FACTOR: u32 = 100;

/// Between attempts while the database is unavailable, however many readers arrive.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Transactions of one fold; the next one continues.
const FOLD_TRANSACTIONS: usize = 20;

/// Failures of the fold between two warnings: about ten minutes.
const WARN_AGAIN: u32 = 100;

/// How long a request waits for the totals.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Why the fleet's stream is not opened.
#[derive(Debug)]
pub enum NotRead {
    /// There is no room.
    NoRoom(NoRoom),
    /// The totals cannot be read from the database.
    Unavailable,
}

/// The counts, and their readers.
#[derive(Debug)]
pub struct FleetStream {
    hub: Arc<Hub>,
    store: Store,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Notified when a reader waits for the totals.
    wanted: Notify,
    /// Counts the rounds of the task, for readers that wait.
    rounds: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` without readers for a while, and after a failed fold, whose changes are unknown.
    totals: Option<FleetTotals>,
    is_wanted: bool,
    failed_at: Option<Instant>,
}

#[derive(Debug)]
struct FleetTotals {
    model: Model,
    read_at: Instant,
    /// How long the read took.
    read_time: Duration,
    /// The current bucket.
    present: i32,
    /// The first event by scope, until something changes.
    first_events: Vec<(Option<Uuid>, Bytes)>,
}

impl FleetTotals {
    fn first_event(&mut self, scope: Option<Uuid>) -> Bytes {
        if let Some((_, first_event)) = self.first_events.iter().find(|(of, _)| *of == scope) {
            return first_event.clone();
        }
        let first_event = event::fleet(&self.model.snapshot(scope, self.present));
        self.first_events.push((scope, first_event.clone()));
        first_event
    }
}

impl FleetStream {
    /// Reads from this store, and sends through this hub.
    pub fn new(hub: Arc<Hub>, store: Store, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.activity_folded.set(Some(Timestamp::now()));
        let (state, wanted) = (Mutex::default(), Notify::new());
        Arc::new(Self { hub, store, metrics, state, wanted, rounds: watch::Sender::new(0) })
    }

    /// Opens a stream for a caller who may see this network, or all.
    ///
    /// # Errors
    /// When there is no room, or the totals cannot be read.
    pub async fn read(&self, grant: StreamGrant, scope: Option<Uuid>) -> Result<Reader, NotRead> {
        let mut rounds = self.rounds.subscribe();
        loop {
            {
                let mut state = self.lock();
                if let Some(totals) = &mut state.totals {
                    // Under the lock, so that no change is missed between the first event and the next.
                    let first_event = totals.first_event(scope);
                    return self.hub.read_fleet(grant, scope, first_event).map_err(NotRead::NoRoom);
                }
                if state.failed_at.is_some_and(|at| at.elapsed() < RETRY_INTERVAL) {
                    return Err(NotRead::Unavailable);
                }
                state.is_wanted = true;
            }
            self.wanted.notify_one();
            let round = tokio::time::timeout(OPEN_TIMEOUT, rounds.changed()).await;
            round.map_err(|_elapsed| NotRead::Unavailable)?.map_err(|_| NotRead::Unavailable)?;
        }
    }

    /// Folds the journal, and passes the changes of each transaction to `each`.
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

    /// Keeps the counts up to date; never returns.
    pub async fn run(&self, faults: &Faults) {
        // If an earlier run ended during a fold, its changes are unknown.
        self.lock().totals = None;
        let mut failures = 0;
        let mut folded_at = Instant::now();
        loop {
            let wait = if failures > 0 { pause(failures, rand::random()) } else { CHANGE_INTERVAL };
            let is_wanted = tokio::select! {
                () = tokio::time::sleep(wait) => false,
                () = self.wanted.notified() => true,
            };
            let is_read = is_wanted || !self.hub.fleet_scopes().is_empty();
            if !is_read && folded_at.elapsed() < FOLD_INTERVAL && failures == 0 {
                continue;
            }
            faults.at(Task::Fold);
            let outcome = self.round().await;
            if let Err(error) = outcome {
                failures += 1;
                self.metrics.activity_fold_failures.inc();
                if failures % WARN_AGAIN == 1 {
                    warn!(%error, failures, "activity fold failed; it will be retried");
                } else {
                    debug!(%error, failures, "activity fold failed again");
                }
                let mut state = self.lock();
                (state.totals, state.failed_at) = (None, Some(Instant::now()));
            } else {
                failures = 0;
                folded_at = Instant::now();
            }
            self.rounds.send_modify(|rounds| *rounds += 1);
        }
    }

    async fn round(&self) -> Result<(), StoreError> {
        let present = bucket_of(Timestamp::now());
        self.fold(|changed| self.apply(changed, present)).await?;
        let is_due = {
            let has_peers = self.hub.subscriptions().has_peers();
            let is_old =
                |it: &FleetTotals| it.read_at.elapsed() >= read_interval(has_peers, it.read_time);
            let mut state = self.lock();
            if state.totals.as_ref().is_some_and(is_old) {
                state.totals = None;
            }
            let is_wanted = std::mem::take(&mut state.is_wanted);
            state.totals.is_none() && (is_wanted || !self.hub.fleet_scopes().is_empty())
        };
        if is_due {
            let began_at = Instant::now();
            let model = Model::new(self.store.read_activity().await?);
            let (read_at, read_time) = (Instant::now(), began_at.elapsed());
            let mut totals =
                FleetTotals { model, read_at, read_time, present, first_events: Vec::new() };
            let mut state = self.lock();
            for scope in self.hub.fleet_scopes() {
                self.hub.restart_fleet(scope, &totals.first_event(scope));
            }
            state.totals = Some(totals);
        }
        Ok(())
    }

    /// Sends the changes to the readers, if the totals are known.
    fn apply(&self, mut changed: Vec<Activity>, present: i32) {
        let mut state = self.lock();
        let Some(totals) = &mut state.totals else { return };
        if changed.is_empty() && totals.present == present {
            return;
        }
        totals.model.apply(&changed);
        totals.model.forget(present);
        totals.present = present;
        totals.first_events.clear();
        changed.sort_by_key(|it| (it.sensor, it.bucket));
        for scope in self.hub.fleet_scopes() {
            if let Some(change) = totals.model.change(scope, &changed) {
                let change = event::event("activity", None, &change);
                self.hub.send_fleet(scope, &change, || totals.first_event(scope));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_interval(has_peers: bool, read_time: Duration) -> Duration {
    match has_peers {
        true => (read_time * READ_PAUSE_FACTOR).clamp(READ_INTERVAL_OF_SEVERAL, READ_INTERVAL),
        false => READ_INTERVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_read_is_repeated_less_often() {
        for (has_peers, milliseconds, seconds) in
            [(false, 1, 300), (true, 1, 10), (true, 500, 50), (true, 60_000, 300)]
        {
            let interval = read_interval(has_peers, Duration::from_millis(milliseconds));
            assert_eq!(interval.as_secs(), seconds, "{milliseconds} ms");
        }
    }
}
