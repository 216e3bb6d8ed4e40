//! What attacks cost those who are in: a calm pair chats at a planned rate while one attack after the other runs, and
//! its latency is set beside that of the moment before, in one run on one server. With it the server's memory and CPU.
//!
//! Attacks are bounded in number and time and go to loopback. They come from networks of their own (127.0.1.0/24 and
//! on), so that the server's rates hold for them and not for the pair; `--exempt` frees them, which is the worst case.

mod attacks;
mod oracle;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use attacks::ATTACKS;

use crate::launch::{Corefire, ScratchDir, Server};
use crate::server::machine_cpu;
use crate::{Accounts, Error, Fleet, FleetConfig, RateConfig, RateReport, sys};

const USAGE: &str = "\
usage: hostile BINARY [options]     (tools/bench hostile)
options: --quick             shorter runs
         --only NAME         one attack, or enumeration; may be repeated
         --exempt            no rates for the attackers either
         --server-cores A,B  cores of the server (0)        --generator-cores C  own cores (1)
         --set key=value     further settings of the server";

/// Pairs of the calm chat, their messages a second, and the size of a message.
const PAIRS: usize = 4;
const PER_SECOND: f64 = 400.0;
const BODY_BYTES: usize = 64;
/// Networks that attackers come from.
const NETWORKS: u8 = 16;
/// Share of a core that other processes may take before a row is marked.
const OTHERS_MAX: f64 = 0.1;
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

fn dial(address: SocketAddr, from: Ipv4Addr) -> std::io::Result<TcpStream> {
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

fn attack_row(
    options: &Options,
    corefire: &Corefire,
    server: &Server,
    attack: &attacks::Attack,
) -> Result<String, Error> {
    let probe = server.probe()?;
    let span = Duration::from_secs_f64(if options.quick { 2.0 } else { 8.0 });
    let accounts = Accounts {
        pattern: "calm{}".to_owned(),
        first: 0,
        count: PAIRS * 2,
        password: PASSWORD.to_owned(),
    };
    let mut fleet = Fleet::connect(&FleetConfig::new(corefire.plain, "localhost", accounts))?;
    let mut chat = |span: Duration| {
        fleet.run_rate(&RateConfig {
            pairs: PAIRS,
            per_second: PER_SECOND,
            body_bytes: BODY_BYTES,
            address: crate::pairs::Address::Full,
            warm_up: Duration::from_millis(300),
            duration: span,
            server: Some(probe),
        })
    };
    // What other processes take of the machine: a figure from a busy one says little.
    let others = || -> Result<Duration, Error> {
        let own = sys::process_cpu(std::process::id());
        let own = own.map_err(|error| Error::Io("own CPU clock", error))?;
        Ok(machine_cpu()?.saturating_sub(own + probe.cpu()?))
    };
    let (since, taken) = (Instant::now(), others()?);
    let calm = chat(span)?;
    let before = probe.memory()?.anonymous;
    let field = Field {
        plain: corefire.plain,
        direct_tls: corefire.direct_tls,
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
    };
    let peak = AtomicU64::new(before);
    let (attacked, took) = std::thread::scope(|scope| -> Result<(RateReport, Duration), Error> {
        scope.spawn(|| {
            // The pair's own thread goes first on their common core, or this would measure the generator.
            sys::yield_to_others();
            (attack.run)(&field);
        });
        scope.spawn(|| {
            while field.goes_on() {
                if let Ok(memory) = probe.memory() {
                    peak.fetch_max(memory.anonymous, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        std::thread::sleep(Duration::from_millis(500));
        let begun = Instant::now();
        let report = chat(span);
        let took = begun.elapsed();
        field.stop.store(true, Ordering::Relaxed);
        Ok((report?, took))
    })?;
    let taken = others()?.saturating_sub(taken).as_secs_f64() / since.elapsed().as_secs_f64();
    // What is over is over: the pair still chats, and what attackers held is given back.
    chat(Duration::from_millis(500))?;
    let after = probe.memory()?.anonymous;
    fleet.close()?;
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let ratio = |share: f64| {
        let (one, other) = (attacked.response.quantile(share), calm.response.quantile(share));
        us(one) / us(other).max(0.001)
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let cpu = attacked.server_cpu.unwrap_or_default().as_secs_f64() / took.as_secs_f64() * 100.0;
    let mut note = String::new();
    if !(attacked.is_valid() && calm.is_valid()) {
        note.push_str("; GENERATOR LATE");
    }
    if taken > OTHERS_MAX {
        note.push_str(&format!("; DISTURBED: others used {:.0} % of a core", taken * 100.0));
    }
    Ok(format!(
        "{:<14} {:>8} {:>6.0} µs {:>6.0} µs {:>6.2} {:>6.0} µs {:>6.0} µs {:>6.2} {:>6.0} {:>7.1} {:>7.1} {:>7.1}  {}{note}",
        attack.name,
        field.done.load(Ordering::Relaxed),
        us(calm.response.quantile(0.5)),
        us(attacked.response.quantile(0.5)),
        ratio(0.5),
        us(calm.response.quantile(0.99)),
        us(attacked.response.quantile(0.99)),
        ratio(0.99),
        cpu,
        mib(before),
        mib(peak.load(Ordering::Relaxed)),
        mib(after),
        attack.what,
    ))
}
