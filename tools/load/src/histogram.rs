//! A log-linear histogram of nanoseconds: 128 steps per power of two, so a value is known to 0.8 %.

use std::time::Duration;

const STEP_BITS: u32 = 7;
const STEPS: usize = 1 << STEP_BITS;

/// Counts durations from 1 ns to hours in fixed memory (58 KiB).
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = (64 - STEP_BITS as usize + 1) * STEPS;
        Self { counts: vec![0; buckets], count: 0, sum: 0, max: 0 }
    }
}

fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(STEP_BITS + 1);
    ((shift as usize) << STEP_BITS) + (value >> shift) as usize
}

/// The highest value that falls into a bucket.
fn ceiling(bucket: usize) -> u64 {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let shift = (bucket >> STEP_BITS) as u32 - 1;
    let step = (bucket - ((shift as usize) << STEP_BITS)) as u128;
    u64::try_from(((step + 1) << shift) - 1).unwrap_or(u64::MAX)
}

impl Histogram {
    pub fn record(&mut self, value: Duration) {
        let value = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    /// Adds what another one counted; exact.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Zero if nothing was recorded.
    pub fn mean(&self) -> Duration {
        let mean = self.sum / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The smallest recorded value that at least `share` (0 to 1) of all do not exceed, rounded up to its bucket.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(ceiling(bucket).min(self.max));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_within_a_percent() {
        for value in (0..64).flat_map(|bit| [1u64 << bit, (1 << bit) + (1 << bit) / 3, u64::MAX]) {
            let top = ceiling(bucket(value));
            assert!(top >= value && (top - value) as f64 <= value as f64 * 0.008, "{value} {top}");
            assert!(bucket(value) < Histogram::default().counts.len());
        }
    }

    #[test]
    fn quantiles_of_a_ramp_are_its_values() {
        let mut ramp = Histogram::default();
        for value in 1..=1000 {
            ramp.record(Duration::from_micros(value));
        }
        let close = |got: Duration, us: f64| (got.as_secs_f64() * 1e6 / us - 1.0).abs() < 0.01;
        assert!(close(ramp.quantile(0.5), 500.0));
        assert!(close(ramp.quantile(0.99), 990.0));
        assert_eq!(ramp.quantile(1.0), Duration::from_millis(1));
        assert_eq!(ramp.mean(), Duration::from_nanos(500_500));
        let mut twice = ramp.clone();
        twice.merge(&ramp);
        assert_eq!(twice.count(), 2000);
        assert_eq!(twice.quantile(0.5), ramp.quantile(0.5));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
