//! What a check of a store finds, and the rules that all kinds of database share. The kinds look for themselves.

use crate::xmpp::jid::Jid;

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
