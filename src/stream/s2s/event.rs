//! What a stream between servers tells the federation core.

use crate::stream::dialback::Dialback;
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::stanza::StanzaKind;
use crate::xmpp::stream_error::StreamError;

/// Who opened the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We did.
    Initiating,
    /// The peer did.
    Receiving,
}

/// A domain of ours and one of the peer's; what XEP-0220 authenticates. Neither has a local part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    pub local: BareJid,
    pub remote: BareJid,
}

/// Whom a header of the peer names. Proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// `None` where the header is from nobody; only dialback is of use then.
    pub from: Option<BareJid>,
    /// One of our domains.
    pub to: BareJid,
    /// SASL is over: the features of an authenticated stream are due.
    pub is_authenticated: bool,
}

/// What the peer of an initiating stream offers once the stream is secure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// EXTERNAL is among its mechanisms. Never so once authenticated.
    pub external: bool,
    /// XEP-0220, by the feature or by the namespace on its header.
    pub dialback: bool,
    /// It answers dialback with errors, so that a stream may carry more target domains (XEP-0220 §2.6.2).
    pub dialback_errors: bool,
    /// XEP-0288.
    pub bidi: bool,
    /// XEP-0198.
    pub management: bool,
}

/// What a peer takes (XEP-0478). Zero is read as not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerLimits {
    /// Bytes of one first-level element.
    pub bytes_max: Option<u32>,
    /// Seconds of silence.
    pub idle_s: Option<u32>,
}

/// Why an initiating stream stays without TLS, and so is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTls {
    /// Its features have no STARTTLS: it does not know it, or somebody took it out on the way.
    NotOffered,
    /// It answered `<failure/>`.
    Refused,
}

/// What the federation core must act on.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Receiving: a header came. `offer` is due (nothing more is read before), or `close`.
    Opened(Opened),
    /// Start the TLS handshake once the output is flushed, then call `secured`. No byte may come before.
    StartTls,
    /// Initiating: there will be no TLS. Only `close` is left.
    NoTls(NoTls),
    /// Initiating: the stream is secure and these are its features. `authenticate` or `ask` is due, or where it has
    /// authenticated, stanzas.
    Features(Features),
    /// Receiving: the peer wants to be this domain by its certificate (EXTERNAL). `authenticated` or `refused` is due
    /// (nothing more is read before).
    External { domain: BareJid },
    /// Initiating: EXTERNAL went through and the stream began anew; `Features` follow.
    Authenticated,
    /// Initiating: EXTERNAL did not. Dialback may be tried on the same stream.
    NotAuthenticated {
        /// Name of the condition (RFC 6120 §6.5), or of what else was wrong.
        condition: Box<str>,
    },
    /// An element of XEP-0220 that is to be answered or that answers: one that answers nothing was dropped.
    Dialback(Dialback),
    /// Receiving: the peer takes stanzas on this stream as well (XEP-0288).
    Bidi,
    /// A stanza of an authenticated pair.
    Stanza { kind: StanzaKind, from: Jid, to: Jid },
    /// XEP-0198: the peer wants acknowledgements. `enabled` or `not_managed` is due (nothing more is read before).
    Enable {
        resume: bool,
        /// For how long it wishes to resume, seconds.
        max_s: Option<u32>,
    },
    /// XEP-0198: the peer gives acknowledgements for what was sent since `enable`.
    Enabled {
        /// Names the stream to `resume`; `None` where it cannot be resumed.
        id: Option<Box<str>>,
        /// For how long after a break, seconds.
        max_s: Option<u32>,
    },
    /// XEP-0198: the peer wants to go on with an earlier stream of this pair. `resumed` or `not_managed` is due (nothing
    /// more is read before).
    Resume { previous: Box<str>, h: u32 },
    /// XEP-0198: the earlier stream goes on. What is behind `h` is to be sent again, in order.
    Resumed { h: u32 },
    /// XEP-0198: neither `enable` nor `resume` was granted. Of a stream that cannot be resumed the peer has the stanzas up
    /// to `h`, if it knows.
    NotManaged { h: Option<u32> },
    /// XEP-0198: the peer has handled so many stanzas.
    Acknowledged { h: u32 },
    /// XEP-0198: the peer asked how far we are.
    Requested,
    /// The peer ends the stream with an error; `close` without one is due.
    Failed(StreamError),
    /// The peer ended the stream; `close` is due.
    Closed,
}
