//! Numbers of the frames that come in over a ring (DESIGN §4): which of them are still open, so that *handled* never
//! passes one whose stanza is not safe yet. How a core counts what it sends itself is its own affair, as what waits for a
//! frame there differs.

use std::collections::VecDeque;

/// The other core's frames to us. One per ring.
#[derive(Debug, Default)]
pub struct Inward {
    received: u64,
    /// Frames that wait for something, in order; and such as are done behind those.
    open: VecDeque<Open>,
    /// What the other side was last told.
    told: (u64, u64),
}

#[derive(Debug)]
struct Open {
    number: u64,
    /// It waits for so many.
    things: u32,
    /// Its sender is told when it is done, whatever is before it.
    is_apart: bool,
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
        match self.place(number) {
            Ok(place) => self.open[place].things += 1,
            Err(place) => self.open.insert(place, Open { number, things: 1, is_apart: false }),
        }
    }

    /// The sender of this frame is to hear by itself that it is handled, if ones before it are open for longer. Gives
    /// whether that is so now.
    pub fn mark_apart(&mut self, number: u64) -> bool {
        match self.place(number) {
            Ok(place) => {
                let open = &mut self.open[place];
                open.is_apart = open.things > 0;
                !open.is_apart
            }
            Err(_) => number > self.handled(),
        }
    }

    /// One thing that the frame waited for has come. Gives whether its sender is to hear by itself that it is handled.
    pub fn release(&mut self, number: u64) -> bool {
        let Ok(place) = self.place(number) else { return false };
        let open = &mut self.open[place];
        open.things = open.things.saturating_sub(1);
        let is_apart = open.things == 0 && std::mem::take(&mut open.is_apart);
        while self.open.front().is_some_and(|open| open.things == 0) {
            self.open.pop_front();
        }
        is_apart && number > self.handled()
    }

    /// The frame waits for something.
    pub fn is_open(&self, number: u64) -> bool {
        self.place(number).is_ok_and(|at| self.open[at].things > 0)
    }

    fn place(&self, number: u64) -> Result<usize, usize> {
        self.open.binary_search_by_key(&number, |open| open.number)
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
        self.open.front().map_or(self.received, |open| open.number - 1)
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

    #[test]
    fn a_frame_that_is_done_behind_an_open_one_is_told_by_itself_once() {
        let mut inward = Inward::default();
        (1..=6).for_each(|number| inward.received(number));
        assert!(!inward.mark_apart(1), "the number tells of it");
        inward.hold(2);
        assert!(inward.mark_apart(3), "it waits for nothing");
        for number in [4, 5, 5, 6] {
            inward.hold(number);
        }
        assert!(!inward.mark_apart(5));
        assert!(!inward.release(5) && !inward.release(4));
        assert!(inward.release(5));
        assert!(!inward.release(5));
        assert_eq!(inward.handled(), 1);
        assert!(!inward.mark_apart(6));
        assert!(!inward.release(2));
        assert_eq!(inward.handled(), 5);
        assert!(!inward.release(6), "the number tells of it");
        assert_eq!(inward.handled(), 6);
    }
}
