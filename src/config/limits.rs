//! `[limits]`: every bound that an operator may want to move. What each is for stands in `config/corefire.toml`.

use std::net::IpAddr;

use super::reader::Section;
use crate::base::network::Network;

/// Bounds of the node. Units are in the names; what has none counts things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Peers within these networks are not rate-limited. Bounds on memory hold for them as well.
    pub exempt: Vec<Network>,
    /// A stanza larger than this ends its stream with `policy-violation`.
    pub stanza_bytes: u32,
    /// The same before authentication (RFC 6120 §13.12 wants at least 10 000).
    pub stanza_bytes_before_login: u32,
    /// Elements within elements, the stanza itself being 1: `policy-violation`.
    pub depth: u32,
    /// Attributes and namespace declarations of one element: `policy-violation`.
    pub attributes: u32,
    /// Client connections of the node; more are closed as they come.
    pub connections: u32,
    /// TLS handshakes that a shard runs at a time; more connections wait to be accepted.
    pub handshakes_in_flight: u32,
    /// From accept to a finished login: `connection-timeout`.
    pub login_timeout_s: u32,
    /// Without a byte for this long, the client is pinged; without an answer for as long as `login_timeout_s`, it is gone.
    pub silence_s: u32,
    /// Output waiting for one connection; a client that reads slower than it is written to is dropped and may resume.
    pub output_bytes: u32,
    /// Sessions of one account: `resource-constraint` at bind.
    pub resources_per_account: u32,
    /// Contacts of one account: `resource-constraint`.
    pub roster_items: u32,
    /// Groups of one contact: `policy-violation`.
    pub roster_groups_per_item: u32,
    /// A vCard: `policy-violation`.
    pub vcard_bytes: u32,
    /// Private XML of one account, and its elements: `policy-violation`.
    pub private_bytes: u32,
    pub private_items: u32,
    /// Messages kept for an account that is not online: `service-unavailable` to the sender.
    pub offline_messages: u32,
    /// How long a broken session can be resumed (XEP-0198).
    pub resume_s: u32,
    /// Stanzas sent to a session and not acknowledged (XEP-0198); past it the session ends.
    pub resume_queue: u32,
    /// Stanzas waiting while an account is read from the store: `resource-constraint`.
    pub pending_stanzas_per_account: u32,
    /// Accounts in memory, for the whole node; the one idle for longest goes first.
    pub accounts_cached: u32,
    /// Password checks (PBKDF2) waiting for a side thread: `temporary-auth-failure`.
    pub password_checks_queue: u32,
    /// How long a stopping node waits for its clients and its store.
    pub shutdown_s: u32,
}

impl Limits {
    pub(super) fn read(s: &mut Section<'_>) -> Limits {
        let limits = Limits {
            exempt: s.list("exempt", &[], &["127.0.0.0/8"], str::parse),
            stanza_bytes: s.integer("stanza_bytes", 262_144, 10_000..=16_777_216),
            stanza_bytes_before_login: s.integer(
                "stanza_bytes_before_login",
                10_000,
                10_000..=262_144,
            ),
            depth: s.integer("depth", 64, 8..=1024),
            attributes: s.integer("attributes", 64, 8..=1024),
            connections: s.integer("connections", 100_000, 1..=10_000_000),
            handshakes_in_flight: s.integer("handshakes_in_flight", 64, 1..=65_536),
            login_timeout_s: s.integer("login_timeout_s", 30, 1..=3600),
            silence_s: s.integer("silence_s", 1800, 10..=86_400),
            output_bytes: s.integer("output_bytes", 4_194_304, 65_536..=1_073_741_824),
            resources_per_account: s.integer("resources_per_account", 32, 1..=10_000),
            roster_items: s.integer("roster_items", 2000, 1..=100_000),
            roster_groups_per_item: s.integer("roster_groups_per_item", 32, 1..=1000),
            vcard_bytes: s.integer("vcard_bytes", 131_072, 1_024..=16_777_216),
            private_bytes: s.integer("private_bytes", 262_144, 0..=16_777_216),
            private_items: s.integer("private_items", 64, 0..=10_000),
            offline_messages: s.integer("offline_messages", 1000, 0..=1_000_000),
            resume_s: s.integer("resume_s", 300, 0..=86_400),
            resume_queue: s.integer("resume_queue", 2000, 1..=1_000_000),
            pending_stanzas_per_account: s.integer("pending_stanzas_per_account", 256, 1..=65_536),
            accounts_cached: s.integer("accounts_cached", 100_000, 64..=100_000_000),
            password_checks_queue: s.integer("password_checks_queue", 256, 1..=65_536),
            shutdown_s: s.integer("shutdown_s", 10, 0..=3600),
        };
        if limits.stanza_bytes_before_login > limits.stanza_bytes {
            let remedy = s.remedy("stanza_bytes_before_login", &limits.stanza_bytes.to_string());
            s.problem(
                "stanza_bytes_before_login",
                format!("more than stanza_bytes ({}); {remedy}", limits.stanza_bytes),
            );
        }
        limits
    }

    /// Whether a peer is free of rate limits.
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(address))
    }
}
