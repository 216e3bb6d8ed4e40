//! Builds the tree of an element that passed the strict walk, with quick-xml's namespace-aware reader.
//!
//! quick-xml alone would let much ill-formed XML pass; what the walk accepted it reads as any parser does. Where it
//! leaves things as they are sent (references in text, namespace names) they are resolved here.

use std::borrow::Cow;

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, NamespaceResolver, PrefixDeclaration, ResolveResult};
use quick_xml::reader::NsReader;

use crate::xmpp::xml::chars;
use crate::xmpp::xml::context::StreamContext;
use crate::xmpp::xml::element::{AttrName, Element, Node};
use crate::xmpp::xml::writer::escape_attr;

/// The tree of `doc`, which passed [`crate::xmpp::xml::scan::walk`] in that context; `None` where quick-xml refuses it.
pub(super) fn build(doc: &str, context: &StreamContext) -> Option<Element> {
    let mut reader = NsReader::from_str(doc);
    reader.config_mut().expand_empty_elements = true;
    // The walk bounds prefixes and depth, and with it the default namespaces.
    reader.resolver_mut().set_max_namespace_bindings(usize::MAX);
    for (prefix, namespace) in context.bindings() {
        bind(reader.resolver_mut(), prefix, namespace)?;
    }
    // Elements that are open, outermost first.
    let mut open: Vec<Element> = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => open.push(element(reader.resolver(), &tag)?),
            Event::End(_) => {
                let element = open.pop()?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(Node::Element(element)),
                    None => return Some(element),
                }
            }
            Event::Text(text) => open.last_mut()?.push_text(&text.xml10_content()),
            Event::CData(text) => open.last_mut()?.push_text(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let element = open.last_mut()?;
                match reference.resolve_char_ref().ok()? {
                    Some(c) => element.push_text(c.encode_utf8(&mut [0; 4])),
                    None => element.push_text(resolve_xml_entity(&reference)?),
                }
            }
            Event::Empty(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_)
            | Event::Eof => return None,
        }
    }
}

/// Puts a binding from around the element in force, spelled as it would be in the document.
fn bind(resolver: &mut NamespaceResolver, prefix: &str, namespace: &str) -> Option<()> {
    let declaration = match prefix {
        "" => PrefixDeclaration::Default,
        prefix => PrefixDeclaration::Named(prefix),
    };
    let spelled = if chars::is_plain_attr(namespace) {
        Cow::Borrowed(namespace)
    } else {
        let mut escaped = Vec::new();
        escape_attr(&mut escaped, namespace);
        Cow::Owned(String::from_utf8(escaped).ok()?)
    };
    resolver.add(declaration, Namespace(&spelled)).ok()
}

pub(super) fn element(resolver: &NamespaceResolver, tag: &BytesStart<'_>) -> Option<Element> {
    let (namespace, name) = resolver.resolve_element(tag.name());
    let mut element = Element {
        name: name.into_inner().to_owned(),
        namespace: namespace_name(namespace)?,
        ..Element::default()
    };
    for attribute in tag.attributes() {
        let attribute = attribute.ok()?;
        if attribute.key.as_namespace_binding().is_some() {
            continue;
        }
        let (namespace, name) = resolver.resolve_attribute(attribute.key);
        let name =
            AttrName { namespace: namespace_name(namespace)?, name: name.into_inner().to_owned() };
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).ok()?;
        element.attributes.push((name, value.into_owned()));
    }
    Some(element)
}

/// quick-xml gives a namespace name as it is spelled in its declaration, which is an attribute value.
fn namespace_name(resolved: ResolveResult<'_>) -> Option<String> {
    match resolved {
        ResolveResult::Unbound => Some(String::new()),
        ResolveResult::Bound(Namespace(spelled)) if chars::is_plain_attr(spelled) => {
            Some(spelled.to_owned())
        }
        ResolveResult::Bound(Namespace(spelled)) => {
            let mut name = String::with_capacity(spelled.len());
            chars::unescape_attr(spelled, &mut name);
            Some(name)
        }
        ResolveResult::Unknown(_) => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::xmpp::ns;
    use crate::xmpp::xml::framer::XmlLimits;
    use crate::xmpp::xml::reader::read_header;

    #[test]
    fn bindings_of_the_header_hold_however_they_are_spelled() {
        let header = read_header(
            b"<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams' \
              xmlns:p='u&amp;p&#9;&#x41;' xmlns:q='u:q'>",
            &XmlLimits::default(),
        )
        .unwrap();
        let tree =
            build("<p:a q:b='1'><s:c/><d xmlns:q='v:q' q:b='2'/></p:a>", &header.context).unwrap();
        assert_eq!(tree.namespace, "u&p\tA");
        assert_eq!(tree.attributes[0].0, AttrName { namespace: "u:q".into(), name: "b".into() });
        assert!(tree.child(ns::STREAMS, "c").is_some());
        let d = tree.child(ns::CLIENT, "d").unwrap();
        assert_eq!(d.attributes[0].0.namespace, "v:q");
    }

    #[test]
    fn line_ends_and_references_read_as_parsers_report_them() {
        let tree = build(
            "<a b='1\r\n2\r3\n4&#13;5\t6'>a\r\nb\rc\nd&#13;e\tf<![CDATA[\r\n&lt;\r]]>\n</a>",
            &StreamContext::client(),
        )
        .unwrap();
        assert_eq!(tree.attr("b"), Some("1 2 3 4\r5 6"));
        assert_eq!(tree.text(), "a\nb\nc\nd\re\tf\n&lt;\n\n");
    }

    #[test]
    fn what_only_the_walk_keeps_away_is_no_tree_and_no_panic() {
        for text in [
            "",
            "x",
            "<a>",
            "</a>",
            "<a></b>",
            "<a><!-- x --></a>",
            "<a><?x?></a>",
            "<?xml version='1.0'?><a/>",
            "<!DOCTYPE a><a/>",
            "<p:a/>",
            "<a p:b='1'/>",
            "<a>&x;</a>",
            "<a>&#x110000;</a>",
            "<a b='&x;'/>",
            "<a b='1' b='2'/>",
            "<a b/>",
            "&amp;<a/>",
            "<a xmlns:xml='u'/>",
            "<a",
            "<a>&</a>",
        ] {
            assert_eq!(build(text, &StreamContext::client()), None, "{text:?}");
        }
    }
}
