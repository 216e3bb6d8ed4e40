//! SASL for client streams: SCRAM (RFC 5802, RFC 7677,
//! SHA-512 as they would have it) with and without channel binding, PLAIN (RFC 4616), and EXTERNAL with certificates
//! (XEP-0178), as RFC 6120 §6 uses them.
//!
//! Plain machines over decoded messages: no clock, no socket, randomness is passed in. The XML around the messages,
//! the look-up of accounts, attempt limits and the thread that runs PBKDF2 belong to the caller. `client` holds the
//! other half, for tests and for simulation.
//!
//! What an attacker may learn of an account before it has proved itself is nothing: an unknown name goes through the
//! same messages, lengths and computations as a known one with a wrong password (`fake_keys`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

mod binding;
pub mod client;
mod external;
mod hash;
mod keys;
mod message;
mod plain;
mod saslprep;
mod scram;
mod token;

pub use binding::{ChannelBinding, TLS_EXPORTER, TLS_SERVER_END_POINT, tls_server_end_point};
pub use external::{external_identity, is_external_offered};
pub use hash::ScramHash;
pub(super) use hash::is_equal;
pub use keys::{
    ITERATIONS_MAX, ITERATIONS_MIN, PASSWORD_BYTES_MAX, PasswordError, SALT_BYTES, SaltedPassword,
    derive, fake_keys, new_credentials, verify_plain,
};
pub use plain::Plain;
pub use scram::ScramServer;
pub use token::{TokenMechanism, TokenMessage, initiator, responder, token};

/// Longest SASL message, decoded, in either direction. Names and nonces of real clients need some 200 bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// Random bytes in a nonce: 144 bits, which base64 writes without padding.
const NONCE_BYTES: usize = 18;

/// A mechanism that this server knows, best first (the order of `Ord`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    External,
    ScramSha512Plus,
    ScramSha512,
    ScramSha256Plus,
    ScramSha256,
    ScramSha1Plus,
    ScramSha1,
    Plain,
}

impl Mechanism {
    /// All mechanisms in order of preference.
    pub const ALL: [Mechanism; 8] = [
        Mechanism::External,
        Mechanism::ScramSha512Plus,
        Mechanism::ScramSha512,
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1Plus,
        Mechanism::ScramSha1,
        Mechanism::Plain,
    ];

    /// The registered name, as in `<mechanism/>` and `<auth mechanism=''/>`.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::External => "EXTERNAL",
            Mechanism::ScramSha512Plus => "SCRAM-SHA-512-PLUS",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::Plain => "PLAIN",
        }
    }

    /// The mechanism of that name, upper case as registered (RFC 4422 §3.1); `None` for what is not known.
    pub fn parse(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// Which keys the mechanism needs; `None` for EXTERNAL, which needs none, and for PLAIN, which is checked against those
    /// of SHA-256.
    pub fn hash(self) -> Option<ScramHash> {
        match self {
            Mechanism::ScramSha512Plus | Mechanism::ScramSha512 => Some(ScramHash::Sha512),
            Mechanism::ScramSha256Plus | Mechanism::ScramSha256 => Some(ScramHash::Sha256),
            Mechanism::ScramSha1Plus | Mechanism::ScramSha1 => Some(ScramHash::Sha1),
            Mechanism::External | Mechanism::Plain => None,
        }
    }

    /// Whether the mechanism is bound to the TLS channel below it.
    pub fn is_plus(self) -> bool {
        matches!(
            self,
            Mechanism::ScramSha512Plus | Mechanism::ScramSha256Plus | Mechanism::ScramSha1Plus
        )
    }
}

/// The hashes whose SCRAM mechanisms a node lists. One that an account has no keys for would lock it out: clients choose
/// the strongest that is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScramHashes {
    pub sha1: bool,
    pub sha256: bool,
    pub sha512: bool,
}

impl Default for ScramHashes {
    /// All of them.
    fn default() -> Self {
        Self { sha1: true, sha256: true, sha512: true }
    }
}

/// What decides which mechanisms a stream lists. None of it depends on an account: who has not logged in must not
/// learn from the list whether one exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The stream's TLS connection yields a binding (`ChannelBinding::is_available`).
    pub channel_binding: bool,
    /// A password may be sent on this very stream.
    pub plain: bool,
    /// What this node lists of SCRAM.
    pub scram: ScramHashes,
    /// The client's certificate names an address at the stream's domain (`is_external_offered`).
    pub external: bool,
}

impl Offer {
    /// The mechanisms to list, best first (RFC 6120 §6.3.3, §13.8.3).
    pub fn mechanisms(self) -> impl Iterator<Item = Mechanism> + Clone {
        Mechanism::ALL.into_iter().filter(move |mechanism| {
            let is_bindable = self.channel_binding || !mechanism.is_plus();
            match mechanism.hash() {
                Some(ScramHash::Sha512) => self.scram.sha512 && is_bindable,
                Some(ScramHash::Sha256) => self.scram.sha256 && is_bindable,
                Some(ScramHash::Sha1) => self.scram.sha1 && is_bindable,
                None if *mechanism == Mechanism::External => self.external,
                None => self.plain,
            }
        })
    }
}

/// What a stream's features listed, as far as a login depends on it: an attacker in between may have changed the list,
/// so both sides must have seen the same (XEP-0474).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub mechanisms: Vec<Mechanism>,
    /// Types of channel binding (XEP-0440).
    pub bindings: Vec<&'static str>,
}

impl Listed {
    /// Whether any mechanism was listed that is bound to the channel.
    pub fn has_plus(&self) -> bool {
        self.mechanisms.iter().any(|mechanism| mechanism.is_plus())
    }

    /// What `h` is the hash of; nothing where nothing was listed (XEP-0474 §3.1).
    pub(super) fn digest_input(&self) -> String {
        let mut names: Vec<&str> = self.mechanisms.iter().map(|it| it.name()).collect();
        names.sort_unstable();
        let mut text = names.join("\u{1e}");
        if !self.bindings.is_empty() {
            let mut bindings = self.bindings.clone();
            bindings.sort_unstable();
            text.push('\u{1f}');
            text.push_str(&bindings.join("\u{1e}"));
        }
        text
    }
}

/// Why a login ends without success: the conditions of RFC 6120 §6.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.name())]
pub enum SaslFailure {
    Aborted,
    AccountDisabled,
    CredentialsExpired,
    EncryptionRequired,
    IncorrectEncoding,
    InvalidAuthzid,
    InvalidMechanism,
    MalformedRequest,
    MechanismTooWeak,
    NotAuthorized,
    TemporaryAuthFailure,
}

impl SaslFailure {
    /// Name of the element inside `<failure/>`, in `urn:ietf:params:xml:ns:xmpp-sasl`.
    pub fn name(self) -> &'static str {
        match self {
            SaslFailure::Aborted => "aborted",
            SaslFailure::AccountDisabled => "account-disabled",
            SaslFailure::CredentialsExpired => "credentials-expired",
            SaslFailure::EncryptionRequired => "encryption-required",
            SaslFailure::IncorrectEncoding => "incorrect-encoding",
            SaslFailure::InvalidAuthzid => "invalid-authzid",
            SaslFailure::InvalidMechanism => "invalid-mechanism",
            SaslFailure::MalformedRequest => "malformed-request",
            SaslFailure::MechanismTooWeak => "mechanism-too-weak",
            SaslFailure::NotAuthorized => "not-authorized",
            SaslFailure::TemporaryAuthFailure => "temporary-auth-failure",
        }
    }
}

/// Whom the first message names, before anything is judged: enough to know whose account it is.
///
/// - takes: `initial`, the decoded first message of the client
/// - gives: the authentication identity with its escapes undone and SASLprep applied as to a query (RFC 4013 §2.5).
///   It is what the client wrote: usually a local part, sometimes a bare JID; the caller prepares it as an address.
/// - errors: `MalformedRequest` for what is not a first message of `mechanism`; `NotAuthorized` for a name that
///   SASLprep refuses or leaves empty; `InvalidMechanism` for EXTERNAL, whose message need not name anybody
/// - source: RFC 5802 §5.1, RFC 4616 §2
pub fn peek_username(mechanism: Mechanism, initial: &[u8]) -> Result<String, SaslFailure> {
    match mechanism {
        Mechanism::External => Err(SaslFailure::InvalidMechanism),
        Mechanism::Plain => plain::peek(initial),
        _ => message::ClientFirst::parse(initial)?.prepared_username(),
    }
}

/// Decodes the text of `<auth/>` or `<response/>`.
///
/// - gives: the message; nothing for no text, and for `=`, which stands for an empty initial response
/// - errors: `IncorrectEncoding` for anything but canonical base64, white space included; `MalformedRequest` above
///   `MESSAGE_BYTES_MAX`
/// - source: RFC 6120 §6.4.2, §6.5.5, §13.9.1
pub fn decode_payload(text: &str) -> Result<Vec<u8>, SaslFailure> {
    if text == "=" {
        return Ok(Vec::new());
    }
    if text.len() > MESSAGE_BYTES_MAX.div_ceil(3) * 4 {
        return Err(SaslFailure::MalformedRequest);
    }
    let message = STANDARD.decode(text).map_err(|_| SaslFailure::IncorrectEncoding)?;
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(SaslFailure::MalformedRequest);
    }
    Ok(message)
}

/// Encodes a message as the text of `<challenge/>` or `<success/>`. An empty message becomes no text: the empty
/// challenge that asks for a missing initial response (RFC 6120 §6.4.3).
pub fn encode_payload(message: &[u8]) -> String {
    STANDARD.encode(message)
}

/// A nonce fit for either side of SCRAM: 24 printable characters.
pub fn new_nonce(random: &mut dyn FnMut(&mut [u8])) -> String {
    let mut bytes = [0; NONCE_BYTES];
    random(&mut bytes);
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests;
