//! How far away a peer is, and how far its clock is off: from pings, as NTP does (RFC 5905 §8, §10).
//!
//! The peer's clock is read somewhere between our ping and its answer. Of the last samples the one with the shortest
//! round trip was held up least, so it says most. What is left unknown is half of its round trip, as the two ways need
//! not be equally long: one-way times between nodes are estimates.

use crate::base::instant::{Now, Wall};
use std::time::Duration;

/// Pings that may be under way.
const SENT: usize = 8;
/// Samples of which the best is taken: so many seconds.
const SAMPLES: usize = 16;

/// What is known of a peer's distance and clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// The latest round trip.
    pub rtt: Duration,
    /// The peer's wall clock minus ours, in microseconds.
    pub offset_us: i64,
    /// By how much `offset_us` may be wrong.
    pub error_us: u64,
}

/// When something left a peer, by an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// By our own clock.
    pub at: Wall,
    /// How far the peer's clock is before ours.
    pub clock_ahead_us: i64,
}

#[derive(Debug, Default)]
pub(super) struct Timing {
    /// By the number of the ping.
    sent: [Option<(u64, Now)>; SENT],
    next: u64,
    samples: [Option<Estimate>; SAMPLES],
    taken: usize,
    latest: Duration,
    /// The least delayed of the samples.
    best: Option<Estimate>,
}

fn slot(number: u64, of: usize) -> usize {
    usize::try_from(number).unwrap_or_default() % of
}

impl Timing {
    /// The number of a ping that leaves now.
    pub(super) fn ping(&mut self, now: Now) -> u64 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.sent[slot(number, SENT)] = Some((number, now));
        number
    }

    /// Takes an answer; one to what was not asked, or too late, changes nothing.
    pub(super) fn pong(&mut self, number: u64, theirs: Wall, now: Now) {
        let sent = self.sent[slot(number, SENT)].take_if(|(asked, _)| *asked == number);
        let Some((_, sent)) = sent else { return };
        let rtt = now.mono.since(sent.mono);
        let half_us = u64::try_from(rtt.as_micros() / 2).unwrap_or(u64::MAX);
        let offset = i128::from(theirs.0) - i128::from(sent.wall.0) - i128::from(half_us);
        let offset_us = i64::try_from(offset.clamp(i64::MIN.into(), i64::MAX.into())).unwrap_or(0);
        self.latest = rtt;
        self.samples[self.taken % SAMPLES] = Some(Estimate { rtt, offset_us, error_us: half_us });
        self.taken += 1;
        self.best = self.samples.iter().flatten().min_by_key(|sample| sample.rtt).copied();
    }

    /// - takes: when it left, by the peer's clock
    /// - gives: `None` while nothing is known of that
    pub(super) fn departure(&self, theirs: Wall) -> Option<Departure> {
        let clock_ahead_us = self.best?.offset_us;
        let at = Wall(theirs.0.saturating_add_signed(clock_ahead_us.saturating_neg()));
        Some(Departure { at, clock_ahead_us })
    }

    pub(super) fn estimate(&self) -> Option<Estimate> {
        Some(Estimate { rtt: self.latest, ..self.best? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::instant::Instant;

    fn at(us: u64) -> Now {
        Now { mono: Instant(us * 1000), wall: Wall(1_000_000_000 + us) }
    }

    #[test]
    fn the_least_delayed_answer_tells_the_offset() {
        let mut timing = Timing::default();
        assert_eq!(timing.estimate(), None);
        // The peer is an hour ahead. The way there takes 100 us, and the way back is sometimes held up.
        for (round, back) in [5_000, 100, 40_000].into_iter().enumerate() {
            let start = u64::try_from(round).unwrap_or(0) * 1_000_000;
            let number = timing.ping(at(start));
            let theirs = Wall(at(start + 100).wall.0 + 3_600_000_000);
            timing.pong(number, theirs, at(start + 100 + back));
        }
        let expected = Estimate {
            rtt: Duration::from_micros(40_100),
            offset_us: 3_600_000_000,
            error_us: 100,
        };
        assert_eq!(timing.estimate(), Some(expected));
        let left = Wall(at(9).wall.0 + 3_600_000_000);
        let departure = Departure { at: at(9).wall, clock_ahead_us: 3_600_000_000 };
        assert_eq!(timing.departure(left), Some(departure));
    }

    #[test]
    fn answers_nobody_asked_for_and_absurd_clocks_do_no_harm() {
        let mut timing = Timing::default();
        timing.pong(0, Wall(7), at(1));
        assert_eq!((timing.estimate(), timing.departure(Wall(7))), (None, None));
        let number = timing.ping(at(10));
        timing.pong(number + 8, Wall(7), at(11));
        assert_eq!(timing.estimate(), None);
        timing.pong(number, Wall(u64::MAX), at(12));
        timing.pong(number, Wall(0), at(13));
        assert_eq!(timing.estimate().map(|estimate| estimate.offset_us), Some(i64::MAX));
        // A clock that is right again drives it out.
        for second in 1..20 {
            let number = timing.ping(at(second * 1_000_000));
            timing.pong(number, at(second * 1_000_000 + 500).wall, at(second * 1_000_000 + 1_000));
        }
        assert_eq!(timing.estimate().map(|estimate| estimate.offset_us), Some(0));
    }
}
