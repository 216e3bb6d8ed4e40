//! Rates: token buckets in whole numbers, so that they never drift.
//!
//! `Bucket` carries its rate with it. `Meter` is the same bucket in 8 bytes, for what there is one of per connection:
//! its rate, a `Rate`, is kept once for all.

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

/// What may come over time and at once. One for all that it limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that pay for one token, times 2²⁰; 0: no limit.
    price: u64,
    /// Nanoseconds that may be used in advance.
    ahead: u64,
}

impl Rate {
    /// Limits nothing.
    pub const FREE: Rate = Rate { price: 0, ahead: 0 };

    /// `per_s` tokens a second, and at once as many as come in `ahead`; with a `per_s` of 0 there is no limit.
    pub fn new(per_s: u32, ahead: Duration) -> Rate {
        match u64::from(per_s) {
            0 => Rate::FREE,
            per_s => Rate {
                price: ((1_000_000_000 << 20) / per_s).max(1),
                ahead: u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX),
            },
        }
    }

    /// `n` tokens at once, and a token again each `n`th part of `window`; with an `n` of 0 there is no limit. For windows
    /// of up to four hours.
    pub fn over(n: u32, window: Duration) -> Rate {
        let ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        match u64::from(n) {
            0 => Rate::FREE,
            n => Rate { price: (ns / n).saturating_mul(1 << 20).max(1), ahead: ns },
        }
    }

    fn cost(&self, n: u32) -> u64 {
        // Below 2⁶² for any price and number.
        u64::try_from((u128::from(self.price) * u128::from(n)) >> 20).unwrap_or(u64::MAX)
    }
}

/// What one peer has taken of a `Rate`: the moment at which all of it is paid for. 8 bytes; keeps no timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter(Instant);

impl Meter {
    /// Takes `n` tokens whether they are there or not.
    ///
    /// - gives: when more may be taken; `now` or before where that is at once
    /// - cost: a multiplication
    #[inline]
    pub fn charge(&mut self, n: u32, rate: &Rate, now: Instant) -> Instant {
        if rate.price == 0 {
            return Instant(0);
        }
        self.0 = Instant(self.0.max(now).0.saturating_add(rate.cost(n)));
        Instant(self.0.0.saturating_sub(rate.ahead))
    }

    /// Takes one token if it is there, else says when it will be.
    pub fn take(&mut self, rate: &Rate, now: Instant) -> Result<(), Instant> {
        let mut after = *self;
        let free_at = after.charge(1, rate, now);
        if free_at > now {
            return Err(free_at);
        }
        *self = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_lets_a_burst_pass_and_then_holds_the_rate() {
        let rate = Rate::new(10, Duration::from_millis(500));
        let mut meter = Meter::default();
        let now = at(1_000_000_000_000);
        assert!((0..5).all(|_| meter.take(&rate, now).is_ok()));
        let later = now + Duration::from_millis(100);
        assert_eq!(meter.take(&rate, now), Err(later));
        assert_eq!(meter.take(&rate, now), Err(later), "a refusal costs nothing");
        assert_eq!(meter.take(&rate, later), Ok(()));
        let rested = later + Duration::from_secs(3_600);
        assert!((0..5).all(|_| meter.take(&rate, rested).is_ok()));
        assert!(meter.take(&rate, rested).is_err());
    }

    #[test]
    fn what_was_taken_in_advance_is_paid_for() {
        let rate = Rate::new(1_000_000, Duration::from_secs(1));
        let mut meter = Meter::default();
        let now = at(1_000_000_000_000);
        assert_eq!(meter.charge(1_000_000, &rate, now), now);
        assert_eq!(meter.charge(500_000, &rate, now), now + Duration::from_millis(500));
    }

    #[test]
    fn meters_do_not_drift() {
        let rate = Rate::new(3, Duration::from_secs(1));
        let (mut meter, mut taken, mut now) = (Meter::default(), 0, at(0));
        while now <= at(1_000 * 1_000_000_000) {
            match meter.take(&rate, now) {
                Ok(()) => taken += 1,
                Err(later) => now = later,
            }
        }
        assert_eq!(taken, 3_003);
    }

    #[test]
    fn meters_at_extremes_neither_overflow_nor_end() {
        let mut meter = Meter::default();
        assert_eq!(meter.charge(u32::MAX, &Rate::FREE, at(7)), at(0));
        let slow = Rate::new(1, Duration::ZERO);
        for _ in 0..10 {
            meter.charge(u32::MAX, &slow, at(u64::MAX));
        }
        assert!(meter.charge(1, &Rate::new(u32::MAX, Duration::MAX), at(0)) < at(u64::MAX));
    }

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
