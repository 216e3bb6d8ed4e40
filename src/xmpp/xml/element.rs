//! A small owned tree of an element, for what is read rarely or changed: not on the path of a routed stanza.

use crate::xmpp::ns;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::parts::Scratch;
use crate::xmpp::xml::reader::StreamContext;
use crate::xmpp::xml::writer::Writer;
use crate::xmpp::xml::{scan, tree};

/// An element with its namespace resolved; prefixes are forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Local name.
    pub name: String,
    /// Empty for none.
    pub namespace: String,
    /// In the order sent, without namespace declarations.
    pub attributes: Vec<(AttrName, String)>,
    /// Texts next to one another are one.
    pub children: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Element(Element),
    Text(String),
}

/// Name of an attribute: most have no namespace, `xml:lang` has [`ns::XML`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttrName {
    /// Empty for none.
    pub namespace: String,
    /// Local name.
    pub name: String,
}

impl From<&str> for AttrName {
    /// `name` without prefix, or with the prefix `xml`.
    fn from(name: &str) -> AttrName {
        match name.strip_prefix("xml:") {
            Some(local) => AttrName { namespace: ns::XML.to_owned(), name: local.to_owned() },
            None => AttrName { namespace: String::new(), name: name.to_owned() },
        }
    }
}

impl AttrName {
    /// Whether this is `name`: without prefix, or with the prefix `xml`.
    pub fn is(&self, name: &str) -> bool {
        match name.strip_prefix("xml:") {
            Some(local) => self.namespace == ns::XML && self.name == local,
            None => self.namespace.is_empty() && self.name == name,
        }
    }
}

impl Element {
    pub fn new(name: &str, namespace: &str) -> Element {
        Element { name: name.to_owned(), namespace: namespace.to_owned(), ..Element::default() }
    }

    /// Adds an attribute without prefix, or with the prefix `xml`; replaces one of that name.
    #[must_use]
    pub fn with_attr(mut self, name: &str, value: impl Into<String>) -> Element {
        self.set_attr(name, value);
        self
    }

    #[must_use]
    pub fn with_child(mut self, child: Element) -> Element {
        self.children.push(Node::Element(child));
        self
    }

    #[must_use]
    pub fn with_text(mut self, text: &str) -> Element {
        self.push_text(text);
        self
    }

    /// As [`Element::with_attr`], in place.
    pub fn set_attr(&mut self, name: &str, value: impl Into<String>) {
        match self.attributes.iter_mut().find(|(known, _)| known.is(name)) {
            Some((_, old)) => *old = value.into(),
            None => self.attributes.push((name.into(), value.into())),
        }
    }

    pub fn remove_attr(&mut self, name: &str) {
        self.attributes.retain(|(known, _)| !known.is(name));
    }

    /// Reads one whole element: checks it strictly, then builds the tree. What passes is at most `depth_max` deep, which
    /// bounds the recursion over a tree that was read.
    ///
    /// - errors: as [`crate::xmpp::xml::reader::read`]; `not-well-formed` also where the parser that builds the tree
    ///   refuses what the check let pass, which no known input does
    /// - cost: a walk over the bytes and a parse that allocates: not for each routed stanza
    pub fn parse(
        bytes: &[u8],
        context: &StreamContext,
        limits: &XmlLimits,
    ) -> Result<Element, StreamError> {
        scan::walk(bytes, context, limits, &mut Scratch::default(), &mut ())?;
        let built = std::str::from_utf8(bytes).ok().and_then(|doc| tree::build(doc, context));
        Ok(built.ok_or(StreamCondition::NotWellFormed)?)
    }

    /// Value of an attribute without prefix, or with the prefix `xml`.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known.is(name)).map(|(_, value)| value.as_str())
    }

    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && self.namespace == namespace
    }

    /// First child element of that name.
    pub fn child(&self, namespace: &str, name: &str) -> Option<&Element> {
        self.children().find(|child| child.is(namespace, name))
    }

    /// Child elements, without the texts between them.
    pub fn children(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// Texts directly inside, joined.
    pub fn text(&self) -> String {
        self.children
            .iter()
            .map(|node| match node {
                Node::Text(text) => text.as_str(),
                Node::Element(_) => "",
            })
            .collect()
    }

    /// Appends the element for a place where `default_ns` is the default namespace.
    pub fn write(&self, out: &mut Vec<u8>, default_ns: &str) {
        self.write_to(&mut Writer::new(out), default_ns);
    }

    pub fn write_to(&self, writer: &mut Writer<'_>, default_ns: &str) {
        let inner_ns = self.write_open(writer, default_ns);
        self.write_children(writer, inner_ns);
        self.write_end(writer);
    }

    /// Moves this element and those inside of it from one namespace to another. Attributes stay where they are: two of
    /// one name could meet.
    pub(in crate::xmpp) fn rename_namespace(&mut self, from: &str, to: &str) {
        if from == to {
            return;
        }
        if self.namespace == from {
            to.clone_into(&mut self.namespace);
        }
        for child in &mut self.children {
            if let Node::Element(element) = child {
                element.rename_namespace(from, to);
            }
        }
    }

    /// As [`Element::write`], always with both tags; gives the offsets in `out` behind the start tag and of the end tag.
    pub fn write_spread(&self, out: &mut Vec<u8>, default_ns: &str) -> (usize, usize) {
        let mut writer = Writer::new(out);
        let inner_ns = self.write_open(&mut writer, default_ns);
        let open_end = writer.open().len();
        self.write_children(&mut writer, inner_ns);
        let close_start = writer.len();
        self.write_end(&mut writer);
        (open_end, close_start)
    }

    /// Gives the default namespace inside.
    fn write_open<'a>(&'a self, writer: &mut Writer<'_>, default_ns: &'a str) -> &'a str {
        // The namespace of the prefix `xml` must not be a default namespace (Namespaces in XML §3).
        let inner_ns = if self.namespace == ns::XML { default_ns } else { &self.namespace };
        writer.start(&self.qualified_name());
        if inner_ns != default_ns {
            writer.attr("xmlns", inner_ns);
        }
        for (at, (name, value)) in self.attributes.iter().enumerate() {
            match name.namespace.as_str() {
                "" => writer.attr(&name.name, value),
                ns::XML => writer.attr(&format!("xml:{}", name.name), value),
                namespace => {
                    writer.attr(&format!("xmlns:n{at}"), namespace);
                    writer.attr(&format!("n{at}:{}", name.name), value)
                }
            };
        }
        inner_ns
    }

    fn write_children(&self, writer: &mut Writer<'_>, inner_ns: &str) {
        for node in &self.children {
            match node {
                Node::Element(element) => element.write_to(writer, inner_ns),
                Node::Text(text) => {
                    writer.text(text);
                }
            }
        }
    }

    fn write_end(&self, writer: &mut Writer<'_>) {
        writer.end(&self.qualified_name());
    }

    fn qualified_name(&self) -> std::borrow::Cow<'_, str> {
        if self.namespace == ns::XML {
            format!("xml:{}", self.name).into()
        } else {
            self.name.as_str().into()
        }
    }

    pub(super) fn push_text(&mut self, text: &str) {
        match self.children.last_mut() {
            _ if text.is_empty() => {}
            Some(Node::Text(before)) => before.push_str(text),
            _ => self.children.push(Node::Text(text.to_owned())),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Element {
        Element::parse(text.as_bytes(), &StreamContext::client(), &XmlLimits::default()).unwrap()
    }

    fn written(element: &Element, default_ns: &str) -> String {
        let mut out = Vec::new();
        element.write(&mut out, default_ns);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tree_is_read_and_written_with_namespaces_resolved() {
        let tree = parse(
            "<iq xmlns:p='u:p' p:a='1' id='&lt;&#10;'><p:x><y xmlns=''/>a<![CDATA[<&\r\n]]>&amp;</p:x><xml:z xml:lang='de'/></iq>",
        );
        assert_eq!(tree.namespace, ns::CLIENT);
        assert_eq!(tree.attr("id"), Some("<\n"));
        assert_eq!(tree.attr("a"), None);
        let x = tree.child("u:p", "x").unwrap();
        assert_eq!(x.text(), "a<&\n&");
        assert_eq!(x.children().next().unwrap().namespace, "");
        let text = written(&tree, ns::CLIENT);
        assert_eq!(
            text,
            "<iq xmlns:n0='u:p' n0:a='1' id='&lt;&#10;'><x xmlns='u:p'><y xmlns=''/>a&lt;&amp;\n&amp;</x>\
             <xml:z xml:lang='de'/></iq>"
        );
        assert_eq!(parse(&text), tree);
        assert!(written(&tree, "").starts_with("<iq xmlns='jabber:client' "));
    }

    #[test]
    fn builder_makes_the_same_tree() {
        let built = Element::new("query", ns::DISCO_INFO)
            .with_attr("node", "old")
            .with_attr("node", "a'b")
            .with_attr("xml:lang", "en")
            .with_child(Element::new("feature", ns::DISCO_INFO).with_attr("var", ns::PING))
            .with_text("x")
            .with_text("y");
        let text = "<query xmlns='http://jabber.org/protocol/disco#info' node='a&apos;b' xml:lang='en'>\
                    <feature var='urn:xmpp:ping'/>xy</query>";
        assert_eq!(written(&built, ns::CLIENT), text);
        assert_eq!(parse(text), built);
        assert_eq!(built.attr("xml:lang"), Some("en"));
    }
}
