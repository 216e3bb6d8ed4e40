//! The windows of a closed loop: how many messages each conversation may still have under way.

/// One window per conversation, by place.
#[derive(Debug, Default)]
pub(super) struct Windows {
    size: u32,
    credits: Vec<u32>,
    /// Places that may have room, each once.
    due: Vec<u32>,
}

impl Windows {
    /// Opens `count` windows of `size` the first time; later it has no effect.
    pub(super) fn open_all(&mut self, size: u32, count: usize) {
        if self.credits.is_empty() {
            self.size = size;
            self.credits = vec![size; count];
            self.due = (0..count as u32).collect();
        }
    }

    /// A message of the conversation has arrived or come back. Nothing in an open loop.
    pub(super) fn credit(&mut self, place: usize) {
        if let Some(credits) = self.credits.get_mut(place) {
            *credits += 1;
            if *credits == 1 {
                self.due.push(place as u32);
            }
        }
    }

    /// What was under way may never arrive: the whole window is free, from when somebody is there again ([`Self::retry`]).
    pub(super) fn reset(&mut self, place: usize) {
        if let Some(credits) = self.credits.get_mut(place) {
            *credits = self.size;
        }
    }

    /// Somebody is there again.
    pub(super) fn retry(&mut self, place: usize) {
        if self.credits.get(place).is_some_and(|credits| *credits > 0) {
            self.due.push(place as u32);
        }
    }

    /// The places with room, and how much; it counts as taken. Those who are not there keep a whole window.
    pub(super) fn take(&mut self, is_there: impl Fn(usize) -> bool) -> Vec<(usize, u32)> {
        let due = std::mem::take(&mut self.due);
        let take = |place: u32| {
            let place = place as usize;
            if !is_there(place) {
                self.credits[place] = self.size;
                return None;
            }
            Some((place, std::mem::take(&mut self.credits[place])))
        };
        due.into_iter().filter_map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_one_by_one_or_with_the_connection() {
        let mut windows = Windows::default();
        windows.credit(0);
        windows.open_all(2, 3);
        assert_eq!(windows.take(|place| place != 1), [(0, 2), (2, 2)]);
        assert_eq!(windows.take(|_| true), []);
        windows.credit(2);
        windows.credit(2);
        windows.open_all(9, 9);
        assert_eq!(windows.take(|_| true), [(2, 2)]);
        // The one that was away, and one whose connection was lost.
        windows.retry(1);
        windows.reset(0);
        windows.retry(0);
        assert_eq!(windows.take(|_| true), [(1, 2), (0, 2)]);
    }
}
