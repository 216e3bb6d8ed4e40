//! `corefire cluster`: the nodes that serve together.

use clap::Subcommand;
use std::fmt::Write;

use super::backend::Running;
use super::report::{object, odd_answer};
use super::{Refusal, print};
use crate::cluster::map::ShardMap;
use crate::cluster::view::View;
use crate::config::Config;
use crate::runtime::control::{ControlRequest, ControlResponse};

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
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
    }
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
        let clients = member.clients.join(" ");
        let _ = match clients.is_empty() {
            true => writeln!(text),
            false => writeln!(text, ", clients: {clients}"),
        };
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
        };
        let map = ShardMap::of(&View::single("", 1, 0));
        let members = vec![member(1, 1, &["a:5222", "b:5222"]), member(2, 0, &[])];
        assert_eq!(
            text(&ShardMap { epoch: 7, members, ..map }),
            "epoch 7, 4096 partitions by sha256-rendezvous-1\n\
             n1: id 1, weight 1, 2 shards, 4096 partitions, clients: a:5222 b:5222\n\
             n2: id 2, weight 0, 2 shards, 0 partitions\n"
        );
    }
}
