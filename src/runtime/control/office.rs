//! Runs the errands of shards: the same work on accounts as the control socket's, and what concerns all shards.

use super::Password;
use super::accounts::{self, Accounts, Fault, News};
use crate::shard::errand::{AccountFacts, Announcement, Counts, Errand, Outcome, Secret, Which};
use crate::shard::{Quarantine, Slot};
use crate::store::{Answer, Query, Write};
use crate::xmpp::jid::{BareJid, Jid};
use std::net::IpAddr;
use std::time::Duration;

/// Accounts of one page while a list is gathered.
const PAGE: u32 = 1_000;

/// A node with its shards.
pub trait Office: Accounts {
    /// Whether a stranger may make an account now.
    fn admit(&mut self, peer: IpAddr) -> bool;

    /// Of an account's sessions.
    ///
    /// - errors: the node that has them, which gave no answer in time
    fn resources(&mut self, of: &BareJid) -> Result<Vec<String>, String>;

    /// The first `limit` users of a domain that are found, and how many there are.
    fn users(&mut self, domain: &str, which: Which, limit: usize) -> Found;

    /// Gives how many sessions it ended.
    ///
    /// - errors: the node that has them, which gave no answer in time
    fn end_sessions(&mut self, jid: &Jid) -> Result<u64, String>;

    /// Gives the nodes that did not say that they have announced it.
    fn announce(&mut self, announcement: &Announcement) -> Vec<String>;

    /// Ends the node after `delay`. False where it is to end already.
    fn stop(&mut self, delay: Duration) -> bool;
}

/// Users of a domain, at all nodes but those that are `silent`.
#[derive(Debug, Default)]
pub struct Found {
    pub jids: Vec<BareJid>,
    pub counts: Counts,
    pub silent: Vec<String>,
}

/// Runs an errand and answers it once. Blocks for the store, the shards and the derivation of keys.
pub fn run(office: &mut dyn Office, errand: Errand, answer: &mut dyn FnMut(Outcome)) {
    let outcome = match errand {
        Errand::Register { jid, password, peer, quarantine } => {
            register(office, &jid, password, peer, quarantine)
        }
        Errand::Unregister { jid } => {
            return match accounts::remove_untold(office, &jid) {
                Ok(news) => {
                    answer(Outcome::Done);
                    office.tell(vec![news]);
                }
                Err(fault) => answer(outcome(Err(fault))),
            };
        }
        Errand::CreateAccount { jid, password } => {
            outcome(accounts::create(office, &jid, &known(password)))
        }
        Errand::ChangePassword { jid, password } | Errand::SetPassword { jid, password } => {
            outcome(accounts::set_password(office, &jid, &known(password)))
        }
        Errand::DeleteAccounts { jids } => each(jids, |jid| accounts::remove(office, jid)),
        Errand::SetDisabled { jids, disabled } => {
            each(jids, |jid| accounts::set_disabled(office, jid, disabled))
        }
        Errand::EndSessions { jids } => {
            let (mut unknown, mut silent) = (Vec::new(), Vec::new());
            for jid in jids {
                match office.end_sessions(&jid) {
                    Ok(0) => unknown.push(jid),
                    Ok(_) => {}
                    Err(node) => silent.push(node),
                }
            }
            let done = if unknown.is_empty() { Outcome::Done } else { Outcome::Unknown(unknown) };
            without(silent, done)
        }
        Errand::Account { jid } => account(office, &jid),
        Errand::Accounts { domain, only_disabled, limit } => {
            list(office, &domain, only_disabled, limit)
        }
        Errand::Users { domain, which, limit } => {
            let Found { jids, counts, silent } = office.users(&domain, which, limit);
            let all = match which {
                Which::Online => counts.online,
                Which::Active => counts.active,
                Which::Idle => counts.online - counts.active,
            };
            let more = all > jids.len() as u64;
            without(silent, Outcome::Jids { jids, more })
        }
        Errand::Count { domain } => {
            let Found { counts, silent, .. } = office.users(&domain, Which::Online, 0);
            match office.read(Query::CountAccounts { domain: domain.as_ref().to_owned() }) {
                Ok(Answer::Counted { accounts, disabled }) => {
                    without(silent, Outcome::Counts(Counts { accounts, disabled, ..counts }))
                }
                _ => Outcome::Failed,
            }
        }
        Errand::Announce(announcement) => without(office.announce(&announcement), Outcome::Done),
        Errand::Stop { delay, announcement } => match office.stop(delay) {
            true => {
                let silent = announcement.map(|announcement| office.announce(&announcement));
                without(silent.unwrap_or_default(), Outcome::Done)
            }
            false => Outcome::Busy,
        },
    };
    answer(outcome);
}

fn without(mut nodes: Vec<String>, outcome: Outcome) -> Outcome {
    nodes.sort();
    nodes.dedup();
    if nodes.is_empty() { outcome } else { Outcome::Without(nodes, Box::new(outcome)) }
}

fn known(password: Secret) -> Password {
    Password(password.0)
}

fn outcome(done: Result<(), Fault>) -> Outcome {
    match done {
        Ok(()) => Outcome::Done,
        Err(Fault::Exists(_)) => Outcome::Exists,
        Err(Fault::Missing(jid)) => Outcome::Unknown(vec![jid.into()]),
        Err(Fault::Refused(cause)) => Outcome::Refused(cause),
        Err(fault @ (Fault::Store(_) | Fault::Odd)) => {
            tracing::error!("work on an account has failed: {fault}");
            Outcome::Failed
        }
    }
}

fn each(jids: Vec<BareJid>, mut work: impl FnMut(&BareJid) -> Result<(), Fault>) -> Outcome {
    let mut unknown = Vec::new();
    for jid in jids {
        match outcome(work(&jid)) {
            Outcome::Done => {}
            Outcome::Unknown(jids) => unknown.extend(jids),
            other => return other,
        }
    }
    if unknown.is_empty() { Outcome::Done } else { Outcome::Unknown(unknown) }
}

fn register(
    office: &mut dyn Office,
    jid: &BareJid,
    password: Secret,
    peer: IpAddr,
    quarantine: Option<Quarantine>,
) -> Outcome {
    if !office.admit(peer) {
        return Outcome::TooMany;
    }
    // Before keys are derived, which is dear, and would tell by the time it takes what the answer tells anyway.
    match accounts::record(office, jid) {
        Ok(None) => {}
        Ok(Some(_)) => return Outcome::Exists,
        Err(fault) => return outcome(Err(fault)),
    }
    let made = outcome(accounts::create(office, jid, &known(password)));
    let (Outcome::Done, Some(quarantine)) = (&made, quarantine) else { return made };
    // Not in one transaction: a write for an account that turns out to be another's would be carried out.
    let slot = Write::PutSlot {
        owner: jid.clone(),
        name: <Quarantine as Slot>::NAME.to_owned(),
        value: Some(quarantine.to_bytes()),
    };
    match office.write(vec![slot]) {
        Ok(_) => office.tell(vec![News::Changed(jid.clone())]),
        // Without its quarantine nobody gets it.
        Err(error) => {
            return match accounts::remove(office, jid) {
                Ok(()) => outcome(Err(error.into())),
                Err(fault) => outcome(Err(fault)),
            };
        }
    }
    made
}

fn account(office: &mut dyn Office, jid: &BareJid) -> Outcome {
    match accounts::record(office, jid) {
        Ok(None) => Outcome::Account(None),
        Ok(Some(record)) => {
            let (resources, silent) = match office.resources(jid) {
                Ok(resources) => (resources, Vec::new()),
                Err(node) => (Vec::new(), vec![node]),
            };
            let facts = AccountFacts {
                disabled: record.disabled,
                roster: record.roster,
                slots: record.slots,
                log_rows: record.log_rows,
                resources,
            };
            without(silent, Outcome::Account(Some(Box::new(facts))))
        }
        Err(fault) => outcome(Err(fault)),
    }
}

fn list(office: &mut dyn Office, domain: &str, only_disabled: bool, limit: usize) -> Outcome {
    let mut found: Vec<BareJid> = Vec::new();
    loop {
        // One more than asked for tells whether there are more.
        let wanted = u32::try_from(limit + 1 - found.len()).unwrap_or(PAGE).min(PAGE);
        let query = Query::Accounts {
            domain: Some(domain.to_owned()),
            only_disabled,
            after: found.last().cloned(),
            limit: wanted,
        };
        let Ok(Answer::Accounts(jids)) = office.read(query) else { return Outcome::Failed };
        let end = jids.len() < wanted as usize;
        found.extend(jids);
        if end || found.len() > limit {
            let more = found.len() > limit;
            found.truncate(limit);
            return Outcome::Jids { jids: found, more };
        }
    }
}
