//! Who is in the cluster: what a node says of itself, and the members of one epoch.
//!
//! A view comes from the shared database, which alone decides it; everybody acts by the newest that they know.

use super::placement::{Member, NodeId, Placement, ShardId};
use std::net::SocketAddr;
use std::sync::Arc;

/// One run of a node: a node that was started again is another one, which nothing that was meant for the old one reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    pub node: NodeId,
    pub incarnation: u64,
}

/// A shard of one run of a node: where frames come from and go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub run: Run,
    pub shard: ShardId,
}

/// What a node says of itself. The same for as long as it runs, but for its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Unique in the cluster, the same after a restart.
    pub name: String,
    pub run: Run,
    pub shards: u16,
    /// Its share of the partitions; 0 for one that is being drained.
    pub weight: u32,
    /// Where it takes links (TCP) and gossip (UDP).
    pub link: SocketAddr,
    /// Where clients reach this very node, for redirects and the shard map, as `HOST:PORT`; empty: nowhere by itself.
    pub clients: Vec<String>,
    /// Where components do, for the shard map. Members tell it by the database alone: whoever only hears of a node, by gossip or
    /// over a link, does not know it.
    pub components: Vec<String>,
    /// It talks with other servers. Told as `components` are.
    pub federates: bool,
    /// The oldest and newest version of frames that it speaks.
    pub frames: (u16, u16),
    /// The version of the program, for people.
    pub version: String,
}

/// The members at one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub placement: Arc<Placement>,
    /// By node id; the same as those of the placement.
    pub nodes: Vec<NodeFacts>,
}

impl View {
    /// - takes: at least one node
    pub fn new(epoch: u64, mut nodes: Vec<NodeFacts>) -> View {
        nodes.sort_by_key(|node| node.run.node);
        let members: Vec<Member> = nodes
            .iter()
            .map(|node| Member {
                node: node.run.node,
                name: node.name.clone(),
                weight: node.weight,
                shards: node.shards,
                federates: node.federates,
            })
            .collect();
        View { placement: Arc::new(Placement::new(epoch, &members)), nodes }
    }

    /// Of a node without a cluster: node 0 at epoch 0.
    pub fn single(name: &str, shards: u16, incarnation: u64) -> View {
        let alone = NodeFacts {
            name: name.to_owned(),
            run: Run { node: NodeId(0), incarnation },
            shards,
            weight: 1,
            link: SocketAddr::from(([127, 0, 0, 1], 0)),
            clients: Vec::new(),
            components: Vec::new(),
            federates: false,
            frames: (1, 1),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        View { placement: Arc::new(Placement::alone(name, shards)), nodes: vec![alone] }
    }

    pub fn epoch(&self) -> u64 {
        self.placement.epoch()
    }

    pub fn node(&self, id: NodeId) -> Option<&NodeFacts> {
        let place = self.nodes.binary_search_by_key(&id, |node| node.run.node).ok()?;
        self.nodes.get(place)
    }

    /// Whether this run of a node takes part.
    pub fn has(&self, run: Run) -> bool {
        self.node(run.node).is_some_and(|node| node.run == run)
    }
}
