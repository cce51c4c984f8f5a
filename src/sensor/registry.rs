//! The addresses of the sensors' actors. Shared, on one thread, by the router and the supervisor.
//! Invariant: a message is either with an actor or waits here for the look-up of its sensor; in both
//! cases its token is in the inbound window (or in a page of a replay), which bounds both.

use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Addr, Context};

use super::actor::{ActorShared, SensorActor};
use super::protocol::{HandleUplink, Retire, SetAcknowledgedRevision, SetDesiredRevision};
use crate::domain::{Reason, SensorIdentifier, Task, Timestamp, Uplink};
use crate::metrics::Metrics;
use crate::store::KnownSensor;

/// What [`Registry::route`] did with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Routed {
    Sent,
    /// The first that waits for the look-up of its sensor.
    NeedsLookUp,
    /// Waits behind another.
    Queued,
}

#[derive(Debug)]
enum Slot {
    Active {
        address: Addr<SensorActor>,
        last_seen: Timestamp,
        /// The `last_seen` that is in the table.
        stored_last_seen: Timestamp,
    },
    Unresolved(Pending),
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
    slots: foldhash::HashMap<SensorIdentifier, Slot>,
    unresolved: Vec<SensorIdentifier>,
    shared: Rc<ActorShared>,
    metrics: Arc<Metrics>,
}

impl Registry {
    pub(super) fn new(shared: Rc<ActorShared>, metrics: Arc<Metrics>) -> Self {
        Self { slots: foldhash::HashMap::default(), unresolved: Vec::new(), shared, metrics }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the inbound window bounds what is in flight, and a send().await per message costs 49 µs"
    )]
    pub(super) fn route(&mut self, uplink: Box<Uplink>) -> Routed {
        let Some(sensor) = uplink.sensor else {
            self.bypass_actor(uplink);
            return Routed::Sent;
        };
        match self.slots.get_mut(&sensor) {
            Some(Slot::Active { address, last_seen, .. }) if address.connected() => {
                *last_seen = (*last_seen).max(seen_at(&uplink));
                address.do_send(HandleUplink(uplink));
                Routed::Sent
            }
            Some(Slot::Unresolved(pending)) => {
                pending.uplinks.push(uplink);
                Routed::Queued
            }
            // None, or one that has panicked: its state is read from the tables again.
            dead => {
                if dead.is_some() {
                    tracing::warn!(%sensor, "sensor actor panicked; starting it again");
                    self.metrics.actors_restarted.inc();
                    self.metrics.actors_alive.dec();
                }
                let pending = Pending { uplinks: vec![uplink], ..Pending::default() };
                self.slots.insert(sensor, Slot::Unresolved(pending));
                self.unresolved.push(sensor);
                Routed::NeedsLookUp
            }
        }
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
        let Some(pending) = self.take_pending(known.identifier) else { return };
        let actor = SensorActor::new(known, Rc::clone(&self.shared));
        // Its end is noticed at the next message.
        let (address, _) = self.shared.tasks.run_actor(Task::Actor, Context::new(), actor);
        self.metrics.actors_started.inc();
        self.metrics.actors_alive.inc();
        let seen_at = pending.uplinks.iter().map(|uplink| seen_at(uplink)).max();
        let last_seen = seen_at.unwrap_or_else(Timestamp::now);
        if let Some(revision) = pending.desired_revision {
            address.do_send(SetDesiredRevision { sensor: known.identifier, revision });
        }
        for uplink in pending.uplinks {
            address.do_send(HandleUplink(uplink));
        }
        let stored_last_seen = Timestamp::default();
        let slot = Slot::Active { address, last_seen, stored_last_seen };
        self.slots.insert(known.identifier, slot);
    }

    /// Starts the actor of a sensor that may not have been spoken to.
    pub(super) fn admit(&mut self, known: &KnownSensor) {
        match self.slots.get(&known.identifier) {
            Some(Slot::Active { address, .. }) if address.connected() => return,
            Some(Slot::Unresolved(_)) => {}
            Some(Slot::Active { .. }) | None => {
                self.slots.insert(known.identifier, Slot::Unresolved(Pending::default()));
            }
        }
        self.start(known);
    }

    /// None where the sensor has an actor.
    fn take_pending(&mut self, sensor: SensorIdentifier) -> Option<Pending> {
        match self.slots.entry(sensor) {
            Entry::Occupied(slot) if matches!(slot.get(), Slot::Unresolved(_)) => {
                match slot.remove() {
                    Slot::Unresolved(pending) => Some(pending),
                    Slot::Active { .. } => unreachable!("the guard has matched Unresolved"),
                }
            }
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        }
    }

    /// Whether the sensor is known to be alive: a retained message may be of one that was deleted.
    pub(super) fn is_present(&self, sensor: SensorIdentifier) -> bool {
        match self.slots.get(&sensor) {
            Some(Slot::Unresolved(pending)) => {
                pending.uplinks.iter().any(|uplink| !uplink.message.retained)
            }
            Some(Slot::Active { .. }) | None => false,
        }
    }

    /// The sensor does not exist: rejects what waits for it.
    pub(super) fn reject(&mut self, sensor: SensorIdentifier) {
        let Some(pending) = self.take_pending(sensor) else { return };
        for mut uplink in pending.uplinks {
            uplink.reject(Reason::UnknownSensor, format!("sensor {sensor} does not exist"));
            self.bypass_actor(uplink);
        }
    }

    /// Notifies the sensor's actor, now or once it is started.
    #[expect(clippy::disallowed_methods, reason = "one per HTTP request, each of them awaited")]
    pub(super) fn set_desired_revision(&mut self, message: SetDesiredRevision) {
        match self.slots.get_mut(&message.sensor) {
            Some(Slot::Active { address, .. }) => address.do_send(message),
            Some(Slot::Unresolved(pending)) => {
                pending.desired_revision = pending.desired_revision.max(Some(message.revision));
            }
            None => {}
        }
    }

    /// The sensors with an actor.
    pub(super) fn active(&self) -> Vec<SensorIdentifier> {
        let is_active = |slot: &Slot| matches!(slot, Slot::Active { .. });
        self.slots.iter().filter(|(_, slot)| is_active(slot)).map(|(sensor, _)| *sensor).collect()
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
            address.do_send(SetDesiredRevision { sensor: known.identifier, revision });
        }
        if let Some((revision, success)) = known.last_acknowledged {
            address.do_send(SetAcknowledgedRevision { revision, success });
        }
    }

    pub(super) fn address(&self, sensor: SensorIdentifier) -> Option<Addr<SensorActor>> {
        match self.slots.get(&sensor) {
            Some(Slot::Active { address, .. }) => Some(address.clone()),
            Some(Slot::Unresolved(_)) | None => None,
        }
    }

    /// Stops an actor after what is in its mailbox.
    #[expect(clippy::disallowed_methods, reason = "once per actor, the last message it gets")]
    pub(super) fn retire(&mut self, sensor: SensorIdentifier) {
        if let Some(Slot::Active { .. }) = self.slots.get(&sensor)
            && let Some(Slot::Active { address, .. }) = self.slots.remove(&sensor)
        {
            address.do_send(Retire);
            self.metrics.actors_retired.inc();
            self.metrics.actors_alive.dec();
        }
    }

    /// At most `limit` sensors whose `last_seen` is newer than the table's, the longest unstored first.
    pub(super) fn unstored_last_seen(&self, limit: usize) -> Vec<(SensorIdentifier, Timestamp)> {
        let mut unstored: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(sensor, slot)| match slot {
                Slot::Active { last_seen, stored_last_seen, .. }
                    if last_seen > stored_last_seen =>
                {
                    Some((*stored_last_seen, *sensor, *last_seen))
                }
                Slot::Active { .. } | Slot::Unresolved(_) => None,
            })
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
            if let Some(Slot::Active { stored_last_seen, .. }) = self.slots.get_mut(sensor) {
                *stored_last_seen = *at;
            }
        }
    }

    /// Stops the actors of all sensors that were not seen since then.
    pub(super) fn retire_silent(&mut self, since: Timestamp) {
        let silent: Vec<SensorIdentifier> = self
            .slots
            .iter()
            .filter_map(|(sensor, slot)| match slot {
                Slot::Active { last_seen, .. } if *last_seen < since => Some(*sensor),
                Slot::Active { .. } | Slot::Unresolved(_) => None,
            })
            .collect();
        for sensor in silent {
            self.retire(sensor);
        }
    }
}

/// When a message shows that its sensor is alive; a retained one never does.
fn seen_at(uplink: &Uplink) -> Timestamp {
    if uplink.message.retained { Timestamp::default() } else { uplink.message.received_at }
}
