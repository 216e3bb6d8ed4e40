//! The records that the store keeps.

use crate::base::instant::Wall;
pub use crate::frame::Origin;
use crate::xmpp::credentials::Credentials;
use crate::xmpp::jid::Jid;

/// Store partitions: fixed for the life of a database, independent of cores and nodes.
pub const STORE_PARTITIONS: u16 = 64;

/// Slots whose names begin so are large and rarely wanted: they are read on their own. Sorts behind all letters.
pub const LAZY_SLOT: char = '~';

/// How far the rows of a log are counted when an account is read.
pub const LOG_ROWS_COUNTED: u32 = 100_000;

/// The highest id that a log entry can have; a commit with one above it fails. Blocks of ids start at 1.
pub const LOG_ID_MAX: u64 = i64::MAX as u64;

/// All that is needed to serve an account, read in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    pub credentials: Credentials,
    pub disabled: bool,
    pub roster: Vec<RosterItem>,
    /// Rises with each roster change; 0 for a roster never touched.
    pub roster_version: u64,
    /// State that features keep with the account, by slot name; without the lazy ones.
    pub slots: Vec<(String, Vec<u8>)>,
    /// Rows of the owner's log that wait to be confirmed, counted up to `LOG_ROWS_COUNTED`.
    pub log_rows: u32,
    /// The time of the newest row of its archive; zero where there is none.
    pub archived_at: Wall,
}

/// One contact (RFC 6121 §2.1). The contact may be a domain or a bare JID, rarely a full one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterItem {
    pub jid: Jid,
    pub name: String,
    pub groups: Vec<String>,
    pub subscription: Subscription,
    /// We asked to see the contact's presence and have no answer yet ("pending out").
    pub ask: bool,
    /// The contact asked to see ours; the request as it came, to be shown at each login ("pending in").
    pub pending_in: Option<Vec<u8>>,
    /// We allowed the contact to subscribe before it asked (RFC 6121 §3.4).
    pub approved: bool,
    /// It is in the roster that clients see. One that is not is there for its request alone ("None + Pending In").
    pub listed: bool,
}

impl RosterItem {
    /// A contact in the roster, of whom there is nothing but the address.
    pub fn new(jid: Jid) -> Self {
        Self {
            jid,
            name: String::new(),
            groups: Vec::new(),
            subscription: Subscription::None,
            ask: false,
            pending_in: None,
            approved: false,
            listed: true,
        }
    }
}

/// RFC 6121 §2.1.2.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subscription {
    #[default]
    None,
    To,
    From,
    Both,
}

/// Newest rows of a log among which an origin is looked for, for each of the two things that rows are kept for.
pub const ORIGIN_ROWS: u32 = 4_096;

/// What a row of a log is kept for. Offline messages and the archive are views of the one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Until one of the owner's clients has confirmed it; for a remote domain, until it was handed over or answered.
    Pending,
    /// As long as the archive lasts.
    Archived,
    /// Until it is confirmed it is pending, too.
    Both,
}

impl Keep {
    pub fn new(pending: bool, archived: bool) -> Option<Self> {
        match (pending, archived) {
            (true, true) => Some(Keep::Both),
            (true, false) => Some(Keep::Pending),
            (false, true) => Some(Keep::Archived),
            (false, false) => None,
        }
    }

    pub fn is_pending(self) -> bool {
        self != Keep::Archived
    }

    pub fn is_archived(self) -> bool {
        self != Keep::Pending
    }
}

/// One row of an owner's log: a store-eligible message, as it will be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Rises per owner, never reused (from a reserved block).
    pub id: u64,
    /// Nearly rises with the id: see `ArchiveQuery::disorder_us`.
    pub at: Wall,
    /// The other side of the conversation, with the resource that it had.
    pub with: Jid,
    pub keep: Keep,
    pub origin: Origin,
    /// The whole stanza, self-contained.
    pub stanza: Vec<u8>,
    /// Where the open tag of `stanza` ends and its close tag starts, so that a delay stamp can be put in.
    pub open_end: u32,
    pub close_start: u32,
}

/// How far numbers are given that must never be given again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The first id that was never given, by store partition; none where it is 1.
    pub next_ids: Vec<(u16, u64)>,
    /// Of the last opening.
    pub incarnation: u64,
}

/// How far the counters of a copy are ahead of its original's.
pub(super) const IDS_AHEAD: u64 = 1 << 32;
pub(super) const INCARNATIONS_AHEAD: u64 = 1 << 20;

impl Counters {
    /// As they must be where the database was put back to an older state: what was given after that must not be given again,
    /// as clients know it. There was less of it than this.
    pub fn ahead(&self) -> Self {
        let next_ids = (0..STORE_PARTITIONS).map(|partition| {
            let known = self.next_ids.iter().find(|(known, _)| *known == partition);
            let next = known.map_or(1, |(_, next)| *next);
            let ahead = next.saturating_add(IDS_AHEAD).min(LOG_ID_MAX - IDS_AHEAD);
            (partition, ahead.max(next))
        });
        let incarnation = self.incarnation.saturating_add(INCARNATIONS_AHEAD);
        Self { next_ids: next_ids.collect(), incarnation: incarnation.min(LOG_ID_MAX) }
    }

    /// The highest id that was given, by whatever partition; 0 for none.
    pub fn id_max(&self) -> u64 {
        self.next_ids.iter().map(|(_, next)| next.saturating_sub(1)).max().unwrap_or(0)
    }
}

/// For which hashes of SCRAM some account has no keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LacksKeys {
    pub sha1: bool,
    pub sha256: bool,
    pub sha512: bool,
}
