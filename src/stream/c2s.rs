//! Client streams: RFC 6120 negotiation as a machine. It is fed headers and first-level elements, writes what the
//! server says, and yields events; whose account it is and whether credentials hold is decided by the shard.

mod image;
mod negotiation;

pub use super::policy::{C2sPolicy, StreamFeatures};
pub use image::{Image, ImageError};

use super::TlsFacts;
use super::registration;
use super::sasl::{
    Mechanism, Offer, SaslFailure, TokenMechanism, encode_payload, external_identity,
    is_external_offered,
};
use super::sasl2::{self, Authenticate, read_enable, read_h};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::stanza::{Stanza, StanzaKind};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::reader::{StreamContext, StreamHeader};
use crate::xmpp::xml::writer::Writer;
use std::sync::Arc;

/// What the shard must act on.
#[derive(Debug)]
pub enum Event {
    /// Nothing more to do: the machine has written its answer.
    Nothing,
    /// A login was refused before it began; the answer is written.
    Refused,
    /// Start the TLS handshake once the output is flushed; no byte may stand behind the element.
    StartTls,
    /// The client names its mechanism and, with the initial response, its account.
    Auth {
        mechanism: Mechanism,
        initial: Vec<u8>,
    },
    /// The client logs in by a token (XEP-0484).
    Token {
        mechanism: TokenMechanism,
        initial: Vec<u8>,
    },
    /// The client's next SASL message.
    Response(Vec<u8>),
    Abort,
    /// A stranger asks for an account (XEP-0077).
    Register(Box<registration::Request>),
    Bind {
        id: String,
        resource: Option<String>,
    },
    Enable {
        resume: bool,
        /// For how long the client wishes it, in seconds.
        max: Option<u32>,
    },
    Resume {
        previous: String,
        h: u32,
    },
    /// `<r/>`
    Request,
    /// `<active/>` or `<inactive/>` (XEP-0352).
    State {
        active: bool,
    },
    /// `<a h=''/>`
    Ack {
        h: u32,
    },
    Stanza(StanzaKind),
}

const SM_FEATURE: &[u8] = b"<sm xmlns='urn:xmpp:sm:3'/>";
const BIND_FEATURE: &[u8] = b"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>";

/// How far a login by SASL2 has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    LoggedIn,
    /// A resource is bound.
    Bound,
    /// XEP-0198 is enabled as well, or the session of before goes on with it.
    Managed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A stream header is due.
    Opening,
    /// Features are out and nobody has logged in.
    Open,
    /// `<proceed/>` is out; nothing may come before the handshake.
    StartingTls,
    /// The mechanism is chosen, its first message is due.
    Initial(Mechanism),
    /// An exchange runs; the shard holds its state.
    Exchange,
    /// Logged in, the new header is due.
    Reopening,
    /// Logged in, a resource is due.
    Binding,
    Bound,
    /// Our close tag is out.
    Closed,
}

/// One client's stream. Lives on the core that holds the socket.
#[derive(Debug)]
pub struct C2s {
    phase: Phase,
    /// The domain of the stream, known from its first header on.
    domain: Option<Arc<str>>,
    /// Namespaces bound on the header, where they differ from what all clients write.
    context: Option<Box<StreamContext>>,
    /// There while the connection is secured and nobody has logged in.
    binding: Option<Box<TlsFacts>>,
    /// What `<authenticate/>` asked for, from then until the login is over: SASL2 is spoken while it is there.
    request: Option<Box<Authenticate>>,
    /// Whom the header's `from` named, until somebody has logged in.
    from: Option<Box<str>>,
    secure: bool,
    header_sent: bool,
}

/// The domain of ours that a stream is for; clients write it in more than one form (RFC 7622 §3.2).
fn served<'a>(to: &str, domains: &'a [Arc<str>]) -> Option<&'a Arc<str>> {
    let plain = domains.iter().find(|domain| domain.eq_ignore_ascii_case(to));
    plain.or_else(|| {
        let to = Jid::parse(to).ok()?;
        let is_domain = to.local().is_none() && to.resource().is_none();
        domains.iter().find(|domain| is_domain && ***domain == *to.domain())
    })
}

impl C2s {
    /// A stream on a fresh connection; `tls` where the connection began with a handshake (XEP-0368).
    pub fn new(tls: Option<TlsFacts>) -> Self {
        Self {
            phase: Phase::Opening,
            domain: None,
            context: None,
            secure: tls.is_some(),
            binding: tls.map(Box::new),
            request: None,
            from: None,
            header_sent: false,
        }
    }

    pub fn domain(&self) -> Option<&Arc<str>> {
        self.domain.as_ref()
    }

    pub fn is_secure(&self) -> bool {
        self.secure
    }

    pub fn is_bound(&self) -> bool {
        self.phase == Phase::Bound
    }

    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    pub fn is_logged_in(&self) -> bool {
        matches!(self.phase, Phase::Reopening | Phase::Binding | Phase::Bound)
    }

    /// Waiting for the handshake to finish; bytes now are a violation.
    pub fn is_starting_tls(&self) -> bool {
        self.phase == Phase::StartingTls
    }

    pub fn limits<'a>(&self, policy: &'a C2sPolicy) -> &'a XmlLimits {
        if self.is_logged_in() { &policy.limits } else { &policy.limits_before }
    }

    /// Namespaces to read this stream's elements with.
    pub fn context<'a>(&'a self, usual: &'a StreamContext) -> &'a StreamContext {
        self.context.as_deref().unwrap_or(usual)
    }

    /// What channel binding may use; `None` on plain connections.
    pub fn tls_facts(&self) -> Option<&TlsFacts> {
        self.binding.as_deref()
    }

    /// STARTTLS is done: the stream begins anew.
    pub fn secured(&mut self, facts: TlsFacts) {
        self.secure = true;
        self.binding = Some(Box::new(facts));
        self.phase = Phase::Opening;
        self.header_sent = false;
    }

    /// Whether a password may pass here.
    pub fn may_send_password(&self, policy: &C2sPolicy) -> bool {
        self.secure || !policy.tls_required
    }

    /// Mechanisms for this stream, best first.
    pub fn mechanisms(&self, policy: &C2sPolicy) -> Vec<Mechanism> {
        let bindable =
            self.binding.as_ref().is_some_and(|facts| facts.channel_binding().is_available());
        let offer = Offer {
            channel_binding: self.secure && bindable,
            plain: self.may_send_password(policy),
            scram: policy.scram,
            external: is_external_offered(self.certified(), self.domain_text()),
        };
        offer.mechanisms().collect()
    }

    /// Whom the client is by its certificate and its message, as `external_identity` says.
    pub fn external(&self, message: &[u8]) -> Result<BareJid, SaslFailure> {
        external_identity(self.certified(), self.domain_text(), message)
    }

    /// Whom the client's certificate names.
    fn certified(&self) -> &[BareJid] {
        self.binding.as_deref().map_or(&[], |facts| &facts.addresses)
    }

    fn domain_text(&self) -> &str {
        self.domain.as_deref().unwrap_or_default()
    }

    /// Mechanisms of FAST for this stream, best first.
    fn token_mechanisms(&self) -> impl Iterator<Item = TokenMechanism> + use<> {
        let binding = self.binding.as_ref().map(|facts| facts.channel_binding());
        let binding = binding.unwrap_or_default();
        TokenMechanism::ALL.into_iter().filter(move |it| it.data(&binding).is_some())
    }

    /// The client opened its stream. Answers with our header and the features of this stage.
    ///
    /// - errors: `host-unknown`, `invalid-namespace`, `unsupported-version` (RFC 6120 §4.9.3); our header is out before the error is
    pub fn header(
        &mut self,
        header: StreamHeader,
        policy: &C2sPolicy,
        usual: &StreamContext,
        id: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), StreamError> {
        let found = match (&header.to, &policy.domains[..]) {
            (Some(to), domains) => served(to, domains),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let sticks = match (&self.domain, found) {
            (Some(before), Some(now)) => before == now,
            _ => true,
        };
        let from = found.or(policy.domains.first());
        self.write_header(from.map_or("", |domain| domain), id, out);
        if header.context.content() != ns::CLIENT {
            // A server or a component that has the wrong port.
            return Err(StreamError::new(StreamCondition::InvalidNamespace));
        }
        let Some(domain) = found else {
            return Err(StreamError::new(StreamCondition::HostUnknown));
        };
        if !sticks {
            // A login at one domain must not turn into a session at another.
            return Err(StreamError::new(StreamCondition::HostUnknown)
                .with_text("the stream's domain may not change"));
        }
        if header.version.is_none_or(|(major, _)| major < 1) {
            return Err(StreamError::new(StreamCondition::UnsupportedVersion));
        }
        self.domain = Some(domain.clone());
        if self.phase == Phase::Opening {
            self.from = header.from.map(Into::into);
        }
        self.context = (header.context != *usual).then(|| Box::new(header.context));
        match self.phase {
            Phase::Opening => self.phase = Phase::Open,
            Phase::Reopening => self.phase = Phase::Binding,
            _ => {
                return Err(StreamError::new(StreamCondition::NotWellFormed)
                    .with_text("a second stream header"));
            }
        }
        self.write_features(policy, false, out);
        Ok(())
    }

    fn write_header(&mut self, from: &str, id: &str, out: &mut Vec<u8>) {
        self.header_sent = true;
        let mut header = Vec::with_capacity(256);
        Writer::new(&mut header)
            .start("stream:stream")
            .attr("xmlns", ns::CLIENT)
            .attr("xmlns:stream", ns::STREAMS)
            .attr("from", from)
            .attr("id", id)
            .attr("version", "1.0")
            .attr("xml:lang", "en");
        out.extend_from_slice(b"<?xml version='1.0'?>");
        out.extend_from_slice(&header);
        out.push(b'>');
    }

    /// The features of this stage. They follow a header, and in SASL2 a `<success/>`, after which no new stream begins.
    ///
    /// - takes: `managed`, whether XEP-0198 is enabled: what is done is not offered, and clients act on what they see
    fn write_features(&self, policy: &C2sPolicy, managed: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<stream:features>");
        if self.is_logged_in() {
            if self.phase != Phase::Bound {
                out.extend_from_slice(BIND_FEATURE);
            }
            if !managed {
                out.extend_from_slice(SM_FEATURE);
            }
            out.extend_from_slice(&policy.features.logged_in);
        } else {
            if !self.secure {
                let required: &[u8] = if policy.tls_required { b"<required/>" } else { b"" };
                out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'>");
                out.extend_from_slice(required);
                out.extend_from_slice(b"</starttls>");
            }
            let mechanisms = self.mechanisms(policy);
            if self.secure {
                let names = mechanisms.iter().map(|mechanism| mechanism.name());
                sasl2::write_feature(
                    names,
                    self.token_mechanisms(),
                    &policy.features.bind_inline,
                    out,
                );
            }
            if self.may_send_password(policy) {
                out.extend_from_slice(b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
                for mechanism in &mechanisms {
                    out.extend_from_slice(b"<mechanism>");
                    out.extend_from_slice(mechanism.name().as_bytes());
                    out.extend_from_slice(b"</mechanism>");
                }
                out.extend_from_slice(b"</mechanisms>");
            }
            if let Some(facts) = &self.binding
                && facts.channel_binding().is_available()
            {
                // XEP-0440: which channel bindings the -PLUS mechanisms can use.
                let mut writer = Writer::new(out);
                writer.start("sasl-channel-binding").attr("xmlns", ns::SASL_CB);
                for kind in facts.channel_binding().types() {
                    writer.start("channel-binding").attr("type", kind).close_empty();
                }
                writer.end("sasl-channel-binding");
            }
            if policy.registration && self.may_send_password(policy) {
                let mut writer = Writer::new(out);
                writer.start("register").attr("xmlns", ns::REGISTER_FEATURE).close_empty();
            }
        }
        if self.may_send_password(policy) {
            self.write_limits(policy, out);
        }
        out.extend_from_slice(b"</stream:features>");
    }

    /// XEP-0478: what this stage takes.
    fn write_limits(&self, policy: &C2sPolicy, out: &mut Vec<u8>) {
        let bytes = self.limits(policy).stanza_bytes_max;
        let mut writer = Writer::new(out);
        writer.start("limits").attr("xmlns", ns::STREAM_LIMITS);
        for (name, number) in [("max-bytes", bytes), ("idle-seconds", policy.idle_s)] {
            writer.start(name).text(&number.to_string()).end(name);
        }
        writer.end("limits");
    }

    /// A first-level element after the header.
    ///
    /// - errors: the condition of RFC 6120 §4.9.3 for what must not come at this stage
    pub fn element(
        &mut self,
        stanza: &Stanza<'_>,
        policy: &C2sPolicy,
        out: &mut Vec<u8>,
    ) -> Result<Event, StreamError> {
        match self.phase {
            Phase::Bound => Self::bound_element(stanza, out),
            Phase::Binding => self.binding_element(stanza, out),
            Phase::Open | Phase::Initial(_) | Phase::Exchange => {
                self.negotiation_element(stanza, policy, out)
            }
            Phase::Opening | Phase::Reopening | Phase::StartingTls | Phase::Closed => {
                Err(StreamError::new(StreamCondition::NotAuthorized))
            }
        }
    }

    fn bound_element(stanza: &Stanza<'_>, out: &mut Vec<u8>) -> Result<Event, StreamError> {
        if let Some(kind) = stanza.kind() {
            return Ok(Event::Stanza(kind));
        }
        match (stanza.namespace(), stanza.name()) {
            (ns::SM3, "r") => Ok(Event::Request),
            (ns::SM3, "a") => Ok(Event::Ack { h: read_h(stanza.attr("h").as_deref())? }),
            (ns::SM3, "enable") => {
                let (resume, max) = read_enable(|name| stanza.attr(name));
                Ok(Event::Enable { resume, max })
            }
            (ns::CSI, "active") => Ok(Event::State { active: true }),
            (ns::CSI, "inactive") => Ok(Event::State { active: false }),
            // It comes in place of binding. XEP-0198 §6: a recoverable error.
            (ns::SM3, "resume") => {
                out.extend_from_slice(&super::resume::failed("unexpected-request", None));
                Ok(Event::Nothing)
            }
            _ => Err(StreamError::new(StreamCondition::UnsupportedStanzaType)),
        }
    }

    fn binding_element(
        &mut self,
        stanza: &Stanza<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Event, StreamError> {
        match (stanza.namespace(), stanza.name()) {
            (ns::SM3, "resume") => {
                let previous = stanza.attr("previd").map(|id| id.into_owned()).unwrap_or_default();
                let Ok(h) = read_h(stanza.attr("h").as_deref()) else {
                    out.extend_from_slice(&super::resume::failed("bad-request", None));
                    return Ok(Event::Nothing);
                };
                Ok(Event::Resume { previous, h })
            }
            // XEP-0198 §3: a client may only enable it once a resource is bound.
            (ns::SM3, "enable") => {
                out.extend_from_slice(&super::resume::failed("unexpected-request", None));
                Ok(Event::Nothing)
            }
            _ => match stanza.kind() {
                Some(StanzaKind::Iq) if stanza.type_().as_deref() == Some("set") => {
                    let Some(bind) = stanza.child(ns::BIND, "bind") else {
                        return Err(StreamError::new(StreamCondition::NotAuthorized)
                            .with_text("bind a resource first"));
                    };
                    let bind = bind.to_element();
                    let id = stanza.id().map(|id| id.into_owned()).unwrap_or_default();
                    let resource = bind
                        .child(ns::BIND, "resource")
                        .map(|resource| resource.text())
                        .filter(|resource| !resource.is_empty());
                    Ok(Event::Bind { id, resource })
                }
                // RFC 6120 §7.1: nothing but binding before a resource is bound.
                _ => Err(StreamError::new(StreamCondition::NotAuthorized)
                    .with_text("bind a resource first")),
            },
        }
    }

    /// The `Auth` event that this element raised will be raised again: the connection moves to another core, which
    /// reads the same element.
    pub fn rewind(&mut self, stanza: &Stanza<'_>, mechanism: Mechanism) {
        self.phase = match stanza.name() {
            "auth" | "authenticate" => Phase::Open,
            _ => Phase::Initial(mechanism),
        };
        if self.phase == Phase::Open {
            self.request = None;
        }
    }

    /// As `rewind`, for `<authenticate/>` with all that is needed in it.
    pub fn rewind_authenticate(&mut self) {
        self.phase = Phase::Open;
        self.request = None;
    }

    pub fn challenge(&self, data: &[u8], out: &mut Vec<u8>) {
        let namespace = if self.request.is_some() { ns::SASL2 } else { ns::SASL };
        write_sasl("challenge", namespace, data, out);
    }

    /// The credentials hold: a new header is due.
    pub fn success(&mut self, data: &[u8], out: &mut Vec<u8>) {
        write_sasl("success", ns::SASL, data, out);
        self.phase = Phase::Reopening;
        self.header_sent = false;
        self.login_over();
    }

    /// What the client asked for with `<authenticate/>`; `None` where it speaks the old profile.
    pub fn request(&self) -> Option<&Authenticate> {
        self.request.as_deref()
    }

    /// As `request`, to be acted on: success is certain, and `success2` follows.
    pub fn take_request(&mut self) -> Box<Authenticate> {
        self.request.take().unwrap_or_default()
    }

    /// The login by SASL2 is over: this stream goes on, with `<success/>` and the features of the next stage.
    ///
    /// - takes: as of `<success/>`: data of the mechanism, the client's identity, and results as XML; `progress`, what
    ///   was done along the way
    pub fn success2(
        &mut self,
        data: &[u8],
        identity: &str,
        results: &[u8],
        progress: Progress,
        policy: &C2sPolicy,
        out: &mut Vec<u8>,
    ) {
        sasl2::write_success(data, identity, results, out);
        let is_bound = progress != Progress::LoggedIn;
        self.phase = if is_bound { Phase::Bound } else { Phase::Binding };
        self.login_over();
        self.write_features(policy, progress == Progress::Managed, out);
    }

    /// What only a login needs goes.
    fn login_over(&mut self) {
        self.binding = None;
        self.request = None;
        self.from = None;
    }

    /// Whether an authorization identity agrees with the header's `from` (XEP-0388 §2.3); always in the old profile, and
    /// where the header named nobody.
    pub fn is_from(&self, jid: &BareJid) -> bool {
        self.request.is_none()
            || self
                .from
                .as_deref()
                .is_none_or(|from| Jid::parse(from).is_ok_and(|from| from.bare() == jid))
    }

    /// The login failed; another may be tried on this stream.
    pub fn failure(&mut self, failure: SaslFailure, out: &mut Vec<u8>) {
        match self.request.take() {
            Some(_) => sasl2::write_failure(failure, out),
            None => {
                Writer::new(out)
                    .start("failure")
                    .attr("xmlns", ns::SASL)
                    .start(failure.name())
                    .close_empty()
                    .end("failure");
            }
        }
        self.phase = Phase::Open;
    }

    /// The resource is bound, or a session is resumed.
    pub fn bound(&mut self) {
        self.phase = Phase::Bound;
    }

    /// Ends the stream, with `error` first where there is one. A header goes before it if none was sent
    /// (RFC 6120 §4.9.1.2).
    pub fn close(
        &mut self,
        error: Option<&StreamError>,
        policy: &C2sPolicy,
        id: &str,
        out: &mut Vec<u8>,
    ) {
        if self.phase == Phase::Closed {
            return;
        }
        if self.phase != Phase::StartingTls {
            if !self.header_sent {
                let from = self.domain.clone().or_else(|| policy.domains.first().cloned());
                self.write_header(from.as_deref().unwrap_or(""), id, out);
            }
            if let Some(error) = error {
                error.write(out);
            }
            out.extend_from_slice(b"</stream:stream>");
        }
        self.phase = Phase::Closed;
    }
}

fn write_sasl(name: &str, namespace: &str, data: &[u8], out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    writer.start(name).attr("xmlns", namespace);
    if !data.is_empty() {
        writer.text(&encode_payload(data));
    }
    writer.end(name);
}
