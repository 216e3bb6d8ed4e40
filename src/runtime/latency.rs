//! The side thread that merges what cores and the storage threads have measured, once a second. It lends each core a set
//! of empty histograms and gets the full one back, so that nothing is shared and a core does no more than swap them.

use super::clock::Clock;
use super::hlog::{self, Hlog};
use super::mailbox::{Letter, Mailbox};
use super::storage::StoreHandle;
use crate::admin::latency::{Board, CorePart, Report};
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
            let round = Round::new(mailboxes, store, latency.clone(), log);
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

/// The thread's own.
struct Round {
    mailboxes: Vec<Mailbox>,
    /// What each core gets next; `None` while it has not answered.
    spares: Vec<Option<CorePart>>,
    store: StoreHandle,
    latency: Latency,
    answer: Sender<CorePart>,
    answers: Receiver<CorePart>,
    last: Instant,
    log: Option<Log>,
}

impl Round {
    fn new(mailboxes: &[Mailbox], store: StoreHandle, latency: Latency, log: Option<Log>) -> Round {
        let (answer, answers) = channel();
        let spares = mailboxes.iter().map(|_| Some(CorePart::default())).collect();
        let last = latency.clock.mono();
        Round { mailboxes: mailboxes.to_vec(), spares, store, latency, answer, answers, last, log }
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
        let mut asked = 0;
        for (mailbox, spare) in self.mailboxes.iter().zip(&mut self.spares) {
            if let Some(spare) = spare.take() {
                mailbox.send(Letter::Latencies(spare, self.answer.clone()));
                asked += 1;
            }
        }
        let mut parts = Vec::with_capacity(asked);
        let until = self.latency.clock.mono() + PATIENCE;
        while parts.len() < asked {
            let left = until.since(self.latency.clock.mono());
            let Ok(part) = self.answers.recv_timeout(left) else { break };
            parts.push(part);
        }
        let now = self.latency.clock.mono();
        let store = self.store.take_latency();
        self.latency.with(|board| board.add(now.since(self.last), &parts, &store));
        self.last = now;
        for mut part in parts {
            part.clear();
            if let Some(spare) = self.spares.get_mut(usize::from(part.shard)) {
                *spare = Some(part);
            }
        }
    }
}
