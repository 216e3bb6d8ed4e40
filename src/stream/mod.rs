//! Bytes to events and back: what one stream is doing, without sockets. `c2s` negotiates, `resume` counts and keeps
//! what is not acknowledged (XEP-0198), `sasl` judges credentials.

pub mod c2s;
pub mod resume;
pub mod sasl;

/// What the TLS layer knows of a connection once its handshake is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// Keying material for channel binding (RFC 9266); `None` where the session must not be bound to.
    pub exporter: Option<[u8; 32]>,
    /// The name that the client asked for (SNI), to be compared with the stream's `to`.
    pub server_name: Option<String>,
}
