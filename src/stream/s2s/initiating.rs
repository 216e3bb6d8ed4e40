//! Streams that we open: what the peer's features and answers mean, and what we ask for.

use super::header::write_limits;
use super::{Event, Features, NoTls, Offer, Phase, Role, S2sPolicy, S2sStream};
use crate::stream::sasl::encode_payload;
use crate::xmpp::ns;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::writer::Writer;

impl S2sStream {
    /// The features of this stage. Without TLS there is one way to go on.
    pub(super) fn features(
        &mut self,
        stanza: &Stanza<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, StreamError> {
        if !stanza.is(ns::STREAMS, "features") {
            return Err(
                StreamError::new(StreamCondition::NotAuthorized).with_text("features are due")
            );
        }
        if !self.secure {
            if stanza.child(ns::TLS, "starttls").is_none() {
                self.phase = Phase::Ended;
                return Ok(Some(Event::NoTls(NoTls::NotOffered)));
            }
            out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            self.phase = Phase::AskingTls;
            return Ok(None);
        }
        let dialback = stanza.child(ns::DIALBACK_FEATURE, "dialback");
        let mechanisms = stanza.child(ns::SASL, "mechanisms").map(|it| it.to_element());
        let has_external = mechanisms.is_some_and(|mechanisms| {
            mechanisms.children().any(|it| it.name == "mechanism" && it.text().trim() == "EXTERNAL")
        });
        self.dialback_errors = dialback
            .as_ref()
            .is_some_and(|it| it.to_element().child(ns::DIALBACK_FEATURE, "errors").is_some());
        self.offer = Offer {
            external: has_external && !self.authenticated,
            dialback: self.offer.dialback || dialback.is_some(),
            bidi: stanza.child(ns::BIDI_FEATURE, "bidi").is_some(),
            management: stanza.child(ns::SM3, "sm").is_some(),
        };
        if let Some(limits) = stanza.child(ns::STREAM_LIMITS, "limits") {
            self.read_limits(&limits);
        }
        self.phase = Phase::Negotiating;
        let Offer { external, dialback, bidi, management } = self.offer;
        let dialback_errors = self.dialback_errors;
        let features = Features { external, dialback, dialback_errors, bidi, management };
        Ok(Some(Event::Features(features)))
    }

    pub(super) fn tls_answer(&mut self, stanza: &Stanza<'_>) -> Result<Event, StreamError> {
        match (stanza.namespace(), stanza.name()) {
            (ns::TLS, "proceed") => {
                self.phase = Phase::StartingTls;
                Ok(Event::StartTls)
            }
            (ns::TLS, "failure") => {
                self.phase = Phase::Ended;
                Ok(Event::NoTls(NoTls::Refused))
            }
            _ => Err(StreamError::new(StreamCondition::NotAuthorized)),
        }
    }

    /// Turns XEP-0288 on, with our limits (XEP-0478 §3.2). Comes before `authenticate` and `ask`. False, and nothing is
    /// written, where the peer does not offer it.
    pub fn bidi(&mut self, policy: &S2sPolicy, out: &mut Vec<u8>) -> bool {
        if self.role != Role::Initiating || !self.is_negotiating() || !self.offer.bidi || self.bidi
        {
            return false;
        }
        self.bidi = true;
        let mut writer = Writer::new(out);
        writer.start("bidi").attr("xmlns", ns::BIDI);
        write_limits(&mut writer, policy);
        writer.end("bidi");
        true
    }

    /// Asks to be the local domain by our certificate (EXTERNAL). False, and nothing is written, where the peer does not
    /// offer it.
    pub fn authenticate(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(local) = self.local.as_ref().filter(|_| self.is_negotiating()) else {
            return false;
        };
        if !self.offer.external {
            return false;
        }
        // XEP-0178 §3: not needed, but older servers rely on it.
        let identity = encode_payload(local.as_str().as_bytes());
        let mut writer = Writer::new(out);
        writer.start("auth").attr("xmlns", ns::SASL).attr("mechanism", "EXTERNAL");
        writer.text(&identity).end("auth");
        self.phase = Phase::Authenticating;
        true
    }

    fn is_negotiating(&self) -> bool {
        self.phase == Phase::Negotiating
    }

    pub(super) fn sasl_answer(
        &mut self,
        stanza: &Stanza<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, StreamError> {
        match (self.phase, stanza.name()) {
            (Phase::Authenticating, "success") => {
                self.authenticated = true;
                if let Some(pair) = self.pair() {
                    self.accepted(pair);
                }
                self.begin_anew(out);
                Ok(Some(Event::Authenticated))
            }
            (Phase::Authenticating | Phase::Aborting, "failure") => {
                self.phase = Phase::Negotiating;
                self.offer.external = false;
                let condition = stanza.children().find(|child| child.name != "text");
                let condition = condition.map_or("", |child| child.name).into();
                Ok(Some(Event::NotAuthenticated { condition }))
            }
            // EXTERNAL has no more than what was said.
            (Phase::Authenticating, "challenge") => {
                out.extend_from_slice(b"<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
                self.phase = Phase::Aborting;
                Ok(None)
            }
            _ => Err(self.unexpected()),
        }
    }
}
