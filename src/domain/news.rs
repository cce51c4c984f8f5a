//! What is new about a sensor, and who wants to know. The hub that serves readers watches sensors
//! here; whoever commits something asks first whether anybody wants it, and tells it here after.
//!
//! Invariant: news is told after its COMMIT, and never waited for. While nobody watches, a batch
//! costs one atomic load, and a message nothing.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{SensorIdentifier, Severity, Timestamp};

/// Batches of news that wait for the hub. One that is further behind has lost some, and says so to
/// its readers.
const WAITING_BATCHES: usize = 32;

/// One thing that is new about a sensor.
#[derive(Clone, PartialEq, Debug)]
pub struct News {
    /// About whom.
    pub sensor: SensorIdentifier,
    /// What.
    pub what: Tidings,
}

/// What is new.
#[derive(Clone, PartialEq, Debug)]
pub enum Tidings {
    /// It measured.
    Measurement {
        /// By the sensor's clock.
        timestamp: Timestamp,
        /// By ours.
        received_at: Timestamp,
        /// Under which configuration.
        revision: i32,
        /// The text of a JSON object, as it came.
        value: Bytes,
    },
    /// It wrote to its log.
    LogMessage {
        /// By the sensor's clock.
        timestamp: Timestamp,
        /// By ours.
        received_at: Timestamp,
        /// Under which configuration.
        revision: i32,
        /// How much it matters.
        severity: Severity,
        /// In short.
        subject: Box<str>,
        /// At length.
        details: Option<Box<str>>,
    },
    /// It acknowledged a revision, maybe not for the first time.
    Heartbeat {
        /// By the sensor's clock.
        timestamp: Timestamp,
        /// By ours.
        received_at: Timestamp,
        /// The revision.
        revision: i32,
        /// Whether that works.
        success: bool,
    },
    /// A configuration has come one step further.
    Configuration {
        /// Which one.
        revision: i32,
        /// How far.
        step: Step,
    },
    /// It is no more.
    Deleted,
}

/// How far a configuration has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Committed.
    Pending,
    /// The broker has it.
    Published,
    /// The sensor has it, and it works.
    Acknowledged,
    /// The sensor has it, and it does not work.
    Failed,
}

impl Step {
    /// As the API names the state.
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

/// Who is watched, and the way of the news to those who watch.
#[derive(Debug)]
pub struct Audience {
    watched: AtomicUsize,
    sensors: RwLock<foldhash::HashMap<SensorIdentifier, usize>>,
    hub: Sender<Vec<News>>,
    missed: AtomicBool,
}

impl Audience {
    /// Nobody watches yet. The receiver is for the hub.
    #[must_use]
    pub fn new() -> (Arc<Self>, Receiver<Vec<News>>) {
        let (hub, news) = channel(WAITING_BATCHES);
        let audience = Self {
            watched: AtomicUsize::new(0),
            sensors: RwLock::default(),
            hub,
            missed: AtomicBool::new(false),
        };
        (Arc::new(audience), news)
    }

    /// For those to whom nobody listens: tests and benches.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Self::new().0
    }

    /// Whether nobody watches anything: the one question on the hot path, asked once a batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // In one order with the reader's own reads: whoever begins to watch, and then reads the
        // tables, finds each commit in the tables or among the news.
        self.watched.load(Ordering::SeqCst) == 0
    }

    /// Whether somebody watches this sensor.
    #[must_use]
    pub fn watches(&self, sensor: SensorIdentifier) -> bool {
        !self.is_empty()
            && self.sensors.read().unwrap_or_else(PoisonError::into_inner).contains_key(&sensor)
    }

    /// One more watches this sensor.
    pub fn watch(&self, sensor: SensorIdentifier) {
        let mut sensors = self.sensors.write().unwrap_or_else(PoisonError::into_inner);
        *sensors.entry(sensor).or_default() += 1;
        self.watched.fetch_add(1, Ordering::SeqCst);
    }

    /// One fewer does.
    pub fn leave(&self, sensor: SensorIdentifier) {
        let mut sensors = self.sensors.write().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut watchers) = sensors.entry(sensor) {
            *watchers.get_mut() -= 1;
            if *watchers.get() == 0 {
                watchers.remove();
            }
            self.watched.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Tells what is committed. It does not wait: when the hub is far behind, this news is lost, and
    /// the hub learns that some was.
    pub fn tell(&self, news: Vec<News>) {
        if !news.is_empty()
            && let Err(TrySendError::Full(_)) = self.hub.try_send(news)
        {
            self.missed.store(true, Ordering::SeqCst);
        }
    }

    /// The same for one piece, if anybody watches its sensor.
    pub fn tell_of(&self, sensor: SensorIdentifier, what: Tidings) {
        if self.watches(sensor) {
            self.tell(vec![News { sensor, what }]);
        }
    }

    /// Whether news was lost since this was asked last.
    pub fn has_missed(&self) -> bool {
        self.missed.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_is_watched_until_the_last_one_leaves() {
        let (audience, _news) = Audience::new();
        let (one, other) = (SensorIdentifier::random(), SensorIdentifier::random());
        assert!(audience.is_empty());
        audience.watch(one);
        audience.watch(one);
        assert!(audience.watches(one) && !audience.watches(other));
        audience.leave(one);
        audience.leave(other);
        assert!(audience.watches(one));
        audience.leave(one);
        assert!(audience.is_empty() && !audience.watches(one));
    }

    #[test]
    fn news_is_told_to_those_who_watch_and_never_waited_for() {
        let (audience, mut news) = Audience::new();
        let sensor = SensorIdentifier::random();
        audience.tell_of(sensor, Tidings::Deleted);
        assert!(news.try_recv().is_err(), "nobody watches");
        audience.watch(sensor);
        for _ in 0..WAITING_BATCHES {
            audience.tell_of(sensor, Tidings::Deleted);
        }
        assert!(!audience.has_missed());
        audience.tell_of(sensor, Tidings::Deleted);
        assert!(audience.has_missed() && !audience.has_missed());
        assert_eq!(news.try_recv().unwrap(), [News { sensor, what: Tidings::Deleted }]);
    }
}
