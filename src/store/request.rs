//! What can be asked of the store, and what it answers. Each write is one change of one owner.

use super::record::{AccountRecord, LogEntry, RosterItem};
use crate::xmpp::credentials::Credentials;
use crate::xmpp::jid::{BareJid, Jid};

/// A change. A batch of them is one transaction; each succeeds or is refused on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
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
    /// The owner's clients confirmed these rows; without an archive they go.
    ConfirmLog {
        owner: BareJid,
        ids: Vec<u64>,
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
            | Write::ConfirmLog { owner, .. } => Some(owner),
            Write::ReserveIds { .. } => None,
        }
    }
}

/// What became of a `Write`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    /// `CreateAccount` for one that exists; nothing changed.
    Exists,
    /// The owner has no account; nothing changed.
    NoAccount,
    /// The block is `first .. first + count`.
    Reserved {
        first: u64,
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
    /// Unconfirmed rows of the owner's log with `id > after`, oldest first.
    Log {
        owner: BareJid,
        after: u64,
        limit: u32,
    },
    /// Accounts in the order of their text, after `after`.
    Accounts {
        /// Of this domain only.
        domain: Option<String>,
        only_disabled: bool,
        after: Option<BareJid>,
        limit: u32,
    },
    /// Is there an account without keys for SCRAM-SHA-512?
    LacksSha512,
    /// How many accounts a domain has. Looks at all of them.
    CountAccounts {
        domain: String,
    },
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
    Accounts(Vec<BareJid>),
    LacksSha512(bool),
    Counted {
        accounts: u64,
        /// Of these.
        disabled: u64,
    },
}
