//! The open streams and their readers. The API opens them, the task [`Hub::run`] dispatches the events of commits,
//! the application closes all at shutdown. Each reader of a sensor gets each event once, in commit order; a dropped
//! reader is removed completely.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, Interval, Sleep, interval_at};
use tracing::{debug, warn};
use uuid::Uuid;

use super::Config;
use super::event::{self, CloseReason};
use super::queue::Queue;
use crate::domain::{
    Event, EventKind, Faults, Scope, SensorIdentifier, Subscriptions, Task, Timestamp,
};
use crate::store::Existing;

/// One caller may open at most 1 ÷ this of the streams.
const READER_SHARE_DIVISOR: usize = 4;

/// Events dispatched before the task yields.
const AT_ONCE: usize = 200;

/// An older stream ends as if its token had; the client reconnects.
const LONGEST_SLEEP: Duration = Duration::from_secs(30 * 86_400);

/// Why a stream is not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRoom {
    /// The configured maximum is open.
    TooMany,
    /// The maximum for one caller is open.
    TooManyOfCaller,
    /// The service is shutting down.
    Closed,
}

/// All streams of the process.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    subscriptions: Arc<Subscriptions>,
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    closed: bool,
    has_run: bool,
    sensors: foldhash::HashMap<SensorIdentifier, Vec<Arc<Queue>>>,
    fleet: Vec<(Option<Uuid>, Arc<Queue>)>,
    /// One for each reader.
    granted: Vec<Granted>,
    /// The number of the last reader.
    number: u64,
}

#[derive(Debug)]
struct Granted {
    number: u64,
    grant: StreamGrant,
    channel: Channel,
    queue: Arc<Queue>,
}

/// What entitles a reader: a token, or nothing where `AUTH=off`.
#[derive(Clone, Copy, Debug)]
pub struct StreamGrant {
    /// The token.
    pub token: Option<Uuid>,
    /// The owner of streams, for the limits: a user, or a token that is not a session's.
    pub holder: Option<Uuid>,
    /// The token's scope.
    pub scope: Scope,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
enum Channel {
    Sensor(SensorIdentifier),
    Fleet,
}

/// The grants of the open streams, to be checked together.
#[derive(Debug)]
pub(super) struct OpenGrants {
    /// The number of the last reader; later ones are not checked.
    last: u64,
    pub(super) tokens: Vec<Uuid>,
    pub(super) sensors: Vec<Uuid>,
}

impl OpenGrants {
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.sensors.is_empty()
    }
}

impl Granted {
    /// Why the grant has ended, if it has.
    fn ended(&self, existing: &Existing) -> Option<CloseReason> {
        let token = self.grant.token;
        if token.is_some_and(|token| existing.tokens.get(&token) != Some(&self.grant.scope)) {
            return Some(CloseReason::Revoked);
        }
        let Channel::Sensor(sensor) = self.channel else { return None };
        match (existing.sensors.get(&sensor), self.grant.scope) {
            (None, _) => Some(CloseReason::Deleted),
            (Some(network), Scope::Network(own)) if *network != own => Some(CloseReason::Revoked),
            (Some(_), _) => None,
        }
    }
}

impl Hub {
    /// Creates a hub that subscribes for its readers.
    pub fn new(config: Config, subscriptions: Arc<Subscriptions>) -> Arc<Self> {
        Arc::new(Self { config, subscriptions, readers: Mutex::default() })
    }

    /// The subscriptions of its readers.
    pub const fn subscriptions(&self) -> &Arc<Subscriptions> {
        &self.subscriptions
    }

    /// Opens the stream of a sensor, with the rows committed from now on. The first event says what the client has
    /// missed since `seen`, its last event.
    ///
    /// # Errors
    /// When a limit is reached or the service is shutting down.
    pub fn read_sensor(
        self: &Arc<Self>,
        grant: StreamGrant,
        sensor: SensorIdentifier,
        seen: Option<Timestamp>,
    ) -> Result<Reader, NoRoom> {
        let queue = Arc::new(Queue::default());
        let mut readers = self.admit(grant, Channel::Sensor(sensor), &queue)?;
        self.subscriptions.subscribe(sensor);
        queue.push(event::open(sensor, Timestamp::now(), seen));
        readers.sensors.entry(sensor).or_default().push(Arc::clone(&queue));
        drop(readers);
        Ok(self.reader(grant, Channel::Sensor(sensor), queue))
    }

    /// Opens the stream of the fleet, or of the one network in this scope, with its first event.
    pub(super) fn read_fleet(
        self: &Arc<Self>,
        grant: StreamGrant,
        scope: Option<Uuid>,
        first: Bytes,
    ) -> Result<Reader, NoRoom> {
        let queue = Arc::new(Queue::default());
        let mut readers = self.admit(grant, Channel::Fleet, &queue)?;
        queue.push(first);
        readers.fleet.push((scope, Arc::clone(&queue)));
        drop(readers);
        Ok(self.reader(grant, Channel::Fleet, queue))
    }

    /// The scopes of the fleet's readers.
    pub(super) fn fleet_scopes(&self) -> Vec<Option<Uuid>> {
        let mut scopes: Vec<_> = self.lock().fleet.iter().map(|(scope, _)| *scope).collect();
        scopes.sort_unstable();
        scopes.dedup();
        scopes
    }

    /// Sends a change to the fleet's readers in this scope. For one that is too far behind, `beginning` replaces all
    /// queued events.
    pub(super) fn send_fleet(
        &self,
        scope: Option<Uuid>,
        change: &Bytes,
        mut first_event: impl FnMut() -> Bytes,
    ) {
        self.lock().fleet.retain(|(of, queue)| {
            *of != scope || queue.push_or_restart(change.clone(), &mut first_event)
        });
    }

    /// Restarts the fleet's streams in this scope.
    pub(super) fn restart_fleet(&self, scope: Option<Uuid>, first_event: &Bytes) {
        self.lock().fleet.retain(|(of, queue)| *of != scope || queue.restart(first_event.clone()));
    }

    /// Dispatches events until every sender has closed. After a panic, readers of sensors may have missed
    /// something, and are closed.
    pub async fn run(&self, events: &mut Receiver<Vec<Event>>, faults: &Faults) {
        if std::mem::replace(&mut self.lock().has_run, true) {
            self.end_incomplete();
        }
        let mut last_id = 0;
        while let Some(batch) = events.recv().await {
            faults.at(Task::Hub);
            if self.subscriptions.has_lost() {
                warn!(
                    "events arrive faster than they can be dispatched; closing the streams of sensors"
                );
                self.end_incomplete();
            }
            for (index, Event { sensor, what }) in batch.into_iter().enumerate() {
                last_id = Timestamp::now().unix_microseconds().max(last_id + 1);
                self.dispatch(sensor, &what, last_id);
                if index % AT_ONCE == AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
        debug!("all event senders have closed");
    }

    fn dispatch(&self, sensor: SensorIdentifier, what: &EventKind, id: i64) {
        let mut readers = self.lock();
        let Some(queues) = readers.sensors.get_mut(&sensor) else { return };
        match event::sensor_event(what, id) {
            Some(event) => queues.retain(|queue| queue.push(event.clone())),
            None => queues.drain(..).for_each(|queue| queue.close(CloseReason::Deleted)),
        }
    }

    /// Ends every stream, and refuses new ones.
    pub fn close(&self) {
        let mut readers = self.lock();
        readers.closed = true;
        let fleet = readers.fleet.drain(..).map(|(_, queue)| queue).collect::<Vec<_>>();
        let sensors = readers.sensors.drain().flat_map(|(_, queues)| queues);
        sensors.chain(fleet).for_each(|queue| queue.close(CloseReason::Shutdown));
    }

    /// Ends the streams of sensors where events may be missing, also those that another instance committed and did not
    /// relay.
    pub fn end_incomplete(&self) {
        let mut readers = self.lock();
        let queues = readers.sensors.values().flatten();
        queues.for_each(|queue| queue.close(CloseReason::Overrun));
        readers.sensors.clear();
    }

    /// The grants of the streams that are open now.
    pub(super) fn open_grants(&self) -> OpenGrants {
        let readers = self.lock();
        let tokens: BTreeSet<Uuid> =
            readers.granted.iter().filter_map(|it| it.grant.token).collect();
        let sensors: BTreeSet<Uuid> = readers.sensors.keys().map(|sensor| sensor.0).collect();
        OpenGrants {
            last: readers.number,
            tokens: tokens.into_iter().collect(),
            sensors: sensors.into_iter().collect(),
        }
    }

    /// Closes the streams of `open` whose grant has ended.
    pub(super) fn close_ended(&self, open: &OpenGrants, existing: &Existing) {
        self.lock().granted.iter().filter(|it| it.number <= open.last).for_each(|it| {
            if let Some(reason) = it.ended(existing) {
                it.queue.close(reason);
            }
        });
    }

    fn admit(
        &self,
        grant: StreamGrant,
        channel: Channel,
        queue: &Arc<Queue>,
    ) -> Result<MutexGuard<'_, Readers>, NoRoom> {
        let mut readers = self.lock();
        if readers.closed {
            return Err(NoRoom::Closed);
        }
        if readers.granted.len() >= self.config.max_readers {
            return Err(NoRoom::TooMany);
        }
        let most = (self.config.max_readers / READER_SHARE_DIVISOR).max(1);
        let of_caller = |it: &&Granted| it.grant.holder == grant.holder;
        if grant.holder.is_some() && readers.granted.iter().filter(of_caller).count() >= most {
            return Err(NoRoom::TooManyOfCaller);
        }
        readers.number += 1;
        let number = readers.number;
        readers.granted.push(Granted { number, grant, channel, queue: Arc::clone(queue) });
        Ok(readers)
    }

    fn reader(self: &Arc<Self>, grant: StreamGrant, channel: Channel, queue: Arc<Queue>) -> Reader {
        let period = Duration::from_secs(self.config.keep_alive_secs);
        let keep_alive = interval_at(Instant::now() + period, period);
        let expiry = grant.expires_at.map(|at| {
            let left = at.unix_microseconds() - Timestamp::now().unix_microseconds();
            let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
            Box::pin(tokio::time::sleep(left.min(LONGEST_SLEEP)))
        });
        Reader { hub: Arc::clone(self), channel, queue, keep_alive, expiry }
    }

    fn leave(&self, channel: Channel, queue: &Arc<Queue>) {
        let mut readers = self.lock();
        readers.granted.retain(|it| !Arc::ptr_eq(&it.queue, queue));
        match channel {
            Channel::Fleet => readers.fleet.retain(|(_, known)| !Arc::ptr_eq(known, queue)),
            Channel::Sensor(sensor) => {
                if let Some(queues) = readers.sensors.get_mut(&sensor) {
                    queues.retain(|known| !Arc::ptr_eq(known, queue));
                    if queues.is_empty() {
                        readers.sensors.remove(&sensor);
                    }
                }
                self.subscriptions.unsubscribe(sensor);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open stream, as the connection sends it. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Reader {
    hub: Arc<Hub>,
    channel: Channel,
    queue: Arc<Queue>,
    keep_alive: Interval,
    expiry: Option<Pin<Box<Sleep>>>,
}

impl Stream for Reader {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(expiry) = &mut self.expiry
            && expiry.as_mut().poll(context).is_ready()
        {
            self.expiry = None;
            self.queue.close(CloseReason::Revoked);
        }
        if let Poll::Ready(event) = self.queue.poll(context) {
            self.keep_alive.reset();
            return Poll::Ready(event.map(Ok));
        }
        match self.keep_alive.poll_tick(context) {
            Poll::Ready(_) => Poll::Ready(Some(Ok(event::KEEP_ALIVE))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hub.leave(self.channel, &self.queue);
    }
}
