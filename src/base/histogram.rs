//! Histograms of what is measured: HdrHistograms of two significant digits (64 ns at best), from 100 ns to a minute,
//! each allocated when it counts for the first time (12 KB). One writes them, another merges them: nothing here is shared.

use hdrhistogram::Histogram;
use std::time::Duration;

/// What is shorter is counted as this, what is longer as that; in nanoseconds.
pub const LOWEST_NS: u64 = 100;
pub const HIGHEST_NS: u64 = 60_000_000_000;
/// Things of one batch, at most.
const BATCH_MAX: u64 = 1 << 16;
const DIGITS: u8 = 2;

/// Counts of one thing that is measured. Saturates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts(Option<Box<Histogram<u32>>>);

impl Counts {
    pub fn record(&mut self, span: Duration) {
        self.record_many(span, 1);
    }

    /// So many things that took the same time.
    pub fn record_many(&mut self, span: Duration, things: u32) {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let counts = self.0.get_or_insert_with(|| Box::new(empty(LOWEST_NS, HIGHEST_NS)));
        counts.saturating_record_n(nanos.max(LOWEST_NS), things);
    }

    /// For what is no time: how many things came together.
    pub fn record_batch(&mut self, things: u64) {
        let counts = self.0.get_or_insert_with(|| Box::new(empty(1, BATCH_MAX)));
        counts.saturating_record(things.max(1));
    }

    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|counts| counts.is_empty())
    }

    pub fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |counts| counts.len())
    }

    /// What was counted; `None` before the first.
    pub fn histogram(&self) -> Option<&Histogram<u32>> {
        self.0.as_deref().filter(|counts| !counts.is_empty())
    }

    /// What was counted, in rising order.
    pub fn part(&self) -> Part {
        let steps = self.histogram().into_iter().flat_map(Histogram::iter_recorded);
        steps.map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    /// Counts from nothing again, in the same memory.
    pub fn clear(&mut self) {
        if let Some(counts) = &mut self.0
            && !counts.is_empty()
        {
            counts.reset();
        }
    }

    /// Bytes of memory, but for those of `self`.
    pub fn memory(&self) -> usize {
        let cells =
            |counts: &Histogram<u32>| size_of::<Histogram<u32>>() + 4 * counts.distinct_values();
        self.0.as_deref().map_or(0, cells)
    }
}

/// Values and how often each was counted, of an interval: small, where a histogram has room for all that could be.
pub type Part = Vec<(u64, u32)>;

/// Many intervals in one, of the same bounds as what is added to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sum(Histogram<u64>);

impl Sum {
    /// Empty, for what is measured as `counts` are.
    pub fn like(counts: &Histogram<u32>) -> Sum {
        Sum(Histogram::new_from(counts))
    }

    pub fn add(&mut self, part: &Part) {
        for (value, count) in part {
            self.0.saturating_record_n(*value, u64::from(*count));
        }
    }

    /// Takes out what was added before.
    pub fn subtract(&mut self, part: &Part) {
        let mut out = Sum(Histogram::new_from(&self.0));
        out.add(part);
        // Of the same bounds, and no more than was added.
        let _ = self.0.subtract(&out.0);
    }

    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}

fn empty(lowest: u64, highest: u64) -> Histogram<u32> {
    Histogram::new_with_bounds(lowest, highest, DIGITS).expect("the bounds are right")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allocated_before_the_first_count() {
        let mut counts = Counts::default();
        assert!(counts.is_empty() && counts.histogram().is_none());
        assert_eq!(counts.memory(), 0);
        counts.record(Duration::from_micros(5));
        assert!((8_000..16_000).contains(&counts.memory()), "{}", counts.memory());
        counts.clear();
        assert!(counts.is_empty() && counts.histogram().is_none());
    }

    #[test]
    fn what_is_outside_of_the_bounds_is_counted_at_them() {
        let mut counts = Counts::default();
        counts.record(Duration::ZERO);
        counts.record(Duration::from_secs(3_600));
        let told = counts.histogram().map(|counts| (counts.len(), counts.min(), counts.max()));
        let (count, min, max) = told.unwrap_or_default();
        assert_eq!(count, 2);
        assert!(min <= LOWEST_NS, "{min}");
        assert!((HIGHEST_NS..HIGHEST_NS + HIGHEST_NS / 50).contains(&max), "{max}");
    }

    #[test]
    fn two_digits_are_kept() {
        for micros in [1, 17, 990, 12_345, 5_000_000] {
            let mut counts = Counts::default();
            counts.record(Duration::from_micros(micros));
            let told = counts.histogram().map_or(0, |counts| counts.value_at_quantile(0.5));
            let off = told.abs_diff(micros * 1_000);
            assert!(off <= micros * 10 + 64, "{micros} us became {told} ns");
        }
    }

    #[test]
    fn a_sum_has_all_parts_and_loses_those_taken_out() {
        let (mut one, mut other) = (Counts::default(), Counts::default());
        one.record(Duration::from_micros(10));
        other.record(Duration::from_millis(10));
        let mut sum = Sum(Histogram::new_from(&empty(LOWEST_NS, HIGHEST_NS)));
        sum.add(&one.part());
        sum.add(&other.part());
        assert_eq!(sum.histogram().len(), 2);
        sum.subtract(&one.part());
        assert_eq!(sum.histogram().len(), 1);
        assert!(sum.histogram().min() > 9_000_000);
        let whole = other.histogram().map(|counts| (counts.min(), counts.max(), counts.len()));
        let summed = sum.histogram();
        assert_eq!(whole, Some((summed.min(), summed.max(), summed.len())));
    }

    #[test]
    fn batches_are_counted_by_their_size() {
        let mut counts = Counts::default();
        for size in [1, 1, 256] {
            counts.record_batch(size);
        }
        assert_eq!(counts.histogram().map(|counts| counts.max()), Some(257));
    }
}
