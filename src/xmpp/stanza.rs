//! A view of a stanza that was read (RFC 6120 §8), and how it is written on with its addresses stamped.

use std::borrow::Cow;

use crate::xmpp::ns;
use crate::xmpp::xml::chars;
use crate::xmpp::xml::element::{AttrName, Element};
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::parts::{self, AttrRole, NsRef, Span};
use crate::xmpp::xml::reader::{self, Index};
use crate::xmpp::xml::writer::write_attr;

/// The three stanzas. Codes are part of frames: never change one.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Hash)]
#[repr(u8)]
pub enum StanzaKind {
    Message = 0,
    Presence = 1,
    Iq = 2,
}

/// RFC 6121 §5.2.2.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Hash, Default)]
#[repr(u8)]
pub enum MessageType {
    #[default]
    Normal = 0,
    Chat = 1,
    Groupchat = 2,
    Headline = 3,
    Error = 4,
}

/// RFC 6121 §4.7.1.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Hash, Default)]
#[repr(u8)]
pub enum PresenceType {
    /// No `type` attribute.
    #[default]
    Available = 0,
    Unavailable = 1,
    Subscribe = 2,
    Subscribed = 3,
    Unsubscribe = 4,
    Unsubscribed = 5,
    Probe = 6,
    Error = 7,
}

/// RFC 6120 §8.2.3.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Hash)]
#[repr(u8)]
pub enum IqType {
    Get = 0,
    Set = 1,
    Result = 2,
    Error = 3,
}

impl StanzaKind {
    pub const ALL: [StanzaKind; 3] = [StanzaKind::Message, StanzaKind::Presence, StanzaKind::Iq];

    pub fn name(self) -> &'static str {
        match self {
            StanzaKind::Message => "message",
            StanzaKind::Presence => "presence",
            StanzaKind::Iq => "iq",
        }
    }

    pub fn from_name(name: &str) -> Option<StanzaKind> {
        StanzaKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<StanzaKind> {
        StanzaKind::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

impl MessageType {
    pub const ALL: [MessageType; 5] = [
        MessageType::Normal,
        MessageType::Chat,
        MessageType::Groupchat,
        MessageType::Headline,
        MessageType::Error,
    ];

    pub fn name(self) -> &'static str {
        match self {
            MessageType::Normal => "normal",
            MessageType::Chat => "chat",
            MessageType::Groupchat => "groupchat",
            MessageType::Headline => "headline",
            MessageType::Error => "error",
        }
    }

    /// Of a `type` attribute: absent or unknown is normal (RFC 6121 §5.2.2).
    pub fn parse(text: Option<&str>) -> MessageType {
        MessageType::ALL.into_iter().find(|t| Some(t.name()) == text).unwrap_or_default()
    }

    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<MessageType> {
        MessageType::ALL.into_iter().find(|t| t.code() == code)
    }
}

impl PresenceType {
    pub const ALL: [PresenceType; 8] = [
        PresenceType::Available,
        PresenceType::Unavailable,
        PresenceType::Subscribe,
        PresenceType::Subscribed,
        PresenceType::Unsubscribe,
        PresenceType::Unsubscribed,
        PresenceType::Probe,
        PresenceType::Error,
    ];

    /// Value of the `type` attribute; `None` where there is to be none.
    pub fn name(self) -> Option<&'static str> {
        match self {
            PresenceType::Available => None,
            PresenceType::Unavailable => Some("unavailable"),
            PresenceType::Subscribe => Some("subscribe"),
            PresenceType::Subscribed => Some("subscribed"),
            PresenceType::Unsubscribe => Some("unsubscribe"),
            PresenceType::Unsubscribed => Some("unsubscribed"),
            PresenceType::Probe => Some("probe"),
            PresenceType::Error => Some("error"),
        }
    }

    /// Of a `type` attribute; `None` for one that RFC 6121 does not know.
    pub fn parse(text: Option<&str>) -> Option<PresenceType> {
        PresenceType::ALL.into_iter().find(|t| t.name() == text)
    }

    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<PresenceType> {
        PresenceType::ALL.into_iter().find(|t| t.code() == code)
    }
}

impl IqType {
    pub const ALL: [IqType; 4] = [IqType::Get, IqType::Set, IqType::Result, IqType::Error];

    pub fn name(self) -> &'static str {
        match self {
            IqType::Get => "get",
            IqType::Set => "set",
            IqType::Result => "result",
            IqType::Error => "error",
        }
    }

    /// Of a `type` attribute, which has to be there (RFC 6120 §8.2.3).
    pub fn parse(text: Option<&str>) -> Option<IqType> {
        IqType::ALL.into_iter().find(|t| Some(t.name()) == text)
    }

    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<IqType> {
        IqType::ALL.into_iter().find(|t| t.code() == code)
    }
}

/// A first-level element: its bytes, and the index that [`reader::read`] made of them. Lives as long as a turn.
#[derive(Copy, Clone)]
pub struct Stanza<'a> {
    pub bytes: &'a [u8],
    pub index: &'a Index,
}

impl<'a> Stanza<'a> {
    /// `None` for what is no stanza of the content namespace, such as `<auth/>` or `<r/>`.
    pub fn kind(&self) -> Option<StanzaKind> {
        self.index.kind()
    }

    /// Local name of the root.
    pub fn name(&self) -> &'a str {
        local(
            reader::text(self.bytes, self.index.root().name.span),
            self.index.root().name.prefix_len,
        )
    }

    /// Namespace of the root; empty for none.
    pub fn namespace(&self) -> &'a str {
        self.index.namespace(self.bytes, self.index.root().ns)
    }

    /// Whether the root is that element.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.name() == name && self.namespace() == namespace
    }

    /// Value of an attribute of the root without prefix, or with the prefix `xml`; references resolved.
    pub fn attr(&self, name: &str) -> Option<Cow<'a, str>> {
        self.attr_raw(name).map(unescaped_attr)
    }

    /// As [`Stanza::attr`], as it was sent.
    pub fn attr_raw(&self, name: &str) -> Option<&'a str> {
        let is_it = |span: Span| self.bytes.get(span.start()..span.end()) == Some(name.as_bytes());
        let attr =
            self.index.attrs().iter().find(|a| a.role == AttrRole::Plain && is_it(a.name.span))?;
        Some(reader::text(self.bytes, attr.value))
    }

    pub fn to(&self) -> Option<Cow<'a, str>> {
        self.attr("to")
    }

    pub fn from(&self) -> Option<Cow<'a, str>> {
        self.attr("from")
    }

    pub fn id(&self) -> Option<Cow<'a, str>> {
        self.attr("id")
    }

    pub fn type_(&self) -> Option<Cow<'a, str>> {
        self.attr("type")
    }

    /// `xml:lang` of the root itself; absent, the stream's holds (RFC 6120 §8.1.5).
    pub fn lang(&self) -> Option<Cow<'a, str>> {
        self.attr("xml:lang")
    }

    /// Whether this is an error, or the result of an IQ: neither is ever answered (RFC 6120 §8.2.3, §8.3.1).
    pub fn is_answer(&self) -> bool {
        matches!(
            (self.kind(), self.type_().as_deref()),
            (_, Some("error")) | (Some(StanzaKind::Iq), Some("result"))
        )
    }

    pub fn message_type(&self) -> MessageType {
        MessageType::parse(self.type_().as_deref())
    }

    pub fn presence_type(&self) -> Option<PresenceType> {
        PresenceType::parse(self.type_().as_deref())
    }

    pub fn iq_type(&self) -> Option<IqType> {
        IqType::parse(self.type_().as_deref())
    }

    /// Child elements in order.
    pub fn children(&self) -> impl Iterator<Item = Child<'a>> + use<'a> {
        let stanza = *self;
        self.index.children().iter().map(move |span| {
            let name = reader::text(stanza.bytes, span.tag.name.span);
            Child {
                name: local(name, span.tag.name.prefix_len),
                namespace: stanza.index.namespace(stanza.bytes, span.tag.ns),
                bytes: slice(stanza.bytes, span.tag.start, span.end),
                start: span.tag.start,
                open_end: span.tag.open_end - span.tag.start,
                close_start: span.close_start - span.tag.start,
                stanza,
            }
        })
    }

    /// First child of that name.
    pub fn child(&self, namespace: &str, name: &str) -> Option<Child<'a>> {
        self.children().find(|child| child.name == name && child.namespace == namespace)
    }

    /// Text directly in the root, that in CDATA sections included.
    pub fn text(&self) -> Cow<'a, str> {
        let inner = self.inner();
        match plain_text(inner) {
            Some(text) => Cow::Borrowed(text),
            None => self.to_element().map_or(Cow::Borrowed(""), |e| Cow::Owned(e.text())),
        }
    }

    /// The start tag of the root.
    pub fn open_tag(&self) -> &'a [u8] {
        slice(self.bytes, 0, self.index.root().open_end)
    }

    /// Bytes between the start and the end tag.
    pub fn inner(&self) -> &'a [u8] {
        slice(self.bytes, self.index.root().open_end, self.index.close_start())
    }

    /// The whole as a tree; `None` only where the bytes are not those that the index was made of, or where the parser
    /// that builds trees refuses what was read, which no known stanza meets.
    pub fn to_element(&self) -> Option<Element> {
        Element::parse(self.bytes, self.index.context(), &XmlLimits::PASSED).ok()
    }
}

/// A child element of a stanza's root.
#[derive(Copy, Clone)]
pub struct Child<'a> {
    /// Local name.
    pub name: &'a str,
    /// Empty for none.
    pub namespace: &'a str,
    /// From the `<` of the start tag to the `>` of the end tag. Prefixes in it may be declared on the root.
    pub bytes: &'a [u8],
    start: u32,
    open_end: u32,
    close_start: u32,
    stanza: Stanza<'a>,
}

impl<'a> Child<'a> {
    /// Value of an attribute without prefix, or with the prefix `xml`; references resolved.
    pub fn attr(&self, name: &str) -> Option<Cow<'a, str>> {
        let tag = std::str::from_utf8(slice(self.bytes, 0, self.open_end)).unwrap_or_default();
        let (_, raw) = parts::attrs_of_checked(tag).find(|(known, _)| *known == name)?;
        Some(unescaped_attr(raw))
    }

    /// Where it begins in the bytes of its stanza.
    pub fn start(&self) -> usize {
        self.start as usize
    }

    /// Bytes between the start and the end tag.
    pub fn inner(&self) -> &'a [u8] {
        slice(self.bytes, self.open_end, self.close_start)
    }

    /// Text directly in the child, that in CDATA sections included.
    pub fn text(&self) -> Cow<'a, str> {
        match plain_text(self.inner()) {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(self.to_element().text()),
        }
    }

    /// The child as a tree; names and namespaces are those that hold in the stanza.
    pub fn to_element(&self) -> Element {
        let context = self.stanza.index.context_of_children(self.stanza.bytes);
        // What was read as part of its stanza reads alone, too: the other arm is for what `Stanza::to_element` has no
        // tree of.
        Element::parse(self.bytes, &context, &XmlLimits::PASSED)
            .unwrap_or_else(|_| Element::new(self.name, self.namespace))
    }
}

/// Appends the stanza with the addresses given; `None` leaves an address out.
///
/// - takes: a stanza that was read; addresses as plain text, escaped here
/// - gives: what was appended as two offsets from its start: behind the start tag's `>` and of the end tag's `<`; both
///   tags are always there. Other attributes of the root and all of its content stay byte for byte, or are written
///   anew where [`Index::needs_rewrite`]; the content namespace is not named, as it is the default where this goes.
///   Elements of `jabber:component:accept` on a component's stream, and of `jabber:server` on another server's, are in
///   `jabber:client` when written
/// - cost: one copy
pub fn write_stamped(
    out: &mut Vec<u8>,
    stanza: &Stanza<'_>,
    from: Option<&str>,
    to: Option<&str>,
) -> (u32, u32) {
    let start = out.len();
    let (open_end, close_start) = if stanza.index.needs_rewrite() {
        rewrite_stamped(out, stanza, from, to)
    } else {
        copy_stamped(out, stanza, from, to)
    };
    let offset = |at: usize| u32::try_from(at - start).unwrap_or(u32::MAX);
    (offset(open_end), offset(close_start))
}

fn copy_stamped(
    out: &mut Vec<u8>,
    stanza: &Stanza<'_>,
    from: Option<&str>,
    to: Option<&str>,
) -> (usize, usize) {
    let Stanza { bytes, index } = stanza;
    let root = index.root();
    let copied = |span: Span| bytes.get(span.start()..span.end()).unwrap_or_default();
    let name = copied(root.name.span);
    let addresses = from.map_or(0, str::len) + to.map_or(0, str::len);
    out.reserve(bytes.len() + name.len() + addresses + 32);
    out.push(b'<');
    out.extend_from_slice(name);
    write_addresses(from, to, |name, value| write_attr(out, name, value));
    for attr in index.attrs() {
        let is_replaced = match attr.role {
            AttrRole::Plain => matches!(copied(attr.name.span), b"from" | b"to"),
            AttrRole::Default => root.default == NsRef::Content,
            AttrRole::Prefix => false,
        };
        if !is_replaced {
            out.push(b' ');
            out.extend_from_slice(copied(attr.whole()));
        }
    }
    out.push(b'>');
    let open_end = out.len();
    out.extend_from_slice(stanza.inner());
    let close_start = out.len();
    out.extend_from_slice(b"</");
    out.extend_from_slice(name);
    out.push(b'>');
    (open_end, close_start)
}

fn rewrite_stamped(
    out: &mut Vec<u8>,
    stanza: &Stanza<'_>,
    from: Option<&str>,
    to: Option<&str>,
) -> (usize, usize) {
    let mut element =
        stanza.to_element().unwrap_or_else(|| Element::new(stanza.name(), stanza.namespace()));
    element.remove_attr("from");
    element.remove_attr("to");
    let mut at = 0;
    write_addresses(from, to, |name, value| {
        element.attributes.insert(at, (AttrName::from(name), value.to_owned()));
        at += 1;
    });
    let content = match stanza.index.context().content() {
        other @ (ns::COMPONENT_ACCEPT | ns::SERVER) => {
            element.rename_namespace(other, ns::CLIENT);
            ns::CLIENT
        }
        content => content,
    };
    element.write_spread(out, content)
}

fn write_addresses(from: Option<&str>, to: Option<&str>, mut write: impl FnMut(&str, &str)) {
    if let Some(from) = from {
        write("from", from);
    }
    if let Some(to) = to {
        write("to", to);
    }
}

/// Whether a start tag that was read, or written here, has an attribute of that name; with or without its `>`.
pub fn has_attr(open_tag: &[u8], name: &str) -> bool {
    let tag = std::str::from_utf8(open_tag).unwrap_or_default();
    parts::attrs_of_checked(tag).any(|(known, _)| known == name)
}

fn slice(bytes: &[u8], start: u32, end: u32) -> &[u8] {
    bytes.get(start as usize..end as usize).unwrap_or_default()
}

fn local(name: &str, prefix_len: u16) -> &str {
    match prefix_len {
        0 => name,
        len => name.get(usize::from(len) + 1..).unwrap_or_default(),
    }
}

/// The content of an element that holds nothing but text which reads as it stands.
fn plain_text(inner: &[u8]) -> Option<&str> {
    match memchr::memchr3(b'<', b'&', b'\r', inner) {
        None => std::str::from_utf8(inner).ok(),
        Some(_) => None,
    }
}

fn unescaped_attr(raw: &str) -> Cow<'_, str> {
    if chars::is_plain_attr(raw) {
        return Cow::Borrowed(raw);
    }
    let mut value = String::with_capacity(raw.len());
    chars::unescape_attr(raw, &mut value);
    Cow::Owned(value)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::xmpp::ns;
    use crate::xmpp::xml::reader::{StreamContext, read, read_header};

    fn index_of(text: &str, context: &StreamContext) -> Index {
        let mut index = Index::default();
        read(text.as_bytes(), context, &XmlLimits::default(), &mut index).unwrap();
        index
    }

    fn stamped(
        text: &str,
        context: &StreamContext,
        from: Option<&str>,
        to: Option<&str>,
    ) -> String {
        let index = index_of(text, context);
        let mut out = b"before".to_vec();
        let stanza = Stanza { bytes: text.as_bytes(), index: &index };
        let (open_end, close_start) = write_stamped(&mut out, &stanza, from, to);
        let written = String::from_utf8(out.split_off(6)).unwrap();
        assert!(written[..open_end as usize].ends_with('>'), "{written}");
        assert!(written[close_start as usize..].starts_with("</"), "{written}");
        assert_eq!(written[close_start as usize..].matches('<').count(), 1, "{written}");
        written
    }

    #[test]
    fn view_gives_names_attributes_and_children() {
        let text = "<message xmlns:p='u:p' to='a&amp;b' p:from='x' type=\"chat\" xml:lang='de'>\
                    <body>1 &lt; 2</body> <p:x a='1' b = \"&#65;'\"><p:y/>t</p:x><z xmlns='u:&#122;'/></message>";
        let index = index_of(text, &StreamContext::client());
        let stanza = Stanza { bytes: text.as_bytes(), index: &index };
        assert_eq!(stanza.kind(), Some(StanzaKind::Message));
        assert!(stanza.is(ns::CLIENT, "message"));
        assert_eq!(stanza.to().as_deref(), Some("a&b"));
        assert_eq!(stanza.attr_raw("to"), Some("a&amp;b"));
        assert_eq!(stanza.from(), None);
        assert_eq!(stanza.lang().as_deref(), Some("de"));
        assert_eq!(stanza.message_type(), MessageType::Chat);
        let names: Vec<_> = stanza.children().map(|c| (c.namespace, c.name)).collect();
        assert_eq!(names, [(ns::CLIENT, "body"), ("u:p", "x"), ("u:z", "z")]);
        assert_eq!(stanza.child(ns::CLIENT, "body").unwrap().text(), "1 < 2");
        let x = stanza.child("u:p", "x").unwrap();
        assert_eq!(x.bytes, b"<p:x a='1' b = \"&#65;'\"><p:y/>t</p:x>");
        assert_eq!(
            (x.attr("a").as_deref(), x.attr("b").as_deref(), x.attr("c")),
            (Some("1"), Some("A'"), None)
        );
        assert_eq!((x.inner(), &*x.text()), (&b"<p:y/>t"[..], "t"));
        let tree = x.to_element();
        assert_eq!(tree.child("u:p", "y").unwrap().namespace, "u:p");
        assert_eq!(stanza.child("u:z", "z").unwrap().inner(), b"");
        assert_eq!(stanza.text(), " ");
    }

    #[test]
    fn nonzas_have_no_kind_but_a_text() {
        let text = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEA<![CDATA[Yg]]>&#61;</auth>";
        let index = index_of(text, &StreamContext::client());
        let stanza = Stanza { bytes: text.as_bytes(), index: &index };
        assert_eq!(stanza.kind(), None);
        assert!(stanza.is(ns::SASL, "auth"));
        assert_eq!(stanza.text(), "AGEAYg=");
        let other = index_of("<message xmlns='jabber:server'/>", &StreamContext::client());
        assert_eq!(other.kind(), None);
    }

    #[test]
    fn stamp_replaces_the_addresses_and_keeps_all_else() {
        let client = StreamContext::client();
        assert_eq!(
            stamped(
                "<message from='evil' id = \"1'\" xmlns='jabber:client' to='x'\n xmlns:p='u'><p:a/>]</message >",
                &client,
                Some("a'b@c/d"),
                Some("e@f")
            ),
            "<message from='a&apos;b@c/d' to='e@f' id = \"1'\" xmlns:p='u'><p:a/>]</message>"
        );
        assert_eq!(stamped("<iq to='x'/>", &client, None, None), "<iq></iq>");
        assert_eq!(stamped("<a xmlns='u'/>", &client, None, Some("x")), "<a to='x' xmlns='u'></a>");
    }

    #[test]
    fn stanza_that_leans_on_its_header_is_written_self_contained() {
        let header = read_header(
            b"<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:server' xmlns:p='u:p'>",
            &XmlLimits::default(),
        )
        .unwrap();
        assert_eq!(
            stamped(
                "<c:message to='x' from='y' id='&lt;'><c:body>a&amp;b</c:body><p:z p:q='1'/></c:message>",
                &header.context,
                Some("f"),
                Some("t")
            ),
            "<message from='f' to='t' id='&lt;'><body>a&amp;b</body><z xmlns='u:p' xmlns:n0='u:p' n0:q='1'/></message>"
        );
    }

    #[test]
    fn types_are_read_from_their_attribute() {
        assert_eq!(MessageType::parse(None), MessageType::Normal);
        assert_eq!(MessageType::parse(Some("unheard-of")), MessageType::Normal);
        assert_eq!(PresenceType::parse(None), Some(PresenceType::Available));
        assert_eq!(PresenceType::parse(Some("available")), None);
        assert_eq!(PresenceType::parse(Some("probe")), Some(PresenceType::Probe));
        assert_eq!(IqType::parse(None), None);
        assert_eq!(IqType::parse(Some("set")), Some(IqType::Set));
        for code in 0..=255 {
            assert!(StanzaKind::from_code(code).is_none_or(|t| t.code() == code));
            assert!(MessageType::from_code(code).is_none_or(|t| t.code() == code));
            assert!(PresenceType::from_code(code).is_none_or(|t| t.code() == code));
            assert!(IqType::from_code(code).is_none_or(|t| t.code() == code));
        }
        assert_eq!(PresenceType::from_code(7), Some(PresenceType::Error));
    }
}
