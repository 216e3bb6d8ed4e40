//! The thread `links`: one TLS connection to each other node, for all that the shards of both have for each other.
//!
//! It is told which runs of nodes there should be links to. The node with the lower id dials, so there is one connection
//! for each pair of nodes, however many shards they have: 99 connections at each of 100 nodes. What is said on a
//! connection, and believed of it, is `cluster::link`'s; here are sockets, TLS, timers, and who is told.
//!
//! | bound | what happens there |
//! |---|---|
//! | 64 handshakes of strangers under way | the oldest is dropped: who is of the cluster needs milliseconds |
//! | 100 connections a second from addresses of no peer | dropped unread |
//! | 5 s for a handshake | dropped |
//! | 64 MiB waiting for one peer | the link is given up; frames come again with the next, relayed sockets are lost |
//! | 5 s without a byte from a peer (it is pinged each second) | the link is given up |
//!
//! What the shards send is taken from one queue without a bound of its own: they hold no more frames out than their
//! windows allow, and each round moves all that is there to the connections' outputs.

mod carry;
mod doors;
mod ended;
mod figures;
mod hub;
#[cfg(test)]
mod tests;

use super::port::{Carrier, Incoming, Outgoing};
use super::tls::{LinkTls, LinkTlsError};
use crate::base::instant::Wall;
use crate::base::rng::Rng;
use crate::cluster::link::Ours;
use crate::cluster::placement::ShardId;
use crate::cluster::secret::{Label, Secret};
use crate::cluster::view::{NodeFacts, Run};
use crate::runtime::clock::Clock;
use figures::Board;
use hub::Hub;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

pub use figures::{LinkState, LinksFigures, PeerFigures};

/// Orders that are taken in one round, before outputs are written.
const ROUND: usize = 4096;
/// How long what was sent last may take when the node leaves.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where a shard takes what comes over links. Called on the thread of the links; must not wait.
pub trait Sink: Send + Sync {
    fn deliver(&self, shard: ShardId, incoming: Incoming);
}

/// What there should be, decided elsewhere.
#[derive(Clone, Debug)]
pub enum Command {
    /// There should be links to exactly these runs. This node may be among them.
    Peers(Vec<NodeFacts>),
    /// The newest epoch that is known here; peers are told.
    Epoch(u64),
    /// All peers are told that this node leaves on purpose. No link is made from here on.
    Leave,
}

/// What the links tell who decides about members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// With what the peer says of itself.
    Up(NodeFacts),
    /// With the reason, for people.
    Down(Run, String),
    /// This run knows of this epoch; it may be one that was not admitted.
    Epoch(Run, u64),
    /// The run leaves on purpose. `Down` follows.
    Left(Run),
    /// The run asks something under a number of its own.
    Asked(Run, u64, Vec<u8>),
    /// The run answers what it was asked under this number, or says so.
    Answered(Run, u64, Vec<u8>),
}

/// What the links of a node need.
pub struct Settings {
    /// Bound to the configured address.
    pub listener: TcpListener,
    pub facts: NodeFacts,
    pub secret: Secret,
    /// Bytes of a frame at most, as the shards write them.
    pub frame_bytes_max: usize,
    pub clock: Clock,
    /// For the jitter of dialling; from the system's generator.
    pub seed: [u8; 32],
}

/// Why there are no links.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    #[error(transparent)]
    Tls(#[from] LinkTlsError),
    #[error("the thread of the links cannot be started: {0}")]
    Thread(#[from] io::Error),
}

enum Order {
    /// And when its core gave it away.
    Piece(Wall, Outgoing),
    Renew(Run),
    Call(Call),
    Command(Command),
    Stop,
}

/// A question to another node, or the answer to one of its own.
struct Call {
    to: Run,
    number: u64,
    is_question: bool,
    text: Vec<u8>,
}

/// Sends to the links, and reads how they are. Cloned to every core and side thread.
#[derive(Clone)]
pub struct Links {
    orders: UnboundedSender<Order>,
    board: Arc<Board>,
    clock: Clock,
}

impl Carrier for Links {
    fn send(&self, piece: Outgoing) {
        // After the thread has ended there is no link either.
        let _ = self.orders.send(Order::Piece(self.clock.now().wall, piece));
    }

    fn renew(&self, run: Run) {
        let _ = self.orders.send(Order::Renew(run));
    }
}

impl Links {
    /// Carried out in order, also among the pieces that were sent.
    pub fn command(&self, command: Command) {
        let _ = self.orders.send(Order::Command(command));
    }

    /// Asks a run something; `LinkEvent::Answered` comes, or does not.
    pub fn ask(&self, to: Run, number: u64, text: Vec<u8>) {
        let _ = self.orders.send(Order::Call(Call { to, number, is_question: true, text }));
    }

    /// Answers what a run has asked under this number.
    pub fn answer(&self, to: Run, number: u64, text: Vec<u8>) {
        let _ = self.orders.send(Order::Call(Call { to, number, is_question: false, text }));
    }

    pub fn is_up(&self, run: Run) -> bool {
        let peers = self.board.figures().peers;
        peers.iter().any(|peer| peer.run == run && peer.state == LinkState::Up)
    }

    pub fn figures(&self) -> LinksFigures {
        self.board.figures()
    }
}

/// The running thread. Dropping it leaves the peers, and waits for it.
pub struct LinksThread {
    links: Links,
    thread: Option<JoinHandle<()>>,
}

impl LinksThread {
    pub fn links(&self) -> &Links {
        &self.links
    }
}

impl Drop for LinksThread {
    fn drop(&mut self) {
        let _ = self.links.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the links had panicked");
        }
    }
}

/// Starts the thread. It makes no link before it is told of peers.
pub fn start(
    settings: Settings,
    sink: Arc<dyn Sink>,
    events: UnboundedSender<LinkEvent>,
) -> Result<LinksThread, LinksError> {
    let Settings { listener, facts, secret, frame_bytes_max, clock, seed } = settings;
    let tls = LinkTls::new(&secret, &facts.name, clock.now().wall)?;
    let mut cluster = [0; 16];
    cluster.copy_from_slice(&secret.derive(Label::Cluster)[..16]);
    let ours = Arc::new(Ours { facts, cluster, frame_bytes_max });
    listener.set_nonblocking(true)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (orders, inbox) = unbounded_channel();
    let board = Arc::new(Board::default());
    let links = Links { orders, board: board.clone(), clock };
    let thread = std::thread::Builder::new().name("links".into()).spawn(move || {
        let hub = Hub::new(ours, tls, sink, events, board, clock, Rng::from_seed(seed));
        LocalSet::new().block_on(&runtime, run(Rc::new(hub), listener, inbox));
        runtime.shutdown_background();
    })?;
    Ok(LinksThread { links, thread: Some(thread) })
}

async fn run(hub: Rc<Hub>, listener: TcpListener, mut inbox: UnboundedReceiver<Order>) {
    let doorman = tokio::task::spawn_local(doors::accept(hub.clone(), listener));
    let mut orders = Vec::new();
    'rounds: while inbox.recv_many(&mut orders, ROUND).await > 0 {
        for order in orders.drain(..) {
            match order {
                Order::Piece(at, piece) => hub.send(at, piece),
                Order::Renew(run) => hub.renew(run),
                Order::Call(call) => hub.call(&call),
                Order::Command(Command::Peers(peers)) => doors::set_peers(&hub, peers),
                Order::Command(Command::Epoch(epoch)) => hub.tell(epoch),
                Order::Command(Command::Leave) => hub.leave(),
                Order::Stop => break 'rounds,
            }
        }
        hub.wake_writers();
    }
    doorman.abort();
    hub.leave();
    // Whoever does not read by then learns it from gossip.
    let _ = tokio::time::timeout(LAST_WORDS, hub.emptied()).await;
}
