//! The rule `sha256-rendezvous-1`. All of it is whole numbers: machines whose logarithms differ in the last bit would
//! disagree about an owner.

use crate::Member;
use sha2::{Digest, Sha256};

/// The first 8 bytes, big endian, of the SHA-256.
pub(crate) fn hash64(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The shard of an address in a node with this many.
pub(crate) fn shard(hash64: u64, shards: u16) -> u16 {
    (((hash64 >> 32) * u64::from(shards.max(1))) >> 32) as u16
}

/// The place in `members` of the one who owns a partition: whose `cost / weight` is lowest, and the first of equals.
///
/// - takes: at least one member, by node id
pub(crate) fn draw(partition: u16, members: &[Member]) -> u16 {
    let all_drained = members.iter().all(|member| member.weight == 0);
    let mut best: Option<(u64, u32, u16)> = None;
    for (seat, member) in (0u16..).zip(members) {
        let weight = if all_drained { 1 } else { member.weight };
        if weight == 0 {
            continue;
        }
        let cost = cost(&member.name, partition);
        // Fractions, compared without dividing.
        let wins = best.is_none_or(|(least, its_weight, _)| {
            u128::from(cost) * u128::from(its_weight) < u128::from(least) * u128::from(weight)
        });
        if wins {
            best = Some((cost, weight, seat));
        }
    }
    best.map_or(0, |(_, _, seat)| seat)
}

/// `2^38 - log2` of the member's draw for the partition, in units of 2^-32.
fn cost(name: &str, partition: u16) -> u64 {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes.extend(partition.to_be_bytes());
    let draw = hash64(&bytes).max(1);
    let mut log = u64::from(draw.ilog2());
    let mut x = draw << draw.leading_zeros();
    for _ in 0..32 {
        let square = (u128::from(x) * u128::from(x)) >> 63;
        let carry = (square >> 64) as u64;
        x = (square >> carry) as u64;
        log = log << 1 | carry;
    }
    (1 << 38) - log
}
