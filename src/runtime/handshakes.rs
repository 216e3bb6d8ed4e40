//! TLS handshakes of one core: so many are in flight, and they are answered one at a time, behind what the turn owes to
//! those who are in. An answer is a key exchange and a signature, a hundred times the work of a message; after each the
//! core is for others twice as long as it took, so that handshakes never have more than a third of it. Where nobody else
//! was served lately they go as they come: turns that are shared by many cost less.

use super::executor::LOOK;
use crate::base::instant::Instant;
use futures_lite::future::yield_now;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long the core is for others after a handshake's step, as a multiple of what that took.
const PAUSE: u32 = 2;

/// Who is served this long after it came is in.
const SETTLED: Duration = Duration::from_secs(1);
/// How long handshakes keep their pace after somebody who is in was served.
const HEED: Duration = Duration::from_millis(100);

/// Places in order of arrival, and whose turn it is.
#[derive(Default)]
pub(super) struct Handshakes {
    taken: Cell<usize>,
    limit: Cell<usize>,
    /// For a place.
    waiting: RefCell<VecDeque<Waker>>,
    /// With a place, to be given the turn.
    ready: RefCell<VecDeque<Waker>>,
    /// When somebody who is in was served last.
    served: Cell<Option<Instant>>,
    /// Who was woken may go on.
    given: Cell<bool>,
    /// What reading took since the turn was given.
    took: Cell<Duration>,
    turns: RefCell<Option<Waker>>,
}

fn line_up(line: &RefCell<VecDeque<Waker>>, waker: &Waker) {
    let mut line = line.borrow_mut();
    if !line.iter().any(|other| other.will_wake(waker)) {
        line.push_back(waker.clone());
    }
}

fn wake_first(line: &RefCell<VecDeque<Waker>>) {
    if let Some(first) = line.borrow_mut().pop_front() {
        first.wake();
    }
}

impl Handshakes {
    /// Takes a place, or has `waker` woken when one is free.
    pub(super) fn enter(&self, waker: &Waker) -> bool {
        if !self.has_room() {
            line_up(&self.waiting, waker);
            return false;
        }
        self.taken.set(self.taken.get() + 1);
        true
    }

    pub(super) fn leave(&self) {
        self.taken.set(self.taken.get() - 1);
        if self.has_room() {
            wake_first(&self.waiting);
        }
    }

    /// Of so many places, those that are taken stay so.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
        for _ in self.taken.get()..limit {
            wake_first(&self.waiting);
        }
    }

    fn has_room(&self) -> bool {
        self.taken.get() < self.limit.get()
    }

    /// Somebody was served who came at `since`; `None`: on another core.
    pub(super) fn served(&self, since: Option<Instant>, now: Instant) {
        if since.is_none_or(|since| now.since(since) >= SETTLED) {
            self.served.set(Some(now));
        }
    }

    /// Whether whoever has a place may read on. Otherwise `waker` is woken when it may.
    pub(super) fn may_go_on(&self, now: Instant, waker: &Waker) -> bool {
        if self.given.take() || self.served.get().is_none_or(|at| now.since(at) >= HEED) {
            return true;
        }
        line_up(&self.ready, waker);
        self.wake_turns();
        false
    }

    /// Whoever went on has read, which took so long.
    pub(super) fn took(&self, took: Duration) {
        self.took.set(self.took.get() + took);
    }

    /// Gives the turn to the first in line.
    fn give(&self) {
        // What handshakes took while they went as they came is no debt of this one.
        self.took.set(Duration::ZERO);
        self.given.set(true);
        wake_first(&self.ready);
    }

    /// How long the core is for others now; `None` where whoever had the turn had nothing to read.
    fn pause(&self) -> Option<Duration> {
        let took = self.took.get();
        (!took.is_zero()).then(|| (took * PAUSE).max(LOOK))
    }

    fn wake_turns(&self) {
        if let Some(turns) = self.turns.borrow().as_ref() {
            turns.wake_by_ref();
        }
    }

    /// A task that may wait, or was woken a moment ago, ends: what it would have taken goes to the next.
    pub(super) fn forget(&self, waker: &Waker) {
        for line in [&self.waiting, &self.ready] {
            line.borrow_mut().retain(|other| !other.will_wake(waker));
        }
        if self.has_room() {
            wake_first(&self.waiting);
        }
    }
}

/// Gives the turns to the handshakes of a core, for as long as the task lives.
pub(super) async fn turns(handshakes: &Handshakes) {
    loop {
        poll_fn(|cx| {
            let mut turns = handshakes.turns.borrow_mut();
            if turns.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
                *turns = Some(cx.waker().clone());
            }
            if handshakes.ready.borrow().is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        // What was read beside it leaves first.
        yield_now().await;
        handshakes.give();
        yield_now().await;
        if let Some(pause) = handshakes.pause() {
            glommio::timer::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn only_who_is_in_makes_handshakes_wait_for_their_turn() {
        let (handshakes, waker) = (Handshakes::default(), Waker::noop());
        assert!(handshakes.may_go_on(at(10), waker), "nobody was served yet");
        handshakes.served(Some(at(10)), at(10));
        assert!(handshakes.may_go_on(at(10), waker), "it has just come itself");
        handshakes.served(Some(at(5)), at(10));
        assert!(!handshakes.may_go_on(at(10), waker));
        handshakes.give();
        assert!(handshakes.may_go_on(at(10), waker), "its turn");
        assert!(!handshakes.may_go_on(at(10), waker), "once");
        assert!(handshakes.may_go_on(at(11), waker), "nobody was served for a second");
    }

    #[test]
    fn the_pause_is_for_what_was_read_in_the_turn_and_not_for_what_came_before() {
        let handshakes = Handshakes::default();
        handshakes.took(Duration::from_secs(100));
        handshakes.give();
        assert_eq!(handshakes.pause(), None, "nothing was read");
        handshakes.took(Duration::from_millis(1));
        assert_eq!(handshakes.pause(), Some(Duration::from_millis(2)));
        handshakes.give();
        handshakes.took(Duration::from_nanos(1));
        assert_eq!(handshakes.pause(), Some(LOOK));
    }
}
