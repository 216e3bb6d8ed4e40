//! The client's half of SCRAM and PLAIN, for tests, simulation and load.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::hash::is_equal;
use super::keys::{PasswordError, SaltedPassword};
use super::message::{Malformed, ServerFinal, ServerFirst, escape, printable};
use super::{Mechanism, ScramHash, saslprep};

/// What the client says of channel binding in its first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientBinding<'a> {
    /// `n`: it supports none.
    Unsupported,
    /// `y`: it supports some, and the server listed no -PLUS mechanism.
    NotOffered,
    /// `p=`: of this type, with this data. For -PLUS mechanisms.
    Used { kind: &'a str, data: &'a [u8] },
}

/// Why a login ends at the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error("{} is not a mechanism of SCRAM", .0.name())]
    NotScram(Mechanism),
    #[error("-PLUS mechanisms, and they alone, use a channel binding")]
    Binding,
    #[error("the name or the nonce cannot be sent")]
    Unsendable,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("the server's message is malformed")]
    Malformed,
    #[error("the server's nonce does not continue the client's")]
    Nonce,
    #[error("messages out of order")]
    Order,
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("the server does not know the password")]
    Impostor,
}

impl From<Malformed> for ClientError {
    fn from(_: Malformed) -> ClientError {
        ClientError::Malformed
    }
}

/// From password, salt, iterations and hash to the salted password.
pub type Salting<'a> =
    dyn FnMut(&str, &[u8], u32, ScramHash) -> Result<SaltedPassword, PasswordError> + 'a;

/// One SCRAM login of a client.
pub struct ScramClient {
    hash: ScramHash,
    password: String,
    nonce: String,
    gs2_header: String,
    bare: String,
    binding: Vec<u8>,
    server_signature: Option<Vec<u8>>,
}

impl ScramClient {
    /// - takes: `user` and `password` as typed; `nonce`, fresh and printable without commas (`new_nonce`)
    /// - errors: `NotScram`, `Binding`, `Unsendable`
    pub fn new(
        mechanism: Mechanism,
        user: &str,
        password: &str,
        nonce: &str,
        binding: ClientBinding<'_>,
    ) -> Result<ScramClient, ClientError> {
        let hash = mechanism.hash().ok_or(ClientError::NotScram(mechanism))?;
        let (flag, data) = match binding {
            ClientBinding::Unsupported if !mechanism.is_plus() => ("n".to_owned(), &[][..]),
            ClientBinding::NotOffered if !mechanism.is_plus() => ("y".to_owned(), &[][..]),
            ClientBinding::Used { kind, data } if mechanism.is_plus() => {
                (format!("p={kind}"), data)
            }
            _ => return Err(ClientError::Binding),
        };
        let user = saslprep::prepare_query(user).ok_or(ClientError::Unsendable)?;
        printable(nonce).map_err(|_| ClientError::Unsendable)?;
        Ok(ScramClient {
            hash,
            password: password.to_owned(),
            nonce: nonce.to_owned(),
            gs2_header: format!("{flag},,"),
            bare: format!("n={},r={nonce}", escape(&user)),
            binding: data.to_vec(),
            server_signature: None,
        })
    }

    /// Asks to act as that identity. Before `first`.
    pub fn with_authzid(mut self, authzid: &str) -> ScramClient {
        self.gs2_header.pop();
        self.gs2_header.push_str(&format!("a={},", escape(authzid)));
        self
    }

    /// The client-first-message.
    pub fn first(&self) -> Vec<u8> {
        format!("{}{}", self.gs2_header, self.bare).into_bytes()
    }

    /// Answers the server-first-message with the client-final-message. Slow (PBKDF2).
    pub fn server_first(&mut self, message: &[u8]) -> Result<Vec<u8>, ClientError> {
        self.server_first_with(message, &mut SaltedPassword::derive)
    }

    /// As `server_first`, with the caller's own way to the salted password: a client that logs in a thousand times keeps it (RFC 5802 §5.1 permits that).
    ///
    /// - errors: `Malformed`, `Nonce`, `Password`
    pub fn server_first_with(
        &mut self,
        message: &[u8],
        salted: &mut Salting<'_>,
    ) -> Result<Vec<u8>, ClientError> {
        let server_first = ServerFirst::parse(message)?;
        let has_servers_part = server_first.nonce.len() > self.nonce.len();
        if !has_servers_part || !server_first.nonce.starts_with(&self.nonce) {
            return Err(ClientError::Nonce);
        }
        let ServerFirst { nonce, salt, iterations } = server_first;
        let salted = salted(&self.password, &salt, iterations, self.hash)?;
        let binding = STANDARD.encode([self.gs2_header.as_bytes(), &self.binding].concat());
        let without_proof = format!("c={binding},r={nonce}");
        let mut auth_message = format!("{},", self.bare).into_bytes();
        auth_message.extend_from_slice(message);
        auth_message.extend_from_slice(format!(",{without_proof}").as_bytes());

        let hash = salted.hash();
        let client_key = salted.client_key();
        let stored_key = hash.digest(client_key.as_ref());
        let proof = client_key.xor(&hash.hmac(stored_key.as_ref(), &auth_message));
        let server_signature = hash.hmac(salted.server_key().as_ref(), &auth_message);
        self.server_signature = Some(server_signature.as_ref().to_vec());
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes())
    }

    /// Checks that the server knows the password too.
    ///
    /// - errors: `Refused`, `Impostor`, `Malformed`, `Order`
    pub fn server_final(self, message: &[u8]) -> Result<(), ClientError> {
        let wanted = self.server_signature.ok_or(ClientError::Order)?;
        match ServerFinal::parse(message)? {
            ServerFinal::Error(error) => Err(ClientError::Refused(error.to_owned())),
            ServerFinal::Verifier(found) if is_equal(&found, &wanted) => Ok(()),
            ServerFinal::Verifier(_) => Err(ClientError::Impostor),
        }
    }
}

/// A PLAIN message; an empty `authzid` asks to act as the user.
pub fn plain(authzid: &str, user: &str, password: &str) -> Vec<u8> {
    format!("{authzid}\0{user}\0{password}").into_bytes()
}
