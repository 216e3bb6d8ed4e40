//! Output that leaves at its moment: answers of a login, which must not tell by their time what was found. One task per
//! core waits for the next moment, so that a thousand logins cost no more timers than one.

use super::connection;
use super::executor::Core;
use crate::base::instant::Instant;
use crate::shard::ConnId;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Connections whose output is withheld, by their moments. One per core; bounded by its connections.
#[derive(Default)]
pub(super) struct Withheld {
    queue: RefCell<VecDeque<(Instant, ConnId)>>,
    waker: RefCell<Option<Waker>>,
}

impl Withheld {
    pub(super) fn add(&self, conn: ConnId, at: Instant) {
        let mut queue = self.queue.borrow_mut();
        // Almost always the last place: all wait for the same time.
        let later = queue.iter().rev().take_while(|(other, _)| *other > at).count();
        let place = queue.len() - later;
        queue.insert(place, (at, conn));
        if place == 0
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    fn first(&self) -> Option<Instant> {
        self.queue.borrow().front().map(|(at, _)| *at)
    }

    fn due(&self, now: Instant) -> Option<ConnId> {
        let mut queue = self.queue.borrow_mut();
        let (at, conn) = queue.front().copied()?;
        (at <= now).then(|| queue.pop_front()).flatten()?;
        Some(conn)
    }
}

/// Lets go what is due, for as long as the task lives.
pub(super) async fn release(core: Rc<Core>) {
    loop {
        let first = poll_fn(|cx| match core.withheld.first() {
            Some(first) => Poll::Ready(first),
            None => {
                *core.withheld.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
        let wait = first.since(core.clock.mono());
        if !wait.is_zero() {
            glommio::timer::sleep(wait).await;
        }
        core.guarded(|| let_go(&core));
    }
}

/// Also called by the tick, should a timer have been missed.
pub(super) fn let_go(core: &Rc<Core>) {
    let now = core.clock.mono();
    while let Some(conn) = core.withheld.due(now) {
        core.shard.borrow_mut().let_go(conn);
        connection::flush(core, conn);
        if core.relays.is_some() {
            // Its socket may be elsewhere.
            core.flush.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Slab;

    #[test]
    fn what_is_due_leaves_in_the_order_of_its_moments() {
        let mut ids = Slab::default();
        let [one, two, three] = [0, 1, 2].map(|n| ConnId(ids.insert(n)));
        let withheld = Withheld::default();
        withheld.add(one, Instant(20));
        withheld.add(two, Instant(30));
        withheld.add(three, Instant(10));
        assert_eq!(withheld.first(), Some(Instant(10)));
        assert_eq!(withheld.due(Instant(9)), None);
        assert_eq!(withheld.due(Instant(20)), Some(three));
        assert_eq!(withheld.due(Instant(20)), Some(one));
        assert_eq!(withheld.due(Instant(20)), None);
        assert_eq!(withheld.due(Instant(30)), Some(two));
        assert_eq!(withheld.first(), None);
    }
}
