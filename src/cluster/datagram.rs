//! What every datagram between nodes has in common: which kind it is, the version of that, and a code that only those can
//! make who have the cluster's secret.
//!
//! ```text
//! magic, 4 bytes | version | header and body | HMAC-SHA256 of all before, 32 bytes
//! ```

use super::refusal::Refusal;
use ring::hmac;

/// Bytes of the code at the end.
pub(super) const MAC_BYTES: usize = 32;

/// The outside of one kind of datagrams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) magic: [u8; 4],
    pub(super) version: u8,
    /// Magic and version included.
    pub(super) header_bytes: usize,
    pub(super) bytes_max: usize,
}

impl Form {
    /// How far magic and version reach.
    const START: usize = 5;

    /// The start of a datagram, which is closed by `sign`.
    pub(super) fn start(&self, capacity: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(&self.magic);
        bytes.push(self.version);
        bytes
    }

    /// Whether this is meant as one of this kind.
    pub(super) fn is_meant(&self, bytes: &[u8]) -> bool {
        bytes.starts_with(&self.magic)
    }

    /// What lies between the version and the code of an authentic datagram.
    ///
    /// - errors: `NotOurs`, `OtherVersion`, `BadMac`
    /// - cost: one HMAC
    pub(super) fn open<'a>(&self, key: &hmac::Key, bytes: &'a [u8]) -> Result<&'a [u8], Refusal> {
        if !self.is_meant(bytes) {
            return Err(Refusal::NotOurs);
        }
        match bytes.get(self.magic.len()) {
            Some(version) if *version == self.version => {}
            Some(other) => return Err(Refusal::OtherVersion(*other)),
            None => return Err(Refusal::NotOurs),
        }
        let signed = bytes.len().checked_sub(MAC_BYTES);
        let (signed, mac) = match signed.filter(|signed| *signed >= self.header_bytes) {
            Some(signed) if bytes.len() <= self.bytes_max => bytes.split_at(signed),
            // No key makes one of this length.
            _ => return Err(Refusal::BadMac),
        };
        hmac::verify(key, signed, mac).map_err(|_| Refusal::BadMac)?;
        Ok(&signed[Self::START..])
    }
}

/// Puts the code behind what it covers.
pub(super) fn sign(key: &hmac::Key, bytes: &mut Vec<u8>) {
    let mac = hmac::sign(key, bytes);
    bytes.extend_from_slice(mac.as_ref());
}
