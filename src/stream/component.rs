//! Streams of external components (XEP-0114, `jabber:component:accept`) as a machine: a header that names the
//! component's domain, a handshake that proves a shared secret, then stanzas both ways.
//!
//! Which connections of a component there are, and where its stanzas go, is decided by the shard. The other direction of
//! XEP-0114 (`jabber:component:connect`, in which the server dials) is not spoken.

use super::sasl::is_equal;
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::stanza::{Stanza, StanzaKind};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::reader::{StreamContext, StreamHeader};
use crate::xmpp::xml::writer::Writer;
use ring::digest;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

/// What a component and its server both know. Shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: &str) -> Secret {
        Secret(text.into())
    }

    /// XEP-0114 §3: lower-case hexadecimal SHA-1 of the stream's id and the secret.
    pub fn handshake(&self, stream_id: &str) -> String {
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(stream_id.as_bytes());
        hash.update(self.0.as_bytes());
        let mut text = String::with_capacity(2 * digest::SHA1_OUTPUT_LEN);
        for byte in hash.finish().as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A component that may connect. Copied to every core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentAccess {
    /// Prepared, and none of the server's own.
    pub domain: Arc<str>,
    pub secret: Secret,
}

/// What the shard must act on.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The secret is right: `establish` it, or close the stream.
    Authenticated,
    Stanza(StanzaKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A stream header is due.
    Opening,
    /// The header is answered, the handshake is due.
    Handshake,
    Established,
    /// Our close tag is out.
    Closed,
}

/// One component's stream. Lives on the core that holds the socket.
#[derive(Debug)]
pub struct Component {
    phase: Phase,
    /// Which of the components that may connect it says it is.
    domain: Option<Arc<str>>,
    id: Box<str>,
    context: StreamContext,
    header_sent: bool,
}

impl Component {
    pub fn new() -> Component {
        Component {
            phase: Phase::Opening,
            domain: None,
            id: "".into(),
            context: StreamContext::component(),
            header_sent: false,
        }
    }

    /// The component's domain, once the handshake is done.
    pub fn established(&self) -> Option<&Arc<str>> {
        self.domain.as_ref().filter(|_| self.phase == Phase::Established)
    }

    /// As `established`, from the header on and after the end.
    pub fn claimed(&self) -> Option<&Arc<str>> {
        self.domain.as_ref()
    }

    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Namespaces to read this stream's elements with.
    pub fn context(&self) -> &StreamContext {
        &self.context
    }

    /// The component opened its stream. Answers with our header.
    ///
    /// - errors: `invalid-namespace` for another protocol, `host-unknown` for a component that nobody configured; our
    ///   header is out before either
    /// - source: XEP-0114 §3
    pub fn header(
        &mut self,
        header: StreamHeader,
        known: &[ComponentAccess],
        id: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), StreamError> {
        if self.phase != Phase::Opening {
            return Err(StreamError::new(StreamCondition::NotWellFormed)
                .with_text("a second stream header"));
        }
        let named = header.to.as_deref().and_then(|to| BareJid::from_parts(None, to).ok());
        let access = named
            .and_then(|named| known.iter().find(|component| *component.domain == *named.as_str()));
        self.write_header(access.map(|component| &*component.domain), id, out);
        if header.context.content() != ns::COMPONENT_ACCEPT {
            return Err(StreamError::new(StreamCondition::InvalidNamespace)
                .with_text("components speak jabber:component:accept here"));
        }
        let Some(access) = access else {
            return Err(StreamError::new(StreamCondition::HostUnknown)
                .with_text("no component of this name is configured"));
        };
        self.domain = Some(access.domain.clone());
        self.id = id.into();
        self.context = header.context;
        self.phase = Phase::Handshake;
        Ok(())
    }

    /// A first-level element after the header.
    ///
    /// - errors: `not-authorized` for a wrong handshake and for all that comes before it; `unsupported-stanza-type`
    pub fn element(
        &mut self,
        stanza: &Stanza<'_>,
        known: &[ComponentAccess],
    ) -> Result<Event, StreamError> {
        match self.phase {
            Phase::Established => match stanza.kind() {
                Some(kind) => Ok(Event::Stanza(kind)),
                None => Err(StreamError::new(StreamCondition::UnsupportedStanzaType)),
            },
            Phase::Handshake if stanza.is(ns::COMPONENT_ACCEPT, "handshake") => {
                let given = stanza.text().trim().to_ascii_lowercase();
                let wanted = known.iter().find(|known| Some(&known.domain) == self.domain.as_ref());
                let wanted = wanted.map(|component| component.secret.handshake(&self.id));
                let holds =
                    wanted.is_some_and(|wanted| is_equal(wanted.as_bytes(), given.as_bytes()));
                match holds {
                    true => Ok(Event::Authenticated),
                    false => Err(StreamError::new(StreamCondition::NotAuthorized)),
                }
            }
            Phase::Opening | Phase::Handshake | Phase::Closed => {
                Err(StreamError::new(StreamCondition::NotAuthorized))
            }
        }
    }

    /// Tells the component that it is in.
    pub fn establish(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<handshake/>");
        self.phase = Phase::Established;
    }

    /// Ends the stream, with `error` first where there is one. A header goes before it if none was sent
    /// (RFC 6120 §4.9.1.2).
    pub fn close(&mut self, error: Option<&StreamError>, id: &str, out: &mut Vec<u8>) {
        if self.phase == Phase::Closed {
            return;
        }
        if !self.header_sent {
            self.write_header(None, id, out);
        }
        if let Some(error) = error {
            error.write(out);
        }
        out.extend_from_slice(b"</stream:stream>");
        self.phase = Phase::Closed;
    }

    fn write_header(&mut self, from: Option<&str>, id: &str, out: &mut Vec<u8>) {
        self.header_sent = true;
        let mut header = Vec::with_capacity(192);
        Writer::new(&mut header)
            .start("stream:stream")
            .attr("xmlns", ns::COMPONENT_ACCEPT)
            .attr("xmlns:stream", ns::STREAMS)
            .attr_opt("from", from)
            .attr("id", id);
        out.extend_from_slice(b"<?xml version='1.0'?>");
        out.extend_from_slice(&header);
        out.push(b'>');
    }
}

impl Default for Component {
    fn default() -> Component {
        Component::new()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::xmpp::xml::framer::XmlLimits;
    use crate::xmpp::xml::reader::{Index, read, read_header};

    fn known() -> Vec<ComponentAccess> {
        vec![ComponentAccess { domain: "bot.example.org".into(), secret: Secret::new("hush") }]
    }

    fn open(machine: &mut Component, to: &str, content: &str) -> (Result<(), StreamError>, String) {
        let header =
            format!("<stream:stream xmlns='{content}' to='{to}' xmlns:stream='{}'>", ns::STREAMS);
        let header = read_header(header.as_bytes(), &XmlLimits::default()).unwrap();
        let mut out = Vec::new();
        let result = machine.header(header, &known(), "3BF96D32", &mut out);
        (result, String::from_utf8(out).unwrap())
    }

    fn say(machine: &mut Component, xml: &str) -> Result<Event, StreamCondition> {
        let mut index = Index::default();
        read(xml.as_bytes(), machine.context(), &XmlLimits::default(), &mut index).unwrap();
        let stanza = Stanza { bytes: xml.as_bytes(), index: &index };
        machine.element(&stanza, &known()).map_err(|error| error.condition)
    }

    #[test]
    fn the_handshake_is_the_hash_of_id_and_secret() {
        // XEP-0114 §3 shows no secret with its hash: this is `printf 3BF96D32hush | sha1sum`.
        let hash = Secret::new("hush").handshake("3BF96D32");
        assert_eq!(hash, "3ca4ebcf5bfc32173bd880cb93abca93cee28925");
        assert_eq!(format!("{:?}", Secret::new("hush")), "Secret(..)");
    }

    #[test]
    fn a_component_that_knows_the_secret_is_let_in() {
        let mut machine = Component::new();
        let (result, out) = open(&mut machine, "BOT.example.org", ns::COMPONENT_ACCEPT);
        assert_eq!(result, Ok(()));
        assert!(out.contains("from='bot.example.org' id='3BF96D32'>"), "{out}");
        assert_eq!(machine.established(), None);
        let hash = Secret::new("hush").handshake("3BF96D32");
        let handshake = format!("<handshake>{}</handshake>", hash.to_uppercase());
        assert_eq!(say(&mut machine, &handshake), Ok(Event::Authenticated));
        let mut out = Vec::new();
        machine.establish(&mut out);
        assert_eq!(out, b"<handshake/>");
        assert_eq!(machine.established().map(|domain| &**domain), Some("bot.example.org"));
        assert_eq!(say(&mut machine, "<iq/>"), Ok(Event::Stanza(StanzaKind::Iq)));
        let twice = StreamCondition::UnsupportedStanzaType;
        assert_eq!(say(&mut machine, &handshake), Err(twice));
        // Of the content namespace only: a client's message is none here.
        assert_eq!(say(&mut machine, "<message xmlns='jabber:client'/>"), Err(twice));
    }

    #[test]
    fn what_comes_before_a_right_handshake_is_not_authorized() {
        for xml in ["<message/>", "<handshake/>", "<handshake>b8e2</handshake>", "<x xmlns='y'/>"] {
            let mut machine = Component::new();
            open(&mut machine, "bot.example.org", ns::COMPONENT_ACCEPT).0.unwrap();
            assert_eq!(say(&mut machine, xml), Err(StreamCondition::NotAuthorized), "{xml}");
        }
    }

    #[test]
    fn headers_that_name_no_component_are_refused_behind_our_own() {
        for (to, content, condition) in [
            ("bot.example.org", ns::CLIENT, StreamCondition::InvalidNamespace),
            ("example.org", ns::COMPONENT_ACCEPT, StreamCondition::HostUnknown),
            ("", ns::COMPONENT_ACCEPT, StreamCondition::HostUnknown),
        ] {
            let mut machine = Component::new();
            let (result, out) = open(&mut machine, to, content);
            assert_eq!(result.unwrap_err().condition, condition);
            assert!(out.starts_with("<?xml version='1.0'?><stream:stream "), "{out}");
            let mut end = Vec::new();
            machine.close(None, "x", &mut end);
            assert_eq!(end, b"</stream:stream>");
        }
    }
}
