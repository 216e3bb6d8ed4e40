//! Where stanzas are seen. All of this returns at once while nobody watches; on the way of each message the caller looks
//! first (`is_tracing`).

use super::about::About;
use super::{BY_FEATURE, FOLLOWED_MAX, Leaving, Step, Traced, Unconfirmed};
use crate::base::instant::{Instant, Now};
use crate::frame::{Envelope, Kind};
use crate::shard::Core;
use crate::shard::account::{AccountId, Busy};
use crate::shard::deliver::stanza_kind;
use crate::shard::effect::ConnId;
use crate::shard::peers::Peer;
use crate::shard::ring::FrameRef;
use crate::shard::session::SessionId;
use crate::store::LogEntry;
use crate::xmpp::jid::Jid;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::reader::Index;

impl Core {
    #[inline]
    pub(in crate::shard) fn is_tracing(&self) -> bool {
        self.tracing.is_some()
    }

    /// The number of what is handled now, where it is watched.
    #[inline]
    pub(in crate::shard) fn trace(&self) -> Option<u64> {
        self.tracing.as_ref().and_then(|tracing| tracing.current)
    }

    /// What is handled from here on.
    #[inline]
    pub(in crate::shard) fn trace_enter(&mut self, trace: Option<u64>) {
        if let Some(tracing) = &mut self.tracing {
            tracing.current = trace;
        }
    }

    /// A client's stanza was read.
    ///
    /// - `to`: `None` where there is none, or no valid one
    pub(in crate::shard) fn trace_read(
        &mut self,
        session: SessionId,
        to: Option<&Jid>,
        stanza: &Stanza<'_>,
    ) {
        if let Some(from) = self.sessions.get(session.0).map(|slot| slot.text.clone()) {
            self.trace_received(&from, to, stanza);
        }
    }

    /// A client's or component's stanza was read.
    pub(in crate::shard) fn trace_received(
        &mut self,
        from: &str,
        to: Option<&Jid>,
        stanza: &Stanza<'_>,
    ) {
        let Some(tracing) = &mut self.tracing else { return };
        let (to, id) = (to.map(ToString::to_string), stanza.id());
        tracing.current = tracing.mark(None, |whom| {
            whom.is(from)
                || to.as_deref().is_some_and(|to| whom.is(to))
                || whom.has_id(id.as_deref())
        });
        let Some(trace) = tracing.current else { return };
        tracing.sender = from.to_owned();
        if tracing.has_room(trace, self.now.mono) {
            let about = About::of(stanza, Some(from), to.as_deref());
            let traced = Traced { trace, detail: String::new(), about };
            tracing.tell(self.now.mono, self.now, Step::Received, traced);
        }
    }

    /// A feature deals with the stanza that was read.
    pub(in crate::shard) fn trace_taken(&mut self, stanza: &Stanza<'_>) {
        self.trace_stanza(stanza, Step::Taken, BY_FEATURE);
    }

    /// The stanza that was read is refused; its sender is told, unless it is an answer itself.
    pub(in crate::shard) fn trace_refused(&mut self, stanza: &Stanza<'_>, error: &StanzaError) {
        let step = if stanza.is_answer() { Step::Dropped } else { Step::Refused };
        self.trace_stanza(stanza, step, error.condition.name());
    }

    fn trace_stanza(&mut self, stanza: &Stanza<'_>, step: Step, detail: &str) {
        let Some(trace) = self.trace() else { return };
        self.trace_step(trace, step, detail, |core| {
            let sender = core.tracing.as_ref().map(|tracing| tracing.sender.as_str());
            About::of(stanza, sender, None)
        });
    }

    /// A stanza is for the account or component that `owner` deals with.
    pub(in crate::shard) fn trace_routed(&mut self, envelope: &Envelope<'_>, owner: Peer) {
        if owner == self.id.into() {
            self.trace_envelope(envelope, envelope.to, Step::Routed, "to this shard");
        } else if !self.peers.is_local(owner) {
            let place = self.peers.place(owner);
            let whereto = format!("to node {}, shard {}", place.run.node.0, place.shard.0);
            self.trace_envelope(envelope, envelope.to, Step::Crossing, &whereto);
        } else if self.peers.is_federation(owner) {
            self.trace_envelope(envelope, envelope.to, Step::Crossing, "to the federation core");
        } else {
            let whereto = format!("to shard {}", owner.0);
            self.trace_envelope(envelope, envelope.to, Step::Crossing, &whereto);
        }
    }

    /// A frame, or what waited, is at the owner of a recipient: from here on it is what is handled. Gives it with its number.
    pub(in crate::shard) fn trace_arrived<'a>(
        &mut self,
        envelope: &Envelope<'a>,
        to: &str,
        at: FrameRef,
        waited: bool,
    ) -> Envelope<'a> {
        let own = self.id.0;
        let mut index = Index::default();
        // The id of one with a number was looked at where that was given.
        let stanza = match (envelope.trace, envelope.kind) {
            (Some(_), _) | (_, Kind::Control) => None,
            _ => self.view(envelope.stanza, &mut index),
        };
        let id = stanza.and_then(|stanza| stanza.id());
        let Some(tracing) = &mut self.tracing else { return *envelope };
        let trace = tracing.mark(envelope.trace, |whom| {
            whom.is(to) || whom.is(envelope.from) || whom.has_id(id.as_deref())
        });
        tracing.current = trace;
        let wherefrom = match (waited, at.ring == own) {
            (true, _) => Some("after it waited".to_owned()),
            (false, false) => Some(format!("from shard {}", at.ring)),
            (false, true) if envelope.trace.is_none() => Some("from this shard".to_owned()),
            // It was just told that it is for this shard.
            (false, true) => None,
        };
        let arrived = Envelope { trace, ..*envelope };
        if let Some(wherefrom) = wherefrom.filter(|_| trace.is_some()) {
            self.trace_envelope(&arrived, to, Step::Arrived, &wherefrom);
        }
        arrived
    }

    /// A stanza waits until its account can take it.
    pub(in crate::shard) fn trace_waiting(
        &mut self,
        account: AccountId,
        envelope: &Envelope<'_>,
        to: &str,
    ) {
        let Some(slot) = self.accounts.get(account.0).filter(|_| envelope.trace.is_some()) else {
            return;
        };
        let why = match slot.busy {
            Busy::Loading => "until its account is read",
            Busy::Ids => "for an id",
            Busy::Replay => "until older messages are sent",
            Busy::No => "for its account",
            Busy::Retry => "whether it is there already is not known yet",
            Busy::Leaving => "its account moves to another node",
        };
        self.trace_envelope(envelope, to, Step::Waiting, why);
    }

    /// A step of a stanza in an envelope.
    pub(in crate::shard) fn trace_envelope(
        &mut self,
        envelope: &Envelope<'_>,
        to: &str,
        step: Step,
        detail: &str,
    ) {
        let Some(trace) = envelope.trace.filter(|_| envelope.kind != Kind::Control) else { return };
        self.trace_step(trace, step, detail, |core| core.about_envelope(envelope, to));
    }

    /// A row of an account's log goes to a session.
    pub(in crate::shard) fn trace_replayed(&mut self, entry: &LogEntry, owner: &str) {
        if self.tracing.is_none() {
            return;
        }
        let mut index = Index::default();
        let Some(stanza) = self.view(&entry.stanza, &mut index) else { return };
        let (from, id) = (stanza.from(), stanza.id());
        let Some(tracing) = &mut self.tracing else { return };
        tracing.current = tracing.mark(None, |whom| {
            whom.is(owner)
                || from.as_deref().is_some_and(|from| whom.is(from))
                || whom.has_id(id.as_deref())
        });
        let Some(trace) = tracing.current else { return };
        self.trace_step(trace, Step::Replayed, "from the log", |_| About::of(&stanza, None, None));
    }

    /// A stanza goes to a session: into its output, or into its queue until it is resumed.
    pub(in crate::shard) fn trace_emitted(&mut self, session: SessionId, parts: &[&[u8]]) {
        let Some(tracing) = &mut self.tracing else { return };
        let Some(slot) = self.sessions.get(session.0) else { return };
        let Some(trace) = tracing.mark(tracing.current, |whom| whom.is(&slot.text)) else {
            return;
        };
        let (text, conn) = (slot.text.clone(), slot.conn);
        let number = slot.counters.as_ref().map(|counters| counters.sent());
        let at = (tracing.clock)();
        if !tracing.has_room(trace, at) {
            // Nor is it followed until it is written.
            if conn.is_some() {
                tracing.leave_out(trace);
            }
            return;
        }
        let bytes = parts.concat();
        let mut index = Index::default();
        let Some(stanza) = self.view(&bytes, &mut index) else { return };
        let about = About::of(&stanza, None, stanza.to().is_none().then_some(&*text));
        let Some(tracing) = &mut self.tracing else { return };
        let traced = Traced { trace, detail: format!("to {text}"), about };
        match conn {
            Some(conn) => {
                tracing.tell(at, self.now, Step::Delivered, traced.clone());
                tracing.follow(conn, traced.clone());
            }
            None => {
                let detail = format!("until {text} resumes");
                tracing.tell(at, self.now, Step::Queued, Traced { detail, ..traced.clone() });
            }
        }
        if let Some(number) = number {
            match tracing.unconfirmed.len() < FOLLOWED_MAX {
                true => tracing.unconfirmed.push_back(Unconfirmed { session, number, traced }),
                false => tracing.leave_out(trace),
            }
        }
    }

    /// A stanza goes to a component.
    pub(in crate::shard) fn trace_to_component(&mut self, conn: ConnId, parts: &[&[u8]]) {
        let Some(trace) = self.trace() else { return };
        let bytes = parts.concat();
        let mut index = Index::default();
        let Some(stanza) = self.view(&bytes, &mut index) else { return };
        let about = About::of(&stanza, None, None);
        self.trace_step(trace, Step::Delivered, "to the component", |_| about.clone());
        let Some(tracing) = &mut self.tracing else { return };
        tracing.follow(conn, Traced { trace, detail: "to the component".to_owned(), about });
    }

    /// What is held back for an inactive client.
    pub(in crate::shard) fn trace_held(
        &mut self,
        session: SessionId,
        stanza: &[u8],
    ) -> Option<u64> {
        let tracing = self.tracing.as_mut()?;
        let text = self.sessions.get(session.0)?.text.clone();
        let trace = tracing.mark(tracing.current, |whom| whom.is(&text))?;
        let mut index = Index::default();
        let stanza = self.view(stanza, &mut index)?;
        let detail = format!("while {text} is inactive");
        self.trace_step(trace, Step::Held, &detail, |_| {
            About::of(&stanza, None, stanza.to().is_none().then_some(&*text))
        });
        Some(trace)
    }

    /// What is told of a message once it is durable.
    pub(in crate::shard) fn trace_keep(
        &self,
        envelope: &Envelope<'_>,
        to: &str,
    ) -> Option<Box<Traced>> {
        self.tracing.as_ref()?;
        let (trace, about) = (envelope.trace?, self.about_envelope(envelope, to));
        Some(Box::new(Traced { trace, detail: "durable".to_owned(), about }))
    }

    /// The store has answered for a message: from here on it is what is handled.
    pub(in crate::shard) fn trace_stored(&mut self, kept: Option<Box<Traced>>, durable: bool) {
        let Some(Traced { trace, detail, about }) = kept.map(|kept| *kept) else { return };
        self.trace_enter(Some(trace));
        match durable {
            true => self.trace_step(trace, Step::Stored, &detail, |_| about),
            false => {
                let condition = StanzaCondition::ResourceConstraint.name();
                self.trace_step(trace, Step::Refused, condition, |_| about);
            }
        }
    }

    /// A client has resumed its session: what it had not acknowledged goes out again.
    pub(in crate::shard) fn trace_resumed(&mut self, session: SessionId, conn: ConnId) {
        let Some(tracing) = &mut self.tracing else { return };
        let unconfirmed = std::mem::take(&mut tracing.unconfirmed);
        for one in unconfirmed.iter().filter(|one| one.session == session) {
            let at = (tracing.clock)();
            let again =
                Traced { detail: format!("{} again", one.traced.detail), ..one.traced.clone() };
            tracing.told_later(at, self.now, Step::Delivered, &again);
            tracing.follow(conn, one.traced.clone());
        }
        tracing.unconfirmed = unconfirmed;
    }

    /// The turn's output has left, but for that of connections which take no more now.
    pub(in crate::shard) fn trace_flushed(&mut self, at: Instant) {
        let Some(tracing) = &mut self.tracing else { return };
        if tracing.leaving.is_empty() {
            return;
        }
        let mut leaving = std::mem::take(&mut tracing.leaving);
        leaving.retain_mut(|one| match self.conns.get(one.conn.0) {
            Some(conn) if conn.blocked => {
                one.blocked = true;
                true
            }
            Some(_) if one.blocked => true,
            Some(_) => {
                tracing.told_later(at, self.now, Step::Written, &one.traced);
                false
            }
            None => false,
        });
        tracing.leaving = leaving;
    }

    /// All output of a connection has left that had taken no more.
    pub(in crate::shard) fn trace_unblocked(&mut self, id: ConnId, at: Instant) {
        let Some(tracing) = &mut self.tracing else { return };
        let mut leaving = std::mem::take(&mut tracing.leaving);
        for one in leaving.extract_if(.., |one| one.conn == id) {
            tracing.told_later(at, self.now, Step::Written, &one.traced);
        }
        tracing.leaving = leaving;
    }

    /// A client has acknowledged `h` stanzas (XEP-0198).
    pub(in crate::shard) fn trace_acknowledged(&mut self, session: SessionId, h: u32) {
        let Some(tracing) = &mut self.tracing else { return };
        let mut unconfirmed = std::mem::take(&mut tracing.unconfirmed);
        let at = (tracing.clock)();
        unconfirmed.retain(|one| {
            let is_covered = one.session == session && h.wrapping_sub(one.number) < u32::MAX / 2;
            if is_covered {
                let detail = one.traced.detail.replacen("to ", "by ", 1);
                let traced = Traced { detail, ..one.traced.clone() };
                tracing.told_later(at, self.now, Step::Acknowledged, &traced);
            }
            !is_covered
        });
        tracing.unconfirmed = unconfirmed;
    }

    fn trace_step(
        &mut self,
        trace: u64,
        step: Step,
        detail: &str,
        about: impl FnOnce(&Core) -> About,
    ) {
        let Some(tracing) = &mut self.tracing else { return };
        let at = (tracing.clock)();
        if !tracing.has_room(trace, at) {
            return;
        }
        let traced = Traced { trace, detail: detail.to_owned(), about: about(self) };
        if let Some(tracing) = &mut self.tracing {
            tracing.tell(at, self.now, step, traced);
        }
    }

    fn about_envelope(&self, envelope: &Envelope<'_>, to: &str) -> About {
        let mut index = Index::default();
        match self.view(envelope.stanza, &mut index) {
            Some(stanza) => About::of(&stanza, Some(envelope.from), Some(to)),
            // What the shard itself made is always one.
            None => About { kind: stanza_kind(envelope.kind), ..About::default() },
        }
    }
}

impl super::Tracing {
    fn follow(&mut self, conn: ConnId, traced: Traced) {
        match self.leaving.len() < FOLLOWED_MAX {
            true => self.leaving.push(Leaving { conn, blocked: false, traced }),
            false => self.leave_out(traced.trace),
        }
    }

    fn told_later(&mut self, at: Instant, now: Now, step: Step, traced: &Traced) {
        if self.has_room(traced.trace, at) {
            self.tell(at, now, step, traced.clone());
        }
    }
}
