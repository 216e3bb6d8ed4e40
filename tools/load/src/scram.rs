//! SCRAM from the client's side (RFC 5802, RFC 7677), with channel binding (RFC 9266, RFC 5929) or without.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

/// Iterations above which a server is refused: it would hold the generator for seconds.
const ITERATIONS_MAX: u32 = 1_000_000;
/// Keys kept before the cache starts anew.
const CACHED_KEYS_MAX: usize = 1 << 17;

/// The digest below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        }
    }
}

struct Keys {
    client: hmac::Tag,
    server: hmac::Key,
}

type Salted = (Hash, Rc<str>, Vec<u8>, u32);

/// Keys by (hash, password, salt, iterations): without it the generator spends its core in PBKDF2 when sessions come
/// back, as in a reconnect storm.
#[derive(Default)]
pub struct KeyCache {
    keys: HashMap<Salted, Rc<Keys>>,
}

impl KeyCache {
    fn keys(&mut self, salted: Salted) -> Rc<Keys> {
        if self.keys.len() >= CACHED_KEYS_MAX {
            self.keys.clear();
        }
        let keys = self.keys.entry(salted).or_insert_with_key(|(hash, password, salt, count)| {
            let mut salted = vec![0; hash.digest().output_len()];
            let count = NonZeroU32::new(*count).unwrap_or(NonZeroU32::MIN);
            pbkdf2::derive(hash.pbkdf2(), count, salt, password.as_bytes(), &mut salted);
            let key = hmac::Key::new(hash.hmac(), &salted);
            let server = hmac::sign(&key, b"Server Key");
            Rc::new(Keys {
                client: hmac::sign(&key, b"Client Key"),
                server: hmac::Key::new(hash.hmac(), server.as_ref()),
            })
        });
        Rc::clone(keys)
    }
}

/// Why the exchange cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// Not base64, not UTF-8, or not the attributes that RFC 5802 §5.1 demands in that order.
    Malformed,
    /// The server's nonce does not continue ours.
    Nonce,
    /// Zero iterations or more than a million.
    Iterations,
    /// The server does not know the password's verifier.
    Signature,
}

/// What ties a login to the TLS connection it is made over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Registered name, as `tls-exporter`.
    pub name: &'static str,
    pub data: Vec<u8>,
}

/// One exchange.
pub struct Scram {
    hash: Hash,
    /// What stands before the first message, and what it binds to.
    header: Vec<u8>,
    bound: Vec<u8>,
    password: Rc<str>,
    nonce: String,
    first_bare: String,
    signature: Option<(Rc<Keys>, String)>,
}

impl Scram {
    /// Begins an exchange with a nonce of the caller's (printable ASCII without a comma); `binding` is for the -PLUS
    /// mechanisms.
    pub fn new(
        hash: Hash,
        user: &str,
        password: Rc<str>,
        nonce: String,
        binding: Option<Binding>,
    ) -> Self {
        let (header, bound) = match binding {
            Some(Binding { name, data }) => (format!("p={name},,"), data),
            None => ("n,,".to_owned(), Vec::new()),
        };
        let header = header.into_bytes();
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Self { hash, header, bound, password, nonce, first_bare, signature: None }
    }

    /// The first message, in base64.
    pub fn first(&self) -> String {
        BASE64.encode([&self.header[..], self.first_bare.as_bytes()].concat())
    }

    /// Answers the server's first message; both in base64.
    pub fn respond(&mut self, challenge: &str, cache: &mut KeyCache) -> Result<String, ScramError> {
        let server_first = decode(challenge)?;
        let mut parts = server_first.split(',');
        let mut part =
            |key| parts.next().and_then(|part| part.strip_prefix(key)).ok_or(ScramError::Malformed);
        let (nonce, salt, count) = (part("r=")?, part("s=")?, part("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let salt = BASE64.decode(salt).map_err(|_| ScramError::Malformed)?;
        let count: u32 = count.parse().map_err(|_| ScramError::Malformed)?;
        if !(1..=ITERATIONS_MAX).contains(&count) {
            return Err(ScramError::Iterations);
        }
        let keys = cache.keys((self.hash, Rc::clone(&self.password), salt, count));
        let binding = BASE64.encode([&self.header[..], &self.bound[..]].concat());
        let last_bare = format!("c={binding},r={nonce}");
        let message = format!("{},{server_first},{last_bare}", self.first_bare);
        let stored = digest::digest(self.hash.digest(), keys.client.as_ref());
        let signature =
            hmac::sign(&hmac::Key::new(self.hash.hmac(), stored.as_ref()), message.as_bytes());
        let proof: Vec<u8> =
            keys.client.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        self.signature = Some((keys, message));
        Ok(BASE64.encode(format!("{last_bare},p={}", BASE64.encode(proof))))
    }

    /// Checks the server's last message, in base64.
    pub fn check(&self, last: &str) -> Result<(), ScramError> {
        let last = decode(last)?;
        let value = last.split(',').next().and_then(|part| part.strip_prefix("v="));
        let value = BASE64.decode(value.ok_or(ScramError::Malformed)?);
        let value = value.map_err(|_| ScramError::Malformed)?;
        let (keys, message) = self.signature.as_ref().ok_or(ScramError::Malformed)?;
        hmac::verify(&keys.server, message.as_bytes(), &value).map_err(|_| ScramError::Signature)
    }
}

fn decode(text: &str) -> Result<String, ScramError> {
    let bytes = BASE64.decode(text.trim()).map_err(|_| ScramError::Malformed)?;
    String::from_utf8(bytes).map_err(|_| ScramError::Malformed)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn exchange(hash: Hash, nonce: &str, server_first: &str) -> (Scram, String) {
        let mut scram = Scram::new(hash, "user", "pencil".into(), nonce.to_owned(), None);
        let answer = scram.respond(&BASE64.encode(server_first), &mut KeyCache::default()).unwrap();
        (scram, String::from_utf8(BASE64.decode(answer).unwrap()).unwrap())
    }

    #[test]
    fn example_of_rfc_5802_section_5_is_reproduced() {
        let (scram, answer) = exchange(
            Hash::Sha1,
            "fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        );
        assert_eq!(
            answer,
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
        );
        scram.check(&BASE64.encode("v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")).unwrap();
        assert_eq!(
            scram.check(&BASE64.encode("v=rmF9pqV8S7suAoZWja4dJRkFsKA=")),
            Err(ScramError::Signature)
        );
    }

    #[test]
    fn example_of_rfc_7677_section_3_is_reproduced() {
        let (scram, answer) = exchange(
            Hash::Sha256,
            "rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        );
        assert!(answer.ends_with(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="));
        scram.check(&BASE64.encode("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")).unwrap();
    }

    #[test]
    fn a_binding_stands_in_the_header_and_in_the_last_message() {
        let binding = Binding { name: "tls-exporter", data: vec![1, 2, 255] };
        let mut scram =
            Scram::new(Hash::Sha256, "user", "pencil".into(), "abc".to_owned(), Some(binding));
        assert_eq!(BASE64.decode(scram.first()).unwrap(), b"p=tls-exporter,,n=user,r=abc");
        let challenge = BASE64.encode("r=abcdef,s=QSXC,i=1");
        let answer = scram.respond(&challenge, &mut KeyCache::default()).unwrap();
        let answer = String::from_utf8(BASE64.decode(answer).unwrap()).unwrap();
        let bound = answer.strip_prefix("c=").unwrap().split(',').next().unwrap();
        assert_eq!(BASE64.decode(bound).unwrap(), b"p=tls-exporter,,\x01\x02\xff");
    }

    #[test]
    fn servers_that_reuse_our_nonce_alone_are_refused() {
        let mut scram = Scram::new(Hash::Sha1, "user", "pencil".into(), "abc".to_owned(), None);
        let mut respond =
            |text: &str| scram.respond(&BASE64.encode(text), &mut KeyCache::default());
        assert_eq!(respond("r=abc,s=QSXC,i=1"), Err(ScramError::Nonce));
        assert_eq!(respond("r=xyz,s=QSXC,i=1"), Err(ScramError::Nonce));
        assert_eq!(respond("r=abcd,s=QSXC,i=0"), Err(ScramError::Iterations));
        assert_eq!(respond("m=ext,r=abcd,s=QSXC,i=1"), Err(ScramError::Malformed));
    }
}
