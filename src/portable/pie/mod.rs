//! XEP-0227: Portable Import/Export Format for XMPP-IM Servers, version 1.1. `reader` tells what a file holds, however large
//! it is, with the files that it includes; `writer` writes accounts. What the XEP has no place for stands in a namespace
//! of ours, which others pass over.

mod privacy;
pub mod reader;
mod section;
#[cfg(test)]
mod tests;
pub mod writer;

pub(super) use section::take_archive_ids;

use crate::xmpp::xml::element::Element;

pub(super) const PIE: &str = "urn:xmpp:pie:0";
pub(super) const SCRAM: &str = "urn:xmpp:pie:0#scram";
pub(super) const ARCHIVE: &str = "urn:xmpp:pie:0#mam";
pub(super) const XINCLUDE: &str = "http://www.w3.org/2001/XInclude";
pub(super) const PRIVACY: &str = "jabber:iq:privacy";
pub(super) const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
pub(super) const PUBSUB_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
/// What an account has beyond the XEP: `<account disabled='true' next-id='..'/>`, `<slot name='..'>` in base64.
pub(super) const OWN: &str = "urn:corefire:account:0";
const LEGACY_DELAY: &str = "jabber:x:delay";

/// The name of an element, as it is told to people.
fn shown(element: &Element) -> String {
    let Element { name, namespace, .. } = element;
    match namespace.is_empty() {
        true => format!("<{name}/>"),
        false => format!("<{name} xmlns='{namespace}'/>"),
    }
}
