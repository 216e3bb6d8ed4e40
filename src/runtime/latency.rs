//! The side thread that merges what cores and the storage threads have measured, once a second. It lends each core a set
//! of empty histograms and gets the full one back, so that nothing is shared and a core does no more than swap them.

use super::clock::Clock;
use super::federation::FederationLetter;
use super::hlog::{self, Hlog};
use super::mailbox::{Letter, Mailbox};
use super::storage::StoreHandle;
use crate::admin::latency::{Board, CorePart, FederationPart, Report};
use crate::base::instant::{Instant, Wall};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const INTERVAL: Duration = Duration::from_secs(1);
/// How long cores may take to swap; what a late one brings is merged with the next interval.
const PATIENCE: Duration = Duration::from_millis(300);

/// What is merged, for those who ask. Cloned to them.
#[derive(Clone, Debug)]
pub struct Latency {
    board: Arc<Mutex<Board>>,
    clock: Clock,
    enabled: bool,
}

/// The running thread. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    latency: Latency,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Latency {
    /// As merged last: not older than a second or so.
    pub fn report(&self) -> Report {
        let now = self.clock.now();
        self.with(|board| board.report(self.enabled, now.wall, now.mono.since(Instant(0))))
    }

    /// All that was counted since the start, as a log of one interval.
    ///
    /// - errors: nothing is measured; a histogram cannot be written, which is the program's fault
    pub fn log_text(&self) -> io::Result<String> {
        if !self.enabled {
            return Err(io::Error::other("latencies are not measured: latency.enabled is false"));
        }
        let now = self.clock.now();
        let began = system_time(now.wall) - Duration::from_nanos(now.mono.0);
        let sums = self.with(|board| board.total.clone());
        hlog::text(&sums, began, Duration::from_nanos(now.mono.0))
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Board) -> T) -> T {
        look(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Collector {
    /// - `enabled`: false where nothing is measured; then nobody is asked
    /// - `log`: where each interval of that length is kept
    /// - errors: the thread cannot be started, or the log not be written; a line of cause
    pub fn start(
        mailboxes: &[Mailbox],
        federation: &[Mailbox<FederationLetter>],
        store: StoreHandle,
        clock: Clock,
        enabled: bool,
        log: Option<(PathBuf, Duration)>,
    ) -> Result<Collector, String> {
        let latency = Latency { board: Arc::default(), clock, enabled };
        let (stop, stopped) = channel();
        let mut thread = None;
        if enabled {
            let log = log.map(|(path, interval)| Log::open(&path, interval, clock)).transpose()?;
            let round = Round::new(mailboxes, federation, store, latency.clone(), log);
            let work = move || round.run(&stopped);
            let started = std::thread::Builder::new().name("latency".into()).spawn(work);
            let started = started.map_err(|error| {
                format!("the thread that merges latencies cannot be started: {error}")
            })?;
            thread = Some(started);
        }
        Ok(Collector { latency, stop: Some(stop), thread })
    }

    pub fn latency(&self) -> &Latency {
        &self.latency
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that merges latencies had panicked");
        }
    }
}

fn system_time(wall: Wall) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(wall.0)
}

/// The log, and when what it gets next began.
struct Log {
    file: Hlog,
    interval: Duration,
    began: Instant,
    began_wall: Wall,
}

impl Log {
    fn open(path: &Path, interval: Duration, clock: Clock) -> Result<Log, String> {
        let now = clock.now();
        let file = Hlog::open(path, system_time(now.wall)).map_err(|error| {
            format!("latency.log: {} cannot be written: {error}", path.display())
        })?;
        Ok(Log { file, interval, began: now.mono, began_wall: now.wall })
    }

    /// - `ends`: the interval is over, however short it was
    fn write(&mut self, latency: &Latency, ends: bool) {
        let now = latency.clock.now();
        let took = now.mono.since(self.began);
        // The rounds are a little longer than a second.
        if !ends && took + INTERVAL / 2 < self.interval {
            return;
        }
        let sums = latency.with(Board::take_unlogged);
        self.file.write(&sums, system_time(self.began_wall), took);
        self.began = now.mono;
        self.began_wall = now.wall;
    }
}

/// Cores of one kind, each with what it gets next; `None` while it has not answered.
struct Asked<L, P> {
    cores: Vec<(Mailbox<L>, Option<P>)>,
    letter: fn(P, Sender<P>) -> L,
    /// Whose part it is, and its emptying.
    number: fn(&P) -> u16,
    clear: fn(&mut P),
    answer: Sender<P>,
    answers: Receiver<P>,
}

impl<L, P: Default> Asked<L, P> {
    fn new(
        mailboxes: &[Mailbox<L>],
        letter: fn(P, Sender<P>) -> L,
        number: fn(&P) -> u16,
        clear: fn(&mut P),
    ) -> Asked<L, P> {
        let (answer, answers) = channel();
        let cores = mailboxes.iter().map(|mailbox| (mailbox.clone(), Some(P::default())));
        Asked { cores: cores.collect(), letter, number, clear, answer, answers }
    }

    /// Gives how many were asked.
    fn ask(&mut self) -> usize {
        let mut asked = 0;
        for (mailbox, spare) in &mut self.cores {
            if let Some(spare) = spare.take() {
                mailbox.send((self.letter)(spare, self.answer.clone()));
                asked += 1;
            }
        }
        asked
    }

    fn parts(&self, asked: usize, until: Instant, clock: Clock) -> Vec<P> {
        let mut parts = Vec::with_capacity(asked);
        while parts.len() < asked {
            let left = until.since(clock.mono());
            let Ok(part) = self.answers.recv_timeout(left) else { break };
            parts.push(part);
        }
        parts
    }

    fn give_back(&mut self, parts: Vec<P>) {
        for mut part in parts {
            (self.clear)(&mut part);
            let number = usize::from((self.number)(&part));
            if let Some((_, spare)) = self.cores.get_mut(number) {
                *spare = Some(part);
            }
        }
    }
}

/// The thread's own.
struct Round {
    shards: Asked<Letter, CorePart>,
    federation: Asked<FederationLetter, FederationPart>,
    store: StoreHandle,
    latency: Latency,
    last: Instant,
    log: Option<Log>,
}

impl Round {
    fn new(
        shards: &[Mailbox],
        federation: &[Mailbox<FederationLetter>],
        store: StoreHandle,
        latency: Latency,
        log: Option<Log>,
    ) -> Round {
        let shards =
            Asked::new(shards, Letter::Latencies, |part: &CorePart| part.shard, CorePart::clear);
        let federation = Asked::new(
            federation,
            FederationLetter::Latencies,
            |part: &FederationPart| part.core,
            FederationPart::clear,
        );
        let last = latency.clock.mono();
        Round { shards, federation, store, latency, last, log }
    }

    fn run(mut self, stopped: &Receiver<()>) {
        loop {
            let ends = stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout);
            self.merge();
            match &mut self.log {
                Some(log) => log.write(&self.latency, ends),
                // Nobody wants it.
                None => drop(self.latency.with(Board::take_unlogged)),
            }
            if ends {
                return;
            }
        }
    }

    fn merge(&mut self) {
        let asked = (self.shards.ask(), self.federation.ask());
        let clock = self.latency.clock;
        let until = clock.mono() + PATIENCE;
        let shards = self.shards.parts(asked.0, until, clock);
        let federation = self.federation.parts(asked.1, until, clock);
        let now = clock.mono();
        let (took, store) = (now.since(self.last), self.store.take_latency());
        self.latency.with(|board| board.add(took, &shards, &federation, &store));
        self.last = now;
        self.shards.give_back(shards);
        self.federation.give_back(federation);
    }
}
