//! What operators see of a shard and do to it: its sessions and users in pages, sessions that are ended, announcements.

use super::account::AccountId;
use super::control::Control;
use super::effect::{Effects, Ticket};
use super::errand::{
    Announcement, Counts, IDLE_AFTER, Outcome, Page, SessionFacts, UsersQuery, Which, Whose,
};
use super::outbound::Mark;
use super::session::{Session, SessionId};
use super::subscription::bare_reply;
use super::{Shard, Waiting};
use crate::base::instant::Now;
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::writer::Writer;
use std::time::Duration;

/// Entries of a table that one page looks at, at most: a page costs well below a millisecond.
const PAGE_SCAN: u32 = 4_096;

impl Shard {
    /// All sessions of one account; or those of all, from the slot `after` on.
    ///
    /// - cost: looks at 4096 sessions at most
    pub fn session_facts(
        &self,
        now: Now,
        of: &Whose,
        after: u32,
        limit: usize,
    ) -> Page<SessionFacts> {
        let sessions = &self.core.sessions;
        let mut found = Vec::new();
        if let Whose::Account(jid) = of {
            let account = self.core.names.get(jid.as_str());
            let account = account.and_then(|account| self.core.accounts.get(account.0));
            let own = account.map_or(&[][..], |account| &account.sessions);
            let own = own.iter().filter_map(|session| sessions.get(session.0));
            found.extend(own.map(|session| self.facts(now, session)));
            return Page { found, next: None };
        }
        let end = after.saturating_add(PAGE_SCAN);
        for (id, session) in sessions.iter_from(after) {
            if id.index >= end || found.len() >= limit {
                return Page { found, next: Some(id.index) };
            }
            found.push(self.facts(now, session));
        }
        Page { found, next: None }
    }

    /// Users of a domain that are online, as `session_facts`; and how many were looked at, also beyond `limit`.
    pub fn users(&self, now: Now, query: &UsersQuery) -> (Page<BareJid>, Counts) {
        let mut found = Vec::new();
        let mut counts = Counts::default();
        let end = query.after.saturating_add(PAGE_SCAN);
        for (id, account) in self.core.accounts.iter_from(query.after) {
            if id.index >= end {
                return (Page { found, next: Some(id.index) }, counts);
            }
            if account.sessions.is_empty() || account.jid.domain() != &*query.domain {
                continue;
            }
            let active = account.sessions.iter().any(|session| {
                let session = self.core.sessions.get(session.0);
                session
                    .and_then(|session| self.idle(now, session))
                    .is_some_and(|idle| idle < IDLE_AFTER)
            });
            counts.online += 1;
            counts.active += u64::from(active);
            let meant = match query.which {
                Which::Online => true,
                Which::Active => active,
                Which::Idle => !active,
            };
            if meant && found.len() < query.limit {
                found.push(account.jid.clone());
            }
        }
        (Page { found, next: None }, counts)
    }

    fn facts(&self, now: Now, session: &Session) -> SessionFacts {
        let conn = session.conn.and_then(|conn| self.core.conns.get(conn.0));
        SessionFacts {
            jid: session.jid.clone(),
            conn: session.conn,
            peer: conn.map(|conn| conn.peer),
            front: None,
            secure: conn.is_some_and(|conn| conn.stream.is_secure()),
            since: session.since,
            idle: self.idle(now, session),
            priority: session.priority(),
            resumable: session.counters.as_ref().is_some_and(|it| it.resumable.is_some()),
        }
    }

    fn idle(&self, now: Now, session: &Session) -> Option<Duration> {
        let conn = session.conn.and_then(|conn| self.core.conns.get(conn.0))?;
        Some(now.mono.since(conn.heard_at))
    }

    /// Sends a page of an announcement.
    pub(super) fn announce(&mut self, announcement: &Announcement, after: u32, fx: &mut Effects) {
        let end = after.saturating_add(PAGE_SCAN);
        let page = self.core.sessions.iter_from(after).take_while(|(id, _)| id.index < end);
        let meant = page.filter(|(_, session)| {
            session.jid.domain() == &*announcement.domain && session.presence.is_some()
        });
        let sessions: Vec<_> =
            meant.map(|(id, session)| (SessionId(id), session.text.clone())).collect();
        for (session, to) in sessions {
            let mut out = Vec::with_capacity(announcement.body.len() + 256);
            let mut writer = Writer::new(&mut out);
            writer.start("message").attr("from", &announcement.domain).attr("to", &to);
            writer.attr("type", "headline").open();
            if let Some(subject) = &announcement.subject {
                writer.start("subject").open().text(subject).end("subject");
            }
            writer.start("body").open().text(&announcement.body).end("body").end("message");
            self.core.emit(session, &[&out], Mark::NONE, fx);
        }
    }

    /// Where the page behind the one at `after` begins; `None` at the end.
    pub fn next_page(&self, after: u32) -> Option<u32> {
        let next = after.saturating_add(PAGE_SCAN);
        self.core.sessions.iter_from(next).next().map(|_| next)
    }

    pub(super) fn administered(&mut self, ticket: Ticket, outcome: Outcome, fx: &mut Effects) {
        // Without it, the errand was cut back with all that waited for it.
        match self.core.tickets.remove(&ticket) {
            Some(Waiting::Errand { feature, reply, context }) => {
                self.errand_done(feature, &reply, context, outcome, fx);
            }
            Some(Waiting::Registration { conn, iq }) => self.registered(conn, &iq, outcome, fx),
            _ => {}
        }
    }

    /// The account is gone. Whoever takes its name next must not get what was meant for it: its contacts are told that
    /// all subscriptions have ended (RFC 6121 §3.2, §3.3).
    pub(super) fn account_deleted(&mut self, jid: &BareJid, contacts: &[Jid], fx: &mut Effects) {
        let lines: Vec<String> = contacts.iter().map(ToString::to_string).collect();
        let text = lines.join("\n");
        if self.core.tell_owner(jid, Control::AccountDeleted, jid.as_str(), text.as_bytes(), fx) {
            return;
        }
        if let Some(account) = self.core.names.get(jid.as_str()).copied() {
            self.core.reload(account, fx);
            let error = StreamError::new(StreamCondition::NotAuthorized);
            self.end_sessions_of(account, &|_| true, &error, fx);
        }
        for contact in contacts {
            for kind in ["unsubscribe", "unsubscribed"] {
                self.core.leave(bare_reply(jid.as_str(), &contact.to_string(), kind));
            }
        }
    }

    /// An operator ends a session, or all of an account. They cannot be resumed; their clients may log in again.
    pub(super) fn end_sessions(&mut self, jid: &Jid, fx: &mut Effects) {
        let bare = jid.bare().clone();
        if self.core.tell_owner(&bare, Control::EndSessions, &jid.to_string(), b"", fx) {
            return;
        }
        let Some(account) = self.core.names.get(jid.bare().as_str()).copied() else { return };
        let error = StreamError::new(StreamCondition::PolicyViolation)
            .with_text("an operator has ended this session");
        let meant = |session: &Session| jid.is_bare() || session.jid == *jid;
        self.end_sessions_of(account, &meant, &error, fx);
    }

    pub(super) fn end_sessions_of(
        &mut self,
        id: AccountId,
        meant: &dyn Fn(&Session) -> bool,
        why: &StreamError,
        fx: &mut Effects,
    ) {
        let sessions = match self.core.accounts.get(id.0) {
            Some(slot) => slot.sessions.clone(),
            None => return,
        };
        for session in sessions {
            let Some(slot) = self.core.sessions.get(session.0).filter(|slot| meant(slot)) else {
                continue;
            };
            let conn = slot.conn;
            self.end_session(session, fx);
            if let Some(conn) = conn {
                if let Some(slot) = self.core.conns.get_mut(conn.0) {
                    slot.session = None;
                }
                self.close(conn, Some(why.clone()), fx);
            }
        }
    }
}

/// Why the sessions of a disabled account end.
pub(super) fn disabled() -> StreamError {
    StreamError::new(StreamCondition::PolicyViolation).with_text("the account is disabled")
}
