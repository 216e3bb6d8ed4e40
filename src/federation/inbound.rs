//! Connections that peers make: who they are, and what they send.
//!
//! A stanza is taken for the pair of domains that its stream has authenticated, and becomes a frame to the owner of its
//! recipient. With XEP-0198 it is acknowledged when that shard has handled it.

use super::conn::{Hold, Side};
use super::domain::Link;
use super::effect::{Action, ConnId, Effects};
use super::frames::{Carried, Post};
use super::{Core, Failure, Federation, Note, Stage, Timer};
use crate::base::instant::Instant;
use crate::base::limit::Meter;
use crate::base::subnet::Subnet;
use crate::frame::{Class, Kind};
use crate::stream::s2s::rewrite::to_client;
use crate::stream::s2s::{Offer, Opened, Pair};
use crate::stream::sasl::SaslFailure;
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::stanza::{IqType, Stanza, StanzaKind};
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError, write_error_reply};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use smallvec::SmallVec;
use std::sync::Arc;

/// The incoming side of a connection.
#[derive(Debug)]
pub(super) struct In {
    network: Subnet,
    /// It counts among those of its network that have not authenticated.
    stranger: bool,
    /// Pairs that it authenticated.
    pairs: SmallVec<[Pair; 1]>,
    /// Keys that it waits for.
    pub asked: usize,
    /// It asked us for a key.
    pub verifies: bool,
    /// When it could begin to say who it is: accepted, and its handshake done.
    pub since: Instant,
    /// Its header, which waits for what its domain says of its certificate.
    pub opened: Option<Opened>,
    bytes: Meter,
    bytes_free_at: Instant,
}

impl In {
    pub(super) fn new(network: Subnet, now: Instant) -> In {
        In {
            network,
            since: now,
            opened: None,
            stranger: true,
            pairs: SmallVec::new(),
            asked: 0,
            verifies: false,
            bytes: Meter::default(),
            bytes_free_at: Instant::default(),
        }
    }
}

impl Core {
    /// Counts a new connection; false where there are too many.
    pub(super) fn admit(&mut self, network: Subnet) -> bool {
        let limits = &self.config.limits;
        if self.incoming >= limits.incoming {
            return false;
        }
        let (all, strangers) = self.networks.entry(network).or_default();
        if *all >= limits.incoming_per_network || *strangers >= limits.strangers_per_network {
            return false;
        }
        *all += 1;
        *strangers += 1;
        self.incoming += 1;
        true
    }

    pub(super) fn leave(&mut self, side: &In) {
        self.incoming = self.incoming.saturating_sub(1);
        if let Some((all, strangers)) = self.networks.get_mut(&side.network) {
            *all = all.saturating_sub(1);
            *strangers = strangers.saturating_sub(usize::from(side.stranger));
            if *all == 0 {
                self.networks.remove(&side.network);
            }
        }
    }

    /// Which core of this node deals with a remote domain.
    fn core_of(&self, domain: &str) -> Option<u16> {
        let hash = crate::base::hash::hash64(domain.as_bytes());
        crate::cluster::placement::federation_core(hash, self.config.cores)
    }

    /// This one does.
    pub(super) fn deals_with(&self, domain: &str) -> bool {
        self.core_of(domain) == Some(self.config.index) && self.owns(domain)
    }

    /// A peer began its stream.
    pub(super) fn opened(&mut self, id: ConnId, opened: &Opened, fx: &mut Effects) {
        let from = opened.from.as_ref().map(BareJid::as_str);
        let Some(conn) = self.conns.get(id.0) else { return };
        if from.is_some_and(|from| self.is_refused(from)) {
            let error = StreamError::new(StreamCondition::PolicyViolation)
                .with_text("this server does not talk to that domain");
            return self.give_up(id, Failure::Policy, "it is blocked", Some(error), fx);
        }
        let policy = from.map_or(self.config.policy, |from| self.config.policy(from));
        let mut offer = Offer {
            external: false,
            dialback: policy.dialback && !policy.require_certificate,
            bidi: self.config.bidi && from.is_some_and(|from| self.deals_with(from)),
            management: self.config.management,
        };
        if let Some(tls) = &conn.tls {
            if tls.version < policy.oldest_tls {
                let error = StreamError::new(StreamCondition::PolicyViolation)
                    .with_text("this version of TLS is too old here");
                return self.give_up(id, Failure::Policy, "its TLS is too old", Some(error), fx);
            }
            if !opened.is_authenticated
                && let Some(from) = from
                && self.ask_posh(id, from, fx)
            {
                if let Some(conn) = self.conns.get_mut(id.0)
                    && let Side::In(side) = &mut conn.side
                {
                    side.opened = Some(opened.clone());
                }
                return;
            }
        }
        if let Some(tls) = self.conns.get(id.0).and_then(|conn| conn.tls.as_ref()) {
            let trust = from.map(|from| tls.speaks_for(from));
            match trust {
                Some(Ok(_)) => offer.external = !opened.is_authenticated,
                Some(Err(distrust)) if !offer.dialback && !opened.is_authenticated => {
                    let error = StreamError::new(StreamCondition::PolicyViolation).with_text(
                        format!("a valid certificate is needed here: {}", distrust.for_peer()),
                    );
                    let text = distrust.to_string();
                    return self.give_up(id, Failure::Certificate, &text, Some(error), fx);
                }
                _ => {}
            }
            // One that has a valid certificate is believed when it asks (XEP-0220 without asking back).
            offer.dialback |= offer.external;
        }
        let policy = self.policy.clone();
        self.with_stream(id, fx, |stream, out| stream.offer(offer, &policy, out));
        if opened.is_authenticated {
            self.peer_is_there(id, None, fx);
        }
    }

    /// A peer wants to be this domain by its certificate.
    pub(super) fn external(&mut self, id: ConnId, domain: &BareJid, fx: &mut Effects) {
        let Some(conn) = self.conns.get(id.0) else { return };
        let trusted = conn.tls.as_ref().is_some_and(|tls| tls.speaks_for(domain.as_str()).is_ok());
        let pair = conn.stream.as_ref().and_then(|stream| stream.pair());
        let Some(pair) = pair
            .filter(|pair| trusted && pair.remote == *domain && !self.is_refused(domain.as_str()))
        else {
            self.probe.pairs_refused += 1;
            let policy = self.policy.clone();
            let refused = self.with_stream(id, fx, |stream, out| {
                stream.refused(SaslFailure::NotAuthorized, &policy, out)
            });
            if let Some(Err(error)) = refused {
                self.give_up(id, Failure::Auth, "it tries too often", Some(error), fx);
            }
            return;
        };
        self.with_stream(id, fx, |stream, out| stream.authenticated(out));
        self.probe.pairs_by_certificate += 1;
        self.register(id, &pair, "certificate", fx);
    }

    /// A pair is authenticated on an incoming stream.
    pub(super) fn register(&mut self, id: ConnId, pair: &Pair, by: &'static str, fx: &mut Effects) {
        let now = self.now.mono;
        let (idle, silence) = (self.config.limits.idle, self.config.limits.silence);
        let Some(domain) = self.domain(pair.remote.as_str()) else { return };
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        conn.used_at = now;
        let Side::In(side) = &mut conn.side else { return };
        if side.pairs.contains(pair) {
            return;
        }
        side.pairs.push(pair.clone());
        if std::mem::take(&mut side.stranger) {
            if let Some((_, strangers)) = self.networks.get_mut(&side.network) {
                *strangers = strangers.saturating_sub(1);
            }
            self.latencies.record(Stage::Auth, now.since(side.since));
            self.wheel.insert(now + idle + silence, Timer::Idle(id));
            self.wheel.insert(now + silence, Timer::Silence(id));
        }
        if let Some(domain) = self.domains.get_mut(domain.0)
            && !domain.inbound.contains(&id)
        {
            domain.inbound.push(id);
        }
        let Some(own) = self.config.own(pair.local.as_str()).cloned() else { return };
        let name: Arc<str> = pair.remote.as_str().into();
        fx.actions.push(Action::Note(Note::Accepted { domain: name, own: own.clone(), by }));
        self.peer_is_there(id, Some(pair), fx);
    }

    /// Who comes in and has proved who it is may be reached: what waits for another attempt need not, and a stream that goes
    /// both ways carries it. Behind EXTERNAL the stream begins anew, and carries nothing before it has: then it is asked
    /// again, for all of its pairs.
    fn peer_is_there(&mut self, id: ConnId, only: Option<&Pair>, fx: &mut Effects) {
        let Some(conn) = self.conns.get(id.0) else { return };
        let (Some(stream), Side::In(side)) = (&conn.stream, &conn.side) else { return };
        if !stream.is_open() {
            return;
        }
        let carries = |pair: &Pair| stream.is_bidi() && stream.may_send(pair);
        let pairs = side.pairs.iter().filter(|pair| only.is_none_or(|only| *pair == only));
        let pairs: Vec<_> = pairs.map(|pair| (pair.clone(), carries(pair))).collect();
        for (pair, carries) in pairs {
            match self.core_of(pair.remote.as_str()) {
                Some(core) if core != self.config.index => self.tell_alive(core, &pair, fx),
                _ => self.pair_is_alive(&pair, carries, fx),
            }
        }
    }

    /// The remote domain of this pair is there, with a stream that `carries` what waits for it, or without.
    pub(super) fn pair_is_alive(&mut self, pair: &Pair, carries: bool, fx: &mut Effects) {
        let now = self.now.mono;
        let lane = self.find_lane(pair.local.as_str(), pair.remote.as_str());
        let Some((lane, slot)) = lane.and_then(|id| Some((id, self.lanes.get_mut(id.0)?))) else {
            return;
        };
        let goes = match slot.link {
            Link::Waiting => carries,
            Link::BackingOff => carries || slot.attempts.is_alive(now),
            Link::Idle => {
                slot.attempts.is_alive(now);
                false
            }
            Link::Dialling(_) | Link::Up(_) => false,
        };
        if goes {
            slot.link = Link::Idle;
            if slot.wants_stream() {
                self.want_stream(lane, fx);
            }
        }
    }

    /// An incoming connection speaks for nobody any more.
    pub(super) fn unregister(&mut self, id: ConnId) {
        self.forget_asked(id);
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let Side::In(side) = &mut conn.side else { return };
        for pair in std::mem::take(&mut side.pairs) {
            let domain = self.names.get(pair.remote.as_str());
            if let Some(domain) = domain.and_then(|domain| self.domains.get_mut(domain.0)) {
                domain.inbound.retain(|conn| *conn != id);
            }
        }
    }

    /// A peer sent so many bytes.
    pub(super) fn charge_bytes(&mut self, id: ConnId, length: usize) {
        let now = self.now.mono;
        let rate = self.config.limits.bytes;
        if let Some(conn) = self.conns.get_mut(id.0)
            && let Side::In(side) = &mut conn.side
        {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            side.bytes_free_at = side.bytes.charge(length, &rate, now);
        }
    }

    /// Stops reading from a peer that is above its rate, or that has so much out that shards have not handled.
    fn slow_down(&mut self, id: ConnId, domain: &str) {
        let now = self.now.mono;
        let limits = &self.config.limits;
        let free_at = match self.names.get(domain).and_then(|it| self.domains.get_mut(it.0)) {
            Some(domain) => {
                domain.received += 1;
                domain.stanzas.charge(1, &limits.stanzas, now)
            }
            None => Instant::default(),
        };
        let most = limits.unhandled;
        self.hold_above_rate(id, free_at);
        let unhandled = self.conns.get(id.0).map_or(0, |conn| self.unhandled(conn));
        if let Some(conn) = self.conns.get_mut(id.0)
            && conn.hold == Hold::No
            && unhandled >= most
        {
            conn.hold = Hold::Unhandled;
            self.probe.reads_paused += 1;
        }
    }

    /// Stops reading until the rate of bytes allows more, and that of stanzas, which is `free_at`.
    pub(super) fn hold_above_rate(&mut self, id: ConnId, free_at: Instant) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let bytes_free_at = match &conn.side {
            Side::In(side) => side.bytes_free_at,
            Side::Out(_) => Instant::default(),
        };
        let until = free_at.max(bytes_free_at);
        if conn.hold == Hold::No && until > self.now.mono {
            conn.hold = Hold::Rate(until);
            self.probe.reads_paused += 1;
            self.wheel.insert(until, Timer::Rate(id));
        }
    }

    /// A stanza of a peer that cannot be taken is answered, on the stream or by the lane back.
    fn refuse_inbound(
        &mut self,
        stanza: &Stanza<'_>,
        kind: StanzaKind,
        from: &Jid,
        to: &str,
        error: &StanzaError,
        fx: &mut Effects,
    ) {
        self.probe.stanzas_refused += 1;
        if stanza.is_answer() || kind == StanzaKind::Presence {
            return;
        }
        let Some(own) = super::frames::domain_of(to).and_then(|own| self.config.own(own)).cloned()
        else {
            return;
        };
        let mut out = Vec::with_capacity(256);
        let sender = from.to_string();
        let id = stanza.id();
        write_error_reply(&mut out, kind, id.as_deref(), Some(to), Some(&sender), error);
        self.send_own(&own, from.domain(), kind, out, fx);
    }
}

impl Federation {
    /// A stanza of an authenticated pair.
    pub(super) fn stanza(
        &mut self,
        id: ConnId,
        kind: StanzaKind,
        from: &Jid,
        to: &Jid,
        fx: &mut Effects,
    ) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        conn.used_at = self.core.now.mono;
        // The bytes are the reader's, which nobody else touches meanwhile.
        let reader = std::mem::take(&mut conn.reader);
        let number = self.core.count_received(id);
        let stanza = reader.stanza(&self.index);
        let handled =
            !self.core.take_stanza(&stanza, kind, from, to, number.map(Carried::Stanza), fx);
        if let (true, Some(number)) = (handled, number) {
            self.core.stanza_handled(number);
        }
        if let Some(conn) = self.core.conns.get_mut(id.0) {
            conn.reader = reader;
        }
        self.core.slow_down(id, from.domain());
    }

    /// A peer may be below its rate again.
    pub(super) fn rate_due(&mut self, id: ConnId, fx: &mut Effects) {
        let now = self.core.now.mono;
        let held = self.core.conns.get(id.0).map(|conn| conn.hold);
        if matches!(held, Some(Hold::Rate(until)) if until <= now) {
            self.go_on(id, fx);
        }
    }

    /// Shards have handled what a peer sent, so that it is read again.
    pub(super) fn handled_enough(&mut self, id: ConnId, fx: &mut Effects) {
        let limit = self.core.config.limits.unhandled;
        let Some(conn) = self.core.conns.get(id.0) else { return };
        if conn.hold == Hold::Unhandled && self.core.unhandled(conn) < limit / 2 {
            self.go_on(id, fx);
        }
    }
}

impl Core {
    /// Gives whether a frame left for it.
    fn take_stanza(
        &mut self,
        stanza: &Stanza<'_>,
        kind: StanzaKind,
        from: &Jid,
        to: &Jid,
        carried: Option<Carried>,
        fx: &mut Effects,
    ) -> bool {
        self.probe.stanzas_in += 1;
        let (own, remote) = (to.domain(), from.domain());
        let Class { kind: frame, subtype, flags } = match Class::of(kind, stanza) {
            Ok(class) => class,
            Err(condition) => {
                let error = StanzaError::new(condition);
                self.refuse_inbound(stanza, kind, from, &to.to_string(), &error, fx);
                return false;
            }
        };
        let answers = matches!(IqType::from_code(subtype), Some(IqType::Result | IqType::Error));
        // Answers to the server itself are to its pings, which the core of the remote domain sent.
        let to_server = frame == Kind::Iq && answers && to.is_bare() && to.local().is_none();
        if to_server
            && let Some(id) = stanza.id()
            && self.pong(own, remote, &id)
        {
            return false;
        }
        let mut out = std::mem::take(&mut self.scratch);
        let (sender, recipient) = (from.to_string(), to.to_string());
        let (open_end, close_start) = to_client(&mut out, stanza, Some(&sender), Some(&recipient));
        let post = Post {
            from: &sender,
            owner: to.bare(),
            to: &recipient,
            kind: frame,
            subtype,
            flags,
            ingress: self.now.wall,
            stanza: &out,
            open_end,
            close_start,
        };
        // By the shards, where that is another node's.
        let core = if to_server && self.owns(remote) { self.core_of(remote) } else { None };
        let elsewhere = core.filter(|core| *core != self.config.index);
        let left = match elsewhere {
            Some(core) => {
                self.post_on(self.config.shards + core, &post, None, fx);
                false
            }
            None => self.post(&post, carried, fx),
        };
        out.clear();
        self.scratch = out;
        if !left && elsewhere.is_none() {
            let error = StanzaError::new(StanzaCondition::ResourceConstraint);
            self.refuse_inbound(stanza, kind, from, &recipient, &error, fx);
        }
        left
    }
}
