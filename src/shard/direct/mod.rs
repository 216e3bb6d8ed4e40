//! One hop less: the node with a client's socket (its *front*, `cluster::relay`) sends the client's messages straight to the
//! owners of their recipients, and the owner of the client's account records them beside the way.
//!
//! The owner allows it, for a stream with XEP-0198 of which nothing is open. From then on the front cuts and reads what
//! the client says. A chat message to another account it sends over its own shard's ring, where it is kept until it is
//! handled, and it tells the owner which stanza that was. The owner counts the stanza, checks, archives and copies it
//! as any other, but for sending it; it is handled when the front tells so (`DirectDone`). What must keep its order
//! with messages and is none waits at the front until they are handled, and goes by way of the owner, who allows it
//! anew when nothing is open.
//!
//! | what ends | what becomes of messages on their way |
//! |---|---|
//! | the recipient's owner | the front sends them to the new one, which looks whether it has them |
//! | the front's node | the owner of the stream does, those that the front had told of; what the client says of others, still by this connection or again by the next, goes with the label that the front gave it, so that it is known |
//! | the connection, or the way between front and owner | the owner asks the front how far it was (`DirectEnd`), and serves the next stream of the account when all that was sent is handled (`DirectEnded`) |
//! | the owner of the stream | the front brings them to their end; what the client says again has the labels that they had |
//!
//! When owners change, a front stops before its marker for whom it has no leave any more; so where a session has moved
//! and the epoch is settled, all that its old front sent has arrived.

mod front;
mod fronted;
mod label;
mod tail;

pub use front::FrontSaid;
pub(super) use front::Fronts;
pub(super) use fronted::{Fronted, Told};
pub(super) use label::{is_label, is_labelled, order_of_labels, unwrap};
pub(super) use tail::Tail;

use super::account::{Busy, Queued, State};
use super::conn::Hold;
use super::control::Control;
use super::effect::{Action, ConnId, Effects};
use super::inbound::Fate;
use super::peers::Peer;
use super::post::Post;
use super::ring::{Carried, FrameRef};
use super::route::Realm;
use super::session::SessionId;
use super::turn::Turn;
use super::{Core, Shard};
use crate::base::hash::Map;
use crate::base::instant::Wall;
use crate::cluster::view::Place;
use crate::frame::{Envelope, Flags, Kind};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::stanza::MessageType;
use fronted::{LeaveState, broken};
use label::{Label, origin, token};
use std::collections::VecDeque;
use std::time::Duration;
use tail::is_before;

/// Messages that a front may have out, or have told of before they were read: it keeps to fewer.
const TOLD_MAX: usize = 1_024;
/// Sessions that are looked at in a turn for whether their fronts may send.
const LOOKED_AT_MAX: usize = 64;
/// How often in a row a front is allowed to send as soon as it has declined.
const REFUSED_MAX: u8 = 4;
/// For how long after a resumption it is unknown which stanzas come again, where a front died that knew it.
const AGAIN: Duration = Duration::from_secs(10);

/// A stream whose messages a front sends, for as long as the front may have some.
#[derive(Debug)]
struct Direct {
    session: SessionId,
    conn: ConnId,
    hash64: u64,
    /// Of its session, for labels.
    label: u64,
    front: Peer,
    /// No message that the front may have sent, and that is not known here, is older, by its clock.
    since: Wall,
    /// Told and not handled, in order.
    open: VecDeque<Open>,
    /// Handled before they were read here.
    early: Vec<u32>,
}

/// A message to be sent again should the front be gone.
#[derive(Debug)]
struct Open {
    number: u32,
    ingress: Wall,
    frame: Post,
}

/// One per shard.
#[derive(Debug, Default)]
pub(super) struct Directs {
    /// By token. Those of connections that are there.
    here: Map<u64, Direct>,
    /// Their connection is gone, and the front has not said that all is handled.
    leaving: Map<u64, Direct>,
    /// New streams of their accounts, which wait for that.
    waiting: Vec<(u64, ConnId)>,
    /// Sessions that may be allowed it.
    candidates: VecDeque<(SessionId, ConnId)>,
}

// ---- at the owner of the stream

impl Shard {
    /// The socket of this connection is there.
    pub fn fronted_by(&mut self, conn: ConnId, place: Place) {
        if let Some(conn) = self.core.conns.get_mut(conn.0) {
            conn.fronted = Some(Box::new(Fronted::new(place)));
        }
    }

    /// The front begins to send, or has stopped.
    pub(super) fn front_changed(&mut self, id: ConnId, sends: Option<Wall>) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        let Some(fronted) = conn.fronted.as_deref_mut() else { return };
        match sends {
            Some(at) if fronted.leave == LeaveState::Given => {
                fronted.leave = LeaveState::Used;
                fronted.refused = 0;
                let direct = fronted.token.and_then(|token| self.core.directs.here.get_mut(&token));
                if let Some(direct) = direct {
                    direct.since = at;
                }
            }
            Some(_) => {}
            // The client may just have said more. One that will not is asked again when something of the session is handled.
            None => {
                fronted.leave = LeaveState::None;
                fronted.refused = fronted.refused.saturating_add(1);
                if fronted.refused <= REFUSED_MAX
                    && let Some(session) = conn.session
                {
                    self.core.may_get_leave(session, id);
                }
            }
        }
    }

    /// The next stanza of a client, which its front has sent.
    pub(super) fn told_bytes(
        &mut self,
        id: ConnId,
        number: u32,
        at: Wall,
        bytes: &[u8],
        fx: &mut Effects,
    ) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        let end = conn.unread().len() + bytes.len();
        let here = &self.core.directs.here;
        let fronted = conn.fronted.as_deref_mut().filter(|fronted| {
            let direct = fronted.token.and_then(|token| here.get(&token));
            matches!(fronted.leave, LeaveState::Used | LeaveState::Ending)
                && direct.is_some_and(|it| it.open.len() + fronted.told.len() < TOLD_MAX)
        });
        if let Some(fronted) = fronted {
            let token = fronted.token.unwrap_or_default();
            fronted.told.push_back((end, Told { token, number, at }));
            return self.bytes(id, bytes, fx);
        }
        // The node of the front has left, and the socket is still there: who stores the message knows it by its label.
        let session = conn.session.filter(|_| conn.fronted.is_none());
        let slot = session.and_then(|session| self.core.sessions.get(session.0));
        if slot.is_some_and(|slot| slot.tail.is_some()) {
            return self.bytes(id, bytes, fx);
        }
        self.close(id, Some(broken()), fx);
    }

    /// Fronts whose clients are quiet may send what comes next; the end of a turn.
    pub(super) fn give_leave(&mut self, fx: &mut Effects) {
        for _ in 0..self.core.directs.candidates.len().min(LOOKED_AT_MAX) {
            let Some((session, conn)) = self.core.directs.candidates.pop_front() else { return };
            if let Some(conn) = self.core.conns.get_mut(conn.0)
                && let Some(fronted) = conn.fronted.as_deref_mut()
            {
                fronted.is_candidate = false;
            }
            if self.consider(session, fx) {
                self.core.may_get_leave(session, conn);
            }
        }
    }

    /// Gives whether it must be looked at again, since what it waits for tells nobody when it comes.
    fn consider(&mut self, session: SessionId, fx: &mut Effects) -> bool {
        let core = &mut self.core;
        if !core.config.direct || !core.handover.is_cluster() || core.stopping {
            return false;
        }
        let settled = core.handover.is_settled();
        let Some(slot) = core.sessions.get_mut(session.0) else { return false };
        let (account, counters) = (slot.account, slot.counters.as_deref());
        let Some((id, counters)) = slot.conn.zip(counters) else { return false };
        if slot.tail.as_ref().is_some_and(|tail| tail.is_over(counters.received(), core.now.mono)) {
            slot.tail = None;
        }
        let is_quiet = counters.open_count() == 0 && slot.tail.is_none();
        let label = token(counters);
        let (number, text, hash64) =
            (counters.received(), slot.text.clone(), slot.jid.bare().hash64());
        if !is_quiet || core.is_tracing() {
            return false;
        }
        let Some(conn) = core.conns.get_mut(id.0) else { return false };
        let root = conn.root();
        let is_plain = conn.stream.is_bound() && conn.has_usual_context(&core.usual);
        if conn.is_held() || !conn.unread().is_empty() || !is_plain {
            return false;
        }
        let Some(fronted) = conn.fronted.as_deref_mut() else { return false };
        let (Some(front), Some(root)) = (core.peers.member(fronted.place), root) else {
            return false;
        };
        if fronted.leave != LeaveState::None {
            return false;
        }
        // What the account's earlier streams sent from here must not be overtaken.
        let epoch = core.placement.epoch();
        let (ways, peers) = (&core.outward, &core.peers);
        let newest = |(peer, way): (u16, &super::Outward)| {
            if peers.is_gone(Peer(peer)) { 0 } else { way.last() }
        };
        let (of, barrier) =
            fronted.barrier.get_or_insert_with(|| (epoch, (0..).zip(ways).map(newest).collect()));
        if *of != epoch {
            (*of, *barrier) = (epoch, (0..).zip(ways).map(newest).collect());
        }
        let is_behind = ways.iter().zip(barrier.iter()).all(|(way, last)| way.handled() >= *last);
        if !settled || !is_behind {
            return true;
        }
        if !self.lets_all_pass(account, fx) {
            return false;
        }
        let core = &mut self.core;
        let fresh = core.rng.next_u64() >> 2 | label::IS_LABEL;
        let Some(conn) = core.conns.get_mut(id.0) else { return false };
        let Some(fronted) = conn.fronted.as_deref_mut() else { return false };
        let token = *fronted.token.get_or_insert(fresh);
        let label = label.unwrap_or(token);
        fronted.leave = LeaveState::Given;
        core.directs.here.entry(token).or_insert_with(|| Direct {
            session,
            conn: id,
            hash64,
            label,
            front,
            since: core.now.wall,
            open: VecDeque::new(),
            early: Vec::new(),
        });
        // Whoever has the session next must know what was sent by it.
        core.changed(session, super::copy::KEPT_WITH_IT);
        fx.actions.push(Action::GiveLeave { conn: id, token, label, root, number, jid: text });
        false
    }

    /// Nothing that features see of an account's stanzas could be refused or changed.
    fn lets_all_pass(&mut self, account: super::AccountId, fx: &mut Effects) -> bool {
        let slot = self.core.accounts.get(account.0);
        if !slot.is_some_and(|it| it.busy != Busy::Loading && matches!(it.state, State::Ready(_))) {
            return false;
        }
        self.phases.all_sent(|place| {
            let mut turn = Turn::silent(&mut self.core, fx, place);
            self.features[place].lets_messages_pass(&mut turn, account)
        })
    }

    /// Something of the account changes: what was allowed is looked at anew.
    pub(super) fn take_leave_back(&mut self, account: super::AccountId, fx: &mut Effects) {
        let sessions = self.core.accounts.get(account.0).map(|slot| slot.sessions.clone());
        for session in sessions.unwrap_or_default() {
            let conn = self.core.sessions.get(session.0).and_then(|session| session.conn);
            let slot = conn.and_then(|conn| self.core.conns.get_mut(conn.0));
            let fronted = slot.and_then(|conn| conn.fronted.as_deref_mut());
            if let (Some(conn), Some(fronted)) = (conn, fronted)
                && matches!(fronted.leave, LeaveState::Given | LeaveState::Used)
            {
                if fronted.leave == LeaveState::Used {
                    fronted.leave = LeaveState::Ending;
                }
                fx.actions.push(Action::TakeLeaveBack(conn));
            }
        }
    }

    /// As `post`, for a client's stanza. In a cluster a message of a session that can be resumed has its label on this way,
    /// too: should the session's owner die, its client says again what was not acknowledged. What a front may have sent,
    /// or an owner that died, is looked for where it is stored.
    pub(super) fn post_client(
        &mut self,
        session: SessionId,
        number: Option<u32>,
        to: &Jid,
        envelope: &Envelope<'_>,
        stanza: &[u8],
        fx: &mut Effects,
    ) -> Option<FrameRef> {
        let (core, hash64) = (&mut self.core, to.bare().hash64());
        let may_have_one = core.handover.is_cluster() && envelope.kind == Kind::Message;
        let kind = may_have_one.then(|| MessageType::from_code(envelope.subtype)).flatten();
        let kind = kind.filter(|kind| {
            matches!(kind, MessageType::Chat | MessageType::Normal)
                && to.local().is_some()
                && core.realm(to.domain()) == Realm::Ours
        });
        let slot = core.sessions.get_mut(session.0);
        let token = slot.as_ref().and_then(|slot| {
            let of_stream = slot.tail.as_ref().map(|tail| tail.token);
            token(slot.counters.as_deref()?).or(of_stream)
        });
        let (Some(slot), Some(token), Some(number), Some(kind)) = (slot, token, number, kind)
        else {
            return self.post(envelope, hash64, fx);
        };
        let again = slot.tail.as_deref_mut().is_some_and(|tail| {
            tail.ends_at.get_or_insert(core.now.mono + AGAIN);
            !tail.is_over(number.wrapping_sub(1), core.now.mono)
        });
        let since = slot.tail.as_ref().filter(|_| again).map_or(core.now.wall, |tail| tail.since);
        if !again && !envelope.flags.contains(Flags::STORABLE) {
            return self.post(envelope, hash64, fx);
        }
        let origin = origin(token, number, stanza);
        let label = Label { origin, since, epoch: envelope.epoch, kind };
        let mut text = core.buffer();
        let flags = if again { envelope.flags.with(Flags::RETRY) } else { envelope.flags };
        let envelope = Envelope { flags, ..*envelope };
        let sent = self.post(&label.wrap(&envelope, &mut text), hash64, fx);
        self.core.give_back(text);
        sent
    }

    /// Fronts that are gone: what they had told of is sent from here. Their connections end when they are closed, or when
    /// there is no way to them.
    pub(super) fn fronts_lost(&mut self, gone: &[Peer], fx: &mut Effects) {
        let here = self.core.directs.here.values();
        let mut conns: Vec<ConnId> =
            here.filter(|it| gone.contains(&it.front)).map(|it| it.conn).collect();
        // The order of a map must not show.
        conns.sort_unstable_by_key(|conn| conn.0);
        for conn in conns {
            let fronted = self.core.conns.get_mut(conn.0).and_then(|conn| conn.fronted.take());
            self.core.front_left(fronted, fx);
        }
        let leaving = &mut self.core.directs.leaving;
        let mut lost: Vec<(u64, Direct)> =
            leaving.extract_if(|_, it| gone.contains(&it.front)).collect();
        lost.sort_unstable_by_key(|(token, _)| *token);
        for (_, direct) in lost {
            for open in direct.open {
                self.send_open(direct.session, &open, fx);
            }
            self.core.wake_streams(direct.hash64);
        }
    }

    fn send_open(&mut self, session: SessionId, open: &Open, fx: &mut Effects) {
        let frame = open.frame.envelope(self.core.placement.epoch(), open.ingress);
        let flags = frame.flags.with(Flags::RETRY);
        let frame = Envelope { hops: 1, flags, ..frame };
        let carried = Carried::Stanza(session, open.number);
        self.core.probe.frames_retried += 1;
        let hash = self.core.jids.parse(frame.to).map(|to| to.bare().hash64());
        match hash.ok().and_then(|hash| self.post(&frame, hash, fx)) {
            Some(at) => self.core.outward[usize::from(at.ring)].expect(at.number, carried),
            None => {
                self.core.bounce(&frame, frame.to, &super::deliver::resource_constraint());
                self.core.settle(carried);
            }
        }
    }
}

impl Core {
    /// The session may be one whose front could send.
    pub(super) fn may_get_leave(&mut self, session: SessionId, conn: ConnId) {
        let fronted = self.conns.get_mut(conn.0).and_then(|conn| conn.fronted.as_deref_mut());
        if let Some(fronted) = fronted
            && fronted.leave == LeaveState::None
            && !std::mem::replace(&mut fronted.is_candidate, true)
        {
            self.directs.candidates.push_back((session, conn));
        }
    }

    /// A message that its sender's front has sent: it is handled when that tells so.
    ///
    /// - takes: `stanza`, as the client wrote it
    pub(super) fn sent_by_front(
        &mut self,
        told: &Told,
        envelope: &Envelope<'_>,
        stanza: &[u8],
    ) -> Fate {
        let Some(direct) = self.directs.here.get_mut(&told.token) else { return Fate::Handled };
        direct.since = told.at;
        if let Some(place) = direct.early.iter().position(|number| *number == told.number) {
            direct.early.swap_remove(place);
            return Fate::Handled;
        }
        let kind = MessageType::from_code(envelope.subtype).unwrap_or_default();
        let origin = origin(direct.label, told.number, stanza);
        let label = Label { origin, since: told.at, epoch: envelope.epoch, kind };
        let mut text = Vec::new();
        let frame = Post::of(&label.wrap(envelope, &mut text), envelope.to);
        direct.open.push_back(Open { number: told.number, ingress: told.at, frame });
        Fate::Waiting
    }

    /// A connection is over. Its front may have more.
    pub(super) fn front_left(&mut self, fronted: Option<Box<Fronted>>, fx: &mut Effects) {
        let Some(token) = fronted.and_then(|fronted| fronted.token) else { return };
        let Some(direct) = self.directs.here.remove(&token) else { return };
        if let Some(slot) = self.sessions.get_mut(direct.session.0) {
            let (since, last) = (direct.since, None);
            slot.tail = Some(Box::new(Tail { token, since, last, ends_at: None }));
        }
        let front = direct.front;
        self.directs.leaving.insert(token, direct);
        if !self.peers.is_gone(front) {
            let text = format!("{token:x}");
            self.send_control(front, Control::DirectEnd, "", text.as_bytes(), fx);
        }
    }

    /// What a front of the session may have sent that would be unknown to whoever has the session next.
    pub(super) fn tail_of(&self, session: SessionId) -> Option<Tail> {
        let slot = self.sessions.get(session.0)?;
        let conn = slot.conn.and_then(|conn| self.conns.get(conn.0));
        let token = conn.and_then(|conn| conn.fronted.as_deref()).and_then(|it| it.token);
        let here = token.and_then(|token| Some((token, self.directs.here.get(&token)?)));
        match here {
            Some((token, direct)) => {
                Some(Tail { token, since: direct.since, last: None, ends_at: None })
            }
            None => slot.tail.as_deref().cloned(),
        }
    }

    /// A front's messages are handled.
    pub(super) fn direct_done(&mut self, from: Peer, text: &str) {
        text.lines().for_each(|line| self.stream_done(from, line));
    }

    fn stream_done(&mut self, from: Peer, text: &str) {
        let mut words = text.split(' ');
        let token = words.next().and_then(|token| u64::from_str_radix(token, 16).ok());
        let Some(token) = token else { return };
        let Directs { here, leaving, .. } = &mut self.directs;
        let direct = here.get_mut(&token).or_else(|| leaving.get_mut(&token));
        let Some(direct) = direct.filter(|direct| direct.front == from) else { return };
        let session = direct.session;
        let mut done = Vec::new();
        for number in words.filter_map(|word| word.parse().ok()) {
            match direct.open.iter().position(|open| open.number == number) {
                Some(place) => {
                    direct.open.remove(place);
                    done.push(number);
                }
                None if direct.early.len() < TOLD_MAX => direct.early.push(number),
                None => {}
            }
        }
        done.into_iter().for_each(|number| self.complete(session, number));
    }

    /// All is handled that a front had sent on a connection which is gone.
    pub(super) fn direct_ended(&mut self, from: Peer, text: &str) {
        let (token, last) = match text.split_once(' ') {
            Some((token, last)) => (token, last.parse::<u32>().ok()),
            None => (text, None),
        };
        let Ok(token) = u64::from_str_radix(token, 16) else { return };
        let leaving = &mut self.directs.leaving;
        if leaving.get(&token).is_none_or(|direct| direct.front != from) {
            return;
        }
        let Some(direct) = leaving.remove(&token) else { return };
        for open in &direct.open {
            self.complete(direct.session, open.number);
        }
        if let Some(slot) = self.sessions.get_mut(direct.session.0) {
            let received = slot.counters.as_ref().map_or(0, |counters| counters.received());
            match slot.tail.as_mut().filter(|tail| tail.token == token) {
                Some(tail) if last.is_some_and(|last| is_before(received, last)) => {
                    tail.last = last;
                }
                Some(_) => slot.tail = None,
                None => {}
            }
        }
        self.wake_streams(direct.hash64);
    }

    /// A new stream of an account is not read before all is handled that the fronts of earlier ones sent.
    pub(super) fn wait_for_fronts(&mut self, session: SessionId) {
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        if let Some(tail) = slot.tail.as_deref_mut() {
            tail.ends_at = None;
        }
        let (hash64, conn) = (slot.jid.bare().hash64(), slot.conn);
        if self.directs.leaving.values().any(|direct| direct.hash64 == hash64)
            && let Some(id) = conn
            && let Some(conn) = self.conns.get_mut(id.0)
            && conn.hold == Hold::No
        {
            conn.hold = Hold::Session;
            self.directs.waiting.push((hash64, id));
        }
    }

    fn wake_streams(&mut self, hash64: u64) {
        let Directs { leaving, waiting, .. } = &mut self.directs;
        if !waiting.is_empty() && !leaving.values().any(|direct| direct.hash64 == hash64) {
            let awake = waiting.extract_if(.., |(of, _)| *of == hash64);
            self.woken.extend(awake.map(|(_, conn)| conn));
        }
    }
}

// ---- at the owner of the recipient

impl Shard {
    /// A message with its label: a front sent it, or its sender's owner did.
    pub(super) fn direct_arrives(
        &mut self,
        envelope: &Envelope<'_>,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let Some((label, inner)) = unwrap(envelope) else { return };
        let (bare, _) = super::deliver::split(envelope.to);
        let Ok(jid) = BareJid::parse(bare) else { return };
        let comes_again = envelope.flags.contains(Flags::RETRY);
        // Who was gone when it was sent again must be so here, too: nothing of that one comes behind it then.
        if comes_again && self.core.park_again(envelope, at) {
            return;
        }
        if self.pass_on(envelope, envelope.to, jid.hash64(), at, fx) {
            return;
        }
        if !comes_again || !inner.flags.contains(Flags::STORABLE) {
            self.core.retry_origin = Some(label.origin);
            self.deliver(&inner, at, fx);
            self.core.retry_origin = None;
            return;
        }
        let (retry, since, hops) = (Some(label.origin), Some(label.since), envelope.hops);
        let queued = Queued { retry, since, hops, ..Queued::new(&inner, inner.to, at) };
        let Some(account) = self.core.account(&jid, fx) else {
            return self.core.refuse_new(&queued);
        };
        self.wait_for_log(account, queued, fx);
    }
}
