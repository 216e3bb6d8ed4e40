//! Rates: a token bucket in whole numbers, so that it never drifts.

use std::time::Duration;

use super::instant::Instant;

const NS_PER_S: i64 = 1_000_000_000;

/// Allows `burst` at once and `rate_per_s` over time. 24 bytes; keeps no timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens times 10⁹: each nanosecond adds `rate_per_s`. Below zero after a large take.
    credit: i64,
    since: Instant,
    rate_per_s: u32,
    burst: u32,
}

impl Bucket {
    /// A full bucket. With a rate of 0 it never fills again.
    pub fn new(rate_per_s: u32, burst: u32, now: Instant) -> Bucket {
        Bucket { credit: i64::from(burst) * NS_PER_S, since: now, rate_per_s, burst }
    }

    /// Takes `n` tokens if they are there.
    ///
    /// More than `burst` are given by a full bucket, which then stays in debt until they are paid for: so one large
    /// input passes, late, and the rate holds.
    pub fn take(&mut self, n: u32, now: Instant) -> bool {
        self.fill(now);
        if self.credit < self.price(n) {
            return false;
        }
        self.credit -= i64::from(n) * NS_PER_S;
        true
    }

    /// How long until `take(n)` succeeds if nothing else is taken: zero if it would now, `Duration::MAX` if never.
    pub fn wait(&self, n: u32, now: Instant) -> Duration {
        let mut filled = *self;
        filled.fill(now);
        let missing = self.price(n).saturating_sub(filled.credit);
        match (u64::try_from(missing), u64::from(self.rate_per_s)) {
            (Err(_) | Ok(0), _) => Duration::ZERO,
            (Ok(_), 0) => Duration::MAX,
            (Ok(missing), rate) => Duration::from_nanos(missing.div_ceil(rate)),
        }
    }

    fn price(&self, n: u32) -> i64 {
        i64::from(n.min(self.burst)) * NS_PER_S
    }

    fn fill(&mut self, now: Instant) {
        let elapsed_ns = i128::from(now.0.saturating_sub(self.since.0));
        let full = i64::from(self.burst) * NS_PER_S;
        let credit = i128::from(self.credit) + elapsed_ns * i128::from(self.rate_per_s);
        self.credit = i64::try_from(credit).map_or(full, |credit| credit.min(full));
        self.since = self.since.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ns: u64) -> Instant {
        Instant(ns)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(10, 5, at(0));
        assert!((0..5).all(|_| bucket.take(1, at(0))));
        assert!(!bucket.take(1, at(0)));
        assert_eq!(bucket.wait(1, at(0)), Duration::from_millis(100));
        assert!(!bucket.take(1, at(99_999_999)));
        assert!(bucket.take(1, at(100_000_000)));
        assert!(!bucket.take(6, at(500_000_000)));
    }

    #[test]
    fn odd_rates_do_not_drift() {
        let mut bucket = Bucket::new(3, 2, at(0));
        let (mut taken, mut now) = (0u64, 0);
        while now <= 1_000 * 1_000_000_000 {
            taken += u64::from(bucket.take(1, at(now)));
            now += u64::try_from(bucket.wait(1, at(now)).as_nanos()).unwrap_or(u64::MAX);
        }
        assert_eq!(taken, 3_002);
    }

    #[test]
    fn more_than_the_burst_is_paid_for_afterwards() {
        let mut bucket = Bucket::new(100, 10, at(0));
        assert!(bucket.take(110, at(0)));
        assert_eq!(bucket.wait(10, at(0)), Duration::from_millis(1100));
        assert!(bucket.take(10, at(1_100_000_000)));
    }

    #[test]
    fn extremes_neither_overflow_nor_end() {
        let mut bucket = Bucket::new(u32::MAX, u32::MAX, at(0));
        assert!(bucket.take(u32::MAX, at(u64::MAX)));
        assert!(bucket.take(0, at(0)));
        let mut never = Bucket::new(0, 1, at(0));
        assert!(never.take(1, at(0)));
        assert_eq!(never.wait(1, at(u64::MAX)), Duration::MAX);
        assert_eq!(never.wait(0, at(u64::MAX)), Duration::ZERO);
    }
}
