//! What a peer has of what we sent, and what the shards have of what it sent.
//!
//! Outwards a stanza is confirmed by XEP-0198 where the peer speaks it, else by a barrier: a ping (XEP-0199) behind each
//! batch, whose result or error says that the peer has dealt with all before it. One of them is out at a time, so what
//! gathers meanwhile is the next batch. The answer takes the peer's own stream to us, and some peers do without one for
//! minutes once it was lost: where no answer comes, the end of the stream is the barrier, as who reads our end tag, which
//! is behind all else, answers it with its own.
//!
//! Inwards, what was received on a stream with XEP-0198 is counted apart from its connection, as it may be taken up again
//! on another: until then shards go on handling it.

use super::conn::Conn;
use super::domain::LaneId;
use super::effect::{ConnId, Effects};
use super::outbound::Resumable;
use super::taking::{Asker, Taking};
use super::{Core, Failure, Stage, Timer};
use crate::base::ids::Id;
use crate::base::instant::Instant;
use crate::stream::resume::{Counters, is_after};
use crate::stream::s2s::Pair;
use crate::xmpp::ns;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::writer::Writer;
use std::time::Duration;

/// How long the answer to a request waits for what came before it.
const ACK_WAIT: Duration = Duration::from_secs(1);
/// After so long without an answer a ping is sent once more, until `confirmation` is over.
const PING_AGAIN: Duration = Duration::from_secs(3);
/// After so long without one the stream is ended in its stead.
const PING_FINISH: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceivedId(pub Id);

/// A stanza of a peer's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StanzaNumber {
    pub stream: ReceivedId,
    pub number: u32,
}

/// What came in on a stream with XEP-0198.
#[derive(Debug)]
pub(super) struct Received {
    /// Names it to `<resume/>`; empty where it cannot be.
    pub name: Box<str>,
    pub pair: Pair,
    pub counters: Counters,
    pub conn: Option<ConnId>,
    /// It was lost then; with a name it waits to be taken up.
    pub lost_at: Option<Instant>,
    /// Another core wants it.
    pub asker: Option<Asker>,
}

/// How the peer of a connection confirms what it gets.
#[derive(Debug, Default)]
pub(super) struct Management {
    pub received: Option<ReceivedId>,
    pub confirm: Confirm,
    /// The request or ping that is out, since then.
    asked_at: Option<Instant>,
    /// When the ping was sent last.
    pinged_at: Instant,
    /// Something was confirmed on this connection: it is of use.
    pub proved: bool,
    /// `<resume/>` with this `h` waits for its answer.
    pub resuming: Option<u32>,
    /// Our end tag is out, as the barrier.
    pub finishing: bool,
    /// Other cores are asked for the stream that it names.
    pub taking: Option<Taking>,
    /// `<enabled/>` named the stream, for so long.
    pub resumable: Option<(Box<str>, Duration)>,
}

#[derive(Debug)]
pub(super) enum Confirm {
    /// The id of the ping that is out, and how many of those out it is behind.
    Ping(Option<(Box<str>, usize)>),
    /// XEP-0198: the last number that the peer told.
    Managed { acknowledged: u32 },
}

impl Default for Confirm {
    fn default() -> Self {
        Confirm::Ping(None)
    }
}

/// XEP-0199, from a domain of ours to the peer's.
fn write_ping(out: &mut Vec<u8>, id: &str, own: &str, remote: &str) {
    let mut writer = Writer::new(out);
    writer.start("iq").attr("type", "get").attr("id", id);
    writer.attr("from", own).attr("to", remote).open();
    writer.start("ping").attr("xmlns", ns::PING).close_empty().end("iq");
}

impl Core {
    /// Asks the peer to confirm what this turn sent, if it is not asked already.
    pub(super) fn set_barrier(&mut self, lane: LaneId, id: ConnId, fx: &mut Effects) {
        let out = self.lane(lane).map_or(0, |lane| lane.queue.unconfirmed());
        let Some(conn) = self.conns.get(id.0) else { return };
        if out == 0 || conn.managed.asked_at.is_some() || conn.managed.finishing {
            return;
        }
        let mut request = Vec::with_capacity(192);
        let mut ping = None;
        match conn.managed.confirm {
            Confirm::Managed { .. } => {
                Writer::new(&mut request).start("r").attr("xmlns", ns::SM3).close_empty();
            }
            // Nobody asks back for an answer that is lost; and if answers to pings were asked for, two servers would ping each
            // other for ever.
            Confirm::Ping(_) if !self.lane(lane).is_some_and(|lane| lane.queue.matters()) => {
                self.pop_confirmed(lane, out);
                if self.lane(lane).is_some_and(|lane| !lane.queue.is_empty()) {
                    self.touch(lane);
                }
                return;
            }
            Confirm::Ping(_) => {
                let Some((own, remote)) = self.ends(lane) else { return };
                self.pings += 1;
                let name = format!("{}-{}", self.ping_prefix, self.pings);
                write_ping(&mut request, &name, &own, &remote);
                ping = Some((name.into_boxed_str(), out));
            }
        }
        let now = self.now.mono;
        let mut due = now + self.config.limits.confirmation;
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.managed.asked_at = Some(now);
            if ping.is_some() {
                due = due.min(now + PING_AGAIN);
                conn.managed.pinged_at = now;
                conn.managed.confirm = Confirm::Ping(ping);
            }
        }
        self.wheel.insert(due, Timer::Confirmation(id));
        self.write(id, &request, fx);
    }

    /// A peer may have left a request without answer for too long.
    pub(super) fn confirmation_due(&mut self, id: ConnId, fx: &mut Effects) {
        let wait = self.config.limits.confirmation;
        let Some(conn) = self.conns.get(id.0) else { return };
        let Some(asked) = conn.managed.asked_at else { return };
        if asked + wait > self.now.mono {
            return match asked + PING_FINISH > self.now.mono {
                true => self.ping_again(id, asked + wait, fx),
                false => self.finish(id, asked + wait, fx),
            };
        }
        let text = match conn.managed.confirm {
            Confirm::Managed { .. } => "it does not acknowledge what it is sent (XEP-0198)",
            Confirm::Ping(_) => "it does not answer the ping behind what it was sent (XEP-0199)",
        };
        self.cut(id, Failure::Timeout, text, fx);
    }

    /// The answer comes by the peer's own stream to us, and is lost there where that is not up: whoever comes back after both
    /// were lost is asked once more, by the same name.
    fn ping_again(&mut self, id: ConnId, until: Instant, fx: &mut Effects) {
        let now = self.now.mono;
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let Confirm::Ping(Some((name, _))) = &conn.managed.confirm else { return };
        if conn.managed.pinged_at + PING_AGAIN > now {
            return;
        }
        let (name, lane) = (name.clone(), conn.carries);
        conn.managed.pinged_at = now;
        let Some((own, remote)) = lane.and_then(|lane| self.ends(lane)) else { return };
        self.wheel.insert(until.min(now + PING_AGAIN), Timer::Confirmation(id));
        let mut request = Vec::with_capacity(192);
        write_ping(&mut request, &name, &own, &remote);
        self.write(id, &request, fx);
    }

    /// The peer reads, but its answers do not come: it is asked to end its stream behind ours.
    fn finish(&mut self, id: ConnId, until: Instant, fx: &mut Effects) {
        let waits = |conn: &&Conn| {
            matches!(conn.managed.confirm, Confirm::Ping(Some(_))) && !conn.managed.finishing
        };
        if self.conns.get(id.0).filter(waits).is_none() {
            return;
        }
        let said = self.with_stream(id, fx, |stream, out| stream.finish(out));
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.managed.finishing = said == Some(true);
        }
        self.wheel.insert(until, Timer::Confirmation(id));
    }

    /// The peer ended its stream without an error: if it was asked to, it has all that is out. One that ends its own at that
    /// moment reads on as well, until our end tag (RFC 6120 §4.4); but that must have left.
    pub(super) fn finished(&mut self, id: ConnId) {
        let asked = |conn: &&Conn| conn.managed.finishing && conn.output_len() == 0;
        let conn = self.conns.get(id.0).filter(asked);
        if let Some(lane) = conn.and_then(|conn| conn.carries) {
            let out = self.lane(lane).map_or(0, |lane| lane.queue.unconfirmed());
            self.confirm(lane, id, out);
        }
    }

    /// The answer to a ping of ours, whichever way it came: a stanza with this id from the remote domain to ours.
    ///
    /// - gives: whether it was one
    pub(super) fn pong(&mut self, own: &str, remote: &str, id: &str) -> bool {
        if !id.starts_with(&*self.ping_prefix) {
            return false;
        }
        let lane = self.find_lane(own, remote);
        let Some((lane, conn)) = lane.and_then(|id| Some((id, self.lane(id)?.conn()?))) else {
            return true;
        };
        let Some(slot) = self.conns.get_mut(conn.0) else { return true };
        if slot.carries == Some(lane)
            && let Confirm::Ping(ping) = &mut slot.managed.confirm
            && ping.as_ref().is_some_and(|(name, _)| **name == *id)
        {
            let count = ping.take().map_or(0, |(_, count)| count);
            if !slot.managed.finishing {
                slot.managed.asked_at = None;
            }
            self.confirm(lane, conn, count);
        }
        true
    }

    /// XEP-0198: the peer has handled so many stanzas.
    pub(super) fn acknowledged(&mut self, id: ConnId, h: u32, fx: &mut Effects) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let Confirm::Managed { acknowledged } = &mut conn.managed.confirm else { return };
        let Some(lane) = conn.carries else { return };
        if is_after(*acknowledged, h) {
            // An old number again is no fault: acknowledgements may repeat. It answers nothing, either.
            return;
        }
        let newly = h.wrapping_sub(*acknowledged) as usize;
        let out = self.lanes.get(lane.0).map_or(0, |lane| lane.queue.unconfirmed());
        if newly > out {
            let sent = acknowledged.wrapping_add(u32::try_from(out).unwrap_or(u32::MAX));
            let error = count_too_high(h, sent);
            let text = "it acknowledges more than it was sent (XEP-0198)";
            return self.give_up(id, Failure::Stream, text, Some(error), fx);
        }
        *acknowledged = h;
        conn.managed.asked_at = None;
        if newly > 0 {
            self.confirm(lane, id, newly);
        } else if out > 0 {
            // It is not that far yet. It is asked again, and not at once.
            self.wheel.insert(self.now.mono + ACK_WAIT, Timer::Ask(lane));
        }
    }

    /// The oldest `count` that are out are the peer's.
    pub(super) fn confirm(&mut self, lane: LaneId, conn: ConnId, count: usize) {
        self.pop_confirmed(lane, count);
        if count > 0 {
            self.proved(lane, conn);
        }
        self.touch(lane);
    }

    fn pop_confirmed(&mut self, lane: LaneId, count: usize) {
        let now = self.now.mono;
        for _ in 0..count {
            let Some(slot) = self.lanes.get_mut(lane.0) else { return };
            let before = slot.queue.bytes();
            let Some(item) = slot.queue.confirm() else { break };
            self.queued_bytes -= before - slot.queue.bytes();
            self.latencies.record(Stage::Confirm, now.since(item.at));
            if let Some(frame) = item.frame {
                self.release(frame);
            }
            if let Some(row) = item.row.id() {
                self.confirm_row(lane, row);
            }
        }
    }

    /// XEP-0198: the peer wants acknowledgements.
    ///
    /// On a stream that goes both ways stanzas of ours may be out already, as it carries what waited. They are not refused
    /// for that: a peer that asked in good faith may take the refusal for the end of the stream, and all of it would go out
    /// again, on every new one.
    pub(super) fn enable(
        &mut self,
        id: ConnId,
        resume: bool,
        max_s: Option<u32>,
        fx: &mut Effects,
    ) {
        let window = self.config.limits.resume.as_secs();
        let window = u32::try_from(window).unwrap_or(u32::MAX).min(max_s.unwrap_or(u32::MAX));
        let room = self.has_room_to_resume();
        let Some(conn) = self.conns.get(id.0) else { return };
        let pair = conn.stream.as_ref().and_then(|stream| stream.inbound().first().cloned());
        let carries = conn.carries;
        let out = carries.and_then(|lane| self.lane(lane)).map_or(0, |it| it.queue.unconfirmed());
        let Some(pair) = pair.filter(|_| room && conn.managed.received.is_none()) else {
            self.with_stream(id, fx, |stream, out| {
                stream.not_managed("unexpected-request", None, out);
            });
            return;
        };
        let name: Box<str> =
            if resume && window > 0 { self.rng.token(22).into() } else { "".into() };
        let received = Received {
            name: name.clone(),
            pair,
            counters: Counters::default(),
            conn: Some(id),
            lost_at: None,
            asker: None,
        };
        let received = ReceivedId(self.received.insert(received));
        if !name.is_empty() {
            self.resumables.insert(name.clone(), received);
        }
        self.with_stream(id, fx, |stream, out| {
            let resumable = (!name.is_empty()).then_some((&*name, window));
            stream.enabled(resumable, out);
        });
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.managed.received = Some(received);
            // The peer's count begins behind `<enabled/>`. What went before it has the numbers up to 0: the peer got it before
            // the request that follows here, so that its answer, whatever it says, says that, too.
            let before = u32::try_from(out).unwrap_or(u32::MAX);
            conn.managed.begin(Some(0u32.wrapping_sub(before)));
        }
        if let Some(lane) = carries {
            self.touch(lane);
        }
    }

    /// Whether one more stream may be kept for its peer to take up.
    pub(super) fn has_room_to_resume(&self) -> bool {
        self.received.len() < 2 * self.config.limits.incoming
    }

    /// XEP-0198 on a stream of ours that goes both ways: what the peer sends on it is counted as well.
    pub(super) fn count_both_ways(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id.0) else { return };
        let Some(stream) = conn.stream.as_ref().filter(|stream| stream.is_bidi()) else { return };
        let Some(pair) = stream.pair() else { return };
        let received = Received {
            name: "".into(),
            pair,
            counters: Counters::default(),
            conn: Some(id),
            lost_at: None,
            asker: None,
        };
        let received = ReceivedId(self.received.insert(received));
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.managed.received = Some(received);
        }
    }

    /// XEP-0198: the peer wants to go on with an earlier stream. It is answered when the shards have handled all that came
    /// on that one: what is not told by then would come again.
    ///
    /// - takes: `h`, what the peer has of ours by its own count, which goes on from there. A queue of ours that flowed on the
    ///   lost connection is not taken up with it: what was unconfirmed goes out as new on the next one
    pub(super) fn resume(&mut self, id: ConnId, previous: &str, h: u32, fx: &mut Effects) {
        let found = self.resumables.get(previous).copied();
        let conn = self.conns.get(id.0);
        let stream = conn.and_then(|conn| conn.stream.as_ref());
        let received = found.and_then(|found| self.received.get(found.0)).filter(|received| {
            stream.is_some_and(|stream| stream.inbound().contains(&received.pair))
        });
        let (Some(found), Some(received)) = (found, received) else {
            if found.is_some() || !self.ask_cores(id, previous, h, fx) {
                self.not_resumed(id, fx);
            }
            return;
        };
        if let Some(before) = received.conn.filter(|before| *before != id) {
            // The peer gave it up before we noticed.
            self.cut(before, Failure::Lost, "its stream was taken up on another connection", fx);
        }
        self.stays(found, fx);
        let Some(received) = self.received.get_mut(found.0) else { return };
        received.conn = Some(id);
        received.lost_at = None;
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.managed.received = Some(found);
            conn.managed.resuming = Some(h);
        }
        self.note(id);
    }

    /// Answers `<resume/>` as soon as it can be.
    fn resume_if_handled(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let Some(acknowledged) = conn.managed.resuming else { return };
        let received = conn.managed.received.and_then(|it| self.received.get_mut(it.0));
        let Some(received) = received.filter(|it| it.counters.open_count() == 0) else { return };
        conn.managed.resuming = None;
        conn.managed.confirm = Confirm::Managed { acknowledged };
        let (h, name) = (received.counters.tell(), received.name.clone());
        self.probe.streams_resumed += 1;
        self.with_stream(id, fx, |stream, out| stream.resumed(&name, h, out));
        self.resumed_conns.push(id);
    }

    /// The connection on which this was received is gone.
    pub(super) fn received_lost(&mut self, id: ReceivedId) {
        let now = self.now.mono;
        let Some(received) = self.received.get_mut(id.0) else { return };
        received.conn = None;
        if received.name.is_empty() {
            self.received.remove(id.0);
            return;
        }
        received.lost_at = Some(now);
        self.wheel.insert(now + self.config.limits.resume, Timer::Resume(id));
    }

    /// The time for a stream to be taken up may be over.
    pub(super) fn resume_due(&mut self, id: ReceivedId, fx: &mut Effects) {
        let window = self.config.limits.resume;
        let now = self.now.mono;
        let over = |received: &Received| received.lost_at.is_some_and(|at| at + window <= now);
        if !self.received.get(id.0).is_some_and(over) {
            return;
        }
        self.stays(id, fx);
        if let Some(received) = self.received.remove(id.0) {
            self.resumables.remove(&received.name);
        }
    }

    /// Counts a stanza of a peer's stream; `None` where it is not counted.
    pub(super) fn count_received(&mut self, id: ConnId) -> Option<StanzaNumber> {
        let stream = self.conns.get(id.0)?.managed.received?;
        let number = self.received.get_mut(stream.0)?.counters.receive();
        self.note(id);
        Some(StanzaNumber { stream, number })
    }

    /// A stanza of a peer's stream is handled.
    pub(super) fn stanza_handled(&mut self, number: StanzaNumber) {
        let Some(received) = self.received.get_mut(number.stream.0) else { return };
        if !received.counters.complete(number.number) {
            return;
        }
        if received.asker.is_some() {
            self.giving.push(number.stream);
        }
        if let Some(conn) = received.conn {
            self.note(conn);
        }
    }

    /// The peer asked how far we are.
    pub(super) fn requested(&mut self, id: ConnId) {
        let now = self.now.mono;
        let received = self.conns.get(id.0).and_then(|conn| conn.managed.received);
        let Some(received) = received.and_then(|it| self.received.get_mut(it.0)) else { return };
        received.counters.ask(now);
        self.wheel.insert(now + ACK_WAIT, Timer::AckDue(id));
        self.note(id);
    }

    /// Tells the peer how far we are, where that is due.
    pub(super) fn answer_requests(&mut self, id: ConnId, fx: &mut Effects) {
        let now = self.now.mono;
        let stream = self.conns.get(id.0).and_then(|conn| conn.managed.received);
        let Some(stream) = stream else { return };
        if self.received.get(stream.0).is_none_or(|received| received.conn != Some(id)) {
            return;
        }
        // What the lost connection asked is answered by `<resumed/>`, which goes before all else.
        if self.conns.get(id.0).is_some_and(|conn| conn.managed.resuming.is_some()) {
            return self.resume_if_handled(id, fx);
        }
        let Some(received) = self.received.get_mut(stream.0) else { return };
        let due = received.counters.asked_at().is_some_and(|at| now >= at + ACK_WAIT);
        let Some(h) = received.counters.answer(due) else { return };
        let mut answer = Vec::with_capacity(48);
        let mut writer = Writer::new(&mut answer);
        writer.start("a").attr("xmlns", ns::SM3).attr("h", &h.to_string()).close_empty();
        self.write(id, &answer, fx);
    }

    /// Stanzas of a connection that the shards have not handled.
    pub(super) fn unhandled(&self, conn: &Conn) -> usize {
        let received = conn.managed.received.and_then(|it| self.received.get(it.0));
        received.map_or(0, |received| received.counters.open_count())
    }
}

impl Management {
    /// What is needed to take the stream up again on another connection.
    pub(super) fn to_resume(&self, now: Instant) -> Option<Resumable> {
        let (name, window) = self.resumable.clone()?;
        let Confirm::Managed { acknowledged } = self.confirm else { return None };
        Some(Resumable { name, until: now + window, acknowledged })
    }

    /// Nothing was confirmed on it yet, where that needs no more than a word of the peer. The answer to a ping is behind all else
    /// that the peer has for us, which may wait for an answer of ours in turn.
    pub(super) fn is_on_trial(&self) -> bool {
        matches!(self.confirm, Confirm::Managed { .. }) && !self.proved
    }

    /// Nothing waits for an answer: the stream was just taken up, or begins.
    pub(super) fn begin(&mut self, acknowledged: Option<u32>) {
        self.asked_at = None;
        if let Some(acknowledged) = acknowledged {
            self.confirm = Confirm::Managed { acknowledged };
        }
    }
}

fn count_too_high(h: u32, sent: u32) -> StreamError {
    let detail =
        format!("<handled-count-too-high xmlns='{}' h='{h}' send-count='{sent}'/>", ns::SM3);
    StreamError::new(StreamCondition::UndefinedCondition)
        .with_text("acknowledged more stanzas than were sent")
        .with_detail(detail)
}
