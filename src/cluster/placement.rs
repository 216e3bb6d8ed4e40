//! Who owns a JID: computed from the JID and the members, never looked up.
//!
//! The rule is public, so that other programs (sending services, load balancers, tests) can compute it:
//!
//! 1. `hash64` of a prepared bare JID is the first 8 bytes, big endian, of the SHA-256 of its UTF-8 text.
//! 2. Its *partition* is `hash64 mod 4096`; its partition of the store is `hash64 mod 64`.
//! 3. A partition belongs to the member with the lowest `cost / weight`, compared as fractions, where
//!    `cost = 2^38 - log2(d)` and `d` is the `hash64` of the member's name in UTF-8, a zero byte, and the partition as
//!    two bytes, big endian; a `d` of 0 counts as 1. Equal fractions go to the lower node id.
//!    A member of weight 0 owns nothing, unless all have weight 0: then all count as 1.
//! 4. `log2` is in units of 2^-32, rounded down as follows. With `k` the place of the highest one bit of `d` and
//!    `x = d << (63 - k)`, repeat 32 times: `x = (x * x) >> 63`; if `x >= 2^64`, halve `x` (rounding down) and
//!    append a one bit to `f`, else a zero bit. The result is `(k << 32) + f`.
//! 5. The *shard* in the node is `((hash64 >> 32) * shards) >> 32`.
//! 6. A domain that others serve has an owner, too, if any member talks with other servers: rules 2, 3 and 5 with the
//!    `hash64` of the domain, where members that talk with none draw nothing.
//!
//! `cost` is an exponentially distributed number (up to the base of the logarithm), so a member of weight w wins a
//! partition with probability w over the sum of weights (weighted rendezvous hashing), and a member that joins or
//! leaves changes the order of no others: only its own share moves. All of it is whole numbers, because two machines
//! whose logarithms differ in the last bit would disagree about an owner. The partition uses the low bits of the hash
//! and the shard the high ones, so each spreads evenly within the other.

use crate::base::hash::hash64;

/// Parts into which all JIDs fall; the unit that moves between nodes.
pub const PARTITIONS: u16 = 4096;

/// Parts of a store, as in `store::record` (which this folder does not import).
const STORE_PARTITIONS: u16 = 64;

const _: () = assert!(
    PARTITIONS.is_multiple_of(STORE_PARTITIONS),
    "a partition lies in one part of the store"
);

/// A member of the cluster, for as long as the database knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// A shard within its node, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Where the state of a bare JID is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    pub node: NodeId,
    pub shard: ShardId,
}

/// What the owner of a partition is computed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    /// Unique in the cluster and the same after a restart: it, not the id, draws the partitions.
    pub name: String,
    /// Its share against the others' weights; 0 for a node that is being drained.
    pub weight: u32,
    /// Shards of the node; 0 counts as 1.
    pub shards: u16,
    /// It talks with other servers.
    pub federates: bool,
}

/// The owners of all partitions at one epoch. Copied to every core; 16 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    epoch: u64,
    /// By node id.
    members: Vec<Member>,
    /// For each partition, places in `members`.
    partitions: Vec<Seats>,
    domains: Domains,
}

/// The owners of what others serve.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Domains {
    /// No member talks with other servers.
    None,
    /// All do: those of `partitions`.
    AsAccounts,
    /// For each partition, a place in `members`.
    Of(Vec<u16>),
}

/// The first and second in the order of a partition; equal where there is no second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seats {
    first: u16,
    second: u16,
}

impl Placement {
    /// Computes the table.
    ///
    /// - takes: at least one member, at most 65 535; their order does not matter
    /// - cost: one SHA-256 and one logarithm per member and partition: 6 ms for eight members
    /// - panics: without members, as somebody must own what is there
    pub fn new(epoch: u64, members: &[Member]) -> Placement {
        assert!(!members.is_empty(), "a placement has at least one member");
        assert!(members.len() <= usize::from(u16::MAX), "a placement has at most 65535 members");
        let mut members = members.to_vec();
        members.sort_by(|one, two| (one.node, &one.name).cmp(&(two.node, &two.name)));
        let all = |_: &Member| true;
        let draw = |partition| Seats::draw(partition, &members, all);
        let partitions = (0..PARTITIONS).map(draw).collect();
        let federates = |member: &Member| member.federates;
        let domains = match members.iter().filter(|member| member.federates).count() {
            0 => Domains::None,
            some if some < members.len() => {
                let draw = |partition| Seats::draw(partition, &members, federates).first;
                Domains::Of((0..PARTITIONS).map(draw).collect())
            }
            _ => Domains::AsAccounts,
        };
        Placement { epoch, members, partitions, domains }
    }

    /// The placement of a node without a cluster: node 0 owns everything, at epoch 0.
    pub fn single(shards: u16) -> Placement {
        Placement::alone("", shards)
    }

    /// As `single`, of a node with a name.
    pub fn alone(name: &str, shards: u16) -> Placement {
        let name = name.to_owned();
        let alone = Member { node: NodeId(0), name, weight: 1, shards, federates: false };
        Placement {
            epoch: 0,
            members: vec![alone],
            partitions: vec![Seats { first: 0, second: 0 }; usize::from(PARTITIONS)],
            domains: Domains::None,
        }
    }

    /// The owner of the bare JID with this hash.
    ///
    /// - cost: two reads from tables
    pub fn owner(&self, hash64: u64) -> Owner {
        let member = self.member(self.seats(partition(hash64)).first);
        Owner { node: member.node, shard: shard_at(hash64, member.shards) }
    }

    /// The node of a partition. Partitions from `PARTITIONS` on wrap round.
    pub fn node(&self, partition: u16) -> NodeId {
        self.member(self.seats(partition).first).node
    }

    /// Whether members talk with other servers. A node without a cluster needs nobody to tell it who of it does.
    pub fn federates(&self) -> bool {
        self.domains != Domains::None
    }

    /// The owner of the remote domain with this hash: rule 6 above. Its shard takes what all others have for the domain.
    pub fn domain_owner(&self, hash64: u64) -> Option<Owner> {
        let member = self.member(self.domain_seat(partition(hash64))?);
        Some(Owner { node: member.node, shard: shard_at(hash64, member.shards) })
    }

    /// The node that owns the remote domains of a partition.
    pub fn domain_node(&self, partition: u16) -> Option<NodeId> {
        self.domain_seat(partition).map(|seat| self.member(seat).node)
    }

    fn domain_seat(&self, partition: u16) -> Option<u16> {
        match &self.domains {
            Domains::None => None,
            Domains::AsAccounts => Some(self.seats(partition).first),
            Domains::Of(seats) => Some(seats[usize::from(partition % PARTITIONS)]),
        }
    }

    /// Who owns the bare JID with this hash if its owner's node leaves: the next in its partition's order. `None` where
    /// there is no other.
    pub fn successor(&self, hash64: u64) -> Option<Owner> {
        let Seats { first, second } = self.seats(partition(hash64));
        let member = self.member(second);
        let shard = shard_at(hash64, member.shards);
        (first != second).then_some(Owner { node: member.node, shard })
    }

    /// The version of the table: higher is newer.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All members, by node id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    fn seats(&self, partition: u16) -> Seats {
        self.partitions[usize::from(partition % PARTITIONS)]
    }

    fn member(&self, seat: u16) -> &Member {
        &self.members[usize::from(seat)]
    }
}

/// The partition of a bare JID: rule 2 above.
pub fn partition(hash64: u64) -> u16 {
    (hash64 % u64::from(PARTITIONS)) as u16
}

/// The store's partition of a bare JID: rule 2 above.
pub fn store_partition(hash64: u64) -> u16 {
    (hash64 % u64::from(STORE_PARTITIONS)) as u16
}

/// The shard of a bare JID in a node with this many shards: rule 5 above. 0 shards count as 1.
pub fn shard_at(hash64: u64, shards: u16) -> ShardId {
    // The product of two numbers below 2^32 and 2^16, so what remains is below `shards`.
    ShardId((((hash64 >> 32) * u64::from(shards.max(1))) >> 32) as u16)
}

/// Which of a node's `cores` federation cores deals with the remote domain whose bare JID has this hash; `None` where there
/// are none. As `shard_at`, so that domains spread evenly whatever their number.
pub fn federation_core(hash64: u64, cores: u16) -> Option<u16> {
    (cores > 0).then(|| shard_at(hash64, cores).0)
}

/// Which of `members` owns a partition (rule 3 above), without a table; `None` where there are none.
///
/// - takes: members by node id, at most 65 535
pub fn draw(partition: u16, members: &[Member]) -> Option<usize> {
    (!members.is_empty()).then(|| Seats::draw(partition, members, |_| true).first.into())
}

impl Seats {
    /// - takes: `draws`, whether a member may have any; one does
    fn draw(partition: u16, members: &[Member], draws: impl Fn(&Member) -> bool) -> Seats {
        let all_drained = !members.iter().any(|member| draws(member) && member.weight > 0);
        let weight = |member: &Member| match draws(member) {
            true if all_drained => 1,
            true => member.weight,
            false => 0,
        };
        let mut best: Option<Bid> = None;
        let mut next: Option<Bid> = None;
        for (seat, member) in (0u16..).zip(members).filter(|(_, member)| weight(member) > 0) {
            let bid = Bid { cost: cost(&member.name, partition), weight: weight(member), seat };
            if best.is_none_or(|best| bid.beats(best)) {
                next = best.replace(bid);
            } else if next.is_none_or(|next| bid.beats(next)) {
                next = Some(bid);
            }
        }
        let first = best.map_or(0, |bid| bid.seat);
        Seats { first, second: next.map_or(first, |bid| bid.seat) }
    }
}

#[derive(Clone, Copy)]
struct Bid {
    cost: u64,
    weight: u32,
    seat: u16,
}

impl Bid {
    /// Members bid in the order of their ids, so an equal bid that comes later loses.
    fn beats(self, other: Bid) -> bool {
        u128::from(self.cost) * u128::from(other.weight)
            < u128::from(other.cost) * u128::from(self.weight)
    }
}

/// `-log2` of the member's draw for this partition as a part of 2^64, in units of 2^-32: rule 3 above.
fn cost(name: &str, partition: u16) -> u64 {
    let mut bytes = Vec::with_capacity(name.len() + 3);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&partition.to_be_bytes());
    (1 << 38) - log2(hash64(&bytes).max(1))
}

/// Rule 4 above. `d` is not 0.
fn log2(d: u64) -> u64 {
    let mut x = d << d.leading_zeros();
    let mut log = u64::from(d.ilog2());
    for _ in 0..32 {
        let square = (u128::from(x) * u128::from(x)) >> 63;
        let carry = (square >> 64) as u64;
        x = (square >> carry) as u64;
        log = log << 1 | carry;
    }
    log
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn member(node: u32, weight: u32) -> Member {
        let name = format!("node-{node}");
        Member { node: NodeId(node), name, weight, shards: 4, federates: false }
    }

    fn node_behind(placement: &Placement, partition: u16) -> Option<NodeId> {
        placement.successor(partition.into()).map(|owner| owner.node)
    }

    #[test]
    fn logarithms_are_exact_at_powers_and_close_between() {
        assert_eq!((log2(1), log2(2), log2(1 << 63)), (0, 1 << 32, 63 << 32));
        for d in [3u64, 10, 12_345_678_901, u64::MAX, u64::MAX / 3] {
            let close = (d as f64).log2() * 4_294_967_296.0;
            assert!((log2(d) as f64 - close).abs() < 64.0, "{d}");
        }
    }

    /// Computed by a program of its own from the rule in the head of this file: they must never change.
    #[test]
    fn known_owners_stay() {
        let members = [member(1, 1), member(2, 2), member(3, 3)];
        let placement = Placement::new(9, &members);
        for (text, in_cluster, in_store, node, shard) in [
            ("alice@example.com", 703, 63, 2, 3),
            ("bob@example.com", 2412, 44, 3, 1),
            ("m\u{fc}nchen.example", 299, 43, 3, 0),
            ("room@conference.example.com", 2659, 35, 1, 1),
            ("juliet@capulet.lit", 2135, 23, 2, 2),
        ] {
            let hash = hash64(text.as_bytes());
            assert_eq!((partition(hash), store_partition(hash)), (in_cluster, in_store), "{text}");
            let owner = Owner { node: NodeId(node), shard: ShardId(shard) };
            assert_eq!(placement.owner(hash), owner, "{text}");
        }
        let all: String = (0..PARTITIONS).map(|p| placement.node(p).0.to_string()).collect();
        assert_eq!(hash64(all.as_bytes()), 0xa61c_205f_9a38_2989);
    }

    #[test]
    fn one_node_owns_everything() {
        let placement = Placement::single(8);
        for hash in [0, 1 << 32, u64::MAX, 0x1234_5678_9abc_def0] {
            let owner = placement.owner(hash);
            assert_eq!((owner.node, owner.shard), (NodeId(0), shard_at(hash, 8)));
            assert_eq!(placement.successor(hash), None);
        }
        assert_eq!(shard_at(u64::MAX, 8), ShardId(7));
        assert_eq!(shard_at(u64::MAX, 0), ShardId(0));
        assert_eq!(shard_at(u64::MAX, u16::MAX), ShardId(u16::MAX - 1));
    }

    #[test]
    fn remote_domains_spread_over_federation_cores() {
        assert_eq!(federation_core(u64::MAX, 0), None);
        assert_eq!(federation_core(u64::MAX, 1), Some(0));
        let core = |domain: &str| federation_core(hash64(domain.as_bytes()), 4);
        // Computed by a program of its own, as the owners above.
        for (domain, expected) in [("example.org", 2), ("münchen.example", 0), ("capulet.lit", 3)]
        {
            assert_eq!(core(domain), Some(expected), "{domain}");
        }
    }

    fn of(members: &[(u32, u32, bool)]) -> Placement {
        let one = |(node, weight, federates): &(u32, u32, bool)| Member {
            federates: *federates,
            ..member(*node, *weight)
        };
        Placement::new(1, &members.iter().map(one).collect::<Vec<_>>())
    }

    #[test]
    fn remote_domains_belong_to_members_that_talk_with_other_servers() {
        assert_eq!(of(&[(1, 1, false), (2, 1, false)]).domain_owner(7), None);
        let all = of(&[(1, 1, true), (2, 2, true), (3, 1, true)]);
        for hash in (0..10_000).map(|number: u64| hash64(&number.to_be_bytes())) {
            assert_eq!(all.domain_owner(hash), Some(all.owner(hash)));
        }
        let some = of(&[(1, 1, true), (2, 2, false), (3, 1, true)]);
        let alone = of(&[(1, 1, true), (3, 1, true)]);
        let mut shares = [0u32; 4];
        for partition in 0..PARTITIONS {
            let node = some.domain_node(partition).unwrap();
            assert_eq!(Some(node), alone.domain_node(partition), "others draw nothing");
            shares[node.0 as usize] += 1;
        }
        assert_eq!(shares[2], 0);
        let half = u32::from(PARTITIONS) / 2;
        assert!(shares[1].abs_diff(half) < half / 10, "{shares:?}");
        // One that is drained hands its domains over, unless it is the only one that talks with others.
        let drained = of(&[(1, 0, true), (2, 2, false), (3, 1, true)]);
        assert!((0..PARTITIONS).all(|it| drained.domain_node(it) == Some(NodeId(3))));
        let last = of(&[(1, 0, true), (2, 2, false)]);
        assert!((0..PARTITIONS).all(|it| last.domain_node(it) == Some(NodeId(1))));
    }

    #[test]
    fn a_member_that_leaves_moves_only_its_own_remote_domains() {
        let before = of(&[(1, 1, true), (2, 1, true), (3, 1, true), (4, 1, false)]);
        let after = of(&[(1, 1, true), (3, 1, true), (4, 1, false)]);
        for partition in 0..PARTITIONS {
            let node = before.domain_node(partition);
            if node != Some(NodeId(2)) {
                assert_eq!(after.domain_node(partition), node);
            }
        }
    }

    #[test]
    fn a_drained_member_owns_nothing_unless_all_are() {
        let placement = Placement::new(1, &[member(1, 0), member(2, 1), member(3, 1)]);
        assert!((0..PARTITIONS).all(|partition| placement.node(partition) != NodeId(1)));
        assert!(
            (0..PARTITIONS).all(|partition| node_behind(&placement, partition) != Some(NodeId(1)))
        );
        let drained = Placement::new(1, &[member(1, 0), member(2, 0)]);
        let equal = Placement::new(1, &[member(1, 1), member(2, 1)]);
        assert!((0..PARTITIONS).all(|partition| drained.node(partition) == equal.node(partition)));
    }

    #[test]
    fn the_successor_is_who_owns_the_partition_when_the_owner_leaves() {
        let members = [member(1, 1), member(2, 2), member(3, 1), member(4, 5)];
        let before = Placement::new(1, &members);
        for leaver in &members {
            let rest: Vec<Member> =
                members.iter().filter(|member| *member != leaver).cloned().collect();
            let after = Placement::new(2, &rest);
            for partition in 0..PARTITIONS {
                let expected = match before.node(partition) {
                    node if node == leaver.node => node_behind(&before, partition),
                    node => Some(node),
                };
                assert_eq!(Some(after.node(partition)), expected);
                // A hash in that partition, of a high shard.
                let hash = u64::MAX - u64::from(PARTITIONS - 1 - partition);
                let owner = match before.node(partition) {
                    node if node == leaver.node => before.successor(hash),
                    _ => Some(before.owner(hash)),
                };
                assert_eq!(Some(after.owner(hash)), owner);
            }
        }
    }
}
