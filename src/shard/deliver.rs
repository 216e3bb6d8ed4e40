//! At the owner: a frame for one of our accounts goes to its sessions, its log or back (RFC 6121 §8.5).

use super::account::{AccountId, Busy, Queued, State};
use super::bounce::stanza_id;
use super::copy;
use super::direct::is_labelled;
use super::effect::Effects;
use super::feature::{Method, Scope};
use super::heard::{Heard, is_logged};
use super::line::place_of;
use super::log::Kept;
use super::outbound::Mark;
use super::peers::Peer;
use super::phase::{Delivered, Direction, Passage, Received};
use super::ring::FrameRef;
use super::session::SessionId;
use super::trace::{BY_FEATURE, NOBODY, Step};
use super::turn::{ReplyTo, Request};
use super::{AckLevel, Core, Shard, Undo, presence, subscription};
use crate::base::instant::Instant;
use crate::frame::Batch;
use crate::frame::{Envelope, Flags, Kind};
use crate::store::Keep;
use crate::xmpp::jid::BareJid;
use crate::xmpp::stanza::{IqType, MessageType, StanzaKind};
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::reader::Index;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Sessions that one stanza goes to.
pub(super) type Targets = SmallVec<[SessionId; 4]>;

impl Shard {
    /// A batch from another shard.
    pub(super) fn frames(&mut self, from: Peer, sent: Instant, batch: &Batch, fx: &mut Effects) {
        let ring = from.index();
        let checked = !self.core.peers.is_local(from);
        let is_foreign = self.core.peers.is_federation(from);
        if self.core.peers.is_gone(from) {
            return;
        }
        let mut kinds = [0; 3];
        for envelope in batch.iter() {
            self.core.probe.frames_in += 1;
            let kind = if is_labelled(&envelope) { Kind::Message } else { envelope.kind };
            if let Some(count) = kinds.get_mut((kind as usize).wrapping_sub(1)) {
                *count += 1;
            }
            let Some(inward) = self.core.inward.get_mut(ring) else { return };
            if checked && !inward.is_next(envelope.number) {
                self.core.probe.frames_repeated += 1;
                continue;
            }
            inward.received(envelope.number);
            if is_foreign && !self.core.may_come_in(&envelope) {
                self.core.probe.frames_refused += 1;
                continue;
            }
            let at = FrameRef { ring: from.0, number: envelope.number };
            let hops = envelope.hops.saturating_add(u8::from(checked));
            let was_sent_on = envelope.flags.contains(Flags::SENT_ON);
            let flags = envelope.flags.without(Flags::SENT_ON);
            let envelope = Envelope { hops, flags, ..envelope };
            if !self.contained(fx, |shard, fx| shard.deliver(&envelope, at, fx)) {
                self.faulty_frame(&envelope, fx);
            }
            if was_sent_on {
                self.core.tell_apart(at);
            }
            self.send_posts(fx);
        }
        let took = (!checked).then(|| self.core.now.mono.since(sent));
        self.core.meter.crossed(kinds, took);
    }

    /// Its delivery met a bug: the sender is told, the accounts that it was for start afresh.
    pub(super) fn faulty_frame(&mut self, envelope: &Envelope<'_>, fx: &mut Effects) {
        self.core.refuse_wrapped(envelope, envelope.to, &super::internal_error());
        for to in std::iter::once(envelope.to).chain(envelope.also_to) {
            let (bare, _) = split(to);
            if let Some(account) = self.core.names.get(bare).copied() {
                self.core.reload(account, fx);
            }
        }
    }

    /// One frame, to each of its recipients.
    pub(super) fn deliver(&mut self, envelope: &Envelope<'_>, at: FrameRef, fx: &mut Effects) {
        if self.core.park_behind(envelope, at) {
            return;
        }
        if envelope.kind == Kind::Control {
            return self.control(envelope, at, fx);
        }
        let trace = self.core.trace();
        let outer = self.core.enter_kept(envelope, at);
        self.deliver_to(envelope, envelope.to, at, fx);
        for to in envelope.also_to {
            self.deliver_to(envelope, to, at, fx);
        }
        self.core.copies.enter(outer);
        self.core.trace_enter(trace);
    }

    fn deliver_to(&mut self, envelope: &Envelope<'_>, to: &str, at: FrameRef, fx: &mut Effects) {
        self.core.enter_frame(envelope, at);
        let traced;
        let mut envelope = envelope;
        if self.core.is_tracing() {
            traced = self.core.trace_arrived(envelope, to, at, false);
            envelope = &traced;
        }
        if let Some(component) = self.core.components.of(to) {
            if self.core.peers.is_federation(Peer(at.ring)) {
                return self.foreign_to_component(component, envelope, to, at, fx);
            }
            return self.deliver_to_component(component, envelope, to, fx);
        }
        if let Some(domain) = self.core.domain_out(envelope, to) {
            return self.hand_out(envelope, to, domain, at, fx);
        }
        let (bare, resource) = split(to);
        let account = match self.core.names.get(bare).copied() {
            Some(account) if self.core.is_leaving(account) => {
                let slot = self.core.accounts.get(account.0);
                let hash = slot.map(|slot| slot.jid.hash64());
                self.pass_on(envelope, to, hash.unwrap_or_default(), at, fx);
                return;
            }
            Some(account) => account,
            None if !bare.contains('@') && self.core.is_local_domain(bare) => {
                return self.deliver_to_server(envelope, to, at, fx);
            }
            None => {
                let core = &mut self.core;
                let mut may_come = false;
                // A shard that was not told of any epoch yet may be sent frames by those who were.
                if core.handover.is_cluster() || envelope.epoch > core.placement.epoch() {
                    let Ok(hash) = core.jids.parse(bare).map(|jid| jid.bare().hash64()) else {
                        return;
                    };
                    if self.pass_on(envelope, to, hash, at, fx) {
                        return;
                    }
                    // Its sessions may be on their way here.
                    may_come = self.core.handover.holds(hash);
                }
                let core = &mut self.core;
                // Presence is for sessions, and an account that is not in memory has none.
                let is_news =
                    envelope.kind == Kind::Presence && presence::is_news(envelope.subtype);
                if is_news && !may_come {
                    core.trace_envelope(envelope, to, Step::Dropped, NOBODY);
                    return;
                }
                // Nobody waits for the answer to a probe: what is asked of the store for others goes first.
                let busy = core.tickets.len() >= core.config.limits.probe_reads;
                if busy && envelope.kind == Kind::Presence && presence::is_probe(envelope.subtype) {
                    core.probe.presence_dropped += 1;
                    core.trace_envelope(envelope, to, Step::Dropped, "the store is busy");
                    return;
                }
                let loading = BareJid::parse(bare).ok().and_then(|jid| core.account(&jid, fx));
                let Some(account) = loading else {
                    return core.bounce(envelope, to, &resource_constraint());
                };
                account
            }
        };
        let core = &mut self.core;
        let limit = core.config.limits.pending_stanzas;
        let Some(slot) = core.accounts.get_mut(account.0) else { return };
        let full = slot.waiting.len() >= limit;
        let passes = slot.busy != Busy::Loading
            && is_about_presence(envelope.kind, envelope.subtype)
            && (full || !slot.waiting.iter().any(|it| is_presence_of(it, split(envelope.from).0)));
        if slot.busy != Busy::No && !passes {
            // Nobody is told of an answer that is lost, so it never waits in vain: a refusal goes ahead, as the sender's
            // acknowledgement counts on it; other answers do where they could not wait. The session's own limits bound both.
            let is_answer = is_error(envelope) || is_result(envelope);
            if envelope.flags.contains(Flags::REFUSAL) || full && is_answer {
                let session = resource.and_then(|resource| core.session_named(account, resource));
                if let Some(session) = session {
                    return self.deliver_ahead(account, session, envelope, to, fx);
                }
            }
            // Its session may still be on its way here. What a refusal answers is kept by its sender until then (see
            // `answered_by`), which bounds these: they take no places of the others.
            let Some(slot) = core.accounts.get(account.0) else { return };
            let is_refusal = |flags: Flags| flags.contains(Flags::REFUSAL);
            let has_place = || {
                let others = slot.waiting.iter().filter(|it| !is_refusal(it.post.flags));
                is_refusal(envelope.flags) || others.count() < 2 * limit
            };
            let may_wait = || is_answer && core.handover.holds(slot.jid.hash64()) && has_place();
            if full && !may_wait() {
                return core.bounce(envelope, to, &resource_constraint());
            }
            return core.wait_for_account(account, envelope, to, at, Line::End);
        }
        slot.used_at = core.now.mono;
        self.deliver_ready(account, envelope, to, resource, at, fx);
    }

    /// An answer that does not wait until its account is there. What the features know of the account by now decides
    /// whether it gets through.
    fn deliver_ahead(
        &mut self,
        account: AccountId,
        session: SessionId,
        envelope: &Envelope<'_>,
        to: &str,
        fx: &mut Effects,
    ) {
        if let Passage::Pass = self.ask_envelope(account, envelope, to, fx) {
            self.core.emit(session, &[envelope.stanza], Mark::NONE, fx);
        }
    }

    /// The *received* phase.
    fn ask_envelope(
        &mut self,
        account: AccountId,
        envelope: &Envelope<'_>,
        to: &str,
        fx: &mut Effects,
    ) -> Passage {
        let Some(kind) = stanza_kind(envelope.kind) else { return Passage::Pass };
        self.ask_received(&Received { account, kind, from: envelope.from, to, envelope }, fx)
    }

    fn deliver_ready(
        &mut self,
        account: AccountId,
        envelope: &Envelope<'_>,
        to: &str,
        resource: Option<&str>,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let Some(slot) = self.core.accounts.get(account.0) else { return };
        if !matches!(slot.state, State::Ready(_)) {
            return self.deliver_to_nobody(envelope, to);
        }
        match self.ask_envelope(account, envelope, to, fx) {
            Passage::Pass => {}
            Passage::Refuse(error) => return self.core.bounce(envelope, to, &error),
            Passage::Taken => {
                self.core.trace_envelope(envelope, to, Step::Taken, BY_FEATURE);
                return;
            }
        }
        match envelope.kind {
            Kind::Message => self.deliver_message(account, envelope, to, resource, at, fx),
            Kind::Presence => self.deliver_presence(account, envelope, resource, at, fx),
            Kind::Iq => self.deliver_iq(account, envelope, to, resource, at, fx),
            Kind::Control => {}
        }
        self.core.maybe_idle(account);
    }

    /// RFC 6121 §8.5.1: there is no such account. The answer is that of an account which knows nothing of the sender.
    fn deliver_to_nobody(&mut self, envelope: &Envelope<'_>, to: &str) {
        match envelope.kind {
            Kind::Presence if presence::is_probe(envelope.subtype) => {
                self.core.leave(subscription::bare_reply(to, envelope.from, "unsubscribed"));
            }
            Kind::Presence | Kind::Control => {}
            Kind::Message if envelope.subtype == MessageType::Headline.code() => {}
            Kind::Message | Kind::Iq => self.core.bounce(envelope, to, &service_unavailable()),
        }
    }

    fn deliver_message(
        &mut self,
        account: AccountId,
        envelope: &Envelope<'_>,
        to: &str,
        resource: Option<&str>,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let kind = MessageType::from_code(envelope.subtype).unwrap_or(MessageType::Normal);
        let storable = envelope.flags.contains(Flags::STORABLE);
        let mut targets = match self.core.message_targets(account, kind, resource) {
            Choice::Sessions(targets) => targets,
            Choice::Bounce => return self.core.bounce(envelope, to, &service_unavailable()),
            Choice::Drop if storable => Targets::new(),
            Choice::Drop => {
                return self.core.trace_envelope(envelope, to, Step::Dropped, NOBODY);
            }
        };
        let core = &mut self.core;
        let Some(own) = core.accounts.get(account.0).map(|slot| slot.jid.clone()) else { return };
        let stamped = envelope.flags.contains(Flags::STAMPED);
        let sound = if stamped { None } else { core.without_forged_ids(&own, envelope) };
        let envelope = &match &sound {
            Some((stanza, close_start)) => {
                Envelope { stanza, close_start: *close_start, ..*envelope }
            }
            None => *envelope,
        };
        let slot = core.accounts.get_mut(account.0);
        let mut asleep_before = Targets::new();
        if storable && slot.and_then(|slot| slot.data()).is_some_and(|data| data.replay_due) {
            // A session that fell asleep before it had all of the log gets this from there, too.
            let sessions = &core.sessions;
            targets.retain(|session| {
                let slot = sessions.get(session.0);
                let is_there = slot.is_some_and(|session| session.conn.is_some());
                asleep_before.extend((!is_there).then_some(*session));
                is_there
            });
        }
        if targets.is_empty() && !storable {
            if envelope.flags.contains(Flags::CONTENT) {
                core.bounce(envelope, to, &service_unavailable());
            } else {
                core.trace_envelope(envelope, to, Step::Dropped, NOBODY);
            }
            return;
        }
        let asleep = |core: &Core, session: &SessionId| {
            core.sessions.get(session.0).is_none_or(|session| session.conn.is_none())
        };
        let promised =
            envelope.flags.contains(Flags::WANTS_ACK) && core.config.ack == AckLevel::Stored;
        let logged = storable
            && (promised
                || targets.is_empty()
                || targets.iter().any(|session| asleep(core, session)));
        let archived = core.is_archived(account, envelope.flags, envelope.from);
        if logged && !promised {
            // Only because somebody sleeps or is away: what others hold of this sender must not come behind it later.
            let sessions = core.accounts.get(account.0).map(|slot| slot.sessions.clone());
            for session in sessions.unwrap_or_default() {
                if !asleep(core, &session) {
                    core.log_unacknowledged(session, fx);
                }
            }
        }
        let keep = Keep::new(logged, archived);
        let kept = core.keep_received(account, keep, targets.is_empty(), envelope, to, at, fx);
        let Kept::Row(row) = kept else { return };
        if targets.is_empty() {
            core.probe.messages_stored += 1;
            core.trace_envelope(envelope, to, Step::Offline, NOBODY);
            if let Some(data) = core.accounts.get_mut(account.0).and_then(|slot| slot.data()) {
                data.replay_due = true;
            }
        }
        let mut bytes = core.buffer();
        // Where there are archives, an id is one that can be asked for.
        if storable && !stamped && (row.is_some() || !core.config.archive) {
            let (content, end) = envelope.stanza.split_at(envelope.close_start as usize);
            bytes.extend_from_slice(content);
            core.write_id(&mut bytes, &own, row);
            bytes.extend_from_slice(end);
        } else {
            bytes.extend_from_slice(envelope.stanza);
        }
        let kept = || core.copies.frame().map(|at| core.origin(at));
        let again = core.retry_origin.or_else(kept);
        // What cannot come again may be kept twice all the same: by its owner as the session ends or falls asleep, and from a
        // copy that has not heard of that.
        let copied = || core.handover.is_cluster().then(|| core.origin(at));
        let mark = Mark { row: row.filter(|_| logged), origin: again.or_else(copied) };
        let were_there = !targets.is_empty();
        targets.retain(|session| !core.has_had(*session, again, mark.row));
        // Of one that has it in its queue this is the row now.
        for session in asleep_before {
            core.has_had(session, again, mark.row);
        }
        for session in &targets {
            core.probe.messages_delivered += 1;
            core.count_hops(envelope.hops, *session);
            core.emit(*session, &[&bytes], mark, fx);
        }
        // What all had already, they heard of in all ways.
        let is_news = !were_there || !targets.is_empty();
        if is_news && self.phases.wants_delivered() {
            let delivered = Delivered {
                account,
                direction: Direction::In,
                kind,
                flags: envelope.flags,
                from: envelope.from,
                to,
                sessions: &targets,
                stanza: &bytes,
                open_end: envelope.open_end,
            };
            self.tell_delivered(&delivered, fx);
        }
        self.core.give_back(bytes);
    }

    /// RFC 6121 §8.5.2.2, §8.5.3: IQs are answered for the account, or go to the one resource they name.
    fn deliver_iq(
        &mut self,
        account: AccountId,
        envelope: &Envelope<'_>,
        to: &str,
        resource: Option<&str>,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let kind = IqType::from_code(envelope.subtype);
        let method = match kind {
            Some(IqType::Get) => Some(Method::Get),
            Some(IqType::Set) => Some(Method::Set),
            Some(IqType::Result | IqType::Error) | None => None,
        };
        let Some(resource) = resource else {
            if let Some(method) = method {
                self.answer_for((Scope::Other, Some(account)), method, envelope, to, at, fx);
            }
            return;
        };
        let limit = self.core.config.limits.open_iqs;
        let session = self.core.session_named(account, resource);
        let (Some(session), Some(method)) = (session, method) else {
            match session {
                Some(session) => self.core.emit(session, &[envelope.stanza], Mark::NONE, fx),
                None if method.is_some() => {
                    self.core.bounce(envelope, to, &service_unavailable());
                }
                None => {}
            }
            return;
        };
        let _ = method;
        let Some(id) = stanza_id(envelope.stanza) else { return };
        let Some(slot) = self.core.sessions.get_mut(session.0) else { return };
        let is_open =
            |(from, open): &(Box<str>, Box<str>)| **from == *envelope.from && **open == *id;
        if envelope.flags.contains(Flags::RETRY) && slot.open_iqs.iter().any(is_open) {
            // The session's copy has it, as its owner had before it died.
            return;
        }
        if slot.open_iqs.len() >= limit {
            return self.core.bounce(envelope, to, &resource_constraint());
        }
        slot.open_iqs.push((envelope.from.into(), id.into()));
        slot.changed |= copy::KEPT_WITH_IT;
        self.core.emit(session, &[envelope.stanza], Mark::NONE, fx);
    }

    /// A request that a frame brought is for the server, or for an account, to answer.
    pub(super) fn answer_for(
        &mut self,
        whose: (Scope, Option<AccountId>),
        method: Method,
        envelope: &Envelope<'_>,
        to: &str,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let (scope, account) = whose;
        let mut index = Index::default();
        let Some(stanza) = self.core.view(envelope.stanza, &mut index) else { return };
        let (Some(payload), Some(id)) = (stanza.children().next(), stanza.id()) else { return };
        let reply = ReplyTo {
            to: envelope.from.into(),
            id: id.into(),
            subject: Some(to.into()),
            session: None,
            at: at.awaited(envelope.flags),
        };
        let request = Request { method, scope, payload, account, subject: to };
        self.ask_features(&request, reply, fx);
    }

    /// What waited for the account goes on, in order, until it must wait again.
    pub(super) fn drain(&mut self, account: AccountId, fx: &mut Effects) {
        let epoch = self.core.placement.epoch();
        while let Some(slot) = self.core.accounts.get_mut(account.0) {
            if slot.busy != Busy::No {
                return;
            }
            let Some(queued) = slot.waiting.pop_front() else {
                slot.waiting.shrink_to(0);
                break;
            };
            match queued.retry {
                Some(origin) if !is_logged(queued.post.kind, queued.post.flags) => {
                    let heard = Heard::new(origin, &slot.jid);
                    self.deliver_heard(account, &queued, heard, epoch, fx);
                }
                Some(origin) if !queued.is_new => self.ask_origin(account, queued, origin, fx),
                Some(origin) => {
                    // It is there from now on.
                    self.core.found.remove(&Heard::new(origin, &slot.jid));
                    self.core.retry_origin = queued.retry;
                    self.deliver_queued(account, &queued, epoch, fx);
                    self.core.retry_origin = None;
                }
                None => self.deliver_queued(account, &queued, epoch, fx),
            }
        }
        self.core.maybe_idle(account);
    }

    /// The account is read: what would not have waited, had it been there, need not wait for its messages either.
    pub(super) fn drain_presence(&mut self, account: AccountId, fx: &mut Effects) {
        let epoch = self.core.placement.epoch();
        let Some(slot) = self.core.accounts.get_mut(account.0) else { return };
        let mut behind: Vec<Box<str>> = Vec::new();
        let (passing, waiting): (VecDeque<_>, _) =
            std::mem::take(&mut slot.waiting).into_iter().partition(|queued| {
                let post = &queued.post;
                let (from, _) = split(&post.from);
                if post.kind != Kind::Presence || behind.iter().any(|bare| **bare == *from) {
                    return false;
                }
                let passes = is_about_presence(post.kind, post.subtype);
                if !passes {
                    behind.push(from.into());
                }
                passes
            });
        slot.waiting = waiting;
        for queued in &passing {
            self.deliver_queued(account, queued, epoch, fx);
        }
    }

    pub(super) fn deliver_queued(
        &mut self,
        account: AccountId,
        queued: &Queued,
        epoch: u64,
        fx: &mut Effects,
    ) {
        let mut envelope = queued.envelope(epoch);
        let (_, resource) = split(envelope.to);
        self.core.enter_frame(&envelope, queued.at);
        if self.core.is_tracing() {
            envelope = self.core.trace_arrived(&envelope, envelope.to, queued.at, true);
        }
        let outer = self.core.enter_kept(&envelope, queued.at);
        let sound = self.contained(fx, |shard, fx| {
            shard.deliver_ready(account, &envelope, envelope.to, resource, queued.at, fx);
        });
        self.core.copies.enter(outer);
        if !sound {
            self.core.bounce(&envelope, envelope.to, &super::internal_error());
            self.core.reload(account, fx);
        }
        self.core.release_frame(queued.at.awaited(envelope.flags));
    }
}

/// Who is there is no part of a conversation, and a replay can take as long as a client takes to confirm it: news of
/// presence, and questions for it, never wait behind messages. Behind them they would be out of date, and with a line
/// that is full they would be lost (R8). They do wait behind a subscription of their sender, which says what they mean.
fn is_about_presence(kind: Kind, subtype: u8) -> bool {
    kind == Kind::Presence && (presence::is_news(subtype) || presence::is_probe(subtype))
}

fn is_presence_of(queued: &Queued, bare: &str) -> bool {
    queued.post.kind == Kind::Presence && split(&queued.post.from).0 == bare
}

/// Where in the line of an account a stanza waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Front,
    End,
    /// Before that one.
    At(usize),
}

/// Where a message goes.
enum Choice {
    /// These sessions; the log where there are none.
    Sessions(Targets),
    Bounce,
    Drop,
}

impl Core {
    /// The stanza waits until its account is there, or has an id for it.
    pub(super) fn wait_for_account(
        &mut self,
        account: AccountId,
        envelope: &Envelope<'_>,
        to: &str,
        at: FrameRef,
        line: Line,
    ) {
        self.trace_waiting(account, envelope, to);
        // One that was looked for in the log is not looked for again.
        let retry = self.retry_origin.take();
        if let Some(first) = self.waits_already(account, retry) {
            return self.came_again(first, at.awaited(envelope.flags));
        }
        let Some(slot) = self.accounts.get_mut(account.0) else { return };
        let is_new = retry.is_some();
        let queued = Queued { retry, is_new, ..Queued::new(envelope, to, at) };
        let line = match line {
            Line::End if self.handover.holds(slot.jid.hash64()) => {
                Line::At(place_of(&slot.waiting, &queued))
            }
            line => line,
        };
        match line {
            Line::Front => slot.waiting.push_front(queued),
            Line::End => slot.waiting.push_back(queued),
            Line::At(place) => slot.waiting.insert(place, queued),
        }
        self.undo.push(Undo::Queued(account, line));
        self.hold_frame(at.awaited(envelope.flags));
    }

    /// Takes back `wait_for_account`: the sender is answered for what it sent.
    pub(super) fn undo_queued(&mut self, account: AccountId, line: Line) {
        let Some(slot) = self.accounts.get_mut(account.0) else { return };
        let queued = match line {
            Line::Front => slot.waiting.pop_front(),
            Line::End => slot.waiting.pop_back(),
            Line::At(place) => slot.waiting.remove(place),
        };
        if let Some(Queued { at, post, .. }) = queued {
            self.release_frame(at.awaited(post.flags));
        }
    }

    /// RFC 6121 §8.5.2.1 (bare JID) and §8.5.3 (full JID), for accounts that exist.
    fn message_targets(
        &self,
        account: AccountId,
        kind: MessageType,
        resource: Option<&str>,
    ) -> Choice {
        if let Some(resource) = resource {
            if let Some(session) = self.session_named(account, resource) {
                return Choice::Sessions(Targets::from_slice(&[session]));
            }
            match kind {
                // §8.5.3.2.1: a chat message goes on as if it were sent to the bare JID.
                MessageType::Chat => {}
                MessageType::Normal | MessageType::Groupchat => return Choice::Bounce,
                MessageType::Headline | MessageType::Error => return Choice::Drop,
            }
        }
        let Some(slot) = self.accounts.get(account.0) else { return Choice::Drop };
        let willing = slot.sessions.iter().filter_map(|session| {
            let priority = self.sessions.get(session.0)?.priority()?;
            (priority >= 0).then_some((*session, priority))
        });
        match kind {
            MessageType::Groupchat => Choice::Bounce,
            MessageType::Error => Choice::Drop,
            MessageType::Headline => {
                let targets: Targets = willing.map(|(session, _)| session).collect();
                if targets.is_empty() { Choice::Drop } else { Choice::Sessions(targets) }
            }
            MessageType::Chat | MessageType::Normal => {
                let best = willing.clone().map(|(_, priority)| priority).max();
                let best = willing.filter(|(_, priority)| Some(*priority) == best);
                Choice::Sessions(best.map(|(session, _)| session).collect())
            }
        }
    }

    pub(super) fn session_named(&self, account: AccountId, resource: &str) -> Option<SessionId> {
        let slot = self.accounts.get(account.0)?;
        slot.sessions.iter().copied().find(|session| {
            self.sessions.get(session.0).is_some_and(|session| session.resource() == resource)
        })
    }
}

pub(super) fn stanza_kind(kind: Kind) -> Option<StanzaKind> {
    match kind {
        Kind::Message => Some(StanzaKind::Message),
        Kind::Presence => Some(StanzaKind::Presence),
        Kind::Iq => Some(StanzaKind::Iq),
        Kind::Control => None,
    }
}

pub(super) fn is_error(envelope: &Envelope<'_>) -> bool {
    match envelope.kind {
        Kind::Message => envelope.subtype == MessageType::Error.code(),
        Kind::Iq => envelope.subtype == IqType::Error.code(),
        Kind::Presence | Kind::Control => false,
    }
}

pub(super) fn is_result(envelope: &Envelope<'_>) -> bool {
    envelope.kind == Kind::Iq && envelope.subtype == IqType::Result.code()
}

/// Bare JID and resource of a prepared address.
pub(super) fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((bare, resource)) => (bare, Some(resource)),
        None => (text, None),
    }
}

/// The domain of a prepared address.
pub(super) fn domain_of(text: &str) -> &str {
    let (bare, _) = split(text);
    bare.split_once('@').map_or(bare, |(_, domain)| domain)
}

pub(super) fn service_unavailable() -> StanzaError {
    StanzaError::new(StanzaCondition::ServiceUnavailable)
}

pub(super) fn resource_constraint() -> StanzaError {
    StanzaError::new(StanzaCondition::ResourceConstraint)
}
