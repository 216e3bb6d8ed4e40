//! One core's actor: the connections whose sockets it holds, and the accounts that it owns.
//!
//! `Shard::handle` takes one input and fills `Effects`; it reads no clock and does no I/O, so that a simulator can run
//! it as the runtime does. Nothing here is shared: other shards are reached by frames alone.
//!
//! A bug met while handling a stanza is contained: its effects are cut back to the stanza's start, the sender gets
//! `internal-server-error`, the account's memory is dropped and loaded afresh.

mod absence;
mod access;
mod account;
mod archive;
mod attempts;
mod bind;
mod bounce;
mod component;
mod config;
mod conn;
mod contacts;
mod control;
mod copy;
mod deliver;
mod direct;
mod effect;
mod ended;
pub mod errand;
mod fast;
mod feature;
mod foreign;
mod handover;
mod heard;
mod idle;
mod image;
mod inactive;
mod inbound;
mod input;
mod latency;
mod line;
mod log;
mod login;
mod loss;
mod migration;
mod offline;
mod operator;
mod orphans;
mod outbound;
mod overflow;
mod peers;
mod phase;
mod post;
mod presence;
mod probe;
mod quarantine;
mod rate;
mod registration;
mod retry;
mod ring;
mod roster;
mod route;
mod session;
mod stamp;
mod subscription;
mod talkers;
mod trace;
mod turn;
mod unwritten;
mod way_out;

pub use absence::Absence;
pub use access::{Access, Ban, Features};
pub use account::{AccountId, Data, Slot};
pub use archive::{ArchiveDefault, ArchivePreferences, Disorder};
pub use config::{AckLevel, Limits, ShardConfig};
pub use conn::{MovedConn, Output};
pub use contacts::{ContactRef, Contacts};
pub use direct::FrontSaid;
pub use effect::{Action, ConnId, Effects, PasswordCheck, Ticket};
pub use feature::{
    Answers, DiscoRequest, Discovery, Feature, Form, Identity, Iq, Item, Manifest, Method, Scope,
    Spec, Verdict,
};
pub use image::ImageError;
pub use input::{Input, StoreOutcome};
pub use latency::{Laps, Latencies, LoginEnd, Path, Stage};
pub use peers::Peer;
pub use phase::{Audience, Delivered, Direction, Passage, Phase, Received, Sent, SessionChange};
pub use probe::Probe;
pub use quarantine::{Leave, Quarantine};
pub use rate::{Rates, TrafficRate};
pub use roster::RosterChange;
pub use session::SessionId;
pub use talkers::{Talker, TopTalkers};
pub use trace::{About, HOPS_PER_S, Hop, Step, WATCHES_MAX, Watch, WatchId, Whom};
pub use turn::Turn;

use crate::base::hash::Map;
use crate::base::ids::Slab;
use crate::base::instant::{Instant, Now};
use crate::base::rng::Rng;
use crate::base::wheel::Wheel;
use crate::cluster::placement::{Placement, ShardId};
use crate::cluster::view::Run;
use crate::frame::ring::Inward;
use crate::frame::{Encoder, FRAME_BYTES_MAX};
use crate::store::STORE_PARTITIONS;
use crate::xmpp::jid::{BareJid, JidCache};
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stanza_error::StanzaError;
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::reader::{self, Index, StreamContext};
use account::{Account, IdBlock};
use conn::{Conn, Hold};
use effect::EffectsMark;
use feature::Manifest as FeatureManifest;
use post::Post;
use ring::{FrameRef, Outward};
use session::Session;
use std::collections::VecDeque;
use std::sync::Arc;

/// Distinct recipients whose addresses a shard remembers in prepared form.
const JID_CACHE: usize = 4_096;

/// What an answer of the store is for.
#[derive(Debug)]
enum Waiting {
    Account(AccountId),
    Ids(u16),
    /// A row of an owner's log; `at` is the frame whose handling waits for it.
    Append {
        account: AccountId,
        owner: BareJid,
        since: Instant,
        path: Path,
        at: Option<FrameRef>,
        bounce: Box<bounce::Bounce>,
        /// By what it may come again, and whether that is to be remembered as the row goes when it is confirmed.
        heard: Option<Box<(heard::Heard, bool)>>,
        traced: Option<Box<trace::Traced>>,
    },
    /// Whether the message of a frame that comes again is in the log, and those of others that wait behind it.
    Origin {
        account: AccountId,
        queued: Box<account::Queued>,
        others: Vec<crate::store::Origin>,
    },
    /// The copy of a message in its sender's archive; this stanza of this session waits for it.
    Sent(SessionId, u32),
    /// A page of the archive in which a message is looked for that was taken back.
    Retraction {
        account: AccountId,
        retraction: Box<archive::Retraction>,
    },
    /// A page of offline messages.
    Page(AccountId),
    /// The tokens of a login, which goes on when they are kept.
    Login {
        conn: ConnId,
        account: AccountId,
    },
    /// A change of an account's log that nobody is told of.
    Log(AccountId),
    /// A row for the archive alone, of a message that may come again.
    Archived(AccountId, heard::Heard),
    /// A change of a roster or slot that a frame waits for.
    Change {
        account: AccountId,
        at: Option<FrameRef>,
        /// A client's stanza that did nothing else.
        stanza: Option<(SessionId, u32)>,
    },
    /// A feature's request; the IQ is answered when it is done.
    Feature {
        feature: usize,
        account: AccountId,
        reply: turn::ReplyTo,
        /// It is a write, and counts among the account's.
        wrote: bool,
        /// What the feature gets back with the answer.
        context: Option<Box<dyn std::any::Any>>,
    },
    /// A feature's errand; the IQ is answered when it is run.
    Errand {
        feature: usize,
        reply: turn::ReplyTo,
        context: Box<dyn std::any::Any>,
    },
    /// A stranger's account (XEP-0077); the connection is held, and the IQ of this id answered.
    Registration {
        conn: ConnId,
        iq: Box<str>,
    },
    /// Nothing waits.
    Nobody,
}

/// Timers that one `Input::Tick` runs: a thousand that expire at once do not hold up who is in.
const TIMERS_PER_TICK: usize = 32;

/// What a timer is about. Timers are never taken back: on expiry it is checked whether they still apply.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// The login must be done by now.
    Login(ConnId),
    /// The client may have been silent for too long.
    Silence(ConnId),
    /// A request for an acknowledgement has waited a second.
    AckDue(SessionId),
    /// The connection may be read again, as far as rates go.
    Rate(ConnId),
    /// The window for resumption may be over.
    Resume(SessionId),
    /// A page of offline messages that could not be read or sent is tried again.
    Replay(AccountId),
    /// Owners change: it is seen how far that is.
    Handover,
    /// Copies that lag by acknowledgements get them.
    Lagging,
    /// Something waits for room on its ring.
    Overflow,
}

/// What can be undone of one stanza's effects beside `Effects`.
#[derive(Debug)]
enum Undo {
    Output {
        conn: ConnId,
        length: usize,
    },
    Sent(SessionId),
    Row(SessionId),
    /// A stanza was held back for an inactive client.
    Held(SessionId),
    /// What was held back went out.
    Flushed(SessionId, Vec<inactive::HeldStanza>),
    /// A component was asked something.
    Asked(ConnId),
    /// A stanza waits for its account.
    Queued(AccountId, deliver::Line),
    /// A frame waits for room on its ring.
    Late(Peer),
}

/// A shard's state, but for its features. Lives on one core.
struct Core {
    id: ShardId,
    config: Arc<ShardConfig>,
    placement: Arc<Placement>,
    now: Now,
    /// When the shard began.
    began: Instant,
    conns: Slab<Conn>,
    sessions: Slab<Session>,
    accounts: Slab<Account>,
    names: Map<BareJid, AccountId>,
    components: component::Table,
    resumable: Map<Box<str>, SessionId>,
    ended: ended::Ended,
    attempts: attempts::Attempts,
    origins: rate::Origins,
    talkers: talkers::Talkers,
    idle: VecDeque<AccountId>,
    jids: JidCache,
    rng: Rng,
    wheel: Wheel<Timer>,
    peers: peers::Peers,
    /// By peer.
    outward: Vec<Outward>,
    inward: Vec<Inward>,
    handover: handover::Handover,
    moved: migration::Moved,
    copies: copy::Copies,
    directs: direct::Directs,
    fronts: direct::Fronts,
    /// What a front says of the stanza that is being read.
    told: Option<direct::Told>,
    memory: heard::Memory,
    /// Of messages whose rows go when they are confirmed.
    written: heard::Memory,
    unwritten: unwritten::Unwritten,
    /// Of the frame that is being delivered, where it came by a detour. Who keeps it for later takes it.
    retry_origin: Option<crate::store::Origin>,
    /// What the log of an account has said of messages that wait there. That holds for as long as nobody writes what may be one
    /// of them: while the line goes on, but for the ones that are delivered and what sessions leave.
    found: Map<heard::Heard, retry::InLog>,
    /// The federation core that what was sent to this shard itself went on to.
    went_out: Option<Peer>,
    tickets: Map<Ticket, Waiting>,
    next_ticket: u64,
    blocks: Vec<IdBlock>,
    /// Searches for messages that are taken back, under way.
    retractions: u32,
    encoder: Encoder,
    manifests: Vec<&'static FeatureManifest>,
    usual: StreamContext,
    probe: Probe,
    meter: latency::Meter,
    /// While an operator watches.
    tracing: Option<Box<trace::Tracing>>,
    /// Sessions to look at when the turn ends.
    noted: Vec<SessionId>,
    /// Sessions that keep more than they may.
    overflowing: Vec<SessionId>,
    /// Rows that clients confirmed in this turn.
    confirmed: Vec<(AccountId, u64)>,
    posts: VecDeque<Post>,
    /// What rings have no room for.
    overflow: overflow::Overflow,
    /// Frames that are handled behind ones that are not, of which their senders are told.
    apart: Vec<ring::FrameRef>,
    undo: Vec<Undo>,
    /// Faults are contained at this many levels now.
    contained: u32,
    /// Connections whose session has handled all that it received, or is gone.
    woken: Vec<ConnId>,
    /// Connections that are not read because rings or the store are full.
    stalled: Vec<ConnId>,
    /// Spare buffers for output and partial stanzas.
    buffers: Vec<Vec<u8>>,
    stopping: bool,
    /// Accounts that go as the node stops and are not written yet, each with the full JID of a resource.
    departing: Vec<(AccountId, Box<str>)>,
}

/// The actor. One per core.
pub struct Shard {
    core: Core,
    features: Vec<Box<dyn Feature>>,
    phases: phase::Phases,
    index: Index,
    mark: EffectsMark,
    /// Timers that have expired and wait for their turn, the first one last.
    expired: Vec<Timer>,
}

/// Buffers kept for reuse, and the size above which one is given back to the allocator.
const BUFFERS: usize = 256;
const BUFFER_BYTES: usize = 64 << 10;

impl Shard {
    /// - `features`: in the order in which they are asked
    /// - `rng`: from the operating system in a node, from a seed in simulation
    pub fn new(
        id: ShardId,
        config: Arc<ShardConfig>,
        placement: Arc<Placement>,
        features: Vec<Box<dyn Feature>>,
        rng: Rng,
        now: Now,
    ) -> Self {
        let run = Run { node: config.node, incarnation: config.incarnation };
        let shards = placement.members().iter().map(|member| member.shards).max().unwrap_or(1);
        let components = component::Table::new(&config.components);
        let peers = peers::Peers::new(run, shards, config.federation_cores);
        let rings = peers.count();
        let core = Core {
            id,
            components,
            config,
            placement,
            now,
            began: now.mono,
            conns: Slab::new(),
            sessions: Slab::new(),
            accounts: Slab::new(),
            names: Map::default(),
            resumable: Map::default(),
            ended: ended::Ended::default(),
            attempts: attempts::Attempts::default(),
            origins: rate::Origins::default(),
            talkers: talkers::Talkers::new(now.mono),
            idle: VecDeque::new(),
            jids: JidCache::new(JID_CACHE),
            rng,
            wheel: Wheel::new(now.mono),
            peers,
            handover: handover::Handover::new(),
            moved: migration::Moved::default(),
            copies: copy::Copies::default(),
            directs: direct::Directs::default(),
            fronts: direct::Fronts::default(),
            told: None,
            memory: heard::Memory::new(heard::DETOURED),
            written: heard::Memory::new(heard::WRITTEN),
            unwritten: unwritten::Unwritten::default(),
            retry_origin: None,
            found: Map::default(),
            went_out: None,
            outward: (0..rings).map(|_| Outward::default()).collect(),
            inward: (0..rings).map(|_| Inward::default()).collect(),
            tickets: Map::default(),
            next_ticket: 0,
            blocks: vec![IdBlock::default(); usize::from(STORE_PARTITIONS)],
            retractions: 0,
            encoder: Encoder::new(FRAME_BYTES_MAX),
            manifests: Vec::new(),
            usual: StreamContext::client(),
            probe: Probe::default(),
            meter: latency::Meter::default(),
            tracing: None,
            noted: Vec::new(),
            overflowing: Vec::new(),
            confirmed: Vec::new(),
            posts: VecDeque::new(),
            overflow: overflow::Overflow::default(),
            apart: Vec::new(),
            undo: Vec::new(),
            contained: 0,
            woken: Vec::new(),
            stalled: Vec::new(),
            buffers: Vec::new(),
            stopping: false,
            departing: Vec::new(),
        };
        let mut shard = Self {
            core,
            phases: phase::Phases::of(&[]),
            features: Vec::new(),
            index: Index::default(),
            mark: EffectsMark::new(),
            expired: Vec::new(),
        };
        shard.set_features(features);
        shard
    }

    /// All that the shard knows of its features before it asks them.
    fn set_features(&mut self, features: Vec<Box<dyn Feature>>) {
        self.core.manifests = features.iter().map(|feature| feature.manifest()).collect();
        self.phases = phase::Phases::of(&features);
        self.features = features;
    }

    /// One input. The runtime calls `end_turn` when it has given all that is there, then carries `fx` out.
    pub fn handle(&mut self, now: Now, input: Input<'_>, fx: &mut Effects) {
        self.core.now = now;
        self.core.meter.leave();
        self.core.trace_enter(None);
        if !self.core.overflow.is_empty() {
            self.core.send_late(false, fx);
        }
        match input {
            Input::Bytes { conn, bytes } => self.bytes(conn, bytes, fx),
            Input::Told { conn, number, at, bytes } => self.told_bytes(conn, number, at, bytes, fx),
            Input::FrontChanged { conn, sends } => self.front_changed(conn, sends),
            Input::Secured { conn, facts } => self.secured(conn, facts, fx),
            Input::Closed { conn } => self.closed(conn, fx),
            Input::Frames { from, sent, batch } => self.frames(from, sent, batch, fx),
            Input::Handled { by, received, handled } => self.handled(by, received, handled),
            Input::Linked(run) => self.linked(run, fx),
            Input::Placed(view) => self.placed(view, fx),
            Input::Relieved => self.relieved(fx),
            Input::Stored { ticket, outcome } => self.stored(ticket, outcome, fx),
            Input::PasswordChecked { conn, verdict } => self.password_checked(conn, verdict, fx),
            Input::AccountChanged(jid) => self.account_changed(&jid, fx),
            Input::IdsGiven { partition, next } => {
                self.core.ids_given(partition, next);
                self.core.tell_ids_given(partition, next, fx);
            }
            Input::Reconfigured { config, features } => self.reconfigured(config, features, fx),
            Input::AccountDeleted { jid, contacts } => self.account_deleted(&jid, &contacts, fx),
            Input::Administered { ticket, outcome } => self.administered(ticket, outcome, fx),
            Input::EndSessions(jid) => self.end_sessions(&jid, fx),
            Input::Announce { announcement, after } => self.announce(&announcement, after, fx),
            Input::Tick => self.tick(fx),
            Input::Shutdown => self.shutdown(fx),
        }
        self.finish(fx);
    }

    /// The end of a turn: acknowledgements, requests and confirmations that many stanzas share.
    pub fn end_turn(&mut self, now: Now, fx: &mut Effects) {
        self.core.now = now;
        self.core.meter.leave();
        self.core.trace_enter(None);
        if !self.core.overflow.is_empty() {
            self.core.send_late(false, fx);
        }
        if self.core.handover.is_cluster() {
            self.copy_waiting(fx);
        }
        loop {
            self.core.settle_own();
            if self.core.copies.is_on() {
                self.copy_noted(fx);
            }
            self.core.settle_noted(fx);
            // What that wrote may have filled a queue, and let a session be resumed.
            self.finish(fx);
            if !self.core.release_followers() && self.core.noted.is_empty() {
                break;
            }
        }
        self.core.write_confirmed(fx);
        self.core.tell_done(fx);
        if !self.core.apart.is_empty() {
            self.core.tell_handled_apart(fx);
        }
        if self.core.handover.is_cluster() {
            self.core.send_copies(fx);
        }
        self.give_leave(fx);
        self.core.tell_owners(fx);
        self.look_at_handover(fx);
    }

    /// What handlers leave behind: stanzas to send, sessions to end or to resume, which leave more of it.
    fn finish(&mut self, fx: &mut Effects) {
        loop {
            self.send_posts(fx);
            self.end_overflowing(fx);
            for conn in std::mem::take(&mut self.core.woken) {
                let waits = |conn: &conn::Conn| conn.hold == Hold::Session;
                if self.core.conns.get(conn.0).is_some_and(waits) {
                    self.release(conn, fx);
                    self.core.settle_own();
                }
            }
            if self.core.posts.is_empty() && self.core.overflowing.is_empty() {
                break;
            }
        }
    }

    /// When `Tick` is wanted next; `None` while no timer runs.
    pub fn next_due(&self) -> Option<Instant> {
        let now = self.is_behind() || !self.core.departing.is_empty();
        if now { Some(self.core.now.mono) } else { self.core.wheel.next_due() }
    }

    /// More timers had expired than one `Input::Tick` runs: others may go first, then it wants another.
    pub fn is_behind(&self) -> bool {
        !self.expired.is_empty()
    }

    /// What other shards must be told: which of their frames are received and handled. Each change once.
    pub fn ring_news(&mut self) -> impl Iterator<Item = (Peer, u64, u64)> + '_ {
        let own = usize::from(self.core.id.0);
        self.core.inward.iter_mut().enumerate().filter(move |(ring, _)| *ring != own).filter_map(
            |(ring, inward)| {
                let (received, handled) = inward.news()?;
                Some((Peer(u16::try_from(ring).ok()?), received, handled))
            },
        )
    }

    /// Clients are stopped until `Input::Relieved`.
    pub fn has_stalled(&self) -> bool {
        !self.core.stalled.is_empty()
    }

    /// Clients that are stopped.
    pub fn clients_held(&self) -> usize {
        self.core.stalled.len()
    }

    /// Requests to the store that have no answer yet, or are still to be made before the node may stop.
    pub fn waiting_for_store(&self) -> usize {
        self.core.tickets.len() + self.core.departing.len()
    }

    pub fn probe(&self) -> &Probe {
        &self.core.probe
    }

    /// Measures from now on.
    ///
    /// - `laps`: read for one stanza in 64, on the clock of `Now::mono`
    pub fn measure(&mut self, laps: Laps) {
        self.core.meter.start(laps);
    }

    /// What was measured since the last time; `spare` is empty and counts from here on.
    pub fn take_latencies(&mut self, spare: Box<Latencies>) -> Box<Latencies> {
        self.core.meter.take(spare)
    }

    pub fn sessions(&self) -> usize {
        self.core.sessions.len()
    }

    /// Accounts in memory.
    pub fn accounts(&self) -> usize {
        self.core.accounts.len()
    }

    /// Output, frames and answers that streams wait for. Zero when all that was sent has been dealt with.
    pub fn open_stanzas(&self) -> usize {
        let open = |session: &Session| {
            session.counters.as_ref().map_or(0, |counters| counters.open_count())
        };
        self.core.sessions.iter().map(|(_, session)| open(session)).sum()
    }

    fn tick(&mut self, fx: &mut Effects) {
        if self.expired.is_empty() {
            self.core.wheel.advance(self.core.now.mono, &mut self.expired);
            self.expired.reverse();
        }
        for _ in 0..TIMERS_PER_TICK {
            let Some(timer) = self.expired.pop() else { break };
            match timer {
                Timer::Login(conn) => self.login_timed_out(conn, fx),
                Timer::Silence(conn) => self.silence(conn, fx),
                Timer::Rate(conn) => self.rate_due(conn, fx),
                Timer::AckDue(session) => self.core.answer_due(session, fx),
                Timer::Resume(session) => self.resume_timed_out(session, fx),
                Timer::Replay(account) => self.replay_due(account, fx),
                Timer::Handover => self.handover_due(fx),
                Timer::Lagging => self.lagging_due(),
                Timer::Overflow => self.core.overflow_due(),
            }
        }
        self.core.write_departures(fx);
        if self.expired.is_empty() {
            self.core.sweep_idle();
            let now = self.core.now.mono;
            self.core.memory.forget(now);
            self.core.written.forget(now);
        }
    }

    /// Runs `work` so that a panic in it (a bug) costs no more than its own effects. Gives false after a fault.
    fn contained(&mut self, fx: &mut Effects, work: impl FnOnce(&mut Self, &mut Effects)) -> bool {
        let mut mark = std::mem::take(&mut self.mark);
        fx.mark_into(&mut mark);
        if self.core.contained == 0 {
            self.core.undo.clear();
        }
        self.core.contained += 1;
        let undo = self.core.undo.len();
        let posts = self.core.posts.len();
        let tickets = self.core.next_ticket;
        let delivered = self.core.meter.mark();
        let traced = self.core.trace_mark();
        let last: smallvec::SmallVec<[u64; 8]> =
            self.core.outward.iter().map(Outward::last).collect();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(self, fx)));
        let sound = outcome.is_ok();
        self.core.contained -= 1;
        if !sound {
            self.core.probe.faults += 1;
            (self.core.retry_origin, self.core.told) = (None, None);
            self.core.found.clear();
            fx.cut_back(&mark);
            self.core.posts.truncate(posts);
            for (ring, last) in last.into_iter().enumerate() {
                self.core.outward[ring].cut_back(last);
                self.core.lose_arrivals(ring);
            }
            self.core.cut_back_output(undo);
            self.core.undo_tickets(tickets, fx);
            self.core.meter.cut_back(delivered);
            self.core.trace_cut_back(traced);
            self.core.copies.enter(None);
            self.index = Index::default();
        }
        self.mark = mark;
        sound
    }
}

impl Core {
    /// Takes back what was written to clients since the list had `length` entries.
    fn cut_back_output(&mut self, length: usize) {
        while self.undo.len() > length {
            let Some(undo) = self.undo.pop() else { return };
            match undo {
                Undo::Output { conn, length } => {
                    if let Some(conn) = self.conns.get_mut(conn.0) {
                        conn.cut_output(length);
                    }
                }
                Undo::Sent(session) => {
                    let slot = self.sessions.get_mut(session.0);
                    if let Some(counters) = slot.and_then(|slot| slot.counters.as_mut()) {
                        counters.unsend(1);
                    }
                    self.unhold_for_copy(session);
                }
                Undo::Held(session) => self.undo_held(session),
                Undo::Flushed(session, stanzas) => self.undo_flushed(session, stanzas),
                Undo::Asked(conn) => {
                    let conn = self.conns.get_mut(conn.0);
                    if let Some(link) = conn.and_then(|conn| conn.component.as_mut()) {
                        link.asked.undo();
                    }
                }
                Undo::Queued(account, line) => self.undo_queued(account, line),
                Undo::Late(peer) => self.undo_late(peer),
                Undo::Row(session) => {
                    let session = self.sessions.get_mut(session.0);
                    if let Some(waiting) = session.and_then(|session| session.confirmation.as_mut())
                    {
                        waiting.rows.pop_back();
                    }
                }
            }
        }
    }

    /// A view of a stanza that passed the limits of its stream; `None` only for what is no stanza.
    fn view<'b>(&self, stanza: &'b [u8], index: &'b mut Index) -> Option<Stanza<'b>> {
        reader::read(stanza, &self.usual, &XmlLimits::PASSED, index).ok()?;
        Some(Stanza { bytes: stanza, index })
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < BUFFERS && (1..=BUFFER_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    fn is_local_domain(&self, domain: &str) -> bool {
        self.config.policy.domains.iter().any(|own| **own == *domain)
    }

    /// Rings or the store are so full that clients must wait.
    fn is_pressed(&self, fx: &Effects) -> bool {
        self.tickets.len() > config::WRITES_SOFT
            || (0..).map(Peer).zip(&fx.outbox).any(|(peer, batch)| {
                // Whoever sends nothing to other domains does not wait for them.
                batch.len_bytes() > config::RING_SOFT_BYTES && !self.peers.is_federation(peer)
            })
            || self.handover.is_cluster()
                && self.outward.iter().any(|way| way.kept_bytes() > config::KEPT_SOFT_BYTES)
    }
}

/// The answer to a stanza that met a bug.
fn internal_error() -> StanzaError {
    StanzaError::new(crate::xmpp::stanza_error::StanzaCondition::InternalServerError)
}
