//! Faults that a test hands in. In production there are none.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Uplink;

type Condition = Arc<dyn Fn(&Uplink) -> bool + Send + Sync>;

/// Where something is to go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spot {
    /// A sensor's actor, at a message.
    Actor,
    /// The delivery of a batch.
    Delivery,
    /// The inbound loop, at a read.
    Ingest,
}

impl Spot {
    const ALL: [(&'static str, Self); 3] =
        [("actor", Self::Actor), ("delivery", Self::Delivery), ("ingest", Self::Ingest)];
}

/// What is to go wrong.
#[derive(Clone, Default)]
pub struct Faults {
    actor_panics: Option<Condition>,
    countdowns: Option<Arc<[AtomicU64; Spot::ALL.len()]>>,
}

impl Faults {
    /// A sensor's actor panics over the messages that fulfil this.
    #[must_use]
    pub fn actor_panics(condition: impl Fn(&Uplink) -> bool + Send + Sync + 'static) -> Self {
        Self { actor_panics: Some(Arc::new(condition)), countdowns: None }
    }

    /// # Panics
    /// When the test said so.
    pub fn strike_message(&self, uplink: &Uplink) {
        if let Some(condition) = &self.actor_panics {
            assert!(!condition(uplink), "a fault that a test handed in");
        }
        self.strike(Spot::Actor);
    }

    /// # Panics
    /// When the test said so.
    pub fn strike(&self, spot: Spot) {
        let Some(countdowns) = &self.countdowns else { return };
        // 0 is never; only the step from 1 to 0 strikes.
        let passed =
            countdowns[spot as usize]
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(passed != Ok(1), "a fault that a test handed in: {spot:?}");
    }
}

/// `actor=300,delivery=20`: the 300th message panics in its actor, the 20th batch in its delivery.
impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let countdowns: [AtomicU64; Spot::ALL.len()] = Default::default();
        for part in text.split(',') {
            let spot = part.split_once('=').and_then(|(name, count)| {
                let (_, spot) = Spot::ALL.into_iter().find(|(known, _)| *known == name)?;
                Some((spot, count.parse().ok()?))
            });
            let Some((spot, count)) = spot else {
                return Err(format!("{part:?} is none of actor=N, delivery=N, ingest=N"));
            };
            countdowns[spot as usize].store(count, Ordering::Relaxed);
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
    fn strikes_once_at_its_count() {
        let faults: Faults = "delivery=2".parse().unwrap();
        let strikes = |spot| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| faults.strike(spot))).is_err()
        };
        assert!(!strikes(Spot::Actor));
        assert_eq!([(); 4].map(|()| strikes(Spot::Delivery)), [false, true, false, false]);
        assert!("delivery=2,roof=1".parse::<Faults>().is_err());
    }
}
