//! Hashing: the stable hash that places JIDs, and keyed maps that floods cannot degrade.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::OnceLock;

use ahash::{AHasher, RandomState};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

/// First 8 bytes, big endian, of the SHA-256 of `bytes`.
///
/// The same on every machine and in every release: placement and store partitions hang on it, and other programs
/// compute it from the public shard map.
pub fn hash64(bytes: &[u8]) -> u64 {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Hash map with a keyed hasher; made by `Map::default()`. Its order must never show.
pub type Map<K, V> = HashMap<K, V, Keyed>;

/// Hash set with a keyed hasher; made by `Set::default()`.
pub type Set<T> = HashSet<T, Keyed>;

/// Builds hashers from the key of this process: without size, so that a small map stays small.
///
/// The key is drawn from the operating system at first use, so nobody outside can choose colliding keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keyed;

static KEYS: OnceLock<RandomState> = OnceLock::new();

impl BuildHasher for Keyed {
    type Hasher = AHasher;

    #[inline]
    fn build_hasher(&self) -> AHasher {
        KEYS.get_or_init(draw).build_hasher()
    }
}

/// Fixes the key of all maps of this process, for tests and simulation; a live node must never call it.
///
/// - gives: whether `seed` is now in force; `false` if the key had already been used or fixed
pub fn fix_keys(seed: u64) -> bool {
    KEYS.set(RandomState::with_seeds(seed, !seed, seed.rotate_left(17), seed.rotate_left(41)))
        .is_ok()
}

fn draw() -> RandomState {
    let mut seeds = [[0u8; 8]; 4];
    // A map with a guessable key is open to floods, so there is no fallback.
    SystemRandom::new()
        .fill(seeds.as_flattened_mut())
        .expect("the operating system gives random bytes");
    let [a, b, c, d] = seeds.map(u64::from_ne_bytes);
    RandomState::with_seeds(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash64_is_the_head_of_sha256() {
        // FIPS 180-2 appendix B.1: SHA-256("abc") = ba7816bf 8f01cfea ...
        assert_eq!(hash64(b"abc"), 0xba78_16bf_8f01_cfea);
        assert_eq!(hash64(b""), 0xe3b0_c442_98fc_1c14);
    }

    #[test]
    fn all_hashers_of_a_process_agree() {
        assert_eq!(Keyed.hash_one("alice"), Keyed.hash_one("alice"));
        assert_ne!(Keyed.hash_one("alice"), Keyed.hash_one("bob"));
        // Something has been hashed, so the key can no longer be changed.
        assert!(!fix_keys(1));
    }
}
