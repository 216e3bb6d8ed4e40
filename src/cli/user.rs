//! `corefire user`: accounts, one at a time.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::backend::{Backend, Directory};
use super::report::{object, odd_answer};
use super::{Refusal, Settings, import, print};
use crate::runtime::control::accounts::account_jid;
use crate::runtime::control::{AccountRequest, ControlResponse, DETAILS_MAX, LIST_MAX, Password};

/// More than any password that is taken; the rest of a longer line is not read.
const PASSWORD_LINE_BYTES_MAX: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make an account
    Add {
        /// NAME@DOMAIN
        jid: String,
        #[command(flatten)]
        password: PasswordArguments,
    },
    /// Make the accounts of a file
    ///
    /// A line for each: jid,password. A field with a comma or a double quote in it stands in double quotes, and a double
    /// quote in it is doubled. A file with a faulty line is not imported at all; accounts that exist are left as they
    /// are and told.
    Import { file: PathBuf },
    /// List the accounts
    List {
        /// One JSON object a line, with what is known of each account
        #[arg(long)]
        json: bool,
    },
    /// Delete an account and all that belongs to it
    Delete {
        /// NAME@DOMAIN
        jid: String,
    },
    /// Set the password of an account
    Passwd {
        /// NAME@DOMAIN
        jid: String,
        #[command(flatten)]
        password: PasswordArguments,
    },
    /// Disable an account: its sessions end, and nobody logs in to it
    ///
    /// What belongs to it stays, and messages for it are kept as for one that is away.
    Disable {
        /// NAME@DOMAIN
        jid: String,
    },
    /// Enable an account that was disabled
    Enable {
        /// NAME@DOMAIN
        jid: String,
    },
    /// End the quarantine of an account that its user made
    ///
    /// It may then write to as many strangers as any other ([registration] quarantine_s).
    Release {
        /// NAME@DOMAIN
        jid: String,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct PasswordArguments {
    /// The password; other users of this machine can see it while the command runs
    #[arg(long, value_name = "PW")]
    password: Option<String>,
    /// Take the first line of standard input as the password
    #[arg(long)]
    password_stdin: bool,
}

pub(super) fn run(command: &UserCommand, settings: &Settings) -> Result<(), Refusal> {
    let config = settings.load_values()?;
    let open = |directory| Backend::open(&config, directory).map_err(Refusal::Plain);
    // Of any domain: a running node judges by the domains that it was started with.
    let account =
        |text: &str| account_jid(text, &[]).map(|jid| jid.to_string()).map_err(Refusal::Plain);
    let carry_out =
        |mut backend: Backend, request| backend.account(request).map(drop).map_err(Refusal::Plain);
    match command {
        UserCommand::Add { jid, password } => {
            let jid = account(jid)?;
            let password = password.read()?;
            let backend = open(Directory::Made)?;
            carry_out(backend, AccountRequest::Add { jid: jid.clone(), password })?;
            print(format_args!("added {jid}"))
        }
        UserCommand::Import { file } => import::run(file, &config),
        UserCommand::List { json: false } => list(open(Directory::Expected)?),
        UserCommand::List { json: true } => details(open(Directory::Expected)?),
        UserCommand::Delete { jid } => {
            let jid = account(jid)?;
            carry_out(open(Directory::Expected)?, AccountRequest::Delete { jid: jid.clone() })?;
            print(format_args!("deleted {jid}"))
        }
        UserCommand::Passwd { jid, password } => {
            let jid = account(jid)?;
            let password = password.read()?;
            let request = AccountRequest::SetPassword { jid: jid.clone(), password };
            carry_out(open(Directory::Expected)?, request)?;
            print(format_args!("set the password of {jid}"))
        }
        UserCommand::Disable { jid } => {
            let jid = account(jid)?;
            let request = AccountRequest::SetDisabled { jid: jid.clone(), disabled: true };
            carry_out(open(Directory::Expected)?, request)?;
            print(format_args!("disabled {jid}"))
        }
        UserCommand::Enable { jid } => {
            let jid = account(jid)?;
            let request = AccountRequest::SetDisabled { jid: jid.clone(), disabled: false };
            carry_out(open(Directory::Expected)?, request)?;
            print(format_args!("enabled {jid}"))
        }
        UserCommand::Release { jid } => {
            let jid = account(jid)?;
            carry_out(open(Directory::Expected)?, AccountRequest::Release { jid: jid.clone() })?;
            print(format_args!("released {jid}"))
        }
    }
}

fn list(mut backend: Backend) -> Result<(), Refusal> {
    let mut after = None;
    loop {
        let request = AccountRequest::List { after, limit: LIST_MAX };
        let response = backend.account(request).map_err(Refusal::Plain)?;
        let ControlResponse::Accounts { jids, more } = response else {
            return Err(Refusal::Plain("the node gave another answer; restart it".to_owned()));
        };
        if !jids.is_empty() {
            print(jids.join("\n"))?;
        }
        match jids.into_iter().next_back() {
            Some(last) if more => after = Some(last),
            _ => return Ok(()),
        }
    }
}

fn details(mut backend: Backend) -> Result<(), Refusal> {
    let mut after = None;
    loop {
        let request = AccountRequest::Details { after, limit: DETAILS_MAX };
        let response = backend.account(request).map_err(Refusal::Plain)?;
        let ControlResponse::Details { accounts, more } = response else {
            return Err(odd_answer());
        };
        for account in &accounts {
            print(object(account)?)?;
        }
        match accounts.into_iter().next_back() {
            Some(last) if more => after = Some(last.jid),
            _ => return Ok(()),
        }
    }
}

impl PasswordArguments {
    fn read(&self) -> Result<Password, Refusal> {
        if let Some(password) = &self.password {
            return Ok(Password(password.clone()));
        }
        let refused = |cause: &str| {
            Refusal::Plain(format!("no password: {cause}; give it as one line of standard input"))
        };
        let mut line = Vec::new();
        io::stdin()
            .lock()
            .take(PASSWORD_LINE_BYTES_MAX + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| refused(&error.to_string()))?;
        if line.len() as u64 > PASSWORD_LINE_BYTES_MAX {
            return Err(refused("standard input has a line of more than 4096 bytes"));
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match str::from_utf8(line) {
            Ok("") => Err(refused("standard input is empty")),
            Ok(password) => Ok(Password(password.to_owned())),
            Err(_) => Err(refused("standard input is not UTF-8")),
        }
    }
}
