//! Accounts that come from other servers or go to them: XEP-0227, and the files of Prosody. Readers tell what they find
//! piece by piece to a `Sink`; `Landing` is the one that makes accounts of it. No file and no clock is named here: who
//! calls hands the bytes over.

mod arrival;
pub mod landing;
pub mod pie;
pub mod prosody;

use std::fmt;
use std::io::BufRead;

use crate::base::instant::Wall;
use crate::store::RosterItem;
use crate::stream::sasl::ScramHash;
use crate::xmpp::credentials::ScramKeys;
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::xml::element::Element;

/// What a reader found of the account that it told of last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// In clear.
    Password(String),
    Keys(ScramHash, ScramKeys),
    Disabled,
    RosterVersion(u64),
    Contact(RosterItem),
    /// A request for a subscription that waits: who asks, and the whole presence.
    Request(Jid, Vec<u8>),
    Vcard(Element),
    /// An element of private storage.
    Private(Element),
    Blocked(Jid),
    Message(Message),
    /// Ids of messages are below it.
    NextId(u64),
    /// What a feature keeps, as it keeps it.
    Slot(String, Vec<u8>),
}

/// A message of an account's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// A number that it may keep, below `NextId`.
    pub id: Option<u64>,
    /// What it is called in the archive that it comes from. A message that waits for its reader comes before the one of the
    /// archive that has the same key; they are one.
    pub key: Option<String>,
    pub at: Wall,
    pub view: View,
    pub stanza: Element,
}

/// Which view of the log it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Offline,
    Archive,
}

/// Where something was found, for the one who must mend it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    /// From 1; 0 where a line says nothing.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Why an import ends before its end: a line of cause and remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stop(pub String);

/// Who is told of what a reader finds. Any answer of `Stop` ends the reading.
pub trait Sink {
    /// An account begins. False where nothing of it is wanted: then no piece of it follows, nor its end.
    fn user(&mut self, jid: BareJid, place: &Place) -> Result<bool, Stop>;

    fn piece(&mut self, piece: Piece, place: &Place) -> Result<(), Stop>;

    /// Something that no account of this server can hold, by its kind in the plural; no fault of anybody.
    fn left_out(&mut self, kind: &str, count: u64) -> Result<(), Stop>;

    /// Something that is left out because it is faulty: a clause of cause, and remedy where there is one.
    fn faulty(&mut self, fault: &str, place: &Place) -> Result<(), Stop>;

    /// The rest of the account cannot be read.
    fn broken(&mut self, fault: &str, place: &Place) -> Result<(), Stop>;

    /// The account is over.
    fn end(&mut self) -> Result<(), Stop>;
}

/// Files that belong together, by their names relative to one another.
pub trait Files {
    /// Opens what the file `from` names by `reference`: it must lie where `from` lies, or below.
    ///
    /// - gives: the name of the file, as people are told of it
    /// - errors: a clause of cause and remedy
    fn open(&mut self, from: &str, reference: &str) -> Result<(String, Box<dyn BufRead>), String>;
}

/// A tree of folders that is read whole.
pub trait Folders {
    /// The names in a folder, sorted: of files, or of folders.
    ///
    /// - errors: a clause of cause
    fn names(&mut self, path: &[&str], kind: NameKind) -> Result<Vec<String>, String>;

    /// - gives: `None` where there is no such file
    fn open(&mut self, path: &[&str]) -> Result<Option<Box<dyn BufRead>>, String>;

    /// As people are told of it.
    fn shown(&self, path: &[&str]) -> String;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    File,
    Folder,
}
