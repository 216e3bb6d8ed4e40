//! What a peer that opened a stream to us says before its stanzas: STARTTLS, EXTERNAL (XEP-0178 §3), XEP-0288.

use super::header::domain;
use super::{Event, Pair, Phase, S2sPolicy, S2sStream};
use crate::stream::sasl::{SaslFailure, decode_payload};
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::writer::Writer;

impl S2sStream {
    /// Without TLS nothing but STARTTLS is of use (RFC 6120 §5.3.1).
    pub(super) fn plain_element(
        &mut self,
        stanza: &Stanza<'_>,
        policy: &S2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, StreamError> {
        match (stanza.namespace(), stanza.name()) {
            (ns::TLS, "starttls") => {
                out.extend_from_slice(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
                self.phase = Phase::StartingTls;
                Ok(Some(Event::StartTls))
            }
            (ns::SASL, "auth") => {
                self.fail(SaslFailure::EncryptionRequired, policy, out).map(|()| None)
            }
            (ns::DIALBACK, _) => {
                Err(StreamError::new(StreamCondition::PolicyViolation).with_text("TLS is required"))
            }
            _ => Err(StreamError::new(StreamCondition::NotAuthorized)),
        }
    }

    pub(super) fn sasl(
        &mut self,
        stanza: &Stanza<'_>,
        policy: &S2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, StreamError> {
        match (self.phase, stanza.name()) {
            (Phase::Open, "auth") if !self.authenticated => {
                let is_offered = self.offer.external;
                if !is_offered || stanza.attr("mechanism").as_deref() != Some("EXTERNAL") {
                    return self.fail(SaslFailure::InvalidMechanism, policy, out).map(|()| None);
                }
                let text = stanza.text();
                if text.is_empty() {
                    // No initial response: an empty challenge asks for it (RFC 6120 §6.4.2).
                    self.phase = Phase::Initial;
                    out.extend_from_slice(b"<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
                    return Ok(None);
                }
                self.judge(&text, policy, out)
            }
            (Phase::Initial, "response") => self.judge(&stanza.text(), policy, out),
            (Phase::Initial, "abort") => {
                self.fail(SaslFailure::Aborted, policy, out).map(|()| None)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// The peer's only message says who it wants to be.
    fn judge(
        &mut self,
        text: &str,
        policy: &S2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, StreamError> {
        let named = decode_payload(text.trim()).and_then(|message| self.identity(&message, policy));
        match named {
            Ok(domain) => {
                self.phase = Phase::Judging;
                self.remote = Some(domain.clone());
                Ok(Some(Event::External { domain }))
            }
            Err(failure) => self.fail(failure, policy, out).map(|()| None),
        }
    }

    /// XEP-0178 §3: the header's domain. An authorization identity is not needed, and must be the same where it is there.
    fn identity(&self, message: &[u8], policy: &S2sPolicy) -> Result<BareJid, SaslFailure> {
        let authzid = std::str::from_utf8(message).map_err(|_| SaslFailure::MalformedRequest)?;
        let named = match authzid {
            "" => return self.remote.clone().ok_or(SaslFailure::InvalidAuthzid),
            named => domain(named).ok_or(SaslFailure::InvalidAuthzid)?,
        };
        let is_other = self.remote.as_ref().is_some_and(|remote| *remote != named);
        match is_other || policy.serves(named.as_str()) {
            true => Err(SaslFailure::InvalidAuthzid),
            false => Ok(named),
        }
    }

    /// The certificate is valid for the domain of `Event::External`: a new header is due.
    pub fn authenticated(&mut self, out: &mut Vec<u8>) {
        if self.phase != Phase::Judging {
            return;
        }
        out.extend_from_slice(b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        self.authenticated = true;
        if let (Some(local), Some(remote)) = (self.local.clone(), self.remote.clone()) {
            self.take_from(Pair { local, remote });
        }
        self.begin_anew(out);
    }

    /// It is not. Another attempt, or dialback, may follow on this stream.
    ///
    /// - errors: `policy-violation` after too many attempts; the failure is written before it
    pub fn refused(
        &mut self,
        failure: SaslFailure,
        policy: &S2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<(), StreamError> {
        match self.phase {
            Phase::Judging => self.fail(failure, policy, out),
            _ => Ok(()),
        }
    }

    fn fail(
        &mut self,
        failure: SaslFailure,
        policy: &S2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<(), StreamError> {
        Writer::new(out)
            .start("failure")
            .attr("xmlns", ns::SASL)
            .start(failure.name())
            .close_empty()
            .end("failure");
        self.phase = Phase::Open;
        self.sasl_failures = self.sasl_failures.saturating_add(1);
        match self.sasl_failures >= policy.sasl_attempts_max {
            true => Err(StreamError::new(StreamCondition::PolicyViolation)
                .with_text("too many failed attempts")),
            false => Ok(()),
        }
    }

    pub(super) fn peer_asks_bidi(&mut self, stanza: &Stanza<'_>) -> Result<Event, StreamError> {
        if !self.offer.bidi || self.bidi || self.phase != Phase::Open {
            return Err(self.unexpected());
        }
        self.bidi = true;
        if let Some(limits) = stanza.child(ns::STREAM_LIMITS, "limits") {
            self.read_limits(&limits);
        }
        // It should come first, but may come when pairs are authenticated already.
        for pair in self.inbound.clone() {
            self.take_from(pair);
        }
        Ok(Event::Bidi)
    }
}
