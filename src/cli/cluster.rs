//! `corefire cluster`: the nodes that serve together.

use clap::Subcommand;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::backend::Running;
use super::report::{object, odd_answer};
use super::{Refusal, print};
use crate::cluster::map::ShardMap;
use crate::cluster::view::View;
use crate::config::Config;
use crate::runtime::cluster::secret;
use crate::runtime::control::cluster::ClusterStatus;
use crate::runtime::control::{ControlRequest, ControlResponse};

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show the cluster as the running node sees it
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show its nodes, one to a line
    Members,
    /// Show what changed in it, newest first
    Events,
    /// Make a secret for all nodes of a new cluster; copy the file to each of them
    Init { file: PathBuf },
    /// Give the running node another share of the accounts, until it is started again; all that move do so at once, and a
    /// drain is over
    Weight { weight: u32 },
    /// Show the shard map: what other programs compute the owner of an address from
    Map {
        /// One JSON object, as of /api/v1/shard-map
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &ClusterCommand, config: &Config) -> Result<(), Refusal> {
    match command {
        ClusterCommand::Map { json } => map(config, *json),
        ClusterCommand::Status { json: true } => print(object(&status(config)?)?),
        ClusterCommand::Status { json: false } => print(status_text(&status(config)?).trim_end()),
        ClusterCommand::Members => print(members_text(&status(config)?).trim_end()),
        ClusterCommand::Events => print(events_text(&status(config)?).trim_end()),
        ClusterCommand::Init { file } => {
            secret::write_fresh(file).map_err(|error| Refusal::Plain(error.to_string()))?;
            print(format!(
                "wrote {}; copy it to all nodes, readable by the server's user alone, and name it in cluster.secret_file",
                file.display()
            ))
        }
        ClusterCommand::Weight { weight } => {
            weigh(config, *weight)?;
            print(format!("weight {weight} is told to the cluster"))
        }
    }
}

fn running(config: &Config) -> Result<Running, Refusal> {
    Running::find(config).map_err(Refusal::Plain)?.ok_or_else(|| {
        Refusal::Plain(format!(
            "no node runs on the data directory {}",
            config.node.data_dir.display()
        ))
    })
}

fn status(config: &Config) -> Result<ClusterStatus, Refusal> {
    match running(config)?.call(&ControlRequest::Cluster).map_err(Refusal::Plain)? {
        ControlResponse::Cluster(status) => Ok(*status),
        _ => Err(odd_answer()),
    }
}

fn weigh(config: &Config, weight: u32) -> Result<(), Refusal> {
    let request = ControlRequest::Weigh { weight };
    match running(config)?.call(&request).map_err(Refusal::Plain)? {
        ControlResponse::Weighed => Ok(()),
        _ => Err(odd_answer()),
    }
}

/// How long a node may take beyond the time that it gives its clients.
const DRAIN: Duration = Duration::from_secs(120);
/// How often it is said how far it is.
const TOLD: Duration = Duration::from_secs(2);

/// Has the running node let its clients go, and returns when it owns no account. Where it does that already, only waits.
pub(super) fn drain(config: &Config) -> Result<(), Refusal> {
    match running(config)?.call(&ControlRequest::Drain).map_err(Refusal::Plain)? {
        ControlResponse::Draining => {}
        _ => return Err(odd_answer()),
    }
    let began = Instant::now();
    let until = began + DRAIN + Duration::from_secs(config.cluster.drain_s.into());
    let (mut said, mut said_at) = (String::new(), began);
    loop {
        let status = status(config)?;
        let own = status.nodes.iter().find(|node| node.health == "this");
        let alone = status.nodes.iter().filter(|node| node.is_member).count() < 2;
        if alone {
            let message =
                "the node is the only member of its cluster: nobody can take what it owns";
            return Err(Refusal::Plain(message.to_owned()));
        }
        let Some(drain) = &status.drain else {
            let message = "the node was given another weight: it is drained no more";
            return Err(Refusal::Plain(message.to_owned()));
        };
        let owns = own.map_or(0, |node| node.partitions);
        if drain.is_done && status.is_settled && owns == 0 {
            return print("the node owns no account any more; it may be stopped");
        }
        if Instant::now() > until {
            let why = status.waiting.unwrap_or_else(|| "see: corefire cluster status".to_owned());
            return Err(Refusal::Plain(format!("the node still owns accounts: {why}")));
        }
        let left = still_to_go(owns, drain.connections_left);
        if said_at.elapsed() >= TOLD && left != said {
            print(&left)?;
            (said, said_at) = (left, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn still_to_go(partitions: usize, connections: u64) -> String {
    format!(
        "still to go: {partitions} partitions, {connections} connections of other nodes' accounts"
    )
}

fn status_text(status: &ClusterStatus) -> String {
    let mut text = format!("epoch {} since {}: {}\n", status.epoch, status.changed_at, status.why);
    // Writing to a String cannot fail.
    let _ = match (&status.waiting, status.is_settled, status.has_lease) {
        (Some(why), ..) => writeln!(text, "waits: {why}"),
        (None, _, false) => writeln!(text, "{} has no lease and serves nobody", status.node),
        (None, false, true) => writeln!(text, "accounts move"),
        (None, true, true) => writeln!(text, "all is where it belongs"),
    };
    if let Some(drain) = &status.drain {
        let own = status.nodes.iter().find(|node| node.health == "this");
        let owns = own.map_or(0, |node| node.partitions);
        let _ = match drain.is_done {
            true => writeln!(text, "{} is drained", status.node),
            false => writeln!(
                text,
                "{} is being drained; {}",
                status.node,
                still_to_go(owns, drain.connections_left)
            ),
        };
    }
    text.push_str(&members_text(status));
    for (what, count) in &status.refused {
        let _ = writeln!(text, "refused {what}: {count}");
    }
    text
}

fn members_text(status: &ClusterStatus) -> String {
    let mut text = String::new();
    for node in &status.nodes {
        let _ = write!(
            text,
            "{}: id {}, {}, {}, weight {}, {} partitions, {} shards, {}, version {}",
            node.name,
            node.id,
            node.state,
            node.health,
            node.weight,
            node.partitions,
            node.shards,
            node.address,
            node.version
        );
        if let Some(link) = &node.link {
            let _ = write!(text, ", link {}", link.state);
            if let (Some(rtt), Some(ahead)) = (link.rtt_us, link.clock_ahead_us) {
                let _ = write!(text, " (round trip {rtt} us, clock {ahead:+} us)");
            }
        }
        text.push('\n');
    }
    text
}

fn events_text(status: &ClusterStatus) -> String {
    let mut text = String::new();
    for event in &status.events {
        let _ =
            writeln!(text, "{} epoch {} by {}: {}", event.at, event.epoch, event.node, event.what);
    }
    text
}

/// Asks the running node, or computes it from the configuration where none runs.
fn map(config: &Config, json: bool) -> Result<(), Refusal> {
    let map = match Running::find(config).map_err(Refusal::Plain)? {
        Some(node) => match node.call(&ControlRequest::ShardMap).map_err(Refusal::Plain)? {
            ControlResponse::ShardMap(map) => map,
            _ => return Err(odd_answer()),
        },
        None => map_of(config)?,
    };
    if json { print(object(&map)?) } else { print(text(&map).trim_end()) }
}

/// The map of a node that does not run: who is in a cluster is known only to those who are.
pub(super) fn map_of(config: &Config) -> Result<ShardMap, Refusal> {
    if config.cluster.enabled {
        return Err(Refusal::Plain(format!(
            "no node runs on the data directory {}, and only a running node knows the members of its cluster",
            config.node.data_dir.display()
        )));
    }
    Ok(ShardMap::of(&View::single(&config.node_name(), config.shard_count(), 0)))
}

fn text(map: &ShardMap) -> String {
    let ShardMap { epoch, rule, partitions, members, .. } = map;
    // Writing to a String cannot fail.
    let mut text = format!("epoch {epoch}, {partitions} partitions by {rule}\n");
    for (member, share) in members.iter().zip(map.shares()) {
        let _ = write!(
            text,
            "{}: id {}, weight {}, {} shards, {share} partitions",
            member.name, member.node, member.weight, member.shards
        );
        for (kind, addresses) in [("clients", &member.clients), ("components", &member.components)]
        {
            if !addresses.is_empty() {
                let _ = write!(text, ", {kind}: {}", addresses.join(" "));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::map::MapMember;

    #[test]
    fn a_map_shows_who_owns_how_much() {
        let member = |node, weight, clients: &[&str]| MapMember {
            name: format!("n{node}"),
            node,
            weight,
            shards: 2,
            clients: clients.iter().map(|client| (*client).to_owned()).collect(),
            components: clients.iter().map(|client| client.replace("5222", "5347")).collect(),
        };
        let map = ShardMap::of(&View::single("", 1, 0));
        let members = vec![member(1, 1, &["a:5222", "b:5222"]), member(2, 0, &[])];
        assert_eq!(
            text(&ShardMap { epoch: 7, members, ..map }),
            "epoch 7, 4096 partitions by sha256-rendezvous-1\n\
             n1: id 1, weight 1, 2 shards, 4096 partitions, clients: a:5222 b:5222, \
             components: a:5347 b:5347\n\
             n2: id 2, weight 0, 2 shards, 0 partitions\n"
        );
    }
}
