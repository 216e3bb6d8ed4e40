//! The UDP sockets of gossip and beacons, and why they cannot be had.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::cluster::discovery::DiscoveryFault;
use crate::cluster::facts::{self, FactsFault};

/// What is wrong with the configuration, or with the machine for it: one line that says which key, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    #[error(
        "cluster.bind = \"{0}\": other nodes cannot reach that; write this machine's own address and a port, as in \
         \"10.0.0.1:7070\""
    )]
    Unreachable(SocketAddr),
    #[error(
        "cluster.bind = \"{address}\": UDP cannot be bound there: {source}; write an address of this machine and a \
         port that nobody has"
    )]
    Bind { address: SocketAddr, source: io::Error },
    #[error(
        "cluster.multicast.group = \"{0}\" is no multicast group of IPv4; write one as \"239.192.0.77:7077\", or leave \
         it empty and use cluster.seeds or cluster.dns"
    )]
    NoGroup(SocketAddr),
    #[error(
        "cluster.multicast.interface: cluster.bind = \"{0}\" is no address of IPv4 that could be taken for it; write \
         the IPv4 address of the interface for beacons, or leave cluster.multicast.group empty"
    )]
    NoInterface(SocketAddr),
    #[error(
        "cluster.multicast.group = \"{group}\": UDP cannot be bound there: {source}; write another port, which no \
         other program has"
    )]
    BindGroup { group: SocketAddr, source: io::Error },
    #[error(
        "cluster.multicast.interface = \"{interface}\": the group {group} cannot be joined there: {source}; write the \
         IPv4 address of an interface of this machine, or leave cluster.multicast.group empty and use cluster.seeds or \
         cluster.dns"
    )]
    Join { interface: Ipv4Addr, group: SocketAddr, source: io::Error },
    #[error("cluster.seeds: \"{0}\" is no node; write HOST:PORT, as in \"10.0.0.2:7070\"")]
    Seed(String),
    #[error(
        "cluster.dns = \"{0}\" is no name; write one, as in \"nodes.example.org\", with or without :PORT"
    )]
    Dns(String),
    #[error("cluster.seeds: {0}")]
    Discovery(#[from] DiscoveryFault),
    #[error("this node cannot be told of: {0}")]
    Facts(#[from] FactsFault),
}

/// Beacons go out by `link` too, so that whoever hears one sees where it came from.
pub(super) struct Sockets {
    /// Gossip, and beacons that were sent to this very node.
    pub(super) link: UdpSocket,
    /// Beacons to the group.
    pub(super) group: Option<UdpSocket>,
}

/// - takes: the address of gossip (port 0: any); the group, and the interface by which its beacons come and go, that of
///   `bind` where none is named
pub(super) fn open(
    bind: SocketAddr,
    group: Option<SocketAddr>,
    interface: Option<Ipv4Addr>,
) -> Result<Sockets, GossipError> {
    let some_port = SocketAddr::new(bind.ip(), bind.port().max(1));
    if !facts::is_reachable(some_port) {
        return Err(GossipError::Unreachable(bind));
    }
    let group = group.map(|group| resolve(bind, group, interface)).transpose()?;
    let bound = |source| GossipError::Bind { address: bind, source };
    let link = bind_udp(bind, false).map_err(bound)?;
    let Some((group, address, interface)) = group else {
        return Ok(Sockets { link: link.into(), group: None });
    };
    let joined = |source| GossipError::Join { interface, group, source };
    // Bound to the group itself, it hears no other group of this port.
    let ears = bind_udp(group, true).map_err(|source| GossipError::BindGroup { group, source })?;
    ears.join_multicast_v4(&address, &interface).map_err(joined)?;
    if bind.is_ipv4() {
        speak(&link, interface).map_err(joined)?;
    } else {
        // The group is of IPv4 and gossip of IPv6: beacons go out by the group's socket.
        speak(&ears, interface).map_err(joined)?;
    }
    Ok(Sockets { link: link.into(), group: Some(ears.into()) })
}

/// The group, its address, and the interface that it is heard on.
fn resolve(
    bind: SocketAddr,
    group: SocketAddr,
    interface: Option<Ipv4Addr>,
) -> Result<(SocketAddr, Ipv4Addr, Ipv4Addr), GossipError> {
    let address = match group.ip() {
        IpAddr::V4(address) if address.is_multicast() && group.port() != 0 => address,
        _ => return Err(GossipError::NoGroup(group)),
    };
    match (interface, bind.ip()) {
        (Some(interface), _) => Ok((group, address, interface)),
        (None, IpAddr::V4(own)) => Ok((group, address, own)),
        (None, IpAddr::V6(_)) => Err(GossipError::NoInterface(bind)),
    }
}

fn bind_udp(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Several nodes of one machine hear the same group; an address of gossip is one node's alone.
    socket.set_reuse_address(is_shared)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Beacons leave by this interface, no farther than its network, and are heard by other nodes of this machine.
fn speak(socket: &Socket, interface: Ipv4Addr) -> io::Result<()> {
    socket.set_multicast_if_v4(&interface)?;
    socket.set_multicast_ttl_v4(1)?;
    socket.set_multicast_loop_v4(true)
}

/// The seeds of the configuration: addresses, and names with a port. The name of the DNS gets the port of this node, where
/// it has none.
pub(super) fn seeds(
    seeds: &[String],
    dns: &str,
    port: u16,
) -> Result<(Vec<SocketAddr>, Vec<String>), GossipError> {
    let (mut addresses, mut names) = (Vec::new(), Vec::new());
    for seed in seeds {
        match seed.parse::<SocketAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) if is_name_with_port(seed) => names.push(seed.clone()),
            Err(_) => return Err(GossipError::Seed(seed.clone())),
        }
    }
    if !dns.is_empty() {
        let with_port = if dns.contains(':') { dns.to_owned() } else { format!("{dns}:{port}") };
        if !is_name_with_port(&with_port) {
            return Err(GossipError::Dns(dns.to_owned()));
        }
        names.push(with_port);
    }
    Ok((addresses, names))
}

fn is_name_with_port(text: &str) -> bool {
    let Some((name, port)) = text.rsplit_once(':') else { return false };
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (1..=253).contains(&name.len())
        && name.bytes().all(is_of_name)
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}
