//! The files of one user.

use std::io::BufRead;

use super::super::arrival::check_keys;
use super::super::pie::take_archive_ids;
use super::super::{Folders, Message, Piece, Place, Sink, Stop, View};
use super::lua::{Fault, Lua, Table, Value};
use super::stanza;
use crate::base::instant::Wall;
use crate::store::{RosterItem, Subscription};
use crate::stream::sasl::ScramHash;
use crate::xmpp::credentials::ScramKeys;
use crate::xmpp::datetime;
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::xml::element::Element;

/// Reads what there is of `jid`, whose files are called `name`.
pub(super) fn read(
    folders: &mut dyn Folders,
    host: &str,
    name: &str,
    jid: BareJid,
    place: &Place,
    sink: &mut dyn Sink,
) -> Result<(), Stop> {
    if !sink.user(jid.clone(), place)? {
        return Ok(());
    }
    let mut user = User { folders, host, name, jid, sink };
    // Without a readable account there is nothing that the rest could belong to.
    match user.table("accounts")? {
        Some((account, place)) => user.account(&account, &place)?,
        None => {
            return user.sink.broken("its account cannot be read; see the line above", place);
        }
    }
    if let Some((roster, place)) = user.table("roster")? {
        user.roster(&roster, &place)?;
    }
    if let Some((card, place)) = user.table("vcard")? {
        let piece = stanza::element(&card, ns::VCARD).map(Piece::Vcard);
        user.told(piece, "its vCard", &place)?;
    }
    if let Some((private, place)) = user.table("private")? {
        for (_, value) in private.named() {
            let item = value.table().ok_or_else(|| "no element".to_owned());
            let piece = item.and_then(|item| stanza::element(item, "")).map(Piece::Private);
            user.told(piece, "an element of private storage", &place)?;
        }
    }
    if let Some((list, place)) = user.table("blocklist")? {
        for (address, _) in list.named().filter(|(_, value)| value.is_true()) {
            let jid = Jid::parse(address).map_err(|fault| format!("{address:?}: {fault}"));
            user.told(jid.map(Piece::Blocked), "a blocked address", &place)?;
        }
    }
    if let Some((nodes, _)) = user.table("pep")? {
        user.sink.left_out("PEP node configurations", nodes.map.len() as u64)?;
    }
    user.messages("offline", View::Offline)?;
    user.messages("archive", View::Archive)?;
    user.sink.end()
}

/// A file, and where it is.
type Opened = (Lua<Box<dyn BufRead>>, Place);

struct User<'a> {
    folders: &'a mut dyn Folders,
    host: &'a str,
    name: &'a str,
    jid: BareJid,
    sink: &'a mut dyn Sink,
}

impl User<'_> {
    fn open(&mut self, store: &str, extension: &str) -> Result<Option<Opened>, Stop> {
        let file = format!("{}.{extension}", self.name);
        let path = [self.host, store, &file];
        let place = Place { file: self.folders.shown(&path), line: 0 };
        match self.folders.open(&path) {
            Ok(input) => Ok(input.map(|input| (Lua::new(input), place))),
            Err(cause) => {
                self.sink.faulty(&format!("{cause}; left out"), &place)?;
                Ok(None)
            }
        }
    }

    /// The table in the user's file of that kind; what cannot be read is told.
    fn table(&mut self, store: &str) -> Result<Option<(Table, Place)>, Stop> {
        let Some((mut lua, place)) = self.open(store, "dat")? else { return Ok(None) };
        match lua.file() {
            Ok(Value::Table(table)) => Ok(Some((table, place))),
            Ok(_) => {
                self.sink.faulty("holds no table; left out", &place)?;
                Ok(None)
            }
            Err(Fault { line, cause }) => {
                let place = Place { line, ..place };
                self.sink.faulty(&format!("{cause}; left out"), &place)?;
                Ok(None)
            }
        }
    }

    fn told(
        &mut self,
        piece: Result<Piece, String>,
        what: &str,
        place: &Place,
    ) -> Result<(), Stop> {
        match piece {
            Ok(piece) => self.sink.piece(piece, place),
            Err(fault) => self.sink.faulty(&format!("{what} is left out: {fault}"), place),
        }
    }

    fn account(&mut self, account: &Table, place: &Place) -> Result<(), Stop> {
        if account.field("disabled").is_some_and(Value::is_true) {
            self.sink.piece(Piece::Disabled, place)?;
        }
        if account.field("stored_key").is_some() {
            return self.told(keys(account), "its password", place);
        }
        match account.text("password") {
            Some(password) => self.sink.piece(Piece::Password(password.to_owned()), place),
            None => Ok(()),
        }
    }

    fn roster(&mut self, roster: &Table, place: &Place) -> Result<(), Stop> {
        let own = roster.under_false();
        if let Some(version) = own.and_then(|own| own.number("version")).and_then(whole) {
            self.sink.piece(Piece::RosterVersion(version), place)?;
        }
        for (address, value) in roster.named() {
            // COMPAT(Prosody, 0.9): where requests were before.
            let Some(item) = value.table().filter(|_| address != "pending") else { continue };
            let contact = contact(address, item).map(Piece::Contact);
            self.told(contact, "a contact", place)?;
        }
        let pending = [own.and_then(|own| own.table("pending")), roster.table("pending")];
        for (address, value) in pending.into_iter().flatten().flat_map(Table::named) {
            let request = request(address, value, &self.jid);
            self.told(request, "a subscription request", place)?;
        }
        Ok(())
    }

    /// A list with a message each, read one by one.
    fn messages(&mut self, store: &str, view: View) -> Result<(), Stop> {
        let Some((mut lua, place)) = self.open(store, "list")? else { return Ok(()) };
        loop {
            let item = lua.item();
            let place = Place { line: lua.line(), ..place.clone() };
            match item {
                Ok(None) => return Ok(()),
                Ok(Some(item)) => {
                    let item = item.table().ok_or_else(|| "no stanza".to_owned());
                    let piece = item.and_then(|item| message(item, view, &self.jid));
                    self.told(piece, "a message", &place)?;
                }
                Err(Fault { line, cause }) => {
                    let place = Place { line, ..place };
                    return self.sink.faulty(&format!("{cause}; the rest is left out"), &place);
                }
            }
        }
    }
}

fn keys(account: &Table) -> Result<Piece, String> {
    let key = |name: &str| {
        let text = account.text(name).ok_or_else(|| format!("it has no {name}"))?;
        hexadecimal(text).ok_or_else(|| format!("its {name} is not hexadecimal"))
    };
    let (stored_key, server_key) = (key("stored_key")?, key("server_key")?);
    let hash = ScramHash::of_key_length(stored_key.len());
    let hash = hash.ok_or_else(|| format!("a key of {} bytes", stored_key.len()))?;
    let iterations = account.number("iteration_count").and_then(whole);
    let iterations = iterations.and_then(|number| u32::try_from(number).ok());
    let Some(Value::Text(salt)) = account.field("salt") else {
        return Err("it has no salt".to_owned());
    };
    let keys = ScramKeys {
        iterations: iterations.ok_or("it has no iteration_count")?,
        salt: salt.clone(),
        stored_key,
        server_key,
    };
    check_keys(hash, &keys)?;
    Ok(Piece::Keys(hash, keys))
}

fn contact(address: &str, item: &Table) -> Result<RosterItem, String> {
    let jid = Jid::parse(address).map_err(|fault| format!("{address:?}: {fault}"))?;
    let subscription = match item.text("subscription") {
        None | Some("none") => Subscription::None,
        Some("to") => Subscription::To,
        Some("from") => Subscription::From,
        Some("both") => Subscription::Both,
        Some(other) => return Err(format!("{jid}: subscription {other:?}")),
    };
    let groups = item.table("groups").into_iter().flat_map(Table::named);
    let groups = groups.filter(|(name, value)| value.is_true() && !name.is_empty());
    let mut groups: Vec<String> = groups.map(|(name, _)| name.to_owned()).collect();
    groups.sort();
    Ok(RosterItem {
        name: item.text("name").unwrap_or_default().to_owned(),
        groups,
        subscription,
        ask: item.text("ask") == Some("subscribe"),
        approved: item.field("approved").is_some_and(Value::is_true),
        ..RosterItem::new(jid)
    })
}

/// `true` where Prosody did not keep the presence.
fn request(address: &str, value: &Value, owner: &BareJid) -> Result<Piece, String> {
    let jid = Jid::parse(address).map_err(|fault| format!("{address:?}: {fault}"))?;
    let mut presence = match value {
        Value::Table(table) => stanza::element(table, ns::CLIENT)?,
        _ => Element::new("presence", ns::CLIENT),
    };
    presence.set_attr("type", "subscribe");
    presence.set_attr("from", jid.bare().as_str());
    presence.set_attr("to", owner.as_str());
    let mut bytes = Vec::new();
    presence.write(&mut bytes, ns::CLIENT);
    Ok(Piece::Request(Jid::from_bare(jid.into_bare()), bytes))
}

fn message(item: &Table, view: View, owner: &BareJid) -> Result<Piece, String> {
    let mut message = stanza::element(item, ns::CLIENT)?;
    if !message.is(ns::CLIENT, "message") {
        return Err(format!("it is <{}/>", message.name));
    }
    let stamp = message.attr("stamp").and_then(datetime::parse);
    // Put there by the store, as no attribute of a message is called so.
    message.remove_attr("stamp");
    message.remove_attr("stamp_legacy");
    let when = item.number("when").filter(|when| (0.0..1e11).contains(when));
    let at = when
        .map(|when| Wall((when * 1e6) as u64))
        .or(stamp)
        .ok_or("it does not say when it came")?;
    let id_in_it = take_archive_ids(&mut message, owner);
    let key = match view {
        View::Offline => id_in_it,
        View::Archive => item.text("key").map(str::to_owned),
    };
    Ok(Piece::Message(Message { id: None, key, at, view, stanza: message }))
}

fn whole(number: f64) -> Option<u64> {
    ((0.0..9e15).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
