//! The side thread that takes old messages out of the archives. From time to time it looks at each account, with a reader
//! of its own, and has the writer delete in small pieces with pauses between, so that nobody waits for it.

use super::clock::Clock;
use super::storage::StoreHandle;
use crate::base::instant::Wall;
use crate::store::{Answer, ArchiveEnds, Query, Reader, Write, Written};
use crate::xmpp::jid::BareJid;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After a start others go first; later rounds begin so long after the end of the last one.
const FIRST_ROUND: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(3_600);
/// Rows of one account that go in one commit, and accounts that are listed at a time.
const ROWS: u32 = 128;
const ACCOUNTS: u32 = 256;
/// Parts of the time that the thread rests for each one that it works.
const REST: u32 = 4;

/// What is kept of the archives of one domain. At least one of the two is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub domain: String,
    /// Older messages go.
    pub age_max: Option<Duration>,
    /// Of each account, the newest.
    pub messages_max: Option<u64>,
}

/// Whether an account is this node's: what others own, they prune.
pub type Owns = Arc<dyn Fn(&BareJid) -> bool + Send + Sync>;

/// The running thread. Dropping it ends it.
pub struct Retention {
    rules: Option<Sender<Vec<Rule>>>,
    thread: Option<JoinHandle<()>>,
}

impl Retention {
    /// - errors: the thread cannot be started
    pub fn start(
        store: StoreHandle,
        reader: Box<dyn Reader>,
        clock: Clock,
        rules: Vec<Rule>,
        owns: Owns,
    ) -> std::io::Result<Retention> {
        let (sender, news) = channel();
        let job = Job { store, reader, clock, rules, owns, news };
        let thread = std::thread::Builder::new()
            .name("retention".into())
            .spawn(move || job.run(FIRST_ROUND, INTERVAL))?;
        Ok(Retention { rules: Some(sender), thread: Some(thread) })
    }

    /// These hold from now on; a round begins at once.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        if let Some(sender) = &self.rules {
            // It ends with us only.
            let _ = sender.send(rules);
        }
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        drop(self.rules.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that prunes archives had panicked");
        }
    }
}

/// The thread's own.
struct Job {
    store: StoreHandle,
    reader: Box<dyn Reader>,
    clock: Clock,
    rules: Vec<Rule>,
    owns: Owns,
    news: Receiver<Vec<Rule>>,
}

/// A round does not go on.
enum Stop {
    /// Other rules hold.
    Changed,
    Ended,
    /// The store is in trouble, which others have told.
    Failed,
}

impl Job {
    fn run(mut self, first: Duration, interval: Duration) {
        let mut pause = first;
        loop {
            match self.news.recv_timeout(pause) {
                Ok(rules) => self.rules = rules,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            pause = match self.round() {
                Ok(0) | Err(Stop::Failed) => interval,
                Ok(rows) => {
                    tracing::info!(rows, "old messages were taken out of the archives");
                    interval
                }
                Err(Stop::Changed) => Duration::ZERO,
                Err(Stop::Ended) => return,
            };
        }
    }

    /// Looks at all accounts of all rules. Gives how many rows went.
    fn round(&mut self) -> Result<u64, Stop> {
        let mut gone = 0;
        for rule in self.rules.clone() {
            let mut after = None;
            loop {
                let query = Query::Accounts {
                    domain: Some(rule.domain.clone()),
                    only_disabled: false,
                    after: after.take(),
                    limit: ACCOUNTS,
                };
                let began = Instant::now();
                let Answer::Accounts(accounts) = self.read(&query)? else { break };
                for owner in
                    accounts.iter().filter(|owner| (self.owns)(owner)).cloned().collect::<Vec<_>>()
                {
                    gone += self.prune(&owner, &rule)?;
                }
                let Some(last) = accounts.last() else { break };
                after = Some(last.clone());
                self.rest(began.elapsed())?;
            }
        }
        Ok(gone)
    }

    fn prune(&mut self, owner: &BareJid, rule: &Rule) -> Result<u64, Stop> {
        let before = rule.age_max.map_or(Wall(0), |age| {
            let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            Wall(self.clock.now().wall.0.saturating_sub(age))
        });
        let ends = Query::ArchiveEnds { owner: owner.clone(), up_to: u64::MAX };
        let first = match self.read(&ends)? {
            Answer::ArchiveEnds(Some(ArchiveEnds { first: (_, at), .. })) => at,
            _ => return Ok(0),
        };
        if first >= before && rule.messages_max.is_none() {
            return Ok(0);
        }
        let mut gone = 0;
        loop {
            let began = Instant::now();
            let keep = rule.messages_max.unwrap_or(u64::MAX);
            let piece = Write::PruneArchive { owner: owner.clone(), before, keep, limit: ROWS };
            // Whoever waits for the store has been told of its trouble.
            let written = self.store.write(vec![piece]).map_err(|_| Stop::Failed)?;
            let Some(Written::Pruned { rows, more }) = written.first() else { return Ok(gone) };
            gone += u64::from(*rows);
            if !more {
                return Ok(gone);
            }
            self.rest(began.elapsed())?;
        }
    }

    fn read(&mut self, query: &Query) -> Result<Answer, Stop> {
        self.reader.read(query).map_err(|error| {
            tracing::error!(%error, "the archives cannot be pruned now");
            Stop::Failed
        })
    }

    /// Leaves the store to others for a while.
    fn rest(&mut self, worked: Duration) -> Result<(), Stop> {
        match self.news.recv_timeout(worked * REST) {
            Ok(rules) => {
                self.rules = rules;
                Err(Stop::Changed)
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Stop::Ended),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::runtime::storage::Storage;
    use crate::store::contract::{self, bare, create};
    use crate::store::memory::MemoryStore;
    use crate::store::{ArchiveQuery, Keep, LogEntry, Writer};

    const DAY: Duration = Duration::from_secs(86_400);

    /// Days that the messages in the archive of `owner` are old, the oldest first.
    fn ages(store: &MemoryStore, clock: Clock, owner: &str) -> Vec<u64> {
        let query = Query::Archive(Box::new(ArchiveQuery::all(bare(owner), 10_000)));
        let Answer::Archive { entries, .. } = store.reader().read(&query).unwrap() else {
            panic!("a page was asked for")
        };
        let now = clock.now().wall.0;
        entries.iter().map(|entry| (now - entry.at.0) / 86_400_000_000).collect()
    }

    /// Accounts with a message of each of the last `days` days, and the storage thread that writes to them.
    fn filled(owners: &[&str], days: u64, clock: Clock) -> (MemoryStore, Storage) {
        let store = MemoryStore::new();
        let (mut writer, _) = store.open();
        let now = clock.now().wall.0;
        for owner in owners {
            writer.commit(&[create(owner)]).unwrap();
            let message = |id: u64| {
                let at = Wall(now - (days - id) * 86_400_000_000 - 3_600_000_000);
                let entry = contract::entry(id, "romeo@example.org", b"<message></message>");
                let entry = LogEntry { at, keep: Keep::Archived, ..entry };
                Write::AppendLog { owner: bare(owner), entry }
            };
            writer.commit(&(1..=days).map(message).collect::<Vec<_>>()).unwrap();
        }
        let storage = Storage::start(vec![Box::new(writer)], Vec::new(), &[], || ()).unwrap();
        (store, storage)
    }

    fn rule(domain: &str, days: Option<u32>, messages_max: Option<u64>) -> Rule {
        Rule { domain: domain.to_owned(), age_max: days.map(|days| DAY * days), messages_max }
    }

    #[test]
    fn each_domain_keeps_what_its_rule_says() {
        let clock = Clock::start();
        let owners = ["a@one.example", "b@one.example", "c@two.example", "d@three.example"];
        // More than go in one piece.
        let (store, storage) = filled(&owners, 400, clock);
        let (_sender, news) = channel();
        let rules = vec![
            rule("one.example", Some(30), None),
            rule("two.example", Some(300), Some(7)),
            rule("four.example", Some(1), None),
        ];
        let reader = Box::new(store.reader());
        let owns: Owns = Arc::new(|_| true);
        let mut job = Job { store: storage.handle(), reader, clock, rules, owns, news };
        assert_eq!(job.round().ok(), Some(370 * 2 + 393));
        assert_eq!(ages(&store, clock, owners[0]), (0..30).rev().collect::<Vec<_>>());
        assert_eq!(ages(&store, clock, owners[1]).len(), 30);
        assert_eq!(ages(&store, clock, owners[2]), (0..7).rev().collect::<Vec<_>>());
        assert_eq!(ages(&store, clock, owners[3]).len(), 400, "there is no rule for it");
        assert_eq!(job.round().ok(), Some(0));
        storage.stop();
    }

    #[test]
    fn the_thread_goes_by_new_rules_at_once_and_ends_when_it_is_dropped() {
        let clock = Clock::start();
        let (store, storage) = filled(&["a@one.example"], 40, clock);
        let reader = Box::new(store.reader());
        let retention =
            Retention::start(storage.handle(), reader, clock, Vec::new(), Arc::new(|_| true))
                .unwrap();
        retention.set_rules(vec![rule("one.example", Some(10), None)]);
        let began = Instant::now();
        while ages(&store, clock, "a@one.example").len() > 10 {
            assert!(began.elapsed() < Duration::from_secs(20), "nothing was pruned");
            std::thread::yield_now();
        }
        drop(retention);
        storage.stop();
    }
}
