//! What a federation core at its limit costs a shard: users of one server chat at a planned rate while other servers do
//! their worst to it, and while they do nothing, in alternating pairs. `tools/bench isolation`.
//!
//! A machine of two cores: on the one the shard and the generator, on the other the federation core, the flood
//! (`flood`), and a DNS server for 10 000 domains that are dead. The server's own histogram of read → write says what the
//! shard's users wait for, the clocks of its threads what a message costs. Both halves of a pair have a server of their own
//! and differ in the flood alone; the messages to the dead domains are written before what is measured begins.
//!
//! What else runs on the machine goes to the core that has time, and that is the shard's when the other is busy: `--alone`
//! keeps it away from there (`alone`; root). A core of a virtual machine may be slower where the other works, whatever that
//! does: with `--foreign` a program that has nothing to do with the server keeps the other core busy in the idle halves.

mod alone;
mod flood;
mod half;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, value_parser};
use half::{Half, Site};

use crate::cli::parsed;
use crate::{Error, sys};

/// What the shard and the generator take together of their core.
const LOAD: f64 = 0.2;
/// At which that is found out, before the first pair.
const FIRST_RATE: f64 = 2000.0;
/// The bounds: of the median over the pairs.
const LATENCY_MAX: f64 = 1.25;
const CPU_MAX: f64 = 1.1;
/// What this program is told to keep a core busy, and for how long at most.
const SPIN: &str = "--spin";
const SPIN_MAX: Duration = Duration::from_secs(300);
/// A federation core that had this much to do was at its limit.
const FULL: f64 = 0.95;

/// Measures what a federation core at its limit costs a shard.
#[derive(Parser)]
#[command(name = "isolation")]
struct Options {
    /// The Corefire binary to start.
    binary: PathBuf,
    /// Pairs of an idle and a flooded half.
    #[arg(long, value_parser = value_parser!(u32).range(1..), default_value_t = 10, default_value_if("quick", "true", "3"))]
    pairs: u32,
    /// Measured in each half.
    #[arg(long, value_parser = value_parser!(u64).range(1..), default_value_t = 10, default_value_if("quick", "true", "4"))]
    seconds: u64,
    /// 3 pairs of 4 seconds.
    #[arg(long)]
    quick: bool,
    /// Messages a second; else as many as take a fifth of the core, shard and generator together.
    #[arg(long)]
    rate: Option<f64>,
    /// Domains that are dead; 0: none is dialled.
    #[arg(long, default_value_t = 10_000)]
    domains: u32,
    /// No connections of others, dials alone.
    #[arg(long)]
    no_visits: bool,
    /// In idle halves the other core is busy, too, with what is none of the server's.
    #[arg(long)]
    foreign: bool,
    /// Whatever else runs on the machine leaves the shard's core meanwhile (root).
    #[arg(long)]
    alone: bool,
    /// Further key=value for the server's --set.
    #[arg(long = "set")]
    sets: Vec<String>,
}

/// The whole command.
///
/// - gives: 0, 1 if a bound does not hold, 2 if it could not be run
pub fn main(
    arguments: impl Iterator<Item = OsString>,
    mut print: impl FnMut(&str),
    complain: impl Fn(&str),
) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    if let [_, first, core] = &arguments[..]
        && first == SPIN
    {
        spin(core);
        return ExitCode::SUCCESS;
    }
    let options: Options = match parsed(arguments.iter().cloned()) {
        Ok(options) => options,
        Err(is_fault) => return ExitCode::from(if is_fault { 2 } else { 0 }),
    };
    let done = match options.alone {
        true => alone(&arguments),
        false => run(&options, &mut print).map(|holds| if holds { 0 } else { 1 }),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(2)
        }
    }
}

/// The same without `--alone`, once others have left.
///
/// - gives: its exit status
fn alone(arguments: &[OsString]) -> Result<u8, Error> {
    let [shard_core, _] = cores()?;
    let others = arguments.iter().skip(1).filter(|argument| *argument != "--alone");
    alone::run(shard_core, &others.cloned().collect::<Vec<_>>())
}

/// The shard's, and that of federation.
fn cores() -> Result<[usize; 2], Error> {
    let available = sys::affinity().map_err(|error| Error::Io("affinity", error))?;
    match available[..] {
        [shard_core, federation_core, ..] => Ok([shard_core, federation_core]),
        _ => Err(Error::Config("this takes two cores".to_owned())),
    }
}

/// - gives: whether all bounds hold
fn run(options: &Options, print: &mut impl FnMut(&str)) -> Result<bool, Error> {
    let [shard_core, federation_core] = cores()?;
    sys::set_affinity(&[shard_core]).map_err(|error| Error::Io("affinity", error))?;
    sys::raise_descriptor_limit().map_err(|error| Error::Io("limit of descriptors", error))?;
    let mut site = Site {
        binary: &options.binary,
        cores: [shard_core, federation_core],
        seconds: 3,
        rate: FIRST_RATE,
        domains: options.domains,
        visits: !options.no_visits,
        sets: &options.sets,
    };
    site.rate = match options.rate {
        Some(rate) => rate,
        None => (FIRST_RATE * LOAD / Half::measure(&site, false)?.load()).round(),
    };
    site.seconds = options.seconds;
    print(&format!(
        "{} pairs of {} s, {} messages/s; shard and generator on core {shard_core}, federation and flood on core \
         {federation_core}",
        options.pairs, options.seconds, site.rate
    ));
    let mut pairs = Vec::new();
    for number in 1..=options.pairs {
        let flooded_first = number % 2 == 0;
        let measure = |flooded: bool| {
            let beside = options.foreign && !flooded;
            let _foreign = beside.then(|| Foreign::start(federation_core)).transpose()?;
            Half::measure(&site, flooded)
        };
        let first = measure(flooded_first)?;
        let second = measure(!flooded_first)?;
        let pair = match flooded_first {
            true => Pair { idle: second, flooded: first },
            false => Pair { idle: first, flooded: second },
        };
        print(&format!("{number:>2}: {}", pair.line()));
        print(&format!("    idle:    {}", pair.idle.line()));
        print(&format!("    flooded: {}", pair.flooded.line()));
        pairs.push(pair);
    }
    Ok(judge(&pairs, print))
}

/// A program that keeps a core busy: this one, as a process of its own.
struct Foreign(Child);

impl Foreign {
    fn start(core: usize) -> Result<Self, Error> {
        let itself = std::env::current_exe().map_err(|error| Error::Io("this program", error))?;
        let child = Command::new(itself).args([SPIN, &core.to_string()]).spawn();
        Ok(Self(child.map_err(|error| Error::Io("a second of this program", error))?))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Who has ended has no core to give back.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Keeps a core busy, for no longer than a half may take.
fn spin(core: &OsStr) {
    let Some(core) = core.to_str().and_then(|core| core.parse().ok()) else { return };
    if sys::set_affinity(&[core]).is_err() {
        return;
    }
    let mut words = vec![1u64; 32 << 10];
    let until = Instant::now() + SPIN_MAX;
    while Instant::now() < until {
        for place in 1..words.len() {
            words[place] = words[place - 1].wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7);
        }
        std::hint::black_box(&mut words);
    }
}

struct Pair {
    idle: Half,
    flooded: Half,
}

impl Pair {
    fn ratio(&self, figure: impl Fn(&Half) -> f64) -> f64 {
        figure(&self.flooded) / figure(&self.idle).max(f64::MIN_POSITIVE)
    }

    fn line(&self) -> String {
        let shown = |name: &str, digits: usize, figure: fn(&Half) -> f64| {
            let (idle, flooded) = (figure(&self.idle), figure(&self.flooded));
            format!("{name} {idle:.digits$} -> {flooded:.digits$} us, {:.2}", self.ratio(figure))
        };
        format!(
            "{}; {}; {}",
            shown("read -> write p99.9", 0, Half::own),
            shown("shard's CPU a message", 2, Half::cost),
            shown("wall p99.9", 0, Half::wall)
        )
    }
}

/// The medians, and whether they are within their bounds.
fn judge(pairs: &[Pair], print: &mut impl FnMut(&str)) -> bool {
    let of = |figure: fn(&Half) -> f64| median(pairs.iter().map(|pair| pair.ratio(figure)));
    let (own, cost, wall) = (of(Half::own), of(Half::cost), of(Half::wall));
    let full = median(pairs.iter().map(|pair| pair.flooded.federation_core()));
    let word = |holds: bool| if holds { "PASS" } else { "FAIL" };
    let all = [
        (own <= LATENCY_MAX, format!("shard's read -> write p99.9: {own:.2} x (<= {LATENCY_MAX})")),
        (cost <= CPU_MAX, format!("shard's CPU a message: {cost:.2} x (<= {CPU_MAX})")),
        (
            full >= FULL,
            format!("federation core busy: {:.0} % (>= {:.0})", full * 100.0, FULL * 100.0),
        ),
    ];
    print(&format!("medians of {} pairs", pairs.len()));
    for (holds, text) in &all {
        print(&format!("{} {text}", word(*holds)));
    }
    print(&format!("     wall p99.9: {wall:.2} x"));
    all.iter().all(|(holds, _)| *holds)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_between_the_two_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn options_have_their_defaults_and_nothing_to_measure_is_refused() {
        let parse = |text: &str| Options::try_parse_from(format!("isolation {text}").split(' '));
        let options = parse("corefire --quick --rate 500 --no-visits").unwrap();
        assert_eq!((options.pairs, options.seconds, options.domains), (3, 4, 10_000));
        assert_eq!((options.rate, !options.no_visits), (Some(500.0), false));
        for refused in ["--quick", "corefire --pairs 0", "corefire --pairs", "corefire --what"] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_bound_that_one_pair_breaks_holds_by_the_median() {
        let pair = |own: f64, busy: f64| Pair {
            idle: Half::with(100.0, 0.0),
            flooded: Half::with(own, busy),
        };
        let mut lines = Vec::new();
        let mut print = |line: &str| lines.push(line.to_owned());
        assert!(judge(&[pair(90.0, 1.0), pair(300.0, 1.0), pair(125.0, 0.97)], &mut print));
        assert!(!judge(&[pair(90.0, 1.0), pair(300.0, 1.0), pair(126.0, 1.0)], &mut print));
        assert!(!judge(&[pair(100.0, 0.9)], &mut print), "it had time left");
        assert!(
            lines.iter().any(|line| line.starts_with("FAIL federation core busy")),
            "{lines:?}"
        );
    }
}
