//! Sockets of this core whose connection is on another node, and connections of this core whose socket is there: between
//! the machine (`cluster::relay`), the sockets and the shard. A core of a node without a cluster has none of this.
//!
//! At the front a socket keeps its task and its TLS; what it reads goes to the owner within the credit. At the owner a
//! connection without a socket is flushed, closed and read again by messages.

use super::cluster::port::{Carrier, Outgoing};
use super::connection::{self, LAST_OUTPUT, Socket};
use super::departing::Departing;
use super::executor::{Core, seed};
use super::redirect::{Redirects, Steer};
use crate::base::hash::Map;
use crate::base::instant::Instant;
use crate::base::rng::Rng;
use crate::cluster::drain::Departures;
use crate::cluster::placement::{NodeId, Owner};
use crate::cluster::relay::{Event, FrontId, Leave, Lost, Refusal, Relay, Remote, messages};
use crate::cluster::view::{Place, Run, View};
use crate::frame::Batch;
use crate::shard::errand::SessionFacts;
use crate::shard::{ConnId, FrontSaid, Input};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// One per core of a node in a cluster.
pub(super) struct Relays {
    carrier: Box<dyn Carrier>,
    machine: RefCell<Relay<Rc<Socket>>>,
    /// Runs that there is a link to.
    linked: RefCell<Map<NodeId, Run>>,
    redirects: RefCell<Redirects>,
    /// Sockets here that are told to go elsewhere, one by one.
    departures: RefCell<Option<(Departures<FrontId>, Departing)>>,
    /// Sockets here with output, each once.
    dirty: RefCell<Vec<Rc<Socket>>>,
    /// Sockets here whose messages are sent from here, by the token of their stream.
    sending: RefCell<Map<u64, FrontId>>,
    /// Connections here that are closed, and when they end at the latest.
    ending: RefCell<VecDeque<(Instant, ConnId)>>,
}

/// What a socket keeps whose connection is elsewhere.
pub(super) struct Front {
    /// Its name in the machine, for as long as the owner may speak of it.
    pub id: Option<FrontId>,
    /// Of its stream, while its client's messages are sent from here.
    sends: Cell<Option<u64>>,
    output: Vec<u8>,
    /// Bytes at the start of `output` that have left.
    left: usize,
    /// Nothing comes after the output.
    pub closing: bool,
    /// An error and a close tag may follow it.
    may_end: bool,
    dirty: bool,
}

impl Front {
    pub(super) fn output(&self) -> &[u8] {
        &self.output[self.left..]
    }

    /// So many bytes of the output have left.
    pub(super) fn output_left(&mut self, core: &Core, length: usize) {
        self.left += length;
        if self.left >= self.output.len() {
            // An idle connection holds no buffer.
            (self.output, self.left) = (Vec::new(), 0);
        }
        if let (Some(id), Some(relays)) = (self.id, &core.relays)
            && relays.machine.borrow_mut().took(id, length)
        {
            core.flush.notify();
        }
    }
}

impl Relays {
    pub(super) fn new(carrier: Box<dyn Carrier>) -> Relays {
        Relays {
            carrier,
            machine: RefCell::default(),
            linked: RefCell::default(),
            redirects: RefCell::default(),
            departures: RefCell::default(),
            dirty: RefCell::default(),
            sending: RefCell::default(),
            ending: RefCell::default(),
        }
    }

    /// The shard, where there is a link to it.
    fn place(&self, owner: Owner) -> Option<Place> {
        let run = self.linked.borrow().get(&owner.node).copied()?;
        Some(Place { run, shard: owner.shard })
    }

    /// What shards have for those of other nodes.
    pub(super) fn send(&self, piece: Outgoing) {
        self.carrier.send(piece);
    }

    /// Something of this run was dropped here.
    pub(super) fn renew(&self, run: Run) {
        self.carrier.renew(run);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.machine.borrow().is_idle()
    }
}

// ---- the front

/// `Action::Move` to a shard of another node: the socket stays, and becomes a front.
pub(super) fn open(core: &Rc<Core>, conn: ConnId, to: Owner) {
    let Some(socket) = core.socket(conn) else {
        // The socket is elsewhere already, and its client now names another account. It comes again.
        return end_stream(core, conn, StreamCondition::Reset);
    };
    let place = core.relays.as_ref().and_then(|relays| Some((relays, relays.place(to)?)));
    let Some((relays, place)) = place else {
        tracing::debug!(node = to.node.0, "no link to the owner of an account");
        return end_stream(core, conn, StreamCondition::RemoteConnectionFailed);
    };
    if core.settings.borrow().redirects {
        let peer = core.shard.borrow().peer_address(conn);
        let steer =
            peer.map(|peer| relays.redirects.borrow_mut().steer(core.clock.mono(), peer, to.node));
        if let Some(Steer::To(host)) = steer {
            core.counts.borrow_mut().redirected += 1;
            let mut fx = core.fx.borrow_mut();
            core.shard.borrow_mut().redirect(core.clock.now(), conn, &host, &mut fx);
            core.flush.notify();
            return;
        }
        core.counts.borrow_mut().redirects_ignored += u64::from(steer == Some(Steer::StayAgain));
    }
    // What was said here leaves from here, as far as the kernel takes it.
    connection::flush(core, conn);
    let (image, may_end) = {
        let mut shard = core.shard.borrow_mut();
        let all_left = shard.output(conn).is_some_and(|output| output.bytes.is_empty());
        let may_end = all_left && shard.may_end(conn);
        // Closed meanwhile: that action follows.
        let Some(image) = shard.extract_image(core.clock.now(), conn) else { return };
        (image, may_end)
    };
    core.forget(conn);
    let id = relays.machine.borrow_mut().open(place, socket.clone(), &image);
    let (sends, output) = (Cell::new(None), Vec::new());
    let front =
        Front { id: Some(id), sends, output, left: 0, closing: false, may_end, dirty: false };
    connection::become_front(&socket, front);
    let patience = core.settings.borrow().handshake_timeout;
    core.end_by(&socket, patience);
}

fn end_stream(core: &Rc<Core>, conn: ConnId, condition: StreamCondition) {
    let mut fx = core.fx.borrow_mut();
    core.shard.borrow_mut().end_stream(core.clock.now(), conn, condition, &mut fx);
    core.flush.notify();
}

/// What a client said goes to its owner.
pub(super) fn input(core: &Core, front: &Front, bytes: &[u8]) {
    if let (Some(id), Some(relays)) = (front.id, &core.relays) {
        if let Some(token) = front.sends.get() {
            core.shard.borrow_mut().front_input(token, bytes);
            send_on(core, relays, front, id, token);
        } else {
            relays.machine.borrow_mut().input(id, bytes);
        }
        core.flush.notify();
    }
}

/// What a client said is sent from here, as far as it goes. Whoever may not act for accounts does not for others' either,
/// since some of what is sent is for accounts here.
fn send_on(core: &Core, relays: &Relays, front: &Front, id: FrontId, token: u64) {
    while !core.is_suspended() {
        let mut machine = relays.machine.borrow_mut();
        let credit = machine.credit(id);
        let said = {
            let mut fx = core.fx.borrow_mut();
            core.shard.borrow_mut().front_next(core.clock.now(), token, credit, &mut fx)
        };
        match said {
            FrontSaid::Sent { number, at, bytes } => machine.sent(id, number, at, &bytes),
            FrontSaid::Pass(bytes) => machine.input(id, &bytes),
            FrontSaid::Stops(bytes) => {
                machine.sends_not(id);
                machine.input(id, &bytes);
                front.sends.set(None);
                relays.sending.borrow_mut().remove(&token);
                break;
            }
            FrontSaid::Gone => {
                front.sends.set(None);
                relays.sending.borrow_mut().remove(&token);
                break;
            }
            FrontSaid::Waits => break,
        }
    }
    core.flush.notify();
}

/// What a client had to wait for is there.
pub(super) fn goes_on(core: &Core, token: u64) {
    let Some(relays) = &core.relays else { return };
    let id = relays.sending.borrow().get(&token).copied();
    let socket = id.and_then(|id| relays.machine.borrow().socket(id));
    if let (Some(id), Some(socket)) = (id, socket) {
        connection::with_front(&socket, |front| send_on(core, relays, front, id, token));
        connection::wake(&socket);
    }
}

/// All clients whose messages are sent from here are read on.
pub(super) fn all_go_on(core: &Core) {
    let Some(relays) = &core.relays else { return };
    let tokens: Vec<u64> = relays.sending.borrow().keys().copied().collect();
    tokens.into_iter().for_each(|token| goes_on(core, token));
}

/// Nothing more of a front's client is sent from here.
fn sends_no_more(core: &Core, front: &Front) {
    if let (Some(token), Some(relays)) = (front.sends.take(), &core.relays) {
        relays.sending.borrow_mut().remove(&token);
        core.shard.borrow_mut().front_ended(token);
    }
}

pub(super) fn is_reading(core: &Core, front: &Front) -> bool {
    match (front.id, &core.relays) {
        (Some(id), Some(relays)) => {
            let waits = |token| core.is_suspended() || !core.shard.borrow().front_is_reading(token);
            relays.machine.borrow().is_reading(id) && !front.sends.get().is_some_and(waits)
        }
        _ => false,
    }
}

/// The time of a front is up where its owner did not take it, or where its last output does not leave.
pub(super) fn is_overdue(core: &Core, front: &Front) -> bool {
    match (front.id, &core.relays) {
        (Some(id), Some(relays)) => front.closing || !relays.machine.borrow().is_accepted(id),
        _ => true,
    }
}

/// The socket of a front is gone.
pub(super) fn ended(core: &Core, front: &Front) {
    sends_no_more(core, front);
    if let (Some(id), Some(relays)) = (front.id, &core.relays) {
        relays.machine.borrow_mut().close(id);
        core.flush.notify();
    }
}

/// The owner is out of reach: the stream ends here, in order where it stands between two elements.
fn end_front(core: &Rc<Core>, relays: &Relays, socket: &Rc<Socket>, condition: StreamCondition) {
    let ends = connection::with_front(socket, |front| {
        sends_no_more(core, front);
        front.id = None;
        if front.may_end && !front.closing {
            StreamError::new(condition).write(&mut front.output);
            front.output.extend_from_slice(b"</stream:stream>");
            front.closing = true;
        }
        if front.closing && !std::mem::replace(&mut front.dirty, true) {
            relays.dirty.borrow_mut().push(socket.clone());
        }
        front.closing
    });
    match ends {
        Some(true) => core.end_by(socket, LAST_OUTPUT),
        _ => connection::drop_socket(socket),
    }
}

// ---- the owner

/// Output of a connection whose socket is elsewhere.
pub(super) fn flush(core: &Rc<Core>, conn: ConnId) {
    let Some(relays) = &core.relays else { return };
    let mut machine = relays.machine.borrow_mut();
    if !machine.owns(conn.0) {
        return;
    }
    let mut shard = core.shard.borrow_mut();
    shard.flushing(conn);
    let may_end = shard.may_end(conn);
    // Nothing where its moment has not come.
    let Some(output) = shard.output(conn) else { return };
    let (length, last) = (output.bytes.len(), output.closing);
    let sent = machine.output(conn.0, output.bytes, last, may_end);
    shard.output_left(conn, sent);
    if sent < length {
        shard.blocked(conn);
    }
}

/// The shard has closed the stream; the output before it still leaves.
pub(super) fn close(core: &Rc<Core>, conn: ConnId) {
    if let Some(relays) = &core.relays {
        let at = core.clock.mono() + LAST_OUTPUT;
        relays.ending.borrow_mut().push_back((at, conn));
        flush(core, conn);
    }
}

/// Drops a connection whose socket is elsewhere, and that socket.
pub(super) fn abort(core: &Rc<Core>, conn: ConnId) {
    let Some(relays) = &core.relays else { return };
    if relays.machine.borrow_mut().abort(conn.0) {
        closed(core, conn);
    }
}

/// The front of a connection may send messages itself.
pub(super) fn give_leave(core: &Core, conn: ConnId, leave: &Leave<'_>) {
    if let Some(relays) = &core.relays {
        relays.machine.borrow_mut().give_leave(conn.0, leave);
    }
}

/// It may no more.
pub(super) fn take_leave_back(core: &Core, conn: ConnId) {
    if let Some(relays) = &core.relays {
        relays.machine.borrow_mut().take_leave_back(conn.0);
    }
}

/// Reading was stopped and goes on.
pub(super) fn read_again(core: &Rc<Core>, conn: ConnId) {
    if let Some(relays) = &core.relays {
        relays.machine.borrow_mut().consumed(conn.0, true);
    }
}

/// Tells of sessions which node their sockets are on.
pub(super) fn find_sockets(core: &Core, sessions: &mut [SessionFacts]) {
    let Some(relays) = &core.relays else { return };
    let machine = relays.machine.borrow();
    for session in sessions {
        let front = session.conn.and_then(|conn| machine.socket_of(conn.0));
        session.front = front.map(|place| place.run.node);
    }
}

/// The machine has forgotten the connection: so does the shard.
fn closed(core: &Rc<Core>, conn: ConnId) {
    let mut fx = core.fx.borrow_mut();
    core.shard.borrow_mut().handle(core.clock.now(), Input::Closed { conn }, &mut fx);
    core.connections.leave();
    core.flush.notify();
}

fn adopt(core: &Rc<Core>, relays: &Relays, remote: Remote, image: &[u8]) {
    let refusal = if core.is_stopping() {
        Refusal::Stopping
    } else if !core.connections.has_room() {
        Refusal::Full
    } else {
        let mut fx = core.fx.borrow_mut();
        let adopted = core.shard.borrow_mut().adopt_image(core.clock.now(), image, &mut fx);
        match adopted {
            Ok(conn) => {
                core.connections.enter();
                core.shard.borrow_mut().fronted_by(conn, remote.place);
                return relays.machine.borrow_mut().accept(remote, conn.0);
            }
            Err(error) => {
                let node = remote.place.run.node.0;
                tracing::warn!(node, %error, "a connection from another node is refused");
                Refusal::Image
            }
        }
    };
    relays.machine.borrow_mut().refuse(remote, refusal);
}

// ---- both

/// Who is in the cluster, from now on.
pub(super) fn placed(core: &Core, view: &View) {
    if let Some(relays) = &core.relays {
        relays.redirects.borrow_mut().adopt(view);
    }
}

pub(super) fn linked(core: &Rc<Core>, run: Run) {
    if let Some(relays) = &core.relays {
        relays.linked.borrow_mut().insert(run.node, run);
    }
}

/// One piece of what another core says of sockets.
pub(super) fn received(core: &Rc<Core>, from: Place, piece: &[u8]) {
    let Some(relays) = &core.relays else { return };
    core.handshakes.served(None, core.clock.mono());
    for message in messages(piece) {
        let event = match message {
            Ok(message) => relays.machine.borrow_mut().take(from, message),
            Err(error) => {
                tracing::warn!(node = from.run.node.0, %error, "sockets are lost");
                Some(Event::Gap)
            }
        };
        if let Some(event) = event {
            happened(core, relays, from, event);
        }
    }
    core.flush.notify();
}

fn happened(core: &Rc<Core>, relays: &Relays, from: Place, event: Event<'_, Rc<Socket>>) {
    match event {
        Event::Open { remote, image } => adopt(core, relays, remote, image),
        Event::MayRead(front) => {
            let socket = relays.machine.borrow().socket(front);
            if let Some(socket) = socket {
                connection::with_front(&socket, |it| {
                    if let Some(token) = it.sends.get() {
                        send_on(core, relays, it, front, token);
                    }
                });
                connection::wake(&socket);
            }
        }
        Event::Refused(socket, why) => {
            let condition = match why {
                Refusal::Full => StreamCondition::ResourceConstraint,
                Refusal::Stopping => StreamCondition::SystemShutdown,
                Refusal::Image => StreamCondition::RemoteConnectionFailed,
            };
            end_front(core, relays, &socket, condition);
        }
        Event::Input { conn, bytes } => {
            let conn = ConnId(conn);
            let reading = {
                let (mut shard, mut fx) = (core.shard.borrow_mut(), core.fx.borrow_mut());
                shard.handle(core.clock.now(), Input::Bytes { conn, bytes }, &mut fx);
                shard.is_reading(conn)
            };
            relays.machine.borrow_mut().consumed(conn.0, reading);
        }
        Event::Sent { conn, number, at, bytes } => {
            let conn = ConnId(conn);
            let reading = {
                let (mut shard, mut fx) = (core.shard.borrow_mut(), core.fx.borrow_mut());
                let input = Input::Told { conn, number, at, bytes };
                shard.handle(core.clock.now(), input, &mut fx);
                shard.is_reading(conn)
            };
            relays.machine.borrow_mut().consumed(conn.0, reading);
        }
        Event::FrontChanged(conn, sends) => {
            let (mut shard, mut fx) = (core.shard.borrow_mut(), core.fx.borrow_mut());
            let input = Input::FrontChanged { conn: ConnId(conn), sends };
            shard.handle(core.clock.now(), input, &mut fx);
        }
        Event::Leave(front, leave) => {
            let now = core.clock.now();
            let socket = relays.machine.borrow().socket(front);
            let begins = socket.is_some_and(|socket| {
                let begins = |it: &mut Front| {
                    let begins =
                        !it.closing && core.shard.borrow_mut().front_begins(now, from, &leave);
                    it.sends.set(begins.then_some(leave.token));
                    begins
                };
                connection::with_front(&socket, begins) == Some(true)
            });
            if begins {
                relays.sending.borrow_mut().insert(leave.token, front);
                relays.machine.borrow_mut().sends(front, now.wall);
            } else {
                relays.machine.borrow_mut().sends_not(front);
            }
        }
        Event::NoLeave(front) => {
            if let Some(socket) = relays.machine.borrow().socket(front) {
                connection::with_front(&socket, |it| {
                    if let Some(token) = it.sends.get() {
                        core.shard.borrow_mut().front_stops(token);
                    }
                });
            }
        }
        Event::Output { front, bytes, said } => {
            let Some(socket) = relays.machine.borrow().socket(front) else { return };
            connection::with_front(&socket, |front| {
                front.output.extend_from_slice(bytes);
                if said.closing {
                    sends_no_more(core, front);
                }
                front.closing |= said.closing;
                front.may_end = said.may_end;
                if !std::mem::replace(&mut front.dirty, true) {
                    relays.dirty.borrow_mut().push(socket.clone());
                }
            });
            if said.closing {
                core.end_by(&socket, LAST_OUTPUT);
            }
        }
        Event::MayWrite(conn) => {
            let conn = ConnId(conn);
            flush(core, conn);
            let mut shard = core.shard.borrow_mut();
            if shard.output(conn).is_some_and(|output| output.bytes.is_empty()) {
                shard.unblocked(conn, core.clock.mono());
            }
        }
        Event::Closed(conn) => closed(core, ConnId(conn)),
        Event::Stop(conn) => {
            let here = core.shard.borrow().own_address();
            match here {
                Some(host) => {
                    let mut fx = core.fx.borrow_mut();
                    let now = core.clock.now();
                    core.shard.borrow_mut().redirect(now, ConnId(conn), &host, &mut fx);
                }
                None => end_stream(core, ConnId(conn), StreamCondition::SystemShutdown),
            }
        }
        Event::Aborted(socket) => {
            connection::with_front(&socket, |front| {
                sends_no_more(core, front);
                front.id = None;
            });
            connection::drop_socket(&socket);
        }
        Event::Gap => {
            let lost = relays.machine.borrow_mut().lose(from);
            end_lost(core, relays, lost);
        }
    }
}

/// The link to this run is gone, and with it all sockets that were relayed over it.
pub(super) fn lost(core: &Rc<Core>, run: Run) {
    let Some(relays) = &core.relays else { return };
    relays.linked.borrow_mut().retain(|_, linked| *linked != run);
    let lost = relays.machine.borrow_mut().unlinked(run);
    end_lost(core, relays, lost);
    core.flush.notify();
}

fn end_lost(core: &Rc<Core>, relays: &Relays, lost: Lost<Rc<Socket>>) {
    for socket in &lost.fronts {
        end_front(core, relays, socket, StreamCondition::SystemShutdown);
    }
    for conn in lost.conns {
        closed(core, ConnId(conn));
    }
}

/// How many sockets here have their connections at other nodes.
pub(super) fn fronts(core: &Core) -> usize {
    core.relays.as_ref().map_or(0, |relays| relays.machine.borrow().len().0)
}

/// The node is drained: streams of those of our fronts that are here now end, one by one, by their owners. Who comes later
/// found no better place. `None`: no more of them end.
pub(super) fn depart(core: &Core, departing: Option<Departing>) {
    let Some(relays) = &core.relays else { return };
    let departures = departing.map(|departing| {
        let (fronts, mut rng) = (relays.machine.borrow().accepted_fronts(), Rng::from_seed(seed()));
        let departures = Departures::new(core.clock.mono(), fronts, departing.span(), &mut rng);
        departing.planned(departures.left());
        (departures, departing)
    });
    if let Some((departures, departing)) = relays.departures.replace(departures) {
        departing.told(departures.left());
    }
}

fn let_some_go(core: &Core, relays: &Relays, now: Instant) {
    let mut departures = relays.departures.borrow_mut();
    let Some((departures, departing)) = departures.as_mut() else { return };
    while let Some(front) = departures.due(now) {
        relays.machine.borrow_mut().let_go(front);
        departing.told(1);
        core.flush.notify();
    }
}

/// The node stops: streams of our fronts end, by their owners.
pub(super) fn stop(core: &Core) {
    if let Some(relays) = &core.relays {
        relays.machine.borrow_mut().stop();
        core.flush.notify();
    }
}

/// What time brings: closed connections whose client takes its time, and sockets that are to go.
pub(super) fn tick(core: &Rc<Core>) {
    let Some(relays) = &core.relays else { return };
    let now = core.clock.mono();
    let_some_go(core, relays, now);
    loop {
        let due = {
            let mut ending = relays.ending.borrow_mut();
            ending.pop_front_if(|(at, _)| *at <= now)
        };
        let Some((_, conn)) = due else { return };
        abort(core, conn);
    }
}

/// Writes what came for sockets here, and sends what is for those elsewhere.
pub(super) fn turn_ends(core: &Rc<Core>) {
    let Some(relays) = &core.relays else { return };
    let dirty = std::mem::take(&mut *relays.dirty.borrow_mut());
    for socket in dirty {
        connection::with_front(&socket, |front| front.dirty = false);
        connection::flush_front(core, &socket);
    }
    for (to, relay) in relays.machine.borrow_mut().pieces() {
        let (from, frames) = (core.shard_id(), Batch::new());
        relays.carrier.send(Outgoing { from, to, frames, news: None, relay });
    }
}

#[cfg(test)]
mod tests;
