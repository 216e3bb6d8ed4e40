//! The shard map: what others compute the owner of a JID from. It is told over HTTP, in an IQ and by the command line, and
//! `tools/shard-map` has the other end.
//!
//! In JSON, with fields that stay as they are while `format` does; readers pass over those that they do not know:
//!
//! | field | what it is |
//! |---|---|
//! | `format` | 1 |
//! | `epoch` | the version of what follows: higher is newer; 0 where a node serves without a cluster |
//! | `rule` | how an owner is computed, `sha256-rendezvous-1`: the rule in the head of `placement` |
//! | `partitions` | 4096 |
//! | `members` | by node id |
//! | `members[].name` | unique, the same after a restart; it draws the partitions. May be empty where there is one member |
//! | `members[].node` | the node's id, as in `corefire whereis` |
//! | `members[].weight` | its share against the others' |
//! | `members[].shards` | at least 1 |
//! | `members[].clients` | where clients reach this very node, `HOST:PORT` each; empty: it has no address of its own, and the domain's leads to any node |
//! | `members[].components` | where components (XEP-0114) reach it, `HOST:PORT` each; may be missing |
//!
//! In XML the same names are attributes of `<shard-map xmlns='urn:corefire:shard-map:1'/>` and of a `<member/>` in it for each
//! member, with a `<client/>` and a `<component/>` for each address. Another rule, or a field with another meaning, is
//! another `format`, and in XML another namespace.

use super::placement::{Member, NodeId, Owner, Placement, draw, partition, shard_at};
use super::view::View;
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::xml::writer::Writer;
use serde::{Deserialize, Serialize};

pub const FORMAT: u32 = 1;
pub const RULE: &str = "sha256-rendezvous-1";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMap {
    pub format: u32,
    pub epoch: u64,
    pub rule: String,
    pub partitions: u16,
    /// By node id.
    pub members: Vec<MapMember>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapMember {
    pub name: String,
    pub node: u32,
    pub weight: u32,
    pub shards: u16,
    pub clients: Vec<String>,
    #[serde(default)]
    pub components: Vec<String>,
}

/// Where the map says that a JID is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    pub member: &'a MapMember,
    pub owner: Owner,
    pub partition: u16,
}

impl ShardMap {
    pub fn of(view: &View) -> ShardMap {
        ShardMap::with_addresses(&view.placement, |node| {
            let node = view.node(node);
            node.map(|node| (node.clients.clone(), node.components.clone())).unwrap_or_default()
        })
    }

    /// Without addresses: of a node that knows of no others.
    pub fn of_placement(placement: &Placement) -> ShardMap {
        ShardMap::with_addresses(placement, |_| Default::default())
    }

    /// - takes: `addresses` of a node, for clients and for components
    fn with_addresses(
        placement: &Placement,
        addresses: impl Fn(NodeId) -> (Vec<String>, Vec<String>),
    ) -> ShardMap {
        let member = |member: &Member| {
            let (clients, components) = addresses(member.node);
            MapMember {
                name: member.name.clone(),
                node: member.node.0,
                weight: member.weight,
                shards: member.shards.max(1),
                clients,
                components,
            }
        };
        ShardMap {
            format: FORMAT,
            epoch: placement.epoch(),
            rule: RULE.to_owned(),
            partitions: super::placement::PARTITIONS,
            members: placement.members().iter().map(member).collect(),
        }
    }

    /// Computes the owner from what the map says alone; `None` without members.
    ///
    /// - cost: one SHA-256 and one logarithm per member
    pub fn owner_of(&self, jid: &BareJid) -> Option<Located<'_>> {
        let hash64 = jid.hash64();
        let partition = partition(hash64);
        let member = self.members.get(draw(partition, &self.as_members())?)?;
        let shard = shard_at(hash64, member.shards);
        Some(Located { member, owner: Owner { node: NodeId(member.node), shard }, partition })
    }

    /// How many partitions each member owns, in their order.
    ///
    /// - cost: as `Placement::new`
    pub fn shares(&self) -> Vec<u32> {
        let members = self.as_members();
        let mut shares = vec![0; members.len()];
        for partition in 0..self.partitions {
            let owner = draw(partition, &members).and_then(|seat| shares.get_mut(seat));
            owner.into_iter().for_each(|share| *share += 1);
        }
        shares
    }

    fn as_members(&self) -> Vec<Member> {
        let member = |member: &MapMember| Member {
            node: NodeId(member.node),
            name: member.name.clone(),
            weight: member.weight,
            shards: member.shards,
            // Who of them owns remote domains is no matter of clients.
            federates: false,
        };
        self.members.iter().map(member).collect()
    }

    /// - errors: none that could happen while writing into memory
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The payload of the IQ's result.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + 128 * self.members.len());
        let mut writer = Writer::new(&mut out);
        writer
            .start("shard-map")
            .attr("xmlns", ns::SHARD_MAP)
            .attr("format", &self.format.to_string())
            .attr("epoch", &self.epoch.to_string())
            .attr("rule", &self.rule)
            .attr("partitions", &self.partitions.to_string());
        for member in &self.members {
            writer
                .start("member")
                .attr("name", &member.name)
                .attr("node", &member.node.to_string())
                .attr("weight", &member.weight.to_string())
                .attr("shards", &member.shards.to_string());
            for client in &member.clients {
                writer.start("client").text(client).end("client");
            }
            for component in &member.components {
                writer.start("component").text(component).end("component");
            }
            writer.end("member");
        }
        writer.end("shard-map");
        out
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::cluster::view::{NodeFacts, Run};
    use std::net::SocketAddr;

    fn view(epoch: u64, weights: &[u32]) -> View {
        let node = |(id, weight): (u32, &u32)| NodeFacts {
            name: format!("node-{id}"),
            run: Run { node: NodeId(id), incarnation: 1 },
            shards: id as u16 + 2,
            weight: *weight,
            link: SocketAddr::from(([127, 0, 0, 1], 7070)),
            clients: (1..id).map(|one| format!("n{id}-{one}.example.org:5222")).collect(),
            components: (1..id).map(|one| format!("n{id}-{one}.example.org:5347")).collect(),
            federates: false,
            frames: (1, 1),
            version: String::new(),
        };
        let mut nodes: Vec<NodeFacts> = (1..).zip(weights).map(node).collect();
        // In an order that is not theirs.
        nodes.reverse();
        View::new(epoch, nodes)
    }

    /// The formats are others' to rely on.
    #[test]
    fn formats_stay() {
        let map = ShardMap::of(&view(9, &[1, 2]));
        let json = map.to_json().unwrap();
        assert_eq!(
            json,
            "{\"format\":1,\"epoch\":9,\"rule\":\"sha256-rendezvous-1\",\"partitions\":4096,\"members\":[\
             {\"name\":\"node-1\",\"node\":1,\"weight\":1,\"shards\":3,\"clients\":[],\"components\":[]},\
             {\"name\":\"node-2\",\"node\":2,\"weight\":2,\"shards\":4,\"clients\":[\"n2-1.example.org:5222\"],\
             \"components\":[\"n2-1.example.org:5347\"]}]}"
        );
        assert_eq!(serde_json::from_str::<ShardMap>(&json).unwrap(), map);
        // Of a node that does not know of these yet.
        let old = json.replace(",\"components\":[]", "");
        assert_eq!(serde_json::from_str::<ShardMap>(&old).unwrap(), map);
        assert_eq!(
            String::from_utf8(map.to_xml()).unwrap(),
            "<shard-map xmlns='urn:corefire:shard-map:1' format='1' epoch='9' rule='sha256-rendezvous-1' partitions='4096'>\
             <member name='node-1' node='1' weight='1' shards='3'/>\
             <member name='node-2' node='2' weight='2' shards='4'><client>n2-1.example.org:5222</client>\
             <component>n2-1.example.org:5347</component></member>\
             </shard-map>"
        );
    }

    #[test]
    fn owners_by_the_map_are_those_of_the_placement() {
        for weights in [&[1][..], &[1, 2, 3], &[0, 5, 1, 0], &[0, 0], &[3, 0, 7, 1, 1, 9]] {
            let view = view(4, weights);
            let map = ShardMap::of(&view);
            for number in 0..500 {
                let jid = BareJid::parse(&format!("user{number}@example.org")).unwrap();
                let located = map.owner_of(&jid).unwrap();
                assert_eq!(located.owner, view.placement.owner(jid.hash64()), "{jid} {weights:?}");
                assert_eq!(located.member.node, located.owner.node.0);
                assert_eq!(located.partition, partition(jid.hash64()));
            }
            let owned = |node: u32| {
                let is_its = |partition: &u16| view.placement.node(*partition) == NodeId(node);
                (0..map.partitions).filter(is_its).count() as u32
            };
            let owned: Vec<u32> = map.members.iter().map(|member| owned(member.node)).collect();
            assert_eq!(map.shares(), owned);
        }
    }

    #[test]
    fn one_node_is_a_map_of_one_member() {
        let view = View::single("n1", 3, 7);
        let map = ShardMap::of(&view);
        assert_eq!((map.epoch, map.members.len(), map.members[0].name.as_str()), (0, 1, "n1"));
        assert_eq!(ShardMap::of_placement(&view.placement), map);
        let empty = ShardMap { members: Vec::new(), ..map };
        assert!(empty.owner_of(&BareJid::parse("a@b").unwrap()).is_none());
    }
}
