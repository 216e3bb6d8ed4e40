//! Reads XEP-0227: one element after the other, and includes where they stand.

use std::io::BufRead;

use super::super::{Files, Piece, Place, Sink, Stop};
use super::{
    ARCHIVE, OWN, PIE, PRIVACY, PUBSUB, PUBSUB_OWNER, SCRAM, XINCLUDE, privacy, section, shown,
};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::file::{FileError, FileEvent, XmlFile};

/// Files that include one another: the main file, a host's, a user's, and a part of a user's.
const INCLUDES_DEEP_MAX: usize = 4;

/// Where in the format an element stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// The root of the main file.
    Root,
    Server,
    Host,
    User,
}

/// Why the reading of a file ends.
enum Broken {
    File(FileError),
    Stop(Stop),
}

impl From<FileError> for Broken {
    fn from(error: FileError) -> Self {
        Broken::File(error)
    }
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        Broken::Stop(stop)
    }
}

type Done = Result<(), Broken>;
type Input = XmlFile<Box<dyn BufRead>>;

/// Reads the file `name` and those that it includes, and tells the sink.
///
/// - errors: the sink's; the file is not there, or is none of XEP-0227. One that is damaged further on is told to the sink
pub fn read(files: &mut dyn Files, name: &str, sink: &mut dyn Sink) -> Result<(), Stop> {
    let (shown, input) = files.open("", name).map_err(|cause| Stop(format!("{name}: {cause}")))?;
    let mut reader = Reader { files, sink, names: vec![shown], host: None, user: None, hosts: 0 };
    let mut input = XmlFile::new(input);
    match reader.file(&mut input, Level::Root) {
        Ok(()) => Ok(()),
        Err(Broken::Stop(stop)) => Err(stop),
        Err(Broken::File(error)) => {
            let place = reader.place(&input);
            match reader.hosts {
                0 => Err(Stop(format!("{place}: {error}"))),
                _ => reader.break_off(&error, &place),
            }
        }
    }
}

struct Reader<'a> {
    files: &'a mut dyn Files,
    sink: &'a mut dyn Sink,
    /// Of the files that are open, the main one first.
    names: Vec<String>,
    /// Prepared.
    host: Option<String>,
    /// The user whose pieces are read.
    user: Option<BareJid>,
    hosts: u64,
}

impl Reader<'_> {
    fn place(&self, input: &Input) -> Place {
        Place { file: self.names.last().cloned().unwrap_or_default(), line: input.line() }
    }

    /// One whole file, whose root stands at `level`.
    fn file(&mut self, input: &mut Input, level: Level) -> Done {
        match input.advance()? {
            FileEvent::Start(root) => self.element(input, level, root)?,
            FileEvent::End | FileEvent::Eof => return Err(Broken::File(FileError::Truncated)),
        }
        match input.advance()? {
            FileEvent::Eof => Ok(()),
            _ => Err(Broken::File(FileError::NotWellFormed("more than one root".to_owned()))),
        }
    }

    /// All children of the element that started last.
    fn children(&mut self, input: &mut Input, level: Level) -> Done {
        loop {
            match input.advance()? {
                FileEvent::Start(child) if child.is(XINCLUDE, "include") => {
                    input.skip()?;
                    self.include(input, &child, level)?;
                }
                FileEvent::Start(child) => self.element(input, level, child)?,
                FileEvent::End => return Ok(()),
                FileEvent::Eof => return Err(Broken::File(FileError::Truncated)),
            }
        }
    }

    fn element(&mut self, input: &mut Input, level: Level, element: Element) -> Done {
        match level {
            Level::Root if element.is(PIE, "server-data") => {
                self.hosts += 1;
                self.children(input, Level::Server)
            }
            // COMPAT(ejabberd, 23.01): the file of one host is given as an export of its own.
            Level::Root | Level::Server if element.is(PIE, "host") => self.host(input, &element),
            Level::Root => {
                let place = self.place(input);
                let root = shown(&element);
                Err(Broken::Stop(Stop(format!(
                    "{place}: the root is {root} and not <server-data xmlns='{PIE}'/>; give a file of XEP-0227"
                ))))
            }
            Level::Host if element.is(PIE, "user") => self.user(input, &element),
            Level::User => self.section(input, element),
            Level::Server | Level::Host => {
                self.sink.left_out(&format!("elements {}", shown(&element)), 1)?;
                Ok(input.skip()?)
            }
        }
    }

    /// What cannot be read of an included file is told, and the including one goes on.
    fn include(&mut self, input: &Input, include: &Element, level: Level) -> Done {
        let place = self.place(input);
        let fault = match (include.attr("href"), include.attr("parse"), include.attr("xpointer")) {
            (Some(href), None | Some("xml"), None) if self.names.len() < INCLUDES_DEEP_MAX => {
                let from = self.names.last().cloned().unwrap_or_default();
                match self.files.open(&from, href) {
                    Ok((name, opened)) => return self.included(name, opened, level),
                    Err(cause) => format!("the include {href:?}: {cause}"),
                }
            }
            (Some(href), ..) if self.names.len() >= INCLUDES_DEEP_MAX => {
                format!("the include {href:?}: includes within includes within includes")
            }
            (Some(href), ..) => {
                format!("the include {href:?}: only whole XML files can be included")
            }
            (None, ..) => "an include without href".to_owned(),
        };
        Ok(self.sink.faulty(&fault, &place)?)
    }

    fn included(&mut self, name: String, opened: Box<dyn BufRead>, level: Level) -> Done {
        self.names.push(name);
        let mut input = XmlFile::new(opened);
        let read = self.file(&mut input, level);
        let place = self.place(&input);
        self.names.pop();
        match read {
            // A part of a user: the others stand in the file around.
            Err(Broken::File(error)) if level == Level::User => {
                Ok(self.sink.faulty(&format!("the file {error}"), &place)?)
            }
            Err(Broken::File(error)) => Ok(self.break_off(&error, &place)?),
            other => other,
        }
    }

    fn break_off(&mut self, error: &FileError, place: &Place) -> Result<(), Stop> {
        self.user = None;
        self.sink.broken(&format!("the file {error}"), place)
    }

    fn host(&mut self, input: &mut Input, host: &Element) -> Done {
        self.hosts += 1;
        let text = host.attr("jid").unwrap_or_default();
        match BareJid::parse(text) {
            Ok(jid) if jid.local().is_none() => {
                self.host = Some(jid.domain().to_owned());
                let read = self.children(input, Level::Host);
                self.host = None;
                read
            }
            _ => {
                let fault = format!("the host {text:?} is no domain; correct its jid");
                self.sink.faulty(&fault, &self.place(input))?;
                Ok(input.skip()?)
            }
        }
    }

    fn user(&mut self, input: &mut Input, user: &Element) -> Done {
        let place = self.place(input);
        let name = user.attr("name").unwrap_or_default();
        let host = self.host.as_deref().unwrap_or_default();
        let jid = match BareJid::from_parts(Some(name), host) {
            Ok(jid) => jid,
            Err(fault) => {
                let fault = format!("the user {name:?} of {host} is not imported: {fault}");
                self.sink.faulty(&fault, &place)?;
                return Ok(input.skip()?);
            }
        };
        if !self.sink.user(jid.clone(), &place)? {
            return Ok(input.skip()?);
        }
        self.user = Some(jid);
        if let Some(password) = user.attr("password").filter(|password| !password.is_empty()) {
            self.sink.piece(Piece::Password(password.to_owned()), &place)?;
        }
        self.children(input, Level::User)?;
        self.user = None;
        Ok(self.sink.end()?)
    }

    /// A child of a user.
    fn section(&mut self, input: &mut Input, element: Element) -> Done {
        let Some(owner) = self.user.clone() else { return Ok(input.skip()?) };
        match (element.namespace.as_str(), element.name.as_str()) {
            (PIE, "offline-messages") => self.each(input, |reader, input, child| {
                reader.tree(input, child, |message| section::offline(message, &owner))
            }),
            (ARCHIVE, "archive") => self.each(input, |reader, input, child| {
                if !child.is(ns::MAM, "result") {
                    reader.sink.left_out(&format!("elements {}", shown(&child)), 1)?;
                    return Ok(input.skip()?);
                }
                reader.tree(input, child, |result| {
                    let archived = section::archived(&result, &owner);
                    archived.map_err(|fault| format!("an archived message: {fault}"))
                })
            }),
            (ns::ROSTER, "query") => {
                if let Some(version) = element.attr("ver").and_then(|it| it.parse().ok()) {
                    let place = self.place(input);
                    self.sink.piece(Piece::RosterVersion(version), &place)?;
                }
                self.each(input, |reader, input, child| {
                    reader.tree(input, child, |item| section::contact(&item))
                })
            }
            (ns::PRIVATE, "query") => self.each(input, |reader, input, child| {
                reader.tree(input, child, |item| Ok(Piece::Private(item)))
            }),
            (ns::CLIENT, "presence") => {
                self.tree(input, element, |presence| section::request(&presence, &owner))
            }
            (ns::VCARD, "vCard") => self.tree(input, element, |card| Ok(Piece::Vcard(card))),
            (SCRAM, "scram-credentials") => {
                let place = self.place(input);
                let mechanism = element.attr("mechanism").unwrap_or_default().to_owned();
                let Some(element) = self.whole(input, element)? else { return Ok(()) };
                match section::keys(&element) {
                    Ok(Some(piece)) => Ok(self.sink.piece(piece, &place)?),
                    Ok(None) => Ok(self.sink.left_out(&format!("keys of {mechanism}"), 1)?),
                    Err(fault) => Ok(self.sink.faulty(&fault, &place)?),
                }
            }
            (PRIVACY, "query") => self.privacy(input, element),
            (ns::BLOCKING, "blocklist") => self.each(input, |reader, input, child| {
                reader.tree(input, child, |item| blocked(&item))
            }),
            (PUBSUB, "pubsub") => self.pep(input, &["PEP items"]),
            (PUBSUB_OWNER, "pubsub") => {
                let kinds = ["PEP node configurations", "PEP affiliations", "PEP subscriptions"];
                self.pep(input, &kinds)
            }
            (OWN, "account") => {
                let place = self.place(input);
                if element.attr("disabled") == Some("true") {
                    self.sink.piece(Piece::Disabled, &place)?;
                }
                if let Some(next) = element.attr("next-id").and_then(|it| it.parse().ok()) {
                    self.sink.piece(Piece::NextId(next), &place)?;
                }
                Ok(input.skip()?)
            }
            (OWN, "slot") => self.tree(input, element, |slot| section::slot(&slot)),
            _ => {
                self.sink.left_out(&format!("elements {}", shown(&element)), 1)?;
                Ok(input.skip()?)
            }
        }
    }

    /// Every child of the element that started last.
    fn each(
        &mut self,
        input: &mut Input,
        mut work: impl FnMut(&mut Self, &mut Input, Element) -> Done,
    ) -> Done {
        loop {
            match input.advance()? {
                FileEvent::Start(child) => work(self, input, child)?,
                FileEvent::End => return Ok(()),
                FileEvent::Eof => return Err(Broken::File(FileError::Truncated)),
            }
        }
    }

    /// The whole of an element becomes a piece, or is told as faulty.
    fn tree(
        &mut self,
        input: &mut Input,
        start: Element,
        work: impl FnOnce(Element) -> Result<Piece, String>,
    ) -> Done {
        let place = self.place(input);
        let Some(element) = self.whole(input, start)? else { return Ok(()) };
        match work(element) {
            Ok(piece) => Ok(self.sink.piece(piece, &place)?),
            Err(fault) => Ok(self.sink.faulty(&format!("{fault}; left out"), &place)?),
        }
    }

    fn whole(&mut self, input: &mut Input, start: Element) -> Result<Option<Element>, Broken> {
        let place = self.place(input);
        match input.whole(start)? {
            Ok(element) => Ok(Some(element)),
            Err(fault) => {
                self.sink.faulty(&format!("{fault}; left out"), &place)?;
                Ok(None)
            }
        }
    }

    fn privacy(&mut self, input: &mut Input, query: Element) -> Done {
        let place = self.place(input);
        let Some(query) = self.whole(input, query)? else { return Ok(()) };
        let lists = privacy::read(&query);
        for jid in lists.blocked {
            self.sink.piece(Piece::Blocked(jid), &place)?;
        }
        for fault in lists.faults {
            self.sink.faulty(&fault, &place)?;
        }
        if lists.left_out > 0 {
            self.sink
                .left_out("privacy lists and items that are more than blocking", lists.left_out)?;
        }
        Ok(())
    }

    /// No account here has such nodes: they are counted, items one by one.
    fn pep(&mut self, input: &mut Input, kinds: &[&str]) -> Done {
        self.each(input, |reader, input, child| {
            let kind = match child.name.as_str() {
                "configure" => kinds.first(),
                "affiliations" => kinds.get(1),
                "subscriptions" => kinds.get(2),
                "items" => {
                    return reader.each(input, |reader, input, _| {
                        reader.sink.left_out("PEP items", 1)?;
                        Ok(input.skip()?)
                    });
                }
                _ => None,
            };
            match kind {
                Some(kind) => reader.sink.left_out(kind, 1)?,
                None => reader.sink.left_out(&format!("elements {}", shown(&child)), 1)?,
            }
            Ok(input.skip()?)
        })
    }
}

fn blocked(item: &Element) -> Result<Piece, String> {
    let text = item.attr("jid").unwrap_or_default();
    let jid = Jid::parse(text).map_err(|fault| format!("the blocked address {text:?}: {fault}"))?;
    Ok(Piece::Blocked(jid))
}
