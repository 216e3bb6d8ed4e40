//! What a check of a store finds, and the rules that all kinds of database share. The kinds look for themselves.

use super::STORE_PARTITIONS;
use crate::xmpp::jid::{BareJid, Jid};

/// Problems of one kind that are told one by one.
pub(super) const TOLD_MAX: usize = 100;

pub(super) const MOVE: &str = "copy all that is sound to a new database with: corefire store move";
pub(super) const RESTORE: &str = "restore the database from a backup";

/// What was looked at and found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Rows by table.
    pub rows: Vec<(&'static str, u64)>,
    /// A line each: what is so, and how to mend it.
    pub problems: Vec<String>,
    /// All of them.
    pub count: u64,
}

impl Checked {
    /// - takes: how many of its kind were told before
    pub(super) fn tell(&mut self, before: usize, line: impl FnOnce() -> String) {
        self.count += 1;
        if before < TOLD_MAX {
            self.problems.push(line());
        }
    }
}

/// The first id that each store partition has not given yet: no row has one that could be given again.
pub(super) struct NextIds {
    /// The store partition of an address by its `hash64`.
    partition_of: fn(u64) -> u16,
    next: Vec<i64>,
    told: usize,
}

impl NextIds {
    pub(super) fn new(partition_of: fn(u64) -> u16) -> Self {
        Self { partition_of, next: vec![1; usize::from(STORE_PARTITIONS)], told: 0 }
    }

    /// As it is kept for `partition`.
    pub(super) fn put(&mut self, partition: i64, first: i64, checked: &mut Checked) {
        let known = usize::try_from(partition).ok().and_then(|at| self.next.get_mut(at));
        match known {
            Some(known) if first > 0 => *known = first,
            _ => {
                let before = checked.problems.len();
                checked.tell(before, || {
                    format!("the partition {partition} has {first} as its next id; {RESTORE}")
                });
            }
        }
    }

    /// Looks at the newest message of an owner.
    pub(super) fn look(&mut self, owner: &str, newest: i64, checked: &mut Checked) {
        // One that is no address was told.
        let Ok(address) = BareJid::parse(owner) else { return };
        let partition = (self.partition_of)(address.hash64());
        let given = self.next.get(usize::from(partition)).copied().unwrap_or(1);
        if newest >= given {
            checked.tell(self.told, || {
                format!(
                    "the message {newest} of {owner} has an id that its partition {partition} gives only from \
                     {given} on; {RESTORE}, or {MOVE}"
                )
            });
            self.told += 1;
        }
    }
}

/// What is wrong with an address as it is kept, if anything is.
pub(super) fn address_fault(text: &str, is_account: bool) -> Option<&'static str> {
    match Jid::parse(text) {
        Ok(jid) if jid.to_string() != text => Some("is not prepared"),
        Ok(jid) if is_account && (jid.local().is_none() || !jid.is_bare()) => {
            Some("is no address of an account")
        }
        Ok(_) => None,
        Err(_) => Some("is no address"),
    }
}

/// What is wrong with a contact as it is kept, if anything is.
///
/// - takes: `groups`, a JSON array of strings; whether the number of its `subscription` is one that is known
pub(super) fn contact_fault(
    contact: &str,
    groups: &str,
    is_known_subscription: bool,
) -> Option<&'static str> {
    if Jid::parse(contact).is_err() {
        Some("is no address")
    } else if serde_json::from_str::<Vec<String>>(groups).is_err() {
        Some("has groups that cannot be read")
    } else if !is_known_subscription {
        Some("has an unknown subscription")
    } else {
        None
    }
}
