//! What a node knows of itself at one moment, as plain numbers.

use crate::federation;
use crate::shard::Probe;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a core counts beside its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreProbe {
    /// Connections that were closed since they came from no balancer.
    pub unproxied_refused: u64,
    /// Connections whose balancer's header was none.
    pub proxy_headers_malformed: u64,
    pub handshakes: u64,
    pub handshakes_failed: u64,
    /// Clients that were sent to the node of their account, and those that came again all the same.
    pub redirected: u64,
    pub redirects_ignored: u64,
    /// Connections that the system refused to give.
    pub accepts_failed: u64,
}

/// A shard's present figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardFigures {
    pub shard: u16,
    pub connections: u64,
    pub sessions: u64,
    /// Sockets here whose connections are at other nodes.
    pub fronts: u64,
    pub accounts: u64,
    /// Components that may connect, with how many connections each has here.
    pub components: BTreeMap<String, u64>,
    /// Requests to the store that have no answer yet.
    pub waiting_for_store: u64,
    /// Bytes for other shards that their rings did not take yet.
    pub ring_bytes: u64,
    /// Clients that are not read since rings or the store are full.
    pub clients_held: u64,
    /// When all this was true, on the node's own clock.
    pub at_us: u64,
    /// CPU time of the core's thread, the kernel's work for it included.
    pub cpu_us: u64,
    pub probe: Probe,
    pub core: CoreProbe,
}

/// What a federation core counts beside its actor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FederationCoreProbe {
    pub handshakes: u64,
    pub handshakes_failed: u64,
    /// Connections that the system refused to give.
    pub accepts_failed: u64,
}

/// A federation core's present figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FederationFigures {
    /// Among the federation cores.
    pub core: u16,
    /// CPU time of the core's thread, the kernel's work for it included.
    pub cpu_us: u64,
    /// Bytes for shards that their rings did not take yet.
    pub ring_bytes: u64,
    /// Peers that are not read since rings are full.
    pub peers_held: u64,
    pub probe: federation::Probe,
    pub counts: FederationCoreProbe,
}

/// Upper bounds of the buckets in which commits are counted, in microseconds; one more has the rest.
pub const COMMIT_BUCKETS_US: [u64; 8] =
    [1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 4_000_000, 10_000_000];

/// The storage threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// Writes that no commit has taken yet.
    pub writes_queued: u64,
    pub commits: u64,
    /// Rows and changes that were committed.
    pub writes: u64,
    pub commits_failed: u64,
    pub commit_us: u64,
    /// Each commit once, in the first bucket that holds it.
    pub commit_buckets: [u64; COMMIT_BUCKETS_US.len() + 1],
    pub queries: u64,
    /// The last commit failed, and is being tried again.
    pub is_failing: bool,
}

/// The process, from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_files: u64,
    pub open_files_max: u64,
}

/// The certificate that is shown for a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateFigures {
    pub domain: String,
    /// Seconds since the Unix epoch, when the first of its chain expires.
    pub expires_s: i64,
    pub self_signed: bool,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub version: String,
    pub uptime_s: u64,
    /// As each shard last told them: counters must not fall when one is late.
    pub shards: Vec<ShardFigures>,
    /// Shards that did not answer in time.
    pub late: Vec<u16>,
    pub connections_max: u64,
    pub store: StoreFigures,
    pub process: ProcessFigures,
    pub certificates: Vec<CertificateFigures>,
    /// There in a cluster.
    pub cluster: Option<ClusterFigures>,
    /// Of each federation core, as it last told them; none where federation is off.
    pub federation: Vec<FederationFigures>,
    pub is_ready: bool,
}

/// The node's part in its cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterFigures {
    pub epoch: u64,
    pub is_settled: bool,
    pub has_lease: bool,
    pub members: u64,
    pub links_up: u64,
    pub queue_bytes: u64,
    pub refused: u64,
    /// To each other node that there should be one to.
    pub links: Vec<LinkFigures>,
}

/// A link to another node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkFigures {
    /// Its name.
    pub node: String,
    pub is_up: bool,
    /// Of the last ping; none before one was answered.
    pub rtt_s: Option<f64>,
    /// An estimate: how far its clock is before ours, in seconds.
    pub clock_ahead_s: Option<f64>,
    pub queue_bytes: u64,
}
