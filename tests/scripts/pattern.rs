//! Fills names into what is sent, and compares what is received with what was expected.

use std::collections::BTreeMap;

use corefire::xmpp::ns;
use corefire::xmpp::xml::element::{AttrName, Element, Node};

/// Values by name, without braces.
pub(crate) type Names = BTreeMap<String, String>;

/// Matches everything.
const ANY: &str = "{any}";
const MAYBE: &str = "{maybe}";

/// Who receives: what a stanza may leave unsaid is judged by it.
pub(crate) struct Receiver {
    pub(crate) domain: String,
    pub(crate) bare: String,
    pub(crate) full: String,
}

/// Replaces each `{name}`.
///
/// - errors: an unknown name, and wildcards, which only patterns know
pub(crate) fn fill(text: &str, names: &Names) -> Result<String, String> {
    let mut out = String::new();
    for piece in pieces(text)? {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name(name) => out.push_str(known(name, names)?),
            Piece::Any | Piece::Capture(_) => return Err(format!("a wildcard in {text}")),
        }
    }
    Ok(out)
}

fn known<'a>(name: &str, names: &'a Names) -> Result<&'a str, String> {
    names.get(name).map(String::as_str).ok_or_else(|| format!("nothing is called {{{name}}}"))
}

/// The same in all texts and attributes.
pub(crate) fn fill_element(element: &Element, names: &Names) -> Result<Element, String> {
    let mut filled = Element::new(&element.name, &element.namespace);
    for (name, value) in &element.attributes {
        filled.attributes.push((name.clone(), fill(value, names)?));
    }
    for child in &element.children {
        filled.children.push(match child {
            Node::Element(child) => Node::Element(fill_element(child, names)?),
            Node::Text(text) => Node::Text(fill(text, names)?),
        });
    }
    Ok(filled)
}

enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
    Any,
    Capture(&'a str),
}

/// `{{` is a brace.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        if at > 0 {
            found.push(Piece::Text(&rest[..at]));
        }
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('{') {
            found.push(Piece::Text("{"));
            rest = behind;
            continue;
        }
        let (name, behind) =
            rest.split_once('}').ok_or_else(|| format!("a brace does not close: {text}"))?;
        found.push(match name.strip_prefix('=') {
            Some(name) => Piece::Capture(name),
            None if name == "any" => Piece::Any,
            None => Piece::Name(name),
        });
        rest = behind;
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest));
    }
    Ok(found)
}

/// Compares a first-level element.
///
/// - gives: `names` with what the pattern captured
/// - errors: the first difference, with its place
pub(crate) fn match_root(
    pattern: &Element,
    actual: &Element,
    receiver: &Receiver,
    names: &Names,
) -> Result<Names, String> {
    let mut actual = actual.clone();
    let is_stanza = actual.namespace == ns::CLIENT;
    if is_stanza {
        for name in ["id", "to", "from"] {
            if pattern.attr(name).is_some() {
                continue;
            }
            let Some(value) = actual.attr(name) else { continue };
            let is_plain = match name {
                "to" => value == receiver.full || value == receiver.bare,
                "from" => {
                    value == receiver.full || value == receiver.bare || value == receiver.domain
                }
                _ => true,
            };
            if is_plain || is_loose(pattern) {
                actual.remove_attr(name);
            }
        }
    }
    let is_error = is_stanza && actual.attr("type") == Some("error");
    let says = |name: &str, namespace: &str| pattern.child(namespace, name).is_some();
    let keeps = |child: &Element| {
        let is_optional = (is_error && child.name != "error")
            || child.namespace == "urn:xmpp:sid:0"
            || (actual.name == "presence" && child.namespace == "urn:xmpp:delay");
        !is_optional || says(&child.name, &child.namespace)
    };
    let kept: Vec<Node> = actual
        .children
        .iter()
        .filter(|node| !is_stanza || !matches!(node, Node::Element(child) if !keeps(child)))
        .cloned()
        .collect();
    actual.children = kept;
    if actual.is(ns::STREAMS, "error") && !says_text(pattern) {
        actual.children.retain(|node| !is_text(node));
    }
    if is_error
        && let Some(Node::Element(error)) = actual
            .children
            .iter_mut()
            .find(|node| matches!(node, Node::Element(child) if child.name == "error"))
    {
        // RFC 6120 §8.3.2: both may be there; the code is of XEP-0086.
        error.remove_attr("code");
        error.remove_attr("by");
        error.children.retain(|node| !is_text(node));
    }
    match_element(pattern, &actual, names)
}

fn is_text(node: &Node) -> bool {
    matches!(node, Node::Element(child) if child.name == "text")
}

fn says_text(pattern: &Element) -> bool {
    pattern.children.iter().any(is_text)
}

fn is_loose(pattern: &Element) -> bool {
    says(pattern, ANY) || says(pattern, MAYBE)
}

fn says(pattern: &Element, what: &str) -> bool {
    pattern.children.iter().any(|node| matches!(node, Node::Text(text) if text.trim() == what))
}

fn match_element(pattern: &Element, actual: &Element, names: &Names) -> Result<Names, String> {
    let at = |what: String| format!("<{}/>: {what}", actual.name);
    if pattern.name != "_" {
        if pattern.name != actual.name {
            return Err(format!("<{}/>, not <{}/>", actual.name, pattern.name));
        }
        if pattern.namespace != actual.namespace {
            return Err(at(format!("of {}, not {}", actual.namespace, pattern.namespace)));
        }
    }
    let is_loose = is_loose(pattern);
    let mut names = names.clone();
    let value_of = |element: &Element, name: &AttrName| {
        element.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    for (name, wanted) in &pattern.attributes {
        match value_of(actual, name) {
            _ if wanted == MAYBE => {}
            None => return Err(at(format!("no attribute {}", name.name))),
            Some(value) => {
                names = match_text(wanted, &value, &names)
                    .map_err(|what| at(format!("{}: {what}", name.name)))?;
            }
        }
    }
    for (name, value) in &actual.attributes {
        let is_said = value_of(pattern, name).is_some();
        if !is_said && !is_loose && name.namespace != ns::XML {
            return Err(at(format!("an attribute {}='{value}'", name.name)));
        }
    }
    let wanted_text = pattern.text();
    if !is_loose && (!wanted_text.trim().is_empty() || !actual.text().trim().is_empty()) {
        let wanted = if wanted_text.trim().is_empty() { "" } else { &wanted_text };
        names = match_text(wanted, &actual.text(), &names).map_err(at)?;
    }
    let wanted: Vec<&Element> = pattern.children().collect();
    let found: Vec<&Element> = actual.children().collect();
    match_children(&wanted, &found, is_loose, &names).map_err(at)
}

/// Finds a place for each of `wanted`, in whatever order.
fn match_children(
    wanted: &[&Element],
    found: &[&Element],
    is_loose: bool,
    names: &Names,
) -> Result<Names, String> {
    let Some((first, rest)) = wanted.split_first() else {
        return match found.first() {
            Some(left) if !is_loose => Err(format!("has a <{}/>", left.name)),
            _ => Ok(names.clone()),
        };
    };
    let mut why = format!("has no <{}/>", first.name);
    for (place, candidate) in found.iter().enumerate() {
        let others: Vec<&Element> =
            found.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, it)| *it).collect();
        let tried = match_element(first, candidate, names)
            .and_then(|names| match_children(rest, &others, is_loose, &names));
        match tried {
            Ok(names) => return Ok(names),
            Err(what) if first.name == candidate.name || found.len() == 1 => why = what,
            Err(_) => {}
        }
    }
    if says(first, MAYBE) {
        return match_children(rest, found, is_loose, names);
    }
    Err(why)
}

fn match_text(wanted: &str, actual: &str, names: &Names) -> Result<Names, String> {
    let pieces = pieces(wanted)?;
    let mut found = names.clone();
    match match_pieces(&pieces, actual, &mut found)? {
        true => Ok(found),
        false => {
            let told = fill(wanted, names).unwrap_or_else(|_| wanted.to_owned());
            Err(format!("'{actual}', not '{told}'"))
        }
    }
}

/// Wildcards take as little as they can.
fn match_pieces(pieces: &[Piece<'_>], text: &str, names: &mut Names) -> Result<bool, String> {
    let Some((first, rest)) = pieces.split_first() else { return Ok(text.is_empty()) };
    let literal = match first {
        Piece::Text(text) => (*text).to_owned(),
        Piece::Name(name) => known(name, names)?.to_owned(),
        Piece::Any | Piece::Capture(_) => {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            for end in ends {
                let mut tried = names.clone();
                if let Piece::Capture(name) = first {
                    tried.insert((*name).to_owned(), text[..end].to_owned());
                }
                if match_pieces(rest, &text[end..], &mut tried)? {
                    *names = tried;
                    return Ok(true);
                }
            }
            return Ok(false);
        }
    };
    match text.strip_prefix(&literal) {
        Some(behind) => match_pieces(rest, behind, names),
        None => Ok(false),
    }
}
