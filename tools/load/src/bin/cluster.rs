//! What a message costs in a cluster: CPU time of all its nodes together, and how many nodes messages crossed, for one node
//! and for more. `tools/bench cluster` runs it beside a PostgreSQL of its own.
//!
//! Pairs chat as in `chat8`, their sockets spread over the nodes without regard to who owns them, as behind a plain
//! balancer. A cluster of one is what the others are compared with. All share the machine's cores with the tool.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result of a command")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use corefire_load::cli::parsed;
use corefire_load::drive::{Flow, run_share};
use corefire_load::launch::{Corefire, ScratchDir, Server, free_address, metrics};
use corefire_load::plan::{Plan, Request, Share, Target};
use corefire_load::record::{Interval, Operation};
use corefire_load::{Error, ServerProbe};

/// Measures the CPU time of a message in clusters of several sizes.
#[derive(Parser)]
struct Options {
    /// The Corefire binary to start.
    #[arg(long)]
    binary: PathBuf,
    /// Further key=value for its --set; storage.url is needed.
    #[arg(long = "set")]
    sets: Vec<String>,
    /// Sizes of clusters, each measured as often as it is named.
    #[arg(long, value_delimiter = ',', default_value = "1,3,5")]
    nodes: Vec<u16>,
    #[arg(long, default_value_t = 200)]
    users: u32,
    /// So many users for each node, and not for all together: nodes of any cluster have equally much to do.
    #[arg(long)]
    each: bool,
    /// Messages under way in each direction of a pair; 0: `rate` counts instead.
    #[arg(long, default_value_t = 8)]
    window: u32,
    /// Messages per second, where the window is 0.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

const PASSWORD: &str = "secret";
const DOMAIN: &str = "localhost";
/// The phase that is measured: the third.
const MEASURED: usize = 2;

fn scenario(options: &Options, users: u32) -> String {
    format!(
        "seed = 1\n[accounts]\npattern = \"user{{}}\"\npassword = \"{PASSWORD}\"\n\
         [connection]\ntls = \"none\"\nlogins_in_flight = 32\n\
         [[phase]]\nname = \"log in\"\nkind = \"ramp\"\nlength = \"1s\"\n\
         [[phase]]\nname = \"warm up\"\nkind = \"hold\"\nlength = \"3s\"\nmeasured = false\n\
         [[phase]]\nname = \"chat\"\nkind = \"hold\"\nlength = \"{}s\"\n\
         [[population]]\nname = \"pairs\"\nusers = {}\nsm = \"off\"\n\
         [population.message]\nrate = {}\nbody = 64\nto = \"session\"\n",
        options.seconds, users, options.rate
    )
}

fn main() -> ExitCode {
    let options: Options = match parsed(std::env::args_os()) {
        Ok(options) => options,
        Err(is_fault) => return ExitCode::from(if is_fault { 2 } else { 0 }),
    };
    let (mut alone, mut imported) = (None, 0);
    for nodes in &options.nodes {
        match measure(&options, *nodes, &mut imported) {
            Ok(figures) => {
                let us = figures.us();
                if *nodes == 1 {
                    alone = Some(us);
                }
                let ratio = alone.map_or(String::new(), |one| format!(", {:.2} x one", us / one));
                println!(
                    "{nodes} nodes: {us:.2} us of CPU a message{ratio}; {:.0} messages/s; nodes crossed: {}",
                    figures.messages as f64 / figures.time.as_secs_f64(),
                    figures.hops(),
                );
            }
            Err(error) => {
                eprintln!("cluster: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}

/// What one run showed of its measured seconds.
#[derive(Default)]
struct Figures {
    messages: u64,
    time: Duration,
    cpu: Duration,
    /// Messages by how many nodes they crossed.
    hops: BTreeMap<String, u64>,
}

impl Figures {
    fn us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages.max(1) as f64
    }

    fn hops(&self) -> String {
        let all: u64 = self.hops.values().sum::<u64>().max(1);
        let share = |(hops, count): (&String, &u64)| {
            format!("{hops} in {:.0} %", *count as f64 * 100.0 / all as f64)
        };
        self.hops.iter().filter(|(_, count)| **count > 0).map(share).collect::<Vec<_>>().join(", ")
    }
}

/// The nodes of one run.
struct Running {
    servers: Vec<Server>,
    probes: Vec<ServerProbe>,
    admin: Vec<SocketAddr>,
}

impl Running {
    fn cpu(&self) -> Result<Duration, Error> {
        self.probes.iter().map(ServerProbe::cpu).sum()
    }

    /// What all nodes have counted since they began.
    fn hops(&self) -> Result<BTreeMap<String, u64>, Error> {
        let mut hops = BTreeMap::new();
        for admin in &self.admin {
            for line in metrics(*admin).map_err(|error| Error::Io("/metrics", error))?.lines() {
                let counted = line.strip_prefix("corefire_cluster_messages_total{hops=\"");
                let Some((label, count)) = counted.and_then(|rest| rest.split_once("\"} ")) else {
                    continue;
                };
                *hops.entry(label.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
            }
        }
        Ok(hops)
    }
}

/// - takes: `imported`, accounts that earlier runs have put into the database that all share
fn measure(options: &Options, count: u16, imported: &mut u32) -> Result<Figures, Error> {
    let folder = ScratchDir::new("corefire-cluster")?;
    let nodes = Corefire::cluster(&options.binary, folder.path(), count, &options.sets)?;
    let users = options.users * if options.each { u32::from(count) } else { 1 };
    if users > *imported {
        let new = (*imported..users).map(|at| format!("user{at}@{DOMAIN}"));
        nodes[0].import(new, PASSWORD)?;
        *imported = users;
    }
    let admin = nodes.iter().map(|_| free_address()).collect::<Result<Vec<_>, _>>()?;
    let start = |(node, admin): (&Corefire, &SocketAddr)| {
        node.start(&[], &[format!("admin.listen=\"{admin}\"")])
    };
    let servers = nodes.iter().zip(&admin).map(start).collect::<Result<Vec<_>, _>>()?;
    let probes = servers.iter().map(Server::probe).collect::<Result<Vec<_>, _>>()?;
    let running = Running { servers, probes, admin };

    let target = |node: &Corefire| Target { address: node.plain, domain: DOMAIN.to_owned() };
    let request = Request {
        closed: (options.window > 0).then_some(options.window),
        ..Request::new("cluster", &scenario(options, users), nodes.iter().map(target).collect())
    };
    let plan = Plan::new(&request).map_err(|error| Error::Config(format!("{error:?}")))?;
    // Where the measured seconds begin and end, and what the nodes had used by then.
    let (mut before, mut after) = (None, None);
    let mut messages = 0;
    let mut watch = |interval: &Interval| {
        let now = || (Instant::now(), running.cpu(), running.hops());
        match interval.phase {
            // The second before the first that counts has just ended.
            phase if phase + 1 == MEASURED => before = Some(now()),
            MEASURED => {
                messages += interval.tallies.get(&Operation::Message).map_or(0, |tally| tally.done);
                after = Some(now());
            }
            _ => {}
        }
        Flow::Continue
    };
    let begin = Instant::now() + Duration::from_millis(100);
    let report = run_share(&plan, Share::WHOLE, begin, &mut watch)
        .map_err(|failure| Error::Server(failure.to_string()))?;
    if let Some(cause) = report.aborted {
        return Err(Error::Server(cause));
    }
    if report.ledger.sent.lost > 0 || report.ledger.sent.reordered > 0 {
        return Err(Error::Server(format!(
            "{} messages lost, {} overtaken",
            report.ledger.sent.lost, report.ledger.sent.reordered
        )));
    }
    let (Some((began, cpu, hops)), Some((ended, cpu_after, hops_after))) = (before, after) else {
        return Err(Error::Server("ended before it was measured".to_owned()));
    };
    let hops = hops?;
    let since = |(label, count): (String, u64)| {
        let before = hops.get(&label).copied().unwrap_or(0);
        (label, count - before)
    };
    let figures = Figures {
        messages,
        time: ended - began,
        cpu: cpu_after?.saturating_sub(cpu?),
        hops: hops_after?.into_iter().map(since).collect(),
    };
    for server in running.servers {
        server.stop()?;
    }
    Ok(figures)
}
