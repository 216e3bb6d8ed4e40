//! The parts of an element as the walk over it names them: places in the document, never copies.

use smallvec::SmallVec;

use crate::xmpp::ns;
use crate::xmpp::xml::chars::is_space;
use crate::xmpp::xml::context::StreamContext;

/// A stretch of the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::xmpp) struct Span {
    pub(in crate::xmpp) at: u32,
    pub(in crate::xmpp) len: u32,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Span {
        // Documents are bounded by `stanza_bytes_max`, a u32.
        Span {
            at: u32::try_from(start).unwrap_or(u32::MAX),
            len: u32::try_from(end.saturating_sub(start)).unwrap_or(0),
        }
    }

    pub(in crate::xmpp) fn start(self) -> usize {
        self.at as usize
    }

    pub(in crate::xmpp) fn end(self) -> usize {
        self.at as usize + self.len as usize
    }

    pub(in crate::xmpp) fn of(self, doc: &str) -> &str {
        doc.get(self.start()..self.end()).unwrap_or_default()
    }
}

/// A namespace name, by where its text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::xmpp) enum NsRef {
    #[default]
    None,
    /// The content namespace of the stream.
    Content,
    Streams,
    Xml,
    /// The stream's default namespace, where it is not the content namespace.
    HeaderDefault,
    /// Bound to a prefix by the stream header.
    Header(u8),
    /// As it stands in the document.
    Document(Span),
    /// In [`Scratch::cooked`], as it had references or white space in it.
    Cooked(Span),
}

/// Qualified name of an element or attribute.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::xmpp) struct QName {
    pub(in crate::xmpp) span: Span,
    /// Bytes before the colon; 0 without prefix.
    pub(in crate::xmpp) prefix_len: u16,
}

impl QName {
    pub(in crate::xmpp) fn local(self, doc: &str) -> &str {
        let full = self.span.of(doc);
        match self.prefix_len {
            0 => full,
            len => full.get(usize::from(len) + 1..).unwrap_or_default(),
        }
    }

    pub(in crate::xmpp) fn prefix(self, doc: &str) -> &str {
        self.span.of(doc).get(..usize::from(self.prefix_len)).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(in crate::xmpp) struct Attr {
    pub(in crate::xmpp) name: QName,
    /// Between the quotes, as sent.
    pub(in crate::xmpp) value: Span,
    pub(in crate::xmpp) ns: NsRef,
    pub(in crate::xmpp) role: AttrRole,
}

impl Attr {
    /// From the name's first byte to behind the closing quote.
    pub(in crate::xmpp) fn whole(&self) -> Span {
        Span::new(self.name.span.start(), self.value.end() + 1)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::xmpp) enum AttrRole {
    #[default]
    Plain,
    /// `xmlns='…'`
    Default,
    /// `xmlns:p='…'`
    Prefix,
}

/// One start tag, checked and resolved.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::xmpp) struct Tag {
    /// Offset of the `<`.
    pub(in crate::xmpp) start: u32,
    pub(in crate::xmpp) name: QName,
    pub(in crate::xmpp) ns: NsRef,
    /// Default namespace inside.
    pub(in crate::xmpp) default: NsRef,
    /// Offset behind the `>`.
    pub(in crate::xmpp) open_end: u32,
}

/// Looks on as the walk goes. Depth 1 is the root.
pub(in crate::xmpp) trait Visit {
    fn open(&mut self, tag: &Tag, attrs: &[Attr], depth: usize);
    /// `close_start` is the offset of the end tag's `<` (behind the whole tag for an empty element), `end` behind it.
    fn close(&mut self, close_start: u32, end: u32, depth: usize);
}

/// For a walk that only checks.
impl Visit for () {
    fn open(&mut self, _: &Tag, _: &[Attr], _: usize) {}

    fn close(&mut self, _: u32, _: u32, _: usize) {}
}

/// What is needed to turn an [`NsRef`] into text.
#[derive(Clone, Copy)]
pub(in crate::xmpp) struct Names<'a> {
    pub(in crate::xmpp) doc: &'a str,
    pub(in crate::xmpp) cooked: &'a str,
    pub(in crate::xmpp) context: &'a StreamContext,
}

impl<'a> Names<'a> {
    pub(in crate::xmpp) fn text(self, ns: NsRef) -> &'a str {
        match ns {
            NsRef::None => "",
            NsRef::Content => self.context.content(),
            NsRef::Streams => ns::STREAMS,
            NsRef::Xml => ns::XML,
            NsRef::HeaderDefault => self.context.default_namespace(),
            NsRef::Header(at) => self.context.namespace_at(usize::from(at)),
            NsRef::Document(span) => span.of(self.doc),
            NsRef::Cooked(span) => span.of(self.cooked),
        }
    }
}

/// Memory of a walk, kept for the next one.
#[derive(Clone, Debug, Default)]
pub(in crate::xmpp) struct Scratch {
    pub(super) open: SmallVec<[Open; 8]>,
    /// Declared prefixes, innermost last. After a walk: those of the root.
    pub(in crate::xmpp) bindings: SmallVec<[Binding; 4]>,
    /// Attributes of the tag being read.
    pub(super) attrs: SmallVec<[Attr; 8]>,
    pub(in crate::xmpp) cooked: String,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) name: Span,
    pub(super) default: NsRef,
    /// Length of the list of bindings outside of this element.
    pub(super) bindings: u16,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::xmpp) struct Binding {
    pub(in crate::xmpp) prefix: Span,
    pub(in crate::xmpp) ns: NsRef,
}

/// What a walk says of the element as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::xmpp) struct Findings {
    /// Something is bound only by the stream header.
    pub(in crate::xmpp) leans_on_header: bool,
    /// The content namespace is named again where it is in force already, or has a prefix: copied to a stream of another
    /// content namespace the element would change its meaning.
    pub(in crate::xmpp) names_content_again: bool,
    /// The content namespace is declared inside of the root, or for a prefix. On a stream whose content namespace is
    /// another than where the stanza goes, the declaration would go along and mean something else there.
    pub(in crate::xmpp) binds_content: bool,
    /// A namespace name has references or line ends in it. Some parsers compare such names as they are sent; in the
    /// form that we write, nothing is escaped that need not be.
    pub(in crate::xmpp) has_cooked_namespace: bool,
}

/// The attributes of a start tag that passed the walk already: name as written, raw value.
pub(in crate::xmpp) fn attrs_of_checked(tag: &str) -> impl Iterator<Item = (&str, &str)> {
    let name_end =
        tag.bytes().position(|b| is_space(b) || matches!(b, b'>' | b'/')).unwrap_or(tag.len());
    let mut rest = tag.get(name_end..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, tail) = rest.split_once('=')?;
        let tail = tail.trim_ascii_start();
        let quote = tail.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
        let (value, tail) = tail.get(1..)?.split_once(quote)?;
        rest = tail;
        Some((name.trim_ascii(), value))
    })
}
