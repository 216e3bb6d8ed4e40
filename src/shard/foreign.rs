//! Stanzas to and from other domains (DESIGN §7), as far as they are not dealt with as all others are. What is for another
//! domain goes to the federation core of that domain by the ring that lies behind those of the shards; what a federation
//! core brings is delivered as if a stranger's session had sent it here.
//!
//! A frame to a federation core wants an acknowledgement only if its message is storable: then it is handled when it is
//! durable there. All else is handled when the core has it, as what goes to a session is when it is written. *Handled* is
//! one number per ring, and a session cannot be resumed while a stanza of it is open: one domain that is dead must hold up
//! neither others nor a login here.

use super::account::AccountId;
use super::deliver::Targets;
use super::effect::{ConnId, Effects};
use super::feature::{Method, Scope};
use super::peers::Peer;
use super::phase::Audience;
use super::presence::{gone, unaddressed};
use super::ring::FrameRef;
use super::route::Realm;
use super::session::SessionId;
use super::{Core, Shard, config, deliver};
use crate::frame::{self, Envelope, Flags, Kind};
use crate::xmpp::stanza::{IqType, PresenceType};

/// The marks of a frame that goes to a federation core.
pub(super) fn outgoing_flags(flags: Flags) -> Flags {
    match flags.contains(Flags::STORABLE) {
        true => flags,
        false => flags.without(Flags::WANTS_ACK),
    }
}

impl Shard {
    /// A stanza from another domain for a component: it goes to the shard that a stanza of a client would go to.
    pub(super) fn foreign_to_component(
        &mut self,
        component: usize,
        envelope: &Envelope<'_>,
        to: &str,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        match self.core.destination(envelope.from, to, 0) {
            Some(peer) if peer != Peer::from(self.core.id) => {
                self.core.hold_frame(at.awaited(envelope.flags));
                self.send_frame_to(envelope, to, Some(peer), at, fx);
            }
            _ => self.deliver_to_component(component, envelope, to, fx),
        }
    }

    /// A stanza for one of our domains itself (RFC 6121 §8.1). It is dealt with as a client's is.
    pub(super) fn deliver_to_server(
        &mut self,
        envelope: &Envelope<'_>,
        to: &str,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let method = match (envelope.kind, IqType::from_code(envelope.subtype)) {
            (Kind::Message, _) => {
                return self.core.bounce(envelope, to, &deliver::service_unavailable());
            }
            (Kind::Iq, Some(IqType::Get)) => Method::Get,
            (Kind::Iq, Some(IqType::Set)) => Method::Set,
            // The server itself has no presence, and asks others nothing by way of a shard.
            _ => return,
        };
        self.answer_for((Scope::Server, None), method, envelope, to, at, fx);
    }

    /// An account's first resource is there: contacts elsewhere that have not answered its requests get them again, as they
    /// may have been lost on their way (RFC 6121 §3.1.2).
    pub(super) fn ask_again(&mut self, account: AccountId, fx: &mut Effects) {
        let core = &mut self.core;
        if !core.is_federated() || core.available_sessions(account).len() != 1 {
            return;
        }
        let Some(slot) = core.accounts.get_mut(account.0) else { return };
        let own = slot.jid.clone();
        let Some(data) = slot.data() else { return };
        let asked = data.roster.iter().filter(|item| item.ask);
        let mut asked: Audience = asked.map(|item| (item.hash64, item.bare().into())).collect();
        asked.retain(|(_, contact)| core.is_remote(contact));
        if asked.is_empty() {
            return;
        }
        let kind = PresenceType::Subscribe;
        let (stanza, close) = unaddressed(own.as_str(), kind);
        self.fan_out(own.as_str(), kind, asked, &stanza, close, close, fx);
    }

    /// The node stops, and a session ends with it: whoever saw it from elsewhere sees it go. Those here go, too.
    pub(super) fn leave_remotes(&mut self, session: SessionId, fx: &mut Effects) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return };
        let (account, from) = (slot.account, slot.text.clone());
        let was_available = slot.presence.take().is_some();
        let told = std::mem::take(&mut slot.directed);
        let mut watchers = Audience::new();
        let data = core.accounts.get_mut(account.0).and_then(|slot| slot.data());
        if let Some(data) = data.filter(|_| was_available) {
            let seeing = data.roster.iter().filter(|item| item.subscription.has_from());
            watchers.extend(seeing.map(|item| (item.hash64, item.bare().into())));
        }
        for jid in told {
            let hash = jid.bare().hash64();
            let is_known = watchers.iter().any(|(_, known)| **known == *jid.bare().as_str());
            if !is_known {
                watchers.push((hash, jid.to_string().into()));
            }
        }
        watchers.retain(|(_, watcher)| core.is_remote(watcher));
        if watchers.is_empty() {
            return;
        }
        let (stanza, close) = gone(&from);
        self.fan_out(&from, PresenceType::Unavailable, watchers, &stanza, close, close, fx);
    }
}

impl Core {
    /// Whether an address is at another domain.
    pub(super) fn is_remote(&self, jid: &str) -> bool {
        self.realm(deliver::domain_of(jid)) == Realm::Elsewhere
    }

    /// A federation core speaks for nobody here, and brings nothing for others. In a cluster it hands back what it has not
    /// sent when its domain is another node's, and says that it has.
    pub(super) fn may_come_in(&self, envelope: &Envelope<'_>) -> bool {
        if envelope.kind == Kind::Control {
            return envelope.subtype == frame::SEALED && self.handover.is_cluster();
        }
        let comes_back = self.placement.federates()
            && !self.is_remote(envelope.from)
            && self.is_remote(envelope.to);
        comes_back
            || self.is_remote(envelope.from)
                && !std::iter::once(envelope.to)
                    .chain(envelope.also_to)
                    .any(|to| self.is_remote(to))
    }

    /// Sessions that are told of an error for the account itself. What a bare JID sends is its requests to see others
    /// (RFC 6121 §3.1.2): one that cannot be delivered is in the roster as unanswered.
    pub(super) fn hearing_refusals(&mut self, account: AccountId, from: &str) -> Targets {
        let (bare, _) = deliver::split(from);
        let data = self.accounts.get_mut(account.0).and_then(|slot| slot.data());
        let asked = data.and_then(|data| data.roster.find(bare)).is_some_and(|item| item.ask);
        if asked { self.interested_sessions(account) } else { Targets::new() }
    }

    /// A client or component has sent this frame: if it went to a federation core whose ring is full, nothing more is read
    /// from there until it has room. Whoever sends nothing there goes on.
    pub(super) fn wait_for_ring(&mut self, id: ConnId, at: FrameRef, fx: &Effects) {
        // In a cluster it may have gone there by way of this shard itself.
        let out = self.went_out.take().filter(|_| at.ring == self.id.0);
        let peer = out.unwrap_or(Peer(at.ring));
        if self.peers.is_federation(peer) {
            let is_full = is_pressed(peer, fx);
            if let Some(conn) = self.conns.get_mut(id.0) {
                conn.awaits = is_full.then_some(peer);
            }
        }
    }

    /// What a connection says must wait for rings or the store.
    pub(super) fn must_wait(&self, id: ConnId, fx: &Effects) -> bool {
        let awaits = self.conns.get(id.0).and_then(|conn| conn.awaits);
        awaits.is_some_and(|peer| is_pressed(peer, fx)) || self.is_pressed(fx)
    }
}

fn is_pressed(peer: Peer, fx: &Effects) -> bool {
    fx.outbox.get(peer.index()).is_some_and(|batch| batch.len_bytes() > config::RING_SOFT_BYTES)
}
