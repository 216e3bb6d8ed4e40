//! Who owns an address on a Corefire server: computed from the server's shard map, without asking for each address. What
//! arrives at the owner does not go through another node: a client's stream at the node that owns its account, a component's
//! stanza on a connection to the node that owns the recipient.
//!
//! ```
//! # let json = r#"{"format":1,"epoch":9,"rule":"sha256-rendezvous-1","partitions":4096,"members":[
//! #     {"name":"n1","node":1,"weight":1,"shards":4,"clients":["n1.example.org:5222"],
//! #     "components":["n1.example.org:5347"]}]}"#;
//! let map = corefire_shard_map::ShardMap::from_json(json)?;
//! let owner = map.owner("alice@example.com");
//! assert_eq!((owner.member.name.as_str(), owner.shard), ("n1", 3));
//! assert_eq!(owner.member.clients, ["n1.example.org:5222"]);
//! assert_eq!(owner.member.components, ["n1.example.org:5347"]);
//! # Ok::<(), corefire_shard_map::MapError>(())
//! ```
//!
//! The map comes from `/api/v1/shard-map` of a node's admin address ([`Follower`] gets it and keeps it new), from
//! `corefire cluster map --json`, or as XML in the answer to an IQ. It may be old: what goes to a node that no longer owns
//! the address is passed on by it, at the price of a hop. So there is nothing to be afraid of between two epochs, and a
//! question every few seconds is enough.
//!
//! The rule is in the head of `src/cluster/placement.rs`; `rule` here says the same in code. `shard_map.py` beside this is
//! the same in Python, with nothing but its standard library.

mod follow;
mod rule;

pub use follow::{FollowError, Follower, Source, connect, connect_component};
use serde::Deserialize;

/// The format and rule that are known here.
pub const FORMAT: u32 = 1;
pub const RULE: &str = "sha256-rendezvous-1";
const PARTITIONS: u16 = 4096;

/// Why a text is no map by which an owner can be computed.
#[derive(Debug)]
#[non_exhaustive]
pub enum MapError {
    /// No JSON, or fields are missing.
    Malformed(serde_json::Error),
    /// Of a newer server: a newer version of this library is needed.
    UnknownFormat(u32),
    UnknownRule(String),
    /// No members, too many, or two with one id.
    Members,
}

impl std::fmt::Display for MapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MapError::Malformed(error) => write!(f, "no shard map: {error}"),
            MapError::UnknownFormat(format) => {
                write!(f, "a shard map of the unknown format {format}")
            }
            MapError::UnknownRule(rule) => write!(f, "a shard map with the unknown rule {rule:?}"),
            MapError::Members => {
                f.write_str("a shard map has 1 to 65535 members, each with its own id")
            }
        }
    }
}

impl std::error::Error for MapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MapError::Malformed(error) => Some(error),
            _ => None,
        }
    }
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Member {
    pub name: String,
    pub node: u32,
    pub weight: u32,
    pub shards: u16,
    /// Where clients reach this very node, `HOST:PORT` each. Empty: only by the domain's address, which leads to any.
    #[serde(default)]
    pub clients: Vec<String>,
    /// Where components do. Empty: the node takes none, or does not say.
    #[serde(default)]
    pub components: Vec<String>,
}

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    pub member: &'a Member,
    /// Of the node, from 0.
    pub shard: u16,
    pub partition: u16,
}

/// The members at one epoch, and the owners of all partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    epoch: u64,
    /// By node id.
    members: Vec<Member>,
    /// By partition: a place in `members`.
    owners: Vec<u16>,
}

#[derive(Deserialize)]
struct Text {
    epoch: u64,
    rule: String,
    partitions: u16,
    members: Vec<Member>,
}

impl ShardMap {
    /// Reads a map, and computes who owns what.
    ///
    /// - cost: a SHA-256 and a logarithm per member and partition: a millisecond for each member
    pub fn from_json(json: &str) -> Result<ShardMap, MapError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = serde_json::from_str(json).map_err(MapError::Malformed)?;
        if format != FORMAT {
            return Err(MapError::UnknownFormat(format));
        }
        let Text { epoch, rule, partitions, mut members } =
            serde_json::from_str(json).map_err(MapError::Malformed)?;
        if rule != RULE || partitions != PARTITIONS {
            return Err(MapError::UnknownRule(format!("{rule} with {partitions} partitions")));
        }
        members.sort_by_key(|member| member.node);
        let is_twice = |pair: &[Member]| pair[0].node == pair[1].node;
        if members.is_empty()
            || members.len() > usize::from(u16::MAX)
            || members.windows(2).any(is_twice)
        {
            return Err(MapError::Members);
        }
        let owners = (0..PARTITIONS).map(|partition| rule::draw(partition, &members)).collect();
        Ok(ShardMap { epoch, members, owners })
    }

    /// The owner of an address: an account, a domain, a room or another service. A resource says nothing about it.
    ///
    /// - takes: the address as the server writes it (RFC 7622). Letters of ASCII may be of either case; others are taken
    ///   as they are
    /// - cost: one SHA-256
    pub fn owner(&self, jid: &str) -> Owner<'_> {
        let bare = jid.split_once('/').map_or(jid, |(bare, _)| bare).to_ascii_lowercase();
        let hash64 = rule::hash64(bare.as_bytes());
        let partition = (hash64 % u64::from(PARTITIONS)) as u16;
        let member = &self.members[usize::from(self.owners[usize::from(partition)])];
        Owner { member, shard: rule::shard(hash64, member.shards), partition }
    }

    /// The version: higher is newer. 0 for a node without a cluster.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All members, by node id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether this map, which came later, is to be used instead of `known`: its epoch is newer, or the same and it says
    /// something else, as that of a node without a cluster does after it was started with other shards. A map of an older
    /// epoch comes from a node that does not know the newest yet.
    pub fn replaces(&self, known: &ShardMap) -> bool {
        self.epoch > known.epoch || (self.epoch == known.epoch && self != known)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn map(epoch: u64, members: &str) -> Result<ShardMap, MapError> {
        ShardMap::from_json(&format!(
            "{{\"format\":1,\"epoch\":{epoch},\"rule\":\"{RULE}\",\"partitions\":4096,\"later\":[],\"members\":[{members}]}}"
        ))
    }

    const ONE: &str = r#"{"name":"n1","node":1,"weight":1,"shards":2,"clients":["h:1"]}"#;
    const OTHER: &str = r#"{"name":"n1","node":1,"weight":1,"shards":3}"#;

    #[test]
    fn a_map_is_newer_by_its_epoch() {
        let (old, new) = (map(7, ONE).unwrap(), map(8, ONE).unwrap());
        assert!(new.replaces(&old) && !old.replaces(&new) && !new.replaces(&new.clone()));
        let other = map(8, OTHER).unwrap();
        assert!(other.replaces(&new) && !map(7, OTHER).unwrap().replaces(&new));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let text = |format: u32, rule: &str, partitions: u32| {
            format!(
                "{{\"format\":{format},\"epoch\":1,\"rule\":\"{rule}\",\"partitions\":{partitions},\"members\":[{ONE}]}}"
            )
        };
        assert!(ShardMap::from_json(&text(1, RULE, 4096)).is_ok());
        let refused = |text: &str| ShardMap::from_json(text).unwrap_err();
        assert!(matches!(refused(&text(2, RULE, 4096)), MapError::UnknownFormat(2)));
        assert!(matches!(refused(&text(1, "md5", 4096)), MapError::UnknownRule(_)));
        assert!(matches!(refused(&text(1, RULE, 64)), MapError::UnknownRule(_)));
        assert!(matches!(refused("{\"format\":1}"), MapError::Malformed(_)));
        assert!(matches!(refused(""), MapError::Malformed(_)));
        assert!(matches!(map(1, "").unwrap_err(), MapError::Members));
        assert!(matches!(map(1, &format!("{ONE},{OTHER}")).unwrap_err(), MapError::Members));
    }

    #[test]
    fn an_address_is_the_same_in_any_case_and_with_any_resource() {
        let map = map(1, OTHER).unwrap();
        assert_eq!(map.owner("Alice@Example.Com/phone"), map.owner("alice@example.com"));
    }
}
