//! Makes accounts of what a reader tells: gathers an account, hands it to the node in one step, or in many if it has many
//! messages, and counts by type what came in and what did not.

use std::collections::BTreeMap;

use super::arrival::{Arrival, PIECE_BYTES, add, count, item_bytes, restored};
use super::{Message, Piece, Place, Sink, Stop, View};
use crate::features::{blocking, private, vcard};
use crate::runtime::control::ImportOutcome;
use crate::runtime::control::restore::{
    Bytes, Restore, RestoredItem, RestoredMessage, RestoredPiece, Start,
};
use crate::shard::{Disorder, Slot};
use crate::xmpp::credentials::Credentials;
use crate::xmpp::jid::BareJid;

/// Kinds of what is left out that are told apart.
const KINDS_MAX: usize = 100;

/// Bytes of a step before they are written for the control socket, whose lines end at 1 MiB.
const STEP_BYTES: usize = 128 << 10;

/// Bytes of messages that wait until it is known whether the archive has them, too.
const HELD_BYTES_MAX: usize = 32 << 20;

/// Who takes the accounts.
pub trait Target {
    /// Whether there is such an account.
    fn has(&mut self, jid: &BareJid) -> Result<bool, String>;

    /// Why no account of that domain can be made, if so.
    fn refuses_domain(&self, domain: &str) -> Option<String>;

    /// Derives keys; takes milliseconds.
    fn keys(&mut self, password: &str) -> Result<Credentials, String>;

    /// Bytes that one piece may have; a larger one cannot be handed over.
    fn piece_bytes_max(&self) -> usize;

    fn step(&mut self, step: Restore) -> Result<ImportOutcome, String>;
}

/// What is wanted of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Accounts that exist are made anew.
    pub replace: bool,
    /// Nothing is changed.
    pub dry_run: bool,
    /// The first fault ends it.
    pub strict: bool,
}

/// By type, in the plural.
pub type Counts = BTreeMap<String, u64>;

/// One import.
pub struct Landing<'a> {
    target: &'a mut dyn Target,
    /// Told a line for each fault.
    tell: &'a mut dyn FnMut(&str),
    wanted: Wanted,
    user: Option<Arrival>,
    /// What came in.
    pub done: Counts,
    /// What no account here can hold.
    pub left_out: Counts,
    pub faults: u64,
    /// Accounts that exist and were left alone.
    pub existing: u64,
}

impl<'a> Landing<'a> {
    pub fn new(
        target: &'a mut dyn Target,
        wanted: Wanted,
        tell: &'a mut dyn FnMut(&str),
    ) -> Landing<'a> {
        Landing {
            target,
            tell,
            wanted,
            user: None,
            done: Counts::new(),
            left_out: Counts::new(),
            faults: 0,
            existing: 0,
        }
    }

    fn fault(&mut self, line: &str) -> Result<(), Stop> {
        self.faults += 1;
        if self.wanted.strict {
            return Err(Stop(line.to_owned()));
        }
        (self.tell)(line);
        Ok(())
    }

    /// Hands a step over. False where the account is given up, which was told.
    fn step(
        &mut self,
        user: &mut Arrival,
        pieces: Vec<RestoredPiece>,
        last: bool,
    ) -> Result<bool, Stop> {
        if self.wanted.dry_run {
            user.started = true;
            return Ok(true);
        }
        let is_first = !user.started;
        let start = if self.wanted.replace { Start::Replace } else { Start::New };
        let step = Restore {
            jid: user.jid.to_string(),
            start: is_first.then_some(start),
            next_id: user.next_id.filter(|_| is_first),
            pieces,
            last,
        };
        user.started = true;
        let cut_off = |cause: String| match is_first {
            true => Stop(format!("{}: not imported: {cause}", user.jid)),
            false => Stop(format!("{}: {IN_PART}: {cause}; {AGAIN}", user.jid)),
        };
        match self.target.step(step).map_err(cut_off)? {
            ImportOutcome::Created => Ok(true),
            ImportOutcome::Exists => {
                self.existing += 1;
                Ok(false)
            }
            ImportOutcome::Refused { cause } => {
                let (place, jid) = (&user.place, &user.jid);
                let line = match is_first {
                    true => format!("{place}: {jid}: not imported: {cause}"),
                    false => format!("{place}: {jid}: {IN_PART}: {cause}; {AGAIN}"),
                };
                self.fault(&line).map(|()| false)
            }
        }
    }

    fn flush_messages(&mut self, user: &mut Arrival) -> Result<bool, Stop> {
        let messages = std::mem::take(&mut user.messages);
        user.message_bytes = 0;
        self.step(user, vec![RestoredPiece::Messages { messages }], false)
    }

    fn take_message(
        &mut self,
        user: &mut Arrival,
        message: &Message,
        place: &Place,
    ) -> Result<bool, Stop> {
        let restored = match restored(user, message) {
            Ok(restored) => restored,
            Err(cause) => {
                let line = format!("{place}: {}: a message is left out: {cause}", user.jid);
                return self.fault(&line).map(|()| true);
            }
        };
        let bytes = restored.stanza.0.len() + PIECE_BYTES;
        if bytes > self.target.piece_bytes_max() {
            let line = format!(
                "{place}: {}: a message of {bytes} bytes is left out: {TOO_LARGE}",
                user.jid
            );
            return self.fault(&line).map(|()| true);
        }
        match message.view {
            View::Offline => {
                count(&mut user.counts, "offline messages");
                if let Some(key) = &message.key
                    && user.held_bytes + bytes <= HELD_BYTES_MAX
                    && !user.held.contains_key(key)
                {
                    user.held_bytes += bytes;
                    user.held_count += 1;
                    user.held.insert(key.clone(), (user.held_count, restored));
                    return Ok(true);
                }
                self.put_message(user, restored)
            }
            View::Archive => {
                count(&mut user.counts, "archived messages");
                user.disorder = user.disorder.max(user.newest.saturating_sub(restored.at));
                user.newest = user.newest.max(restored.at);
                let waits = message.key.as_ref().and_then(|key| user.held.remove(key));
                let pending = waits.is_some();
                self.put_message(user, RestoredMessage { pending, ..restored })
            }
        }
    }

    fn put_message(
        &mut self,
        user: &mut Arrival,
        mut message: RestoredMessage,
    ) -> Result<bool, Stop> {
        user.number(&mut message);
        let bytes = message.stanza.0.len() + PIECE_BYTES;
        if user.message_bytes + bytes > STEP_BYTES
            && !user.messages.is_empty()
            && !self.flush_messages(user)?
        {
            return Ok(false);
        }
        user.message_bytes += bytes;
        user.messages.push(message);
        Ok(true)
    }

    /// The account in pieces, without its messages.
    fn pieces(&mut self, user: &mut Arrival) -> Result<Vec<(usize, RestoredPiece)>, Stop> {
        let mut pieces = Vec::new();
        if let Some(password) = user.password.take()
            && user.credentials == Credentials::none()
        {
            // A trial run must not take as long as the import.
            let derived = match self.wanted.dry_run {
                true => Ok(Credentials::none()),
                false => self.target.keys(&password),
            };
            match derived {
                Ok(credentials) => {
                    user.credentials = credentials;
                    count(&mut user.counts, "passwords");
                }
                Err(cause) => {
                    let line = format!(
                        "{}: {}: its password is left out: {cause}; set one with: corefire user passwd {} --password-stdin",
                        user.place, user.jid, user.jid
                    );
                    self.fault(&line)?;
                }
            }
        } else if user.credentials == Credentials::none() {
            count(&mut user.counts, NO_PASSWORD);
        } else {
            let keys = &user.credentials;
            let has = [!keys.sha1.is_none(), !keys.sha256.is_none(), keys.sha512.is_some()];
            for (has, kind) in has.into_iter().zip([
                "SCRAM-SHA-1 keys",
                "SCRAM-SHA-256 keys",
                "SCRAM-SHA-512 keys",
            ]) {
                if has {
                    count(&mut user.counts, kind);
                }
            }
        }
        let credentials = user.credentials.clone();
        pieces.push((PIECE_BYTES * 4, RestoredPiece::Credentials { credentials }));
        if user.disabled {
            pieces.push((0, RestoredPiece::Disabled));
        }
        self.roster_pieces(user, &mut pieces);
        let (private, refused) = private::to_slots(&user.private);
        for reason in refused {
            let line = format!(
                "{}: {}: an element of private storage is left out: {reason}",
                user.place, user.jid
            );
            self.fault(&line)?;
        }
        let kept = private.iter().filter(|(name, _)| name.starts_with(private::SLOT_PREFIX));
        add(&mut user.counts, "private elements", kept.count() as u64);
        let mut slots = std::mem::take(&mut user.slots);
        slots.extend(private);
        if let Some(list) = blocking::to_stored(&user.blocked) {
            let blocked = blocking::addresses(&list).len() as u64;
            add(&mut user.counts, "blocked addresses", blocked);
            slots.push((blocking::SLOT.to_owned(), list));
        }
        for (name, value) in slots {
            let bytes = value.len() + name.len() + PIECE_BYTES;
            if bytes > self.target.piece_bytes_max() {
                let what = if name == vcard::SLOT { "its vCard" } else { "an element" };
                let line = format!(
                    "{}: {}: {what} of {bytes} bytes is left out: {TOO_LARGE}",
                    user.place, user.jid
                );
                self.fault(&line)?;
                continue;
            }
            pieces.push((bytes, RestoredPiece::Slot { name, value: Bytes(value) }));
        }
        Ok(pieces)
    }

    fn roster_pieces(&mut self, user: &mut Arrival, pieces: &mut Vec<(usize, RestoredPiece)>) {
        let version = user.version;
        let (mut items, mut bytes) = (Vec::new(), 0);
        for item in user.roster.values() {
            if item.listed {
                count(&mut user.counts, "contacts");
            }
            if item.pending_in.is_some() {
                count(&mut user.counts, "subscription requests");
            }
            items.push(RestoredItem::from(item));
            bytes += item_bytes(item);
            if bytes > STEP_BYTES {
                let items = std::mem::take(&mut items);
                pieces.push((bytes, RestoredPiece::Roster { items, version }));
                bytes = 0;
            }
        }
        if !items.is_empty() || version > 0 {
            pieces.push((bytes, RestoredPiece::Roster { items, version }));
        }
    }

    fn land(&mut self, mut user: Arrival) -> Result<(), Stop> {
        // The archive did not come to these.
        let mut held: Vec<_> = std::mem::take(&mut user.held).into_values().collect();
        held.sort_by_key(|(place, _)| *place);
        for (_, message) in held {
            if !self.put_message(&mut user, message)? {
                return Ok(());
            }
        }
        if user.disorder > 0 {
            let stored = user.slots.iter().find(|(name, _)| name == Disorder::NAME);
            let stored = stored.map_or(0, |(_, value)| Disorder::load(Some(value)).0);
            let disorder = Disorder(user.disorder.max(stored));
            user.take_slot(Disorder::NAME.to_owned(), disorder.to_bytes());
        }
        let pieces = self.pieces(&mut user)?;
        let (mut step, mut bytes) = (Vec::new(), user.message_bytes);
        if !user.messages.is_empty() {
            step.push(RestoredPiece::Messages { messages: std::mem::take(&mut user.messages) });
        }
        for (size, piece) in pieces {
            if bytes + size > STEP_BYTES
                && !step.is_empty()
                && !self.step(&mut user, std::mem::take(&mut step), false)?
            {
                return Ok(());
            }
            bytes = if step.is_empty() { size } else { bytes + size };
            step.push(piece);
        }
        if self.step(&mut user, step, true)? {
            count(&mut self.done, "accounts");
            for (kind, number) in user.counts {
                add(&mut self.done, &kind, number);
            }
        }
        Ok(())
    }
}

const TOO_LARGE: &str = "it is too large for the control socket of a running node; stop the node and import again with --replace";

const IN_PART: &str = "imported in part, and disabled";
const AGAIN: &str = "then import it again with --replace";

/// The kind of accounts without a password, as it is counted.
pub const NO_PASSWORD: &str = "accounts without a password";

impl Sink for Landing<'_> {
    fn user(&mut self, jid: BareJid, place: &Place) -> Result<bool, Stop> {
        self.user = None;
        if let Some(cause) = self.target.refuses_domain(jid.domain()) {
            let kind = format!("accounts of {}", jid.domain());
            if !self.left_out.contains_key(&kind) && self.left_out.len() < KINDS_MAX {
                self.fault(&format!("{place}: {cause}"))?;
            }
            self.left_out(&kind, 1)?;
            return Ok(false);
        }
        if !self.wanted.replace && self.target.has(&jid).map_err(Stop)? {
            self.existing += 1;
            return Ok(false);
        }
        self.user = Some(Arrival::new(jid, place));
        Ok(true)
    }

    fn piece(&mut self, piece: Piece, place: &Place) -> Result<(), Stop> {
        let Some(mut user) = self.user.take() else { return Ok(()) };
        if let Piece::Message(message) = &piece {
            if self.take_message(&mut user, message, place)? {
                self.user = Some(user);
            }
            return Ok(());
        }
        let too_many = user.take(piece);
        if let Some(cause) = too_many {
            let line = format!("{place}: {}: not imported: {cause}", user.jid);
            return self.fault(&line);
        }
        self.user = Some(user);
        Ok(())
    }

    fn left_out(&mut self, kind: &str, count: u64) -> Result<(), Stop> {
        let is_known = self.left_out.contains_key(kind);
        let kind =
            if is_known || self.left_out.len() < KINDS_MAX { kind } else { "other elements" };
        add(&mut self.left_out, kind, count);
        Ok(())
    }

    fn faulty(&mut self, fault: &str, place: &Place) -> Result<(), Stop> {
        let line = match &self.user {
            Some(user) => format!("{place}: {}: {fault}", user.jid),
            None => format!("{place}: {fault}"),
        };
        self.fault(&line)
    }

    fn broken(&mut self, fault: &str, place: &Place) -> Result<(), Stop> {
        let line = match self.user.take() {
            Some(user) if user.started && !self.wanted.dry_run => {
                format!("{place}: {}: {IN_PART}: {fault}; {AGAIN}", user.jid)
            }
            Some(user) => format!("{place}: {}: not imported: {fault}", user.jid),
            None => format!("{place}: {fault}"),
        };
        self.fault(&line)
    }

    fn end(&mut self) -> Result<(), Stop> {
        match self.user.take() {
            Some(user) => self.land(user),
            None => Ok(()),
        }
    }
}
