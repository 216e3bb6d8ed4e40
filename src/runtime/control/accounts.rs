//! What is asked of accounts, carried out on any store: the running node's, or the data directory of one that is stopped.

use super::{
    AccountDetail, AccountRequest, ControlResponse, DETAILS_MAX, ImportOutcome, ImportedAccount,
    LIST_MAX, Password, Place, restore,
};
use crate::base::instant::Wall;
use crate::cluster::map::{Located, ShardMap};
use crate::shard::{Quarantine, Slot};
use crate::store::{AccountRecord, Answer, Error, Query, Write, Written};
use crate::stream::sasl;
use crate::xmpp::credentials::Credentials;
use crate::xmpp::datetime;
use crate::xmpp::jid::{BareJid, Jid};

/// A store with accounts, and what the configuration says about them.
pub trait Accounts {
    /// The prepared domains that accounts may have.
    fn domains(&self) -> &[String];

    /// PBKDF2 rounds of new passwords.
    fn scram_iterations(&self) -> u32;

    /// Durable when it returns.
    fn write(&mut self, batch: Vec<Write>) -> Result<Vec<Written>, Error>;

    fn read(&mut self, query: Query) -> Result<Answer, Error>;

    /// A running node tells the owners' shards: an account that is gone, or has another password, must not live on in
    /// their memory. When it returns they know.
    fn tell(&mut self, _news: Vec<News>) {}
}

/// What a shard must know of a change that was made behind its back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Changed(BareJid),
    /// Ids of the owner's store partition below `next` were given to rows of its log.
    IdsGiven {
        owner: BareJid,
        partition: u16,
        next: u64,
    },
    /// With who was on its roster.
    Deleted {
        owner: BareJid,
        contacts: Vec<Jid>,
    },
}

/// Why a change was not made; `Display` is a line of cause and remedy.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(
        "{0}: the account exists; set its password with: corefire user passwd {0} --password-stdin"
    )]
    Exists(BareJid),
    #[error("{0}: no such account; see: corefire user list")]
    Missing(BareJid),
    /// The password cannot be one.
    #[error("{0}")]
    Refused(String),
    #[error("{error}; {remedy}", error = .0, remedy = remedy(.0))]
    Store(#[from] Error),
    #[error(
        "the store answered another question than was asked; this is a fault of the program: report it"
    )]
    Odd,
}

/// Carries `request` out. Blocks for the store and for the derivation of keys.
pub fn perform(accounts: &mut dyn Accounts, request: AccountRequest) -> ControlResponse {
    let done = match request {
        AccountRequest::Add { jid, password } => add(accounts, &jid, &password),
        AccountRequest::Import { accounts: list } => import(accounts, list),
        AccountRequest::List { after, limit } => list(accounts, after.as_deref(), limit),
        AccountRequest::Details { after, limit } => details(accounts, after.as_deref(), limit),
        // From here on also of a domain that is not served any more.
        AccountRequest::Delete { jid } => on(&jid, |owner| remove(accounts, owner)),
        AccountRequest::SetPassword { jid, password } => {
            on(&jid, |owner| set_password(accounts, owner, &password))
        }
        AccountRequest::SetDisabled { jid, disabled } => {
            on(&jid, |owner| set_disabled(accounts, owner, disabled))
        }
        AccountRequest::Restore(step) => restore::step(accounts, step),
        AccountRequest::Release { jid } => on(&jid, |owner| release(accounts, owner)),
    };
    done.unwrap_or_else(ControlResponse::error)
}

fn on(
    jid: &str,
    work: impl FnOnce(&BareJid) -> Result<(), Fault>,
) -> Result<ControlResponse, String> {
    let owner = account_jid(jid, &[])?;
    work(&owner).map(|()| ControlResponse::Done).map_err(|fault| fault.to_string())
}

/// Makes an account. Takes milliseconds for its keys.
pub fn create(
    accounts: &mut dyn Accounts,
    owner: &BareJid,
    password: &Password,
) -> Result<(), Fault> {
    let credentials = credentials(password, accounts.scram_iterations()).map_err(Fault::Refused)?;
    change(accounts, owner, Write::CreateAccount { owner: owner.clone(), credentials })
}

pub fn set_password(
    accounts: &mut dyn Accounts,
    owner: &BareJid,
    password: &Password,
) -> Result<(), Fault> {
    let credentials = credentials(password, accounts.scram_iterations()).map_err(Fault::Refused)?;
    change(accounts, owner, Write::SetCredentials { owner: owner.clone(), credentials })
}

/// The sessions of a disabled account end, and nobody logs in to it.
pub fn set_disabled(
    accounts: &mut dyn Accounts,
    owner: &BareJid,
    disabled: bool,
) -> Result<(), Fault> {
    change(accounts, owner, Write::SetDisabled { owner: owner.clone(), disabled })
}

/// Ends the quarantine of an account that its user made in-band.
pub fn release(accounts: &mut dyn Accounts, owner: &BareJid) -> Result<(), Fault> {
    let name = <Quarantine as Slot>::NAME.to_owned();
    change(accounts, owner, Write::PutSlot { owner: owner.clone(), name, value: None })
}

/// Removes an account with all that belongs to it.
pub fn remove(accounts: &mut dyn Accounts, owner: &BareJid) -> Result<(), Fault> {
    let news = remove_untold(accounts, owner)?;
    accounts.tell(vec![news]);
    Ok(())
}

/// As `remove`, but what the shards must be told is left to the caller.
pub fn remove_untold(accounts: &mut dyn Accounts, owner: &BareJid) -> Result<News, Fault> {
    let record = record(accounts, owner)?.ok_or_else(|| Fault::Missing(owner.clone()))?;
    empty_archive(accounts, owner)?;
    let written = accounts.write(vec![Write::DeleteAccount { owner: owner.clone() }])?;
    match written.first() {
        Some(Written::Done) => {
            let contacts = record.roster.into_iter().map(|item| item.jid).collect();
            Ok(News::Deleted { owner: owner.clone(), contacts })
        }
        Some(Written::NoAccount) => Err(Fault::Missing(owner.clone())),
        _ => Err(Fault::Odd),
    }
}

/// Rows of an archive that go in one commit.
const PIECE: u32 = 1_000;

/// Takes the archive away bit by bit: a long one would hold up all who wait for the store, if it went with the account.
fn empty_archive(accounts: &mut dyn Accounts, owner: &BareJid) -> Result<(), Fault> {
    loop {
        let (owner, before) = (owner.clone(), Wall(0));
        let piece = Write::PruneArchive { owner, before, keep: 0, limit: PIECE };
        match accounts.write(vec![piece])?.first() {
            Some(Written::Pruned { more: true, .. }) => {}
            _ => return Ok(()),
        }
    }
}

/// All that is kept of an account.
pub fn record(
    accounts: &mut dyn Accounts,
    owner: &BareJid,
) -> Result<Option<Box<AccountRecord>>, Fault> {
    match accounts.read(Query::Account { owner: owner.clone() })? {
        Answer::Account(record) => Ok(record),
        _ => Err(Fault::Odd),
    }
}

fn change(accounts: &mut dyn Accounts, owner: &BareJid, write: Write) -> Result<(), Fault> {
    let written = accounts.write(vec![write])?;
    accounts.tell(vec![News::Changed(owner.clone())]);
    match written.first() {
        Some(Written::Done) => Ok(()),
        Some(Written::Exists) => Err(Fault::Exists(owner.clone())),
        Some(Written::NoAccount) => Err(Fault::Missing(owner.clone())),
        Some(Written::Reserved { .. } | Written::Pruned { .. }) | None => Err(Fault::Odd),
    }
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

/// Where an address lives by the shard map: an account, a domain or a service. A resource says nothing about it.
///
/// - errors: a line of cause and remedy
pub fn place(jid: &str, map: &ShardMap) -> Result<Place, String> {
    let jid = Jid::parse(jid)
        .map_err(|fault| format!("{jid:?} is no address: {fault}; write NAME@DOMAIN or DOMAIN"))?
        .into_bare();
    let Located { member, owner, partition } =
        map.owner_of(&jid).ok_or("the cluster has no members; see the log of the node")?;
    Ok(Place {
        jid: jid.as_str().to_owned(),
        hash64: format!("{:016x}", jid.hash64()),
        partition,
        node: member.name.clone(),
        node_id: member.node,
        shard: owner.shard.0,
        epoch: map.epoch,
        clients: member.clients.clone(),
        ..Place::default()
    })
}

fn add(
    accounts: &mut dyn Accounts,
    jid: &str,
    password: &Password,
) -> Result<ControlResponse, String> {
    let owner = account_jid(jid, accounts.domains())?;
    let done = create(accounts, &owner, password);
    done.map(|()| ControlResponse::Done).map_err(|fault| fault.to_string())
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
    let owners = batch.iter().filter_map(|write| write.owner().cloned());
    let news = owners.map(News::Changed).collect();
    let written = match batch.len() {
        0 => Vec::new(),
        asked => {
            let told = |fault: Fault| fault.to_string();
            let written = accounts.write(batch).map_err(|error| told(error.into()))?;
            accounts.tell(news);
            if written.len() != asked {
                return Err(told(Fault::Odd));
            }
            written
        }
    };
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
    let (jids, more) = page(accounts, after, limit.clamp(1, LIST_MAX))?;
    let jids = jids.iter().map(|jid| jid.as_str().to_owned()).collect();
    Ok(ControlResponse::Accounts { jids, more })
}

fn details(
    accounts: &mut dyn Accounts,
    after: Option<&str>,
    limit: u32,
) -> Result<ControlResponse, String> {
    let (jids, more) = page(accounts, after, limit.clamp(1, DETAILS_MAX))?;
    let mut list = Vec::with_capacity(jids.len());
    for jid in jids {
        // One that was deleted meanwhile is not listed.
        let record = record(accounts, &jid).map_err(|fault| fault.to_string())?;
        list.extend(record.map(|record| detail(&jid, &record)));
    }
    Ok(ControlResponse::Details { accounts: list, more })
}

fn detail(jid: &BareJid, record: &AccountRecord) -> AccountDetail {
    let slot = record.slots.iter().find(|(name, _)| name == <Quarantine as Slot>::NAME);
    let quarantine = slot.map(|(_, value)| Quarantine::load(Some(value)));
    AccountDetail {
        jid: jid.as_str().to_owned(),
        disabled: record.disabled,
        contacts: record.roster.len() as u64,
        offline_messages: record.log_rows.into(),
        quarantine_until: quarantine.and_then(|it| it.until()).map(datetime::format),
    }
}

fn page(
    accounts: &mut dyn Accounts,
    after: Option<&str>,
    limit: u32,
) -> Result<(Vec<BareJid>, bool), String> {
    let after = after.map(|text| account_jid(text, &[])).transpose()?;
    // One more than asked for tells whether there are more.
    let query = Query::Accounts { domain: None, only_disabled: false, after, limit: limit + 1 };
    let told = |fault: Fault| fault.to_string();
    let answer = accounts.read(query).map_err(|error| told(error.into()))?;
    let Answer::Accounts(mut jids) = answer else { return Err(told(Fault::Odd)) };
    let more = jids.len() > limit as usize;
    jids.truncate(limit as usize);
    Ok((jids, more))
}

fn remedy(error: &Error) -> &'static str {
    match error {
        Error::Open { .. } => "check the path and its owner",
        Error::TooNew { .. } => "use the newer program",
        Error::Damaged(_) => "restore the database from a backup",
        Error::Full => "free some space and try again",
        Error::Fenced => "restart this node, if it is the one that is meant to run",
        Error::Backend(_) => "nothing was changed; try again, and see the log of the node",
    }
}
