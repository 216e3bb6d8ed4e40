//! Servers of others, started by `tools/peers`, and where they differ (`differences.txt`).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::driver::{Addresses, PASSWORD, Sockets};
use crate::script::{How, Only, Script};
use crate::{components as components_of, locals, run, users};

const DOMAIN: &str = "peer.example";
const DIFFERENCE_PATIENCE: Duration = Duration::from_secs(5);
/// Looks at what the server offers.
const PROBE: &str = "probe";

/// Ends with `stop`, or with this process.
pub(crate) struct Peer {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Starts a server with an account for each name of each conversation. To be called from a thread that stays.
    ///
    /// - gives: its conversations as tests: those that it cannot hold are ignored, those in which it is known to differ
    ///   must fail
    pub(crate) fn start(name: &str, scripts: &[Arc<Script>]) -> Result<(Peer, Vec<Trial>), String> {
        let told = |error: std::io::Error| format!("tools/peers/{name}: {error}");
        let folder = tempfile::tempdir().map_err(told)?;
        // Held together, so that they differ.
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(told);
        let held = [bind()?, bind()?];
        let plain = held[0].local_addr().map_err(told)?;
        let components = held[1].local_addr().map_err(told)?;
        drop(held);
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/peers").join(name);
        let mut child = Command::new(program)
            .arg(folder.path())
            .args([&plain.port().to_string(), DOMAIN, &components.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(told)?;
        let mut accounts = format!("{PROBE} {PASSWORD}\n");
        for (number, script) in scripts.iter().enumerate() {
            for user in users(script, number) {
                accounts += &format!("{user} {PASSWORD}\n");
            }
            for component in components_of(script, number, DOMAIN).values() {
                accounts += &format!("{component} {PASSWORD}\n");
            }
        }
        let stdin = child.stdin.take();
        stdin.map_or(Ok(()), |mut it| it.write_all(accounts.as_bytes())).map_err(told)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(told)?;
        }
        let peer = Peer { child, _folder: folder };
        let trials = match line.trim_end() {
            "ready" => {
                trials(name, &Addresses { plain, components: Some(components), tls: None }, scripts)
            }
            other => Err(format!("tools/peers/{name} says {other:?} instead of ready")),
        };
        match trials {
            Ok(trials) => Ok((peer, trials)),
            Err(fault) => {
                peer.stop();
                Err(fault)
            }
        }
    }

    pub(crate) fn stop(mut self) {
        crate::restrict::send_signal(self.child.id(), libc::SIGTERM);
        let _ = self.child.wait();
    }
}

fn trials(
    name: &str,
    addresses: &Addresses,
    scripts: &[Arc<Script>],
) -> Result<Vec<Trial>, String> {
    let differences = differences(name)?;
    let offered = run::offered(&mut Sockets::new(addresses.clone(), DOMAIN), PROBE, How::Plain)?;
    let mut trials = Vec::new();
    for known in differences.keys() {
        if !scripts.iter().any(|script| script.name == *known) {
            return Err(format!("differences.txt: {known}: no such conversation"));
        }
    }
    for (number, script) in scripts.iter().enumerate() {
        if script.only != Only::Anywhere || !script.settings.is_empty() {
            continue;
        }
        let lacks = script.needs.iter().find(|need| !offered.contains(*need));
        let lacks = lacks.map(|need| format!("has no {need}"));
        let lacks = lacks.or(script.wants_tls().then(|| "is not asked for TLS".into()));
        let difference = differences.get(&script.name).cloned();
        let trial = {
            let (script, addresses) = (script.clone(), addresses.clone());
            move || hold(&script, number, addresses, difference.as_deref())
        };
        let trial = Trial::test(format!("{name}::{}", script.name), trial);
        trials.push(match lacks {
            Some(reason) => trial.with_ignored_flag(true).with_kind(reason),
            None => trial,
        });
    }
    Ok(trials)
}

fn hold(
    script: &Script,
    number: usize,
    addresses: Addresses,
    difference: Option<&str>,
) -> Result<(), Failed> {
    let mut driver = Sockets::new(addresses, DOMAIN);
    let components = components_of(script, number, DOMAIN);
    // What does not come is not waited for where it is known.
    let patience = difference.map_or(run::PATIENCE, |_| DIFFERENCE_PATIENCE);
    let outcome = run::run(script, &mut driver, &locals(script, number), &components, patience);
    match (outcome, difference) {
        (Ok(()), None) | (Err(_), Some(_)) => Ok(()),
        (Err(what), None) => Err(format!("{what}\n({} is what we hold to)", script.source).into()),
        (Ok(()), Some(difference)) => {
            Err(format!("no longer differs; remove it from differences.txt: {difference}").into())
        }
    }
}

/// By conversation: what is written of the server.
fn differences(server: &str) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    for (number, line) in (1..).zip(include_str!("differences.txt").lines()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.split(" | ").collect();
        let [whose, script, section, does] = fields[..] else {
            return Err(format!("differences.txt:{number}: SERVER | SCRIPT | SECTION | WHAT"));
        };
        if !["prosody", "ejabberd"].contains(&whose) || !section.contains('§') || does.is_empty() {
            return Err(format!("differences.txt:{number}: no such server, or no section"));
        }
        let is_new = whose != server
            || found.insert(script.to_owned(), format!("{section}: {does}")).is_none();
        if !is_new {
            return Err(format!("differences.txt:{number}: {script} stands there twice"));
        }
    }
    Ok(found)
}
