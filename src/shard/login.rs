//! From SASL to a bound resource: who the client is, and which session it gets.

use super::account::{AccountId, Busy, State};
use super::conn::{Flow, Hold};
use super::effect::{Action, ConnId, Effects, PasswordCheck};
use super::phase::SessionChange;
use super::session::{Session, SessionId};
use super::{Shard, Timer, internal_error};
use crate::stream::c2s::Event;
use crate::stream::resume::Counters;
use crate::stream::sasl::{
    ChannelBinding, Mechanism, Plain, SaslFailure, ScramHash, ScramServer, fake_keys, peek_username,
};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::stanza::{Stanza, StanzaKind};
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError, write_error_reply};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::writer::Writer;

/// Bugs of one session that are forgiven before its stream ends.
const FAULTS_FORGIVEN: u8 = 3;

/// A login in progress.
#[derive(Debug)]
pub(super) enum Login {
    Scram { server: Box<ScramServer>, jid: BareJid },
    Password { jid: BareJid },
}

impl Shard {
    pub(super) fn stream_element(
        &mut self,
        id: ConnId,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Result<Flow, StreamError> {
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else { return Ok(Flow::Taken) };
        let session = conn.session;
        let mut out = core.buffers.pop().unwrap_or_default();
        let event = conn.stream.element(stanza, &core.config.policy, &mut out);
        core.write(id, &out, fx);
        core.give_back(out);
        match (event?, session) {
            (Event::Stanza(kind), Some(session)) => {
                let account = self.core.sessions.get(session.0).map(|session| session.account);
                if account.is_some_and(|account| self.waits_for_account(id, account)) {
                    return Ok(Flow::Again);
                }
                return self.client_stanza(session, kind, stanza, fx).map(|()| Flow::Taken);
            }
            (Event::Request, Some(session)) => self.core.asked(session),
            (Event::State { active }, Some(session)) => self.core.set_active(session, active, fx),
            (Event::Ack { h }, Some(session)) => self.acknowledged(session, h, fx)?,
            (Event::Enable { resume }, Some(session)) => self.enable(id, session, resume, fx)?,
            (Event::Refused, _) => self.count_failure(id, fx),
            (Event::StartTls, _) => {
                self.hold(id, Hold::Tls);
                fx.actions.push(Action::StartTls(id));
            }
            (Event::Auth { mechanism, initial }, _) => {
                return Ok(self.auth(id, stanza, mechanism, &initial, fx));
            }
            (Event::Response(data), _) => self.response(id, &data, fx),
            (Event::Abort, _) => {
                if let Some(conn) = self.core.conns.get_mut(id.0) {
                    conn.login = None;
                }
                self.count_failure(id, fx);
            }
            (Event::Bind { id: iq, resource }, _) => return Ok(self.bind(id, &iq, resource, fx)),
            (Event::Resume { previous, h }, _) => return self.resume(id, &previous, h, fx),
            // The machine lets these through on bound streams only, which have a session until they close.
            (Event::Nothing | Event::Stanza(_) | Event::Request, _)
            | (Event::Ack { .. } | Event::Enable { .. } | Event::State { .. }, None) => {}
        }
        Ok(Flow::Taken)
    }

    /// The stanza met a bug: it is answered, its account starts afresh, and repeats end the stream.
    pub(super) fn faulty_element(
        &mut self,
        id: ConnId,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> Result<Flow, StreamError> {
        let session = self.core.conns.get(id.0).and_then(|conn| conn.session);
        let Some(session) = session else {
            return Err(StreamError::new(StreamCondition::InternalServerError));
        };
        if let Some(kind) = stanza.kind() {
            // The count of what the client sent was not cut back: the stanza is handled, by an error.
            self.core.complete_newest(session);
            if stanza.type_().as_deref() != Some("error") {
                let to = stanza.to();
                self.core.bounce_to(
                    session,
                    kind,
                    stanza.id().as_deref(),
                    to.as_deref(),
                    &internal_error(),
                    fx,
                );
            }
        }
        // The bug may have met the recipient's account, which may be ours.
        let to = stanza.to().and_then(|to| self.core.jids.parse(&to).ok());
        let to = to.and_then(|to| self.core.names.get(to.bare().as_str()).copied());
        let Some(slot) = self.core.sessions.get_mut(session.0) else { return Ok(Flow::Taken) };
        slot.faults += 1;
        let (faults, account) = (slot.faults, slot.account);
        self.core.reload(account, fx);
        if let Some(to) = to.filter(|to| *to != account) {
            self.core.reload(to, fx);
        }
        if faults > FAULTS_FORGIVEN {
            return Err(StreamError::new(StreamCondition::InternalServerError));
        }
        Ok(Flow::Taken)
    }

    pub(super) fn hold(&mut self, id: ConnId, hold: Hold) {
        if let Some(conn) = self.core.conns.get_mut(id.0)
            && conn.hold != Hold::Closing
        {
            conn.hold = hold;
        }
    }

    /// The first SASL message: it names the account, so the connection goes to where the account is, and only there
    /// its credentials are judged.
    fn auth(
        &mut self,
        id: ConnId,
        stanza: &Stanza<'_>,
        mechanism: Mechanism,
        initial: &[u8],
        fx: &mut Effects,
    ) -> Flow {
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else { return Flow::Taken };
        let domain = conn.stream.domain().cloned();
        let named = peek_username(mechanism, initial).and_then(|username| {
            let domain = domain.as_deref().unwrap_or_default();
            BareJid::from_parts(Some(&username), domain).map_err(|_| SaslFailure::NotAuthorized)
        });
        let jid = match named {
            Ok(jid) => jid,
            Err(failure) => {
                self.fail(id, failure, fx);
                return Flow::Taken;
            }
        };
        let owner = core.placement.owner(jid.hash64()).shard;
        if owner != core.id {
            conn.stream.rewind(stanza, mechanism);
            conn.hold = Hold::Move;
            fx.actions.push(Action::Move { conn: id, to: owner });
            return Flow::Again;
        }
        let Some(account) = core.account(&jid, fx) else {
            self.fail(id, SaslFailure::TemporaryAuthFailure, fx);
            return Flow::Taken;
        };
        if self.waits_for_account(id, account) {
            if let Some(conn) = self.core.conns.get_mut(id.0) {
                conn.stream.rewind(stanza, mechanism);
            }
            return Flow::Again;
        }
        match mechanism {
            Mechanism::Plain => self.plain(id, account, jid, initial, fx),
            _ => self.scram(id, account, jid, mechanism, initial, fx),
        }
        Flow::Taken
    }

    /// Holds the connection if its account is not loaded yet.
    fn waits_for_account(&mut self, id: ConnId, account: AccountId) -> bool {
        let Some(slot) = self.core.accounts.get_mut(account.0) else { return false };
        if slot.busy != Busy::Loading {
            return false;
        }
        slot.logins.push(id);
        self.hold(id, Hold::Account);
        true
    }

    fn scram(
        &mut self,
        id: ConnId,
        account: AccountId,
        jid: BareJid,
        mechanism: Mechanism,
        initial: &[u8],
        fx: &mut Effects,
    ) {
        let core = &mut self.core;
        let nonce = core.rng.token(24);
        let hash = mechanism.hash().unwrap_or(ScramHash::Sha256);
        let slot = core.accounts.get(account.0);
        // A password that was set before SHA-512 came has no keys of it, and is no more use there than a name without
        // an account: both get the same answers.
        let known = match slot.map(|slot| &slot.state) {
            Some(State::Ready(data)) => match hash {
                ScramHash::Sha1 => data.credentials.sha1(),
                ScramHash::Sha256 => data.credentials.sha256(),
                ScramHash::Sha512 => data.credentials.sha512(),
            },
            _ => None,
        };
        let is_known = known.is_some();
        let keys = known.unwrap_or_else(|| {
            let config = &core.config;
            fake_keys(&config.decoy_secret, jid.as_str(), hash, config.scram_iterations)
        });
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        let binding = match conn.stream.tls_facts() {
            Some(facts) => facts.channel_binding(),
            None => ChannelBinding::default(),
        };
        let plus = binding.is_available();
        match ScramServer::start(mechanism, initial, &keys, is_known, &nonce, &binding, plus) {
            Ok((server, challenge)) => {
                conn.login = Some(Box::new(Login::Scram { server: Box::new(server), jid }));
                let mut out = Vec::with_capacity(256);
                conn.stream.challenge(&challenge, &mut out);
                core.write(id, &out, fx);
            }
            Err(failure) => self.fail(id, failure, fx),
        }
    }

    fn plain(
        &mut self,
        id: ConnId,
        account: AccountId,
        jid: BareJid,
        initial: &[u8],
        fx: &mut Effects,
    ) {
        let message = match Plain::parse(initial) {
            Ok(message) => message,
            Err(failure) => return self.fail(id, failure, fx),
        };
        if !is_own_authzid(message.authzid.as_deref(), &jid) {
            return self.fail(id, SaslFailure::InvalidAuthzid, fx);
        }
        let core = &mut self.core;
        let known = match core.accounts.get(account.0).map(|slot| &slot.state) {
            Some(State::Ready(data)) => data.credentials.sha256(),
            _ => None,
        };
        let is_known = known.is_some();
        let keys = known.unwrap_or_else(|| {
            let config = &core.config;
            let hash = ScramHash::Sha256;
            fake_keys(&config.decoy_secret, jid.as_str(), hash, config.scram_iterations)
        });
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        conn.login = Some(Box::new(Login::Password { jid }));
        conn.hold = Hold::Answer;
        fx.actions.push(Action::CheckPassword(PasswordCheck {
            conn: id,
            peer: conn.peer,
            password: message.password.clone(),
            keys,
            known: is_known,
        }));
    }

    pub(super) fn password_checked(&mut self, id: ConnId, verdict: Option<bool>, fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        match (conn.login.take().map(|login| *login), verdict) {
            (Some(Login::Password { jid }), Some(true)) => self.logged_in(id, jid, &[], fx),
            (Some(Login::Password { .. }), Some(false)) => {
                self.fail(id, SaslFailure::NotAuthorized, fx);
            }
            (Some(Login::Password { .. }), None) => {
                self.fail(id, SaslFailure::TemporaryAuthFailure, fx);
            }
            (Some(Login::Scram { .. }) | None, _) => return,
        }
        self.release(id, fx);
    }

    fn response(&mut self, id: ConnId, data: &[u8], fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        let Some(Login::Scram { server, jid }) = conn.login.take().map(|login| *login) else {
            return self.fail(id, SaslFailure::MalformedRequest, fx);
        };
        let own = is_own_authzid(server.authzid(), &jid);
        match server.finish(data) {
            Ok(_) if !own => self.fail(id, SaslFailure::InvalidAuthzid, fx),
            Ok(last) => self.logged_in(id, jid, &last, fx),
            Err(failure) => self.fail(id, failure, fx),
        }
    }

    fn logged_in(&mut self, id: ConnId, jid: BareJid, data: &[u8], fx: &mut Effects) {
        let core = &mut self.core;
        let account = core.account(&jid, fx);
        let disabled = account
            .and_then(|account| core.accounts.get_mut(account.0))
            .and_then(|account| account.data())
            .is_some_and(|data| data.disabled);
        if disabled || core.config.access.is_banned(&jid) {
            return self.fail(id, SaslFailure::AccountDisabled, fx);
        }
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        conn.account = Some(jid);
        let mut out = Vec::with_capacity(128);
        conn.stream.success(data, &mut out);
        conn.restart_stream();
        core.write(id, &out, fx);
        core.probe.logins += 1;
    }

    fn fail(&mut self, id: ConnId, failure: SaslFailure, fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        conn.login = None;
        let mut out = Vec::with_capacity(128);
        conn.stream.failure(failure, &mut out);
        self.core.write(id, &out, fx);
        self.count_failure(id, fx);
    }

    fn count_failure(&mut self, id: ConnId, fx: &mut Effects) {
        self.core.probe.logins_failed += 1;
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        conn.attempts = conn.attempts.saturating_add(1);
        if conn.attempts >= self.core.config.limits.login_attempts {
            let error = StreamError::new(StreamCondition::PolicyViolation)
                .with_text("too many failed logins");
            self.close(id, Some(error), fx);
        }
    }

    pub(super) fn login_timed_out(&mut self, id: ConnId, fx: &mut Effects) {
        let bound = self.core.conns.get(id.0).is_none_or(|conn| conn.stream.is_bound());
        if !bound {
            self.close(id, Some(StreamError::new(StreamCondition::ConnectionTimeout)), fx);
        }
    }

    fn bind(&mut self, id: ConnId, iq: &str, resource: Option<String>, fx: &mut Effects) -> Flow {
        let Some(jid) = self.core.conns.get(id.0).and_then(|conn| conn.account.clone()) else {
            return Flow::Taken;
        };
        let Some(account) = self.core.account(&jid, fx) else {
            self.refuse_bind(id, iq, StanzaCondition::ResourceConstraint, fx);
            return Flow::Taken;
        };
        if self.waits_for_account(id, account) {
            return Flow::Again;
        }
        let resource = resource.unwrap_or_else(|| self.core.rng.token(12));
        // Not even in the place of another: a client that binds again and again costs what it costs.
        if self.core.take_session(id, account).is_err() {
            self.refuse_bind(id, iq, StanzaCondition::ResourceConstraint, fx);
            return Flow::Taken;
        }
        let Ok(full) = jid.with_resource(&resource) else {
            self.refuse_bind(id, iq, StanzaCondition::BadRequest, fx);
            return Flow::Taken;
        };
        self.replace(account, &full, fx);
        if !self.has_room(account, fx) {
            self.refuse_bind(id, iq, StanzaCondition::ResourceConstraint, fx);
            return Flow::Taken;
        }
        let core = &mut self.core;
        let Some(slot) = core.accounts.get_mut(account.0) else { return Flow::Taken };
        if !matches!(&slot.state, State::Ready(data) if !data.disabled) {
            // Deleted or disabled between login and bind.
            let error = StreamError::new(StreamCondition::NotAuthorized);
            self.close(id, Some(error), fx);
            return Flow::Taken;
        }
        let session = SessionId(core.sessions.insert(Session::new(full, account, id)));
        slot.sessions.push(session);
        let Some(conn) = core.conns.get_mut(id.0) else { return Flow::Taken };
        conn.session = Some(session);
        conn.stream.bound();
        let mut out = Vec::with_capacity(256);
        Writer::new(&mut out)
            .start("iq")
            .attr("type", "result")
            .attr("id", iq)
            .open()
            .start("bind")
            .attr("xmlns", ns::BIND)
            .open()
            .start("jid")
            .open()
            .text(core.sessions.get(session.0).map_or("", |session| &session.text))
            .end("jid")
            .end("bind")
            .end("iq");
        core.write(id, &out, fx);
        core.wheel.insert(core.now.mono + core.config.limits.silence, Timer::Silence(id));
        self.tell_session(session, SessionChange::Started, fx);
        Flow::Taken
    }

    fn refuse_bind(&mut self, id: ConnId, iq: &str, why: StanzaCondition, fx: &mut Effects) {
        let mut out = Vec::with_capacity(256);
        let error = StanzaError::new(why);
        write_error_reply(&mut out, StanzaKind::Iq, Some(iq), None, None, &error);
        self.core.write(id, &out, fx);
    }

    /// A resource that is bound again takes the place of the old session (RFC 6120 §7.7.2.2).
    fn replace(&mut self, account: AccountId, full: &Jid, fx: &mut Effects) {
        let Some(slot) = self.core.accounts.get(account.0) else { return };
        let old = slot.sessions.iter().copied().find(|session| {
            let session = self.core.sessions.get(session.0);
            session.is_some_and(|session| session.jid == *full)
        });
        let Some(old) = old else { return };
        let conn = self.core.sessions.get(old.0).and_then(|session| session.conn);
        if let Some(conn) = conn {
            if let Some(slot) = self.core.conns.get_mut(conn.0) {
                slot.session = None;
            }
            self.close(conn, Some(StreamError::new(StreamCondition::Conflict)), fx);
        }
        self.end_session(old, fx);
    }

    /// Room for one more session; a session that only waits to be resumed makes way.
    fn has_room(&mut self, account: AccountId, fx: &mut Effects) -> bool {
        let limit = self.core.config.limits.resources_per_account;
        let Some(slot) = self.core.accounts.get(account.0) else { return false };
        if slot.sessions.len() < limit {
            return true;
        }
        let waiting = slot.sessions.iter().copied().find(|session| {
            let session = self.core.sessions.get(session.0);
            session.is_some_and(|session| session.conn.is_none())
        });
        match waiting {
            Some(session) => {
                self.end_session(session, fx);
                true
            }
            None => false,
        }
    }

    /// XEP-0198 §3.
    ///
    /// - errors: `policy-violation` for a second time
    fn enable(
        &mut self,
        id: ConnId,
        session: SessionId,
        resume: bool,
        fx: &mut Effects,
    ) -> Result<(), StreamError> {
        let core = &mut self.core;
        let token = resume.then(|| core.rng.token(24));
        let window = core.config.limits.resume.as_secs().to_string();
        let Some(slot) = core.sessions.get_mut(session.0) else { return Ok(()) };
        if slot.counters.is_some() {
            return Err(StreamError::new(StreamCondition::PolicyViolation)
                .with_text("stream management is enabled already"));
        }
        slot.counters = Some(Box::new(Counters::new(token.as_deref().map(Into::into))));
        let mut out = Vec::with_capacity(128);
        let mut writer = Writer::new(&mut out);
        writer.start("enabled").attr("xmlns", ns::SM3);
        if let Some(token) = token {
            writer.attr("id", &token).attr("resume", "true").attr("max", &window);
            core.resumable.insert(token.into(), session);
        }
        writer.close_empty();
        core.write(id, &out, fx);
        Ok(())
    }

    /// XEP-0198 §5: the new connection takes over the session, and gets what the old one did not acknowledge.
    ///
    /// The client sends again what `<resumed h=''/>` leaves out, and both sides count on from there: so nothing that was
    /// received may still be open when that number is told.
    fn resume(
        &mut self,
        id: ConnId,
        previous: &str,
        h: u32,
        fx: &mut Effects,
    ) -> Result<Flow, StreamError> {
        let core = &mut self.core;
        let account = core.conns.get(id.0).and_then(|conn| conn.account.clone());
        let session = core.resumable.get(previous).copied().filter(|session| {
            let session = core.sessions.get(session.0);
            session.is_some_and(|session| Some(session.jid.bare()) == account.as_ref())
        });
        let Some(session) = session else {
            let out = sm_failed("item-not-found");
            core.write(id, &out, fx);
            return Ok(Flow::Taken);
        };
        // One that has begun goes on. Each sends again what is not acknowledged, so there may not be many.
        let slot = self.core.sessions.get(session.0);
        if let Some(slot) = slot.filter(|slot| slot.resuming != Some(id))
            && let Err(later) = self.core.take_session(id, slot.account)
        {
            self.core.slow(id, later);
            return Ok(Flow::Again);
        }
        self.acknowledged(session, h, fx)?;
        let slot = self.core.sessions.get_mut(session.0);
        let (old, other) = slot.map_or((None, None), |slot| (slot.conn, slot.resuming.take()));
        for conn in old.into_iter().chain(other.filter(|other| *other != id)) {
            if let Some(conn) = self.core.conns.get_mut(conn.0) {
                conn.session = None;
            }
            self.close(conn, Some(StreamError::new(StreamCondition::Conflict)), fx);
        }
        if old.is_some() {
            // This connection may break before it gets its answer.
            self.disconnected(session, fx);
        }
        self.core.settle_own();
        let core = &mut self.core;
        let Some(slot) = core.sessions.get_mut(session.0) else { return Ok(Flow::Taken) };
        let Some(counters) = slot.counters.as_mut() else { return Ok(Flow::Taken) };
        if counters.open_count() > 0 {
            slot.resuming = Some(id);
            self.hold(id, Hold::Session);
            return Ok(Flow::Again);
        }
        slot.conn = Some(id);
        slot.ends_at = None;
        counters.resumed();
        let mut out = core.buffers.pop().unwrap_or_default();
        Writer::new(&mut out)
            .start("resumed")
            .attr("xmlns", ns::SM3)
            .attr("h", &counters.tell().to_string())
            .attr("previd", previous)
            .close_empty();
        for stanza in counters.unacknowledged() {
            out.extend_from_slice(&stanza.bytes);
        }
        if let Some(conn) = core.conns.get_mut(id.0) {
            conn.session = Some(session);
            conn.stream.bound();
            conn.spare = out.len();
        }
        core.write(id, &out, fx);
        core.give_back(out);
        core.probe.sessions_resumed += 1;
        core.note(session);
        let account = core.sessions.get(session.0).map(|slot| slot.account);
        core.wheel.insert(core.now.mono + core.config.limits.silence, Timer::Silence(id));
        if let Some(account) = account {
            self.maybe_replay(account, fx);
        }
        Ok(Flow::Taken)
    }
}

fn sm_failed(condition: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut writer = Writer::new(&mut out);
    writer.start("failed").attr("xmlns", ns::SM3);
    writer.start(condition).attr("xmlns", ns::STANZA_ERRORS).close_empty().end("failed");
    out
}

/// An authorization identity may only be the account itself.
fn is_own_authzid(authzid: Option<&str>, jid: &BareJid) -> bool {
    authzid.is_none_or(|text| BareJid::parse(text).is_ok_and(|named| named == *jid))
}
