//! One federation core's actor: the streams with other servers, the queues of remote domains, and who may speak for whom.
//!
//! `Federation::handle` takes one input and fills `Effects`; it reads no clock and does no I/O. It meets the shards only
//! in frames: those for remote addresses come in over rings and are handled when the peer has confirmed them (or the
//! store has them, or they were answered); what peers send goes out as frames to the owners of its recipients.
//!
//! A remote domain is dealt with by one core of the node (`cluster::placement::federation_core`), and in a cluster by one
//! node. Incoming connections are
//! taken by any of them, as nobody knows whose they are before they speak.
//!
//! - `domain`, `queue`: what waits for whom, in order; `durable`: what of it is in the store
//! - `dial`, `outbound`, `carry`: when a domain is tried, how a stream comes up, what flows on it
//! - `inbound`, `dialback`: who peers are, and what they send
//! - `managed`: who has what (XEP-0198, or pings); `ending`: what becomes of it when connections end; `taking`: streams that
//!   are taken up on another core
//! - `share`: in a cluster, which remote domains are this node's
//! - `frames`, `bounce`: the rings to the shards; `operator`: what is asked from outside
//! - `discovery`, `trust`: where a domain's servers are, and whom a certificate names: plain functions

mod bounce;
mod carry;
pub mod config;
mod conn;
pub mod control;
mod dial;
mod dialback;
pub mod discovery;
mod domain;
mod durable;
mod effect;
mod ending;
mod frames;
mod inbound;
mod input;
mod managed;
mod note;
mod operator;
mod outbound;
pub mod posh;
mod probe;
mod queue;
mod share;
mod taking;
pub mod trust;

pub use config::{FederationConfig, Limits, Policy};
pub use effect::{Action, ClientTls, ConnId, Effects, TlsRole};
pub use input::{
    Attempt, Connected, DialProblem, Input, Lost, PeerTls, TlsProblem, TlsVersion, Untrusted,
};
pub use note::Note;
pub use probe::{Failure, Latencies, Probe, Stage};

use crate::base::hash::{Map, Set};
use crate::base::ids::Slab;
use crate::base::instant::{Instant, Now};
use crate::base::rng::Rng;
use crate::base::subnet::Subnet;
use crate::base::wheel::Wheel;
use crate::frame::ring::Inward;
use crate::frame::{Encoder, FRAME_BYTES_MAX};
use crate::store::{STORE_PARTITIONS, Ticket};
use crate::stream::s2s::S2sPolicy;
use crate::xmpp::jid::{BareJid, JidCache};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::reader::Index;
use conn::Conn;
use domain::{Domain, DomainId, Lane, LaneId};
use durable::{Ids, Waiting, Walk};
use frames::Outward;
use managed::{Received, ReceivedId};
use std::collections::VecDeque;
use std::sync::Arc;

/// Distinct addresses that are remembered in prepared form.
const JID_CACHE: usize = 4_096;

/// Timers that one `Input::Tick` runs: a thousand that expire at once do not hold up who is in.
const TIMERS_PER_TICK: usize = 64;

/// What a timer is about. Timers are never taken back: on expiry it is checked whether they still apply.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// A lane may be tried again.
    Retry(LaneId),
    /// What waits in a lane may have waited for too long.
    Expire(LaneId),
    /// What waits in a lane should be in the store.
    Store(LaneId),
    /// The peer is asked again what it has.
    Ask(LaneId),
    /// Keys of dialback may have waited for too long.
    Asked(LaneId),
    /// A connection should have come somewhere by now.
    Negotiation(ConnId),
    /// What was sent should be confirmed.
    Confirmation(ConnId),
    /// A request for an acknowledgement has waited a second.
    AckDue(ConnId),
    /// The connection may be of no use any more.
    Idle(ConnId),
    /// The peer may be gone.
    Silence(ConnId),
    /// The connection may be read again, as far as rates go.
    Rate(ConnId),
    /// The window for taking a stream up may be over.
    Resume(ReceivedId),
    /// The store is asked again for domains that have rows, or for the rows of one.
    Walk,
    Page(DomainId),
    /// A change of owners is looked at.
    Share,
}

/// What waits to be written to a connection.
#[derive(Debug)]
pub struct Output<'a> {
    pub bytes: &'a [u8],
    /// Nothing comes after it.
    pub closing: bool,
}

/// A core's state. Lives on one core.
struct Core {
    config: Arc<FederationConfig>,
    policy: Arc<S2sPolicy>,
    now: Now,
    rng: Rng,
    wheel: Wheel<Timer>,
    conns: Slab<Conn>,
    domains: Slab<Domain>,
    lanes: Slab<Lane>,
    names: Map<Arc<str>, DomainId>,
    /// Domains, the longest unseen first, roughly.
    by_age: VecDeque<DomainId>,
    refused: config::Refused,
    /// What operators refused since the configuration was read.
    blocked: Set<Arc<str>>,
    received: Slab<Received>,
    resumables: Map<Box<str>, ReceivedId>,
    /// Incoming connections by network: all, and those that have not authenticated.
    networks: Map<Subnet, (usize, usize)>,
    incoming: usize,
    /// Connections that are being made, and lanes that wait to make one.
    dialling: usize,
    waiting: VecDeque<LaneId>,
    checks: usize,
    pending_pairs: usize,
    /// Bytes of all queues.
    queued_bytes: usize,
    /// Ids of our pings: what they begin with, and how many there were.
    ping_prefix: Box<str>,
    pings: u64,
    /// By ring.
    inward: Vec<Inward>,
    outward: Vec<Outward>,
    encoder: Encoder,
    jids: JidCache,
    index: Index,
    tickets: Map<Ticket, Waiting>,
    next_ticket: u64,
    /// By partition of the store.
    ids: Vec<Ids>,
    walk: Walk,
    /// In a cluster.
    share: Option<share::Share>,
    walked: Option<BareJid>,
    /// Domains of which rows were confirmed in this turn.
    confirming: Vec<DomainId>,
    /// Lanes and connections to look at when the turn ends.
    touched: Vec<LaneId>,
    noted: Vec<ConnId>,
    /// Connections whose `<resume/>` was answered and that are read on.
    resumed_conns: Vec<ConnId>,
    /// Streams that other cores asked for, to look at when the turn ends.
    giving: Vec<ReceivedId>,
    /// Connections that are not read as rings or the store are full.
    stalled: Vec<ConnId>,
    /// Spare room for what is written.
    scratch: Vec<u8>,
    probe: Probe,
    latencies: Box<Latencies>,
    stopping: bool,
}

/// The actor. One per federation core.
pub struct Federation {
    core: Core,
    index: Index,
    /// Timers that have expired and wait for their turn, the first one last.
    expired: Vec<Timer>,
}

impl Federation {
    /// - `rng`: from the operating system in a node, from a seed in simulation
    pub fn new(config: Arc<FederationConfig>, mut rng: Rng, now: Now) -> Self {
        let rings = usize::from(config.shards) + usize::from(config.cores);
        let core = Core {
            policy: Arc::new(config.stream_policy()),
            now,
            wheel: Wheel::new(now.mono),
            conns: Slab::new(),
            domains: Slab::new(),
            lanes: Slab::new(),
            names: Map::default(),
            by_age: VecDeque::new(),
            refused: config::Refused::by(&config),
            blocked: Set::default(),
            received: Slab::new(),
            resumables: Map::default(),
            networks: Map::default(),
            incoming: 0,
            dialling: 0,
            waiting: VecDeque::new(),
            checks: 0,
            pending_pairs: 0,
            queued_bytes: 0,
            ping_prefix: format!("p{}", rng.token(16)).into(),
            pings: 0,
            inward: (0..rings).map(|_| Inward::default()).collect(),
            outward: (0..rings).map(|_| Outward::default()).collect(),
            encoder: Encoder::new(FRAME_BYTES_MAX),
            jids: JidCache::new(JID_CACHE),
            index: Index::default(),
            tickets: Map::default(),
            next_ticket: 0,
            ids: vec![Ids::default(); usize::from(STORE_PARTITIONS)],
            walk: if config.node.is_some() { Walk::Held } else { Walk::Next(None) },
            share: config.node.map(|node| share::Share::new(node, config.shards)),
            walked: None,
            confirming: Vec::new(),
            touched: Vec::new(),
            noted: Vec::new(),
            resumed_conns: Vec::new(),
            giving: Vec::new(),
            stalled: Vec::new(),
            scratch: Vec::new(),
            probe: Probe::default(),
            latencies: Box::default(),
            stopping: false,
            rng,
            config,
        };
        Self { core, index: Index::default(), expired: Vec::new() }
    }

    /// One input. The runtime calls `end_turn` when it has given all that is there, then carries `fx` out.
    pub fn handle(&mut self, now: Now, input: Input<'_>, fx: &mut Effects) {
        self.core.now = now;
        match input {
            Input::Frames { from, sent, batch } => self.core.frames(from, sent, batch, fx),
            Input::Handled { by, handled, .. } => self.core.handled(by, handled),
            Input::Relieved => self.relieved(fx),
            Input::Resolved { conn, outcome, took } => self.core.resolved(conn, outcome, took, fx),
            Input::Connected { conn, connected } => self.connected(conn, *connected, fx),
            Input::DialFailed { conn, attempts } => self.core.dial_failed(conn, &attempts, fx),
            Input::Secured { conn, tls, took } => self.secured(conn, tls, took, fx),
            Input::Posh { conn, domain, outcome, took } => {
                self.posh(conn, domain, outcome, took, fx);
            }
            Input::Bytes { conn, bytes } => self.bytes(conn, bytes, fx),
            Input::Closed { conn, why } => self.core.connection_lost(conn, &why, fx),
            Input::Stored { ticket, outcome } => self.core.stored(ticket, outcome, fx),
            Input::Reconfigured(config) => self.core.reconfigured(config, fx),
            Input::Asked { number, request } => self.core.asked(number, request, fx),
            Input::Placed(placement) => self.core.placed(placement, fx),
            Input::Tick => self.tick(fx),
            Input::Shutdown => self.core.shutdown(fx),
        }
    }

    /// The end of a turn: queues flow, barriers are set, acknowledgements are told.
    pub fn end_turn(&mut self, now: Now, fx: &mut Effects) {
        self.core.now = now;
        self.core.walk_on(fx);
        self.core.give_streams(fx);
        self.core.leave_on(fx);
        loop {
            for id in std::mem::take(&mut self.core.noted) {
                if let Some(conn) = self.core.conns.get_mut(id.0) {
                    conn.noted = false;
                }
                self.core.answer_requests(id, fx);
                self.handled_enough(id, fx);
            }
            for id in std::mem::take(&mut self.core.resumed_conns) {
                self.read_on(id, fx);
            }
            for lane in std::mem::take(&mut self.core.touched) {
                self.core.settle_lane(lane, fx);
            }
            let core = &self.core;
            if core.noted.is_empty() && core.touched.is_empty() && core.resumed_conns.is_empty() {
                break;
            }
        }
        self.core.write_confirmed(fx);
    }

    /// When `Tick` is wanted next; `None` while no timer runs.
    pub fn next_due(&self) -> Option<Instant> {
        if self.is_behind() { Some(self.core.now.mono) } else { self.core.wheel.next_due() }
    }

    /// More timers had expired than one `Input::Tick` runs: others may go first, then it wants another.
    pub fn is_behind(&self) -> bool {
        !self.expired.is_empty()
    }

    /// What shards must be told: which of their frames are received and handled, by ring. Each change once.
    pub fn ring_news(&mut self) -> impl Iterator<Item = (u16, u64, u64)> + '_ {
        (0u16..).zip(self.core.inward.iter_mut()).filter_map(|(ring, inward)| {
            let (received, handled) = inward.news()?;
            Some((ring, received, handled))
        })
    }

    /// Peers that are not read as rings or the store are full, until `Input::Relieved`.
    pub fn peers_held(&self) -> usize {
        self.core.stalled.len()
    }

    /// Requests to the store that have no answer yet.
    pub fn waiting_for_store(&self) -> usize {
        self.core.tickets.len()
    }

    /// Connections of now, whatever they are for.
    pub fn connections(&self) -> usize {
        self.core.conns.len()
    }

    /// Domains, queues and connections now, and all that was counted.
    ///
    /// - cost: a walk through the domains in memory
    pub fn probe(&mut self) -> &Probe {
        self.core.take_stock();
        &self.core.probe
    }

    /// What was measured since the last time; `spare` is empty and counts from here on.
    pub fn take_latencies(&mut self, spare: Box<Latencies>) -> Box<Latencies> {
        std::mem::replace(&mut self.core.latencies, spare)
    }

    fn tick(&mut self, fx: &mut Effects) {
        if self.expired.is_empty() {
            self.core.wheel.advance(self.core.now.mono, &mut self.expired);
            self.expired.reverse();
        }
        for _ in 0..TIMERS_PER_TICK {
            let Some(timer) = self.expired.pop() else { break };
            match timer {
                Timer::Retry(lane) => self.core.retry(lane, fx),
                Timer::Expire(lane) => self.core.expire(lane, fx),
                Timer::Store(lane) => self.core.store_due(lane),
                Timer::Ask(lane) => self.core.touch(lane),
                Timer::Asked(lane) => self.core.asked_due(lane, fx),
                Timer::Negotiation(conn) => self.core.negotiation_due(conn, fx),
                Timer::Confirmation(conn) => self.core.confirmation_due(conn, fx),
                Timer::AckDue(conn) => self.core.note(conn),
                Timer::Idle(conn) => self.core.idle_due(conn, fx),
                Timer::Silence(conn) => self.core.silence_due(conn, fx),
                Timer::Rate(conn) => self.rate_due(conn, fx),
                Timer::Resume(received) => self.core.resume_due(received, fx),
                Timer::Walk => self.core.walk_on(fx),
                Timer::Page(domain) => self.core.read_on_backlog(domain, fx),
                Timer::Share => self.core.share_due(fx),
            }
        }
    }
}

impl Core {
    fn reconfigured(&mut self, config: Arc<FederationConfig>, fx: &mut Effects) {
        self.policy = Arc::new(config.stream_policy());
        self.refused = config::Refused::by(&config);
        self.config = config;
        // What operators refused by hand is in the configuration by now, or was meant until here.
        self.blocked.clear();
        self.shut_out_refused(fx);
    }

    fn shutdown(&mut self, fx: &mut Effects) {
        self.stopping = true;
        let conns: Vec<ConnId> = self.conns.iter().map(|(id, _)| ConnId(id)).collect();
        for conn in conns {
            let error = StreamError::new(StreamCondition::SystemShutdown);
            self.give_up(conn, Failure::Lost, "this server ends", Some(error), fx);
        }
        // What waits and is in the store goes out after the next start; all else is answered while there is time.
        let lanes: Vec<LaneId> = self.lanes.iter().map(|(id, _)| LaneId(id)).collect();
        for lane in lanes {
            self.give_up_lost(lane, fx);
            let condition = crate::xmpp::stanza_error::StanzaCondition::RemoteServerTimeout;
            let stored = self.config.stored;
            let goes = |item: &queue::Item| item.row.is_never() || !stored;
            self.answer_all(lane, condition, "this server ends", goes, fx);
            self.touch(lane);
        }
    }

    /// Counts what is there now.
    fn take_stock(&mut self) {
        let mut by_state = [0; control::State::ALL.len()];
        let (mut queued, mut unconfirmed, mut outgoing, mut stored) = (0, 0, 0, 0);
        for (_, domain) in self.domains.iter() {
            by_state[self.state(domain) as usize] += 1;
            stored += domain.stored as u64;
        }
        for (_, lane) in self.lanes.iter() {
            queued += lane.queue.len() as u64;
            unconfirmed += lane.queue.unconfirmed() as u64;
            outgoing += u64::from(matches!(lane.link, domain::Link::Up(_)));
        }
        let established = |conn: &Conn| {
            conn.out().is_none()
                && conn.stream.as_ref().is_some_and(|stream| stream.is_established())
        };
        let incoming = self.conns.iter().filter(|(_, conn)| established(conn)).count();
        let probe = &mut self.probe;
        probe.domains = self.names.len() as u64;
        probe.domains_by_state = by_state;
        (probe.outgoing, probe.incoming) = (outgoing, incoming as u64);
        probe.connections = self.conns.len() as u64;
        (probe.dials, probe.dials_waiting) = (self.dialling as u64, self.waiting.len() as u64);
        (probe.queued_stanzas, probe.queued_bytes) = (queued, self.queued_bytes as u64);
        (probe.unconfirmed, probe.stored) = (unconfirmed, stored);
        probe.pending_pairs = self.pending_pairs as u64;
    }
}
