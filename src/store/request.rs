//! What can be asked of the store, and what it answers. Each write is one change of one owner.

use super::record::{AccountRecord, Counters, Keep, LacksKeys, LogEntry, Origin, RosterItem};
use crate::base::instant::Wall;
use crate::xmpp::credentials::Credentials;
use crate::xmpp::jid::{BareJid, Jid};

/// A change. A batch of them is one transaction; each succeeds or is refused on its own.
///
/// An owner without a local part is a remote domain, and its log is what waits to be sent there. It has no account: see
/// [`Write::is_of_domain`] for all that can be written of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// `NoAccount` for a domain, which can have none.
    CreateAccount {
        owner: BareJid,
        credentials: Credentials,
    },
    /// With all that belongs to it.
    DeleteAccount {
        owner: BareJid,
    },
    SetCredentials {
        owner: BareJid,
        credentials: Credentials,
    },
    SetDisabled {
        owner: BareJid,
        disabled: bool,
    },
    /// Sets the items (by their JID) and removes others; `version` becomes the roster's.
    PutRoster {
        owner: BareJid,
        set: Vec<RosterItem>,
        remove: Vec<Jid>,
        version: u64,
    },
    /// `None` removes the slot. One whose name begins with `LAZY_SLOT` is not read with the account.
    PutSlot {
        owner: BareJid,
        name: String,
        value: Option<Vec<u8>>,
    },
    /// Appends to the owner's log; an (owner, id) that is there already is left as it is.
    AppendLog {
        owner: BareJid,
        entry: LogEntry,
    },
    /// The owner's clients confirmed these rows: those in the archive are pending no more, others go.
    ConfirmLog {
        owner: BareJid,
        ids: Vec<u64>,
    },
    /// Puts another stanza into a row of the log, whose place, time and addresses stay. Nothing where there is no such
    /// row.
    ReplaceLog {
        owner: BareJid,
        id: u64,
        stanza: Vec<u8>,
        open_end: u32,
        close_start: u32,
    },
    /// Takes rows out of the archive, from the oldest on, never past one that stays: those whose time is before `before`,
    /// and those that have `keep` newer ones. Pending ones stay pending.
    PruneArchive {
        owner: BareJid,
        before: Wall,
        keep: u64,
        /// Rows at most.
        limit: u32,
    },
    /// Raises counters to at least these: a store that takes over what another one kept must not give again what that one
    /// gave. None is ever lowered.
    RaiseCounters {
        counters: Counters,
    },
    /// Takes a block of `count` ids for a store partition; never given again, whatever happens.
    ReserveIds {
        partition: u16,
        count: u32,
    },
}

impl Write {
    /// Whose state it changes; a block of ids is nobody's.
    pub fn owner(&self) -> Option<&BareJid> {
        match self {
            Write::CreateAccount { owner, .. }
            | Write::DeleteAccount { owner }
            | Write::SetCredentials { owner, .. }
            | Write::SetDisabled { owner, .. }
            | Write::PutRoster { owner, .. }
            | Write::PutSlot { owner, .. }
            | Write::AppendLog { owner, .. }
            | Write::ConfirmLog { owner, .. }
            | Write::ReplaceLog { owner, .. }
            | Write::PruneArchive { owner, .. } => Some(owner),
            Write::RaiseCounters { .. } | Write::ReserveIds { .. } => None,
        }
    }

    /// Whether it is of the rows that wait for a remote domain: these are appended as `Pending` and confirmed, and all else
    /// that names a domain as its owner is answered `NoAccount`. So a domain has no archive, no slots and no roster, and
    /// nothing of it is left when its last row is confirmed.
    pub fn is_of_domain(&self) -> bool {
        match self {
            Write::AppendLog { owner, entry } => {
                owner.local().is_none() && entry.keep == Keep::Pending
            }
            Write::ConfirmLog { owner, .. } => owner.local().is_none(),
            _ => false,
        }
    }
}

/// What became of a `Write`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    /// `CreateAccount` for one that exists; nothing changed.
    Exists,
    /// The owner has no account, or is a domain that cannot have what was to be written; nothing changed.
    NoAccount,
    /// The block is `first .. first + count`.
    Reserved {
        first: u64,
    },
    /// So many rows left the archive; `more`: the limit left some in it that should go.
    Pruned {
        rows: u32,
        more: bool,
    },
}

/// A question. Sees all that was committed before it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    Account {
        owner: BareJid,
    },
    /// The value of one slot, whether or not it is read with the account.
    Slot {
        owner: BareJid,
        name: String,
    },
    /// Pending rows of the owner's log with `id > after`, oldest first. What the archive holds costs nothing.
    Log {
        owner: BareJid,
        after: u64,
        limit: u32,
    },
    Archive(Box<ArchiveQuery>),
    /// The oldest and the newest row of the archive up to the id `up_to`.
    ArchiveEnds {
        owner: BareJid,
        up_to: u64,
    },
    /// Which of the messages with these origins are among the newest rows of the owner's log, of those from `since` on. All
    /// are looked for in one walk.
    Origins {
        owner: BareJid,
        origins: Vec<Origin>,
        since: Wall,
    },
    /// Accounts in the order of their text, after `after`.
    Accounts {
        /// Of this domain only.
        domain: Option<String>,
        only_disabled: bool,
        after: Option<BareJid>,
        limit: u32,
    },
    /// For which hashes of SCRAM is there an account without keys?
    LacksKeys,
    /// The names of all slots of an account, in their order; none where there is no account.
    SlotNames {
        owner: BareJid,
    },
    /// How far numbers are given.
    Counters,
    /// How many accounts a domain has. Looks at all of them.
    CountAccounts {
        domain: String,
    },
    /// Remote domains that have pending rows, in the order of their text, after `after`. Who may send them asks after each
    /// start and each change of the configuration, also for what is not to be sent any more: rows of a domain that has become
    /// one of our own, or that is blocked, go only when they are confirmed.
    ///
    /// - cost: a look at each domain that ever was an owner or a correspondent, whatever the number of accounts
    RemoteLogs {
        after: Option<BareJid>,
        limit: u32,
    },
}

impl Query {
    /// Whose state it asks for; `None` where it is not one owner's.
    pub fn owner(&self) -> Option<&BareJid> {
        match self {
            Query::Account { owner }
            | Query::Slot { owner, .. }
            | Query::SlotNames { owner }
            | Query::Log { owner, .. }
            | Query::Origins { owner, .. }
            | Query::ArchiveEnds { owner, .. } => Some(owner),
            Query::Archive(query) => Some(&query.owner),
            Query::Accounts { .. }
            | Query::CountAccounts { .. }
            | Query::RemoteLogs { .. }
            | Query::LacksKeys
            | Query::Counters => None,
        }
    }
}

/// A page of an owner's archive. A row is shown if it passes every filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveQuery {
    pub owner: BareJid,
    /// Messages with this address; a bare one stands for all its resources, and for itself.
    pub with: Option<Jid>,
    /// From and up to this time, both included.
    pub start: Option<Wall>,
    pub end: Option<Wall>,
    /// Ids above and below these, which need not be there.
    pub after_id: Option<u64>,
    pub before_id: Option<u64>,
    /// Only these, where any are named; a bounded list.
    pub ids: Option<Vec<u64>>,
    /// Ids up to this one: what came since the question was asked is left for the next.
    pub up_to: u64,
    /// How far, in microseconds, the time of a row may lie behind that of an earlier one in this archive. As far as that
    /// holds, `start` and `end` are exact, and are found without a walk through the whole archive.
    pub disorder_us: u64,
    pub page: Page,
    /// Rows of the page at most; 0 asks for the count alone.
    pub max: u32,
    /// How far the rows that pass the filters are counted, on whatever page they are; 0 for no count.
    pub count_max: u32,
}

/// Which page. Positions are ids that need not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The oldest ones above this id.
    After(u64),
    /// The newest ones below this id. They are given oldest first, too.
    Before(u64),
}

impl ArchiveQuery {
    /// Everything, from the oldest on.
    pub fn all(owner: BareJid, max: u32) -> Self {
        Self {
            owner,
            with: None,
            start: None,
            end: None,
            after_id: None,
            before_id: None,
            ids: None,
            up_to: u64::MAX,
            disorder_us: 0,
            page: Page::After(0),
            max,
            count_max: 0,
        }
    }

    /// Whether a row of the archive passes the filters, on whatever page it is.
    pub fn passes(&self, entry: &LogEntry) -> bool {
        let (above, below) = self.id_bounds();
        let with = self.with.as_ref();
        entry.id > above
            && entry.id < below
            && with.is_none_or(|with| {
                with.bare() == entry.with.bare() && (with.is_bare() || *with == entry.with)
            })
            && self.start.is_none_or(|start| entry.at >= start)
            && self.end.is_none_or(|end| entry.at <= end)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&entry.id))
    }

    /// The ids that the filters let through, page or not: above the first, below the second.
    pub fn id_bounds(&self) -> (u64, u64) {
        let below = self.before_id.unwrap_or(u64::MAX).min(self.up_to.saturating_add(1));
        (self.after_id.unwrap_or(0), below)
    }

    /// As `id_bounds`, of the page.
    pub fn page_bounds(&self) -> (u64, u64) {
        let (above, below) = self.id_bounds();
        match self.page {
            Page::After(id) => (above.max(id), below),
            Page::Before(id) => (above, below.min(id)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Account(Option<Box<AccountRecord>>),
    /// `None` where there is no such slot, or no such account.
    Slot(Option<Vec<u8>>),
    /// `more`: there are rows past the last one.
    Log {
        entries: Vec<LogEntry>,
        more: bool,
    },
    Archive {
        /// Oldest first.
        entries: Vec<LogEntry>,
        /// Nothing passes the filters beyond this page, in the direction of the paging.
        complete: bool,
        /// `None` where more pass than were to be counted, or none were.
        count: Option<u64>,
    },
    ArchiveEnds(Option<ArchiveEnds>),
    /// Of each, in the order of the query.
    Origins(Vec<bool>),
    Accounts(Vec<BareJid>),
    LacksKeys(LacksKeys),
    SlotNames(Vec<String>),
    Counters(Counters),
    Counted {
        accounts: u64,
        /// Of these.
        disabled: u64,
    },
    /// As many as were asked for, unless these are the last.
    RemoteLogs(Vec<BareJid>),
}

/// The oldest and the newest row of an archive, which may be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveEnds {
    pub first: (u64, Wall),
    pub last: (u64, Wall),
}
