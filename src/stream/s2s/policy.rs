//! What is decided for streams between servers: once for all of them, and for each when its peer has said who it is.

use crate::xmpp::xml::framer::XmlLimits;
use std::sync::Arc;

/// What all streams between servers of a node have in common. One per federation core.
#[derive(Clone, Debug)]
pub struct S2sPolicy {
    /// Domains of ours that may be spoken to, prepared.
    pub domains: Vec<Arc<str>>,
    /// Limits before the peer has proved a domain and after.
    pub limits_before: XmlLimits,
    pub limits: XmlLimits,
    /// Pairs of domains on one stream: those that are authenticated, and as many again that wait for an answer.
    pub pairs_max: usize,
    /// Keys that wait to be verified by the peer of one stream.
    pub verifications_max: usize,
    /// Failed attempts at SASL on one stream (RFC 6120 §6.4.5).
    pub sasl_attempts_max: u8,
    /// Silence after which a stream is closed or asked whether it is there, for XEP-0478; seconds.
    pub idle_s: u32,
}

impl S2sPolicy {
    /// For one domain, with the usual limits.
    pub fn new(domain: &str) -> S2sPolicy {
        S2sPolicy {
            domains: vec![domain.into()],
            limits_before: XmlLimits {
                stanza_bytes_max: 10_000,
                depth_max: 16,
                ..XmlLimits::default()
            },
            limits: XmlLimits::default(),
            pairs_max: 64,
            verifications_max: 64,
            sasl_attempts_max: 3,
            idle_s: 600,
        }
    }

    /// Whether this prepared domain is one of ours.
    pub fn serves(&self, domain: &str) -> bool {
        self.domains.iter().any(|known| **known == *domain)
    }
}

/// What a peer that opened a stream to us may do next. STARTTLS alone is offered while the stream is not secure, and
/// EXTERNAL not again once the peer has authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Its certificate is valid for the domain that its header is from (XEP-0178 §3).
    pub external: bool,
    /// XEP-0220.
    pub dialback: bool,
    /// XEP-0288.
    pub bidi: bool,
    /// XEP-0198.
    pub management: bool,
}
