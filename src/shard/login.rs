//! From SASL to a bound resource: who the client is, and which session it gets.

use super::account::{AccountId, Busy, State};
use super::conn::{Flow, Hold};
use super::effect::{Action, ConnId, Effects, PasswordCheck};
use super::fast::Renewal;
use super::latency::LoginBy;
use super::{Shard, internal_error};
use crate::base::instant::Instant;
use crate::stream::c2s::{C2s, Event};
use crate::stream::sasl::{
    ChannelBinding, Listed, Mechanism, Plain, SaslFailure, ScramHash, ScramServer, fake_keys,
    peek_username,
};
use crate::xmpp::jid::BareJid;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use std::time::Duration;

/// Bugs of one session that are forgiven before its stream ends.
pub(super) const FAULTS_FORGIVEN: u8 = 3;

/// How long a connection whose login failed for the second time is not read; once more for each further one.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// A login in progress.
#[derive(Debug)]
pub(super) enum Login {
    /// A stranger fills in what an account needs, and may take until then for it.
    Registering {
        due: Instant,
    },
    Scram {
        server: Box<ScramServer>,
        jid: BareJid,
    },
    Password {
        jid: BareJid,
    },
    /// By SASL2: proven, and what it asked for inline remains to be done. Holds what the mechanism says to success.
    /// With the token that it is given, as XML; `must_store`: it fails where that cannot be kept.
    Proved {
        data: Vec<u8>,
        token: Vec<u8>,
        must_store: bool,
    },
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
            (Event::Enable { resume, max }, Some(session)) => {
                self.enable(id, session, (resume, max), fx)?;
            }
            (Event::Refused, _) => self.count_failure(id, fx),
            (Event::StartTls, _) => {
                self.hold(id, Hold::Tls);
                fx.actions.push(Action::StartTls(id));
            }
            (Event::Auth { mechanism, initial }, _) => {
                return Ok(self.auth(id, stanza, mechanism, &initial, fx));
            }
            (Event::Token { mechanism, initial }, _) => {
                return Ok(self.token(id, mechanism, &initial, fx));
            }
            (Event::Response(data), _) => self.response(id, &data, fx),
            (Event::Abort, _) => {
                if let Some(conn) = self.core.conns.get_mut(id.0) {
                    conn.login = None;
                }
                self.count_failure(id, fx);
            }
            (Event::Register(request), _) => self.register(id, *request, fx),
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
        let own = core.own();
        let Some(conn) = core.conns.get_mut(id.0) else { return Flow::Taken };
        let domain = conn.stream.domain().cloned();
        let named = match mechanism {
            Mechanism::External => conn.stream.external(initial),
            _ => peek_username(mechanism, initial).and_then(|username| {
                let domain = domain.as_deref().unwrap_or_default();
                BareJid::from_parts(Some(&username), domain).map_err(|_| SaslFailure::NotAuthorized)
            }),
        };
        let jid = match named {
            Ok(jid) => jid,
            Err(failure) => {
                self.fail(id, failure, fx);
                return Flow::Taken;
            }
        };
        let owner = core.placement.owner(jid.hash64());
        if owner != own {
            conn.stream.rewind(stanza, mechanism);
            conn.hold = Hold::Move;
            fx.actions.push(Action::Move { conn: id, to: owner });
            return Flow::Again;
        }
        conn.login_by = Some(LoginBy::Sasl(mechanism));
        if core.is_network_closed(id) {
            self.fail(id, SaslFailure::TemporaryAuthFailure, fx);
            return Flow::Taken;
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
            Mechanism::External => self.external(id, account, jid, initial, fx),
            Mechanism::Plain => self.plain(id, account, jid, initial, fx),
            _ => self.scram(id, account, jid, mechanism, initial, fx),
        }
        Flow::Taken
    }

    /// Holds the connection if its account is not loaded yet.
    pub(super) fn waits_for_account(&mut self, id: ConnId, account: AccountId) -> bool {
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
        // A password that was set before SHA-512 came has no keys of it, one that was imported those of one hash; it is
        // no more use for others than a name without an account: both get the same answers.
        let known = match slot.map(|slot| &slot.state) {
            Some(State::Ready(data)) => match hash {
                ScramHash::Sha1 => data.credentials.sha1(),
                ScramHash::Sha256 => data.credentials.sha256(),
                ScramHash::Sha512 => data.credentials.sha512(),
            },
            _ => None,
        };
        let is_known = known.is_some();
        // Made for everybody: the time that it takes would tell who exists.
        let config = &core.config;
        let fake = fake_keys(&config.decoy_secret, jid.as_str(), hash, config.scram_iterations);
        let keys = known.unwrap_or(std::hint::black_box(fake));
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        let binding = match conn.stream.tls_facts() {
            Some(facts) => facts.channel_binding(),
            None => ChannelBinding::default(),
        };
        let mechanisms = conn.stream.mechanisms(&core.config.policy);
        let listed = Listed { mechanisms, bindings: binding.types().collect() };
        match ScramServer::start(mechanism, initial, &keys, is_known, &nonce, &binding, &listed) {
            Ok((server, challenge)) => {
                conn.login = Some(Box::new(Login::Scram { server: Box::new(server), jid }));
                let mut out = Vec::with_capacity(256);
                conn.stream.challenge(&challenge, &mut out);
                core.write_evenly(id, &out, fx);
            }
            Err(failure) => self.fail(id, failure, fx),
        }
    }

    /// The handshake has proved who the client is; there is nothing that could be guessed, so failed logins of others do
    /// not lock it out.
    fn external(
        &mut self,
        id: ConnId,
        account: AccountId,
        jid: BareJid,
        authzid: &[u8],
        fx: &mut Effects,
    ) {
        let core = &mut self.core;
        let Some(conn) = core.conns.get(id.0) else { return };
        if !authzid.is_empty() && !conn.stream.is_from(&jid) {
            return self.fail(id, SaslFailure::InvalidAuthzid, fx);
        }
        let slot = core.accounts.get(account.0);
        if slot.is_some_and(|slot| matches!(slot.state, State::Ready(_))) {
            return self.logged_in(id, jid, &[], fx);
        }
        core.network_failed(id);
        self.fail(id, SaslFailure::NotAuthorized, fx);
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
        let Some(conn) = self.core.conns.get(id.0) else { return };
        if !is_own_authzid(message.authzid.as_deref(), &jid, &conn.stream) {
            return self.fail(id, SaslFailure::InvalidAuthzid, fx);
        }
        let core = &mut self.core;
        let known = match core.accounts.get(account.0).map(|slot| &slot.state) {
            Some(State::Ready(data)) => data.credentials.of_password(),
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
        if conn.hold == Hold::Answer {
            conn.hold = Hold::No;
        }
        match (conn.login.take().map(|login| *login), verdict) {
            (Some(Login::Password { jid }), Some(right)) => self.judged(id, jid, right, &[], fx),
            (Some(Login::Password { .. }), None) => {
                self.fail(id, SaslFailure::TemporaryAuthFailure, fx);
            }
            (
                Some(Login::Registering { .. } | Login::Scram { .. } | Login::Proved { .. }) | None,
                _,
            ) => {
                return;
            }
        }
        // What was asked for inline may have to wait.
        if self.core.conns.get(id.0).is_some_and(|conn| !conn.is_held()) {
            self.release(id, fx);
        }
    }

    fn response(&mut self, id: ConnId, data: &[u8], fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        let Some(Login::Scram { server, jid }) = conn.login.take().map(|login| *login) else {
            return self.fail(id, SaslFailure::MalformedRequest, fx);
        };
        let own = is_own_authzid(server.authzid(), &jid, &conn.stream);
        match server.finish(data) {
            Ok(_) if !own => self.fail(id, SaslFailure::InvalidAuthzid, fx),
            Ok(last) => self.judged(id, jid, true, &last, fx),
            Err(SaslFailure::NotAuthorized) => self.judged(id, jid, false, &[], fx),
            Err(failure) => self.fail(id, failure, fx),
        }
    }

    /// A password was right or wrong.
    ///
    /// - `data`: what the mechanism says to a right one
    fn judged(&mut self, id: ConnId, jid: BareJid, proven: bool, data: &[u8], fx: &mut Effects) {
        let account = self.core.names.get(jid.as_str()).copied();
        match self.core.judge(id, account, &jid, proven, fx) {
            Ok(()) => self.logged_in(id, jid, data, fx),
            Err(failure) => self.fail(id, failure, fx),
        }
    }

    fn logged_in(&mut self, id: ConnId, jid: BareJid, data: &[u8], fx: &mut Effects) {
        self.logged_in_with(id, jid, data, None, fx);
    }

    /// - `renewal`: where the login was by a token
    pub(super) fn logged_in_with(
        &mut self,
        id: ConnId,
        jid: BareJid,
        data: &[u8],
        renewal: Option<Renewal>,
        fx: &mut Effects,
    ) {
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
        conn.account = Some(jid.clone());
        core.probe.logins += 1;
        if conn.stream.request().is_some() {
            if !self.keep_tokens(id, &jid, data, renewal, fx) {
                let (data, token) = (data.to_vec(), Vec::new());
                if let Some(conn) = self.core.conns.get_mut(id.0) {
                    let proved = Login::Proved { data, token, must_store: false };
                    conn.login = Some(Box::new(proved));
                }
                self.finish_login(id, fx);
            }
            return;
        }
        let mut out = Vec::with_capacity(128);
        conn.stream.success(data, &mut out);
        conn.restart_stream();
        core.write(id, &out, fx);
    }

    pub(super) fn fail(&mut self, id: ConnId, failure: SaslFailure, fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        conn.login = None;
        conn.account = None;
        let mut out = Vec::with_capacity(128);
        conn.stream.failure(failure, &mut out);
        self.core.write_evenly(id, &out, fx);
        self.count_failure(id, fx);
    }

    fn count_failure(&mut self, id: ConnId, fx: &mut Effects) {
        self.core.probe.logins_failed += 1;
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        conn.attempts = conn.attempts.saturating_add(1);
        if conn.attempts >= self.core.config.limits.login_attempts {
            let error = StreamError::new(StreamCondition::PolicyViolation)
                .with_text("too many failed logins");
            return self.close(id, Some(error), fx);
        }
        // Who fails again waits, longer each time: guesses in a row cost the guesser time, and this core nothing.
        if conn.attempts > 1 && conn.network.is_some() {
            let wait = RETRY_WAIT * u32::from(conn.attempts - 1);
            self.core.slow(id, self.core.now.mono + wait);
        }
    }

    pub(super) fn login_timed_out(&mut self, id: ConnId, fx: &mut Effects) {
        let now = self.core.now.mono;
        let in_time = self.core.conns.get(id.0).is_none_or(|conn| {
            match (&conn.component, conn.login.as_deref()) {
                (Some(link), _) => link.stream.established().is_some(),
                // Another timer runs.
                (None, Some(Login::Registering { due })) => now < *due,
                (None, _) => conn.stream.is_bound(),
            }
        });
        if !in_time {
            self.close(id, Some(StreamError::new(StreamCondition::ConnectionTimeout)), fx);
        }
    }
}

/// An authorization identity may only be the account itself.
fn is_own_authzid(authzid: Option<&str>, jid: &BareJid, stream: &C2s) -> bool {
    authzid.is_none_or(|text| {
        BareJid::parse(text).is_ok_and(|named| named == *jid) && stream.is_from(jid)
    })
}
