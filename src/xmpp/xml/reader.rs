//! Reads one whole stanza: checks it strictly and indexes it, without copying anything out of it.
//!
//! A stanza that was read is safe to copy into another stream as it is, unless [`Index::needs_rewrite`]: then it leans
//! on something that only its own stream header said (a prefix, a default namespace that is not the content
//! namespace), names the content namespace by itself, or spells a namespace with references, and is written anew through a tree
//! ([`crate::xmpp::stanza::write_stamped`] does so). A component's or another server's stanza is written in the
//! client's content namespace.

use smallvec::SmallVec;

pub use super::context::{HEADER_PREFIXES_MAX, StreamContext};
use crate::xmpp::ns;
use crate::xmpp::stanza::StanzaKind;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::chars;
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::parts::{Attr, AttrRole, Names, NsRef, Scratch, Span, Tag, Visit};
use crate::xmpp::xml::scan;

/// What a stream header says (RFC 6120 §4.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    pub to: Option<String>,
    pub from: Option<String>,
    pub id: Option<String>,
    /// `None` where absent, which means before RFC 3920.
    pub version: Option<(u8, u8)>,
    /// Language of stanzas that name none (§4.7.4).
    pub lang: Option<String>,
    pub context: StreamContext,
}

/// Reads the start tag of a stream, as the framer cut it out.
///
/// - errors: `invalid-namespace` for a root outside of the streams namespace or an unknown content namespace;
///   `bad-namespace-prefix` where `stream` stands without prefix in a content namespace; `bad-format` for another
///   root; `unsupported-version` for a version that is none; `policy-violation` above the limits or
///   [`HEADER_PREFIXES_MAX`]; those of [`read`]
/// - source: RFC 6120 §4.7, §4.8, §4.9.3
pub fn read_header(bytes: &[u8], limits: &XmlLimits) -> Result<StreamHeader, StreamError> {
    Ok(header(bytes, limits)?)
}

fn header(bytes: &[u8], limits: &XmlLimits) -> Result<StreamHeader, StreamCondition> {
    let nothing_bound = StreamContext::standalone();
    let mut scratch = Scratch::default();
    let (tag, attrs) = scan::start_tag(bytes, &nothing_bound, limits, &mut scratch)?;
    let doc = std::str::from_utf8(bytes).map_err(|_| StreamCondition::UnsupportedEncoding)?;
    let names = Names { doc, cooked: &scratch.cooked, context: &nothing_bound };
    let default = names.text(tag.default);
    if tag.ns != NsRef::Streams {
        let lacks_prefix = tag.name.prefix_len == 0
            && tag.name.local(doc) == "stream"
            && [ns::CLIENT, ns::SERVER, ns::COMPONENT_ACCEPT].contains(&default);
        return Err(if lacks_prefix {
            StreamCondition::BadNamespacePrefix
        } else {
            StreamCondition::InvalidNamespace
        });
    }
    if tag.name.local(doc) != "stream" {
        return Err(StreamCondition::BadFormat);
    }
    if scratch.bindings.len() > HEADER_PREFIXES_MAX {
        return Err(StreamCondition::PolicyViolation);
    }
    let bindings = scratch.bindings.iter().map(|b| (b.prefix.of(doc), names.text(b.ns))).collect();
    let context =
        StreamContext::from_bindings(default, bindings).ok_or(StreamCondition::InvalidNamespace)?;
    let attr = |name: &str| {
        let attr =
            attrs.iter().find(|a| a.role == AttrRole::Plain && a.name.span.of(doc) == name)?;
        let mut value = String::new();
        chars::unescape_attr(attr.value.of(doc), &mut value);
        Some(value)
    };
    let version = match attr("version") {
        None => None,
        Some(text) => Some(version(&text).ok_or(StreamCondition::UnsupportedVersion)?),
    };
    Ok(StreamHeader {
        to: attr("to"),
        from: attr("from"),
        id: attr("id"),
        version,
        lang: attr("xml:lang"),
        context,
    })
}

/// RFC 6120 §4.7.5: two numbers, leading zeros without meaning.
fn version(text: &str) -> Option<(u8, u8)> {
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if is_number { digits.parse().ok() } else { None }
    };
    let (major, minor) = text.split_once('.')?;
    Some((number(major)?, number(minor)?))
}

/// Index over the bytes of a stanza: offsets only. One per shard, reused from stanza to stanza, so that reading
/// allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Index {
    scratch: Scratch,
    outline: Outline,
    /// The stream's, where the stanza leans on it; else only its content namespace.
    context: StreamContext,
    kind: Option<StanzaKind>,
    needs_rewrite: bool,
}

/// The root and its children.
#[derive(Clone, Debug, Default)]
struct Outline {
    root: Tag,
    close_start: u32,
    attrs: SmallVec<[Attr; 8]>,
    children: SmallVec<[ChildSpan; 8]>,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::xmpp) struct ChildSpan {
    pub(in crate::xmpp) tag: Tag,
    pub(in crate::xmpp) close_start: u32,
    pub(in crate::xmpp) end: u32,
}

/// Children, and bytes of namespace names, that an index keeps room for; a rare larger stanza gives its memory back.
const CHILDREN_KEPT: usize = 256;
const COOKED_BYTES_KEPT: usize = 4096;

/// Checks one whole stanza, as the framer cut it out, and indexes it.
///
/// - takes: `index`, overwritten; after an error it is empty
/// - errors: `not-well-formed` (also for undeclared prefixes, RFC 6120 §11.3), `restricted-xml` (DTD, processing
///   instruction, comment, undefined entity), `unsupported-encoding` (bytes that are not UTF-8), `policy-violation`
///   (a limit, or the namespace of the prefix `xml` declared in a spelling with references), `invalid-xml` (an element of
///   the streams namespace inside of the stanza)
/// - cost: one pass, no allocation in the usual case
/// - source: RFC 6120 §4.9.3, §11
pub fn read(
    bytes: &[u8],
    context: &StreamContext,
    limits: &XmlLimits,
    index: &mut Index,
) -> Result<(), StreamError> {
    index.clear();
    match scan::walk(bytes, context, limits, &mut index.scratch, &mut index.outline) {
        Ok(findings) => {
            let root = &index.outline.root;
            if root.ns == NsRef::Content {
                index.kind = StanzaKind::from_name(local_name(bytes, root));
            }
            index.needs_rewrite = root.name.prefix_len > 0
                || findings.leans_on_header
                || findings.names_content_again
                || findings.has_cooked_namespace
                || findings.binds_content && context.content() != ns::CLIENT;
            index.context = if index.needs_rewrite {
                context.clone()
            } else {
                StreamContext::of_content(context.content())
            };
            Ok(())
        }
        Err(condition) => {
            index.clear();
            Err(condition.into())
        }
    }
}

fn local_name<'a>(bytes: &'a [u8], tag: &Tag) -> &'a str {
    let name = text(bytes, tag.name.span);
    match tag.name.prefix_len {
        0 => name,
        len => name.get(usize::from(len) + 1..).unwrap_or_default(),
    }
}

/// That stretch of bytes which were checked to be UTF-8; empty where they are other bytes than those read.
pub(in crate::xmpp) fn text(bytes: &[u8], span: Span) -> &str {
    bytes
        .get(span.start()..span.end())
        .and_then(|b| std::str::from_utf8(b).ok())
        .unwrap_or_default()
}

impl Index {
    fn clear(&mut self) {
        let outline = &mut self.outline;
        outline.root = Tag::default();
        outline.close_start = 0;
        outline.attrs.clear();
        outline.children.clear();
        if outline.children.capacity() > CHILDREN_KEPT {
            outline.children = SmallVec::new();
        }
        if self.scratch.cooked.capacity() > COOKED_BYTES_KEPT {
            self.scratch.cooked = String::new();
        }
        self.scratch.bindings.clear();
        self.kind = None;
        self.needs_rewrite = false;
    }

    /// Whether the bytes cannot be copied to another stream as they are.
    pub fn needs_rewrite(&self) -> bool {
        self.needs_rewrite
    }

    /// Message, presence or IQ of the stream's content namespace.
    pub(in crate::xmpp) fn kind(&self) -> Option<StanzaKind> {
        self.kind
    }

    pub(in crate::xmpp) fn root(&self) -> &Tag {
        &self.outline.root
    }

    /// Where the root's end tag starts; behind the whole for an empty element.
    pub(in crate::xmpp) fn close_start(&self) -> u32 {
        self.outline.close_start
    }

    pub(in crate::xmpp) fn attrs(&self) -> &[Attr] {
        &self.outline.attrs
    }

    pub(in crate::xmpp) fn children(&self) -> &[ChildSpan] {
        &self.outline.children
    }

    /// What the stanza was read against.
    pub(in crate::xmpp) fn context(&self) -> &StreamContext {
        &self.context
    }

    pub(in crate::xmpp) fn namespace<'a>(&'a self, bytes: &'a [u8], ns: NsRef) -> &'a str {
        match ns {
            NsRef::Document(span) => text(bytes, span),
            other => self.names("").text(other),
        }
    }

    /// What is in force inside the root: the context in which a child alone can be read.
    pub(in crate::xmpp) fn context_of_children(&self, bytes: &[u8]) -> StreamContext {
        let default = self.namespace(bytes, self.outline.root.default);
        let bindings: SmallVec<[(&str, &str); 4]> = self
            .scratch
            .bindings
            .iter()
            .map(|b| (text(bytes, b.prefix), self.namespace(bytes, b.ns)))
            .collect();
        self.context.extended(default, &bindings)
    }

    fn names<'a>(&'a self, doc: &'a str) -> Names<'a> {
        Names { doc, cooked: &self.scratch.cooked, context: &self.context }
    }
}

impl Visit for Outline {
    fn open(&mut self, tag: &Tag, attrs: &[Attr], depth: usize) {
        match depth {
            1 => {
                self.root = *tag;
                self.attrs.extend_from_slice(attrs);
            }
            2 => self.children.push(ChildSpan { tag: *tag, close_start: 0, end: 0 }),
            _ => {}
        }
    }

    fn close(&mut self, close_start: u32, end: u32, depth: usize) {
        match depth {
            1 => self.close_start = close_start,
            2 => {
                if let Some(child) = self.children.last_mut() {
                    child.close_start = close_start;
                    child.end = end;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::xmpp::stream_error::StreamCondition as C;

    fn read_with(text: &[u8], context: &StreamContext, limits: &XmlLimits) -> Result<Index, C> {
        let mut index = Index::default();
        read(text, context, limits, &mut index).map_err(|error| error.condition)?;
        Ok(index)
    }

    fn result(text: &str) -> Result<Index, C> {
        read_with(text.as_bytes(), &StreamContext::client(), &XmlLimits::default())
    }

    fn assert_refused(condition: C, texts: &[&str]) {
        for text in texts {
            assert_eq!(result(text).err(), Some(condition), "{text:?}");
        }
    }

    #[test]
    fn well_formed_stanzas_are_accepted() {
        for text in [
            "<a/>",
            "<a />",
            "<a></a >",
            "<a b = '1'\n\tc=\"'>\"/>",
            "<a>]] ]> > ' \" &lt;&gt;&amp;&apos;&quot;&#65;&#x1F600;</a>",
            "<a><![CDATA[]]]]><![CDATA[>&x;<b>]]></a>",
            "<a.b-c_d xmlns:p.q='u' p.q:é='1'/>",
            "<é·/>",
            "<a xmlns=''><b xmlns='x'/></a>",
            "<a xmlns:p='u' xmlns:q='u' p:x='1' q:y='1' x='1'/>",
            "<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='de'/>",
            "<p:a xmlns:p='u'><p:b xmlns:p='v'/><p:c/></p:a>",
            "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>",
            "<m xmlns:stream='http://etherx.jabber.org/streams'/>",
            "<a>\u{7f}\u{85}\u{fffd}\u{10ffff}</a>",
        ] {
            assert_eq!(result(text).err(), None, "{text:?}");
        }
    }

    #[test]
    fn faults_that_lenient_parsers_let_through_are_not_well_formed() {
        assert_refused(
            C::NotWellFormed,
            &[
                // `<` in a value, no space between attributes, a tag inside of a tag
                "<a b='<'/>",
                "<a b='1'c='2'/>",
                "<a<b/>",
                "<a<b/></a>",
                // characters outside of XML, as such and by number
                "<a>\u{0}</a>",
                "<a>\u{1}</a>",
                "<a b='\u{8}'/>",
                "<a>\u{fffe}</a>",
                "<a>\u{ffff}</a>",
                "<a\u{b}/>",
                "<a>&#x0;</a>",
                "<a>&#0;</a>",
                "<a b='&#x1f;'/>",
                "<a>&#xFFFF;</a>",
                "<a>&#xD800;</a>",
                "<a>&#x;</a>",
                "<a><![CDATA[\u{1}]]></a>",
                // end of CDATA in text
                "<a>]]></a>",
                "<a>x]]]></a>",
                // names
                "<1a/>",
                "<-a/>",
                "<.a/>",
                "<a 1b='x'/>",
                "<a><2/></a>",
                "<a·b×/>",
                "<\u{b7}a/>",
                "<a=b/>",
                "<a/b/>",
                "<a:b:c xmlns:a='u'/>",
                "<:a/>",
                "<a:/>",
                "<a:1 xmlns:a='u'/>",
                "<a xmlns:='u'/>",
                "<a :b='u'/>",
                "<a b:='u'/>",
                "<>",
                "< a/>",
                "<a></ a>",
                "</a>",
                "<a/ >",
                // namespaces
                "<a xmlns:p=''/>",
                "<p:a/>",
                "<a p:b='1'/>",
                "<a><p:b xmlns:p='u'/><p:c/></a>",
                "<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>",
                "<a xmlns:p='u' xmlns:q='&#117;' p:x='1' q:x='2'/>",
                "<a xmlns:xml='u'/>",
                "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
                "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
                "<a xmlns:xmlns='u'/>",
                "<a xmlns:p='http://www.w3.org/2000/xmlns/'/>",
                "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
                "<xmlns:a/>",
                "<a xmlns='u' xmlns='u'/>",
                "<a xmlns:p='u' xmlns:p='v'/>",
                // duplicates, quotes, ends
                "<a b='1' b='2'/>",
                "<a b=1/>",
                "<a b/>",
                "<a b='1/>",
                "<a b='1\"/>",
                "<a></b>",
                "<a></ab>",
                "<ab></a>",
                "<a><b></a></b>",
                "<a",
                "<a>",
                "<a></a",
                "<a>x",
                "<a></a b='1'>",
                // more or less than one element
                "<a/><b/>",
                "<a/>x",
                "<a/> ",
                "x<a/>",
                " <a/>",
                "",
                "\u{feff}<a/>",
                // stray references
                "<a>&</a>",
                "<a>& </a>",
                "<a>&lt</a>",
                "<a b='&'/>",
                "<a b='a&b'/>",
                "<a>&;</a>",
                "<a>&#;</a>",
            ],
        );
    }

    #[test]
    fn what_rfc_6120_11_1_prohibits_is_restricted() {
        assert_refused(
            C::RestrictedXml,
            &[
                "<a><!-- x --></a>",
                "<a><?x y?></a>",
                "<?xml version='1.0'?><a/>",
                "<!DOCTYPE a><a/>",
                "<a><!DOCTYPE a></a>",
                "<a><!ENTITY x 'y'></a>",
                "<a><![cdata[x]]></a>",
                "<a>&nbsp;</a>",
                "<a b='&eacute;'/>",
                "<a xmlns='&x;'/>",
                "<![CDATA[x]]>",
                "<a>&Lt;</a>",
            ],
        );
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_an_unsupported_encoding() {
        for text in [
            &b"<a>\xff</a>"[..],
            b"<a>\xc3</a>",
            b"<a>\xed\xa0\x80</a>",
            b"<a>\xc0\x80</a>",
            b"<\xff\xfea/>",
        ] {
            let refused = read_with(text, &StreamContext::client(), &XmlLimits::default()).err();
            assert_eq!(refused, Some(C::UnsupportedEncoding), "{text:?}");
        }
    }

    #[test]
    fn stream_namespace_is_refused_inside_of_a_stanza() {
        assert_refused(
            C::InvalidXml,
            &[
                "<message><stream:stream/></message>",
                "<message><x xmlns='u'><y><s:error xmlns:s='http://etherx.jabber.org/streams'/></y></x></message>",
                "<message><error xmlns='http://etherx.jabber.org/streams'/></message>",
                "<message><error xmlns='http&#58;//etherx.jabber.org/streams'/></message>",
            ],
        );
    }

    #[test]
    fn limits_are_policy_violations() {
        let limits = XmlLimits {
            stanza_bytes_max: 64,
            depth_max: 3,
            attributes_max: 2,
            name_bytes_max: 5,
            ..XmlLimits::default()
        };
        let context = StreamContext::client();
        let limited = |text: &str| read_with(text.as_bytes(), &context, &limits).err();
        for good in ["<a><b><c/></b></a>", "<a b='1' c='2'/>", "<abcde/>"] {
            assert_eq!(limited(good), None, "{good}");
        }
        for bad in
            ["<a><b><c><d/></c></b></a>", "<a b='1' c='2' d='3'/>", "<abcdef/>", "<a abcdef='1'/>"]
        {
            assert_eq!(limited(bad), Some(C::PolicyViolation), "{bad}");
        }
        assert_eq!(limited(&format!("<a>{}</a>", "x".repeat(60))), Some(C::PolicyViolation));
    }

    #[test]
    fn namespace_of_the_prefix_xml_is_declared_as_it_is_or_not_at_all() {
        assert_refused(
            C::PolicyViolation,
            &["<a xmlns:xml='http&#58;//www.w3.org/XML/1998/namespace'/>"],
        );
    }

    #[test]
    fn prefixes_in_scope_are_bounded() {
        let level = |at: usize| -> String {
            let declared: String = (0..16).map(|i| format!(" xmlns:p{at}x{i}='u'")).collect();
            format!("<a{declared}>")
        };
        let two = format!("{}{}</a></a>", level(0), level(1));
        assert_eq!(result(&two).err(), None);
        let three = format!("{}{}<a xmlns:q='u'/></a></a>", level(0), level(1));
        assert_eq!(result(&three).err(), Some(C::PolicyViolation));
        // One after the other they do not add up.
        let siblings = format!("<r>{}</a>{}</a>{}</a></r>", level(0), level(1), level(2));
        assert_eq!(result(&siblings).err(), None);
    }

    #[test]
    fn stanzas_that_lean_on_their_header_need_a_rewrite() {
        let header = read_header(
            b"<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='d'>",
            &XmlLimits::default(),
        )
        .unwrap();
        let rewritten = |text: &str| {
            read_with(text.as_bytes(), &header.context, &XmlLimits::default())
                .unwrap()
                .needs_rewrite()
        };
        for own in [
            "<message><body>x</body></message>",
            "<message xmlns='jabber:server' xml:lang='en'><x xmlns='u' xmlns:p='v' p:a='1'><p:y/></x></message>",
        ] {
            assert!(!rewritten(own), "{own}");
        }
        for leaning in [
            "<message><db:x/></message>",
            // It goes on as the client's namespace.
            "<message><f xmlns='f'><message xmlns='jabber:server'/></f></message>",
            "<message><x db:a='1'/></message>",
            "<db:result/>",
            "<p:message xmlns:p='jabber:server'/>",
            "<message><body xmlns='jabber:server'/></message>",
            "<message><p:body xmlns:p='jabber:server'/></message>",
            "<message><x xmlns='u&#58;x'/></message>",
        ] {
            assert!(rewritten(leaning), "{leaning}");
        }
        let standalone = StreamContext::standalone();
        let alone = |text: &str| {
            let index = read_with(text.as_bytes(), &standalone, &XmlLimits::default()).unwrap();
            (index.kind().is_some(), index.needs_rewrite())
        };
        assert_eq!(alone("<message xmlns='jabber:client'><body/></message>"), (true, false));
        assert_eq!(alone("<message><body/></message>"), (false, true));
    }

    #[test]
    fn index_is_empty_after_an_error() {
        let mut index = Index::default();
        let limits = XmlLimits::default();
        read(b"<iq><a/></iq>", &StreamContext::client(), &limits, &mut index).unwrap();
        assert_eq!((index.kind(), index.children().len()), (Some(StanzaKind::Iq), 1));
        assert!(read(b"<iq a='1'><a/>", &StreamContext::client(), &limits, &mut index).is_err());
        assert_eq!((index.kind(), index.children().len(), index.attrs().len()), (None, 0, 0));
    }

    fn header_of(text: &str) -> Result<StreamHeader, C> {
        read_header(text.as_bytes(), &XmlLimits::default()).map_err(|error| error.condition)
    }

    #[test]
    fn header_gives_its_attributes_and_namespaces() {
        let header = header_of(
            "<stream:stream to='a&amp;b' from='c' id='i' version='1.00' xml:lang='de' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>",
        )
        .unwrap();
        assert_eq!(header.to.as_deref(), Some("a&b"));
        assert_eq!(header.from.as_deref(), Some("c"));
        assert_eq!(header.id.as_deref(), Some("i"));
        assert_eq!(header.lang.as_deref(), Some("de"));
        assert_eq!(header.version, Some((1, 0)));
        assert_eq!(header.context, StreamContext::client());
        let server = header_of(
            "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:server' xmlns:db='jabber:server:dialback'>",
        )
        .unwrap();
        assert_eq!((server.version, server.context.content()), (None, ns::SERVER));
        let prefixed =
            header_of("<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client'>")
                .unwrap();
        assert_eq!(prefixed.context.default_namespace(), ns::STREAMS);
        let index = read_with(
            b"<c:message><c:body/></c:message>",
            &prefixed.context,
            &XmlLimits::default(),
        )
        .unwrap();
        assert_eq!((index.kind(), index.needs_rewrite()), (Some(StanzaKind::Message), true));
    }

    #[test]
    fn stream_namespace_by_default_is_refused_inside_of_a_stanza() {
        let header =
            header_of("<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client'>")
                .unwrap();
        let read = |text: &str| {
            read_with(text.as_bytes(), &header.context, &XmlLimits::default()).map(|_| ())
        };
        assert_eq!(read("<c:message><y/></c:message>"), Err(C::InvalidXml));
        assert_eq!(read("<c:message><c:body><y/></c:body></c:message>"), Err(C::InvalidXml));
        assert_eq!(read("<c:message><y xmlns='u'/></c:message>"), Ok(()));
    }

    #[test]
    fn headers_of_other_protocols_are_refused_by_their_condition() {
        const STREAMS: &str = "xmlns:stream='http://etherx.jabber.org/streams'";
        for (text, condition) in [
            (
                "<stream:stream xmlns='jabber:client' xmlns:stream='other'>".to_owned(),
                C::InvalidNamespace,
            ),
            (format!("<stream:stream xmlns='jabber:other' {STREAMS}>"), C::InvalidNamespace),
            (format!("<stream:stream {STREAMS}>"), C::InvalidNamespace),
            (format!("<stream xmlns='jabber:client' {STREAMS}>"), C::BadNamespacePrefix),
            (format!("<stream:other xmlns='jabber:client' {STREAMS}>"), C::BadFormat),
            ("<stream:stream xmlns='jabber:client'>".to_owned(), C::NotWellFormed),
            (
                format!("<stream:stream version='x' xmlns='jabber:client' {STREAMS}>"),
                C::UnsupportedVersion,
            ),
            (
                format!("<stream:stream version='1' xmlns='jabber:client' {STREAMS}>"),
                C::UnsupportedVersion,
            ),
            (format!("<stream:stream to='&x;' xmlns='jabber:client' {STREAMS}>"), C::RestrictedXml),
            (format!("<stream:stream xmlns='jabber:client' {STREAMS}/>"), C::NotWellFormed),
        ] {
            assert_eq!(header_of(&text).err(), Some(condition), "{text}");
        }
        let many: String = (0..17).map(|i| format!(" xmlns:p{i}='u'")).collect();
        let text = format!("<stream:stream xmlns='jabber:client' {STREAMS}{many}>");
        assert_eq!(header_of(&text).err(), Some(C::PolicyViolation));
    }
}
