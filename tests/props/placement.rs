//! Placement: a change of members moves only what it must, and shares are honoured.

use std::collections::BTreeMap;

use corefire::base::hash::hash64;
use corefire::cluster::map::ShardMap;
use corefire::cluster::placement::{
    Member, NodeId, PARTITIONS, Placement, partition, shard_at, store_partition,
};
use corefire::cluster::view::{NodeFacts, Run, View};
use corefire::xmpp::jid::BareJid;
use proptest::prelude::*;

fn members(weights: &[u32]) -> Vec<Member> {
    (1u32..)
        .zip(weights)
        .map(|(node, weight)| Member {
            node: NodeId(node),
            name: format!("xmpp-{node}.example"),
            weight: *weight,
            shards: 4,
            federates: false,
        })
        .collect()
}

fn shares(placement: &Placement) -> BTreeMap<NodeId, u32> {
    let mut shares = BTreeMap::new();
    for partition in 0..PARTITIONS {
        *shares.entry(placement.node(partition)).or_insert(0) += 1;
    }
    shares
}

/// Hashes as JIDs have them.
fn hashes(count: u32) -> impl Iterator<Item = u64> {
    (0..count).map(|n| hash64(format!("user{n}@example.com").as_bytes()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_leave_moves_nothing_between_survivors(
        weights in prop::collection::vec(0u32..10, 2..8),
        leaver in any::<prop::sample::Index>(),
    ) {
        let all = members(&weights);
        let mut rest = all.clone();
        let left = rest.remove(leaver.index(all.len()));
        // Where all that stay have weight 0 they all come back to life: another rule.
        prop_assume!(rest.iter().any(|member| member.weight > 0));
        let (with, without) = (Placement::new(1, &all), Placement::new(2, &rest));
        for partition in 0..PARTITIONS {
            let owner = with.node(partition);
            if owner != left.node {
                prop_assert_eq!(without.node(partition), owner);
            } else {
                prop_assert_eq!(Some(without.node(partition)), with.successor(partition.into()).map(|owner| owner.node));
            }
        }
    }

    #[test]
    fn a_weight_raised_moves_only_towards_its_member(
        weights in prop::collection::vec(1u32..10, 2..8),
        riser in any::<prop::sample::Index>(),
    ) {
        let before = members(&weights);
        let mut after = before.clone();
        let riser = riser.index(before.len());
        after[riser].weight += 3;
        let (old, new) = (Placement::new(1, &before), Placement::new(2, &after));
        for partition in 0..PARTITIONS {
            let owner = new.node(partition);
            prop_assert!(owner == old.node(partition) || owner == before[riser].node);
        }
    }

    #[test]
    fn the_order_of_members_makes_no_difference(
        (ordered, shuffled) in prop::collection::vec(0u32..5, 1..8)
            .prop_map(|weights| members(&weights))
            .prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
    ) {
        prop_assert_eq!(Placement::new(1, &ordered), Placement::new(1, &shuffled));
    }

    /// What others compute from the map alone is what the nodes act by, whoever has written it.
    #[test]
    fn owners_by_the_client_library_are_ours(
        weights in prop::collection::vec(0u32..1_001, 1..8),
        shards in prop::collection::vec(0u16..200, 8),
        jids in prop::collection::vec("[a-z0-9._-]{1,12}@[a-z0-9]{1,12}\\.example", 60),
    ) {
        let node = |(member, shards): (Member, &u16)| NodeFacts {
            name: member.name,
            run: Run { node: member.node, incarnation: 1 },
            shards: *shards,
            weight: member.weight,
            link: ([127, 0, 0, 1], 7070).into(),
            clients: vec![format!("{}:5222", member.node.0)],
            components: Vec::new(),
            federates: false,
            frames: (1, 1),
            version: String::new(),
        };
        let view = View::new(3, members(&weights).into_iter().zip(&shards).map(node).collect());
        let map = ShardMap::of(&view);
        let json = map.to_json().expect("a map is JSON");
        let theirs = corefire_shard_map::ShardMap::from_json(&json).expect("it reads its own map");
        prop_assert_eq!(theirs.epoch(), 3);
        for jid in &jids {
            let owner = view.placement.owner(hash64(jid.as_bytes()));
            let found = theirs.owner(jid);
            prop_assert_eq!((found.member.node, found.shard), (owner.node.0, owner.shard.0));
            prop_assert_eq!(&found.member.clients[0], &format!("{}:5222", owner.node.0));
            let jid = BareJid::parse(jid).expect("an address");
            prop_assert_eq!(map.owner_of(&jid).expect("all have owners").owner, owner);
        }
    }

    /// Five standard deviations of fair draws: what 4096 partitions can promise.
    #[test]
    fn shares_are_those_of_fair_draws(weights in prop::collection::vec(1u32..20, 1..10)) {
        let placement = Placement::new(1, &members(&weights));
        let shares = shares(&placement);
        let sum = f64::from(weights.iter().sum::<u32>());
        for (node, weight) in (1u32..).zip(&weights) {
            let p = f64::from(*weight) / sum;
            let n = f64::from(PARTITIONS);
            let share = f64::from(shares.get(&NodeId(node)).copied().unwrap_or(0));
            let tolerance = 5.0 * (n * p * (1.0 - p)).sqrt() + 1.0;
            prop_assert!((share - n * p).abs() <= tolerance, "{share} of {}", n * p);
        }
    }
}

#[test]
fn weights_of_usual_clusters_are_honoured_within_a_tenth() {
    for weights in [vec![1, 1, 1], vec![1, 2], vec![4, 4, 8], vec![1; 4], vec![100, 100, 200, 100]]
    {
        let shares = shares(&Placement::new(1, &members(&weights)));
        let sum: u32 = weights.iter().sum();
        for (node, weight) in (1u32..).zip(&weights) {
            let expected = f64::from(u32::from(PARTITIONS) * weight) / f64::from(sum);
            let share = f64::from(shares[&NodeId(node)]);
            assert!((share / expected - 1.0).abs() < 0.1, "{weights:?}: {share} of {expected}");
        }
    }
}

#[test]
fn shards_are_even_for_any_count_within_any_share_of_partitions() {
    let hashes: Vec<u64> = hashes(64_000).collect();
    let placement = Placement::new(1, &members(&[1, 1, 2]));
    for shards in 1..=64u16 {
        // All JIDs, those of one node, and those of an eighth of the partitions: the low bits must not tell.
        for (name, chosen) in [
            ("all", hashes.clone()),
            (
                "node",
                hashes
                    .iter()
                    .copied()
                    .filter(|hash| placement.node(partition(*hash)) == NodeId(3))
                    .collect(),
            ),
            (
                "eighth",
                hashes.iter().copied().filter(|hash| partition(*hash).is_multiple_of(8)).collect(),
            ),
            ("store", hashes.iter().copied().filter(|hash| store_partition(*hash) < 8).collect()),
        ] {
            let mut counts = vec![0u32; usize::from(shards)];
            for hash in &chosen {
                counts[usize::from(shard_at(*hash, shards).0)] += 1;
            }
            let p = 1.0 / f64::from(shards);
            let n = chosen.len() as f64;
            let tolerance = 5.0 * (n * p * (1.0 - p)).sqrt() + 1.0;
            for count in counts {
                assert!(
                    (f64::from(count) - n * p).abs() <= tolerance,
                    "{name}, {shards}: {count} of {}",
                    n * p
                );
            }
        }
    }
}

#[test]
fn partitions_are_even_within_a_shard() {
    let mut counts = vec![0u32; 64];
    let chosen: Vec<u64> = hashes(64_000).filter(|hash| shard_at(*hash, 4).0 == 2).collect();
    for hash in &chosen {
        counts[usize::from(partition(*hash) / 64)] += 1;
    }
    let expected = chosen.len() as f64 / 64.0;
    for count in counts {
        assert!(
            (f64::from(count) - expected).abs() <= 5.0 * expected.sqrt(),
            "{count} of {expected}"
        );
    }
}
