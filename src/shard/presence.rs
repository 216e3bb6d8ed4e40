//! Presence (RFC 6121 §4): who is told of a resource, and by what. Who may see whom is `subscription`'s to say.

use super::absence::Absence;
use super::account::AccountId;
use super::copy;
use super::effect::Effects;
use super::inbound::Fate;
use super::outbound::Mark;
use super::peers::Peer;
use super::phase::{Audience, SessionChange};
use super::ring::FrameRef;
use super::route::{Route, route};
use super::session::{Presence, SessionId};
use super::subscription::{Request, bare_reply};
use super::{Core, Post, Shard};
use crate::frame::{Envelope, Flags, Kind, Recipients};
use crate::store::Subscription;
use crate::xmpp::jid::Jid;
use crate::xmpp::stanza::{PresenceType, Stanza, StanzaKind, has_attr, write_stamped};
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::xml::reader::Index;
use crate::xmpp::xml::writer::Writer;

/// News of a resource, which only sessions can hear.
pub(super) fn is_news(code: u8) -> bool {
    matches!(
        PresenceType::from_code(code),
        Some(PresenceType::Available | PresenceType::Unavailable | PresenceType::Error)
    )
}

pub(super) fn is_probe(code: u8) -> bool {
    PresenceType::from_code(code) == Some(PresenceType::Probe)
}

/// `<presence/>` with nothing in it.
pub(super) fn plain(from: &str, to: &str, kind: PresenceType) -> Post {
    let mut stanza = Vec::with_capacity(128);
    Writer::new(&mut stanza)
        .start("presence")
        .attr("from", from)
        .attr("to", to)
        .attr_opt("type", kind.name())
        .open()
        .end("presence");
    Post::whole(from, to, Kind::Presence, kind.code(), stanza)
}

/// Unavailable presence without `to`, and where its tags meet.
pub(super) fn gone(from: &str) -> (Vec<u8>, u32) {
    unaddressed(from, PresenceType::Unavailable)
}

/// Presence without `to` and with nothing in it, and where its tags meet.
pub(super) fn unaddressed(from: &str, kind: PresenceType) -> (Vec<u8>, u32) {
    let mut stanza = Vec::with_capacity(96);
    Writer::new(&mut stanza)
        .start("presence")
        .attr("from", from)
        .attr_opt("type", kind.name())
        .open()
        .end("presence");
    let close = u32::try_from(stanza.len() - "</presence>".len()).unwrap_or(0);
    (stanza, close)
}

impl Shard {
    pub(super) fn client_presence(
        &mut self,
        session: SessionId,
        number: Option<u32>,
        to: Option<Jid>,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Fate {
        let Some(kind) = PresenceType::parse(stanza.type_().as_deref()) else {
            self.refuse(session, StanzaKind::Presence, stanza, StanzaCondition::BadRequest, fx);
            return Fate::Handled;
        };
        let Some(slot) = self.core.sessions.get(session.0) else { return Fate::Handled };
        let Some(to) = to else {
            match kind {
                PresenceType::Available => self.available(session, stanza, fx),
                PresenceType::Unavailable => self.unavailable(session, Some(stanza), fx),
                PresenceType::Error => {}
                _ => self.refuse(
                    session,
                    StanzaKind::Presence,
                    stanza,
                    StanzaCondition::BadRequest,
                    fx,
                ),
            }
            return Fate::Handled;
        };
        let core = &self.core;
        match route(Some(&to), &slot.jid, |domain| core.realm(domain)) {
            Route::Remote if !core.is_federated() => {
                let condition = StanzaCondition::RemoteServerNotFound;
                if kind != PresenceType::Unavailable {
                    self.refuse(session, StanzaKind::Presence, stanza, condition, fx);
                }
                return Fate::Handled;
            }
            Route::Server => return Fate::Handled,
            Route::Own | Route::Owner | Route::Component | Route::Remote => {}
        }
        if let Some(request) = Request::of(kind) {
            return self.client_subscription(session, number, (kind, request), to, stanza, fx);
        }
        if !self.core.note_directed(session, kind, &to) {
            let condition = StanzaCondition::ResourceConstraint;
            self.refuse(session, StanzaKind::Presence, stanza, condition, fx);
            return Fate::Handled;
        }
        self.send_directed(session, number, kind, &to, stanza, fx)
    }

    pub(super) fn send_directed(
        &mut self,
        session: SessionId,
        number: Option<u32>,
        kind: PresenceType,
        to: &Jid,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Fate {
        let none = Flags::default();
        self.send_client(session, number, Kind::Presence, kind.code(), none, to, stanza, fx)
    }

    /// Initial presence or a change of it (RFC 6121 §4.2, §4.4).
    fn available(&mut self, session: SessionId, stanza: &Stanza<'_>, fx: &mut Effects) {
        let priority = match priority(stanza) {
            Ok(priority) => priority,
            Err(()) => {
                let condition = StanzaCondition::BadRequest;
                return self.refuse(session, StanzaKind::Presence, stanza, condition, fx);
            }
        };
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let initial = slot.presence.is_none();
        let account = slot.account;
        let mut bytes = Vec::with_capacity(stanza.bytes.len() + slot.text.len() + 16);
        let (open_end, close_start) = write_stamped(&mut bytes, stanza, Some(&slot.text), None);
        let stanza: Box<[u8]> = bytes.into();
        slot.presence =
            Some(Box::new(Presence { priority, stanza: stanza.clone(), open_end, close_start }));
        slot.changed |= copy::KEPT_WITH_IT;
        let text = slot.text.clone();
        self.broadcast(session, PresenceType::Available, &stanza, open_end, close_start, fx);
        if initial {
            self.send_probes(account, &text, fx);
            self.greet(session, fx);
            self.tell_session(session, SessionChange::Available, fx);
            self.ask_again(account, fx);
        }
        self.maybe_replay(account, fx);
    }

    fn unavailable(&mut self, session: SessionId, stanza: Option<&Stanza<'_>>, fx: &mut Effects) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let was_available = slot.presence.take().is_some();
        slot.changed |= copy::KEPT_WITH_IT;
        if !was_available && slot.directed.is_empty() {
            return;
        }
        let (account, text) = (slot.account, slot.text.clone());
        let mut bytes = Vec::with_capacity(128);
        let (open_end, close_start) = match stanza {
            Some(stanza) => write_stamped(&mut bytes, stanza, Some(&text), None),
            None => {
                let (stanza, close) = gone(&text);
                bytes = stanza;
                (close, close)
            }
        };
        if was_available {
            self.broadcast(session, PresenceType::Unavailable, &bytes, open_end, close_start, fx);
            if stanza.is_some() {
                // §4.5.2: the resource hears of itself, too.
                self.core.emit_to(session, &bytes, open_end, fx);
            }
            if self.core.available_sessions(account).is_empty() {
                self.core.depart(account, &text, &bytes, (open_end, close_start), fx);
            }
        }
        self.retract(session, was_available, &bytes, open_end, close_start, fx);
    }

    /// RFC 6121 §4.6.3: whoever was told directly, and did not just hear it as a contact, learns that we go.
    fn retract(
        &mut self,
        session: SessionId,
        was_available: bool,
        stanza: &[u8],
        open_end: u32,
        close_start: u32,
        fx: &mut Effects,
    ) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let (account, from) = (slot.account, slot.text.clone());
        let directed = std::mem::take(&mut slot.directed);
        let data = core.accounts.get_mut(account.0).and_then(|slot| slot.data());
        let hears = |jid: &Jid| {
            let contact = data.as_ref().and_then(|data| data.roster.find(jid.bare().as_str()));
            was_available && contact.is_some_and(|contact| contact.subscription.has_from())
        };
        let watchers: Audience = directed
            .iter()
            .filter(|jid| !hears(jid))
            .map(|jid| (jid.bare().hash64(), jid.to_string().into()))
            .collect();
        let kind = PresenceType::Unavailable;
        self.fan_out(&from, kind, watchers, stanza, open_end, close_start, fx);
    }

    /// A session ends: whoever saw it sees it go.
    pub(super) fn leave_presence(&mut self, session: SessionId, fx: &mut Effects) {
        if !self.core.stopping {
            self.unavailable(session, None, fx);
        } else if self.core.is_federated() {
            self.leave_remotes(session, fx);
        }
    }

    /// To every contact that may see us and to our own resources: one frame per core that owns some of them.
    fn broadcast(
        &mut self,
        session: SessionId,
        kind: PresenceType,
        stanza: &[u8],
        open_end: u32,
        close_start: u32,
        fx: &mut Effects,
    ) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let (account, from) = (slot.account, slot.text.clone());
        let Some(owner) = core.accounts.get_mut(account.0) else { return };
        let own = owner.sessions.clone();
        let mut watchers: Audience = Vec::new();
        if let Some(data) = owner.data() {
            for item in data.roster.iter() {
                if matches!(item.subscription, Subscription::From | Subscription::Both) {
                    watchers.push((item.hash64, item.bare().into()));
                }
            }
        }
        self.fan_out(&from, kind, watchers, stanza, open_end, close_start, fx);
        for other in own {
            let core = &mut self.core;
            let told = core.sessions.get(other.0).is_some_and(|slot| slot.presence.is_some());
            if told {
                core.emit_to(other, stanza, open_end, fx);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one envelope")]
    pub(super) fn fan_out(
        &mut self,
        from: &str,
        kind: PresenceType,
        mut watchers: Audience,
        stanza: &[u8],
        open_end: u32,
        close_start: u32,
        fx: &mut Effects,
    ) {
        let (own, _) = super::deliver::split(from);
        if let Some(account) = self.core.names.get(own).copied() {
            self.retain_audience(account, &mut watchers, fx);
        }
        let mut by_peer: Vec<(Peer, &str)> = Vec::with_capacity(watchers.len());
        for (hash, watcher) in &watchers {
            if !self.core.is_federated() && self.core.is_remote(watcher) {
                continue;
            }
            match self.core.destination(from, watcher, *hash) {
                Some(peer) => by_peer.push((peer, watcher)),
                None => self.core.probe.presence_dropped += 1,
            }
        }
        // Stable: the order of the roster stays within a shard.
        by_peer.sort_by_key(|(peer, _)| *peer);
        let trace = self.core.trace();
        for list in by_peer.chunk_by(|one, other| one.0 == other.0) {
            let peer = list[0].0;
            let list: Vec<&str> = list.iter().map(|(_, watcher)| *watcher).collect();
            let Some((first, more)) = list.split_first() else { continue };
            let envelope = Envelope {
                epoch: self.core.placement.epoch(),
                number: 0,
                hops: 0,
                ingress: self.core.now.wall,
                trace,
                flags: Flags::default(),
                from,
                to: first,
                also_to: Recipients::from(more),
                kind: Kind::Presence,
                subtype: kind.code(),
                open_end,
                close_start,
                stanza,
            };
            if self.post_to(peer, &envelope, fx).is_none() {
                self.core.probe.presence_dropped += list.len() as u64;
            }
        }
    }

    /// What a newly available resource is owed: requests that wait, and where the account's other resources are.
    fn greet(&mut self, session: SessionId, fx: &mut Effects) {
        let core = &mut self.core;
        let Some(account) = core.sessions.get(session.0).map(|slot| slot.account) else { return };
        let Some(data) = core.accounts.get_mut(account.0).and_then(|slot| slot.data()) else {
            return;
        };
        let mut asked: Vec<Vec<u8>> = Vec::new();
        let mut from: Audience = Vec::new();
        for item in data.roster.iter() {
            if let Some(request) = item.pending_in {
                asked.push(request.to_vec());
                from.push((item.hash64, item.bare().into()));
            }
        }
        if !from.is_empty() {
            let all = from.clone();
            self.retain_audience(account, &mut from, fx);
            for (request, sender) in asked.iter().zip(&all) {
                if from.contains(sender) {
                    self.core.emit(session, &[request], Mark::NONE, fx);
                }
            }
        }
        let core = &mut self.core;
        for other in core.available_sessions(account) {
            if other == session {
                continue;
            }
            let presence = core.sessions.get(other.0).and_then(|slot| slot.presence.clone());
            if let Some(presence) = presence {
                core.emit_to(session, &presence.stanza, presence.open_end, fx);
            }
        }
    }

    /// RFC 6121 §4.3: asks the contacts whom we may see.
    fn send_probes(&mut self, account: AccountId, from: &str, fx: &mut Effects) {
        let Some(data) = self.core.accounts.get_mut(account.0).and_then(|slot| slot.data()) else {
            return;
        };
        let seen = |subscription| matches!(subscription, Subscription::To | Subscription::Both);
        let watched: Audience = data
            .roster
            .iter()
            .filter(|item| seen(item.subscription))
            .map(|item| (item.hash64, item.bare().into()))
            .collect();
        if watched.is_empty() {
            return;
        }
        let kind = PresenceType::Probe;
        let (stanza, close) = unaddressed(from, kind);
        self.fan_out(from, kind, watched, &stanza, close, close, fx);
    }

    pub(super) fn deliver_presence(
        &mut self,
        account: AccountId,
        envelope: &Envelope<'_>,
        resource: Option<&str>,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let Some(kind) = PresenceType::from_code(envelope.subtype) else { return };
        match kind {
            PresenceType::Available | PresenceType::Unavailable => {
                let core = &mut self.core;
                if let Some(resource) = resource {
                    let probed = envelope.flags.contains(Flags::PROBED);
                    let session = core.session_named(account, resource).filter(|session| {
                        let slot = core.sessions.get(session.0);
                        !probed || slot.is_some_and(|slot| slot.presence.is_some())
                    });
                    if let Some(session) = session {
                        core.emit_to(session, envelope.stanza, envelope.open_end, fx);
                    }
                    return;
                }
                for session in core.available_sessions(account) {
                    core.emit_to(session, envelope.stanza, envelope.open_end, fx);
                }
            }
            PresenceType::Probe => self.core.answer_probe(account, resource, envelope.from),
            PresenceType::Error => {
                let sessions = match resource {
                    Some(resource) => {
                        self.core.session_named(account, resource).into_iter().collect()
                    }
                    None => self.core.hearing_refusals(account, envelope.from),
                };
                for session in sessions {
                    self.core.emit(session, &[envelope.stanza], Mark::NONE, fx);
                }
            }
            PresenceType::Subscribe
            | PresenceType::Subscribed
            | PresenceType::Unsubscribe
            | PresenceType::Unsubscribed => {
                let Some(request) = Request::of(kind) else { return };
                // §8.5.3.2.2: a request is one to the account, whatever its address; the others go to nobody.
                let is_lost = request != Request::Subscribe
                    && resource
                        .is_some_and(|name| self.core.session_named(account, name).is_none());
                if !is_lost {
                    self.core.inbound_subscription(account, request, envelope, at, fx);
                }
            }
        }
    }
}

impl Core {
    /// RFC 6121 §4.3.2: where the account's resources are, for those who may know.
    ///
    /// - `resource`: the one that was asked for, where it was one
    fn answer_probe(&mut self, account: AccountId, resource: Option<&str>, from: &str) {
        let (bare, _) = super::deliver::split(from);
        let Some(slot) = self.accounts.get_mut(account.0) else { return };
        let own = slot.jid.clone();
        let Some(data) = slot.data() else { return };
        let contact = data.roster.iter().find(|item| item.bare() == bare);
        let sees = contact.is_some_and(|item| item.subscription.has_from());
        let waits = contact.is_some_and(|item| item.pending_in.is_some());
        if bare != own.as_str() && !sees {
            if let Some(told) = self.session_that_told(account, resource, bare) {
                // §4.6.6: who was told directly may ask whether that still is so.
                return self.leave(plain(&told, from, PresenceType::Available));
            }
            // Whose request waits would take this for the answer to it.
            if !waits {
                self.leave(bare_reply(own.as_str(), from, "unsubscribed"));
            }
            return;
        }
        if let Some(resource) = resource {
            let session = self.session_named(account, resource);
            let session = session.filter(|session| {
                self.sessions.get(session.0).is_some_and(|slot| slot.presence.is_some())
            });
            // That it is there, and no more.
            let kind = match session {
                Some(_) => PresenceType::Available,
                None => PresenceType::Unavailable,
            };
            return self.leave(plain(&format!("{own}/{resource}"), from, kind));
        }
        let sessions = self.available_sessions(account);
        if sessions.is_empty() {
            return self.leave_last_presence(account, from);
        }
        for session in sessions {
            self.leave_presence_of(session, from, true, Flags::PROBED);
        }
    }

    /// Full JID of the session at `resource`, if it has told `contact` directly that it is there.
    fn session_that_told(
        &self,
        account: AccountId,
        resource: Option<&str>,
        contact: &str,
    ) -> Option<Box<str>> {
        let session = self.session_named(account, resource?)?;
        let slot = self.sessions.get(session.0)?;
        let told = slot.directed.iter().any(|jid| jid.bare().as_str() == contact);
        told.then(|| slot.text.as_ref().into())
    }

    /// What the last resource said as it went, and when; from the account, as the resource is no more.
    fn leave_last_presence(&mut self, account: AccountId, to: &str) {
        let Some(slot) = self.accounts.get_mut(account.0) else { return };
        let own = slot.jid.clone();
        let last = slot.data().and_then(|data| data.slot_in_use::<Absence>()?.last().cloned());
        let mut index = Index::default();
        let stanza = last.as_ref().and_then(|last| self.view(&last.stanza, &mut index));
        let (Some(last), Some(stanza)) = (&last, stanza) else {
            return self.leave(plain(own.as_str(), to, PresenceType::Unavailable));
        };
        let mut out = Vec::with_capacity(last.stanza.len() + 160);
        let (_, close) = write_stamped(&mut out, &stanza, Some(own.as_str()), Some(to));
        let end = out.split_off(close as usize);
        super::outbound::write_delay(&mut out, own.as_str(), last.at);
        out.extend_from_slice(&end);
        let unavailable = PresenceType::Unavailable.code();
        self.leave(Post::whole(own.as_str(), to, Kind::Presence, unavailable, out));
    }

    /// Tells a contact of all our available resources, or that they are gone for it.
    pub(super) fn leave_presence_for(
        &mut self,
        account: AccountId,
        contact: &Jid,
        available: bool,
    ) {
        let to = contact.to_string();
        for session in self.available_sessions(account) {
            self.leave_presence_of(session, &to, available, Flags::default());
        }
    }

    fn leave_presence_of(&mut self, session: SessionId, to: &str, available: bool, flags: Flags) {
        let Some(slot) = self.sessions.get(session.0) else { return };
        let Some(presence) = slot.presence.as_ref() else { return };
        let (kind, stanza) = if available {
            (PresenceType::Available, presence.stanza.to_vec())
        } else {
            (PresenceType::Unavailable, gone(&slot.text).0)
        };
        let mut post = Post::whole(&slot.text, to, Kind::Presence, kind.code(), stanza);
        post.flags = flags;
        if available {
            post.open_end = presence.open_end;
            post.close_start = presence.close_start;
        }
        self.leave(post);
    }

    /// Sessions that asked for the roster (RFC 6121 §2.2).
    pub(super) fn interested_sessions(&self, account: AccountId) -> super::deliver::Targets {
        let Some(slot) = self.accounts.get(account.0) else { return Default::default() };
        let interested =
            |session: &SessionId| self.sessions.get(session.0).is_some_and(|slot| slot.interested);
        slot.sessions.iter().copied().filter(interested).collect()
    }

    /// Sessions that are available, whatever their priority.
    pub(super) fn available_sessions(&self, account: AccountId) -> super::deliver::Targets {
        let Some(slot) = self.accounts.get(account.0) else { return Default::default() };
        let available = |session: &SessionId| {
            self.sessions.get(session.0).is_some_and(|slot| slot.presence.is_some())
        };
        slot.sessions.iter().copied().filter(available).collect()
    }

    /// A stanza without `to`, to one session, with its bare JID put in (RFC 6121 §4.2.2).
    pub(super) fn emit_to(
        &mut self,
        session: SessionId,
        stanza: &[u8],
        open_end: u32,
        fx: &mut Effects,
    ) {
        let Some(slot) = self.sessions.get(session.0) else { return };
        let open_end = (open_end as usize).clamp(1, stanza.len().max(1));
        let (open, rest) = stanza.split_at((open_end - 1).min(stanza.len()));
        if has_attr(open, "to") {
            return self.emit(session, &[stanza], Mark::NONE, fx);
        }
        let mut to = Vec::with_capacity(96);
        to.extend_from_slice(b" to='");
        crate::xmpp::xml::writer::escape_attr(&mut to, slot.jid.bare().as_str());
        to.push(b'\'');
        self.emit(session, &[open, &to, rest], Mark::NONE, fx);
    }

    /// Remembers whom a session has told directly; false where the list is full.
    fn note_directed(&mut self, session: SessionId, kind: PresenceType, to: &Jid) -> bool {
        let limit = self.config.limits.directed_presence;
        let Some(slot) = self.sessions.get_mut(session.0) else { return true };
        slot.changed |= copy::KEPT_WITH_IT;
        match kind {
            PresenceType::Available => {
                if slot.directed.contains(to) {
                    return true;
                }
                if slot.directed.len() >= limit {
                    return false;
                }
                slot.directed.push(to.clone());
            }
            PresenceType::Unavailable => slot.directed.retain(|told| told != to),
            _ => {}
        }
        true
    }
}

/// RFC 6121 §4.7.2.3: an integer from -128 to 127; absent means 0.
fn priority(stanza: &Stanza<'_>) -> Result<i8, ()> {
    let Some(child) = stanza.child(crate::xmpp::ns::CLIENT, "priority") else { return Ok(0) };
    child.text().trim().parse().map_err(|_| ())
}
