//! Events about sensors, and their subscribers: the hub that serves streams, and the other instances. The code that
//! commits a change publishes it.
//!
//! Invariant: an event is published after its COMMIT, and publishing never waits. Without subscribers and other
//! instances, a batch costs three atomic loads.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Notify, watch};

use super::byte_queue::ByteQueue;
use super::{SensorIdentifier, Severity, Timestamp};

/// Batches that wait for the hub. Further ones are lost, and the hub reports that to its readers.
const WAITING_BATCHES: usize = 32;

/// Events that wait to be relayed to the other instances, in bytes. Further ones are lost, and the others see the gap.
const WAITING_RELAYED: u32 = 16 << 20;

/// What an event takes beside its texts; more than its size in memory.
const EVENT_BYTES: usize = 256;

/// How long events of other instances wait for the hub, which is then being restarted.
const HUB_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a new stream waits until the other instances know of it: they look at least every two seconds.
const PEERS_TIMEOUT: Duration = Duration::from_secs(3);

/// Of [`PeerSubscriptions::known_version`], until it is known whether there are others: nobody knows any version.
const UNREAD: Option<i64> = Some(i64::MIN);

/// One event of a sensor.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// The sensor's identifier.
    pub sensor: SensorIdentifier,
    /// What happened.
    pub what: EventKind,
}

impl Event {
    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        EVENT_BYTES
            + match &self.what {
                EventKind::Measurement { value, .. } => value.len(),
                EventKind::LogMessage { subject, details, .. } => {
                    subject.len() + details.as_ref().map_or(0, |it| it.len())
                }
                _ => 0,
            }
    }
}

/// What happened. Serialized as other instances read it, also those of another release.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum EventKind {
    /// A measurement was stored; see [`super::Measurement`].
    #[expect(missing_docs, reason = "the fields of the item")]
    Measurement {
        #[serde(flatten)]
        times: ItemTimes,
        /// The text of a JSON object, as sent.
        #[serde(with = "as_text")]
        value: Bytes,
    },
    /// A log message was stored; see [`super::LogMessage`].
    #[expect(missing_docs, reason = "the fields of the item")]
    LogMessage {
        #[serde(flatten)]
        times: ItemTimes,
        severity: Severity,
        subject: Box<str>,
        details: Option<Box<str>>,
    },
    /// A heartbeat was stored, which may repeat an acknowledgement; see [`super::Heartbeat`].
    #[expect(missing_docs, reason = "the fields of the item")]
    Heartbeat {
        #[serde(flatten)]
        times: ItemTimes,
        success: bool,
    },
    /// A configuration has reached a state.
    #[expect(missing_docs, reason = "the types say it")]
    Configuration { revision: i32, step: Step },
    /// The sensor was deleted.
    Deleted,
}

/// When an item was measured, written or sent, and under which revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the item")]
pub struct ItemTimes {
    #[serde(rename = "at")]
    pub timestamp: Timestamp,
    pub timed_at_receipt: bool,
    pub received_at: Timestamp,
    pub revision: Option<i32>,
}

/// The bytes of a text, as that text.
mod as_text {
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(text))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Bytes, D::Error> {
        String::deserialize(deserializer).map(Into::into)
    }
}

/// The state that a configuration has reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Committed, not yet published.
    Pending,
    /// Acknowledged by the broker.
    Published,
    /// Applied by the sensor.
    Acknowledged,
    /// The sensor could not apply it.
    Failed,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Published, Self::Acknowledged, Self::Failed];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Published => "published",
            Self::Acknowledged => "acknowledged",
            Self::Failed => "failed",
        }
    }
}

/// The sensors that have subscribers, and the channel to the hub.
#[derive(Debug)]
pub struct Subscriptions {
    subscriber_count: AtomicUsize,
    sensors: RwLock<foldhash::HashMap<SensorIdentifier, usize>>,
    hub: Sender<Vec<Event>>,
    lost: AtomicBool,
    /// Counts the changes of the keys of `sensors`.
    version: AtomicI64,
    version_changed: Notify,
    peers: PeerSubscriptions,
}

/// The other instances.
#[derive(Debug)]
struct PeerSubscriptions {
    exist: AtomicBool,
    /// Sensors with subscribers there.
    watched: RwLock<foldhash::HashSet<SensorIdentifier>>,
    watched_count: AtomicUsize,
    /// The version that all of them know; none without others.
    known_version: watch::Sender<Option<i64>>,
    relayed: ByteQueue<Vec<Event>>,
}

impl Default for PeerSubscriptions {
    fn default() -> Self {
        Self {
            // Until that is known, whatever concerns all is relayed.
            exist: AtomicBool::new(true),
            watched: RwLock::default(),
            watched_count: AtomicUsize::new(0),
            known_version: watch::Sender::new(UNREAD),
            relayed: ByteQueue::new(WAITING_RELAYED),
        }
    }
}

impl Subscriptions {
    /// Without subscribers. The receiver is for the hub.
    #[must_use]
    pub fn new() -> (Arc<Self>, Receiver<Vec<Event>>) {
        let (hub, events) = channel(WAITING_BATCHES);
        let subscriptions = Self {
            subscriber_count: AtomicUsize::new(0),
            sensors: RwLock::default(),
            hub,
            lost: AtomicBool::new(false),
            version: AtomicI64::new(0),
            version_changed: Notify::new(),
            peers: PeerSubscriptions::default(),
        };
        (Arc::new(subscriptions), events)
    }

    /// Without a hub, for tests and benchmarks.
    pub fn none() -> Arc<Self> {
        let subscriptions = Self::new().0;
        subscriptions.set_peers([], false);
        subscriptions
    }

    /// Whether no sensor has a subscriber, here or elsewhere. Checked once per batch, on the hot path.
    pub fn is_empty(&self) -> bool {
        // Sequentially consistent: a subscriber that subscribes and then reads the tables finds each
        // commit in the tables or among the events.
        self.subscriber_count.load(Ordering::SeqCst) == 0
            && self.peers.watched_count.load(Ordering::SeqCst) == 0
    }

    /// Whether this sensor has a subscriber, here or elsewhere.
    pub fn is_subscribed(&self, sensor: SensorIdentifier) -> bool {
        !self.is_empty() && (self.has_local(sensor) || self.has_remote(sensor))
    }

    fn has_local(&self, sensor: SensorIdentifier) -> bool {
        self.sensors.read().unwrap_or_else(PoisonError::into_inner).contains_key(&sensor)
    }

    fn has_remote(&self, sensor: SensorIdentifier) -> bool {
        self.peers.watched.read().unwrap_or_else(PoisonError::into_inner).contains(&sensor)
    }

    /// Whether another instance may be alive, to which every configuration is relayed.
    pub fn has_peers(&self) -> bool {
        self.peers.exist.load(Ordering::SeqCst)
    }

    /// Sets the sensors with subscribers elsewhere, and whether another instance is alive.
    pub fn set_peers(&self, watched: impl IntoIterator<Item = SensorIdentifier>, exist: bool) {
        let watched: foldhash::HashSet<_> = watched.into_iter().collect();
        self.peers.watched_count.store(watched.len(), Ordering::SeqCst);
        *self.peers.watched.write().unwrap_or_else(PoisonError::into_inner) = watched;
        self.peers.exist.store(exist, Ordering::SeqCst);
    }

    /// The sensors with subscribers here, and the version of this set.
    pub fn watched(&self) -> (Vec<SensorIdentifier>, i64) {
        let sensors = self.sensors.read().unwrap_or_else(PoisonError::into_inner);
        (sensors.keys().copied().collect(), self.version.load(Ordering::SeqCst))
    }

    /// Returns when the set of [`Self::watched`] has changed; for one task.
    pub async fn watch_changed(&self) {
        self.version_changed.notified().await;
    }

    /// Sets which version of [`Self::watched`] all other instances know; none without others.
    pub fn set_known_version(&self, version: Option<i64>) {
        self.peers.known_version.send_replace(version);
    }

    /// Returns once it is known whether there are other instances: what is committed from then on reaches them.
    pub async fn joined(&self) {
        let mut known = self.peers.known_version.subscribe();
        drop(known.wait_for(|known| *known != UNREAD).await);
    }

    /// Returns once the other instances know of all subscribers here: a commit elsewhere is then in the tables, or will
    /// be relayed. False: one of them does not answer.
    pub async fn known_to_peers(&self) -> bool {
        let version = self.version.load(Ordering::SeqCst);
        let mut known = self.peers.known_version.subscribe();
        let known = known.wait_for(|known| known.is_none_or(|known| known >= version));
        tokio::time::timeout(PEERS_TIMEOUT, known).await.is_ok()
    }

    /// What is to be relayed to the other instances.
    pub const fn relayed(&self) -> &ByteQueue<Vec<Event>> {
        &self.peers.relayed
    }

    /// Adds a subscriber.
    pub fn subscribe(&self, sensor: SensorIdentifier) {
        let mut sensors = self.sensors.write().unwrap_or_else(PoisonError::into_inner);
        let subscribers = sensors.entry(sensor).or_default();
        *subscribers += 1;
        if *subscribers == 1 {
            self.version.fetch_add(1, Ordering::SeqCst);
            self.version_changed.notify_one();
        }
        self.subscriber_count.fetch_add(1, Ordering::SeqCst);
    }

    /// Removes a subscriber.
    pub fn unsubscribe(&self, sensor: SensorIdentifier) {
        let mut sensors = self.sensors.write().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut subscribers) = sensors.entry(sensor) {
            *subscribers.get_mut() -= 1;
            if *subscribers.get() == 0 {
                subscribers.remove();
                self.version.fetch_add(1, Ordering::SeqCst);
                self.version_changed.notify_one();
            }
            self.subscriber_count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Publishes events of what was committed here.
    pub fn publish_batch(&self, events: Vec<Event>) {
        if self.has_peers() {
            let concerns_all = |what: &EventKind| {
                matches!(what, EventKind::Configuration { .. } | EventKind::Deleted)
            };
            let relayed: Vec<Event> = events
                .iter()
                .filter(|it| concerns_all(&it.what) || self.has_remote(it.sensor))
                .cloned()
                .collect();
            if !relayed.is_empty() {
                let bytes = relayed.iter().map(Event::bytes).sum();
                self.peers.relayed.put(relayed, bytes);
            }
        }
        self.send_to_hub(events);
    }

    /// Publishes events that another instance has relayed. Waits for the hub: what it has relayed in a minute
    /// may arrive at once.
    pub async fn receive(&self, mut events: Vec<Event>) {
        events.retain(|it| self.has_local(it.sensor));
        if !events.is_empty()
            && let Err(SendTimeoutError::Timeout(_)) =
                self.hub.send_timeout(events, HUB_TIMEOUT).await
        {
            self.lost.store(true, Ordering::SeqCst);
        }
    }

    /// If the channel to the hub is full they are lost, which sets [`Self::has_lost`].
    fn send_to_hub(&self, events: Vec<Event>) {
        if !events.is_empty()
            && let Err(TrySendError::Full(_)) = self.hub.try_send(events)
        {
            self.lost.store(true, Ordering::SeqCst);
        }
    }

    /// Publishes one event, a step of a configuration or a deletion.
    pub fn publish(&self, sensor: SensorIdentifier, what: EventKind) {
        if self.has_peers() || self.is_subscribed(sensor) {
            self.publish_batch(vec![Event { sensor, what }]);
        }
    }

    /// Whether events were lost since the last call.
    pub fn has_lost(&self) -> bool {
        self.lost.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests;
