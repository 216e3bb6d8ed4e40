//! Nodes that own nothing any more, and may end: what an epoch waits for on either side before it counts as settled.

use super::peers::Peer;
use super::{Core, Outward, Shard};
use crate::cluster::placement::{NodeId, PARTITIONS};
use crate::cluster::view::View;

impl Shard {
    /// The epoch that is settled as far as this shard knows; 0 where none is.
    pub fn settled_epoch(&self) -> u64 {
        let core = &self.core;
        // One that owns nothing any more may end then: what others wait for must be done, and they must know.
        let may_end = core.handover.owns || core.has_left();
        if core.handover.is_settled() && may_end && core.know_idle_are_done() {
            core.placement.epoch()
        } else {
            0
        }
    }
}

impl Core {
    /// Nothing that left this shard waits for it, or is still to be sent again should it get lost.
    fn has_left(&self) -> bool {
        let remote = self.outward.iter().filter(|way| way.keeps());
        self.moved.is_done()
            && self.overflow.is_empty()
            && remote.map(Outward::kept_bytes).sum::<usize>() == 0
    }

    /// How far frames went to those shards of other nodes that own nothing by this epoch.
    pub(super) fn last_to_idle(&self, view: &View) -> Vec<(Peer, u64)> {
        let placement = &view.placement;
        let owns = |node| {
            (0..PARTITIONS).any(|partition| {
                placement.node(partition) == node || placement.domain_node(partition) == Some(node)
            })
        };
        let nodes = view.nodes.iter().map(|node| node.run.node);
        let idle: Vec<NodeId> = nodes.filter(|node| !owns(*node)).collect();
        let remote = self.peers.live().filter(|peer| !self.peers.is_local(*peer));
        remote
            .filter(|peer| idle.contains(&self.peers.place(*peer).run.node))
            .map(|peer| (peer, self.outward[peer.index()].last()))
            .collect()
    }

    /// What older epochs sent to nodes that own nothing is known to be handled: were one of them to end before, it would be
    /// sent again, and what is in no log be done twice.
    fn know_idle_are_done(&self) -> bool {
        let last = &self.handover.last_to_idle;
        last.iter().all(|(peer, number)| self.outward[peer.index()].handled() >= *number)
    }
}
