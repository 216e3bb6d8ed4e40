//! Randomness as a value: unguessable where the runtime seeds it from the system, repeatable in simulation.

use rand::rngs::ChaCha20Rng;
use rand::{Rng as _, SeedableRng};

/// A generator that nobody can predict without its seed. One per core.
#[derive(Debug)]
pub struct Rng(ChaCha20Rng);

/// 64 characters that need no escape in URLs, file names, XML and SASL: six bits each.
const TOKEN_ALPHABET: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Rng {
    /// - takes: 32 bytes from the system's generator, for each core its own
    pub fn from_seed(seed: [u8; 32]) -> Rng {
        Rng(ChaCha20Rng::from_seed(seed))
    }

    /// For simulation and tests only: whoever guesses the number knows all that follows.
    pub fn from_u64(number: u64) -> Rng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        Rng::from_seed(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `n`, all equally likely; 0 for `n` = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // The upper half of the product is uniform but for the few products whose lower half is under 2^64 mod n.
        let uneven = if n == 0 { 0 } else { n.wrapping_neg() % n };
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= uneven {
                return (product >> 64) as u64;
            }
        }
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// `len` characters of the URL-safe alphabet of RFC 4648 §5, six random bits each: 22 cannot be guessed.
    pub fn token(&mut self, len: usize) -> String {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes.iter().map(|byte| char::from(TOKEN_ALPHABET[usize::from(byte % 64)])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers() {
        let (mut one, mut two) = (Rng::from_u64(1), Rng::from_u64(1));
        assert_eq!(one.token(40), two.token(40));
        assert_eq!(one.next_u64(), two.next_u64());
        assert_ne!(one.next_u64(), Rng::from_u64(2).next_u64());
    }

    #[test]
    fn numbers_below_a_bound_are_spread_evenly() {
        let mut rng = Rng::from_u64(3);
        let mut counts = [0; 6];
        for _ in 0..60_000 {
            counts[usize::try_from(rng.below(6)).unwrap_or(0)] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
        assert!(rng.below(u64::MAX) < u64::MAX);
    }

    #[test]
    fn tokens_use_the_whole_alphabet() {
        let token = Rng::from_u64(4).token(10_000);
        assert!(TOKEN_ALPHABET.iter().all(|byte| token.as_bytes().contains(byte)));
        assert_eq!(token.len(), 10_000);
    }
}
