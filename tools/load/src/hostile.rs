//! What attacks cost those who are in: a calm pair chats at a planned rate while one attack after the other runs, and
//! its latency is set beside that of the moment before, in one run on one server. With it the server's memory and CPU.
//!
//! Attacks are bounded in number and time and go to loopback. They come from networks of their own (127.0.1.0/24 and
//! on), so that the server's rates hold for them and not for the pair; `--exempt` frees them, which is the worst case.

pub(crate) mod attacks;
mod oracle;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::Duration;

use attacks::ATTACKS;

use crate::drive::Flow;
use crate::launch::{Corefire, ScratchDir, Server};
use crate::plan::{Plan, Request, Target};
use crate::record::{Fault, Interval, Latency, Operation, Outcome};
use crate::run::{self, ServerWatch, Watch};
use crate::server::Others;
use crate::{Error, ServerProbe, sys};

const USAGE: &str = "\
usage: hostile BINARY [options]     (tools/bench hostile)
options: --quick             shorter runs
         --only NAME         one attack, or enumeration; may be repeated
         --exempt            no rates for the attackers either
         --server-cores A,B  cores of the server (0)        --generator-cores C  own cores (1)
         --set key=value     further settings of the server";

/// Pairs of the calm chat, their messages a second, and the size of a message.
const PAIRS: usize = 4;
const PER_SECOND: u32 = 400;
const BODY_BYTES: usize = 64;
/// Networks that attackers come from.
const NETWORKS: u8 = 16;
const PASSWORD: &str = "secret";
const PATIENCE: Duration = Duration::from_secs(2);

struct Options {
    binary: PathBuf,
    quick: bool,
    only: Vec<String>,
    exempt: bool,
    server_cores: Vec<usize>,
    generator_cores: Vec<usize>,
    sets: Vec<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let binary = arguments.next().filter(|first| !first.starts_with("--"));
        let mut options = Self {
            binary: binary.ok_or("which binary?")?.into(),
            quick: false,
            only: Vec::new(),
            exempt: false,
            server_cores: vec![0],
            generator_cores: vec![1],
            sets: Vec::new(),
        };
        let cores = |list: &str| -> Result<Vec<usize>, String> {
            list.split(',')
                .map(|core| core.parse().map_err(|_| format!("{list}: not cores")))
                .collect()
        };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--quick" => options.quick = true,
                "--exempt" => options.exempt = true,
                "--only" => options.only.push(value()?),
                "--server-cores" => options.server_cores = cores(&value()?)?,
                "--generator-cores" => options.generator_cores = cores(&value()?)?,
                "--set" => options.sets.push(value()?),
                _ => return Err(format!("{flag} is not known")),
            }
        }
        let known =
            |name: &String| name == "enumeration" || ATTACKS.iter().any(|it| it.name == name);
        match options.only.iter().find(|name| !known(name)) {
            Some(name) => Err(format!("no attack {name}")),
            None => Ok(options),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// The whole command.
///
/// - gives: 0, or 2 if it could not be run
pub fn main(
    arguments: impl Iterator<Item = String>,
    mut print: impl FnMut(&str),
    complain: impl Fn(&str),
) -> ExitCode {
    let result = match Options::parse(arguments) {
        Ok(options) => run(&options, &mut print).map_err(|error| error.to_string()),
        Err(error) => Err(format!("{error}\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options, print: &mut impl FnMut(&str)) -> Result<(), Error> {
    let available = sys::affinity().map_err(|error| Error::Io("affinity", error))?;
    let own: Vec<_> =
        options.generator_cores.iter().copied().filter(|core| available.contains(core)).collect();
    if available.len() > 1 && !own.is_empty() {
        sys::set_affinity(&own).map_err(|error| Error::Io("affinity", error))?;
    }
    // The attackers share our core: what the pair waits for must be the server, not them.
    if !sys::go_first() {
        print("the pair may not go before its attackers here: its figures hold their share, too");
    }
    sys::raise_descriptor_limit().map_err(|error| Error::Io("limit of descriptors", error))?;
    let data_dir = ScratchDir::new("corefire-hostile")?;
    let exempt = if options.exempt { "127.0.0.0/8" } else { "127.0.0.0/24" };
    let mut sets = vec![format!("limits.exempt=[\"{exempt}\"]")];
    sets.extend_from_slice(&options.sets);
    let corefire = Corefire::new(&options.binary, data_dir.path(), &sets)?;
    let names = (0..PAIRS * 2).map(|at| format!("calm{at}"));
    let names = names.chain((0..NETWORKS).map(|at| format!("mallory{at}")));
    let names = names.chain((0..oracle::KNOWN).map(|at| format!("known{at}")));
    corefire.import(names.map(|name| format!("{name}@localhost")), PASSWORD)?;
    if ATTACKS.iter().any(|attack| options.wants(attack.name)) {
        print(&format!(
            "{:<14} {:>8} {:>9} {:>9} {:>6} {:>9} {:>9} {:>6} {:>6} {:>7} {:>7} {:>7}  what",
            "attack",
            "done",
            "p50 calm",
            "attacked",
            "ratio",
            "p99 calm",
            "attacked",
            "ratio",
            "CPU %",
            "MiB",
            "at most",
            "after"
        ));
    }
    for attack in ATTACKS.iter().filter(|attack| options.wants(attack.name)) {
        // A server of its own for each, so that no row pays for another.
        let server = corefire.start(&options.server_cores, &[])?;
        print(&attack_row(options, &corefire, &server, attack)?);
        server.stop()?;
    }
    if options.wants("enumeration") {
        let server = corefire.start(&options.server_cores, &[])?;
        oracle::run(corefire.plain, options.quick, print)?;
        server.stop()?;
    }
    Ok(())
}

/// What an attacker needs.
struct Field {
    plain: SocketAddr,
    direct_tls: SocketAddr,
    stop: AtomicBool,
    done: AtomicU64,
}

impl Field {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection from the network of that number; a refusal is an answer, too.
    fn dial(&self, address: SocketAddr, network: u64) -> std::io::Result<TcpStream> {
        let third = 1 + u8::try_from(network % u64::from(NETWORKS)).unwrap_or(0);
        dial(address, Ipv4Addr::new(127, 0, third, 1))
    }
}

/// A connection to `address` from `from`, which leaves nothing behind.
pub(crate) fn dial(address: SocketAddr, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    // Nothing of it stays behind, in either kernel.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

const CALM: &str = "calm";
const ONSET: &str = "the attack begins";
const ATTACKED: &str = "attacked";
const AFTER: &str = "after";

/// The pairs' chat: calm, under attack, and a second behind it. What is over is over: they still chat, and what attackers
/// held is given back.
fn chat(options: &Options) -> String {
    let seconds = if options.quick { 2 } else { 8 };
    format!(
        "seed = 1\narrivals = \"even\"\n\
         [accounts]\npattern = \"calm{{}}\"\npassword = \"{PASSWORD}\"\n\
         [connection]\ntls = \"none\"\n\
         [[phase]]\nname = \"log in\"\nkind = \"ramp\"\nlength = \"1s\"\n\
         [[phase]]\nname = \"warm up\"\nlength = \"1s\"\nmeasured = false\n\
         [[phase]]\nname = \"{CALM}\"\nlength = \"{seconds}s\"\n\
         [[phase]]\nname = \"{ONSET}\"\nlength = \"1s\"\nmeasured = false\n\
         [[phase]]\nname = \"{ATTACKED}\"\nlength = \"{seconds}s\"\n\
         [[phase]]\nname = \"{AFTER}\"\nlength = \"1s\"\n\
         [[population]]\nusers = {}\n\
         [population.message]\nrate = {PER_SECOND}\nbody = {BODY_BYTES}\n",
        PAIRS * 2
    )
}

/// Lets the attack begin and end with its phases, and looks at the server's memory meanwhile.
struct Onset<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    plan: &'env Plan,
    field: &'env Field,
    attack: &'static attacks::Attack,
    probe: ServerProbe,
    peak: &'env AtomicU64,
}

impl Onset<'_, '_> {
    fn begin(&self) {
        let (field, attack, probe, peak) = (self.field, self.attack, self.probe, self.peak);
        self.scope.spawn(move || {
            // The pairs' own thread goes first on their common core, or this would measure the generator.
            sys::yield_to_others();
            (attack.run)(field);
        });
        self.scope.spawn(move || {
            sys::yield_to_others();
            while field.goes_on() {
                if let Ok(memory) = probe.anonymous() {
                    peak.fetch_max(memory, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    }
}

impl Watch for Onset<'_, '_> {
    fn second(&mut self, interval: &Interval) -> Flow {
        // Of the second that begins now.
        let phase = self.plan.phase_at(Duration::from_secs(interval.number + 1));
        let phase = self.plan.phases[phase].wish.name.as_str();
        match phase {
            ONSET => self.begin(),
            AFTER => self.field.stop.store(true, Ordering::Relaxed),
            _ => {}
        }
        Flow::Continue
    }

    fn fault(&mut self, _fault: &Fault) {}

    fn invalid(&mut self, _reason: &str) {}
}

/// A phase of the chat.
struct Stretch {
    /// Half of its messages arrive in that time.
    median: Duration,
    /// Of every hundred messages one takes longer, in the median of its seconds: what a shared host keeps from both ends
    /// for some moments is not what the attack does.
    p99: Duration,
    /// Of the server, per second.
    cpu: f64,
    /// Of the server at its end, in bytes.
    memory: u64,
}

impl Stretch {
    fn of(outcome: &Outcome, name: &str) -> Result<Self, Error> {
        let is_in = |interval: &Interval| {
            outcome.phases.get(interval.phase).is_some_and(|phase| phase.name == name)
        };
        let unreadable = |_| Error::Config("a histogram of the run cannot be read".to_owned());
        let response = |wanted: &dyn Fn(&Interval) -> bool| -> Result<Latency, Error> {
            let mut totals = outcome.totals(wanted).map_err(unreadable)?;
            Ok(totals.remove(&Operation::Message).unwrap_or_default().response)
        };
        let mut seconds = Vec::new();
        for second in outcome.intervals.iter().filter(|it| is_in(it)) {
            seconds.push(response(&|it| it.number == second.number)?.quantile(0.99));
        }
        seconds.sort_unstable();
        let loads = outcome.intervals.iter().filter(|it| is_in(it)).filter_map(|it| it.server);
        let loads: Vec<_> = loads.collect();
        let cpu: Duration = loads.iter().map(|load| load.cpu).sum();
        Ok(Self {
            median: response(&is_in)?.quantile(0.5),
            p99: seconds.get(seconds.len() / 2).copied().unwrap_or_default(),
            cpu: cpu.as_secs_f64() / loads.len().max(1) as f64,
            memory: loads.last().map_or(0, |load| load.memory),
        })
    }
}

fn attack_row(
    options: &Options,
    corefire: &Corefire,
    server: &Server,
    attack: &'static attacks::Attack,
) -> Result<String, Error> {
    let probe = server.probe()?;
    let target = Target { address: corefire.plain, domain: "localhost".to_owned() };
    let request = Request::new("hostile", &chat(options), vec![target]);
    let plan = Plan::new(&request).map_err(|error| Error::Config(format!("{error:?}")))?;
    let field = Field {
        plain: corefire.plain,
        direct_tls: corefire.direct_tls,
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
    };
    let peak = AtomicU64::new(0);
    let others = Others::begin(Some(probe))?;
    let outcome = std::thread::scope(|scope| {
        let (plan, field, peak) = (&plan, &field, &peak);
        let mut onset = Onset { scope, plan, field, attack, probe, peak };
        let outcome = run::run(plan, &request, Some(ServerWatch::new(probe.pid())?), &mut onset);
        // Also where the run failed, or the attack would go on for ever.
        field.stop.store(true, Ordering::Relaxed);
        outcome.map_err(|error| Error::Server(error.to_string()))
    })?;
    let disturbed = others.note()?;
    if let Some(cause) = &outcome.verdict.aborted {
        return Err(Error::Server(cause.clone()));
    }
    let sent = &outcome.ledger.sent;
    if sent.received < sent.messages {
        let missing = sent.messages - sent.received;
        return Err(Error::Server(format!("{missing} of {} messages are missing", sent.messages)));
    }
    let stretch = |name| Stretch::of(&outcome, name);
    let (calm, attacked, after) = (stretch(CALM)?, stretch(ATTACKED)?, stretch(AFTER)?);
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let ratio = |attacked, calm| us(attacked) / us(calm).max(0.001);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut note = String::new();
    if !outcome.verdict.invalid.is_empty() {
        note.push_str(&format!("; GENERATOR LATE: {}", outcome.verdict.invalid.join("; ")));
    }
    note.push_str(&disturbed);
    Ok(format!(
        "{:<14} {:>8} {:>6.0} µs {:>6.0} µs {:>6.2} {:>6.0} µs {:>6.0} µs {:>6.2} {:>6.0} {:>7.1} {:>7.1} {:>7.1}  {}{note}",
        attack.name,
        field.done.load(Ordering::Relaxed),
        us(calm.median),
        us(attacked.median),
        ratio(attacked.median, calm.median),
        us(calm.p99),
        us(attacked.p99),
        ratio(attacked.p99, calm.p99),
        attacked.cpu * 100.0,
        mib(calm.memory),
        mib(peak.load(Ordering::Relaxed)),
        mib(after.memory),
        attack.what,
    ))
}
