//! `corefire import`: accounts of other servers, and of an export of this one.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::backend::{Backend, Directory, OpenReader, Running};
use super::export::MAIN_FILE;
use super::files::{Included, Tree};
use super::report::odd_answer;
use super::{Refusal, print, tell};
use crate::config::Config;
use crate::portable::landing::{Counts, Landing, NO_PASSWORD, Target, Wanted};
use crate::portable::{Stop, pie, prosody};
use crate::runtime::control::accounts::credentials;
use crate::runtime::control::restore::Restore;
use crate::runtime::control::{
    AccountRequest, ControlRequest, ControlResponse, ImportOutcome, LINE_BYTES_MAX, Password,
};
use crate::store::{Answer, LacksKeys, Query};
use crate::xmpp::credentials::Credentials;
use crate::xmpp::jid::BareJid;

/// In base64 and with all around it, a piece of so many bytes is within a line of the control socket.
const PIECE_BYTES_MAX: usize = LINE_BYTES_MAX as usize / 4 * 3 - (32 << 10);

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// A file of XEP-0227, a directory of corefire export, or the data directory of Prosody (/var/lib/prosody)
    path: PathBuf,
    /// What it is, instead of what it looks like
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Read and check all of it, tell what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Make accounts that exist anew: all that belongs to them goes
    #[arg(long)]
    replace: bool,
    /// Stop at the first fault, instead of leaving out what is faulty
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The portable format, as ejabberd's export_piefxis and corefire export write it
    Xep0227,
    /// The file store of Prosody
    Prosody,
}

/// - errors: nothing can be read; something was faulty (the rest is imported)
pub(super) fn run(arguments: &ImportArguments, config: &Config) -> Result<(), Refusal> {
    let (format, path) = format(arguments)?;
    let mut target = match arguments.dry_run {
        true => Office::looking(config)?,
        false => Office::open(config)?,
    };
    let lacked = target.lacks();
    let (dry_run, replace, strict) = (arguments.dry_run, arguments.replace, arguments.strict);
    let mut line = |line: &str| tell(line);
    let mut landing = Landing::new(&mut target, Wanted { replace, dry_run, strict }, &mut line);
    let read = match format {
        Format::Xep0227 => match Included::of(&path) {
            Ok(mut files) => {
                pie::reader::read(&mut files, &path.display().to_string(), &mut landing)
            }
            Err(error) => Err(Stop(format!("{}: cannot be read: {error}", path.display()))),
        },
        Format::Prosody => prosody::read(&mut Tree { root: path.clone() }, &mut landing),
    };
    let Landing { done, left_out, faults, existing, .. } = landing;
    report(&done, &left_out, existing, dry_run)?;
    if target.running.is_some() && lacked != target.lacks() {
        tell(
            "the running node offers mechanisms for which some of these accounts have no keys, until: corefire reload",
        );
    }
    if let Err(Stop(cause)) = read {
        return Err(Refusal::Plain(cause));
    }
    match faults {
        0 => Ok(()),
        1 => Err(Refusal::Plain("1 fault; see the line above".to_owned())),
        faults => Err(Refusal::Plain(format!("{faults} faults; see the lines above"))),
    }
}

fn format(arguments: &ImportArguments) -> Result<(Format, PathBuf), Refusal> {
    let path = &arguments.path;
    let main = path.join(MAIN_FILE);
    let is_directory = match path.metadata() {
        Ok(facts) => facts.is_dir(),
        Err(error) => {
            return Err(Refusal::Plain(format!("{}: cannot be read: {error}", path.display())));
        }
    };
    let is_export = is_directory && main.exists();
    let format = arguments.format.unwrap_or(match is_directory && !is_export {
        true => Format::Prosody,
        false => Format::Xep0227,
    });
    match format {
        Format::Prosody if !is_directory => Err(Refusal::Plain(format!(
            "{}: is no directory; give the data_path of Prosody, as in /var/lib/prosody",
            path.display()
        ))),
        Format::Xep0227 if is_directory && !is_export => Err(Refusal::Plain(format!(
            "{}: holds no {MAIN_FILE}; give the main file of the export",
            path.display()
        ))),
        Format::Xep0227 if is_export => Ok((format, main)),
        format => Ok((format, path.clone())),
    }
}

fn report(done: &Counts, left_out: &Counts, existing: u64, dry_run: bool) -> Result<(), Refusal> {
    let table = |title: &str, counts: &Counts| -> Result<(), Refusal> {
        print(title)?;
        counts.iter().try_for_each(|(kind, number)| print(format_args!("{number:>10} {kind}")))
    };
    match (done.is_empty(), dry_run) {
        (true, true) => print("nothing would be imported")?,
        (true, false) => print("nothing was imported")?,
        (false, true) => table("would be imported:", done)?,
        (false, false) => table("imported:", done)?,
    }
    if done.contains_key(NO_PASSWORD) {
        print(
            "accounts without a password are of nobody until: corefire user passwd JID --password-stdin",
        )?;
    }
    if existing > 0 {
        print(format_args!("exist already, and are left alone:\n{existing:>10} accounts"))?;
    }
    match left_out.is_empty() {
        true => Ok(()),
        false => table("left out, as this server does not keep it:", left_out),
    }
}

/// The node, or its data directory.
struct Office {
    /// None for one that only looks.
    backend: Option<Backend>,
    reader: OpenReader,
    running: Option<Running>,
    domains: Vec<String>,
    iterations: u32,
}

impl Office {
    fn open(config: &Config) -> Result<Office, Refusal> {
        let backend = Backend::open(config, Directory::Made).map_err(Refusal::Plain)?;
        let reader = OpenReader::beside(config).map_err(Refusal::Plain)?;
        Office::with(config, Some(backend), reader)
    }

    fn looking(config: &Config) -> Result<Office, Refusal> {
        // Before the first start there are no accounts.
        let reader = match config.node.data_dir.exists() {
            true => OpenReader::of(config).map_err(Refusal::Plain)?,
            false => OpenReader::empty(),
        };
        Office::with(config, None, reader)
    }

    fn with(
        config: &Config,
        backend: Option<Backend>,
        reader: OpenReader,
    ) -> Result<Office, Refusal> {
        let running = Running::find(config).map_err(Refusal::Plain)?;
        // A running node judges by the domains that it was started with.
        let domains = match &running {
            Some(node) => match node.call(&ControlRequest::Status).map_err(Refusal::Plain)? {
                ControlResponse::Status(status) => status.domains,
                _ => return Err(odd_answer()),
            },
            None => config.domains.clone(),
        };
        let iterations = config.auth.scram_iterations;
        Ok(Office { backend, reader, running, domains, iterations })
    }

    fn lacks(&mut self) -> Option<LacksKeys> {
        match self.reader.reader.read(&Query::LacksKeys) {
            Ok(Answer::LacksKeys(lacks)) => Some(lacks),
            _ => None,
        }
    }
}

impl Target for Office {
    fn has(&mut self, jid: &BareJid) -> Result<bool, String> {
        match self.reader.reader.read(&Query::Account { owner: jid.clone() }) {
            Ok(Answer::Account(account)) => Ok(account.is_some()),
            Ok(_) => Err("the store answered another question than was asked".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn refuses_domain(&self, domain: &str) -> Option<String> {
        let is_served = self.domains.iter().any(|known| known == domain);
        (!is_served).then(|| {
            format!(
                "{domain}: not a domain of this server, which serves {}; add it to domains in the configuration",
                self.domains.join(", ")
            )
        })
    }

    fn keys(&mut self, password: &str) -> Result<Credentials, String> {
        credentials(&Password(password.to_owned()), self.iterations)
    }

    fn piece_bytes_max(&self) -> usize {
        if self.running.is_some() { PIECE_BYTES_MAX } else { usize::MAX }
    }

    fn step(&mut self, step: Restore) -> Result<ImportOutcome, String> {
        let Some(backend) = &mut self.backend else {
            return Err("a trial run changes nothing".to_owned());
        };
        match backend.account(AccountRequest::Restore(step))? {
            ControlResponse::Imported { mut outcomes } => {
                outcomes.pop().ok_or_else(|| "the node gave another answer; restart it".to_owned())
            }
            _ => Err("the node gave another answer; restart it".to_owned()),
        }
    }
}
