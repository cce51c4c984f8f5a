//! Who reads which stream. The API opens them, the task [`Hub::run`] hands out what the commits
//! tell, the application closes all at its end. Promises that each reader of a sensor gets each
//! event once and in the order of the commits, and that a reader that goes leaves nothing behind.

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
use crate::domain::{Event, EventKind, SensorIdentifier, Subscriptions, Timestamp};

/// Events handed out before others on this thread get their turn.
const AT_ONCE: usize = 200;

/// A stream that is older ends as if its token did; the client comes again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30 * 86_400);

/// Why a stream is not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRoom {
    /// There are as many as the setting allows.
    TooMany,
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
    /// Those who read by a token.
    tokens: Vec<(Uuid, Arc<Queue>)>,
    count: usize,
}

/// What entitles a reader: a token, or nothing where `AUTH=off`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamGrant {
    /// The token.
    pub token: Option<Uuid>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// What a reader reads.
#[derive(Clone, Copy, Debug)]
enum Channel {
    Sensor(SensorIdentifier),
    Fleet,
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
        self.lock().count
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
        let mut readers = self.admit(grant, &queue)?;
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
        let mut readers = self.admit(grant, &queue)?;
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

    /// Closes the streams of a revoked token; none stands for all.
    pub fn revoke(&self, token: Option<Uuid>) {
        self.lock().tokens.retain(|(of, queue)| {
            let is_revoked = token.is_none_or(|token| token == *of);
            if is_revoked {
                queue.close(CloseReason::Revoked);
            }
            !is_revoked
        });
    }

    fn admit(
        &self,
        grant: StreamGrant,
        queue: &Arc<Queue>,
    ) -> Result<MutexGuard<'_, Readers>, NoRoom> {
        let mut readers = self.lock();
        if readers.closed {
            return Err(NoRoom::Closed);
        }
        if readers.count >= self.config.max_readers {
            return Err(NoRoom::TooMany);
        }
        readers.count += 1;
        readers.tokens.extend(grant.token.map(|token| (token, Arc::clone(queue))));
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
        readers.count -= 1;
        readers.tokens.retain(|(_, known)| !Arc::ptr_eq(known, queue));
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
    use futures_util::StreamExt as _;

    const GRANT: StreamGrant = StreamGrant { token: None, expires_at: None };

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
        let by = |token| StreamGrant { token: Some(token), expires_at: None };
        let sensor = SensorIdentifier::random();
        let mut revoked = hub.read_sensor(by(one), sensor, None).unwrap();
        let mut kept = hub.read_sensor(by(other), sensor, None).unwrap();
        let at = Timestamp::from_unix_microseconds(Timestamp::now().unix_microseconds() + 50_000);
        let until = StreamGrant { token: Some(other), expires_at: Some(at) };
        let mut expired = hub.read_sensor(until, sensor, None).unwrap();
        hub.revoke(Some(one));
        for reader in [&mut revoked, &mut expired] {
            next(reader).await;
            assert!(next(reader).await.contains("\"reason\":\"revoked\""));
            assert!(reader.next().await.is_none());
        }
        next(&mut kept).await;
        assert_eq!(next(&mut kept).await, ": keep-alive\n\n");
        hub.revoke(None);
        assert!(next(&mut kept).await.contains("\"reason\":\"revoked\""));
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
