//! SCRAM on the server: client-first and server-first, client-final and server-final (RFC 5802 §5).

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::hash::{Output, ScramHash, is_equal};
use super::message::{BindingFlag, ClientFinal, ClientFirst, printable};
use super::{ChannelBinding, Listed, Mechanism, SaslFailure};
use crate::xmpp::credentials::ScramKeys;

/// One login between its two messages, at the account's shard; some 500 bytes.
pub struct ScramServer {
    hash: ScramHash,
    /// False for an account that is not there: the exchange runs to its end and fails.
    is_known: bool,
    stored_key: Output,
    server_key: Output,
    authzid: Option<String>,
    /// AuthMessage so far: client-first-message-bare, comma, server-first-message.
    auth_message: String,
    /// Where the whole nonce stands in it.
    nonce: Range<usize>,
    /// What `c=` must decode to: the GS2 header, then the binding's data.
    binding: Vec<u8>,
}

impl ScramServer {
    /// Answers the first message.
    ///
    /// - takes: `initial`, the message that `peek_username` read; `keys` of the account for the mechanism's hash, or
    ///   `fake_keys` with `known` false; `nonce`, fresh and from `new_nonce`; `listed`, what the stream's features
    ///   listed: a -PLUS mechanism among it must have been seen, and the client is told all of it, hashed (XEP-0474)
    /// - gives: the machine and the server-first-message
    /// - errors: `MalformedRequest`; `InvalidMechanism` for PLAIN; `NotAuthorized` for a binding that is not at hand
    ///   and for a client made to believe that the server has none (`y`, RFC 5802 §6); `TemporaryAuthFailure` for keys
    ///   that do not fit the hash
    /// - panics: where `nonce` is not printable, or has a comma
    pub fn start(
        mechanism: Mechanism,
        initial: &[u8],
        keys: &ScramKeys,
        known: bool,
        nonce: &str,
        binding: &ChannelBinding,
        listed: &Listed,
    ) -> Result<(ScramServer, Vec<u8>), SaslFailure> {
        assert!(printable(nonce).is_ok(), "the server's nonce is printable");
        let hash = mechanism.hash().ok_or(SaslFailure::InvalidMechanism)?;
        let first = ClientFirst::parse(initial)?;
        first.prepared_username()?;
        let binding_data =
            check_binding(first.flag, mechanism.is_plus(), binding, listed.has_plus())?;
        let (Some(stored_key), Some(server_key)) =
            (hash.output_from(&keys.stored_key), hash.output_from(&keys.server_key))
        else {
            return Err(SaslFailure::TemporaryAuthFailure);
        };

        let salt = STANDARD.encode(&keys.salt);
        let mut server_first = format!("r={}{nonce},s={salt},i={}", first.nonce, keys.iterations);
        let digest_input = listed.digest_input();
        if !digest_input.is_empty() {
            let digest = hash.digest(digest_input.as_bytes());
            server_first.push_str(&format!(",h={}", STANDARD.encode(digest)));
        }
        let nonce_start = first.bare.len() + ",r=".len();
        let server = ScramServer {
            hash,
            is_known: known,
            stored_key,
            server_key,
            nonce: nonce_start..nonce_start + first.nonce.len() + nonce.len(),
            auth_message: format!("{},{server_first}", first.bare),
            binding: [first.gs2_header.as_bytes(), binding_data].concat(),
            authzid: first.authzid,
        };
        Ok((server, server_first.into_bytes()))
    }

    /// The identity to act as, unescaped, if the client named one. Whether this account may is for the caller to say,
    /// after `finish` (RFC 6120 §6.3.8): read it before.
    pub fn authzid(&self) -> Option<&str> {
        self.authzid.as_deref()
    }

    /// Judges the final message.
    ///
    /// - gives: the server-final-message, to be sent with `<success/>`
    /// - errors: `MalformedRequest` by the shape of the message alone; `NotAuthorized` for all else: proof, nonce,
    ///   channel binding, or an account that is not there, by the same steps whichever it is
    pub fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        let client_final = ClientFinal::parse(client_final)?;
        let proof =
            self.hash.output_from(&client_final.proof).ok_or(SaslFailure::MalformedRequest)?;
        let auth_message = format!("{},{}", self.auth_message, client_final.without_proof);
        let client_signature = self.hash.hmac(self.stored_key.as_ref(), auth_message.as_bytes());
        let server_signature = self.hash.hmac(self.server_key.as_ref(), auth_message.as_bytes());
        let client_key = proof.xor(&client_signature);
        let proven_key = self.hash.digest(client_key.as_ref());

        let nonce = &self.auth_message.as_bytes()[self.nonce.clone()];
        let is_proven = is_equal(proven_key.as_ref(), self.stored_key.as_ref())
            & is_equal(client_final.nonce.as_bytes(), nonce)
            & is_equal(&client_final.binding, &self.binding)
            & self.is_known;
        let verifier = STANDARD.encode(server_signature);
        if is_proven {
            Ok(format!("v={verifier}").into_bytes())
        } else {
            Err(SaslFailure::NotAuthorized)
        }
    }
}

impl std::fmt::Debug for ScramServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScramServer {{ hash: {:?}, .. }}", self.hash)
    }
}

/// The data that `c=` must carry behind the header (RFC 5802 §6).
fn check_binding<'a>(
    flag: BindingFlag<'_>,
    is_plus: bool,
    binding: &'a ChannelBinding,
    plus_offered: bool,
) -> Result<&'a [u8], SaslFailure> {
    match flag {
        BindingFlag::Used(name) if is_plus => binding.data(name).ok_or(SaslFailure::NotAuthorized),
        BindingFlag::Used(_) => Err(SaslFailure::MalformedRequest),
        _ if is_plus => Err(SaslFailure::MalformedRequest),
        BindingFlag::NotOffered if plus_offered => Err(SaslFailure::NotAuthorized),
        BindingFlag::NotOffered | BindingFlag::Unsupported => Ok(&[]),
    }
}
