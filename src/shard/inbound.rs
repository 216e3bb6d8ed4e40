//! Stanzas from our own clients: stamped with their sender, checked, sent on their way.

use super::Shard;
use super::copy;
use super::effect::Effects;
use super::feature::{Method, Scope};
use super::latency::Path;
use super::peers::Peer;
use super::phase::{Delivered, Direction, Passage, Sent};
use super::post::Post;
use super::ring::{Carried, FrameRef};
use super::route::{Realm, Route, route};
use super::session::SessionId;
use super::turn::{ReplyTo, Request};
use crate::frame::{Envelope, Flags, Kind, Recipients, message_flags};
use crate::xmpp::jid::Jid;
use crate::xmpp::stanza::{IqType, MessageType, Stanza, StanzaKind, write_stamped};
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::stream_error::{StreamCondition, StreamError};

/// What a client's stanza still waits for.
pub(super) enum Fate {
    /// Answered, refused or dealt with here.
    Handled,
    /// Handled when this frame is.
    Sent(FrameRef),
    /// Handled when the store has answered.
    Waiting,
}

impl Shard {
    /// - errors: `invalid-from` (RFC 6120 §4.9.3.9)
    pub(super) fn client_stanza(
        &mut self,
        session: SessionId,
        kind: StanzaKind,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Result<(), StreamError> {
        let core = &mut self.core;
        core.probe.stanzas_in += 1;
        core.meter.enter(kind, core.now);
        let Some(slot) = core.sessions.get_mut(session.0) else { return Ok(()) };
        if let Some(from) = stanza.attr("from")
            && !slot.jid.is(&from)
            && slot.jid.bare().as_str() != from
            && !Jid::parse(&from).is_ok_and(|from| {
                from == slot.jid || (from.is_bare() && from.bare() == slot.jid.bare())
            })
        {
            return Err(StreamError::new(StreamCondition::InvalidFrom));
        }
        if let Some(told) = &core.told {
            told.check(kind, slot.counters.as_ref().map(|counters| counters.received()))?;
        }
        let number = slot.counters.as_mut().map(|counters| counters.receive());
        let account = slot.account;
        let to = match stanza.to() {
            None => Ok(None),
            Some(text) => core.jids.parse(&text).map(Some),
        };
        if core.is_tracing() {
            core.trace_read(session, to.as_ref().ok().and_then(Option::as_ref), stanza);
        }
        let fate = match (to, kind) {
            (Err(_), _) => {
                self.refuse(session, kind, stanza, StanzaCondition::JidMalformed, fx);
                Fate::Handled
            }
            (Ok(to), kind) => {
                let sent = Sent { session, account, kind, to: to.as_ref(), stanza: *stanza };
                let mut passage = self.ask_sent(&sent, fx);
                if self.core.told.is_some() {
                    // It has gone already.
                    passage = Passage::Pass;
                }
                match (passage, kind) {
                    (Passage::Pass, StanzaKind::Message) => {
                        self.client_message(session, number, to, stanza, fx)
                    }
                    (Passage::Pass, StanzaKind::Presence) => {
                        self.client_presence(session, number, to, stanza, fx)
                    }
                    (Passage::Pass, StanzaKind::Iq) => {
                        self.client_iq(session, number, to, stanza, fx)
                    }
                    (Passage::Refuse(error), kind) => {
                        self.refuse_as(session, kind, stanza, &error, fx);
                        Fate::Handled
                    }
                    (Passage::Taken, _) => {
                        self.core.trace_taken(stanza);
                        Fate::Handled
                    }
                }
            }
        };
        let Some(number) = number else { return Ok(()) };
        match fate {
            Fate::Handled => self.core.complete(session, number),
            Fate::Sent(at) => {
                let outward = &mut self.core.outward[usize::from(at.ring)];
                outward.expect(at.number, Carried::Stanza(session, number));
            }
            Fate::Waiting => {}
        }
        Ok(())
    }

    fn client_message(
        &mut self,
        session: SessionId,
        number: Option<u32>,
        to: Option<Jid>,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Fate {
        let kind = MessageType::parse(stanza.type_().as_deref());
        let core = &self.core;
        let Some(slot) = core.sessions.get(session.0) else { return Fate::Handled };
        match route(to.as_ref(), &slot.jid, |domain| core.realm(domain)) {
            Route::Remote if !core.is_federated() => {
                self.refuse(
                    session,
                    StanzaKind::Message,
                    stanza,
                    StanzaCondition::RemoteServerNotFound,
                    fx,
                );
                Fate::Handled
            }
            Route::Server => {
                self.refuse(
                    session,
                    StanzaKind::Message,
                    stanza,
                    StanzaCondition::ServiceUnavailable,
                    fx,
                );
                Fate::Handled
            }
            Route::Own | Route::Owner | Route::Component | Route::Remote => {
                let to = to.unwrap_or_else(|| slot.jid.bare().clone().into());
                let flags = message_flags(kind, stanza);
                self.send_client(
                    session,
                    number,
                    Kind::Message,
                    kind.code(),
                    flags,
                    &to,
                    stanza,
                    fx,
                )
            }
        }
    }

    fn client_iq(
        &mut self,
        session: SessionId,
        number: Option<u32>,
        to: Option<Jid>,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Fate {
        let Some(kind) = stanza.iq_type() else {
            self.refuse(session, StanzaKind::Iq, stanza, StanzaCondition::BadRequest, fx);
            return Fate::Handled;
        };
        let Some(id) = stanza.id() else {
            self.refuse(session, StanzaKind::Iq, stanza, StanzaCondition::BadRequest, fx);
            return Fate::Handled;
        };
        let core = &mut self.core;
        let Some(slot) = core.sessions.get(session.0) else { return Fate::Handled };
        let route = route(to.as_ref(), &slot.jid, |domain| core.realm(domain));
        let goes_out = route == Route::Remote && core.is_federated();
        let Some(slot) = core.sessions.get_mut(session.0) else { return Fate::Handled };
        let method = match kind {
            IqType::Get => Method::Get,
            IqType::Set => Method::Set,
            IqType::Result | IqType::Error => {
                return match (route, to) {
                    (route, Some(to))
                        if goes_out
                            || route == Route::Component
                            || route == Route::Owner && !to.is_bare() =>
                    {
                        let to_text = to.to_string();
                        slot.open_iqs.retain(|(from, open)| **from != *to_text || **open != *id);
                        slot.changed |= copy::KEPT_WITH_IT;
                        let none = Flags::default();
                        self.send_client(
                            session,
                            number,
                            Kind::Iq,
                            kind.code(),
                            none,
                            &to,
                            stanza,
                            fx,
                        )
                    }
                    (Route::Owner | Route::Component | Route::Remote, _) => Fate::Handled,
                    (Route::Own | Route::Server, _) => {
                        self.answered_ping(session, &id, fx);
                        Fate::Handled
                    }
                };
            }
        };
        let mut children = stanza.children();
        let (Some(payload), None) = (children.next(), children.next()) else {
            // RFC 6120 §8.2.3: a request has exactly one child.
            self.refuse(session, StanzaKind::Iq, stanza, StanzaCondition::BadRequest, fx);
            return Fate::Handled;
        };
        let scope = match route {
            Route::Server => Scope::Server,
            Route::Own => Scope::Own,
            Route::Remote if !goes_out => {
                self.refuse(
                    session,
                    StanzaKind::Iq,
                    stanza,
                    StanzaCondition::RemoteServerNotFound,
                    fx,
                );
                return Fate::Handled;
            }
            Route::Owner | Route::Component | Route::Remote => {
                let Some(to) = to else { return Fate::Handled };
                let none = Flags::default();
                return self.send_client(
                    session,
                    number,
                    Kind::Iq,
                    kind.code(),
                    none,
                    &to,
                    stanza,
                    fx,
                );
            }
        };
        let from = slot.text.clone();
        let account = (scope == Scope::Own).then_some(slot.account);
        let own = slot.jid.bare().clone();
        let subject = to.as_ref().map(ToString::to_string);
        let reply = ReplyTo {
            to: from,
            id: id.into(),
            subject: subject.as_deref().map(Into::into),
            session: Some((session, number)),
            at: None,
        };
        let request = Request {
            method,
            scope,
            payload,
            account,
            subject: subject.as_deref().unwrap_or(own.as_str()),
        };
        if let (Some(account), Method::Set) = (account, method) {
            self.take_leave_back(account, fx);
        }
        self.ask_features(&request, reply, fx)
    }

    /// Sends a client's stanza to the owner of its recipient.
    #[expect(clippy::too_many_arguments, reason = "the parts of one envelope")]
    pub(super) fn send_client(
        &mut self,
        session: SessionId,
        number: Option<u32>,
        kind: Kind,
        subtype: u8,
        flags: Flags,
        to: &Jid,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Fate {
        let core = &mut self.core;
        let told = core.told.take();
        let Some(slot) = core.sessions.get(session.0) else { return Fate::Handled };
        let (account, conn) = (slot.account, slot.conn);
        // Subscriptions belong to accounts, not to resources (RFC 6121 §3).
        let from = if kind == Kind::Presence && super::subscription::is_subscription(subtype) {
            slot.jid.bare().as_str().into()
        } else {
            slot.text.clone()
        };
        let formatted;
        let raw = stanza.attr_raw("to").filter(|raw| to.is(raw));
        let to_text = match raw {
            Some(raw) => raw,
            None if to.is_bare() => to.bare().as_str(),
            None => {
                formatted = to.to_string();
                &formatted
            }
        };
        let mut bytes = core.buffer();
        let (open_end, close_start) = write_stamped(&mut bytes, stanza, Some(&from), Some(to_text));
        let tracked = if number.is_some() { Flags::WANTS_ACK } else { Flags::default() };
        let hops = core.hops_to(session);
        let relayed = if hops > 0 { Flags::RELAYED } else { Flags::default() };
        let envelope = Envelope {
            epoch: core.placement.epoch(),
            number: 0,
            hops,
            ingress: told.map_or(core.now.wall, |told| told.at()),
            trace: core.trace(),
            flags: flags.with(tracked).with(relayed),
            from: &from,
            to: to_text,
            also_to: Recipients::NONE,
            kind,
            subtype,
            open_end,
            close_start,
            stanza: &bytes,
        };
        let sent = match &told {
            Some(told) => Some(self.core.sent_by_front(told, &envelope, stanza.bytes)),
            None => {
                let sent = self.post_client(session, number, to, &envelope, stanza.bytes, fx);
                if let (Some(at), Some(conn)) = (sent, conn) {
                    self.core.wait_for_ring(conn, at, fx);
                }
                sent.map(Fate::Sent)
            }
        };
        let mut row = None;
        if sent.is_some() && flags.contains(Flags::ARCHIVABLE) && self.core.config.archive {
            row = self.core.keep_sent(session, number, to, &envelope, fx);
        }
        if sent.is_some() && kind == Kind::Message && self.phases.wants_delivered() {
            let shown = row.and_then(|row| self.core.with_sent_id(account, row, &envelope));
            let delivered = Delivered {
                account,
                direction: Direction::Out,
                kind: MessageType::from_code(subtype).unwrap_or_default(),
                flags,
                from: &from,
                to: to_text,
                sessions: &[session],
                stanza: shown.as_deref().unwrap_or(&bytes),
                open_end,
            };
            self.tell_delivered(&delivered, fx);
        }
        self.core.give_back(bytes);
        match sent {
            Some(fate) => fate,
            None => {
                if let Some(kind) = stanza.kind() {
                    self.refuse(session, kind, stanza, StanzaCondition::ResourceConstraint, fx);
                }
                Fate::Handled
            }
        }
    }

    /// Sends an envelope to the shard that deals with it, which may be this one: that of the component, or of the account
    /// with `hash64`. `None` where the ring is so full that
    /// nothing more may wait for it, or the stanza is too large for a frame.
    pub(super) fn post(
        &mut self,
        envelope: &Envelope<'_>,
        hash64: u64,
        fx: &mut Effects,
    ) -> Option<FrameRef> {
        if self.core.is_unwritten(hash64) {
            return self.post_to(self.core.id.into(), envelope, fx);
        }
        let owner = self.core.destination(envelope.from, envelope.to, hash64)?;
        self.post_to(owner, envelope, fx)
    }

    /// As `post`, to a shard that the caller knows to be the one.
    pub(super) fn post_to(
        &mut self,
        owner: Peer,
        envelope: &Envelope<'_>,
        fx: &mut Effects,
    ) -> Option<FrameRef> {
        let core = &mut self.core;
        if owner == Peer::from(core.id) {
            core.went_out = None;
            let ring = owner.index();
            let number = core.outward[ring].number();
            core.inward[ring].received(number);
            if core.is_tracing() {
                core.trace_routed(envelope, owner);
            }
            let at = FrameRef { ring: owner.0, number };
            self.deliver(&Envelope { number, ..*envelope }, at, fx);
            return Some(at);
        }
        if !core.has_room(owner, fx) {
            return None;
        }
        let at = core.append_frame(owner, envelope, fx)?;
        core.meter.way = if core.peers.is_local(owner) { Path::Core } else { Path::Node };
        if core.is_tracing() {
            core.trace_routed(envelope, owner);
        }
        Some(at)
    }

    /// Sends what handlers left behind for other accounts.
    pub(super) fn send_posts(&mut self, fx: &mut Effects) {
        while let Some(post) = self.core.posts.pop_front() {
            self.send_post(post, fx);
        }
    }

    pub(super) fn send_post(&mut self, post: Post, fx: &mut Effects) {
        let Ok(to) = self.core.jids.parse(&post.to) else { return };
        match self.core.realm(to.domain()) {
            Realm::Ours if to.local().is_some() => {}
            Realm::Component => {}
            Realm::Elsewhere if self.core.is_federated() => {}
            Realm::Ours | Realm::Elsewhere => return,
        }
        let owner = self.core.destination(&post.from, &post.to, to.bare().hash64());
        let envelope = post.envelope(self.core.placement.epoch(), self.core.now.wall);
        let mut sent = None;
        let sound = self.contained(fx, |shard, fx| {
            sent = owner.and_then(|owner| shard.post_to(owner, &envelope, fx));
        });
        match (sent, owner) {
            _ if !sound => self.faulty_frame(&envelope, fx),
            (Some(sent), _) => {
                if let Some(at) = post.answers {
                    self.core.answered_by(at, sent);
                }
            }
            (None, Some(owner)) if !self.core.has_room(owner, fx) => {
                self.core.post_later(owner, post);
            }
            (None, _) => self.core.probe.posts_dropped += 1,
        }
    }

    /// Answers a client's stanza with an error; errors and results get none.
    pub(super) fn refuse(
        &mut self,
        session: SessionId,
        kind: StanzaKind,
        stanza: &Stanza<'_>,
        condition: StanzaCondition,
        fx: &mut Effects,
    ) {
        self.refuse_as(session, kind, stanza, &StanzaError::new(condition), fx);
    }

    fn refuse_as(
        &mut self,
        session: SessionId,
        kind: StanzaKind,
        stanza: &Stanza<'_>,
        error: &StanzaError,
        fx: &mut Effects,
    ) {
        self.core.trace_refused(stanza, error);
        if stanza.is_answer() {
            return;
        }
        if kind == StanzaKind::Message {
            self.core.probe.messages_bounced += 1;
        }
        self.core.bounce_to(
            session,
            kind,
            stanza.id().as_deref(),
            stanza.to().as_deref(),
            error,
            fx,
        );
    }

    /// The client acknowledged `h` stanzas.
    pub(super) fn acknowledged(
        &mut self,
        session: SessionId,
        h: u32,
        fx: &mut Effects,
    ) -> Result<(), StreamError> {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return Ok(()) };
        let account = slot.account;
        let Some(counters) = slot.counters.as_mut() else { return Ok(()) };
        let settled = counters.acknowledge(h)?;
        if core.is_tracing() {
            core.trace_acknowledged(session, h);
        }
        for (sent, label) in settled.sent {
            core.meter.acknowledged(label, core.now.mono.since(sent));
        }
        core.confirmed.extend(settled.log_ids.into_iter().map(|row| (account, row)));
        core.note(session);
        self.continue_replay(account, fx);
        Ok(())
    }

    /// Another shard received our frames up to `received`, and handled them up to `handled`.
    pub(super) fn handled(&mut self, by: Peer, received: u64, handled: u64) {
        self.core.frames_arrived(by, received);
        self.core.frames_handled(by.index(), handled);
    }
}
