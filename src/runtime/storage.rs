//! The storage threads: some write, each committing whatever is queued for it while its last commit ran; others read. A
//! store partition is always written by the same one. A core sends them batches and gets its answers as letters; no core
//! ever waits for a disk.

use super::mailbox::StoreAsker;
use crate::admin::figures::{COMMIT_BUCKETS_US, StoreFigures};
use crate::admin::latency::StorePart;
use crate::base::hash::Map;
use crate::cluster::placement::store_partition;
use crate::shard::{StoreOutcome, Ticket};
use crate::store::{self, Query, Reader, Write, Writer, Written};
use crate::xmpp::jid::BareJid;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writes of one commit, and about their bytes, at most: far above what comes while a commit runs, as rows cost the less the
/// more of them share one.
const COMMIT_WRITES: usize = 4_096;
const COMMIT_BYTES: usize = 4 << 20;
/// How long after a commit began the next one begins at the earliest. Where a disk is quick, or a core is shared with a shard,
/// commits of a write or two would follow each other, and each costs as much as a hundred writes. One after a pause waits
/// for nothing.
const COMMIT_SPACING: Duration = Duration::from_millis(2);
/// Answers that leave together, at most.
const READ_TOGETHER: usize = 64;
/// How long a store that fails is tried again before its writes are refused.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 10_000 });
/// How often it is tried after that; what comes in between is refused at once, so that nothing piles up before it.
const RETRY: Duration = Duration::from_secs(1);
/// Pause before the first attempt to reopen a store that failed; doubles up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// How often it is said that the store still fails.
const TELL: Duration = Duration::from_secs(10);

/// Who gets an answer.
enum Asker {
    Shard(u16),
    /// A side thread that waits for it.
    Thread(Sender<Result<Written, String>>),
}

enum Job {
    Write(Asker, Ticket, Write),
    /// Goes to a reader when the writes before it are durable.
    Query(u16, Ticket, Query),
    Stop,
}

/// What a reader is asked; `None` ends it.
type Question = Option<(u16, Ticket, Query)>;

/// What the threads count. Shared by all who write, and whoever looks.
#[derive(Debug, Default)]
struct Counts {
    queued: AtomicU64,
    commits: AtomicU64,
    writes: AtomicU64,
    failed: AtomicU64,
    micros: AtomicU64,
    buckets: [AtomicU64; COMMIT_BUCKETS_US.len() + 1],
    queries: AtomicU64,
    /// Writers whose store fails.
    failing: AtomicU64,
    /// Taken by the one who merges them, once a second.
    latency: Mutex<StorePart>,
}

impl Counts {
    fn committed(&self, writes: usize, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = COMMIT_BUCKETS_US.partition_point(|bound| *bound < micros);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(writes as u64, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.commits.record(took);
        latency.batches.record_batch(writes as u64);
    }
}

/// The ways to those who write, by what they write.
#[derive(Clone)]
struct Writers(Vec<Sender<Job>>);

impl Writers {
    fn send(&self, partition: u16, job: Job) {
        if let Some(writer) = self.0.get(usize::from(partition) % self.0.len().max(1)) {
            let _ = writer.send(job);
        }
    }

    fn write(&self, asker: Asker, ticket: Ticket, write: Write) {
        self.send(partition(&write), Job::Write(asker, ticket, write));
    }
}

fn partition(write: &Write) -> u16 {
    match write {
        Write::ReserveIds { partition, .. } => *partition,
        // A running node raises those of one owner's.
        Write::RaiseCounters { counters } => {
            counters.next_ids.first().map_or(0, |(partition, _)| *partition)
        }
        write => write.owner().map_or(0, partition_of),
    }
}

fn partition_of(owner: &BareJid) -> u16 {
    store_partition(owner.hash64())
}

/// A shard's way to the store. Lives on its core.
pub struct StoreClient {
    shard: u16,
    writers: Writers,
    readers: Vec<Sender<Question>>,
    /// Writes on their way, by owner: a question about an owner goes behind them.
    under_way: Map<BareJid, u32>,
    /// Owners of tickets on their way.
    owners: Map<Ticket, BareJid>,
    counts: Arc<Counts>,
}

/// A side thread's way to write and read.
#[derive(Clone)]
pub struct StoreHandle {
    writers: Writers,
    counts: Arc<Counts>,
}

/// The running threads.
pub struct Storage {
    writers: Writers,
    readers: Vec<Sender<Question>>,
    threads: Vec<JoinHandle<()>>,
    counts: Arc<Counts>,
}

impl Storage {
    /// - `askers`: the shards by their number, then the federation cores
    /// - `fenced`: told once by each who writes, when another node has taken the store
    /// - errors: a thread cannot be started
    pub fn start(
        writers: Vec<Box<dyn Writer>>,
        readers: Vec<Box<dyn Reader>>,
        askers: &[Arc<dyn StoreAsker>],
        fenced: impl Fn() + Send + Clone + 'static,
    ) -> std::io::Result<Self> {
        let counts = Arc::new(Counts::default());
        let mut threads = Vec::new();
        let mut reader_queues = Vec::new();
        for reader in readers {
            let (queue, jobs) = channel();
            let (askers, counts) = (askers.to_vec(), counts.clone());
            reader_queues.push(queue);
            threads.push(
                std::thread::Builder::new()
                    .name("store-read".into())
                    .spawn(move || read(reader, &jobs, &askers, &counts))?,
            );
        }
        let mut writer_queues = Vec::new();
        for writer in writers {
            let (queue, jobs) = channel();
            let (cores, readers) = (askers.to_vec(), reader_queues.clone());
            let committer = Committer {
                writer,
                counts: counts.clone(),
                trouble: None,
                fenced: Some(Box::new(fenced.clone())),
            };
            writer_queues.push(queue);
            threads.push(
                std::thread::Builder::new()
                    .name("store-write".into())
                    .spawn(move || write(committer, &jobs, &readers, &cores))?,
            );
        }
        Ok(Self { writers: Writers(writer_queues), readers: reader_queues, threads, counts })
    }

    pub fn client(&self, shard: u16) -> StoreClient {
        StoreClient {
            shard,
            writers: self.writers.clone(),
            readers: self.readers.clone(),
            under_way: Map::default(),
            owners: Map::default(),
            counts: self.counts.clone(),
        }
    }

    pub fn handle(&self) -> StoreHandle {
        StoreHandle { writers: self.writers.clone(), counts: self.counts.clone() }
    }

    /// Ends when everything sent before is durable.
    pub fn stop(self) {
        for writer in &self.writers.0 {
            let _ = writer.send(Job::Stop);
        }
        for reader in &self.readers {
            let _ = reader.send(None);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a storage thread had panicked");
            }
        }
    }
}

impl StoreClient {
    pub fn write(&mut self, writes: &mut Vec<(Ticket, Write)>) {
        if !writes.is_empty() {
            self.counts.queued.fetch_add(writes.len() as u64, Ordering::Relaxed);
        }
        for (ticket, write) in writes.drain(..) {
            if let Some(owner) = write.owner() {
                *self.under_way.entry(owner.clone()).or_insert(0) += 1;
                self.owners.insert(ticket, owner.clone());
            }
            self.writers.write(Asker::Shard(self.shard), ticket, write);
        }
    }

    pub fn query(&mut self, queries: &mut Vec<(Ticket, Query)>) {
        for (ticket, query) in queries.drain(..) {
            let owner = query.owner();
            if let Some(owner) = owner
                && self.under_way.contains_key(owner.as_str())
            {
                let partition = partition_of(owner);
                self.writers.send(partition, Job::Query(self.shard, ticket, query));
                continue;
            }
            let hash = owner.map_or(0, BareJid::hash64);
            let reader = usize::try_from(hash >> 32).unwrap_or(0) % self.readers.len().max(1);
            if let Some(reader) = self.readers.get(reader) {
                let _ = reader.send(Some((self.shard, ticket, query)));
            }
        }
    }

    /// The answer to a ticket has come.
    pub fn answered(&mut self, ticket: Ticket) {
        let Some(owner) = self.owners.remove(&ticket) else { return };
        if let Some(count) = self.under_way.get_mut(owner.as_str()) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(owner.as_str());
            }
        }
    }
}

impl StoreHandle {
    /// What was measured since the last time.
    pub fn take_latency(&self) -> StorePart {
        let mut latency = self.counts.latency.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *latency)
    }

    pub fn figures(&self) -> StoreFigures {
        let told = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &*self.counts;
        StoreFigures {
            writes_queued: told(&counts.queued),
            commits: told(&counts.commits),
            writes: told(&counts.writes),
            commits_failed: told(&counts.failed),
            commit_us: told(&counts.micros),
            commit_buckets: std::array::from_fn(|bucket| told(&counts.buckets[bucket])),
            queries: told(&counts.queries),
            is_failing: told(&counts.failing) > 0,
        }
    }

    /// Writes and waits until it is durable.
    ///
    /// - errors: a line of cause
    pub fn write(&self, batch: Vec<Write>) -> Result<Vec<Written>, String> {
        self.counts.queued.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let answers: Vec<_> = batch
            .into_iter()
            .map(|write| {
                let (answer, receiver) = channel();
                self.writers.write(Asker::Thread(answer), Ticket(0), write);
                receiver
            })
            .collect();
        answers
            .into_iter()
            .map(|answer| answer.recv().unwrap_or_else(|_| Err("the store has stopped".into())))
            .collect()
    }
}

fn weight(write: &Write) -> usize {
    match write {
        Write::AppendLog { entry, .. } => entry.stanza.len() + 128,
        Write::ReplaceLog { stanza, .. } => stanza.len() + 128,
        Write::PutSlot { value, .. } => value.as_ref().map_or(0, Vec::len) + 128,
        _ => 256,
    }
}

fn read(
    mut reader: Box<dyn Reader>,
    jobs: &Receiver<Question>,
    cores: &[Arc<dyn StoreAsker>],
    counts: &Counts,
) {
    let mut told: Option<Instant> = None;
    while let Ok(Some(first)) = jobs.recv() {
        let mut answers: Vec<Vec<(Ticket, StoreOutcome)>> = vec![Vec::new(); cores.len()];
        let mut count = 0;
        let mut next = Some(Some(first));
        while let Some(Some((shard, ticket, query))) = next {
            let outcome = match reader.read(&query) {
                Ok(answer) => StoreOutcome::Answer(answer),
                Err(error) => {
                    if told.is_none_or(|told| told.elapsed() > RETRY) {
                        tracing::error!(%error, "the store cannot be read");
                        told = Some(Instant::now());
                    }
                    StoreOutcome::Failed
                }
            };
            if let Some(answers) = answers.get_mut(usize::from(shard)) {
                answers.push((ticket, outcome));
            }
            count += 1;
            counts.queries.fetch_add(1, Ordering::Relaxed);
            next = if count < READ_TOGETHER { jobs.try_recv().ok() } else { None };
        }
        deliver(answers, cores);
        if next == Some(None) {
            return;
        }
    }
}

fn deliver(answers: Vec<Vec<(Ticket, StoreOutcome)>>, cores: &[Arc<dyn StoreAsker>]) {
    for (answers, core) in answers.into_iter().zip(cores) {
        if !answers.is_empty() {
            core.answer(answers);
        }
    }
}

fn write(
    mut committer: Committer,
    jobs: &Receiver<Job>,
    readers: &[Sender<Question>],
    cores: &[Arc<dyn StoreAsker>],
) {
    let mut stopping = false;
    let mut began: Option<Instant> = None;
    while !stopping {
        let first = match committer.trouble {
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => jobs.recv_timeout(RETRY),
        };
        let first = match first {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                committer.probe();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let (Job::Write(..), Some(began)) = (&first, began) {
            std::thread::sleep(until_next(began.elapsed()));
        }
        let mut askers = Vec::new();
        let mut batch = Vec::new();
        let mut queries = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Write(asker, ticket, write) => {
                    bytes += weight(&write);
                    askers.push((asker, ticket));
                    batch.push(write);
                }
                Job::Query(shard, ticket, query) => queries.push((shard, ticket, query)),
                Job::Stop => stopping = true,
            }
            let full = batch.len() >= COMMIT_WRITES || bytes >= COMMIT_BYTES;
            next = if full || stopping { None } else { jobs.try_recv().ok() };
        }
        if !batch.is_empty() {
            committer.counts.queued.fetch_sub(batch.len() as u64, Ordering::Relaxed);
            began = Some(Instant::now());
            let outcome = committer.commit(&batch);
            answer(askers, outcome, cores);
        }
        for (shard, ticket, query) in queries {
            let reader = usize::from(shard) % readers.len().max(1);
            if let Some(reader) = readers.get(reader) {
                let _ = reader.send(Some((shard, ticket, query)));
            }
        }
    }
}

/// How long a commit waits for others to join it.
///
/// - takes: the time since the last one began
fn until_next(since_last: Duration) -> Duration {
    COMMIT_SPACING.saturating_sub(since_last)
}

/// One who writes, and how that goes.
struct Committer {
    writer: Box<dyn Writer>,
    counts: Arc<Counts>,
    /// Since a commit failed; the writer must be reopened.
    trouble: Option<Trouble>,
    /// To be told when it is another's to write; nothing is tried after that.
    fenced: Option<Box<dyn FnOnce() + Send>>,
}

struct Trouble {
    since: Instant,
    tried: Instant,
    told: Instant,
    cause: String,
}

impl Committer {
    /// Commits a batch. A failed commit is never counted: the store is reopened and the batch, which may be applied twice
    /// without harm, is run as a new transaction. Gives `Err` when that has gone on for too long, and at once while it
    /// still does.
    fn commit(&mut self, batch: &[Write]) -> Result<Vec<Written>, String> {
        if let Some(Trouble { since, tried, cause, .. }) = &self.trouble {
            let is_early = since.elapsed() > PATIENCE && tried.elapsed() < RETRY;
            if is_early || self.fenced.is_none() {
                return Err(cause.clone());
            }
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = Instant::now();
            let error = match self.attempt(batch) {
                Ok(written) => {
                    self.counts.committed(batch.len(), attempt.elapsed());
                    if self.trouble.take().is_some() {
                        self.counts.failing.fetch_sub(1, Ordering::Relaxed);
                        tracing::info!("the store works again");
                    }
                    return Ok(written);
                }
                Err(error) => error,
            };
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            let cause = error.to_string();
            let now = Instant::now();
            let (since, told) = match &self.trouble {
                Some(trouble) => (trouble.since, tell_again(trouble.told, now, &error)),
                None => {
                    self.counts.failing.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "the store failed; nothing is acknowledged until it works again");
                    (attempt, now)
                }
            };
            self.trouble = Some(Trouble { since, tried: now, told, cause: cause.clone() });
            if matches!(error, store::Error::Fenced)
                && let Some(fenced) = self.fenced.take()
            {
                fenced();
                return Err(cause);
            }
            if since.elapsed() > PATIENCE {
                return Err(cause);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY);
        }
    }

    /// Whether a store that failed works again, while nobody writes: who is sent elsewhere because of it asks for no write.
    fn probe(&mut self) {
        let _ = self.commit(&[Write::ReserveIds { partition: 0, count: 0 }]);
    }

    fn attempt(&mut self, batch: &[Write]) -> Result<Vec<Written>, store::Error> {
        if self.trouble.is_some() {
            self.writer.reopen()?;
        }
        self.writer.commit(batch)
    }
}

/// Says now and then that the store still fails; gives when that was last said.
fn tell_again(told: Instant, now: Instant, error: &store::Error) -> Instant {
    if now.duration_since(told) < TELL {
        return told;
    }
    tracing::error!(%error, "the store still fails; what must be kept is refused");
    now
}

fn answer(
    askers: Vec<(Asker, Ticket)>,
    outcome: Result<Vec<Written>, String>,
    cores: &[Arc<dyn StoreAsker>],
) {
    let mut answers: Vec<Vec<(Ticket, StoreOutcome)>> = vec![Vec::new(); cores.len()];
    let mut written = outcome.as_ref().ok().map(|written| written.iter());
    for (asker, ticket) in askers {
        let one = written.as_mut().and_then(Iterator::next).cloned();
        match asker {
            Asker::Shard(shard) => {
                let outcome = one.map_or(StoreOutcome::Failed, StoreOutcome::Written);
                if let Some(answers) = answers.get_mut(usize::from(shard)) {
                    answers.push((ticket, outcome));
                }
            }
            Asker::Thread(sender) => {
                let refused = || outcome.clone().err().unwrap_or_else(|| "no answer".into());
                let _ = sender.send(one.ok_or_else(refused));
            }
        }
    }
    deliver(answers, cores);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::store::{Error, STORE_PARTITIONS};
    use std::sync::atomic::AtomicBool;

    /// Notes who writes what, and fails as it is told to.
    struct Noting {
        number: usize,
        notes: Arc<Mutex<Vec<(usize, Write)>>>,
        fails: Arc<AtomicBool>,
        fences: bool,
        attempts: Arc<AtomicU64>,
    }

    impl Writer for Noting {
        fn commit(&mut self, batch: &[Write]) -> Result<Vec<Written>, Error> {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            match (self.fails.load(Ordering::Relaxed), self.fences) {
                (true, true) => return Err(Error::Fenced),
                (true, false) => return Err(Error::Full),
                (false, _) => {}
            }
            let notes = batch.iter().map(|write| (self.number, write.clone()));
            self.notes.lock().unwrap().extend(notes);
            Ok(vec![Written::Done; batch.len()])
        }

        fn reopen(&mut self) -> Result<(), Error> {
            Ok(())
        }
    }

    struct Running {
        storage: Storage,
        notes: Arc<Mutex<Vec<(usize, Write)>>>,
        fails: Arc<AtomicBool>,
        attempts: Arc<AtomicU64>,
        fenced: Arc<AtomicU64>,
    }

    fn running(writers: usize, fences: bool) -> Running {
        let notes: Arc<Mutex<Vec<(usize, Write)>>> = Arc::default();
        let fails: Arc<AtomicBool> = Arc::default();
        let attempts: Arc<AtomicU64> = Arc::default();
        let fenced: Arc<AtomicU64> = Arc::default();
        let writer = |number| -> Box<dyn Writer> {
            let (notes, fails, attempts) = (notes.clone(), fails.clone(), attempts.clone());
            Box::new(Noting { number, notes, fails, fences, attempts })
        };
        let told = fenced.clone();
        let fence = move || {
            told.fetch_add(1, Ordering::Relaxed);
        };
        let writers = (0..writers).map(writer).collect();
        let storage = Storage::start(writers, Vec::new(), &[], fence).unwrap();
        Running { storage, notes, fails, attempts, fenced }
    }

    fn delete(name: u32) -> Write {
        Write::DeleteAccount { owner: BareJid::parse(&format!("u{name}@example.org")).unwrap() }
    }

    #[test]
    fn a_partition_is_always_written_by_the_same_one() {
        let Running { storage, notes, .. } = running(3, false);
        let handle = storage.handle();
        for _ in 0..2 {
            let reserves =
                (0..STORE_PARTITIONS).map(|partition| Write::ReserveIds { partition, count: 1 });
            let batch: Vec<Write> = (0..300).map(delete).chain(reserves).collect();
            handle.write(batch).unwrap();
        }
        storage.stop();
        let notes = notes.lock().unwrap();
        let mut writers: Map<u16, usize> = Map::default();
        for (number, write) in &*notes {
            let before = writers.insert(partition(write), *number);
            assert!(before.is_none_or(|before| before == *number), "{write:?}");
        }
        assert_eq!((notes.len(), writers.len()), (728, usize::from(STORE_PARTITIONS)));
        assert!((0..3).all(|number| writers.values().any(|writer| *writer == number)));
    }

    #[test]
    fn a_commit_waits_only_where_another_has_just_begun() {
        let of_us = Duration::from_micros;
        assert_eq!(until_next(of_us(500)), of_us(1_500));
        assert_eq!([until_next(COMMIT_SPACING), until_next(of_us(9_000))], [Duration::ZERO; 2]);
    }

    #[test]
    fn commits_begin_a_while_apart() {
        let Running { storage, attempts, .. } = running(1, false);
        let handle = storage.handle();
        let began = Instant::now();
        for _ in 0..10 {
            handle.write((0..100).map(delete).collect()).unwrap();
        }
        let commits = attempts.load(Ordering::Relaxed);
        assert!((10..=1_000).contains(&commits), "{commits}");
        let waited = COMMIT_SPACING * u32::try_from(commits - 1).unwrap();
        assert!(began.elapsed() >= waited, "{commits} in {:?}", began.elapsed());
        storage.stop();
    }

    #[test]
    fn a_store_that_fails_for_long_refuses_at_once_and_is_tried_again_also_when_nobody_writes() {
        let Running { storage, fails, attempts, .. } = running(1, false);
        let handle = storage.handle();
        fails.store(true, Ordering::Relaxed);
        let began = Instant::now();
        assert!(handle.write(vec![delete(1)]).is_err());
        assert!(began.elapsed() > PATIENCE);
        assert!(handle.figures().is_failing);
        let (before, began) = (attempts.load(Ordering::Relaxed), Instant::now());
        for _ in 0..100 {
            assert_eq!(handle.write(vec![delete(1)]).unwrap_err(), "the disk is full");
        }
        let seconds = began.elapsed().as_secs();
        assert!(attempts.load(Ordering::Relaxed) - before <= seconds + 1);
        fails.store(false, Ordering::Relaxed);
        let began = Instant::now();
        while handle.figures().is_failing {
            assert!(began.elapsed() < RETRY * 5, "it is not tried again");
            std::thread::sleep(Duration::from_millis(10));
        }
        handle.write(vec![delete(1)]).unwrap();
        storage.stop();
    }

    #[test]
    fn who_was_fenced_says_so_once_and_tries_nothing_more() {
        let Running { storage, fails, attempts, fenced, .. } = running(1, true);
        let handle = storage.handle();
        handle.write(vec![delete(1)]).unwrap();
        fails.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            assert!(handle.write(vec![delete(1)]).unwrap_err().contains("another node"));
        }
        assert_eq!((attempts.load(Ordering::Relaxed), fenced.load(Ordering::Relaxed)), (2, 1));
        storage.stop();
    }
}
