//! A connection with another server: its bytes are cut into elements, its output gathers until the turn ends.

use super::domain::LaneId;
use super::effect::{Action, ConnId, Effects};
use super::inbound::In;
use super::input::PeerTls;
use super::managed::Management;
use super::outbound::Out;
use super::{Core, Federation, Output, Timer};
use crate::base::instant::{Instant, Now};
use crate::base::subnet::Subnet;
use crate::stream::s2s::{Event, Reader, S2sStream};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::reader::Index;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a connection's elements wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    No,
    /// There is no connection yet, or a handshake is under way.
    Tls,
    /// For what the peer's domain says of its certificate.
    Posh,
    /// For rings or the store to take what waits.
    Pressure,
    /// Until then: the peer is above its rate.
    Rate(Instant),
    /// For shards to handle what it sent.
    Unhandled,
    /// Our end tag is out.
    Closing,
}

/// Which end of the connection we are.
#[derive(Debug)]
pub(super) enum Side {
    Out(Box<Out>),
    In(Box<In>),
}

/// One connection. Lives on the core that made or accepted it.
#[derive(Debug)]
pub(super) struct Conn {
    pub side: Side,
    /// `None` until there is a connection.
    pub stream: Option<Box<S2sStream>>,
    pub reader: Reader,
    pub peer: Option<SocketAddr>,
    pub tls: Option<Box<PeerTls>>,
    output: Vec<u8>,
    /// Bytes at the start of `output` that have left.
    left: usize,
    dirty: bool,
    pub hold: Hold,
    /// The queue that flows here.
    pub carries: Option<LaneId>,
    /// What of it the peer has, and what of the peer's the shards have.
    pub managed: Management,
    pub began: Instant,
    pub heard_at: Instant,
    /// When a stanza went, either way.
    pub used_at: Instant,
    /// When what is in the output was written, for the time it took.
    written_at: Option<Instant>,
    /// It is in the list of those to look at when the turn ends.
    pub noted: bool,
    /// Bugs that its elements ran into.
    pub faults: u8,
}

impl Conn {
    pub(super) fn new(side: Side, now: Instant) -> Conn {
        Conn {
            side,
            stream: None,
            reader: Reader::new(),
            peer: None,
            tls: None,
            output: Vec::new(),
            left: 0,
            dirty: false,
            hold: Hold::Tls,
            carries: None,
            managed: Management::default(),
            began: now,
            heard_at: now,
            used_at: now,
            written_at: None,
            noted: false,
            faults: 0,
        }
    }

    pub(super) fn output_len(&self) -> usize {
        self.output.len() - self.left
    }

    pub(super) fn out(&self) -> Option<&Out> {
        match &self.side {
            Side::Out(out) => Some(out),
            Side::In(_) => None,
        }
    }

    pub(super) fn out_mut(&mut self) -> Option<&mut Out> {
        match &mut self.side {
            Side::Out(out) => Some(out),
            Side::In(_) => None,
        }
    }
}

/// Bugs of one connection after which it is closed.
const FAULTS_FORGIVEN: u8 = 3;

impl Federation {
    /// A new connection; `None` where there are too many, or the node ends (then it is closed at once). Of direct TLS,
    /// `Input::Secured` follows before the first `Bytes`, or `Input::Closed`.
    pub fn accept(&mut self, now: Now, peer: SocketAddr, direct_tls: bool) -> Option<ConnId> {
        let core = &mut self.core;
        core.now = now;
        let network = Subnet::of(peer.ip());
        if core.stopping || !core.admit(network) {
            core.probe.connections_refused += 1;
            return None;
        }
        core.probe.connections_accepted += 1;
        let mut conn = Conn::new(Side::In(Box::new(In::new(network, now.mono))), now.mono);
        conn.peer = Some(peer);
        if !direct_tls {
            conn.stream = Some(Box::new(S2sStream::accept(false, &core.rng.token(22))));
            conn.hold = Hold::No;
        }
        let id = ConnId(core.conns.insert(conn));
        core.wheel.insert(now.mono + core.config.limits.negotiation, Timer::Negotiation(id));
        Some(id)
    }

    /// Whether the runtime should read from the connection.
    pub fn is_reading(&self, conn: ConnId) -> bool {
        let conn = self.core.conns.get(conn.0);
        conn.is_some_and(|conn| matches!(conn.hold, Hold::No | Hold::Closing))
    }

    /// What waits to be written; `None` for a connection that is gone.
    pub fn output(&self, conn: ConnId) -> Option<Output<'_>> {
        let conn = self.core.conns.get(conn.0)?;
        Some(Output { bytes: &conn.output[conn.left..], closing: conn.hold == Hold::Closing })
    }

    /// The connection is off `Effects::dirty`: output from now on puts it there again.
    pub fn flushing(&mut self, conn: ConnId) {
        if let Some(conn) = self.core.conns.get_mut(conn.0) {
            conn.dirty = false;
        }
    }

    /// `length` bytes of the output have left, at that time.
    pub fn output_left(&mut self, conn: ConnId, length: usize, at: Instant) {
        let core = &mut self.core;
        let Some(slot) = core.conns.get_mut(conn.0) else { return };
        let before = slot.output_len();
        slot.left = (slot.left + length).min(slot.output.len());
        slot.dirty = false;
        if slot.left == slot.output.len() {
            slot.output.clear();
            slot.left = 0;
            if slot.output.capacity() > BUFFER_BYTES {
                slot.output = Vec::new();
            }
            if let Some(written) = slot.written_at.take() {
                core.latencies.record(super::Stage::Write, at.since(written));
            }
        } else if slot.left > slot.output.len() / 2 {
            slot.output.drain(..slot.left);
            slot.left = 0;
        }
        let soft = core.config.limits.output_soft;
        if let Some(lane) = slot.carries
            && before >= soft
            && slot.output_len() < soft
        {
            core.touch(lane);
        }
    }

    /// Plain text of a connection.
    pub(super) fn bytes(&mut self, id: ConnId, bytes: &[u8], fx: &mut Effects) {
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        conn.heard_at = core.now.mono;
        let Some(stream) = &conn.stream else { return };
        if conn.hold == Hold::Closing {
            return;
        }
        if let Err(error) = conn.reader.receive(bytes, stream, &core.policy) {
            return self.broken(id, error, fx);
        }
        core.charge_bytes(id, bytes.len());
        self.read_on(id, fx);
        self.core.hold_above_rate(id, Instant::default());
    }

    /// Reads what is there, until there is no more or the connection is held.
    pub(super) fn read_on(&mut self, id: ConnId, fx: &mut Effects) {
        loop {
            let pressed = self.core.is_pressed(fx);
            let core = &mut self.core;
            let Some(conn) = core.conns.get_mut(id.0) else { return };
            if conn.hold != Hold::No {
                return;
            }
            let Some(stream) = conn.stream.as_mut() else { return };
            if pressed && stream.is_established() && conn.reader.unread() > 0 {
                conn.hold = Hold::Pressure;
                core.probe.reads_paused += 1;
                core.stalled.push(id);
                return;
            }
            let mut out = std::mem::take(&mut core.scratch);
            let event = conn.reader.next(stream, &core.policy, &mut self.index, &mut out);
            core.write(id, &out, fx);
            out.clear();
            core.scratch = out;
            match event {
                Ok(Some(event)) => self.contained_event(id, event, fx),
                Ok(None) => return,
                Err(error) => return self.broken(id, error, fx),
            }
        }
    }

    /// An event of a stream. A bug in handling it costs no more than the event, and the connection if there are more.
    fn contained_event(&mut self, id: ConnId, event: Event, fx: &mut Effects) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.event(id, event, fx);
        }));
        if outcome.is_ok() {
            return;
        }
        self.core.probe.faults += 1;
        self.index = Index::default();
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        conn.faults += 1;
        let again = conn.faults < FAULTS_FORGIVEN;
        fx.actions.push(Action::Note(super::Note::Fault {
            text: "a bug was met while an element of another server was handled".into(),
        }));
        if !again {
            let error = StreamError::new(StreamCondition::InternalServerError);
            self.broken(id, error, fx);
        }
    }

    fn event(&mut self, id: ConnId, event: Event, fx: &mut Effects) {
        match event {
            Event::Opened(opened) => self.core.opened(id, &opened, fx),
            Event::StartTls => self.core.start_tls(id, fx),
            Event::External { domain } => self.core.external(id, &domain, fx),
            Event::Bidi => {}
            Event::NoTls(why) => self.core.no_tls(id, why, fx),
            Event::Features(features) => self.core.features(id, features, fx),
            Event::Authenticated => self.core.authenticated(id),
            Event::NotAuthenticated { condition } => {
                self.core.not_authenticated(id, &condition, fx)
            }
            Event::Dialback(element) => self.core.dialback(id, element, fx),
            Event::Stanza { kind, from, to } => self.stanza(id, kind, &from, &to, fx),
            Event::Enable { resume, max_s } => self.core.enable(id, resume, max_s, fx),
            Event::Enabled { id: name, max_s } => self.core.enabled(id, name, max_s, fx),
            Event::Resume { previous, h } => self.core.resume(id, &previous, h, fx),
            Event::Resumed { h } => self.core.resumed(id, h, fx),
            Event::NotManaged { h } => self.core.not_managed(id, h, fx),
            Event::Acknowledged { h } => self.core.acknowledged(id, h, fx),
            Event::Requested => self.core.requested(id),
            Event::Failed(error) => self.core.peer_failed(id, &error, fx),
            Event::Closed => self.core.peer_closed(id, fx),
        }
    }

    /// The peer broke the rules of its stream.
    pub(super) fn broken(&mut self, id: ConnId, error: StreamError, fx: &mut Effects) {
        let core = &mut self.core;
        core.probe.stream_errors_out += 1;
        if let Some(conn) = core.conns.get(id.0)
            && let Some(peer) = conn.peer
        {
            let pair = conn.stream.as_ref().and_then(|stream| stream.pair());
            let domain = pair.map(|pair| pair.remote.as_str().into());
            let text = error.to_string().into();
            fx.actions.push(Action::Note(super::Note::Broken { domain, peer: peer.ip(), text }));
        }
        core.give_up(
            id,
            super::Failure::Stream,
            &format!("it broke the stream: {error}"),
            Some(error),
            fx,
        );
    }

    /// Ends a hold and reads on.
    pub(super) fn go_on(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        if matches!(conn.hold, Hold::Closing | Hold::No) {
            return;
        }
        conn.hold = Hold::No;
        self.read_on(id, fx);
        if self.core.conns.get(id.0).is_some_and(|conn| conn.hold == Hold::No) {
            fx.actions.push(Action::ReadAgain(id));
        }
    }

    /// Rings and store have taken what waited: the peers that were stopped go on.
    pub(super) fn relieved(&mut self, fx: &mut Effects) {
        for conn in std::mem::take(&mut self.core.stalled) {
            let held = self.core.conns.get(conn.0).is_some_and(|conn| conn.hold == Hold::Pressure);
            if held && self.core.is_pressed(fx) {
                self.core.stalled.push(conn);
            } else if held {
                self.go_on(conn, fx);
            }
        }
    }

    /// The handshake of a connection is done.
    pub(super) fn secured(
        &mut self,
        id: ConnId,
        tls: Box<PeerTls>,
        took: Duration,
        fx: &mut Effects,
    ) {
        let core = &mut self.core;
        core.latencies.record(super::Stage::Tls, took);
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        if conn.hold != Hold::Tls {
            return;
        }
        let seed = core.rng.token(22);
        let mut out = Vec::new();
        match &mut conn.stream {
            Some(stream) => stream.secured(&mut out),
            // An incoming one of direct TLS.
            None => conn.stream = Some(Box::new(S2sStream::accept(true, &seed))),
        }
        conn.hold = Hold::No;
        let version = tls.version;
        conn.tls = Some(tls);
        if let Side::In(side) = &mut conn.side {
            side.since = core.now.mono;
        }
        core.write(id, &out, fx);
        core.tls_known(id, version, took, fx);
        if core.conns.get(id.0).is_some_and(|conn| conn.hold == Hold::No) {
            fx.actions.push(Action::ReadAgain(id));
        }
    }
}

/// Output buffers above this size are given back to the allocator.
const BUFFER_BYTES: usize = 64 << 10;

impl Core {
    /// Appends to a connection's output.
    pub(super) fn write(&mut self, id: ConnId, bytes: &[u8], fx: &mut Effects) {
        if bytes.is_empty() {
            return;
        }
        let hard = self.config.limits.output_hard;
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        // Behind our end tag nothing comes.
        if conn.output_len() > hard || conn.managed.finishing {
            return;
        }
        conn.output.extend_from_slice(bytes);
        conn.written_at.get_or_insert(self.now.mono);
        if !conn.dirty {
            conn.dirty = true;
            fx.dirty.push(id);
        }
        if conn.output_len() > hard && conn.hold != Hold::Closing {
            let text = "it takes nothing of what is sent to it";
            self.cut(id, super::Failure::Timeout, text, fx);
        }
    }

    /// Runs a call of the stream that writes.
    pub(super) fn with_stream<T>(
        &mut self,
        id: ConnId,
        fx: &mut Effects,
        work: impl FnOnce(&mut S2sStream, &mut Vec<u8>) -> T,
    ) -> Option<T> {
        let mut out = std::mem::take(&mut self.scratch);
        let stream = self.conns.get_mut(id.0).and_then(|conn| conn.stream.as_mut());
        let result = stream.map(|stream| work(stream, &mut out));
        self.write(id, &out, fx);
        out.clear();
        self.scratch = out;
        result
    }

    /// Looks at a connection when the turn ends.
    pub(super) fn note(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id.0)
            && !conn.noted
        {
            conn.noted = true;
            self.noted.push(id);
        }
    }

    /// Says goodbye: our end tag, with an error before it where there is one. What the connection carried is let go of
    /// first, by who calls this.
    pub(super) fn say_goodbye(
        &mut self,
        id: ConnId,
        error: Option<&StreamError>,
        fx: &mut Effects,
    ) {
        let policy = self.policy.clone();
        let Some(conn) = self.conns.get(id.0) else { return };
        if conn.hold == Hold::Closing {
            return;
        }
        if conn.stream.is_none() {
            self.forget(id);
            fx.actions.push(Action::Abort(id));
            return;
        }
        let starting_tls = conn.stream.as_ref().is_some_and(|stream| stream.is_starting_tls());
        self.with_stream(id, fx, |stream, out| stream.close(error, &policy, out));
        if starting_tls {
            fx.actions.retain(|it| !matches!(it, Action::StartTls { conn, .. } if *conn == id));
        }
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.hold = Hold::Closing;
            conn.reader = Reader::new();
            fx.actions.push(Action::Close(id));
        }
    }

    /// Takes a connection out of the tables.
    pub(super) fn forget(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.remove(id.0)
            && let Side::In(side) = &conn.side
        {
            self.leave(side);
        }
    }
}
