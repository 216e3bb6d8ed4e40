//! Numbers of the ring between this shard and another (and of the way to itself, which counts the same).
//!
//! Outward: which stream's stanza each numbered frame carries. Inward: which frames of the other are still open, so
//! that *handled* never passes one whose message is not safe yet (DESIGN §4).

use super::session::SessionId;
use std::collections::VecDeque;

/// A frame that came in over a ring: whose *handled* number waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameRef {
    pub ring: u16,
    pub number: u64,
}

/// Our frames to one shard.
#[derive(Debug, Default)]
pub(super) struct Outward {
    last: u64,
    /// Stanzas of acknowledged streams, in the order of their frames.
    waiting: VecDeque<(u64, SessionId, u32)>,
}

impl Outward {
    /// The number of the next frame.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The stanza `stanza` of `session` is handled when the frame `number` is.
    pub(super) fn expect(&mut self, number: u64, session: SessionId, stanza: u32) {
        self.waiting.push_back((number, session, stanza));
    }

    /// The other side handled all frames up to `handled`: gives the stanzas that are done by that, one at a time.
    pub(super) fn done(&mut self, handled: u64) -> Option<(SessionId, u32)> {
        let &(_, session, stanza) =
            self.waiting.front().filter(|(number, ..)| *number <= handled)?;
        self.waiting.pop_front();
        Some((session, stanza))
    }

    /// Takes back the numbers after `last`: their frames were cut back before they left.
    pub(super) fn cut_back(&mut self, last: u64) {
        self.last = last;
        while self.waiting.back().is_some_and(|&(number, ..)| number > last) {
            self.waiting.pop_back();
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }
}

/// The other shard's frames to us.
#[derive(Debug, Default)]
pub(super) struct Inward {
    received: u64,
    /// Frames that wait for something: number, and how many things.
    open: VecDeque<(u64, u32)>,
    /// What the other side was last told.
    told: (u64, u64),
}

impl Inward {
    pub(super) fn received(&mut self, number: u64) {
        self.received = self.received.max(number);
    }

    /// The frame `number` waits for one thing more. Numbers come in order, but for a frame that already waits.
    pub(super) fn hold(&mut self, number: u64) {
        match self.open.binary_search_by_key(&number, |&(open, _)| open) {
            Ok(place) => self.open[place].1 += 1,
            Err(place) => self.open.insert(place, (number, 1)),
        }
    }

    /// One thing that the frame waited for has come.
    pub(super) fn release(&mut self, number: u64) {
        if let Ok(place) = self.open.binary_search_by_key(&number, |&(open, _)| open) {
            self.open[place].1 = self.open[place].1.saturating_sub(1);
            while self.open.front().is_some_and(|&(_, things)| things == 0) {
                self.open.pop_front();
            }
        }
    }

    /// All frames up to this number are handled.
    pub(super) fn handled(&self) -> u64 {
        self.open.front().map_or(self.received, |&(number, _)| number - 1)
    }

    /// The two numbers to carry back, if they changed since they were last taken.
    pub(super) fn news(&mut self) -> Option<(u64, u64)> {
        let now = (self.received, self.handled());
        (now != self.told).then(|| {
            self.told = now;
            now
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handled_never_passes_an_open_frame() {
        let mut inward = Inward::default();
        (1..=3).for_each(|number| inward.received(number));
        inward.hold(2);
        inward.hold(3);
        inward.hold(2);
        assert_eq!(inward.handled(), 1);
        inward.release(3);
        inward.release(2);
        assert_eq!(inward.handled(), 1);
        inward.release(2);
        assert_eq!(inward.handled(), 3);
        assert_eq!(inward.news(), Some((3, 3)));
        assert_eq!(inward.news(), None);
    }

    #[test]
    fn handled_frames_complete_the_stanzas_they_carried() {
        let session = SessionId(crate::base::ids::Id::from_u64(7));
        let mut outward = Outward::default();
        let first = outward.number();
        outward.expect(first, session, 1);
        outward.number();
        let third = outward.number();
        outward.expect(third, session, 2);
        assert_eq!(outward.done(2), Some((session, 1)));
        assert_eq!(outward.done(2), None);
        assert_eq!(outward.done(3), Some((session, 2)));
    }
}
