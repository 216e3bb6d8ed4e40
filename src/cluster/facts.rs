//! What a node says of itself as bytes of a datagram, and the small reader and writer that all datagrams of the cluster
//! use: whole numbers big endian, texts after their length in one byte.

use super::placement::NodeId;
use super::view::{NodeFacts, Run};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Facts as bytes are never longer: they pass in one datagram that no network cuts, beside what surrounds them.
pub const FACTS_BYTES_MAX: usize = 1024;
/// As in the configuration (`name`).
pub const NAME_BYTES_MAX: usize = 63;
pub const CLIENTS_MAX: usize = 8;
/// Of all addresses for clients together, a byte of each one's length included.
pub const CLIENTS_BYTES_MAX: usize = 800;
pub const VERSION_BYTES_MAX: usize = 63;

const _: () = assert!(
    1 + NAME_BYTES_MAX + 12 + 2 + 4 + 19 + 4 + 1 + CLIENTS_BYTES_MAX + 1 + VERSION_BYTES_MAX
        <= FACTS_BYTES_MAX,
    "facts within their limits fit"
);

/// Why a node cannot say this of itself: a fault of its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsFault {
    #[error("the name of a node in a cluster has 1 to 63 bytes")]
    Name,
    #[error(
        "{0} is no address that other nodes can reach: it names no machine, no port, or a group"
    )]
    Link(SocketAddr),
    #[error("at most 8 addresses for clients, of 800 bytes together and up to 255 each")]
    Clients,
    #[error("at most 8 addresses for components, of up to 255 bytes each")]
    Components,
    #[error("the version of the program has at most 63 bytes")]
    Version,
    #[error("the versions of frames are the wrong way round")]
    Frames,
}

/// Whether these facts can be told: whoever starts a node asks before it tells them.
pub fn check(facts: &NodeFacts) -> Result<(), FactsFault> {
    if facts.name.is_empty() || facts.name.len() > NAME_BYTES_MAX {
        return Err(FactsFault::Name);
    }
    if !is_reachable(facts.link) {
        return Err(FactsFault::Link(facts.link));
    }
    let bytes: usize = facts.clients.iter().map(|address| address.len() + 1).sum();
    let fits = |address: &String| u8::try_from(address.len()).is_ok();
    if facts.clients.len() > CLIENTS_MAX
        || bytes > CLIENTS_BYTES_MAX
        || !facts.clients.iter().all(fits)
    {
        return Err(FactsFault::Clients);
    }
    if facts.components.len() > CLIENTS_MAX || !facts.components.iter().all(fits) {
        return Err(FactsFault::Components);
    }
    if facts.version.len() > VERSION_BYTES_MAX {
        return Err(FactsFault::Version);
    }
    if facts.frames.0 > facts.frames.1 {
        return Err(FactsFault::Frames);
    }
    Ok(())
}

/// Whether datagrams could be sent there: a machine and a port, and neither a group nor all of a network.
pub fn is_reachable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

/// Appends the facts to `out`.
///
/// - takes: facts that `check` lets pass
pub fn write(facts: &NodeFacts, out: &mut Vec<u8>) {
    put_text(out, &facts.name);
    put_run(out, facts.run);
    out.extend_from_slice(&facts.shards.to_be_bytes());
    out.extend_from_slice(&facts.weight.to_be_bytes());
    put_address(out, facts.link);
    out.extend_from_slice(&facts.frames.0.to_be_bytes());
    out.extend_from_slice(&facts.frames.1.to_be_bytes());
    out.push(u8::try_from(facts.clients.len()).unwrap_or(u8::MAX));
    for address in &facts.clients {
        put_text(out, address);
    }
    put_text(out, &facts.version);
}

/// Reads the facts that are all of `bytes`. `None`: they are not such facts, or `check` refuses them.
pub fn read(bytes: &[u8]) -> Option<NodeFacts> {
    let mut reader = Reader::new(bytes);
    let name = reader.text()?.to_owned();
    let run = reader.run()?;
    let shards = reader.u16()?;
    let weight = reader.u32()?;
    let link = reader.address()?;
    let frames = (reader.u16()?, reader.u16()?);
    let count = usize::from(reader.u8()?);
    if count > CLIENTS_MAX {
        return None;
    }
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(reader.text()?.to_owned());
    }
    let version = reader.text()?.to_owned();
    let components = Vec::new();
    let federates = false;
    let facts = NodeFacts {
        name,
        run,
        shards,
        weight,
        link,
        clients,
        components,
        federates,
        frames,
        version,
    };
    (reader.is_at_end() && check(&facts).is_ok()).then_some(facts)
}

/// A text of more than 255 bytes is cut; none that `check` let pass is.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(usize::from(u8::MAX))];
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_run(out: &mut Vec<u8>, run: Run) {
    out.extend_from_slice(&run.node.0.to_be_bytes());
    out.extend_from_slice(&run.incarnation.to_be_bytes());
}

pub(super) fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// Takes values off the head of a datagram. `None` once there is too little or something else.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u8()?);
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    pub(super) fn run(&mut self) -> Option<Run> {
        Some(Run { node: NodeId(self.u32()?), incarnation: self.u64()? })
    }

    pub(super) fn address(&mut self) -> Option<SocketAddr> {
        let ip = match self.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, self.u16()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> NodeFacts {
        NodeFacts {
            name: "m\u{fc}nchen-1".into(),
            run: Run { node: NodeId(7), incarnation: 1 << 40 },
            shards: 16,
            weight: 100,
            link: "[2001:db8::7]:7070".parse().expect("an address"),
            clients: vec!["node7.example.org:5222".into(), "192.0.2.7:5223".into()],
            components: Vec::new(),
            federates: false,
            frames: (1, 2),
            version: "0.2.0".into(),
        }
    }

    #[test]
    fn facts_come_back_as_they_went() {
        for link in ["[2001:db8::7]:7070", "10.0.0.7:7070"] {
            let facts = NodeFacts { link: link.parse().expect("an address"), ..facts() };
            let mut bytes = Vec::new();
            write(&facts, &mut bytes);
            assert_eq!(read(&bytes), Some(facts));
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), None, "cut at {cut}");
            }
            bytes.push(0);
            assert_eq!(read(&bytes), None, "with a byte behind");
        }
    }

    #[test]
    fn the_largest_facts_fit() {
        let facts = NodeFacts {
            name: "n".repeat(NAME_BYTES_MAX),
            clients: vec!["c".repeat(CLIENTS_BYTES_MAX / CLIENTS_MAX - 1); CLIENTS_MAX],
            version: "v".repeat(VERSION_BYTES_MAX),
            ..facts()
        };
        assert_eq!(check(&facts), Ok(()));
        let mut bytes = Vec::new();
        write(&facts, &mut bytes);
        assert!(bytes.len() <= FACTS_BYTES_MAX);
        assert_eq!(read(&bytes), Some(facts));
    }

    #[test]
    fn facts_that_cannot_be_true_are_refused() {
        let link = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let wrong = [
            (NodeFacts { name: String::new(), ..facts() }, FactsFault::Name),
            (NodeFacts { name: "n".repeat(64), ..facts() }, FactsFault::Name),
            (NodeFacts { clients: vec!["c".into(); 9], ..facts() }, FactsFault::Clients),
            (NodeFacts { clients: vec!["c".repeat(250); 4], ..facts() }, FactsFault::Clients),
            (NodeFacts { version: "v".repeat(64), ..facts() }, FactsFault::Version),
            (NodeFacts { frames: (2, 1), ..facts() }, FactsFault::Frames),
        ];
        let unreachable =
            ["0.0.0.0:7070", "[::]:7070", "10.0.0.7:0", "239.192.0.77:7077", "[ff02::1]:1"]
                .into_iter()
                .chain(["255.255.255.255:1"])
                .map(link);
        let unreachable =
            unreachable.map(|link| (NodeFacts { link, ..facts() }, FactsFault::Link(link)));
        let long = NodeFacts { clients: vec!["c".repeat(256)], ..facts() };
        assert_eq!(check(&long), Err(FactsFault::Clients));
        for components in [vec!["c".into(); 9], vec!["c".repeat(256)]] {
            let facts = NodeFacts { components, ..facts() };
            assert_eq!(check(&facts), Err(FactsFault::Components));
        }
        for (facts, fault) in wrong.into_iter().chain(unreachable) {
            assert_eq!(check(&facts), Err(fault));
            let mut bytes = Vec::new();
            write(&facts, &mut bytes);
            assert_eq!(read(&bytes), None);
        }
    }
}
