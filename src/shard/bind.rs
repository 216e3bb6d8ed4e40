//! From a proven identity to a session: binding (RFC 6120 §7), the end of a login by SASL2 with what it asked for inline
//! (XEP-0388, Bind 2 of XEP-0386), stream management and resumption (XEP-0198).

use super::account::{AccountId, State};
use super::conn::{Flow, Hold};
use super::effect::{ConnId, Effects};
use super::latency::LoginEnd;
use super::login::Login;
use super::phase::SessionChange;
use super::rate::Traffic;
use super::session::{Session, SessionId};
use super::{Shard, Timer};
use crate::stream::c2s::Progress;
use crate::stream::resume::{Counters, Resumable, failed};
use crate::stream::sasl::SaslFailure;
use crate::stream::sasl2::read_enable;
use crate::stream::sasl2::{Agent, Bind};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::stanza::StanzaKind;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError, write_error_reply};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::writer::Writer;

/// Why no session was made.
enum Unbound {
    /// The account has as many as it may have.
    Full,
    /// It was deleted or disabled since its owner logged in.
    NoAccount,
}

/// What became of the wish to resume a session.
enum Resumption {
    /// There is none to resume.
    Failed,
    /// What it received is not handled yet, or too many are resumed: the connection is held.
    Waits,
    Done(SessionId),
}

impl Shard {
    pub(super) fn bind(
        &mut self,
        id: ConnId,
        iq: &str,
        resource: Option<String>,
        fx: &mut Effects,
    ) -> Flow {
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
        // A resource that is bound again takes the place of the old session (RFC 6120 §7.7.2.2).
        self.replace(account, |old| *old == full, fx);
        let session = match self.new_session(id, account, full, fx) {
            Ok(session) => session,
            Err(Unbound::Full) => {
                self.refuse_bind(id, iq, StanzaCondition::ResourceConstraint, fx);
                return Flow::Taken;
            }
            Err(Unbound::NoAccount) => {
                self.close(id, Some(StreamError::new(StreamCondition::NotAuthorized)), fx);
                return Flow::Taken;
            }
        };
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else { return Flow::Taken };
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
        self.started(session, fx);
        Flow::Taken
    }

    fn started(&mut self, session: SessionId, fx: &mut Effects) {
        self.core.prepare_ids(session, fx);
        self.core.wait_for_fronts(session);
        self.tell_session(session, SessionChange::Started, fx);
    }

    fn refuse_bind(&mut self, id: ConnId, iq: &str, why: StanzaCondition, fx: &mut Effects) {
        let mut out = Vec::with_capacity(256);
        let error = StanzaError::new(why);
        write_error_reply(&mut out, StanzaKind::Iq, Some(iq), None, None, &error);
        self.core.write(id, &out, fx);
    }

    /// Makes the session of a connection whose client has logged in.
    fn new_session(
        &mut self,
        id: ConnId,
        account: AccountId,
        full: Jid,
        fx: &mut Effects,
    ) -> Result<SessionId, Unbound> {
        if !self.has_room(account, fx) {
            return Err(Unbound::Full);
        }
        let core = &mut self.core;
        let slot = core.accounts.get_mut(account.0).ok_or(Unbound::NoAccount)?;
        if !matches!(&slot.state, State::Ready(data) if !data.disabled) {
            return Err(Unbound::NoAccount);
        }
        let conn = core.conns.get_mut(id.0).ok_or(Unbound::NoAccount)?;
        let session =
            SessionId(core.sessions.insert(Session::new(full, account, id, core.now.wall)));
        slot.sessions.push(session);
        conn.session = Some(session);
        conn.traffic = Traffic::default();
        core.login_ends(id, LoginEnd::Bound);
        core.wheel.insert(core.now.mono + core.config.limits.silence, Timer::Silence(id));
        Ok(session)
    }

    /// Ends the sessions whose place a new one takes.
    fn replace(
        &mut self,
        account: AccountId,
        is_replaced: impl Fn(&Jid) -> bool,
        fx: &mut Effects,
    ) {
        let Some(slot) = self.core.accounts.get(account.0) else { return };
        let replaced = |session: &SessionId| {
            let session = self.core.sessions.get(session.0);
            session.is_some_and(|session| is_replaced(&session.jid))
        };
        let old: Vec<SessionId> = slot.sessions.iter().copied().filter(replaced).collect();
        for old in old {
            let conn = self.core.sessions.get(old.0).and_then(|session| session.conn);
            if let Some(conn) = conn {
                if let Some(slot) = self.core.conns.get_mut(conn.0) {
                    slot.session = None;
                }
                self.close(conn, Some(StreamError::new(StreamCondition::Conflict)), fx);
            }
            self.end_session(old, fx);
        }
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

    /// The end of a login by SASL2: what the client asked for inline is done, and the answer to all of it goes out at
    /// once. Where it must wait, the connection is held, and this is called again when the hold is over.
    pub(super) fn finish_login(&mut self, id: ConnId, fx: &mut Effects) {
        let mut result = Ok(());
        let sound = self.contained(fx, |shard, fx| result = shard.finish_sasl2(id, fx));
        let error = match result {
            Err(error) => error,
            Ok(()) if sound => return,
            Ok(()) => StreamError::new(StreamCondition::InternalServerError),
        };
        self.close(id, Some(error), fx);
    }

    fn finish_sasl2(&mut self, id: ConnId, fx: &mut Effects) -> Result<(), StreamError> {
        let Some(conn) = self.core.conns.get(id.0) else { return Ok(()) };
        let Some(jid) = conn.account.clone() else { return Ok(()) };
        let resume = conn.stream.request().and_then(|request| request.resume.clone());
        let Some(account) = self.core.account(&jid, fx) else {
            self.fail(id, SaslFailure::TemporaryAuthFailure, fx);
            return Ok(());
        };
        if self.waits_for_account(id, account) {
            return Ok(());
        }
        let slot = self.core.accounts.get(account.0);
        match slot.map(|slot| &slot.state) {
            Some(State::Ready(data)) if !data.disabled => {}
            Some(State::Ready(_)) => {
                self.fail(id, SaslFailure::AccountDisabled, fx);
                return Ok(());
            }
            _ => {
                self.fail(id, SaslFailure::NotAuthorized, fx);
                return Ok(());
            }
        }
        // Resumption goes first; where it succeeds, nothing is bound (XEP-0386 §3.2).
        let mut results = Vec::new();
        let mut resumed = None;
        if let Some((previous, h)) = resume {
            let outcome = match h {
                Some(h) => self.take_over(id, &previous, h, fx)?,
                None => Resumption::Failed,
            };
            match outcome {
                Resumption::Waits => return Ok(()),
                Resumption::Failed if h.is_none() => results = failed("bad-request", None),
                Resumption::Failed => results = self.gone(id, &previous),
                Resumption::Done(session) => {
                    self.write_resumed(session, &previous, &mut results);
                    resumed = Some(session);
                }
            }
        }
        let Some(conn) = self.core.conns.get_mut(id.0) else { return Ok(()) };
        let Some(Login::Proved { data, token, .. }) = conn.login.take().map(|login| *login) else {
            return Ok(());
        };
        let request = conn.stream.take_request();
        let mut session = resumed;
        if resumed.is_none()
            && let Some(bind) = &request.bind
        {
            session = self.bind2(id, account, &jid, request.agent, bind, &mut results, fx)?;
        }
        results.extend_from_slice(&token);
        let core = &mut self.core;
        let (identity, progress) = match session.and_then(|it| core.sessions.get(it.0)) {
            Some(session) if session.counters.is_some() => {
                (session.text.clone(), Progress::Managed)
            }
            Some(session) => (session.text.clone(), Progress::Bound),
            None => (jid.as_str().into(), Progress::LoggedIn),
        };
        let mut out = core.buffer();
        if let Some(conn) = core.conns.get_mut(id.0) {
            let policy = &core.config.policy;
            conn.stream.success2(&data, &identity, &results, progress, policy, &mut out);
        }
        core.write(id, &out, fx);
        core.give_back(out);
        match (session, resumed) {
            (_, Some(session)) => self.resumed(id, session, fx),
            (Some(session), None) => self.started(session, fx),
            (None, None) => {}
        }
        Ok(())
    }

    /// Bind 2: the server makes the resource, and what the client wants enabled is enabled. Gives no session where the
    /// account has too many; the client may bind in the old way once it has made room.
    #[expect(clippy::too_many_arguments, reason = "one caller, which has all of it at hand")]
    fn bind2(
        &mut self,
        id: ConnId,
        account: AccountId,
        jid: &BareJid,
        agent: Option<Agent>,
        bind: &Bind,
        results: &mut Vec<u8>,
        fx: &mut Effects,
    ) -> Result<Option<SessionId>, StreamError> {
        let own = match agent {
            Some(agent) => agent.resource(&self.core.config.decoy_secret, jid),
            None => self.core.rng.token(12),
        };
        // A tag that no resource can have is left out: the client is logged in, and the tag is for people to read.
        let tagged = bind.tag.as_ref().map(|tag| format!("{tag}/{own}"));
        let full = tagged
            .and_then(|resource| jid.with_resource(&resource).ok())
            .or_else(|| jid.with_resource(&own).ok())
            .ok_or_else(|| StreamError::new(StreamCondition::InternalServerError))?;
        let no_room = |results: &mut Vec<u8>| {
            let mut writer = Writer::new(results);
            writer.start("failed").attr("xmlns", ns::BIND2).start("resource-constraint");
            writer.attr("xmlns", ns::STANZA_ERRORS).close_empty().end("failed");
            Ok(None)
        };
        if self.core.take_session(id, account).is_err() {
            return no_room(results);
        }
        if agent.is_some() {
            // Earlier sessions of the same client end, whatever tag they had.
            let is_same = |old: &Jid| {
                let head = old.resource().and_then(|resource| resource.strip_suffix(&own));
                head.is_some_and(|head| head.is_empty() || head.ends_with('/'))
            };
            self.replace(account, is_same, fx);
        }
        let session = match self.new_session(id, account, full, fx) {
            Ok(session) => session,
            Err(Unbound::Full) => return no_room(results),
            Err(Unbound::NoAccount) => {
                return Err(StreamError::new(StreamCondition::NotAuthorized));
            }
        };
        let mut enabled = Vec::new();
        let mut is_counting = false;
        for wanted in &bind.features {
            if wanted.is(ns::SM3, "enable") {
                if std::mem::replace(&mut is_counting, true) {
                    continue;
                }
                let wish = read_enable(|name| wanted.attr(name).map(Into::into));
                self.start_counting(session, wish, &mut enabled)?;
            } else {
                enabled.extend(self.ask_bind(session, wanted, fx));
            }
        }
        Writer::new(results).start("bound").attr("xmlns", ns::BIND2).raw(&enabled).end("bound");
        Ok(Some(session))
    }

    /// XEP-0198 §3.
    ///
    /// - takes: `wish`, whether the session is to be resumable, and for how many seconds at most
    /// - errors: `policy-violation` for a second time, behind `<failed/>`
    pub(super) fn enable(
        &mut self,
        id: ConnId,
        session: SessionId,
        wish: (bool, Option<u32>),
        fx: &mut Effects,
    ) -> Result<(), StreamError> {
        let mut out = Vec::with_capacity(128);
        let result = self.start_counting(session, wish, &mut out);
        if result.is_err() {
            out = failed("unexpected-request", None);
        }
        self.core.write(id, &out, fx);
        result
    }

    /// Writes `<enabled/>`, from which on both sides count.
    fn start_counting(
        &mut self,
        session: SessionId,
        (resume, max): (bool, Option<u32>),
        out: &mut Vec<u8>,
    ) -> Result<(), StreamError> {
        let core = &mut self.core;
        let most = u32::try_from(core.config.limits.resume.as_secs()).unwrap_or(u32::MAX);
        let window_s = max.map_or(most, |max| max.min(most));
        let resumable =
            (resume && window_s > 0).then(|| Resumable { id: core.rng.token(24).into(), window_s });
        let Some(slot) = core.sessions.get_mut(session.0) else { return Ok(()) };
        if slot.counters.is_some() {
            return Err(StreamError::new(StreamCondition::PolicyViolation)
                .with_text("stream management is enabled already"));
        }
        let mut writer = Writer::new(out);
        writer.start("enabled").attr("xmlns", ns::SM3);
        if let Some(Resumable { id, window_s }) = &resumable {
            writer.attr("id", id).attr("resume", "true").attr("max", &window_s.to_string());
            writer.attr_opt("location", core.config.location.as_deref());
            core.resumable.insert(id.clone(), session);
        }
        writer.close_empty();
        slot.counters = Some(Box::new(Counters::new(resumable)));
        core.note(session);
        Ok(())
    }

    /// `<failed/>` for a session that is not there, with what was handled of it where that is remembered.
    fn gone(&self, id: ConnId, previous: &str) -> Vec<u8> {
        let account = self.core.conns.get(id.0).and_then(|conn| conn.account.as_ref());
        let h = account.and_then(|account| self.core.ended.handled(previous, account.hash64()));
        failed("item-not-found", h)
    }

    /// XEP-0198 §5, in place of binding.
    pub(super) fn resume(
        &mut self,
        id: ConnId,
        previous: &str,
        h: u32,
        fx: &mut Effects,
    ) -> Result<Flow, StreamError> {
        match self.take_over(id, previous, h, fx)? {
            Resumption::Failed => {
                let out = self.gone(id, previous);
                self.core.write(id, &out, fx);
            }
            Resumption::Waits => return Ok(Flow::Again),
            Resumption::Done(session) => {
                let mut out = Vec::with_capacity(128);
                self.write_resumed(session, previous, &mut out);
                if let Some(conn) = self.core.conns.get_mut(id.0) {
                    conn.stream.bound();
                }
                self.core.write(id, &out, fx);
                self.resumed(id, session, fx);
            }
        }
        Ok(Flow::Taken)
    }

    /// The new connection takes over the session.
    ///
    /// The client sends again what `<resumed h=''/>` leaves out, and both sides count on from there: so nothing that was
    /// received may still be open when that number is told, nor unknown to the session's copy.
    fn take_over(
        &mut self,
        id: ConnId,
        previous: &str,
        h: u32,
        fx: &mut Effects,
    ) -> Result<Resumption, StreamError> {
        let core = &mut self.core;
        let account = core.conns.get(id.0).and_then(|conn| conn.account.clone());
        let session = core.resumable.get(previous).copied().filter(|session| {
            let session = core.sessions.get(session.0);
            session.is_some_and(|session| Some(session.jid.bare()) == account.as_ref())
        });
        let Some(session) = session else { return Ok(Resumption::Failed) };
        // One that has begun goes on. Each sends again what is not acknowledged, so there may not be many.
        let slot = self.core.sessions.get(session.0);
        if let Some(slot) = slot.filter(|slot| slot.resuming != Some(id))
            && let Err(later) = self.core.take_session(id, slot.account)
        {
            self.core.slow(id, later);
            return Ok(Resumption::Waits);
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
        let Some(slot) = core.sessions.get_mut(session.0) else { return Ok(Resumption::Failed) };
        let Some(counters) = slot.counters.as_mut() else { return Ok(Resumption::Failed) };
        if counters.open_count() > 0 || !counters.is_covered() {
            slot.resuming = Some(id);
            core.note(session);
            self.hold(id, Hold::Session);
            return Ok(Resumption::Waits);
        }
        slot.conn = Some(id);
        slot.ends_at = None;
        counters.resumed();
        if let Some(conn) = core.conns.get_mut(id.0) {
            conn.session = Some(session);
            conn.traffic = Traffic::default();
        }
        Ok(Resumption::Done(session))
    }

    fn write_resumed(&mut self, session: SessionId, previous: &str, out: &mut Vec<u8>) {
        let slot = self.core.sessions.get_mut(session.0);
        let Some(counters) = slot.and_then(|slot| slot.counters.as_mut()) else { return };
        Writer::new(out)
            .start("resumed")
            .attr("xmlns", ns::SM3)
            .attr("h", &counters.tell().to_string())
            .attr("previd", previous)
            .close_empty();
    }

    /// The client knows that its session goes on: it gets what it did not acknowledge.
    fn resumed(&mut self, id: ConnId, session: SessionId, fx: &mut Effects) {
        let core = &mut self.core;
        let mut out = core.buffers.pop().unwrap_or_default();
        let Some(slot) = core.sessions.get(session.0) else { return };
        if let Some(counters) = &slot.counters {
            for stanza in counters.unacknowledged() {
                out.extend_from_slice(&stanza.bytes);
            }
        }
        let account = slot.account;
        if let Some(conn) = core.conns.get_mut(id.0) {
            conn.spare = out.len();
        }
        core.write(id, &out, fx);
        core.trace_resumed(session, id);
        core.give_back(out);
        core.probe.sessions_resumed += 1;
        core.login_ends(id, LoginEnd::Resumed);
        core.note(session);
        core.wheel.insert(core.now.mono + core.config.limits.silence, Timer::Silence(id));
        core.wait_for_fronts(session);
        self.maybe_replay(account, fx);
    }
}
