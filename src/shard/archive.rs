//! The archive of an account (XEP-0313): which messages it takes, the copy that a sender keeps of its own, and the
//! tombstones of those that are taken back (XEP-0424). `features::archive` shows it; `offline.rs` appends what comes in.

use super::account::{Account, AccountId, Data, Slot};
use super::effect::{Effects, Ticket};
use super::input::StoreOutcome;
use super::session::SessionId;
use super::{AckLevel, Core, Shard, Waiting};
use crate::base::instant::Wall;
use crate::cluster::placement::store_partition;
use crate::frame::{Envelope, Flags};
use crate::store::{Answer, ArchiveQuery, Keep, LogEntry, Origin, Page, Query, Write};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::xml::reader::Index;
use crate::xmpp::xml::writer::Writer;

/// Microseconds by which cores may see the same moment apart: rows that are so little late are given the newest time.
const SKEW_US: u64 = 5_000_000;
/// Messages with one correspondent that are looked at to find the one that is taken back, and how many at a time.
const RETRACTION_REACH: u32 = 500;
const RETRACTION_PAGE: u32 = 50;
/// Such searches of one shard at a time; above, what is taken back stays in the archive, with the retraction behind it.
const RETRACTIONS: u32 = 16;

/// What is archived where neither list of the preferences has the other side (XEP-0441).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveDefault {
    #[default]
    Always,
    Never,
    /// Messages with contacts.
    Roster,
}

impl ArchiveDefault {
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Always, Self::Never, Self::Roster].into_iter().find(|one| one.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Never => "never",
            Self::Roster => "roster",
        }
    }
}

/// What a user wants to have archived (XEP-0441). Kept with the account.
///
/// Stored as lines: the default, then `+` or `-` and an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivePreferences {
    pub default: ArchiveDefault,
    /// Prepared addresses, sorted. A full one means that resource alone.
    pub always: Vec<Box<str>>,
    pub never: Vec<Box<str>>,
}

impl ArchivePreferences {
    /// `None` where the lists say nothing of the address. `never` goes first.
    fn listed(&self, address: &str) -> Option<bool> {
        let (bare, _) = super::deliver::split(address);
        let has = |list: &[Box<str>], what: &str| {
            list.binary_search_by(|item| (**item).cmp(what)).is_ok()
        };
        let among = |list: &[Box<str>]| has(list, address) || has(list, bare);
        match (among(&self.never), among(&self.always)) {
            (true, _) => Some(false),
            (false, true) => Some(true),
            (false, false) => None,
        }
    }

    /// `None` for what is so anyway.
    pub fn to_stored(&self) -> Option<Vec<u8>> {
        if *self == Self::default() {
            return None;
        }
        let mut text = self.default.name().to_owned();
        for (sign, list) in [('+', &self.always), ('-', &self.never)] {
            for address in list {
                text.push('\n');
                text.push(sign);
                text.push_str(address);
            }
        }
        Some(text.into_bytes())
    }
}

impl Slot for ArchivePreferences {
    const NAME: &'static str = "archive";

    fn load(stored: Option<&[u8]>) -> Self {
        let text = stored.and_then(|stored| std::str::from_utf8(stored).ok()).unwrap_or_default();
        let mut lines = text.lines();
        let mut preferences = Self::default();
        if let Some(default) = lines.next().and_then(ArchiveDefault::parse) {
            preferences.default = default;
        }
        for line in lines {
            match (line.strip_prefix('+'), line.strip_prefix('-')) {
                (Some(address), _) => preferences.always.push(address.into()),
                (_, Some(address)) => preferences.never.push(address.into()),
                (None, None) => {}
            }
        }
        preferences.always.sort_unstable();
        preferences.never.sort_unstable();
        preferences
    }
}

/// How far the time of a row lies behind that of an earlier one in this archive, at most, in microseconds: see
/// `ArchiveQuery::disorder_us`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disorder(pub u64);

impl Disorder {
    pub fn to_bytes(self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
}

impl Slot for Disorder {
    const NAME: &'static str = "archive.disorder";

    fn load(stored: Option<&[u8]>) -> Self {
        let bytes = stored.and_then(|stored| stored.try_into().ok());
        Self(bytes.map_or(0, u64::from_be_bytes))
    }
}

impl Data {
    /// The account was read: no row of its archive is newer than this.
    pub(super) fn begin_archive(&mut self) {
        let disorder = self.slot_in_use::<Disorder>().map_or(0, |disorder| disorder.0);
        self.archived_at.0 = self.archived_at.0.saturating_add(disorder);
    }

    /// The time of a new row of the archive. Times rise with the ids but where the clock was set back, or a message had to
    /// wait for long; by how much they fall is noted.
    ///
    /// - gives: the time, and what to keep of the disorder if it grew
    fn time_in_archive(&mut self, at: Wall) -> (Wall, Option<Vec<u8>>) {
        let late = self.archived_at.0.saturating_sub(at.0);
        if late <= SKEW_US {
            self.archived_at = self.archived_at.max(at);
            return (self.archived_at, None);
        }
        let disorder = self.slot::<Disorder>();
        let grown = late > disorder.0;
        disorder.0 = disorder.0.max(late);
        (at, grown.then(|| disorder.to_bytes()))
    }

    /// Whether a message with `address` goes into the archive, as its owner wants it.
    fn archives(&mut self, address: &str) -> bool {
        let Some(wanted) = self.slot_in_use::<ArchivePreferences>() else { return true };
        match (wanted.listed(address), wanted.default) {
            (Some(listed), _) => listed,
            (None, ArchiveDefault::Always) => true,
            (None, ArchiveDefault::Never) => false,
            (None, ArchiveDefault::Roster) => {
                let (bare, _) = super::deliver::split(address);
                self.roster.find(bare).is_some_and(|item| item.listed)
            }
        }
    }
}

/// A message that is looked for in an archive, because its sender takes it back. Nothing waits for it.
#[derive(Debug)]
pub(super) struct Retraction {
    /// The other side of the conversation, and who sent both messages (bare).
    with: BareJid,
    sender: Box<str>,
    /// The ids, in their sender's words, of the message and of the one that takes it back.
    id: Box<str>,
    by: Box<str>,
    at: Wall,
    /// Rows that are still to be looked at.
    left: u32,
}

impl Core {
    /// Whether a message of these flags goes into the archive of `account`.
    pub(super) fn is_archived(&mut self, account: AccountId, flags: Flags, with: &str) -> bool {
        self.config.archive
            && flags.contains(Flags::ARCHIVABLE)
            && !flags.contains(Flags::STAMPED)
            && self
                .accounts
                .get_mut(account.0)
                .and_then(Account::data)
                .is_some_and(|data| data.archives(with))
    }

    /// The time that a row of this kind gets.
    pub(super) fn time_of_row(
        &mut self,
        account: AccountId,
        keep: Keep,
        at: Wall,
        fx: &mut Effects,
    ) -> Wall {
        if !keep.is_archived() {
            return at;
        }
        let Some(slot) = self.accounts.get_mut(account.0) else { return at };
        let owner = slot.jid.clone();
        let Some(data) = slot.data() else { return at };
        let (at, disorder) = data.time_in_archive(at);
        if disorder.is_some() {
            let name = Disorder::NAME.to_owned();
            let ticket = self.ticket(Waiting::Log(account));
            fx.writes.push((ticket, Write::PutSlot { owner, name, value: disorder }));
            self.wrote(account);
        }
        at
    }

    /// A session's message is on its way: its account keeps a copy. The stanza is not handled before that is durable.
    ///
    /// - gives: the id of its row, if there is one by now
    pub(super) fn keep_sent(
        &mut self,
        session: SessionId,
        number: Option<u32>,
        to: &Jid,
        envelope: &Envelope<'_>,
        fx: &mut Effects,
    ) -> Option<u64> {
        let slot = self.sessions.get(session.0)?;
        let account = slot.account;
        // What one sends to oneself is archived where it arrives.
        if slot.jid.bare() == to.bare() || !self.is_archived(account, envelope.flags, envelope.to) {
            return None;
        }
        let owner = slot_owner(self.accounts.get(account.0))?;
        let sound = self.without_forged_ids(&owner, envelope);
        let (stanza, close_start) =
            sound.unwrap_or_else(|| (envelope.stanza.to_vec(), envelope.close_start));
        let at = self.time_of_row(account, Keep::Archived, envelope.ingress, fx);
        let entry = LogEntry {
            id: 0,
            at,
            with: to.clone(),
            keep: Keep::Archived,
            origin: Origin { incarnation: self.config.incarnation, ..Origin::default() },
            stanza,
            open_end: envelope.open_end,
            close_start,
        };
        let counters = self.sessions.get_mut(session.0).and_then(|slot| slot.counters.as_mut());
        let waiting = match (number, counters) {
            (Some(number), Some(counters)) if self.config.ack == AckLevel::Stored => {
                counters.hold(number);
                Waiting::Sent(session, number)
            }
            _ => Waiting::Nobody,
        };
        let ticket = self.ticket(waiting);
        let id = self.next_log_id(account, fx);
        match id {
            Some(id) => {
                let entry = LogEntry { id, ..entry };
                fx.writes.push((ticket, Write::AppendLog { owner: owner.clone(), entry }));
            }
            None => self.without_id(ticket, &owner, entry),
        }
        if envelope.flags.contains(Flags::RETRACTS) {
            self.retract(account, to.bare().clone(), envelope, fx);
        }
        id
    }

    /// A session has begun: the ids for what it sends are had before they are needed.
    pub(super) fn prepare_ids(&mut self, session: SessionId, fx: &mut Effects) {
        let jid = self.sessions.get(session.0).map(|slot| slot.jid.bare().hash64());
        if let Some(hash) = jid.filter(|_| self.config.archive) {
            self.ensure_ids(store_partition(hash), fx);
        }
    }

    /// A sent message as its account's other clients are shown it: with its id in the archive.
    pub(super) fn with_sent_id(
        &mut self,
        account: AccountId,
        row: u64,
        envelope: &Envelope<'_>,
    ) -> Option<Vec<u8>> {
        let slot = self.accounts.get(account.0).filter(|slot| slot.sessions.len() > 1)?;
        let owner = slot.jid.clone();
        let sound = self.without_forged_ids(&owner, envelope);
        let (stanza, close_start) = match &sound {
            Some((stanza, close_start)) => (&**stanza, *close_start),
            None => (envelope.stanza, envelope.close_start),
        };
        let (content, end) = stanza.split_at_checked(close_start as usize)?;
        let mut out = Vec::with_capacity(stanza.len() + 128);
        out.extend_from_slice(content);
        self.write_id(&mut out, &owner, Some(row));
        out.extend_from_slice(end);
        Some(out)
    }

    /// The row waits for the next block of ids.
    fn without_id(&mut self, ticket: Ticket, owner: &BareJid, row: LogEntry) {
        let block = &mut self.blocks[usize::from(store_partition(owner.hash64()))];
        block.rows.push_back((ticket, owner.clone(), row));
    }

    /// A message of a conversation takes an earlier one back: that is looked for in the archive.
    ///
    /// - source: XEP-0424, Tombstones
    pub(super) fn retract(
        &mut self,
        account: AccountId,
        with: BareJid,
        envelope: &Envelope<'_>,
        fx: &mut Effects,
    ) {
        if self.retractions >= RETRACTIONS {
            return;
        }
        let mut index = Index::default();
        let Some(stanza) = self.view(envelope.stanza, &mut index) else { return };
        let taken_back = stanza.children().find(|child| is_retraction(child.namespace, child.name));
        let (Some(id), Some(by)) = (
            taken_back.and_then(|child| child.attr("id")),
            stanza.id().filter(|id| !id.is_empty()),
        ) else {
            return;
        };
        let retraction = Retraction {
            with,
            sender: super::deliver::split(envelope.from).0.into(),
            id: (*id).into(),
            by: (*by).into(),
            at: self.now.wall,
            left: RETRACTION_REACH,
        };
        self.look_for(account, Box::new(retraction), u64::MAX, fx);
    }

    fn look_for(
        &mut self,
        account: AccountId,
        retraction: Box<Retraction>,
        before: u64,
        fx: &mut Effects,
    ) {
        let Some(owner) = slot_owner(self.accounts.get(account.0)) else { return };
        let query = ArchiveQuery {
            with: Some(Jid::from_bare(retraction.with.clone())),
            page: Page::Before(before),
            ..ArchiveQuery::all(owner, RETRACTION_PAGE)
        };
        self.retractions += 1;
        let ticket = self.ticket(Waiting::Retraction { account, retraction });
        fx.queries.push((ticket, Query::Archive(Box::new(query))));
    }

    /// The ids that the account's log was given so far end with this one, as far as it is known here.
    pub(super) fn last_log_id(&self, account: AccountId) -> u64 {
        let owner = self.accounts.get(account.0).map(|slot| slot.jid.hash64());
        let block = owner.and_then(|hash| self.blocks.get(usize::from(store_partition(hash))));
        block.and_then(|block| block.last()).unwrap_or(u64::MAX)
    }

    /// A question about the whole archive of an account, to be narrowed down.
    pub(super) fn archive_query(&mut self, account: AccountId) -> Option<ArchiveQuery> {
        let up_to = self.last_log_id(account);
        let slot = self.accounts.get_mut(account.0)?;
        let owner = slot.jid.clone();
        let disorder_us = slot.data()?.slot_in_use::<Disorder>().map_or(0, |disorder| disorder.0);
        Some(ArchiveQuery { up_to, disorder_us, ..ArchiveQuery::all(owner, 0) })
    }
}

impl Shard {
    /// A page of the archive in which a message is looked for that was taken back.
    pub(super) fn retraction_page(
        &mut self,
        account: AccountId,
        mut retraction: Box<Retraction>,
        outcome: StoreOutcome,
        fx: &mut Effects,
    ) {
        self.core.retractions = self.core.retractions.saturating_sub(1);
        let StoreOutcome::Answer(Answer::Archive { entries, complete, .. }) = outcome else {
            return;
        };
        let core = &mut self.core;
        for entry in entries.iter().rev() {
            let mut index = Index::default();
            let Some(stanza) = core.view(&entry.stanza, &mut index) else { continue };
            if !is_meant(&stanza, &retraction) {
                continue;
            }
            let Some(owner) = slot_owner(core.accounts.get(account.0)) else { return };
            let (open, close) = (entry.open_end as usize, entry.close_start as usize);
            let (Some(open), Some(close)) = (entry.stanza.get(..open), entry.stanza.get(close..))
            else {
                return;
            };
            let mut stone = open.to_vec();
            write_tombstone(&mut stone, &retraction);
            let close_start = u32::try_from(stone.len()).unwrap_or(0);
            stone.extend_from_slice(close);
            let ticket = core.ticket(Waiting::Nobody);
            let (id, open_end) = (entry.id, entry.open_end);
            let write = Write::ReplaceLog { owner, id, stanza: stone, open_end, close_start };
            fx.writes.push((ticket, write));
            return;
        }
        retraction.left = retraction.left.saturating_sub(RETRACTION_PAGE);
        if let Some(oldest) = entries.first()
            && !complete
            && retraction.left > 0
        {
            core.look_for(account, retraction, oldest.id, fx);
        }
    }

    /// Rows waited for a block of ids: it has come (or none can be had, and they are lost).
    pub(super) fn number_rows(&mut self, partition: u16, reserved: bool, fx: &mut Effects) {
        let rows = std::mem::take(&mut self.core.blocks[usize::from(partition)].rows);
        for (ticket, owner, entry) in rows {
            // One that met a bug was cut back.
            if !self.core.tickets.contains_key(&ticket) {
                continue;
            }
            if !reserved {
                self.stored(ticket, StoreOutcome::Failed, fx);
                continue;
            }
            // The account may be another shard's by now, which waits until this is written.
            match self.core.next_id_of(partition, fx) {
                Some(id) => {
                    let entry = LogEntry { id, ..entry };
                    fx.writes.push((ticket, Write::AppendLog { owner, entry }));
                }
                // More rows waited than the block has ids: the next is on its way.
                None => self.core.without_id(ticket, &owner, entry),
            }
        }
    }
}

fn slot_owner(slot: Option<&Account>) -> Option<BareJid> {
    slot.map(|slot| slot.jid.clone())
}

fn is_retraction(namespace: &str, name: &str) -> bool {
    namespace == ns::RETRACT && name == "retract"
}

/// Both must come from the same sender (XEP-0424, Business Rules). What is retracted already, or is a retraction
/// itself, stays as it is.
fn is_meant(stanza: &Stanza<'_>, retraction: &Retraction) -> bool {
    stanza.id().is_some_and(|id| *id == *retraction.id)
        && stanza.from().is_some_and(|from| *super::deliver::split(&from).0 == *retraction.sender)
        && !stanza.children().any(|child| child.namespace == ns::RETRACT)
}

fn write_tombstone(out: &mut Vec<u8>, retraction: &Retraction) {
    Writer::new(out)
        .start("retracted")
        .attr("xmlns", ns::RETRACT)
        .attr("id", &retraction.by)
        .attr("stamp", &crate::xmpp::datetime::format(retraction.at))
        .close_empty();
}
