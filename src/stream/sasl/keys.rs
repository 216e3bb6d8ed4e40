//! From passwords to keys (RFC 5802 §3), and keys that look real for accounts that are not there.

use std::num::NonZeroU32;

use ring::hmac;

use super::hash::{Output, ScramHash, is_equal};
use super::{SaslFailure, saslprep};
use crate::xmpp::credentials::{Credentials, ScramKeys};

/// Fewest rounds of PBKDF2 (RFC 5802 §5.1, RFC 7677 §4).
pub const ITERATIONS_MIN: u32 = 4096;
/// Most rounds of PBKDF2: some seconds of one core.
pub const ITERATIONS_MAX: u32 = 10_000_000;
/// Random bytes in a salt, of real keys and of fake ones.
pub const SALT_BYTES: usize = 16;
/// Longest password in UTF-8. With it and two names a PLAIN message still fits `MESSAGE_BYTES_MAX`.
pub const PASSWORD_BYTES_MAX: usize = 512;

/// Longest salt of stored keys: what imports bring, with room.
const SALT_BYTES_MAX: usize = 64;

/// Why keys cannot be made for a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("the password is empty")]
    Empty,
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// RFC 4013 §2.3 to §2.5. Unicode 3.2 knows no emoji, and RFC 5802 §2.2 keeps passwords to it.
    #[error("the password has characters that SASLprep does not permit")]
    Prohibited,
    #[error("iterations must be between {ITERATIONS_MIN} and {ITERATIONS_MAX}")]
    Iterations,
}

/// The slow part of a derivation, worth keeping by clients that log in often. As secret as the password.
#[derive(Clone)]
pub struct SaltedPassword {
    hash: ScramHash,
    output: Output,
}

impl SaltedPassword {
    /// Slow (PBKDF2): for side threads and tests.
    ///
    /// - errors: as of `PasswordError`, and `Iterations` for counts out of bounds
    /// - cost: `iterations` times two compressions of the hash; some 1 ms for 4096
    /// - source: RFC 5802 §2.2, §3
    pub fn derive(
        password: &str,
        salt: &[u8],
        iterations: u32,
        hash: ScramHash,
    ) -> Result<SaltedPassword, PasswordError> {
        if password.is_empty() {
            return Err(PasswordError::Empty);
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let prepared = saslprep::prepare_stored(password).ok_or(PasswordError::Prohibited)?;
        let rounds = NonZeroU32::new(iterations)
            .filter(|rounds| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&rounds.get()))
            .ok_or(PasswordError::Iterations)?;
        Ok(SaltedPassword { hash, output: hash.pbkdf2(prepared.as_bytes(), salt, rounds) })
    }

    pub(super) fn hash(&self) -> ScramHash {
        self.hash
    }

    pub(super) fn client_key(&self) -> Output {
        self.hash.hmac(self.output.as_ref(), b"Client Key")
    }

    pub(super) fn server_key(&self) -> Output {
        self.hash.hmac(self.output.as_ref(), b"Server Key")
    }

    fn into_keys(self, salt: &[u8], iterations: u32) -> ScramKeys {
        ScramKeys {
            iterations,
            salt: salt.to_vec(),
            stored_key: self.hash.digest(self.client_key().as_ref()).as_ref().to_vec(),
            server_key: self.server_key().as_ref().to_vec(),
        }
    }
}

impl std::fmt::Debug for SaltedPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SaltedPassword {{ hash: {:?}, .. }}", self.hash)
    }
}

/// Derives the keys of one mechanism. Slow (PBKDF2): on a side thread only.
///
/// - takes: the password as typed; it is prepared here
/// - errors: `NotAuthorized` for a password that no account can have (empty, too long, refused by SASLprep);
///   `TemporaryAuthFailure` for a salt or count that no sound record has
/// - source: RFC 5802 §3
pub fn derive(
    password: &str,
    salt: &[u8],
    iterations: u32,
    hash: ScramHash,
) -> Result<ScramKeys, SaslFailure> {
    if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
        return Err(SaslFailure::TemporaryAuthFailure);
    }
    match SaltedPassword::derive(password, salt, iterations, hash) {
        Ok(salted) => Ok(salted.into_keys(salt, iterations)),
        Err(PasswordError::Iterations) => Err(SaslFailure::TemporaryAuthFailure),
        Err(PasswordError::Empty | PasswordError::TooLong | PasswordError::Prohibited) => {
            Err(SaslFailure::NotAuthorized)
        }
    }
}

/// Makes the record of a new password, with a salt of its own for each mechanism. Slow: derives for each hash.
///
/// - takes: `salts`, a source of secure random bytes
/// - errors: `PasswordError`
pub fn new_credentials(
    password: &str,
    iterations: u32,
    salts: &mut dyn FnMut(&mut [u8]),
) -> Result<Credentials, PasswordError> {
    let mut keys = |hash| {
        let mut salt = [0; SALT_BYTES];
        salts(&mut salt);
        let salted = SaltedPassword::derive(password, &salt, iterations, hash)?;
        Ok(salted.into_keys(&salt, iterations))
    };
    Ok(Credentials {
        sha1: keys(ScramHash::Sha1)?,
        sha256: keys(ScramHash::Sha256)?,
        sha512: Some(Box::new(keys(ScramHash::Sha512)?)),
    })
}

/// Whether a PLAIN password belongs to the account with these keys, of whichever hash. Slow: on a side thread only.
///
/// For an unknown account the caller passes `fake_keys`: the same work is done, and no password has those keys. A
/// password that SASLprep refuses is answered at once, whosever it is.
pub fn verify_plain(password: &str, credentials: &ScramKeys) -> bool {
    let ScramKeys { iterations, salt, stored_key, .. } = credentials;
    let Some(hash) = ScramHash::of_key_length(stored_key.len()) else { return false };
    derive(password, salt, *iterations, hash)
        .is_ok_and(|derived| is_equal(&derived.stored_key, stored_key))
}

/// Keys for a name without an account. The same name gets the same keys for as long as the secret lives, as an
/// account would; no password leads to them.
///
/// - takes: `username` in the form that accounts are looked up by, so that two spellings of one name agree;
///   `iterations`, what this server gives to new accounts
/// - cost: three HMACs, of SHA-256 whichever hash the keys are for, and two more for the longer keys of SHA-512
pub fn fake_keys(secret: &[u8; 32], username: &str, hash: ScramHash, iterations: u32) -> ScramKeys {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let part = |label: &[u8], len: usize| {
        let mut context = hmac::Context::with_key(&key);
        context.update(match hash {
            ScramHash::Sha1 => b"SCRAM-SHA-1\0",
            ScramHash::Sha256 => b"SCRAM-SHA-256\0",
            ScramHash::Sha512 => b"SCRAM-SHA-512\0",
        });
        context.update(label);
        context.update(username.as_bytes());
        let mut made = context.sign().as_ref().to_vec();
        if made.len() < len {
            made.extend_from_slice(hmac::sign(&key, &made).as_ref());
        }
        made.truncate(len);
        made
    };
    ScramKeys {
        iterations,
        salt: part(b"salt\0", SALT_BYTES),
        stored_key: part(b"stored key\0", hash.output_bytes()),
        server_key: part(b"server key\0", hash.output_bytes()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::hash::trace;
    use super::*;

    fn credentials(password: &str) -> Result<Credentials, PasswordError> {
        let mut next = 0;
        new_credentials(password, ITERATIONS_MIN, &mut |bytes| {
            next += 1;
            bytes.fill(next);
        })
    }

    #[test]
    fn new_credentials_verify_their_password_only() {
        let made = credentials("p\u{AD}encil\u{2168}").unwrap();
        assert_eq!(made.sha1.salt, [1; SALT_BYTES]);
        assert_eq!(made.sha256.salt, [2; SALT_BYTES]);
        assert_eq!(made.sha512.as_ref().unwrap().stored_key.len(), 64);
        assert_eq!(made.sha1.stored_key.len(), 20);
        assert_eq!(made.sha256.server_key.len(), 32);
        assert!(verify_plain("pencilIX", &made.sha256));
        assert!(!verify_plain("pencilIx", &made.sha256));
        assert!(!verify_plain("", &made.sha256));
        for keys in [&made.sha1, made.sha512.as_deref().unwrap()] {
            assert!(verify_plain("pencilIX", keys) && !verify_plain("pencil", keys));
        }
        assert!(!verify_plain("pencilIX", &ScramKeys::none()));
    }

    #[test]
    fn password_out_of_bounds_is_refused() {
        assert_eq!(credentials(""), Err(PasswordError::Empty));
        assert_eq!(credentials("\u{7}"), Err(PasswordError::Prohibited));
        assert_eq!(credentials("\u{AD}"), Err(PasswordError::Prohibited));
        assert_eq!(credentials("\u{1F600}"), Err(PasswordError::Prohibited));
        assert_eq!(credentials(&"x".repeat(PASSWORD_BYTES_MAX + 1)), Err(PasswordError::TooLong));
        assert!(credentials(&"x".repeat(PASSWORD_BYTES_MAX)).is_ok());
        for iterations in [0, 1, ITERATIONS_MIN - 1, ITERATIONS_MAX + 1, u32::MAX] {
            let made = new_credentials("pencil", iterations, &mut |_| ());
            assert_eq!(made, Err(PasswordError::Iterations));
        }
    }

    #[test]
    fn derivation_names_whose_fault_it_is() {
        let derive = |password, salt, iterations| {
            derive(password, salt, iterations, ScramHash::Sha256).map(|_| ())
        };
        assert_eq!(derive("pencil", b"salt", ITERATIONS_MIN), Ok(()));
        assert_eq!(derive("\u{7}", b"salt", ITERATIONS_MIN), Err(SaslFailure::NotAuthorized));
        assert_eq!(derive("", b"salt", ITERATIONS_MIN), Err(SaslFailure::NotAuthorized));
        assert_eq!(derive("pencil", b"", ITERATIONS_MIN), Err(SaslFailure::TemporaryAuthFailure));
        assert_eq!(derive("pencil", &[0; 65], 4096), Err(SaslFailure::TemporaryAuthFailure));
        assert_eq!(derive("pencil", b"salt", 4095), Err(SaslFailure::TemporaryAuthFailure));
    }

    #[test]
    fn fake_keys_are_stable_and_differ_by_name_hash_and_secret() {
        let fake = |secret: u8, name, hash| fake_keys(&[secret; 32], name, hash, ITERATIONS_MIN);
        let keys = fake(1, "nobody", ScramHash::Sha256);
        assert!(keys == fake(1, "nobody", ScramHash::Sha256));
        assert_eq!(keys.salt.len(), SALT_BYTES);
        assert_eq!(keys.stored_key.len(), 32);
        assert_eq!(fake(1, "nobody", ScramHash::Sha512).server_key.len(), 64);
        assert_ne!(keys.stored_key, keys.server_key);
        for other in [
            fake(2, "nobody", ScramHash::Sha256),
            fake(1, "nobodx", ScramHash::Sha256),
            fake(1, "nobody", ScramHash::Sha1),
            fake(1, "nobody", ScramHash::Sha512),
        ] {
            assert_ne!(keys.salt, other.salt);
            assert_ne!(keys.stored_key, other.stored_key);
        }
    }

    #[test]
    fn plain_does_the_same_work_for_unknown_name_and_wrong_password() {
        let known = credentials("pencil").unwrap().sha256;
        let unknown = fake_keys(&[7; 32], "nobody", ScramHash::Sha256, ITERATIONS_MIN);
        trace::take();
        assert!(!verify_plain("wrong", &known));
        let for_known = trace::take();
        assert!(!verify_plain("wrong", &unknown));
        assert_eq!(trace::take(), for_known);
        assert!(for_known.contains(&trace::Operation::Pbkdf2));
    }
}
