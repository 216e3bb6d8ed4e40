//! Numbers of the frames that come in over a ring (DESIGN §4): which of them are still open, so that *handled* never
//! passes one whose stanza is not safe yet. How a core counts what it sends itself is its own affair, as what waits for a
//! frame there differs.

use std::collections::VecDeque;

/// The other core's frames to us. One per ring.
#[derive(Debug, Default)]
pub struct Inward {
    received: u64,
    /// Frames that wait for something: number, and how many things.
    open: VecDeque<(u64, u32)>,
    /// What the other side was last told.
    told: (u64, u64),
}

impl Inward {
    /// From another node, with numbers from behind `first` on.
    pub fn from_node(first: u64) -> Self {
        Self { received: first, open: VecDeque::new(), told: (first, first) }
    }

    /// Whether this is the next frame. One that came before comes again after the way broke; one that is ahead comes again
    /// behind those that are missing.
    pub fn is_next(&self, number: u64) -> bool {
        number == self.received + 1
    }

    /// The other side may not have heard the last numbers.
    pub fn tell_again(&mut self) {
        self.told = (0, 0);
    }

    pub fn received(&mut self, number: u64) {
        self.received = self.received.max(number);
    }

    /// The frame `number` waits for one thing more. Numbers come in order, but for a frame that already waits.
    pub fn hold(&mut self, number: u64) {
        match self.open.binary_search_by_key(&number, |&(open, _)| open) {
            Ok(place) => self.open[place].1 += 1,
            Err(place) => self.open.insert(place, (number, 1)),
        }
    }

    /// One thing that the frame waited for has come.
    pub fn release(&mut self, number: u64) {
        if let Ok(place) = self.open.binary_search_by_key(&number, |&(open, _)| open) {
            self.open[place].1 = self.open[place].1.saturating_sub(1);
            while self.open.front().is_some_and(|&(_, things)| things == 0) {
                self.open.pop_front();
            }
        }
    }

    /// The frame waits for something.
    pub fn is_open(&self, number: u64) -> bool {
        self.open
            .binary_search_by_key(&number, |&(open, _)| open)
            .is_ok_and(|at| self.open[at].1 > 0)
    }

    /// The other side knows that this frame is handled.
    pub fn has_told(&self, number: u64) -> bool {
        self.told.1 >= number
    }

    /// The number of the last frame that came.
    pub fn received_number(&self) -> u64 {
        self.received
    }

    /// All frames up to this number are handled.
    pub fn handled(&self) -> u64 {
        self.open.front().map_or(self.received, |&(number, _)| number - 1)
    }

    /// The two numbers to carry back, if they changed since they were last taken.
    pub fn news(&mut self) -> Option<(u64, u64)> {
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
}
