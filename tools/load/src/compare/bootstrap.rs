//! Draws of a run from itself: which second counts how often.

use std::collections::BTreeMap;

use crate::record::Latency;

/// Some draws of a run of so many seconds; all figures of the run use the same ones.
pub(super) struct Draws {
    /// How often each second counts, draw by draw.
    weights: Vec<Vec<u32>>,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * bound as u128) >> 64) as usize
    }
}

impl Draws {
    pub(super) fn of(seconds: usize, draws: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        // As long as neighbours are alike, as short as there are many blocks: the cube root is the usual choice.
        let block = (seconds as f64).cbrt().ceil() as usize;
        let weights = (0..draws).map(|_| {
            let mut weights = vec![0; seconds];
            let mut left = seconds;
            while left > 0 {
                let begin = random.below(seconds);
                let length = block.min(left);
                // Round the end to the begin, so that each second is as likely as any other.
                (0..length).for_each(|step| weights[(begin + step) % seconds] += 1);
                left -= length;
            }
            weights
        });
        Self { weights: weights.collect() }
    }

    /// Quantiles of merged histograms, for each share one per draw; a draw in which nothing was counted gives zero.
    pub(super) fn quantiles(&self, seconds: &[Option<&Latency>], shares: &[f64]) -> Vec<Vec<f64>> {
        let (values, cells) = sparse(seconds);
        let mut found = vec![Vec::with_capacity(self.weights.len()); shares.len()];
        let mut counts = vec![0u64; values.len()];
        for weights in &self.weights {
            counts.fill(0);
            for (weight, cells) in weights.iter().zip(&cells) {
                if *weight > 0 {
                    for (place, count) in cells {
                        counts[*place] += u64::from(*weight) * count;
                    }
                }
            }
            let total: u64 = counts.iter().sum();
            for (share, found) in shares.iter().zip(&mut found) {
                let wanted = ((total as f64 * share).ceil() as u64).max(1);
                let mut seen = 0;
                let place = counts.iter().position(|count| {
                    seen += count;
                    seen >= wanted
                });
                found.push(place.map_or(0.0, |place| values[place] as f64));
            }
        }
        found
    }

    /// Means of a value of each second.
    pub(super) fn means(&self, seconds: &[f64]) -> Vec<f64> {
        self.sums(seconds).into_iter().map(|sum| sum / seconds.len().max(1) as f64).collect()
    }

    /// Sums by sums; zero where there is nothing to divide by.
    pub(super) fn ratios(&self, above: &[f64], below: &[f64]) -> Vec<f64> {
        let sums = self.sums(above).into_iter().zip(self.sums(below));
        sums.map(|(above, below)| if below > 0.0 { above / below } else { 0.0 }).collect()
    }

    fn sums(&self, seconds: &[f64]) -> Vec<f64> {
        let sum = |weights: &Vec<u32>| {
            weights.iter().zip(seconds).map(|(weight, value)| f64::from(*weight) * value).sum()
        };
        self.weights.iter().map(sum).collect()
    }
}

/// All values that occur, in order, and per second which of them how often.
fn sparse(seconds: &[Option<&Latency>]) -> (Vec<u64>, Vec<Vec<(usize, u64)>>) {
    let mut places = BTreeMap::<u64, usize>::new();
    for latency in seconds.iter().flatten() {
        for value in latency.counts().iter_recorded() {
            places.insert(latency.counts().highest_equivalent(value.value_iterated_to()), 0);
        }
    }
    (0..).zip(places.values_mut()).for_each(|(place, value)| *value = place);
    let cells = seconds.iter().map(|latency| {
        let Some(latency) = latency else { return Vec::new() };
        let recorded = latency.counts().iter_recorded().map(|value| {
            let us = latency.counts().highest_equivalent(value.value_iterated_to());
            (places[&us], value.count_at_value())
        });
        recorded.collect()
    });
    let cells = cells.collect();
    (places.into_keys().collect(), cells)
}

/// What lies between the rarest on both sides; nothing if there is too little to cut.
pub(super) fn interval(mut values: Vec<f64>, confidence: f64) -> Option<(f64, f64)> {
    if values.len() < 20 {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    let last = values.len() - 1;
    let low = (tail * last as f64).floor() as usize;
    Some((values[low], values[last - low]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_draw_has_as_many_seconds_as_the_run_and_a_seed_repeats_it() {
        let draws = Draws::of(50, 200, 7);
        assert!(draws.weights.iter().all(|weights| weights.iter().sum::<u32>() == 50));
        assert_eq!(draws.weights, Draws::of(50, 200, 7).weights);
        assert_ne!(draws.weights, Draws::of(50, 200, 8).weights);
        // Each second is drawn about as often as any other.
        let often = |second: usize| draws.weights.iter().map(|it| it[second]).sum::<u32>();
        assert!((0..50).all(|second| (120..280).contains(&often(second))));
    }

    #[test]
    fn quantiles_of_draws_lie_around_that_of_the_run() {
        let seconds: Vec<Latency> = (0..60u64)
            .map(|second| {
                let mut latency = Latency::default();
                (0..100).for_each(|n| latency.record(Duration::from_micros(100 + second + n)));
                latency
            })
            .collect();
        let mut all = Latency::default();
        seconds.iter().for_each(|latency| all.merge(latency));
        let found = Draws::of(60, 400, 3)
            .quantiles(&seconds.iter().map(Some).collect::<Vec<_>>(), &[0.5, 0.99]);
        for (share, found) in [0.5, 0.99].into_iter().zip(found) {
            let (low, high) = interval(found, 0.99).unwrap_or_default();
            let real = all.counts().value_at_quantile(share) as f64;
            assert!(low < real && real < high && high - low < 40.0, "{low} {real} {high}");
        }
    }

    #[test]
    fn an_interval_leaves_out_the_rarest_on_both_sides() {
        let values: Vec<f64> = (0..=1000).map(f64::from).collect();
        assert_eq!(interval(values, 0.99), Some((5.0, 995.0)));
        assert_eq!(interval(vec![1.0; 19], 0.99), None);
    }
}
