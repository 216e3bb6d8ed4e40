//! The kill -9 storm: users with XEP-0198 and without keep a server busy, come and go, and it is killed at random moments
//! and started again under them. Every message that it had acknowledged must have reached its recipient, in order. Of a
//! cluster, one node at a time is killed, and users go to the next one. With `--roll` the nodes are stopped in good order
//! instead, one after the other.
//!
//! The load and the ledger are those of `corefire-load run` ([`corefire_load::drive`]); this starts and kills. Exit code
//! 0: all promises held; 1: one was broken; 2: the storm could not be run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result of a command")]

use std::cmp::Reverse;
use std::ffi::OsString;
use std::fmt::{Display, Formatter};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;

use corefire_load::Error;
use corefire_load::cli::parsed;
use corefire_load::drive::{Failure, Flow, ShareReport, run_share};
use corefire_load::launch::{Corefire, ScratchDir, Server};
use corefire_load::plan::{Plan, PlanError, Random, Request, Share, Target as Aim};
use corefire_load::record::{Interval, Latency, LedgerCounts, Operation, Tally};

/// Kills a server under load, and shows whether it kept what it had acknowledged.
#[derive(Parser)]
struct Options {
    /// The Corefire binary to start.
    #[arg(long, conflicts_with = "address", required_unless_present = "address")]
    binary: Option<PathBuf>,
    /// Further key=value for the binary's --set.
    #[arg(long = "set")]
    sets: Vec<String>,
    /// So many nodes of a cluster, on the database that --set storage.url names; users are spread over them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: u16,
    /// Any other server: where COMMAND, run in the foreground, accepts plain TCP; accounts s0, s1, ... must exist.
    #[arg(long, requires = "command")]
    address: Option<SocketAddr>,
    #[arg(long, default_value = "localhost")]
    domain: String,
    #[arg(long, default_value_t = 60)]
    cycles: u32,
    /// Ends the storm earlier, after the cycle in which so much time is over.
    #[arg(long)]
    minutes: Option<u64>,
    /// Groups of four users, of whom one goes without XEP-0198.
    #[arg(long, default_value_t = 20)]
    groups: u64,
    /// Messages per second.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Connections per second that users themselves drop, to be back 1.5 s later; an eighth of the users if not given.
    /// Without any, all that is resumed was broken by a kill.
    #[arg(long)]
    cuts: Option<f64>,
    /// Who is cut off resumes the stream (XEP-0198 §5), and logs in anew only where that is refused.
    #[arg(long)]
    resume: bool,
    /// In the end the archives are read, too: each message that was acknowledged is in its recipient's once, in order. They
    /// have to be on (--set archive.enabled=true).
    #[arg(long)]
    archives: bool,
    /// The nodes of a cluster are not killed but asked to stop, in turn, and started again: a rolling restart.
    #[arg(long, conflicts_with = "restart")]
    roll: bool,
    /// Of the schedule and the moments of the kills; from the clock if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// A command that takes down what the server depends on and brings it back, as a database: run instead of a kill in
    /// every second cycle.
    #[arg(long)]
    restart: Option<PathBuf>,
    #[arg(long, default_value = "secret")]
    password: String,
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Four in five of the users are online at any moment; a tenth of a second after a lost connection they try again.
fn scenario(options: &Options) -> String {
    let users = options.groups * 4;
    let cuts = match options.cuts.unwrap_or(users as f64 / 8.0) {
        cuts if cuts > 0.0 => {
            format!("[population.cut]\nrate = {cuts}\naway = \"1500ms\"\n")
        }
        _ => String::new(),
    };
    let archives = if options.archives { "[ledger]\narchive = true\n" } else { "" };
    let sm = if options.resume { "resume" } else { "on" };
    format!(
        "name = \"storm\"\ndrain = \"30s\"\nlag_max = \"10s\"\n\
         [accounts]\npattern = \"s{{}}\"\npassword = '{}'\n\
         [connection]\ntls = \"none\"\nbackoff_first = \"50ms\"\nbackoff_max = \"200ms\"\nfail_over = {}\n\
         [[phase]]\nkind = \"ramp\"\nlength = \"1s\"\n\
         [[phase]]\nkind = \"hold\"\nlength = \"720h\"\n\
         [[population]]\nname = \"users\"\nusers = {users}\nsm = \"{sm}\"\nplain = 0.25\n\
         [population.message]\nrate = {}\nto = \"account\"\npartners = 3\n{cuts}{archives}",
        options.password,
        options.nodes > 1,
        options.rate
    )
}

fn main() -> ExitCode {
    let options: Options = match parsed(std::env::args_os()) {
        Ok(options) => options,
        Err(is_fault) => return ExitCode::from(if is_fault { 2 } else { 0 }),
    };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
    let seed = options.seed.unwrap_or(clock >> 8);
    match run(&options, seed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(what) => {
            eprintln!("storm: {what} (seed {seed})");
            ExitCode::from(2)
        }
    }
}

/// What is killed and started again: one server, or the nodes of a cluster.
enum Target {
    Corefire { nodes: Vec<Corefire>, _folder: ScratchDir },
    Command { program: PathBuf, arguments: Vec<OsString>, address: SocketAddr },
}

impl Target {
    fn new(options: &Options) -> Result<Self, Error> {
        if let (Some(address), Some((program, arguments))) =
            (options.address, options.command.split_first())
        {
            let (program, arguments) = (program.into(), arguments.to_vec());
            return Ok(Self::Command { program, arguments, address });
        }
        let binary = options.binary.as_deref().ok_or(Error::Config("no binary".to_owned()))?;
        let folder = ScratchDir::new("corefire-storm")?;
        let nodes = match options.nodes {
            1 => vec![Corefire::new(binary, folder.path(), &options.sets)?],
            count => Corefire::cluster(binary, folder.path(), count, &options.sets)?,
        };
        let jids = (0..options.groups * 4).map(|at| format!("s{at}@{}", options.domain));
        nodes[0].import(jids, &options.password)?;
        Ok(Self::Corefire { nodes, _folder: folder })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Corefire { nodes, .. } => nodes.iter().map(|node| node.plain).collect(),
            Self::Command { address, .. } => vec![*address],
        }
    }

    fn start(&self, at: usize) -> Result<Server, Error> {
        match self {
            Self::Corefire { nodes, .. } => nodes[at].start(&[], &[]),
            Self::Command { program, arguments, address } => {
                Server::start(program, arguments, &[], *address)
            }
        }
    }
}

fn run(options: &Options, seed: u64) -> Result<bool, String> {
    let target = Target::new(options).map_err(|error| error.to_string())?;
    let aim = |address| Aim { address, domain: options.domain.clone() };
    let aims: Vec<Aim> = target.addresses().into_iter().map(aim).collect();
    let count = aims.len();
    let request =
        Request { seed: Some(seed >> 1), ..Request::new("storm", &scenario(options), aims) };
    let plan = Plan::new(&request).map_err(|error| match error {
        PlanError::Scenario(faults) => {
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }
        PlanError::Request(what) => what,
    })?;
    println!(
        "storm: {} cycles, {} users, {}/s, seed {seed}",
        options.cycles,
        options.groups * 4,
        options.rate
    );
    let servers: Result<Vec<Server>, Error> = (0..count).map(|at| target.start(at)).collect();
    let servers = servers.map_err(|error| error.to_string())?;
    let (over, kills) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let killer = Killer {
        target,
        restart: options.restart.clone(),
        rolls: options.roll,
        over: Arc::clone(&over),
        kills: Arc::clone(&kills),
        cycles: options.cycles,
        limit: options.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
        random: Random::new(seed, &[3]),
    };
    let thread = std::thread::spawn(move || killer.work(servers));
    let begin = Instant::now() + Duration::from_millis(100);
    let mut back = Comebacks::default();
    let report = run_share(&plan, Share::WHOLE, begin, &mut |interval| {
        back.add(interval);
        if over.load(Ordering::Acquire) { Flow::Finish } else { Flow::Continue }
    });
    over.store(true, Ordering::Release);
    let ended = thread.join().map_err(|_| "the killing thread ended".to_owned())?;
    let report = report.map_err(|failure| match failure {
        Failure::Target(what) => what,
        Failure::Tool(error) => error.to_string(),
    })?;
    for server in ended? {
        server.stop().map_err(|error| error.to_string())?;
    }
    println!("{back}");
    Ok(verdict(&report, kills.load(Ordering::Acquire), seed))
}

/// How those came back whose connections broke: from then until they were served again.
#[derive(Default)]
struct Comebacks {
    resumed: Latency,
    /// Sessions that were not there any more.
    lost: u64,
    /// Anew, after that or without XEP-0198.
    logged_in: Latency,
    /// Of the seconds in which streams were resumed, the longest wait; the longest of these.
    longest: Vec<(u64, Duration)>,
}

/// So many of the longest waits are told with their time: what was being killed then stands above.
const LONGEST: usize = 6;

impl Comebacks {
    fn add(&mut self, interval: &Interval) {
        let of = |operation| interval.tallies.get(&operation);
        // A second of the tool's own histogram always reads.
        let read = |tally: &Tally| tally.response.unpack().unwrap_or_default();
        if let Some(tally) = of(Operation::Resume) {
            let waits = read(tally);
            if waits.count() > 0 {
                self.longest.push((interval.number, waits.max()));
                self.longest.sort_unstable_by_key(|(_, wait)| Reverse(*wait));
                self.longest.truncate(LONGEST);
            }
            self.resumed.merge(&waits);
            self.lost += tally.failed.get("not resumed").copied().unwrap_or_default();
        }
        if let Some(tally) = of(Operation::Login) {
            self.logged_in.merge(&read(tally));
        }
    }
}

impl Display for Comebacks {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let told = |it: &Latency| {
            let [half, most] = [0.5, 0.99].map(|share| it.quantile(share).as_millis());
            format!(
                "{} (p50 {half} ms, p99 {most} ms, longest {} ms)",
                it.count(),
                it.max().as_millis()
            )
        };
        write!(
            f,
            "came back: resumed {}, not resumed {}, logged in {}",
            told(&self.resumed),
            self.lost,
            told(&self.logged_in)
        )?;
        for (second, wait) in &self.longest {
            write!(f, "\nresumed at {second} s after {} ms", wait.as_millis())?;
        }
        Ok(())
    }
}

/// Prints what came of it; gives whether all promises held.
fn verdict(report: &ShareReport, kills: u32, seed: u64) -> bool {
    let (sent, acked) = (&report.ledger.sent, &report.ledger.acknowledged);
    let mut broken = acked.lost + sent.duplicated + sent.reordered + sent.corrupted;
    if let Some(archived) = &report.ledger.archived {
        let LedgerCounts { messages, lost, duplicated, reordered, corrupted, .. } = archived;
        println!(
            "archives: {messages} messages, lost={lost} duplicated={duplicated} reordered={reordered} corrupted={corrupted}"
        );
        broken += lost + duplicated + reordered + corrupted;
    }
    // Where nothing was promised, nothing was tested.
    let good = broken == 0 && acked.messages > 0 && kills > 0;
    if let Some(lost) = report.facts.get("lost messages") {
        println!("lost: {lost}");
    }
    if let Some(oddities) = report.facts.get("overtaken or repeated") {
        println!("overtaken or repeated: {oddities}");
    }
    println!(
        "storm: {} kills={kills} sent={} acked={} received={} lost={} reordered={} duplicated={} redelivered={} \
         corrupted={} bounced={} unacked_missing={} seed={seed}",
        if good { "PASS" } else { "FAIL" },
        sent.messages,
        acked.messages,
        sent.received,
        acked.lost,
        sent.reordered,
        sent.duplicated,
        sent.redelivered,
        sent.corrupted,
        sent.bounced,
        sent.lost - acked.lost,
    );
    good
}

/// Kills and starts the server, on a thread of its own.
struct Killer {
    target: Target,
    restart: Option<PathBuf>,
    rolls: bool,
    over: Arc<AtomicBool>,
    kills: Arc<AtomicU32>,
    cycles: u32,
    limit: Option<Duration>,
    random: Random,
}

impl Killer {
    fn work(mut self, mut servers: Vec<Server>) -> Result<Vec<Server>, String> {
        let begin = Instant::now();
        for kill in 1..=self.cycles {
            std::thread::sleep(self.pause(servers.len()));
            if self.over.load(Ordering::Acquire) || self.limit.is_some_and(|l| begin.elapsed() > l)
            {
                break;
            }
            let disturbed = match &self.restart {
                Some(command) if kill.is_multiple_of(2) => {
                    restart(command).map(|()| "the database".to_owned())
                }
                _ if self.rolls => self.roll(&mut servers, kill),
                _ => self.kill(&mut servers),
            };
            match disturbed.and_then(|what| Ok((what, self.revive(&mut servers)?))) {
                Ok((what, revived)) => {
                    let at = begin.elapsed().as_secs_f64();
                    println!("kill {kill:3}, over at {at:.1} s: {what}{revived}");
                }
                Err(error) => {
                    self.over.store(true, Ordering::Release);
                    return Err(error.to_string());
                }
            }
            self.kills.store(kill, Ordering::Release);
        }
        // What was stored is delivered by the last life of the server, which ends when the run has seen it all.
        self.over.store(true, Ordering::Release);
        Ok(servers)
    }

    /// Long enough for most to be back and busy; to the microsecond, so that each stage of the work is met. In a cluster
    /// the lease of who died has to end before.
    fn pause(&mut self, nodes: usize) -> Duration {
        let (least, span) = if nodes > 1 { (1_000_000, 6_000_000) } else { (700_000, 1_800_000) };
        Duration::from_micros(least + self.random.below(span))
    }

    /// Of a cluster's nodes one, which comes back before the others have noticed, or later.
    fn kill(&mut self, servers: &mut [Server]) -> Result<String, Error> {
        let at = self.random.below(servers.len() as u64) as usize;
        servers[at].kill()?;
        let down = match servers.len() {
            1 => Duration::ZERO,
            _ => Duration::from_micros(self.random.below(8_000_000)),
        };
        std::thread::sleep(down);
        servers[at] = self.target.start(at)?;
        let (down, start) = (down.as_millis(), servers[at].start_time.as_millis());
        Ok(match servers.len() {
            1 => format!("start {start:4} ms"),
            _ => format!("n{}, for {down:4} ms, start {start:4} ms", at + 1),
        })
    }

    /// Each in its turn.
    fn roll(&self, servers: &mut Vec<Server>, turn: u32) -> Result<String, Error> {
        let at = turn as usize % servers.len();
        let begin = Instant::now();
        servers.remove(at).stop()?;
        let stopping = begin.elapsed().as_millis();
        servers.insert(at, self.target.start(at)?);
        let start = servers[at].start_time.as_millis();
        Ok(format!("n{}, stopped in {stopping:4} ms, start {start:4} ms", at + 1))
    }

    /// A node of a cluster that was taken over ends, and is started again by whoever watches over it.
    fn revive(&self, servers: &mut [Server]) -> Result<String, Error> {
        let mut told = String::new();
        if servers.len() > 1 {
            for (at, server) in servers.iter_mut().enumerate() {
                if server.has_ended()? {
                    *server = self.target.start(at)?;
                    told.push_str(&format!("; n{} had ended by itself", at + 1));
                }
            }
        }
        Ok(told)
    }
}

/// What the server depends on goes down and comes back.
fn restart(command: &Path) -> Result<(), Error> {
    let status = Command::new(command).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::Server(format!("{}: {status}", command.display()))),
        Err(error) => Err(Error::File(command.to_path_buf(), error)),
    }
}
