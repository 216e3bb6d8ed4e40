//! SASL2 (XEP-0388) and what rides on it, XML to values and back: Bind 2 (XEP-0386), FAST (XEP-0484), inline
//! resumption (XEP-0198).
//! When an element may come is for `c2s` to say, whether it succeeds for the shard.

use super::sasl::{SaslFailure, TokenMechanism, decode_payload, encode_payload};
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::writer::Writer;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};

/// Longest id of a user agent; the XEP has it a UUID of 36 characters.
const AGENT_BYTES_MAX: usize = 256;

/// Bytes in the server's part of a resource, 12 characters in base64.
const RESOURCE_BYTES: usize = 9;

/// One installation of a client software, as it names itself: the head of the hash of its id. The id itself stays
/// between the client and the server (XEP-0386 §3.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent(pub [u8; 16]);

impl Agent {
    /// The resource that the server makes for this client of an account, or the end of it: always the same, of no use to
    /// those who see it.
    pub fn resource(&self, secret: &[u8; 32], account: &BareJid) -> String {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
        context.update(b"resource\0");
        context.update(account.as_str().as_bytes());
        context.update(b"\0");
        context.update(&self.0);
        URL_SAFE_NO_PAD.encode(&context.sign().as_ref()[..RESOURCE_BYTES])
    }

    fn of(id: &str) -> Option<Agent> {
        if id.is_empty() || id.len() > AGENT_BYTES_MAX {
            return None;
        }
        let hash = digest::digest(&digest::SHA256, id.as_bytes());
        hash.as_ref().first_chunk().map(|head| Agent(*head))
    }
}

/// What `<authenticate/>` asks for beside the login itself. Kept until the credentials are judged.
#[derive(Debug, Default)]
pub struct Authenticate {
    pub agent: Option<Agent>,
    /// The session to resume, and the number of stanzas that the client has of it: `None` where it gives none.
    pub resume: Option<(String, Option<u32>)>,
    pub bind: Option<Bind>,
    /// `<fast/>`: the login is by a token.
    pub fast: Option<Fast>,
    /// `<request-token/>`: for this mechanism.
    pub request_token: Option<TokenMechanism>,
}

/// `<fast xmlns='urn:xmpp:fast:0'/>` in a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fast {
    pub count: Option<u32>,
    pub invalidate: bool,
}

/// `<bind xmlns='urn:xmpp:bind:0'/>`
#[derive(Debug, Default)]
pub struct Bind {
    pub tag: Option<String>,
    /// What is to be enabled for the session: `<enable/>` of XEP-0198, and elements for features.
    pub features: Vec<Element>,
}

impl Authenticate {
    /// - errors: `bad-format` for a `count` that is no number
    pub(super) fn read(stanza: &Stanza<'_>) -> Result<Authenticate, StreamError> {
        let mut request = Authenticate::default();
        for child in stanza.children() {
            match (child.namespace, child.name) {
                (ns::SASL2, "user-agent") => {
                    request.agent = child.attr("id").and_then(|id| Agent::of(&id));
                }
                (ns::SM3, "resume") => {
                    let previous = child.attr("previd").map(|id| id.into_owned());
                    let h = read_h(child.attr("h").as_deref()).ok();
                    request.resume = Some((previous.unwrap_or_default(), h));
                }
                (ns::FAST, "fast") => {
                    let count = child.attr("count").map(|count| count.parse()).transpose();
                    let count = count.map_err(|_| {
                        StreamError::new(StreamCondition::BadFormat).with_text("count is a number")
                    })?;
                    let invalidate = child.attr("invalidate");
                    let invalidate = matches!(invalidate.as_deref(), Some("true" | "1"));
                    request.fast = Some(Fast { count, invalidate });
                }
                (ns::FAST, "request-token") => {
                    let mechanism = child.attr("mechanism");
                    request.request_token = mechanism.and_then(|it| TokenMechanism::parse(&it));
                }
                (ns::BIND2, "bind") => request.bind = Some(Bind::read(&child.to_element())),
                _ => {}
            }
        }
        Ok(request)
    }
}

impl Bind {
    fn read(bind: &Element) -> Bind {
        let tag = bind.child(ns::BIND2, "tag").map(Element::text).filter(|tag| !tag.is_empty());
        let features = bind.children().filter(|child| child.namespace != ns::BIND2);
        Bind { tag, features: features.cloned().collect() }
    }
}

/// The decoded `<initial-response/>`; `None` where there is none. An empty element is an empty message, which the old
/// profile writes as `=`.
pub(super) fn initial_response(stanza: &Stanza<'_>) -> Result<Option<Vec<u8>>, SaslFailure> {
    let Some(initial) = stanza.child(ns::SASL2, "initial-response") else { return Ok(None) };
    decode_payload(&initial.text()).map(Some)
}

/// Whether `<enable/>` asks for resumption, and the `max` that it prefers. One that is no positive number is no wish.
pub(crate) fn read_enable<'a>(
    attr: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>,
) -> (bool, Option<u32>) {
    let resume = attr("resume");
    let max = attr("max").and_then(|max| max.trim().parse().ok());
    (matches!(resume.as_deref(), Some("true" | "1")), max.filter(|max| *max > 0))
}

/// Value of `h` (XEP-0198).
pub(super) fn read_h(h: Option<&str>) -> Result<u32, StreamError> {
    h.and_then(|h| h.parse().ok()).ok_or_else(|| {
        StreamError::new(StreamCondition::BadFormat).with_text("h must be a number below 2^32")
    })
}

/// `<authentication/>`, the stream feature.
///
/// - `bind_inline`: what Bind 2 can enable, as `<feature/>` elements
pub(super) fn write_feature<'a>(
    mechanisms: impl Iterator<Item = &'a str>,
    token_mechanisms: impl Iterator<Item = TokenMechanism>,
    bind_inline: &[u8],
    out: &mut Vec<u8>,
) {
    let mut writer = Writer::new(out);
    writer.start("authentication").attr("xmlns", ns::SASL2);
    for mechanism in mechanisms {
        writer.start("mechanism").text(mechanism).end("mechanism");
    }
    writer.start("inline");
    writer.start("bind").attr("xmlns", ns::BIND2);
    writer.start("inline").raw(bind_inline).end("inline").end("bind");
    writer.start("sm").attr("xmlns", ns::SM3).close_empty();
    writer.start("fast").attr("xmlns", ns::FAST);
    for mechanism in token_mechanisms {
        writer.start("mechanism").text(mechanism.name()).end("mechanism");
    }
    writer.end("fast");
    writer.end("inline").end("authentication");
}

/// `<success/>`.
///
/// - takes: `data` of the mechanism, may be empty; `identity`, full once a resource is bound; `results` of what was asked
///   for inline, as XML
pub(super) fn write_success(data: &[u8], identity: &str, results: &[u8], out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    writer.start("success").attr("xmlns", ns::SASL2);
    if !data.is_empty() {
        writer.start("additional-data").text(&encode_payload(data)).end("additional-data");
    }
    writer.start("authorization-identifier").text(identity).end("authorization-identifier");
    writer.raw(results).end("success");
}

/// `<failure/>`, whose condition is that of the old profile.
pub(super) fn write_failure(failure: SaslFailure, out: &mut Vec<u8>) {
    Writer::new(out)
        .start("failure")
        .attr("xmlns", ns::SASL2)
        .start(failure.name())
        .attr("xmlns", ns::SASL)
        .close_empty()
        .end("failure");
}
