//! Whether the node may act as the owner of what it has, and what its cores keep back while it may not.

use super::port::Incoming;
use crate::base::instant::Instant;
use crate::cluster::placement::ShardId;
use crate::cluster::view::Run;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that a core keeps back while there is no lease, at most: what comes above is dropped, and comes again over a new
/// link. As much as waits at a link for a peer that is slow.
const KEPT_BACK_BYTES: usize = 64 << 20;

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
    kept_back: RefCell<KeptBack>,
}

/// What came from other nodes while there was no lease.
#[derive(Debug, Default)]
pub struct KeptBack {
    /// In order.
    pub incoming: VecDeque<Incoming>,
    /// Runs of which something was dropped: frames and sockets come again when the link to them is made anew.
    pub torn: Vec<Run>,
    bytes: usize,
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
        if self.is_closed(now) || !kept_back.incoming.is_empty() {
            kept_back.push(incoming);
            return None;
        }
        Some(incoming)
    }

    /// What was kept back, once when the lease is there again.
    pub fn reopen(&self, now: Instant) -> Option<KeptBack> {
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

impl KeptBack {
    fn push(&mut self, incoming: Incoming) {
        if let Incoming::Piece { from, frames, relay, .. } = &incoming {
            let bytes = self.bytes + frames.len_bytes() + relay.len();
            if bytes > KEPT_BACK_BYTES {
                if !self.torn.contains(&from.run) {
                    self.torn.push(from.run);
                }
                return;
            }
            self.bytes = bytes;
        }
        self.incoming.push_back(incoming);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::placement::NodeId;
    use crate::cluster::view::Place;
    use crate::frame::Batch;

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
        let kept_back = gate.reopen(Instant(13)).unwrap_or_default();
        assert_eq!(incarnations(kept_back.incoming), [2, 3]);
        assert!(kept_back.torn.is_empty());
        assert!(gate.reopen(Instant(14)).is_none());
        assert_eq!(incarnations(gate.admit(Instant(14), up(4))), [4]);
    }

    #[test]
    fn what_is_kept_back_has_a_bound() {
        let gate = Gate::new(Some(Membership::new(1)));
        let piece = |incarnation, bytes| Incoming::Piece {
            from: Place { run: Run { node: NodeId(2), incarnation }, shard: ShardId(0) },
            sent: None,
            frames: Batch::new(),
            news: None,
            relay: vec![0; bytes],
        };
        for (incarnation, bytes) in [(1, KEPT_BACK_BYTES), (2, 0), (3, 1), (3, 2), (2, 0)] {
            assert!(gate.admit(Instant(1), piece(incarnation, bytes)).is_none());
        }
        assert!(gate.admit(Instant(1), up(4)).is_none());
        let kept_back = gate.kept_back.take();
        assert_eq!(kept_back.incoming.len(), 4);
        assert_eq!(kept_back.torn, [Run { node: NodeId(2), incarnation: 3 }]);
    }

    #[test]
    fn without_a_cluster_there_is_nothing_to_wait_for() {
        let gate = Gate::new(None);
        assert!(!gate.is_closed(Instant(u64::MAX)));
        assert_eq!(incarnations(gate.admit(Instant(1), up(1))), [1]);
        assert!(gate.reopen(Instant(2)).is_none());
    }
}
