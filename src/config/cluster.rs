//! `[cluster]`: the node's part in it, and how it finds the others.

use super::read::{address, path};
use super::reader::Section;
use crate::store::Place;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Weights above this are a slip of the pen.
const WEIGHT_MAX: u32 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub enabled: bool,
    /// Links and gossip; there where it is enabled.
    pub bind: Option<SocketAddr>,
    /// There where it is enabled.
    pub secret_file: Option<PathBuf>,
    /// `HOST:PORT`, or an address with a port.
    pub seeds: Vec<String>,
    /// `HOST:PORT`; empty: none.
    pub dns: String,
    pub weight: u32,
    /// Clients that are let go in a second when the node is drained; more where it would take longer than `drain_s`.
    pub drain_per_s: u32,
    pub drain_s: u32,
    /// Where clients reach this very node, as `HOST:PORT`.
    pub clients: Vec<String>,
    /// Where components do.
    pub components: Vec<String>,
    pub multicast: Multicast,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multicast {
    /// `None`: no beacons.
    pub group: Option<SocketAddr>,
    /// `None`: the one of `Cluster::bind`.
    pub interface: Option<Ipv4Addr>,
}

/// - takes: `store`, which must be one that nodes can share
pub(super) fn cluster(s: &mut Section<'_>, store: &Place) -> Cluster {
    let cluster = Cluster {
        enabled: s.boolean("enabled", false),
        bind: s.parsed("bind", "", "10.0.0.1:7070", |text| match text {
            "" => Ok(None),
            text => address(text).map(Some),
        }),
        secret_file: s.parsed(
            "secret_file",
            "",
            "/etc/corefire/cluster-secret",
            |text| match text {
                "" => Ok(None),
                text => path(text).map(Some),
            },
        ),
        seeds: s.list("seeds", &[], &["10.0.0.2:7070"], host_and_port),
        dns: s.parsed("dns", "", "nodes.example.org:7070", |text| match text {
            "" => Ok(String::new()),
            text => host_and_port(text),
        }),
        weight: s.integer("weight", 100, 0..=WEIGHT_MAX),
        drain_per_s: s.integer("drain_per_s", 100, 1..=1_000_000),
        drain_s: s.integer("drain_s", 120, 0..=3_600),
        clients: s.list("clients", &[], &["xmpp-1.example.org:5222"], host_and_port),
        components: s.list("components", &[], &["xmpp-1.example.org:5347"], host_and_port),
        multicast: s.section("multicast", |s| Multicast {
            group: s.parsed("group", "239.192.0.77:7077", "239.192.0.77:7077", |text| match text {
                "" => Ok(None),
                text => match address(text)? {
                    group if group.ip().is_multicast() && group.is_ipv4() => Ok(Some(group)),
                    _ => Err("is not a multicast group of IPv4 (224.0.0.0 to 239.255.255.255)"),
                },
            }),
            interface: s.parsed("interface", "", "10.0.0.1", |text| match text {
                "" => Ok(None),
                text => text.parse().map(Some).map_err(|_| "is not an address of IPv4"),
            }),
        }),
    };
    if cluster.enabled {
        check(s, &cluster, store);
    }
    cluster
}

fn check(s: &mut Section<'_>, cluster: &Cluster, store: &Place) {
    match cluster.bind {
        None => s.problem(
            "bind",
            "a node of a cluster needs an address for the others; write bind = \
                                   \"10.0.0.1:7070\", with an address of this host"
                .to_owned(),
        ),
        Some(at) if at.ip().is_unspecified() || at.ip().is_multicast() || at.port() == 0 => {
            let message = format!(
                "{at} is not an address by which others find this node; write the one of the interface \
                 towards them, and a port"
            );
            s.problem("bind", message);
        }
        Some(_) => {}
    }
    if cluster.secret_file.is_none() {
        let message = "a cluster needs a secret; make one with corefire cluster init FILE, copy it to all \
                       nodes, and write secret_file = \"FILE\"";
        s.problem("secret_file", message.to_owned());
    }
    if matches!(store, Place::Sqlite(_)) {
        let message = "the nodes of a cluster share their database, and storage.url names a file of this node; \
                       write url = \"postgres://…\" below [storage], or enabled = false";
        s.problem("enabled", message.to_owned());
    }
    let alone = cluster.seeds.is_empty() && cluster.dns.is_empty();
    if alone && cluster.multicast.group.is_none() {
        let message =
            "the node has no way to find others; write a multicast group, seeds or a DNS name";
        s.problem("seeds", message.to_owned());
    }
}

pub(super) fn host_and_port(text: &str) -> Result<String, &'static str> {
    let fault = "is not a host's name or address with a port";
    let (host, port) = text.rsplit_once(':').ok_or(fault)?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let is_host = bare.parse::<IpAddr>().is_ok()
        || !host.is_empty() && host.len() <= 253 && host.chars().all(is_name);
    if is_port && is_host { Ok(text.to_owned()) } else { Err(fault) }
}
