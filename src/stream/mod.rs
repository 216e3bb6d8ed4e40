//! Bytes to events and back: what one stream is doing, without sockets. `c2s` negotiates, `component` does for external
//! components, `s2s` with other servers and `dialback` (XEP-0220) between them, `registration` (XEP-0077) is what strangers ask for, `resume` counts and keeps what is not acknowledged
//! (XEP-0198), `sasl` judges credentials, `sasl2` reads and writes the newer profile around them.

use crate::xmpp::jid::BareJid;
use sasl::ChannelBinding;
use std::sync::Arc;

pub mod c2s;
pub mod component;
pub mod dialback;
mod policy;
pub mod proxy;
pub mod registration;
pub mod resume;
pub mod s2s;
pub mod sasl;
pub mod sasl2;

/// What the TLS layer knows of a connection once its handshake is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// Keying material for channel binding (RFC 9266); `None` where the session must not be bound to.
    pub exporter: Option<[u8; 32]>,
    /// The certificate that was shown, hashed for channel binding (RFC 5929 §4); shared by all connections.
    pub end_point: Option<Arc<[u8]>>,
    /// The name that the client asked for (SNI), to be compared with the stream's `to`.
    pub server_name: Option<String>,
    /// Whom the client's certificate names, each once; few, and none where it showed no certificate.
    pub addresses: Box<[BareJid]>,
}

impl TlsFacts {
    /// What a client may bind its login to.
    pub fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding {
            tls_exporter: self.exporter,
            tls_server_end_point: self.end_point.as_deref().map(<[u8]>::to_vec),
        }
    }
}
