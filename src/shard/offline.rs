//! Offline messages: what is pending in the log of an account goes out to the next session that can take it (XEP-0160),
//! and what sessions leave behind finds its way. *Confirmed* means an XEP-0198 acknowledgement, or the answer to a ping that
//! was sent behind the messages.

use super::account::{AccountId, Busy, Data, Queued, Replay, State};
use super::control::Control;
use super::copy::HAD_MAX;
use super::deliver::resource_constraint;
use super::effect::{Effects, Ticket};
use super::input::StoreOutcome;
use super::log::Left;
use super::outbound::Mark;
use super::phase::{Passage, Received, SessionChange};
use super::ring::FrameRef;
use super::session::SessionId;
use super::stamp::ends_with_id;
use super::{Core, Post, Shard, Timer, Waiting};
use crate::base::hash::Set;
use crate::frame::{Envelope, Flags, Kind, Recipients};
use crate::store::{Answer, LogEntry, Query, Written};
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::stanza::StanzaKind;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::reader::Index;
use crate::xmpp::xml::writer::Writer;
use std::time::Duration;

/// Rows read from the log at a time, and those a session may hold unconfirmed while more are sent.
const PAGE: u32 = 64;
const UNCONFIRMED: usize = 256;
/// Bytes that a row grows by, at most, when it is sent: its id and when it came, for one of our domains.
const STAMPS: usize = 2_048;
/// How long a page waits that the store could not read, or the session not take.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Shard {
    /// An answer of the store.
    pub(super) fn stored(&mut self, ticket: Ticket, outcome: StoreOutcome, fx: &mut Effects) {
        let Some(waiting) = self.core.tickets.remove(&ticket) else { return };
        match (waiting, outcome) {
            (Waiting::Account(account), outcome) => {
                let load = self.core.accounts.get(account.0).and_then(|account| account.load);
                if load == Some(ticket) {
                    self.loaded(account, outcome, fx);
                }
            }
            (Waiting::Ids(partition), outcome) => {
                let first = match outcome {
                    StoreOutcome::Written(Written::Reserved { first }) => Some(first),
                    _ => None,
                };
                let waiting = self.core.ids_reserved(partition, first, fx);
                self.number_rows(partition, first.is_some(), fx);
                for account in waiting {
                    match first {
                        // Sessions that fell asleep meanwhile come before what waits.
                        Some(_) => self.core.log_sleepers(account, fx),
                        None => self.core.refuse_first(account),
                    }
                    self.no_longer_busy(account, Busy::Ids, fx);
                }
            }
            (
                Waiting::Append { account, owner, since, path, at, bounce, heard, traced },
                outcome,
            ) => {
                self.core.meter.stored(path, self.core.now.mono.since(since));
                let durable = matches!(outcome, StoreOutcome::Written(Written::Done));
                self.core.trace_stored(traced, durable);
                if !durable {
                    // Not durable: the sender is told, which is what its acknowledgement may cover.
                    let outer = self.core.copies.enter(at);
                    self.core.bounce_later(&bounce, &resource_constraint());
                    self.core.copies.enter(outer);
                    if let Some(data) = self.core.owned_data(account, &owner) {
                        data.log_rows = data.log_rows.saturating_sub(1);
                    }
                }
                if let Some((heard, goes)) = heard.map(|it| *it)
                    && (goes || !durable)
                {
                    self.core.row_is_done(heard, at.filter(|_| !durable), fx);
                }
                self.core.release_frame(at);
                self.written(account, fx);
            }
            // Where it failed, the recipient has the message all the same.
            (Waiting::Sent(session, number), _) => self.core.complete(session, number),
            (Waiting::Origin { account, queued, others }, outcome) => {
                self.origins_found(account, *queued, &others, outcome, fx);
            }
            (Waiting::Retraction { account, retraction }, outcome) => {
                self.retraction_page(account, retraction, outcome, fx);
            }
            (Waiting::Login { conn, account }, outcome) => {
                let stored = matches!(outcome, StoreOutcome::Written(Written::Done));
                self.tokens_stored(conn, account, stored, fx);
                self.written(account, fx);
            }
            (Waiting::Log(account), _) => self.written(account, fx),
            (Waiting::Archived(account, heard), outcome) => {
                // Who was there has the message: it is not to come again, and be kept behind newer ones.
                if !matches!(outcome, StoreOutcome::Written(Written::Done)) {
                    self.core.row_is_done(heard, None, fx);
                }
                self.written(account, fx);
            }
            (Waiting::Page(account), outcome) => self.page(account, ticket, outcome, fx),
            (Waiting::Change { account, at, stanza }, outcome) => {
                if !matches!(outcome, StoreOutcome::Written(Written::Done)) {
                    self.core.reload(account, fx);
                }
                self.core.release_frame(at);
                if let Some((session, number)) = stanza {
                    self.core.complete(session, number);
                }
                self.written(account, fx);
            }
            (Waiting::Feature { feature, account, reply, wrote, context }, outcome) => {
                self.feature_stored(feature, account, reply, context, outcome, fx);
                if wrote {
                    self.written(account, fx);
                }
            }
            (Waiting::Errand { .. } | Waiting::Registration { .. } | Waiting::Nobody, _) => {}
        }
    }

    /// A write of the account is done: a replay may have waited for it.
    fn written(&mut self, account: AccountId, fx: &mut Effects) {
        if self.core.written(account, fx) {
            self.continue_replay(account, fx);
            self.core.maybe_idle(account);
        }
    }

    /// The account is read, or known not to exist: whoever waited goes on.
    fn loaded(&mut self, id: AccountId, outcome: StoreOutcome, fx: &mut Effects) {
        let state = match outcome {
            StoreOutcome::Answer(Answer::Account(Some(record))) => {
                State::Ready(Box::new(Data::new(*record)))
            }
            StoreOutcome::Answer(Answer::Account(None)) => State::Unknown,
            // The store is out of order: nobody may log in by mistake, and nothing is remembered.
            _ => return self.load_failed(id, fx),
        };
        // While the old roster still says who must be told.
        match &state {
            State::Ready(data) if !data.disabled => {}
            State::Ready(_) => {
                self.end_sessions_of(id, &|_| true, &super::operator::disabled(), fx)
            }
            State::Unknown | State::Loading => {
                let error = StreamError::new(StreamCondition::NotAuthorized);
                self.end_sessions_of(id, &|_| true, &error, fx);
            }
        }
        let Some(slot) = self.core.accounts.get_mut(id.0) else { return };
        slot.state = state;
        slot.load = None;
        let logins = std::mem::take(&mut slot.logins);
        self.see_contacts_anew(id, fx);
        self.awake(id, fx);
        self.no_longer_busy(id, Busy::Loading, fx);
        for conn in logins {
            self.release(conn, fx);
        }
        self.core.maybe_idle(id);
    }

    fn load_failed(&mut self, id: AccountId, fx: &mut Effects) {
        let core = &mut self.core;
        let Some(slot) = core.accounts.get_mut(id.0) else { return };
        let queued = std::mem::take(&mut slot.waiting);
        let logins = std::mem::take(&mut slot.logins);
        queued.iter().for_each(|queued| core.refuse_queued(queued));
        let error = StreamError::new(StreamCondition::InternalServerError);
        self.end_sessions_of(id, &|_| true, &error, fx);
        for conn in logins {
            let error = StreamError::new(StreamCondition::ResourceConstraint);
            self.close(conn, Some(error), fx);
        }
        if let Some(slot) = self.core.accounts.remove(id.0) {
            self.core.names.remove(slot.jid.as_str());
            // What the sessions left just now did not wait for this reading, and the next one may succeed.
            slot.waiting.into_iter().for_each(|left| self.core.leave(left.post));
        }
    }

    /// The account was created, deleted or changed by an operator.
    pub(super) fn account_changed(&mut self, jid: &BareJid, fx: &mut Effects) {
        if self.core.tell_owner(jid, Control::AccountChanged, jid.as_str(), b"", fx) {
            return;
        }
        if let Some(account) = self.core.names.get(jid.as_str()).copied() {
            self.core.reload(account, fx);
        }
    }

    /// The account's stanzas go on: first those that wait in the log, then those that wait in memory.
    pub(super) fn no_longer_busy(&mut self, id: AccountId, why: Busy, fx: &mut Effects) {
        if self.core.accounts.get(id.0).is_none_or(|slot| slot.busy != why) {
            return;
        }
        if why == Busy::Loading {
            self.drain_presence(id, fx);
        }
        if let Some(slot) = self.core.accounts.get_mut(id.0).filter(|slot| slot.busy == why) {
            slot.busy = Busy::No;
            self.maybe_replay(id, fx);
            self.drain(id, fx);
        }
    }

    /// Starts sending offline messages if there are any and a session that can take them.
    pub(super) fn maybe_replay(&mut self, id: AccountId, fx: &mut Effects) {
        let core = &mut self.core;
        // What is confirmed already must not be sent again.
        core.write_confirmed(fx);
        let Some(slot) = core.accounts.get_mut(id.0) else { return };
        let due = slot.busy == Busy::No && slot.data().is_some_and(|data| data.replay_due);
        if !due {
            return;
        }
        let session = slot.sessions.iter().copied().find(|session| {
            let session = core.sessions.get(session.0).filter(|session| session.conn.is_some());
            session.and_then(|session| session.priority()).is_some_and(|priority| priority >= 0)
        });
        let Some(session) = session else { return };
        slot.busy = Busy::Replay;
        slot.replay = Some(Replay {
            session,
            after: 0,
            asked: None,
            timer: false,
            confirmed: Vec::new(),
            passed: Set::default(),
        });
        if let Some(data) = slot.data() {
            data.replay_due = false;
        }
        self.continue_replay(id, fx);
    }

    /// Asks for the next page once the session has confirmed enough of those before.
    pub(super) fn continue_replay(&mut self, id: AccountId, fx: &mut Effects) {
        let core = &mut self.core;
        let Some(slot) = core.accounts.get_mut(id.0) else { return };
        let Some(replay) = &slot.replay else { return };
        let (session, after) = (replay.session, replay.after);
        // What is on its way to the log must be in it before it is read, and what is confirmed must be gone. Later
        // pages need not wait: nothing is appended meanwhile.
        let too_early = after == 0 && slot.changing > 0;
        if replay.asked.is_some() || too_early {
            return;
        }
        if core.is_full(session, 0) {
            // Its acknowledgements wake it; output that nobody acknowledges does not.
            return core.replay_later(id);
        }
        let ticket = core.ticket(Waiting::Page(id));
        let Some(slot) = core.accounts.get_mut(id.0) else { return };
        if let Some(replay) = slot.replay.as_mut() {
            replay.asked = Some(ticket);
        }
        let owner = slot.jid.clone();
        fx.queries.push((ticket, Query::Log { owner, after, limit: PAGE }));
    }

    pub(super) fn replay_due(&mut self, id: AccountId, fx: &mut Effects) {
        let Some(slot) = self.core.accounts.get_mut(id.0) else { return };
        if let Some(replay) = slot.replay.as_mut() {
            replay.timer = false;
            self.continue_replay(id, fx);
        }
    }

    /// A page of the log: each row goes to the session, unless another one holds it.
    fn page(&mut self, id: AccountId, ticket: Ticket, outcome: StoreOutcome, fx: &mut Effects) {
        let core = &mut self.core;
        // What is confirmed by now, and may be in the page.
        core.write_confirmed(fx);
        let Some(slot) = core.accounts.get_mut(id.0) else { return };
        // A page that an earlier replay asked for is of no use to this one.
        let Some(replay) = slot.replay.as_mut().filter(|replay| replay.asked == Some(ticket))
        else {
            return;
        };
        replay.asked = None;
        let (session, mut after) = (replay.session, replay.after);
        let (entries, mut more) = match outcome {
            StoreOutcome::Answer(Answer::Log { entries, more }) => (entries, more),
            _ => {
                // Newer messages must not overtake those that cannot be read.
                return core.replay_later(id);
            }
        };
        let confirmed = std::mem::take(&mut replay.confirmed);
        let mut passed = std::mem::take(&mut replay.passed);
        let holders = slot.sessions.clone();
        let own = slot.jid.clone();
        let mut waits = false;
        for entry in entries {
            let core = &mut self.core;
            if core.is_full(session, entry.stanza.len()) {
                (more, waits) = (true, true);
                break;
            }
            after = entry.id;
            core.row_goes_out(&entry, &own);
            if confirmed.contains(&entry.id) {
                continue;
            }
            let origin = Some(entry.origin).filter(|origin| origin.number > 0);
            if let Some(origin) = origin.filter(|_| core.handover.is_cluster()) {
                // What a session from a copy had was kept again, as nobody knew that its owner, which died, had kept it.
                if passed.contains(&origin) {
                    core.confirmed.push((id, entry.id));
                    continue;
                }
                // What is kept twice beyond as many as a session may have had comes twice.
                if passed.len() < HAD_MAX {
                    passed.insert(origin);
                }
            }
            let held = holders.iter().any(|holder| {
                let holder = core.sessions.get(holder.0);
                holder.is_some_and(|holder| holder.holds_row(entry.id))
            });
            if held || core.has_had(session, origin, Some(entry.id)) {
                continue;
            }
            if !self.is_still_wanted(id, &entry, fx) {
                self.core.confirmed.push((id, entry.id));
                continue;
            }
            let core = &mut self.core;
            let close = (entry.close_start as usize).min(entry.stanza.len());
            let (body, end) = entry.stanza.split_at(close);
            let mut added = Vec::with_capacity(192);
            super::outbound::write_delay(&mut added, own.domain(), entry.at);
            if memchr::memmem::find(body, &added).is_some() {
                // It was late before it was kept.
                added.clear();
            }
            if !ends_with_id(body, &own) {
                core.write_id(&mut added, &own, Some(entry.id));
            }
            core.probe.messages_delivered += 1;
            core.trace_replayed(&entry, own.as_str());
            let mark = Mark { row: Some(entry.id), origin };
            core.emit(session, &[body, &added, end], mark, fx);
        }
        let core = &mut self.core;
        let Some(slot) = core.accounts.get_mut(id.0) else { return };
        if more {
            if let Some(replay) = slot.replay.as_mut() {
                replay.after = after;
                replay.passed = passed;
                replay.confirmed.extend(confirmed.into_iter().filter(|id| *id > after));
            }
            return match waits {
                true => core.replay_later(id),
                false => self.continue_replay(id, fx),
            };
        }
        slot.replay = None;
        self.no_longer_busy(id, Busy::Replay, fx);
    }

    /// What features let pass when it came may not pass now: its sender may have been blocked since.
    fn is_still_wanted(&mut self, account: AccountId, entry: &LogEntry, fx: &mut Effects) -> bool {
        let mut index = Index::default();
        let Some(stanza) = self.core.view(&entry.stanza, &mut index) else { return true };
        let (Some(from), Some(to)) = (stanza.from(), stanza.to()) else { return true };
        let envelope = Envelope {
            epoch: self.core.placement.epoch(),
            number: 0,
            hops: 0,
            ingress: entry.at,
            trace: None,
            flags: Flags::STORABLE,
            from: &from,
            to: &to,
            also_to: Recipients::NONE,
            kind: Kind::Message,
            subtype: stanza.message_type().code(),
            open_end: entry.open_end,
            close_start: entry.close_start,
            stanza: &entry.stanza,
        };
        let kind = StanzaKind::Message;
        let received = Received { account, kind, from: &from, to: &to, envelope: &envelope };
        let mut passage = Passage::Pass;
        self.contained(fx, |shard, fx| passage = shard.ask_received(&received, fx));
        passage == Passage::Pass
    }

    /// The client answered something it was asked by the server: a ping behind logged messages confirms them.
    pub(super) fn answered_ping(&mut self, session: SessionId, id: &str, fx: &mut Effects) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let account = slot.account;
        let Some(waiting) = slot.confirmation.as_mut() else { return };
        if waiting.covered == 0 || id != ping_id(waiting.ping) {
            return;
        }
        let rows = waiting.rows.drain(..waiting.covered.min(waiting.rows.len()));
        core.confirmed.extend(rows.map(|row| (account, row)));
        if waiting.rows.is_empty() {
            waiting.rows.shrink_to(8);
        }
        waiting.covered = 0;
        core.note(session);
        self.continue_replay(account, fx);
    }

    /// The socket is gone. A session that can be resumed waits; another ends.
    pub(super) fn disconnected(&mut self, session: SessionId, fx: &mut Effects) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        slot.conn = None;
        core.no_longer_inactive(session, fx);
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let resumable = slot.counters.as_ref().and_then(|counters| counters.resumable.as_ref());
        let Some(resumable) = resumable.filter(|_| !core.stopping) else {
            return self.end_session(session, fx);
        };
        let ends_at = core.now.mono + Duration::from_secs(resumable.window_s.into());
        slot.ends_at = Some(ends_at);
        core.wheel.insert(ends_at, Timer::Resume(session));
        let account = slot.account;
        core.log_unacknowledged(session, fx);
        if core.stop_replay(account, session) {
            self.maybe_replay(account, fx);
            self.drain(account, fx);
        }
    }

    pub(super) fn resume_timed_out(&mut self, session: SessionId, fx: &mut Effects) {
        let now = self.core.now.mono;
        let due = self.core.sessions.get(session.0).and_then(|session| session.ends_at);
        if due.is_some_and(|due| due <= now) {
            self.end_session(session, fx);
        }
    }

    /// Sessions that keep more than they may: nobody can read that fast, and memory is bounded.
    pub(super) fn end_overflowing(&mut self, fx: &mut Effects) {
        for session in std::mem::take(&mut self.core.overflowing) {
            let conn = self.core.sessions.get(session.0).and_then(|session| session.conn);
            if let Some(conn) = conn {
                if let Some(slot) = self.core.conns.get_mut(conn.0) {
                    slot.session = None;
                }
                let error = StreamError::new(StreamCondition::PolicyViolation)
                    .with_text("too many stanzas without an acknowledgement");
                self.close(conn, Some(error), fx);
            }
            self.end_session(session, fx);
        }
    }

    /// Ends a session for good: contacts learn of it, requests it owes an answer get one, and what its client never
    /// acknowledged goes where it would go now (XEP-0198 §4, RFC 6121 §8.5).
    pub(super) fn end_session(&mut self, session: SessionId, fx: &mut Effects) {
        if !self.core.sessions.contains(session.0) {
            return;
        }
        self.leave_presence(session, fx);
        self.tell_session(session, SessionChange::Ended, fx);
        let core = &mut self.core;
        let Some(slot) = core.sessions.remove(session.0) else { return };
        let account = slot.account;
        if let Some(counters) = &slot.counters
            && let Some(resumable) = &counters.resumable
        {
            core.resumable.remove(&resumable.id);
            // A message may be handled by an error that goes down with the session: its client is not to take it for
            // delivered.
            if !counters.unacknowledged().any(|sent| core.is_refusal(&sent.bytes)) {
                let most = core.config.limits.sessions_remembered;
                let owner = slot.jid.bare().hash64();
                core.ended.insert(resumable.id.clone(), owner, counters.tellable(), most);
            }
        }
        core.copy_ends(session, slot.copy);
        core.woken.extend(slot.resuming);
        let mut rows: Vec<u64> =
            slot.confirmation.map_or_else(Vec::new, |waiting| waiting.rows.into());
        let mut stanzas = Vec::new();
        for stanza in slot.counters.into_iter().flat_map(|counters| counters.into_unacknowledged())
        {
            match stanza.log_id {
                Some(row) => rows.push(row),
                None => stanzas.push(stanza),
            }
        }
        for (from, id) in slot.open_iqs {
            core.answer_for_ended(&slot.text, &from, &id);
        }
        if let Some(owner) = core.accounts.get_mut(account.0) {
            owner.sessions.retain(|other| *other != session);
        }
        core.stop_replay(account, session);
        if let Some(owner) = core.accounts.get_mut(account.0) {
            let others = owner.sessions.clone();
            let unheld = rows.into_iter().any(|row| {
                !others.iter().any(|other| {
                    core.sessions.get(other.0).is_some_and(|other| other.holds_row(row))
                })
            });
            if unheld && let Some(data) = owner.data() {
                data.replay_due = true;
            }
        }
        let again = stanzas.iter().filter_map(|stanza| core.message_late(stanza)).collect();
        core.first_in_line(account, again);
        // What is in the log came before what waits.
        self.maybe_replay(account, fx);
        self.drain(account, fx);
        self.core.maybe_idle(account);
    }
}

impl Core {
    /// The session holds so much that it has not confirmed that a replay must wait: a row that is sent above its limits
    /// would end it, and the next session, and none would ever get past that row.
    ///
    /// - takes: `next`, bytes of the row that would be sent
    fn is_full(&self, session: SessionId, next: usize) -> bool {
        let limits = &self.config.limits;
        let Some(slot) = self.sessions.get(session.0) else { return false };
        let queued = slot
            .counters
            .as_ref()
            .map_or((0, 0), |counters| (counters.queue_len(), counters.queue_bytes()));
        let rows = queued.0 + slot.confirmation.as_ref().map_or(0, |waiting| waiting.rows.len());
        let conn = slot.conn.and_then(|conn| self.conns.get(conn.0));
        let bytes = queued.1.max(conn.map_or(0, |conn| conn.output_len()));
        let is_above = bytes > 0 && bytes + next + STAMPS > limits.output_bytes;
        rows > UNCONFIRMED.min(limits.resume_queue / 2)
            || bytes > limits.output_bytes / 2
            || is_above
    }

    /// Stanzas and bytes that the session may get at once: half of what it may leave unread or unacknowledged, less what
    /// it has.
    pub(super) fn room_for(&self, session: SessionId) -> (usize, usize) {
        let limits = &self.config.limits;
        let Some(slot) = self.sessions.get(session.0) else { return (0, 0) };
        let queued = slot
            .counters
            .as_ref()
            .map_or((0, 0), |counters| (counters.queue_len(), counters.queue_bytes()));
        let conn = slot.conn.and_then(|conn| self.conns.get(conn.0));
        let bytes = queued.1.max(conn.map_or(0, |conn| conn.output_len()));
        let left = |limit: usize, used: usize| (limit / 2).saturating_sub(used);
        (left(limits.resume_queue, queued.0), left(limits.output_bytes, bytes))
    }

    fn replay_later(&mut self, id: AccountId) {
        let due = self.now.mono + TRY_AGAIN;
        let slot = self.accounts.get_mut(id.0);
        if let Some(replay) = slot.and_then(|slot| slot.replay.as_mut()).filter(|one| !one.timer) {
            replay.timer = true;
            self.wheel.insert(due, Timer::Replay(id));
        }
    }

    /// The session cannot take messages any more: what it did not get is due for another, or for itself when it is
    /// back. Gives whether a replay to it ran; until then its account was busy, and nothing else went on.
    pub(super) fn stop_replay(&mut self, id: AccountId, session: SessionId) -> bool {
        let Some(slot) = self.accounts.get_mut(id.0) else { return false };
        if slot.replay.as_ref().is_none_or(|replay| replay.session != session) {
            return false;
        }
        slot.replay = None;
        slot.busy = if slot.busy == Busy::Replay { Busy::No } else { slot.busy };
        if let Some(data) = slot.data() {
            data.replay_due = true;
        }
        true
    }

    /// No id can be had: the message that waits for one goes back.
    fn refuse_first(&mut self, id: AccountId) {
        let Some(slot) = self.accounts.get_mut(id.0).filter(|slot| slot.busy == Busy::Ids) else {
            return;
        };
        if let Some(first) = slot.waiting.pop_front() {
            self.refuse_queued(&first);
        }
    }

    /// Asks a client without XEP-0198 to confirm what went before, by a ping.
    pub(super) fn ping_behind(&mut self, session: SessionId, fx: &mut Effects) {
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let Some(waiting) = slot.confirmation.as_mut() else { return };
        if waiting.covered > 0 || waiting.rows.is_empty() {
            return;
        }
        waiting.covered = waiting.rows.len();
        waiting.ping = waiting.ping.wrapping_add(1);
        let id = ping_id(waiting.ping);
        self.write_ping(session, &id, fx);
    }

    /// Asks a silent client for a sign of life.
    pub(super) fn probe_client(&mut self, session: SessionId, fx: &mut Effects) {
        let Some(slot) = self.sessions.get(session.0) else { return };
        match (slot.conn, slot.counters.is_some()) {
            (Some(conn), true) => self.write(conn, b"<r xmlns='urn:xmpp:sm:3'/>", fx),
            (Some(_), false) => self.write_ping(session, "silence", fx),
            (None, _) => {}
        }
    }

    fn write_ping(&mut self, session: SessionId, id: &str, fx: &mut Effects) {
        let Some(slot) = self.sessions.get(session.0) else { return };
        let mut out = Vec::with_capacity(192);
        Writer::new(&mut out)
            .start("iq")
            .attr("type", "get")
            .attr("id", id)
            .attr("from", slot.jid.domain())
            .attr("to", &slot.text)
            .open()
            .start("ping")
            .attr("xmlns", ns::PING)
            .close_empty()
            .end("iq");
        self.emit(session, &[&out], Mark::NONE, fx);
    }

    /// R7: the session that got this request has ended without an answer.
    fn answer_for_ended(&mut self, ended: &str, asker: &str, id: &str) {
        let mut stanza = Vec::with_capacity(256);
        let error = super::deliver::service_unavailable();
        crate::xmpp::stanza_error::write_error_reply(
            &mut stanza,
            StanzaKind::Iq,
            Some(id),
            Some(ended),
            Some(asker),
            &error,
        );
        let code = crate::xmpp::stanza::IqType::Error.code();
        self.leave(Post::refusal(ended, asker, Kind::Iq, code, stanza));
    }

    /// Messages that a session leaves behind are older than what waits for the account, and go before it.
    fn first_in_line(&mut self, id: AccountId, left: Vec<Left>) {
        let ring = self.id.0;
        if self.accounts.get(id.0).is_none() {
            return left.into_iter().for_each(|left| self.leave(left.post));
        }
        let epoch = self.placement.epoch();
        for Left { ingress, origin: retry, post } in left.into_iter().rev() {
            let number = self.outward[usize::from(ring)].number();
            self.inward[usize::from(ring)].received(number);
            let (at, is_new) = (FrameRef { ring, number }, retry.is_some());
            let queued = Queued { at, ingress, hops: 0, epoch, post, retry, since: None, is_new };
            if let Some(slot) = self.accounts.get_mut(id.0) {
                slot.waiting.push_front(queued);
            }
        }
    }
}

fn ping_id(number: u32) -> String {
    format!("confirm-{number}")
}
