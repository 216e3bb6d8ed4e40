//! The command line: arguments to a `Config`, and to a node or to what an operator asks of one.
//!
//! - exit codes: 0 done, 1 refused (the reason is on standard error, a line for each), 2 wrong arguments

mod backend;
mod carry;
mod cluster;
mod export;
mod federation;
mod files;
mod import;
mod latency;
mod reload;
mod report;
mod session;
mod store;
mod trace;
mod user;

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Origin};

/// An XMPP server in which the owner of an address is computed, never looked up.
#[derive(Debug, Parser)]
#[command(
    name = "corefire",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

/// What each command takes.
#[derive(Debug, Args)]
struct Settings {
    /// Configuration file; without one, the defaults stand
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the database, the lock and the control socket, instead of node.data_dir
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Sets a key over the file, as in c2s.tls=optional; the value is TOML or a bare word
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until it is told to stop
    Serve,
    /// Manage accounts, of the running node or of a stopped one
    #[command(subcommand)]
    User(user::UserCommand),
    /// Show the running node
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Have the running node read its configuration again; it tells what changed
    Reload,
    /// Show which node and shard own an address
    Whereis {
        jid: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// See the cluster that the running node is in
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Check a configuration file without starting a node
    CheckConfig { file: PathBuf },
    /// See and end the sessions of the running node
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// See the other servers that the running node talks with, block them, and check the way to one
    #[command(subcommand)]
    Federation(federation::FederationCommand),
    /// Bring in accounts of another server: XEP-0227 (ejabberd's export_piefxis), or Prosody's files
    ///
    /// Into the running node, or into a stopped one. Passwords and SCRAM keys, rosters, subscription requests, vCards,
    /// private storage, block lists and offline messages come along; what cannot be kept is counted. Accounts that exist
    /// are left as they are.
    Import(carry::ImportArguments),
    /// Write accounts in the portable format of XEP-0227
    ///
    /// From the running node, each account as it is at one moment, or from a stopped one.
    Export(export::ExportArguments),
    /// Copy the SQLite database into a new file, while the node runs or not; PostgreSQL is copied by pg_dump
    ///
    /// To go back to it, stop the node and put the copy in the place of the database, without the files -wal and -shm
    /// beside it.
    Backup { file: PathBuf },
    /// Check the database, or move it
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Have the running node give its accounts and clients to the other nodes of its cluster, and wait until it owns none
    ///
    /// Clients are told to go at the pace of [cluster] drain_per_s and drain_s, and it is said how many are left; the node
    /// goes on if this command is ended. `corefire cluster weight` stops it.
    Drain,
    /// Show how long stanzas, logins, turns and commits take in the running node
    Latency {
        /// Of the last seconds, instead of since the start
        #[arg(long, conflicts_with = "hlog")]
        recent: bool,
        /// One JSON object, as of /api/v1/latency
        #[arg(long, conflicts_with = "hlog")]
        json: bool,
        /// Write what is counted to a new file instead, as an HdrHistogram log
        #[arg(long, value_name = "FILE")]
        hlog: Option<PathBuf>,
    },
    /// Follow the stanzas of an address, or those with an id, through the running node
    ///
    /// A line for each step of each stanza, without bodies. A node runs 4 traces at once, and tells each of them 200 steps a
    /// second; what is left out is counted.
    Trace {
        /// NAME@DOMAIN for all that it sends and gets, or NAME@DOMAIN/RESOURCE; a component's domain
        #[arg(required_unless_present = "id")]
        jid: Option<String>,
        /// Stanzas with this id instead, of whomever
        #[arg(long, value_name = "STANZA_ID", conflicts_with = "jid")]
        id: Option<String>,
        /// How long, as in 90s or 5m; 10m at most
        #[arg(long = "for", value_name = "TIME", default_value = "60s")]
        span: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// Why a command was refused; `Display` is a line for each reason.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("corefire: {0}")]
    Plain(String),
    #[error("corefire: cannot write the answer: {0}")]
    Output(#[source] io::Error),
}

/// Runs the program on the arguments of the process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            tell(&refusal);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Refusal> {
    let settings = &arguments.settings;
    match &arguments.command {
        Command::Serve => {
            crate::node::run(settings.origin()).map_err(|error| match error {
                // Its lines name their places themselves.
                crate::node::Error::Config(error) => Refusal::Config(error),
                error => Refusal::Plain(error.to_string()),
            })
        }
        Command::User(command) => user::run(command, settings),
        Command::Status { json } => report::status(&settings.load_values()?, *json),
        Command::Reload => reload::run(&settings.load_values()?),
        Command::Whereis { jid, json } => report::whereis(&settings.load_values()?, jid, *json),
        Command::Cluster(command) => cluster::run(command, &settings.load_values()?),
        Command::CheckConfig { file } => check_config(settings, file),
        Command::Session(command) => session::run(command, &settings.load_values()?),
        Command::Federation(command) => federation::run(command, &settings.load_values()?),
        Command::Import(arguments) => carry::run(arguments, &settings.load_values()?),
        Command::Export(arguments) => export::run(arguments, &settings.load_values()?),
        Command::Backup { file } => store::backup(file, &settings.load_values()?),
        Command::Store(command) => store::run(command, &settings.load_values()?),
        Command::Drain => cluster::drain(&settings.load_values()?),
        Command::Latency { hlog: Some(file), .. } => {
            latency::export(&settings.load_values()?, file)
        }
        Command::Trace { jid, id, span, json } => {
            let config = settings.load_values()?;
            trace::run(&config, jid.as_deref(), id.as_deref(), span, *json)
        }
        Command::Latency { recent, json, hlog: None } => {
            latency::table(&settings.load_values()?, *recent, *json)
        }
    }
}

fn check_config(settings: &Settings, file: &Path) -> Result<(), Refusal> {
    if settings.config.is_some() {
        let message = "check-config takes its file as FILE; leave --config out";
        return Err(Refusal::Plain(message.to_owned()));
    }
    let config = Config::load(Some(file), &settings.sets, settings.data_dir.as_deref())?;
    for warning in config.certificate_warnings() {
        tell(format_args!("{}: warning: {warning}", file.display()));
    }
    print(format_args!("{}: ok", file.display()))
}

impl Settings {
    fn origin(&self) -> Origin {
        Origin {
            file: self.config.clone(),
            sets: self.sets.clone(),
            data_dir: self.data_dir.clone(),
        }
    }

    /// Without a look at certificates, which only a node needs and may be the only one to read.
    fn load_values(&self) -> Result<Config, ConfigError> {
        Config::load_values(self.config.as_deref(), &self.sets, self.data_dir.as_deref())
    }
}

/// Writes a line to standard output. A reader that has gone (`| head`) has seen enough.
fn print(line: impl fmt::Display) -> Result<(), Refusal> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Refusal::Output(error)),
        _ => Ok(()),
    }
}

/// Writes a line to standard error; where that is impossible there is nobody to tell.
fn tell(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
