//! The twin in memory: what SQLite promises, without a disk, for simulation.
//!
//! A commit is durable when it returns, as the contract demands. A [`Tear`] stands for a node that dies (or a disk that
//! fails) while a commit is under way: the caller gets an error, and whether the batch is there is decided by the
//! simulator. There is nothing between: a batch is there whole or not at all, as with the WAL of SQLite. Nothing here
//! depends on time, threads or the order of a hash map.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    AccountRecord, Answer, ArchiveEnds, ArchiveQuery, Counters, Error, Keep, LAZY_SLOT, LOG_ID_MAX,
    LOG_ROWS_COUNTED, LacksKeys, LogEntry, Page, Query, Reader, RosterItem, Write, Writer, Written,
    check_counters,
};
use crate::base::hash::Set;
use crate::base::instant::Wall;
use crate::xmpp::credentials::Credentials;
use crate::xmpp::jid::BareJid;

/// A store that outlives the nodes which open it: clones are handles to the same state.
///
/// The lock is for the traits, which let storage threads own their ends; a simulation has one thread.
#[derive(Clone, Default)]
pub struct MemoryStore {
    disk: Arc<Mutex<Disk>>,
}

/// The one that writes.
pub struct MemoryWriter {
    disk: Arc<Mutex<Disk>>,
    /// After a commit that failed, until it is reopened.
    closed: bool,
}

/// One that reads.
pub struct MemoryReader {
    disk: Arc<Mutex<Disk>>,
    held: Option<Box<State>>,
}

/// All that a store holds at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    incarnation: u64,
    /// By the text of the owner's JID: in that order accounts are listed.
    accounts: BTreeMap<String, Account>,
    /// What waits for remote domains, by their text; none is empty.
    domains: BTreeMap<String, Domain>,
    /// The first id never given, per store partition.
    next_ids: BTreeMap<u16, u64>,
}

/// What becomes of a batch whose commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// It is not there.
    Lost,
    /// It is there, though nobody was told.
    Kept,
}

#[derive(Default)]
struct Disk {
    state: State,
    tear: Option<(Tear, Error)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    owner: BareJid,
    credentials: Credentials,
    disabled: bool,
    /// By the text of the contact's JID.
    roster: BTreeMap<String, RosterItem>,
    roster_version: u64,
    slots: BTreeMap<String, Vec<u8>>,
    log: BTreeMap<u64, LogEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Domain {
    owner: BareJid,
    log: BTreeMap<u64, LogEntry>,
}

impl Account {
    fn archive(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.log.values().filter(|entry| entry.keep.is_archived())
    }

    fn pending(&self) -> impl Iterator<Item = &LogEntry> {
        self.log.values().filter(|entry| entry.keep.is_pending())
    }

    /// Changes what a row is kept for; one that is kept for nothing goes.
    fn keep(&mut self, id: u64, change: impl FnOnce(Keep) -> Option<Keep>) {
        let Some(entry) = self.log.get_mut(&id) else { return };
        match change(entry.keep) {
            Some(keep) => entry.keep = keep,
            None => drop(self.log.remove(&id)),
        }
    }

    fn prune(&mut self, before: Wall, keep: u64, limit: u32) -> Written {
        let surplus = (self.archive().count() as u64).saturating_sub(keep);
        let going = self.archive().zip(0u64..);
        let going = going.take_while(|(entry, nth)| entry.at < before || *nth < surplus);
        let all: Vec<u64> = going.map(|(entry, _)| entry.id).collect();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(all.len());
        for id in &all[..limit] {
            self.keep(*id, |keep| Keep::new(keep.is_pending(), false));
        }
        Written::Pruned { rows: u32::try_from(limit).unwrap_or(u32::MAX), more: limit < all.len() }
    }

    fn page(&self, query: &ArchiveQuery) -> Answer {
        let within = |id: u64, (above, below): (u64, u64)| id > above && id < below;
        let all: Vec<&LogEntry> = self.archive().filter(|entry| query.passes(entry)).collect();
        let count = all.len() as u64;
        let count = (query.count_max > 0 && count <= u64::from(query.count_max)).then_some(count);
        let bounds = query.page_bounds();
        let mut page: Vec<&LogEntry> =
            all.into_iter().filter(|entry| within(entry.id, bounds)).collect();
        let max = usize::try_from(query.max).unwrap_or(usize::MAX);
        let complete = page.len() <= max;
        match query.page {
            Page::After(_) => page.truncate(max),
            Page::Before(_) => drop(page.drain(..page.len().saturating_sub(max))),
        }
        Answer::Archive { entries: page.into_iter().cloned().collect(), complete, count }
    }

    fn ends(&self, up_to: u64) -> Option<ArchiveEnds> {
        let mut shown = self.archive().filter(|entry| entry.id <= up_to);
        let first = shown.next()?;
        let last = shown.next_back().unwrap_or(first);
        Some(ArchiveEnds { first: (first.id, first.at), last: (last.id, last.at) })
    }

    fn read_with_account(&self) -> Vec<(String, Vec<u8>)> {
        let eager = self.slots.iter().filter(|(name, _)| !name.starts_with(LAZY_SLOT));
        eager.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Opens the store for a node that starts.
    ///
    /// - gives: the writer, and the incarnation, which is one more than that of the last opening
    pub fn open(&self) -> (MemoryWriter, u64) {
        let mut disk = lock(&self.disk);
        disk.state.incarnation += 1;
        let writer = MemoryWriter { disk: Arc::clone(&self.disk), closed: false };
        (writer, disk.state.incarnation)
    }

    pub fn reader(&self) -> MemoryReader {
        MemoryReader { disk: Arc::clone(&self.disk), held: None }
    }

    /// Makes the next commit with writes in it fail with `error`, after which the writer must be reopened.
    pub fn tear_next(&self, tear: Tear, error: Error) {
        lock(&self.disk).tear = Some((tear, error));
    }

    /// What is durable now.
    pub fn snapshot(&self) -> State {
        lock(&self.disk).state.clone()
    }

    /// Goes back (or forth) to `state`; writers and readers that are open see it at once.
    pub fn restore(&self, state: State) {
        *lock(&self.disk) = Disk { state, tear: None };
    }
}

impl Writer for MemoryWriter {
    fn commit(&mut self, batch: &[Write]) -> Result<Vec<Written>, Error> {
        if self.closed {
            return Err(Error::Backend("closed after an error; to be reopened".to_owned()));
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut disk = lock(&self.disk);
        let result = match disk.tear.take() {
            Some((Tear::Lost, error)) => Err(error),
            Some((Tear::Kept, error)) => disk.state.commit(batch).and(Err(error)),
            None => disk.state.commit(batch),
        };
        self.closed = result.is_err();
        result
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.closed = false;
        Ok(())
    }
}

impl Reader for MemoryReader {
    fn read(&mut self, query: &Query) -> Result<Answer, Error> {
        Ok(match &self.held {
            Some(state) => state.read(query),
            None => lock(&self.disk).state.read(query),
        })
    }

    fn hold(&mut self) -> Result<(), Error> {
        self.held = Some(Box::new(lock(&self.disk).state.clone()));
        Ok(())
    }

    fn release(&mut self) -> Result<(), Error> {
        self.held = None;
        Ok(())
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// All of the batch, or on an error nothing.
    fn commit(&mut self, batch: &[Write]) -> Result<Vec<Written>, Error> {
        self.check(batch)?;
        Ok(batch.iter().map(|write| self.apply(write)).collect())
    }

    /// Finds beforehand what the whole batch must fail for.
    fn check(&self, batch: &[Write]) -> Result<(), Error> {
        let mut highest = self.next_ids.values().copied().max().unwrap_or(1);
        let mut reserved = 0u64;
        for write in batch {
            match write {
                Write::AppendLog { entry, .. } if entry.id > LOG_ID_MAX => {
                    return Err(Error::Backend(format!(
                        "log id {} is above {LOG_ID_MAX}",
                        entry.id
                    )));
                }
                Write::RaiseCounters { counters } => {
                    check_counters(counters)?;
                    let raised = counters.next_ids.iter().map(|(_, next)| *next).max();
                    highest = highest.max(raised.unwrap_or(1));
                }
                Write::ReserveIds { count, .. } => {
                    reserved = reserved.saturating_add(u64::from(*count));
                }
                _ => {}
            }
        }
        if highest.saturating_add(reserved) > LOG_ID_MAX {
            return Err(Error::Backend("no ids are left".to_owned()));
        }
        Ok(())
    }

    fn apply(&mut self, write: &Write) -> Written {
        match write {
            write if write.is_of_domain() => self.of_domain(write),
            Write::CreateAccount { owner, credentials } => self.create(owner, credentials),
            Write::DeleteAccount { owner } => match self.accounts.remove(owner.as_str()) {
                Some(_) => Written::Done,
                None => Written::NoAccount,
            },
            Write::SetCredentials { owner, credentials } => self.of_account(owner, |account| {
                account.credentials = credentials.clone();
            }),
            Write::SetDisabled { owner, disabled } => self.of_account(owner, |account| {
                account.disabled = *disabled;
            }),
            Write::PutRoster { owner, set, remove, version } => self.of_account(owner, |account| {
                for jid in remove {
                    account.roster.remove(&jid.to_string());
                }
                for item in set {
                    account.roster.insert(item.jid.to_string(), item.clone());
                }
                account.roster_version = *version;
            }),
            Write::PutSlot { owner, name, value } => self.of_account(owner, |account| {
                match value {
                    Some(value) => account.slots.insert(name.clone(), value.clone()),
                    None => account.slots.remove(name),
                };
            }),
            Write::AppendLog { owner, entry } => self.of_account(owner, |account| {
                account.log.entry(entry.id).or_insert_with(|| entry.clone());
            }),
            Write::ConfirmLog { owner, ids } => self.of_account(owner, |account| {
                for id in ids {
                    account.keep(*id, |keep| Keep::new(false, keep.is_archived()));
                }
            }),
            Write::ReplaceLog { owner, id, stanza, open_end, close_start } => {
                self.of_account(owner, |account| {
                    if let Some(entry) = account.log.get_mut(id) {
                        entry.stanza = stanza.clone();
                        (entry.open_end, entry.close_start) = (*open_end, *close_start);
                    }
                })
            }
            Write::PruneArchive { owner, before, keep, limit } => {
                match self.accounts.get_mut(owner.as_str()) {
                    Some(account) => account.prune(*before, *keep, *limit),
                    None => Written::NoAccount,
                }
            }
            Write::RaiseCounters { counters } => {
                for (partition, next) in &counters.next_ids {
                    let known = self.next_ids.entry(*partition).or_insert(1);
                    *known = (*known).max(*next);
                }
                self.incarnation = self.incarnation.max(counters.incarnation);
                Written::Done
            }
            Write::ReserveIds { partition, count } => {
                let next = self.next_ids.entry(*partition).or_insert(1);
                let first = *next;
                *next += u64::from(*count);
                Written::Reserved { first }
            }
        }
    }

    fn of_domain(&mut self, write: &Write) -> Written {
        match write {
            Write::AppendLog { owner, entry } => {
                let domain = self
                    .domains
                    .entry(owner.as_str().to_owned())
                    .or_insert_with(|| Domain { owner: owner.clone(), log: BTreeMap::new() });
                domain.log.entry(entry.id).or_insert_with(|| entry.clone());
            }
            Write::ConfirmLog { owner, ids } => {
                if let Some(domain) = self.domains.get_mut(owner.as_str()) {
                    for id in ids {
                        domain.log.remove(id);
                    }
                    if domain.log.is_empty() {
                        self.domains.remove(owner.as_str());
                    }
                }
            }
            _ => {}
        }
        Written::Done
    }

    fn create(&mut self, owner: &BareJid, credentials: &Credentials) -> Written {
        if owner.local().is_none() {
            return Written::NoAccount;
        }
        if self.accounts.contains_key(owner.as_str()) {
            return Written::Exists;
        }
        let account = Account {
            owner: owner.clone(),
            credentials: credentials.clone(),
            disabled: false,
            roster: BTreeMap::new(),
            roster_version: 0,
            slots: BTreeMap::new(),
            log: BTreeMap::new(),
        };
        self.accounts.insert(owner.as_str().to_owned(), account);
        Written::Done
    }

    fn of_account(&mut self, owner: &BareJid, change: impl FnOnce(&mut Account)) -> Written {
        match self.accounts.get_mut(owner.as_str()) {
            Some(account) => {
                change(account);
                Written::Done
            }
            None => Written::NoAccount,
        }
    }

    /// Of an account or a domain.
    fn log(&self, owner: &BareJid) -> Option<&BTreeMap<u64, LogEntry>> {
        match owner.local() {
            Some(_) => self.accounts.get(owner.as_str()).map(|account| &account.log),
            None => self.domains.get(owner.as_str()).map(|domain| &domain.log),
        }
    }

    fn read(&self, query: &Query) -> Answer {
        match query {
            Query::Account { owner } => {
                Answer::Account(self.accounts.get(owner.as_str()).map(|account| {
                    Box::new(AccountRecord {
                        credentials: account.credentials.clone(),
                        disabled: account.disabled,
                        roster: account.roster.values().cloned().collect(),
                        roster_version: account.roster_version,
                        slots: account.read_with_account(),
                        log_rows: u32::try_from(account.pending().count())
                            .unwrap_or(u32::MAX)
                            .min(LOG_ROWS_COUNTED),
                        archived_at: account
                            .archive()
                            .next_back()
                            .map_or(Wall(0), |entry| entry.at),
                    })
                }))
            }
            Query::Slot { owner, name } => {
                let account = self.accounts.get(owner.as_str());
                Answer::Slot(account.and_then(|account| account.slots.get(name)).cloned())
            }
            Query::Log { owner, after, limit } => {
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                let Some(log) = self.log(owner) else {
                    return Answer::Log { entries: Vec::new(), more: false };
                };
                let rows = log.range((Bound::Excluded(*after), Bound::Unbounded));
                let mut rows = rows.filter(|(_, entry)| entry.keep.is_pending());
                let entries = rows.by_ref().take(limit).map(|(_, entry)| entry.clone()).collect();
                Answer::Log { entries, more: rows.next().is_some() }
            }
            Query::Archive(query) => match self.accounts.get(query.owner.as_str()) {
                Some(account) => account.page(query),
                None => Answer::Archive {
                    entries: Vec::new(),
                    complete: true,
                    count: (query.count_max > 0).then_some(0),
                },
            },
            Query::ArchiveEnds { owner, up_to } => {
                let account = self.accounts.get(owner.as_str());
                Answer::ArchiveEnds(account.and_then(|account| account.ends(*up_to)))
            }
            Query::Origins { owner, origins, since } => {
                let rows = self.log(owner).into_iter().flat_map(|log| log.values());
                let rows = rows.filter(|entry| entry.at >= *since);
                let there: Set<_> = rows.map(|entry| entry.origin).collect();
                Answer::Origins(origins.iter().map(|origin| there.contains(origin)).collect())
            }
            Query::LacksKeys => {
                let any = |lacks: fn(&Credentials) -> bool| {
                    self.accounts.values().any(|account| lacks(&account.credentials))
                };
                Answer::LacksKeys(LacksKeys {
                    sha1: any(|keys| keys.sha1.is_none()),
                    sha256: any(|keys| keys.sha256.is_none()),
                    sha512: any(|keys| keys.sha512.is_none()),
                })
            }
            Query::SlotNames { owner } => {
                let account = self.accounts.get(owner.as_str());
                Answer::SlotNames(
                    account
                        .map_or_else(Vec::new, |account| account.slots.keys().cloned().collect()),
                )
            }
            Query::Counters => {
                let given = self.next_ids.iter().filter(|(_, next)| **next > 1);
                Answer::Counters(Counters {
                    next_ids: given.map(|(partition, next)| (*partition, *next)).collect(),
                    incarnation: self.incarnation,
                })
            }
            Query::Accounts { domain, only_disabled, after, limit } => {
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                let after =
                    after.as_ref().map_or(Bound::Unbounded, |jid| Bound::Excluded(jid.as_str()));
                let rows = self.accounts.range::<str, _>((after, Bound::Unbounded));
                let meant = rows.filter(|(_, account)| {
                    (account.disabled || !only_disabled)
                        && domain.as_ref().is_none_or(|domain| account.owner.domain() == domain)
                });
                Answer::Accounts(
                    meant.take(limit).map(|(_, account)| account.owner.clone()).collect(),
                )
            }
            Query::CountAccounts { domain } => {
                let accounts = self.accounts.values();
                let own = accounts.filter(|account| account.owner.domain() == domain);
                Answer::Counted {
                    accounts: own.clone().count() as u64,
                    disabled: own.filter(|account| account.disabled).count() as u64,
                }
            }
            Query::RemoteLogs { after, limit } => {
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                let after =
                    after.as_ref().map_or(Bound::Unbounded, |jid| Bound::Excluded(jid.as_str()));
                let domains = self.domains.range::<str, _>((after, Bound::Unbounded));
                Answer::RemoteLogs(
                    domains.take(limit).map(|(_, domain)| domain.owner.clone()).collect(),
                )
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::contract;
    use super::*;

    fn store() -> (MemoryStore, MemoryWriter, MemoryReader) {
        let store = MemoryStore::new();
        let (writer, _) = store.open();
        let reader = store.reader();
        (store, writer, reader)
    }

    #[test]
    fn the_twin_in_memory_keeps_the_contract() {
        contract::suite(&mut || {
            let (_, writer, reader) = store();
            (Box::new(writer), Box::new(reader))
        });
    }

    #[test]
    fn a_torn_commit_is_there_whole_or_not_at_all_and_the_writer_must_be_reopened() {
        for (tear, there) in [(Tear::Lost, false), (Tear::Kept, true)] {
            let (store, mut writer, mut reader) = store();
            let batch =
                [contract::create("juliet@example.org"), contract::create("romeo@example.org")];
            store.tear_next(tear, Error::Full);
            assert!(matches!(writer.commit(&batch), Err(Error::Full)));
            assert!(matches!(writer.commit(&batch), Err(Error::Backend(_))), "closed");
            let Answer::Accounts(accounts) = reader.read(&contract::all_accounts()).unwrap() else {
                panic!("accounts were asked for");
            };
            assert_eq!(accounts.len(), if there { 2 } else { 0 });
            writer.reopen().unwrap();
            let expected = if there { Written::Exists } else { Written::Done };
            assert_eq!(writer.commit(&batch).unwrap(), [expected.clone(), expected]);
        }
    }

    #[test]
    fn a_snapshot_can_be_restored() {
        let (store, mut writer, _) = store();
        writer.commit(&[contract::create("juliet@example.org")]).unwrap();
        let before = store.snapshot();
        writer.commit(&[contract::create("romeo@example.org")]).unwrap();
        assert_ne!(store.snapshot(), before);
        store.restore(before.clone());
        assert_eq!(store.snapshot(), before);
    }

    #[test]
    fn each_opening_is_a_new_incarnation() {
        let store = MemoryStore::new();
        assert_eq!((store.open().1, store.open().1), (1, 2));
    }
}
