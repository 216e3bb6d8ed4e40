//! `corefire user import`: a file of accounts. Keys are derived on all cores, since each takes milliseconds; batches go
//! to the store as they are ready.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::backend::{Backend, Directory, Running};
use super::{Refusal, print, tell};
use crate::config::Config;
use crate::runtime::control::accounts::{account_jid, credentials};
use crate::runtime::control::{
    AccountRequest, ControlResponse, ImportOutcome, ImportedAccount, LINE_BYTES_MAX, Password,
};

/// Some four million lines; a larger file is split by whoever has one.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Accounts of one commit.
const BATCH_MAX: usize = 256;

/// With the longest addresses as well, a batch stays within a line of the control socket.
const BATCH_BYTES_MAX: usize = LINE_BYTES_MAX as usize / 2;

/// Base64 keys, salts and names of a line beside the address, which JSON may write six times as long.
const ACCOUNT_BYTES: usize = 512;

/// A program that reads the messages wants few of them, a person wants to see it move.
const PROGRESS_TO_FILE: Duration = Duration::from_secs(10);
const PROGRESS_TO_TERMINAL: Duration = Duration::from_millis(200);

/// A line that can be imported.
struct Row {
    line: usize,
    /// Prepared.
    jid: String,
    password: Password,
}

/// - errors: faulty lines (nothing is imported); accounts that were not made (the others are)
pub(super) fn run(path: &Path, config: &Config) -> Result<(), Refusal> {
    let text = read(path).map_err(Refusal::Plain)?;
    // A running node judges by the domains that it was started with.
    let is_running = Running::find(config).map_err(Refusal::Plain)?.is_some();
    let domains: &[String] = if is_running { &[] } else { &config.domains };
    let rows = match parse(&text, domains) {
        Ok(rows) => rows,
        Err(faults) => {
            for (line, fault) in &faults {
                tell(format_args!("{}:{line}: {fault}", path.display()));
            }
            return Err(Refusal::Plain(format!(
                "{}: nothing was imported; correct the {} above",
                path.display(),
                counted(faults.len(), "line")
            )));
        }
    };
    let backend = Backend::open(config, Directory::Made).map_err(Refusal::Plain)?;
    let mut import = Import::new(path, backend, rows.len());
    import.run(&rows, config.auth.scram_iterations)?;
    print(format_args!("imported {}", counted(import.made, "account")))?;
    if import.refused == 0 {
        return Ok(());
    }
    let refused = counted(import.refused, "account");
    Err(Refusal::Plain(format!("{}: {refused} not imported; see the lines above", path.display())))
}

struct Import<'a> {
    path: &'a Path,
    backend: Backend,
    total: usize,
    made: usize,
    refused: usize,
    is_terminal: bool,
    shown: Instant,
}

impl Import<'_> {
    fn new(path: &Path, backend: Backend, total: usize) -> Import<'_> {
        let is_terminal = io::stderr().is_terminal();
        Import { path, backend, total, made: 0, refused: 0, is_terminal, shown: Instant::now() }
    }

    fn run(&mut self, rows: &[Row], iterations: u32) -> Result<(), Refusal> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        // Bounded, so that keys do not pile up before a slow disk.
        let (ready, derived) = mpsc::sync_channel(2 * BATCH_MAX);
        let imported = thread::scope(|scope| {
            for _ in 0..cores.min(rows.len()) {
                let (next, ready) = (&next, ready.clone());
                scope.spawn(move || {
                    while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let keys = credentials(&row.password, iterations);
                        // Closed: the import has failed and says so.
                        if ready.send((row, keys)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(ready);
            let mut lines = Vec::with_capacity(BATCH_MAX);
            let mut batch = Vec::with_capacity(BATCH_MAX);
            let mut bytes = 0;
            // By value: a failure drops it, which ends the threads that wait to send.
            for (row, keys) in derived {
                match keys {
                    Ok(credentials) => {
                        bytes += ACCOUNT_BYTES + 6 * row.jid.len();
                        lines.push(row);
                        batch.push(ImportedAccount { jid: row.jid.clone(), credentials });
                    }
                    Err(fault) => self.refuse(row, &fault),
                }
                if batch.len() >= BATCH_MAX || bytes >= BATCH_BYTES_MAX {
                    self.send(&lines, std::mem::take(&mut batch))?;
                    lines.clear();
                    bytes = 0;
                }
            }
            if batch.is_empty() { Ok(()) } else { self.send(&lines, batch) }
        });
        self.end_progress();
        imported
    }

    fn send(&mut self, rows: &[&Row], batch: Vec<ImportedAccount>) -> Result<(), Refusal> {
        let failed = |import: &Self, cause: &str| {
            let (path, made) = (import.path.display(), counted(import.made, "account"));
            Refusal::Plain(format!("{path}: stopped after {made}: {cause}"))
        };
        let response = match self.backend.account(AccountRequest::Import { accounts: batch }) {
            Ok(response) => response,
            Err(cause) => return Err(failed(self, &cause)),
        };
        let ControlResponse::Imported { outcomes } = response else {
            return Err(failed(self, "the node gave another answer; restart it"));
        };
        for (row, outcome) in rows.iter().zip(outcomes) {
            match outcome {
                ImportOutcome::Created => self.made += 1,
                ImportOutcome::Exists => {
                    let fault = format!(
                        "the account exists and keeps its password; set it with: corefire user passwd {} --password-stdin",
                        row.jid
                    );
                    self.refuse(row, &fault);
                }
                ImportOutcome::Refused { cause } => self.refuse(row, &cause),
            }
        }
        self.show_progress();
        Ok(())
    }

    fn refuse(&mut self, row: &Row, fault: &str) {
        self.end_progress();
        self.refused += 1;
        tell(format_args!("{}:{}: {}: {fault}", self.path.display(), row.line, row.jid));
    }

    fn show_progress(&mut self) {
        let pause = if self.is_terminal { PROGRESS_TO_TERMINAL } else { PROGRESS_TO_FILE };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let done = self.made + self.refused;
        let line = format!("{done} of {} accounts", self.total);
        if self.is_terminal {
            let mut err = io::stderr().lock();
            // Only for the eye.
            let _ = write!(err, "\r{line}").and_then(|()| err.flush());
        } else {
            tell(line);
        }
    }

    /// Clears the line that shows the progress, for what is told next.
    fn end_progress(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            format!("{shown}: cannot be read: {error}; give a file of lines jid,password")
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{shown}: larger than 256 MiB; split it"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + memchr::memchr_iter(b'\n', valid).count();
        format!("{shown}:{line}: not UTF-8; save the file as UTF-8")
    })
}

/// All rows, or all faulty lines with their faults. A first line `jid,password` is a heading; blank lines are nothing.
fn parse(text: &str, domains: &[String]) -> Result<Vec<Row>, Vec<(usize, String)>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rows: Vec<Row> = Vec::new();
    let mut faults = Vec::new();
    let mut lines_by_jid: BTreeMap<String, usize> = BTreeMap::new();
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim().is_empty() || (line == 1 && content.eq_ignore_ascii_case("jid,password"))
        {
            continue;
        }
        match parse_line(content, domains) {
            Ok((jid, password)) => match lines_by_jid.insert(jid.clone(), line) {
                None => rows.push(Row { line, jid, password: Password(password) }),
                Some(first) => {
                    faults.push((line, format!("{jid} is on line {first} already; remove one")));
                }
            },
            Err(fault) => faults.push((line, fault)),
        }
    }
    if faults.is_empty() { Ok(rows) } else { Err(faults) }
}

fn parse_line(line: &str, domains: &[String]) -> Result<(String, String), String> {
    let [jid, password] = fields(line)?;
    let jid = account_jid(jid.trim(), domains)?.to_string();
    if password.is_empty() {
        return Err(format!("{jid} has no password; write jid,password"));
    }
    Ok((jid, password))
}

/// The two fields of a line (RFC 4180 §2, without line ends in fields).
fn fields(line: &str) -> Result<[String; 2], String> {
    let (first, rest) = field(line)?;
    let rest = rest.ok_or("only one field; write jid,password")?;
    let (second, rest) = field(rest)?;
    match rest {
        None => Ok([first, second]),
        Some(_) => Err(
            "more than two fields; write jid,password, with double quotes around a password that has a comma".into(),
        ),
    }
}

/// The first field, and what follows its comma.
fn field(text: &str) -> Result<(String, Option<&str>), String> {
    let Some(mut rest) = text.strip_prefix('"') else {
        return Ok(match text.split_once(',') {
            Some((field, rest)) => (field.to_owned(), Some(rest)),
            None => (text.to_owned(), None),
        });
    };
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or(
            "a double quote is opened and not closed; close it, or double each one that belongs to the field",
        )?;
        field.push_str(part);
        match after.chars().next() {
            Some('"') => {
                field.push('"');
                rest = &after[1..];
            }
            Some(',') => return Ok((field, Some(&after[1..]))),
            None => return Ok((field, None)),
            Some(_) => {
                return Err("text follows a closing double quote; double each one that belongs to the field".into());
            }
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn lines_are_fields_with_or_without_quotes() {
        let both = |line: &str| fields(line).unwrap().map(|field| field.to_owned());
        assert_eq!(both("a@b,secret"), ["a@b", "secret"]);
        assert_eq!(both("a@b,\"se,cr\"\"et\""), ["a@b", "se,cr\"et"]);
        assert_eq!(both("\"a@b\", secret "), ["a@b", " secret "]);
        assert_eq!(both("a@b,se\"cret"), ["a@b", "se\"cret"]);
    }

    #[test]
    fn faulty_lines_are_all_told_with_their_numbers() {
        let text = "jid,password\na@b,x\n\nnobody\na@b,y\nlocalhost,x\nc@d,\ne@f,x,y\ng@h,\"x\ni@j,\"x\"y\n";
        let faults = parse(text, &[]).err().unwrap();
        let told: Vec<String> =
            faults.iter().map(|(line, fault)| format!("{line}: {fault}")).collect();
        let expected = [
            "4: only one field",
            "5: a@b is on line 2 already",
            "6: \"localhost\" has no name before the domain",
            "7: c@d has no password",
            "8: more than two fields",
            "9: a double quote is opened",
            "10: text follows a closing double quote",
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told} / {expected}");
        }
    }

    #[test]
    fn addresses_are_prepared_and_passwords_are_left_alone() {
        let rows = parse("\u{feff}JID,password\r\n Alice@LocalHost ,pass word \r\n", &[]).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].line, rows[0].jid.as_str()), (2, "alice@localhost"));
        assert_eq!(rows[0].password.0, "pass word ");
    }
}
