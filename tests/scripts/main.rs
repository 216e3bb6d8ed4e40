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
mod sasl;
mod script;
mod selftest;
mod session;
mod sim;
mod xml;

#[path = "../node/certificates.rs"]
mod certificates;
#[path = "../node/client.rs"]
#[expect(dead_code, reason = "shared with tests/node, which uses all of it")]
mod client;
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
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};

use driver::{Addresses, Driver, PASSWORD, Sockets, Tls};
use peers::Peer;
use script::{How, Only, Script};
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
    trials.push(selftest::every_feature_has_a_conversation(scripts));
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

/// The domain of each component.
fn components(script: &Script, number: usize, domain: &str) -> BTreeMap<String, String> {
    let name = |name: &String| (name.clone(), format!("{name}-{number}.{domain}"));
    script.components.iter().map(name).collect()
}

/// What has Corefire know them.
fn component_settings(components: &BTreeMap<String, String>) -> Vec<String> {
    let secret = |name| format!("components.secrets.\"{name}\"={PASSWORD}");
    components.values().map(secret).collect()
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
    let components = component_settings(&components(script, number, "here"));
    let settings = [settings(script, number, "here"), components].concat();
    let mut driver = Simulation::new(shards, &settings, &users(script, number))?;
    hold(script, number, &mut driver)
}

/// With Corefire, which has all that is asked for.
fn hold(script: &Script, number: usize, driver: &mut dyn Driver) -> Result<(), Failed> {
    let someone = users(script, number).into_iter().next();
    if let Some(local) = someone.filter(|_| !script.needs.is_empty()) {
        let offered = run::offered(driver, &local, How::Tls)?;
        let lacks: Vec<&String> =
            script.needs.iter().filter(|need| !offered.contains(*need)).collect();
        if !lacks.is_empty() {
            return Err(format!("{}: not offered: {lacks:?}", script.name).into());
        }
    }
    let components = components(script, number, driver.domain());
    Ok(run::run(script, driver, &locals(script, number), &components, run::PATIENCE)?)
}

/// Running nodes, one for each set of settings, started when it is first needed.
struct Nodes {
    needed: BTreeMap<Vec<String>, Needed>,
    running: Mutex<BTreeMap<Vec<String>, Running>>,
}

/// What the conversations with the same settings need of their node.
#[derive(Default)]
struct Needed {
    /// Lines of `corefire user import`.
    accounts: String,
    components: Vec<String>,
}

struct Running {
    _place: node::Place,
    node: node::Node,
    addresses: Addresses,
}

impl Nodes {
    fn new(scripts: &[Arc<Script>]) -> Nodes {
        let mut needed: BTreeMap<Vec<String>, Needed> = BTreeMap::new();
        for (number, script) in scripts.iter().enumerate() {
            let needed = needed.entry(settings(script, number, "localhost")).or_default();
            for user in users(script, number) {
                needed.accounts += &format!("{user}@localhost,{PASSWORD}\n");
            }
            let components = components(script, number, "localhost");
            needed.components.extend(component_settings(&components));
        }
        Nodes { needed, running: Mutex::default() }
    }

    fn run(&self, script: &Script, number: usize) -> Result<(), Failed> {
        let addresses = {
            // A node that did not start is no fault of the others'.
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let settings = &settings(script, number, "localhost");
            let started = running
                .entry(settings.clone())
                .or_insert_with(|| start(settings, &self.needed[settings]));
            started.addresses.clone()
        };
        let mut driver = Sockets::new(addresses, "localhost");
        hold(script, number, &mut driver)
    }

    fn stop(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, running) in std::mem::take(&mut *running) {
            running.node.stop();
        }
    }
}

fn start(settings: &[String], needed: &Needed) -> Running {
    let mut place = node::Place::new().set("c2s.tls=optional").set("tls.client_ca=ca.pem");
    let listens = !needed.components.is_empty();
    if listens {
        place = place.set("components.listen=[\"127.0.0.1:0\"]");
    }
    for setting in settings.iter().chain(&needed.components) {
        place = place.set(setting);
    }
    let authority = certificates::authority("conversations");
    std::fs::write(place.path("ca.pem"), authority.pem()).unwrap();
    let list = place.path("accounts.csv");
    std::fs::write(&list, &needed.accounts).unwrap();
    place.run(&["user", "import", list.to_str().unwrap()]);
    let node = place.start();
    let tls = Tls { address: node.direct, certificate: node.certificate(), authority };
    let addresses = Addresses {
        plain: node.plain,
        components: listens.then(|| place.listener("components.listen")),
        tls: Some(Arc::new(tls)),
    };
    Running { _place: place, node, addresses }
}
