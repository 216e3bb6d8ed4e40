//! `corefire export`: accounts as XEP-0227, from the store, whether a node runs on it or not.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::backend::OpenReader;
use super::files::{Partial, encoded, finish, new_file};
use super::{Refusal, print, tell};
use crate::config::Config;
use crate::portable::landing::Counts;
use crate::portable::pie::writer::{self, ExportError};
use crate::runtime::control::accounts::account_jid;
use crate::store::{Answer, Query, Reader};
use crate::xmpp::jid::BareJid;

/// Accounts that are listed at a time.
const PAGE: u32 = 1_000;

/// Bytes that a name of a file may have, with room for its ending.
const FILE_NAME_BYTES_MAX: usize = 240;

/// The file that includes the others.
pub(super) const MAIN_FILE: &str = "server-data.xml";

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// A new file, if its name ends in .xml; else a new directory with a file for each account
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Only this account; may be given several times
    #[arg(long = "user", value_name = "JID", conflicts_with = "domain")]
    users: Vec<String>,
    /// Only the accounts of this domain
    #[arg(long)]
    domain: Option<String>,
}

/// - errors: the store or the files; no such account; something that the store holds and cannot be written (the rest is)
pub(super) fn run(arguments: &ExportArguments, config: &Config) -> Result<(), Refusal> {
    let mut users = Vec::new();
    for user in &arguments.users {
        users.push(account_jid(user, &[]).map_err(Refusal::Plain)?);
    }
    users.sort();
    users.dedup();
    let domain = arguments.domain.as_deref().map(domain).transpose().map_err(Refusal::Plain)?;
    let mut opened = OpenReader::of(config).map_err(Refusal::Plain)?;
    let mut export = Export {
        reader: opened.reader.as_mut(),
        users,
        counts: Counts::new(),
        faults: 0,
        missing: Vec::new(),
    };
    let shown = arguments.out.display();
    let told = |error: ExportError| Refusal::Plain(format!("{shown}: not exported: {error}"));
    let partial = Partial::new(&arguments.out).map_err(Refusal::Plain)?;
    let hosts = export.hosts(domain).map_err(told)?;
    let is_file = arguments.out.extension().is_some_and(|extension| extension == "xml");
    let written = match is_file {
        true => export.file(&partial, &hosts),
        false => export.directory(&partial, &hosts),
    };
    written.map_err(told)?;
    if let Some(missing) = export.missing.first() {
        return Err(Refusal::Plain(format!("{missing}: no such account; see: corefire user list")));
    }
    partial.done().map_err(|error| told(error.into()))?;
    print(format_args!("exported to {shown}"))?;
    for (kind, number) in &export.counts {
        print(format_args!("{number:>10} {kind}"))?;
    }
    match export.faults {
        0 => Ok(()),
        faults => Err(Refusal::Plain(format!(
            "{faults} of what the store holds could not be exported; see the lines above, and: corefire store check"
        ))),
    }
}

fn domain(text: &str) -> Result<String, String> {
    match BareJid::parse(text) {
        Ok(jid) if jid.local().is_none() => Ok(jid.domain().to_owned()),
        _ => Err(format!("{text:?} is no domain")),
    }
}

struct Export<'a> {
    reader: &'a mut dyn Reader,
    /// Sorted; all where there are none.
    users: Vec<BareJid>,
    counts: Counts,
    faults: u64,
    /// Of those that were asked for.
    missing: Vec<BareJid>,
}

impl Export<'_> {
    /// The domains that have accounts which are wanted, in their order.
    fn hosts(&mut self, domain: Option<String>) -> Result<Vec<String>, ExportError> {
        if let Some(domain) = domain {
            return Ok(vec![domain]);
        }
        let mut hosts: BTreeSet<String> =
            self.users.iter().map(|user| user.domain().to_owned()).collect();
        if self.users.is_empty() {
            let mut after = None;
            loop {
                let page = self.page(None, after)?;
                for jid in &page {
                    if !hosts.contains(jid.domain()) {
                        hosts.insert(jid.domain().to_owned());
                    }
                }
                match page.into_iter().next_back() {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
        }
        Ok(hosts.into_iter().collect())
    }

    fn page(
        &mut self,
        domain: Option<&str>,
        after: Option<BareJid>,
    ) -> Result<Vec<BareJid>, ExportError> {
        let domain = domain.map(str::to_owned);
        let query = Query::Accounts { domain, only_disabled: false, after, limit: PAGE };
        match self.reader.read(&query)? {
            Answer::Accounts(accounts) => Ok(accounts),
            _ => Err(ExportError::Odd),
        }
    }

    /// Does `work` with each account of a host.
    fn each(
        &mut self,
        host: &str,
        mut work: impl FnMut(&mut Self, &BareJid) -> Result<bool, ExportError>,
    ) -> Result<(), ExportError> {
        if !self.users.is_empty() {
            let users: Vec<BareJid> =
                self.users.iter().filter(|user| user.domain() == host).cloned().collect();
            for user in users {
                if !work(self, &user)? {
                    self.missing.push(user);
                }
            }
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = self.page(Some(host), after)?;
            for jid in &page {
                // One that was deleted meanwhile is left out.
                work(self, jid)?;
            }
            match page.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    fn user(
        &mut self,
        out: &mut dyn Write,
        jid: &BareJid,
        is_file: bool,
    ) -> Result<bool, ExportError> {
        let faults = &mut self.faults;
        let mut faulty = |fault: &str| {
            *faults += 1;
            tell(format_args!("{jid}: {fault}"));
        };
        let Some(counts) = writer::user(out, self.reader, jid, is_file, &mut faulty)? else {
            return Ok(false);
        };
        for (kind, number) in counts {
            *self.counts.entry(kind).or_insert(0) += number;
        }
        Ok(true)
    }

    fn file(&mut self, partial: &Partial, hosts: &[String]) -> Result<(), ExportError> {
        let mut out = partial.file()?;
        writer::start_server(&mut out)?;
        for host in hosts {
            writer::start_host(&mut out, host, false)?;
            self.each(host, |export, jid| export.user(&mut out, jid, false))?;
            writer::end_host(&mut out)?;
        }
        writer::end_server(&mut out)?;
        Ok(finish(out)?)
    }

    /// The layout of XEP-0227 §4.1.
    fn directory(&mut self, partial: &Partial, hosts: &[String]) -> Result<(), ExportError> {
        partial.directory()?;
        let root = partial.until_done();
        let mut main = new_file(&root.join(MAIN_FILE))?;
        writer::start_server(&mut main)?;
        for host in hosts {
            let file = format!("{host}.xml");
            writer::include(&mut main, &encoded(&file))?;
            let mut out = new_file(&root.join(&file))?;
            let folder = root.join(host);
            fs::create_dir(&folder)?;
            writer::start_host(&mut out, host, true)?;
            let mut number = 0u64;
            self.each(host, |export, jid| {
                number += 1;
                let name = user_file(jid, number);
                let path = folder.join(&name);
                let mut user = new_file(&path)?;
                if !export.user(&mut user, jid, true)? {
                    fs::remove_file(&path)?;
                    return Ok(false);
                }
                finish(user)?;
                writer::include(&mut out, &encoded(&format!("{host}/{name}")))?;
                Ok(true)
            })?;
            writer::end_host(&mut out)?;
            finish(out)?;
            sync(&folder)?;
        }
        writer::end_server(&mut main)?;
        finish(main)?;
        Ok(sync(root)?)
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// An address may be longer than the name of a file.
fn user_file(jid: &BareJid, number: u64) -> String {
    match jid.local() {
        Some(local) if local.len() <= FILE_NAME_BYTES_MAX => format!("{local}.xml"),
        _ => format!("{number}~.xml"),
    }
}
