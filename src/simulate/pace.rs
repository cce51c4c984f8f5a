//! How many messages are due. Pure arithmetic on elapsed time; asked by each connection whenever
//! it wakes. It never falls due more often than was asked for, and catching up is bounded.

use std::rc::Rc;
use std::time::Duration;

/// When messages fall due.
#[derive(Clone, Debug)]
pub(super) enum Beat {
    /// So many a second, evenly.
    Steady {
        /// More than 0.
        per_second: f64,
    },
    /// All at once: as fast as they can be said.
    AtOnce,
    /// As they were recorded.
    Recorded {
        /// When each batch of the series is complete, counted from its first row; never falling.
        offsets: Rc<[Duration]>,
        /// Seconds of the series in a second of ours.
        speed: f64,
        /// Sensors that play it, a message each and batch.
        sensor_count: u64,
    },
}

/// What was said, and what is to be said yet.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    beat: Beat,
    said: u64,
    skipped: u64,
    limit: Option<u64>,
}

/// A fleet that could not speak for longer than this skips what it would have said before: a
/// second's worth is caught up.
const CATCH_UP: Duration = Duration::from_secs(1);

impl Pace {
    /// At most `limit` messages, where there is one.
    pub(super) fn new(beat: Beat, limit: Option<u64>) -> Self {
        Self { beat, said: 0, skipped: 0, limit }
    }

    /// How many are due now, this long after the start.
    pub(super) fn due(&mut self, elapsed: Duration) -> u64 {
        let left = self.limit.map_or(u64::MAX, |limit| limit - self.said);
        let owed = match &self.beat {
            Beat::AtOnce => left,
            Beat::Recorded { offsets, speed, sensor_count } => {
                let position = elapsed.as_secs_f64() * speed;
                let complete = offsets.partition_point(|offset| offset.as_secs_f64() <= position);
                (complete as u64 * sensor_count).saturating_sub(self.said)
            }
            Beat::Steady { per_second } => {
                let owed = count(elapsed, *per_second).saturating_sub(self.said + self.skipped);
                let most = count(CATCH_UP, *per_second).max(1);
                self.skipped += owed.saturating_sub(most);
                owed.min(most)
            }
        };
        owed.min(left)
    }

    /// So many of those that were due have been said.
    pub(super) fn say(&mut self, messages: u64) {
        self.said += messages;
    }

    /// When the next one falls due; none where there is no next one.
    pub(super) fn next_at(&self) -> Option<Duration> {
        if self.exhausted() {
            return None;
        }
        match &self.beat {
            Beat::AtOnce => Some(Duration::ZERO),
            Beat::Recorded { offsets, speed, sensor_count } => {
                let batch = usize::try_from(self.said / sensor_count).ok()?;
                offsets.get(batch).map(|offset| offset.div_f64(*speed))
            }
            #[expect(clippy::cast_precision_loss, reason = "2^53 messages are beyond any run")]
            Beat::Steady { per_second } => {
                let next = (self.said + self.skipped + 1) as f64 / per_second;
                Duration::try_from_secs_f64(next).ok()
            }
        }
    }

    /// Whether everything has been said.
    pub(super) fn exhausted(&self) -> bool {
        self.limit.is_some_and(|limit| self.said >= limit)
    }

    /// How many were never said because the fleet was held up. Where a number is to be said, what
    /// was held up is said later.
    pub(super) fn skipped(&self) -> u64 {
        if self.exhausted() { 0 } else { self.skipped }
    }
}

/// Whole messages in a time. The millionth that is added keeps 30 s at 0.7/s from being 20.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no time is negative")]
pub(super) fn count(time: Duration, per_second: f64) -> u64 {
    time.as_secs_f64().mul_add(per_second, 1e-6) as u64
}

/// The part of `total` that falls to the sensors `start .. end` of `count`. The parts of all add up.
pub(super) fn part(total: u64, start: usize, end: usize, count: usize) -> u64 {
    let until = |index: usize| u128::from(total) * index as u128 / count as u128;
    u64::try_from(until(end) - until(start)).expect("a part is no more than the whole")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn steady(per_second: f64, limit: Option<u64>) -> Pace {
        Pace::new(Beat::Steady { per_second }, limit)
    }

    #[test]
    fn says_just_what_was_asked_for() {
        let mut pace = steady(1_000.0, None);
        let mut said = 0;
        for tick in 0..=3_000 {
            let due = pace.due(MS * 10 * tick);
            pace.say(due);
            said += due;
        }
        assert_eq!((said, pace.skipped()), (30_000, 0));
    }

    #[test]
    fn catching_up_is_bounded() {
        let mut pace = steady(100.0, None);
        assert_eq!(pace.due(MS * 10_000), 100);
        pace.say(100);
        assert_eq!((pace.due(MS * 10_000), pace.skipped()), (0, 900));
        assert_eq!(pace.next_at(), Some(MS * 10_010));
    }

    #[test]
    fn a_slow_beat_still_beats() {
        let mut pace = steady(0.01, None);
        assert_eq!(pace.due(MS * 99_999), 0);
        assert_eq!(pace.next_at(), Some(MS * 100_000));
        assert_eq!(pace.due(MS * 100_000), 1);
    }

    #[test]
    fn ends_at_its_limit() {
        let mut pace = Pace::new(Beat::AtOnce, Some(7));
        assert_eq!(pace.due(Duration::ZERO), 7);
        pace.say(7);
        assert_eq!((pace.due(MS), pace.next_at()), (0, None));
        assert!(pace.exhausted());
    }

    #[test]
    fn a_recorded_series_keeps_its_gaps() {
        let offsets: Rc<[Duration]> = [0, 3_600, 7_200].map(Duration::from_secs).into();
        let beat = Beat::Recorded { offsets, speed: 3_600.0, sensor_count: 2 };
        let mut pace = Pace::new(beat, Some(6));
        assert_eq!(pace.due(Duration::ZERO), 2);
        pace.say(2);
        assert_eq!((pace.due(MS * 999), pace.next_at()), (0, Some(MS * 1_000)));
        assert_eq!(pace.due(MS * 5_000), 4);
        pace.say(3);
        assert_eq!(pace.due(MS * 5_000), 1);
    }

    proptest! {
        #[test]
        fn no_more_than_asked_for(
            per_second in 0.01f64..10_000.0,
            gaps in prop::collection::vec(0u64..3_000, 1..50),
        ) {
            let mut pace = steady(per_second, None);
            let mut elapsed = Duration::ZERO;
            let mut said = 0;
            for gap in gaps {
                elapsed += MS * u32::try_from(gap).unwrap();
                let due = pace.due(elapsed);
                pace.say(due);
                said += due;
                prop_assert!(said + pace.skipped() == count(elapsed, per_second));
                prop_assert!(pace.next_at().unwrap() + MS > elapsed);
            }
        }

        #[test]
        fn parts_add_up(total in 0u64..1_000_000, count in 1usize..100, cut in 0usize..100) {
            let cut = cut.min(count);
            prop_assert_eq!(part(total, 0, cut, count) + part(total, cut, count, count), total);
        }
    }
}
