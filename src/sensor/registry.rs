//! The addresses of the sensors' actors, and the way of a message to its own. Shared, on one
//! thread, by the inbound loop that routes messages and the supervisor that looks sensors up.
//!
//! Invariant: a message is with an actor, or waits here for the look-up of its sensor; either way
//! it holds a place in the inbound window, which bounds both.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::rc::Rc;

use actix::{Actor as _, Addr};

use super::actor::{SensorActor, Ways};
use super::protocol::{Desire, Hear, Retire};
use super::supervisor::{Resolve, Supervisor};
use crate::domain::{NetworkIdentifier, Reason, SensorIdentifier, Timestamp, Uplink};
use crate::metrics::Metrics;
use crate::store::KnownSensor;

/// Where messages go in.
#[derive(Clone, Debug)]
pub struct Router {
    pub(super) registry: Rc<RefCell<Registry>>,
    pub(super) supervisor: Addr<Supervisor>,
}

impl Router {
    /// Hands a message to the actor of its sensor, which is started if need be.
    #[expect(
        clippy::disallowed_methods,
        reason = "the inbound window bounds what is in flight, and a send().await per message costs 49 µs"
    )]
    pub fn route(&self, uplink: Box<Uplink>) {
        let mut registry = self.registry.borrow_mut();
        if registry.route(uplink) == Routed::Waits {
            self.supervisor.do_send(Resolve);
        }
    }

    /// Brings a message to the writer past its sensor's actor, which it has stopped too often.
    pub fn bypass_actor(&self, uplink: Box<Uplink>) {
        self.registry.borrow().ways.up.pass(uplink);
    }

    /// For those who ask about sensors, or tell of them.
    #[must_use]
    pub fn supervisor(&self) -> Addr<Supervisor> {
        self.supervisor.clone()
    }

    /// Starts the actor of a sensor that nobody has looked up, and gives it what waits: for benches
    /// and tests that have no database.
    #[doc(hidden)]
    pub fn admit(&self, known: &KnownSensor) {
        let mut registry = self.registry.borrow_mut();
        match registry.slots.get(&known.identifier) {
            Some(Slot::Active { address, .. }) if address.connected() => return,
            Some(Slot::Unresolved(_)) => {}
            Some(Slot::Active { .. }) | None => {
                registry.slots.insert(known.identifier, Slot::Unresolved(Waiting::default()));
            }
        }
        registry.start(known);
    }

    /// The look-up of a sensor finds none: for tests that have no database.
    #[cfg(test)]
    pub(crate) fn refuse(&self, sensor: SensorIdentifier) {
        self.registry.borrow_mut().reject(sensor);
    }

    /// Whether those who look sensors up are still there.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.supervisor.connected()
    }
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Routed {
    /// It is on its way.
    Sent,
    /// It is the first that waits for the look-up of its sensor.
    Waits,
    /// It waits behind others.
    Queued,
}

#[derive(Debug)]
enum Slot {
    Active {
        address: Addr<SensorActor>,
        heard_at: Timestamp,
        /// The `heard_at` that the table has.
        noted_at: Timestamp,
        /// None since it was moved, until the table is read again.
        network: Option<NetworkIdentifier>,
    },
    Unresolved(Waiting),
}

/// What the actor of a sensor gets once the sensor is looked up.
#[derive(Debug, Default)]
struct Waiting {
    #[expect(clippy::vec_box, reason = "they come boxed and go boxed")]
    uplinks: Vec<Box<Uplink>>,
    /// A revision that was posted since the look-up began, which may not have seen it.
    desired: Option<i32>,
    /// It was moved since then, as well.
    is_moved: bool,
}

/// Every sensor that is spoken to.
#[derive(Debug)]
pub(super) struct Registry {
    slots: foldhash::HashMap<SensorIdentifier, Slot>,
    unresolved: Vec<SensorIdentifier>,
    /// Sensors that went somewhere else, or away: what was read of networks before does not count.
    moves: u64,
    ways: Rc<Ways>,
    metrics: std::sync::Arc<Metrics>,
}

impl Registry {
    pub(super) fn new(ways: Rc<Ways>, metrics: std::sync::Arc<Metrics>) -> Self {
        Self {
            slots: foldhash::HashMap::default(),
            unresolved: Vec::new(),
            moves: 0,
            ways,
            metrics,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the inbound window bounds what is in flight, and a send().await per message costs 49 µs"
    )]
    fn route(&mut self, uplink: Box<Uplink>) -> Routed {
        let Some(sensor) = uplink.sensor else {
            self.ways.up.pass(uplink);
            return Routed::Sent;
        };
        match self.slots.get_mut(&sensor) {
            Some(Slot::Active { address, heard_at, .. }) if address.connected() => {
                // What is replayed was heard long ago.
                *heard_at = (*heard_at).max(uplink.message.received_at);
                address.do_send(Hear(uplink));
                Routed::Sent
            }
            Some(Slot::Unresolved(waiting)) => {
                waiting.uplinks.push(uplink);
                Routed::Queued
            }
            // None, or one that a panic has ended: what it knew is in the tables.
            gone => {
                if gone.is_some() {
                    tracing::warn!(%sensor, "the actor of a sensor failed; it is started again");
                    self.metrics.actors_restarted.inc();
                    self.metrics.actors_alive.dec();
                }
                let waiting = Waiting { uplinks: vec![uplink], ..Waiting::default() };
                self.slots.insert(sensor, Slot::Unresolved(waiting));
                self.unresolved.push(sensor);
                Routed::Waits
            }
        }
    }

    /// Sensors to look up, so many at the most.
    pub(super) fn take_unresolved(&mut self, most: usize) -> Vec<SensorIdentifier> {
        let rest = self.unresolved.split_off(most.min(self.unresolved.len()));
        std::mem::replace(&mut self.unresolved, rest)
    }

    /// How many wait to be looked up.
    pub(super) const fn unresolved(&self) -> usize {
        self.unresolved.len()
    }

    /// They could not be looked up; they are taken again.
    pub(super) fn put_back(&mut self, sensors: Vec<SensorIdentifier>) {
        self.unresolved.extend(sensors);
    }

    /// Starts the actor of a sensor that there is, and gives it what waits.
    #[expect(clippy::disallowed_methods, reason = "what waits holds places in the inbound window")]
    pub(super) fn start(&mut self, known: &KnownSensor) {
        let Some(Waiting { uplinks, desired, is_moved }) = self.take_waiting(known.identifier)
        else {
            return;
        };
        let address = SensorActor::new(known, Rc::clone(&self.ways)).start();
        self.metrics.actors_started.inc();
        self.metrics.actors_alive.inc();
        let now = Timestamp::now();
        // What is replayed was heard long ago.
        let heard_at = uplinks.iter().map(|uplink| match uplink.message.replayed_from {
            Some(_) => uplink.message.received_at,
            None => now,
        });
        let heard_at = heard_at.max().unwrap_or(now);
        let noted_at = Timestamp::default();
        if let Some(revision) = desired {
            address.do_send(Desire(revision));
        }
        for uplink in uplinks {
            address.do_send(Hear(uplink));
        }
        let network = (!is_moved).then_some(known.network);
        let slot = Slot::Active { address, heard_at, noted_at, network };
        self.slots.insert(known.identifier, slot);
    }

    /// What waits for the look-up of a sensor; none where its actor is at work, which stays.
    fn take_waiting(&mut self, sensor: SensorIdentifier) -> Option<Waiting> {
        match self.slots.entry(sensor) {
            Entry::Occupied(slot) if matches!(slot.get(), Slot::Unresolved(_)) => {
                match slot.remove() {
                    Slot::Unresolved(waiting) => Some(waiting),
                    Slot::Active { .. } => unreachable!("it was looked at before"),
                }
            }
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        }
    }

    /// There is no such sensor: what waits for it is rejected.
    pub(super) fn reject(&mut self, sensor: SensorIdentifier) {
        let Some(waiting) = self.take_waiting(sensor) else { return };
        for mut uplink in waiting.uplinks {
            uplink.reject(Reason::UnknownSensor, format!("there is no sensor {sensor}"));
            self.ways.up.pass(uplink);
        }
    }

    /// A revision is committed: the sensor's actor, now or once there is one, measures it by that.
    #[expect(clippy::disallowed_methods, reason = "one per HTTP request, and each was awaited")]
    pub(super) fn desire(&mut self, sensor: SensorIdentifier, revision: i32) {
        match self.slots.get_mut(&sensor) {
            Some(Slot::Active { address, .. }) => address.do_send(Desire(revision)),
            Some(Slot::Unresolved(waiting)) => {
                waiting.desired = waiting.desired.max(Some(revision));
            }
            None => {}
        }
    }

    /// It belongs to another network from now on; to which, the next note tells.
    pub(super) fn moved(&mut self, sensor: SensorIdentifier) {
        self.moves += 1;
        match self.slots.get_mut(&sensor) {
            Some(Slot::Active { network, noted_at, .. }) => {
                (*network, *noted_at) = (None, Timestamp::default());
            }
            Some(Slot::Unresolved(waiting)) => waiting.is_moved = true,
            None => {}
        }
    }

    /// How many sensors were moved or deleted so far.
    pub(super) const fn moves(&self) -> u64 {
        self.moves
    }

    /// A sensor is no more.
    pub(super) fn deleted(&mut self, sensor: SensorIdentifier) {
        self.moves += 1;
        self.retire(sensor);
    }

    /// To which network a sensor belongs, where that is known.
    pub(super) fn network(&self, sensor: SensorIdentifier) -> Option<NetworkIdentifier> {
        match self.slots.get(&sensor) {
            Some(Slot::Active { network, .. }) => *network,
            Some(Slot::Unresolved(_)) | None => None,
        }
    }

    pub(super) fn address(&self, sensor: SensorIdentifier) -> Option<Addr<SensorActor>> {
        match self.slots.get(&sensor) {
            Some(Slot::Active { address, .. }) => Some(address.clone()),
            Some(Slot::Unresolved(_)) | None => None,
        }
    }

    /// Lets go of an actor. Nobody sends to it any more, so what it has in its mailbox comes first
    /// and this last.
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

    /// Sensors that were heard since that was last noted, so many at the most: those first of which
    /// the table is furthest behind.
    pub(super) fn heard(&self, most: usize) -> Vec<(SensorIdentifier, Timestamp)> {
        let mut behind: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(sensor, slot)| match slot {
                Slot::Active { heard_at, noted_at, .. } if heard_at > noted_at => {
                    Some((*noted_at, *sensor, *heard_at))
                }
                Slot::Active { .. } | Slot::Unresolved(_) => None,
            })
            .collect();
        if behind.len() > most {
            behind.select_nth_unstable(most);
            behind.truncate(most);
        }
        behind.into_iter().map(|(_, sensor, heard_at)| (sensor, heard_at)).collect()
    }

    /// The table has these, and tells to which networks they belong.
    pub(super) fn noted(
        &mut self,
        heard: &[(SensorIdentifier, Timestamp)],
        networks: &[(SensorIdentifier, NetworkIdentifier)],
    ) {
        for (sensor, of) in networks {
            if let Some(Slot::Active { network, .. }) = self.slots.get_mut(sensor) {
                *network = Some(*of);
            }
        }
        for (sensor, at) in heard {
            if let Some(Slot::Active { noted_at, .. }) = self.slots.get_mut(sensor) {
                *noted_at = *at;
            }
        }
    }

    /// Lets go of all actors whose sensors have been silent since.
    pub(super) fn retire_silent(&mut self, since: Timestamp) {
        let silent: Vec<SensorIdentifier> = self
            .slots
            .iter()
            .filter_map(|(sensor, slot)| match slot {
                Slot::Active { heard_at, .. } if *heard_at < since => Some(*sensor),
                Slot::Active { .. } | Slot::Unresolved(_) => None,
            })
            .collect();
        for sensor in silent {
            self.retire(sensor);
        }
    }
}
