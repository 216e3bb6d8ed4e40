//! What a federation core is told at its start, and again when the node reloads its configuration. Copied to every
//! federation core.

use super::input::TlsVersion;
use crate::base::hash::{Map, Set};
use crate::base::limit::Rate;
use crate::cluster::placement::NodeId;
use crate::stream::dialback::DialbackSecret;
use crate::stream::s2s::S2sPolicy;
use crate::xmpp::jid::BareJid;
use crate::xmpp::xml::framer::XmlLimits;
use std::sync::Arc;
use std::time::Duration;

/// All of it. Domains are prepared, and in the form that stands in JIDs (Unicode).
#[derive(Clone, Debug)]
pub struct FederationConfig {
    /// The domains that this node serves itself.
    pub domains: Vec<Arc<str>>,
    /// Sub-domains that components serve, which are reached through federation as well.
    pub components: Vec<Arc<str>>,
    /// Shards of this node: rings `0..shards`; this core has the ring `shards + index`.
    pub shards: u16,
    /// Which of `cores` federation cores this is; a remote domain is dealt with by one of them.
    pub index: u16,
    pub cores: u16,
    /// In a cluster, this node: each remote domain is one node's.
    pub node: Option<NodeId>,
    /// Of this run of the node, for the origin of rows.
    pub incarnation: u64,
    /// A storable message is handled when it is durable or confirmed, not when it is queued.
    pub stored: bool,
    /// XEP-0198 and XEP-0288 are offered and used, for peers that speak them wrongly.
    pub management: bool,
    pub bidi: bool,
    /// For domains that `policies` does not name.
    pub policy: Policy,
    pub policies: Map<Arc<str>, Policy>,
    /// If there are any, all other domains are blocked. `*.example.org` stands for what is below that domain.
    pub allow: Vec<Arc<str>>,
    pub block: Vec<Arc<str>>,
    /// Of dialback keys (XEP-0185): the same on all cores, made from what the system's generator gave; in a cluster the same
    /// on all nodes, as any of them may be asked for a key.
    pub dialback_secret: DialbackSecret,
    /// A domain that its server's certificate does not prove is asked for the document of RFC 7711.
    pub posh: bool,
    /// For how long stored messages wait for a domain that cannot be reached; then they bounce.
    pub patience: Duration,
    pub limits: Limits,
}

/// How a domain is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Only SASL EXTERNAL with a certificate that is valid for the domain; dialback is refused.
    pub require_certificate: bool,
    /// XEP-0220 is spoken where there is no valid certificate.
    pub dialback: bool,
    pub oldest_tls: TlsVersion,
}

impl Default for Policy {
    fn default() -> Self {
        Self { require_certificate: false, dialback: true, oldest_tls: TlsVersion::Tls12 }
    }
}

/// Bounds on everything that peers and remote domains can grow, for one core; each names what happens above.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Remote domains in memory; above, idle ones go, then stanzas for new ones are answered `resource-constraint`.
    pub domains: usize,
    /// Stanzas that wait for one domain, with those that are not confirmed, and their bytes; above,
    /// `resource-constraint`.
    pub queue_stanzas: usize,
    pub queue_bytes: usize,
    /// Bytes of all queues; above, `resource-constraint` for domains that are not connected.
    pub queues_bytes: usize,
    /// Look-ups and connections that are being made; above, domains wait in order of asking.
    pub dials: usize,
    /// Incoming connections, and those from one network (/24, /64); above, new ones are closed at once.
    pub incoming: usize,
    pub incoming_per_network: usize,
    /// Of those, connections of a network that have not authenticated any pair.
    pub strangers_per_network: usize,
    /// Pairs of domains that one stream may have authenticated, and those that it may have under verification; above,
    /// the answer to dialback is `resource-constraint`.
    pub pairs_per_stream: usize,
    pub pending_pairs_per_stream: usize,
    /// Verifications of dialback under way in all; above, as before.
    pub pending_pairs: usize,
    /// What a peer may send before and after it has authenticated.
    pub xml_before: XmlLimits,
    pub xml: XmlLimits,
    /// Stanzas and bytes of one peer over time; above, its connection is read slower.
    pub stanzas: Rate,
    pub bytes: Rate,
    /// Output that waits for a slow peer; above, nothing is added from its queue.
    pub output_soft: usize,
    /// Above, the connection is dropped.
    pub output_hard: usize,
    /// Stanzas sent and not confirmed on one stream; above, the queue waits.
    pub unconfirmed: usize,
    /// Stanzas received on one stream that the shards have not handled; above, it is not read.
    pub unhandled: usize,
    /// From the end of the dial to a stream that carries stanzas; and from accept to the first authenticated pair.
    pub negotiation: Duration,
    /// For the answer to a ping or a request for acknowledgement; above, the connection is lost.
    pub confirmation: Duration,
    /// A stream on which no stanza went for so long is closed.
    pub idle: Duration,
    /// Silence of a peer with an open stream after which it is asked for a sign of life.
    pub silence: Duration,
    /// The first and the longest wait between attempts to reach a domain.
    pub retry_first: Duration,
    pub retry_last: Duration,
    /// Attempts that failed in a row after which the breaker opens.
    pub breaker: u32,
    /// How long stanzas that are not stored wait for a domain to be reached; then they are answered.
    pub wait: Duration,
    /// For how long a stream can be resumed (XEP-0198).
    pub resume: Duration,
    /// Pages in which stored messages are read.
    pub page: u32,
}

impl Default for Limits {
    /// Those of a node without a configuration file, with one federation core.
    fn default() -> Self {
        Self {
            domains: 20_000,
            queue_stanzas: 10_000,
            queue_bytes: 16 << 20,
            queues_bytes: 256 << 20,
            dials: 64,
            incoming: 10_000,
            incoming_per_network: 1_000,
            strangers_per_network: 100,
            pairs_per_stream: 1_000,
            pending_pairs_per_stream: 16,
            pending_pairs: 1_000,
            xml_before: XmlLimits {
                stanza_bytes_max: 10_000,
                depth_max: 8,
                attributes_max: 32,
                ..XmlLimits::default()
            },
            xml: XmlLimits { stanza_bytes_max: 524_288, ..XmlLimits::default() },
            stanzas: Rate::FREE,
            bytes: Rate::FREE,
            output_soft: 256 << 10,
            output_hard: 4 << 20,
            unconfirmed: 2_000,
            unhandled: 2_000,
            negotiation: Duration::from_secs(30),
            confirmation: Duration::from_secs(60),
            idle: Duration::from_secs(600),
            silence: Duration::from_secs(300),
            retry_first: Duration::from_secs(1),
            retry_last: Duration::from_secs(300),
            breaker: 5,
            wait: Duration::from_secs(60),
            resume: Duration::from_secs(120),
            page: 100,
        }
    }
}

impl FederationConfig {
    /// How a domain is trusted.
    pub fn policy(&self, domain: &str) -> Policy {
        self.policies.get(domain).copied().unwrap_or(self.policy)
    }

    /// Whether we serve it, so that it may stand in `to` of what comes in.
    pub fn own(&self, domain: &str) -> Option<&Arc<str>> {
        self.domains.iter().chain(&self.components).find(|own| ***own == *domain)
    }

    /// Whether streams with this domain are refused. For a question now and then: it reads the lists.
    pub fn blocks(&self, domain: &str) -> bool {
        Refused::by(self).contains(domain)
    }

    /// What all streams have in common.
    pub(super) fn stream_policy(&self) -> S2sPolicy {
        let limits = &self.limits;
        S2sPolicy {
            domains: self.domains.iter().chain(&self.components).cloned().collect(),
            limits_before: limits.xml_before.clone(),
            limits: limits.xml.clone(),
            pairs_max: limits.pairs_per_stream,
            verifications_max: limits.pending_pairs,
            sasl_attempts_max: 3,
            idle_s: u32::try_from(limits.idle.as_secs()).unwrap_or(u32::MAX),
        }
    }

    /// The ring of the shard that owns a bare JID of ours.
    pub(super) fn shard_of(&self, jid: &BareJid) -> u16 {
        crate::cluster::placement::shard_at(jid.hash64(), self.shards).0
    }
}

/// Whom the lists of the configuration refuse, whatever their length.
#[derive(Debug)]
pub(super) struct Refused {
    block: Domains,
    /// `None` where all others are allowed.
    allow: Option<Domains>,
}

/// A list of domains. `*.example.org` stands for what is below that domain, and not for the domain itself.
#[derive(Debug, Default)]
struct Domains {
    exact: Set<Arc<str>>,
    below: Set<Arc<str>>,
}

impl Refused {
    pub(super) fn by(config: &FederationConfig) -> Refused {
        let allow = (!config.allow.is_empty()).then(|| Domains::of(&config.allow));
        Refused { block: Domains::of(&config.block), allow }
    }

    /// - cost: a look into a table for each label of the domain
    pub(super) fn contains(&self, domain: &str) -> bool {
        self.block.contains(domain)
            || self.allow.as_ref().is_some_and(|allow| !allow.contains(domain))
    }
}

impl Domains {
    fn of(list: &[Arc<str>]) -> Domains {
        let mut domains = Domains::default();
        for entry in list {
            match entry.strip_prefix("*.") {
                Some(above) => domains.below.insert(above.into()),
                None => domains.exact.insert(entry.clone()),
            };
        }
        domains
    }

    fn contains(&self, domain: &str) -> bool {
        let mut rest = domain;
        let mut parents = std::iter::from_fn(|| {
            let (label, parent) = rest.split_once('.')?;
            rest = parent;
            Some((label, parent))
        });
        let is_below =
            |(label, parent): (&str, &str)| !label.is_empty() && self.below.contains(parent);
        self.exact.contains(domain) || !self.below.is_empty() && parents.any(is_below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_what_is_below_and_not_for_the_domain_itself() {
        for (entry, domain, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.a.example", false),
            ("*.a.example", "b.a.example", true),
            ("*.a.example", "c.b.a.example", true),
            ("*.a.example", "a.example", false),
            ("*.a.example", ".a.example", false),
            ("*.a.example", "ba.example", false),
        ] {
            let list = Domains::of(&[entry.into()]);
            assert_eq!(list.contains(domain), expected, "{entry} {domain}");
        }
    }

    #[test]
    fn who_is_blocked_is_refused_though_allowed() {
        let lists = |block: &[&str], allow: &[&str]| Refused {
            block: Domains::of(&block.iter().map(|name| (*name).into()).collect::<Vec<_>>()),
            allow: (!allow.is_empty())
                .then(|| Domains::of(&allow.iter().map(|name| (*name).into()).collect::<Vec<_>>())),
        };
        assert!(!lists(&[], &[]).contains("a.example"));
        assert!(lists(&["a.example"], &[]).contains("a.example"));
        assert!(lists(&[], &["a.example"]).contains("b.example"));
        assert!(lists(&["b.a.example"], &["*.a.example"]).contains("b.a.example"));
        assert!(!lists(&["b.a.example"], &["*.a.example"]).contains("c.a.example"));
    }
}
