//! What is asked of accounts, carried out on any store: the running node's, or the data directory of one that is stopped.

use super::{
    AccountRequest, ControlResponse, ImportOutcome, ImportedAccount, LIST_MAX, Password, Place,
};
use crate::cluster::placement;
use crate::store::{Answer, Error, Query, Write, Written};
use crate::stream::sasl;
use crate::xmpp::credentials::Credentials;
use crate::xmpp::jid::{BareJid, Jid};

/// A store with accounts, and what the configuration says about them.
pub trait Accounts {
    /// The prepared domains that accounts may have.
    fn domains(&self) -> &[String];

    /// PBKDF2 rounds of new passwords.
    fn scram_iterations(&self) -> u32;

    /// Durable when it returns. A running node also tells the owners' shards: an account that is gone, or has another
    /// password, must not live on in their memory.
    fn write(&mut self, batch: Vec<Write>) -> Result<Vec<Written>, Error>;

    fn read(&mut self, query: Query) -> Result<Answer, Error>;
}

/// Carries `request` out. Blocks for the store and for the derivation of keys.
pub fn perform(accounts: &mut dyn Accounts, request: AccountRequest) -> ControlResponse {
    let done = match request {
        AccountRequest::Add { jid, password } => add(accounts, &jid, &password),
        AccountRequest::Import { accounts: list } => import(accounts, list),
        AccountRequest::List { after, limit } => list(accounts, after.as_deref(), limit),
        AccountRequest::Delete { jid } => delete(accounts, &jid),
        AccountRequest::SetPassword { jid, password } => set_password(accounts, &jid, &password),
    };
    done.unwrap_or_else(ControlResponse::error)
}

/// Reads the address of an account.
///
/// - errors: a line of cause and remedy: no address, no local part, or a domain not among `domains` (empty: any)
pub fn account_jid(text: &str, domains: &[String]) -> Result<BareJid, String> {
    let jid = BareJid::parse(text).map_err(|fault| {
        format!("{text:?} is no address of an account: {fault}; write NAME@DOMAIN")
    })?;
    if jid.local().is_none() {
        return Err(format!("{text:?} has no name before the domain; write NAME@{}", jid.domain()));
    }
    if !domains.is_empty() && !domains.iter().any(|domain| domain == jid.domain()) {
        return Err(format!(
            "{jid}: this server serves {}, not {}; add it to domains in the configuration",
            domains.join(", "),
            jid.domain()
        ));
    }
    Ok(jid)
}

/// Derives the keys of a new password, with salts from the system. Takes milliseconds.
///
/// - errors: a clause of cause and remedy
pub fn credentials(password: &Password, iterations: u32) -> Result<Credentials, String> {
    use ring::rand::{SecureRandom, SystemRandom};
    let random = SystemRandom::new();
    let mut is_random = true;
    let made = sasl::new_credentials(&password.0, iterations, &mut |salt| {
        is_random &= random.fill(salt).is_ok();
    });
    match made {
        Ok(credentials) if is_random => Ok(credentials),
        Ok(_) => Err("the system gave no random bytes; try again".to_owned()),
        Err(fault) => Err(format!("{fault}; choose another password")),
    }
}

/// Where an address lives when one node with so many shards serves alone. A resource says nothing about it.
///
/// - errors: a line of cause and remedy
pub fn place(jid: &str, node: &str, shards: u16) -> Result<Place, String> {
    let jid = Jid::parse(jid)
        .map_err(|fault| format!("{jid:?} is no address: {fault}; write NAME@DOMAIN or DOMAIN"))?
        .into_bare();
    let hash64 = jid.hash64();
    Ok(Place {
        jid: jid.as_str().to_owned(),
        hash64: format!("{hash64:016x}"),
        partition: placement::partition(hash64),
        node: node.to_owned(),
        shard: placement::shard_at(hash64, shards).0,
    })
}

fn add(
    accounts: &mut dyn Accounts,
    jid: &str,
    password: &Password,
) -> Result<ControlResponse, String> {
    let owner = account_jid(jid, accounts.domains())?;
    let credentials = credentials(password, accounts.scram_iterations())?;
    let written = write_one(accounts, Write::CreateAccount { owner: owner.clone(), credentials })?;
    match written {
        Written::Exists => Err(format!(
            "{owner}: the account exists; set its password with: corefire user passwd {owner} --password-stdin"
        )),
        _ => Ok(ControlResponse::Done),
    }
}

fn import(
    accounts: &mut dyn Accounts,
    list: Vec<ImportedAccount>,
) -> Result<ControlResponse, String> {
    let mut outcomes = vec![ImportOutcome::Created; list.len()];
    let mut batch = Vec::with_capacity(list.len());
    // Which of the list each write is.
    let mut positions = Vec::with_capacity(list.len());
    for (position, ImportedAccount { jid, credentials }) in list.into_iter().enumerate() {
        match account_jid(&jid, accounts.domains()) {
            Ok(owner) => {
                batch.push(Write::CreateAccount { owner, credentials });
                positions.push(position);
            }
            Err(cause) => outcomes[position] = ImportOutcome::Refused { cause },
        }
    }
    let written = if batch.is_empty() { Vec::new() } else { write(accounts, batch)? };
    for (position, written) in positions.into_iter().zip(written) {
        if written == Written::Exists {
            outcomes[position] = ImportOutcome::Exists;
        }
    }
    Ok(ControlResponse::Imported { outcomes })
}

fn list(
    accounts: &mut dyn Accounts,
    after: Option<&str>,
    limit: u32,
) -> Result<ControlResponse, String> {
    let after = after.map(|text| account_jid(text, &[])).transpose()?;
    let limit = limit.clamp(1, LIST_MAX);
    // One more than asked for tells whether there are more.
    let answer = accounts.read(Query::Accounts { after, limit: limit + 1 }).map_err(told)?;
    let Answer::Accounts(mut jids) = answer else { return Err(told_odd()) };
    let more = jids.len() > limit as usize;
    jids.truncate(limit as usize);
    let jids = jids.iter().map(|jid| jid.as_str().to_owned()).collect();
    Ok(ControlResponse::Accounts { jids, more })
}

/// Also of a domain that is not served any more.
fn delete(accounts: &mut dyn Accounts, jid: &str) -> Result<ControlResponse, String> {
    let owner = account_jid(jid, &[])?;
    match write_one(accounts, Write::DeleteAccount { owner: owner.clone() })? {
        Written::NoAccount => Err(no_account(&owner)),
        _ => Ok(ControlResponse::Done),
    }
}

fn set_password(
    accounts: &mut dyn Accounts,
    jid: &str,
    password: &Password,
) -> Result<ControlResponse, String> {
    let owner = account_jid(jid, &[])?;
    let credentials = credentials(password, accounts.scram_iterations())?;
    match write_one(accounts, Write::SetCredentials { owner: owner.clone(), credentials })? {
        Written::NoAccount => Err(no_account(&owner)),
        _ => Ok(ControlResponse::Done),
    }
}

fn no_account(owner: &BareJid) -> String {
    format!("{owner}: no such account; see: corefire user list")
}

fn write(accounts: &mut dyn Accounts, batch: Vec<Write>) -> Result<Vec<Written>, String> {
    let asked = batch.len();
    let written = accounts.write(batch).map_err(told)?;
    if written.len() == asked { Ok(written) } else { Err(told_odd()) }
}

fn write_one(accounts: &mut dyn Accounts, change: Write) -> Result<Written, String> {
    write(accounts, vec![change])?.pop().ok_or_else(told_odd)
}

fn told(error: Error) -> String {
    let remedy = match &error {
        Error::Open { .. } => "check the path and its owner",
        Error::TooNew { .. } => "use the newer program",
        Error::Damaged(_) => "restore the database from a backup",
        Error::Full => "free some space and try again",
        Error::Backend(_) => "nothing was changed; try again, and see the log of the node",
    };
    format!("{error}; {remedy}")
}

fn told_odd() -> String {
    "the store answered another question than was asked; this is a fault of the program: report it"
        .to_owned()
}
