//! The limit on stored rejections per sensor and hour (`REJECTIONS_PER_SENSOR_HOUR`). Applied by the
//! writer to each batch. Rejections over the limit are only counted, so that a defective sensor cannot
//! fill the disk. Of a message that is delivered again, the store records all items if one is within the limit.

use crate::domain::{Batch, Rejection, SensorIdentifier, Timestamp};

const MICROSECONDS_PER_HOUR: i64 = 3_600_000_000;

/// Sensors with their own budget; further ones share one, because an attacker can invent identifiers.
const MAX_BUDGETS: usize = 100_000;

/// The rejections of the current hour.
#[derive(Debug)]
pub(super) struct RejectionBudget {
    per_sensor: u32,
    hour: i64,
    spent: foldhash::HashMap<Option<SensorIdentifier>, u32>,
}

impl RejectionBudget {
    pub(super) fn new(per_sensor: u32) -> Self {
        Self { per_sensor, hour: 0, spent: foldhash::HashMap::default() }
    }

    /// Marks the rejections of a batch that are over the limit, and returns the number of their items.
    pub(super) fn apply(&mut self, batch: &mut Batch, now: Timestamp) -> u64 {
        let uplinks = batch.uplinks_mut().iter_mut();
        uplinks.map(|uplink| self.apply_to(&mut uplink.rejections, now)).sum()
    }

    /// As [`Self::apply`], for some rejections.
    pub(super) fn apply_to(&mut self, rejections: &mut [Rejection], now: Timestamp) -> u64 {
        let hour = now.unix_microseconds() / MICROSECONDS_PER_HOUR;
        if hour != self.hour {
            self.hour = hour;
            self.spent.clear();
        }
        let mut over_limit = 0;
        for rejection in rejections {
            rejection.kept = self.spend(rejection.sensor);
            if !rejection.kept {
                over_limit += u64::from(rejection.item_count);
            }
        }
        over_limit
    }

    fn spend(&mut self, sensor: Option<SensorIdentifier>) -> bool {
        let account = match sensor {
            Some(_) if self.spent.len() >= MAX_BUDGETS && !self.spent.contains_key(&sensor) => None,
            account => account,
        };
        let spent = self.spent.entry(account).or_default();
        *spent = spent.saturating_add(1);
        *spent <= self.per_sensor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AckTokens, RawMessage, Reason, Uplink};

    fn flood(sensor: Option<SensorIdentifier>, count: usize) -> Batch {
        let (ack_tokens, _lost) = AckTokens::new();
        let refused = |sequence| {
            let message = RawMessage::new("t", b"", Timestamp::default(), false);
            let mut uplink = Uplink { sensor, ..Uplink::new(message, ack_tokens.issue(sequence)) };
            uplink.reject(Reason::UnknownTopic, String::new());
            uplink.rejections[0].item_count = 2;
            Box::new(uplink)
        };
        Batch::new((0..count as u64).map(refused).collect())
    }

    fn kept(batch: &Batch) -> usize {
        batch.uplinks().iter().flat_map(|it| &it.rejections).filter(|it| it.kept).count()
    }

    #[test]
    fn rejections_are_bounded_per_sensor_and_hour() {
        let mut budget = RejectionBudget::new(3);
        let now = Timestamp::from_unix_microseconds(10 * MICROSECONDS_PER_HOUR);
        let defective = Some(SensorIdentifier::random());

        let mut batch = flood(defective, 5);
        assert_eq!(budget.apply(&mut batch, now), 2 * 2);
        assert_eq!(kept(&batch), 3);

        for other in [None, Some(SensorIdentifier::random())] {
            let mut batch = flood(other, 3);
            assert_eq!(budget.apply(&mut batch, now), 0);
        }

        let next_hour = Timestamp::from_unix_microseconds(11 * MICROSECONDS_PER_HOUR);
        let mut batch = flood(defective, 3);
        assert_eq!(budget.apply(&mut batch, next_hour), 0);
    }
}
