//! Cuts text into first-level elements, as a stream of `jabber:client` holds them.

use corefire::xmpp::xml::element::{Element, Node};
use corefire::xmpp::xml::framer::{Framer, Step, XmlLimits};
use corefire::xmpp::xml::reader::StreamContext;

pub(crate) const HEADER: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams'>";

/// More than any server here sends.
pub(crate) fn limits() -> XmlLimits {
    XmlLimits { stanza_bytes_max: 16 << 20, attributes_max: 256, ..XmlLimits::default() }
}

pub(crate) fn read(bytes: &[u8]) -> Result<Element, String> {
    Element::parse(bytes, &StreamContext::client(), &limits())
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(bytes)))
}

/// The stream's id, from a header as servers here write it.
pub(crate) fn header_id(header: &[u8]) -> Option<String> {
    let header = String::from_utf8_lossy(header);
    let (_, value) = header.split_once(" id=")?;
    let quote = value.chars().next()?;
    value[1..].split(quote).next().map(str::to_owned)
}

pub(crate) fn write(element: &Element) -> String {
    let mut out = Vec::new();
    element.write(&mut out, "jabber:client");
    String::from_utf8(out).unwrap()
}

/// Without the white space between elements, which is layout.
fn flat(mut element: Element) -> Element {
    let has_elements = element.children().next().is_some();
    let is_layout = |node: &Node| matches!(node, Node::Text(text) if text.trim().is_empty());
    element.children.retain(|node| !has_elements || !is_layout(node));
    for child in &mut element.children {
        if let Node::Element(child) = child {
            *child = flat(std::mem::take(child));
        }
    }
    element
}

/// What stands there without a namespace of its own, in that one.
pub(crate) fn moved(mut element: Element, namespace: &str) -> Element {
    if element.namespace == "jabber:client" {
        namespace.clone_into(&mut element.namespace);
    }
    for child in &mut element.children {
        if let Node::Element(child) = child {
            *child = moved(std::mem::take(child), namespace);
        }
    }
    element
}

/// The elements of a block of a script; white space around and between them is layout.
pub(crate) fn elements(text: &str) -> Result<Vec<Element>, String> {
    let mut framer = Framer::new();
    let mut rest = [HEADER, text, " "].concat().into_bytes();
    let mut found = Vec::new();
    loop {
        match framer.next(&rest, &limits()).map_err(|error| format!("{error}: {text}"))? {
            Step::Open(range) => drop(rest.drain(..range.end)),
            Step::Stanza(range) => {
                found.push(flat(read(&rest[range.clone()])?));
                rest.drain(..range.end);
            }
            Step::Close(_) => return Err(format!("the stream does not end here: {text}")),
            Step::More(space) if space == rest.len() => return Ok(found),
            Step::More(_) => return Err(format!("an element does not end: {text}")),
        }
    }
}
