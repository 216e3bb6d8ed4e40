//! Towards a client: stanzas into its socket and its queue, and the counting of XEP-0198 both ways.

use super::control::Control;
use super::effect::Effects;
use super::peers::Peer;
use super::post::Post;
use super::ring::{Arrival, Carried, FrameRef};
use super::session::SessionId;
use super::{Core, Timer};
use crate::base::instant::Wall;
use crate::frame::Origin;
use crate::stream::resume::{Counters, Unacknowledged};
use crate::xmpp::ns;
use crate::xmpp::stanza::StanzaKind;
use crate::xmpp::stanza_error::{StanzaError, write_error_reply};
use crate::xmpp::xml::writer::Writer;
use std::time::Duration;

/// How long a request for an acknowledgement waits for what came before it.
const ACK_WAIT: Duration = Duration::from_secs(1);
/// Numbers of frames in one frame that tells of them.
const TOLD_APART: usize = 1_024;

/// What a stanza to a client is known by later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Its row in the owner's log, to be confirmed by the client.
    pub row: Option<u64>,
    /// Where it came from, if it may come from there again, or be kept twice.
    pub origin: Option<Origin>,
}

impl Mark {
    pub(super) const NONE: Mark = Mark { row: None, origin: None };
}

impl Core {
    /// The stanzas whose frames to `ring` are handled up to this number are done.
    pub(super) fn frames_handled(&mut self, ring: usize, handled: u64) {
        while let Some(carried) =
            self.outward.get_mut(ring).and_then(|outward| outward.done(handled))
        {
            self.settle(carried);
        }
    }

    /// What a frame of ours carried is handled.
    pub(super) fn settle(&mut self, carried: Carried) {
        match carried {
            Carried::Stanza(session, number) => self.complete(session, number),
            Carried::Frame(at) => self.release_frame(Some(at)),
            Carried::Direct(token, number) => self.front_settled(token, number),
        }
    }

    /// The frame that somebody waits for is not handled before one thing more has come.
    pub(super) fn hold_frame(&mut self, awaited: Option<FrameRef>) {
        if let Some(at) = awaited {
            self.inward[usize::from(at.ring)].hold(at.number);
        }
    }

    /// What no frame brought, or one that is handled: it stands for one of this shard's own from before all others.
    pub(super) fn no_frame(&self) -> FrameRef {
        FrameRef { ring: self.id.0, number: 0 }
    }

    /// One thing that the frame waited for has come.
    pub(super) fn release_frame(&mut self, awaited: Option<FrameRef>) {
        if let Some(at) = awaited
            && self.inward[usize::from(at.ring)].release(at.number)
        {
            self.apart.push(at);
        }
    }

    /// This frame has been dealt with, for which one that its sender got waits there. *Handled* is one number per ring, so
    /// the frames before it hold it up. One of those may have been sent on, and wait for what waits for this one: a frame
    /// that went to and fro as owners changed. So what was sent on is told by itself.
    pub(super) fn tell_apart(&mut self, at: FrameRef) {
        if self.inward.get_mut(usize::from(at.ring)).is_some_and(|ring| ring.mark_apart(at.number))
        {
            self.apart.push(at);
        }
    }

    /// Tells of frames that are handled behind ones that are not.
    pub(super) fn tell_handled_apart(&mut self, fx: &mut Effects) {
        let mut apart = std::mem::take(&mut self.apart);
        apart.sort_unstable_by_key(|at| (at.ring, at.number));
        apart.dedup();
        apart.retain(|at| {
            let peer = Peer(at.ring);
            let hears = !self.peers.is_gone(peer) && !self.peers.is_federation(peer);
            // What answers it may have begun to hold it since.
            let is_handled = self.inward[peer.index()].mark_apart(at.number);
            hears && is_handled && at.ring != self.id.0
        });
        for of_ring in apart.chunk_by(|one, other| one.ring == other.ring) {
            for part in of_ring.chunks(TOLD_APART) {
                let numbers: Vec<String> = part.iter().map(|at| at.number.to_string()).collect();
                let text = numbers.join(" ");
                self.send_control(
                    Peer(part[0].ring),
                    Control::HandledApart,
                    "",
                    text.as_bytes(),
                    fx,
                );
            }
        }
    }

    /// The other way.
    pub(super) fn frames_handled_apart(&mut self, by: Peer, numbers: &str) {
        for number in numbers.split(' ').filter_map(|number| number.parse().ok()) {
            let Some(outward) = self.outward.get_mut(by.index()) else { return };
            let done = outward.done_apart(number);
            done.into_iter().for_each(|carried| self.settle(carried));
        }
    }

    /// `at` is answered by our frame `sent`. To whoever sent `at`, its handling is told behind that; elsewhere, a node that
    /// dies before it has the answer must not leave the stanza told as handled. And while owners change, the answer may
    /// wait at the new owner of an account whose session is still at the old one: its client must not hear that all is
    /// well, and leave, before the two are together.
    pub(super) fn answered_by(&mut self, at: FrameRef, sent: FrameRef) {
        if !self.handover.is_settled() {
            self.hold_frame(Some(at));
            self.handover.answered.push(at);
        }
        if sent.ring != at.ring && !self.peers.is_local(Peer(sent.ring)) {
            self.hold_frame(Some(at));
            let outward = &mut self.outward[usize::from(sent.ring)];
            outward.await_arrival(sent.number, Arrival::Answer(at));
        }
    }

    /// The other side has all our frames up to this one.
    pub(super) fn frames_arrived(&mut self, by: Peer, received: u64) {
        let Some(outward) = self.outward.get_mut(by.index()) else { return };
        outward.arrived(received);
        while let Some(arrival) = self.outward[by.index()].next_arrival() {
            match arrival {
                Arrival::Copied(covered) => self.covered(by, covered),
                other => self.wait_is_over(other),
            }
        }
    }

    /// Frames of this ring were cut back, or their way is gone: they hold nothing up.
    pub(super) fn lose_arrivals(&mut self, ring: usize) {
        while let Some(arrival) = self.outward[ring].lost_arrival() {
            self.wait_is_over(arrival);
        }
    }

    /// The frame has arrived, or never will.
    fn wait_is_over(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Answer(at) => self.release_frame(Some(at)),
            Arrival::Copied(_) => {}
            Arrival::Moved(session, copies) => self.end_copies(copies, session),
        }
    }

    /// What this shard sent to itself crosses no ring, so nobody but the shard tells how far it is handled.
    pub(super) fn settle_own(&mut self) {
        let own = usize::from(self.id.0);
        loop {
            let inward = &self.inward[own];
            let sent_on = self.outward[own].sent_on_done(|number| inward.is_open(number));
            if sent_on.is_empty() {
                break;
            }
            sent_on.into_iter().for_each(|at| self.release_frame(Some(at)));
        }
        self.frames_handled(own, self.inward[own].handled());
    }

    /// A stanza of a client is handled, or waits for one thing less.
    pub(super) fn complete(&mut self, session: SessionId, number: u32) {
        self.moved.done(session, number);
        self.advance(session, |counters| counters.complete(number));
    }

    /// The newest stanza of a client is handled, by an error.
    pub(super) fn complete_newest(&mut self, session: SessionId) {
        self.advance(session, Counters::complete_newest);
    }

    pub(super) fn advance(&mut self, session: SessionId, done: impl FnOnce(&mut Counters) -> bool) {
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let Some(counters) = slot.counters.as_mut() else { return };
        if done(counters) {
            if counters.open_count() == 0 {
                self.woken.extend(slot.resuming);
            }
            self.note(session);
        }
    }

    /// `<r/>`
    pub(super) fn asked(&mut self, session: SessionId) {
        let now = self.now.mono;
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let Some(counters) = slot.counters.as_mut() else { return };
        let first = counters.asked_at().is_none();
        counters.ask(now);
        if first && (counters.open_count() > 0 || slot.copy.is_some()) {
            self.wheel.insert(now + ACK_WAIT, Timer::AckDue(session));
        }
        self.note(session);
    }

    /// A request has waited long enough: it gets the number there is.
    pub(super) fn answer_due(&mut self, session: SessionId, fx: &mut Effects) {
        let now = self.now.mono;
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let Some(counters) = slot.counters.as_mut() else { return };
        let due = counters.asked_at().is_some_and(|at| now >= at + ACK_WAIT);
        let (Some(conn), Some(h)) = (slot.conn, counters.answer(due)) else { return };
        self.write_ack(conn, h, fx);
    }

    fn write_ack(&mut self, conn: super::ConnId, h: u32, fx: &mut Effects) {
        let mut out = Vec::with_capacity(48);
        Writer::new(&mut out)
            .start("a")
            .attr("xmlns", ns::SM3)
            .attr("h", &h.to_string())
            .close_empty();
        self.write(conn, &out, fx);
    }

    /// Looks at a session again when the turn ends.
    pub(super) fn note(&mut self, session: SessionId) {
        if let Some(slot) = self.sessions.get_mut(session.0)
            && !slot.noted
        {
            slot.noted = true;
            self.noted.push(session);
        }
    }

    /// Acknowledgements, requests and pings that the turn's stanzas share.
    pub(super) fn settle_noted(&mut self, fx: &mut Effects) {
        for session in std::mem::take(&mut self.noted) {
            let Some(slot) = self.sessions.get_mut(session.0) else { continue };
            slot.noted = false;
            let Some(conn) = slot.conn else { continue };
            self.may_get_leave(session, conn);
            let Some(slot) = self.sessions.get_mut(session.0) else { continue };
            if let Some(counters) = slot.counters.as_mut() {
                let ack = counters.answer(false);
                let request = counters.request();
                if let Some(h) = ack {
                    self.write_ack(conn, h, fx);
                }
                if request {
                    self.write(conn, b"<r xmlns='urn:xmpp:sm:3'/>", fx);
                }
            }
            self.ping_behind(session, fx);
        }
    }

    /// Sends a stanza to one session: to its socket, and into its queue where it counts. It may wait for a client that is
    /// inactive.
    ///
    /// - `parts`: the stanza, in pieces that are written one after the other
    pub(super) fn emit(
        &mut self,
        session: SessionId,
        parts: &[&[u8]],
        mark: Mark,
        fx: &mut Effects,
    ) {
        let inactive = self.sessions.get(session.0).is_some_and(|slot| slot.held.is_some());
        if !inactive || !self.hold_back(session, parts, mark.row, fx) {
            self.emit_now(session, parts, mark, fx);
        }
    }

    /// As `emit`, whether or not the client is active.
    pub(super) fn emit_now(
        &mut self,
        session: SessionId,
        parts: &[&[u8]],
        mark: Mark,
        fx: &mut Effects,
    ) {
        let Mark { row, origin } = mark;
        let limits = &self.config.limits;
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let (conn, noted) = (slot.conn, slot.counters.is_some() || row.is_some());
        self.probe.stanzas_out += 1;
        if let Some(counters) = slot.counters.as_mut() {
            let bytes = parts.concat().into_boxed_slice();
            let sent = self.meter.passage.map(|passage| (self.now.mono, passage.label()));
            let at = self.now.wall;
            counters.send(Unacknowledged { bytes, log_id: row, origin, at, sent });
            self.undo.push(super::Undo::Sent(session));
            let full = counters.queue_len() > limits.resume_queue
                || counters.queue_bytes() > 2 * limits.output_bytes;
            if full && !self.overflowing.contains(&session) {
                self.overflowing.push(session);
            }
            if row.is_none() && slot.copy.is_some() {
                self.hold_for_copy(session);
            }
        } else if let Some(row) = row {
            let rows = &mut slot.confirmation.get_or_insert_default().rows;
            rows.push_back(row);
            self.undo.push(super::Undo::Row(session));
            if rows.len() > limits.resume_queue && !self.overflowing.contains(&session) {
                self.overflowing.push(session);
            }
        }
        if let Some(conn) = conn {
            for part in parts {
                self.write(conn, part, fx);
            }
            self.meter.delivered(conn, self.now);
        }
        if self.is_tracing() {
            self.trace_emitted(session, parts);
        }
        if noted {
            self.note(session);
        }
    }

    /// Answers one of a session's own stanzas with an error.
    pub(super) fn bounce_to(
        &mut self,
        session: SessionId,
        kind: StanzaKind,
        id: Option<&str>,
        from: Option<&str>,
        error: &StanzaError,
        fx: &mut Effects,
    ) {
        let Some(to) = self.sessions.get(session.0).map(|slot| slot.text.clone()) else { return };
        let mut out = Vec::with_capacity(256);
        write_error_reply(&mut out, kind, id, from, Some(&to), error);
        self.emit(session, &[&out], Mark::NONE, fx);
    }

    /// Leaves a stanza to be sent when the present handler is done.
    pub(super) fn leave(&mut self, mut post: Post) {
        post.trace = post.trace.or(self.trace());
        self.posts.push_back(post);
    }
}

/// A stamp for a delayed stanza (XEP-0203 §4).
pub(super) fn write_delay(out: &mut Vec<u8>, from: &str, at: Wall) {
    Writer::new(out)
        .start("delay")
        .attr("xmlns", ns::DELAY)
        .attr("from", from)
        .attr("stamp", &crate::xmpp::datetime::format(at))
        .close_empty();
}
