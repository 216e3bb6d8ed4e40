//! XEP-0077 before login: a stranger makes an account for itself. The connection is held until a side thread has made
//! it, wherever its owner is; then the client logs in as anybody does.

use super::conn::Hold;
use super::effect::{Action, ConnId, Effects};
use super::errand::{Errand, Outcome, Secret};
use super::login::Login;
use super::{Quarantine, Shard, Timer, Waiting};
use crate::base::instant::Wall;
use crate::stream::registration::{self, Ask, Request};
use crate::xmpp::jid::BareJid;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use std::time::Duration;
use unicode_security::MixedScript as _;

/// Somebody reads what to fill in and thinks of a password: more than a login may take.
const FILLING_IN: Duration = Duration::from_secs(300);

impl Shard {
    pub(super) fn register(&mut self, id: ConnId, request: Request, fx: &mut Effects) {
        let Request { id: iq, ask } = request;
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        if !core.config.policy.registration {
            return self.answer_stranger(id, &iq, Err(StanzaCondition::NotAllowed.into()), fx);
        }
        let domain = conn.stream.domain().cloned().unwrap_or_default();
        let (name, password) = match ask {
            Ask::Fields => {
                if conn.login.is_none() {
                    let due = core.now.mono + FILLING_IN;
                    conn.login = Some(Box::new(Login::Registering { due }));
                    core.wheel.insert(due, Timer::Login(id));
                }
                let mut out = Vec::with_capacity(1024);
                registration::write_fields(&mut out, &iq, &domain);
                return core.write(id, &out, fx);
            }
            Ask::Account { name, password } => (name, password),
            Ask::Faulty(condition) => {
                return self.answer_stranger(id, &iq, Err(condition.into()), fx);
            }
        };
        let peer = conn.peer;
        let jid = match self.free_name(&name, &domain) {
            Ok(jid) => jid,
            Err(error) => return self.answer_stranger(id, &iq, Err(error), fx),
        };
        let core = &mut self.core;
        let limits = &core.config.limits;
        let end = core.now.wall.0.saturating_add(micros(limits.quarantine));
        let quarantine = (!limits.quarantine.is_zero()).then(|| Quarantine::new(Wall(end)));
        let ticket = core.ticket(Waiting::Registration { conn: id, iq: iq.into() });
        let errand = Errand::Register { jid, password: Secret(password), peer, quarantine };
        self.hold(id, Hold::Answer);
        fx.actions.push(Action::Administer { ticket, errand });
    }

    /// - errors: `not-acceptable` for what cannot be a name, and for one that is made to look like another; `conflict`
    ///   for those that a stranger must not have even where nobody has them
    fn free_name(&self, name: &str, domain: &str) -> Result<BareJid, StanzaError> {
        let jid = BareJid::from_parts(Some(name), domain).map_err(|fault| {
            StanzaError::new(StanzaCondition::NotAcceptable).with_text(fault.to_string())
        })?;
        // UTS 39 §5.1: letters of two alphabets look alike.
        if !jid.local().unwrap_or_default().is_single_script() {
            return Err(StanzaError::new(StanzaCondition::NotAcceptable)
                .with_text("the name mixes letters of several scripts"));
        }
        let config = &self.core.config;
        // An administrator whose account is not made yet, or gone.
        if config.admins.contains(&jid) || config.access.is_banned(&jid) {
            return Err(StanzaCondition::Conflict.into());
        }
        Ok(jid)
    }

    /// A side thread has made the account, or not.
    pub(super) fn registered(&mut self, id: ConnId, iq: &str, outcome: Outcome, fx: &mut Effects) {
        let waits = |hold: Hold| hold == Hold::Answer;
        if !self.core.conns.get(id.0).is_some_and(|conn| waits(conn.hold)) {
            return;
        }
        let answer = match outcome {
            Outcome::Done => Ok(()),
            Outcome::Exists => Err(StanzaCondition::Conflict.into()),
            Outcome::Refused(why) => {
                Err(StanzaError::new(StanzaCondition::NotAcceptable).with_text(why))
            }
            Outcome::TooMany => Err(StanzaError::new(StanzaCondition::ResourceConstraint)
                .with_text("too many accounts have been made; try again later")),
            Outcome::Busy => Err(StanzaCondition::ResourceConstraint.into()),
            _ => Err(StanzaCondition::InternalServerError.into()),
        };
        // The person has typed what is needed; what the server takes for the login begins here.
        if let Some(conn) = self.core.conns.get_mut(id.0) {
            conn.began = self.core.now.mono;
        }
        self.answer_stranger(id, iq, answer, fx);
        self.release(id, fx);
    }

    fn answer_stranger(
        &mut self,
        id: ConnId,
        iq: &str,
        answer: Result<(), StanzaError>,
        fx: &mut Effects,
    ) {
        let Some(conn) = self.core.conns.get(id.0) else { return };
        let domain = conn.stream.domain().cloned().unwrap_or_default();
        let mut out = Vec::with_capacity(256);
        registration::write_answer(&mut out, iq, &domain, answer);
        self.core.write(id, &out, fx);
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
