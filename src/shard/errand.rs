//! Errands: what a shard has done elsewhere, because keys take milliseconds to derive and other owners' accounts and
//! other shards' sessions are not its own. A side thread runs them and answers; here are the values that pass.

use super::effect::ConnId;
use super::quarantine::Quarantine;
use crate::base::hash::Map;
use crate::base::instant::{Instant, Wall};
use crate::base::subnet::Subnet;
use crate::cluster::placement::NodeId;
use crate::store::RosterItem;
use crate::xmpp::jid::{BareJid, Jid};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A password in clear, on its way to the derivation of keys; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One piece of work for a side thread. Lists are bounded by who makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// An account that a stranger makes for itself (XEP-0077): rated by the stranger's network.
    Register {
        jid: BareJid,
        password: Secret,
        peer: IpAddr,
        quarantine: Option<Quarantine>,
    },
    /// The account goes at its user's wish; the asking session gets its answer before it ends.
    Unregister {
        jid: BareJid,
    },
    /// At the wish of its user.
    ChangePassword {
        jid: BareJid,
        password: Secret,
    },
    CreateAccount {
        jid: BareJid,
        password: Secret,
    },
    SetPassword {
        jid: BareJid,
        password: Secret,
    },
    DeleteAccounts {
        jids: Vec<BareJid>,
    },
    SetDisabled {
        jids: Vec<BareJid>,
        disabled: bool,
    },
    /// Bare: all sessions of the account; full: the one.
    EndSessions {
        jids: Vec<Jid>,
    },
    /// What is kept of an account, and its sessions.
    Account {
        jid: BareJid,
    },
    /// Accounts of a domain, the first `limit` of them in the order of their text.
    Accounts {
        domain: Arc<str>,
        only_disabled: bool,
        limit: usize,
    },
    /// Users of a domain who are online, the first `limit` that are found.
    Users {
        domain: Arc<str>,
        which: Which,
        limit: usize,
    },
    /// How many accounts and users a domain has.
    Count {
        domain: Arc<str>,
    },
    /// To every session of the domain that is available.
    Announce(Announcement),
    /// Ends the node after `delay`; everybody is told first where there is an announcement.
    Stop {
        delay: Duration,
        announcement: Option<Announcement>,
    },
}

/// What came of an errand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// There is an account of that name.
    Exists,
    /// These have no account, or no session to be ended; the others are done.
    Unknown(Vec<Jid>),
    /// The password cannot be one; a clause that says why.
    Refused(String),
    /// The stranger's network has made as many accounts as it may for now.
    TooMany,
    /// Too much waits already, or a stop is under way.
    Busy,
    /// Our own trouble: the store failed, or a fault of the program.
    Failed,
    Account(Option<Box<AccountFacts>>),
    /// `more`: there are others past the last one.
    Jids {
        jids: Vec<BareJid>,
        more: bool,
    },
    Counts(Counts),
    /// What came of it, but for these nodes of the cluster, which gave no answer in time.
    Without(Vec<String>, Box<Outcome>),
}

/// Which users are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Online,
    /// Something was heard from one of their clients within `IDLE_AFTER`.
    Active,
    /// Online and not active.
    Idle,
}

/// Silence of all clients of a user after which the user counts as idle.
pub const IDLE_AFTER: Duration = Duration::from_secs(600);

/// A message from the server to all who are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub domain: Arc<str>,
    pub subject: Option<String>,
    pub body: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFacts {
    pub disabled: bool,
    pub roster: Vec<RosterItem>,
    pub slots: Vec<(String, Vec<u8>)>,
    /// Messages that wait for its clients.
    pub log_rows: u32,
    /// Of its sessions.
    pub resources: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub accounts: u64,
    pub disabled: u64,
    pub online: u64,
    pub active: u64,
}

/// A session as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    pub jid: Jid,
    /// Its connection, by which the core knows its socket; `None` while the session waits to be resumed.
    pub conn: Option<ConnId>,
    /// Where its client is; `None` while the session waits to be resumed.
    pub peer: Option<IpAddr>,
    /// The node of its socket, where that is another one: the core's to say.
    pub front: Option<NodeId>,
    pub secure: bool,
    /// When it was bound.
    pub since: Wall,
    /// Since the client was last heard; `None` while the session waits to be resumed.
    pub idle: Option<Duration>,
    /// Priority of an available session.
    pub priority: Option<i8>,
    /// It can be resumed (XEP-0198).
    pub resumable: bool,
}

/// A part of a shard's sessions or users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub found: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<u32>,
}

/// How many accounts strangers may make, from one subnet and in all. One per node.
#[derive(Debug, Default)]
pub struct Registrations {
    since: Instant,
    made: u32,
    /// Made in this hour, so as many entries as there may be accounts.
    subnets: Map<Subnet, u32>,
}

/// Accounts that may be made in an hour.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    pub per_subnet: u32,
    pub in_all: u32,
}

impl Registrations {
    /// Counts an attempt, whatever comes of it: also the answer that a name is taken tells something.
    ///
    /// - gives: whether it may go on
    pub fn admit(&mut self, peer: IpAddr, shares: Shares, now: Instant) -> bool {
        if now.since(self.since) >= HOUR || self.made == 0 {
            self.since = now;
            self.made = 0;
            self.subnets.clear();
        }
        if self.made >= shares.in_all {
            return false;
        }
        let made = self.subnets.entry(Subnet::of(peer)).or_default();
        if *made >= shares.per_subnet {
            return false;
        }
        *made += 1;
        self.made += 1;
        true
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Whose sessions are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    Anyone,
    Account(BareJid),
}

/// Which users are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersQuery {
    pub domain: Arc<str>,
    pub which: Which,
    pub after: u32,
    pub limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_and_all_of_them_have_their_share_of_an_hour() {
        let mut registrations = Registrations::default();
        let mut admit =
            |peer, now| registrations.admit(peer, Shares { per_subnet: 2, in_all: 3 }, now);
        let at = |s: u64| Instant(s * 1_000_000_000);
        let from = |last: u8, net: u8| IpAddr::from([192, 0, net, last]);
        assert!(admit(from(1, 2), at(0)));
        assert!(admit(from(2, 2), at(1)));
        assert!(!admit(from(3, 2), at(2)), "the subnet has had its share");
        assert!(admit(from(1, 3), at(3)));
        assert!(!admit(from(1, 4), at(4)), "all have had theirs");
        assert!(!admit(from(1, 4), at(3_599)));
        assert!(admit(from(1, 2), at(3_600)));
    }
}
