//! Whether the node may act as the owner of what it has, and what its cores keep back while it may not.

use super::port::Incoming;
use crate::base::instant::Instant;
use crate::cluster::placement::ShardId;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What cores and the thread of the cluster tell each other of the node's part in it. Cloned to all of them.
#[derive(Clone, Debug)]
pub struct Membership {
    lease_ns: Arc<AtomicU64>,
    settled: Arc<[AtomicU64]>,
}

impl Membership {
    pub fn new(shards: u16) -> Membership {
        Membership {
            lease_ns: Arc::default(),
            settled: (0..shards).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Until then the node may act as the owner of what it has.
    pub fn set_lease(&self, until: Instant) {
        self.lease_ns.store(until.0, Ordering::Release);
    }

    pub fn has_lease(&self, now: Instant) -> bool {
        now.0 < self.lease_ns.load(Ordering::Acquire)
    }

    /// The epoch that all shards have settled; 0 while one is at it.
    pub fn settled_epoch(&self) -> u64 {
        self.settled.iter().map(|epoch| epoch.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    fn settle(&self, shard: ShardId, epoch: u64) {
        if let Some(slot) = self.settled.get(usize::from(shard.0)) {
            slot.store(epoch, Ordering::Release);
        }
    }
}

/// One core's look at the lease. A node without a cluster needs none.
#[derive(Debug)]
pub struct Gate {
    membership: Option<Membership>,
    was_closed: Cell<bool>,
    /// What came from other nodes while it was closed, in order.
    kept_back: RefCell<VecDeque<Incoming>>,
}

impl Gate {
    pub fn new(membership: Option<Membership>) -> Gate {
        Gate { membership, was_closed: Cell::new(false), kept_back: RefCell::default() }
    }

    /// Whether the lease is over, and the next one is not there.
    pub fn is_closed(&self, now: Instant) -> bool {
        let closed = self.membership.as_ref().is_some_and(|membership| !membership.has_lease(now));
        if closed {
            self.was_closed.set(true);
        }
        closed
    }

    /// Gives back what may be dealt with now. The rest is kept for `reopen`; so is all that comes behind it, since the
    /// frames of a ring are taken in order or have to come anew.
    pub fn admit(&self, now: Instant, incoming: Incoming) -> Option<Incoming> {
        let mut kept_back = self.kept_back.borrow_mut();
        if self.is_closed(now) || !kept_back.is_empty() {
            kept_back.push_back(incoming);
            return None;
        }
        Some(incoming)
    }

    /// What was kept back, once when the lease is there again.
    pub fn reopen(&self, now: Instant) -> Option<VecDeque<Incoming>> {
        if !self.was_closed.get() || self.is_closed(now) {
            return None;
        }
        self.was_closed.set(false);
        Some(self.kept_back.take())
    }

    /// The core's shard has settled this epoch; 0 while it is at it.
    pub fn settle(&self, shard: ShardId, epoch: u64) {
        if let Some(membership) = &self.membership {
            membership.settle(shard, epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::placement::NodeId;
    use crate::cluster::view::Run;

    fn up(incarnation: u64) -> Incoming {
        Incoming::Up(Run { node: NodeId(1), incarnation })
    }

    fn incarnations(incoming: impl IntoIterator<Item = Incoming>) -> Vec<u64> {
        let of = |it| match it {
            Incoming::Up(run) => Some(run.incarnation),
            _ => None,
        };
        incoming.into_iter().filter_map(of).collect()
    }

    #[test]
    fn what_comes_while_there_is_no_lease_stays_before_what_comes_later() {
        let membership = Membership::new(1);
        let gate = Gate::new(Some(membership.clone()));
        membership.set_lease(Instant(10));
        assert_eq!(incarnations(gate.admit(Instant(9), up(1))), [1]);
        assert!(gate.reopen(Instant(9)).is_none());
        assert!(gate.admit(Instant(10), up(2)).is_none());
        assert!(gate.reopen(Instant(11)).is_none());
        membership.set_lease(Instant(20));
        assert!(!gate.is_closed(Instant(12)));
        assert!(gate.admit(Instant(12), up(3)).is_none());
        assert_eq!(incarnations(gate.reopen(Instant(13)).unwrap_or_default()), [2, 3]);
        assert!(gate.reopen(Instant(14)).is_none());
        assert_eq!(incarnations(gate.admit(Instant(14), up(4))), [4]);
    }

    #[test]
    fn without_a_cluster_there_is_nothing_to_wait_for() {
        let gate = Gate::new(None);
        assert!(!gate.is_closed(Instant(u64::MAX)));
        assert_eq!(incarnations(gate.admit(Instant(1), up(1))), [1]);
        assert!(gate.reopen(Instant(2)).is_none());
    }
}
