//! The three hashes of SCRAM, and the few operations on their outputs.

use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};

/// Longest output: SHA-512.
const OUTPUT_BYTES_MAX: usize = 64;

/// The hash below a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScramHash {
    Sha1,
    Sha256,
    Sha512,
}

/// Output of a `ScramHash` or of its HMAC, held in place.
#[derive(Clone, Copy)]
pub(super) struct Output {
    bytes: [u8; OUTPUT_BYTES_MAX],
    len: usize,
}

impl ScramHash {
    /// The hash whose outputs have that many bytes.
    pub fn of_key_length(bytes: usize) -> Option<ScramHash> {
        let all = [ScramHash::Sha1, ScramHash::Sha256, ScramHash::Sha512];
        all.into_iter().find(|hash| hash.output_bytes() == bytes)
    }

    /// Bytes in an output: 20, 32 or 64.
    pub fn output_bytes(self) -> usize {
        match self {
            ScramHash::Sha1 => digest::SHA1_OUTPUT_LEN,
            ScramHash::Sha256 => digest::SHA256_OUTPUT_LEN,
            ScramHash::Sha512 => digest::SHA512_OUTPUT_LEN,
        }
    }

    pub(super) fn digest(self, data: &[u8]) -> Output {
        trace::count(trace::Operation::Digest);
        let algorithm = match self {
            ScramHash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            ScramHash::Sha256 => &digest::SHA256,
            ScramHash::Sha512 => &digest::SHA512,
        };
        Output::whole(digest::digest(algorithm, data).as_ref())
    }

    pub(super) fn hmac(self, key: &[u8], data: &[u8]) -> Output {
        trace::count(trace::Operation::Hmac);
        let algorithm = match self {
            ScramHash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            ScramHash::Sha256 => hmac::HMAC_SHA256,
            ScramHash::Sha512 => hmac::HMAC_SHA512,
        };
        Output::whole(hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref())
    }

    /// `Hi()` of RFC 5802 §2.2.
    pub(super) fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Output {
        trace::count(trace::Operation::Pbkdf2);
        let algorithm = match self {
            ScramHash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            ScramHash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            ScramHash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut output = Output { bytes: [0; OUTPUT_BYTES_MAX], len: self.output_bytes() };
        pbkdf2::derive(algorithm, iterations, salt, password, &mut output.bytes[..output.len]);
        output
    }

    /// A stored key as an output; `None` where its length belongs to another hash.
    pub(super) fn output_from(self, bytes: &[u8]) -> Option<Output> {
        (bytes.len() == self.output_bytes()).then(|| Output::whole(bytes))
    }
}

impl Output {
    /// `bytes` come from a hash of this module or were measured against it, so that they fit.
    fn whole(bytes: &[u8]) -> Output {
        let mut output = Output { bytes: [0; OUTPUT_BYTES_MAX], len: bytes.len() };
        output.bytes[..bytes.len()].copy_from_slice(bytes);
        output
    }

    /// Both outputs come from one hash. The unused tail is zero in each and stays so.
    pub(super) fn xor(mut self, other: &Output) -> Output {
        for (byte, other) in self.bytes.iter_mut().zip(other.bytes) {
            *byte ^= other;
        }
        self
    }
}

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Compares in a time that depends on the lengths alone.
pub(in crate::stream) fn is_equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let difference = left.iter().zip(right).fold(0, |found, (left, right)| found | (left ^ right));
    // Hides from the optimiser that a single bit would do, so that it cannot end the loop at the first difference.
    std::hint::black_box(difference) == 0
}

/// Which operations ran on this thread: tests compare the work of two logins by it, not by a clock.
#[cfg(test)]
pub(super) mod trace {
    use std::cell::RefCell;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in super::super) enum Operation {
        Digest,
        Hmac,
        Pbkdf2,
    }

    thread_local! {
        static DONE: RefCell<Vec<Operation>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn count(operation: Operation) {
        DONE.with_borrow_mut(|done| done.push(operation));
    }

    /// What ran since the last call.
    pub(in super::super) fn take() -> Vec<Operation> {
        DONE.take()
    }
}

#[cfg(not(test))]
mod trace {
    pub(super) enum Operation {
        Digest,
        Hmac,
        Pbkdf2,
    }

    pub(super) fn count(_operation: Operation) {}
}
