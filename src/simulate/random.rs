//! Chance that repeats: the same seed and stream say the same on every machine and in every
//! release, which no generator of the `rand` crate promises. Used by whatever the fleet invents.

/// SplitMix64: eight bytes a sensor, a nanosecond a number, good enough for weather.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// One of many streams of a seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        // Mixed once, so that neighbouring seeds and streams share no stretch of numbers.
        let mut random = Self(seed ^ Self(stream).bits().rotate_left(32));
        random.bits();
        random
    }

    /// The next 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A whole number from 0 below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        let scaled = ((self.bits() >> 32) * u64::from(bound)) >> 32;
        u32::try_from(scaled).expect("a product below 2^64 shifted by 32 fits")
    }

    /// A whole number from `-reach` to `reach`.
    pub(super) fn around_zero(&mut self, reach: i32) -> i32 {
        let offset = self.below(reach.unsigned_abs() * 2 + 1);
        i32::try_from(offset).expect("twice a small reach fits") - reach
    }

    /// One of them.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let count = u32::try_from(choices.len()).expect("a list written in the source is short");
        choices[self.below(count) as usize]
    }

    /// Whether an event that has this share of all cases (0 to 1) happens now.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept, and they fit")]
    pub(super) fn hits(&mut self, share: f64) -> bool {
        // No draw where there is nothing to decide: a share of 0 leaves the stream as it is.
        share > 0.0 && ((self.bits() >> 11) as f64) < share * (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another number here would change what every seed stands for.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut random = Random(0);
        // The first output of SplitMix64 for seed 0, as its authors publish it.
        assert_eq!(random.bits(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn streams_differ() {
        let mut seen = std::collections::HashSet::new();
        for seed in 0..100 {
            for stream in 0..100 {
                assert!(seen.insert(Random::new(seed, stream).bits()));
            }
        }
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::new(1, 1);
        let drawn: std::collections::BTreeSet<u32> = (0..1_000).map(|_| random.below(5)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!((0..1_000).map(|_| random.around_zero(3)).all(|drawn| (-3..=3).contains(&drawn)));
    }

    #[test]
    fn a_share_is_kept() {
        let mut random = Random::new(7, 0);
        let hits = (0..100_000).filter(|_| random.hits(0.05)).count();
        assert!((4_500..5_500).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| random.hits(1.0)));
        assert!(!(0..1_000).any(|_| random.hits(0.0)));
    }
}
