//! IQs that a component was asked and has not answered. When its connection is lost they are answered for it, as the IQs
//! of a session that ends are: who asked waits for one answer, and no timer runs for it.
//!
//! A component may answer on another of its connections than the one that it was asked on, which may be at another
//! shard: that shard is told by a control frame.

use super::super::bounce::stanza_id;
use super::super::control::Control;
use super::super::deliver::domain_of;
use super::super::peers::Peer;
use super::super::{Core, Post, Undo};
use super::ConnId;
use crate::base::hash::Map;
use crate::frame::{Envelope, Kind};
use crate::shard::effect::Effects;
use crate::xmpp::stanza::{IqType, Stanza, StanzaKind};
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError, write_error_reply};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The open IQs of one connection.
///
/// - bound: `Limits::component_open_iqs`; above, the oldest counts as answered, for a component that forgets some must
///   not lose all others
#[derive(Debug, Default)]
pub(in crate::shard) struct Asked {
    /// The time of asking, in order, by the IQ.
    open: Map<Arc<str>, u64>,
    by_age: BTreeMap<u64, Arc<str>>,
    count: u64,
}

/// Who asked, the component's address, and the id. None of the three holds a NUL (RFC 7622; XML 1.0 §2.2).
fn name(from: &str, to: &str, id: &str) -> String {
    [from, to, id].join("\0")
}

impl Asked {
    fn ask(&mut self, name: &str, limit: usize) {
        self.answered(name);
        if self.open.len() >= limit
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.open.remove(&oldest);
        }
        let name: Arc<str> = name.into();
        self.count += 1;
        self.open.insert(name.clone(), self.count);
        self.by_age.insert(self.count, name);
    }

    /// Whether it was open.
    fn answered(&mut self, name: &str) -> bool {
        let Some(at) = self.open.remove(name) else { return false };
        self.by_age.remove(&at);
        true
    }

    /// Takes the newest back.
    pub(in crate::shard) fn undo(&mut self) {
        if let Some((_, name)) = self.by_age.pop_last() {
            self.open.remove(&name);
        }
    }

    /// What is open, oldest first.
    pub(in crate::shard) fn open(&self) -> impl Iterator<Item = &str> {
        self.by_age.values().map(|name| &**name)
    }
}

impl Core {
    /// A stanza was given to a component's connection.
    pub(super) fn note_asked(&mut self, conn: ConnId, envelope: &Envelope<'_>, to: &str) {
        let asks = envelope.kind == Kind::Iq
            && matches!(IqType::from_code(envelope.subtype), Some(IqType::Get | IqType::Set));
        if !asks {
            return;
        }
        let limit = self.config.limits.component_open_iqs;
        let Some(id) = stanza_id(envelope.stanza) else { return };
        let Some(link) = self.conns.get_mut(conn.0).and_then(|conn| conn.component.as_mut()) else {
            return;
        };
        link.asked.ask(&name(envelope.from, to, &id), limit);
        self.undo.push(Undo::Asked(conn));
    }

    /// A component has answered, on any of its connections.
    pub(super) fn note_answered(
        &mut self,
        conn: ConnId,
        from: &str,
        to: &str,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) {
        let Some(id) = stanza.id() else { return };
        let name = name(to, from, &id);
        let link = self.conns.get_mut(conn.0).and_then(|conn| conn.component.as_mut());
        if link.is_some_and(|link| link.asked.answered(&name)) {
            return;
        }
        let Some(component) = self.components.of(from) else { return };
        if self.answered_here(component, &name) {
            return;
        }
        for peer in self.components.peers(component) {
            if peer != self.id.into() {
                self.tell_answered(peer, from, &name, fx);
            }
        }
    }

    /// Whether it was open at a connection of this shard.
    pub(super) fn answered_here(&mut self, component: usize, name: &str) -> bool {
        let (own, conns) = (Peer::from(self.id), &mut self.conns);
        self.components.places(component).iter().filter(|place| place.peer == own).any(|place| {
            let link = conns.get_mut(place.conn.0).and_then(|conn| conn.component.as_mut());
            link.is_some_and(|link| link.asked.answered(name))
        })
    }

    /// Not where the ring is full: then the IQ may be answered a second time when its connection is lost.
    fn tell_answered(&mut self, peer: Peer, from: &str, name: &str, fx: &mut Effects) {
        if !self.is_ring_full(peer, fx) {
            let domain = domain_of(from);
            self.send_control(peer, Control::ComponentAnswered, domain, name.as_bytes(), fx);
        }
    }

    /// Answers what a connection that was lost left open.
    ///
    /// - takes: names of IQs; what of them was still in the output is not among them
    pub(super) fn answer_open<'a>(&mut self, open: impl Iterator<Item = &'a str>) {
        let error = StanzaError::new(StanzaCondition::RemoteServerTimeout)
            .with_text("the component was disconnected before it answered");
        for name in open {
            let mut parts = name.split('\0');
            let (Some(from), Some(to), Some(id)) = (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            self.probe.component_stanzas_bounced += 1;
            let mut out = Vec::with_capacity(256);
            write_error_reply(&mut out, StanzaKind::Iq, Some(id), Some(to), Some(from), &error);
            self.leave(Post::whole(to, from, Kind::Iq, IqType::Error.code(), out));
        }
    }
}

/// The name under which a stanza that still is in the output was noted.
pub(super) fn name_of(stanza: &Stanza<'_>) -> Option<String> {
    (stanza.kind()? == StanzaKind::Iq).then_some(())?;
    Some(name(&stanza.from()?, &stanza.to()?, &stanza.id()?))
}

impl super::Link {
    /// What was asked is given back otherwise.
    pub(super) fn forget_asked(&mut self, name: &str) {
        self.asked.answered(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_open_makes_room() {
        let mut asked = Asked::default();
        for id in ["1", "2", "3", "2", "4"] {
            asked.ask(&name("a@b/c", "bot", id), 3);
        }
        let open = |asked: &Asked| {
            let ids = asked.open().filter_map(|name| name.split('\0').next_back());
            ids.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(open(&asked), "3 2 4");
        assert!(asked.answered(&name("a@b/c", "bot", "2")));
        assert!(!asked.answered(&name("a@b/c", "bot", "2")), "once");
        assert!(!asked.answered(&name("a@b/d", "bot", "3")), "by whom it was asked");
        asked.ask(&name("a@b/c", "bot", "5"), 3);
        asked.undo();
        assert_eq!(open(&asked), "3 4");
        assert_eq!(asked.open.len(), asked.by_age.len());
    }
}
