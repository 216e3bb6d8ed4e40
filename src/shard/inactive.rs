//! XEP-0352: Client State Indication. While nobody looks at a client, what it need not know now is held back: presence, of
//! which the newest of each sender counts, and who is typing. It goes out in order, before anything that matters, when the
//! client is active again, and when it is too much.

use super::copy;
use super::effect::Effects;
use super::outbound::Mark;
use super::session::SessionId;
use super::{Core, Undo};
use crate::base::hash::Set;
use crate::xmpp::ns;
use crate::xmpp::stanza::{MessageType, PresenceType, Stanza, StanzaKind};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::reader::Index;

/// What is held back for one session, oldest first. There while its client is inactive.
#[derive(Debug, Default)]
pub(super) struct Held {
    stanzas: Vec<HeldStanza>,
    bytes: usize,
}

#[derive(Clone, Debug)]
pub(super) struct HeldStanza {
    bytes: Box<[u8]>,
    /// For presence that a newer one of the same sender replaces.
    sender: Option<Box<str>>,
    /// Where it is watched.
    trace: Option<u64>,
}

/// Whether a stanza can wait.
#[derive(Debug, PartialEq, Eq)]
enum Urgency {
    Now,
    Waits,
    /// Until there is a newer one of this sender.
    Replaceable(Box<str>),
}

impl Core {
    /// `<active/>` or `<inactive/>`
    pub(super) fn set_active(&mut self, session: SessionId, active: bool, fx: &mut Effects) {
        if active {
            self.no_longer_inactive(session, fx);
        } else if let Some(slot) = self.sessions.get_mut(session.0) {
            slot.held.get_or_insert_default();
            self.changed(session, copy::KEPT_WITH_IT);
        }
    }

    /// The client is looked at, or its connection is gone: a stream that resumes the session begins as active.
    pub(super) fn no_longer_inactive(&mut self, session: SessionId, fx: &mut Effects) {
        self.flush_held(session, fx);
        let held = self.sessions.get_mut(session.0).and_then(|slot| slot.held.take());
        if held.is_some() {
            self.changed(session, copy::KEPT_WITH_IT);
        }
    }

    /// Holds a stanza back for an inactive client; false where it must go out now, and what was held has gone before it.
    pub(super) fn hold_back(
        &mut self,
        session: SessionId,
        parts: &[&[u8]],
        row: Option<u64>,
        fx: &mut Effects,
    ) -> bool {
        let bytes = parts.concat().into_boxed_slice();
        let mut index = Index::default();
        let urgency = match self.view(&bytes, &mut index) {
            Some(stanza) if row.is_none() => urgency(&stanza),
            Some(_) | None => Urgency::Now,
        };
        let sender = match urgency {
            Urgency::Now => {
                self.flush_held(session, fx);
                return false;
            }
            Urgency::Waits => None,
            Urgency::Replaceable(sender) => Some(sender),
        };
        let trace = if self.is_tracing() { self.trace_held(session, &bytes) } else { None };
        let (stanzas_max, bytes_max) =
            (self.config.limits.held_stanzas, self.config.limits.held_bytes);
        let held = self.sessions.get_mut(session.0).and_then(|slot| slot.held.as_mut());
        let Some(held) = held else { return false };
        held.bytes += bytes.len();
        held.stanzas.push(HeldStanza { bytes, sender, trace });
        self.undo.push(Undo::Held(session));
        let full = held.stanzas.len() > stanzas_max || held.bytes > bytes_max;
        if full {
            self.flush_held(session, fx);
        }
        true
    }

    /// Sends what was held back.
    fn flush_held(&mut self, session: SessionId, fx: &mut Effects) {
        let held = self.sessions.get_mut(session.0).and_then(|slot| slot.held.as_mut());
        let Some(held) = held.filter(|held| !held.stanzas.is_empty()) else { return };
        let stanzas = std::mem::take(&mut held.stanzas);
        held.bytes = 0;
        let before = self.trace();
        let mut newer = Set::default();
        let mut current = vec![true; stanzas.len()];
        for (is_current, stanza) in current.iter_mut().zip(&stanzas).rev() {
            *is_current = stanza.sender.as_deref().is_none_or(|sender| newer.insert(sender));
        }
        for (stanza, _) in stanzas.iter().zip(&current).filter(|(_, is_current)| **is_current) {
            self.trace_enter(stanza.trace);
            self.emit_now(session, &[&stanza.bytes], Mark::NONE, fx);
        }
        self.trace_enter(before);
        self.undo.push(Undo::Flushed(session, stanzas));
    }

    /// A bug's effects are cut back: the newest stanza was not held.
    pub(super) fn undo_held(&mut self, session: SessionId) {
        let held = self.sessions.get_mut(session.0).and_then(|slot| slot.held.as_mut());
        if let Some(held) = held
            && let Some(last) = held.stanzas.pop()
        {
            held.bytes -= last.bytes.len();
        }
    }

    /// A bug's effects are cut back: what went out is held as it was.
    pub(super) fn undo_flushed(&mut self, session: SessionId, stanzas: Vec<HeldStanza>) {
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let held = slot.held.get_or_insert_default();
        held.bytes = stanzas.iter().map(|stanza| stanza.bytes.len()).sum();
        held.stanzas = stanzas;
    }
}

fn urgency(stanza: &Stanza<'_>) -> Urgency {
    match stanza.kind() {
        Some(StanzaKind::Presence) => presence_urgency(stanza),
        Some(StanzaKind::Message) if stanza.message_type() != MessageType::Error => {
            let copy = stanza.children().find(|child| child.namespace == ns::CARBONS);
            let waits = match copy {
                Some(copy) => is_copy_of_state(&copy.to_element()),
                None => is_state(stanza.children().map(|child| (child.namespace, child.name))),
            };
            if waits { Urgency::Waits } else { Urgency::Now }
        }
        Some(StanzaKind::Message | StanzaKind::Iq) | None => Urgency::Now,
    }
}

fn presence_urgency(stanza: &Stanza<'_>) -> Urgency {
    let news =
        matches!(stanza.presence_type(), Some(PresenceType::Available | PresenceType::Unavailable));
    if !news {
        return Urgency::Now;
    }
    // In a room each one tells something of its own: a role, a new name.
    match stanza.from() {
        Some(from) if stanza.child(ns::MUC_USER, "x").is_none() => {
            Urgency::Replaceable(from.into())
        }
        _ => Urgency::Waits,
    }
}

/// Whether a message says no more than what its sender is doing at the keyboard.
fn is_state<'a>(children: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
    let mut says = false;
    for (namespace, name) in children {
        match (namespace, name) {
            (ns::CHATSTATES, _) => says = true,
            (ns::HINTS | ns::STANZA_ID, _) | (ns::CLIENT, "thread") => {}
            _ => return false,
        }
    }
    says
}

/// As `is_state`, of a message that is copied (XEP-0280).
fn is_copy_of_state(copy: &Element) -> bool {
    let message = copy
        .child(ns::FORWARD, "forwarded")
        .and_then(|forwarded| forwarded.child(ns::CLIENT, "message"));
    message.is_some_and(|message| {
        is_state(message.children().map(|child| (&*child.namespace, &*child.name)))
    })
}
