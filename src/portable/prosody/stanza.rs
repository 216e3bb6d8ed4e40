//! Stanzas as Prosody keeps them: a table with name, attributes and children, texts and tables in their order.

use super::lua::{Table, Value};
use crate::xmpp::ns;
use crate::xmpp::xml::context::StreamContext;
use crate::xmpp::xml::element::{AttrName, Element};
use crate::xmpp::xml::framer::XmlLimits;

/// - takes: `namespace`, that of the element around
/// - errors: a clause of cause
pub(super) fn element(table: &Table, namespace: &str) -> Result<Element, String> {
    let element = build(table, namespace)?;
    let mut bytes = Vec::new();
    element.write(&mut bytes, ns::CLIENT);
    // What comes out goes to clients.
    Element::parse(&bytes, &StreamContext::client(), &XmlLimits::PASSED)
        .map_err(|_| format!("<{}/> has names or characters that XML does not allow", element.name))
}

fn build(table: &Table, namespace: &str) -> Result<Element, String> {
    let name = table.text("name").ok_or("an element without a name")?;
    let mut namespace = namespace.to_owned();
    let mut attributes = Vec::new();
    let attr = table.table("attr");
    for (key, value) in attr.iter().flat_map(|attr| attr.named()) {
        let value =
            value.text().ok_or_else(|| format!("<{name}/> has an attribute that is no text"))?;
        if key == "xmlns" {
            value.clone_into(&mut namespace);
            continue;
        }
        // Of a namespace: before a character that no name has.
        let key = match key.split_once('\u{1}') {
            Some((namespace, name)) => {
                AttrName { namespace: namespace.to_owned(), name: name.to_owned() }
            }
            None => AttrName::from(key),
        };
        attributes.push((key, value.to_owned()));
    }
    // A table has no order of its own.
    attributes.sort();
    let mut element = Element { attributes, ..Element::new(name, &namespace) };
    for child in &table.list {
        match child {
            Value::Text(_) => {
                let text =
                    child.text().ok_or_else(|| format!("<{name}/> holds what is not UTF-8"))?;
                element = element.with_text(text);
            }
            Value::Table(child) => element = element.with_child(build(child, &namespace)?),
            _ => return Err(format!("<{name}/> holds what is neither text nor element")),
        }
    }
    Ok(element)
}
