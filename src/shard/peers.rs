//! Whom this shard sends frames to, by number: the shards of this node first, then its federation cores, then the shards of
//! other nodes as they are met. A run of a node that is gone keeps its numbers, so that nothing that was meant for it
//! reaches another.
//!
//! A federation core has a place of its own behind the shards of its node: `ShardId(shards + core)`. No account is owned
//! there, so no placement names it.

use crate::base::hash::{Map, hash64};
use crate::cluster::placement::{self, Owner, ShardId};
use crate::cluster::view::{Place, Run};

/// Bits of the number of a frame below those that say to which run of a node.
const RUN: u32 = 40;

/// A shard or a federation core, by the number of the ring to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(pub u16);

impl From<ShardId> for Peer {
    fn from(shard: ShardId) -> Peer {
        Peer(shard.0)
    }
}

impl Peer {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[derive(Debug)]
struct Remote {
    place: Place,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// It takes part, as others know already.
    Coming,
    Member,
    Gone,
}

/// One per shard.
#[derive(Debug)]
pub(super) struct Peers {
    own: Run,
    shards: u16,
    /// Shards and federation cores of this node.
    cores: u16,
    remote: Vec<Remote>,
    places: Map<Place, Peer>,
    /// Of the runs that take part now.
    owners: Map<Owner, Peer>,
}

impl Peers {
    /// - `federation`: federation cores of this node
    pub(super) fn new(own: Run, shards: u16, federation: u16) -> Peers {
        let (places, owners) = (Map::default(), Map::default());
        let cores = shards.saturating_add(federation);
        Peers { own, shards, cores, remote: Vec::new(), places, owners }
    }

    /// The federation core that deals with a remote domain; `None` where there is no federation.
    ///
    /// - takes: the domain in prepared form
    pub(super) fn federation(&self, domain: &str) -> Option<Peer> {
        let cores = self.cores - self.shards;
        // One deals with all.
        let hash = if cores > 1 { hash64(domain.as_bytes()) } else { 0 };
        Some(Peer(self.shards + placement::federation_core(hash, cores)?))
    }

    pub(super) fn is_federation(&self, peer: Peer) -> bool {
        (self.shards..self.cores).contains(&peer.0)
    }

    /// Whether there is any federation core.
    pub(super) fn is_federated(&self) -> bool {
        self.cores > self.shards
    }

    /// The federation cores of this node.
    pub(super) fn federation_cores(&self) -> impl Iterator<Item = Peer> + use<> {
        (self.shards..self.cores).map(Peer)
    }

    /// The run of our own node.
    pub(super) fn own(&self) -> Run {
        self.own
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.cores) + self.remote.len()
    }

    /// Who is asked for what `owner` has; `None` for a node that is not known here.
    pub(super) fn of(&self, owner: Owner) -> Option<Peer> {
        if owner.node == self.own.node {
            return (owner.shard.0 < self.shards).then_some(Peer(owner.shard.0));
        }
        self.owners.get(&owner).copied()
    }

    /// The place of a peer.
    pub(super) fn place(&self, peer: Peer) -> Place {
        match peer.0.checked_sub(self.cores).and_then(|at| self.remote.get(usize::from(at))) {
            Some(remote) => remote.place,
            None => Place { run: self.own, shard: ShardId(peer.0) },
        }
    }

    /// The peer of a place of another node, where that takes part now.
    pub(super) fn member(&self, place: Place) -> Option<Peer> {
        let peer = *self.places.get(&place)?;
        let remote = self.remote.get(usize::from(peer.0.checked_sub(self.cores)?))?;
        (remote.part == Part::Member).then_some(peer)
    }

    /// In this process: the way there loses nothing.
    pub(super) fn is_local(&self, peer: Peer) -> bool {
        peer.0 < self.cores
    }

    pub(super) fn is_gone(&self, peer: Peer) -> bool {
        let at = peer.0.checked_sub(self.cores);
        at.and_then(|at| self.remote.get(usize::from(at)))
            .is_some_and(|remote| remote.part == Part::Gone)
    }

    /// The peer of a place, known or not. `None` where there is no number left, which takes some thousand restarts of
    /// large nodes.
    pub(super) fn enter(&mut self, place: Place) -> Option<Peer> {
        if place.run == self.own {
            return (place.shard.0 < self.cores).then_some(Peer(place.shard.0));
        }
        if let Some(known) = self.places.get(&place) {
            return Some(*known);
        }
        let peer = Peer(u16::try_from(self.count()).ok()?);
        self.remote.push(Remote { place, part: Part::Coming });
        self.places.insert(place, peer);
        Some(peer)
    }

    /// From now on this run is who its node is. Gives those of its shards that are new.
    pub(super) fn take_part(&mut self, run: Run, shards: u16) -> Vec<Peer> {
        let mut new = Vec::new();
        for shard in (0..shards).map(ShardId) {
            let Some(peer) = self.enter(Place { run, shard }) else { continue };
            self.owners.insert(Owner { node: run.node, shard }, peer);
            let at = peer.0.checked_sub(self.cores);
            let remote = at.and_then(|at| self.remote.get_mut(usize::from(at)));
            if let Some(remote) = remote.filter(|remote| remote.part == Part::Coming) {
                remote.part = Part::Member;
                new.push(peer);
            }
        }
        new
    }

    /// Those that are not of `stays` are gone; gives them.
    pub(super) fn leave(&mut self, stays: impl Fn(Run) -> bool) -> Vec<Peer> {
        let own = self.cores;
        let mut gone = Vec::new();
        for (at, remote) in (0..).zip(&mut self.remote) {
            if remote.part == Part::Member && !stays(remote.place.run) {
                remote.part = Part::Gone;
                gone.push(Peer(own + at));
            }
        }
        self.owners.retain(|_, peer| !gone.contains(peer));
        gone
    }

    /// All shards of all members, this one among them; no federation cores.
    pub(super) fn live(&self) -> impl Iterator<Item = Peer> + '_ {
        let remote =
            (self.cores..).zip(&self.remote).filter(|(_, remote)| remote.part == Part::Member);
        (0..self.shards).map(Peer).chain(remote.map(|(peer, _)| Peer(peer)))
    }

    /// Those of one run of another node.
    pub(super) fn of_run(&self, run: Run) -> impl Iterator<Item = Peer> + '_ {
        let remote = (self.cores..).zip(&self.remote);
        remote.filter(move |(_, remote)| remote.place.run == run).map(|(peer, _)| Peer(peer))
    }
}

/// Where the numbers of a ring to a run of a node begin: the same numbers never stand for frames to two of them, so that a
/// frame that had to be sent to another one is known by its first number. Incarnations are unique in a cluster.
pub(super) fn first_number(to: Run) -> u64 {
    to.incarnation << RUN
}

/// The incarnation of the node to which a frame of this number was sent; 0 for a shard of the same node.
pub(super) fn run_of(number: u64) -> u64 {
    number >> RUN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::placement::NodeId;

    #[test]
    fn federation_cores_lie_between_own_shards_and_those_of_other_nodes() {
        let run = |node| Run { node: NodeId(node), incarnation: 7 };
        let mut peers = Peers::new(run(1), 2, 3);
        assert_eq!(peers.count(), 5);
        for domain in ["example.org", "capulet.lit", "montague.lit", "a", "b", "c", "d"] {
            let core = placement::federation_core(hash64(domain.as_bytes()), 3);
            let expected = core.map(|core| Peer(2 + core));
            assert!(expected.is_some() && peers.federation(domain) == expected, "{domain}");
        }
        assert_eq!(Peers::new(run(1), 2, 1).federation("example.org"), Some(Peer(2)));
        let other = peers.enter(Place { run: run(2), shard: ShardId(0) });
        assert_eq!(other, Some(Peer(5)));
        assert_eq!(peers.take_part(run(2), 2), [Peer(5), Peer(6)]);
        for number in 2..5 {
            let place = peers.place(Peer(number));
            assert_eq!(place, Place { run: run(1), shard: ShardId(number) });
            assert_eq!(peers.enter(place), Some(Peer(number)));
            assert!(peers.is_local(Peer(number)) && peers.is_federation(Peer(number)));
            assert!(!peers.is_gone(Peer(number)));
            // It owns no account.
            assert_eq!(peers.of(Owner { node: NodeId(1), shard: ShardId(number) }), None);
        }
        assert!(!peers.is_federation(Peer(1)) && !peers.is_federation(Peer(5)));
        assert!(peers.live().eq([0, 1, 5, 6].map(Peer)));
        assert_eq!(peers.leave(|_| false), [Peer(5), Peer(6)]);
        assert!(peers.is_gone(Peer(6)) && !peers.is_gone(Peer(4)));
        assert_eq!(Peers::new(run(1), 2, 0).federation("example.org"), None);
    }
}
