//! The configurations that the broker did not take, and when each is tried again. Used by the outbox. Pure:
//! a refused one backs off by itself, and a newer revision is tried at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::domain::{SensorIdentifier, refusal_pause};

/// Why a configuration was not published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// As in the metrics.
    pub cause: &'static str,
    /// A sentence for log and API.
    pub problem: String,
}

impl Refusal {
    /// The broker has said that it does not take it; else it may have it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.cause, "refused" | "too_large")
    }
}

/// Shortest wait for one that was due and not tried, such as one behind a full page.
const OVERDUE_PAUSE: Duration = Duration::from_secs(1);

/// So long after it was due, it is forgotten: it is not in the tables any more.
const OBSOLETE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Entry {
    /// None: the clearance of a deleted sensor.
    revision: Option<i32>,
    refusals: u32,
    due_at: Instant,
}

/// Those that were refused.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    entries: BTreeMap<SensorIdentifier, Entry>,
    /// Asked for while a round has the entries.
    forced: BTreeSet<SensorIdentifier>,
}

impl Refusals {
    /// Whether this may be sent now.
    pub(super) fn is_due(
        &self,
        sensor: SensorIdentifier,
        revision: Option<i32>,
        now: Instant,
    ) -> bool {
        self.entries
            .get(&sensor)
            .is_none_or(|entry| entry.revision != revision || entry.due_at <= now)
    }

    /// Refused once more; how long it waits.
    pub(super) fn add(
        &mut self,
        sensor: SensorIdentifier,
        revision: Option<i32>,
        now: Instant,
    ) -> Duration {
        let before = self.entries.get(&sensor).filter(|entry| entry.revision == revision);
        let refusals = before.map_or(0, |entry| entry.refusals).saturating_add(1);
        let pause = refusal_pause(refusals);
        self.entries.insert(sensor, Entry { revision, refusals, due_at: now + pause });
        pause
    }

    pub(super) fn remove(&mut self, sensor: SensorIdentifier) {
        self.entries.remove(&sensor);
    }

    pub(super) fn contains(&self, sensor: SensorIdentifier) -> bool {
        self.entries.contains_key(&sensor)
    }

    /// Its next attempt is now.
    pub(super) fn force(&mut self, sensor: SensorIdentifier) {
        match self.entries.get_mut(&sensor) {
            Some(entry) => entry.due_at = entry.due_at.min(Instant::now()),
            None => {
                self.forced.insert(sensor);
            }
        }
    }

    /// Those that `other` was asked for.
    pub(super) fn force_all(&mut self, other: &Self) {
        for sensor in &other.forced {
            if self.contains(*sensor) {
                self.force(*sensor);
            }
        }
        self.forced.clear();
    }

    /// How long until the next one is due.
    pub(super) fn next_attempt(&mut self, now: Instant) -> Option<Duration> {
        self.entries.retain(|_, entry| entry.due_at + OBSOLETE > now);
        let next = self.entries.values().map(|entry| entry.due_at).min()?;
        Some(next.saturating_duration_since(now).max(OVERDUE_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_revision_waits_and_a_newer_one_does_not() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let sensor = SensorIdentifier::random();
        assert_eq!(refusals.add(sensor, Some(1), now), Duration::from_secs(1));
        assert!(!refusals.is_due(sensor, Some(1), now));
        assert!(refusals.is_due(sensor, Some(2), now));
        assert!(refusals.is_due(SensorIdentifier::random(), Some(1), now));
        assert_eq!(refusals.next_attempt(now), Some(Duration::from_secs(1)));
        assert_eq!(refusals.add(sensor, Some(1), now), Duration::from_secs(4));
        assert_eq!(refusals.add(sensor, Some(2), now), Duration::from_secs(1));
        refusals.force(sensor);
        assert!(refusals.is_due(sensor, Some(2), Instant::now()));
        assert!(refusals.next_attempt(now + Duration::from_secs(100)).is_none());
    }
}
