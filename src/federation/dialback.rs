//! Server Dialback (XEP-0220) in its three roles. Initiating, we ask with a key of ours (`outbound`). Receiving, we have the
//! key that a peer asks with verified by the server that stands in the DNS for its domain, on a stream of our own to it.
//! Authoritative, we say whether a key is ours, which needs no memory: it is computed again (XEP-0185).
//!
//! A peer whose certificate is valid for the domain it asks for is believed without that, so that one stream can carry many
//! domains of a host.

use super::conn::Hold;
use super::domain::LaneId;
use super::effect::{Action, ConnId, Effects};
use super::{Core, Note, Timer};
use crate::base::instant::Instant;
use crate::stream::dialback::{Dialback, Verdict};
use crate::stream::s2s::Pair;
use crate::xmpp::jid::BareJid;
use crate::xmpp::stanza_error::StanzaCondition;

/// A key that the remote domain is to verify.
#[derive(Debug)]
pub(super) struct Asked {
    /// The pair, and the id of the stream, that it is about.
    pub pair: Pair,
    pub id: Box<str>,
    pub key: Box<str>,
    /// Who waits for it.
    pub conn: ConnId,
    /// The connection on which it was asked.
    pub on: Option<ConnId>,
    pub until: Instant,
}

impl Core {
    pub(super) fn dialback(&mut self, id: ConnId, element: Dialback, fx: &mut Effects) {
        match element {
            Dialback::Ask { from, to, key } => {
                self.dialback_asked(id, Pair { local: to, remote: from }, key, fx);
            }
            Dialback::Answer { verdict, .. } => self.dialback_answer(id, verdict, fx),
            Dialback::Verify { from, to, id: stream, key } => {
                self.verify(id, &from, &to, &stream, &key, fx);
            }
            Dialback::Verified { from, to, id: stream, verdict } => {
                self.verified(id, &Pair { local: to, remote: from }, &stream, verdict, fx);
            }
        }
    }

    /// Authoritative: is this the key that we made for `from`, to speak as `to` on its stream?
    fn verify(
        &mut self,
        conn: ConnId,
        from: &BareJid,
        to: &BareJid,
        id: &str,
        key: &str,
        fx: &mut Effects,
    ) {
        let secret = &self.config.dialback_secret;
        let verdict = if self.config.own(to.as_str()).is_none() {
            Verdict::Error(StanzaCondition::ItemNotFound)
        } else if self.is_refused(from.as_str()) {
            Verdict::Error(StanzaCondition::PolicyViolation)
        } else if secret.holds(from.as_str(), to.as_str(), id, key) {
            Verdict::Valid
        } else {
            Verdict::Invalid
        };
        let (from, to) = (to.clone(), from.clone());
        let answer = Dialback::Verified { from, to, id: id.into(), verdict };
        let mut out = Vec::with_capacity(128);
        answer.write(&mut out);
        self.write(conn, &out, fx);
        if let Some(conn) = self.conns.get_mut(conn.0) {
            conn.used_at = self.now.mono;
            if let super::conn::Side::In(side) = &mut conn.side {
                side.verifies = true;
            }
        }
    }

    /// Receiving: a peer wants to send from a domain to one of ours.
    fn dialback_asked(&mut self, id: ConnId, pair: Pair, key: Box<str>, fx: &mut Effects) {
        let policy = self.config.policy(pair.remote.as_str());
        let Some(conn) = self.conns.get(id.0) else { return };
        let trusted =
            conn.tls.as_ref().is_some_and(|tls| tls.speaks_for(pair.remote.as_str()).is_ok());
        // It may be another domain than that of the stream's header, or the header named none.
        let too_old = conn.tls.as_ref().is_some_and(|tls| tls.version < policy.oldest_tls);
        let Some(stream) = &conn.stream else { return };
        let stream_id: Box<str> = stream.id().into();
        let limits = &self.config.limits;
        let many = stream.inbound().len() >= limits.pairs_per_stream
            || self.asked_by(id) >= limits.pending_pairs_per_stream
            || self.pending_pairs >= limits.pending_pairs;
        let refused = self.is_refused(pair.remote.as_str());
        let own = self.config.own(pair.local.as_str()).cloned();
        let refusal = match own.as_ref() {
            _ if refused || too_old => Some(StanzaCondition::PolicyViolation),
            None => Some(StanzaCondition::ItemNotFound),
            Some(_) if trusted => {
                return self.answer_pair(id, &pair, Verdict::Valid, "certificate", fx);
            }
            Some(_) if policy.require_certificate || !policy.dialback => {
                Some(StanzaCondition::NotAuthorized)
            }
            Some(_) if many => Some(StanzaCondition::ResourceConstraint),
            Some(_) => None,
        };
        if let (None, Some(own)) = (refusal, own)
            && let Some(lane) = self.lane_to(&own, pair.remote.as_str())
            && let Some(slot) = self.lanes.get_mut(lane.0)
        {
            let until = self.now.mono + self.config.limits.negotiation;
            slot.asked.push(Asked { pair, id: stream_id, key, conn: id, on: None, until });
            self.pending_pairs += 1;
            if let Some(conn) = self.conns.get_mut(id.0)
                && let super::conn::Side::In(side) = &mut conn.side
            {
                side.asked += 1;
            }
            self.wheel.insert(until, Timer::Asked(lane));
            if let Some(conn) = slot.conn() {
                self.send_asked(lane, conn, fx);
            }
            return self.touch(lane);
        }
        let condition = refusal.unwrap_or(StanzaCondition::ResourceConstraint);
        self.answer_pair(id, &pair, Verdict::Error(condition), "dialback", fx);
    }

    /// Keys that this connection waits for.
    fn asked_by(&self, id: ConnId) -> usize {
        let conn = self.conns.get(id.0);
        conn.map_or(0, |conn| match &conn.side {
            super::conn::Side::In(side) => side.asked,
            super::conn::Side::Out(_) => 0,
        })
    }

    /// Asks the remote domain of a lane for the keys that wait, where the stream is that far.
    pub(super) fn send_asked(&mut self, lane: LaneId, conn: ConnId, fx: &mut Effects) {
        let policy = self.policy.clone();
        let Some(slot) = self.lanes.get_mut(lane.0) else { return };
        let mut asked = std::mem::take(&mut slot.asked);
        for one in asked.iter_mut().filter(|one| one.on.is_none()) {
            let sent = self.with_stream(conn, fx, |stream, out| {
                stream.verify(&one.pair, &one.id, &one.key, &policy, out)
            });
            if sent == Some(true) {
                one.on = Some(conn);
            }
        }
        if let Some(slot) = self.lanes.get_mut(lane.0) {
            slot.asked = asked;
        }
    }

    /// The remote domain has said what it thinks of a key.
    fn verified(
        &mut self,
        conn: ConnId,
        pair: &Pair,
        id: &str,
        verdict: Verdict,
        fx: &mut Effects,
    ) {
        let lane = self.find_lane(pair.local.as_str(), pair.remote.as_str());
        let Some((lane, slot)) = lane.and_then(|id| Some((id, self.lanes.get_mut(id.0)?))) else {
            return;
        };
        let is_it = |one: &Asked| *one.id == *id && one.on == Some(conn);
        let Some(place) = slot.asked.iter().position(is_it) else {
            self.probe.dialback_unsolicited += 1;
            return;
        };
        let asked = slot.asked.swap_remove(place);
        self.no_longer_asked(&asked);
        let answer = match verdict {
            Verdict::Error(_) => Verdict::Error(StanzaCondition::ItemNotFound),
            other => other,
        };
        self.answer_pair(asked.conn, pair, answer, "dialback", fx);
        self.touch(lane);
    }

    fn no_longer_asked(&mut self, asked: &Asked) {
        self.pending_pairs = self.pending_pairs.saturating_sub(1);
        if let Some(conn) = self.conns.get_mut(asked.conn.0)
            && let super::conn::Side::In(side) = &mut conn.side
        {
            side.asked = side.asked.saturating_sub(1);
        }
    }

    /// Tells a peer what becomes of a pair that it asked for.
    fn answer_pair(
        &mut self,
        id: ConnId,
        pair: &Pair,
        verdict: Verdict,
        by: &'static str,
        fx: &mut Effects,
    ) {
        let answered = self.with_stream(id, fx, |stream, out| stream.answer(pair, verdict, out));
        if answered != Some(true) {
            return;
        }
        if verdict == Verdict::Valid {
            match by {
                "certificate" => self.probe.pairs_by_certificate += 1,
                _ => self.probe.pairs_by_dialback += 1,
            }
            return self.register(id, pair, by, fx);
        }
        self.probe.pairs_refused += 1;
        let conn = self.conns.get(id.0);
        let used = conn
            .is_some_and(|conn| conn.stream.as_ref().is_some_and(|stream| stream.is_established()));
        // XEP-0220 §2.2.1: a key that was denied ends the stream.
        if verdict == Verdict::Invalid && !used && conn.is_some_and(|it| it.hold != Hold::Closing) {
            if let Some(peer) = conn.and_then(|conn| conn.peer) {
                let domain = Some(pair.remote.as_str().into());
                let text =
                    "its dialback key was denied by the server of the domain that it claims".into();
                fx.actions.push(Action::Note(Note::Broken { domain, peer: peer.ip(), text }));
            }
            self.give_up(id, super::Failure::Auth, "its dialback key was denied", None, fx);
        }
    }

    /// The stream on which keys were asked is gone: they are asked on the next one.
    pub(super) fn take_back_asked(&mut self, lane: LaneId, conn: ConnId) {
        if let Some(slot) = self.lanes.get_mut(lane.0) {
            for asked in slot.asked.iter_mut().filter(|asked| asked.on == Some(conn)) {
                asked.on = None;
            }
        }
    }

    /// The remote domain cannot be asked.
    pub(super) fn verifications_failed(&mut self, lane: LaneId, fx: &mut Effects) {
        let Some(slot) = self.lanes.get_mut(lane.0) else { return };
        for asked in std::mem::take(&mut slot.asked) {
            self.no_longer_asked(&asked);
            let verdict = Verdict::Error(StanzaCondition::RemoteServerNotFound);
            self.answer_pair(asked.conn, &asked.pair, verdict, "dialback", fx);
        }
    }

    /// Keys may have waited for too long.
    pub(super) fn asked_due(&mut self, lane: LaneId, fx: &mut Effects) {
        let now = self.now.mono;
        let Some(slot) = self.lanes.get_mut(lane.0) else { return };
        let (due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut slot.asked).into_iter().partition(|asked| asked.until <= now);
        slot.asked = waiting;
        for asked in due {
            self.no_longer_asked(&asked);
            let verdict = Verdict::Error(StanzaCondition::RemoteServerTimeout);
            self.answer_pair(asked.conn, &asked.pair, verdict, "dialback", fx);
        }
    }

    /// Who waited for keys is gone.
    pub(super) fn forget_asked(&mut self, conn: ConnId) {
        if self.asked_by(conn) == 0 {
            return;
        }
        let mut gone = 0;
        for (_, lane) in self.lanes.iter_mut() {
            let before = lane.asked.len();
            lane.asked.retain(|asked| asked.conn != conn);
            gone += before - lane.asked.len();
        }
        self.pending_pairs = self.pending_pairs.saturating_sub(gone);
    }

    /// Whether a connection that has no pair of its own is of use: servers verify keys on such.
    pub(super) fn serves_verifications(&self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(id.0) else { return false };
        match &conn.side {
            super::conn::Side::In(side) => side.verifies || side.asked > 0,
            super::conn::Side::Out(_) => false,
        }
    }
}
