//! Timers of one core: a hierarchical wheel with slots of 100 ms.
//!
//! Seven levels of 64 slots cover the whole clock. A deadline sits at the level of the highest base-64 digit in which
//! it differs from the present, and moves down when the present reaches its digit: at most six times, so inserting
//! costs constant time and a deadline in a week costs no more than one in a second.
//!
//! There is no cancelling. Who sets a timer asks on expiry whether it still matters (and sets the next one if the
//! deadline has moved), which costs less than keeping handles for timers that are moved at each read.

use std::time::Duration;

use super::instant::Instant;

/// Width of a slot: the precision of all timers.
pub const SLOT: Duration = Duration::from_millis(100);

const SLOT_NS: u64 = 100_000_000;
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// 42 bits of slots: more than the 38 that a `u64` of nanoseconds has.
const LEVELS: usize = 7;
/// A slot gives memory back where a burst left it larger than this.
const IDLE_CAPACITY_MAX: usize = 1024;

/// Timers that hand back an item when its deadline has passed. One per core.
///
/// The number of items is bounded by the caller: one per connection, account or queue.
#[derive(Debug)]
pub struct Wheel<T: Copy> {
    /// Slots since the origin of the clock; all deadlines up to here have been handed out or are `due`.
    tick: u64,
    levels: [Level<T>; LEVELS],
    /// What was inserted with a deadline that had passed already.
    due: Vec<T>,
    len: usize,
}

#[derive(Debug)]
struct Level<T> {
    /// Bit n: slot n holds something. Only slots above the present digit of this level ever do.
    occupied: u64,
    slots: [Vec<(u64, T)>; SLOTS],
}

impl<T: Copy> Default for Wheel<T> {
    fn default() -> Wheel<T> {
        Wheel::new(Instant::default())
    }
}

impl<T: Copy> Wheel<T> {
    pub fn new(now: Instant) -> Wheel<T> {
        Wheel {
            tick: now.0 / SLOT_NS,
            levels: std::array::from_fn(|_| Level {
                occupied: 0,
                slots: std::array::from_fn(|_| Vec::new()),
            }),
            due: Vec::new(),
            len: 0,
        }
    }

    /// Hands `item` back at the first `advance` to the end of the slot that holds `deadline`: never early, and late
    /// by less than one slot. A deadline that has passed is handed back at the next `advance`.
    pub fn insert(&mut self, deadline: Instant, item: T) {
        self.len += 1;
        self.place(deadline.0.div_ceil(SLOT_NS), item);
    }

    /// Moves the present to `now` and appends what has expired, by slot of the deadline, then in order of insertion.
    ///
    /// - takes: `now`; a time before the last one counts as the last one
    /// - cost: by the items handed out or moved down, not by the time that went by
    pub fn advance(&mut self, now: Instant, expired: &mut Vec<T>) {
        let before = expired.len();
        expired.append(&mut self.due);
        let target = now.0 / SLOT_NS;
        while let Some((level, tick)) = self.next_event().filter(|(_, tick)| *tick <= target) {
            self.tick = tick;
            let slot_index = digit(tick, level);
            let Level { occupied, slots } = &mut self.levels[level];
            *occupied &= !(1 << slot_index);
            if level == 0 {
                let slot = &mut slots[slot_index];
                expired.extend(slot.drain(..).map(|(_, item)| item));
                slot.shrink_to(IDLE_CAPACITY_MAX);
            } else {
                for (deadline, item) in std::mem::take(&mut slots[slot_index]) {
                    self.place(deadline, item);
                }
                expired.append(&mut self.due);
            }
        }
        self.tick = self.tick.max(target);
        self.len -= expired.len() - before;
    }

    /// When `advance` should be called next; early where a distant deadline only moves down then. `None` when empty.
    pub fn next_due(&self) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(Instant(self.tick.saturating_mul(SLOT_NS)));
        }
        self.next_event().map(|(_, tick)| Instant(tick.saturating_mul(SLOT_NS)))
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn place(&mut self, deadline: u64, item: T) {
        if deadline <= self.tick {
            self.due.push(item);
            return;
        }
        // Not zero, as the two differ; the highest bit in which they do names the level.
        let level = ((deadline ^ self.tick).ilog2() / DIGIT_BITS) as usize;
        let slot = digit(deadline, level);
        self.levels[level].occupied |= 1 << slot;
        self.levels[level].slots[slot].push((deadline, item));
    }

    /// The lowest level that holds anything, and when its first slot begins: no deadline is before that.
    fn next_event(&self) -> Option<(usize, u64)> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        let slot = u64::from(self.levels[level].occupied.trailing_zeros());
        let shift = level as u32 * DIGIT_BITS;
        let above = self.tick >> shift >> DIGIT_BITS << DIGIT_BITS;
        Some((level, (above | slot) << shift))
    }
}

fn digit(tick: u64, level: usize) -> usize {
    (tick >> (level as u32 * DIGIT_BITS)) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn nothing_is_early_and_nothing_is_late_by_a_slot() {
        let mut rng = Rng::from_u64(7);
        for spread_ms in [1_000, 100_000, 10_000_000, 3_000_000_000] {
            let start = 1_700_000_000_123;
            let mut wheel = Wheel::new(at(start));
            let mut deadlines: Vec<u64> = (0..500).map(|_| start + rng.below(spread_ms)).collect();
            for deadline in &deadlines {
                wheel.insert(at(*deadline), *deadline);
            }
            let mut handed_out = Vec::new();
            while let Some(next) = wheel.next_due() {
                let mut expired = Vec::new();
                wheel.advance(next, &mut expired);
                for deadline in &expired {
                    assert!(at(*deadline) <= next && next.since(at(*deadline)) <= SLOT);
                }
                handed_out.append(&mut expired);
            }
            assert!(wheel.is_empty());
            handed_out.sort_unstable();
            deadlines.sort_unstable();
            assert_eq!(handed_out, deadlines);
        }
    }

    #[test]
    fn order_is_by_slot_then_by_insertion() {
        let mut wheel = Wheel::default();
        wheel.insert(at(700_000), 1);
        wheel.insert(at(100), 2);
        wheel.insert(at(700_000), 3);
        let mut expired = Vec::new();
        wheel.advance(at(699_000), &mut expired);
        wheel.insert(at(699_950), 4);
        wheel.insert(at(699_100), 5);
        wheel.insert(at(1), 6);
        wheel.advance(at(800_000), &mut expired);
        assert_eq!(expired, [2, 6, 5, 1, 3, 4]);
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn next_due_wakes_few_times_for_a_distant_deadline() {
        let mut wheel = Wheel::default();
        let week = at(7 * 24 * 3_600_000);
        wheel.insert(week, ());
        let (mut wakes, mut expired, mut now) = (0, Vec::new(), Instant::default());
        while let Some(next) = wheel.next_due() {
            assert!(next >= now);
            now = next;
            wheel.advance(now, &mut expired);
            wakes += 1;
        }
        assert_eq!(now, week);
        assert!(wakes <= LEVELS);
    }

    #[test]
    fn the_end_of_time_can_be_waited_for() {
        let mut wheel = Wheel::default();
        wheel.insert(Instant(u64::MAX), ());
        let mut expired = Vec::new();
        wheel.advance(Instant(u64::MAX), &mut expired);
        wheel.advance(Instant(0), &mut expired);
        assert!(expired.is_empty());
        assert_eq!(wheel.next_due(), Some(Instant(u64::MAX)));
    }
}
