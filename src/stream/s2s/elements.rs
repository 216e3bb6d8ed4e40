//! First-level elements: which may come at what stage, stanzas of authenticated pairs, dialback, and errors of the peer.

use super::{Event, Pair, PeerLimits, Phase, Role, S2sPolicy, S2sStream};
use crate::stream::dialback::{Dialback, Verdict};
use crate::xmpp::jid::Jid;
use crate::xmpp::ns;
use crate::xmpp::stanza::{Child, Stanza, StanzaKind};
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::stream_error::{StreamCondition, StreamError};

/// Longest text of a peer's stream error that is kept, in bytes.
const ERROR_TEXT_BYTES_MAX: usize = 256;

impl S2sStream {
    /// A first-level element of the peer. `None`: nothing to do, what was to be answered is.
    ///
    /// - errors: the condition of RFC 6120 §4.9.3 for what must not come at this stage, for stanzas of other pairs
    ///   (`invalid-from`, `host-unknown`, `improper-addressing`) and for what is not known
    pub fn element(
        &mut self,
        stanza: &Stanza<'_>,
        policy: &S2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, StreamError> {
        if self.is_waiting() || self.phase == Phase::Opening {
            return Err(StreamError::new(StreamCondition::NotAuthorized));
        }
        if stanza.is(ns::STREAMS, "error") {
            self.phase = Phase::Ended;
            return Ok(Some(Event::Failed(read_error(stanza))));
        }
        if let Some(flaw) = self.flaw.take() {
            return Err(flaw);
        }
        match self.phase {
            Phase::Features => self.features(stanza, out),
            Phase::AskingTls => self.tls_answer(stanza).map(Some),
            _ if !self.secure => self.plain_element(stanza, policy, out),
            _ => self.secure_element(stanza, policy, out),
        }
    }

    fn secure_element(
        &mut self,
        stanza: &Stanza<'_>,
        policy: &S2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, StreamError> {
        if let Some(kind) = stanza.kind() {
            return self.stanza(stanza, kind, policy).map(Some);
        }
        match stanza.namespace() {
            ns::DIALBACK => self.dialback(Dialback::read(stanza)?, policy, out),
            ns::SM3 => self.managing(stanza, out),
            ns::SASL if self.role == Role::Initiating => self.sasl_answer(stanza, out),
            ns::SASL => self.sasl(stanza, policy, out),
            ns::BIDI if stanza.name() == "bidi" && self.role == Role::Receiving => {
                self.peer_asks_bidi(stanza).map(Some)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// What is out of place, before there is any pair and after.
    pub(super) fn unexpected(&self) -> StreamError {
        StreamError::new(match self.is_established() {
            true => StreamCondition::UnsupportedStanzaType,
            false => StreamCondition::NotAuthorized,
        })
    }

    /// RFC 6120 §8.1: between servers both addresses are needed, and are of domains that were authenticated.
    fn stanza(
        &self,
        stanza: &Stanza<'_>,
        kind: StanzaKind,
        policy: &S2sPolicy,
    ) -> Result<Event, StreamError> {
        if self.inbound.is_empty() {
            return Err(StreamError::new(StreamCondition::NotAuthorized));
        }
        let address = |value: Option<std::borrow::Cow<'_, str>>| {
            let jid = value.and_then(|text| Jid::parse(&text).ok());
            jid.ok_or_else(|| StreamError::new(StreamCondition::ImproperAddressing))
        };
        let (from, to) = (address(stanza.from())?, address(stanza.to())?);
        let is_from = |pair: &Pair| pair.remote.as_str() == from.domain();
        if self.inbound.iter().any(|pair| is_from(pair) && pair.local.as_str() == to.domain()) {
            return Ok(Event::Stanza { kind, from, to });
        }
        let is_known = self.inbound.iter().any(is_from);
        Err(StreamError::new(match is_known && !policy.serves(to.domain()) {
            true => StreamCondition::HostUnknown,
            false => StreamCondition::InvalidFrom,
        }))
    }

    fn dialback(
        &mut self,
        element: Dialback,
        policy: &S2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, StreamError> {
        // XEP-0288 §2.2 lets the receiving side ask as well.
        let may_be_asked = self.role == Role::Receiving || self.bidi;
        match &element {
            Dialback::Ask { .. } | Dialback::Verify { .. } if !may_be_asked => {
                Err(StreamError::new(StreamCondition::NotAuthorized))
            }
            Dialback::Ask { from, to, .. } => {
                let pair = Pair { local: to.clone(), remote: from.clone() };
                if self.pending.contains(&pair) {
                    // One answer is for both.
                    return Ok(None);
                }
                let verdict = self.quick_verdict(&pair, policy);
                if let Some(verdict) = verdict {
                    let (from, to) = (pair.local, pair.remote);
                    Dialback::Answer { from, to, verdict }.write(out);
                    return Ok(None);
                }
                self.pending.push(pair);
                Ok(Some(Event::Dialback(element)))
            }
            Dialback::Verify { from, to, id, .. } => {
                if !policy.serves(to.as_str()) {
                    let verdict = Verdict::Error(StanzaCondition::ItemNotFound);
                    let (from, to, id) = (to.clone(), from.clone(), id.clone());
                    Dialback::Verified { from, to, id, verdict }.write(out);
                    return Ok(None);
                }
                Ok(Some(Event::Dialback(element)))
            }
            Dialback::Answer { from, to, verdict } => {
                let is_it = |pair: &Pair| pair.local == *to && pair.remote == *from;
                let Some(place) = self.asked.iter().position(is_it) else {
                    // XEP-0220 §3.1: nobody asked.
                    return Ok(None);
                };
                let pair = self.asked.remove(place);
                if *verdict == Verdict::Valid {
                    self.accepted(pair);
                }
                Ok(Some(Event::Dialback(element)))
            }
            Dialback::Verified { from, to, id, .. } => {
                let is_it = |(pair, of): &(Pair, Box<str>)| {
                    pair.local == *to && pair.remote == *from && of == id
                };
                let Some(place) = self.verifying.iter().position(is_it) else {
                    return Ok(None);
                };
                self.verifying.swap_remove(place);
                Ok(Some(Event::Dialback(element)))
            }
        }
    }

    /// What needs nobody's key to be answered.
    fn quick_verdict(&self, pair: &Pair, policy: &S2sPolicy) -> Option<Verdict> {
        if self.inbound.contains(pair) {
            return Some(Verdict::Valid);
        }
        let condition = if !policy.serves(pair.local.as_str()) {
            StanzaCondition::ItemNotFound
        } else if policy.serves(pair.remote.as_str()) {
            StanzaCondition::NotAcceptable
        } else if self.role == Role::Receiving && !self.offer.dialback {
            StanzaCondition::NotAuthorized
        } else if self.pending.len() + self.inbound.len() >= policy.pairs_max {
            StanzaCondition::ResourceConstraint
        } else {
            return None;
        };
        Some(Verdict::Error(condition))
    }

    /// The peer takes stanzas of this pair.
    pub(super) fn accepted(&mut self, pair: Pair) {
        // XEP-0288 §2.2: what a proved domain may be sent from, it may be sent to.
        if self.role == Role::Receiving && !self.inbound.contains(&pair) {
            self.inbound.push(pair.clone());
        }
        if !self.outbound.contains(&pair) {
            self.outbound.push(pair);
        }
    }

    /// Keeps what `<limits/>` says (XEP-0478).
    pub(super) fn read_limits(&mut self, limits: &Child<'_>) {
        let limits = limits.to_element();
        let number = |name: &str| {
            let child = limits.child(ns::STREAM_LIMITS, name)?;
            child.text().trim().parse().ok().filter(|number| *number > 0)
        };
        self.peer_limits =
            PeerLimits { bytes_max: number("max-bytes"), idle_s: number("idle-seconds") };
    }
}

/// The peer's `<stream:error/>`.
fn read_error(stanza: &Stanza<'_>) -> StreamError {
    let of_ours = || stanza.children().filter(|child| child.namespace == ns::STREAM_ERRORS);
    let condition = of_ours().find_map(|child| StreamCondition::from_name(child.name));
    let mut error = StreamError::new(condition.unwrap_or(StreamCondition::UndefinedCondition));
    if let Some(text) = of_ours().find(|child| child.name == "text") {
        let mut text = text.text().into_owned();
        text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES_MAX));
        error = error.with_text(text);
    }
    error
}
