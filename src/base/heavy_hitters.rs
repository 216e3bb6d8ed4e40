//! Who does most, among any number of parties, in a fixed number of counters.
//!
//! Space-Saving (Metwally, Agrawal and El Abbadi, 2005): a party without a counter takes over the smallest one, or one that
//! is nearly as small, with its count as the newcomer's possible error. Whoever does more than the whole divided by the
//! number of counters, and a quarter more than that, has one.
//! Counts fade with a half-life, so that they are rates of the present: what comes later weighs more, and all is divided
//! by the present weight when it is read.

use super::instant::Instant;
use std::time::Duration;

/// Weights above this (powers of two) are taken off from all counts: far below what a float can hold.
const WEIGHT_MAX: f64 = 64.0;
/// The weight is computed anew when it has grown by this part of a half-life; in between, it is less than 1 % off.
const WEIGHT_STEP: f64 = 1.0 / 128.0;
/// A counter so many times the smallest is small enough to be taken over: then few of them are looked at.
const NEARLY: f64 = 1.25;

/// One sketch. Lives on one core; `capacity` times the size of a label and 24 bytes.
#[derive(Clone, Debug)]
pub struct HeavyHitters<L> {
    /// Of the same length as `counts`: searched at each miss, so they lie close together.
    keys: Vec<u64>,
    counts: Vec<Count<L>>,
    capacity: usize,
    /// Where to look for a small counter next, and what the smallest was when all were looked at.
    next: usize,
    floor: f64,
    half_life_ns: f64,
    /// When a count of one weighs one.
    base: Instant,
    /// Of a count at `weighed_at`.
    weight: f64,
    weighed_at: Instant,
}

#[derive(Clone, Debug)]
struct Count<L> {
    count: f64,
    /// What of the count may have been another's.
    error: f64,
    label: L,
}

/// One of those who do most.
#[derive(Clone, Debug, PartialEq)]
pub struct Hitter<L> {
    pub label: L,
    /// At least so much in a second, as it was over the last half-life or two.
    pub per_s: f64,
}

impl<L: Clone + PartialEq> HeavyHitters<L> {
    /// - `capacity`: at least 1
    pub fn new(capacity: usize, half_life: Duration, now: Instant) -> HeavyHitters<L> {
        HeavyHitters {
            keys: Vec::new(),
            counts: Vec::new(),
            capacity: capacity.max(1),
            next: 0,
            floor: 0.0,
            half_life_ns: half_life.as_secs_f64().max(1e-9) * 1e9,
            base: now,
            weight: 1.0,
            weighed_at: now,
        }
    }

    /// Counts `amount` for the party `key`, which is known as `label` from now on.
    ///
    /// - cost: looks at each key; where there is none, at few counts, now and then at all
    pub fn add(&mut self, key: u64, amount: u32, label: &L, now: Instant) {
        self.weigh(now);
        let amount = f64::from(amount) * self.weight;
        if let Some(place) = self.keys.iter().position(|known| *known == key) {
            let known = &mut self.counts[place];
            known.count += amount;
            if known.label != *label {
                known.label = label.clone();
            }
            return;
        }
        if self.keys.len() < self.capacity {
            self.keys.push(key);
            self.counts.push(Count { count: amount, error: 0.0, label: label.clone() });
            return;
        }
        let smallest = self.small();
        let before = self.counts[smallest].count;
        self.keys[smallest] = key;
        self.counts[smallest] =
            Count { count: before + amount, error: before, label: label.clone() };
    }

    /// All that are known, the largest first.
    pub fn hitters(&self, now: Instant) -> Vec<Hitter<L>> {
        let weight = self.exponent(now).exp2();
        // What comes steadily adds up to its rate times the mean life of a count.
        let life_s = self.half_life_ns / 1e9 / std::f64::consts::LN_2;
        let mut hitters: Vec<_> = self
            .counts
            .iter()
            .map(|one| Hitter {
                label: one.label.clone(),
                per_s: (one.count - one.error) / weight / life_s,
            })
            .collect();
        hitters.sort_by(|one, other| other.per_s.total_cmp(&one.per_s));
        hitters
    }

    /// A counter that is nearly the smallest. Counts only grow, so the smallest of before is a bound for that of now.
    fn small(&mut self) -> usize {
        loop {
            let enough = self.floor * NEARLY;
            let (before, behind) = self.counts.split_at(self.next.min(self.counts.len()));
            let (behind, before) = (behind.iter(), before.iter());
            if let Some(place) = behind.chain(before).position(|one| one.count <= enough) {
                let place = (self.next + place) % self.counts.len();
                self.next = place + 1;
                return place;
            }
            self.floor = self.counts.iter().map(|one| one.count).fold(f64::INFINITY, f64::min);
        }
    }

    /// Half-lives since `base`.
    fn exponent(&self, now: Instant) -> f64 {
        now.since(self.base).as_secs_f64() * 1e9 / self.half_life_ns
    }

    fn weigh(&mut self, now: Instant) {
        let passed = now.since(self.weighed_at).as_secs_f64() * 1e9;
        if passed < self.half_life_ns * WEIGHT_STEP {
            return;
        }
        self.weighed_at = now;
        let exponent = self.exponent(now);
        if exponent < WEIGHT_MAX {
            self.weight = exponent.exp2();
            return;
        }
        // After a long silence this makes all counts nothing.
        let faded = (-exponent).exp2();
        for one in &mut self.counts {
            one.count *= faded;
            one.error *= faded;
        }
        self.floor *= faded;
        self.base = now;
        self.weight = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_LIFE: Duration = Duration::from_secs(10);

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn a_steady_party_is_told_with_its_rate() {
        let mut sketch = HeavyHitters::new(4, HALF_LIFE, at(0));
        // Over many rescalings: 1000 s are 100 half-lives.
        for ms in (0..1_000_000).step_by(100) {
            sketch.add(7, 5, &"seven", at(ms));
        }
        let hitters = sketch.hitters(at(1_000_000));
        assert_eq!(hitters.len(), 1);
        assert!((hitters[0].per_s - 50.0).abs() < 1.0, "{hitters:?}");
        let later = sketch.hitters(at(1_010_000));
        assert!((later[0].per_s - 25.0).abs() < 1.0, "half of it after a half-life: {later:?}");
    }

    #[test]
    fn the_heavy_stay_known_among_any_number_of_light_ones() {
        let mut sketch = HeavyHitters::new(64, HALF_LIFE, at(0));
        for ms in 0..60_000_u64 {
            // A thousand a second by ten thousand parties, and 300 and 200 a second by two.
            sketch.add(1_000 + (ms * 7_919) % 10_000, 1, &"light", at(ms));
            if ms % 10 < 3 {
                sketch.add(1, 1, &"first", at(ms));
            }
            if ms % 10 > 7 {
                sketch.add(2, 1, &"second", at(ms));
            }
        }
        let hitters = sketch.hitters(at(60_000));
        assert_eq!(hitters.len(), 64);
        assert_eq!((hitters[0].label, hitters[1].label), ("first", "second"));
        assert!((250.0..=303.0).contains(&hitters[0].per_s), "{:?}", hitters[0]);
        assert!((150.0..=203.0).contains(&hitters[1].per_s), "{:?}", hitters[1]);
        // A guaranteed rate, not that of the counter that was taken over.
        assert!(hitters[2].per_s < 1.0, "{:?}", hitters[2]);
    }

    #[test]
    fn what_was_heavy_once_gives_way() {
        let mut sketch = HeavyHitters::new(2, HALF_LIFE, at(0));
        sketch.add(1, 1_000_000, &"before", at(0));
        for ms in (600_000..660_000).step_by(100) {
            sketch.add(2, 1, &"now", at(ms));
            sketch.add(3, 1, &"as well", at(ms));
        }
        let labels: Vec<_> = sketch.hitters(at(660_000)).iter().map(|one| one.label).collect();
        assert_eq!(labels.len(), 2);
        assert!(!labels.contains(&"before"), "{labels:?}");
    }

    #[test]
    fn a_party_is_told_by_its_latest_label() {
        let mut sketch = HeavyHitters::new(2, HALF_LIFE, at(0));
        sketch.add(1, 1, &"old", at(0));
        sketch.add(1, 1, &"new", at(1));
        assert_eq!(sketch.hitters(at(1))[0].label, "new");
    }
}
