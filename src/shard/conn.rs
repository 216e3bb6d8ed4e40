//! A client connection: its bytes are cut into elements, its output gathers until the turn ends.

use super::component::Link;
use super::direct::Fronted;
use super::effect::{Action, ConnId, Effects};
use super::latency::LoginBy;
use super::login::Login;
use super::peers::Peer;
use super::rate::Traffic;
use super::session::SessionId;
use super::talkers::Said;
use super::{Core, Shard, Timer, Undo};
use crate::base::ids::Id;
use crate::base::instant::Instant;
use crate::stream::TlsFacts;
use crate::stream::c2s::{C2s, C2sPolicy};
use crate::xmpp::jid::BareJid;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::framer::{Framer, Step, XmlLimits};
use crate::xmpp::xml::reader::{self, StreamContext};
use std::net::IpAddr;

/// Why a connection's elements wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    No,
    /// For its account, then the element is read again.
    Account,
    /// For the verdict on a password, or for the store's word on a request.
    Answer,
    /// For what the session that it resumes received to be handled.
    Session,
    /// For rings or the store to take what waits.
    Pressure,
    /// Until then: it, its account or its network is above its rate.
    Rate(Instant),
    /// For the handshake.
    Tls,
    /// It is about to move to the core of its account.
    Move,
    /// Its close tag is out.
    Closing,
}

/// One connection. Lives on the core that reads its socket; moves once, at login.
#[derive(Debug)]
pub(super) struct Conn {
    pub stream: C2s,
    pub peer: IpAddr,
    framer: Framer,
    /// Bytes that are not read yet: part of an element, or whole ones while the connection is held.
    unread: Vec<u8>,
    output: Vec<u8>,
    /// Bytes at the start of `output` that have left.
    left: usize,
    /// Bytes of a resumption, which may wait beyond the usual bound: they are kept as it is.
    pub spare: usize,
    dirty: bool,
    /// What it says waits for its moment, so that nobody learns from the time of an answer.
    withheld: bool,
    /// Its socket is on another node.
    pub is_relayed: bool,
    /// That node, once it is known.
    pub fronted: Option<Box<Fronted>>,
    /// Its output waits for room in the kernel.
    pub blocked: bool,
    pub hold: Hold,
    /// The federation core whose ring was full when the client last sent something there.
    pub awaits: Option<Peer>,
    pub login: Option<Box<Login>>,
    /// Who logged in.
    pub account: Option<BareJid>,
    pub session: Option<SessionId>,
    /// Logins that failed.
    pub attempts: u8,
    pub heard_at: Instant,
    /// When it was accepted, and what its client logs in by.
    pub began: Instant,
    pub login_by: Option<LoginBy>,
    /// A ping is out to see whether a silent client lives.
    pub pinged: bool,
    /// Where it comes from, for rates; `None` where it is free of them.
    pub network: Option<Id>,
    pub traffic: Traffic,
    pub said: Said,
    /// There where the peer is a component (XEP-0114): then `stream` is not used.
    pub component: Option<Box<Link>>,
}

impl Conn {
    pub(super) fn new(stream: C2s, peer: IpAddr, began: Instant) -> Conn {
        Conn {
            stream,
            peer,
            framer: Framer::new(),
            unread: Vec::new(),
            output: Vec::new(),
            left: 0,
            spare: 0,
            dirty: false,
            withheld: false,
            is_relayed: false,
            fronted: None,
            blocked: false,
            hold: Hold::No,
            awaits: None,
            login: None,
            account: None,
            session: None,
            attempts: 0,
            heard_at: began,
            began,
            login_by: None,
            pinged: false,
            network: None,
            traffic: Traffic::default(),
            said: Said::default(),
            component: None,
        }
    }

    /// Where it stands in its bytes, as another connection did.
    pub(super) fn goes_on(&mut self, framer: Framer, unread: Vec<u8>, output: Vec<u8>) {
        (self.framer, self.unread, self.output) = (framer, unread, output);
    }

    pub(super) fn root(&self) -> Option<u32> {
        self.framer.root_between_stanzas()
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    pub(super) fn has_usual_context(&self, usual: &StreamContext) -> bool {
        std::ptr::eq(self.stream.context(usual), usual)
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.output[self.left..]
    }

    pub(super) fn is_withheld(&self) -> bool {
        self.withheld
    }

    pub(super) fn set_withheld(&mut self, withheld: bool) {
        self.withheld = withheld;
    }

    pub(super) fn cut_output(&mut self, length: usize) {
        self.output.truncate(length.max(self.left));
        if let Some(link) = &mut self.component {
            link.cut(self.output.len());
        }
    }

    /// The last `length` bytes of the output are a stanza for a component.
    pub(super) fn note_stanza(&mut self, length: usize) {
        if let Some(link) = &mut self.component {
            link.wrote(self.output.len(), length);
        }
    }

    pub(super) fn output_at(&self, range: std::ops::Range<usize>) -> Option<&[u8]> {
        self.output.get(range)
    }

    /// The stream is over, from our side at least.
    fn is_over(&self) -> bool {
        self.component
            .as_ref()
            .map_or(self.stream.is_closed(), |component| component.stream.is_closed())
    }

    /// It serves somebody: a client with a session, or a component.
    fn is_established(&self) -> bool {
        self.component
            .as_ref()
            .map_or(self.session.is_some(), |link| link.stream.established().is_some())
    }

    pub(super) fn is_established_component(&self) -> bool {
        self.component.as_ref().is_some_and(|link| link.stream.established().is_some())
    }

    fn limits<'a>(&self, policy: &'a C2sPolicy) -> &'a XmlLimits {
        match &self.component {
            Some(link) if link.stream.established().is_some() => &policy.limits,
            Some(_) => &policy.limits_before,
            None => self.stream.limits(policy),
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.hold != Hold::No
    }

    /// After SASL the stream begins anew.
    pub(super) fn restart_stream(&mut self) {
        self.framer.restart();
    }

    pub(super) fn output_len(&self) -> usize {
        self.output.len() - self.left
    }
}

/// A connection between two shards of a node: all it carries, but for the socket and the TLS state.
#[derive(Debug)]
pub struct MovedConn {
    conn: Conn,
}

impl MovedConn {
    pub(super) fn of(conn: Conn) -> MovedConn {
        MovedConn { conn }
    }
}

/// What waits to be written to a connection.
#[derive(Debug)]
pub struct Output<'a> {
    pub bytes: &'a [u8],
    /// Nothing comes after it.
    pub closing: bool,
}

/// What became of an element.
pub(super) enum Flow {
    /// It is dealt with.
    Taken,
    /// It must be read again when the hold is over.
    Again,
}

impl Shard {
    /// A new connection; `tls` where the handshake came first.
    pub fn accept(
        &mut self,
        now: crate::base::instant::Now,
        peer: IpAddr,
        tls: Option<TlsFacts>,
    ) -> ConnId {
        self.core.now = now;
        self.core.probe.connections += 1;
        self.core.probe.connections_accepted += 1;
        let network = self.core.origins.enter(peer, &self.core.config.limits.rates);
        let conn = Conn { network, ..Conn::new(C2s::new(tls), peer, now.mono) };
        let conn = ConnId(self.core.conns.insert(conn));
        self.core
            .wheel
            .insert(now.mono + self.core.config.limits.login_timeout, Timer::Login(conn));
        conn
    }

    /// Takes a connection out, to be given to `adopt` of the shard that `Action::Move` names.
    pub fn extract(&mut self, id: ConnId) -> Option<MovedConn> {
        let mut conn = self.core.conns.remove(id.0)?;
        conn.dirty = false;
        conn.blocked = false;
        self.core.meter.forget(id);
        self.core.origins.leave(conn.network.take(), &self.core.config.limits.rates);
        self.core.probe.connections -= 1;
        self.core.probe.connections_moved_out += 1;
        Some(MovedConn { conn })
    }

    /// Takes over a connection that another shard extracted, and goes on where that one stopped.
    pub fn adopt(
        &mut self,
        now: crate::base::instant::Now,
        moved: MovedConn,
        fx: &mut Effects,
    ) -> ConnId {
        self.core.now = now;
        self.core.probe.connections += 1;
        self.core.probe.connections_moved_in += 1;
        let mut conn = moved.conn;
        conn.network = self.core.origins.enter(conn.peer, &self.core.config.limits.rates);
        // It may have been closed while it was on its way.
        let closing = conn.hold == Hold::Closing;
        conn.hold = if closing { Hold::Closing } else { Hold::No };
        let waits = !conn.output.is_empty();
        // Bans reach one core after the other.
        let refused = self.core.config.access.refuses(conn.peer);
        let id = ConnId(self.core.conns.insert(conn));
        self.core.wheel.insert(now.mono + self.core.config.limits.login_timeout, Timer::Login(id));
        if waits {
            self.core.mark_dirty(id, fx);
        }
        if let Some(conn) = self.core.conns.get(id.0).filter(|conn| conn.withheld) {
            fx.withheld.push((id, conn.heard_at + self.core.config.answer_after));
        }
        if closing {
            fx.actions.push(Action::Close(id));
        } else if self.core.stopping {
            self.close(id, Some(StreamError::new(StreamCondition::SystemShutdown)), fx);
        } else if refused {
            self.close(id, Some(StreamError::new(StreamCondition::PolicyViolation)), fx);
        } else {
            self.go_on(id, fx);
        }
        id
    }

    /// Whether the runtime should read from the connection.
    pub fn is_reading(&self, conn: ConnId) -> bool {
        self.core
            .conns
            .get(conn.0)
            .is_some_and(|conn| !conn.is_held() || conn.hold == Hold::Closing)
    }

    /// The moment of `Effects::withheld` is there: what the connection has to say may leave.
    pub fn let_go(&mut self, conn: ConnId) {
        if let Some(conn) = self.core.conns.get_mut(conn.0) {
            conn.withheld = false;
        }
    }

    /// What waits to be written; `None` for a connection that is gone, or says nothing before its moment.
    pub fn output(&self, conn: ConnId) -> Option<Output<'_>> {
        let conn = self.core.conns.get(conn.0).filter(|conn| !conn.withheld)?;
        Some(Output { bytes: &conn.output[conn.left..], closing: conn.hold == Hold::Closing })
    }

    /// The connection is off `Effects::dirty`: output from now on puts it there again.
    pub fn flushing(&mut self, conn: ConnId) {
        if let Some(slot) = self.core.conns.get_mut(conn.0) {
            slot.dirty = false;
        }
    }

    /// The connection was accepted before its stream could begin: there was a handshake first.
    pub fn accepted_at(&mut self, conn: ConnId, at: Instant) {
        if let Some(slot) = self.core.conns.get_mut(conn.0) {
            slot.began = at;
        }
    }

    /// The turn's output has left, but for that of connections which are blocked.
    pub fn flushed(&mut self, at: Instant) {
        self.core.output_written(at);
        self.core.trace_flushed(at);
    }

    /// The kernel takes no more from the connection now.
    pub fn blocked(&mut self, conn: ConnId) {
        if let Some(slot) = self.core.conns.get_mut(conn.0) {
            slot.blocked = true;
        }
    }

    /// What the connection had to say has left at last.
    pub fn unblocked(&mut self, conn: ConnId, at: Instant) {
        if let Some(slot) = self.core.conns.get_mut(conn.0) {
            slot.blocked = false;
            self.core.output_unblocked(conn, at);
            self.core.trace_unblocked(conn, at);
        }
    }

    /// `length` bytes of the output have left.
    pub fn output_left(&mut self, conn: ConnId, length: usize) {
        let Some(slot) = self.core.conns.get_mut(conn.0) else { return };
        slot.left += length;
        slot.dirty = false;
        let mut dropped = 0;
        if slot.left >= slot.output.len() {
            dropped = slot.output.len();
        } else if slot.left > slot.output.len() / 2 {
            dropped = slot.left;
        }
        if let Some(link) = &mut slot.component {
            link.left(slot.left);
            dropped = link.droppable(dropped);
            link.dropped(dropped);
        }
        slot.left -= dropped;
        if dropped == slot.output.len() {
            let buffer = std::mem::take(&mut slot.output);
            self.core.give_back(buffer);
        } else if dropped > 0 {
            slot.output.drain(..dropped);
        }
    }

    pub(super) fn bytes(&mut self, id: ConnId, bytes: &[u8], fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        conn.heard_at = self.core.now.mono;
        conn.pinged = false;
        if conn.is_over() {
            return;
        }
        if conn.is_held() || !conn.unread.is_empty() {
            if conn.unread.capacity() == 0 {
                conn.unread = self.core.buffers.pop().unwrap_or_default();
            }
            conn.unread.extend_from_slice(bytes);
            if conn.is_held() {
                self.charge(id, 0, bytes.len());
            } else {
                self.read_unread(id, bytes.len(), fx);
            }
            return;
        }
        let (taken, stanzas) = self.elements(id, bytes, fx);
        self.taken(id, taken);
        self.keep(id, &bytes[taken.min(bytes.len())..]);
        self.charge(id, stanzas, bytes.len());
    }

    /// So many of the bytes that were unread are dealt with.
    fn taken(&mut self, id: ConnId, length: usize) {
        let conn = self.core.conns.get_mut(id.0);
        if let Some(fronted) = conn.and_then(|conn| conn.fronted.as_deref_mut()) {
            fronted.taken(length);
        }
    }

    fn keep(&mut self, id: ConnId, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        if conn.unread.capacity() == 0 {
            conn.unread = self.core.buffers.pop().unwrap_or_default();
        }
        conn.unread.extend_from_slice(rest);
    }

    /// Reads on in what is unread, after a hold or with more bytes.
    pub(super) fn go_on(&mut self, id: ConnId, fx: &mut Effects) {
        self.read_unread(id, 0, fx);
    }

    /// - `new`: bytes of what is unread that are not charged yet
    fn read_unread(&mut self, id: ConnId, new: usize, fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        if conn.is_held() {
            return;
        }
        if matches!(conn.login.as_deref(), Some(Login::Proved { .. })) {
            self.finish_login(id, fx);
        }
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        if conn.is_held() {
            return;
        }
        let mut unread = std::mem::take(&mut conn.unread);
        let (taken, stanzas) = self.elements(id, &unread, fx);
        let taken = taken.min(unread.len());
        self.taken(id, taken);
        match self.core.conns.get_mut(id.0) {
            Some(conn) if taken < unread.len() => {
                unread.drain(..taken);
                conn.unread = unread;
            }
            _ => self.core.give_back(unread),
        }
        self.charge(id, stanzas, new);
    }

    /// Ends a hold and reads on.
    pub(super) fn release(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        if conn.hold == Hold::Closing {
            return;
        }
        conn.hold = Hold::No;
        self.go_on(id, fx);
        if self.core.conns.get(id.0).is_some_and(|conn| !conn.is_held()) {
            fx.actions.push(Action::ReadAgain(id));
        }
    }

    /// Reads the elements that are complete in `bytes`; gives how many bytes are dealt with, and how many
    /// elements they were.
    fn elements(&mut self, id: ConnId, bytes: &[u8], fx: &mut Effects) -> (usize, u32) {
        let (mut at, mut count) = (0, 0);
        loop {
            let pressed = self.core.must_wait(id, fx);
            let Some(conn) = self.core.conns.get_mut(id.0) else { return (at, count) };
            if conn.is_held() {
                return (at, count);
            }
            if pressed && conn.is_established() && at < bytes.len() {
                conn.hold = Hold::Pressure;
                self.core.probe.reads_paused += 1;
                self.core.stalled.push(id);
                return (at, count);
            }
            let policy = &self.core.config.policy;
            let limits = conn.limits(policy);
            let step = conn.framer.next(&bytes[at..], limits);
            let result = match step {
                Ok(Step::More(drop)) => return (at + drop, count),
                Ok(Step::Open(range)) => {
                    let header = &bytes[at + range.start..at + range.end];
                    at += range.end;
                    self.header(id, header, fx)
                }
                Ok(Step::Close(end)) => {
                    at += end;
                    self.close(id, None, fx);
                    Ok(Flow::Taken)
                }
                Ok(Step::Stanza(range)) => {
                    let element = &bytes[at + range.start..at + range.end];
                    let told = conn.fronted.as_deref().map(|it| it.told(at + range.end));
                    let told = told.transpose().map(Option::flatten);
                    let is_told = matches!(told, Ok(Some(_)));
                    let result = told.and_then(|told| {
                        self.core.told = told;
                        self.element(id, element, fx)
                    });
                    self.core.told = None;
                    match result {
                        Ok(Flow::Again) => return (at + range.start, count),
                        other => {
                            if is_told
                                && let Some(conn) = self.core.conns.get_mut(id.0)
                                && let Some(fronted) = conn.fronted.as_deref_mut()
                            {
                                fronted.next_told();
                            }
                            at += range.end;
                            count += 1;
                            other
                        }
                    }
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(_) => {}
                Err(error) => {
                    self.close(id, Some(error), fx);
                    return (bytes.len(), count);
                }
            }
            // Plain text that stands behind <starttls/> could have been put there by anyone (RFC 6120 §5.3).
            if let Some(conn) = self.core.conns.get(id.0)
                && conn.stream.is_starting_tls()
                && at < bytes.len()
            {
                // COMPAT(go-sendxmpp, 0.5): ends its elements with a new line, here too. White space says nothing, so
                // nobody gains by putting it there.
                if bytes[at..].iter().all(|byte| b" \t\r\n".contains(byte)) {
                    return (bytes.len(), count);
                }
                let starts = |it: &Action| matches!(it, Action::StartTls(conn) if *conn == id);
                fx.actions.retain(|action| !starts(action));
                let error = StreamError::new(StreamCondition::PolicyViolation)
                    .with_text("nothing may follow starttls before the handshake");
                self.close(id, Some(error), fx);
                return (bytes.len(), count);
            }
        }
    }

    fn header(&mut self, id: ConnId, bytes: &[u8], fx: &mut Effects) -> Result<Flow, StreamError> {
        let stream_id = self.core.rng.token(16);
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else { return Ok(Flow::Taken) };
        let policy = &core.config.policy;
        let header = reader::read_header(bytes, conn.limits(policy))?;
        let mut out = core.buffers.pop().unwrap_or_default();
        let result = match &mut conn.component {
            Some(link) => link.stream.header(header, &core.config.components, &stream_id, &mut out),
            None => conn.stream.header(header, policy, &core.usual, &stream_id, &mut out),
        };
        core.write(id, &out, fx);
        core.give_back(out);
        result.map(|()| Flow::Taken)
    }

    fn element(&mut self, id: ConnId, bytes: &[u8], fx: &mut Effects) -> Result<Flow, StreamError> {
        let mut index = std::mem::take(&mut self.index);
        let read = match self.core.conns.get(id.0) {
            Some(conn) => {
                let context = match &conn.component {
                    Some(link) => link.stream.context(),
                    None => conn.stream.context(&self.core.usual),
                };
                let limits = conn.limits(&self.core.config.policy);
                reader::read(bytes, context, limits, &mut index)
            }
            None => return Ok(Flow::Taken),
        };
        let parsed = self.core.meter.parsed();
        let result = match read {
            Ok(()) => {
                let stanza = Stanza { bytes, index: &index };
                let result = self.contained_element(id, &stanza, fx);
                if let Some((parsed, kind)) = parsed.zip(stanza.kind()) {
                    self.core.meter.routed(kind, self.core.now, parsed);
                }
                result
            }
            Err(error) => Err(error),
        };
        self.index = index;
        result
    }

    fn contained_element(
        &mut self,
        id: ConnId,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Result<Flow, StreamError> {
        let mut result = Ok(Flow::Taken);
        let is_component = self.core.conns.get(id.0).is_some_and(|conn| conn.component.is_some());
        let sound = self.contained(fx, |shard, fx| {
            result = match is_component {
                true => shard.component_element(id, stanza, fx),
                false => shard.stream_element(id, stanza, fx),
            };
        });
        match (sound, is_component) {
            (true, _) => result,
            (false, true) => self.faulty_component_element(id, stanza, fx),
            (false, false) => self.faulty_element(id, stanza, fx),
        }
    }

    /// The handshake after STARTTLS is done.
    pub(super) fn secured(&mut self, id: ConnId, facts: TlsFacts, fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        if conn.hold == Hold::Tls {
            conn.stream.secured(facts);
            conn.framer.restart();
            conn.hold = Hold::No;
            fx.actions.push(Action::ReadAgain(id));
        }
    }

    /// The connection is gone; its session waits to be resumed, or ends.
    pub(super) fn closed(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(mut conn) = self.core.conns.remove(id.0) else { return };
        self.core.meter.forget(id);
        self.core.origins.leave(conn.network, &self.core.config.limits.rates);
        self.core.probe.connections -= 1;
        self.core.front_left(conn.fronted.take(), fx);
        let session = conn.session;
        if conn.component.is_some() {
            self.component_closed(id, &mut conn, fx);
        }
        self.core.give_back(conn.unread);
        self.core.give_back(conn.output);
        if let Some(session) = session {
            self.disconnected(session, fx);
        }
    }

    /// Ends a stream from our side, with `error` where there is one. A session that can be resumed is kept only where
    /// the stream broke; a client that closed its stream in order has ended its session.
    pub(super) fn close(&mut self, id: ConnId, error: Option<StreamError>, fx: &mut Effects) {
        let stream_id = self.core.rng.token(16);
        let core = &mut self.core;
        core.component_gone(id, fx);
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        if conn.hold == Hold::Closing {
            return;
        }
        let orderly = error.is_none();
        let session = conn.session.take();
        let mut out = core.buffers.pop().unwrap_or_default();
        match &mut conn.component {
            Some(link) => link.stream.close(error.as_ref(), &stream_id, &mut out),
            None => conn.stream.close(error.as_ref(), &core.config.policy, &stream_id, &mut out),
        }
        conn.hold = Hold::Closing;
        conn.login = None;
        let fronted = conn.fronted.take();
        core.front_left(fronted, fx);
        core.write(id, &out, fx);
        core.give_back(out);
        fx.actions.push(Action::Close(id));
        if let Some(session) = session {
            if orderly {
                self.end_session(session, fx);
            } else {
                self.disconnected(session, fx);
            }
        }
    }

    /// A client that says nothing is pinged, and dropped when it does not answer.
    pub(super) fn silence(&mut self, id: ConnId, fx: &mut Effects) {
        let silence = self.core.config.limits.silence;
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        if matches!(conn.hold, Hold::Rate(_) | Hold::Pressure) {
            // It may have said much that is not read yet.
            conn.heard_at = core.now.mono;
            conn.pinged = false;
        }
        let quiet = core.now.mono.since(conn.heard_at);
        if conn.component.is_some() {
            // Components need not say anything, and answer nothing: a blank shows whether the peer is there
            // (RFC 6120 §4.6.1).
            core.wheel.insert(core.now.mono + silence, Timer::Silence(id));
            return core.write(id, b" ", fx);
        }
        if conn.pinged {
            let error = StreamError::new(StreamCondition::ConnectionTimeout);
            self.close(id, Some(error), fx);
            return;
        }
        if quiet < silence {
            let due = conn.heard_at + silence;
            core.wheel.insert(due, Timer::Silence(id));
            return;
        }
        conn.pinged = true;
        core.wheel.insert(core.now.mono + silence / 2, Timer::Silence(id));
        if let Some(session) = conn.session {
            core.probe_client(session, fx);
        }
    }

    /// Rings and store have taken what waited: the clients that were stopped go on.
    pub(super) fn relieved(&mut self, fx: &mut Effects) {
        for conn in std::mem::take(&mut self.core.stalled) {
            let held = self.core.conns.get(conn.0).is_some_and(|conn| conn.hold == Hold::Pressure);
            if held && self.core.must_wait(conn, fx) {
                self.core.stalled.push(conn);
            } else if held {
                self.release(conn, fx);
            }
        }
    }

    /// Every stream ends with `system-shutdown`; sessions end without losing what is logged.
    pub(super) fn shutdown(&mut self, fx: &mut Effects) {
        if !self.core.stopping {
            self.core.plan_departures();
            self.core.write_departures(fx);
        }
        self.core.stopping = true;
        let conns: Vec<ConnId> = self.core.conns.iter().map(|(id, _)| ConnId(id)).collect();
        for conn in conns {
            self.close(conn, Some(StreamError::new(StreamCondition::SystemShutdown)), fx);
        }
    }
}

impl Core {
    pub(super) fn mark_dirty(&mut self, id: ConnId, fx: &mut Effects) {
        if let Some(conn) = self.conns.get_mut(id.0)
            && !conn.dirty
        {
            conn.dirty = true;
            fx.dirty.push(id);
        }
    }

    /// Appends to a connection's output what must not tell, by the time that it took, what was found: it leaves a fixed
    /// time after the question was heard.
    pub(super) fn write_evenly(&mut self, id: ConnId, bytes: &[u8], fx: &mut Effects) {
        self.write(id, bytes, fx);
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let at = conn.heard_at + self.config.answer_after;
        if at > self.now.mono && !conn.withheld {
            conn.withheld = true;
            fx.withheld.push((id, at));
        }
    }

    /// Appends to a connection's output.
    pub(super) fn write(&mut self, id: ConnId, bytes: &[u8], fx: &mut Effects) {
        if bytes.is_empty() {
            return;
        }
        self.mark_dirty(id, fx);
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let limit = self.config.limits.output_bytes + conn.spare;
        if conn.output_len() > limit {
            // Given up already.
            return;
        }
        if conn.output.capacity() == 0 {
            conn.output = self.buffers.pop().unwrap_or_default();
        }
        self.undo.push(Undo::Output { conn: id, length: conn.output.len() });
        conn.output.extend_from_slice(bytes);
        if conn.output_len() > limit && conn.hold != Hold::Closing {
            conn.hold = Hold::Closing;
            self.probe.slow_readers_closed += 1;
            fx.actions.push(Action::Abort(id));
        }
    }
}
