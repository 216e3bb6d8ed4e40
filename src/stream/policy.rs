//! What is decided once for all client streams of a node.

use crate::stream::sasl::ScramHashes;
use crate::xmpp::xml::framer::XmlLimits;
use std::sync::Arc;

/// What all client streams of a node have in common. Copied to every core.
#[derive(Clone, Debug)]
pub struct C2sPolicy {
    /// The domains served here, prepared.
    pub domains: Vec<Arc<str>>,
    /// Plain-text streams get no further than STARTTLS.
    pub tls_required: bool,
    /// What is listed of SCRAM: that for which all accounts have keys, or which the operator wants all the same.
    pub scram: ScramHashes,
    /// Strangers may make accounts (XEP-0077), and users cancel theirs.
    pub registration: bool,
    /// Limits before login and after.
    pub limits_before: XmlLimits,
    pub limits: XmlLimits,
    /// Silence after which a client is asked whether it is there, for XEP-0478; seconds.
    pub idle_s: u32,
    pub features: StreamFeatures,
}

/// What streams announce from the manifests, as XML.
#[derive(Clone, Debug, Default)]
pub struct StreamFeatures {
    /// Features of a logged-in stream, but for binding itself.
    pub logged_in: Vec<u8>,
    /// What Bind 2 enables along the way, as `<feature/>` elements.
    pub bind_inline: Vec<u8>,
}

impl C2sPolicy {
    /// For one domain, with TLS required and the usual limits.
    pub fn new(domain: &str, features: StreamFeatures) -> Self {
        Self {
            domains: vec![domain.into()],
            tls_required: true,
            scram: ScramHashes::default(),
            registration: false,
            limits_before: XmlLimits { stanza_bytes_max: 10_000, ..XmlLimits::default() },
            limits: XmlLimits::default(),
            idle_s: 1_800,
            features,
        }
    }
}
