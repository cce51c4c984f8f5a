//! How many messages are due. Pure arithmetic on elapsed time, asked by the publisher of each connection
//! whenever it wakes. Never more messages fall due than were asked for, and catching up is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When messages fall due.
#[derive(Clone, Debug)]
pub(crate) enum Rate {
    /// As fast as the broker acknowledges them.
    Unlimited,
    /// Evenly, more than 0 messages per second.
    PerSecond(f64),
    /// Part of a number of messages per second that is changed from outside.
    Governed { per_second: Arc<AtomicU64>, share: f64 },
    /// When batches of a recorded series are complete, counted from its first row and never falling.
    /// A batch is this many messages; `speed` is seconds of the series per second.
    Recorded { offsets: Arc<[Duration]>, speed: f64, messages: f64 },
}

impl Rate {
    /// Of several sensors, or of a part of the connections.
    pub(crate) fn times(&self, factor: f64) -> Self {
        let mut rate = self.clone();
        match &mut rate {
            Self::Unlimited => {}
            Self::PerSecond(it) => *it *= factor,
            Self::Governed { share, .. } => *share *= factor,
            Self::Recorded { messages, .. } => *messages *= factor,
        }
        rate
    }
}

/// How many of the due messages have been published.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    rate: Rate,
    /// Messages that may be published late after a delay; older ones are skipped.
    max_backlog: u64,
    advanced_to: Duration,
    /// Due since the start, including a fraction of the next one.
    accrued: f64,
    sent: u64,
    skipped: u64,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        let advanced_to = Duration::ZERO;
        Self { rate, max_backlog: u64::MAX, advanced_to, accrued: 0.0, sent: 0, skipped: 0 }
    }

    /// After a delay, makes up for one second and skips the rest.
    pub(crate) fn skipping(mut self) -> Self {
        if let Rate::PerSecond(per_second) = self.rate {
            self.max_backlog = (per_second as u64).max(1);
        }
        self
    }

    /// Messages due now, `elapsed` after the start.
    pub(crate) fn due(&mut self, elapsed: Duration) -> u64 {
        if self.is_unlimited() {
            return u64::MAX;
        }
        let total = if let Rate::Recorded { offsets, speed, messages } = &self.rate {
            let position = elapsed.as_secs_f64() * speed;
            whole(offsets.partition_point(|it| it.as_secs_f64() <= position) as f64 * messages)
        } else {
            let time = elapsed.saturating_sub(self.advanced_to);
            self.accrued += time.as_secs_f64() * self.per_second();
            self.advanced_to = elapsed;
            whole(self.accrued)
        };
        let owed = total.saturating_sub(self.sent + self.skipped);
        self.skipped += owed.saturating_sub(self.max_backlog);
        owed.min(self.max_backlog)
    }

    /// Counts one message that was due as published.
    pub(crate) fn sent(&mut self) {
        self.sent += 1;
    }

    /// When the next message falls due, counted from the start.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        match &self.rate {
            Rate::Unlimited => Some(Duration::ZERO),
            Rate::Recorded { offsets, speed, messages } => offsets
                .get((self.sent as f64 / messages) as usize)
                .map(|offset| offset.div_f64(*speed)),
            Rate::PerSecond(_) | Rate::Governed { .. } => {
                let missing = (self.sent + self.skipped + 1) as f64 - self.accrued;
                let wait =
                    Duration::try_from_secs_f64(missing.max(0.0) / self.per_second()).ok()?;
                Some(self.advanced_to + wait)
            }
        }
    }

    pub(crate) fn is_unlimited(&self) -> bool {
        matches!(self.rate, Rate::Unlimited)
    }

    /// Messages that were not published when they were due, because of delays.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    fn per_second(&self) -> f64 {
        match &self.rate {
            Rate::PerSecond(rate) => *rate,
            Rate::Governed { per_second, share } => {
                per_second.load(Ordering::Relaxed) as f64 * share
            }
            Rate::Unlimited | Rate::Recorded { .. } => f64::INFINITY,
        }
    }
}

/// The millionth that is added keeps 30 s at 0.7/s from being 20.
fn whole(messages: f64) -> u64 {
    (messages + 1e-6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn publish(pace: &mut Pace, elapsed: Duration) -> u64 {
        let due = pace.due(elapsed);
        (0..due).for_each(|_| pace.sent());
        due
    }

    #[test]
    fn catching_up_is_bounded_where_messages_may_be_skipped() {
        let mut pace = Pace::new(Rate::PerSecond(100.0));
        assert_eq!(pace.clone().due(MS * 10_000), 1_000);
        pace = pace.skipping();
        assert_eq!(publish(&mut pace, MS * 10_000), 100);
        assert_eq!((pace.due(MS * 10_000), pace.skipped()), (0, 900));
        assert_eq!(pace.next_at(), Some(MS * 10_010));
    }

    #[test]
    fn a_changed_rate_applies_at_once() {
        let per_second = Arc::new(AtomicU64::new(200));
        let rate = Rate::Governed { per_second: Arc::clone(&per_second), share: 1.0 };
        let mut pace = Pace::new(rate.times(0.5));
        assert_eq!(publish(&mut pace, MS * 1_000), 100);
        per_second.store(20, Ordering::Relaxed);
        assert_eq!(publish(&mut pace, MS * 2_000), 10);
        assert_eq!(pace.next_at(), Some(MS * 2_100));
    }

    #[test]
    fn a_recorded_series_keeps_its_gaps() {
        let offsets = [0, 3_600, 7_200].map(Duration::from_secs).into();
        let rate = Rate::Recorded { offsets, speed: 3_600.0, messages: 1.0 }.times(2.0);
        let mut pace = Pace::new(rate).skipping();
        assert_eq!(publish(&mut pace, Duration::ZERO), 2);
        assert_eq!((pace.due(MS * 999), pace.next_at()), (0, Some(MS * 1_000)));
        assert_eq!((publish(&mut pace, MS * 5_000), pace.next_at()), (4, None));
    }

    proptest! {
        #[test]
        fn the_number_of_due_messages_follows_the_rate(
            per_second in 0.01f64..10_000.0,
            gaps in prop::collection::vec(0u64..3_000, 1..50),
        ) {
            let mut pace = Pace::new(Rate::PerSecond(per_second)).skipping();
            let (mut elapsed, mut published) = (Duration::ZERO, 0);
            for gap in gaps {
                elapsed += MS * u32::try_from(gap).unwrap();
                published += publish(&mut pace, elapsed);
                let asked = whole(elapsed.as_secs_f64() * per_second);
                prop_assert!(asked.abs_diff(published + pace.skipped()) <= 1);
                prop_assert!(pace.next_at().unwrap() + MS > elapsed);
            }
        }
    }
}
