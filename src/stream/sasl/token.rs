//! HT-SHA-256: a login in one message by a token that the server gave out before (draft-schmaus-kitten-sasl-ht, for FAST,
//! XEP-0484). -UNIQ is left out: TLS 1.3 has no `tls-unique`.

use super::{ChannelBinding, MESSAGE_BYTES_MAX, SaslFailure, TLS_EXPORTER, TLS_SERVER_END_POINT};
use super::{hash, saslprep};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

/// By what the login is bound to, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenMechanism {
    Exporter,
    EndPoint,
    Unbound,
}

impl TokenMechanism {
    pub const ALL: [TokenMechanism; 3] =
        [TokenMechanism::Exporter, TokenMechanism::EndPoint, TokenMechanism::Unbound];

    pub fn name(self) -> &'static str {
        match self {
            TokenMechanism::Exporter => "HT-SHA-256-EXPR",
            TokenMechanism::EndPoint => "HT-SHA-256-ENDP",
            TokenMechanism::Unbound => "HT-SHA-256-NONE",
        }
    }

    pub fn parse(name: &str) -> Option<TokenMechanism> {
        TokenMechanism::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// As kept with a token.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What the mechanism is bound to here; `None` where the connection has no such binding.
    pub fn data(self, binding: &ChannelBinding) -> Option<&[u8]> {
        match self {
            TokenMechanism::Exporter => binding.data(TLS_EXPORTER),
            TokenMechanism::EndPoint => binding.data(TLS_SERVER_END_POINT),
            TokenMechanism::Unbound => Some(&[]),
        }
    }
}

/// The one message of a client.
#[derive(Debug)]
pub struct TokenMessage<'a> {
    /// As of `peek_username`.
    pub authcid: String,
    hash: &'a [u8],
}

impl<'a> TokenMessage<'a> {
    /// - errors: `MalformedRequest`; `NotAuthorized` for a name that SASLprep refuses
    pub fn parse(message: &'a [u8]) -> Result<TokenMessage<'a>, SaslFailure> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(SaslFailure::MalformedRequest);
        }
        // The hash is any bytes; no NUL is in a name.
        let end = memchr::memchr(0, message).ok_or(SaslFailure::MalformedRequest)?;
        let name = std::str::from_utf8(&message[..end]).ok().filter(|name| !name.is_empty());
        let name = name.ok_or(SaslFailure::MalformedRequest)?;
        let authcid = saslprep::prepare_query(name).ok_or(SaslFailure::NotAuthorized)?;
        Ok(TokenMessage { authcid: authcid.into_owned(), hash: &message[end + 1..] })
    }

    /// Whether the client has this token. In a time that does not depend on it.
    pub fn proves(&self, token: &str, data: &[u8]) -> bool {
        hash::is_equal(&signed(token, b"Initiator", data), self.hash)
    }
}

/// The client's message.
pub fn initiator(user: &str, token: &str, data: &[u8]) -> Vec<u8> {
    let hash = signed(token, b"Initiator", data);
    [user.as_bytes(), b"\0", &hash].concat()
}

/// What the server says to success, which proves that it knows the token, too.
pub fn responder(token: &str, data: &[u8]) -> Vec<u8> {
    signed(token, b"Responder", data)
}

fn signed(token: &str, who: &[u8], data: &[u8]) -> Vec<u8> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes()));
    context.update(who);
    context.update(data);
    context.sign().as_ref().to_vec()
}

/// The token that belongs to a nonce. The store keeps nonces alone: with a copy of it and without the node's secret
/// nobody logs in.
pub fn token(secret: &[u8; 32], account: &str, agent: &[u8; 16], nonce: &[u8; 16]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(b"token\0");
    context.update(account.as_bytes());
    context.update(b"\0");
    context.update(agent);
    context.update(nonce);
    URL_SAFE_NO_PAD.encode(context.sign())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn message_proves_its_token_on_its_channel_only() {
        let message = initiator("alice", "a token", b"channel");
        let read = TokenMessage::parse(&message).unwrap();
        assert_eq!(read.authcid, "alice");
        assert!(read.proves("a token", b"channel"));
        assert!(!read.proves("a token", b"other") && !read.proves("token", b"channel"));
        assert_ne!(responder("a token", b"channel"), &message[6..]);
    }

    #[test]
    fn malformed_message_is_refused() {
        for message in [&b""[..], b"alice", b"\0hash", b"\xff\0hash", &[b'a'; 2_000]] {
            let failure = TokenMessage::parse(message).unwrap_err();
            assert_eq!(failure, SaslFailure::MalformedRequest);
        }
        assert!(!TokenMessage::parse(b"alice\0").unwrap().proves("t", b""), "no hash");
    }

    #[test]
    fn tokens_differ_by_each_of_their_parts() {
        let made = token(&[1; 32], "a@b", &[2; 16], &[3; 16]);
        assert_eq!(made.len(), 43);
        for other in [
            token(&[0; 32], "a@b", &[2; 16], &[3; 16]),
            token(&[1; 32], "a@c", &[2; 16], &[3; 16]),
            token(&[1; 32], "a@b", &[0; 16], &[3; 16]),
            token(&[1; 32], "a@b", &[2; 16], &[0; 16]),
        ] {
            assert_ne!(made, other);
        }
    }
}
