//! Conversations (`*.script`, in the format that `script` describes), held with shards in memory, with a running node,
//! and with the servers of others.
//!
//! ```sh
//! cargo test --test scripts               # format::NAME, one_shard::NAME, shards::NAME, node::NAME
//! cargo test --test scripts ping          # what has `ping` in its name
//! PEERS=prosody,ejabberd cargo test --test scripts    # prosody::NAME, ejabberd::NAME, by tools/peers
//! ```
#![expect(clippy::unwrap_used, reason = "tests")]

mod driver;
mod pattern;
mod peers;
mod run;
mod script;
mod selftest;
mod session;
mod sim;
mod xml;

#[path = "../shard/harness.rs"]
#[expect(dead_code, reason = "shared with tests/shard, which uses all of it")]
mod harness;
#[path = "../node/node.rs"]
#[expect(dead_code, reason = "shared with tests/node, which uses all of it")]
mod node;
#[path = "../node/restrict.rs"]
#[expect(dead_code, reason = "shared with tests/node, which uses all of it")]
mod restrict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};

use driver::{Driver, PASSWORD, Sockets};
use peers::Peer;
use script::{Only, Script};
use sim::Simulation;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let (scripts, faults) = scripts();
    let mut trials = faults;
    let nodes = Arc::new(Nodes::new(&scripts));
    let mut peers = Vec::new();
    match std::env::var("PEERS") {
        Err(_) => trials.extend(of_corefire(&scripts, &nodes)),
        Ok(names) => {
            for name in names.split(',') {
                match Peer::start(name, &scripts) {
                    Ok((peer, its)) => {
                        peers.push(peer);
                        trials.extend(its);
                    }
                    Err(fault) => {
                        let name = format!("{name}::starts");
                        trials.push(Trial::test(name, || Err(fault.into())));
                    }
                }
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    peers.into_iter().for_each(Peer::stop);
    nodes.stop();
    conclusion.exit_code()
}

fn of_corefire(scripts: &[Arc<Script>], nodes: &Arc<Nodes>) -> Vec<Trial> {
    let mut trials = selftest::trials();
    for (number, script) in scripts.iter().enumerate() {
        for (kind, shards) in [("one_shard", 1), ("shards", 3)] {
            let script = script.clone();
            let name = format!("{kind}::{}", script.name);
            trials.push(Trial::test(name, move || simulated(&script, number, shards)));
        }
        if script.only != Only::Simulated {
            let (script, nodes) = (script.clone(), nodes.clone());
            let name = format!("node::{}", script.name);
            trials.push(Trial::test(name, move || nodes.run(&script, number)));
        }
    }
    trials
}

/// All that can be read, and a failing test for each that cannot.
fn scripts() -> (Vec<Arc<Script>>, Vec<Trial>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_script = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "script");
    let mut paths: Vec<PathBuf> = entries.filter(is_script).collect();
    paths.sort();
    let (mut scripts, mut faults) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        match Script::parse(&name, &text) {
            Ok(script) => scripts.push(Arc::new(script)),
            Err(fault) => {
                faults.push(Trial::test(format!("format::{name}"), || Err(Failed::from(fault))));
            }
        }
    }
    (scripts, faults)
}

/// Local parts that no other conversation has.
fn locals(script: &Script, number: usize) -> BTreeMap<String, String> {
    let names = script.accounts.union(&script.nobodies);
    names.map(|name| (name.clone(), format!("{name}-{number}"))).collect()
}

/// The local parts behind which there is an account.
fn users(script: &Script, number: usize) -> Vec<String> {
    let locals = locals(script, number);
    script.accounts.iter().map(|account| locals[account].clone()).collect()
}

/// With the addresses of its accounts filled in.
fn settings(script: &Script, number: usize, domain: &str) -> Vec<String> {
    let locals = locals(script, number);
    let fill = |setting: &String| {
        locals.iter().fold(setting.clone(), |setting, (name, local)| {
            setting.replace(&format!("{{{name}}}"), &format!("{local}@{domain}"))
        })
    };
    script.settings.iter().map(fill).collect()
}

fn simulated(script: &Script, number: usize, shards: u16) -> Result<(), Failed> {
    let mut driver =
        Simulation::new(shards, &settings(script, number, "here"), &users(script, number))?;
    hold(script, number, &mut driver)
}

/// With Corefire, which has all that is asked for.
fn hold(script: &Script, number: usize, driver: &mut dyn Driver) -> Result<(), Failed> {
    let someone = users(script, number).into_iter().next();
    if let Some(local) = someone.filter(|_| !script.needs.is_empty()) {
        let offered = run::offered(driver, &local)?;
        let lacks: Vec<&String> =
            script.needs.iter().filter(|need| !offered.contains(*need)).collect();
        if !lacks.is_empty() {
            return Err(format!("{}: not offered: {lacks:?}", script.name).into());
        }
    }
    Ok(run::run(script, driver, &locals(script, number), run::PATIENCE)?)
}

/// Running nodes, one for each set of settings, started when it is first needed.
struct Nodes {
    accounts: BTreeMap<Vec<String>, String>,
    running: Mutex<BTreeMap<Vec<String>, (node::Place, node::Node)>>,
}

impl Nodes {
    fn new(scripts: &[Arc<Script>]) -> Nodes {
        let mut accounts: BTreeMap<Vec<String>, String> = BTreeMap::new();
        for (number, script) in scripts.iter().enumerate() {
            let list = accounts.entry(settings(script, number, "localhost")).or_default();
            for user in users(script, number) {
                *list += &format!("{user}@localhost,{PASSWORD}\n");
            }
        }
        Nodes { accounts, running: Mutex::default() }
    }

    fn run(&self, script: &Script, number: usize) -> Result<(), Failed> {
        let address = {
            let mut running = self.running.lock().unwrap();
            let settings = &settings(script, number, "localhost");
            let started = running
                .entry(settings.clone())
                .or_insert_with(|| start(settings, &self.accounts[settings]));
            started.1.plain
        };
        let mut driver = Sockets::new(address, "localhost");
        hold(script, number, &mut driver)
    }

    fn stop(&self) {
        for (_, (_place, node)) in std::mem::take(&mut *self.running.lock().unwrap()) {
            node.stop();
        }
    }
}

/// - takes: `accounts`, lines of `corefire user import`
fn start(settings: &[String], accounts: &str) -> (node::Place, node::Node) {
    let mut place = node::Place::new().set("c2s.tls=optional");
    for setting in settings {
        place = place.set(setting);
    }
    let list = place.path("accounts.csv");
    std::fs::write(&list, accounts).unwrap();
    place.run(&["user", "import", list.to_str().unwrap()]);
    let node = place.start();
    (place, node)
}
