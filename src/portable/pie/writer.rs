//! Writes accounts as XEP-0227 has them, each as the store holds it at one moment. An element a line, so that files can be
//! compared; what is written reads back as what the store held.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::super::landing::Counts;
use super::{ARCHIVE, OWN, PIE, SCRAM, XINCLUDE, privacy};
use crate::cluster::placement::store_partition;
use crate::features::{blocking, private, vcard};
use crate::store::{
    self, AccountRecord, Answer, ArchiveQuery, Counters, LogEntry, Page, Query, Reader, RosterItem,
    Subscription,
};
use crate::xmpp::credentials::ScramKeys;
use crate::xmpp::datetime;
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::xml::context::StreamContext;
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::writer::Writer;

/// Rows of a log that are read at a time.
const PAGE: u32 = 256;

const DECLARATION: &[u8] = b"<?xml version='1.0' encoding='UTF-8'?>\n";

/// Why an export ends.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("{0}")]
    Write(#[from] io::Error),
    #[error("the store answered another question than was asked")]
    Odd,
}

/// What holds hosts.
pub fn start_server(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(DECLARATION)?;
    writeln!(out, "<server-data xmlns='{PIE}' xmlns:xi='{XINCLUDE}'>")
}

pub fn end_server(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"</server-data>\n")
}

/// What holds the users of a host: in a file of its own, or within the server's.
pub fn start_host(out: &mut dyn Write, domain: &str, is_file: bool) -> io::Result<()> {
    if is_file {
        out.write_all(DECLARATION)?;
    }
    let mut tag = Vec::new();
    let mut writer = Writer::new(&mut tag);
    writer.start("host").attr("xmlns", PIE).attr("xmlns:xi", XINCLUDE).attr("jid", domain).open();
    tag.push(b'\n');
    out.write_all(&tag)
}

pub fn end_host(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"</host>\n")
}

/// What stands for another file.
///
/// - takes: `reference`, an URI reference, its special characters escaped
pub fn include(out: &mut dyn Write, reference: &str) -> io::Result<()> {
    let mut tag = Vec::new();
    Writer::new(&mut tag).start("xi:include").attr("href", reference).close_empty();
    tag.push(b'\n');
    out.write_all(&tag)
}

/// The account of `owner` as a `<user/>`: in a file of its own, or within the host's.
///
/// - takes: `faulty`, told of what the store holds and cannot be written, a clause each
/// - gives: what was written, by type; `None` where there is no such account, and then nothing was written
pub fn user(
    out: &mut dyn Write,
    reader: &mut dyn Reader,
    owner: &BareJid,
    is_file: bool,
    faulty: &mut dyn FnMut(&str),
) -> Result<Option<Counts>, ExportError> {
    reader.hold()?;
    let mut export = Export { out, reader, owner, faulty, counts: Counts::new(), line: Vec::new() };
    let written = export.user(is_file);
    let counts = export.counts;
    reader.release()?;
    Ok(written?.then_some(counts))
}

struct Export<'a> {
    out: &'a mut dyn Write,
    reader: &'a mut dyn Reader,
    owner: &'a BareJid,
    faulty: &'a mut dyn FnMut(&str),
    counts: Counts,
    line: Vec<u8>,
}

impl Export<'_> {
    fn user(&mut self, is_file: bool) -> Result<bool, ExportError> {
        let Answer::Account(account) = self.read(Query::Account { owner: self.owner.clone() })?
        else {
            return Err(ExportError::Odd);
        };
        let Some(account) = account else { return Ok(false) };
        if is_file {
            self.out.write_all(DECLARATION)?;
        }
        self.count("accounts", 1);
        let name = self.owner.local().unwrap_or_default();
        Writer::new(&mut self.line).start("user").attr("xmlns", PIE).attr("name", name).open();
        self.flush()?;
        self.account(&account)?;
        self.keys(&account)?;
        self.roster(&account)?;
        self.slots()?;
        self.messages()?;
        self.archive()?;
        self.out.write_all(b"</user>\n")?;
        Ok(true)
    }

    fn read(&mut self, query: Query) -> Result<Answer, ExportError> {
        Ok(self.reader.read(&query)?)
    }

    fn count(&mut self, kind: &str, number: u64) {
        if number > 0 {
            *self.counts.entry(kind.to_owned()).or_insert(0) += number;
        }
    }

    /// Ends the line.
    fn flush(&mut self) -> Result<(), ExportError> {
        self.line.push(b'\n');
        self.out.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }

    fn element(&mut self, element: &Element) -> Result<(), ExportError> {
        element.write(&mut self.line, PIE);
        self.flush()
    }

    fn account(&mut self, account: &AccountRecord) -> Result<(), ExportError> {
        let Answer::Counters(Counters { next_ids, .. }) = self.read(Query::Counters)? else {
            return Err(ExportError::Odd);
        };
        let partition = store_partition(self.owner.hash64());
        let next = next_ids.iter().find(|(known, _)| *known == partition).map(|(_, next)| *next);
        let mut own = Element::new("account", OWN);
        if let Some(next) = next {
            own.set_attr("next-id", next.to_string());
        }
        if account.disabled {
            own.set_attr("disabled", "true");
        }
        if own.attributes.is_empty() { Ok(()) } else { self.element(&own) }
    }

    fn keys(&mut self, account: &AccountRecord) -> Result<(), ExportError> {
        let credentials = &account.credentials;
        let mechanisms = [
            ("SCRAM-SHA-1", Some(&credentials.sha1)),
            ("SCRAM-SHA-256", Some(&credentials.sha256)),
            ("SCRAM-SHA-512", credentials.sha512.as_deref()),
        ];
        for (mechanism, keys) in mechanisms {
            let Some(keys) = keys.filter(|keys| !keys.is_none()) else { continue };
            let ScramKeys { iterations, salt, stored_key, server_key } = keys;
            let child = |name, text: &str| Element::new(name, SCRAM).with_text(text);
            let element = Element::new("scram-credentials", SCRAM)
                .with_attr("mechanism", mechanism)
                .with_child(child("iter-count", &iterations.to_string()))
                .with_child(child("salt", &BASE64.encode(salt)))
                .with_child(child("server-key", &BASE64.encode(server_key)))
                .with_child(child("stored-key", &BASE64.encode(stored_key)));
            self.element(&element)?;
            self.count(&format!("{mechanism} keys"), 1);
        }
        Ok(())
    }

    fn roster(&mut self, account: &AccountRecord) -> Result<(), ExportError> {
        let version = account.roster_version;
        if version > 0 || account.roster.iter().any(|item| item.listed) {
            let mut writer = Writer::new(&mut self.line);
            writer.start("query").attr("xmlns", ns::ROSTER);
            if version > 0 {
                writer.attr("ver", &version.to_string());
            }
            writer.open();
            self.flush()?;
            for item in account.roster.iter().filter(|item| item.listed) {
                contact(item).write(&mut self.line, ns::ROSTER);
                self.flush()?;
                self.count("contacts", 1);
            }
            self.out.write_all(b"</query>\n")?;
        }
        for item in &account.roster {
            let Some(stanza) = &item.pending_in else { continue };
            let Some(mut presence) = parse(stanza) else {
                (self.faulty)(&format!("the request of {} cannot be read", item.jid));
                continue;
            };
            presence.set_attr("from", item.jid.to_string());
            presence.set_attr("to", self.owner.as_str());
            self.element(&presence)?;
            self.count("subscription requests", 1);
        }
        Ok(())
    }

    fn slots(&mut self) -> Result<(), ExportError> {
        let Answer::SlotNames(names) = self.read(Query::SlotNames { owner: self.owner.clone() })?
        else {
            return Err(ExportError::Odd);
        };
        let is_private = |name: &String| name.starts_with(private::SLOT_PREFIX);
        for name in names.iter().filter(|name| !is_private(name) && *name != private::CONTENTS_SLOT)
        {
            let Some(value) = self.slot(name)? else { continue };
            match name.as_str() {
                vcard::SLOT => match parse(&value) {
                    Some(card) => {
                        self.element(&card)?;
                        self.count("vCards", 1);
                    }
                    None => (self.faulty)("its vCard cannot be read"),
                },
                blocking::SLOT => {
                    let blocked = blocking::addresses(&value);
                    self.element(&privacy::write(&blocked))?;
                    self.count("blocked addresses", blocked.len() as u64);
                }
                name => {
                    let element = Element::new("slot", OWN).with_attr("name", name);
                    self.element(&element.with_text(&BASE64.encode(value)))?;
                }
            }
        }
        if !names.iter().any(is_private) {
            return Ok(());
        }
        Writer::new(&mut self.line).start("query").attr("xmlns", ns::PRIVATE).open();
        self.flush()?;
        for name in names.iter().filter(|name| is_private(name)) {
            let Some(value) = self.slot(name)? else { continue };
            // It was written for a place within such a query.
            let mut query = Vec::with_capacity(value.len() + 48);
            let mut writer = Writer::new(&mut query);
            writer.start("query").attr("xmlns", ns::PRIVATE).raw(&value).end("query");
            match parse(&query).as_ref().and_then(|query| query.children().next()) {
                Some(item) => {
                    item.write(&mut self.line, ns::PRIVATE);
                    self.flush()?;
                    self.count("private elements", 1);
                }
                None => (self.faulty)("an element of private storage cannot be read"),
            }
        }
        self.out.write_all(b"</query>\n")?;
        Ok(())
    }

    fn slot(&mut self, name: &str) -> Result<Option<Vec<u8>>, ExportError> {
        let query = Query::Slot { owner: self.owner.clone(), name: name.to_owned() };
        match self.read(query)? {
            Answer::Slot(value) => Ok(value),
            _ => Err(ExportError::Odd),
        }
    }

    fn messages(&mut self) -> Result<(), ExportError> {
        let mut after = 0;
        loop {
            let query = Query::Log { owner: self.owner.clone(), after, limit: PAGE };
            let Answer::Log { entries, more } = self.read(query)? else {
                return Err(ExportError::Odd);
            };
            if after == 0 && !entries.is_empty() {
                self.out.write_all(b"<offline-messages>\n")?;
            }
            for entry in &entries {
                self.message(entry)?;
                after = entry.id;
            }
            if !more {
                break;
            }
        }
        if after > 0 {
            self.out.write_all(b"</offline-messages>\n")?;
        }
        Ok(())
    }

    fn message(&mut self, entry: &LogEntry) -> Result<(), ExportError> {
        let Some(message) = parse(&entry.stanza) else {
            (self.faulty)(&format!("the message {} of its log cannot be read", entry.id));
            return Ok(());
        };
        let delay = Element::new("delay", ns::DELAY)
            .with_attr("from", self.owner.domain())
            .with_attr("stamp", datetime::format_micros(entry.at));
        let mut row = Element::new("row", OWN).with_attr("id", entry.id.to_string());
        if entry.keep.is_archived() {
            row.set_attr("archived", "true");
        }
        self.element(&message.with_child(delay).with_child(row))?;
        self.count("offline messages", 1);
        Ok(())
    }

    /// Rows that wait for a client, too, are in both views.
    fn archive(&mut self) -> Result<(), ExportError> {
        let mut after = 0;
        loop {
            let query = ArchiveQuery {
                page: Page::After(after),
                ..ArchiveQuery::all(self.owner.clone(), PAGE)
            };
            let Answer::Archive { entries, complete, .. } =
                self.read(Query::Archive(Box::new(query)))?
            else {
                return Err(ExportError::Odd);
            };
            if after == 0 && !entries.is_empty() {
                writeln!(self.out, "<archive xmlns='{ARCHIVE}'>")?;
            }
            for entry in &entries {
                self.archived(entry)?;
                after = entry.id;
            }
            if complete || entries.is_empty() {
                break;
            }
        }
        if after > 0 {
            self.out.write_all(b"</archive>\n")?;
        }
        Ok(())
    }

    fn archived(&mut self, entry: &LogEntry) -> Result<(), ExportError> {
        let Some(message) = parse(&entry.stanza) else {
            (self.faulty)(&format!("the message {} of its archive cannot be read", entry.id));
            return Ok(());
        };
        let delay =
            Element::new("delay", ns::DELAY).with_attr("stamp", datetime::format_micros(entry.at));
        let forwarded =
            Element::new("forwarded", ns::FORWARD).with_child(delay).with_child(message);
        let result = Element::new("result", ns::MAM)
            .with_attr("id", entry.id.to_string())
            .with_child(forwarded);
        result.write(&mut self.line, ARCHIVE);
        self.flush()?;
        self.count("archived messages", 1);
        Ok(())
    }
}

fn contact(item: &RosterItem) -> Element {
    let mut element = Element::new("item", ns::ROSTER).with_attr("jid", item.jid.to_string());
    if !item.name.is_empty() {
        element.set_attr("name", item.name.as_str());
    }
    let subscription = match item.subscription {
        Subscription::None => "none",
        Subscription::To => "to",
        Subscription::From => "from",
        Subscription::Both => "both",
    };
    element.set_attr("subscription", subscription);
    if item.ask {
        element.set_attr("ask", "subscribe");
    }
    if item.approved {
        element.set_attr("approved", "true");
    }
    for group in &item.groups {
        element = element.with_child(Element::new("group", ns::ROSTER).with_text(group));
    }
    element
}

/// What the store holds of a client's stream.
fn parse(bytes: &[u8]) -> Option<Element> {
    Element::parse(bytes, &StreamContext::client(), &XmlLimits::PASSED).ok()
}
