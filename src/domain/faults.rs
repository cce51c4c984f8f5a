//! Faults that a test injects: panics at chosen points. Set by `TRIBUTARY_FAULTS` or a test; checked by
//! the actors, the writer and the inbound loop at each point. In production there are none.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Uplink;

type Predicate = Arc<dyn Fn(&Uplink) -> bool + Send + Sync>;

/// Where to panic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultPoint {
    /// In a sensor's actor, at a message.
    Actor,
    /// In the delivery of a batch.
    Delivery,
    /// In the inbound loop, at a read.
    Ingest,
}

impl FaultPoint {
    const ALL: [(&'static str, Self); 3] =
        [("actor", Self::Actor), ("delivery", Self::Delivery), ("ingest", Self::Ingest)];
}

/// When to panic.
#[derive(Clone, Default)]
pub struct Faults {
    actor_panics: Option<Predicate>,
    countdowns: Option<Arc<[AtomicU64; FaultPoint::ALL.len()]>>,
}

impl Faults {
    /// A sensor's actor panics at each message that matches.
    #[must_use]
    pub fn actor_panics(condition: impl Fn(&Uplink) -> bool + Send + Sync + 'static) -> Self {
        Self { actor_panics: Some(Arc::new(condition)), countdowns: None }
    }

    /// # Panics
    /// If the test injects a fault here.
    pub fn at_message(&self, uplink: &Uplink) {
        if let Some(condition) = &self.actor_panics {
            assert!(!condition(uplink), "a fault injected by a test");
        }
        self.at(FaultPoint::Actor);
    }

    /// # Panics
    /// If the test injects a fault here.
    pub fn at(&self, point: FaultPoint) {
        let Some(countdowns) = &self.countdowns else { return };
        // 0 means never; only the step from 1 to 0 panics.
        let passed =
            countdowns[point as usize]
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(passed != Ok(1), "a fault injected by a test: {point:?}");
    }
}

/// `actor=300,delivery=20`: the 300th message panics in its actor, the 20th batch in its delivery.
impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let countdowns: [AtomicU64; FaultPoint::ALL.len()] = Default::default();
        for part in text.split(',') {
            let point = part.split_once('=').and_then(|(name, count)| {
                let (_, point) = FaultPoint::ALL.into_iter().find(|(known, _)| *known == name)?;
                Some((point, count.parse().ok()?))
            });
            let Some((point, count)) = point else {
                return Err(format!("{part:?} is none of actor=N, delivery=N, ingest=N"));
            };
            countdowns[point as usize].store(count, Ordering::Relaxed);
        }
        Ok(Self { actor_panics: None, countdowns: Some(Arc::new(countdowns)) })
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Faults")
            .field("actor_panics", &self.actor_panics.is_some())
            .field("countdowns", &self.countdowns)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_once_at_its_count() {
        let faults: Faults = "delivery=2".parse().unwrap();
        let panics = |point| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| faults.at(point))).is_err()
        };
        assert!(!panics(FaultPoint::Actor));
        assert_eq!([(); 4].map(|()| panics(FaultPoint::Delivery)), [false, true, false, false]);
        assert!("delivery=2,roof=1".parse::<Faults>().is_err());
    }
}
