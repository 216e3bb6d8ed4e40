//! Numbers from a seed: the same on every machine.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each list of `parts`.
    pub fn new(seed: u64, parts: &[u64]) -> Self {
        let mut random = Self(seed);
        for part in parts {
            random.0 = random.draw().wrapping_add(*part);
        }
        random
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to `bound`, which is not reached; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 up to 1, which is not reached.
    pub fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponentially distributed with mean 1.
    pub fn gap(&mut self) -> f64 {
        -(1.0 - self.fraction()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_repeat_by_seed_and_differ_by_part() {
        let take = |seed, parts: &[u64]| {
            let mut random = Random::new(seed, parts);
            [random.draw(), random.draw()]
        };
        assert_eq!(take(1, &[2, 3]), take(1, &[2, 3]));
        assert_ne!(take(1, &[2, 3]), take(1, &[3, 2]));
        assert_ne!(take(1, &[2, 3]), take(2, &[2, 3]));
    }

    #[test]
    fn gaps_have_the_mean_1_and_bounds_are_kept() {
        let mut random = Random::new(7, &[]);
        let sum: f64 = (0..100_000).map(|_| random.gap()).sum();
        assert!((sum / 100_000.0 - 1.0).abs() < 0.02, "{sum}");
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
    }
}
