//! `[federation]`: other servers, how they are found, whom of them the server speaks with and what they must prove.

use super::Check;
use super::limits::rate;
use super::read::{address, domain, optional_path, path};
use super::reader::Section;
use super::tls::load_trust_anchors;
use crate::federation::discovery::{Routes, dns_name, literal};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Threads for other servers above this are a slip of the pen.
const EXECUTORS_MAX: u16 = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federation {
    pub enabled: bool,
    pub listen: Vec<SocketAddr>,
    pub direct_tls_listen: Vec<SocketAddr>,
    pub executors: u16,
    /// XEP-0198 and XEP-0288 are spoken with servers that have them.
    pub stream_management: bool,
    pub bidirectional: bool,
    /// Servers to ask; empty: the system's.
    pub dns: Vec<SocketAddr>,
    /// By domain, or `*.` and the domain above: where to connect instead of asking the DNS; all of them are taken by `Routes`.
    pub routes: BTreeMap<String, String>,
    /// Authorities that certify servers, beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Of domains that have none of their own.
    pub policy: PeerPolicy,
    /// By prepared domain.
    pub domains: BTreeMap<String, PeerPolicy>,
    /// Prepared domains, each as it is or as `*.` and the domain above; empty: all that are not in `block`.
    pub allow: Vec<String>,
    pub block: Vec<String>,
    /// How long a message that must be kept waits for a domain that cannot be reached.
    pub patience_s: u32,
    /// Whose signatures answers of the DNS are checked with.
    pub dnssec: Dnssec,
    /// A domain that the certificate does not prove is asked for a document that names it (RFC 7711).
    pub posh: bool,
    /// By host as the DNS has it: where its server of HTTPS is, instead of asking the DNS.
    pub posh_routes: BTreeMap<String, SocketAddr>,
    /// Addresses of this machine and of private networks are taken from the DNS; see `Federation::takes_local_addresses`.
    pub local_addresses: LocalAddresses,
    pub limits: FederationLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalAddresses {
    /// From servers that the operator names.
    Auto,
    On,
    Off,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dnssec {
    Off,
    /// Those of the root zone.
    Root,
    /// Of the DNSKEY records in a file.
    File(PathBuf),
}

/// What a remote domain must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPolicy {
    /// Nothing but a certificate will do.
    pub require_certificate: bool,
    /// It may prove its name by calling back (XEP-0220).
    pub dialback: bool,
    pub min_tls: MinTls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinTls {
    Tls12,
    Tls13,
}

/// Bounds of all that other servers can have the node keep or do, for the whole node. What has no unit in its name counts
/// things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederationLimits {
    pub domains: u32,
    pub queue_stanzas: u32,
    pub queue_bytes: u32,
    pub queues_bytes: u32,
    pub dials: u32,
    pub connections: u32,
    pub connections_per_network: u32,
    pub strangers_per_network: u32,
    pub pairs_per_stream: u32,
    pub pending_pairs_per_stream: u32,
    pub pending_pairs: u32,
    pub stanza_bytes: u32,
    pub stanzas_per_s: u32,
    pub bytes_per_s: u32,
    pub output_soft_bytes: u32,
    pub output_bytes: u32,
    pub unconfirmed: u32,
    pub unhandled: u32,
    pub connect_s: u32,
    pub negotiation_s: u32,
    pub confirmation_s: u32,
    pub idle_s: u32,
    pub silence_s: u32,
    pub retry_first_s: u32,
    pub retry_last_s: u32,
    pub breaker: u32,
    pub wait_s: u32,
    pub resume_s: u32,
}

impl Federation {
    /// Whether an address of this machine or of a private network is taken from the DNS.
    pub fn takes_local_addresses(&self) -> bool {
        match self.local_addresses {
            LocalAddresses::Auto => !self.dns.is_empty(),
            LocalAddresses::On => true,
            LocalAddresses::Off => false,
        }
    }

    /// The routes, as they were checked.
    pub fn routes(&self) -> Routes {
        let mut routes = Routes::default();
        for (domain, place) in &self.routes {
            // Each was taken when the configuration was read.
            let _ = routes.insert(domain, place);
        }
        routes
    }
}

/// - takes: `ours`, all domains that are served here, components' among them
pub(super) fn federation(s: &mut Section<'_>, ours: &[String], check: Check) -> Federation {
    let listen = s.list("listen", &["127.0.0.1:5269"], &["0.0.0.0:5269"], address);
    let direct = s.list("direct_tls_listen", &["127.0.0.1:5270"], &["0.0.0.0:5270"], address);
    let policy = peer_policy(
        s,
        PeerPolicy { require_certificate: false, dialback: true, min_tls: MinTls::Tls12 },
    );
    let mut federation = Federation {
        enabled: s.boolean("enabled", false),
        executors: s.integer("executors", 1, 1..=EXECUTORS_MAX),
        stream_management: s.boolean("stream_management", true),
        bidirectional: s.boolean("bidirectional", true),
        dns: s.list("dns", &[], &["192.0.2.53"], name_server),
        routes: BTreeMap::new(),
        ca_file: s.parsed("ca_file", "", "/etc/corefire/federation-ca.pem", optional_path),
        policy,
        domains: BTreeMap::new(),
        allow: s.list("allow", &[], &["example.org"], listed),
        block: s.list("block", &[], &["example.org"], listed),
        patience_s: s.integer("patience_s", 3_600, 0..=604_800),
        dnssec: s.parsed("dnssec", "off", "root", |text| match text {
            "off" => Ok(Dnssec::Off),
            "root" => Ok(Dnssec::Root),
            file => path(file).map(Dnssec::File),
        }),
        posh: s.boolean("posh", false),
        posh_routes: BTreeMap::new(),
        local_addresses: s.choice(
            "local_addresses",
            &[
                ("auto", LocalAddresses::Auto),
                ("on", LocalAddresses::On),
                ("off", LocalAddresses::Off),
            ],
        ),
        limits: s.section("limits", limits),
        listen,
        direct_tls_listen: direct,
    };
    if let Some(path) = &federation.ca_file
        && check == Check::ValuesAndCertificates
        && let Err(fault) = load_trust_anchors(path)
    {
        s.problem("ca_file", fault.to_string());
    }
    federation.routes = s.texts("routes", "192.0.2.1:5269", |name, place| {
        let mut routes = Routes::default();
        routes.insert(name, place).map_err(|fault| format!("{place:?}: {fault}"))?;
        let listed = listed(name)?;
        match ours.contains(&listed) {
            true => Err("is served here".to_owned()),
            false => Ok((listed, place.to_owned())),
        }
    });
    federation.posh_routes = s.texts("posh_routes", "192.0.2.1:443", |name, place| {
        let host = dns_name(name).filter(|_| literal(name).is_none());
        let host = host.ok_or_else(|| "is no name of a host".to_owned())?;
        let place = https_server(place).map_err(|fault| format!("{place:?} {fault}"))?;
        Ok((host, place))
    });
    let domains = s.each("domains", |s, name| {
        let own = peer_policy(s, policy);
        match remote(name, ours) {
            Ok(domain) => Some((domain, own)),
            Err(fault) => {
                s.problem_here(format!("{name:?} {fault}; write the domain of another server"));
                None
            }
        }
    });
    federation.domains = domains.into_values().flatten().collect();
    if federation.enabled {
        check_lists(s, &federation, ours);
    }
    federation
}

fn peer_policy(s: &mut Section<'_>, otherwise: PeerPolicy) -> PeerPolicy {
    let names = [("1.2", MinTls::Tls12), ("1.3", MinTls::Tls13)];
    let standard = match otherwise.min_tls {
        MinTls::Tls12 => "1.2",
        MinTls::Tls13 => "1.3",
    };
    PeerPolicy {
        require_certificate: s.boolean("require_certificate", otherwise.require_certificate),
        dialback: s.boolean("dialback", otherwise.dialback),
        min_tls: s.parsed("min_tls", standard, standard, |text| {
            let found = names.iter().find(|(name, _)| *name == text).map(|(_, version)| *version);
            found.ok_or("is not one of \"1.2\", \"1.3\"")
        }),
    }
}

fn limits(s: &mut Section<'_>) -> FederationLimits {
    let limits = FederationLimits {
        domains: s.integer("domains", 20_000, 16..=10_000_000),
        queue_stanzas: s.integer("queue_stanzas", 10_000, 16..=1_000_000),
        queue_bytes: s.integer("queue_bytes", 16_777_216, 262_144..=1_073_741_824),
        queues_bytes: s.integer("queues_bytes", 268_435_456, 1_048_576..=u32::MAX),
        dials: s.integer("dials", 64, 1..=10_000),
        connections: s.integer("connections", 10_000, 2..=1_000_000),
        connections_per_network: s.integer("connections_per_network", 1_000, 1..=1_000_000),
        strangers_per_network: s.integer("strangers_per_network", 100, 1..=1_000_000),
        pairs_per_stream: s.integer("pairs_per_stream", 1_000, 1..=100_000),
        pending_pairs_per_stream: s.integer("pending_pairs_per_stream", 16, 1..=10_000),
        pending_pairs: s.integer("pending_pairs", 1_000, 1..=1_000_000),
        stanza_bytes: s.integer("stanza_bytes", 524_288, 10_000..=16_777_216),
        stanzas_per_s: rate(s, "stanzas_per_s", 10_000, 10),
        bytes_per_s: rate(s, "bytes_per_s", 20_971_520, 10_000),
        output_soft_bytes: s.integer("output_soft_bytes", 262_144, 16_384..=1_073_741_824),
        output_bytes: s.integer("output_bytes", 4_194_304, 65_536..=1_073_741_824),
        unconfirmed: s.integer("unconfirmed", 2_000, 16..=1_000_000),
        unhandled: s.integer("unhandled", 2_000, 16..=1_000_000),
        connect_s: s.integer("connect_s", 15, 1..=120),
        negotiation_s: s.integer("negotiation_s", 30, 1..=300),
        confirmation_s: s.integer("confirmation_s", 60, 1..=600),
        idle_s: s.integer("idle_s", 600, 10..=86_400),
        silence_s: s.integer("silence_s", 300, 10..=86_400),
        retry_first_s: s.integer("retry_first_s", 1, 1..=60),
        retry_last_s: s.integer("retry_last_s", 300, 1..=86_400),
        breaker: s.integer("breaker", 5, 1..=1_000),
        wait_s: s.integer("wait_s", 60, 1..=3_600),
        resume_s: s.integer("resume_s", 120, 0..=3_600),
    };
    if limits.output_soft_bytes > limits.output_bytes {
        let remedy = s.remedy("output_soft_bytes", &limits.output_bytes.to_string());
        let message = format!("more than output_bytes ({}); {remedy}", limits.output_bytes);
        s.problem("output_soft_bytes", message);
    }
    if limits.retry_first_s > limits.retry_last_s {
        let remedy = s.remedy("retry_first_s", &limits.retry_last_s.to_string());
        let message = format!("more than retry_last_s ({}); {remedy}", limits.retry_last_s);
        s.problem("retry_first_s", message);
    }
    limits
}

fn check_lists(s: &mut Section<'_>, federation: &Federation, ours: &[String]) {
    let mut seen = BTreeSet::new();
    let lists =
        [("listen", &federation.listen), ("direct_tls_listen", &federation.direct_tls_listen)];
    for (key, addresses) in lists {
        for address in addresses.iter().filter(|address| address.port() != 0) {
            if !seen.insert(*address) {
                s.problem(key, format!("{address} is listened on twice; write another port"));
            }
        }
    }
    for (key, list) in [("allow", &federation.allow), ("block", &federation.block)] {
        if let Some(own) = list.iter().find(|domain| ours.contains(domain)) {
            s.problem(key, format!("{own:?} is served here; it names other servers' domains"));
        }
    }
    if let Some(both) = federation.allow.iter().find(|domain| federation.block.contains(domain)) {
        s.problem("block", format!("{both:?} is in allow as well; write it in one of them"));
    }
    let none_may = |policy: &PeerPolicy| !policy.require_certificate && !policy.dialback;
    if none_may(&federation.policy) {
        let remedy = s.remedy("require_certificate", "true");
        s.problem("dialback", format!("without it servers need a certificate; {remedy} beside it"));
    }
    for (domain, policy) in &federation.domains {
        if none_may(policy) && !none_may(&federation.policy) {
            let message = format!(
                "domains.{domain:?}: without dialback it needs a certificate; write \
                 require_certificate = true beside it"
            );
            s.problem_here(message);
        }
    }
}

/// The domain of another server.
fn remote(name: &str, ours: &[String]) -> Result<String, String> {
    let domain = domain(name)?;
    match ours.contains(&domain) {
        true => Err("is served here".to_owned()),
        false => Ok(domain),
    }
}

/// A domain, or `*.` before one for all that are below it.
fn listed(text: &str) -> Result<String, String> {
    match text.strip_prefix("*.") {
        Some(above) => domain(above).map(|above| format!("*.{above}")),
        None => domain(text),
    }
}

/// - takes: an IP address, with a port or without
fn name_server(text: &str) -> Result<SocketAddr, &'static str> {
    const PORT: u16 = 53;
    text.parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, PORT))
        .or_else(|_| text.parse())
        .map_err(|_| "is not the IP address of a DNS server, with a port or without")
}

/// - takes: an IP address, with a port or without
fn https_server(text: &str) -> Result<SocketAddr, &'static str> {
    const PORT: u16 = 443;
    text.parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, PORT))
        .or_else(|_| text.parse())
        .ok()
        .filter(|place| place.port() != 0)
        .ok_or("is not the IP address of a server, with a port or without")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::Config;

    fn load(sets: &[&str]) -> Result<Config, String> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Config::load(None, &sets, None).map_err(|error| error.to_string())
    }

    #[test]
    fn routes_are_by_domain_in_its_prepared_form() {
        let config = load(&["federation.routes.\"Example.ORG\"=tls://[2001:db8::1]:5270"]).unwrap();
        assert_eq!(config.federation.routes["example.org"], "tls://[2001:db8::1]:5270");
        let federation =
            load(&["federation.routes.\"*.Example.ORG\"=xmpp.example.net"]).unwrap().federation;
        assert!(federation.routes.contains_key("*.example.org"));
        assert!(federation.routes().of("a.example.org").is_some());
    }

    #[test]
    fn servers_of_https_are_by_host_as_the_dns_has_it() {
        let config = load(&[
            "federation.posh_routes.\"B\u{fc}cher.Example\"=192.0.2.1",
            "federation.posh_routes.\"a.example\"=\"[2001:db8::1]:8443\"",
        ]);
        let routes = config.unwrap().federation.posh_routes;
        assert_eq!(routes["xn--bcher-kva.example"].to_string(), "192.0.2.1:443");
        assert_eq!(routes["a.example"].to_string(), "[2001:db8::1]:8443");
    }

    #[test]
    fn a_domain_has_the_policy_of_all_but_for_what_it_says() {
        let config = load(&[
            "federation.min_tls=\"1.3\"",
            "federation.domains.\"example.org\".dialback=false",
            "federation.domains.\"example.org\".require_certificate=true",
        ]);
        let federation = config.unwrap().federation;
        let own = federation.domains["example.org"];
        assert_eq!(
            (own.dialback, own.require_certificate, own.min_tls),
            (false, true, MinTls::Tls13)
        );
        assert!(federation.policy.dialback);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_remedy() {
        let on = "federation.enabled=true";
        for (sets, told) in [
            (
                vec!["federation.routes.\"x.org\"=192.0.2.1:0"],
                "the port is a number from 1 to 65535",
            ),
            (vec!["federation.routes.localhost=192.0.2.1:1"], "is served here"),
            (vec!["federation.domains.localhost.dialback=true"], "is served here"),
            (vec!["federation.dns=[\"ns.example.org\"]"], "is not the IP address of a DNS server"),
            (
                vec!["federation.posh_routes.\"x.org\"=www.example.org"],
                "is not the IP address of a server",
            ),
            (vec!["federation.posh_routes.\"192.0.2.1\"=192.0.2.1"], "is no name of a host"),
            (vec!["federation.min_tls=\"1.1\""], "is not one of \"1.2\", \"1.3\""),
            (vec![on, "federation.dialback=false"], "write require_certificate = true beside it"),
            (vec![on, "federation.block=[\"localhost\"]"], "it names other servers' domains"),
            (
                vec![on, "federation.allow=[\"x.org\"]", "federation.block=[\"x.org\"]"],
                "is in allow as well",
            ),
            (vec![on, "federation.direct_tls_listen=[\"127.0.0.1:5269\"]"], "is listened on twice"),
            (vec![on, "federation.listen=[\"127.0.0.1:5222\"]"], "clients"),
        ] {
            let error = load(&sets).unwrap_err();
            assert!(error.contains(told), "{sets:?}: {error} / {told}");
        }
        assert!(load(&["federation.dialback=false"]).is_ok(), "it is not enabled");
    }
}
