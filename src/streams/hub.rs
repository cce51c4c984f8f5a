//! Who reads which stream. The API opens them, the task [`Hub::run`] hands out what the commits
//! tell, the application closes all at its end. Promises that each reader of a sensor gets each
//! event once and in the order of the commits, and that a reader that goes leaves nothing behind.

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
use crate::domain::{Event, EventKind, Scope, SensorIdentifier, Subscriptions, Timestamp};
use crate::store::Existing;

/// One caller may have this fraction of the streams open.
const READER_SHARE_DIVISOR: usize = 4;

/// Events handed out before others on this thread get their turn.
const AT_ONCE: usize = 200;

/// A stream that is older ends as if its token did; the client comes again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30 * 86_400);

/// Why a stream is not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRoom {
    /// There are as many as the setting allows.
    TooMany,
    /// The caller has as many as one caller may.
    TooManyOfCaller,
    /// The service stops.
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
    sensors: foldhash::HashMap<SensorIdentifier, Vec<Arc<Queue>>>,
    fleet: Vec<(Option<Uuid>, Arc<Queue>)>,
    /// Of every reader.
    granted: Vec<Granted>,
    /// Of the last reader.
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
    /// Whose streams are counted together: a user, or a token that is no session's.
    pub holder: Option<Uuid>,
    /// Where the token holds.
    pub scope: Scope,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// What a reader reads.
#[derive(Clone, Copy, Debug)]
enum Channel {
    Sensor(SensorIdentifier),
    Fleet,
}

/// The streams that are checked at once.
#[derive(Debug)]
pub(super) struct OpenGrants {
    /// Later ones were not open yet.
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
    /// Why the right has ended, if it has.
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
    /// A hub that subscribes for its readers.
    #[must_use]
    pub fn new(config: Config, subscriptions: Arc<Subscriptions>) -> Arc<Self> {
        Arc::new(Self { config, subscriptions, readers: Mutex::default() })
    }

    /// Where its readers are subscribed.
    #[must_use]
    pub const fn subscriptions(&self) -> &Arc<Subscriptions> {
        &self.subscriptions
    }

    /// How many streams are open.
    #[must_use]
    pub fn reader_count(&self) -> usize {
        self.lock().granted.len()
    }

    /// Opens the stream of a sensor. What is committed from now on is in it; what the client has
    /// missed since `seen`, its last event, is not, and the first event says so.
    ///
    /// # Errors
    /// When there is no room.
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

    /// The scopes in which the fleet is read; none while nobody reads it.
    pub(super) fn fleet_scopes(&self) -> Vec<Option<Uuid>> {
        let mut scopes: Vec<_> = self.lock().fleet.iter().map(|(scope, _)| *scope).collect();
        scopes.sort_unstable();
        scopes.dedup();
        scopes
    }

    /// Tells the readers of the fleet in this scope of a change. One that is too far behind gets
    /// `beginning` instead of all that waits for it.
    pub(super) fn send_fleet(
        &self,
        scope: Option<Uuid>,
        change: &Bytes,
        mut beginning: impl FnMut() -> Bytes,
    ) {
        self.lock().fleet.retain(|(of, queue)| {
            *of != scope || queue.push_or_restart(change.clone(), &mut beginning)
        });
    }

    /// Begins the fleet's streams in this scope anew.
    pub(super) fn restart_fleet(&self, scope: Option<Uuid>, beginning: &Bytes) {
        self.lock().fleet.retain(|(of, queue)| *of != scope || queue.restart(beginning.clone()));
    }

    /// Hands out what the commits tell, until they tell no more.
    pub async fn run(self: Arc<Self>, mut events: Receiver<Vec<Event>>) {
        let mut last_id = 0;
        while let Some(batch) = events.recv().await {
            if self.subscriptions.has_lost() {
                warn!("events come faster than they can be handed out; their readers are dropped");
                self.close_sensors(CloseReason::Overrun);
            }
            for (index, Event { sensor, what }) in batch.into_iter().enumerate() {
                last_id = Timestamp::now().unix_microseconds().max(last_id + 1);
                self.dispatch(sensor, &what, last_id);
                if index % AT_ONCE == AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
        debug!("nobody tells the hub any more");
    }

    fn dispatch(&self, sensor: SensorIdentifier, what: &EventKind, id: i64) {
        let mut readers = self.lock();
        let Some(queues) = readers.sensors.get_mut(&sensor) else { return };
        match event::sensor_event(what, id) {
            Some(event) => queues.retain(|queue| queue.push(event.clone())),
            None => queues.drain(..).for_each(|queue| queue.close(CloseReason::Deleted)),
        }
    }

    /// Ends every stream, and opens none any more.
    pub fn close(&self) {
        let mut readers = self.lock();
        readers.closed = true;
        let fleet = readers.fleet.drain(..).map(|(_, queue)| queue).collect::<Vec<_>>();
        let sensors = readers.sensors.drain().flat_map(|(_, queues)| queues);
        sensors.chain(fleet).for_each(|queue| queue.close(CloseReason::Shutdown));
    }

    fn close_sensors(&self, reason: CloseReason) {
        let mut readers = self.lock();
        readers.sensors.values().flatten().for_each(|queue| queue.close(reason));
        readers.sensors.clear();
    }

    /// By what rights the streams are open that are open now.
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

    /// Closes the streams whose right has ended, of those that were open then.
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

/// One open stream: what the connection sends. Whoever drops it leaves.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NetworkIdentifier;
    use futures_util::StreamExt as _;

    const GRANT: StreamGrant =
        StreamGrant { token: None, holder: None, scope: Scope::All, expires_at: None };

    fn hub(max_readers: usize) -> (Arc<Hub>, Receiver<Vec<Event>>) {
        let (subscriptions, events) = Subscriptions::new();
        (Hub::new(Config { max_readers, keep_alive_secs: 1 }, subscriptions), events)
    }

    async fn next(reader: &mut Reader) -> String {
        let event = reader.next().await.expect("the stream goes on").unwrap();
        String::from_utf8(event.into()).unwrap()
    }

    fn step(revision: i32) -> EventKind {
        EventKind::Configuration { revision, step: crate::domain::Step::Pending }
    }

    #[actix_rt::test]
    async fn a_reader_gets_the_news_of_its_sensor_and_of_no_other() {
        let (hub, events) = hub(10);
        let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
        let mut reader = hub.read_sensor(GRANT, one, None).unwrap();
        let _other = hub.read_sensor(GRANT, other, None).unwrap();
        assert!(next(&mut reader).await.contains("event: open"));
        hub.subscriptions().publish(other, step(1));
        hub.subscriptions().publish(one, step(2));
        hub.subscriptions().publish(one, EventKind::Deleted);
        let running = actix_rt::spawn(Arc::clone(&hub).run(events));
        assert!(next(&mut reader).await.contains("\"revision\":2"));
        assert!(next(&mut reader).await.contains("\"reason\":\"deleted\""));
        assert!(reader.next().await.is_none());
        running.abort();
    }

    #[actix_rt::test]
    async fn who_goes_leaves_nothing_behind_and_makes_room() {
        let (hub, _news) = hub(2);
        let sensor = SensorIdentifier::random();
        let first = hub.read_sensor(GRANT, sensor, None).unwrap();
        let second = hub.read_fleet(GRANT, None, Bytes::from_static(b"x")).unwrap();
        assert_eq!(hub.read_sensor(GRANT, sensor, None).unwrap_err(), NoRoom::TooMany);
        drop(first);
        assert!(hub.subscriptions().is_empty());
        assert_eq!(hub.fleet_scopes(), [None]);
        drop(second);
        assert_eq!((hub.reader_count(), hub.fleet_scopes().len()), (0, 0));
        assert!(hub.read_sensor(GRANT, sensor, None).is_ok());
    }

    #[actix_rt::test]
    async fn at_the_end_everybody_is_told() {
        let (hub, _news) = hub(10);
        let mut sensor = hub.read_sensor(GRANT, SensorIdentifier::random(), None).unwrap();
        let mut fleet = hub.read_fleet(GRANT, None, Bytes::from_static(b"first")).unwrap();
        hub.close();
        for reader in [&mut sensor, &mut fleet] {
            next(reader).await;
            assert!(next(reader).await.contains("\"reason\":\"shutdown\""));
            assert!(reader.next().await.is_none());
        }
        let refused = hub.read_sensor(GRANT, SensorIdentifier::random(), None).unwrap_err();
        assert_eq!(refused, NoRoom::Closed);
    }

    #[actix_rt::test]
    async fn who_may_no_longer_read_is_told_and_dropped() {
        let (hub, _news) = hub(10);
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        let by = |token| StreamGrant { token: Some(token), holder: Some(token), ..GRANT };
        let sensor = SensorIdentifier::random();
        let mut revoked = hub.read_sensor(by(one), sensor, None).unwrap();
        let mut kept = hub.read_sensor(by(other), sensor, None).unwrap();
        let at = Timestamp::from_unix_microseconds(Timestamp::now().unix_microseconds() + 50_000);
        let until = StreamGrant { expires_at: Some(at), ..by(other) };
        let mut expired = hub.read_sensor(until, sensor, None).unwrap();
        let open = hub.open_grants();
        // Opened after the tables were read: it is not judged by what was read.
        let mut late = hub.read_sensor(by(Uuid::new_v4()), sensor, None).unwrap();
        let network = NetworkIdentifier::DEFAULT;
        let mut existing = Existing::default();
        existing.tokens.insert(other, Scope::All);
        existing.sensors.insert(sensor, network);
        hub.close_ended(&open, &existing);
        for reader in [&mut revoked, &mut expired] {
            next(reader).await;
            assert!(next(reader).await.contains("\"reason\":\"revoked\""));
            assert!(reader.next().await.is_none());
        }
        next(&mut kept).await;
        assert_eq!(next(&mut kept).await, ": keep-alive\n\n");
        next(&mut late).await;
        assert_eq!(next(&mut late).await, ": keep-alive\n\n");
        existing.tokens.insert(other, Scope::Network(network));
        hub.close_ended(&hub.open_grants(), &existing);
        for reader in [&mut kept, &mut late] {
            assert!(next(reader).await.contains("\"reason\":\"revoked\""));
        }
    }

    #[actix_rt::test]
    async fn a_stream_ends_with_its_sensor_or_where_that_goes() {
        let (hub, _events) = hub(10);
        let (here, there) = (NetworkIdentifier::DEFAULT, NetworkIdentifier(Uuid::new_v4()));
        let (moved, deleted) = (SensorIdentifier::random(), SensorIdentifier::random());
        let of_network = StreamGrant { scope: Scope::Network(here), ..GRANT };
        let mut scoped = hub.read_sensor(of_network, moved, None).unwrap();
        let mut unscoped = hub.read_sensor(GRANT, moved, None).unwrap();
        let mut gone = hub.read_sensor(GRANT, deleted, None).unwrap();
        let mut existing = Existing::default();
        existing.sensors.insert(moved, there);
        hub.close_ended(&hub.open_grants(), &existing);
        for (reader, expected) in [
            (&mut scoped, "\"reason\":\"revoked\""),
            (&mut gone, "\"reason\":\"deleted\""),
            (&mut unscoped, ": keep-alive"),
        ] {
            next(reader).await;
            assert!(next(reader).await.contains(expected), "{expected}");
        }
    }

    #[actix_rt::test]
    async fn one_caller_takes_a_quarter_of_the_streams_at_most() {
        let (hub, _events) = hub(8);
        let sensor = SensorIdentifier::random();
        let one = StreamGrant { holder: Some(Uuid::new_v4()), ..GRANT };
        let other = StreamGrant { holder: Some(Uuid::new_v4()), ..GRANT };
        let open = |grant| hub.read_sensor(grant, sensor, None);
        let _readers = (open(one).unwrap(), open(one).unwrap());
        assert_eq!(open(one).unwrap_err(), NoRoom::TooManyOfCaller);
        assert!(open(other).is_ok() && open(GRANT).is_ok());
    }

    #[actix_rt::test]
    async fn a_quiet_stream_is_kept_alive() {
        let (hub, _news) = hub(10);
        let mut reader = hub.read_sensor(GRANT, SensorIdentifier::random(), None).unwrap();
        next(&mut reader).await;
        let opened_at = Instant::now();
        assert_eq!(next(&mut reader).await, ": keep-alive\n\n");
        assert!(opened_at.elapsed() > Duration::from_millis(500));
    }
}
