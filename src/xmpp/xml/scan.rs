//! The strict walk over one whole element: every rule of XML 1.0, of Namespaces in XML 1.0 and of RFC 6120 §11.
//!
//! One pass. Whoever wants to know where things are looks over its shoulder as a [`Visit`]. It
//! refuses what lenient parsers let through (no space between attributes, `<` in values, `]]>` in text, names that are
//! none, characters and references outside XML, prefixes without declaration, two attributes of one expanded name), so
//! that what passed means the same to whoever it is forwarded to.
//!
//! Cost against a hostile peer: linear in the bytes, but for duplicate attributes (pairs within one element, at most
//! `attributes_max`) and prefixes (a list of at most [`PREFIXES_IN_SCOPE_MAX`]).

use smallvec::SmallVec;

use crate::xmpp::ns;
use crate::xmpp::stream_error::StreamCondition;
use crate::xmpp::xml::chars::{self, NAME_CLASS, NameClass, Reference, is_space};
use crate::xmpp::xml::context::StreamContext;
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::names;
use crate::xmpp::xml::parts::{
    Attr, AttrRole, Binding, Findings, Names, NsRef, Open, QName, Scratch, Span, Tag, Visit,
};

/// Most prefixes declared on an element and those around it, inside one stanza.
const PREFIXES_IN_SCOPE_MAX: usize = 32;

/// Checks `bytes`, which have to be exactly one element.
pub(in crate::xmpp) fn walk<V: Visit>(
    bytes: &[u8],
    context: &StreamContext,
    limits: &XmlLimits,
    scratch: &mut Scratch,
    visit: &mut V,
) -> Result<Findings, StreamCondition> {
    let doc = checked(bytes, limits.stanza_bytes_max)?;
    let mut walk = Walk::new(doc, context, limits, scratch);
    walk.element(visit)?;
    Ok(walk.findings)
}

/// Checks `bytes`, which have to be exactly one start tag; gives its attributes and bindings in `scratch`.
pub(in crate::xmpp) fn start_tag(
    bytes: &[u8],
    context: &StreamContext,
    limits: &XmlLimits,
    scratch: &mut Scratch,
) -> Result<(Tag, SmallVec<[Attr; 8]>), StreamCondition> {
    let doc = checked(bytes, limits.header_bytes_max)?;
    let mut walk = Walk::new(doc, context, limits, scratch);
    let (tag, is_empty) = walk.tag(0)?;
    if is_empty || walk.at != bytes.len() {
        return Err(StreamCondition::NotWellFormed);
    }
    Ok((tag, scratch.attrs.clone()))
}

fn checked(bytes: &[u8], bytes_max: u32) -> Result<&str, StreamCondition> {
    if bytes.len() > bytes_max as usize {
        return Err(StreamCondition::PolicyViolation);
    }
    // RFC 6120 §4.9.3.22: breaking the rules of UTF-8 is an encoding that is not supported.
    let doc = std::str::from_utf8(bytes).map_err(|_| StreamCondition::UnsupportedEncoding)?;
    if !chars::has_only_xml_chars(doc) {
        return Err(StreamCondition::NotWellFormed);
    }
    Ok(doc)
}

struct Walk<'a> {
    doc: &'a str,
    bytes: &'a [u8],
    context: &'a StreamContext,
    limits: &'a XmlLimits,
    scratch: &'a mut Scratch,
    at: usize,
    findings: Findings,
}

impl<'a> Walk<'a> {
    fn new(
        doc: &'a str,
        context: &'a StreamContext,
        limits: &'a XmlLimits,
        scratch: &'a mut Scratch,
    ) -> Walk<'a> {
        scratch.open.clear();
        scratch.bindings.clear();
        scratch.cooked.clear();
        Walk {
            doc,
            bytes: doc.as_bytes(),
            context,
            limits,
            scratch,
            at: 0,
            findings: Findings::default(),
        }
    }

    /// The byte there; NUL, which no checked document holds, behind the end.
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn names(&self) -> Names<'_> {
        Names { doc: self.doc, cooked: &self.scratch.cooked, context: self.context }
    }

    fn element<V: Visit>(&mut self, visit: &mut V) -> Result<(), StreamCondition> {
        loop {
            let markup = self.at;
            if self.byte(markup) != b'<' {
                return Err(StreamCondition::NotWellFormed);
            }
            match self.byte(markup + 1) {
                b'/' => {
                    self.end_tag(markup)?;
                    let depth = self.scratch.open.len() + 1;
                    visit.close(offset(markup), offset(self.at), depth);
                }
                b'!' => self.cdata(markup)?,
                b'?' => return Err(StreamCondition::RestrictedXml),
                _ => {
                    let (tag, is_empty) = self.tag(markup)?;
                    let depth = self.scratch.open.len();
                    visit.open(&tag, &self.scratch.attrs, depth);
                    if is_empty {
                        self.pop();
                        visit.close(offset(self.at), offset(self.at), depth);
                    }
                }
            }
            if self.scratch.open.is_empty() {
                let is_whole = self.at == self.bytes.len();
                return if is_whole { Ok(()) } else { Err(StreamCondition::NotWellFormed) };
            }
            self.text()?;
        }
    }

    /// Character data up to the next `<`.
    fn text(&mut self) -> Result<(), StreamCondition> {
        let start = self.at;
        let mut at = start;
        loop {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let Some(found) = memchr::memchr3(b'<', b'&', b'>', rest) else {
                return Err(StreamCondition::NotWellFormed);
            };
            at += found;
            match self.byte(at) {
                b'<' => break,
                b'&' => at += self.reference(at)?,
                // XML 1.0 §2.4: the end of a CDATA section must not appear in text.
                _ if self.bytes.get(start..at).unwrap_or_default().ends_with(b"]]") => {
                    return Err(StreamCondition::NotWellFormed);
                }
                _ => at += 1,
            }
        }
        self.at = at;
        Ok(())
    }

    /// The reference whose `&` is there; its length.
    fn reference(&self, at: usize) -> Result<usize, StreamCondition> {
        match chars::reference(self.bytes.get(at + 1..).unwrap_or_default()) {
            (Reference::Char(_), len) => Ok(len + 1),
            (Reference::Undefined, _) => Err(StreamCondition::RestrictedXml),
            (Reference::Malformed, _) => Err(StreamCondition::NotWellFormed),
        }
    }

    fn cdata(&mut self, markup: usize) -> Result<(), StreamCondition> {
        const OPEN: &[u8] = b"<![CDATA[";
        let is_cdata = self.bytes.get(markup..).is_some_and(|rest| rest.starts_with(OPEN));
        if !is_cdata || self.scratch.open.is_empty() {
            return Err(StreamCondition::RestrictedXml);
        }
        let start = markup + OPEN.len();
        let mut at = start;
        loop {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let found = memchr::memchr(b'>', rest).ok_or(StreamCondition::NotWellFormed)?;
            at += found + 1;
            if self.bytes.get(start..at).unwrap_or_default().ends_with(b"]]>") {
                break;
            }
        }
        self.at = at;
        Ok(())
    }

    fn end_tag(&mut self, markup: usize) -> Result<(), StreamCondition> {
        let name = self.scratch.open.last().map_or("", |open| open.name.of(self.doc));
        let start = markup + 2;
        let end = start + name.len();
        if name.is_empty() || self.bytes.get(start..end) != Some(name.as_bytes()) {
            return Err(StreamCondition::NotWellFormed);
        }
        self.at = end;
        self.skip_space();
        if self.byte(self.at) != b'>' {
            return Err(StreamCondition::NotWellFormed);
        }
        self.at += 1;
        self.pop();
        Ok(())
    }

    /// Leaves the innermost element. The root's bindings stay, for whoever reads its children later.
    fn pop(&mut self) {
        if let Some(open) = self.scratch.open.pop()
            && !self.scratch.open.is_empty()
        {
            self.scratch.bindings.truncate(usize::from(open.bindings));
        }
    }

    fn skip_space(&mut self) -> bool {
        let start = self.at;
        while is_space(self.byte(self.at)) {
            self.at += 1;
        }
        self.at > start
    }

    /// The start tag whose `<` is there: checked, resolved and put on the list of open elements.
    fn tag(&mut self, markup: usize) -> Result<(Tag, bool), StreamCondition> {
        self.at = markup + 1;
        let name = self.name()?;
        let is_empty = self.attributes()?;
        if self.scratch.open.len() >= usize::from(self.limits.depth_max) {
            return Err(StreamCondition::PolicyViolation);
        }
        let outer = match self.scratch.open.last() {
            Some(open) => open.default,
            None if self.context.is_content_default() => NsRef::Content,
            None if self.context.default_namespace().is_empty() => NsRef::None,
            None if self.context.default_namespace() == ns::STREAMS => NsRef::Streams,
            None => NsRef::HeaderDefault,
        };
        let bindings = self.scratch.bindings.len();
        let default = self.declarations()?.unwrap_or(outer);
        let is_root = self.scratch.open.is_empty();
        let declares_default = self.scratch.attrs.iter().any(|attr| attr.role == AttrRole::Default);
        if !is_root && declares_default && default == NsRef::Content && outer == NsRef::Content {
            self.findings.names_content_again = true;
        }
        if is_root && !declares_default && !self.context.is_content_default() {
            self.findings.leans_on_header = true;
        }
        let ns = match name.prefix_len {
            0 => default,
            _ => self.resolve(name)?,
        };
        match ns {
            NsRef::Streams if !is_root => return Err(StreamCondition::InvalidXml),
            NsRef::Content if name.prefix_len > 0 => self.findings.names_content_again = true,
            _ => {}
        }
        self.duplicates()?;
        self.scratch.open.push(Open {
            name: name.span,
            default,
            bindings: u16::try_from(bindings).unwrap_or(u16::MAX),
        });
        let tag = Tag { start: offset(markup), name, ns, default, open_end: offset(self.at) };
        Ok((tag, is_empty))
    }

    /// Attributes up to and with the end of the tag; whether that is `/>`.
    fn attributes(&mut self) -> Result<bool, StreamCondition> {
        self.scratch.attrs.clear();
        loop {
            let is_spaced = self.skip_space();
            match self.byte(self.at) {
                b'>' => {
                    self.at += 1;
                    return Ok(false);
                }
                b'/' if self.byte(self.at + 1) == b'>' => {
                    self.at += 2;
                    return Ok(true);
                }
                _ if !is_spaced => return Err(StreamCondition::NotWellFormed),
                _ => {}
            }
            let name = self.name()?;
            self.skip_space();
            if self.byte(self.at) != b'=' {
                return Err(StreamCondition::NotWellFormed);
            }
            self.at += 1;
            self.skip_space();
            let value = self.value()?;
            if self.scratch.attrs.len() >= usize::from(self.limits.attributes_max) {
                return Err(StreamCondition::PolicyViolation);
            }
            let role = match name.prefix_len {
                0 if name.span.len == 5 && name.span.of(self.doc) == "xmlns" => AttrRole::Default,
                5 if name.prefix(self.doc) == "xmlns" => AttrRole::Prefix,
                _ => AttrRole::Plain,
            };
            self.scratch.attrs.push(Attr { name, value, ns: NsRef::None, role });
        }
    }

    /// A quoted value; without its quotes.
    fn value(&mut self) -> Result<Span, StreamCondition> {
        let quote = self.byte(self.at);
        if !matches!(quote, b'\'' | b'"') {
            return Err(StreamCondition::NotWellFormed);
        }
        let start = self.at + 1;
        let mut at = start;
        loop {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let Some(found) = memchr::memchr3(quote, b'<', b'&', rest) else {
                return Err(StreamCondition::NotWellFormed);
            };
            at += found;
            match self.byte(at) {
                b'<' => return Err(StreamCondition::NotWellFormed),
                b'&' => at += self.reference(at)?,
                _ => break,
            }
        }
        self.at = at + 1;
        Ok(Span::new(start, at))
    }

    /// A qualified name (Namespaces in XML §4): one colon at most, neither first nor last.
    fn name(&mut self) -> Result<QName, StreamCondition> {
        let start = self.at;
        let mut at = start;
        let mut prefix_len = 0;
        // Whether a part of the name begins here, where digits may not stand.
        let mut is_first = true;
        loop {
            let byte = self.byte(at);
            match NAME_CLASS.get(usize::from(byte)) {
                Some(NameClass::Start) => {}
                Some(NameClass::Rest) if !is_first => {}
                Some(NameClass::Colon) if !is_first && prefix_len == 0 => {
                    prefix_len = at - start;
                    is_first = true;
                    at += 1;
                    continue;
                }
                Some(NameClass::Other) => break,
                Some(_) => return Err(StreamCondition::NotWellFormed),
                None => {
                    let c = self.doc.get(at..).and_then(|rest| rest.chars().next()).unwrap_or('\0');
                    let fits =
                        if is_first { names::is_name_start(c) } else { names::is_name_rest(c) };
                    if !fits {
                        return Err(StreamCondition::NotWellFormed);
                    }
                    at += c.len_utf8() - 1;
                }
            }
            is_first = false;
            at += 1;
        }
        if is_first {
            return Err(StreamCondition::NotWellFormed);
        }
        if at - start > usize::from(self.limits.name_bytes_max) {
            return Err(StreamCondition::PolicyViolation);
        }
        self.at = at;
        Ok(QName {
            span: Span::new(start, at),
            prefix_len: u16::try_from(prefix_len).unwrap_or(u16::MAX),
        })
    }

    /// Puts the tag's namespace declarations in force (Namespaces in XML §2, §3, §5); the new default, if any.
    fn declarations(&mut self) -> Result<Option<NsRef>, StreamCondition> {
        let mut default = None;
        for at in 0..self.scratch.attrs.len() {
            let Some(attr) = self.scratch.attrs.get(at).copied() else { break };
            match attr.role {
                AttrRole::Plain => {}
                AttrRole::Default => match self.namespace_name(attr.value)? {
                    NsRef::Xml => return Err(StreamCondition::NotWellFormed),
                    ns => {
                        let is_inside = !self.scratch.open.is_empty();
                        self.findings.binds_content |= is_inside && ns == NsRef::Content;
                        default = Some(ns);
                    }
                },
                AttrRole::Prefix => {
                    let ns = self.namespace_name(attr.value)?;
                    self.findings.binds_content |= ns == NsRef::Content;
                    let local = attr.name.local(self.doc);
                    match (local, ns) {
                        ("xml", NsRef::Xml) => {
                            // Well-formed by the letter, but parsers that compare such names as they are sent (the
                            // one that builds our trees does) take it for a rebinding of `xml`.
                            if attr.value.of(self.doc) != ns::XML {
                                return Err(StreamCondition::PolicyViolation);
                            }
                            continue;
                        }
                        // Bound for good, to one another only; and a prefix cannot be unbound in version 1.0.
                        ("xml" | "xmlns", _) | (_, NsRef::Xml | NsRef::None) => {
                            return Err(StreamCondition::NotWellFormed);
                        }
                        _ => {}
                    }
                    if self.scratch.bindings.len() >= PREFIXES_IN_SCOPE_MAX {
                        return Err(StreamCondition::PolicyViolation);
                    }
                    let end = attr.name.span.end();
                    let prefix = Span::new(end - local.len(), end);
                    self.scratch.bindings.push(Binding { prefix, ns });
                }
            }
        }
        Ok(default)
    }

    fn namespace_name(&mut self, value: Span) -> Result<NsRef, StreamCondition> {
        let raw = value.of(self.doc);
        let is_plain = chars::is_plain_attr(raw);
        let start = self.scratch.cooked.len();
        if !is_plain {
            self.findings.has_cooked_namespace = true;
            chars::unescape_attr(raw, &mut self.scratch.cooked);
        }
        let name =
            if is_plain { raw } else { self.scratch.cooked.get(start..).unwrap_or_default() };
        Ok(match name {
            "" => NsRef::None,
            ns::XML => NsRef::Xml,
            ns::STREAMS => NsRef::Streams,
            ns::XMLNS => return Err(StreamCondition::NotWellFormed),
            name if name == self.context.content() => NsRef::Content,
            _ if is_plain => NsRef::Document(value),
            _ => NsRef::Cooked(Span::new(start, self.scratch.cooked.len())),
        })
    }

    /// Namespace of a prefixed name.
    fn resolve(&mut self, name: QName) -> Result<NsRef, StreamCondition> {
        let prefix = name.prefix(self.doc);
        if prefix == "xml" {
            return Ok(NsRef::Xml);
        }
        let bound = self.scratch.bindings.iter().rev();
        if let Some(binding) = bound.into_iter().find(|b| b.prefix.of(self.doc) == prefix) {
            return Ok(binding.ns);
        }
        self.findings.leans_on_header = true;
        if prefix == "stream" && self.context.binds_stream_prefix() {
            return Ok(NsRef::Streams);
        }
        let at = self.context.prefix_at(prefix).ok_or(StreamCondition::NotWellFormed)?;
        Ok(match self.context.namespace_at(at) {
            ns::STREAMS => NsRef::Streams,
            name if name == self.context.content() => NsRef::Content,
            _ => NsRef::Header(u8::try_from(at).unwrap_or(u8::MAX)),
        })
    }

    /// Resolves the tag's attributes and refuses two of one name, as written or as meant (Namespaces in XML §6.3).
    fn duplicates(&mut self) -> Result<(), StreamCondition> {
        let mut seen = 0u64;
        let mut prefixed = 0;
        for at in 0..self.scratch.attrs.len() {
            let Some(attr) = self.scratch.attrs.get(at).copied() else { break };
            let name = attr.name.span.of(self.doc).as_bytes();
            // Two names of one mark are compared; most tags have no such pair.
            let first = usize::from(name.first().copied().unwrap_or(0));
            let last = usize::from(name.last().copied().unwrap_or(0));
            let mark = 1u64 << ((name.len() ^ first ^ (last << 1)) % 64);
            let earlier = self.scratch.attrs.get(..at).unwrap_or_default();
            if seen & mark != 0
                && earlier.iter().any(|a| a.name.span.of(self.doc).as_bytes() == name)
            {
                return Err(StreamCondition::NotWellFormed);
            }
            seen |= mark;
            if attr.role == AttrRole::Plain && attr.name.prefix_len > 0 {
                let ns = self.resolve(attr.name)?;
                if let Some(attr) = self.scratch.attrs.get_mut(at) {
                    attr.ns = ns;
                }
                prefixed += 1;
            }
        }
        if prefixed > 1 { self.expanded_duplicates() } else { Ok(()) }
    }

    fn expanded_duplicates(&self) -> Result<(), StreamCondition> {
        let names = self.names();
        let attrs = || {
            self.scratch.attrs.iter().filter(|a| a.role == AttrRole::Plain && a.name.prefix_len > 0)
        };
        for (at, attr) in attrs().enumerate() {
            let local = attr.name.local(self.doc);
            let is_twice = attrs().take(at).any(|earlier| {
                earlier.name.local(self.doc) == local
                    && names.text(earlier.ns) == names.text(attr.ns)
            });
            if is_twice {
                return Err(StreamCondition::NotWellFormed);
            }
        }
        Ok(())
    }
}

/// Offsets stay below `stanza_bytes_max`, a u32.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
