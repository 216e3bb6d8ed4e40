//! Server Dialback (XEP-0220): its two elements with their answers and errors, and the keys of XEP-0185.
//!
//! Four parts are played: who wants to send asks with a key (`Result`), who is to receive has the key verified with the
//! domain that it is said to come from (`Verify`), and both are answered on the stream that they came by. Which stream that
//! is, and how long it is waited for, is not decided here.

use super::sasl::is_equal;
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::writer::Writer;
use ring::{digest, hmac};
use std::fmt;
use std::fmt::Write as _;

/// Longest key that is read, in bytes. One of XEP-0185 has 64.
pub const KEY_BYTES_MAX: usize = 512;

/// Longest stream id that is read, in bytes.
pub const ID_BYTES_MAX: usize = 256;

/// One element of XEP-0220. `from` and `to` are as written: in answers they are those of the request, swapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialback {
    /// `<db:result/>` without `type`: the sender wants to send stanzas from one domain to the other (§2.1.1).
    Ask { from: BareJid, to: BareJid, key: Box<str> },
    /// `<db:result/>` with `type`.
    Answer { from: BareJid, to: BareJid, verdict: Verdict },
    /// `<db:verify/>` without `type`: is this the key that `to` made for the stream `id` (§2.1.2)?
    Verify { from: BareJid, to: BareJid, id: Box<str>, key: Box<str> },
    /// `<db:verify/>` with `type`.
    Verified { from: BareJid, to: BareJid, id: Box<str>, verdict: Verdict },
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    Invalid,
    /// Nothing is known of the key; the stream lives on (§2.4).
    Error(StanzaCondition),
}

impl Dialback {
    /// Whether this is an element of the namespace at all.
    pub fn is(stanza: &Stanza<'_>) -> bool {
        stanza.namespace() == ns::DIALBACK
    }

    /// Reads a first-level element of the dialback namespace.
    ///
    /// - errors: `improper-addressing` where an address is missing or is no domain; `bad-format` for a missing or too long
    ///   id or key and an unknown `type`; `unsupported-stanza-type` for another element
    pub fn read(stanza: &Stanza<'_>) -> Result<Dialback, StreamError> {
        let is_verify = match stanza.name() {
            "result" => false,
            "verify" => true,
            _ => return Err(StreamError::new(StreamCondition::UnsupportedStanzaType)),
        };
        let (from, to) = (domain(stanza.from())?, domain(stanza.to())?);
        let verdict = match stanza.type_().as_deref() {
            None => None,
            Some("valid") => Some(Verdict::Valid),
            Some("invalid") => Some(Verdict::Invalid),
            Some("error") => Some(Verdict::Error(condition(stanza))),
            Some(_) => return Err(bad("an unknown type of dialback element")),
        };
        let id = stanza.id().map(|id| Box::<str>::from(&*id)).filter(|_| is_verify);
        match (id, verdict) {
            (None, _) if is_verify => Err(bad("a dialback element without id")),
            (Some(id), _) if id.len() > ID_BYTES_MAX => Err(bad("a dialback id is too long")),
            (None, Some(verdict)) => Ok(Dialback::Answer { from, to, verdict }),
            (Some(id), Some(verdict)) => Ok(Dialback::Verified { from, to, id, verdict }),
            (None, None) => Ok(Dialback::Ask { from, to, key: key(stanza)? }),
            (Some(id), None) => Ok(Dialback::Verify { from, to, id, key: key(stanza)? }),
        }
    }

    /// Appends the element; the stream's header has to bind the prefix `db`, which old servers insist on.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (name, from, to, id) = match self {
            Dialback::Ask { from, to, .. } | Dialback::Answer { from, to, .. } => {
                ("db:result", from, to, None)
            }
            Dialback::Verify { from, to, id, .. } | Dialback::Verified { from, to, id, .. } => {
                ("db:verify", from, to, Some(&**id))
            }
        };
        let mut writer = Writer::new(out);
        writer.start(name).attr("from", from.as_str()).attr("to", to.as_str()).attr_opt("id", id);
        match self {
            Dialback::Ask { key, .. } | Dialback::Verify { key, .. } => {
                writer.text(key);
            }
            Dialback::Answer { verdict, .. } | Dialback::Verified { verdict, .. } => {
                writer.attr("type", verdict.name());
                if let Verdict::Error(condition) = verdict {
                    writer.start("error").attr("type", condition.default_type().name());
                    writer.start(condition.name()).attr("xmlns", ns::STANZA_ERRORS).close_empty();
                    writer.end("error");
                }
            }
        }
        writer.end(name);
    }
}

impl Verdict {
    /// Value of `type`.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Valid => "valid",
            Verdict::Invalid => "invalid",
            Verdict::Error(_) => "error",
        }
    }
}

fn bad(text: &'static str) -> StreamError {
    StreamError::new(StreamCondition::BadFormat).with_text(text)
}

/// An address that has to be a domain.
fn domain(value: Option<std::borrow::Cow<'_, str>>) -> Result<BareJid, StreamError> {
    let improper = || StreamError::new(StreamCondition::ImproperAddressing);
    let jid = Jid::parse(&value.ok_or_else(improper)?).map_err(|_| improper())?;
    let is_domain = jid.local().is_none() && jid.resource().is_none();
    is_domain.then(|| jid.into_bare()).ok_or_else(improper)
}

fn key(stanza: &Stanza<'_>) -> Result<Box<str>, StreamError> {
    let text = stanza.text();
    match text.trim() {
        "" => Err(bad("a dialback element without key")),
        text if text.len() > KEY_BYTES_MAX => Err(bad("a dialback key is too long")),
        text => Ok(text.into()),
    }
}

/// The condition in an element of type `error`; `<error/>` is in the stream's content namespace.
fn condition(stanza: &Stanza<'_>) -> StanzaCondition {
    let error = stanza.children().find(|child| child.name == "error");
    let found = error.and_then(|error| {
        let error = error.to_element();
        error
            .children()
            .filter(|child| child.namespace == ns::STANZA_ERRORS)
            .find_map(|child| StanzaCondition::from_name(&child.name))
    });
    found.unwrap_or(StanzaCondition::UndefinedCondition)
}

/// What the keys of our domains are made with. One per node; shown nowhere.
#[derive(Clone)]
pub struct DialbackSecret(hmac::Key);

impl DialbackSecret {
    /// - takes: what nobody else can guess, of any length
    pub fn new(secret: &[u8]) -> DialbackSecret {
        let hashed = hex(digest::digest(&digest::SHA256, secret).as_ref());
        DialbackSecret(hmac::Key::new(hmac::HMAC_SHA256, hashed.as_bytes()))
    }

    /// The key with which `originating`, one of our domains, asks `receiving` on the stream that it named `id`.
    ///
    /// - source: XEP-0185 §2
    pub fn key(&self, receiving: &str, originating: &str, id: &str) -> String {
        hex(hmac::sign(&self.0, format!("{receiving} {originating} {id}").as_bytes()).as_ref())
    }

    /// Whether `key` is that key; takes the same time for all keys of its length.
    pub fn holds(&self, receiving: &str, originating: &str, id: &str, key: &str) -> bool {
        is_equal(self.key(receiving, originating, id).as_bytes(), key.as_bytes())
    }
}

impl fmt::Debug for DialbackSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DialbackSecret(..)")
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::xmpp::xml::framer::XmlLimits;
    use crate::xmpp::xml::reader::{Index, read, read_header};

    fn parse(xml: &str) -> Result<Dialback, StreamCondition> {
        let header = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
             xmlns:db='jabber:server:dialback'>";
        let header = read_header(header.as_bytes(), &XmlLimits::default()).unwrap();
        let mut index = Index::default();
        read(xml.as_bytes(), &header.context, &XmlLimits::default(), &mut index).unwrap();
        let stanza = Stanza { bytes: xml.as_bytes(), index: &index };
        assert!(Dialback::is(&stanza));
        Dialback::read(&stanza).map_err(|error| error.condition)
    }

    fn written(element: &Dialback) -> String {
        let mut out = Vec::new();
        element.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn keys_are_those_of_the_examples() {
        // XEP-0185 §3; XEP-0220 §2.1.1 and §2.2.2.
        let secret = DialbackSecret::new(b"s3cr3tf0rd14lb4ck");
        let key = "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643";
        assert_eq!(secret.key("xmpp.example.com", "example.org", "D60000229F"), key);
        let key = "b4835385f37fe2895af6c196b59097b16862406db80559900d96bf6fa7d23df3";
        assert_eq!(secret.key("montague.example", "capulet.example", "D60000229F"), key);
        let other = DialbackSecret::new(b"d14lb4ck43v3r");
        let key = "225cc5aa6a071133249d25fef42ae516fc7a86c523aa1c6980a7f73e784c972d";
        assert_eq!(other.key("capulet.example", "montague.example", "417GAF25"), key);
        assert_eq!(format!("{secret:?}"), "DialbackSecret(..)");
    }

    #[test]
    fn key_holds_for_its_three_names_only() {
        let secret = DialbackSecret::new(b"x");
        let key = secret.key("a", "b", "c");
        assert!(secret.holds("a", "b", "c", &key));
        assert!(!DialbackSecret::new(b"y").holds("a", "b", "c", &key));
        for (receiving, originating, id) in [("b", "a", "c"), ("a", "b", "d"), ("a", "x", "c")] {
            assert!(!secret.holds(receiving, originating, id, &key));
        }
        for wrong in ["", &key[1..], &key.to_uppercase(), &format!("{key} ")] {
            assert!(!secret.holds("a", "b", "c", wrong), "{wrong}");
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let jid = |text| BareJid::parse(text).unwrap();
        let (from, to) = (jid("a.example"), jid("b.example"));
        let (id, key): (Box<str>, Box<str>) = ("<'id'>".into(), "k&y".into());
        let verdicts = [
            Verdict::Valid,
            Verdict::Invalid,
            Verdict::Error(StanzaCondition::ItemNotFound),
            Verdict::Error(StanzaCondition::RemoteServerTimeout),
        ];
        let mut elements = vec![
            Dialback::Ask { from: from.clone(), to: to.clone(), key: key.clone() },
            Dialback::Verify { from: from.clone(), to: to.clone(), id: id.clone(), key },
        ];
        for verdict in verdicts {
            let (from, to, id) = (from.clone(), to.clone(), id.clone());
            elements.push(Dialback::Answer { from: from.clone(), to: to.clone(), verdict });
            elements.push(Dialback::Verified { from, to, id, verdict });
        }
        for element in elements {
            assert_eq!(parse(&written(&element)), Ok(element));
        }
    }

    #[test]
    fn elements_are_written_as_old_servers_want_them() {
        let (from, to) = (BareJid::parse("a").unwrap(), BareJid::parse("b").unwrap());
        let ask = Dialback::Ask { from: from.clone(), to: to.clone(), key: "k".into() };
        assert_eq!(written(&ask), "<db:result from='a' to='b'>k</db:result>");
        let valid =
            Dialback::Answer { from: from.clone(), to: to.clone(), verdict: Verdict::Valid };
        assert_eq!(written(&valid), "<db:result from='a' to='b' type='valid'/>");
        let verdict = Verdict::Error(StanzaCondition::ItemNotFound);
        let error = Dialback::Verified { from, to, id: "1".into(), verdict };
        assert_eq!(
            written(&error),
            "<db:verify from='a' to='b' id='1' type='error'><error type='cancel'>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:verify>"
        );
    }

    #[test]
    fn elements_of_others_are_read_with_white_space_and_without_error() {
        let ask = parse("<db:result to='B' from='A'>\n  k\n</db:result>");
        let jid = |text| BareJid::parse(text).unwrap();
        assert_eq!(ask, Ok(Dialback::Ask { from: jid("a"), to: jid("b"), key: "k".into() }));
        let error = parse("<result xmlns='jabber:server:dialback' from='a' to='b' type='error'/>");
        let verdict = Verdict::Error(StanzaCondition::UndefinedCondition);
        assert_eq!(error, Ok(Dialback::Answer { from: jid("a"), to: jid("b"), verdict }));
    }

    #[test]
    fn what_is_no_dialback_is_refused() {
        let (long_key, long_id) = ("k".repeat(KEY_BYTES_MAX + 1), "i".repeat(ID_BYTES_MAX + 1));
        let (bad, improper) = (StreamCondition::BadFormat, StreamCondition::ImproperAddressing);
        for (xml, condition) in [
            ("<db:x from='a' to='b'/>".to_owned(), StreamCondition::UnsupportedStanzaType),
            ("<db:result from='a'>k</db:result>".to_owned(), improper),
            ("<db:result to='a'>k</db:result>".to_owned(), improper),
            ("<db:result from='u@a' to='b'>k</db:result>".to_owned(), improper),
            ("<db:result from='a/r' to='b'>k</db:result>".to_owned(), improper),
            ("<db:result from='' to='b'>k</db:result>".to_owned(), improper),
            ("<db:result from='a' to='b'/>".to_owned(), bad),
            ("<db:result from='a' to='b' type='x'/>".to_owned(), bad),
            ("<db:verify from='a' to='b'>k</db:verify>".to_owned(), bad),
            ("<db:verify from='a' to='b' id='1'/>".to_owned(), bad),
            (format!("<db:result from='a' to='b'>{long_key}</db:result>"), bad),
            (format!("<db:verify from='a' to='b' id='{long_id}'>k</db:verify>"), bad),
        ] {
            assert_eq!(parse(&xml), Err(condition), "{xml}");
        }
    }
}
