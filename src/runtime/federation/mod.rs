//! The shell of federation: an executor for each federation core, behind the shards in the mesh, with the sockets of other
//! servers.
//!
//! `core` runs the actor (`crate::federation`), `connection` its sockets, `dial` makes connections, `tls` is both ends of
//! TLS, `certificates` what a peer's certificate is worth, `dns` the thread that asks for servers' addresses, `posh` what that
//! thread fetches over HTTPS, `notes` the lines of the log.

pub mod certificates;
mod connection;
mod core;
mod dial;
pub mod dns;
mod notes;
pub mod posh;
pub mod tls;

use self::core::{Core, Part};
use super::clock::Clock;
use super::cluster::lease::Membership;
use super::executor::{Beats, Done, Ended, IO_MEMORY, PREEMPT, RING_DEPTH, allowed_cpus, seed};
use super::mailbox::{Mailbox, StoreAsker};
use super::mesh::Ends;
use super::storage::Storage;
use crate::admin::figures::FederationFigures;
use crate::admin::latency::FederationPart;
use crate::base::rng::Rng;
use crate::cluster::view::View;
use crate::federation::control::{Answered, Request};
use crate::federation::discovery::{Plan, Problem};
use crate::federation::posh::{Fingerprints, PoshProblem};
use crate::federation::{ConnId, Federation, FederationConfig};
use crate::store::{StoreOutcome, Ticket};
use dns::Dns;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement as Binding};
use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;
use tls::FederationTls;

/// What a federation core is told by side threads.
#[derive(Debug)]
pub enum FederationLetter {
    Stored(Vec<(Ticket, StoreOutcome)>),
    /// What the DNS says of a connection's domain.
    Resolved {
        conn: ConnId,
        outcome: Result<Arc<Plan>, Problem>,
        took: Duration,
    },
    /// What the document of a connection's domain is.
    Posh {
        conn: ConnId,
        domain: Arc<str>,
        outcome: Result<Arc<Fingerprints>, PoshProblem>,
        took: Duration,
    },
    /// In a cluster: who owns what.
    View(Arc<View>),
    /// All that follows is decided by this.
    Reconfigured(Box<FederationNews>),
    /// An operator asks; the answer goes back on the channel, whenever it is there.
    Asked(Request, Sender<Answered>),
    /// The answer goes back on the channel.
    Status(Sender<FederationFigures>),
    /// What was measured goes back on the channel; what comes is empty, and counts from then on.
    Latencies(FederationPart, Sender<FederationPart>),
    /// The node ends.
    Shutdown,
}

impl StoreAsker for Mailbox<FederationLetter> {
    fn answer(&self, answers: Vec<(Ticket, StoreOutcome)>) {
        self.send(FederationLetter::Stored(answers));
    }
}

/// What a core takes over from a configuration that was read again.
pub struct FederationNews {
    pub actor: Arc<FederationConfig>,
    /// `None`: as they are.
    pub settings: Option<FederationSettings>,
}

impl fmt::Debug for FederationNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FederationNews(..)")
    }
}

/// What a reload may change of a core, beside what its actor is told.
#[derive(Clone)]
pub struct FederationSettings {
    pub tls: FederationTls,
    /// For a connection, and for its handshake where that is part of dialling.
    pub connect_timeout: Duration,
    pub shutdown_timeout: Duration,
}

/// What all federation cores of a node need to start.
pub struct FederationSetup {
    /// Before the federation cores in the mesh.
    pub shards: u16,
    /// For each core.
    pub configs: Vec<Arc<FederationConfig>>,
    pub settings: FederationSettings,
    pub dns: Dns,
    pub clock: Clock,
    /// Of the federation cores.
    pub beats: Beats,
    /// Latencies are measured.
    pub measures: bool,
    /// In a cluster: whether the node may act.
    pub membership: Option<Membership>,
}

/// How the federation cores are reached, each by its number among them.
pub struct FederationWays {
    pub mailboxes: Vec<Mailbox<FederationLetter>>,
    pub letters: Vec<Receiver<FederationLetter>>,
    /// To all cores of the node, the shards first.
    pub rings: Vec<Ends>,
    /// Of all cores of the node.
    pub done: Done,
}

/// The running federation cores.
pub struct FederationCores {
    threads: Vec<ExecutorJoinHandle<()>>,
}

#[derive(Debug, thiserror::Error)]
#[error("federation core {core} cannot be started: {cause}")]
pub struct StartError {
    core: u16,
    cause: String,
}

/// Processors of the federation cores, where each has its own; else none.
pub fn cpus(shards: u16, cores: u16) -> Vec<usize> {
    let mut cpus = allowed_cpus();
    let (first, all) = (usize::from(shards), usize::from(shards) + usize::from(cores));
    if cpus.len() < all {
        return Vec::new();
    }
    cpus.truncate(all);
    cpus.split_off(first)
}

/// Starts the federation cores, and returns when all accept connections.
///
/// - `listeners`: for each address, whether TLS begins at once there, and a socket for each core
/// - `ended`: called with its number when a core has ended, whatever the reason
pub fn start(
    setup: FederationSetup,
    listeners: Vec<(bool, Vec<TcpListener>)>,
    ways: FederationWays,
    storage: &Storage,
    ended: impl Fn(u16) + Send + Clone + 'static,
) -> Result<FederationCores, StartError> {
    let FederationWays { mailboxes, letters, rings, done } = ways;
    let mut by_core: Vec<Vec<(bool, TcpListener)>> = mailboxes.iter().map(|_| Vec::new()).collect();
    for (direct_tls, sockets) in listeners {
        for (list, socket) in by_core.iter_mut().zip(sockets) {
            list.push((direct_tls, socket));
        }
    }
    let cores = u16::try_from(mailboxes.len()).unwrap_or(u16::MAX);
    let cpus = cpus(setup.shards, cores);
    let (started, starting) = std::sync::mpsc::channel();
    let mut threads = Vec::new();
    let parts = mailboxes.into_iter().zip(letters).zip(rings).zip(by_core).zip(setup.configs);
    for (index, ((((mailbox, letters), (outlets, inlets)), listeners), config)) in (0..).zip(parts)
    {
        let ring = setup.shards + index;
        let binding = match cpus.get(usize::from(index)) {
            Some(cpu) => Binding::Fixed(*cpu),
            None => Binding::Unbound,
        };
        let store = storage.client(ring);
        let (settings, dns) = (setup.settings.clone(), setup.dns.clone());
        let (clock, beats, measures) = (setup.clock, setup.beats.clone(), setup.measures);
        let (shards, done) = (setup.shards, done.clone());
        let membership = setup.membership.clone();
        let (started, ended) = (started.clone(), Ended(index, ended.clone()));
        let thread = LocalExecutorBuilder::new(binding)
            .name("federation")
            .io_memory(IO_MEMORY)
            .ring_depth(RING_DEPTH)
            .preempt_timer(PREEMPT)
            .spawn(move || async move {
                let _ended = ended;
                let actor = Federation::new(config, Rng::from_seed(seed()), clock.now());
                let part = Part {
                    index,
                    shards,
                    actor,
                    settings,
                    dns,
                    outlets,
                    inlets,
                    letters,
                    mailbox,
                    store,
                    clock,
                    beats,
                    done,
                    measures,
                    membership,
                };
                let (core, inlets, letters) = Core::new(part);
                core.run(inlets, letters, listeners, || {
                    let _ = started.send(());
                })
                .await;
            })
            .map_err(|error| StartError { core: index, cause: error.to_string() })?;
        threads.push(thread);
    }
    drop(started);
    for _ in 0..threads.len() {
        // A core that could not start has dropped its end of the channel; its thread says why.
        if starting.recv().is_err() {
            let failed = (0..)
                .zip(threads)
                .find_map(|(core, thread)| Some((core, thread.join().err()?.to_string())));
            let (core, cause) = failed.unwrap_or((0, "it ended at once".into()));
            return Err(StartError { core, cause });
        }
    }
    Ok(FederationCores { threads })
}

impl FederationCores {
    /// Waits until all cores have ended.
    pub fn join(self) {
        for thread in self.threads {
            if let Err(error) = thread.join() {
                tracing::error!(%error, "a federation core has ended badly");
            }
        }
    }
}
