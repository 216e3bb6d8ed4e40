//! The command line of `corefire-load`: arguments, what is printed, exit codes.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the results of commands")]

mod compare;
mod explain;
mod run;

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::plan::{Plan, PlanError, Request, Target};
use crate::scenario::{duration, init};
use crate::{table, workers};

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Pass,
    /// A usage error, or a scenario with faults.
    Usage,
    /// The tool was the bottleneck, or could not work: the figures are not to be believed.
    Invalid,
    /// The target cannot be reached, refuses logins, or went away during the run.
    Target,
    /// The operator ended the run before its time.
    Stopped,
    /// A threshold of the scenario did not hold.
    Threshold,
    /// The second of two runs is worse.
    Worse,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Pass => 0,
            Exit::Usage => 1,
            Exit::Invalid => 2,
            Exit::Target => 3,
            Exit::Threshold | Exit::Worse => 99,
            // As of a program that SIGINT ends.
            Exit::Stopped => 130,
        })
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0   the run is valid and every threshold held
  1   usage: a wrong option, or a scenario with faults
  2   the run is INVALID: the tool itself was too slow, or could not work
  3   the target cannot be reached, refuses logins, or went away during the run
  99  a threshold of the scenario did not hold
  130 the run was ended before its time by q, Ctrl-C or SIGTERM";

/// Drives an XMPP server by a plan, and measures what its users would have waited.
#[derive(Parser)]
#[command(name = "corefire-load", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario against a server.
    #[command(after_help = EXIT_CODES)]
    Run(RunArguments),
    /// A part of a run, for `run --workers`: takes orders on standard input.
    #[command(name = workers::COMMAND, hide = true)]
    Worker,
    /// Set the runs of several servers side by side, as Markdown.
    Table {
        /// A folder for each server; in it a folder for each scenario, which `run --out` has written.
        #[arg(required = true)]
        servers: Vec<PathBuf>,
    },
    /// Tell what a scenario comes to, without connecting anywhere.
    Explain(PlanArguments),
    /// Tell whether the second of two runs is better, the same or worse: ratios of all figures with their intervals.
    #[command(after_help = compare::EXIT_CODES)]
    Compare(compare::CompareArguments),
    /// Write a commented scenario to start from.
    Init {
        /// One of the scenarios that the tool brings along; without a name they are listed.
        name: Option<String>,
        /// The file to write [default: NAME.toml].
        file: Option<PathBuf>,
    },
}

/// What makes a plan.
#[derive(Args)]
struct PlanArguments {
    /// The scenario: a file, or the name of one that the tool brings along.
    scenario: PathBuf,
    /// Users of all populations together, in proportion to the scenario's.
    #[arg(long)]
    users: Option<u64>,
    /// Operations per second of all populations together, in proportion to the scenario's.
    #[arg(long)]
    rate: Option<f64>,
    /// Length of the measured phases together, as 10s or 5m.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Another schedule than the scenario's seed makes.
    #[arg(long)]
    seed: Option<u64>,
    /// Closed loop: so many under way per pair or user. It hides the time in which nothing could be sent, and is
    /// stamped on everything that comes of the run.
    #[arg(long, value_name = "WINDOW")]
    closed: Option<u32>,
    /// How connections are secured, instead of the scenario's: auto, none, starttls, direct.
    #[arg(long)]
    tls: Option<String>,
    /// Where the scenario's component connects, instead of the first target's host and the scenario's port.
    #[arg(long, value_name = "HOST:PORT")]
    component: Option<String>,
}

#[derive(Args)]
struct RunArguments {
    #[command(flatten)]
    plan: PlanArguments,
    /// Where clients connect, HOST:PORT. Given several times, users are spread over the targets, and partners are on
    /// different ones where their numbers allow: messages then cross the federation.
    #[arg(long, required = true)]
    target: Vec<String>,
    /// Domain of the accounts; once for each target, or several for one target.
    #[arg(long, required = true)]
    domain: Vec<String>,
    /// Process of the server, if it runs on this machine: its CPU time and memory are recorded. Given several times, those
    /// of all together, and the CPU time of each.
    #[arg(long, value_name = "PID")]
    server_pid: Vec<u32>,
    /// Processes that share the work: users, and source addresses if there are several, are dealt out to them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Show nothing while it runs.
    #[arg(long)]
    quiet: bool,
    /// Folder for the report and the files that other tools read; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The whole command.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    execute(arguments).into()
}

/// The same, for callers in this process.
pub fn execute(arguments: impl Iterator<Item = OsString>) -> Exit {
    let arguments: Arguments = match parsed(arguments) {
        Ok(arguments) => arguments,
        Err(is_fault) => return if is_fault { Exit::Usage } else { Exit::Pass },
    };
    let outcome = match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Worker => return workers::serve(),
        Command::Table { servers } => write_table(&servers),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Compare(arguments) => compare::compare(&arguments),
        Command::Init { name, file } => write_template(name.as_deref(), file.as_deref()),
    };
    match outcome {
        Ok(exit) => exit,
        Err((exit, message)) => {
            for line in message.lines() {
                eprintln!("corefire-load: {line}");
            }
            exit
        }
    }
}

/// A command line, or, once that is printed, whether what was asked for is a fault (and not help).
pub fn parsed<T: Parser>(arguments: impl Iterator<Item = OsString>) -> Result<T, bool> {
    T::try_parse_from(arguments).map_err(|error| {
        // Nothing to do about a closed terminal.
        let _ = error.print();
        error.use_stderr()
    })
}

/// An exit code and the lines for the operator.
type Complaint = (Exit, String);

fn usage(message: impl Into<String>) -> Complaint {
    (Exit::Usage, message.into())
}

impl PlanArguments {
    /// Reads the scenario and makes the request of it.
    fn request(&self, targets: Vec<Target>) -> Result<Request, Complaint> {
        let (name, text) = read_scenario(&self.scenario)?;
        Ok(Request {
            name,
            scenario: text,
            targets,
            users: self.users,
            rate: self.rate,
            duration: self.duration,
            seed: self.seed,
            closed: self.closed,
            tls: self.tls.clone(),
            component: self.component.as_deref().map(component).transpose()?,
        })
    }

    fn plan(&self, request: &Request) -> Result<Plan, Complaint> {
        Plan::new(request).map_err(|error| match error {
            PlanError::Scenario(faults) => {
                let file = self.scenario.display();
                let lines: Vec<String> =
                    faults.iter().map(|fault| format!("{file}: {fault}")).collect();
                usage(lines.join("\n"))
            }
            PlanError::Request(what) => usage(what),
        })
    }
}

/// A file's name without its ending, and its text; a shipped scenario where there is no such file.
fn read_scenario(path: &Path) -> Result<(String, String), Complaint> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = stem.unwrap_or_else(|| "scenario".to_owned());
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(error) => match path.to_str().and_then(init::template) {
            Some(text) => Ok((name, text.to_owned())),
            None => Err(usage(format!(
                "{}: {error}; give a file, or one of the names of `corefire-load init`",
                path.display()
            ))),
        },
    }
}

fn component(text: &str) -> Result<SocketAddr, Complaint> {
    resolve("--component", text)
}

fn resolve(option: &str, text: &str) -> Result<SocketAddr, Complaint> {
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| (Exit::Target, format!("{option} {text}: {error}; write HOST:PORT")))?;
    found.next().ok_or_else(|| (Exit::Target, format!("{option} {text}: no address")))
}

/// Pairs addresses with domains.
fn targets(addresses: &[String], domains: &[String]) -> Result<Vec<Target>, Complaint> {
    if addresses.len() != 1 && addresses.len() != domains.len() {
        let what = format!(
            "{} of --target and {} of --domain: give one target, or one for each domain",
            addresses.len(),
            domains.len()
        );
        return Err(usage(what));
    }
    let resolved: Result<Vec<SocketAddr>, Complaint> =
        addresses.iter().map(|text| resolve("--target", text)).collect();
    let resolved = resolved?;
    let pair = |(at, domain): (usize, &String)| Target {
        address: resolved[at.min(resolved.len() - 1)],
        domain: domain.clone(),
    };
    Ok(domains.iter().enumerate().map(pair).collect())
}

fn write_table(servers: &[PathBuf]) -> Result<Exit, Complaint> {
    let columns: Result<Vec<_>, _> = servers.iter().map(|it| table::Column::read(it)).collect();
    print!("{}", table::markdown(&columns.map_err(|error| usage(error.to_string()))?));
    Ok(Exit::Pass)
}

fn write_template(name: Option<&str>, file: Option<&Path>) -> Result<Exit, Complaint> {
    let Some(name) = name else {
        for (name, text) in init::SHIPPED {
            let about = crate::scenario::Scenario::read(text, name).map(|s| s.about);
            println!("{name:<14} {}", about.unwrap_or_default());
        }
        return Ok(Exit::Pass);
    };
    let names = || init::SHIPPED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let text = init::template(name)
        .ok_or_else(|| usage(format!("there is no scenario {name}; there are {}", names())))?;
    let file = file.map_or_else(|| PathBuf::from(format!("{name}.toml")), Path::to_owned);
    let mut options = std::fs::OpenOptions::new();
    // What somebody has written is not to be overwritten.
    let written = options
        .write(true)
        .create_new(true)
        .open(&file)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|error| usage(format!("{}: {error}", file.display())))?;
    println!("wrote {}; next: corefire-load explain {0}", file.display());
    Ok(Exit::Pass)
}
