//! What flows: stanzas of a lane's queue on the stream that carries it, as far as the peer takes them.

use super::conn::{Conn, Hold, Side};
use super::domain::{LaneId, Link};
use super::effect::{ConnId, Effects};
use super::outbound::Progress;
use super::queue::Item;
use super::{Core, Stage};
use crate::base::instant::Wall;
use crate::frame::Kind;
use crate::stream::s2s::rewrite::{Smuggled, to_server};
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::xml::writer::Writer;
use crate::xmpp::{datetime, ns};

/// A message that waited for longer says when it was sent.
const LATE_US: u64 = 10_000_000;
/// Stanzas that a connection with XEP-0198 carries before its peer has confirmed any: if it ends at once, as one does on which
/// the two do not agree, no more than these may come twice.
const UNPROVED_MAX: usize = 100;
/// Bytes that this adds at most, for one of our domains.
const DELAY_BYTES_MAX: usize = 400;

/// Writes a stanza for the stream; one that comes late with the time when its sender sent it (XEP-0203).
fn write(out: &mut Vec<u8>, item: &Item, own: &str, now: Wall) -> Result<(), Smuggled> {
    let late = item.kind == Kind::Message && now.0.saturating_sub(item.ingress.0) >= LATE_US;
    let tail = item.bytes.get(item.close_start as usize..).filter(|_| late);
    let Some(tail) = tail else { return to_server(out, &item.bytes, None) };
    let mut stanza = Vec::with_capacity(item.bytes.len() + DELAY_BYTES_MAX);
    stanza.extend_from_slice(&item.bytes[..item.close_start as usize]);
    let mut writer = Writer::new(&mut stanza);
    writer.start("delay").attr("xmlns", ns::DELAY).attr("from", own);
    writer.attr("stamp", &datetime::format(item.ingress)).close_empty();
    stanza.extend_from_slice(tail);
    to_server(out, &stanza, None)
}

impl Core {
    /// Sends what a stream takes now, and asks the peer to confirm it.
    pub(super) fn flow(&mut self, id: LaneId, conn: ConnId, fx: &mut Effects) {
        if self.has_lost(id) {
            return self.set_barrier(id, conn, fx);
        }
        let limits = &self.config.limits;
        let (soft, most) = (limits.output_soft, limits.unconfirmed);
        let now = self.now.mono;
        let mut sent = 0u64;
        let mut again = 0u64;
        let mut out = std::mem::take(&mut self.scratch);
        let mut cannot_go = false;
        let replays = self.domain_replays(id);
        while let (Some(lane), Some(slot)) = (self.lanes.get_mut(id.0), self.conns.get_mut(conn.0))
        {
            let Some(stream) = slot.stream.as_ref() else { break };
            let most = if slot.managed.is_on_trial() { most.min(UNPROVED_MAX) } else { most };
            let takes = slot.hold != Hold::Closing
                && !slot.managed.finishing
                && slot.carries == Some(id)
                && slot.output_len() + out.len() < soft
                && lane.queue.unconfirmed() < most;
            let Some(next) = lane.queue.next_unsent().filter(|_| takes) else { break };
            // What earlier runs left goes first, and not all of it may be read yet.
            if replays && !lane.queue.next_is_old() {
                break;
            }
            let wrote = out.len();
            if write(&mut out, next, &lane.own, self.now.wall).is_err()
                || !stream.fits(out.len() - wrote)
            {
                out.truncate(wrote);
                cannot_go = true;
                break;
            }
            if let Some(item) = lane.queue.send() {
                sent += 1;
                again += u64::from(item.times > 1);
                self.latencies.record(Stage::Queue, now.since(item.at));
            }
            slot.used_at = now;
        }
        self.write(conn, &out, fx);
        out.clear();
        self.scratch = out;
        if cannot_go {
            return self.cannot_go(id, conn, fx);
        }
        self.probe.stanzas_out += sent;
        self.probe.stanzas_out_again += again;
        if let Some(domain) = self.domain_of_lane(id) {
            domain.sent += sent;
        }
        self.set_barrier(id, conn, fx);
    }

    /// The next stanza cannot be sent to this peer at all.
    fn cannot_go(&mut self, id: LaneId, conn: ConnId, fx: &mut Effects) {
        let stream = self.conns.get(conn.0).and_then(|conn| conn.stream.as_ref());
        let limit = stream.and_then(|stream| stream.peer_limits().bytes_max);
        let limit = limit.map_or(usize::MAX, |max| max as usize);
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        let before = lane.queue.bytes();
        let Some(item) = lane.queue.take_unsent() else { return };
        self.queued_bytes -= before - lane.queue.bytes();
        let (condition, text) = if item.bytes.len() + DELAY_BYTES_MAX > limit {
            (StanzaCondition::PolicyViolation, "the other server takes no stanza of that size")
        } else {
            (StanzaCondition::BadRequest, "elements of jabber:server inside of a stanza")
        };
        self.refuse_in(id, item, condition, text.into(), fx);
        self.touch(id);
    }

    /// A stream that a peer of this lane opened, and that goes both ways.
    pub(super) fn find_bidi(&self, id: LaneId) -> Option<ConnId> {
        let lane = self.lanes.get(id.0)?;
        let domain = self.domains.get(lane.domain.0)?;
        let may_send = |conn: &Conn| {
            conn.carries.is_none()
                && conn.hold != Hold::Closing
                && conn.stream.as_ref().is_some_and(|stream| {
                    stream.is_bidi()
                        && stream.outbound().iter().any(|pair| {
                            pair.local.as_str() == &*lane.own
                                && pair.remote == domain.jid
                                && stream.may_send(pair)
                        })
                })
        };
        domain.inbound.iter().copied().find(|conn| self.conns.get(conn.0).is_some_and(may_send))
    }

    /// From now on a stream that a peer opened carries the lane.
    pub(super) fn adopt(&mut self, id: LaneId, conn: ConnId, fx: &mut Effects) {
        self.give_up_lost(id, fx);
        if let Some(slot) = self.conns.get_mut(conn.0) {
            slot.carries = Some(id);
        }
        if let Some(lane) = self.lanes.get_mut(id.0) {
            lane.link = Link::Up(conn);
        }
        self.touch(id);
    }

    /// The peer of a lane has confirmed something on this connection: it is of use, and failures before are forgotten.
    pub(super) fn proved(&mut self, id: LaneId, conn: ConnId) {
        if let Some(conn) = self.conns.get_mut(conn.0) {
            conn.managed.proved = true;
        }
        if let Some(lane) = self.lanes.get_mut(id.0) {
            lane.attempts.succeed();
        }
    }

    /// Verification or stanzas are wanted of a connection that is not in use for stanzas.
    pub(super) fn use_dialling(&mut self, conn: ConnId, fx: &mut Effects) {
        let Some(slot) = self.conns.get(conn.0) else { return };
        if let Side::Out(out) = &slot.side
            && out.progress == Progress::Ready
        {
            self.use_ready(conn, fx);
        }
    }
}
