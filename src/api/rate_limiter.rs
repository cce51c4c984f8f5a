//! Token buckets, one per key. Used for requests, for failed sign-ins and for sign-in attempts. Pure: the caller passes
//! the time. The number of buckets is bounded; a key that was evicted starts with a full one.

use std::hash::Hash;
use std::time::{Duration, Instant};

/// Of some tens of bytes each.
const MAX_REMEMBERED: usize = 20_000;

/// `burst` at once, then one per `interval`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestRate {
    pub(super) burst: u32,
    pub(super) interval: Duration,
}

#[derive(Debug)]
pub(super) struct RateLimiter<K> {
    rate: RequestRate,
    /// When each bucket is full again; full ones can be evicted.
    full_at: foldhash::HashMap<K, Instant>,
}

impl<K: Eq + Hash + Clone> RateLimiter<K> {
    pub(super) fn new(rate: RequestRate) -> Self {
        Self { rate, full_at: foldhash::HashMap::default() }
    }

    /// Takes one token, or returns how long to wait for one.
    pub(super) fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        let RequestRate { burst, interval } = self.rate;
        let full_at = self.full_at.get(key).copied().unwrap_or(now).max(now);
        let missing = full_at - now;
        let room = interval * burst.saturating_sub(1);
        if missing > room {
            return Err(missing - room);
        }
        if self.full_at.len() >= MAX_REMEMBERED && !self.full_at.contains_key(key) {
            self.forget_some(now);
        }
        self.full_at.insert(key.clone(), full_at + interval);
        Ok(())
    }

    /// How many were taken and have not come back.
    pub(super) fn used(&self, key: &K, now: Instant) -> u32 {
        let missing = self
            .full_at
            .get(key)
            .map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        let used = missing.as_nanos().div_ceil(self.rate.interval.as_nanos().max(1));
        u32::try_from(used).unwrap_or(u32::MAX)
    }

    pub(super) fn put_back(&mut self, key: &K) {
        if let Some(full_at) = self.full_at.get_mut(key) {
            *full_at = full_at.checked_sub(self.rate.interval).unwrap_or(*full_at);
        }
    }

    /// Evicts full buckets, and if that is not enough, the fuller half.
    fn forget_some(&mut self, now: Instant) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() < MAX_REMEMBERED {
            return;
        }
        let mut times: Vec<Instant> = self.full_at.values().copied().collect();
        let middle = times.len() / 2;
        let median = *times.select_nth_unstable(middle).1;
        self.full_at.retain(|_, full_at| *full_at > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: RequestRate = RequestRate { burst: 3, interval: Duration::from_secs(10) };

    #[test]
    fn after_a_burst_one_is_admitted_per_interval() {
        let mut allowances = RateLimiter::new(RATE);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(allowances.take(&"a", start), Ok(()));
        }
        assert_eq!(allowances.take(&"a", start), Err(Duration::from_secs(10)));
        assert_eq!(allowances.take(&"b", start), Ok(()), "each has its own");
        assert_eq!([&"a", &"b", &"c"].map(|key| allowances.used(key, start)), [3, 1, 0]);
        let later = start + Duration::from_secs(9);
        assert_eq!(allowances.take(&"a", later), Err(Duration::from_secs(1)));
        let later = start + Duration::from_secs(10);
        assert_eq!(allowances.take(&"a", later), Ok(()));
        assert!(allowances.take(&"a", later).is_err());
        let much_later = start + Duration::from_secs(1_000);
        for _ in 0..3 {
            assert_eq!(allowances.take(&"a", much_later), Ok(()));
        }
        assert!(allowances.take(&"a", much_later).is_err(), "a bucket holds no more than it can");
    }

    #[test]
    fn a_returned_permit_can_be_taken_again() {
        let mut allowances = RateLimiter::new(RATE);
        let now = Instant::now();
        for _ in 0..100 {
            assert_eq!(allowances.take(&"a", now), Ok(()));
            allowances.put_back(&"a");
        }
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let mut allowances = RateLimiter::new(RATE);
        let now = Instant::now();
        allowances.take(&u64::MAX, now).unwrap();
        allowances.take(&u64::MAX, now).unwrap();
        allowances.take(&u64::MAX, now).unwrap();
        for key in 0..3 * MAX_REMEMBERED as u64 {
            allowances.take(&key, now).unwrap();
            assert!(allowances.full_at.len() <= MAX_REMEMBERED);
        }
        assert!(allowances.take(&u64::MAX, now).is_err(), "who took most is remembered longest");
    }
}
