//! What a feature may do while it is called: read the account, change it, send.

use super::account::{AccountId, Data};
use super::copy;
use super::effect::{Action, Effects};
use super::errand::{Errand, Outcome};
use super::feature::{DiscoRequest, Discovery, Iq, Manifest, Method, Scope, Verdict};
use super::inbound::Fate;
use super::input::StoreOutcome;
use super::outbound::Mark;
use super::ring::FrameRef;
use super::roster::RosterChange;
use super::session::SessionId;
use super::{Core, Hold, Post, Shard, Waiting, presence, subscription};
use crate::base::instant::Now;
use crate::cluster::map::ShardMap;
use crate::frame::Kind;
use crate::store::{ArchiveQuery, Query, Write};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::stanza::{Child, IqType, PresenceType, Stanza, StanzaKind};
use crate::xmpp::stanza_error::{StanzaError, write_error_reply};
use crate::xmpp::xml::reader::Index;
use crate::xmpp::xml::writer::Writer;
use smallvec::SmallVec;
use std::any::Any;
use std::sync::Arc;

/// Whom an answer goes to.
#[derive(Clone, Debug)]
pub(super) struct ReplyTo {
    /// Full JID of who asked.
    pub(super) to: Arc<str>,
    pub(super) id: Box<str>,
    /// Who was asked, where the request named it.
    pub(super) subject: Option<Box<str>>,
    /// The asking session and its stanza's number, where it is one of ours.
    pub(super) session: Option<(SessionId, Option<u32>)>,
    /// The frame that brought the request.
    pub(super) at: Option<FrameRef>,
}

/// A request on its way to the features.
pub(super) struct Request<'a> {
    pub method: Method,
    pub scope: Scope,
    pub payload: Child<'a>,
    pub account: Option<AccountId>,
    pub subject: &'a str,
}

/// A feature's view of its shard during one call.
pub struct Turn<'a> {
    core: &'a mut Core,
    fx: &'a mut Effects,
    feature: usize,
    /// Whoever asked, where an IQ is answered.
    reply: Option<&'a ReplyTo>,
    discovery: Option<Discovery>,
    /// What the feature left with its question to the store.
    context: Option<Box<dyn Any>>,
}

impl<'a> Turn<'a> {
    /// Nobody waits for an answer.
    pub(super) fn silent(core: &'a mut Core, fx: &'a mut Effects, feature: usize) -> Self {
        Self { core, fx, feature, reply: None, discovery: None, context: None }
    }

    /// Somebody waits for an answer.
    fn answering(
        core: &'a mut Core,
        fx: &'a mut Effects,
        feature: usize,
        reply: &'a ReplyTo,
    ) -> Self {
        Self { reply: Some(reply), ..Self::silent(core, fx, feature) }
    }
}

impl Turn<'_> {
    pub fn now(&self) -> Now {
        self.core.now
    }

    /// How long the server runs.
    pub fn uptime(&self) -> std::time::Duration {
        self.core.now.mono.since(self.core.began)
    }

    /// Who owns what at the epoch that this shard acts by.
    pub fn shard_map(&self) -> ShardMap {
        match self.core.handover.view() {
            Some(view) => ShardMap::of(view),
            None => ShardMap::of_placement(&self.core.placement),
        }
    }

    /// Whether an address is at one of our domains, or a component's.
    pub fn is_local(&self, jid: &str) -> bool {
        let domain = super::deliver::domain_of(jid);
        let config = &self.core.config;
        config.policy.domains.iter().any(|own| &**own == domain)
            || config.components.iter().any(|component| *component.domain == *domain)
    }

    /// What all features say of themselves.
    pub fn manifests(&self) -> &[&'static Manifest] {
        &self.core.manifests
    }

    /// Components that are connected, as far as they belong to one of our domains: those below it, and those below none.
    pub fn connected_components(&self, domain: &str) -> impl Iterator<Item = &str> {
        let is_below = |component: &str, domain: &str| {
            component.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        };
        let domains = &self.core.config.policy.domains;
        self.core.components.counts(None).filter_map(move |(component, connections)| {
            let belongs = is_below(component, domain)
                || !domains.iter().any(|domain| is_below(component, domain));
            (connections > 0 && belongs).then_some(component)
        })
    }

    /// What the features added to service discovery; for those whose manifest says that they gather.
    pub fn take_discovery(&mut self) -> Discovery {
        self.discovery.take().unwrap_or_default()
    }

    /// The account itself asks, not somebody else.
    pub fn is_own(&self) -> bool {
        self.reply.is_some_and(|reply| reply.session.is_some())
    }

    /// Full JIDs of the account's available resources.
    pub fn available_resources(&self, account: AccountId) -> Vec<String> {
        let sessions = self.core.available_sessions(account).into_iter();
        let text = |session: SessionId| Some(self.core.sessions.get(session.0)?.text.to_string());
        sessions.filter_map(text).collect()
    }

    pub fn limits(&self) -> &super::Limits {
        &self.core.config.limits
    }

    pub fn account(&mut self, account: AccountId) -> Option<&mut Data> {
        self.core.accounts.get_mut(account.0)?.data()
    }

    pub fn account_jid(&self, account: AccountId) -> Option<&BareJid> {
        Some(&self.core.accounts.get(account.0)?.jid)
    }

    /// Whether `watcher` (bare) may see the account's presence.
    pub fn may_see(&mut self, account: AccountId, watcher: &str) -> bool {
        let own = self.account_jid(account).is_some_and(|own| own.as_str() == watcher);
        own || self.account(account).is_some_and(|data| {
            data.roster.iter().any(|item| item.subscription.has_from() && item.bare() == watcher)
        })
    }

    /// The asking session gets roster pushes from now on.
    pub fn set_interested(&mut self, session: SessionId) {
        if let Some(slot) = self.core.sessions.get_mut(session.0) {
            slot.interested = true;
        }
        self.core.changed(session, copy::KEPT_WITH_IT);
    }

    /// Changes the roster; the feature returns `Verdict::Pending` and the request is answered when it is durable.
    pub fn change_roster(&mut self, account: AccountId, change: RosterChange) {
        let ticket = self.core.change_roster(account, change, self.fx);
        self.wait_for(account, ticket, true);
    }

    /// A view of a stanza on its way; `None` only for what is none.
    pub fn read<'b>(&self, stanza: &'b [u8], index: &'b mut Index) -> Option<Stanza<'b>> {
        self.core.view(stanza, index)
    }

    /// The account's sessions, those that wait to be resumed included.
    pub fn sessions(&self, account: AccountId) -> SmallVec<[SessionId; 4]> {
        let slot = self.core.accounts.get(account.0);
        slot.map_or_else(SmallVec::new, |slot| SmallVec::from_slice(&slot.sessions))
    }

    /// The full JID of a session.
    pub fn session_jid(&self, session: SessionId) -> Option<&Jid> {
        Some(&self.core.sessions.get(session.0)?.jid)
    }

    /// What a feature keeps with the session; made at its first use.
    pub fn session_slot<T: Any + Default>(&mut self, session: SessionId) -> Option<&mut T> {
        self.core.changed(session, copy::KEPT_WITH_IT);
        Some(self.core.sessions.get_mut(session.0)?.slots.get_or_insert_default().slot())
    }

    /// As `session_slot`, if it was used before.
    pub fn session_slot_in_use<T: Any>(&self, session: SessionId) -> Option<&T> {
        self.core.sessions.get(session.0)?.slots.as_ref()?.find()
    }

    /// What the session's client says of itself (XEP-0352).
    pub fn set_active(&mut self, session: SessionId, active: bool) {
        self.core.set_active(session, active, self.fx);
    }

    /// Sends a stanza to a session of an account that is owned here.
    ///
    /// - `parts`: the stanza, in pieces that are written one after the other
    pub fn send(&mut self, session: SessionId, parts: &[&[u8]]) {
        self.core.emit(session, parts, Mark::NONE, self.fx);
    }

    /// Has the store write something. In `on_iq` the feature returns `Verdict::Pending` and the request is answered when
    /// it is done; elsewhere nobody waits. The account is read again if it fails.
    pub fn write(&mut self, account: AccountId, write: Write) {
        let ticket = self.core.ticket(Waiting::Nobody);
        self.fx.writes.push((ticket, write));
        self.core.wrote(account);
        self.wait_for(account, ticket, true);
    }

    /// As `write`, for a change beside the one that the request waits for: it becomes durable together with it or before.
    pub fn write_beside(&mut self, account: AccountId, write: Write) {
        let ticket = self.core.ticket(Waiting::Log(account));
        self.fx.writes.push((ticket, write));
        self.core.wrote(account);
    }

    /// Asks the store on behalf of an IQ; the feature returns `Verdict::Pending`.
    pub fn query(&mut self, account: AccountId, query: Query) {
        let ticket = self.core.ticket(Waiting::Nobody);
        self.fx.queries.push((ticket, query));
        self.wait_for(account, ticket, false);
    }

    /// As `query`; `on_stored` takes `context` back.
    pub fn query_with(&mut self, account: AccountId, query: Query, context: impl Any) {
        let ticket = self.core.ticket(Waiting::Nobody);
        self.fx.queries.push((ticket, query));
        self.wait_with(account, ticket, false, Some(Box::new(context)));
    }

    /// What the feature gave to `query_with`.
    pub fn take_context<T: Any>(&mut self) -> Option<Box<T>> {
        self.context.take()?.downcast().ok()
    }

    /// The session that asks, where it is one of the account's own.
    pub fn asking_session(&self) -> Option<SessionId> {
        Some(self.reply?.session?.0)
    }

    /// Stanzas and bytes that may be sent to a session at once, on top of what it has not read or acknowledged.
    pub fn room_for(&self, session: SessionId) -> (usize, usize) {
        self.core.room_for(session)
    }

    /// Whether accounts have archives.
    pub fn has_archives(&self) -> bool {
        self.core.config.archive
    }

    /// A question about all that the account's archive holds by now, to be narrowed down.
    pub fn archive_query(&mut self, account: AccountId) -> Option<ArchiveQuery> {
        self.core.archive_query(account)
    }

    /// The id that clients know a row of an account's archive by.
    pub fn archive_id(&self, own: &BareJid, row: u64) -> String {
        self.core.shown_id(own, row)
    }

    /// The row of an id, which need not be there any more; `None` for what was never an id of this account.
    pub fn archive_position(&self, own: &BareJid, id: &str) -> Option<u64> {
        self.core.row_of_id(own, id)
    }

    /// Has a side thread do something for an IQ; the feature returns `Verdict::Pending` and is asked again in `on_errand`.
    ///
    /// - takes: `context`, which `on_errand` gets back
    pub fn errand(&mut self, errand: Errand, context: impl Any) {
        let feature = self.feature;
        let waiting = match self.reply.cloned() {
            Some(reply) => Waiting::Errand { feature, reply, context: Box::new(context) },
            None => Waiting::Nobody,
        };
        let ticket = self.core.ticket(waiting);
        self.fx.actions.push(Action::Administer { ticket, errand });
    }

    /// A fresh random name of so many characters, which nobody can guess.
    pub fn token(&mut self, length: usize) -> String {
        self.core.rng.token(length)
    }

    /// Whether a password may pass on the session's stream.
    pub fn may_send_password(&self, session: SessionId) -> bool {
        let conn = self.core.sessions.get(session.0).and_then(|session| session.conn);
        let conn = conn.and_then(|conn| self.core.conns.get(conn.0));
        conn.is_some_and(|conn| conn.stream.may_send_password(&self.core.config.policy))
    }

    /// Whether strangers make accounts in-band.
    pub fn is_registration_open(&self) -> bool {
        self.core.config.policy.registration
    }

    /// Whether a full or bare JID is an administrator of this server. Nobody of another domain is, whatever is configured:
    /// it would be that domain's word alone.
    pub fn is_admin(&self, jid: &str) -> bool {
        let (bare, _) = super::deliver::split(jid);
        self.is_local(jid) && self.core.config.admins.iter().any(|admin| admin.as_str() == bare)
    }

    /// Sends `<presence type=''/>` from the account to a contact.
    pub fn send_subscription(&mut self, account: AccountId, to: &Jid, kind: &str) {
        if let Some(own) = self.account_jid(account).cloned() {
            self.core.leave(subscription::bare_reply(own.as_str(), &to.to_string(), kind));
        }
    }

    /// Tells a contact that the account's resources are gone for it.
    pub fn hide_from(&mut self, account: AccountId, contact: &Jid) {
        self.core.leave_presence_for(account, contact, false);
    }

    /// Tells a contact where the account's resources are.
    pub fn show_to(&mut self, account: AccountId, contact: &Jid) {
        self.core.leave_presence_for(account, contact, true);
    }

    /// Asks for a contact's presence, for each resource that is available.
    pub fn probe(&mut self, account: AccountId, contact: &Jid) {
        let to = contact.bare().as_str();
        for session in self.core.available_sessions(account) {
            if let Some(slot) = self.core.sessions.get(session.0) {
                let from = slot.text.clone();
                self.core.leave(presence::plain(&from, to, PresenceType::Probe));
            }
        }
    }

    /// Tells those whom a session told directly, and that are `gone`, that it is unavailable.
    pub fn retract_directed(&mut self, account: AccountId, gone: impl Fn(&Jid) -> bool) {
        for session in self.sessions(account) {
            let Some(slot) = self.core.sessions.get_mut(session.0) else { continue };
            let from = slot.text.clone();
            let told: Vec<Jid> = slot.directed.iter().filter(|jid| gone(jid)).cloned().collect();
            slot.directed.retain(|jid| !told.contains(jid));
            self.core.changed(session, copy::KEPT_WITH_IT);
            for jid in told {
                let to = jid.to_string();
                self.core.leave(presence::plain(&from, &to, PresenceType::Unavailable));
            }
        }
    }

    fn wait_for(&mut self, account: AccountId, ticket: super::Ticket, wrote: bool) {
        self.wait_with(account, ticket, wrote, None);
    }

    fn wait_with(
        &mut self,
        account: AccountId,
        ticket: super::Ticket,
        wrote: bool,
        context: Option<Box<dyn Any>>,
    ) {
        let waiting = match self.reply {
            Some(reply) => {
                let (feature, reply) = (self.feature, reply.clone());
                Waiting::Feature { feature, account, reply, wrote, context }
            }
            None if wrote => Waiting::Change { account, at: None, stanza: None },
            None => Waiting::Nobody,
        };
        self.core.tickets.insert(ticket, waiting);
    }
}

impl Shard {
    /// Finds the feature that answers a request, and sends its answer.
    pub(super) fn ask_features(
        &mut self,
        request: &Request<'_>,
        reply: ReplyTo,
        fx: &mut Effects,
    ) -> Fate {
        let answers = |manifest: &Manifest| {
            manifest.answers.iter().any(|answer| {
                answer.method == request.method
                    && answer.namespace == request.payload.namespace
                    && answer.name == request.payload.name
                    && answer.scopes.contains(&request.scope)
            })
        };
        let place = self.core.manifests.iter().position(|manifest| answers(manifest));
        let Some(feature) = place else {
            self.core.answer(&reply, Err(super::deliver::service_unavailable()), fx);
            return Fate::Handled;
        };
        let iq = Iq {
            method: request.method,
            scope: request.scope,
            payload: request.payload,
            from: &reply.to,
            session: reply.session.map(|(session, _)| session),
            account: request.account,
            subject: request.subject,
        };
        let discovery = self.core.manifests[feature].gathers.then(|| {
            let node = request.payload.attr("node").filter(|node| !node.is_empty());
            let request = DiscoRequest {
                is_items: request.payload.namespace == ns::DISCO_ITEMS,
                scope: request.scope,
                from: &reply.to,
                account: request.account,
                subject: request.subject,
                node: node.as_deref(),
            };
            self.discover(&request, &reply, fx)
        });
        let turn = Turn::answering(&mut self.core, fx, feature, &reply);
        let mut turn = Turn { discovery, ..turn };
        let verdict = self.features[feature].on_iq(&mut turn, &iq);
        match verdict {
            Verdict::Result(payload) => self.core.answer(&reply, Ok(payload), fx),
            Verdict::Error(error) => self.core.answer(&reply, Err(error), fx),
            Verdict::Pending => {
                // What the client sends next must not overtake the change.
                let conn = reply.session.and_then(|(session, _)| self.core.sessions.get(session.0));
                if let Some(conn) = conn.and_then(|slot| slot.conn) {
                    self.hold(conn, Hold::Answer);
                }
                self.core.hold_frame(reply.at);
                return Fate::Waiting;
            }
        }
        Fate::Handled
    }

    /// Asks all features what they add to an answer of service discovery.
    fn discover(
        &mut self,
        request: &DiscoRequest<'_>,
        reply: &ReplyTo,
        fx: &mut Effects,
    ) -> Discovery {
        let mut found = Discovery::default();
        for (feature, one) in self.features.iter_mut().enumerate() {
            let mut turn = Turn::answering(&mut self.core, fx, feature, reply);
            one.discover(&mut turn, request, &mut found);
        }
        found
    }

    /// The store has done what a feature waits for.
    pub(super) fn feature_stored(
        &mut self,
        feature: usize,
        account: AccountId,
        reply: ReplyTo,
        context: Option<Box<dyn Any>>,
        outcome: StoreOutcome,
        fx: &mut Effects,
    ) {
        let failed = matches!(outcome, StoreOutcome::Failed);
        let result = if failed {
            self.core.reload(account, fx);
            Err(super::deliver::resource_constraint())
        } else {
            let mut result = Err(super::internal_error());
            let sound = self.contained(fx, |shard, fx| {
                let turn = Turn::answering(&mut shard.core, fx, feature, &reply);
                let mut turn = Turn { context, ..turn };
                result = match shard.features.get_mut(feature) {
                    Some(feature) => feature.on_stored(&mut turn, account, outcome),
                    // Switched off meanwhile.
                    None => Err(super::deliver::service_unavailable()),
                };
            });
            if !sound {
                self.core.reload(account, fx);
            }
            result
        };
        self.answer_pending(&reply, result, fx);
    }

    /// A side thread has run a feature's errand.
    pub(super) fn errand_done(
        &mut self,
        feature: usize,
        reply: &ReplyTo,
        context: Box<dyn Any>,
        outcome: Outcome,
        fx: &mut Effects,
    ) {
        let mut result = Err(super::internal_error());
        self.contained(fx, |shard, fx| {
            let mut turn = Turn::answering(&mut shard.core, fx, feature, reply);
            // None answers it where a reload has taken its feature away.
            if let Some(one) = shard.features.get_mut(feature) {
                result = one.on_errand(&mut turn, &reply.to, context, outcome);
            }
        });
        self.answer_pending(reply, result, fx);
    }

    /// Answers a request that waited; what its client sent behind it goes on.
    fn answer_pending(
        &mut self,
        reply: &ReplyTo,
        result: Result<Vec<u8>, StanzaError>,
        fx: &mut Effects,
    ) {
        self.core.answer(reply, result, fx);
        self.core.release_frame(reply.at);
        let Some((session, number)) = reply.session else { return };
        if let Some(number) = number {
            self.core.complete(session, number);
        }
        let conn = self.core.sessions.get(session.0).and_then(|slot| slot.conn);
        if let Some(conn) = conn
            && self.core.conns.get(conn.0).is_some_and(|conn| conn.hold == Hold::Answer)
        {
            self.release(conn, fx);
        }
    }
}

impl Core {
    /// Writes the answer to a request: into the asking session, or back along the way it came.
    fn answer(&mut self, reply: &ReplyTo, result: Result<Vec<u8>, StanzaError>, fx: &mut Effects) {
        let subject = reply.subject.as_deref();
        let mut out = Vec::with_capacity(256);
        let kind = match &result {
            Ok(payload) => {
                let mut writer = Writer::new(&mut out);
                writer.start("iq").attr("type", "result").attr("id", &reply.id);
                writer.attr_opt("from", subject).attr("to", &reply.to).raw(payload).end("iq");
                IqType::Result
            }
            Err(error) => {
                let (id, to) = (Some(&*reply.id), Some(&*reply.to));
                write_error_reply(&mut out, StanzaKind::Iq, id, subject, to, error);
                IqType::Error
            }
        };
        let own = super::deliver::split(&reply.to).0;
        let from = match reply.session {
            // It moved while its request was dealt with, and hears of it where it is.
            Some((session, _)) if self.moved.has_left(session) => subject.unwrap_or(own),
            Some((session, _)) => return self.emit(session, &[&out], Mark::NONE, fx),
            None => subject.unwrap_or_default(),
        };
        let post = Post::whole(from, &reply.to, Kind::Iq, kind.code(), out);
        self.leave(Post { answers: reply.at, ..post });
    }
}
