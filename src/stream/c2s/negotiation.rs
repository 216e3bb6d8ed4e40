//! What a client says before it has logged in: STARTTLS, SASL in both profiles, registration.

use super::{C2s, Event, Phase};
use crate::stream::policy::C2sPolicy;
use crate::stream::registration;
use crate::stream::resume;
use crate::stream::sasl::{Mechanism, SaslFailure, TokenMechanism, decode_payload};
use crate::stream::sasl2::{self, Authenticate};
use crate::xmpp::ns;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stream_error::{StreamCondition, StreamError};

impl C2s {
    pub(super) fn negotiation_element(
        &mut self,
        stanza: &Stanza<'_>,
        policy: &C2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<Event, StreamError> {
        match (stanza.namespace(), stanza.name()) {
            (ns::TLS, "starttls") if !self.secure && self.phase == Phase::Open => {
                out.extend_from_slice(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
                self.phase = Phase::StartingTls;
                Ok(Event::StartTls)
            }
            (ns::SASL, "auth") if self.phase == Phase::Open => {
                if !self.secure && policy.tls_required {
                    return self.refuse(SaslFailure::EncryptionRequired, out);
                }
                let mechanism = stanza.attr("mechanism").and_then(|name| Mechanism::parse(&name));
                let Some(mechanism) =
                    mechanism.filter(|chosen| self.mechanisms(policy).contains(chosen))
                else {
                    return self.refuse(SaslFailure::InvalidMechanism, out);
                };
                let text = stanza.text();
                if text.is_empty() {
                    // No initial response: an empty challenge asks for it (RFC 6120 §6.4.2).
                    self.phase = Phase::Initial(mechanism);
                    self.challenge(&[], out);
                    return Ok(Event::Nothing);
                }
                match decode_payload(&text) {
                    Ok(initial) => {
                        self.phase = Phase::Exchange;
                        Ok(Event::Auth { mechanism, initial })
                    }
                    Err(failure) => self.refuse(failure, out),
                }
            }
            (ns::SASL2, "authenticate") if self.phase == Phase::Open => {
                self.authenticate(stanza, policy, out)
            }
            // The other profile's elements are as much out of place as any others.
            (ns::SASL | ns::SASL2, "response" | "abort")
                if (stanza.namespace() == ns::SASL2) != self.request.is_some() =>
            {
                Err(StreamError::new(StreamCondition::NotAuthorized))
            }
            (ns::SASL | ns::SASL2, "response") => {
                match (self.phase, decode_payload(&stanza.text())) {
                    (Phase::Open, _) => Err(StreamError::new(StreamCondition::NotAuthorized)),
                    (Phase::Initial(mechanism), Ok(initial)) => {
                        self.phase = Phase::Exchange;
                        Ok(Event::Auth { mechanism, initial })
                    }
                    (_, Ok(data)) => Ok(Event::Response(data)),
                    (_, Err(failure)) => self.refuse(failure, out),
                }
            }
            (ns::SASL | ns::SASL2, "abort") if self.phase != Phase::Open => {
                self.refuse(SaslFailure::Aborted, out)?;
                Ok(Event::Abort)
            }
            (ns::CLIENT, "iq") if self.phase == Phase::Open && self.may_send_password(policy) => {
                let domain = self.domain().map_or("", |domain| domain);
                match registration::Request::read(stanza, domain) {
                    Some(request) => Ok(Event::Register(Box::new(request))),
                    None => Err(StreamError::new(StreamCondition::NotAuthorized)),
                }
            }
            // XEP-0198 §3: only who has logged in may do so, and hears what was wrong.
            (ns::SM3, "enable" | "resume") => {
                out.extend_from_slice(&resume::failed("unexpected-request", None));
                Err(StreamError::new(StreamCondition::NotAuthorized))
            }
            // RFC 6120 §4.9.3.12: a stanza before login.
            _ => Err(StreamError::new(StreamCondition::NotAuthorized)),
        }
    }

    fn authenticate(
        &mut self,
        stanza: &Stanza<'_>,
        policy: &C2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<Event, StreamError> {
        self.request = Some(Box::new(Authenticate::read(stanza)?));
        if !self.secure {
            // XEP-0388 §6: never before TLS, whatever the old profile may do here.
            return self.refuse(SaslFailure::EncryptionRequired, out);
        }
        if let Some(mechanism) =
            stanza.attr("mechanism").and_then(|name| TokenMechanism::parse(&name))
        {
            if !self.token_mechanisms().any(|listed| listed == mechanism) {
                return self.refuse(SaslFailure::InvalidMechanism, out);
            }
            return match sasl2::initial_response(stanza) {
                Ok(Some(initial)) => {
                    self.phase = Phase::Exchange;
                    Ok(Event::Token { mechanism, initial })
                }
                Ok(None) => self.refuse(SaslFailure::MalformedRequest, out),
                Err(failure) => self.refuse(failure, out),
            };
        }
        let mechanism = stanza.attr("mechanism").and_then(|name| Mechanism::parse(&name));
        let Some(mechanism) = mechanism.filter(|chosen| self.mechanisms(policy).contains(chosen))
        else {
            return self.refuse(SaslFailure::InvalidMechanism, out);
        };
        match sasl2::initial_response(stanza) {
            Ok(Some(initial)) => {
                self.phase = Phase::Exchange;
                Ok(Event::Auth { mechanism, initial })
            }
            Ok(None) => {
                self.phase = Phase::Initial(mechanism);
                self.challenge(&[], out);
                Ok(Event::Nothing)
            }
            Err(failure) => self.refuse(failure, out),
        }
    }

    fn refuse(&mut self, failure: SaslFailure, out: &mut Vec<u8>) -> Result<Event, StreamError> {
        self.failure(failure, out);
        Ok(Event::Refused)
    }
}
