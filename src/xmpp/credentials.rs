//! What a server keeps of a password: SCRAM keys, never the password (RFC 5802 §3).

/// Keys of one SCRAM mechanism. Empty ones ([`ScramKeys::none`]) open nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ScramKeys {
    pub iterations: u32,
    pub salt: Vec<u8>,
    pub stored_key: Vec<u8>,
    pub server_key: Vec<u8>,
}

impl ScramKeys {
    /// Stands for the keys of a mechanism that an account has none for: those of accounts that come from other servers
    /// are for one mechanism, as a rule, and without the password no others can be made.
    pub fn none() -> ScramKeys {
        ScramKeys::default()
    }

    pub fn is_none(&self) -> bool {
        self.stored_key.is_empty()
    }
}

/// Keys of one account, for every mechanism that the server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// None for an account that came from another server without them.
    pub sha1: ScramKeys,
    /// None for an account that came from another server without them.
    pub sha256: ScramKeys,
    /// `None` for a password that was set before version 0.2, or as above.
    pub sha512: Option<Box<ScramKeys>>,
}

impl Credentials {
    /// Of an account that nobody can log in to with a password.
    pub fn none() -> Credentials {
        Credentials { sha1: ScramKeys::none(), sha256: ScramKeys::none(), sha512: None }
    }
}

/// Credentials as they lie in memory between logins: one block of bytes for all keys.
#[derive(Clone, PartialEq, Eq)]
pub struct PackedCredentials(Box<[u8]>);

impl PackedCredentials {
    pub fn sha1(&self) -> Option<ScramKeys> {
        self.keys(0)
    }

    pub fn sha256(&self) -> Option<ScramKeys> {
        self.keys(1)
    }

    pub fn sha512(&self) -> Option<ScramKeys> {
        self.keys(2)
    }

    /// Those that a password is held against, whichever mechanism they are for.
    pub fn of_password(&self) -> Option<ScramKeys> {
        self.sha256().or_else(|| self.sha512()).or_else(|| self.sha1())
    }

    /// Each set is its iterations, then salt, stored key and server key behind their lengths.
    fn keys(&self, place: usize) -> Option<ScramKeys> {
        let mut rest = &self.0[..];
        for _ in 0..place {
            rest = take_set(rest)?.1;
        }
        Some(take_set(rest)?.0.to_keys()).filter(|keys| !keys.is_none())
    }
}

impl From<&Credentials> for PackedCredentials {
    fn from(credentials: &Credentials) -> Self {
        let sets =
            [Some(&credentials.sha1), Some(&credentials.sha256), credentials.sha512.as_deref()];
        let mut bytes = Vec::with_capacity(320);
        for keys in sets.into_iter().flatten() {
            bytes.extend_from_slice(&keys.iterations.to_le_bytes());
            for part in [&keys.salt, &keys.stored_key, &keys.server_key] {
                bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        PackedCredentials(bytes.into_boxed_slice())
    }
}

struct Set<'a> {
    iterations: u32,
    parts: [&'a [u8]; 3],
}

impl Set<'_> {
    fn to_keys(&self) -> ScramKeys {
        let [salt, stored_key, server_key] = self.parts.map(<[u8]>::to_vec);
        ScramKeys { iterations: self.iterations, salt, stored_key, server_key }
    }
}

fn take_set(bytes: &[u8]) -> Option<(Set<'_>, &[u8])> {
    let (iterations, mut rest) = take_number(bytes)?;
    let mut parts: [&[u8]; 3] = [&[]; 3];
    for part in &mut parts {
        let (length, after) = take_number(rest)?;
        (*part, rest) = after.split_at_checked(length as usize)?;
    }
    Some((Set { iterations, parts }, rest))
}

fn take_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

impl std::fmt::Debug for ScramKeys {
    /// Keys open accounts: a log shows only that they are there.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScramKeys {{ iterations: {}, .. }}", self.iterations)
    }
}

impl std::fmt::Debug for PackedCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedCredentials(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seed: u8, length: usize) -> ScramKeys {
        ScramKeys {
            iterations: 4096 + u32::from(seed),
            salt: vec![seed; 16],
            stored_key: vec![seed + 1; length],
            server_key: vec![seed + 2; length],
        }
    }

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        let mut credentials = Credentials {
            sha1: keys(1, 20),
            sha256: keys(5, 32),
            sha512: Some(keys(9, 64).into()),
        };
        let packed = PackedCredentials::from(&credentials);
        assert_eq!(packed.sha1(), Some(credentials.sha1.clone()));
        assert_eq!(packed.sha256(), Some(credentials.sha256.clone()));
        assert_eq!(packed.sha512(), Some(keys(9, 64)));
        credentials.sha512 = None;
        assert_eq!(PackedCredentials::from(&credentials).sha512(), None);
    }

    #[test]
    fn keys_that_are_not_there_open_nothing_and_a_password_is_held_against_the_others() {
        let mut credentials = Credentials::none();
        assert_eq!(PackedCredentials::from(&credentials).of_password(), None);
        credentials.sha1 = keys(1, 20);
        let packed = PackedCredentials::from(&credentials);
        assert_eq!((packed.sha1(), packed.sha256()), (Some(keys(1, 20)), None));
        assert_eq!(packed.of_password(), Some(keys(1, 20)));
        credentials.sha512 = Some(keys(9, 64).into());
        assert_eq!(PackedCredentials::from(&credentials).of_password(), Some(keys(9, 64)));
    }
}
