//! The two parsers that are not ours, and what they read as one kind of tree: roxmltree and xml-rs.

use corefire::xmpp::ns;
use corefire::xmpp::xml::element::{AttrName, Element, Node};
use xml::reader::{ParserConfig, XmlEvent};

/// What the other parsers cannot read although it is well-formed, which is left out.
///
/// - COMPAT(roxmltree, 0.21): the prefix `xml` on elements; an attribute `xml:xmlns`, taken for a declaration
/// - COMPAT(xml-rs, 1.4): a namespace whose name is the word `xml` or `xmlns`
pub(super) fn is_out_of_reach(text: &str) -> bool {
    ["<xml:", "</xml:", ":xmlns", "'xml'", "\"xml\"", "'xmlns'", "\"xmlns\""]
        .iter()
        .any(|odd| text.contains(odd))
}

/// The tree of the one element behind a stream header, its attributes in order of their names.
///
/// - errors: what a parser has against it, or both trees where they differ
pub(super) fn both(header: &str, text: &str) -> Result<Element, String> {
    // COMPAT(roxmltree, 0.21): keeps a carriage return behind a reference. So line ends are what they are to be (XML §2.11)
    // before either parser looks; a carriage return that we should have written as a reference still shows.
    let document = format!("{header}{text}</stream:stream>");
    let document = document.replace("\r\n", "\n").replace('\r', "\n");
    let first = roxmltree_reads(&document)?;
    let second = xml_rs_reads(&document)?;
    if first != second {
        return Err(format!("roxmltree: {first:?}\nxml-rs: {second:?}\nof {document:?}"));
    }
    Ok(first)
}

pub(super) fn in_order(element: &mut Element) {
    element.attributes.sort_by(|(one, _), (other, _)| {
        (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
    });
    for child in &mut element.children {
        if let Node::Element(child) = child {
            in_order(child);
        }
    }
}

fn roxmltree_reads(document: &str) -> Result<Element, String> {
    let read = roxmltree::Document::parse(document);
    let read = read.map_err(|error| format!("roxmltree: {error} in {document:?}"))?;
    let mut roots = read.root_element().children();
    match (roots.next(), roots.next()) {
        (Some(root), None) if root.is_element() => {
            let mut element = roxmltree_element(root);
            in_order(&mut element);
            Ok(element)
        }
        _ => Err(format!("roxmltree: not one element in {document:?}")),
    }
}

fn roxmltree_element(node: roxmltree::Node<'_, '_>) -> Element {
    let name = node.tag_name();
    let mut element = Element::new(name.name(), name.namespace().unwrap_or_default());
    for attribute in node.attributes() {
        let namespace = attribute.namespace().unwrap_or_default().to_owned();
        let name = AttrName { namespace, name: attribute.name().to_owned() };
        element.attributes.push((name, attribute.value().to_owned()));
    }
    node.children().fold(element, |element, child| match child.node_type() {
        roxmltree::NodeType::Element => element.with_child(roxmltree_element(child)),
        roxmltree::NodeType::Text => element.with_text(child.text().unwrap_or_default()),
        _ => element.with_text("\u{fffd}not allowed here"),
    })
}

fn xml_rs_reads(document: &str) -> Result<Element, String> {
    let config = ParserConfig::new()
        .cdata_to_characters(true)
        .whitespace_to_characters(true)
        .coalesce_characters(true)
        .max_attribute_length(1 << 20)
        .max_name_length(1 << 16);
    let mut open: Vec<Element> = Vec::new();
    let mut roots = Vec::new();
    for event in config.create_reader(document.as_bytes()) {
        match event.map_err(|error| format!("xml-rs: {error} in {document:?}"))? {
            XmlEvent::StartElement { name, attributes, .. } => {
                let mut element =
                    Element::new(&name.local_name, name.namespace.as_deref().unwrap_or_default());
                for attribute in attributes {
                    let namespace = match attribute.name.prefix.as_deref() {
                        // Bound without a declaration.
                        Some("xml") => ns::XML.to_owned(),
                        _ => attribute.name.namespace.unwrap_or_default(),
                    };
                    let name = AttrName { namespace, name: attribute.name.local_name };
                    element.attributes.push((name, attribute.value));
                }
                open.push(element);
            }
            XmlEvent::EndElement { .. } => {
                let element = open.pop().ok_or("xml-rs: an end without a start")?;
                match open.len() {
                    // The stream itself.
                    0 => {}
                    1 => roots.push(element),
                    _ => {
                        if let Some(parent) = open.last_mut() {
                            parent.children.push(Node::Element(element));
                        }
                    }
                }
            }
            XmlEvent::Characters(text) | XmlEvent::Whitespace(text) | XmlEvent::CData(text) => {
                if let Some(parent) = open.pop() {
                    open.push(parent.with_text(&text));
                }
            }
            XmlEvent::StartDocument { .. } | XmlEvent::EndDocument => {}
            other => return Err(format!("xml-rs: {other:?} in {document:?}")),
        }
    }
    let (Some(mut root), true) = (roots.pop(), roots.is_empty()) else {
        return Err(format!("xml-rs: not one element in {document:?}"));
    };
    in_order(&mut root);
    Ok(root)
}
