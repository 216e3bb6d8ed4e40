//! What stands in a `<user/>`, turned into pieces.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::super::arrival::check_keys;
use super::super::{Message, Piece, View};
use super::{LEGACY_DELAY, OWN, SCRAM};
use crate::base::instant::Wall;
use crate::store::{RosterItem, Subscription};
use crate::stream::sasl::ScramHash;
use crate::xmpp::credentials::ScramKeys;
use crate::xmpp::datetime;
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::xml::element::{Element, Node};

/// Bytes of the name of a slot.
const SLOT_NAME_BYTES_MAX: usize = 1_024;

/// Keys of one mechanism; `None` for one that there is not here.
///
/// - errors: a clause of cause
pub(super) fn keys(element: &Element) -> Result<Option<Piece>, String> {
    let hash = match element.attr("mechanism") {
        Some("SCRAM-SHA-1") => ScramHash::Sha1,
        Some("SCRAM-SHA-256") => ScramHash::Sha256,
        Some("SCRAM-SHA-512") => ScramHash::Sha512,
        Some(_) => return Ok(None),
        None => return Err("keys that do not say for which mechanism they are".to_owned()),
    };
    let text = |name: &str| match element.child(SCRAM, name) {
        Some(child) => Ok(child.text().trim().to_owned()),
        None => Err(format!("keys without <{name}/>")),
    };
    let bytes = |name: &str| {
        text(name).and_then(|text| {
            BASE64.decode(text).map_err(|_| format!("keys whose <{name}/> is no base64"))
        })
    };
    let iterations = text("iter-count")?;
    let mut keys = ScramKeys {
        iterations: iterations
            .parse()
            .map_err(|_| format!("keys of {iterations:?} iterations, which is no number"))?,
        salt: bytes("salt")?,
        stored_key: bytes("stored-key")?,
        server_key: bytes("server-key")?,
    };
    // COMPAT(ejabberd, 23.01): encodes twice. The text of a key is never as long as a key.
    let decoded = [&keys.stored_key, &keys.server_key, &keys.salt].map(|it| BASE64.decode(it));
    if let [Ok(stored_key), Ok(server_key), Ok(salt)] = decoded
        && keys.stored_key.len() != hash.output_bytes()
        && stored_key.len() == hash.output_bytes()
    {
        keys = ScramKeys { iterations: keys.iterations, salt, stored_key, server_key };
    }
    check_keys(hash, &keys).map_err(|fault| format!("keys that cannot be used: {fault}"))?;
    Ok(Some(Piece::Keys(hash, keys)))
}

/// An item of a roster (RFC 6121 §2.1.2).
///
/// - errors: a clause of cause
pub(super) fn contact(item: &Element) -> Result<Piece, String> {
    let text = item.attr("jid").ok_or("a contact without an address")?;
    let jid = Jid::parse(text).map_err(|fault| format!("the contact {text:?}: {fault}"))?;
    let subscription = match item.attr("subscription") {
        None | Some("none") => Subscription::None,
        Some("to") => Subscription::To,
        Some("from") => Subscription::From,
        Some("both") => Subscription::Both,
        Some(other) => return Err(format!("the contact {jid}: subscription {other:?}")),
    };
    let mut groups = Vec::new();
    for group in item.children().filter(|child| child.is(ns::ROSTER, "group")) {
        let group = group.text();
        if !group.is_empty() && !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(Piece::Contact(RosterItem {
        name: item.attr("name").unwrap_or_default().to_owned(),
        groups,
        subscription,
        ask: item.attr("ask") == Some("subscribe"),
        approved: matches!(item.attr("approved"), Some("true" | "1")),
        ..RosterItem::new(jid)
    }))
}

/// A request for a subscription to `owner`.
///
/// - errors: a clause of cause
pub(super) fn request(presence: &Element, owner: &BareJid) -> Result<Piece, String> {
    if presence.attr("type") != Some("subscribe") {
        return Err("a presence that asks for no subscription".to_owned());
    }
    let from = presence.attr("from").unwrap_or_default();
    let jid = Jid::parse(from).map_err(|fault| format!("a request from {from:?}: {fault}"))?;
    let jid = Jid::from_bare(jid.into_bare());
    let mut presence = presence.clone();
    presence.set_attr("from", jid.to_string());
    presence.set_attr("to", owner.as_str());
    let mut stanza = Vec::new();
    presence.write(&mut stanza, ns::CLIENT);
    Ok(Piece::Request(jid, stanza))
}

/// A stored message with the time that the server stamped it with.
///
/// - errors: a clause of cause
pub(super) fn offline(mut message: Element, owner: &BareJid) -> Result<Piece, String> {
    if !message.is(ns::CLIENT, "message") {
        return Err(format!("<{}/> among offline messages", message.name));
    }
    let at = take_delay(&mut message, owner)?;
    let mut key = take_archive_ids(&mut message, owner);
    let mut id = None;
    if let Some(row) = message.child(OWN, "row") {
        id = row.attr("id").and_then(|id| id.parse().ok());
        key = row.attr("id").filter(|_| row.attr("archived") == Some("true")).map(str::to_owned);
    }
    message.children.retain(|node| !is(node, OWN, "row"));
    Ok(Piece::Message(Message { id, key, at, view: View::Offline, stanza: message }))
}

/// A `<result/>` of the archive (XEP-0313).
///
/// - errors: a clause of cause
pub(super) fn archived(result: &Element, owner: &BareJid) -> Result<Piece, String> {
    let forwarded = result.child(ns::FORWARD, "forwarded").ok_or("no forwarded message in it")?;
    let message = forwarded.child(ns::CLIENT, "message").ok_or("no message in it")?;
    let stamp = forwarded.child(ns::DELAY, "delay").and_then(|it| it.attr("stamp"));
    let stamp = stamp.ok_or("no time of it")?;
    let at = datetime::parse(stamp).ok_or_else(|| format!("{stamp:?} is no time"))?;
    let mut stanza = message.clone();
    take_archive_ids(&mut stanza, owner);
    let key = result.attr("id").map(str::to_owned);
    let id = key.as_ref().and_then(|id| id.parse().ok());
    Ok(Piece::Message(Message { id, key, at, view: View::Archive, stanza }))
}

/// What a feature of ours keeps.
///
/// - errors: a clause of cause
pub(super) fn slot(element: &Element) -> Result<Piece, String> {
    let name = element.attr("name").unwrap_or_default();
    if name.is_empty() || name.len() > SLOT_NAME_BYTES_MAX {
        return Err("a slot without a name, or with one that is too long".to_owned());
    }
    let value = BASE64
        .decode(element.text().trim())
        .map_err(|_| format!("the slot {name:?}: no base64"))?;
    Ok(Piece::Slot(name.to_owned(), value))
}

/// Takes the stamp of the owner's server out of the message: that of XEP-0203, else that of XEP-0091. Those of others
/// stay.
fn take_delay(message: &mut Element, owner: &BareJid) -> Result<Wall, String> {
    let by_server = |node: &Node, namespace: &str, name: &str| match node {
        Node::Element(element) if element.is(namespace, name) => {
            let from = element.attr("from").and_then(|from| Jid::parse(from).ok());
            from.is_none_or(|from| from.domain() == owner.domain())
        }
        _ => false,
    };
    for (namespace, name) in [(ns::DELAY, "delay"), (LEGACY_DELAY, "x")] {
        let place = message.children.iter().rposition(|node| by_server(node, namespace, name));
        let Some(place) = place else { continue };
        if let Node::Element(delay) = message.children.remove(place) {
            let stamp = delay.attr("stamp").unwrap_or_default();
            let at = datetime::parse(stamp).or_else(|| datetime::parse_legacy(stamp));
            return at.ok_or_else(|| format!("{stamp:?} is no time"));
        }
    }
    Err("an offline message that does not say when it came".to_owned())
}

/// Takes out the ids that the owner's former server gave, as they are nobody's here (XEP-0359 §3).
///
/// - gives: the one that the message has in the owner's archive
pub(in crate::portable) fn take_archive_ids(
    message: &mut Element,
    owner: &BareJid,
) -> Option<String> {
    let mut key = None;
    message.children.retain(|node| match node {
        Node::Element(element) => {
            let is_id = element.is(ns::STANZA_ID, "stanza-id")
                || element.is("urn:xmpp:mam:tmp", "archived");
            let by = element.attr("by").and_then(|by| BareJid::parse(by).ok());
            let is_own = is_id && by.as_ref() == Some(owner);
            if is_own {
                key = element.attr("id").map(str::to_owned);
            }
            !is_own
        }
        Node::Text(_) => true,
    });
    key
}

fn is(node: &Node, namespace: &str, name: &str) -> bool {
    matches!(node, Node::Element(element) if element.is(namespace, name))
}
