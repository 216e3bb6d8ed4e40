//! The peers of this node, which of them have a link, and who is told. On the thread of the links, shared by its tasks; no
//! borrow lives across an await.

use super::super::port::{Incoming, Outgoing};
use super::super::tls::LinkTls;
use super::ended::Ended;
use super::figures::{Board, LinkState, PeerFigures};
use super::{Call, LinkEvent, Sink};
use crate::base::instant::{Instant, Now, Wall};
use crate::base::limit::{Meter, Rate};
use crate::base::rng::Rng;
use crate::cluster::link::{Event, Link, Ours};
use crate::cluster::placement::{NodeId, ShardId};
use crate::cluster::view::{NodeFacts, Place, Run};
use crate::runtime::clock::Clock;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

/// One line for each reason and this time.
const LINE_EACH: Duration = Duration::from_secs(10);

pub(super) struct Hub {
    pub(super) ours: Arc<Ours>,
    pub(super) tls: LinkTls,
    pub(super) board: Arc<Board>,
    pub(super) clock: Clock,
    /// Woken when the peers change.
    pub(super) changed: Notify,
    sink: Arc<dyn Sink>,
    events: UnboundedSender<LinkEvent>,
    rng: RefCell<Rng>,
    peers: RefCell<BTreeMap<NodeId, Peer>>,
    /// Peers whose output has grown in this round.
    dirty: RefCell<Vec<Rc<Notify>>>,
    /// The newest epoch that is known here.
    epoch: Cell<u64>,
    is_leaving: Cell<bool>,
    /// Connections whose tasks run, links or not yet or no longer.
    open: Cell<usize>,
    emptied: Notify,
    next_id: Cell<u64>,
    lines: RefCell<BTreeMap<&'static str, Line>>,
}

struct Peer {
    facts: NodeFacts,
    live: Option<Live>,
    /// The task that dials, where that is for us to do.
    dialler: Option<AbortHandle>,
}

/// A link that is up.
struct Live {
    id: LiveId,
    link: Rc<RefCell<Link>>,
    writer: Rc<Notify>,
    has_grown: bool,
}

/// One connection's time as the link to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LiveId {
    pub(super) run: Run,
    number: u64,
}

#[derive(Default)]
struct Line {
    meter: Meter,
    suppressed: u64,
}

/// Counts a connection for as long as it lives.
pub(super) struct Open(Rc<Hub>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0 {
            self.0.emptied.notify_waiters();
        }
    }
}

impl Hub {
    pub(super) fn new(
        ours: Arc<Ours>,
        tls: LinkTls,
        sink: Arc<dyn Sink>,
        events: UnboundedSender<LinkEvent>,
        board: Arc<Board>,
        clock: Clock,
        rng: Rng,
    ) -> Hub {
        Hub {
            ours,
            tls,
            board,
            clock,
            changed: Notify::new(),
            sink,
            events,
            rng: RefCell::new(rng),
            peers: RefCell::default(),
            dirty: RefCell::default(),
            epoch: Cell::new(0),
            is_leaving: Cell::new(false),
            open: Cell::new(0),
            emptied: Notify::new(),
            next_id: Cell::new(0),
            lines: RefCell::default(),
        }
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    /// Half of `pause`, and up to the other half by chance.
    pub(super) fn jittered(&self, pause: Duration) -> Duration {
        let half = pause / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.rng.borrow_mut().below(nanos))
    }

    pub(super) fn open(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        Open(self.clone())
    }

    /// Until no connection is left.
    pub(super) async fn emptied(&self) {
        while self.open.get() > 0 {
            self.emptied.notified().await;
        }
    }

    // Peers.

    /// Drops peers that are not among these runs, and gives those of them that are new. Of those that stay the facts are
    /// renewed.
    pub(super) fn keep(&self, wanted: Vec<NodeFacts>) -> Vec<NodeFacts> {
        let own = self.ours.facts.run.node;
        let wanted: BTreeMap<NodeId, NodeFacts> = wanted
            .into_iter()
            .filter(|facts| facts.run.node != own)
            .map(|facts| (facts.run.node, facts))
            .collect();
        let gone: Vec<NodeId> = {
            let peers = self.peers.borrow();
            let stays = |peer: &Peer| {
                wanted.get(&peer.facts.run.node).is_some_and(|facts| facts.run == peer.facts.run)
            };
            peers.values().filter(|peer| !stays(peer)).map(|peer| peer.facts.run.node).collect()
        };
        for node in gone {
            self.end(node, &Ended::Removed);
            let peer = self.peers.borrow_mut().remove(&node);
            if let Some(dialler) = peer.and_then(|peer| peer.dialler) {
                dialler.abort();
            }
            self.board.remove(node);
        }
        let mut new = Vec::new();
        let mut peers = self.peers.borrow_mut();
        for (node, facts) in wanted {
            match peers.get_mut(&node) {
                Some(peer) => peer.facts = facts,
                None => {
                    let state = if own < node { LinkState::Dialling } else { LinkState::Awaited };
                    let (name, run) = (facts.name.clone(), facts.run);
                    self.board.add(PeerFigures { name, run, state, ..PeerFigures::default() });
                    peers.insert(node, Peer { facts: facts.clone(), live: None, dialler: None });
                    new.push(facts);
                }
            }
        }
        drop(peers);
        self.changed.notify_waiters();
        new
    }

    pub(super) fn set_dialler(&self, node: NodeId, dialler: AbortHandle) {
        if let Some(peer) = self.peers.borrow_mut().get_mut(&node) {
            peer.dialler = Some(dialler);
        }
    }

    /// What the members' list says of a node.
    pub(super) fn peer(&self, node: NodeId) -> Option<NodeFacts> {
        self.peers.borrow().get(&node).map(|peer| peer.facts.clone())
    }

    /// Whether a peer takes its links at this address: then it is no stranger who comes from there.
    pub(super) fn is_peer_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.peers.borrow().values().any(|peer| peer.facts.link.ip().to_canonical() == address)
    }

    // Links.

    /// A connection becomes the link to its peer, in the place of one that was there. `None`: it is no peer any more.
    pub(super) fn up(
        &self,
        facts: NodeFacts,
        frames_version: u16,
        link: &Rc<RefCell<Link>>,
        writer: &Rc<Notify>,
    ) -> Option<LiveId> {
        let (run, node) = (facts.run, facts.run.node);
        self.peer(node).filter(|peer| peer.run == run)?;
        self.end(node, &Ended::Replaced);
        let number = self.next_id.get();
        self.next_id.set(number + 1);
        let id = LiveId { run, number };
        let (link, writer) = (link.clone(), writer.clone());
        // It may have become newer during the handshake.
        link.borrow_mut().tell(self.epoch());
        self.peers.borrow_mut().get_mut(&node)?.live =
            Some(Live { id, link, writer, has_grown: false });
        self.board.peer(node, |figures| {
            figures.state = LinkState::Up;
            figures.estimate = None;
            figures.frames_version = frames_version;
            figures.ups += 1;
            figures.reconnects = figures.ups - 1;
        });
        tracing::info!(node = facts.name, incarnation = run.incarnation, "the link is up");
        self.for_all_shards(|| Incoming::Up(run));
        self.event(LinkEvent::Up(facts));
        Some(id)
    }

    pub(super) fn is_live(&self, id: LiveId) -> bool {
        let peers = self.peers.borrow();
        let live = peers.get(&id.run.node).and_then(|peer| peer.live.as_ref());
        live.is_some_and(|live| live.id == id)
    }

    /// The link of this connection is no more; nothing happens if it is none any more.
    pub(super) fn down(&self, id: LiveId, ended: &Ended) {
        if self.is_live(id) {
            self.end(id.run.node, ended);
        }
    }

    /// Ends the link to a node, if there is one. The connection's task notices by itself.
    fn end(&self, node: NodeId, ended: &Ended) {
        let (live, name, dials) = {
            let mut peers = self.peers.borrow_mut();
            let Some(peer) = peers.get_mut(&node) else { return };
            let Some(live) = peer.live.take() else { return };
            (live, peer.facts.name.clone(), peer.dialler.is_some())
        };
        live.writer.notify_one();
        self.board.peer(node, |figures| {
            figures.state = if dials { LinkState::Dialling } else { LinkState::Awaited };
            figures.queue_bytes = 0;
            figures.last_end = Some(ended.to_string());
        });
        if let Ended::Refused(refusal) = ended {
            self.board.refused(refusal.word());
        }
        let incarnation = live.id.run.incarnation;
        match ended {
            Ended::Left | Ended::WeLeave | Ended::Removed => {
                tracing::info!(node = name, incarnation, reason = %ended, "the link is down");
            }
            _ => tracing::warn!(node = name, incarnation, reason = %ended, "the link is down"),
        }
        self.for_all_shards(|| Incoming::Down(live.id.run));
        self.event(LinkEvent::Down(live.id.run, ended.to_string()));
    }

    /// Hands on what came over a link. Gives whether more may come.
    pub(super) fn dispatch(&self, id: LiveId, events: &mut Vec<Event>) -> Result<(), Ended> {
        let mut pieces = 0;
        for event in events.drain(..) {
            match event {
                Event::Piece { from, to, sent, frames, news, relay } => {
                    pieces += 1;
                    let from = Place { run: id.run, shard: from };
                    self.sink.deliver(to, Incoming::Piece { from, sent, frames, news, relay });
                }
                Event::Epoch(epoch) => self.event(LinkEvent::Epoch(id.run, epoch)),
                Event::Ask(number, text) => self.event(LinkEvent::Asked(id.run, number, text)),
                Event::Answer(number, text) => {
                    self.event(LinkEvent::Answered(id.run, number, text));
                }
                Event::Left => {
                    self.event(LinkEvent::Left(id.run));
                    return Err(Ended::Left);
                }
                // Of handshakes, which are over.
                Event::Hello(_) | Event::Up { .. } => {}
            }
        }
        if pieces > 0 {
            self.board.peer(id.run.node, |figures| figures.pieces_in += pieces);
        }
        Ok(())
    }

    /// A run that has not been admitted knows of this epoch.
    pub(super) fn heard(&self, run: Run, epoch: u64) {
        if epoch > self.epoch() {
            self.event(LinkEvent::Epoch(run, epoch));
        }
    }

    /// Ends the link to a run, of which some was not taken here; whose turn it is makes another.
    pub(super) fn renew(&self, run: Run) {
        let is_it = |peer: &Peer| peer.live.as_ref().is_some_and(|live| live.id.run == run);
        if self.peers.borrow().get(&run.node).is_some_and(is_it) {
            self.end(run.node, &Ended::Overtaxed);
        }
    }

    // What goes out.

    /// - takes: when its core gave it away
    pub(super) fn send(&self, at: Wall, piece: Outgoing) {
        let node = piece.to.run.node;
        let sent = {
            let mut peers = self.peers.borrow_mut();
            let Some(peer) = peers.get_mut(&node).filter(|peer| peer.facts.run == piece.to.run)
            else {
                return self.board.without_peer();
            };
            let Some(live) = peer.live.as_mut().filter(|live| live.link.borrow().is_up()) else {
                return self.board.peer(node, |figures| figures.pieces_dropped += 1);
            };
            if !std::mem::replace(&mut live.has_grown, true) {
                self.dirty.borrow_mut().push(live.writer.clone());
            }
            let mut link = live.link.borrow_mut();
            let Outgoing { from, to, frames, news, relay } = &piece;
            let sent = link.piece((*from, to.shard), at, frames, *news, relay);
            sent.map(|()| link.waiting_bytes())
        };
        match sent {
            Ok(waiting) => self.board.peer(node, |figures| {
                figures.pieces_out += 1;
                figures.queue_bytes = waiting;
            }),
            Err(refusal) => self.end(node, &Ended::Refused(refusal)),
        }
    }

    /// Without a link to that run it is dropped.
    pub(super) fn call(&self, call: &Call) {
        let node = call.to.node;
        let sent = {
            let peers = self.peers.borrow();
            let peer = peers.get(&node).filter(|peer| peer.facts.run == call.to);
            let Some(live) = peer.and_then(|peer| peer.live.as_ref()) else { return };
            live.writer.notify_one();
            live.link.borrow_mut().call(call.number, call.is_question, &call.text)
        };
        if let Err(refusal) = sent {
            self.end(node, &Ended::Refused(refusal));
        }
    }

    /// At the end of a round: one write for all that it brought.
    pub(super) fn wake_writers(&self) {
        let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        if dirty.is_empty() {
            return;
        }
        dirty.iter().for_each(|writer| writer.notify_one());
        for peer in self.peers.borrow_mut().values_mut() {
            if let Some(live) = &mut peer.live {
                live.has_grown = false;
            }
        }
    }

    /// An epoch is known here; peers are told of the newest only.
    pub(super) fn tell(&self, epoch: u64) {
        self.epoch.set(self.epoch().max(epoch));
        for peer in self.peers.borrow().values() {
            if let Some(live) = &peer.live {
                live.link.borrow_mut().tell(self.epoch());
                live.writer.notify_one();
            }
        }
    }

    /// Says goodbye on all links, and ends them.
    pub(super) fn leave(&self) {
        self.is_leaving.set(true);
        let nodes: Vec<NodeId> = {
            let peers = self.peers.borrow();
            let live = peers.values().filter_map(|peer| peer.live.as_ref());
            live.for_each(|live| live.link.borrow_mut().leave());
            peers
                .values()
                .filter_map(|peer| peer.dialler.as_ref().filter(|_| peer.live.is_none()))
                .for_each(AbortHandle::abort);
            peers.keys().copied().collect()
        };
        nodes.into_iter().for_each(|node| self.end(node, &Ended::WeLeave));
        self.changed.notify_waiters();
    }

    // Telling.

    /// Counts what came to nothing, and tells the operator of it, once in a while for each reason.
    pub(super) fn refused(&self, peer: Option<&NodeFacts>, address: Option<String>, ended: &Ended) {
        let word = ended.word();
        self.board.refused(word);
        if let Some(peer) = peer {
            let line = ended.to_string();
            self.board.peer(peer.run.node, |figures| figures.last_end = Some(line));
        }
        let Some(suppressed) = self.line(word, self.now().mono) else { return };
        // Of a machine in the cluster's network: the operator has to find it.
        let address = address.unwrap_or_default();
        let node = peer.map(|peer| peer.name.as_str());
        tracing::warn!(node, address, reason = %ended, suppressed, "no link with this peer");
    }

    /// `None`: not now. Else how many lines of this reason were left out.
    fn line(&self, word: &'static str, now: Instant) -> Option<u64> {
        let mut lines = self.lines.borrow_mut();
        let line = lines.entry(word).or_default();
        match line.meter.take(&Rate::over(1, LINE_EACH), now) {
            Ok(()) => Some(std::mem::take(&mut line.suppressed)),
            Err(_) => {
                line.suppressed += 1;
                None
            }
        }
    }

    fn for_all_shards(&self, make: impl Fn() -> Incoming) {
        for shard in 0..self.ours.facts.shards {
            self.sink.deliver(ShardId(shard), make());
        }
    }

    fn event(&self, event: LinkEvent) {
        // Nobody listens any more while the node stops.
        let _ = self.events.send(event);
    }
}
