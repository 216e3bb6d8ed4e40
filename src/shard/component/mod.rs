//! External components (XEP-0114) on a shard: their streams, the stanzas they send, and those that are for them.
//!
//! A component's connection stays on the shard that accepted it. What it sends goes to the owners of its recipients as a
//! client's stanzas do; what is for it goes, from whatever shard, to the shard of one of its connections (`table`).
//! Shards tell each other of connections by control frames, which keep their place among other frames. A stanza that
//! meets a shard whose connection has gone meanwhile is answered with an error: sent on, it could be overtaken by what
//! its sender sends after hearing of it. Answers alone, which have no place among others, are sent on.

mod asked;
mod link;
mod table;

pub(super) use link::Link;
pub(super) use table::{Place, Table};

use super::bounce::{Bounce, open_tag_id};
use super::conn::{Conn, Flow};
use super::control::Control;
use super::deliver::{domain_of, is_error, is_result, resource_constraint, service_unavailable};
use super::effect::{ConnId, Effects};
use super::feature::{Method, Scope};
use super::login::FAULTS_FORGIVEN;
use super::peers::Peer;
use super::route::Realm;
use super::subscription::is_subscription;
use super::trace::Step;
use super::turn::{ReplyTo, Request};
use super::{Core, Hold, Post, Shard, Timer, internal_error};
use crate::base::ids::Id;
use crate::cluster::placement::Owner;
use crate::frame::{Class, Envelope, Flags, Kind, Recipients};
use crate::stream::component::{ComponentAccess, Event};
use crate::xmpp::jid::Jid;
use crate::xmpp::stanza::{IqType, PresenceType, Stanza, StanzaKind, has_attr, write_stamped};
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError, write_error_reply};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::reader::{self, Index, StreamContext};
use crate::xmpp::xml::writer::escape_attr;
use std::sync::Arc;

impl Shard {
    /// A new connection for a component.
    pub fn accept_component(
        &mut self,
        now: crate::base::instant::Now,
        peer: std::net::IpAddr,
    ) -> ConnId {
        let conn = self.accept(now, peer, None);
        if let Some(slot) = self.core.conns.get_mut(conn.0) {
            slot.component = Some(Box::default());
        }
        conn
    }

    /// The components that may connect, with how many connections of each this shard holds.
    pub fn components(&self) -> impl Iterator<Item = (&str, usize)> {
        self.core.components.counts(Some(self.core.id.into()))
    }

    /// An element of a component's stream.
    ///
    /// - errors: `resource-constraint` above `Limits::component_connections`; those of the stream and of its stanzas
    pub(super) fn component_element(
        &mut self,
        id: ConnId,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Result<Flow, StreamError> {
        let core = &mut self.core;
        let link = core.conns.get_mut(id.0).and_then(|conn| conn.component.as_mut());
        let Some(link) = link else { return Ok(Flow::Taken) };
        match link.stream.element(stanza, &core.config.components)? {
            Event::Authenticated => self.component_connected(id, fx)?,
            Event::Stanza(kind) => self.component_stanza(id, kind, stanza, fx)?,
        }
        Ok(Flow::Taken)
    }

    fn component_connected(&mut self, id: ConnId, fx: &mut Effects) -> Result<(), StreamError> {
        let core = &mut self.core;
        let link = core.conns.get_mut(id.0).and_then(|conn| conn.component.as_mut());
        let Some(link) = link else { return Ok(()) };
        let mut out = Vec::with_capacity(16);
        link.stream.establish(&mut out);
        let Some(domain) = link.stream.established().cloned() else { return Ok(()) };
        let component = core.components.entry(&domain);
        if core.components.connections(component) >= core.config.limits.component_connections {
            return Err(StreamError::new(StreamCondition::ResourceConstraint)
                .with_text("the component has as many connections as it may have"));
        }
        // It speaks for many: rates are for clients, and what it sends too fast waits for rings and store.
        let network = core.conns.get_mut(id.0).and_then(|conn| conn.network.take());
        core.origins.leave(network, &core.config.limits.rates);
        core.write(id, &out, fx);
        core.wheel.insert(core.now.mono + core.config.limits.silence, Timer::Silence(id));
        core.announce(&domain, id, Control::ComponentConnected, fx);
        core.probe.component_connections += 1;
        let place = core.component_place(core.id.into(), id);
        core.components.add(component, place);
        Ok(())
    }

    /// The stanza met a bug: it is answered, the account that it was for starts afresh, repeats end the stream.
    pub(super) fn faulty_component_element(
        &mut self,
        id: ConnId,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Result<Flow, StreamError> {
        let link = self.core.conns.get_mut(id.0).and_then(|conn| conn.component.as_mut());
        let Some(link) = link else { return Ok(Flow::Taken) };
        link.faults = link.faults.saturating_add(1);
        let given_up = link.faults > FAULTS_FORGIVEN || link.stream.established().is_none();
        if let Some(kind) = stanza.kind() {
            self.core.refuse_component(id, kind, stanza, &internal_error(), fx);
        }
        let to = stanza.to().and_then(|to| self.core.jids.parse(&to).ok());
        let to = to.and_then(|to| self.core.names.get(to.bare().as_str()).copied());
        if let Some(account) = to {
            self.core.reload(account, fx);
        }
        match given_up {
            true => Err(StreamError::new(StreamCondition::InternalServerError)),
            false => Ok(Flow::Taken),
        }
    }

    /// - errors: `improper-addressing` without a sender, `invalid-from` for one that is not the component's
    fn component_stanza(
        &mut self,
        id: ConnId,
        kind: StanzaKind,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Result<(), StreamError> {
        let core = &mut self.core;
        core.probe.stanzas_in += 1;
        core.probe.component_stanzas_in += 1;
        core.meter.enter(kind, core.now);
        let link = core.conns.get(id.0).and_then(|conn| conn.component.as_ref());
        let domain = link.and_then(|link| link.stream.established());
        let from = match stanza.from().map(|from| core.jids.parse(&from)) {
            Some(Ok(from)) if domain.is_some_and(|domain| **domain == *from.domain()) => from,
            Some(Ok(_)) => return Err(StreamError::new(StreamCondition::InvalidFrom)),
            Some(Err(_)) | None => {
                return Err(StreamError::new(StreamCondition::ImproperAddressing)
                    .with_text("each stanza of a component needs a sender"));
            }
        };
        if core.is_tracing() {
            let to = stanza.to().and_then(|to| core.jids.parse(&to).ok());
            core.trace_received(&from.to_string(), to.as_ref(), stanza);
        }
        let to = match stanza.to().map(|to| core.jids.parse(&to)) {
            Some(Ok(to)) => to,
            Some(Err(_)) => {
                let error = StanzaCondition::JidMalformed.into();
                core.refuse_component(id, kind, stanza, &error, fx);
                return Ok(());
            }
            // A component's fault in one stanza need not end what it does for others.
            None => {
                let error = StanzaError::new(StanzaCondition::BadRequest)
                    .with_text("each stanza of a component needs a recipient");
                core.refuse_component(id, kind, stanza, &error, fx);
                return Ok(());
            }
        };
        if let Err(error) = self.component_sends(id, kind, &from, &to, stanza, fx) {
            self.core.refuse_component(id, kind, stanza, &error, fx);
        }
        Ok(())
    }

    /// - errors: what the component is answered
    fn component_sends(
        &mut self,
        id: ConnId,
        kind: StanzaKind,
        from: &Jid,
        to: &Jid,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Result<(), StanzaError> {
        let class = Class::of(kind, stanza)?;
        let Class { kind: frame, subtype, flags } = class;
        if frame == Kind::Iq && !class.asks() {
            self.core.note_answered(id, &from.to_string(), &to.to_string(), stanza, fx);
        }
        let core = &mut self.core;
        match core.realm(to.domain()) {
            Realm::Elsewhere if !core.is_federated() => {
                return Err(StanzaCondition::RemoteServerNotFound.into());
            }
            Realm::Ours if to.local().is_none() => {
                return self.component_asks_server(frame, subtype, from, to, stanza, fx);
            }
            Realm::Ours | Realm::Component | Realm::Elsewhere => {}
        }
        let is_bare = frame == Kind::Presence && is_subscription(subtype);
        let (mut from_text, mut to_text) = (None, None);
        // Subscriptions belong to accounts, not to resources (RFC 6121 §3); only a request is taken as one to the account
        // when it names a resource (§8.5.3.2.2).
        let from = match is_bare {
            true => from.bare().as_str(),
            false => prepared(from, stanza.attr_raw("from"), &mut from_text),
        };
        let to_hash = to.bare().hash64();
        let to = match is_bare && subtype == PresenceType::Subscribe.code() {
            true => to.bare().as_str(),
            false => prepared(to, stanza.attr_raw("to"), &mut to_text),
        };
        let mut bytes = core.buffer();
        let (open_end, close_start) = write_stamped(&mut bytes, stanza, Some(from), Some(to));
        let envelope = Envelope {
            epoch: core.placement.epoch(),
            number: 0,
            hops: 0,
            ingress: core.now.wall,
            trace: core.trace(),
            flags,
            from,
            to,
            also_to: Recipients::NONE,
            kind: frame,
            subtype,
            open_end,
            close_start,
            stanza: &bytes,
        };
        let sent = self.post(&envelope, to_hash, fx);
        self.core.give_back(bytes);
        let at = sent.ok_or_else(resource_constraint)?;
        self.core.wait_for_ring(id, at, fx);
        Ok(())
    }

    /// A stanza for one of our domains itself.
    fn component_asks_server(
        &mut self,
        kind: Kind,
        subtype: u8,
        from: &Jid,
        to: &Jid,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Result<(), StanzaError> {
        let method = match (kind, IqType::from_code(subtype)) {
            (Kind::Message, _) => return Err(service_unavailable()),
            (Kind::Iq, Some(IqType::Get)) => Method::Get,
            (Kind::Iq, Some(IqType::Set)) => Method::Set,
            // As from a client: the server itself has no presence, and asks components nothing.
            _ => return Ok(()),
        };
        let (Some(payload), Some(id)) = (stanza.children().next(), stanza.id()) else {
            return Ok(());
        };
        let subject = to.to_string();
        let reply = ReplyTo {
            to: from.to_string().into(),
            id: id.into(),
            subject: Some(subject.as_str().into()),
            session: None,
            at: None,
        };
        let request =
            Request { method, scope: Scope::Server, payload, account: None, subject: &subject };
        self.ask_features(&request, reply, fx);
        Ok(())
    }

    /// A stanza for a component, at the shard that has the connection.
    pub(super) fn deliver_to_component(
        &mut self,
        component: usize,
        envelope: &Envelope<'_>,
        to: &str,
        fx: &mut Effects,
    ) {
        let core = &mut self.core;
        let conn = loop {
            let place = core.components.choose(component, envelope.from, to, Some(core.id.into()));
            let Some(Place { conn, .. }) = place else {
                // Whoever asked waits for its answer, which nothing can overtake: any connection that is left takes it.
                let another = core.components.choose(component, envelope.from, to, None);
                if another.is_some() && (is_result(envelope) || is_error(envelope)) {
                    let mut post = Post::of(envelope, to);
                    post.flags = post.flags.without(Flags::WANTS_ACK);
                    return core.leave(post);
                }
                return core.bounce_from_component(envelope, to);
            };
            if core.takes_stanzas(conn) {
                break conn;
            }
            core.component_gone(conn, fx);
        };
        let open_end = (envelope.open_end as usize).clamp(1, envelope.stanza.len().max(1));
        let (open, rest) = envelope.stanza.split_at((open_end - 1).min(envelope.stanza.len()));
        // A presence that goes to many has no recipient in it.
        if envelope.kind == Kind::Presence && !has_attr(open, "to") {
            let mut attr = b" to='".to_vec();
            escape_attr(&mut attr, to);
            attr.push(b'\'');
            core.write_to_component(conn, &[open, &attr, rest], fx);
        } else {
            core.write_to_component(conn, &[envelope.stanza], fx);
            core.note_asked(conn, envelope, to);
        }
        if !core.takes_stanzas(conn) {
            core.component_gone(conn, fx);
        }
    }

    /// Another shard has a connection of a component, or had one.
    pub(super) fn component_control(
        &mut self,
        control: Control,
        envelope: &Envelope<'_>,
        from: Peer,
    ) {
        let core = &mut self.core;
        let Ok(text) = std::str::from_utf8(envelope.stanza) else { return };
        let component = core.components.entry(envelope.from);
        if control == Control::ComponentAnswered {
            core.answered_here(component, text);
            return;
        }
        let Ok(number) = text.parse() else { return };
        let place = core.component_place(from, ConnId(Id::from_u64(number)));
        match control {
            Control::ComponentConnected => core.components.add(component, place),
            Control::ComponentGone => {
                core.components.remove(component, place);
            }
            _ => {}
        }
    }

    /// Another configuration holds: a component that is no longer in it, or has another secret, is sent away.
    pub(super) fn components_reconfigured(&mut self, old: &[ComponentAccess], fx: &mut Effects) {
        let core = &mut self.core;
        let config = core.config.clone();
        if *old == *config.components {
            return;
        }
        core.components.configure(&config.components);
        let of = |list: &[ComponentAccess], domain: &Arc<str>| {
            list.iter().position(|access| access.domain == *domain)
        };
        let mut ended = Vec::new();
        for (id, conn) in core.conns.iter() {
            let link = conn.component.as_ref();
            let Some(domain) = link.and_then(|link| link.stream.established()) else { continue };
            match (of(old, domain), of(&config.components, domain)) {
                (_, None) => ended.push((ConnId(id), StreamCondition::HostGone)),
                (Some(before), Some(now)) if old[before] != config.components[now] => {
                    ended.push((ConnId(id), StreamCondition::NotAuthorized));
                }
                _ => {}
            }
        }
        for (id, condition) in ended {
            self.close(id, Some(StreamError::new(condition)), fx);
        }
    }

    /// A component's connection is lost: what it was asked is answered for it, and what it did not take goes back to the
    /// senders.
    pub(super) fn component_closed(&mut self, id: ConnId, conn: &mut Conn, fx: &mut Effects) {
        let Some(mut link) = conn.component.take() else { return };
        if let Some(domain) = link.stream.claimed() {
            self.core.forget_component(domain, id, fx);
        }
        let core = &mut self.core;
        let limits = core.config.policy.limits.clone();
        let read = |bytes, index: &mut Index| {
            reader::read(bytes, &StreamContext::client(), &limits, index).is_ok()
        };
        let mut index = Index::default();
        let undelivered: Vec<&[u8]> =
            link.undelivered().filter_map(|range| conn.output_at(range)).collect();
        for bytes in &undelivered {
            if read(bytes, &mut index)
                && let Some(name) = asked::name_of(&Stanza { bytes, index: &index })
            {
                link.forget_asked(&name);
            }
        }
        core.answer_open(link.asked.open());
        for bytes in undelivered {
            if read(bytes, &mut index) {
                core.bounce_undelivered(&Stanza { bytes, index: &index });
            }
        }
    }
}

impl Core {
    /// Who deals with a stanza: the shard of the component's connection, the federation core of another domain, or the owner
    /// of the account. Without federation all that is no component's counts as an account.
    pub(super) fn destination(&self, from: &str, to: &str, hash64: u64) -> Option<Peer> {
        match self.components.of(to) {
            // Without a connection it is answered where it is.
            Some(component) => {
                let place = self.components.choose(component, from, to, None);
                Some(place.map_or(self.id.into(), |place| place.peer))
            }
            None if self.is_federated() && !self.is_local_domain(domain_of(to)) => {
                self.way_out(domain_of(to))
            }
            None => self.peers.of(self.placement.owner(hash64)),
        }
    }

    /// Who serves a domain.
    pub(super) fn realm(&self, domain: &str) -> Realm {
        if self.is_local_domain(domain) {
            Realm::Ours
        } else if self.components.serving(domain).is_some() {
            Realm::Component
        } else {
            Realm::Elsewhere
        }
    }

    /// A connection gets nothing more; the other shards are told.
    pub(super) fn component_gone(&mut self, id: ConnId, fx: &mut Effects) {
        let link = self.conns.get(id.0).and_then(|conn| conn.component.as_ref());
        if let Some(domain) = link.and_then(|link| link.stream.claimed()).cloned() {
            self.forget_component(&domain, id, fx);
        }
    }

    fn forget_component(&mut self, domain: &str, id: ConnId, fx: &mut Effects) {
        let component = self.components.entry(domain);
        let place = self.component_place(self.id.into(), id);
        if self.components.remove(component, place) {
            self.probe.component_connections -= 1;
            self.announce(domain, id, Control::ComponentGone, fx);
        }
    }

    /// Tells the other shards. Such a frame is never refused, however full a ring is: there are few of them.
    fn announce(&mut self, domain: &str, id: ConnId, control: Control, fx: &mut Effects) {
        let number = id.0.to_u64().to_string();
        let peers: Vec<Peer> = self.peers.live().filter(|peer| *peer != self.id.into()).collect();
        for peer in peers {
            self.send_control(peer, control, domain, number.as_bytes(), fx);
        }
    }

    /// A shard is new: it learns of the components that are connected here.
    pub(super) fn announce_components_to(&mut self, peer: Peer, fx: &mut Effects) {
        let own: Vec<(Arc<str>, ConnId)> = self.components.of_peer(self.id.into()).collect();
        for (domain, conn) in own {
            let number = conn.0.to_u64().to_string();
            self.send_control(peer, Control::ComponentConnected, &domain, number.as_bytes(), fx);
        }
    }

    fn component_place(&self, peer: Peer, conn: ConnId) -> Place {
        let at = self.peers.place(peer);
        Place { peer, conn, owner: Owner { node: at.run.node, shard: at.shard } }
    }

    /// False where the connection is being closed, for reading too slowly among other reasons.
    fn takes_stanzas(&self, id: ConnId) -> bool {
        self.conns.get(id.0).is_some_and(|conn| conn.hold != Hold::Closing)
    }

    fn write_to_component(&mut self, id: ConnId, parts: &[&[u8]], fx: &mut Effects) {
        self.probe.stanzas_out += 1;
        self.probe.component_stanzas_out += 1;
        let before = self.conns.get(id.0).map_or(0, Conn::output_len);
        for part in parts {
            self.write(id, part, fx);
        }
        self.meter.delivered(id, self.now);
        if self.is_tracing() {
            self.trace_to_component(id, parts);
        }
        let length = parts.iter().map(|part| part.len()).sum();
        if let Some(conn) = self.conns.get_mut(id.0)
            && conn.output_len() == before + length
        {
            conn.note_stanza(length);
        }
    }

    /// Answers a component's stanza on its own connection; errors and results get no answer.
    fn refuse_component(
        &mut self,
        id: ConnId,
        kind: StanzaKind,
        stanza: &Stanza<'_>,
        error: &StanzaError,
        fx: &mut Effects,
    ) {
        self.trace_refused(stanza, error);
        if stanza.is_answer() {
            return;
        }
        if kind == StanzaKind::Message {
            self.probe.messages_bounced += 1;
        }
        let mut out = Vec::with_capacity(256);
        let (from, to) = (stanza.to(), stanza.from());
        write_error_reply(
            &mut out,
            kind,
            stanza.id().as_deref(),
            from.as_deref(),
            to.as_deref(),
            error,
        );
        self.write(id, &out, fx);
        self.trace_to_component(id, &[&out]);
    }

    /// The stanza is for a component that has no connection (here, any more).
    fn bounce_from_component(&mut self, envelope: &Envelope<'_>, to: &str) {
        let open = envelope.stanza.get(..envelope.open_end as usize).unwrap_or_default();
        self.probe.component_stanzas_bounced += 1;
        // News of a resource go to many, and are asked for again; who asked for something is told.
        let expects = envelope.kind != Kind::Presence || has_attr(open, "to");
        let timeout = StanzaCondition::RemoteServerTimeout.name();
        let step = if expects { Step::Refused } else { Step::Dropped };
        self.trace_envelope(envelope, to, step, timeout);
        if expects {
            let bounce = Bounce::new(envelope.kind, envelope.subtype, envelope.from, to, open);
            self.bounce_component(&bounce);
        }
    }

    /// As it stands in the output of a connection that was lost.
    fn bounce_undelivered(&mut self, stanza: &Stanza<'_>) {
        self.probe.component_stanzas_bounced += 1;
        let (Some(kind), Some(from), Some(to)) = (stanza.kind(), stanza.from(), stanza.to()) else {
            return;
        };
        let (kind, subtype) = match kind {
            StanzaKind::Message => (Kind::Message, stanza.message_type().code()),
            StanzaKind::Iq => (Kind::Iq, stanza.iq_type().map_or(u8::MAX, IqType::code)),
            StanzaKind::Presence => {
                (Kind::Presence, stanza.presence_type().map_or(u8::MAX, PresenceType::code))
            }
        };
        self.bounce_component(&Bounce::new(kind, subtype, &from, &to, stanza.open_tag()));
    }

    fn bounce_component(&mut self, bounce: &Bounce) {
        let error = StanzaError::new(StanzaCondition::RemoteServerTimeout)
            .with_text("the component is not connected");
        match (bounce.kind, PresenceType::from_code(bounce.subtype)) {
            (Kind::Presence, Some(PresenceType::Error | PresenceType::Unavailable) | None) => {}
            (Kind::Presence, Some(_)) => self.leave(presence_error(bounce, &error)),
            _ => self.bounce_later(bounce, &error),
        }
    }
}

/// A prepared address as text: as it was sent, where that is the same.
fn prepared<'a>(jid: &'a Jid, raw: Option<&'a str>, made: &'a mut Option<String>) -> &'a str {
    match raw {
        Some(raw) if jid.is(raw) => raw,
        _ if jid.is_bare() => jid.bare().as_str(),
        _ => made.insert(jid.to_string()),
    }
}

fn presence_error(bounce: &Bounce, error: &StanzaError) -> Post {
    let id = open_tag_id(&bounce.open);
    let mut stanza = Vec::with_capacity(256);
    let (from, to) = (Some(&*bounce.to), Some(&*bounce.from));
    write_error_reply(&mut stanza, StanzaKind::Presence, id.as_deref(), from, to, error);
    let code = PresenceType::Error.code();
    Post::whole(&bounce.to, &bounce.from, Kind::Presence, code, stanza)
}
