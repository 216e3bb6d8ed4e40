//! R4 for an owner that dies: a session that can be resumed has a copy at the shard that will own its account then, on the
//! next node in the order of its partition.
//!
//! The owner sends all of a session once, and at the end of each turn what changed of it: one frame to a shard, whatever
//! number of sessions changed. No `<a h/>` passes what the copy has received; delivery waits for nothing. The copy is none
//! while its owner lives. Where it cannot be kept, the session goes on without one, and nothing waits.

mod had;
mod keep;
mod record;
mod revive;

pub(super) use had::{HAD_MAX, Had};

use super::account::AccountId;
use super::control::Control;
use super::effect::Effects;
use super::peers::Peer;
use super::ring::{Arrival, FrameRef};
use super::session::SessionId;
use super::{Core, Shard, Timer};
use crate::base::hash::Map;
use crate::base::instant::Instant;
use crate::frame::{Envelope, Flags};
use crate::stream::resume::{Counters, Tally, is_after};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What changed of a session beside what its counters tell: what is kept with it, and rows of stanzas that were sent.
pub(super) const KEPT_WITH_IT: u8 = 1;
pub(super) const ROWS: u8 = 2;

/// How long the copy is not told of acknowledgements alone, and of how many: a client tells of them again as it resumes.
const LAG: Duration = Duration::from_secs(1);
const LAG_MAX: u32 = 64;
/// How long a session has no copy after one was refused.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// Records in one frame, and bytes on their way to a shard at which sessions wait that nobody waits for.
const FRAME_BYTES: usize = 256 << 10;
const PACED_BYTES: usize = 1 << 20;

/// Of one session: its copy elsewhere.
#[derive(Debug)]
pub(super) struct Out {
    to: Peer,
    /// By which it was chosen.
    epoch: u64,
    /// As in the last record.
    tally: Tally,
    state: State,
    /// Frames that are handled when the copy has the stanza with this number.
    held: VecDeque<(u32, FrameRef)>,
    /// Who has older ones, which count until this one is there.
    old: SmallVec<[Peer; 1]>,
    /// What it lacks is on the list of those that lag; or it was there long enough.
    lags: bool,
    is_due: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// On its way.
    Sent,
    There,
    Refused(Instant),
}

/// The records that go to one shard.
#[derive(Debug, Default)]
struct Way {
    records: Vec<u8>,
    /// What they cover.
    covered: Vec<Covered>,
}

/// How far the copy of a session knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covered {
    session: SessionId,
    handled: u32,
    sent: u32,
}

/// One per shard.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// There is a node to keep copies.
    is_on: bool,
    /// The frame that is being delivered, where somebody keeps it until it is handled.
    frame: Option<FrameRef>,
    ways: Map<Peer, Way>,
    /// Ways with records.
    written: Vec<Peer>,
    /// Sessions that are to have a copy elsewhere.
    todo: VecDeque<SessionId>,
    lagging: Vec<SessionId>,
    kept: keep::Kept,
    /// Partitions whose owner died last, and accounts whose sessions came to life by that.
    pub(super) lost: Arc<[bool]>,
    awakened: Map<AccountId, revive::Awakened>,
}

impl Copies {
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// The frame that is being delivered, where somebody keeps it until it is handled.
    pub(super) fn frame(&self) -> Option<FrameRef> {
        self.frame
    }

    /// Sessions of the account came from copies, and it is not read yet.
    pub(super) fn is_awakened(&self, account: AccountId) -> bool {
        self.awakened.contains_key(&account)
    }

    fn records_to(&mut self, peer: Peer) -> &mut Vec<u8> {
        if !self.written.contains(&peer) {
            self.written.push(peer);
        }
        &mut self.ways.entry(peer).or_default().records
    }

    fn carry(&mut self, peer: Peer, session: SessionId, tally: &Tally) {
        let Tally { handled, sent, .. } = *tally;
        let way = self.ways.entry(peer).or_default();
        way.covered.push(Covered { session, handled, sent });
    }

    /// The frame that is being delivered, where somebody keeps it until it is handled. Gives the one before.
    pub(super) fn enter(&mut self, frame: Option<FrameRef>) -> Option<FrameRef> {
        std::mem::replace(&mut self.frame, frame)
    }
}

impl Shard {
    /// The copies of those sessions that were looked at in this turn learn what changed.
    pub(super) fn copy_noted(&mut self, fx: &mut Effects) {
        let mut at = 0;
        // One that has no copy any more may let others go on.
        while let Some(session) = self.core.noted.get(at).copied() {
            self.copy_session(session, fx);
            at += 1;
        }
    }

    fn copy_session(&mut self, session: SessionId, fx: &mut Effects) {
        let core = &self.core;
        let Some(slot) = core.sessions.get(session.0) else { return };
        let is_resumable = |counters: &&Counters| counters.resumable.is_some();
        if slot.counters.as_deref().filter(is_resumable).is_none() {
            return;
        }
        let epoch = core.placement.epoch();
        match slot.copy.as_deref() {
            Some(Out { state: State::Refused(at), epoch: by, .. })
                if *by == epoch && core.now.mono.since(*at) < TRY_AGAIN => {}
            Some(out) if out.epoch == epoch && !matches!(out.state, State::Refused(_)) => {
                self.copy_changes(session, fx);
            }
            _ => self.copy_anew(session, fx),
        }
    }

    /// It has no copy, or not where it should be by the present epoch.
    fn copy_anew(&mut self, session: SessionId, fx: &mut Effects) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let hash = slot.jid.bare().hash64();
        let Some(to) = core.successor(hash) else { return core.uncopy(session) };
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let epoch = core.placement.epoch();
        match slot.copy.as_deref_mut() {
            Some(out) if out.to == to && !matches!(out.state, State::Refused(_)) => {
                out.epoch = epoch;
                self.copy_changes(session, fx);
            }
            _ => self.copy_whole(session, to, fx),
        }
    }

    fn copy_whole(&mut self, session: SessionId, to: Peer, fx: &mut Effects) {
        let image = self.image_of(session, true, fx).and_then(|mut image| {
            image.counters.forget_open();
            image.write()
        });
        let core = &mut self.core;
        let epoch = core.placement.epoch();
        let is_full = core.is_ring_full(to, fx);
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let Some(counters) = slot.counters.as_deref_mut() else { return };
        let out = slot.copy.get_or_insert_with(|| {
            Box::new(Out {
                to,
                epoch,
                tally: Tally::default(),
                state: State::Sent,
                held: VecDeque::new(),
                old: SmallVec::new(),
                lags: false,
                is_due: false,
            })
        });
        let mut left = None;
        match out.state {
            State::There if out.to != to => out.old.push(out.to),
            // It may be on its way still, and is not waited for.
            State::Sent if out.to != to => left = Some(out.to),
            _ => {}
        }
        out.old.retain(|old| *old != to);
        (out.to, out.epoch, out.state) = (to, epoch, State::Sent);
        slot.changed = 0;
        out.tally = counters.tally();
        // It has all that was sent by now, whatever numbers that had.
        out.held.iter_mut().for_each(|(number, _)| *number = out.tally.sent);
        counters.wait_for_copy();
        let tally = out.tally;
        if let Some(left) = left {
            core.end_copy(left, session);
        }
        let Some(image) = image.filter(|_| !is_full) else {
            return core.copy_refused(to, session.0.to_u64());
        };
        record::write_whole(core.copies.records_to(to), session.0.to_u64(), &image);
        core.copies.carry(to, session, &tally);
        core.send_full_frame(to, fx);
    }

    fn copy_changes(&mut self, session: SessionId, fx: &mut Effects) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let (Some(counters), Some(out)) = (slot.counters.as_deref(), slot.copy.as_deref_mut())
        else {
            return;
        };
        let (now, before) = (counters.tally(), out.tally);
        let to = out.to;
        if slot.changed & ROWS != 0 || now.known != before.known {
            return self.copy_whole(session, to, fx);
        }
        let frame_changed = slot.changed & KEPT_WITH_IT != 0;
        if !frame_changed && now.sent == before.sent && now.handled == before.handled {
            let behind = now.acknowledged.wrapping_sub(before.acknowledged);
            if behind > 0 && behind < LAG_MAX && !out.is_due {
                return core.copy_lags(session);
            }
            if behind == 0 {
                return;
            }
        }
        let is_full = core.is_ring_full(to, fx);
        if is_full {
            return core.copy_refused(to, session.0.to_u64());
        }
        if frame_changed {
            let image = self.image_of(session, false, fx).and_then(|image| image.write());
            let Some(image) = image else {
                return self.core.copy_refused(to, session.0.to_u64());
            };
            record::write_frame(self.core.copies.records_to(to), session.0.to_u64(), &image);
        }
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let (Some(counters), Some(out)) = (slot.counters.as_deref(), slot.copy.as_deref_mut())
        else {
            return;
        };
        slot.changed = 0;
        out.tally = now;
        out.is_due = false;
        let stanzas = counters.newest(now.sent.wrapping_sub(before.sent) as usize);
        let records = core.copies.records_to(to);
        record::write_delta(records, session.0.to_u64(), &now, stanzas);
        core.copies.carry(to, session, &now);
        core.send_full_frame(to, fx);
    }

    /// Sessions go on to where their copies are to be, as fast as those take them.
    pub(super) fn copy_waiting(&mut self, fx: &mut Effects) {
        while let Some(session) = self.core.copies.todo.front().copied() {
            let core = &self.core;
            let slot = core.sessions.get(session.0);
            let to = slot.and_then(|slot| core.successor(slot.jid.bare().hash64()));
            if to.is_some_and(|to| core.waiting_for(to, fx) > PACED_BYTES) {
                return;
            }
            self.core.copies.todo.pop_front();
            self.copy_session(session, fx);
        }
    }

    pub(super) fn lagging_due(&mut self) {
        for session in std::mem::take(&mut self.core.copies.lagging) {
            let slot = self.core.sessions.get_mut(session.0);
            if let Some(out) = slot.and_then(|slot| slot.copy.as_deref_mut()) {
                out.lags = false;
                out.is_due = true;
                self.core.note(session);
            }
        }
    }
}

impl Core {
    /// Where the copies of an account's sessions are; `None` where there is no other node for them.
    fn successor(&self, hash64: u64) -> Option<Peer> {
        let successor = self.placement.successor(hash64)?;
        self.peers.of(successor).filter(|peer| !self.peers.is_local(*peer))
    }

    /// Something of a session changed that its copy is to know.
    pub(super) fn changed(&mut self, session: SessionId, what: u8) {
        if let Some(slot) = self.sessions.get_mut(session.0) {
            slot.changed |= what;
            if self.copies.is_on {
                self.note(session);
            }
        }
    }

    fn copy_lags(&mut self, session: SessionId) {
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let Some(out) = slot.copy.as_deref_mut().filter(|out| !out.lags) else { return };
        out.lags = true;
        if self.copies.lagging.is_empty() {
            self.wheel.insert(self.now.mono + LAG, Timer::Lagging);
        }
        self.copies.lagging.push(session);
    }

    /// Bytes on their way to a shard.
    fn waiting_for(&self, peer: Peer, fx: &Effects) -> usize {
        let records = self.copies.ways.get(&peer).map_or(0, |way| way.records.len());
        let batch = fx.outbox.get(peer.index()).map_or(0, |batch| batch.len_bytes());
        records + batch.max(self.outward[peer.index()].kept_bytes())
    }

    fn send_full_frame(&mut self, peer: Peer, fx: &mut Effects) {
        if self.copies.records_to(peer).len() >= FRAME_BYTES {
            self.send_records(peer, fx);
        }
    }

    /// What the turn left to be told goes out.
    pub(super) fn send_copies(&mut self, fx: &mut Effects) {
        for peer in std::mem::take(&mut self.copies.written) {
            self.send_records(peer, fx);
        }
    }

    fn send_records(&mut self, peer: Peer, fx: &mut Effects) {
        let Some(way) = self.copies.ways.get_mut(&peer) else { return };
        let mut records = std::mem::take(&mut way.records);
        if records.is_empty() {
            return;
        }
        let at = self.send_control(peer, Control::Copy, "", &records, fx);
        self.probe.copy_frames += 1;
        self.probe.copy_bytes += records.len() as u64;
        records.clear();
        records.shrink_to(FRAME_BYTES);
        if let Some(way) = self.copies.ways.get_mut(&peer) {
            way.records = records;
            let outward = &mut self.outward[peer.index()];
            for covered in way.covered.drain(..) {
                outward.await_arrival(at.number, Arrival::Copied(covered));
            }
        }
    }

    /// A copy at that shard knows a session so far.
    pub(super) fn covered(&mut self, by: Peer, covered: Covered) {
        let Covered { session, handled, sent } = covered;
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let (Some(counters), Some(out)) = (slot.counters.as_deref_mut(), slot.copy.as_deref_mut())
        else {
            return;
        };
        if out.to != by || matches!(out.state, State::Refused(_)) {
            return;
        }
        out.state = State::There;
        let old = std::mem::take(&mut out.old);
        counters.cover(handled);
        let mut released: SmallVec<[FrameRef; 4]> = SmallVec::new();
        while let Some((_, at)) = out.held.pop_front_if(|(number, _)| !is_after(*number, sent)) {
            released.push(at);
        }
        let wakes = slot.resuming.filter(|_| counters.is_covered() && counters.open_count() == 0);
        let is_waited_for = counters.owes_answer();
        self.woken.extend(wakes);
        for at in released {
            self.release_frame(Some(at));
        }
        self.end_copies(old, session);
        if is_waited_for {
            self.note(session);
        }
    }

    /// What is delivered from now on came in this frame. Gives what did before.
    pub(super) fn enter_kept(&mut self, envelope: &Envelope<'_>, at: FrameRef) -> Option<FrameRef> {
        let is_kept =
            envelope.flags.contains(Flags::WANTS_ACK) || !self.peers.is_local(Peer(at.ring));
        self.copies.enter(is_kept.then_some(at))
    }

    /// A stanza that is in no log went to a session, with a frame that somebody keeps: the frame is not handled before the
    /// copy has the stanza.
    pub(super) fn hold_for_copy(&mut self, session: SessionId) {
        let Some(at) = self.copies.frame else { return };
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let (Some(counters), Some(out)) = (slot.counters.as_deref(), slot.copy.as_deref_mut())
        else {
            return;
        };
        if matches!(out.state, State::Refused(_)) {
            return;
        }
        match out.held.back_mut() {
            Some((number, last)) if *last == at => *number = counters.sent(),
            _ => {
                let inward = &mut self.inward[usize::from(at.ring)];
                if !inward.has_told(at.number) {
                    out.held.push_back((counters.sent(), at));
                    inward.hold(at.number);
                }
            }
        }
    }

    /// Undoes what came of the newest stanza: its number will be another's.
    pub(super) fn unhold_for_copy(&mut self, session: SessionId) {
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let (Some(counters), Some(out)) = (slot.counters.as_deref(), slot.copy.as_deref_mut())
        else {
            return;
        };
        let sent = counters.sent();
        if let Some((_, at)) = out.held.pop_back_if(|(number, _)| is_after(*number, sent)) {
            self.release_frame(Some(at));
        }
    }

    /// There is no copy of this session, which goes on without.
    fn copy_refused(&mut self, by: Peer, session: u64) {
        let session = SessionId(crate::base::ids::Id::from_u64(session));
        let now = self.now.mono;
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let Some(out) = slot.copy.as_deref_mut().filter(|out| out.to == by) else { return };
        out.state = State::Refused(now);
        self.probe.copies_refused += 1;
        let old = std::mem::take(&mut out.old);
        self.go_uncovered(session);
        self.end_copies(old, session);
        self.end_copy(by, session);
    }

    /// The session has no copy any more, as there is nobody to keep one.
    fn uncopy(&mut self, session: SessionId) {
        self.go_uncovered(session);
        let out = self.sessions.get_mut(session.0).and_then(|slot| slot.copy.take());
        self.copy_ends(session, out);
    }

    fn go_uncovered(&mut self, session: SessionId) {
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let held = slot.copy.as_deref_mut().map(|out| std::mem::take(&mut out.held));
        if let Some(counters) = slot.counters.as_deref_mut() {
            counters.uncover();
            self.woken.extend(slot.resuming.filter(|_| counters.open_count() == 0));
        }
        self.release_held(held.unwrap_or_default());
        self.settle_own();
        self.note(session);
    }

    /// The session has ended.
    pub(super) fn copy_ends(&mut self, session: SessionId, out: Option<Box<Out>>) {
        let Some(out) = out else { return };
        let copies = self.let_go(*out);
        self.end_copies(copies, session);
    }

    /// Nothing waits for the copies of a session any more. Gives where they are.
    fn let_go(&mut self, out: Out) -> SmallVec<[Peer; 1]> {
        self.release_held(out.held);
        let mut copies = out.old;
        if !matches!(out.state, State::Refused(_)) {
            copies.push(out.to);
        }
        copies
    }

    fn release_held(&mut self, held: VecDeque<(u32, FrameRef)>) {
        for (_, at) in held {
            self.release_frame(Some(at));
        }
    }

    pub(super) fn end_copies(&mut self, copies: SmallVec<[Peer; 1]>, session: SessionId) {
        copies.into_iter().for_each(|at| self.end_copy(at, session));
    }

    fn end_copy(&mut self, at: Peer, session: SessionId) {
        if !self.peers.is_gone(at) {
            record::write_end(self.copies.records_to(at), session.0.to_u64());
        }
    }

    /// The session goes to another shard with this frame. Until that is there, its copies count.
    pub(super) fn copy_moves(&mut self, session: SessionId, out: Option<Box<Out>>, at: FrameRef) {
        let Some(out) = out else { return };
        let copies = self.let_go(*out);
        let outward = &mut self.outward[usize::from(at.ring)];
        outward.await_arrival(at.number, Arrival::Moved(session, copies));
    }

    /// The owners of an epoch are known, and what was lost by it is on its way.
    ///
    /// - takes: `gone`, shards that are no more
    pub(super) fn copies_placed(&mut self, gone: &[Peer]) {
        self.copies.is_on = self.placement.members().len() > 1;
        for peer in gone {
            self.copies.ways.remove(peer);
            self.copies.written.retain(|written| written != peer);
        }
        let epoch = self.placement.epoch();
        let sessions: Vec<SessionId> =
            self.sessions.iter().map(|(session, _)| SessionId(session)).collect();
        self.copies.todo.clear();
        for session in sessions {
            let Some(slot) = self.sessions.get(session.0) else { continue };
            let is_resumable = slot.counters.as_ref().is_some_and(|it| it.resumable.is_some());
            if !is_resumable {
                continue;
            }
            let to = self.successor(slot.jid.bare().hash64());
            let Some(slot) = self.sessions.get_mut(session.0) else { continue };
            match (to, slot.copy.as_deref_mut()) {
                (None, _) => self.uncopy(session),
                (Some(to), Some(out)) if out.to == to => out.epoch = epoch,
                (Some(_), out) => {
                    if let Some(out) = out {
                        out.old.retain(|old| !gone.contains(old));
                    }
                    self.copies.todo.push_back(session);
                }
            }
        }
    }
}
