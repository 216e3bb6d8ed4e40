//! Subscriptions (RFC 6121 §3): what requests and their answers do to rosters, and who is told. What follows from which
//! state is `state`'s to say.

mod state;

pub(super) use state::Request;

use super::account::AccountId;
use super::effect::Effects;
use super::inbound::Fate;
use super::ring::FrameRef;
use super::roster::Contact;
use super::session::SessionId;
use super::{Core, Post, Shard, Waiting};
use crate::frame::Envelope;
use crate::xmpp::jid::Jid;
use crate::xmpp::stanza::{PresenceType, Stanza, StanzaKind};
use crate::xmpp::stanza_error::StanzaCondition;
use state::{Audience, Show, State};

/// A subscription request longer than this is kept without what was added to it: anyone may send one.
const REQUEST_BYTES: usize = 4 << 10;

/// Subscription requests and their answers: they belong to accounts and change rosters.
pub(super) fn is_subscription(code: u8) -> bool {
    PresenceType::from_code(code).and_then(Request::of).is_some()
}

/// `<presence type=''/>` from one bare JID to another.
pub(super) fn bare_reply(from: &str, to: &str, kind: &str) -> Post {
    let (from, _) = super::deliver::split(from);
    let (to, _) = super::deliver::split(to);
    super::presence::plain(from, to, PresenceType::parse(Some(kind)).unwrap_or_default())
}

impl Shard {
    /// A subscription stanza of one of our users. It is between bare JIDs, whatever its addresses say (§3.1.2).
    ///
    /// - errors: `not-acceptable` where the roster has no room for a new contact
    pub(super) fn client_subscription(
        &mut self,
        session: SessionId,
        number: Option<u32>,
        (kind, request): (PresenceType, Request),
        to: Jid,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Fate {
        let core = &mut self.core;
        let to: Jid = to.into_bare().into();
        let limit = core.config.limits.roster_items;
        let Some(account) = core.sessions.get(session.0).map(|slot| slot.account) else {
            return Fate::Handled;
        };
        let Some(slot) = core.accounts.get_mut(account.0) else { return Fate::Handled };
        if slot.jid == *to.bare() {
            // Everybody sees their own presence; there is nothing to ask for (§4.2.2).
            return Fate::Handled;
        }
        let Some(data) = slot.data() else { return Fate::Handled };
        let before = Contact::of(data, &to);
        let outcome = State::of(&before).outbound(request);
        let contact = before.clone().with(outcome.state);
        if contact.listed && !before.listed && data.listed() >= limit {
            let condition = StanzaCondition::NotAcceptable;
            self.refuse(session, StanzaKind::Presence, stanza, condition, fx);
            return Fate::Handled;
        }
        if outcome.show == Show::Gone {
            core.leave_presence_for(account, &to, false);
            self.send_posts(fx);
        }
        let core = &mut self.core;
        let changed = contact != before;
        // What goes on is handled when the contact's server has it; else the change is all there is to wait for.
        let waits = number.filter(|_| changed && !outcome.routed).map(|number| (session, number));
        if changed {
            let ticket = core.change_roster(account, contact.change(), fx);
            core.tickets.insert(ticket, Waiting::Change { account, at: None, stanza: waits });
        }
        if outcome.show == Show::Here {
            core.leave_presence_for(account, &to, true);
        }
        if outcome.routed {
            return self.send_directed(session, number, kind, &to, stanza, fx);
        }
        if waits.is_some() { Fate::Waiting } else { Fate::Handled }
    }
}

impl Core {
    /// A subscription stanza of a contact.
    pub(super) fn inbound_subscription(
        &mut self,
        account: AccountId,
        request: Request,
        envelope: &Envelope<'_>,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let Ok(from) = self.jids.parse(super::deliver::split(envelope.from).0) else { return };
        let limit = self.config.limits.subscription_requests;
        let Some(slot) = self.accounts.get_mut(account.0) else { return };
        let own = slot.jid.clone();
        let Some(data) = slot.data() else { return };
        if own == *from.bare() {
            return;
        }
        let before = Contact::of(data, &from);
        let state = State::of(&before);
        let outcome = state.inbound(request);
        let mut contact = before.clone().with(outcome.state);
        if outcome.state.waits && !state.waits {
            if !contact.listed && data.requests() >= limit {
                return self.leave(bare_reply(own.as_str(), envelope.from, "unsubscribed"));
            }
            contact.pending_in = Some(match envelope.stanza.len() <= REQUEST_BYTES {
                true => envelope.stanza.to_vec(),
                false => bare_reply(envelope.from, own.as_str(), "subscribe").stanza,
            });
        }
        // §3.1.6 and its like: resources learn what happened before they learn what it did to the roster.
        let listeners = match outcome.audience {
            Audience::Nobody => super::deliver::Targets::default(),
            Audience::Available => self.available_sessions(account),
            Audience::Interested => self.interested_sessions(account),
        };
        for session in listeners {
            self.emit_to(session, envelope.stanza, envelope.open_end, fx);
        }
        if contact != before {
            let ticket = self.change_roster(account, contact.change(), fx);
            let awaited = at.awaited(envelope.flags);
            self.hold_frame(awaited);
            let waiting = Waiting::Change { account, at: awaited, stanza: None };
            self.tickets.insert(ticket, waiting);
        }
        if outcome.show == Show::Gone {
            self.leave_presence_for(account, &from, false);
        }
        // An account of ours knows already that it is unsubscribed: all that the reply could do there is to undo a new
        // request that it sent meanwhile.
        let is_known =
            |reply| reply == Request::Unsubscribed && self.is_local_domain(from.domain());
        if let Some(reply) = outcome.reply.filter(|reply| !is_known(*reply)) {
            self.leave(bare_reply(own.as_str(), envelope.from, reply.name()));
        }
        if outcome.show == Show::Here {
            self.leave_presence_for(account, &from, true);
        }
    }
}

impl Contact {
    /// The entry in a new state. Who only asks is not in the roster (§2.1.2.5); whom the user asks, or lets ask, is.
    fn with(mut self, state: State) -> Self {
        let ours = state.to || state.from || state.asked || state.approved;
        self.listed |= ours;
        self.subscription = state.subscription();
        self.ask = state.asked;
        self.approved = state.approved;
        if !state.waits {
            self.pending_in = None;
        }
        self
    }
}
