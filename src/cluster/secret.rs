//! The secret that the nodes of a cluster share, and the keys that are made of it.
//!
//! Keys come by HKDF with SHA-256 (RFC 5869), each under a label of its own, so that one tells nothing of another. There
//! is no stretching: the secret has to be random, as `corefire cluster init` writes it. What people type or copy out of
//! examples is refused. Whoever has the secret is a node of the cluster: it can name itself as it likes.

use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use std::fmt;

/// Characters of a secret at least; 43 are what `corefire cluster init` writes.
pub const CHARS_MIN: usize = 32;
/// Bytes of a secret at most.
pub const BYTES_MAX: usize = 4096;

const SALT: &[u8] = b"corefire cluster secret, version 1";
/// Different characters of a secret at least. Random ones of 32 hexadecimal digits have fewer once in 10^9.
const DIFFERENT_MIN: usize = 7;
/// In small letters and without what separates words: parts of what examples and habits offer.
const WELL_KNOWN: &[&str] = &[
    "changeme",
    "changethis",
    "replaceme",
    "replacethis",
    "yoursecret",
    "mysecret",
    "clustersecret",
    "sharedsecret",
    "supersecret",
    "password",
    "passphrase",
    "letmein",
    "default",
    "example",
    "corefire",
    "insecure",
    "qwerty",
];

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Authenticates beacons.
    Beacons,
    /// Seals the gossip of members.
    Gossip,
    /// Seed of the key by which the cluster certifies its nodes.
    Authority,
    /// Names the cluster; not secret.
    Cluster,
    /// Makes up the salts of accounts that do not exist: alike at every node, so that asking several tells nothing.
    Decoys,
    /// Makes the keys by which other servers find out that we are who we say (XEP-0185): any node may be asked for one.
    Dialback,
}

impl Label {
    fn text(self) -> &'static [u8] {
        match self {
            Label::Beacons => b"beacons",
            Label::Gossip => b"gossip",
            Label::Authority => b"certificate authority",
            Label::Cluster => b"cluster id",
            Label::Decoys => b"decoy salts",
            Label::Dialback => b"dialback",
        }
    }
}

/// A secret that is fit for use. Its text is not kept, and `Debug` shows nothing.
#[derive(Clone)]
pub struct Secret(Prk);

/// Why a text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("the secret of the cluster is empty; `corefire cluster init` writes one")]
    Empty,
    #[error(
        "the secret of the cluster is shorter than {CHARS_MIN} characters; `corefire cluster init` writes one"
    )]
    Short,
    #[error("the secret of the cluster is longer than {BYTES_MAX} bytes")]
    Long,
    #[error(
        "the secret of the cluster can be guessed (an example, a word, or a pattern); `corefire cluster init` writes one"
    )]
    Guessable,
    #[error("the secret of the cluster is not text in one line")]
    NotText,
}

impl Secret {
    /// - takes: the text of the file; blanks and line ends around it do not count
    pub fn new(text: &str) -> Result<Secret, SecretError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        if text.len() > BYTES_MAX {
            return Err(SecretError::Long);
        }
        if text.chars().any(char::is_control) {
            return Err(SecretError::NotText);
        }
        if is_well_known(text) {
            return Err(SecretError::Guessable);
        }
        if text.chars().count() < CHARS_MIN {
            return Err(SecretError::Short);
        }
        if is_pattern(text) {
            return Err(SecretError::Guessable);
        }
        Ok(Secret(Salt::new(HKDF_SHA256, SALT).extract(text.as_bytes())))
    }

    /// The key of this purpose: the same at every node that has the secret.
    pub fn derive(&self, label: Label) -> [u8; 32] {
        let mut key = [0; 32];
        let filled = self
            .0
            .expand(&[label.text()], HKDF_SHA256)
            .and_then(|material| material.fill(&mut key));
        assert!(filled.is_ok(), "HKDF gives a key of the length of its digest");
        key
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn is_well_known(text: &str) -> bool {
    let letters: String =
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    WELL_KNOWN.iter().any(|known| letters.contains(known))
}

/// One character or group of them over and over, characters in the order of the alphabet, or few different ones.
fn is_pattern(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut different = bytes.to_vec();
    different.sort_unstable();
    different.dedup();
    let is_repeated = (1..=bytes.len() / 2)
        .any(|period| bytes.iter().zip(&bytes[period..]).all(|(one, other)| one == other));
    let steps = bytes.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    different.len() < DIFFERENT_MIN || is_repeated || steps > bytes.len() / 2
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const GOOD: &str = "u7Zq0b1Vh2JtLxYw9cPmN4sKdRfGe8aQ6oTiB3yXz5E";

    #[test]
    fn keys_are_the_same_everywhere_and_differ_by_purpose_and_secret() {
        let secret = Secret::new(GOOD).unwrap();
        let again = Secret::new(&format!("  {GOOD}\n")).unwrap();
        let other = Secret::new(&GOOD.replace('u', "v")).unwrap();
        let labels =
            [Label::Beacons, Label::Gossip, Label::Authority, Label::Cluster, Label::Decoys];
        let keys: Vec<[u8; 32]> = labels.iter().map(|label| secret.derive(*label)).collect();
        for (at, label) in labels.into_iter().enumerate() {
            assert_eq!(keys[at], again.derive(label));
            assert_ne!(keys[at], other.derive(label));
            assert!(keys[..at].iter().all(|key| *key != keys[at]));
        }
    }

    /// Computed by a program of its own: nodes of different versions must agree.
    #[test]
    fn known_keys_stay() {
        let key = Secret::new(GOOD).unwrap().derive(Label::Beacons);
        let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "1030620a85b95a2a0f9dc5f6829d629d7d19f605bcce6af58fd4dbd2143fd7b4");
    }

    #[test]
    fn what_can_be_guessed_is_refused() {
        let refused = |text: &str| Secret::new(text).unwrap_err();
        assert_eq!(refused(""), SecretError::Empty);
        assert_eq!(refused(" \n\t"), SecretError::Empty);
        assert_eq!(refused(&GOOD[..CHARS_MIN - 1]), SecretError::Short);
        assert_eq!(refused(&"ab".repeat(3000)), SecretError::Long);
        assert_eq!(refused(&GOOD.replace('J', "\n")), SecretError::NotText);
        for text in [
            "changeme",
            "Change-Me-Change-Me-u7Zq0b1Vh2JtLxYw9cPmN4s",
            "my_secret_u7Zq0b1Vh2JtLxYw9cPmN4sKdRf",
            &"a".repeat(64),
            &"0123456789".repeat(4),
            "u7Zq0b1Vh2JtLxYwu7Zq0b1Vh2JtLxYw",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "zyxwvutsrqponmlkjihgfedcba9876543210",
            "abababcbabcbcbabcbabdbabcbabcbadbabc",
        ] {
            assert_eq!(refused(text), SecretError::Guessable, "{text}");
        }
    }

    #[test]
    fn random_secrets_are_taken() {
        let mut rng = crate::base::rng::Rng::from_u64(5);
        for _ in 0..2_000 {
            Secret::new(&rng.token(43)).unwrap();
            let mut bytes = [0; 16];
            rng.fill(&mut bytes);
            Secret::new(&bytes.map(|byte| format!("{byte:02x}")).concat()).unwrap();
        }
    }

    #[test]
    fn nothing_is_shown() {
        assert_eq!(format!("{:?}", Secret::new(GOOD).unwrap()), "Secret(..)");
    }
}
