//! An account on its way: what was told of it so far, within bounds.

use std::collections::{BTreeMap, BTreeSet};

use super::landing::Counts;
use super::{Message, Piece, Place, View};
use crate::features::vcard;
use crate::runtime::control::restore::{Bytes, RestoredMessage, TAKEN_ID_MAX};
use crate::store::RosterItem;
use crate::stream::sasl::{ITERATIONS_MAX, ITERATIONS_MIN, ScramHash};
use crate::xmpp::credentials::{Credentials, ScramKeys};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::xml::element::Element;

/// Bytes of an account that are held at a time, beside its messages.
const ACCOUNT_BYTES_MAX: usize = 64 << 20;

/// Contacts of an account at most: its owner's clients read them all at each login.
const CONTACTS_MAX: usize = 100_000;

/// Messages outside of the archive whose ids are kept; more get new ones.
const TAKEN_IDS_MAX: usize = 1_000_000;

/// What a piece of a step has beside its bytes, at most.
pub(super) const PIECE_BYTES: usize = 256;

/// Longest salt that a login can work with.
const SALT_BYTES_MAX: usize = 64;

/// An account on its way.
pub(super) struct Arrival {
    pub(super) jid: BareJid,
    pub(super) place: Place,
    pub(super) password: Option<String>,
    pub(super) credentials: Credentials,
    pub(super) roster: BTreeMap<String, RosterItem>,
    pub(super) version: u64,
    pub(super) blocked: Vec<Jid>,
    pub(super) private: Vec<Element>,
    pub(super) slots: Vec<(String, Vec<u8>)>,
    pub(super) disabled: bool,
    pub(super) next_id: Option<u64>,
    /// Ids of the log that are taken; of the archive, the last one that was.
    pub(super) taken_ids: BTreeSet<u64>,
    pub(super) last_id: u64,
    /// Messages that wait for a client and are in the archive as well, by their keys there, with their places among
    /// themselves: they are made when the archive comes to them.
    pub(super) held: BTreeMap<String, (usize, RestoredMessage)>,
    pub(super) held_bytes: usize,
    pub(super) held_count: usize,
    pub(super) messages: Vec<RestoredMessage>,
    pub(super) message_bytes: usize,
    /// Of the archive: its newest time, and how far any lies behind an earlier one.
    pub(super) newest: u64,
    pub(super) disorder: u64,
    /// Of all but messages.
    pub(super) bytes: usize,
    pub(super) started: bool,
    pub(super) counts: Counts,
}

impl Arrival {
    pub(super) fn new(jid: BareJid, place: &Place) -> Arrival {
        Arrival {
            jid,
            place: place.clone(),
            password: None,
            credentials: Credentials::none(),
            roster: BTreeMap::new(),
            version: 0,
            blocked: Vec::new(),
            private: Vec::new(),
            slots: Vec::new(),
            disabled: false,
            next_id: None,
            taken_ids: BTreeSet::new(),
            last_id: 0,
            held: BTreeMap::new(),
            held_bytes: 0,
            held_count: 0,
            messages: Vec::new(),
            message_bytes: 0,
            newest: 0,
            disorder: 0,
            bytes: 0,
            started: false,
            counts: Counts::new(),
        }
    }

    /// Anything but a message. Gives a cause where the account has more than any may have.
    pub(super) fn take(&mut self, piece: Piece) -> Option<String> {
        match piece {
            Piece::Password(password) => self.password = Some(password),
            Piece::Keys(hash, keys) => self.take_keys(hash, keys),
            Piece::Disabled => self.disabled = true,
            Piece::RosterVersion(version) => self.version = version,
            Piece::Contact(item) => {
                self.bytes += item_bytes(&item);
                let key = item.jid.to_string();
                match self.roster.get_mut(&key) {
                    // The request came first.
                    Some(known) => {
                        let pending_in = known.pending_in.take();
                        *known = RosterItem { pending_in, ..item };
                    }
                    None => drop(self.roster.insert(key, item)),
                }
            }
            Piece::Request(from, stanza) => {
                self.bytes += stanza.len() + PIECE_BYTES;
                let from = Jid::from_bare(from.into_bare());
                let new = RosterItem { listed: false, ..RosterItem::new(from.clone()) };
                self.roster.entry(from.to_string()).or_insert(new).pending_in = Some(stanza);
            }
            Piece::Vcard(card) => {
                let mut value = Vec::new();
                card.write(&mut value, ns::CLIENT);
                if !card.children.is_empty() {
                    self.take_slot(vcard::SLOT.to_owned(), value);
                    self.counts.insert("vCards".to_owned(), 1);
                }
            }
            Piece::Private(item) => {
                let mut value = Vec::new();
                item.write(&mut value, ns::PRIVATE);
                self.bytes += value.len() * 2 + PIECE_BYTES;
                self.private.push(item);
            }
            Piece::Blocked(jid) => {
                self.bytes += jid.text_len() + PIECE_BYTES;
                self.blocked.push(jid);
            }
            Piece::NextId(next) => self.next_id = Some(next).filter(|next| *next <= TAKEN_ID_MAX),
            Piece::Slot(name, value) => self.take_slot(name, value),
            Piece::Message(_) => {}
        }
        if self.roster.len() > CONTACTS_MAX {
            return Some(format!("more than {CONTACTS_MAX} contacts"));
        }
        let mib = ACCOUNT_BYTES_MAX >> 20;
        (self.bytes > ACCOUNT_BYTES_MAX).then(|| format!("more than {mib} MiB beside its messages"))
    }

    /// Leaves a message its id, if that is nobody else's, and keeps the order of the archive. After one without an id all
    /// of the archive get new ones, which are higher than any below `next_id`.
    pub(super) fn number(&mut self, message: &mut RestoredMessage) {
        let may_keep = |id: &u64| {
            self.next_id.is_some_and(|next| *id < next)
                && !self.taken_ids.contains(id)
                && (!message.archived || *id > self.last_id)
        };
        message.id = message.id.filter(|id| *id > 0).filter(may_keep);
        match (message.id, message.archived) {
            (id, true) => self.last_id = id.unwrap_or(u64::MAX),
            (Some(id), false) if self.taken_ids.len() < TAKEN_IDS_MAX => {
                self.taken_ids.insert(id);
            }
            (Some(_), false) => message.id = None,
            (None, false) => {}
        }
    }

    pub(super) fn take_keys(&mut self, hash: ScramHash, keys: ScramKeys) {
        match hash {
            ScramHash::Sha1 => self.credentials.sha1 = keys,
            ScramHash::Sha256 => self.credentials.sha256 = keys,
            ScramHash::Sha512 => self.credentials.sha512 = Some(Box::new(keys)),
        }
    }

    pub(super) fn take_slot(&mut self, name: String, value: Vec<u8>) {
        self.bytes += name.len() + value.len() + PIECE_BYTES;
        self.slots.retain(|(known, _)| *known != name);
        self.slots.push((name, value));
    }
}

/// - errors: a clause of cause
pub(super) fn restored(user: &Arrival, message: &Message) -> Result<RestoredMessage, String> {
    let address = |name: &str| match message.stanza.attr(name) {
        Some(text) => {
            Jid::parse(text).map(Some).map_err(|fault| format!("{name} {text:?}: {fault}"))
        }
        None => Ok(None),
    };
    let (from, to) = (address("from")?, address("to")?);
    let own = |jid: &Jid| *jid.bare() == user.jid;
    let with = match (from, to) {
        (Some(from), _) if !own(&from) => from,
        (Some(_), Some(to)) => to,
        (Some(from), None) => from,
        (None, _) => return Err("it does not say whom it is from".to_owned()),
    };
    let mut stanza = Vec::new();
    let (open_end, close_start) = message.stanza.write_spread(&mut stanza, ns::CLIENT);
    let offset = |at: usize| u32::try_from(at).map_err(|_| "it is too large".to_owned());
    Ok(RestoredMessage {
        id: message.id,
        pending: message.view == View::Offline,
        archived: message.view == View::Archive,
        at: message.at.0,
        with: with.to_string(),
        open_end: offset(open_end)?,
        close_start: offset(close_start)?,
        stanza: Bytes(stanza),
    })
}

/// Keys as another server had them.
///
/// - errors: a clause of cause, where no login could ever use them
pub(super) fn check_keys(hash: ScramHash, keys: &ScramKeys) -> Result<(), String> {
    let length = hash.output_bytes();
    if keys.stored_key.len() != length || keys.server_key.len() != length {
        return Err(format!("keys of another length than {length} bytes"));
    }
    if keys.salt.is_empty() || keys.salt.len() > SALT_BYTES_MAX {
        return Err(format!("a salt of {} bytes", keys.salt.len()));
    }
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&keys.iterations) {
        return Err(format!(
            "{} iterations, and not between {ITERATIONS_MIN} and {ITERATIONS_MAX}",
            keys.iterations
        ));
    }
    Ok(())
}

pub(super) fn item_bytes(item: &RosterItem) -> usize {
    let pending = item.pending_in.as_ref().map_or(0, Vec::len);
    let groups: usize = item.groups.iter().map(|group| group.len() + 8).sum();
    item.jid.text_len() + item.name.len() + groups + pending + PIECE_BYTES
}

pub(super) fn count(counts: &mut Counts, kind: &str) {
    add(counts, kind, 1);
}

pub(super) fn add(counts: &mut Counts, kind: &str, number: u64) {
    if number > 0 {
        *counts.entry(kind.to_owned()).or_insert(0) += number;
    }
}
