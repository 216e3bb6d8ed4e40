//! The kill -9 storm: senders with XEP-0198 keep a server busy, it is killed at a random moment and started again, and
//! every message it had acknowledged must have reached its recipient, in order.
//!
//! Half of the recipients are online when the server dies, half are not; half use XEP-0198, half do not. Exit code 0:
//! all promises held; 1: one was broken; 2: the storm could not be run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result of a command")]

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corefire_load::launch::{Corefire, ScratchDir, Server};
use corefire_load::ledger::{Counts, Ledger};
use corefire_load::scan::{Element, escape};
use corefire_load::sources::Sources;
use corefire_load::{
    ClientConfig, ClientId, Control, Engine, EngineConfig, Error, Mechanism, Scenario, Tls,
};

const USAGE: &str = "\
usage: storm --binary COREFIRE [--set key=value ...] [options]
       storm --address HOST:PORT --domain D [options] -- COMMAND ...   (any server; COMMAND starts it in the
             foreground; accounts s0, s1, ... (senders) and r0, r1, ... (recipients) must exist)
options: --cycles N (30)  --minutes M (no limit)  --pairs N (40)  --rate PER_SECOND (2000)  --seed N (from the clock)
         --password PW (secret)";

/// Messages of one sender without an acknowledgement.
const WINDOW: usize = 32;
/// Recipients that each sender talks to.
const FAN_OUT: u64 = 3;
/// Nothing arriving for so long after the logins means that everything stored was delivered.
const QUIET: Duration = Duration::from_millis(500);
/// How long acknowledged messages may keep us waiting.
const COLLECT_PATIENCE: Duration = Duration::from_secs(15);
/// How long connections may take to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

struct Options {
    binary: Option<PathBuf>,
    sets: Vec<String>,
    command: Vec<OsString>,
    address: Option<SocketAddr>,
    domain: String,
    cycles: u32,
    limit: Option<Duration>,
    pairs: usize,
    rate: f64,
    seed: u64,
    password: String,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        binary: None,
        sets: Vec::new(),
        command: Vec::new(),
        address: None,
        domain: "localhost".to_owned(),
        cycles: 30,
        limit: None,
        pairs: 40,
        rate: 2000.0,
        seed: SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64),
        password: "secret".to_owned(),
    };
    let mut arguments = arguments;
    while let Some(flag) = arguments.next() {
        if flag == "--" {
            options.command = arguments.by_ref().map(OsString::from).collect();
            break;
        }
        let value = arguments.next().ok_or(format!("{flag} needs a value"))?;
        let bad = |_| format!("{flag} {value}: not a number");
        match flag.as_str() {
            "--binary" => options.binary = Some(value.into()),
            "--set" => options.sets.push(value),
            "--address" => {
                options.address = Some(value.parse().map_err(|e| format!("{flag}: {e}"))?)
            }
            "--domain" => options.domain = value,
            "--cycles" => options.cycles = value.parse().map_err(bad)?,
            "--minutes" => {
                let minutes: u64 = value.parse().map_err(bad)?;
                options.limit = Some(Duration::from_secs(60 * minutes));
            }
            "--pairs" => options.pairs = value.parse().map_err(bad)?,
            "--rate" => options.rate = value.parse().map_err(|e| format!("{flag} {value}: {e}"))?,
            "--seed" => options.seed = value.parse().map_err(bad)?,
            "--password" => options.password = value,
            _ => return Err(format!("{flag} is not known")),
        }
    }
    let foreign = options.address.is_some() && !options.command.is_empty();
    if options.binary.is_some() == foreign || options.pairs == 0 || options.rate <= 0.0 {
        return Err("either --binary, or --address and a command; at least one pair".to_owned());
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("storm: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("storm: {error} (seed {})", options.seed);
            ExitCode::from(2)
        }
    }
}

/// What is killed and started again.
enum Target {
    Corefire { corefire: Corefire, _data_dir: ScratchDir },
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
        let data_dir = ScratchDir::new("corefire-storm")?;
        let corefire = Corefire::new(binary, data_dir.path(), &options.sets)?;
        let users = (0..options.pairs).flat_map(|at| [format!("s{at}"), format!("r{at}")]);
        corefire
            .import(users.map(|user| format!("{user}@{}", options.domain)), &options.password)?;
        Ok(Self::Corefire { corefire, _data_dir: data_dir })
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Corefire { corefire, .. } => corefire.plain,
            Self::Command { address, .. } => *address,
        }
    }

    fn start(&self) -> Result<Server, Error> {
        match self {
            Self::Corefire { corefire, .. } => corefire.start(&[], &[]),
            Self::Command { program, arguments, address } => {
                Server::start(program, arguments, &[], *address)
            }
        }
    }
}

fn run(options: &Options) -> Result<bool, Error> {
    let target = Target::new(options)?;
    let mut engine = Engine::new(EngineConfig {
        address: target.address(),
        domain: options.domain.clone(),
        tls: Tls::None,
        mechanism: Some(Mechanism::ScramSha256),
        sources: Sources::default(),
        login_in_flight: 32,
        sm_request_every: 1,
    })?;
    let mut storm = Storm::new(&mut engine, options)?;
    println!(
        "storm: {} cycles, {} senders, {}/s, seed {}",
        options.cycles, options.pairs, options.rate, options.seed
    );
    let begin = Instant::now();
    let mut kills = 0;
    loop {
        let server = target.start()?;
        let start_time = server.start_time;
        storm.ledger.begin_life();
        storm.collect(&mut engine)?;
        let counts = storm.ledger.counts();
        print_line(kills, start_time, &counts);
        let over = options.limit.is_some_and(|limit| begin.elapsed() >= limit);
        if kills == options.cycles || over || !counts.is_good() {
            for (id, sender, recipient) in storm.ledger.lost(10) {
                println!("lost: message {id:x} of s{sender} to r{recipient}");
            }
            // Where nothing was promised, nothing was tested.
            let idle = kills > 0 && counts.acked == 0;
            if idle {
                println!("the server acknowledged nothing");
            }
            let good = counts.is_good() && !idle;
            let verdict = if good { "PASS" } else { "FAIL" };
            println!(
                "storm: {verdict} kills={kills} sent={} acked={} received={} unacked_received={} lost={} misordered={} \
                 duplicates={} duplicates_after_restart={} bounced={} strays={} seed={}",
                counts.sent,
                counts.acked,
                counts.received,
                counts.received_unacked,
                counts.lost,
                counts.misordered,
                counts.duplicates,
                counts.duplicates_after_restart,
                counts.bounced,
                counts.strays,
                options.seed
            );
            server.stop()?;
            return Ok(good);
        }
        storm.kill_while_busy(&mut engine, server)?;
        kills += 1;
    }
}

fn print_line(kills: u32, start_time: Duration, counts: &Counts) {
    println!(
        "kills {kills:3}: start {:4} ms, sent {}, acked {}, received {}, again after a restart {}, bounced {}, lost {}",
        start_time.as_millis(),
        counts.sent,
        counts.acked,
        counts.received,
        counts.duplicates_after_restart,
        counts.bounced,
        counts.lost
    );
}

enum Phase {
    /// These log in; then, if asked, what was stored for them is awaited.
    Login { left: usize, collect: bool },
    /// These log out.
    Logout { until: Instant },
    /// Senders send, at the end as fast as they may, until the moment of the kill; then all read what is left.
    Busy {
        begun: Instant,
        burst_at: Instant,
        kill_at: Instant,
        server: Option<Server>,
        budget_used: u64,
    },
}

struct Storm {
    senders: Vec<ClientId>,
    recipients: Vec<ClientId>,
    jids: Vec<String>,
    ledger: Ledger,
    phase: Phase,
    arrived: Instant,
    closed: Option<(ClientId, String)>,
    next_sender: usize,
    rate: f64,
    random: u64,
}

impl Storm {
    fn new(engine: &mut Engine, options: &Options) -> Result<Self, Error> {
        let password: Rc<str> = options.password.as_str().into();
        let mut add = |user: String, presence, sm| {
            let (password, resource) = (Rc::clone(&password), "storm".to_owned());
            engine.add(ClientConfig {
                user,
                password,
                resource,
                presence,
                sm,
                ..ClientConfig::default()
            })
        };
        let senders: Result<_, _> =
            (0..options.pairs).map(|at| add(format!("s{at}"), false, true)).collect();
        let recipients: Result<_, _> =
            (0..options.pairs).map(|at| add(format!("r{at}"), true, at % 2 == 0)).collect();
        Ok(Self {
            senders: senders?,
            recipients: recipients?,
            jids: (0..options.pairs).map(|at| format!("r{at}@{}", options.domain)).collect(),
            ledger: Ledger::default(),
            phase: Phase::Login { left: 0, collect: false },
            arrived: Instant::now(),
            closed: None,
            next_sender: 0,
            rate: options.rate,
            random: options.seed,
        })
    }

    /// SplitMix64: a run is repeated by its seed.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// Logs all recipients in and waits until nothing more arrives.
    fn collect(&mut self, engine: &mut Engine) -> Result<(), Error> {
        for id in &self.recipients {
            engine.start(*id);
        }
        self.arrived = Instant::now();
        self.phase = Phase::Login { left: self.recipients.len(), collect: true };
        engine.run(self)
    }

    /// Logs half of the recipients out and the senders in, lets them talk, kills the server under them.
    fn kill_while_busy(&mut self, engine: &mut Engine, server: Server) -> Result<(), Error> {
        let until = Instant::now() + CLOSE_PATIENCE;
        self.phase = Phase::Logout { until };
        for at in 0..self.recipients.len() {
            if self.below(2) == 0 {
                engine.close(self.recipients[at]);
            }
        }
        engine.run(self)?;
        for id in &self.senders {
            engine.start(*id);
        }
        self.phase = Phase::Login { left: self.senders.len(), collect: false };
        engine.run(self)?;
        let begun = Instant::now();
        // The last milliseconds are a burst, so that the kill finds work in every stage and not a server that waits.
        let burst_at = begun + Duration::from_millis(200 + self.below(1600));
        let kill_at = burst_at + Duration::from_micros(self.below(20_000));
        self.phase = Phase::Busy { begun, burst_at, kill_at, server: Some(server), budget_used: 0 };
        engine.run(self)
    }

    fn all(&self) -> impl Iterator<Item = ClientId> {
        self.senders.iter().chain(&self.recipients).copied()
    }

    /// Sends what the rate allows, round the senders that have room.
    fn send_due(&mut self, engine: &mut Engine, due: u64) -> u64 {
        let mut sent = 0;
        let mut full = 0;
        while sent < due && full < self.senders.len() {
            let sender = self.next_sender;
            self.next_sender = (sender + 1) % self.senders.len();
            if self.ledger.unacked(sender as u32) >= WINDOW
                || !engine.is_ready(self.senders[sender])
            {
                full += 1;
                continue;
            }
            full = 0;
            let recipient = (sender + self.below(FAN_OUT) as usize) % self.recipients.len();
            let message = self.ledger.send(sender as u32, recipient as u32);
            let number = engine.send(self.senders[sender], 1, |out| {
                out.extend_from_slice(b"<message type='chat' to='");
                escape(&self.jids[recipient], out);
                out.extend_from_slice(format!("' id='{message:x}'><body>").as_bytes());
                out.extend_from_slice(
                    format!("message {message} of a storm</body></message>").as_bytes(),
                );
            });
            self.ledger.numbered(message, number);
            sent += 1;
        }
        sent
    }
}

impl Scenario for Storm {
    fn on_ready(&mut self, _client: ClientId) {
        if let Phase::Login { left, .. } = &mut self.phase {
            *left -= 1;
            self.arrived = Instant::now();
        }
    }

    fn on_stanza(&mut self, client: ClientId, stanza: &Element<'_>, at: Instant) {
        if stanza.name() != b"message" {
            return;
        }
        let id = stanza.text_of("id").and_then(|id| usize::from_str_radix(&id, 16).ok());
        let Some(id) = id else {
            return;
        };
        self.arrived = at;
        let (index, senders) = (client.index(), self.senders.len());
        if index < senders {
            self.ledger.bounced(id, index as u32);
        } else {
            self.ledger.received(id, (index - senders) as u32);
        }
    }

    fn on_acked(&mut self, client: ClientId, handled: u32) {
        if client.index() < self.senders.len() {
            self.ledger.acked(client.index() as u32, handled);
        }
    }

    fn on_closed(&mut self, client: ClientId, cause: &str) {
        let expected = match &self.phase {
            Phase::Login { .. } => false,
            Phase::Logout { .. } => true,
            Phase::Busy { server, .. } => server.is_none(),
        };
        if !expected {
            self.closed.get_or_insert_with(|| (client, cause.to_owned()));
        }
    }

    fn turn(&mut self, engine: &mut Engine, now: Instant) -> Result<Control, Error> {
        if let Some((client, cause)) = self.closed.take() {
            return Err(Error::Closed { user: engine.user(client).to_owned(), cause });
        }
        let soon = now + Duration::from_millis(5);
        let quiet = now.saturating_duration_since(self.arrived);
        match &mut self.phase {
            Phase::Login { left: 0, collect: false } => Ok(Control::Done),
            Phase::Login { left: 0, collect: true } => {
                let complete = self.ledger.outstanding() == 0;
                if quiet < if complete { QUIET } else { COLLECT_PATIENCE } {
                    return Ok(Control::Until(soon));
                }
                for id in &self.recipients {
                    engine.acknowledge(*id);
                }
                Ok(Control::Done)
            }
            Phase::Login { left, .. } => {
                if quiet > COLLECT_PATIENCE * 2 {
                    return Err(Error::Stalled { waiting_for: format!("{left} logins") });
                }
                Ok(Control::Until(soon))
            }
            Phase::Logout { until } => {
                let over = now >= *until;
                // Those that were not asked to leave stay ready.
                let leaving: Vec<_> = self.all().filter(|id| engine.is_closing(*id)).collect();
                if over {
                    return Err(Error::Stalled {
                        waiting_for: format!("{} logouts", leaving.len()),
                    });
                }
                Ok(if leaving.is_empty() { Control::Done } else { Control::Until(soon) })
            }
            Phase::Busy { begun, burst_at, kill_at, server, budget_used } => {
                if now >= *kill_at {
                    if let Some(mut killed) = server.take() {
                        killed.kill()?;
                    }
                    let late = now > *kill_at + CLOSE_PATIENCE;
                    let open: Vec<_> = self.all().filter(|id| !engine.is_down(*id)).collect();
                    if open.is_empty() {
                        return Ok(Control::Done);
                    }
                    if late {
                        return Err(Error::Stalled {
                            waiting_for: "connections to end".to_owned(),
                        });
                    }
                    return Ok(Control::Until(soon));
                }
                let due = if now >= *burst_at {
                    u64::MAX
                } else {
                    let elapsed = now.saturating_duration_since(*begun).as_secs_f64();
                    ((elapsed * self.rate) as u64).saturating_sub(*budget_used)
                };
                let until = (*kill_at).min(now + Duration::from_micros(500));
                let sent = self.send_due(engine, due);
                if let Phase::Busy { budget_used, .. } = &mut self.phase {
                    // What the window refused is not made up for later.
                    *budget_used =
                        budget_used.saturating_add(sent.max(due.saturating_sub(WINDOW as u64)));
                }
                Ok(Control::Until(until))
            }
        }
    }
}
