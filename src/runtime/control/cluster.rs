//! What a running node tells of its cluster, and is asked to do in it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `/api/v1/cluster` tells. Fields are added and stay; `schema` rises when one changes its meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    pub schema: u32,
    /// As of `corefire cluster status --json`; none where the node serves alone.
    pub cluster: Option<ClusterStatus>,
    /// Messages that clients of this node's accounts got, by how often they crossed from node to node: "0" to "3", "more".
    pub hops: BTreeMap<&'static str, u64>,
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The node that tells this.
    pub node: String,
    pub epoch: u64,
    /// As of RFC 3339, in UTC.
    pub changed_at: String,
    pub why: String,
    /// What the cluster waits for, as far as this node knows.
    pub waiting: Option<String>,
    /// All shards of this node have what is theirs at this epoch.
    pub is_settled: bool,
    /// The node may act as the owner of what it has.
    pub has_lease: bool,
    /// There where this node has been drained, or is being.
    pub drain: Option<ClusterDrain>,
    /// By node id, members or not.
    pub nodes: Vec<ClusterNode>,
    /// Newest first.
    pub events: Vec<ClusterEvent>,
    /// Beacons, gossip and handshakes that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// How far the clock of the last beacon's sender is before ours; below 0: behind.
    pub clock_ahead_ms: i64,
}

/// How far the node is that tells this; the accounts that it still has are among its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDrain {
    /// Clients that are still to be told to go, of those whose accounts are at other nodes.
    pub connections_left: u64,
    pub is_done: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNode {
    pub name: String,
    pub id: u32,
    pub incarnation: u64,
    /// "joining", "member", "leaving", "left" or "fenced".
    pub state: String,
    /// This run owns what it has at this epoch.
    pub is_member: bool,
    pub weight: u32,
    pub shards: u16,
    pub partitions: usize,
    pub address: String,
    pub clients: Vec<String>,
    pub version: String,
    pub settled_epoch: u64,
    /// What is left of its lease.
    pub lease_ms: u64,
    /// "this", "alive", "suspect" or "unknown", by gossip.
    pub health: String,
    /// There where there should be a link to it.
    pub link: Option<ClusterLink>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterLink {
    /// "up", "dialling" or "awaited".
    pub state: String,
    pub rtt_us: Option<u64>,
    /// An estimate: how far its clock is before ours; below 0: behind.
    pub clock_ahead_us: Option<i64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub queue_bytes: u64,
    pub reconnects: u64,
    pub last_end: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterEvent {
    pub at: String,
    pub epoch: u64,
    pub node: String,
    pub what: String,
}
