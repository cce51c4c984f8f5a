//! The addresses of the sensors' actors. Shared, on one thread, by the router and the supervisor.
//! Invariant: a message is either with an actor or waits here for the look-up of its sensor; in both
//! cases its token is in the inbound window (or in a page of a replay), which bounds both.
//! Invariant: a sensor is in `active` or in `waiting`, never in both.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Addr, Context};

use super::actor::{ActorShared, SensorActor};
use super::protocol::{SensorMessage, SetDesiredRevision};
use crate::domain::{Reason, SensorIdentifier, Task, Timestamp, Uplink};
use crate::metrics::Metrics;
use crate::store::KnownSensor;

#[derive(Debug)]
struct ActiveSensor {
    address: Addr<SensorActor>,
    last_seen: Timestamp,
    /// The `last_seen` that is in the table.
    stored_last_seen: Timestamp,
}

/// Sent to the sensor's actor once the sensor has been looked up.
#[derive(Debug, Default)]
struct Pending {
    #[expect(clippy::vec_box, reason = "they arrive boxed and leave boxed")]
    uplinks: Vec<Box<Uplink>>,
    /// Committed after the look-up began, which may not have read it.
    desired_revision: Option<i32>,
}

/// The sensors with an actor, or with messages that wait for one.
#[derive(Debug)]
pub(super) struct Registry {
    active: foldhash::HashMap<SensorIdentifier, ActiveSensor>,
    waiting: foldhash::HashMap<SensorIdentifier, Pending>,
    /// Of `waiting`: to be looked up next.
    unresolved: Vec<SensorIdentifier>,
    shared: Rc<ActorShared>,
    metrics: Arc<Metrics>,
}

impl Registry {
    pub(super) fn new(shared: Rc<ActorShared>, metrics: Arc<Metrics>) -> Self {
        let (active, waiting) = Default::default();
        Self { active, waiting, unresolved: Vec::new(), shared, metrics }
    }

    /// Whether a look-up is needed: the message is the first that waits for one of its sensor.
    #[expect(
        clippy::disallowed_methods,
        reason = "the inbound window bounds what is in flight, and a send().await per message costs 49 µs"
    )]
    pub(super) fn route(&mut self, uplink: Box<Uplink>) -> bool {
        let Some(sensor) = uplink.sensor else {
            self.bypass_actor(uplink);
            return false;
        };
        match self.active.get_mut(&sensor) {
            Some(active) if active.address.connected() => {
                active.last_seen = active.last_seen.max(seen_at(&uplink));
                active.address.do_send(SensorMessage::Uplink(uplink));
                return false;
            }
            Some(_) => self.remove_panicked(sensor),
            None => {}
        }
        let pending = self.waiting.entry(sensor).or_default();
        pending.uplinks.push(uplink);
        let is_first = pending.uplinks.len() == 1;
        if is_first {
            self.unresolved.push(sensor);
        }
        is_first
    }

    /// The state of the next actor is read from the tables.
    fn remove_panicked(&mut self, sensor: SensorIdentifier) {
        tracing::warn!(%sensor, "sensor actor panicked; starting it again");
        self.metrics.actors_restarted.inc();
        self.metrics.actors_alive.dec();
        self.active.remove(&sensor);
    }

    /// To the writer, without the sensor's actor.
    pub(super) fn bypass_actor(&self, uplink: Box<Uplink>) {
        self.shared.buffer.push(uplink);
    }

    /// At most `limit` sensors that wait for their look-up.
    pub(super) fn take_unresolved(&mut self, limit: usize) -> Vec<SensorIdentifier> {
        let rest = self.unresolved.split_off(limit.min(self.unresolved.len()));
        std::mem::replace(&mut self.unresolved, rest)
    }

    pub(super) const fn unresolved_count(&self) -> usize {
        self.unresolved.len()
    }

    /// The look-up failed; it will be retried.
    pub(super) fn put_back(&mut self, sensors: Vec<SensorIdentifier>) {
        self.unresolved.extend(sensors);
    }

    /// Starts the actor of an existing sensor and sends it what waits.
    #[expect(clippy::disallowed_methods, reason = "what waits is in the inbound window")]
    pub(super) fn start(&mut self, known: &KnownSensor) {
        let Some(pending) = self.waiting.remove(&known.identifier) else { return };
        let actor = SensorActor::new(known, Rc::clone(&self.shared));
        // Its end is noticed at the next message.
        let (address, _) = self.shared.tasks.run_actor(Task::Actor, Context::new(), actor);
        self.metrics.actors_started.inc();
        self.metrics.actors_alive.inc();
        let seen_at = pending.uplinks.iter().map(|uplink| seen_at(uplink)).max();
        let last_seen = seen_at.unwrap_or_else(Timestamp::now);
        if let Some(revision) = pending.desired_revision {
            address.do_send(SensorMessage::Desired(revision));
        }
        for uplink in pending.uplinks {
            address.do_send(SensorMessage::Uplink(uplink));
        }
        let stored_last_seen = Timestamp::default();
        let active = ActiveSensor { address, last_seen, stored_last_seen };
        self.active.insert(known.identifier, active);
    }

    /// Starts the actor of a sensor that may not have been spoken to.
    pub(super) fn admit(&mut self, known: &KnownSensor) {
        match self.address(known.identifier) {
            Some(address) if address.connected() => return,
            Some(_) => self.remove_panicked(known.identifier),
            None => {}
        }
        self.waiting.entry(known.identifier).or_default();
        self.start(known);
    }

    /// Whether the sensor is known to be alive: a retained message may be of one that was deleted.
    pub(super) fn is_present(&self, sensor: SensorIdentifier) -> bool {
        let waiting = self.waiting.get(&sensor);
        waiting.is_some_and(|it| it.uplinks.iter().any(|uplink| !uplink.message.retained))
    }

    /// The sensor does not exist: rejects what waits for it.
    pub(super) fn reject(&mut self, sensor: SensorIdentifier) {
        let Some(pending) = self.waiting.remove(&sensor) else { return };
        for mut uplink in pending.uplinks {
            uplink.reject(Reason::UnknownSensor, format!("sensor {sensor} does not exist"));
            self.bypass_actor(uplink);
        }
    }

    /// Notifies the sensor's actor, now or once it is started.
    #[expect(clippy::disallowed_methods, reason = "one per HTTP request, each of them awaited")]
    pub(super) fn set_desired_revision(&mut self, message: SetDesiredRevision) {
        if let Some(active) = self.active.get(&message.sensor) {
            active.address.do_send(SensorMessage::Desired(message.revision));
        } else if let Some(pending) = self.waiting.get_mut(&message.sensor) {
            pending.desired_revision = pending.desired_revision.max(Some(message.revision));
        }
    }

    /// The sensors with an actor.
    pub(super) fn active(&self) -> Vec<SensorIdentifier> {
        self.active.keys().copied().collect()
    }

    /// Passes to the actors of `sensors` what the tables say, and stops those of deleted sensors.
    pub(super) fn refresh(&mut self, sensors: &[SensorIdentifier], known: &[KnownSensor]) {
        known.iter().for_each(|it| self.refresh_one(it));
        let known: HashSet<_> = known.iter().map(|it| it.identifier).collect();
        sensors.iter().filter(|it| !known.contains(it)).for_each(|it| self.retire(*it));
    }

    #[expect(clippy::disallowed_methods, reason = "every five minutes, or after a loss")]
    fn refresh_one(&self, known: &KnownSensor) {
        let Some(address) = self.address(known.identifier) else { return };
        if let Some(revision) = known.desired_revision {
            address.do_send(SensorMessage::Desired(revision));
        }
        if let Some((revision, success)) = known.last_acknowledged {
            address.do_send(SensorMessage::Acknowledged { revision, success });
        }
    }

    pub(super) fn address(&self, sensor: SensorIdentifier) -> Option<Addr<SensorActor>> {
        self.active.get(&sensor).map(|active| active.address.clone())
    }

    /// Stops an actor after what is in its mailbox.
    #[expect(clippy::disallowed_methods, reason = "once per actor, the last message it gets")]
    pub(super) fn retire(&mut self, sensor: SensorIdentifier) {
        if let Some(active) = self.active.remove(&sensor) {
            active.address.do_send(SensorMessage::Retire);
            self.metrics.actors_retired.inc();
            self.metrics.actors_alive.dec();
        }
    }

    /// At most `limit` sensors whose `last_seen` is newer than the table's, the longest unstored first.
    pub(super) fn unstored_last_seen(&self, limit: usize) -> Vec<(SensorIdentifier, Timestamp)> {
        let mut unstored: Vec<_> = self
            .active
            .iter()
            .filter(|(_, active)| active.last_seen > active.stored_last_seen)
            .map(|(sensor, active)| (active.stored_last_seen, *sensor, active.last_seen))
            .collect();
        if unstored.len() > limit {
            unstored.select_nth_unstable(limit);
            unstored.truncate(limit);
        }
        unstored.into_iter().map(|(_, sensor, last_seen)| (sensor, last_seen)).collect()
    }

    /// The table has these now.
    pub(super) fn last_seen_stored(&mut self, stored: &[(SensorIdentifier, Timestamp)]) {
        for (sensor, at) in stored {
            if let Some(active) = self.active.get_mut(sensor) {
                active.stored_last_seen = *at;
            }
        }
    }

    /// Stops the actors of all sensors that were not seen since then.
    pub(super) fn retire_silent(&mut self, since: Timestamp) {
        let silent = self.active.iter().filter(|(_, active)| active.last_seen < since);
        let silent: Vec<_> = silent.map(|(sensor, _)| *sensor).collect();
        silent.into_iter().for_each(|sensor| self.retire(sensor));
    }
}

/// When a message shows that its sensor is alive; a retained one never does.
fn seen_at(uplink: &Uplink) -> Timestamp {
    if uplink.message.retained { Timestamp::default() } else { uplink.message.received_at }
}
