//! Events about sensors, and their subscribers. The hub that serves streams subscribes here; the
//! code that commits a change publishes it.
//!
//! Invariant: an event is published after its COMMIT, and publishing never waits. Without subscribers,
//! a batch costs one atomic load.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{SensorIdentifier, Severity, Timestamp};

/// Batches that wait for the hub. Further ones are lost, and the hub reports that to its readers.
const WAITING_BATCHES: usize = 32;

/// One event of a sensor.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// The sensor's identifier.
    pub sensor: SensorIdentifier,
    /// What happened.
    pub what: EventKind,
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum EventKind {
    /// A measurement was stored; see [`super::Measurement`].
    #[expect(missing_docs, reason = "the fields of the item")]
    Measurement {
        timestamp: Timestamp,
        timed_at_receipt: bool,
        received_at: Timestamp,
        revision: Option<i32>,
        /// The text of a JSON object, as sent.
        value: Bytes,
    },
    /// A log message was stored; see [`super::LogMessage`].
    #[expect(missing_docs, reason = "the fields of the item")]
    LogMessage {
        timestamp: Timestamp,
        timed_at_receipt: bool,
        received_at: Timestamp,
        revision: Option<i32>,
        severity: Severity,
        subject: Box<str>,
        details: Option<Box<str>>,
    },
    /// A heartbeat was stored, which may repeat an acknowledgement; see [`super::Heartbeat`].
    #[expect(missing_docs, reason = "the fields of the item")]
    Heartbeat {
        timestamp: Timestamp,
        timed_at_receipt: bool,
        received_at: Timestamp,
        revision: Option<i32>,
        success: bool,
    },
    /// A configuration has reached a state.
    #[expect(missing_docs, reason = "the types say it")]
    Configuration { revision: i32, step: Step },
    /// The sensor was deleted.
    Deleted,
}

/// The state that a configuration has reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// The name in the API.
    #[must_use]
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
        };
        (Arc::new(subscriptions), events)
    }

    /// Without a hub, for tests and benchmarks.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Self::new().0
    }

    /// Whether no sensor has a subscriber. Checked once per batch, on the hot path.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // Sequentially consistent: a subscriber that subscribes and then reads the tables finds each
        // commit in the tables or among the events.
        self.subscriber_count.load(Ordering::SeqCst) == 0
    }

    /// Whether this sensor has a subscriber.
    #[must_use]
    pub fn is_subscribed(&self, sensor: SensorIdentifier) -> bool {
        !self.is_empty()
            && self.sensors.read().unwrap_or_else(PoisonError::into_inner).contains_key(&sensor)
    }

    /// Adds a subscriber.
    pub fn subscribe(&self, sensor: SensorIdentifier) {
        let mut sensors = self.sensors.write().unwrap_or_else(PoisonError::into_inner);
        *sensors.entry(sensor).or_default() += 1;
        self.subscriber_count.fetch_add(1, Ordering::SeqCst);
    }

    /// Removes a subscriber.
    pub fn unsubscribe(&self, sensor: SensorIdentifier) {
        let mut sensors = self.sensors.write().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut subscribers) = sensors.entry(sensor) {
            *subscribers.get_mut() -= 1;
            if *subscribers.get() == 0 {
                subscribers.remove();
            }
            self.subscriber_count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Publishes events of committed rows. If the channel to the hub is full they are lost, which sets
    /// [`Self::has_lost`].
    pub fn publish_batch(&self, events: Vec<Event>) {
        if !events.is_empty()
            && let Err(TrySendError::Full(_)) = self.hub.try_send(events)
        {
            self.lost.store(true, Ordering::SeqCst);
        }
    }

    /// Publishes one event, if its sensor has a subscriber.
    pub fn publish(&self, sensor: SensorIdentifier, what: EventKind) {
        if self.is_subscribed(sensor) {
            self.publish_batch(vec![Event { sensor, what }]);
        }
    }

    /// Whether events were lost since the last call.
    pub fn has_lost(&self) -> bool {
        self.lost.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_is_watched_until_the_last_one_leaves() {
        let (subscriptions, _news) = Subscriptions::new();
        let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
        assert!(subscriptions.is_empty());
        subscriptions.subscribe(one);
        subscriptions.subscribe(one);
        assert!(subscriptions.is_subscribed(one) && !subscriptions.is_subscribed(other));
        subscriptions.unsubscribe(one);
        subscriptions.unsubscribe(other);
        assert!(subscriptions.is_subscribed(one));
        subscriptions.unsubscribe(one);
        assert!(subscriptions.is_empty() && !subscriptions.is_subscribed(one));
    }

    #[test]
    fn news_is_told_to_those_who_watch_and_never_waited_for() {
        let (subscriptions, mut events) = Subscriptions::new();
        let sensor = SensorIdentifier::random();
        subscriptions.publish(sensor, EventKind::Deleted);
        assert!(events.try_recv().is_err(), "nobody watches");
        subscriptions.subscribe(sensor);
        for _ in 0..WAITING_BATCHES {
            subscriptions.publish(sensor, EventKind::Deleted);
        }
        assert!(!subscriptions.has_lost());
        subscriptions.publish(sensor, EventKind::Deleted);
        assert!(subscriptions.has_lost() && !subscriptions.has_lost());
        assert_eq!(events.try_recv().unwrap(), [Event { sensor, what: EventKind::Deleted }]);
    }
}
