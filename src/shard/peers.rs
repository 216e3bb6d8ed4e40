//! The shards that this one sends frames to, by number: those of this node first, then those of other nodes as they are
//! met. A run of a node that is gone keeps its numbers, so that nothing that was meant for it reaches another.

use crate::base::hash::Map;
use crate::cluster::placement::{Owner, ShardId};
use crate::cluster::view::{Place, Run};

/// Bits of the number of a frame below those that say to which run of a node.
const RUN: u32 = 40;

/// A shard, by the number of the ring to it.
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
    remote: Vec<Remote>,
    places: Map<Place, Peer>,
    /// Of the runs that take part now.
    owners: Map<Owner, Peer>,
}

impl Peers {
    pub(super) fn new(own: Run, shards: u16) -> Peers {
        Peers { own, shards, remote: Vec::new(), places: Map::default(), owners: Map::default() }
    }

    /// The run of our own node.
    pub(super) fn own(&self) -> Run {
        self.own
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.shards) + self.remote.len()
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
        match peer.0.checked_sub(self.shards).and_then(|at| self.remote.get(usize::from(at))) {
            Some(remote) => remote.place,
            None => Place { run: self.own, shard: ShardId(peer.0) },
        }
    }

    /// The peer of a place of another node, where that takes part now.
    pub(super) fn member(&self, place: Place) -> Option<Peer> {
        let peer = *self.places.get(&place)?;
        let remote = self.remote.get(usize::from(peer.0.checked_sub(self.shards)?))?;
        (remote.part == Part::Member).then_some(peer)
    }

    pub(super) fn is_local(&self, peer: Peer) -> bool {
        peer.0 < self.shards
    }

    pub(super) fn is_gone(&self, peer: Peer) -> bool {
        let at = peer.0.checked_sub(self.shards);
        at.and_then(|at| self.remote.get(usize::from(at)))
            .is_some_and(|remote| remote.part == Part::Gone)
    }

    /// The peer of a place, known or not. `None` where there is no number left, which takes some thousand restarts of
    /// large nodes.
    pub(super) fn enter(&mut self, place: Place) -> Option<Peer> {
        if place.run == self.own {
            return (place.shard.0 < self.shards).then_some(Peer(place.shard.0));
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
            let at = peer.0.checked_sub(self.shards);
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
        let own = self.shards;
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

    /// All shards of all members, this one among them.
    pub(super) fn live(&self) -> impl Iterator<Item = Peer> + '_ {
        let remote =
            (self.shards..).zip(&self.remote).filter(|(_, remote)| remote.part == Part::Member);
        (0..self.shards).map(Peer).chain(remote.map(|(peer, _)| Peer(peer)))
    }

    /// Those of one run of another node.
    pub(super) fn of_run(&self, run: Run) -> impl Iterator<Item = Peer> + '_ {
        let remote = (self.shards..).zip(&self.remote);
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
