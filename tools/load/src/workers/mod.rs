//! One run by several processes of this machine: each drives its share of the plan, with source addresses of its own,
//! from one agreed moment on; what they see is merged second by second, without loss.
//!
//! A worker is this program again, with the hidden command `worker`. Orders go to its standard input, what it sees
//! comes from its standard output, a line of JSON each ([`letter`]). Faults and the server's process are the business
//! of the process that started the workers. A worker that dies or falls silent makes the run INVALID; the others go on.

mod letter;
mod merge;
mod worker;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use letter::{Order, Word};
use merge::Merger;
pub use worker::serve;

use crate::drive::{Failure, Flow, ShareReport};
use crate::plan::{Plan, Request, Share};
use crate::record::{Interval, Outcome};
use crate::run::{self, FaultThread, ServerWatch, Watch};
use crate::{Error, sys};

/// The hidden command.
pub const COMMAND: &str = "worker";
/// A worker that tells nothing for so long is ended: each second of the run is told.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The same while it makes its plan.
const PREPARE_MAX: Duration = Duration::from_secs(120);
/// On top of [`run::LEAD`], for each user: clients are made between the order and the start.
const LEAD_PER_USER: Duration = Duration::from_micros(10);
/// How much of what a worker wrote to standard error is told.
const COMPLAINT_BYTES: u64 = 2000;

struct Worker {
    child: Child,
    /// Closed when it is to end by itself.
    orders: Option<ChildStdin>,
    heard: Instant,
    report: Option<ShareReport>,
    /// It tells nothing more.
    has_left: bool,
}

impl Worker {
    fn order(&mut self, order: &Order) -> bool {
        self.orders.as_mut().is_some_and(|pipe| letter::write(pipe, order).is_ok())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It ends when its orders end; one that hangs does not.
        self.orders = None;
        if self.report.is_none() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

enum News {
    Word(Word),
    /// Its standard output is closed or no longer makes sense.
    End(String),
}

/// Drives the whole plan by `count` worker processes.
///
/// - takes: `program`, this program
/// - errors: the target cannot be used, no worker can be started, or all died
pub fn run(
    program: &Path,
    count: usize,
    plan: &Plan,
    request: &Request,
    server: Option<ServerWatch>,
    watch: &mut dyn Watch,
) -> Result<Outcome, Failure> {
    let (sender, news) = channel();
    let mut coordinator = Coordinator {
        merger: Merger::new(count),
        workers: Vec::new(),
        server,
        faults: None,
        intervals: Vec::new(),
        invalid: Vec::new(),
        is_stopping: false,
        watch,
    };
    for index in 0..count {
        let share = Share { index: index as u64, count: count as u64 };
        let worker = start(program, index, &sender).map_err(Failure::Tool)?;
        coordinator.workers.push(worker);
        let order = Order::Prepare { request: Box::new(request.clone()), share };
        // A worker that has ended already is told of by its reader.
        coordinator.workers[index].order(&order);
    }
    drop(sender);
    coordinator.prepare(&news)?;

    let users = u32::try_from(plan.scenario.users()).unwrap_or(u32::MAX);
    let lead = run::LEAD + LEAD_PER_USER * users;
    let clock = sys::monotonic().map_err(|error| Failure::Tool(Error::Io("clock", error)))?;
    let (started, begin) = (SystemTime::now() + lead, Instant::now() + lead);
    for worker in &mut coordinator.workers {
        worker.order(&Order::Start { at: clock + lead });
        worker.heard = begin;
    }
    coordinator.faults = Some(FaultThread::start(&plan.scenario.faults, begin));
    coordinator.follow(&news)?;

    let before = coordinator.server.as_ref().map(ServerWatch::before);
    let intervals = std::mem::take(&mut coordinator.intervals);
    let invalid = std::mem::take(&mut coordinator.invalid);
    let faults = coordinator.faults.take().map_or_else(Vec::new, FaultThread::finish);
    let reports: Vec<_> =
        coordinator.workers.iter_mut().filter_map(|worker| worker.report.take()).collect();
    if reports.is_empty() {
        return Err(Failure::Tool(Error::Worker(invalid.join("; "))));
    }
    let report = run::merge_reports(reports);
    let mut outcome =
        run::outcome(plan, request, started, intervals, faults, before, count, report);
    outcome.verdict.invalid.extend(invalid);
    Ok(outcome)
}

fn start(program: &Path, index: usize, news: &Sender<(usize, News)>) -> Result<Worker, Error> {
    let told = |error| Error::File(program.to_owned(), error);
    let mut child = Command::new(program)
        .arg(COMMAND)
        // Ctrl-C is for the process that was started; it ends the workers in order.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(told)?;
    let (orders, words, complaints) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let news = news.clone();
    std::thread::spawn(move || {
        let Some(words) = words else {
            return;
        };
        // What it complains of is read at its end: a panic's few lines fit into the pipe.
        let complaint = move || {
            let mut text = String::new();
            let pipe = complaints.map(|pipe| pipe.take(COMPLAINT_BYTES));
            let read = pipe.map(|mut pipe| pipe.read_to_string(&mut text));
            if !matches!(read, Some(Ok(_))) {
                text.clear();
            }
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        for line in BufReader::new(words).lines() {
            let word = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            let Some(word) = word else {
                let _ = news.send((index, News::End("told something that makes no sense".into())));
                return;
            };
            // Nobody waits for it any more.
            if news.send((index, News::Word(word))).is_err() {
                return;
            }
        }
        let _ = news.send((index, News::End(complaint())));
    });
    Ok(Worker { child, orders, heard: Instant::now(), report: None, has_left: false })
}

struct Coordinator<'w> {
    merger: Merger,
    workers: Vec<Worker>,
    server: Option<ServerWatch>,
    faults: Option<FaultThread>,
    intervals: Vec<Interval>,
    invalid: Vec<String>,
    is_stopping: bool,
    watch: &'w mut dyn Watch,
}

impl Coordinator<'_> {
    /// Waits until all are ready.
    fn prepare(&mut self, news: &Receiver<(usize, News)>) -> Result<(), Failure> {
        let deadline = Instant::now() + PREPARE_MAX;
        let fault = |what: String| Failure::Tool(Error::Worker(what));
        for _ in 0..self.workers.len() {
            let wait = deadline.saturating_duration_since(Instant::now());
            match news.recv_timeout(wait) {
                Ok((_, News::Word(Word::Ready))) => {}
                Ok((index, News::Word(Word::Fault(what)) | News::End(what))) => {
                    return Err(fault(format!("worker {}: {what}", index + 1)));
                }
                Ok((index, News::Word(_))) => {
                    return Err(fault(format!("worker {} is out of turn", index + 1)));
                }
                Err(_) => return Err(fault("workers do not become ready".to_owned())),
            }
        }
        Ok(())
    }

    /// Takes what they tell until all have told all.
    fn follow(&mut self, news: &Receiver<(usize, News)>) -> Result<(), Failure> {
        while self.workers.iter().any(|worker| !worker.has_left) {
            match news.recv_timeout(Duration::from_secs(1)) {
                Ok((index, told)) => self.take(index, told)?,
                Err(RecvTimeoutError::Timeout) => {}
                // Each reader says how it ends, so this is the end of all.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            for index in 0..self.workers.len() {
                let worker = &mut self.workers[index];
                if !worker.has_left && worker.heard.elapsed() > SILENCE_MAX {
                    // Its end is told by its reader, or would be if it had one that ended.
                    let _ = worker.child.kill();
                    self.lost(index, &format!("told nothing for {} s", SILENCE_MAX.as_secs()));
                }
            }
            self.give_out();
        }
        Ok(())
    }

    fn take(&mut self, index: usize, told: News) -> Result<(), Failure> {
        let Some(worker) = self.workers.get_mut(index).filter(|worker| !worker.has_left) else {
            return Ok(());
        };
        worker.heard = worker.heard.max(Instant::now());
        match told {
            News::Word(Word::Second(interval)) => {
                if let Err(misfit) = self.merger.take(index, *interval) {
                    let _ = self.workers[index].child.kill();
                    self.lost(index, &misfit.to_string());
                }
            }
            News::Word(Word::Done(report)) => {
                worker.report = Some(*report);
                worker.has_left = true;
                self.merger.left(index);
            }
            News::Word(Word::TargetFault(what)) => return Err(Failure::Target(what)),
            News::Word(Word::Fault(what)) => self.lost(index, &what),
            News::Word(Word::Ready) => self.lost(index, "was ready twice"),
            News::End(complaint) => {
                let status = self.workers[index].child.wait();
                let status = status.map_or_else(|error| error.to_string(), |it| it.to_string());
                let complaint =
                    if complaint.is_empty() { String::new() } else { format!(": {complaint}") };
                self.lost(index, &format!("ended with {status}{complaint}"));
            }
        }
        Ok(())
    }

    /// A worker is gone before its time.
    fn lost(&mut self, index: usize, why: &str) {
        let worker = &mut self.workers[index];
        worker.has_left = true;
        worker.orders = None;
        self.merger.left(index);
        let second = self.intervals.len();
        let reason = format!("worker {} is lost in second {second}: it {why}", index + 1);
        self.watch.invalid(&reason);
        self.invalid.push(reason);
    }

    /// Passes on the seconds that all have told.
    fn give_out(&mut self) {
        while let Some(mut interval) = self.merger.complete() {
            if let Some(server) = &mut self.server {
                server.note(&mut interval);
            }
            let flow = self.watch.second(&interval);
            if let Some(faults) = &mut self.faults {
                faults.tell(self.watch);
            }
            self.intervals.push(interval);
            if flow != Flow::Continue && !self.is_stopping {
                self.is_stopping = true;
                for worker in &mut self.workers {
                    // One that has ended needs no order.
                    worker.order(&Order::Stop);
                }
            }
        }
    }
}
